/*
 * train.h -- a run from its regime to its rows.
 */
#ifndef SIM_TRAIN_H
#define SIM_TRAIN_H

#include "data/stream.h"
#include "data/text.h"
#include "sim/optimizer.h"
#include "sim/progress.h"
#include "sim/worker.h"

enum train_status {
    TRAIN_DONE,
    TRAIN_ALREADY_DONE,
    TRAIN_DIVERGED,
    TRAIN_STOPPED,  /* by a signal: *signal says which */
    TRAIN_ELSEWHERE /* another process is at this run */
};

/* Trains what c says and writes every epoch to the database.  *summary: the one line of results,
 * a new string (NULL if there are none).  Progress goes to stderr.  After SIGINT or SIGTERM the
 * step is ended, the run noted as stopped, and *signal set. */
bool train_run(const struct config *c, enum train_status *status, char **summary, int *signal,
               struct error *err);

/* Forward alone, at a batch of its own, so that perplexity does not depend on K. */
struct evaluation {
    struct graph graph;
    struct stream part[TEXT_PARTS];
    float *state;
    double *loss; /* [batch][bptt] sums over the segments */
};

struct store;

struct train {
    const struct config *config;
    struct device dev;
    struct text text;
    struct parameters parameters;
    struct workers workers;
    struct optimizer optimizer;
    struct step_block block;
    struct stream data;
    struct evaluation evaluation;
    struct progress progress;
    struct store *store;
    int64_t run;

    uint64_t segments; /* of an epoch */
    uint64_t steps;    /* of an epoch */
    double lr_factor;  /* of annealing and decay */
    float *best;       /* [P] the parameters that were best on validation */
    double best_loss;
    uint32_t best_epoch;
    bool has_best;
    size_t loss_rows; /* of workers.loss_sum */
    double *loss;     /* [loss_rows] on the host */
};

/* The parts of train_run() that need neither database nor files, for tests and benches: t has
 * config, an open device and the text. */

/* Plans the memory and allocates everything that steps need; a run that does not fit is a fault. */
bool train_prepare(struct train *t, struct error *err);

/* One update; returns the samples (tokens) in it.  Only launches. */
uint64_t train_step(struct train *t, uint32_t epoch, uint64_t step);

/* Mean loss over the predicted tokens of a part, with the given parameters; *scored is how many. */
double train_evaluate(struct train *t, enum text_part part, const float *params, uint64_t *scored);

/* Frees all, closes device and database. */
void train_destroy(struct train *t);

#endif

/*
 * train.h -- steps and evaluations: training without database, files or terminal.
 *
 * Fill config, dev (open) and text; then train_plan(), train_prepare(), and train_step() after
 * train_step().  run.c does, and so do the tests.
 */
#ifndef SIM_TRAIN_H
#define SIM_TRAIN_H

#include "data/stream.h"
#include "data/text.h"
#include "sim/dump.h"
#include "sim/measure.h"
#include "sim/optimizer.h"
#include "sim/plan.h"
#include "sim/step_log.h"
#include "sim/worker.h"

/* Forward alone, at a batch of its own, so that perplexity does not depend on K. */
struct evaluation {
    struct graph graph;
    struct stream part[TEXT_PARTS]; /* those that can be evaluated */
    float *state;
    double *loss; /* [batch][bptt] sums over the segments */
};

struct train {
    const struct config *config;
    struct device dev;
    struct text text;
    struct plan plan;
    struct parameters parameters;
    struct workers workers;
    struct optimizer optimizer;
    struct step_block block;
    struct stream data;
    struct evaluation evaluation;

    uint64_t segments; /* of an epoch */
    uint64_t steps;    /* of an epoch */
    double lr_before;  /* of the last step; 0: there was none */
    double lr_factor;  /* of annealing and decay: train_next_lr() */
    size_t loss_rows;  /* of workers.loss_sum */
    double *loss;      /* [loss_rows] on the host */

    bool wire_holds; /* with --verify-wire: every message so far was what was counted; ... */
    struct error wire_fault; /* ... else what was wrong */
    struct dump *dump;       /* NULL without --dump */
    struct step_log log;     /* of --log-every */
    struct measure measure;  /* off until measure_create() */
};

/* Steps of an epoch, and how much memory the run needs; a text that is too short or a run that does not fit is a fault. */
bool train_plan(struct train *t, struct error *err);

/* Allocates everything that steps need. */
void train_prepare(struct train *t);

/* One update; returns the tokens in it.  Only launches. */
uint64_t train_step(struct train *t, uint32_t epoch, uint64_t step);

/* Parts of a step, for whoever has other gradients in mind than the network's.  Fills the block of what
 * changes from step to step, and returns the step's tokens; and what becomes of the gradients of a
 * group that workers_enter() has put into a lane, up to what its memory keeps. */
uint64_t train_post(struct train *t, uint32_t epoch, uint64_t step);
void train_send(struct train *t, struct lane *lane);

/* Mean loss over the predicted tokens of a part, with the given parameters; *scored is how many. */
double train_evaluate(struct train *t, enum text_part part, const float *params, uint64_t *scored);

/* What the regime's rule makes of the learning rate when an epoch has ended: improved tells
 * whether its validation loss is below the best before it. */
void train_next_lr(struct train *t, uint32_t epoch, bool improved);

/* In place of train_plan() and train_prepare() where no step is to come, but evaluations of one part
 * of the text: needs no more than they do. */
bool train_plan_evaluation(struct train *t, enum text_part part, struct error *err);
void train_prepare_evaluation(struct train *t, enum text_part part);

/* Frees all and closes the device. */
void train_destroy(struct train *t);

#endif

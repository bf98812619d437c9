/*
 * train.h -- steps and evaluations: training without database, files or terminal.
 *
 * Fill config, dev (open) and data; then train_plan(), train_prepare(), and train_step() after
 * train_step().  run.c does, and so do the tests.
 */
#ifndef SIM_TRAIN_H
#define SIM_TRAIN_H

#include "data/source.h"
#include "sim/dump.h"
#include "sim/measure.h"
#include "sim/optimizer.h"
#include "sim/plan.h"
#include "sim/step_log.h"
#include "sim/worker.h"

/* Forward alone, at a batch of its own, so that its results do not depend on K. */
struct evaluation {
    struct graph graph;
    float *state;
    double *loss;     /* [batch][bptt] sums over the batches */
    uint32_t *top[2]; /* of images, the same: counts, as in struct workers */
};

/* Of a part of the data; shares of the images whose class came first, or among the first 5. */
struct score {
    double loss;       /* the mean */
    double top1, top5; /* of a text 0 */
    uint64_t scored;   /* predicted tokens, or images */
};

struct train {
    const struct config *config;
    struct device dev;
    struct plan plan;
    struct parameters parameters;
    struct workers workers;
    struct optimizer optimizer;
    struct step_block block;
    struct source data;
    struct evaluation evaluation;

    uint64_t steps;   /* of an epoch */
    double lr_before; /* of the last step; 0: there was none */
    double lr_factor; /* of annealing and decay: train_next_lr() */
    size_t loss_rows; /* of workers.loss_sum */
    double *loss;     /* [loss_rows] on the host */

    bool wire_holds; /* with --verify-wire: every message so far was what was counted; ... */
    struct error wire_fault; /* ... else what was wrong */
    struct dump *dump;       /* NULL without --dump */
    struct step_log log;     /* of --log-every */
    struct measure measure;  /* off until measure_create() */
};

/* Before the data are loaded: which set, and how it is read. */
void train_source(struct train *t);

/* Steps of an epoch, and how much memory the run needs; too few data or a run that does not fit is
 * a fault. */
bool train_plan(struct train *t, struct error *err);

/* Allocates everything that steps need. */
void train_prepare(struct train *t);

/* One update; returns the tokens or images in it.  Only launches, but for what begins an epoch. */
uint64_t train_step(struct train *t, uint32_t epoch, uint64_t step);

/* Parts of a step, for whoever has other gradients in mind than the network's.  Fills the block of
 * what changes from step to step, and returns the step's samples; and what becomes of the gradients
 * of a group that has entered a lane, up to what its memory keeps.  Of *t the latter two need but
 * config, workers, optimizer.sum, and what may be off: dump, measure, wire_holds. */
uint64_t train_post(struct train *t, uint32_t epoch, uint64_t step);
void train_send(struct train *t, struct lane *lane);

/* Then, when all groups are in: what everybody gets is in optimizer.sum. */
void train_deliver(struct train *t);

/* A part, with the given parameters and what is kept behind them. */
struct score train_evaluate(struct train *t, enum text_part part, const float *params);

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

/*
 * measure.h -- what costs a look at every element, or a wait: measured in one step of an epoch, or
 * in one of N.
 *
 * Such a step runs launch by launch and waits between its stages, as one that is dumped does; those
 * that are replayed stay as they were, and all results are the same with it or without.  It is the
 * epoch's last step but one (the last is often shorter), and with --measure-every N each N-th of the
 * run, too.  A struct of zeros measures nothing.
 */
#ifndef SIM_MEASURE_H
#define SIM_MEASURE_H

#include "sim/worker.h"

/* A compressed tensor, added up over the steps that were measured and (squares) all workers. */
struct measured_tensor {
    double sent;         /* elements that any worker sent */
    double wanted, left; /* squares of what was wanted, and of that less what was sent */
};

struct measure {
    bool on, active;        /* at all; in this step */
    uint64_t steps;         /* that were measured since the epoch began */
    struct stopwatch watch; /* of those */

    struct measured_tensor *tensor; /* [tensors] */
    double *host;                   /* [2 K + 1][tensors] of one step, and on the device: */
    double *wanted, *left;          /* [K][tensors] squares */
    double *sent;                   /* [tensors] elements */
    const float *from;              /* what a lane wanted to send */
    float *unsent; /* [P] 0 where somebody sent an element, else 1; NULL: all are sent */
};

void measure_create(struct measure *m, const struct workers *w);
void measure_destroy(struct measure *m, const struct workers *w);

/* With the scratch that it takes aside, and that workers_residual_norm() does. */
size_t measure_bytes(const struct config *c, const struct parameters *parameters);

/* In the order in which it happens; those of a lane for each group of workers.  due: this is the one
 * step of the epoch. */
void measure_begin(struct measure *m, struct workers *w, const struct step *step, bool due);
void measure_wanted(struct measure *m, struct workers *w, struct lane *lane);
void measure_left(struct measure *m, struct workers *w, struct lane *lane);
void measure_end(struct measure *m, struct workers *w);

/* The next epoch begins. */
void measure_clear(struct measure *m, const struct workers *w);

#endif

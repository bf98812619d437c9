/*
 * plan.h -- how much memory a run needs, and how many workers are stacked at a time.
 */
#ifndef SIM_PLAN_H
#define SIM_PLAN_H

#include "sim/config.h"
#include "sim/graph.h"
#include "sim/worker.h"

struct plan {
    uint32_t group;   /* workers stacked in a batch */
    uint32_t streams; /* groups at work at once, a lane each */
    size_t bytes;     /* of the whole run on the device: the parts, lane once a stream */
    size_t available; /* what is free but for a spare */

    struct {
        size_t parameters; /* with their transposed copy, the best so far, the optimizer's, and a
                            * measured step's */
        size_t workers;    /* what the workers keep from step to step */
        size_t evaluation; /* activations of its graph */
        size_t data;       /* with the records of --log-every */
        struct lane_bytes lane; /* of each stream */
    } part;
};

/* Takes --group and --streams where given, else picks: as many workers in a group as fit, in
 * groups of like size.  Before anything is allocated: a run that does not fit is a fault that says
 * what is needed, what there is, and what would fit; *plan then is the least that was tried.  Fills
 * *parameters. */
bool plan_make(struct plan *plan, struct device *dev, const struct config *c,
               const struct network *network, struct parameters *parameters, size_t data_bytes,
               struct error *err);

/* The same for evaluations alone: *plan then has neither groups nor streams. */
bool plan_evaluation(struct plan *plan, struct device *dev, const struct config *c,
                     const struct network *network, struct parameters *parameters,
                     size_t data_bytes, struct error *err);

/* The same for given gradients of all workers at once; *parameters are placed. */
bool plan_given(struct plan *plan, struct device *dev, const struct config *c,
                struct parameters *parameters, struct error *err);

#endif

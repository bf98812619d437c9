/*
 * plan.h -- how much memory a run needs, and how many workers are stacked at a time.
 */
#ifndef SIM_PLAN_H
#define SIM_PLAN_H

#include "sim/config.h"
#include "sim/graph.h"

struct plan {
    uint32_t group;   /* workers stacked in a batch */
    uint32_t streams; /* groups at work at once, a lane each */
    size_t bytes;     /* of the whole run on the device */
    size_t available;
};

/* Takes --group and --streams where given, else picks: as many workers in a group as fit, in
 * groups of like size.  Before anything is allocated: a run that does not fit is a fault that says
 * what is needed, what there is, and what would fit.  Fills *parameters. */
bool plan_make(struct plan *plan, struct device *dev, const struct config *c,
               const struct network *network, struct parameters *parameters, size_t data_bytes,
               struct error *err);

#endif

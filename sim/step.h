/*
 * step.h -- what changes from step to step, in one block on the device.
 *
 * Kernels get its address, never its values, so that a step captured once can be replayed: one
 * copy before the step fills the block (train.c).
 */
#ifndef SIM_STEP_H
#define SIM_STEP_H

#include <stdint.h>

struct step {
    uint64_t seed;
    uint64_t number;   /* of the step in the run, from 0 */
    uint64_t position; /* of the step's first token in each column, or image in the epoch */
    double ratio;      /* share of a tensor's entries that is sent */
    float lr;
    float lr_change; /* that of the step before over this one's; 1 at first */
    float momentum;
    float weight_decay;
    float of_rule[2];  /* what the optimizer's rule makes of lr and number */
    uint32_t nesterov; /* 1: Nesterov's form of momentum */
};

#endif

/*
 * optimizer_rule.h -- what a schedule's "optimizer" picks: how parameters move by the mean gradient.
 *
 * All are those of torch.optim, with its defaults; lr, momentum and weight decay are the
 * schedule's.  The mean gradient is what the exchange gave over K,
 * clipped where that is global, with weight decay where that is aggregate.
 */
#ifndef SIM_OPTIMIZER_RULE_H
#define SIM_OPTIMIZER_RULE_H

#include "sim/base.h"
#include "sim/kernel.h"
#include "sim/step.h"

struct device;

#define OPTIMIZER_SLABS 3

/* An element of the mean gradient, from the sum [P] over workers. */
struct optimizer_mean {
    const float *sum, *params;
    const float *clip; /* NULL: none */
    const struct step *step;
    float workers;
    uint32_t decays; /* 1: weight decay is applied here, after the exchange */
};

KERNEL_FN float optimizer_decay(const struct optimizer_mean *m, size_t i)
{
    return m->decays ? m->step->weight_decay * m->params[i] : 0;
}

KERNEL_FN float optimizer_gradient(const struct optimizer_mean *m, size_t i)
{
    return m->sum[i] / m->workers * (m->clip ? *m->clip : 1);
}

struct optimizer_call {
    struct device *dev;
    size_t length; /* P */
    const double *settings;
    struct optimizer_mean mean;
    size_t compensated; /* elements whose momentum a memory owns: the first so many */
    float *params, *sum;
    float *slab[OPTIMIZER_SLABS]; /* [P] state, zero at first; NULL: spared */
};

struct optimizer_rule {
    const char *name;
    const char *about;
    const char *paper;
    const struct setting *settings;
    bool momentum;                          /* the schedule's applies, ... */
    bool nesterov;                          /* ... also in Nesterov's form */
    const char *slabs[OPTIMIZER_SLABS + 1]; /* names of its state */
    bool (*spares)(const double *settings, bool momentum, int slab); /* optional */

    /* What follows on the host from the learning rate and the step's number, from 1 on, for
     * step.of_rule; optional. */
    void (*numbers)(const double *settings, double lr, uint64_t t, float *numbers);

    /* Updates params and clears the sum. */
    void (*apply)(const struct optimizer_call *c);
};

/* NULL-terminated, sgd first. */
extern const struct optimizer_rule *const optimizer_rules[];

const struct optimizer_rule *optimizer_rule_find(const char *name);

#endif

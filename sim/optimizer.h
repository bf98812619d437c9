/*
 * optimizer.h -- what is done with the sum over workers: the one place that divides by K.
 *
 *     g = clip(sum / K) + weight_decay p      p := p - what the rule makes of g
 *
 * Rules are in optimizer_rule.c.  SGD is torch.optim's: buf := m buf + g, and p := p - lr buf or, in
 * Nesterov's form, p - lr (g + m buf).  Where a memory owns momentum (dgc), what it sent already
 * carries it: on compressed tensors only weight decay then goes through buf, so that for both forms
 * the memory at ratio 1 without masking is momentum SGD with weight decay.
 */
#ifndef SIM_OPTIMIZER_H
#define SIM_OPTIMIZER_H

#include "sim/optimizer_rule.h"
#include "sim/worker.h"

struct optimizer {
    const struct optimizer_rule *rule;
    float *sum;                   /* [P] of the workers' messages; zero between steps */
    float *slab[OPTIMIZER_SLABS]; /* [P] the rule's state */
    float *clip;                  /* [1] the factor of global clipping */
    double *square;               /* [1] */
};

void optimizer_create(struct optimizer *o, const struct workers *w);
void optimizer_destroy(struct optimizer *o, const struct workers *w);
size_t optimizer_bytes(const struct config *c, const struct parameters *parameters);

/* Fills what the rule makes of a step's learning rate and number. */
void optimizer_numbers(const struct optimizer *o, const struct config *c, double lr,
                       struct step *step);

/* Updates w->params and clears the sum. */
void optimizer_apply(struct optimizer *o, struct workers *w);

#endif

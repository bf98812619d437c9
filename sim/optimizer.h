/*
 * optimizer.h -- SGD on the sum over workers: the one place that divides by K.
 *
 *     g = clip(sum / K) + weight_decay p      buf := m buf + g
 *     p := p - lr (buf, or g + m buf in Nesterov's form)
 *
 * as torch.optim.SGD has it.  Where a memory owns momentum (dgc), what it sent already carries it:
 * on compressed tensors only weight decay then goes through buf, so that for both forms the memory
 * at ratio 1 without masking is momentum SGD with weight decay.
 */
#ifndef SIM_OPTIMIZER_H
#define SIM_OPTIMIZER_H

#include "sim/worker.h"

struct optimizer {
    float *sum;      /* [P] of the workers' messages; zero between steps */
    float *momentum; /* [P], NULL if no phase of the regime has any */
    float *clip;     /* [1] the factor of global clipping */
    double *square;  /* [1] */
};

void optimizer_create(struct optimizer *o, const struct workers *w);
void optimizer_destroy(struct optimizer *o, const struct workers *w);
size_t optimizer_bytes(const struct config *c, const struct parameters *parameters);

/* Updates w->params and clears the sum. */
void optimizer_apply(struct optimizer *o, struct workers *w);

#endif

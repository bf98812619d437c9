/*
 * memory.h -- what a worker keeps of its gradients, from step to step, because it was not sent.
 *
 * compensate() makes of the workers' gradients what they would like to send; update() takes off
 * what the message said.  All state is [workers][stride] slabs on the device.  The gradient that
 * counts is scale * grad + decay * parameters: scale is the worker's clip factor times K b / sum b
 * (its samples over the mean, for a short last step), decay the local weight decay.
 *
 * Mean or sum: states hold undivided gradients; the optimizer divides the sum over workers by K.
 */
#ifndef COMPRESSORS_MEMORY_H
#define COMPRESSORS_MEMORY_H

#include "compressors/method.h"
#include "sim/kernel.h"
#include "sim/step.h"

#define MEMORY_SLABS 2

/* One element of the gradient that counts; params NULL: no local weight decay. */
KERNEL_FN float memory_gradient(float scale, float grad, const struct step *step,
                                const float *params, size_t place)
{
    return params ? scale * grad + step->weight_decay * params[place] : scale * grad;
}

struct memory_call {
    struct call call;
    const double *settings;      /* in the order of memory.settings */
    const float *grad;           /* [workers][stride] */
    const float *scale;          /* [workers] on the device */
    const float *params;         /* [stride]; NULL: no local weight decay */
    float *slab[MEMORY_SLABS];   /* the state of the call's workers */
    float *scaled;               /* [workers][stride] for none; NULL: scale is 1, no decay */
    const struct method *method; /* whose decode tells what a message says */
};

struct memory {
    const char *name;
    const char *about;
    const struct setting *settings;
    const char *slab_names[MEMORY_SLABS + 1]; /* its state, and how many slabs that is */
    int residual;                             /* the slab that holds what is not yet sent, or -1 */
    bool (*owns_momentum)(const double *settings); /* the optimizer then has none; NULL: never */

    const float *(*compensate)(const struct memory_call *m);
    void (*update)(const struct memory_call *m, const struct message *sent); /* optional */
};

/* NULL-terminated, in alphabetical order. */
extern const struct memory *const memories[];

const struct memory *memory_find(const char *name);

/* Slabs of state that it keeps for each worker. */
uint32_t memory_slabs(const struct memory *m);

#endif

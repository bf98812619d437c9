#include "sim/exactmath.h"
#include "sim/kernel.h"
#include "sim/step.h"

struct optimizer_clip {
    const double *square; /* of the sum */
    float threshold, workers;
    float *clip;
};

KERNEL(optimizer_clip)
{
    float clip = a->threshold / ((float)sqrt(a->square[i]) / a->workers + 1e-6f);

    a->clip[i] = clip < 1 ? clip : 1;
}

struct optimizer_sgd {
    float *params, *sum, *momentum;
    const float *clip; /* NULL: none */
    const struct step *step;
    float workers;
    uint32_t decays;    /* 1: weight decay is applied here, after the exchange */
    size_t compensated; /* elements whose momentum a memory owns: the first so many */
};

KERNEL(optimizer_sgd)
{
    float g = a->sum[i] / a->workers * (a->clip ? *a->clip : 1);
    float decay = a->decays ? a->step->weight_decay * a->params[i] : 0;
    bool owned = i < a->compensated;
    float in = owned ? decay : g + decay;
    float buffer = a->momentum ? exact_fade(a->step->momentum * a->momentum[i] + in) : in;
    float nesterov = a->momentum ? in + a->step->momentum * buffer : in;
    float out = a->step->nesterov ? nesterov : buffer;

    if (a->momentum)
        a->momentum[i] = buffer;
    a->params[i] -= a->step->lr * (owned ? g + out : out);
    a->sum[i] = 0;
}

#ifndef __CUDACC__

#include "sim/optimizer.h"

static bool has_momentum(const struct config *c)
{
    for (uint32_t i = 0; i < c->phases; i++)
        if (c->phase[i].momentum != 0)
            return true;
    return false;
}

static bool memory_owns_momentum(const struct workers *w)
{
    return w->memory->owns_momentum != NULL && w->memory->owns_momentum(w->config->memory.value);
}

void optimizer_create(struct optimizer *o, const struct workers *w)
{
    size_t p = w->all.length * sizeof(float);

    *o = (struct optimizer){0};
    o->sum = device_alloc(w->dev, p);
    if (has_momentum(w->config))
        o->momentum = device_alloc(w->dev, p);
    o->clip = device_alloc(w->dev, sizeof(*o->clip));
    o->square = device_alloc(w->dev, sizeof(*o->square));
}

void optimizer_destroy(struct optimizer *o, const struct workers *w)
{
    size_t p = w->all.length * sizeof(float);

    device_free(w->dev, o->sum, p);
    device_free(w->dev, o->momentum, p);
    device_free(w->dev, o->clip, sizeof(*o->clip));
    device_free(w->dev, o->square, sizeof(*o->square));
    *o = (struct optimizer){0};
}

size_t optimizer_bytes(const struct config *c, const struct parameters *parameters)
{
    return (has_momentum(c) ? 2 : 1) * parameters->length * sizeof(float);
}

void optimizer_apply(struct optimizer *o, struct workers *w)
{
    const struct config *c = w->config;
    bool clips = c->clip.mode == CLIP_GLOBAL;

    device_scratch_reset(w->dev);
    if (clips) {
        layout_squares(&w->all, 1, o->sum, o->square);
        LAUNCH(w->dev, optimizer_clip, 1, .square = o->square, .threshold = (float)c->clip.norm,
               .workers = (float)w->count, .clip = o->clip);
    }
    LAUNCH(w->dev, optimizer_sgd, w->all.length, .params = w->params, .sum = o->sum,
           .momentum = o->momentum, .clip = clips ? o->clip : NULL, .step = w->step,
           .workers = (float)w->count, .decays = c->weight_decay_at == DECAY_AGGREGATE,
           .compensated = memory_owns_momentum(w) ? w->compressed.length : 0);
}

#endif

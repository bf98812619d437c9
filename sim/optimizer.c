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

static const struct optimizer_rule *rule_of(const struct config *c)
{
    return optimizer_rule_find(c->phase[0].optimizer.name);
}

/* Whether the rule has such a slab, and a run needs it. */
static bool has_slab(const struct config *c, int slab)
{
    const struct optimizer_rule *rule = rule_of(c);

    return rule->slabs[slab] != NULL &&
           (rule->spares == NULL ||
            !rule->spares(c->phase[0].optimizer.value, has_momentum(c), slab));
}

void optimizer_create(struct optimizer *o, const struct workers *w)
{
    size_t p = w->all.length * sizeof(float);

    *o = (struct optimizer){.rule = rule_of(w->config)};
    o->sum = device_alloc(w->dev, p);
    for (int i = 0; o->rule->slabs[i] != NULL; i++)
        if (has_slab(w->config, i))
            o->slab[i] = device_alloc(w->dev, p);
    o->clip = device_alloc(w->dev, sizeof(*o->clip));
    o->square = device_alloc(w->dev, sizeof(*o->square));
}

void optimizer_destroy(struct optimizer *o, const struct workers *w)
{
    size_t p = w->all.length * sizeof(float);

    device_free(w->dev, o->sum, p);
    for (int i = 0; i < OPTIMIZER_SLABS; i++)
        device_free(w->dev, o->slab[i], p);
    device_free(w->dev, o->clip, sizeof(*o->clip));
    device_free(w->dev, o->square, sizeof(*o->square));
    *o = (struct optimizer){0};
}

size_t optimizer_bytes(const struct config *c, const struct parameters *parameters)
{
    size_t slabs = 1;

    for (int i = 0; i < OPTIMIZER_SLABS && rule_of(c)->slabs[i] != NULL; i++)
        slabs += has_slab(c, i);
    return slabs * parameters->length * sizeof(float);
}

void optimizer_numbers(const struct optimizer *o, const struct config *c, double lr,
                       struct step *step)
{
    if (o->rule->numbers != NULL)
        o->rule->numbers(c->phase[0].optimizer.value, lr, step->number + 1, step->of_rule);
}

void optimizer_apply(struct optimizer *o, struct workers *w)
{
    const struct config *c = w->config;
    bool clips = c->clip.mode == CLIP_GLOBAL;
    struct optimizer_call call = {
        .dev = w->dev,
        .length = w->all.length,
        .settings = c->phase[0].optimizer.value,
        .mean = {.sum = o->sum,
                 .params = w->params,
                 .clip = clips ? o->clip : NULL,
                 .step = w->step,
                 .workers = (float)w->count,
                 .decays = c->weight_decay_at == DECAY_AGGREGATE},
        .compensated = memory_owns_momentum(w) ? w->compressed.length : 0,
        .params = w->params,
        .sum = o->sum,
    };

    device_scratch_reset(w->dev);
    if (clips) {
        layout_squares(&w->all, 1, o->sum, o->square);
        LAUNCH(w->dev, optimizer_clip, 1, .square = o->square, .threshold = (float)c->clip.norm,
               .workers = (float)w->count, .clip = o->clip);
    }
    for (int i = 0; i < OPTIMIZER_SLABS; i++)
        call.slab[i] = o->slab[i];
    o->rule->apply(&call);
}

#endif

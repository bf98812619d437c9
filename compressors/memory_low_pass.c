/*
 * memory_low_pass -- what was not sent is added to the next gradients, a part of it at a time.
 *
 *     q := q + g      send C(g + beta q')      q := q - D(C(...))      q' the q before g came
 *
 * Chen et al.: ScaleCom: scalable sparsified gradient compression for communication-efficient
 * distributed training, NeurIPS 2020, section 3.  Its residual m := (1 - beta) m + beta (m + g - sent)
 * is beta q: so beta=1 is the plain residual, and q is what is not yet sent.
 */
#include "compressors/memory.h"
#include "sim/exactmath.h"

struct memory_low_pass_add {
    const float *grad, *scale, *params;
    const struct step *step;
    float beta;
    float *residual, *offered;
};

TILE_KERNEL(memory_low_pass_add)
{
    float scale = a->scale[t->worker];

    EACH_SLOT (s) {
        size_t i = tile_at(t, s);
        float q = a->residual[i];
        float g =
            memory_gradient(scale, a->grad[i], a->step, a->params, t->place + tile_element(t, s));

        a->offered[i] = exact_fade(a->beta * q) + g;
        a->residual[i] = q + g;
    }
}

#ifndef __CUDACC__

#include "sim/layout.h"

enum { BETA };

static const struct setting settings[] = {
    [BETA] = {"beta", 0.1, 0, 1, "share of what is not yet sent that is added", NUMBER},
    {0},
};

enum { RESIDUAL, OFFERED };

static const float *low_pass_compensate(const struct memory_call *m)
{
    LAUNCH_TILES(m->call.dev, memory_low_pass_add, &m->call.layout->tiles, m->call.workers,
                 .grad = m->call.grad, .scale = m->call.scale, .params = m->call.params,
                 .step = m->call.step, .beta = (float)m->settings[BETA],
                 .residual = m->slab[RESIDUAL], .offered = m->slab[OFFERED]);
    return m->slab[OFFERED];
}

static void low_pass_update(const struct memory_call *m, const struct message *sent)
{
    method_decode(m->method, &m->call, sent,
                  (struct target){.how = SUBTRACT,
                                  .to = m->slab[RESIDUAL],
                                  .stride = m->call.layout->tiles.stride});
}

const struct memory low_pass_memory = {
    .name = "low-pass",
    .about = "a part of what was not sent is added to each next gradient",
    .settings = settings,
    .slab_names = {"residual", "offered"},
    .residual = RESIDUAL,
    .compensate = low_pass_compensate,
    .update = low_pass_update,
};

#endif

/*
 * memory_none -- nothing is kept: what is not sent is lost.
 *
 * The gradients' slab stays as it is; where gradients are clipped or decayed, what a worker would
 * like to send lies in a slab beside it.
 */
#include "compressors/memory.h"

struct memory_none_scale {
    const float *grad, *scale, *params;
    const struct step *step;
    float *wanted;
};

TILE_KERNEL(memory_none_scale)
{
    float scale = a->scale[t->worker];

    EACH_SLOT (s) {
        size_t i = tile_at(t, s);

        a->wanted[i] =
            memory_gradient(scale, a->grad[i], a->step, a->params, t->place + tile_element(t, s));
    }
}

#ifndef __CUDACC__

#include "sim/layout.h"

static const float *none_compensate(const struct memory_call *m)
{
    if (m->scaled == NULL)
        return m->call.grad;
    LAUNCH_TILES(m->call.dev, memory_none_scale, &m->call.layout->tiles, m->call.workers,
                 .grad = m->call.grad, .scale = m->call.scale, .params = m->call.params,
                 .step = m->call.step, .wanted = m->scaled);
    return m->scaled;
}

const struct memory none_memory = {
    .name = "none",
    .about = "what is not sent is lost",
    .settings = (const struct setting[]){{0}},
    .residual = -1,
    .compensate = none_compensate,
};

#endif

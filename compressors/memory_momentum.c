/*
 * memory_momentum -- a mean of gradients that fades; nothing is kept of what was not sent.
 *
 *     m := beta m + (1 - beta) g      send C(m)
 *
 * Signum: Bernstein, Wang, Azizzadenesheli, Anandkumar: signSGD, ICML 2018.
 */
#include "compressors/memory.h"
#include "sim/exactmath.h"

struct memory_momentum_fade {
    const float *grad, *scale, *params;
    const struct step *step;
    float beta;
    float *mean;
};

TILE_KERNEL(memory_momentum_fade)
{
    float scale = a->scale[t->worker];

    EACH_SLOT (s) {
        size_t i = tile_at(t, s);
        float g =
            memory_gradient(scale, a->grad[i], a->step, a->params, t->place + tile_element(t, s));

        a->mean[i] = exact_fade(a->beta * a->mean[i] + (1 - a->beta) * g);
    }
}

#ifndef __CUDACC__

#include "sim/layout.h"

enum { BETA };

static const struct setting settings[] = {
    [BETA] = {"beta", 0.9, 0, 1, "share of the old mean", NUMBER},
    {0},
};

static const float *momentum_compensate(const struct memory_call *m)
{
    LAUNCH_TILES(m->call.dev, memory_momentum_fade, &m->call.layout->tiles, m->call.workers,
                 .grad = m->call.grad, .scale = m->call.scale, .params = m->call.params,
                 .step = m->call.step, .beta = (float)m->settings[BETA], .mean = m->slab[0]);
    return m->slab[0];
}

static bool momentum_owns_momentum(const double *values)
{
    return true;
}

const struct memory momentum_memory = {
    .name = "momentum",
    .about = "a fading mean of gradients, as in Signum",
    .settings = settings,
    .slab_names = {"mean"},
    .residual = -1,
    .owns_momentum = momentum_owns_momentum,
    .compensate = momentum_compensate,
};

#endif

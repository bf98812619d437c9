/*
 * memory_dgc -- momentum correction and momentum factor masking.
 *
 *     plain     u := m u + g        v := v + u          send C(v)
 *     Nesterov  u := m (u + g)      v := v + u + g
 *     masking   u := 0 where something was sent; v := v - D(C(v))
 *
 * Lin, Han, Mao, Wang, Dally: Deep Gradient Compression, ICLR 2018, section 3 and appendix B; the
 * Nesterov form as the official code has it.  Tensors sent whole (ratio 1) keep their u: their
 * momentum is then the ordinary one, and dgc at ratio 1 is momentum SGD.
 */
#include "compressors/memory.h"

struct memory_dgc_accumulate {
    const float *grad, *share, *params;
    const struct step *step;
    float momentum; /* below 0: the step's */
    float *u, *v;
};

TILE_KERNEL(memory_dgc_accumulate)
{
    float share = a->share[t->worker];
    float m = a->momentum >= 0 ? a->momentum : a->step->momentum;
    bool nesterov = a->step->nesterov != 0;

    EACH_SLOT (s) {
        size_t i = tile_at(t, s);
        float g =
            memory_gradient(share, a->grad[i], a->step, a->params, t->place + tile_element(t, s));
        float u = nesterov ? m * (a->u[i] + g) : m * a->u[i] + g;

        a->u[i] = u;
        a->v[i] = nesterov ? a->v[i] + u + g : a->v[i] + u;
    }
}

struct memory_dgc_plain {
    const float *grad, *share, *params;
    const struct step *step;
    float *v;
};

/* Without momentum correction: what remains is a residual. */
TILE_KERNEL(memory_dgc_plain)
{
    float share = a->share[t->worker];

    EACH_SLOT (s) {
        size_t i = tile_at(t, s);

        a->v[i] +=
            memory_gradient(share, a->grad[i], a->step, a->params, t->place + tile_element(t, s));
    }
}

#ifndef __CUDACC__

#include "sim/layout.h"

enum { MOMENTUM, CORRECTION, MASKING };
enum { V, U };

static const struct setting settings[] = {
    [MOMENTUM] = {"momentum", -1, -1, 0.9999, "of the correction; -1: the schedule's"},
    [CORRECTION] = {"correction", 1, 0, 1,
                    "momentum correction; without: a plain residual, and "
                    "momentum is the optimizer's"},
    [MASKING] = {"masking", 1, 0, 1, "momentum factor masking"},
    {0},
};

static const float *dgc_compensate(const struct memory_call *m)
{
    const struct tiles *tiles = &m->call.layout->tiles;

    if (m->settings[CORRECTION] != 0)
        LAUNCH_TILES(m->call.dev, memory_dgc_accumulate, tiles, m->call.workers, .grad = m->grad,
                     .share = m->share, .params = m->params, .step = m->call.step,
                     .momentum = (float)m->settings[MOMENTUM], .u = m->slab[U], .v = m->slab[V]);
    else
        LAUNCH_TILES(m->call.dev, memory_dgc_plain, tiles, m->call.workers, .grad = m->grad,
                     .share = m->share, .params = m->params, .step = m->call.step, .v = m->slab[V]);
    return m->slab[V];
}

static void dgc_update(const struct memory_call *m, const struct message *sent)
{
    size_t stride = m->call.layout->tiles.stride;

    m->method->decode(&m->call, sent,
                      (struct target){.how = SUBTRACT, .to = m->slab[V], .stride = stride});
    if (m->settings[MASKING] != 0 && m->settings[CORRECTION] != 0)
        m->method->decode(
            &m->call, sent,
            (struct target){.how = CLEAR, .to = m->slab[U], .stride = stride, .spare_whole = true});
}

static bool dgc_owns_momentum(const double *values)
{
    return values[CORRECTION] != 0;
}

const struct memory dgc_memory = {
    .name = "dgc",
    .about = "momentum correction and momentum factor masking, as in DGC",
    .settings = settings,
    .slab_names = {"velocity", "momentum"},
    .kept = V,
    .owns_momentum = dgc_owns_momentum,
    .compensate = dgc_compensate,
    .update = dgc_update,
};

#endif

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
#include "sim/exactmath.h"

struct memory_dgc_accumulate {
    const float *grad, *scale, *params;
    const struct step *step;
    float *u; /* NULL: no momentum correction, v is a plain residual */
    float *v;
};

KERNEL_FN float accumulated(const struct memory_dgc_accumulate *a, const struct tile *t, uint32_t s)
{
    return memory_gradient(a->scale[t->worker], a->grad[tile_at(t, s)], a->step, a->params,
                           t->place + tile_element(t, s));
}

TILE_KERNEL(memory_dgc_accumulate)
{
    float m = a->step->momentum;

    if (!a->u) {
        EACH_SLOT (s)
            a->v[tile_at(t, s)] += accumulated(a, t, s);
    } else if (a->step->nesterov) {
        EACH_SLOT (s) {
            size_t i = tile_at(t, s);
            float g = accumulated(a, t, s);
            float u = exact_fade(m * (a->u[i] + g));

            a->u[i] = u;
            a->v[i] = a->v[i] + u + g;
        }
    } else {
        EACH_SLOT (s) {
            size_t i = tile_at(t, s);
            float u = exact_fade(m * a->u[i] + accumulated(a, t, s));

            a->u[i] = u;
            a->v[i] += u;
        }
    }
}

#ifndef __CUDACC__

#include "sim/layout.h"

enum { CORRECTION, MASKING };
enum { V, U };

static const struct setting settings[] = {
    [CORRECTION] = {"correction", 1, 0, 1,
                    "momentum correction; without, momentum is the optimizer's", SWITCH},
    [MASKING] = {"masking", 1, 0, 1, "momentum factor masking", SWITCH},
    {0},
};

static const float *dgc_compensate(const struct memory_call *m)
{
    LAUNCH_TILES(m->call.dev, memory_dgc_accumulate, &m->call.layout->tiles, m->call.workers,
                 .grad = m->call.grad, .scale = m->call.scale, .params = m->call.params,
                 .step = m->call.step, .u = m->settings[CORRECTION] != 0 ? m->slab[U] : NULL,
                 .v = m->slab[V]);
    return m->slab[V];
}

static void dgc_update(const struct memory_call *m, const struct message *sent)
{
    size_t stride = m->call.layout->tiles.stride;

    method_decode(m->method, &m->call, sent,
                  (struct target){.how = SUBTRACT, .to = m->slab[V], .stride = stride});
    if (m->settings[MASKING] != 0 && m->settings[CORRECTION] != 0)
        method_decode(
            m->method, &m->call, sent,
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
    .residual = V,
    .owns_momentum = dgc_owns_momentum,
    .compensate = dgc_compensate,
    .update = dgc_update,
};

#endif

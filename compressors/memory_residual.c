/*
 * memory_residual -- what was not sent is added to the next gradient (error feedback).
 *
 *     e := beta e + gamma g      send C(e)      e := e - D(C(e))
 *
 * Seide, Fu, Droppo, Li, Yu: 1-bit stochastic gradient descent, Interspeech 2014.  In Karimireddy,
 * Rebjock, Stich, Jaggi: Error feedback fixes SignSGD, ICML 2019, the residual holds lr times the
 * gradient: lr_inside=1 is that, with e in units of the present lr, which is the same where C of twice
 * a vector is twice C of it.
 */
#include "compressors/memory.h"
#include "sim/exactmath.h"

struct memory_residual_add {
    const float *grad, *scale, *params;
    const struct step *step;
    float beta, gamma;
    uint32_t lr_inside;
    float *residual;
};

TILE_KERNEL(memory_residual_add)
{
    float scale = a->scale[t->worker];
    float beta = a->lr_inside ? a->beta * a->step->lr_change : a->beta;

    EACH_SLOT (s) {
        size_t i = tile_at(t, s);
        float g =
            memory_gradient(scale, a->grad[i], a->step, a->params, t->place + tile_element(t, s));

        a->residual[i] = exact_fade(beta * a->residual[i]) + a->gamma * g;
    }
}

#ifndef __CUDACC__

#include "sim/layout.h"

enum { BETA, GAMMA, LR_INSIDE };

static const struct setting settings[] = {
    [BETA] = {"beta", 1, 0, 1, "share of the old residual that is kept", NUMBER},
    [GAMMA] = {"gamma", 1, 0, 16, "times the new gradient", NUMBER},
    [LR_INSIDE] = {"lr_inside", 0, 0, 1, "what is kept counts at the learning rate it had", SWITCH},
    {0},
};

static const float *residual_compensate(const struct memory_call *m)
{
    LAUNCH_TILES(m->call.dev, memory_residual_add, &m->call.layout->tiles, m->call.workers,
                 .grad = m->call.grad, .scale = m->call.scale, .params = m->call.params,
                 .step = m->call.step, .beta = (float)m->settings[BETA],
                 .gamma = (float)m->settings[GAMMA], .lr_inside = m->settings[LR_INSIDE] != 0,
                 .residual = m->slab[0]);
    return m->slab[0];
}

static void residual_update(const struct memory_call *m, const struct message *sent)
{
    method_decode(
        m->method, &m->call, sent,
        (struct target){.how = SUBTRACT, .to = m->slab[0], .stride = m->call.layout->tiles.stride});
}

const struct memory residual_memory = {
    .name = "residual",
    .about = "what was not sent is added to the next gradient",
    .settings = settings,
    .slab_names = {"residual"},
    .residual = 0,
    .compensate = residual_compensate,
    .update = residual_update,
};

#endif

#include "sim/kernel.h"

struct measure_fill {
    float *unsent;
};

KERNEL(measure_fill)
{
    a->unsent[i] = 1;
}

struct measure_sent {
    const float *unsent;
    double *sent; /* of tiles */
};

TILE_KERNEL(measure_sent)
{
    double v[TILE_SLOTS];

    EACH_SLOT (s)
        v[s] = tile_live(t, s) && a->unsent[tile_at(t, s)] == 0 ? 1 : 0;
    tile_put(t, a->sent, tile_sum(v));
}

#ifndef __CUDACC__

#include "sim/measure.h"

#include <stdlib.h>

/* Whether it is for the step to say which elements are sent. */
static bool selects(const struct method *method)
{
    return method->compressor->room != NULL && !method->compressor->no_indices;
}

static size_t numbers(uint32_t workers, uint32_t tensors)
{
    return (2 * (size_t)workers + 1) * tensors;
}

size_t measure_bytes(const struct config *c, const struct parameters *parameters)
{
    struct method method = workers_method(c);
    size_t marks = selects(&method) ? parameters->length * sizeof(float) : 0;
    size_t results = parameters->length / TILE + (size_t)parameters->compressed * TILE;

    return marks +
           (2 * numbers(c->nodes, parameters->compressed) + c->nodes * results) * sizeof(double);
}

void measure_create(struct measure *m, const struct workers *w)
{
    uint32_t tensors = w->compressed.count;
    size_t pairs = (size_t)w->count * tensors;

    *m = (struct measure){.on = true};
    m->tensor = allocate(tensors, sizeof(*m->tensor));
    m->host = allocate(numbers(w->count, tensors), sizeof(*m->host));
    m->wanted = device_alloc(w->dev, numbers(w->count, tensors) * sizeof(*m->wanted));
    m->left = m->wanted + pairs;
    m->sent = m->left + pairs;
    if (selects(&w->method))
        m->unsent = device_alloc(w->dev, w->all.length * sizeof(*m->unsent));
}

void measure_destroy(struct measure *m, const struct workers *w)
{
    device_free(w->dev, m->unsent, w->all.length * sizeof(*m->unsent));
    device_free(w->dev, m->wanted, numbers(w->count, w->compressed.count) * sizeof(*m->wanted));
    free(m->host);
    free(m->tensor);
    *m = (struct measure){0};
}

void measure_begin(struct measure *m, struct workers *w, const struct step *step, bool due)
{
    uint32_t every = w->config->measure;

    m->active = m->on && (due || (every > 0 && step->number % every == 0));
    if (!m->active)
        return;
    if (m->unsent != NULL)
        LAUNCH(w->dev, measure_fill, w->compressed.length, .unsent = m->unsent);
    device_wait(w->dev);
    m->watch.stage = STAGE_OTHER;
    m->watch.since = seconds_now();
    w->dev->watch = &m->watch;
}

void measure_wanted(struct measure *m, struct workers *w, struct lane *lane)
{
    const struct call *call = &lane->group.call;

    if (!m->active)
        return;
    device_stage(w->dev, STAGE_OTHER);
    device_scratch_aside(w->dev, true);
    m->from = call->wanted;
    layout_tensor_squares(&w->compressed, call->workers, m->from,
                          m->wanted + (size_t)call->first * w->compressed.count);
    device_scratch_aside(w->dev, false);
}

/* What was wanted less what was sent, in a slab that nobody needs any more; for memories that do not
 * keep just that. */
static float *take_off(const struct measure *m, struct workers *w, struct lane *lane)
{
    float *wanted = lane->scaled != NULL ? lane->scaled : lane->slab;

    device_copy(w->dev, wanted, m->from,
                lane->group.call.workers * w->all.length * sizeof(*wanted));
    method_decode(&w->method, &lane->group.call, &lane->message,
                  (struct target){.how = SUBTRACT, .to = wanted, .stride = w->all.length});
    return wanted;
}

/* The exchange is over, so nobody needs the gradients any more; but a slab of theirs is left as one
 * that a backward pass can begin with. */
void measure_left(struct measure *m, struct workers *w, struct lane *lane)
{
    const struct call *call = &lane->group.call;
    int kept = w->memory->residual;
    bool keeps = kept >= 0 && m->from == lane->group.slab[kept];
    float *left;

    if (!m->active)
        return;
    device_stage(w->dev, STAGE_OTHER);
    device_scratch_aside(w->dev, true);
    if (m->unsent != NULL)
        method_decode(&w->method, call, &lane->message,
                      (struct target){.how = CLEAR, .to = m->unsent, .one_sum = true});
    left = keeps ? lane->group.slab[kept] : take_off(m, w, lane);
    layout_tensor_squares(&w->compressed, call->workers, left,
                          m->left + (size_t)call->first * w->compressed.count);
    device_scratch_aside(w->dev, false);
    if (left == lane->slab)
        device_clear(w->dev, left, call->workers * w->all.length * sizeof(*left));
}

/* Elements that any worker sent, of every tensor. */
static void count_sent(struct measure *m, struct workers *w)
{
    double *of_tiles;

    device_scratch_aside(w->dev, true);
    of_tiles = device_scratch(w->dev, w->compressed.tiles.up_stride * sizeof(*of_tiles));
    LAUNCH_TILES(w->dev, measure_sent, &w->compressed.tiles, 1, .unsent = m->unsent,
                 .sent = of_tiles);
    layout_tensor_sums(&w->compressed, 1, of_tiles, m->sent);
    device_scratch_aside(w->dev, false);
}

void measure_end(struct measure *m, struct workers *w)
{
    uint32_t tensors = w->compressed.count;
    const double *sent;

    if (!m->active)
        return;
    sent = m->host + 2 * (size_t)w->count * tensors;
    w->dev->watch = NULL;
    m->active = false;
    m->steps++;
    if (m->unsent != NULL)
        count_sent(m, w);
    device_download(w->dev, m->host, m->wanted, numbers(w->count, tensors) * sizeof(*m->host));
    for (uint32_t i = 0; i < tensors; i++) {
        struct measured_tensor *t = &m->tensor[i];

        t->sent += m->unsent != NULL ? sent[i] : (double)w->compressed.n[i];
        for (uint32_t k = 0; k < w->count; k++) {
            t->wanted += m->host[(size_t)k * tensors + i];
            t->left += m->host[(size_t)(w->count + k) * tensors + i];
        }
    }
}

void measure_clear(struct measure *m, const struct workers *w)
{
    m->steps = 0;
    m->watch = (struct stopwatch){0};
    for (uint32_t i = 0; i < w->compressed.count; i++)
        m->tensor[i] = (struct measured_tensor){0};
}

#endif

#include "compressors/memory.h"

struct exchange_dense {
    const float *grad;   /* [workers][stride] from the first dense tensor on */
    const float *scale;  /* [workers] */
    const float *params; /* NULL: no local weight decay */
    const struct step *step;
    uint32_t workers;
    size_t stride;
    float *sum;
};

KERNEL(exchange_dense)
{
    float sum = a->sum[i];

    for (uint32_t w = 0; w < a->workers; w++)
        sum += memory_gradient(a->scale[w], a->grad[w * a->stride + i], a->step, a->params, i);
    a->sum[i] = sum;
}

struct exchange_vote {
    float workers;
    float *sum;
};

/* The optimizer divides by the workers. */
TILE_KERNEL(exchange_vote)
{
    EACH_SLOT (s) {
        float *sum = &a->sum[tile_at(t, s)];

        *sum = !tile_live(t, s) ? 0 : *sum >= 0 ? a->workers : -a->workers;
    }
}

#ifndef __CUDACC__

#include "sim/exchange.h"

#include <math.h>

void exchange_receive(struct workers *w, struct lane *lane, float *sum)
{
    const struct memory_call *m = &lane->group;
    size_t dense = w->compressed.length;

    method_decode(&w->method, &m->call, &lane->message,
                  (struct target){.how = ADD, .to = sum, .one_sum = true});
    LAUNCH(w->dev, exchange_dense, w->all.length - dense, .grad = lane->slab + dense,
           .scale = m->call.scale, .params = m->call.params != NULL ? m->call.params + dense : NULL,
           .step = w->step, .workers = m->call.workers, .stride = w->all.length,
           .sum = sum + dense);
}

void exchange_finish(struct workers *w, float *sum)
{
    if (method_exchange(&w->method) == VOTE)
        LAUNCH_TILES(w->dev, exchange_vote, &w->compressed.tiles, 1, .workers = (float)w->count,
                     .sum = sum);
    workers_reply(w, sum);
}

double exchange_dense_bytes(const struct workers *w)
{
    return 4.0 * (double)(w->all.elements - w->compressed.elements);
}

double exchange_whole_bytes(const struct workers *w)
{
    return 4.0 * (double)w->all.elements;
}

double exchange_bytes_up(const struct workers *w, const struct sent *sent, uint64_t steps)
{
    return (double)(sent->last.bytes + sent->first.bytes) / w->count +
           (double)steps * exchange_dense_bytes(w);
}

/* Levels of K workers added up want more bits; a vote's outcome is as long as one. */
static double sum_bytes(const struct workers *w, const struct sent *sent)
{
    double own = (double)sent->last.bytes / w->count;
    double entries = (double)sent->last.entries / w->count;
    struct code_form form = method_form(&w->method);

    if (form.kind != CODE_LEVEL)
        return own;
    return own + entries / 8 * (ceil(log2(2.0 * form.levels * w->count + 1)) - form.bits);
}

double exchange_bytes_down(const struct workers *w, const struct sent *sent, uint64_t steps)
{
    double first = (double)sent->first.bytes;
    double last = (double)sent->last.bytes;

    if (w->method.compressor->first.exchange == SUM)
        first /= w->count;
    if (w->server)
        last = (double)sent->reply.bytes;
    else if (method_exchange(&w->method) == GATHER)
        last -= last / w->count;
    else
        last = sum_bytes(w, sent);
    return first + last + (double)steps * exchange_dense_bytes(w);
}

double exchange_density(const struct workers *w, double entries, uint64_t steps)
{
    double dense = (double)(w->all.elements - w->compressed.elements);

    return (entries / (w->count * (double)steps) + dense) / (double)w->all.elements;
}

#endif

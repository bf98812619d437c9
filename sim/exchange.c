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

#ifndef __CUDACC__

#include "sim/exchange.h"

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

double exchange_dense_bytes(const struct workers *w)
{
    return 4.0 * (double)(w->all.elements - w->compressed.elements);
}

double exchange_whole_bytes(const struct workers *w)
{
    return 4.0 * (double)w->all.elements;
}

double exchange_bytes_up(const struct workers *w, double message_bytes, uint64_t steps)
{
    return message_bytes / w->count + (double)steps * exchange_dense_bytes(w);
}

double exchange_bytes_down(const struct workers *w, double message_bytes, uint64_t steps)
{
    double own = message_bytes / w->count;
    double received = method_exchange(&w->method) == GATHER ? message_bytes - own : own;

    return received + (double)steps * exchange_dense_bytes(w);
}

double exchange_density(const struct workers *w, double entries, uint64_t steps)
{
    double dense = (double)(w->all.elements - w->compressed.elements);

    return (entries / (w->count * (double)steps) + dense) / (double)w->all.elements;
}

#endif

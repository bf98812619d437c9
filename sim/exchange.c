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
#include "sim/server.h"

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

static size_t expected_entries(const struct workers *w, uint32_t tensor, double ratio)
{
    struct call call = {.layout = &w->compressed, .ratio_most = ratio};

    return method_counted(&w->method) ? 0 : method_entries(&w->method, &call, tensor);
}

/* Of a first round's messages: one worker's indices, or each worker's values. */
static size_t expected_first(const struct workers *w, uint32_t tensor, double ratio)
{
    const struct first_round *first = &w->method.compressor->first;
    struct call call = {
        .layout = &w->compressed, .settings = w->method.settings, .ratio_most = ratio};

    size_t room = first->room != NULL ? first->room(&call, tensor) : 0;

    if (first->indices && room == w->compressed.n[tensor]) /* all, which need no telling */
        return 0;
    return 4 * room * (first->exchange == BROADCAST ? 1 : w->count);
}

/* Elements that somebody of K workers sends, where each chooses for itself. */
static size_t expected_union(const struct workers *w, size_t n, size_t entries)
{
    double left = pow(1 - (double)entries / (double)n, w->count);

    return (size_t)round((double)n * (1 - left));
}

struct sent exchange_expected(const struct workers *w, uint32_t tensor, double ratio)
{
    enum encoding encoding = w->config->encoding;
    size_t n = w->compressed.n[tensor];
    size_t entries = expected_entries(w, tensor, ratio);
    size_t first = expected_first(w, tensor, ratio);
    size_t last = w->count * message_tensor_bytes(&w->method, encoding, n, entries);
    size_t reply = server_tensor_bytes(encoding, n, expected_union(w, n, entries));

    if (w->method.compressor->no_indices) /* entries are those of both rounds */
        last = 4 * entries * w->count - first;
    return (struct sent){.last = {.entries = w->count * entries, .bytes = last},
                         .first = {.bytes = first},
                         .reply = {.bytes = reply}};
}

bool exchange_expected_exact(const struct workers *w, uint32_t tensor, double ratio)
{
    size_t n = w->compressed.n[tensor];

    if (w->server || method_counted(&w->method))
        return false;
    return w->method.compressor->no_indices ||
           message_tensor_exact(&w->method, w->config->encoding, n,
                                expected_entries(w, tensor, ratio));
}

double exchange_density(const struct workers *w, double entries, uint64_t steps)
{
    double dense = (double)(w->all.elements - w->compressed.elements);

    return (entries / (w->count * (double)steps) + dense) / (double)w->all.elements;
}

#endif

#include "compressors/sparse.h"
#include "sim/wire.h"

struct server_choose {
    const float *sum;
    struct sparse_chosen chosen;
};

TILE_KERNEL(server_choose)
{
    uint32_t chosen[TILE_SLOTS];

    EACH_SLOT (s)
        chosen[s] = a->sum[tile_at(t, s)] != 0;
    chosen_put(&a->chosen, t, chosen);
}

/* Of a tensor that goes whole: its count and values. */
KERNEL_FN uint64_t whole_bytes(uint64_t n)
{
    return 4 + 4 * n;
}

struct server_count {
    const struct traffic *sparse; /* [tensors] of this reply */
    const uint32_t *n;            /* [tensors] */
    struct traffic *total;        /* [tensors] */
};

KERNEL(server_count)
{
    struct traffic one = a->sparse[i];
    uint64_t whole = whole_bytes(a->n[i]);

    a->total[i].entries += one.bytes < whole ? one.entries : a->n[i];
    a->total[i].bytes += one.bytes < whole ? one.bytes : whole;
}

#ifndef __CUDACC__

#include "sim/layout.h"
#include "sim/server.h"

static const struct compressor nonzero = {
    .name = "nonzero",
    .counted = true,
    .room = sparse_room_for_all,
};
static const struct method reply_method = {.compressor = &nonzero};

bool server_replies(const struct method *method, enum exchange_over over)
{
    return over == EXCHANGE_SERVER && method_exchange(method) == GATHER;
}

void server_create(struct message *reply, const struct call *call)
{
    message_create(reply, &reply_method, call, 1);
}

void server_destroy(struct message *reply, struct device *dev)
{
    message_destroy(reply, dev, 1);
}

size_t server_bytes_needed(const struct call *call)
{
    return message_bytes_needed(&reply_method, call, 1);
}

size_t server_scratch(const struct call *call)
{
    struct call one = *call;

    one.workers = 1;
    return sparse_chosen_scratch(&one) + call->layout->count * sizeof(struct traffic);
}

void server_reply(struct message *reply, const struct call *call, const float *sum,
                  enum encoding encoding, struct traffic *total)
{
    uint32_t tensors = call->layout->count;
    struct call one = *call;
    struct sparse_chosen chosen;
    struct traffic *sparse;

    one.workers = 1;
    one.wanted = sum;
    device_scratch_reset(call->dev);
    chosen = sparse_choice(&one);
    sparse = device_scratch(call->dev, tensors * sizeof(*sparse));
    LAUNCH_TILES(call->dev, server_choose, &call->layout->tiles, 1, .sum = sum, .chosen = chosen);
    sparse_take(&one, &chosen, reply);
    device_clear(call->dev, sparse, tensors * sizeof(*sparse));
    message_weigh(reply, call->layout, encoding, sparse, NULL);
    LAUNCH(call->dev, server_count, tensors, .sparse = sparse, .n = call->layout->n_dev,
           .total = total);
}

size_t server_tensor_bytes(enum encoding encoding, size_t n, size_t entries)
{
    size_t sparse = message_tensor_bytes(&reply_method, encoding, n, entries);

    return sparse < whole_bytes(n) ? sparse : whole_bytes(n);
}

#endif

/*
 * none -- the gradient itself.  The baseline.
 *
 *     message:  n values a tensor, the slab as it stands
 */
#include "compressors/compressor.h"

struct none_add {
    const float *value; /* [senders][stride] */
    uint32_t senders;
    size_t stride;
    float *to;
};

KERNEL(none_add)
{
    float sum = a->to[i];

    for (uint32_t w = 0; w < a->senders; w++)
        sum += a->value[w * a->stride + i];
    a->to[i] = sum;
}

struct none_take {
    const float *value;
    enum target_how how;
    float *to;
};

TILE_KERNEL(none_take)
{
    EACH_SLOT (s) {
        float *to = &a->to[tile_at(t, s)];
        float value = a->value[tile_at(t, s)];

        *to = target_apply(a->how, *to, value);
    }
}

#ifndef __CUDACC__

#include "sim/layout.h"
#include "sim/wire.h"

static size_t none_room(const struct call *call, uint32_t tensor)
{
    return call->layout->n[tensor];
}

static void none_encode(const struct call *call, struct message *out)
{
    out->value = call->wanted;
    out->stride = call->layout->tiles.stride;
}

static void none_decode(const struct call *call, const struct message *in, struct target target)
{
    if (target.spare_whole)
        return;
    if (target.one_sum) {
        LAUNCH(call->dev, none_add, call->layout->length, .value = in->value,
               .senders = in->senders, .stride = in->stride, .to = target.to);
        return;
    }
    CHECK(target.stride == in->stride);
    LAUNCH_TILES(call->dev, none_take, &call->layout->tiles, in->senders, .value = in->value,
                 .how = target.how, .to = target.to);
}

static double none_paper_bytes(size_t n, double ratio)
{
    return 4.0 * (double)n;
}

const struct compressor none_compressor = {
    .name = "none",
    .about = "the gradient itself: the baseline",
    .settings = (const struct setting[]){{0}},
    .memory = "none",
    .unbiased = true,
    .contraction = true,
    .exchange = SUM,
    .part = {{.kind = VALUES, .room = none_room, .whole = true}},
    .encode = none_encode,
    .decode = none_decode,
    .paper_bytes = none_paper_bytes,
};

#endif

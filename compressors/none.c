/*
 * none -- all entries.  The baseline; and what a quantiser that stands alone works on.
 *
 *     message:  n values a tensor, the slab as it stands
 */
#include "compressors/compressor.h"

struct none_add {
    struct values values;
    uint32_t senders;
    float *to;
};

TILE_KERNEL(none_add)
{
    float *to = a->to + t->place;
    float sum[TILE_SLOTS];
    float value[TILE_SLOTS];

    EACH_SLOT (s)
        sum[s] = to[tile_element(t, s)];
    for (uint32_t w = 0; w < a->senders; w++) {
        struct values own = values_of(&a->values, w);

        values_read(&own, t, value);
        EACH_SLOT (s)
            sum[s] += tile_live(t, s) ? value[s] : 0;
    }
    EACH_SLOT (s)
        to[tile_element(t, s)] = sum[s];
}

struct none_take {
    struct values values;
    enum target_how how;
    float *to;
};

TILE_KERNEL(none_take)
{
    float value[TILE_SLOTS];

    values_read(&a->values, t, value);
    EACH_SLOT (s) {
        float *to = &a->to[tile_at(t, s)];

        *to = tile_live(t, s) ? target_apply(a->how, *to, value[s]) : 0;
    }
}

#ifndef __CUDACC__

#include "sim/layout.h"
#include "sim/wire.h"

static void none_encode(const struct call *call, struct message *out)
{
    out->values.value = call->wanted;
    out->values.stride = call->layout->tiles.stride;
}

static void none_decode(const struct call *call, const struct message *in, struct target target)
{
    const struct tiles *tiles = &call->layout->tiles;

    if (target.spare_whole)
        return;
    if (target.one_sum) {
        LAUNCH_TILES(call->dev, none_add, tiles, 1, .values = in->values, .senders = in->senders,
                     .to = target.to);
        return;
    }
    CHECK(target.stride == tiles->stride);
    LAUNCH_TILES(call->dev, none_take, tiles, in->senders, .values = in->values, .how = target.how,
                 .to = target.to);
}

static double none_paper_entries(size_t n, double ratio)
{
    return (double)n;
}

const struct compressor none_compressor = {
    .name = "none",
    .about = "the gradient itself: the baseline",
    .settings = (const struct setting[]){{0}},
    .memory = "none",
    .unbiased = true,
    .contraction = true,
    .exchange = SUM,
    .encode = none_encode,
    .decode = none_decode,
    .paper_entries = none_paper_entries,
};

#endif

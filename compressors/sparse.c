#include "compressors/sparse.h"

/* Which of a tile's sizes are above the cut, and which within. */
KERNEL_FN void cut_read(const struct sparse_cut *c, const struct tile *t, const float *x,
                        uint32_t above[TILE_SLOTS], uint32_t equal[TILE_SLOTS])
{
    uint32_t low = c->low[t->scalar];
    uint32_t high = c->high[t->scalar];

    EACH_SLOT (s) {
        uint32_t size = float_size(x[tile_at(t, s)]);

        above[s] = tile_live(t, s) & (size > high);
        equal[s] = tile_live(t, s) & (size >= low) & (size <= high);
    }
}

/* Where entries of a tile go, one behind the other. */
struct sparse_to {
    uint32_t *index;
    float *value;
};

#ifdef __CUDACC__

/* Those for which chosen[] is 1. */
KERNEL_FN void take_chosen(const struct tile *t, const uint32_t chosen[TILE_SLOTS], const float *x,
                           struct sparse_to to)
{
    uint32_t rank[TILE_SLOTS];

    tile_rank(t, chosen, rank);
    EACH_SLOT (s) {
        if (chosen[s]) {
            to.index[rank[s]] = (uint32_t)(t->begin + tile_element(t, s));
            to.value[rank[s]] = x[tile_at(t, s)];
        }
    }
}

#else

/* Those for which chosen[] is 1.  They are few: from bit to bit. */
KERNEL_FN void take_chosen(const struct tile *t, const uint32_t chosen[TILE_SLOTS], const float *x,
                           struct sparse_to to)
{
    uint32_t bits[TILE / 32];
    size_t rank = 0;

    tile_pack(t, chosen, 1, bits);
    for (uint32_t w = 0; w < TILE / 32; w++) {
        for (uint32_t left = bits[w]; left != 0; left &= left - 1) {
            uint32_t s = w * 32 + (uint32_t)__builtin_ctz(left);

            to.index[rank] = (uint32_t)t->begin + s;
            to.value[rank++] = x[tile_at(t, s)];
        }
    }
}

#endif

struct sparse_count {
    const float *x;
    struct sparse_cut cut;
    uint32_t *above, *equal; /* of tiles: sizes above the cut, and within */
};

TILE_KERNEL(sparse_count)
{
    uint32_t above[TILE_SLOTS];
    uint32_t equal[TILE_SLOTS];

    if (a->cut.peak[t->result] < a->cut.low[t->scalar]) {
        tile_put(t, a->above, 0);
        tile_put(t, a->equal, 0);
        return;
    }
    cut_read(&a->cut, t, a->x, above, equal);
    tile_put(t, a->above, tile_count(above));
    tile_put(t, a->equal, tile_count(equal));
}

struct sparse_compact {
    const float *x;
    struct sparse_cut cut;
    const uint32_t *above, *equal;           /* of tiles */
    const uint32_t *above_scan, *equal_scan; /* over all tiles of all workers */
    const uint32_t *n;                       /* [tensors] */
    const uint32_t *room_first; /* [tensors] tile of the message where a tensor begins */
    size_t room_stride;
    uint32_t *index;
    float *value;    /* [workers][room_stride] */
    uint32_t *count; /* [workers][tensors] */
};

TILE_KERNEL(sparse_compact)
{
    uint32_t above[TILE_SLOTS];
    uint32_t equal[TILE_SLOTS];
    uint32_t rank[TILE_SLOTS];
    uint32_t most = a->cut.most[t->scalar];
    size_t first = t->result - t->begin / TILE; /* of the tensor's tiles */
    uint32_t above_before = a->above_scan[t->result] - a->above_scan[first];
    uint32_t equal_before = a->equal_scan[t->result] - a->equal_scan[first];
    uint32_t above_after = above_before + a->above[t->result];
    uint32_t equal_after = equal_before + a->equal[t->result];
    size_t to = t->worker * a->room_stride + (size_t)a->room_first[t->tensor] * TILE +
                above_before + (equal_before < most ? equal_before : most);

    if (t->begin + TILE >= a->n[t->tensor] && tile_leads(t))
        a->count[t->scalar] = above_after + (equal_after < most ? equal_after : most);
    if (above_after == above_before && (equal_after == equal_before || equal_before >= most))
        return;
    cut_read(&a->cut, t, a->x, above, equal);
    if (equal_after > most) {
        tile_rank(t, equal, rank);
        EACH_SLOT (s)
            equal[s] &= equal_before + rank[s] < most;
    }
    EACH_SLOT (s)
        above[s] |= equal[s];
    take_chosen(t, above, a->x, (struct sparse_to){a->index + to, a->value + to});
}

struct sparse_take {
    const float *x;
    struct sparse_chosen chosen;
    const uint32_t *scan;       /* of the counts, over all tiles of all workers */
    const uint32_t *n;          /* [tensors] */
    const uint32_t *room_first; /* [tensors] tile of the message where a tensor begins */
    size_t room_stride;
    uint32_t *index;
    float *value;    /* [workers][room_stride] */
    uint32_t *count; /* [workers][tensors] */
};

TILE_KERNEL(sparse_take)
{
    uint32_t chosen[TILE_SLOTS];
    uint32_t own = a->chosen.count[t->result];
    size_t first = t->result - t->begin / TILE; /* of the tensor's tiles */
    uint32_t before = a->scan[t->result] - a->scan[first];
    size_t to = t->worker * a->room_stride + (size_t)a->room_first[t->tensor] * TILE + before;

    if (t->begin + TILE >= a->n[t->tensor] && tile_leads(t))
        a->count[t->scalar] = before + own;
    if (own == 0)
        return;
    tile_unpack(t, chosen_bits(&a->chosen, t), 1, chosen);
    take_chosen(t, chosen, a->x, (struct sparse_to){a->index + to, a->value + to});
}

struct sparse_take_same {
    const uint32_t *chosen;       /* [room] */
    const uint32_t *chosen_count; /* [tensors] */
    const uint32_t *n;            /* [tensors] */
    uint32_t scaled;
    const float *x; /* [workers][stride] */
    size_t stride;
    const uint32_t *first; /* [tensors] tile of x where a tensor begins */
    uint32_t *index, *count;
    float *value; /* [workers][room] */
};

TILE_KERNEL(sparse_take_same)
{
    const float *x = a->x + t->worker * a->stride + (size_t)a->first[t->tensor] * TILE;
    uint32_t count = a->chosen_count[t->tensor];
    float times = a->scaled ? (float)((double)a->n[t->tensor] / count) : 1;
    bool own = a->chosen == a->index && t->worker == 0;

    if (t->begin == 0 && tile_leads(t) && !own)
        a->count[t->scalar] = count;
    if (t->begin >= count)
        return;
    EACH_SLOT (s) {
        if (t->begin + tile_element(t, s) < count) {
            uint32_t index = a->chosen[t->place + tile_element(t, s)];

            if (!own)
                a->index[tile_at(t, s)] = index;
            a->value[tile_at(t, s)] = times * x[index];
        }
    }
}

struct sparse_put {
    const uint32_t *index;
    struct values values;
    const uint32_t *count; /* [senders][tensors] */
    const uint32_t *n;     /* [tensors] */
    const uint32_t *first; /* [tensors] tile of the target where a tensor begins */
    enum target_how how;
    uint32_t spare_whole;
    size_t stride;
    float *to;
};

TILE_KERNEL(sparse_put)
{
    uint32_t count = a->count[t->scalar];
    float *to = a->to + t->worker * a->stride + (size_t)a->first[t->tensor] * TILE;
    float value[TILE_SLOTS];

    if (t->begin >= count || (a->spare_whole && count == a->n[t->tensor]))
        return;
    values_read(&a->values, t, value);
    EACH_SLOT (s) {
        if (t->begin + tile_element(t, s) < count) {
            size_t at = a->index[tile_at(t, s)];

            to[at] = target_apply(a->how, to[at], value[s]);
        }
    }
}

#ifndef __CUDACC__

#include "sim/layout.h"
#include "sim/wire.h"

#include <math.h>

const struct setting sparse_settings[] = {
    SPARSE_RATIO,
    {0},
};

double sparse_paper_entries(size_t n, double ratio)
{
    return (double)sparse_keep(n, ratio);
}

size_t sparse_keep(size_t n, double ratio)
{
    size_t keep = (size_t)floor((double)n * ratio);

    return keep < 1 ? 1 : keep > n ? n : keep;
}

size_t sparse_room(const struct call *call, uint32_t tensor)
{
    return sparse_keep(call->layout->n[tensor], call->ratio_most);
}

size_t sparse_room_for_all(const struct call *call, uint32_t tensor)
{
    return call->layout->n[tensor];
}

/* 8 words of bits a tile. */
size_t sparse_chosen_scratch(const struct call *call)
{
    return call->workers * call->layout->length / TILE * 8 * sizeof(uint32_t);
}

size_t sparse_slab_scratch(const struct call *call)
{
    return call->layout->length * sizeof(float);
}

struct sparse_cut sparse_cut_of(const struct call *call, const float *x, const uint32_t *keep)
{
    const struct tiles *tiles = &call->layout->tiles;
    size_t pairs = (size_t)call->workers * tiles->tensors;
    uint32_t *threshold = device_scratch(call->dev, pairs * sizeof(*threshold));
    uint32_t *ties = device_scratch(call->dev, pairs * sizeof(*ties));
    uint32_t *peak = device_scratch(call->dev, call->workers * tiles->up_stride * sizeof(*peak));

    device_select(call->dev, &(struct selection){.x = x,
                                                 .tiles = tiles,
                                                 .workers = call->workers,
                                                 .n = call->layout->n,
                                                 .keep = keep,
                                                 .threshold = threshold,
                                                 .ties = ties,
                                                 .peak = peak});
    return (struct sparse_cut){threshold, threshold, ties, peak};
}

void sparse_take_cut(const struct call *call, const struct sparse_cut *cut, struct message *out)
{
    const struct tiles *tiles = &call->layout->tiles;
    size_t results = call->workers * tiles->up_stride;
    uint32_t *of_tiles[4];

    for (int i = 0; i < 4; i++)
        of_tiles[i] = device_scratch(call->dev, results * sizeof(uint32_t));
    LAUNCH_TILES(call->dev, sparse_count, tiles, call->workers, .x = call->wanted, .cut = *cut,
                 .above = of_tiles[0], .equal = of_tiles[1]);
    /* Between tensors' results lies room that nobody fills; only differences within a tensor count. */
    device_scan(call->dev, of_tiles[0], results, of_tiles[2]);
    device_scan(call->dev, of_tiles[1], results, of_tiles[3]);
    LAUNCH_TILES(call->dev, sparse_compact, tiles, call->workers, .x = call->wanted, .cut = *cut,
                 .above = of_tiles[0], .equal = of_tiles[1], .above_scan = of_tiles[2],
                 .equal_scan = of_tiles[3], .n = call->layout->n_dev,
                 .room_first = out->rooms.tiles.first, .room_stride = out->rooms.length,
                 .index = out->index, .value = out->own_value, .count = out->count);
    message_floats(out);
}

void sparse_select_top(const struct call *call, struct message *out)
{
    struct sparse_cut cut = sparse_cut_of(call, call->wanted, call->keep);

    sparse_take_cut(call, &cut, out);
}

struct sparse_chosen sparse_choice(const struct call *call)
{
    const struct tiles *tiles = &call->layout->tiles;
    size_t results = call->workers * tiles->up_stride;

    return (struct sparse_chosen){
        .bits =
            device_scratch(call->dev, (size_t)call->workers * tiles->count * 8 * sizeof(uint32_t)),
        .count = device_scratch(call->dev, results * sizeof(uint32_t)),
        .tiles = tiles->count,
    };
}

void sparse_take(const struct call *call, const struct sparse_chosen *chosen, struct message *out)
{
    const struct tiles *tiles = &call->layout->tiles;
    size_t results = call->workers * tiles->up_stride;
    uint32_t *scan = device_scratch(call->dev, results * sizeof(*scan));

    /* As above: only differences within a tensor count. */
    device_scan(call->dev, chosen->count, results, scan);
    LAUNCH_TILES(call->dev, sparse_take, tiles, call->workers, .x = call->wanted, .chosen = *chosen,
                 .scan = scan, .n = call->layout->n_dev, .room_first = out->rooms.tiles.first,
                 .room_stride = out->rooms.length, .index = out->index, .value = out->own_value,
                 .count = out->count);
    message_floats(out);
}

void sparse_take_same(const struct call *call, const uint32_t *index, const uint32_t *count,
                      bool scaled, struct message *out)
{
    const struct tiles *tiles = &call->layout->tiles;

    LAUNCH_TILES(call->dev, sparse_take_same, &out->rooms.tiles, call->workers, .chosen = index,
                 .chosen_count = count, .n = call->layout->n_dev, .scaled = scaled,
                 .x = call->wanted, .stride = tiles->stride, .first = tiles->first,
                 .index = out->index, .count = out->count, .value = out->own_value);
    message_floats(out);
}

static void put(const struct call *call, const struct message *in, uint32_t sender,
                uint32_t senders, struct target target)
{
    size_t at = sender * in->rooms.length;

    LAUNCH_TILES(call->dev, sparse_put, &in->rooms.tiles, senders, .index = in->index + at,
                 .values = values_of(&in->values, sender),
                 .count = in->count + (size_t)sender * in->rooms.count, .n = call->layout->n_dev,
                 .first = call->layout->tiles.first, .how = target.how,
                 .spare_whole = target.spare_whole, .stride = target.stride, .to = target.to);
}

void sparse_apply(const struct call *call, const struct message *in, struct target target)
{
    if (!target.one_sum)
        put(call, in, 0, in->senders, target);
    for (uint32_t sender = 0; target.one_sum && sender < in->senders; sender++)
        put(call, in, sender, 1, target);
}

#endif

/*
 * adacomp -- entries that the last gradient lifts to the largest of their bin.
 *
 *     H = G + c g                  G: what is wanted; g: the gradient in it
 *     M_b = max |G| of bin b       so many entries; a tensor's last bin may be shorter
 *     sent where |H| >= M_b > 0    as sign(G) s; s = mean of a tensor's M_b; sign(0) = +
 *
 * Chen, Choi, Brand, Agrawal, Zhang, Gopalakrishnan: AdaComp: adaptive residual gradient compression,
 * AAAI 2018, which has bins of 50 for convolutions and of 500 else, and c = 1 (its factor is 1 + c).
 *
 *     quantise=0    G itself is sent
 *     original=1    H itself is sent, and a tensor is one bin: the first reference.  A residual is
 *                   then -c g where something was sent
 *     sigmas=60     before all of that G is held to so many standard deviations: adacomp2 there.
 *                   What was sent is taken off G as it was, so that the rest is not lost
 *
 *     message:  a count a tensor, so many indices, rising, and as many values
 *
 * Bytes on paper: an entry has 8 bits in bins of up to 64, 16 in bins of up to 16,384, else 32; two
 * of them are the value, unless that goes as it is; and a tensor has 32.  With original=1 there is a
 * 32-bit word for an index and one for a value, as the first reference counts.  Behind it efsignsgd
 * sends just s and signs.
 */
#include "compressors/memory.h"
#include "compressors/quantise.h"
#include "compressors/sparse.h"

/* What G and H are made of. */
struct adacomp_source {
    const float *wanted; /* [workers][stride] */
    const float *held;   /* [workers][tensors] the largest size that counts; NULL: any */
    const float *grad, *scale, *params;
    const struct step *step;
    size_t stride;
    float c;
};

/* G of an entry of a tile's tensor. */
KERNEL_FN float adacomp_g(const struct adacomp_source *a, const struct tile *t, float x)
{
    float most = a->held ? a->held[t->scalar] : 0;

    return !a->held ? x : x > most ? most : -x > most ? -most : x;
}

/* H, of G and the entry's place in its worker's slab. */
KERNEL_FN float adacomp_h(const struct adacomp_source *a, const struct tile *t, float g,
                          size_t place)
{
    return g + a->c * memory_gradient(a->scale[t->worker], a->grad[t->worker * a->stride + place],
                                      a->step, a->params, place);
}

struct adacomp_bins {
    uint32_t *most; /* [workers][stride] of each bin, as float_size() has it */
    size_t stride;
    uint32_t size; /* entries of a bin */
    uint32_t unused;
};

/* What of the bins of a tile's tensor has entries in the tile. */
struct adacomp_span {
    uint32_t *most; /* of the tensor's first bin */
    uint32_t first, last;
};

/* A tensor that begins at place p, the t-th, has its bins from p / size + t on: those of the
 * tensors before it take no more. */
KERNEL_FN struct adacomp_span adacomp_span(const struct adacomp_bins *b, const struct tile *t)
{
    size_t last = t->begin + (t->live > 0 ? t->live - 1 : 0);
    struct adacomp_span span;

    span.most = b->most + t->worker * b->stride + (t->place - t->begin) / b->size + t->tensor;
    span.first = (uint32_t)(t->begin / b->size);
    span.last = (uint32_t)(last / b->size);
    return span;
}

/* The part of a bin that lies in a tile; whether it is the bin's first. */
struct adacomp_part {
    uint32_t from, to;
    bool begins;
};

KERNEL_FN struct adacomp_part adacomp_part(const struct adacomp_bins *b, const struct tile *t,
                                           uint32_t bin)
{
    size_t from = (size_t)bin * b->size;
    size_t to = from + b->size;
    struct adacomp_part part;

    part.begins = from >= t->begin;
    part.from = part.begins ? (uint32_t)(from - t->begin) : 0;
    part.to = to < t->begin + TILE ? (uint32_t)(to - t->begin) : TILE;
    return part;
}

KERNEL_FN bool adacomp_within(const struct adacomp_part *part, const struct tile *t, uint32_t s)
{
    return tile_element(t, s) >= part->from && tile_element(t, s) < part->to;
}

struct adacomp_held {
    struct entry_sums measured;
    const uint32_t *n; /* [tensors] */
    uint32_t tensors;
    double sigmas;
    float *held; /* [workers][tensors] */
};

ROW_KERNEL(adacomp_held)
{
    size_t pair = row * a->tensors + column;

    a->held[pair] = entries_held(&a->measured, pair, a->n[column], a->sigmas);
}

struct adacomp_most {
    struct adacomp_source from;
    struct adacomp_bins bins;
};

TILE_KERNEL(adacomp_most)
{
    struct adacomp_span span = adacomp_span(&a->bins, t);
    uint32_t size[TILE_SLOTS];
    uint32_t own[TILE_SLOTS];

    EACH_SLOT (s)
        size[s] = float_size(adacomp_g(&a->from, t, a->from.wanted[tile_at(t, s)]));
    for (uint32_t bin = span.first; bin <= span.last; bin++) {
        struct adacomp_part part = adacomp_part(&a->bins, t, bin);
        uint32_t most;

        EACH_SLOT (s)
            own[s] = adacomp_within(&part, t, s) ? size[s] : 0;
        most = tile_max(own);
        if (tile_leads(t))
            max_raise(&span.most[bin], most);
    }
}

struct adacomp_choose {
    struct adacomp_source from;
    struct adacomp_bins bins;
    struct sparse_chosen chosen;
    double *sum; /* of tiles: of the M_b of bins that begin there; NULL: nobody asks */
};

TILE_KERNEL(adacomp_choose)
{
    struct adacomp_span span = adacomp_span(&a->bins, t);
    uint32_t size[TILE_SLOTS];
    uint32_t chosen[TILE_SLOTS];
    double most[TILE_SLOTS];

    EACH_SLOT (s) {
        float g = adacomp_g(&a->from, t, a->from.wanted[tile_at(t, s)]);

        size[s] = float_size(adacomp_h(&a->from, t, g, t->place + tile_element(t, s)));
        chosen[s] = 0;
        most[s] = 0;
    }
    for (uint32_t bin = span.first; bin <= span.last; bin++) {
        struct adacomp_part part = adacomp_part(&a->bins, t, bin);
        uint32_t least = span.most[bin];

        EACH_SLOT (s)
            chosen[s] |= adacomp_within(&part, t, s) & (least > 0) & (size[s] >= least);
        if (!a->sum || !part.begins)
            continue;
        EACH_SLOT (s)
            most[s] += tile_element(t, s) == part.from ? (double)bits_float(least) : 0;
    }
    chosen_put(&a->chosen, t, chosen);
    if (a->sum)
        tile_put(t, a->sum, tile_sum(most));
}

enum adacomp_sent { SENT_G, SENT_H, SENT_SCALE };

struct adacomp_value {
    struct adacomp_source from;
    enum adacomp_sent what;
    uint32_t bin;
    const double *sum;     /* [workers][tensors] of the M_b */
    const uint32_t *n;     /* [tensors] */
    const uint32_t *first; /* [tensors] tile where a tensor begins */
    const uint32_t *index, *count;
    float *value; /* G before it is held; becomes what is sent */
};

TILE_KERNEL(adacomp_value)
{
    uint32_t count = a->count[t->scalar];
    uint32_t bins = (uint32_t)(((size_t)a->n[t->tensor] + a->bin - 1) / a->bin);
    float scale = a->what == SENT_SCALE ? (float)(a->sum[t->scalar] / bins) : 0;
    size_t first = (size_t)a->first[t->tensor] * TILE;

    if (t->begin >= count)
        return;
    EACH_SLOT (s) {
        if (t->begin + tile_element(t, s) < count) {
            size_t at = tile_at(t, s);
            float g = adacomp_g(&a->from, t, a->value[at]);

            a->value[at] = a->what == SENT_SCALE ? (g >= 0 ? scale : -scale)
                           : a->what == SENT_H   ? adacomp_h(&a->from, t, g, first + a->index[at])
                                                 : g;
        }
    }
}

#ifndef __CUDACC__

#include "sim/layout.h"

enum { C, BIN, QUANTISE, ORIGINAL, SIGMAS };

static const struct setting settings[] = {
    [C] = {"c", 1, 0, 1000, "so many times the last gradient lift an entry", NUMBER},
    [BIN] = {"bin", 500, 0, 1e9, "entries of a bin; 0: all of a tensor", WHOLE},
    [QUANTISE] = {"quantise", 1, 0, 1, "send signs times the mean of the bins' largest", SWITCH},
    [ORIGINAL] = {"original", 0, 0, 1, "a tensor is one bin, and what is sent is lifted", SWITCH},
    [SIGMAS] = {"sigmas", 0, 0, 1e6, "standard deviations that entries are held to; 0: not held",
                NUMBER},
    {0},
};

/* With size the most there can be, all of a tensor is one bin. */
static uint32_t bin_size(const double *values)
{
    return values[ORIGINAL] != 0 || values[BIN] == 0 ? UINT32_MAX : (uint32_t)values[BIN];
}

static enum adacomp_sent sent(const double *values)
{
    return values[ORIGINAL] != 0 ? SENT_H : values[QUANTISE] != 0 ? SENT_SCALE : SENT_G;
}

/* Of a worker. */
static size_t bins_of(const struct layout *l, uint32_t size)
{
    return l->length / size + l->count + 1;
}

static size_t adacomp_scratch(const struct call *call)
{
    size_t bins = bins_of(call->layout, bin_size(call->settings));

    return sparse_chosen_scratch(call) + call->workers * bins * sizeof(uint32_t);
}

static const float *held_of(const struct call *call)
{
    const struct tiles *tiles = &call->layout->tiles;
    struct entries all = {
        .from = {.form = {.kind = CODE_FLOAT}, .value = call->wanted, .stride = tiles->stride}};
    size_t pairs = (size_t)call->workers * tiles->tensors;
    struct entry_sums measured;
    float *held;

    if (call->settings[SIGMAS] == 0)
        return NULL;
    measured = entries_measure(call->layout, call->workers, &all);
    held = device_scratch(call->dev, pairs * sizeof(*held));
    LAUNCH_ROWS(call->dev, adacomp_held, call->workers, tiles->tensors, .measured = measured,
                .n = call->layout->n_dev, .tensors = tiles->tensors,
                .sigmas = call->settings[SIGMAS], .held = held);
    return held;
}

/* The largest of each bin. */
static struct adacomp_bins bins_measure(const struct call *call, const struct adacomp_source *from)
{
    struct adacomp_bins bins = {.size = bin_size(call->settings)};
    size_t bytes;

    bins.stride = bins_of(call->layout, bins.size);
    bytes = call->workers * bins.stride * sizeof(*bins.most);
    bins.most = device_scratch(call->dev, bytes);
    device_clear(call->dev, bins.most, bytes);
    LAUNCH_TILES(call->dev, adacomp_most, &call->layout->tiles, call->workers, .from = *from,
                 .bins = bins);
    return bins;
}

static void adacomp_encode(const struct call *call, struct message *out)
{
    const struct tiles *tiles = &call->layout->tiles;
    enum adacomp_sent what = sent(call->settings);
    struct adacomp_source from = {.wanted = call->wanted,
                                  .held = held_of(call),
                                  .grad = call->grad,
                                  .scale = call->scale,
                                  .params = call->params,
                                  .step = call->step,
                                  .stride = tiles->stride,
                                  .c = (float)call->settings[C]};
    struct adacomp_bins bins = bins_measure(call, &from);
    struct sparse_chosen chosen = sparse_choice(call);
    double *sum = NULL;
    double *of_tiles = NULL;

    if (what == SENT_SCALE) {
        of_tiles = device_scratch(call->dev, call->workers * tiles->up_stride * sizeof(*sum));
        sum = device_scratch(call->dev, (size_t)call->workers * tiles->tensors * sizeof(*sum));
    }
    LAUNCH_TILES(call->dev, adacomp_choose, tiles, call->workers, .from = from, .bins = bins,
                 .chosen = chosen, .sum = of_tiles);
    if (what == SENT_SCALE)
        layout_tensor_sums(call->layout, call->workers, of_tiles, sum);
    sparse_take(call, &chosen, out);
    LAUNCH_TILES(call->dev, adacomp_value, &out->rooms.tiles, call->workers, .from = from,
                 .what = what, .bin = bins.size, .sum = sum, .n = call->layout->n_dev,
                 .first = tiles->first, .index = out->index, .count = out->count,
                 .value = out->own_value);
}

static struct paper_bits adacomp_paper_bits(const double *values)
{
    uint32_t size = bin_size(values);
    double word = size <= 64 ? 8 : size <= 16384 ? 16 : 32;
    bool scaled = sent(values) == SENT_SCALE;

    if (values[ORIGINAL] != 0)
        return (struct paper_bits){.index = 32, .value = 32};
    return (struct paper_bits){
        .index = word - 2, .value = scaled ? 2 : 32, .tensor = scaled ? 32 : 0};
}

const struct compressor adacomp_compressor = {
    .name = "adacomp",
    .about = "entries that the last gradient lifts to the largest of their bin",
    .paper = "Chen et al.: AdaComp: adaptive residual gradient compression, AAAI 2018",
    .settings = settings,
    .memory = "residual",
    .exchange = GATHER,
    .counted = true,
    .room = sparse_room_for_all,
    .scratch = adacomp_scratch,
    .encode = adacomp_encode,
    .decode = sparse_apply,
    .paper_bits = adacomp_paper_bits,
};

#endif

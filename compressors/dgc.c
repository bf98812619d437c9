/*
 * dgc -- deep gradient compression: top-k of accumulated, momentum-corrected gradients.
 *
 * Lin, Han, Mao, Wang, Dally: Deep Gradient Compression, ICLR 2018.  The selection is topk's; what
 * makes it DGC is its memory (memory_dgc.c), clipping "local-sqrt-k" and the warm-up of the ratio,
 * which a regime sets.
 *
 *     sampled=1    as the authors' code selects.  A sample at even distances tells a threshold.
 *                  Where more than `upper` times ceil(n ratio) entries reach it, the largest of them
 *                  are sent; where fewer than `lower` times, it is lowered, at most `rounds` times;
 *                  and of those that reach it the first ceil(n ratio) are sent, so that entries at
 *                  the end of a tensor come short.  resample=0: it is raised, too
 *
 *     message:  k indices, rising, and k values a tensor; sampled, a count before them
 *
 * Bytes on paper: ceil(n ratio) entries of a 32-bit value and a 16-bit run of zeros.
 * Differs from the paper: but for sampled=1 the threshold is exact, and k is rounded down.
 */
#include "compressors/sparse.h"
#include "sim/rng.h"
#include "sim/step.h"

KERNEL_FN double dgc_ceil(double x)
{
    double low = floor(x);

    return low < x ? low + 1 : low;
}

/* Of a tensor in a step: every stride-th entry is sampled, of these the top largest tell the
 * threshold; at most so many are selected. */
struct dgc_plan {
    const uint32_t *n; /* [tensors] */
    const struct step *step;
    double sample_ratio;
    uint32_t *stride, *top, *selects; /* [tensors] */
};

ROW_KERNEL(dgc_plan)
{
    uint32_t n = a->n[column];
    double ratio = a->step->ratio;
    double share = dgc_ceil(n * a->sample_ratio);
    double two = dgc_ceil(2 / ratio); /* of the selected entries are in the sample */
    double least = share > two ? share : two;
    uint32_t stride = 1;
    uint32_t samples = n;

    if (a->sample_ratio < 1 && ratio < 1 && n > two) {
        stride = (uint32_t)dgc_ceil(n / least / 32) * 32 + 1;
        for (samples = n / stride; samples < least; samples = n / stride)
            stride -= 8;
    }
    a->stride[column] = stride;
    a->top[column] = (uint32_t)dgc_ceil(samples * ratio);
    a->selects[column] = (uint32_t)dgc_ceil(n * ratio);
}

struct dgc_sample {
    const float *x;         /* [workers][stride of the slab] */
    const uint32_t *stride; /* [tensors] */
    const struct step *step;
    uint32_t first_worker;
    float *sample; /* [workers][length] zero where an entry is not sampled */
    size_t length;
};

/* From a random one of the first entries on. */
TILE_KERNEL(dgc_sample)
{
    uint32_t stride = a->stride[t->tensor];
    struct rng_block draw = rng_block(a->step->seed, RNG_SELECTION, 0, a->first_worker + t->worker,
                                      t->tensor, (uint32_t)a->step->number);
    uint32_t start = (uint32_t)((uint64_t)draw.word[0] * stride >> 32);
    uint32_t begin = (uint32_t)(t->begin % stride);
    uint32_t first = start >= begin ? start - begin : start + stride - begin;
    float *sample = a->sample + t->worker * a->length + t->place;

    EACH_SLOT (s)
        sample[tile_element(t, s)] = 0;
    for (uint32_t e = first; e < TILE; e += stride)
        if (tile_owns(t, e))
            sample[e] = a->x[t->at + e];
}

/* Of a tensor of a worker: whether its threshold stands, or is that of an exact selection. */
enum dgc_state { DGC_MOVES, DGC_STANDS, DGC_EXACT };

struct dgc_threshold {
    float *threshold;
    uint32_t *state;
    uint64_t *above; /* entries that reach it */
};

struct dgc_begin {
    struct dgc_threshold of; /* [workers][tensors], all of them */
    const uint32_t *sampled; /* the least of the top samples */
    const uint32_t *stride;  /* [tensors] */
    uint32_t tensors;
};

ROW_KERNEL(dgc_begin)
{
    size_t pair = row * a->tensors + column;

    a->of.threshold[pair] = bits_float(a->sampled[pair]);
    a->of.state[pair] = a->stride[column] > 1 ? DGC_MOVES : DGC_STANDS;
    a->of.above[pair] = 0;
}

struct dgc_count {
    const float *x;
    struct dgc_threshold of;
};

TILE_KERNEL(dgc_count)
{
    uint32_t above[TILE_SLOTS];
    uint32_t threshold = float_size(a->of.threshold[t->scalar]);
    uint32_t count;

    if (a->of.state[t->scalar] != DGC_MOVES)
        return;
    EACH_SLOT (s) {
        uint32_t size = float_size(a->x[tile_at(t, s)]);

        above[s] = tile_live(t, s) & (size >= threshold);
    }
    count = tile_count(above);
    if (tile_leads(t) && count > 0)
        count_add(&a->of.above[t->scalar], count);
}

struct dgc_adapt {
    struct dgc_threshold of;
    const uint32_t *selects; /* [tensors] */
    uint32_t tensors;
    uint32_t resample;
    double upper, lower;
};

ROW_KERNEL(dgc_adapt)
{
    size_t pair = row * a->tensors + column;
    double selects = a->selects[column];
    double above = (double)a->of.above[pair];
    float *threshold = &a->of.threshold[pair];

    if (a->of.state[pair] != DGC_MOVES)
        return;
    a->of.above[pair] = 0;
    if (above > selects * a->upper && a->resample)
        a->of.state[pair] = DGC_EXACT;
    else if (above > selects * a->upper)
        *threshold *= (float)a->upper;
    else if (above < selects * a->lower)
        *threshold *= (float)a->lower;
    else
        a->of.state[pair] = DGC_STANDS;
}

struct dgc_cut {
    struct dgc_threshold of;
    const uint32_t *exact, *ties; /* [workers][tensors] of an exact selection */
    const uint32_t *selects;      /* [tensors] */
    uint32_t tensors;
    uint32_t *low, *high, *most; /* [workers][tensors] */
};

ROW_KERNEL(dgc_cut)
{
    size_t pair = row * a->tensors + column;
    bool exact = a->of.state[pair] == DGC_EXACT;

    a->low[pair] = exact ? a->exact[pair] : float_size(a->of.threshold[pair]);
    a->high[pair] = exact ? a->exact[pair] : UINT32_MAX;
    a->most[pair] = exact ? a->ties[pair] : a->selects[column];
}

#ifndef __CUDACC__

#include "sim/layout.h"

enum { RATIO, SAMPLED, SAMPLE_RATIO, UPPER, LOWER, ROUNDS, RESAMPLE };

static const struct setting settings[] = {
    [RATIO] = SPARSE_RATIO,
    [SAMPLED] = {"sampled", 0, 0, 1, "select as the authors' code does, by a sample", SWITCH},
    [SAMPLE_RATIO] = {"sample_ratio", 0.01, 0.01, 1, "share of entries in the sample", NUMBER},
    [UPPER] = {"upper", 1.3, 1, 100, "times ceil(n ratio) that a threshold may leave", NUMBER},
    [LOWER] = {"lower", 0.8, 0, 1, "times ceil(n ratio) that it must", NUMBER},
    [ROUNDS] = {"rounds", 10, 0, 100, "that it is moved at most", WHOLE},
    [RESAMPLE] = {"resample", 1, 0, 1, "of too many the largest; else the threshold is raised",
                  SWITCH},
    {0},
};

static bool dgc_counts(const double *values)
{
    return values[SAMPLED] != 0;
}

static double dgc_paper_entries(size_t n, double ratio)
{
    return ceil((double)n * ratio);
}

static size_t dgc_room(const struct call *call, uint32_t tensor)
{
    if (dgc_counts(call->settings))
        return (size_t)dgc_paper_entries(call->layout->n[tensor], call->ratio_most);
    return sparse_room(call, tensor);
}

static size_t dgc_scratch(const struct call *call)
{
    return dgc_counts(call->settings) ? call->workers * sparse_slab_scratch(call) : 0;
}

/* What dgc_plan() tells of each tensor. */
struct sampling {
    uint32_t *stride, *top, *selects;
};

static struct sampling plan_tensors(const struct call *call)
{
    uint32_t tensors = call->layout->count;
    uint32_t *room = device_scratch(call->dev, 3 * (size_t)tensors * sizeof(*room));
    struct sampling plan = {room, room + tensors, room + 2 * (size_t)tensors};

    LAUNCH_ROWS(call->dev, dgc_plan, 1, tensors, .n = call->layout->n_dev, .step = call->step,
                .sample_ratio = call->settings[SAMPLE_RATIO], .stride = plan.stride,
                .top = plan.top, .selects = plan.selects);
    return plan;
}

/* The least of the largest samples; of tensors all of which is sampled that is the end of it. */
static struct dgc_threshold first_threshold(const struct call *call, const struct sampling *plan)
{
    const struct tiles *tiles = &call->layout->tiles;
    size_t pairs = (size_t)call->workers * tiles->tensors;
    size_t length = call->layout->length;
    float *sample = device_scratch(call->dev, call->workers * length * sizeof(*sample));
    struct layout alone = *call->layout;
    struct call own = *call;
    struct dgc_threshold of = {
        .threshold = device_scratch(call->dev, pairs * sizeof(*of.threshold)),
        .state = device_scratch(call->dev, pairs * sizeof(*of.state)),
        .above = device_scratch(call->dev, pairs * sizeof(*of.above)),
    };

    LAUNCH_TILES(call->dev, dgc_sample, tiles, call->workers, .x = call->wanted,
                 .stride = plan->stride, .step = call->step, .first_worker = call->first,
                 .sample = sample, .length = length);
    alone.tiles.stride = length;
    own.layout = &alone;
    LAUNCH_ROWS(call->dev, dgc_begin, call->workers, tiles->tensors, .of = of,
                .sampled = sparse_cut_of(&own, sample, plan->top).low, .stride = plan->stride,
                .tensors = tiles->tensors);
    return of;
}

static void adapt(const struct call *call, const struct sampling *plan,
                  const struct dgc_threshold *of)
{
    const struct tiles *tiles = &call->layout->tiles;
    uint32_t rounds = (uint32_t)call->settings[ROUNDS];

    for (uint32_t round = 0; round < rounds; round++) {
        LAUNCH_TILES(call->dev, dgc_count, tiles, call->workers, .x = call->wanted, .of = *of);
        LAUNCH_ROWS(call->dev, dgc_adapt, call->workers, tiles->tensors, .of = *of,
                    .selects = plan->selects, .tensors = tiles->tensors,
                    .resample = call->settings[RESAMPLE] != 0, .upper = call->settings[UPPER],
                    .lower = call->settings[LOWER]);
    }
}

/* The exact selection is always made; a tensor that needs none pays for it all the same. */
static void dgc_encode(const struct call *call, struct message *out)
{
    const struct tiles *tiles = &call->layout->tiles;
    size_t pairs = (size_t)call->workers * tiles->tensors;
    struct dgc_threshold of;
    struct sparse_cut exact;
    struct sampling plan;
    uint32_t *cut;

    if (!dgc_counts(call->settings)) {
        sparse_select_top(call, out);
        return;
    }
    plan = plan_tensors(call);
    of = first_threshold(call, &plan);
    adapt(call, &plan, &of);
    exact = sparse_cut_of(call, call->wanted, plan.selects);
    cut = device_scratch(call->dev, 3 * pairs * sizeof(*cut));
    LAUNCH_ROWS(call->dev, dgc_cut, call->workers, tiles->tensors, .of = of, .exact = exact.low,
                .ties = exact.most, .selects = plan.selects, .tensors = tiles->tensors, .low = cut,
                .high = cut + pairs, .most = cut + 2 * pairs);
    sparse_take_cut(call, &(struct sparse_cut){cut, cut + pairs, cut + 2 * pairs, exact.peak}, out);
}

const struct compressor dgc_compressor = {
    .name = "dgc",
    .about = "top-k with momentum correction and factor masking (its own memory)",
    .paper = "Lin, Han, Mao, Wang, Dally: Deep Gradient Compression, ICLR 2018",
    .settings = settings,
    .memory = "dgc",
    .contraction = true,
    .exchange = GATHER,
    .counts = dgc_counts,
    .room = dgc_room,
    .scratch = dgc_scratch,
    .encode = dgc_encode,
    .decode = sparse_apply,
    .paper_entries = dgc_paper_entries,
    .paper_index_bits = 16,
};

#endif

/*
 * terngrad -- every value to -s, 0 or +s, by chance, so that it is right on average.
 *
 *     x' = x, held to c standard deviations      s = max |x'|, a tensor at a time
 *     Q(x) = s sign(x') with probability |x'| / s, else 0
 *
 * Wen, Xu, Yan, Wu, Wang, Chen, Li: TernGrad: ternary gradients to reduce communication in distributed
 * deep learning, NIPS 2017.  With shared scalers the sum of K workers is a number from -K to K, and
 * comes back as one.  Where all values are equal nothing is clipped: in the first reference
 * such tensors (one entry, say) are never sent.
 *
 *     message:  a 32-bit scalar a tensor, 2 bits a value
 *
 * Bytes on paper: 2 bits a value.
 */
#include "compressors/quantise.h"
#include "sim/rng.h"
#include "sim/step.h"

struct terngrad_measure {
    struct entries e;
    double *sum, *square; /* of tiles, of what is left when the tensor's first entry is taken off */
    uint32_t *most;       /* of tiles: the largest size */
};

/* Taking off one of the values leaves sums from which the variance can be had: it is exactly 0
 * where all are equal. */
TILE_KERNEL(terngrad_measure)
{
    double first = (double)a->e.from.value[t->worker * a->e.from.stride + t->place - t->begin];
    double v[TILE_SLOTS];
    uint32_t size[TILE_SLOTS];
    float x[TILE_SLOTS];

    entries_read(&a->e, t, x);
    EACH_SLOT (s)
        v[s] = entry_live(&a->e, t, s) ? (double)x[s] - first : 0;
    tile_put(t, a->sum, tile_sum(v));
    EACH_SLOT (s)
        v[s] *= v[s];
    tile_put(t, a->square, tile_sum(v));
    EACH_SLOT (s)
        size[s] = float_size(x[s]);
    tile_put(t, a->most, tile_max(size));
}

struct terngrad_scaler {
    struct entries e;
    const double *sum, *square; /* [senders][tensors] */
    const uint32_t *most;
    const uint32_t *n, *first; /* [tensors] */
    uint32_t tensors;
    double clip;
};

ROW_KERNEL(terngrad_scaler)
{
    size_t pair = row * a->tensors + column;
    double count = entry_count(&a->e, a->n, pair, (uint32_t)column);
    double mean = count > 0 ? a->sum[pair] / count : 0;
    double variance = count > 0 ? a->square[pair] / count - mean * mean : 0;
    float limit = (float)(a->clip * sqrt(variance > 0 ? variance : 0));
    float most = bits_float(a->most[pair]);

    *entries_tensor_scalar(&a->e, a->first, row, column) =
        count > 0 ? (limit > 0 && limit < most ? limit : most) : 0;
}

struct terngrad_code {
    struct entries e;
    const struct step *step;
    uint32_t first_worker;
};

TILE_KERNEL(terngrad_code)
{
    uint32_t code[TILE_SLOTS];
    float x[TILE_SLOTS];
    float draw[TILE_SLOTS];
    float scaler = *entries_scalar(&a->e, t);

    entries_read(&a->e, t, x);
    tile_uniform(t, a->step->seed, RNG_COMPRESSOR, a->first_worker + t->worker,
                 (uint32_t)a->step->number, draw);
    EACH_SLOT (s) {
        float size = x[s] < 0 ? -x[s] : x[s];
        uint32_t sent = draw[s] * scaler < (size < scaler ? size : scaler);

        code[s] = sent | (sent & (x[s] < 0)) << 1;
    }
    entries_write(&a->e, t, code);
}

#ifndef __CUDACC__

enum { CLIP, SHARED };

static const struct setting settings[] = {
    [CLIP] = {"clip", 2.5, 0, 1e6, "standard deviations that values are held to; 0: not held",
              NUMBER},
    [SHARED] = {"shared", 0, 0, 1, "one s for all workers, the largest: codes can be added up",
                SWITCH},
    {0},
};

static bool terngrad_shares(const double *values)
{
    return values[SHARED] != 0;
}

static struct code_form terngrad_form(const double *values)
{
    return (struct code_form){.kind = CODE_LEVEL, .bits = 2, .levels = 1, .scaled = 1};
}

static void terngrad_encode(const struct call *call, struct message *m)
{
    const struct tiles *tiles = &m->rooms.tiles;
    struct entries e = entries_of(m, terngrad_form(call->settings));
    size_t results = m->senders * tiles->up_stride;
    size_t pairs = (size_t)m->senders * tiles->tensors;
    double *of_tiles = device_scratch(call->dev, 2 * results * sizeof(*of_tiles));
    uint32_t *most_of_tiles = device_scratch(call->dev, results * sizeof(*most_of_tiles));
    double *sums = device_scratch(call->dev, 2 * pairs * sizeof(*sums));
    uint32_t *most = device_scratch(call->dev, pairs * sizeof(*most));

    LAUNCH_TILES(call->dev, terngrad_measure, tiles, m->senders, .e = e, .sum = of_tiles,
                 .square = of_tiles + results, .most = most_of_tiles);
    layout_tensor_sums(&m->rooms, m->senders, of_tiles, sums);
    layout_tensor_sums(&m->rooms, m->senders, of_tiles + results, sums + pairs);
    layout_tensor_maxima(&m->rooms, m->senders, most_of_tiles, most);
    LAUNCH_ROWS(call->dev, terngrad_scaler, m->senders, tiles->tensors, .e = e, .sum = sums,
                .square = sums + pairs, .most = most, .n = call->layout->n_dev,
                .first = tiles->first, .tensors = tiles->tensors, .clip = call->settings[CLIP]);
    if (terngrad_shares(call->settings))
        quantise_share_scalars(call, m);
    LAUNCH_TILES(call->dev, terngrad_code, tiles, m->senders, .e = e, .step = call->step,
                 .first_worker = call->first);
}

static double terngrad_paper_bits(const double *values)
{
    return 2;
}

const struct quantiser terngrad_quantiser = {
    .name = "terngrad",
    .about = "-s, 0 or +s, by chance; s is the largest size of a tensor",
    .paper = "Wen et al.: TernGrad: ternary gradients to reduce communication, NIPS 2017",
    .settings = settings,
    .memory = "none",
    .unbiased = true,
    .shares = terngrad_shares,
    .form = terngrad_form,
    .encode = terngrad_encode,
    .paper_bits = terngrad_paper_bits,
};

#endif

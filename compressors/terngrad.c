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

struct terngrad_scaler {
    struct entries e;
    struct entry_sums measured;
    const uint32_t *n, *first; /* [tensors] */
    uint32_t tensors;
    double clip;
};

ROW_KERNEL(terngrad_scaler)
{
    size_t pair = row * a->tensors + column;

    *entries_tensor_scalar(&a->e, a->first, row, column) =
        entries_held(&a->measured, pair, entry_count(&a->e, a->n, pair, (uint32_t)column), a->clip);
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
    struct entry_sums measured = entries_measure(&m->rooms, m->senders, &e);

    LAUNCH_ROWS(call->dev, terngrad_scaler, m->senders, tiles->tensors, .e = e,
                .measured = measured, .n = call->layout->n_dev, .first = tiles->first,
                .tensors = tiles->tensors, .clip = call->settings[CLIP]);
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

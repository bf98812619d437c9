/*
 * variance -- entries whose accumulated gradient is large beside its variance.
 *
 *     r := r + g      v := v + sum over micro-batches of (g_m / M)^2
 *     r^2 > alpha v:  send r; r := 0, v := 0      else  v := zeta v
 *
 * Tsuzuku, Imachi, Akiba: Variance-based gradient compression for efficient distributed deep learning,
 * ICLR workshop 2018.  r is what other methods have a memory for, so it takes none.
 *
 *     message:  a count a tensor, so many indices, rising, and as many values
 *
 * Bytes on paper: a 32-bit word an entry, of 28 bits of index and 4 of value.
 * Differs from the paper: the squares are of `micro` micro-batches of a worker's batch, not of single
 * samples (micro as large as the batch is those); values go as they are, not in 4 bits.
 * original=1 is what the first reference made of it: one pass over the places of a tensor, in which
 * r and v run from an entry to the next; what is not sent is the residual memory's.
 */
#include "compressors/sparse.h"
#include "sim/exactmath.h"

struct variance_choose {
    const float *x;      /* [workers][stride] */
    const float *square; /* the same; NULL: of one micro-batch, which is x */
    const float *scale;  /* [workers] */
    float alpha, zeta;
    float *r, *v; /* [workers][stride] */
    struct sparse_chosen chosen;
};

TILE_KERNEL(variance_choose)
{
    float scale = a->scale[t->worker];
    uint32_t chosen[TILE_SLOTS];

    EACH_SLOT (s) {
        size_t i = tile_at(t, s);
        float square = a->square ? scale * scale * a->square[i] : a->x[i] * a->x[i];
        float r = a->r[i] + a->x[i];
        float v = a->v[i] + square;

        chosen[s] = r * r > a->alpha * v;
        a->r[i] = r;
        a->v[i] = exact_fade(a->zeta * v);
    }
    chosen_put(&a->chosen, t, chosen);
}

struct variance_walk {
    const float *x;    /* [workers][stride] */
    const uint32_t *n; /* [tensors] */
    float batch, alpha;
    struct sparse_chosen chosen;
};

/* One after the other, so a tensor is walked from its first tile. */
TILE_KERNEL(variance_walk)
{
    uint32_t n = a->n[t->tensor];
    uint32_t *bits = chosen_bits(&a->chosen, t);
    float r = 0;
    float v = 0;

    if (t->begin > 0 || !tile_leads(t))
        return;
    for (uint32_t tile = 0; tile * TILE < n; tile++) {
        uint32_t count = 0;

        for (uint32_t e = 0; e < TILE; e++) {
            uint32_t sent = 0;

            if (tile * TILE + e < n) {
                float part = a->x[t->at + (size_t)tile * TILE + e] / a->batch;

                r += part;
                v += part * part;
                sent = r * r > a->alpha * v;
                r = sent ? 0 : r;
                v = sent ? 0 : v * 0.999f;
            }
            if (e % 32 == 0)
                bits[(size_t)tile * 8 + e / 32] = 0;
            bits[(size_t)tile * 8 + e / 32] |= sent << e % 32;
            count += sent;
        }
        a->chosen.count[t->result + tile] = count;
    }
}

#ifndef __CUDACC__

#include "sim/layout.h"
#include "sim/wire.h"

enum { ALPHA, ZETA, MICRO, ORIGINAL, BATCH };

static const struct setting settings[] = {
    [ALPHA] = {"alpha", 1, 0, 1e6, "how many times the variance is to be exceeded", NUMBER},
    [ZETA] = {"zeta", 0.999, 0, 1, "share of the variance that stays", NUMBER},
    [MICRO] = {"micro", 2, 1, 1024, "micro-batches of a worker's batch", WHOLE},
    [ORIGINAL] = {"original", 0, 0, 1, "the first reference's walk over places", SWITCH},
    [BATCH] = {"batch", 128, 1, 1e6, "what original=1 divides by", NUMBER},
    {0},
};

static uint32_t variance_micro(const double *values)
{
    return values[ORIGINAL] != 0 ? 1 : (uint32_t)values[MICRO];
}

static void walk(const struct call *call, struct message *out)
{
    struct sparse_chosen chosen = sparse_choice(call);

    LAUNCH_TILES(call->dev, variance_walk, &call->layout->tiles, call->workers, .x = call->wanted,
                 .n = call->layout->n_dev, .batch = (float)call->settings[BATCH],
                 .alpha = (float)call->settings[ALPHA], .chosen = chosen);
    sparse_take(call, &chosen, out);
}

/* r and v are zero where something was sent. */
static void variance_encode(const struct call *call, struct message *out)
{
    struct sparse_chosen chosen;
    struct call own = *call;

    if (call->settings[ORIGINAL] != 0) {
        walk(call, out);
        return;
    }
    chosen = sparse_choice(call);
    LAUNCH_TILES(call->dev, variance_choose, &call->layout->tiles, call->workers, .x = call->wanted,
                 .square = call->square, .scale = call->scale,
                 .alpha = (float)call->settings[ALPHA], .zeta = (float)call->settings[ZETA],
                 .r = call->own[0], .v = call->own[1], .chosen = chosen);
    own.wanted = call->own[0];
    sparse_take(&own, &chosen, out);
    for (int i = 0; i < 2; i++)
        sparse_apply(call, out,
                     (struct target){
                         .how = CLEAR, .to = call->own[i], .stride = call->layout->tiles.stride});
}

static struct paper_bits variance_paper_bits(const double *values)
{
    return values[ORIGINAL] != 0 ? (struct paper_bits){.index = 0, .value = 32}
                                 : (struct paper_bits){.index = 28, .value = 4};
}

const struct compressor variance_compressor = {
    .name = "variance",
    .about = "entries whose accumulated gradient is large beside its variance",
    .paper = "Tsuzuku, Imachi, Akiba: Variance-based gradient compression, ICLR workshop 2018",
    .settings = settings,
    .memory = "none",
    .exchange = GATHER,
    .counted = true,
    .own = {"accumulated", "variance"},
    .room = sparse_room_for_all,
    .micro = variance_micro,
    .scratch = sparse_chosen_scratch,
    .encode = variance_encode,
    .decode = sparse_apply,
    .paper_bits = variance_paper_bits,
};

#endif

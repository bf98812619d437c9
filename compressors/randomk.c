/*
 * randomk -- k random entries of every tensor, the same for all workers.
 *
 *     D(C(x)) = (n / k) x at k of the n entries, drawn without replacement, else 0
 *
 * Stich, Cordonnier, Jaggi: Sparsified SGD with memory, NeurIPS 2018; the factor, by which it is
 * right on average, as Wangni, Wang, Liu, Zhang: Gradient sparsification, NeurIPS 2018.
 * k = max(1, floor(n ratio)).  With a memory that keeps what is not sent there is no factor, whatever
 * the setting says: what is kept would be taken off n / k times, and grow without end.  The draw is a
 * function of seed, step and tensor: the k entries with the largest of n random keys.
 *
 *     message:  k values a tensor; all workers know the indices
 *
 * Bytes on paper: 32 bits a value.
 */
#include "compressors/sparse.h"
#include "sim/rng.h"
#include "sim/step.h"

struct randomk_key {
    const struct step *step;
    float *key; /* of one worker; only its size counts, 31 bits */
};

TILE_KERNEL(randomk_key)
{
    uint32_t word[TILE_SLOTS];

    tile_random(t, a->step->seed, RNG_SELECTION, 0, (uint32_t)a->step->number, word);
    EACH_SLOT (s)
        a->key[tile_at(t, s)] = bits_float(word[s] >> 1);
}

#ifndef __CUDACC__

#include "sim/wire.h"

enum { RATIO, SCALE };

static const struct setting settings[] = {
    [RATIO] = SPARSE_RATIO,
    [SCALE] = {"scale", 1, 0, 1,
               "times n/k, so that the mean is right; never with a memory that keeps the rest",
               SWITCH},
    {0},
};

/* The largest keys go to the first worker's part of the message, and what is there to all. */
static void randomk_encode(const struct call *call, struct message *out)
{
    float *key = device_scratch(call->dev, call->layout->length * sizeof(*key));
    struct call one = *call;

    LAUNCH_TILES(call->dev, randomk_key, &call->layout->tiles, 1, .step = call->step, .key = key);
    one.workers = 1;
    one.wanted = key;
    sparse_select_top(&one, out);
    sparse_take_same(call, out->index, out->count, call->settings[SCALE] != 0 && !call->kept, out);
}

const struct compressor randomk_compressor = {
    .name = "randomk",
    .about = "k random entries of every tensor, the same for all workers",
    .paper = "Stich, Cordonnier, Jaggi: Sparsified SGD with memory, NeurIPS 2018",
    .settings = settings,
    .memory = "none",
    .unbiased = true,
    .exchange = SUM,
    .agreed = true,
    .room = sparse_room,
    .scratch = sparse_slab_scratch,
    .encode = randomk_encode,
    .decode = sparse_apply,
    .paper_entries = sparse_paper_entries,
};

#endif

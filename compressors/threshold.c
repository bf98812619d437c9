/*
 * threshold -- entries whose size reaches a threshold, as plus or minus the threshold.
 *
 *     D(C(x)) = sign(x) tau where |x| >= tau, else 0
 *
 * Strom: Scalable distributed DNN training using commodity GPU cloud computing, Interspeech 2015.
 *
 *     message:  a count a tensor, so many indices, rising, and as many values
 *
 * Bytes on paper: 32 bits an entry, of which one is the sign; 64 where values go as they are.
 * Behind it efsignsgd sends just those signs: all values have one size.
 * Differs from the paper: a size of just tau is sent, too.
 */
#include "compressors/sparse.h"

struct threshold_choose {
    const float *x;
    float tau;
    struct sparse_chosen chosen;
};

TILE_KERNEL(threshold_choose)
{
    uint32_t chosen[TILE_SLOTS];

    EACH_SLOT (s) {
        float x = a->x[tile_at(t, s)];

        chosen[s] = (x >= a->tau) | (-x >= a->tau);
    }
    chosen_put(&a->chosen, t, chosen);
}

struct threshold_value {
    const uint32_t *count; /* [workers][tensors] */
    float tau;
    float *value;
};

TILE_KERNEL(threshold_value)
{
    uint32_t count = a->count[t->scalar];

    if (t->begin >= count)
        return;
    EACH_SLOT (s) {
        float *value = &a->value[tile_at(t, s)];

        if (t->begin + tile_element(t, s) < count)
            *value = *value > 0 ? a->tau : -a->tau;
    }
}

#ifndef __CUDACC__

#include "sim/layout.h"
#include "sim/wire.h"

enum { TAU, VALUES };

static const struct setting settings[] = {
    [TAU] = {"tau", 0.01, 1e-12, 1e12, "the least size that is sent", NUMBER},
    [VALUES] = {"values", 0, 0, 1, "values as they are; else plus or minus tau", SWITCH},
    {0},
};

static void threshold_encode(const struct call *call, struct message *out)
{
    struct sparse_chosen chosen = sparse_choice(call);
    float tau = (float)call->settings[TAU];

    LAUNCH_TILES(call->dev, threshold_choose, &call->layout->tiles, call->workers,
                 .x = call->wanted, .tau = tau, .chosen = chosen);
    sparse_take(call, &chosen, out);
    if (call->settings[VALUES] == 0)
        LAUNCH_TILES(call->dev, threshold_value, &out->rooms.tiles, call->workers,
                     .count = out->count, .tau = tau, .value = out->own_value);
}

static struct paper_bits threshold_paper_bits(const double *values)
{
    return values[VALUES] == 0 ? (struct paper_bits){.index = 31, .value = 1}
                               : (struct paper_bits){.index = 32, .value = 32};
}

const struct compressor threshold_compressor = {
    .name = "threshold",
    .about = "entries whose size reaches a threshold, as plus or minus that",
    .paper = "Strom: Scalable distributed DNN training, Interspeech 2015",
    .settings = settings,
    .memory = "residual",
    .exchange = GATHER,
    .counted = true,
    .room = sparse_room_for_all,
    .scratch = sparse_chosen_scratch,
    .encode = threshold_encode,
    .decode = sparse_apply,
    .paper_bits = threshold_paper_bits,
};

#endif

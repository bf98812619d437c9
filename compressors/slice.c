/*
 * slice -- a window of every tensor, which moves on by its length from step to step.
 *
 *     entries o, o + 1, ..., o + l - 1 modulo n      l = min(n, floor(n ratio) + 1)
 *     o = step l modulo n
 *
 * main_gac.py of the second reference ("structured pruning"; its memory is dgc).  Tensors of up to
 * 128 elements are sent whole.
 *
 *     message:  l values a tensor; all workers know the indices
 *
 * Bytes on paper: 32 bits a value; there is no paper.
 * Differs from the reference: the window's place is a function of the step's number, where there
 * lengths add up: another only after the ratio has changed.
 */
#include "compressors/sparse.h"
#include "sim/step.h"

#define SLICE_WHOLE 128

KERNEL_FN uint32_t slice_length(uint32_t n, double ratio)
{
    double length = floor((double)n * ratio) + 1;

    return n <= SLICE_WHOLE || length >= n ? n : (uint32_t)length;
}

struct slice_take {
    const float *x; /* [workers][stride] */
    size_t stride;
    const uint32_t *first; /* [tensors] tile of x where a tensor begins */
    const uint32_t *n;     /* [tensors] */
    const struct step *step;
    uint32_t *index;
    float *value;
    uint32_t *count;
};

/* Of a window that begins anew at 0 the entries there come first: indices rise. */
TILE_KERNEL(slice_take)
{
    const float *x = a->x + t->worker * a->stride + (size_t)a->first[t->tensor] * TILE;
    uint32_t n = a->n[t->tensor];
    uint32_t length = slice_length(n, a->step->ratio);
    uint32_t offset = (uint32_t)(a->step->number % n * length % n);
    uint32_t anew = offset > n - length ? offset - (n - length) : 0;

    if (t->begin == 0 && tile_leads(t))
        a->count[t->scalar] = length;
    EACH_SLOT (s) {
        size_t entry = t->begin + tile_element(t, s);

        if (entry < length) {
            uint32_t index = (uint32_t)(entry < anew ? entry : offset + (entry - anew));

            a->index[tile_at(t, s)] = index;
            a->value[tile_at(t, s)] = x[index];
        }
    }
}

#ifndef __CUDACC__

#include "sim/layout.h"
#include "sim/wire.h"

static double slice_paper_entries(size_t n, double ratio)
{
    return slice_length((uint32_t)n, ratio);
}

static size_t slice_room(const struct call *call, uint32_t tensor)
{
    return slice_length((uint32_t)call->layout->n[tensor], call->ratio_most);
}

static void slice_encode(const struct call *call, struct message *out)
{
    const struct tiles *tiles = &call->layout->tiles;

    LAUNCH_TILES(call->dev, slice_take, &out->rooms.tiles, call->workers, .x = call->wanted,
                 .stride = tiles->stride, .first = tiles->first, .n = call->layout->n_dev,
                 .step = call->step, .index = out->index, .value = out->own_value,
                 .count = out->count);
    message_floats(out);
}

const struct compressor slice_compressor = {
    .name = "slice",
    .about = "a window of every tensor that moves on from step to step",
    .settings = sparse_settings,
    .memory = "residual",
    .exchange = SUM,
    .agreed = true,
    .room = slice_room,
    .encode = slice_encode,
    .decode = sparse_apply,
    .paper_entries = slice_paper_entries,
};

#endif

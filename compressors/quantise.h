/*
 * quantise.h -- the parts that quantisers are made of: which entries there are, and where codes and
 * scalars go.
 *
 * A quantiser's kernels run over the tiles of the message's rooms, a sender each; the entries of a
 * sparse message are as many as its count says, those of any other all.
 */
#ifndef COMPRESSORS_QUANTISE_H
#define COMPRESSORS_QUANTISE_H

#include "compressors/compressor.h"
#include "sim/wire.h"

/* What a quantiser works on. */
struct entries {
    struct values from;    /* floats */
    const uint32_t *count; /* [senders][tensors]; NULL: all */
    struct code_form form;
    uint32_t *code; /* [senders][tiles][8 bits] */
    float *scalar;  /* [senders][tiles] */
};

/* How many of a tile there are, the first ones. */
KERNEL_FN uint32_t entries_live(const struct entries *e, const struct tile *t)
{
    size_t count = e->count ? e->count[t->scalar] : t->begin + TILE;
    size_t left = count > t->begin ? count - t->begin : 0;

    return left < t->live ? (uint32_t)left : t->live;
}

/* How many of a tensor there are. */
KERNEL_FN uint32_t entry_count(const struct entries *e, const uint32_t *n, size_t pair,
                               uint32_t tensor)
{
    return e->count ? e->count[pair] : n[tensor];
}

/* Of a tile, with zeros where there is no entry. */
KERNEL_FN void entries_read(const struct entries *e, const struct tile *t, float x[TILE_SLOTS])
{
    const float *value = e->from.value + t->worker * e->from.stride + t->place;
    uint32_t live = entries_live(e, t);

    EACH_SLOT (s) {
        float own = value[tile_element(t, s)];

        x[s] = tile_element(t, s) < live ? own : 0;
    }
}

/* The tile's codes; of places without an entry it is 0 whatever code says. */
KERNEL_FN void entries_write(const struct entries *e, const struct tile *t,
                             uint32_t code[TILE_SLOTS])
{
    size_t tile = t->worker * e->from.tiles + t->place / TILE;
    uint32_t live = entries_live(e, t);

    EACH_SLOT (s)
        code[s] = tile_element(t, s) < live ? code[s] : 0;
    tile_pack(t, code, e->form.bits, e->code + tile * 8 * e->form.bits);
}

/* Where the scalar of a tile's bucket stands. */
KERNEL_FN float *entries_scalar(const struct entries *e, const struct tile *t)
{
    size_t tile = t->worker * e->from.tiles + t->place / TILE;

    return &e->scalar[code_bucket(&e->form, tile, t->begin / TILE)];
}

/* The same of a whole tensor of a sender. */
KERNEL_FN float *entries_tensor_scalar(const struct entries *e, const uint32_t *first,
                                       size_t sender, size_t tensor)
{
    return &e->scalar[sender * e->from.tiles + first[tensor]];
}

/* Of each tensor of a sender.  Sums are of what is left when the tensor's first entry is taken off:
 * from them the variance is exactly 0 where all are equal. */
struct entry_sums {
    const double *sum, *square; /* [senders][tensors] */
    const uint32_t *most;       /* the largest size */
};

/* The largest size of so many entries, held to some standard deviations; 0, and deviations of 0,
 * hold nothing. */
KERNEL_FN float entries_held(const struct entry_sums *of, size_t pair, double count,
                             double deviations)
{
    double mean = count > 0 ? of->sum[pair] / count : 0;
    double variance = count > 0 ? of->square[pair] / count - mean * mean : 0;
    float limit = (float)(deviations * sqrt(variance > 0 ? variance : 0));
    float most = bits_float(of->most[pair]);

    return count > 0 ? (limit > 0 && limit < most ? limit : most) : 0;
}

#ifndef __CUDACC__

struct layout;

/* Measures the entries of senders, in rooms. */
struct entry_sums entries_measure(const struct layout *rooms, uint32_t senders,
                                  const struct entries *e);

/* Those of a message whose values are floats, with room for codes of a form. */
struct entries entries_of(const struct message *m, struct code_form form);

/* Every scalar becomes the largest that any worker has there. */
void quantise_share_scalars(const struct call *call, struct message *m);

#endif
#endif

/*
 * sparse.h -- the parts that sparse methods are made of: choose entries, and apply a message.
 */
#ifndef COMPRESSORS_SPARSE_H
#define COMPRESSORS_SPARSE_H

#include "compressors/compressor.h"

/* Entries by size, as float_size() has it: all above high, and of those from low to high the first
 * `most`. */
struct sparse_cut {
    const uint32_t *low, *high, *most; /* [workers][tensors] */
    const uint32_t *peak;              /* of tiles: the largest size there is */
};

/* Entries that a method's kernel chose: a bit for each, and how many there are in a tile. */
struct sparse_chosen {
    uint32_t *bits;  /* [workers][tiles][8] */
    uint32_t *count; /* of tiles */
    size_t tiles;    /* of a worker */
};

KERNEL_FN uint32_t *chosen_bits(const struct sparse_chosen *c, const struct tile *t)
{
    return c->bits + (t->worker * c->tiles + t->place / TILE) * 8;
}

/* Those of a tile for which chosen[] is 1; in the padding it may be anything. */
KERNEL_FN void chosen_put(const struct sparse_chosen *c, const struct tile *t,
                          uint32_t chosen[TILE_SLOTS])
{
    EACH_SLOT (s)
        chosen[s] &= tile_live(t, s);
    tile_pack(t, chosen, 1, chosen_bits(c, t));
    tile_put(t, c->count, tile_count(chosen));
}

#ifndef __CUDACC__

/* The first setting of such methods, and a list of that alone. */
#define SPARSE_RATIO                                                                           \
    {                                                                                          \
        "ratio", 0, 0, 1, "share of entries kept; 0: the regime's, which may change by epoch", \
            NUMBER                                                                             \
    }
extern const struct setting sparse_settings[];

/* Entries as papers count that round down, as sparse_keep() does. */
double sparse_paper_entries(size_t n, double ratio);

/* Entries of n that a ratio keeps: max(1, floor(n ratio)), in double. */
size_t sparse_keep(size_t n, double ratio);

/* The room for them: what the largest ratio of the run keeps. */
size_t sparse_room(const struct call *call, uint32_t tensor);

/* The room, and the scratch, of methods whose data say how many entries there are: all. */
size_t sparse_room_for_all(const struct call *call, uint32_t tensor);
size_t sparse_chosen_scratch(const struct call *call);

/* The scratch of those that take a worker's slab. */
size_t sparse_slab_scratch(const struct call *call);

/* Fills out with the call->keep[tensor] entries of largest size of every tensor of every worker,
 * in the order of their indices; of equal ones those of lower index. */
void sparse_select_top(const struct call *call, struct message *out);

/* The cut that leaves the keep[tensor] entries of largest size in x; and out with those of the wanted
 * that a cut leaves. */
struct sparse_cut sparse_cut_of(const struct call *call, const float *x, const uint32_t *keep);
void sparse_take_cut(const struct call *call, const struct sparse_cut *cut, struct message *out);

/* Scratch for a method's choice; and out with the chosen entries, in the order of their indices. */
struct sparse_chosen sparse_choice(const struct call *call);
void sparse_take(const struct call *call, const struct sparse_chosen *chosen, struct message *out);

/* Fills out with the entries of one list, [room] with count [tensors], for all workers; it may be the
 * first one's own.  Scaled: times n / count, by which a random list is right on average. */
void sparse_take_same(const struct call *call, const uint32_t *index, const uint32_t *count,
                      bool scaled, struct message *out);

/* Adds, subtracts or clears at the entries of in.  With target.one_sum a worker after the other,
 * so that the order of addition is fixed. */
void sparse_apply(const struct call *call, const struct message *in, struct target target);

#endif
#endif

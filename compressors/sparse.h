/*
 * sparse.h -- the parts that sparse methods are made of: choose entries, and apply a message.
 */
#ifndef COMPRESSORS_SPARSE_H
#define COMPRESSORS_SPARSE_H

#include "compressors/compressor.h"

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

/* Fills out with the call->keep[tensor] entries of largest size of every tensor of every worker,
 * in the order of their indices; of equal ones those of lower index. */
void sparse_select_top(const struct call *call, struct message *out);

/* Adds, subtracts or clears at the entries of in.  With target.one_sum a worker after the other,
 * so that the order of addition is fixed. */
void sparse_apply(const struct call *call, const struct message *in, struct target target);

#endif

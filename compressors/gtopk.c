/*
 * gtopk -- top-k of top-k: a tree adds two and two messages up and keeps the k largest of the sum.
 *
 * Shi, Wang, Zhao, Tang, Huang, Wang, Chu: A distributed synchronous SGD algorithm with global top-k
 * sparsification for low bandwidth networks, ICDCS 2019.  What everybody gets is k entries a tensor,
 * however many workers there are.  What was not delivered stays with the worker whose it was.
 *
 *     message:  k indices, rising, and k values a tensor, up and down
 *
 * Bytes on paper: a 32-bit word for every index and every value.
 * Differs from the paper: a tensor at a time, not the model as a whole; any number of workers, of
 * which an odd one waits; and an entry that was dropped on the way counts as not delivered, also
 * where its index got to the end by another way (original=1: it is lost, as in the authors' code).
 */
#include "compressors/sparse.h"

enum { RATIO, ORIGINAL };

static const struct setting settings[] = {
    [RATIO] = SPARSE_RATIO,
    [ORIGINAL] = {"original", 0, 0, 1, "what is dropped on the way may be lost", SWITCH},
    {0},
};

static bool gtopk_loses(const double *values)
{
    return values[ORIGINAL] != 0;
}

const struct compressor gtopk_compressor = {
    .name = "gtopk",
    .about = "the k entries of largest size of a tree of sums",
    .paper = "Shi et al.: A distributed synchronous SGD algorithm with global top-k, ICDCS 2019",
    .settings = settings,
    .memory = "residual",
    .exchange = TREE,
    .no_quantiser = true,
    .together = true,
    .room = sparse_room,
    .loses = gtopk_loses,
    .encode = sparse_select_top,
    .decode = sparse_apply,
    .paper_entries = sparse_paper_entries,
    .paper_index_bits = 32,
};

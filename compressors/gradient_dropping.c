/*
 * gradient_dropping -- top-k with a plain residual: what DGC is compared with.
 *
 * Aji, Heafield: Sparse communication for distributed gradient descent, EMNLP 2017; the column
 * "Gradient Dropping" of DGC's table 2.  Momentum, if the schedule has any, is the optimizer's, on
 * the sparse sum (naive: DGC, equation 5).  No warm-up: a regime's is not applied.
 *
 *     message:  k indices, rising, and k values a tensor
 *
 * Bytes on paper: 32 bits for an index and 32 for a value.
 * Differs from the paper: a threshold for each tensor, exact, where the paper has one of a sample.
 */
#include "compressors/sparse.h"

const struct compressor gradient_dropping_compressor = {
    .name = "gradient-dropping",
    .about = "top-k with a plain residual and naive momentum, no warm-up",
    .paper = "Aji, Heafield: Sparse communication for distributed gradient descent, EMNLP 2017",
    .settings = sparse_settings,
    .memory = "residual",
    .no_warmup = true,
    .contraction = true,
    .exchange = GATHER,
    .room = sparse_room,
    .encode = sparse_select_top,
    .decode = sparse_apply,
    .paper_entries = sparse_paper_entries,
    .paper_index_bits = 32,
};

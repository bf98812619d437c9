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

static const struct setting settings[] = {
    {"ratio", 0, 0, 1, "share of entries kept; 0: the regime's, which may change by epoch"},
    {0},
};

static double gradient_dropping_paper_bytes(size_t n, double ratio)
{
    return 8.0 * (double)sparse_keep(n, ratio);
}

const struct compressor gradient_dropping_compressor = {
    .name = "gradient-dropping",
    .about = "top-k with a plain residual and naive momentum, no warm-up",
    .paper = "Aji, Heafield: Sparse communication for distributed gradient descent, EMNLP 2017",
    .settings = settings,
    .memory = "residual",
    .contraction = true,
    .exchange = GATHER,
    .part = {{.kind = INDICES, .room = sparse_room}, {.kind = VALUES, .room = sparse_room}},
    .encode = sparse_select_top,
    .decode = sparse_apply,
    .paper_bytes = gradient_dropping_paper_bytes,
};

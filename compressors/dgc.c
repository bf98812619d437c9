/*
 * dgc -- deep gradient compression: top-k of accumulated, momentum-corrected gradients.
 *
 * Lin, Han, Mao, Wang, Dally: Deep Gradient Compression, ICLR 2018.  The selection is topk's; what
 * makes it DGC is its memory (memory_dgc.c), clipping "local-sqrt-k" and the warm-up of the ratio,
 * which a regime sets.
 *
 *     message:  k indices, rising, and k values a tensor
 *
 * Bytes on paper: ceil(n ratio) entries of a 32-bit value and a 16-bit run of zeros.
 * Differs from the paper: the threshold is exact, not sampled; k is rounded down.
 */
#include "compressors/sparse.h"

#include <math.h>

static double dgc_paper_entries(size_t n, double ratio)
{
    return ceil((double)n * ratio);
}

const struct compressor dgc_compressor = {
    .name = "dgc",
    .about = "top-k with momentum correction and factor masking (its own memory)",
    .paper = "Lin, Han, Mao, Wang, Dally: Deep Gradient Compression, ICLR 2018",
    .settings = sparse_settings,
    .memory = "dgc",
    .contraction = true,
    .exchange = GATHER,
    .room = sparse_room,
    .encode = sparse_select_top,
    .decode = sparse_apply,
    .paper_entries = dgc_paper_entries,
    .paper_index_bits = 16,
};

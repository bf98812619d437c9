/*
 * topk -- the k entries of largest size of every tensor, exactly.
 *
 * Aji, Heafield: Sparse communication for distributed gradient descent, EMNLP 2017, and Stich,
 * Cordonnier, Jaggi: Sparsified SGD with memory, NeurIPS 2018.  k = max(1, floor(n ratio)); ties go
 * to the lower index.
 *
 *     message:  k indices, rising, and k values a tensor
 *
 * Bytes on paper: a 32-bit word for every index and every value, as the first reference counts.
 */
#include "compressors/sparse.h"

const struct compressor topk_compressor = {
    .name = "topk",
    .about = "the k entries of largest size of every tensor",
    .paper = "Stich, Cordonnier, Jaggi: Sparsified SGD with memory, NeurIPS 2018",
    .settings = sparse_settings,
    .memory = "residual",
    .contraction = true,
    .exchange = GATHER,
    .room = sparse_room,
    .encode = sparse_select_top,
    .decode = sparse_apply,
    .paper_entries = sparse_paper_entries,
    .paper_index_bits = 32,
};

/*
 * clt-k -- cyclic local top-k: one worker after the other says which entries everybody sends.
 *
 * Chen, Ni, Lu, Cui, Chen, Sun, Wang, Venkataramani, Srinivasan, Zhang, Gopalakrishnan: ScaleCom:
 * scalable sparsified gradient compression for communication-efficient distributed training,
 * NeurIPS 2020.  The leader of step t is worker t mod K; its indices are broadcast, and values at
 * them can then be added up on the way.
 *
 *     message:  k 32-bit indices a tensor of the leader; then k values a tensor of each worker
 *
 * Bytes on paper: a 32-bit word a value; the leader's indices count for nothing among many workers.
 * Differs from the paper: its low-pass filter on the residual is not here.
 */
#include "compressors/compressor.h"
#include "sim/step.h"

struct clt_k_lead {
    const float *wanted; /* [workers][stride] */
    size_t stride;
    uint32_t workers;
    const struct step *step;
    float *out; /* [stride] */
};

KERNEL(clt_k_lead)
{
    a->out[i] = a->wanted[a->step->number % a->workers * a->stride + i];
}

#ifndef __CUDACC__

#include "compressors/rounds.h"
#include "compressors/sparse.h"

/* Of the leader's alone, wherever it stands. */
static void clt_k_choose(const struct call *call, struct message *out)
{
    size_t length = call->layout->length;
    float *leader = device_scratch(call->dev, length * sizeof(*leader));
    struct call own = *call;

    LAUNCH(call->dev, clt_k_lead, length, .wanted = call->wanted,
           .stride = call->layout->tiles.stride, .workers = call->workers, .step = call->step,
           .out = leader);
    own.wanted = leader;
    own.workers = 1;
    sparse_select_top(&own, out);
}

static void clt_k_encode(const struct call *call, struct message *out)
{
    const struct message *leader = &call->rounds->first;

    sparse_take_same(call, leader->index, leader->count, false, out);
}

const struct compressor clt_k_compressor = {
    .name = "clt-k",
    .about = "the entries that are largest for one worker, each step another",
    .paper = "Chen et al.: ScaleCom: scalable sparsified gradient compression, NeurIPS 2020",
    .settings = sparse_settings,
    .memory = "residual",
    .exchange = SUM,
    .together = true,
    .agreed = true,
    .room = sparse_room,
    .scratch = sparse_slab_scratch,
    .first = {.exchange = BROADCAST, .indices = true, .room = sparse_room, .encode = clt_k_choose},
    .encode = clt_k_encode,
    .decode = sparse_apply,
    .paper_entries = sparse_paper_entries,
    .paper_index_bits = 0,
};

#endif

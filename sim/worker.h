/*
 * worker.h -- the K simulated workers: what each has of its own, and what they do in a step.
 *
 * In synchronous training all workers hold the same weights.  So there is one arena of parameters,
 * and workers run stacked in groups, as a batch dimension: a group's forward and data-gradient are
 * one, and only what follows is kept per worker: its gradient (a row of the group's slab), its
 * memory (residual, velocity), its recurrent state.
 *
 * A lane is what one group needs while it runs: activations, a slab, messages.  Groups go round
 * the lanes, one stream each.
 *
 * Who divides: a worker's gradient is the mean over its own samples; scale[k] scales it (clipping,
 * and K b_k / sum b in a step where workers have unequal samples); the optimizer alone divides by K.
 */
#ifndef SIM_WORKER_H
#define SIM_WORKER_H

#include "compressors/memory.h"
#include "compressors/rounds.h"
#include "data/source.h"
#include "sim/config.h"
#include "sim/graph.h"
#include "sim/layout.h"
#include "sim/step.h"
#include "sim/wire.h"

#define LANES_MOST DEVICE_STREAMS

struct lane {
    struct graph graph;
    float *slab;   /* [group][P] gradients of the group's workers */
    float *micro;  /* [group][micro-batches][P], where a method tells them apart; then */
    float *square; /* [group][P] is the sum of their squares */
    float *scaled; /* [group][P] with memory none, where gradients are clipped or decayed */
    struct message message;
    struct rounds rounds;
    struct memory_call group; /* the one that is in the lane */
};

struct workers {
    struct device *dev;
    const struct config *config;
    struct method method;
    const struct memory *memory;
    uint32_t count; /* K */
    uint32_t group, lanes;

    struct parameters *parameters;
    struct layout all;        /* every tensor, P floats */
    struct layout compressed; /* those that go through the compressor: a prefix */

    float *params;                     /* [P], and behind them what norms keep */
    float *transposed;                 /* [P] */
    float *memory_slab[MEMORY_SLABS];  /* [K][P] */
    float *own_slab[COMPRESSOR_SLABS]; /* [K][P] the compressor's */
    float *common;                     /* its state for all, common_bytes of it */
    size_t common_bytes;
    float *statistics; /* [K][micro-batches][kept] of the norms, in this step */
    float *state;      /* recurrent, of all samples */
    size_t state_samples;
    struct lane lane[LANES_MOST];

    /* One block on the device, filled by one copy before a step. */
    struct step *step;
    uint32_t *keep;       /* [tensors] entries of each compressed tensor to keep */
    float *sample_weight; /* [K] K b_k / sum b */

    float *scale;            /* [K] the same, times the clip factor */
    double *square;          /* [K] of the gradient's norm */
    double *norm_sum;        /* [K] of the norms over the epoch's steps */
    double *loss_sum;        /* [K][samples][steps] over the epoch's steps */
    uint32_t *top[2];        /* of images, [K][samples]: how often the target was the first, one of
                              * the first 5 */
    uint32_t *diverged;      /* 1 once a loss or a gradient was not finite */
    struct traffic *traffic; /* [SENDINGS][tensors] of the compressed ones */

    bool server;          /* a parameter server replies */
    struct message reply; /* to everybody */
};

/* Host's copy of the block at `step`. */
struct step_block {
    struct step step;
    uint32_t *keep;
    float *sample_weight;
    void *bytes;
    size_t size;
};

/* What the workers send by. */
struct method workers_method(const struct config *c);

/* Columns of text in a step of all workers. */
uint32_t workers_columns(const struct config *c);

/* Losses in a step of all workers: one for each worker, column and time; of images, for each
 * one. */
size_t workers_rows(const struct config *c);

/* Bytes of the parameters with what is kept behind them. */
size_t workers_params_bytes(const struct workers *w);

/* Where a graph's batch goes. */
struct feed workers_feed(const struct graph *g);

/* network: NULL where gradients come from elsewhere, and nothing is trained. */
void workers_create(struct workers *w, struct device *dev, const struct config *c,
                    const struct network *network, struct parameters *parameters, uint32_t group,
                    uint32_t lanes);

/* What an evaluation needs of them: parameters and their transposed copy; they cannot step. */
void workers_create_weights(struct workers *w, struct device *dev, const struct config *c,
                            struct parameters *parameters);
void workers_destroy(struct workers *w);

/* [tensors] on the device. */
struct traffic *workers_traffic(const struct workers *w, enum sending sending);

/* The same without a device, to plan and to count by: who they are, and the shapes of tensors. */
void workers_describe(struct workers *w, const struct config *c,
                      const struct parameters *parameters);
void workers_undescribe(struct workers *w);

/* What the messages of all workers weighed since it was last cleared; waits. */
struct sent {
    struct traffic last, first, reply;
};
struct sent sent_sum(const struct traffic *traffic, uint32_t tensors); /* [SENDINGS][tensors] */
struct sent sent_of_tensor(const struct traffic *traffic, uint32_t tensors, uint32_t tensor);
struct sent workers_sent(struct workers *w);
struct traffic *workers_download_traffic(struct workers *w); /* [SENDINGS][tensors], to be freed */
struct sent sent_since(const struct sent *now, const struct sent *then);
void workers_clear_sent(struct workers *w);

/* What workers_create() would allocate besides parameters and lanes, and for one lane. */
struct lane_bytes {
    size_t slab, activations, messages, scratch;
};

size_t workers_bytes(const struct config *c, const struct parameters *parameters);
struct lane_bytes workers_lane_bytes(struct device *dev, const struct config *c,
                                     const struct network *network, struct parameters *parameters,
                                     uint32_t group);

void step_block_create(struct step_block *b, const struct workers *w);
void step_block_destroy(struct step_block *b);
void step_block_post(const struct step_block *b, const struct workers *w);

/* Zero recurrent state: at the beginning of an epoch. */
void workers_begin_epoch(struct workers *w);

/* A group, workers first ... first + workers - 1, takes a lane; and its part of a step, in the order in
 * which it happens, which begins with that.  Workers without samples in this step (shape.steps 0) have
 * zero gradients. */
void workers_enter(struct workers *w, struct lane *lane, uint32_t first, uint32_t workers);
void workers_gradients(struct workers *w, struct lane *lane, const struct source *data,
                       uint32_t first, struct shape shape);
void workers_clip(struct workers *w, struct lane *lane);
void workers_compensate(struct workers *w, struct lane *lane);
void workers_encode(struct workers *w, struct lane *lane);
void workers_update(struct workers *w, struct lane *lane);

/* What a parameter server, if there is one, sends everybody of the sum [P] of all messages. */
void workers_reply(struct workers *w, const float *sum);

/* In place of workers_gradients(): those of a group [workers][P] from the host, and where a method
 * tells micro-batches apart the sums of their squares. */
void workers_take(struct workers *w, struct lane *lane, uint32_t first, uint32_t workers,
                  const float *grad, const float *square);

/* After all groups: the step's statistics move those that evaluations go by. */
void workers_keep_statistics(struct workers *w);

/* Packs the lane's messages and unpacks them again: a fault tells where the bytes are not those that
 * were counted, or do not say what was sent.  Waits; for --verify-wire. */
bool workers_verify(struct workers *w, struct lane *lane, struct error *err);
bool workers_verify_reply(struct workers *w, struct error *err);

/* Of all workers together: the root of the mean of |what is kept|^2; and the same of each compressed
 * tensor.  Zeros where a memory keeps nothing that is not sent.  NOT for inside a step. */
double workers_residual_norm(struct workers *w, double *of_tensor);

#endif

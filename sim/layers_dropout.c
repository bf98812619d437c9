/*
 * layers_dropout -- inverted dropout: zero with probability p, else 1 / (1 - p) times.
 *
 * A draw's key is the sample's place in the global batch, the time step and the feature, so that
 * dropout is the same however the batch is split among workers.  Four features share a Philox
 * block.  Also the one that packs an LSTM's output, whose first row is history.
 */
#include "sim/rng.h"
#include "sim/step.h"

#define DROPOUT_BLOCK 4

struct dropout {
    const float *in; /* [samples][in_rows][features], time t at row t + lead */
    float *out;      /* [samples][out_rows][features] */
    uint32_t steps, in_rows, out_rows, lead, features;
    uint32_t backward;       /* 1: out is read as a gradient, in is written */
    const struct step *step; /* NULL: nothing is dropped */
    float probability;
    uint32_t node;
    uint64_t first_sample;
    float *in_grad;
};

ROW_KERNEL(dropout)
{
    size_t sample = row / a->steps;
    size_t time = row % a->steps;
    size_t from = (sample * a->in_rows + time + a->lead) * a->features;
    size_t to = (sample * a->out_rows + time) * a->features;
    float scale = 1.0f / (1.0f - a->probability);
    struct rng_block draw = {{0, 0, 0, 0}};

    if (a->step)
        draw =
            rng_block(a->step->seed, RNG_DROPOUT, (uint32_t)column | a->node << 20, (uint32_t)time,
                      (uint32_t)(a->first_sample + sample), (uint32_t)a->step->number);
    for (uint32_t i = 0; i < DROPOUT_BLOCK; i++) {
        size_t j = column * DROPOUT_BLOCK + i;
        bool kept = !a->step || rng_uniform(draw.word[i]) >= a->probability;

        if (j >= a->features)
            break;
        if (a->backward)
            a->in_grad[from + j] = kept ? a->out[to + j] * (a->step ? scale : 1.0f) : 0;
        else
            a->out[to + j] = kept ? a->in[from + j] * (a->step ? scale : 1.0f) : 0;
    }
}

#ifndef __CUDACC__

#include "sim/graph.h"

static void run(struct graph *g, struct node *x, const struct pass *p, bool backward)
{
    size_t rows = (size_t)p->shape.workers * p->shape.samples * p->shape.steps;
    size_t blocks = (x->features + DROPOUT_BLOCK - 1) / DROPOUT_BLOCK;

    LAUNCH_ROWS(g->dev, dropout, rows, blocks, .in = x->in->out, .out = backward ? x->grad : x->out,
                .steps = p->shape.steps, .in_rows = rows_of(x->in, p), .out_rows = rows_of(x, p),
                .lead = x->in->lead, .features = x->features, .backward = backward,
                .step = x->dropout > 0 ? p->step : NULL, .probability = x->dropout,
                .node = x->number, .first_sample = p->first_sample, .in_grad = x->in->grad);
}

static void dropout_forward(struct graph *g, struct node *x, const struct pass *p)
{
    run(g, x, p, false);
}

static void dropout_backward(struct graph *g, struct node *x, const struct pass *p)
{
    run(g, x, p, true);
}

static const struct op dropout_op = {"dropout", dropout_forward, dropout_backward, false};

struct node *graph_dropout(struct graph *g, struct node *x, float probability)
{
    struct node *y;
    size_t count = graph_samples(g) * (g->most.steps + 1) * x->features;

    if (probability <= 0 && x->lead == 0)
        return x;
    CHECK(x->features / DROPOUT_BLOCK < 1 << 20 && g->nodes < 1 << 12);
    y = graph_node(g, &dropout_op, x, x->features);
    y->dropout = probability;
    y->out = graph_buffer(g, count);
    if (g->training)
        y->grad = graph_buffer(g, count);
    return y;
}

#endif

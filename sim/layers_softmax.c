/*
 * layers_softmax -- the mean over a worker's samples of the cross-entropy of a softmax.
 *
 * Forward gives each row's loss and, in training, turns the logits into their gradient at once.
 */
#include "sim/kernel.h"

struct softmax_add_loss {
    const float *loss; /* [rows] */
    double *sum;       /* [rows] over the steps */
    uint32_t *diverged;
};

KERNEL(softmax_add_loss)
{
    a->sum[i] += (double)a->loss[i];
    if (!(a->loss[i] - a->loss[i] == 0))
        *a->diverged = 1;
}

struct softmax_rank {
    const float *logits;    /* [rows][classes] */
    const uint32_t *target; /* [rows] */
    size_t classes;
    uint32_t *top1, *top5; /* [rows] over the steps */
};

/* Of equal logits the first is the larger, and none is smaller than one that is not a number. */
KERNEL(softmax_rank)
{
    const float *x = a->logits + i * a->classes;
    size_t target = a->target[i];
    uint32_t before = 0;

    for (size_t c = 0; c < a->classes; c++)
        before += c != target && !(x[c] < x[target] || (x[c] == x[target] && c > target));
    a->top1[i] += before < 1;
    a->top5[i] += before < 5;
}

#ifndef __CUDACC__

#include "sim/graph.h"

static void softmax_forward(struct graph *g, struct node *x, const struct pass *p)
{
    size_t per_worker = (size_t)p->shape.samples * p->shape.steps;
    size_t first = p->chunk.worker * per_worker + p->chunk.row;
    size_t rows = p->chunk.workers * p->chunk.rows;

    if (p->top[0] != NULL)
        LAUNCH(g->dev, softmax_rank, rows, .logits = x->in->out, .target = g->target + first,
               .classes = x->features, .top1 = p->top[0] + first, .top5 = p->top[1] + first);
    device_softmax_loss(g->dev, &(struct softmax_loss){.rows = rows,
                                                       .classes = x->features,
                                                       .logits = x->in->out,
                                                       .target = g->target + first,
                                                       .loss = x->out,
                                                       .scale = 1.0f / (float)per_worker,
                                                       .gradient = p->slab != NULL});
    LAUNCH(g->dev, softmax_add_loss, rows, .loss = x->out, .sum = p->loss + first,
           .diverged = p->diverged);
}

static void softmax_backward(struct graph *g, struct node *x, const struct pass *p)
{
}

static const struct op softmax_op = {"softmax_loss", softmax_forward, softmax_backward, false};

void graph_softmax_loss(struct graph *g, struct node *logits)
{
    struct node *x = graph_node(g, &softmax_op, logits, logits->features);

    x->out = graph_buffer(g, g->chunk_rows);
}

#endif

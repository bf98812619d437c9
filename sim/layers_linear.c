/*
 * layers_linear -- y = x W^T + b, in chunks of rows.
 *
 * A layer of the tail: graph_run() gives it rows of some workers at a time, and its output holds
 * no more than those.
 */
#include "sim/kernel.h"

struct linear_bias {
    const float *bias;
    float *out; /* [rows][columns] */
    size_t columns;
};

ROW_KERNEL(linear_bias)
{
    a->out[row * a->columns + column] = a->bias[column];
}

struct linear_bias_grad {
    const float *grad; /* [workers][rows][columns] */
    size_t rows, columns, stride;
    uint32_t add; /* 1: to what earlier rows of the worker gave */
    float *bias;  /* [workers][stride] */
};

ROW_KERNEL(linear_bias_grad)
{
    const float *x = a->grad + row * a->rows * a->columns + column;
    float *to = a->bias + row * a->stride + column;
    float sum = a->add ? *to : 0;

    for (size_t i = 0; i < a->rows; i++)
        sum += x[i * a->columns];
    *to = sum;
}

#ifndef __CUDACC__

#include "sim/graph.h"

#include <stdio.h>

enum { WEIGHT, BIAS };

/* Where the chunk's rows begin in a packed activation. */
static size_t first_row(const struct pass *p)
{
    return p->chunk.worker * (size_t)p->shape.samples * p->shape.steps + p->chunk.row;
}

static void linear_forward(struct graph *g, struct node *x, const struct pass *p)
{
    size_t rows = p->chunk.workers * p->chunk.rows, in = x->in->features, out = x->features;

    LAUNCH_ROWS(g->dev, linear_bias, rows, out,
                .bias = p->params + g->parameters->item[x->parameter[BIAS]].at, .out = x->out,
                .columns = out);
    GEMM(g->dev, .m = rows, .n = out, .k = in, .a = x->in->out + first_row(p) * in, .lda = in,
         .b = p->transposed + g->parameters->item[x->parameter[WEIGHT]].at, .ldb = out, .c = x->out,
         .ldc = out, .beta = 1, .batch = 1);
}

static void linear_backward(struct graph *g, struct node *x, const struct pass *p)
{
    size_t rows = p->chunk.rows, in = x->in->features, out = x->features;
    size_t weight = g->parameters->item[x->parameter[WEIGHT]].at;
    size_t to = p->chunk.worker * p->stride;

    GEMM(g->dev, .m = p->chunk.workers * rows, .n = in, .k = out, .a = x->grad, .lda = out,
         .b = p->params + weight, .ldb = in, .c = x->in->grad + first_row(p) * in, .ldc = in,
         .batch = 1);
    GEMM(g->dev, .transpose_a = true, .m = out, .n = in, .k = rows, .a = x->grad, .lda = out,
         .b = x->in->out + first_row(p) * in, .ldb = in, .beta = p->chunk.row > 0,
         .c = p->slab + to + weight, .ldc = in, .batch = p->chunk.workers, .stride_a = rows * out,
         .stride_b = rows * in, .stride_c = p->stride);
    LAUNCH_ROWS(g->dev, linear_bias_grad, p->chunk.workers, out, .grad = x->grad, .rows = rows,
                .columns = out, .stride = p->stride, .add = p->chunk.row > 0,
                .bias = p->slab + to + g->parameters->item[x->parameter[BIAS]].at);
}

static const struct op linear_op = {"linear", linear_forward, linear_backward};

struct node *graph_linear(struct graph *g, struct node *x, const char *name, uint32_t features,
                          float bound, const char *weight)
{
    struct node *y;
    size_t rows = (size_t)g->most.samples * g->most.steps;
    size_t most = g->dev->ops->chunk_bytes / (features * sizeof(float)) + 1;
    char full[64];

    CHECK(!x->spare && x->lead == 0);
    CHECK(g->tail == UINT32_MAX && "one linear layer so far: the last");
    g->tail = g->nodes;
    y = graph_node(g, &linear_op, x, features);
    snprintf(full, sizeof(full), "%s.weight", name);
    y->parameter[WEIGHT] = graph_parameter(g, weight != NULL ? weight : full, bound, 2,
                                           (size_t[]){features, x->features});
    g->parameters->item[y->parameter[WEIGHT]].transposed = true;
    if (weight != NULL)
        g->parameters->item[y->parameter[WEIGHT]].uses = 2;
    snprintf(full, sizeof(full), "%s.bias", name);
    y->parameter[BIAS] = graph_parameter(g, full, 0, 1, (size_t[]){features});
    g->chunk_rows = most < rows * g->most.workers ? most : rows * g->most.workers;
    y->out = graph_buffer(g, g->chunk_rows * features);
    y->grad = y->out; /* the loss turns logits into their gradient in place */
    return y;
}

#endif

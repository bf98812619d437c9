/*
 * layers_linear -- y = x W^T + b, in chunks of rows.
 *
 * The last one is a layer of the tail: graph_run() gives it rows of some workers at a time, and its
 * output holds no more than those.  An image is a row: its weights are filters as large as it is,
 * so that files have them in PyTorch's order, in which channels come before pixels.
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

#include <math.h>
#include <stdio.h>

enum { WEIGHT, BIAS };

/* Where the chunk's rows begin in a packed activation. */
static size_t first_row(const struct pass *p)
{
    return p->chunk.worker * (size_t)p->shape.samples * p->shape.steps + p->chunk.row;
}

static void linear_forward(struct graph *g, struct node *x, const struct pass *p)
{
    size_t rows = p->chunk.workers * p->chunk.rows, in = width_of(x->in), out = x->features;

    LAUNCH_ROWS(g->dev, linear_bias, rows, out,
                .bias = p->params + g->parameters->item[x->parameter[BIAS]].at, .out = x->out,
                .columns = out);
    GEMM(g->dev, .m = rows, .n = out, .k = in, .a = x->in->out + first_row(p) * in, .lda = in,
         .b = p->transposed + g->parameters->item[x->parameter[WEIGHT]].at, .ldb = out, .c = x->out,
         .ldc = out, .beta = 1, .batch = 1);
}

static void linear_backward(struct graph *g, struct node *x, const struct pass *p)
{
    size_t rows = p->chunk.rows, in = width_of(x->in), out = x->features;
    size_t weight = g->parameters->item[x->parameter[WEIGHT]].at;
    size_t to = p->chunk.worker * p->stride;

    if (x->in_grad != NULL)
        GEMM(g->dev, .m = p->chunk.workers * rows, .n = in, .k = out, .a = x->grad, .lda = out,
             .b = p->params + weight, .ldb = in, .c = x->in_grad + first_row(p) * in, .ldc = in,
             .batch = 1);
    GEMM(g->dev, .transpose_a = true, .m = out, .n = in, .k = rows, .a = x->grad, .lda = out,
         .b = x->in->out + first_row(p) * in, .ldb = in, .beta = p->chunk.row > 0,
         .c = p->slab + to + weight, .ldc = in, .batch = p->chunk.workers, .stride_a = rows * out,
         .stride_b = rows * in, .stride_c = p->stride);
    LAUNCH_ROWS(g->dev, linear_bias_grad, p->chunk.workers, out, .grad = x->grad, .rows = rows,
                .columns = out, .stride = p->stride, .add = p->chunk.row > 0,
                .bias = p->slab + to + g->parameters->item[x->parameter[BIAS]].at);
}

static const struct op linear_op = {"linear", linear_forward, linear_backward, false};

static uint32_t weight_of(struct graph *g, const struct node *x, const char *name,
                          uint32_t features, float bound)
{
    size_t image[] = {features, x->height, x->width, x->features};
    size_t matrix[] = {features, x->features};
    bool is_image = x->height * x->width > 1;
    uint32_t i = graph_parameter(g, name, bound, is_image ? 4 : 2, is_image ? image : matrix);

    g->parameters->item[i].flat = is_image;
    g->parameters->item[i].transposed = true;
    return i;
}

/* weight: as in graph_linear(). */
static void add_parameters(struct graph *g, struct node *y, const char *name, float bound,
                           const char *weight)
{
    float usual = 1 / sqrtf((float)width_of(y->in));
    char full[64];

    snprintf(full, sizeof(full), "%s.weight", name);
    y->parameter[WEIGHT] =
        weight_of(g, y->in, weight != NULL ? weight : full, y->features, bound > 0 ? bound : usual);
    if (weight != NULL)
        g->parameters->item[y->parameter[WEIGHT]].uses = 2;
    snprintf(full, sizeof(full), "%s.bias", name);
    y->parameter[BIAS] =
        graph_parameter(g, full, bound > 0 ? 0 : usual, 1, (size_t[]){y->features});
}

struct node *graph_linear(struct graph *g, struct node *x, const char *name, uint32_t features,
                          float bound, const char *weight)
{
    struct node *y;
    size_t rows = (size_t)g->most.samples * g->most.steps;
    size_t most = g->dev->ops->chunk_bytes / (features * sizeof(float)) + 1;

    CHECK(!x->spare && x->lead == 0);
    CHECK(g->tail == UINT32_MAX && "the last linear layer; those before are graph_hidden()");
    g->tail = g->nodes;
    y = graph_node(g, &linear_op, x, features);
    y->in_grad = x->height > 0 ? graph_read(g, x) : x->grad;
    add_parameters(g, y, name, bound, weight);
    g->chunk_rows = most < rows * g->most.workers ? most : rows * g->most.workers;
    y->out = graph_buffer(g, g->chunk_rows * features);
    y->grad = y->out; /* the loss turns logits into their gradient in place */
    return y;
}

struct node *graph_hidden(struct graph *g, struct node *x, const char *name, uint32_t features)
{
    struct node *y = graph_image_node(g, &linear_op, x, (struct image_size){1, 1, features});

    y->in_grad = graph_read(g, x);
    add_parameters(g, y, name, 0, NULL);
    return y;
}

#endif

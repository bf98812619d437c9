/*
 * layers_lstm -- one layer of Hochreiter and Schmidhuber's LSTM, as PyTorch has it.
 *
 *     i, f, g, o = x W_ih^T + b_ih + h W_hh^T + b_hh      sigmoid but g, which is tanh
 *     c' = f c + i g      h' = o tanh(c')
 *
 * One product with W_ih over all time steps, one with W_hh a step, and a fused cell kernel.
 * Rows of h and c begin with the history (row 0 is the state before the first step), gates end
 * with a spare row whose gradient is zero: so a worker's gates and its histories are two matrices
 * of the same rows, and the weight gradients of all workers are one batched product each.
 */
#include "sim/exactmath.h"
#include "sim/kernel.h"

struct lstm_state {
    float *sequence; /* [samples][rows][hidden] */
    float *state;    /* [samples][hidden]; NULL: zero */
    size_t rows, hidden;
    size_t row;    /* of each sample */
    uint32_t save; /* 1: the state is written */
};

ROW_KERNEL(lstm_state)
{
    float *at = a->sequence + (row * a->rows + a->row) * a->hidden + column;

    if (a->save)
        a->state[row * a->hidden + column] = *at;
    else
        *at = a->state ? a->state[row * a->hidden + column] : 0;
}

struct lstm_cell {
    float *gates; /* [samples][rows][4 hidden]: sums in, i, f, g, o out */
    const float *b_ih, *b_hh;
    float *c, *h; /* [samples][rows][hidden] */
    size_t rows, hidden, time;
};

ROW_KERNEL(lstm_cell)
{
    size_t h = a->hidden;
    size_t at = (row * a->rows + a->time) * h + column;
    float *z = a->gates + (row * a->rows + a->time) * 4 * h + column;
    const float *b = a->b_ih + column;
    const float *bb = a->b_hh + column;
    float i = exact_sigmoid(z[0] + b[0] + bb[0]);
    float f = exact_sigmoid(z[h] + b[h] + bb[h]);
    float g = exact_tanh(z[2 * h] + b[2 * h] + bb[2 * h]);
    float o = exact_sigmoid(z[3 * h] + b[3 * h] + bb[3 * h]);
    float c = f * a->c[at] + i * g;

    z[0] = i;
    z[h] = f;
    z[2 * h] = g;
    z[3 * h] = o;
    a->c[at + h] = c;
    a->h[at + h] = o * exact_tanh(c);
}

struct lstm_cell_backward {
    float *gates;        /* i, f, g, o in; gradients of the sums out */
    const float *c;      /* [samples][rows][hidden] */
    const float *h_grad; /* [samples][rows][hidden], of the output, history first */
    const float *dh;     /* [samples][hidden] from the step behind */
    float *dc;           /* the same of the cell: in and out */
    size_t rows, hidden, time;
    uint32_t last; /* 1: there is no step behind */
};

ROW_KERNEL(lstm_cell_backward)
{
    size_t h = a->hidden;
    size_t at = (row * a->rows + a->time) * h + column;
    float *z = a->gates + (row * a->rows + a->time) * 4 * h + column;
    float *dc = a->dc + row * h + column;
    float i = z[0], f = z[h], g = z[2 * h], o = z[3 * h];
    float c = exact_tanh(a->c[at + h]);
    float dh = a->h_grad[at + h] + (a->last ? 0 : a->dh[row * h + column]);
    float d = (a->last ? 0 : *dc) + dh * o * (1 - c * c);

    z[0] = d * g * i * (1 - i);
    z[h] = d * a->c[at] * f * (1 - f);
    z[2 * h] = d * i * (1 - g * g);
    z[3 * h] = dh * c * o * (1 - o);
    *dc = d * f;
    if (a->last) /* the spare row behind it */
        z[4 * h] = z[5 * h] = z[6 * h] = z[7 * h] = 0;
}

struct lstm_bias_grad {
    const float *gates; /* [workers][rows of a worker][columns] */
    size_t rows, columns, stride;
    float *b_ih, *b_hh; /* [workers][stride] */
};

ROW_KERNEL(lstm_bias_grad)
{
    const float *z = a->gates + row * a->rows * a->columns + column;
    float sum = 0;

    for (size_t i = 0; i < a->rows; i++)
        sum += z[i * a->columns];
    a->b_ih[row * a->stride + column] = sum;
    a->b_hh[row * a->stride + column] = sum;
}

#ifndef __CUDACC__

#include "sim/graph.h"

#include <math.h>
#include <stdio.h>

enum { W_IH, W_HH, B_IH, B_HH };
enum { GATES, CELLS, DH, DC };

static size_t at_of(const struct graph *g, const struct node *x, int which)
{
    return g->parameters->item[x->parameter[which]].at;
}

static void state(struct graph *g, struct node *x, const struct pass *p, size_t row, bool save)
{
    size_t samples = (size_t)p->shape.workers * p->shape.samples;

    for (int c = 0; c <= 1; c++) {
        float *state = p->state;

        if (state != NULL)
            state += (x->state + c * (size_t)x->features) * p->state_samples +
                     p->state_first * x->features;
        if (state != NULL || !save)
            LAUNCH_ROWS(g->dev, lstm_state, samples, x->features,
                        .sequence = c ? x->extra[CELLS] : x->out, .state = state,
                        .rows = rows_of(x, p), .hidden = x->features, .row = row, .save = save);
    }
}

static void lstm_forward(struct graph *g, struct node *x, const struct pass *p)
{
    size_t samples = (size_t)p->shape.workers * p->shape.samples;
    size_t rows = rows_of(x, p), hidden = x->features, in = x->in->features;
    float *gates = x->extra[GATES];

    state(g, x, p, 0, false);
    GEMM(g->dev, .m = samples * rows, .n = 4 * hidden, .k = in, .a = x->in->out, .lda = in,
         .b = p->transposed + at_of(g, x, W_IH), .ldb = 4 * hidden, .c = gates, .ldc = 4 * hidden,
         .batch = 1);
    for (size_t t = 0; t < p->shape.steps; t++) {
        GEMM(g->dev, .m = samples, .n = 4 * hidden, .k = hidden, .a = x->out + t * hidden,
             .lda = rows * hidden, .b = p->transposed + at_of(g, x, W_HH), .ldb = 4 * hidden,
             .c = gates + t * 4 * hidden, .ldc = rows * 4 * hidden, .beta = 1, .batch = 1);
        LAUNCH_ROWS(g->dev, lstm_cell, samples, hidden, .gates = gates,
                    .b_ih = p->params + at_of(g, x, B_IH), .b_hh = p->params + at_of(g, x, B_HH),
                    .c = x->extra[CELLS], .h = x->out, .rows = rows, .hidden = hidden, .time = t);
    }
    state(g, x, p, p->shape.steps, true);
}

/* dW := gates^T in, for every worker at once. */
static void weight_grad(struct graph *g, struct node *x, const struct pass *p, const float *in,
                        size_t columns, size_t at)
{
    size_t rows = (size_t)p->shape.samples * rows_of(x, p);
    size_t gates = 4 * (size_t)x->features;

    GEMM(g->dev, .transpose_a = true, .m = gates, .n = columns, .k = rows, .a = x->extra[GATES],
         .lda = gates, .b = in, .ldb = columns, .c = p->slab + at, .ldc = columns,
         .batch = p->shape.workers, .stride_a = rows * gates, .stride_b = rows * columns,
         .stride_c = p->stride);
}

static void lstm_backward(struct graph *g, struct node *x, const struct pass *p)
{
    size_t samples = (size_t)p->shape.workers * p->shape.samples;
    size_t rows = rows_of(x, p), hidden = x->features, in = x->in->features;
    float *gates = x->extra[GATES];

    for (size_t t = p->shape.steps; t-- > 0;) {
        LAUNCH_ROWS(g->dev, lstm_cell_backward, samples, hidden, .gates = gates,
                    .c = x->extra[CELLS], .h_grad = x->grad, .dh = x->extra[DH], .dc = x->extra[DC],
                    .rows = rows, .hidden = hidden, .time = t, .last = t == p->shape.steps - 1);
        if (t > 0)
            GEMM(g->dev, .m = samples, .n = hidden, .k = 4 * hidden, .a = gates + t * 4 * hidden,
                 .lda = rows * 4 * hidden, .b = p->params + at_of(g, x, W_HH), .ldb = hidden,
                 .c = x->extra[DH], .ldc = hidden, .batch = 1);
    }
    GEMM(g->dev, .m = samples * rows, .n = in, .k = 4 * hidden, .a = gates, .lda = 4 * hidden,
         .b = p->params + at_of(g, x, W_IH), .ldb = in, .c = x->in->grad, .ldc = in, .batch = 1);
    weight_grad(g, x, p, x->in->out, in, at_of(g, x, W_IH));
    weight_grad(g, x, p, x->out, hidden, at_of(g, x, W_HH));
    LAUNCH_ROWS(g->dev, lstm_bias_grad, p->shape.workers, 4 * hidden, .gates = gates,
                .rows = p->shape.samples * rows, .columns = 4 * hidden, .stride = p->stride,
                .b_ih = p->slab + at_of(g, x, B_IH), .b_hh = p->slab + at_of(g, x, B_HH));
}

static const struct op lstm_op = {"lstm", lstm_forward, lstm_backward, false};

struct node *graph_lstm(struct graph *g, struct node *x, const char *name, uint32_t layer,
                        uint32_t hidden)
{
    static const char *const part[] = {"weight_ih", "weight_hh", "bias_ih", "bias_hh"};
    struct node *y = graph_node(g, &lstm_op, x, hidden);
    size_t rows = graph_samples(g) * (g->most.steps + 1);
    size_t dims[][2] = {{4 * (size_t)hidden, x->features}, {4 * (size_t)hidden, hidden}};
    char full[64];

    CHECK(x->lead == 0 && "an LSTM's output is packed by graph_dropout() first");
    x->spare = y->spare = true;
    y->lead = 1;
    for (int i = 0; i < 4; i++) {
        snprintf(full, sizeof(full), "%s.%s_l%u", name, part[i], layer);
        y->parameter[i] =
            graph_parameter(g, full, 1 / sqrtf((float)hidden), i < B_IH ? 2 : 1, dims[i % 2]);
        g->parameters->item[y->parameter[i]].transposed = i < B_IH;
    }
    y->state = g->state;
    g->state += 2 * (size_t)hidden;
    y->out = graph_buffer(g, rows * hidden);
    y->extra[GATES] = graph_buffer(g, rows * 4 * hidden);
    y->extra[CELLS] = graph_buffer(g, rows * hidden);
    if (!g->training)
        return y;
    y->grad = graph_buffer(g, rows * hidden);
    y->extra[DH] = graph_buffer(g, graph_samples(g) * hidden);
    y->extra[DC] = graph_buffer(g, graph_samples(g) * hidden);
    return y;
}

#endif

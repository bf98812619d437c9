/*
 * layers_embedding -- a row of a table for every token.
 *
 * The gradient of the table is dense, but only the rows of the batch's tokens are not zero:
 * tokens are sorted (stably, so that equal ones are added in the order of their places), each run
 * of one token is summed into its row, and rows that the last step touched are cleared first.
 */
#include "sim/kernel.h"

#define NO_TOKEN UINT32_MAX

struct embedding_gather {
    const float *table;
    const uint32_t *token; /* [samples][steps] */
    uint32_t steps, rows;
    uint32_t features;
    float *out; /* [samples][rows][features] */
};

ROW_KERNEL(embedding_gather)
{
    size_t to = row / a->steps * a->rows + row % a->steps;

    a->out[to * a->features + column] = a->table[(size_t)a->token[row] * a->features + column];
}

struct embedding_clear {
    const uint32_t *touched; /* [workers][room] tokens of the last step, in order */
    uint32_t room, features;
    size_t stride;
    float *grad; /* [workers][stride] */
};

ROW_KERNEL(embedding_clear)
{
    uint32_t token = a->touched[row];

    if (token == NO_TOKEN || (row % a->room > 0 && a->touched[row - 1] == token))
        return;
    a->grad[row / a->room * a->stride + (size_t)token * a->features + column] = 0;
}

struct embedding_remember {
    const uint32_t *sorted; /* [workers][n] */
    uint32_t n, room;
    uint32_t *touched; /* [workers][room] */
};

ROW_KERNEL(embedding_remember)
{
    a->touched[row * a->room + column] = column < a->n ? a->sorted[row * a->n + column] : NO_TOKEN;
}

struct embedding_sum {
    const uint32_t *sorted, *place; /* [workers][n] */
    uint32_t n, steps, rows, features;
    uint32_t add;          /* 1: the weight is used twice, and the other use has written its part */
    const float *out_grad; /* [workers * samples][rows][features] */
    size_t stride;
    float *grad;
};

ROW_KERNEL(embedding_sum)
{
    size_t worker = row / a->n;
    size_t end = (worker + 1) * a->n;
    size_t samples = a->n / a->steps;
    uint32_t token = a->sorted[row];
    float *to = a->grad + worker * a->stride + (size_t)token * a->features;
    float sum = 0;

    if (row % a->n > 0 && a->sorted[row - 1] == token)
        return;
    for (size_t i = row; i < end && a->sorted[i] == token; i++) {
        size_t sample = worker * samples + a->place[i] / a->steps;

        sum += a->out_grad[(sample * a->rows + a->place[i] % a->steps) * a->features + column];
    }
    to[column] = a->add ? to[column] + sum : sum;
}

#ifndef __CUDACC__

#include "sim/graph.h"

static void embedding_forward(struct graph *g, struct node *x, const struct pass *p)
{
    size_t samples = (size_t)p->shape.workers * p->shape.samples;
    const struct parameter *table = &g->parameters->item[x->parameter[0]];

    LAUNCH_ROWS(g->dev, embedding_gather, samples * p->shape.steps, x->features,
                .table = p->params + table->at, .token = g->token, .steps = p->shape.steps,
                .rows = rows_of(x, p), .features = x->features, .out = x->out);
}

static void embedding_backward(struct graph *g, struct node *x, const struct pass *p)
{
    const struct parameter *table = &g->parameters->item[x->parameter[0]];
    uint32_t n = p->shape.samples * p->shape.steps;
    uint32_t room = g->most.samples * g->most.steps;
    uint32_t *sorted = x->integers[0], *place = x->integers[1], *touched = x->integers[2];
    float *grad = p->slab + table->at;
    uint32_t add = table->uses > 1;

    device_sort(g->dev, &(struct sort){.rows = p->shape.workers,
                                       .n = n,
                                       .limit = (uint32_t)table->dim[0],
                                       .key = g->token,
                                       .sorted = sorted,
                                       .place = place});
    if (!add) {
        LAUNCH_ROWS(g->dev, embedding_clear, (size_t)p->shape.workers * room, x->features,
                    .touched = touched, .room = room, .features = x->features, .stride = p->stride,
                    .grad = grad);
        LAUNCH_ROWS(g->dev, embedding_remember, p->shape.workers, room, .sorted = sorted, .n = n,
                    .room = room, .touched = touched);
    }
    LAUNCH_ROWS(g->dev, embedding_sum, (size_t)p->shape.workers * n, x->features, .sorted = sorted,
                .place = place, .n = n, .steps = p->shape.steps, .rows = rows_of(x, p),
                .features = x->features, .add = add, .out_grad = x->grad, .stride = p->stride,
                .grad = grad);
}

static const struct op embedding_op = {"embedding", embedding_forward, embedding_backward, false};

struct node *graph_embedding(struct graph *g, const char *name, uint32_t words, uint32_t features,
                             float bound)
{
    struct node *x = graph_node(g, &embedding_op, NULL, features);
    size_t count = graph_samples(g) * (g->most.steps + 1) * features;
    size_t tokens = graph_samples(g) * g->most.steps;

    x->parameter[0] = graph_parameter(g, name, bound, 2, (size_t[]){words, features});
    x->out = graph_buffer(g, count);
    if (!g->training)
        return x;
    x->grad = graph_buffer(g, count);
    for (int i = 0; i < 3; i++)
        x->integers[i] = graph_buffer(g, tokens);
    return x;
}

#endif

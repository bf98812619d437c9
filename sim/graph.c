#include "sim/graph.h"

#include "models/model.h"
#include "sim/kernel.h"
#include "sim/rng.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void build(struct graph *g, const struct network *network)
{
    g->token = graph_buffer(g, graph_samples(g) * g->most.steps);
    g->target = graph_buffer(g, graph_samples(g) * g->most.steps);
    g->tail = UINT32_MAX;
    network->model->build(g, network->values, network->classes);
    CHECK(g->tail < g->nodes);
}

void graph_create(struct graph *g, struct device *dev, struct parameters *parameters,
                  const struct network *network, struct shape most, bool training)
{
    *g = (struct graph){.dev = dev, .parameters = parameters, .most = most, .training = training};
    build(g, network);
}

size_t graph_measure(struct device *dev, struct parameters *parameters,
                     const struct network *network, struct shape most, bool training)
{
    struct graph *g = allocate(1, sizeof(*g));
    size_t bytes;

    *g = (struct graph){
        .dev = dev, .parameters = parameters, .most = most, .training = training, .dry = true};
    build(g, network);
    bytes = g->bytes;
    graph_destroy(g);
    free(g);
    return bytes;
}

void graph_destroy(struct graph *g)
{
    for (uint32_t i = 0; i < g->buffers; i++)
        device_free(g->dev, g->buffer[i].memory, g->buffer[i].bytes);
    for (uint32_t i = 0; i < g->nodes; i++)
        free(g->node[i]);
    *g = (struct graph){0};
}

size_t graph_samples(const struct graph *g)
{
    return (size_t)g->most.workers * g->most.samples;
}

void *graph_buffer(struct graph *g, size_t count)
{
    size_t bytes = count * 4;
    void *memory;

    g->bytes += bytes;
    if (g->dry)
        return NULL;
    CHECK(g->buffers < ARRAY_LENGTH(g->buffer));
    memory = device_alloc(g->dev, bytes);
    g->buffer[g->buffers++] = (struct buffer){memory, bytes};
    return memory;
}

struct node *graph_node(struct graph *g, const struct op *op, struct node *in, uint32_t features)
{
    struct node *x = allocate(1, sizeof(*x));

    CHECK(g->nodes < NODES_MOST);
    x->op = op;
    x->in = in;
    x->features = features;
    x->number = g->nodes;
    g->node[g->nodes++] = x;
    return x;
}

uint32_t graph_parameter(struct graph *g, const char *name, float bound, uint32_t dims,
                         const size_t *dim)
{
    struct parameters *all = g->parameters;
    struct parameter *p;

    for (uint32_t i = 0; i < all->count; i++)
        if (strcmp(all->item[i].name, name) == 0)
            return i;
    CHECK(all->count < PARAMETERS_MOST && all->length == 0 && strlen(name) < sizeof(p->name));
    p = &all->item[all->count];
    *p = (struct parameter){.dims = dims, .n = 1, .bound = bound, .uses = 1};
    snprintf(p->name, sizeof(p->name), "%s", name);
    for (uint32_t i = 0; i < dims; i++) {
        p->dim[i] = dim[i];
        p->n *= dim[i];
    }
    return all->count++;
}

void graph_place(struct parameters *parameters, bool compress_all)
{
    uint32_t place = 0;

    parameters->length = 0;
    for (int dense = 0; dense <= 1; dense++) {
        for (uint32_t i = 0; i < parameters->count; i++) {
            struct parameter *p = &parameters->item[i];

            if (dense == (p->dims > 1 || compress_all))
                continue;
            p->at = parameters->length;
            parameters->length += (p->n + TILE - 1) / TILE * TILE;
            parameters->order[place++] = i;
        }
        if (!dense)
            parameters->compressed = place;
    }
}

void graph_initial(const struct parameters *parameters, uint64_t seed, float *params)
{
    memset(params, 0, parameters->length * sizeof(*params));
    for (uint32_t i = 0; i < parameters->count; i++) {
        const struct parameter *p = &parameters->item[i];

        for (size_t e = 0; e < p->n && p->bound > 0; e++) {
            struct rng_block draw =
                rng_block(seed, RNG_INITIAL_WEIGHTS, (uint32_t)(e / 4), (uint32_t)(e >> 34), i, 0);

            params[p->at + e] = (2 * rng_uniform(draw.word[e % 4]) - 1) * p->bound;
        }
    }
}

void graph_transpose(struct device *dev, const struct parameters *parameters, const float *params,
                     float *transposed)
{
    for (uint32_t i = 0; i < parameters->count; i++) {
        const struct parameter *p = &parameters->item[i];

        if (p->transposed)
            device_transpose(dev, params + p->at, p->dim[0], p->n / p->dim[0], transposed + p->at);
    }
}

uint32_t rows_of(const struct node *x, const struct pass *p)
{
    return p->shape.steps + x->spare;
}

/* The tail's nodes for one chunk: forward, and backward as far as the tail goes. */
static void run_chunk(struct graph *g, const struct pass *p)
{
    device_stage(g->dev, STAGE_FORWARD);
    for (uint32_t i = g->tail; i < g->nodes; i++)
        g->node[i]->op->forward(g, g->node[i], p);
    device_stage(g->dev, STAGE_BACKWARD);
    for (uint32_t i = g->nodes; p->slab != NULL && i-- > g->tail;)
        g->node[i]->op->backward(g, g->node[i], p);
}

/* Chunks of several whole workers where a worker's rows are few, else of part of one worker's. */
static void run_tail(struct graph *g, const struct pass *p)
{
    size_t rows = (size_t)p->shape.samples * p->shape.steps;
    uint32_t together = (uint32_t)(g->chunk_rows / rows);
    struct pass part = *p;

    if (together > 0) {
        for (uint32_t w = 0; w < p->shape.workers; w += together) {
            uint32_t left = p->shape.workers - w;

            part.chunk = (struct chunk){w, left < together ? left : together, 0, rows};
            run_chunk(g, &part);
        }
        return;
    }
    for (uint32_t w = 0; w < p->shape.workers; w++) {
        for (size_t row = 0; row < rows; row += g->chunk_rows) {
            size_t left = rows - row;

            part.chunk = (struct chunk){w, 1, row, left < g->chunk_rows ? left : g->chunk_rows};
            run_chunk(g, &part);
        }
    }
}

void graph_run(struct graph *g, const struct pass *p)
{
    CHECK(p->shape.workers <= g->most.workers && p->shape.samples <= g->most.samples &&
          p->shape.steps <= g->most.steps && (g->training || p->slab == NULL));
    device_stage(g->dev, STAGE_FORWARD);
    for (uint32_t i = 0; i < g->tail; i++)
        g->node[i]->op->forward(g, g->node[i], p);
    run_tail(g, p);
    for (uint32_t i = g->tail; p->slab != NULL && i-- > 0;)
        g->node[i]->op->backward(g, g->node[i], p);
}

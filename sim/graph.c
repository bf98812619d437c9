#include "sim/kernel.h"

struct graph_add {
    const float *from;
    float *to;
};

KERNEL(graph_add)
{
    a->to[i] += a->from[i];
}

#ifndef __CUDACC__

#include "sim/graph.h"

#include "models/model.h"
#include "sim/rng.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void build(struct graph *g, const struct network *network)
{
    size_t pixels = (size_t)network->image.height * network->image.width;

    g->image = network->image;
    if (pixels > 0)
        g->pixels = graph_buffer(g, graph_samples(g) * pixels * network->image.channels);
    else
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

struct node *graph_image_node(struct graph *g, const struct op *op, struct node *in,
                              struct image_size size)
{
    struct node *x = graph_node(g, op, in, size.channels);

    x->height = size.height;
    x->width = size.width;
    x->out = graph_buffer(g, graph_samples(g) * width_of(x));
    return x;
}

/* The first reader's gradient is that of x, unless it has a place already; the second's is
 * added. */
static void add_reader(struct node *x, float *grad)
{
    CHECK(x->readers < 2 && "what is read by three needs another sum");
    if (x->readers++ == 0)
        x->grad = grad;
    else
        x->more = grad;
}

static float *gradient_buffer(struct graph *g, const struct node *x)
{
    return graph_buffer(g, graph_samples(g) * width_of(x));
}

float *graph_read(struct graph *g, struct node *x)
{
    bool placed = x->readers == 0 && x->placed;
    float *grad;

    if (!g->training || x->op->backward == NULL)
        return NULL;
    grad = placed ? x->grad : gradient_buffer(g, x);
    add_reader(x, grad);
    return grad;
}

void graph_read_beside(struct graph *g, struct node *x, struct node *reader)
{
    if (!g->training)
        return;
    CHECK(reader->readers == 0 && x->op->backward != NULL);
    reader->grad = gradient_buffer(g, reader);
    reader->placed = true;
    add_reader(x, reader->grad);
}

size_t graph_keep(struct graph *g, const char *name, size_t n, float initial)
{
    struct parameters *all = g->parameters;
    struct kept *kept;

    for (uint32_t i = 0; i < all->keeps; i++)
        if (strcmp(all->kept[i].name, name) == 0)
            return all->kept[i].at;
    CHECK(all->keeps < PARAMETERS_MOST && strlen(name) < sizeof(kept->name));
    kept = &all->kept[all->keeps++];
    *kept = (struct kept){.n = n, .at = all->kept_length, .initial = initial};
    snprintf(kept->name, sizeof(kept->name), "%s", name);
    all->kept_length += n;
    return kept->at;
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

size_t graph_floats(const struct parameters *parameters)
{
    return parameters->length + parameters->kept_length;
}

/* Box and Muller's, of two words; the first is not 0 when it is a number. */
static float normal(uint32_t first, uint32_t second)
{
    double u = ((double)first + 1) / 4294967296.0, v = (double)second / 4294967296.0;

    return (float)(sqrt(-2 * log(u)) * cos(6.283185307179586 * v));
}

static float initial(const struct parameter *p, uint64_t seed, uint32_t number, size_t e)
{
    struct rng_block draw =
        rng_block(seed, RNG_INITIAL_WEIGHTS, (uint32_t)(e / 4), (uint32_t)(e >> 34), number, 0);
    struct rng_block other;

    if (p->deviation == 0)
        return (2 * rng_uniform(draw.word[e % 4]) - 1) * p->bound;
    other = rng_block(seed, RNG_INITIAL_WEIGHTS, (uint32_t)(e / 4), (uint32_t)(e >> 34), number, 1);
    return normal(draw.word[e % 4], other.word[e % 4]) * p->deviation;
}

void graph_initial(const struct parameters *parameters, uint64_t seed, float *params)
{
    memset(params, 0, graph_floats(parameters) * sizeof(*params));
    for (uint32_t i = 0; i < parameters->count; i++) {
        const struct parameter *p = &parameters->item[i];
        bool drawn = p->bound > 0 || p->deviation > 0;

        for (size_t e = 0; e < p->n; e++)
            params[p->at + e] = drawn ? initial(p, seed, i, e) : p->constant;
    }
    for (uint32_t i = 0; i < parameters->keeps; i++)
        for (size_t e = 0; e < parameters->kept[i].n; e++)
            params[parameters->length + parameters->kept[i].at + e] = parameters->kept[i].initial;
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
    return x->height > 0 ? x->height * x->width : p->shape.steps + x->spare;
}

uint32_t width_of(const struct node *x)
{
    return x->height > 0 ? x->height * x->width * x->features : x->features;
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

static void run_backward(struct graph *g, struct node *x, const struct pass *p)
{
    if (x->op->backward == NULL)
        return;
    if (x->more != NULL && !x->op->adds_more)
        LAUNCH(g->dev, graph_add, (size_t)p->shape.workers * p->shape.samples * width_of(x),
               .from = x->more, .to = x->grad);
    x->op->backward(g, x, p);
}

void graph_run(struct graph *g, const struct pass *run)
{
    struct pass pass = *run;
    const struct pass *p = &pass;

    pass.chunk = (struct chunk){0, p->shape.workers, 0, (size_t)p->shape.samples * p->shape.steps};
    CHECK(p->shape.workers <= g->most.workers && p->shape.samples <= g->most.samples &&
          p->shape.steps <= g->most.steps && (g->training || p->slab == NULL));
    device_stage(g->dev, STAGE_FORWARD);
    for (uint32_t i = 0; i < g->tail; i++)
        g->node[i]->op->forward(g, g->node[i], p);
    run_tail(g, p);
    for (uint32_t i = g->tail; p->slab != NULL && i-- > 0;)
        run_backward(g, g->node[i], p);
}

#endif

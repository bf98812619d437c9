/*
 * graph.h -- a network as nodes, built once, run many times for a group of workers.
 *
 * The workers of a group are stacked in the batch: all of them hold the same weights, so forward
 * and data-gradient run once for the group, and only weight gradients (and recurrent state) are
 * kept per worker, in the slab [workers][stride].
 *
 * Activations of text are [workers * samples][rows][features], a sample's time steps one after
 * another: worker-major, so that a worker's rows are contiguous for its weight gradient.  A node
 * has `rows_of()` rows a sample: the steps, one more if `spare`; time t stands at row t + lead.
 * An LSTM's output has its history in row 0 (lead 1), its input has a spare last row.
 *
 * The last nodes (from `tail` on: logits and loss) are run forward and backward in chunks of rows,
 * so that logits never leave the cache; the loss turns them into their gradient in place.
 *
 * Operators are in layers_*.c: shape, forward and backward side by side.
 */
#ifndef SIM_GRAPH_H
#define SIM_GRAPH_H

#include "sim/device.h"

struct model;
struct step;

/* samples are of one worker; steps is the length of a sequence. */
struct shape {
    uint32_t workers, samples, steps;
};

/* What is to be built: a model with its settings, for so many classes (words). */
struct network {
    const struct model *model;
    const double *values; /* in the order of model.settings */
    uint32_t classes;
};

#define PARAMETERS_MOST 512

struct parameter {
    char name[64];
    uint32_t dims;
    size_t dim[4];
    size_t n;
    float bound;     /* initial values are uniform on [-bound, bound) */
    uint32_t uses;   /* 2: a tied weight, whose gradient is the sum of both */
    bool transposed; /* a forward product wants it the other way round */
    size_t at;       /* in the arena, once placed */
};

/* All weights of a model: one arena of `length` floats, tensors that are compressed first. */
struct parameters {
    struct parameter item[PARAMETERS_MOST]; /* in the order in which the model names them */
    uint32_t count;
    uint32_t order[PARAMETERS_MOST]; /* of the arena: places in item */
    uint32_t compressed;             /* the first so many of order */
    size_t length;
};

#define NODES_MOST 1024

struct graph;
struct node;
struct pass;

struct op {
    const char *name;
    void (*forward)(struct graph *g, struct node *x, const struct pass *p);
    void (*backward)(struct graph *g, struct node *x, const struct pass *p);
};

struct node {
    const struct op *op;
    struct node *in; /* NULL: the batch */
    uint32_t features;
    bool spare;
    uint32_t lead;
    float *out, *grad;     /* [workers * samples][rows][features] */
    uint32_t parameter[4]; /* places in parameters.item */
    size_t state;          /* its place in the recurrent state, in floats a sample */
    float dropout;         /* probability of zeroing */
    float *extra[4];       /* buffers of the op's own */
    uint32_t *integers[4];
    uint32_t number; /* of the node in its graph: a key of its random draws */
};

struct graph {
    struct device *dev;
    struct parameters *parameters;
    struct shape most;
    bool training; /* has gradients */
    bool dry;      /* only counts: see graph_measure() */
    size_t bytes;  /* of all buffers */
    struct node *node[NODES_MOST];
    uint32_t nodes;
    uint32_t tail;
    size_t state;             /* floats of recurrent state of one sample */
    uint32_t *token, *target; /* [workers * samples][steps] on the device: the batch */
    size_t chunk_rows;        /* the most rows in a chunk of the tail */
    struct buffer {
        void *memory;
        size_t bytes;
    } buffer[4 * NODES_MOST];
    uint32_t buffers;
};

/* One run of a group through a graph. */
struct pass {
    struct shape shape;
    const float *params;     /* the arena */
    const float *transposed; /* the same arena, of graph_transpose() */
    float *slab;             /* [workers][stride] weight gradients; NULL: forward only */
    size_t stride;
    const struct step *step; /* on the device: keys of dropout; NULL: no dropout */
    uint64_t first_sample;   /* of the group in the global batch */
    float *state;            /* recurrent state of state_samples samples, or NULL */
    size_t state_samples, state_first;
    double *loss;       /* [workers * samples * steps] each row's loss is added to it */
    uint32_t *diverged; /* set to 1 where a loss is not finite */

    /* The chunk of rows that a node of the tail is to do: so many rows of each of so many workers,
     * contiguous.  Set by graph_run(). */
    struct chunk {
        uint32_t worker, workers;
        size_t row, rows;
    } chunk;
};

/* Builds the model's nodes and allocates their buffers for shapes up to most.  The first graph of
 * a model also fills *parameters; graph_place() puts them into the arena before anything runs. */
void graph_create(struct graph *g, struct device *dev, struct parameters *parameters,
                  const struct network *network, struct shape most, bool training);
void graph_destroy(struct graph *g);

/* The bytes that graph_create() would allocate; it fills *parameters too. */
size_t graph_measure(struct device *dev, struct parameters *parameters,
                     const struct network *network, struct shape most, bool training);

/* Orders the arena: tensors of two or more dimensions first, or all with compress_all. */
void graph_place(struct parameters *parameters, bool compress_all);

/* Initial values for a seed: [length] on the host.  They depend on nothing but seed and name
 * order. */
void graph_initial(const struct parameters *parameters, uint64_t seed, float *params);

/* The transposed copies that forward products want; once after the parameters changed. */
void graph_transpose(struct device *dev, const struct parameters *parameters, const float *params,
                     float *transposed);

/* Forward, and with p->slab backward: the slab's tensors are then the gradients of each worker's
 * mean loss over its own samples.  Reads g->token and g->target. */
void graph_run(struct graph *g, const struct pass *p);

/* Rows of a node for one sample. */
uint32_t rows_of(const struct node *x, const struct pass *p);

/* For layers: a new node, parameter or buffer. */
struct node *graph_node(struct graph *g, const struct op *op, struct node *in, uint32_t features);
uint32_t graph_parameter(struct graph *g, const char *name, float bound, uint32_t dims,
                         const size_t *dim);
void *graph_buffer(struct graph *g, size_t count); /* of 4-byte words */
size_t graph_samples(const struct graph *g);       /* the most, of all workers */

/* The layers.  Names are PyTorch's. */
struct node *graph_embedding(struct graph *g, const char *name, uint32_t words, uint32_t features,
                             float bound);
struct node *graph_dropout(struct graph *g, struct node *x, float probability);
struct node *graph_lstm(struct graph *g, struct node *x, const char *name, uint32_t layer,
                        uint32_t hidden);
/* The tail begins here.  weight: the name of a weight to share, or NULL for one of its own. */
struct node *graph_linear(struct graph *g, struct node *x, const char *name, uint32_t features,
                          float bound, const char *weight);
void graph_softmax_loss(struct graph *g, struct node *logits);

#endif

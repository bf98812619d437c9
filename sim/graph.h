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
 * Of images they are [workers * samples][height][width][features]: rows are pixels, features are
 * channels, and a sample has one step.  A node of images may be read by two others: each has a
 * place of its own for the gradient that it gives (graph_read()), and graph_run() adds them up.
 *
 * The last nodes (from `tail` on: logits and loss) are run forward and backward in chunks of rows,
 * so that logits never leave the cache; the loss turns them into their gradient in place.
 *
 * Operators are in layers_*.c: shape, forward and backward side by side.
 */
#ifndef SIM_GRAPH_H
#define SIM_GRAPH_H

#include "data/images.h"
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
    struct image_size image;
};

#define PARAMETERS_MOST 512

/* Four dimensions are filters: out, height, width, in; files have them in PyTorch's order. */
struct parameter {
    char name[64];
    uint32_t dims;
    size_t dim[4];
    size_t n;
    bool flat;       /* filters as large as what they read: a matrix in files */
    float bound;     /* initial values are uniform on [-bound, bound), or, ... */
    float deviation; /* ... unless this is 0, normal with it, or ... */
    float constant;  /* ... if both are 0, this */
    uint32_t uses;   /* 2: a tied weight, whose gradient is the sum of both */
    bool transposed; /* a forward product wants it the other way round */
    size_t at;       /* in the arena, once placed */
};

/* What a layer keeps beside its weights: a running statistic, `at` behind them. */
struct kept {
    char name[64];
    size_t n, at;
    float initial;
};

/* All weights of a model: one arena of `length` floats, tensors that are compressed first; behind
 * them `kept_length` floats that are kept with the weights, but are not learnt. */
struct parameters {
    struct parameter item[PARAMETERS_MOST]; /* in the order in which the model names them */
    uint32_t count;
    uint32_t order[PARAMETERS_MOST]; /* of the arena: places in item */
    uint32_t compressed;             /* the first so many of order */
    size_t length;
    struct kept kept[PARAMETERS_MOST];
    uint32_t keeps;
    size_t kept_length;
};

#define NODES_MOST 1024

struct graph;
struct node;
struct pass;

struct op {
    const char *name;
    void (*forward)(struct graph *g, struct node *x, const struct pass *p);
    void (*backward)(struct graph *g, struct node *x, const struct pass *p); /* NULL: none */
    bool adds_more; /* backward itself takes x->more into account */
};

/* How filters or windows go over an image; a stride or groups of 0 are 1. */
struct reach {
    uint32_t kernel, stride, pad, groups;
    bool bias;
    float deviation; /* of the filters' initial values; 0: as PyTorch has them */
};

struct node {
    const struct op *op;
    struct node *in; /* NULL: the batch */
    uint32_t features;
    uint32_t height, width; /* of an image; 0: a text */
    bool spare;
    uint32_t lead;
    float *out, *grad;     /* [workers * samples][rows][features] */
    uint32_t readers;      /* of out, that graph_read() gave a place for their gradient */
    bool placed;           /* grad has a place before there are readers */
    float *more;           /* the second one's, which is to be added to grad; or NULL */
    float *in_grad;        /* where the gradient of in goes; NULL: nowhere */
    struct node *beside;   /* what else is read, or NULL */
    struct reach reach;    /* of filters and windows */
    bool relu;             /* negative values become 0 */
    size_t kept;           /* its first statistic, in floats from the first */
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
    size_t state; /* floats of recurrent state of one sample */
    struct image_size image;
    uint32_t *token, *target; /* [workers * samples][steps] on the device: the batch */
    float *pixels;            /* [workers * samples][height][width][channels], or NULL */
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
    const float
        *running; /* [kept_length] what norms go by; NULL: by the batch's own statistics, ... */
    float *statistics;  /* ... which are written there: [workers][kept_length] */
    double *loss;       /* [workers * samples * steps] each row's loss is added to it */
    uint32_t *top[2];   /* the same: 1 is added where the target is first, among the first 5; or
                           * NULL */
    uint32_t *diverged; /* set to 1 where a loss is not finite */

    /* The chunk of rows that a node is to do: so many rows of each of so many workers, contiguous;
     * all of them before the tail.  Set by graph_run(). */
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

/* Floats of the weights and of what is kept behind them. */
size_t graph_floats(const struct parameters *parameters);

/* Initial values for a seed: [graph_floats()] on the host.  They depend on nothing but seed and
 * name order. */
void graph_initial(const struct parameters *parameters, uint64_t seed, float *params);

/* The transposed copies that forward products want; once after the parameters changed. */
void graph_transpose(struct device *dev, const struct parameters *parameters, const float *params,
                     float *transposed);

/* Forward, and with run->slab backward: the slab's tensors are then the gradients of each worker's
 * mean loss over its own samples.  Reads g->token and g->target. */
void graph_run(struct graph *g, const struct pass *run);

/* Rows of a node for one sample; features of all rows of one step, or of an image. */
uint32_t rows_of(const struct node *x, const struct pass *p);
uint32_t width_of(const struct node *x);

/* For layers: a new node, parameter or buffer. */
struct node *graph_node(struct graph *g, const struct op *op, struct node *in, uint32_t features);
uint32_t graph_parameter(struct graph *g, const char *name, float bound, uint32_t dims,
                         const size_t *dim);
void *graph_buffer(struct graph *g, size_t count); /* of 4-byte words */
size_t graph_samples(const struct graph *g);       /* the most, of all workers */

/* For those of images: a new node with its output; the place for the gradient of x that a reader of
 * x gives (NULL where nobody asks for it); floats that are kept, as one more statistic. */
struct node *graph_image_node(struct graph *g, const struct op *op, struct node *in,
                              struct image_size size);
float *graph_read(struct graph *g, struct node *x);
/* The same where the gradient that is given is the reader's own, once its backward has run. */
void graph_read_beside(struct graph *g, struct node *x, struct node *reader);
size_t graph_keep(struct graph *g, const char *name, size_t n, float initial);

/* The layers.  Names are PyTorch's. */
struct node *graph_embedding(struct graph *g, const char *name, uint32_t words, uint32_t features,
                             float bound);
struct node *graph_dropout(struct graph *g, struct node *x, float probability);
struct node *graph_lstm(struct graph *g, struct node *x, const char *name, uint32_t layer,
                        uint32_t hidden);
/* The tail begins here.  weight: the name of a weight to share, or NULL for one of its own.  An
 * image is flattened; bound 0: PyTorch's, of the bias too. */
struct node *graph_linear(struct graph *g, struct node *x, const char *name, uint32_t features,
                          float bound, const char *weight);
void graph_softmax_loss(struct graph *g, struct node *logits);

/* Of images.  hidden: a linear layer that is not the last. */
struct node *graph_image(struct graph *g);
struct node *graph_convolution(struct graph *g, struct node *x, const char *name, uint32_t filters,
                               struct reach reach);
struct node *graph_hidden(struct graph *g, struct node *x, const char *name, uint32_t features);
/* y = relu(norm(x) + beside), without what is NULL or false. */
struct node *graph_batch_norm(struct graph *g, struct node *x, const char *name,
                              struct node *beside, bool relu);
struct node *graph_relu(struct graph *g, struct node *x);
struct node *graph_max_pool(struct graph *g, struct node *x, struct reach reach);
/* kernel 0: as large as the image. */
struct node *graph_average_pool(struct graph *g, struct node *x, struct reach reach);
/* Every stride-th pixel, with as many channels more, zero, as make `features`. */
struct node *graph_subsample(struct graph *g, struct node *x, uint32_t stride, uint32_t features);

#endif

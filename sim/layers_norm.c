/*
 * layers_norm -- batch norm by each worker's own statistics, with what follows it in the same pass.
 *
 *     y = relu(gamma (x - mean) / sqrt(var + epsilon) + beta + beside)
 *
 * Ioffe, Szegedy: Batch normalization, 2015, as PyTorch has it.  Sums are taken in slices of
 * pixels, one thread a slice and channel, and the slices are added in double.  Values are summed
 * less the worker's first one, so that a mean far from zero costs no digits.  A worker's factors
 * lie widened to a line of its image, so that what is done to every element is a plain loop over
 * lines.
 *
 * Where something stands beside, backward turns the gradient of y into that within relu(), in
 * place: it is that of beside too.
 */
#include "sim/kernel.h"

#define EPSILON 1e-5
#define SLICE   256

struct norm_sums {
    const float *x; /* [workers][pixels][channels] */
    size_t pixels, channels, slices;
    float *sum, *square; /* [workers][slices][channels] */
};

/* row: a worker's slice. */
SUM_KERNEL(norm_sums)
{
    size_t begin = row % a->slices * SLICE;
    size_t end = begin + SLICE < a->pixels ? begin + SLICE : a->pixels;
    const float *x = a->x + row / a->slices * a->pixels * a->channels + column;
    size_t to = row * a->channels + column;
    float first[SUM_SLOTS] = {0};
    float sum[SUM_SLOTS] = {0};
    float square[SUM_SLOTS] = {0};

    EACH_SUM (s)
        first[s] = x[s];
    for (size_t i = begin; i < end; i++) {
        EACH_SUM (s) {
            float value = x[i * a->channels + s] - first[s];

            sum[s] += value;
            square[s] += value * value;
        }
    }
    EACH_SUM (s) {
        a->sum[to + s] = sum[s];
        a->square[to + s] = square[s];
    }
}

/* Of each worker and channel; the factors are [workers][width][channels]. */
struct norm_factors {
    float *mean, *inverse; /* [workers][channels] */
    float *center, *scale, *shift;
};

struct norm_finish {
    const float *x, *sum, *square;
    size_t pixels, channels, slices, width;
    const float *gamma, *beta;
    const float *running; /* [2][channels] mean and variance, or NULL */
    float *statistics;    /* [workers][stride] the same of the batch, if running is NULL */
    size_t stride;
    struct norm_factors to;
};

/* row: a worker. */
ROW_KERNEL(norm_finish)
{
    size_t at = row * a->channels + column;
    double n = (double)a->pixels;
    double sum = 0;
    double square = 0;
    double mean, variance;
    float scale;

    for (size_t s = 0; s < a->slices && !a->running; s++) {
        sum += (double)a->sum[(row * a->slices + s) * a->channels + column];
        square += (double)a->square[(row * a->slices + s) * a->channels + column];
    }
    if (a->running) {
        mean = (double)a->running[column];
        variance = (double)a->running[a->channels + column];
    } else {
        mean = sum / n;
        variance = square / n - mean * mean;
        variance = variance > 0 ? variance : variance <= 0 ? 0 : variance;
        mean += (double)a->x[row * a->pixels * a->channels + column];
        a->statistics[row * a->stride + column] = (float)mean;
        a->statistics[row * a->stride + a->channels + column] =
            (float)(a->pixels > 1 ? variance * n / (n - 1) : variance);
    }
    a->to.mean[at] = (float)mean;
    a->to.inverse[at] = (float)(1 / sqrt(variance + EPSILON));
    scale = a->gamma[column] * a->to.inverse[at];
    for (size_t w = 0; w < a->width; w++) {
        size_t wide = (row * a->width + w) * a->channels + column;

        a->to.center[wide] = (float)mean;
        a->to.scale[wide] = scale;
        a->to.shift[wide] = a->beta[column];
    }
}

struct norm_apply {
    const float *x;
    const float *beside; /* or NULL */
    float *y;
    size_t lines, columns; /* of a worker; of a line */
    const float *center, *scale, *shift;
    uint32_t relu;
};

/* row: a line of an image. */
ROW_KERNEL(norm_apply)
{
    size_t i = row * a->columns + column;
    size_t f = row / a->lines * a->columns + column;
    float y = (a->x[i] - a->center[f]) * a->scale[f] + a->shift[f];

    if (a->beside)
        y += a->beside[i];
    if (a->relu)
        y = y < 0 ? 0 : y;
    a->y[i] = y;
}

struct norm_slice {
    const float *x, *y;
    const float *more, *grad; /* of y: their sum */
    const float *mean;        /* [workers][channels] */
    size_t pixels, channels, slices;
    float *sum, *product; /* [workers][slices][channels] */
};

/* relu and more are constants where it is called: a loop with a question in it is no vector's. */
KERNEL_FN void sum_slice(const struct norm_slice *a, size_t row, size_t column, uint32_t count,
                         bool relu, bool more)
{
    size_t worker = row / a->slices;
    size_t begin = row % a->slices * SLICE;
    size_t end = begin + SLICE < a->pixels ? begin + SLICE : a->pixels;
    size_t to = row * a->channels + column;
    const float *mean = a->mean + worker * a->channels + column;
    float sum[SUM_SLOTS] = {0};
    float product[SUM_SLOTS] = {0};

    for (size_t p = begin; p < end; p++) {
        size_t i = (worker * a->pixels + p) * a->channels + column;

        EACH_SUM (s) {
            float grad = a->grad[i + s];

            if (more)
                grad += a->more[i + s];
            if (relu)
                grad = a->y[i + s] > 0 ? grad : 0;
            sum[s] += grad;
            product[s] += grad * (a->x[i + s] - mean[s]);
        }
    }
    EACH_SUM (s) {
        a->sum[to + s] = sum[s];
        a->product[to + s] = product[s];
    }
}

struct norm_sum {
    struct norm_slice of;
};

SUM_KERNEL(norm_sum)
{
    sum_slice(&a->of, row, column, count, false, false);
}

struct norm_sum_relu {
    struct norm_slice of;
};

SUM_KERNEL(norm_sum_relu)
{
    sum_slice(&a->of, row, column, count, true, false);
}

struct norm_sum_more {
    struct norm_slice of;
};

SUM_KERNEL(norm_sum_more)
{
    sum_slice(&a->of, row, column, count, false, true);
}

struct norm_sum_relu_more {
    struct norm_slice of;
};

SUM_KERNEL(norm_sum_relu_more)
{
    sum_slice(&a->of, row, column, count, true, true);
}

/* The gradient of x is scale (grad - shift - center (x - mean)). */
struct norm_grad_finish {
    const float *sum, *product;
    size_t pixels, channels, slices, width, stride;
    const float *gamma;
    float *gamma_grad, *beta_grad; /* [workers][stride] */
    struct norm_factors to;
};

ROW_KERNEL(norm_grad_finish)
{
    size_t at = row * a->channels + column;
    double n = (double)a->pixels;
    double inverse = (double)a->to.inverse[at];
    double sum = 0;
    double product = 0;

    for (size_t s = 0; s < a->slices; s++) {
        sum += (double)a->sum[(row * a->slices + s) * a->channels + column];
        product += (double)a->product[(row * a->slices + s) * a->channels + column];
    }
    a->beta_grad[row * a->stride + column] = (float)sum;
    a->gamma_grad[row * a->stride + column] = (float)(product * inverse);
    for (size_t w = 0; w < a->width; w++) {
        size_t wide = (row * a->width + w) * a->channels + column;
        double slope = product * inverse * inverse / n;

        a->to.scale[wide] = a->gamma[column] * (float)inverse;
        a->to.center[wide] = (float)slope;
        a->to.shift[wide] = (float)(sum / n - (double)a->to.mean[at] * slope);
    }
}

struct norm_grad {
    const float *x, *grad;
    const float *y, *more; /* NULL: without relu(); nothing to add */
    float *inner;          /* the gradient within relu(), or NULL */
    float *x_grad;
    size_t lines, columns;
    const float *center, *scale, *shift;
};

ROW_KERNEL(norm_grad)
{
    size_t i = row * a->columns + column;
    size_t f = row / a->lines * a->columns + column;
    float grad = a->grad[i];

    if (a->more)
        grad += a->more[i];
    if (a->y)
        grad = a->y[i] > 0 ? grad : 0;
    if (a->inner)
        a->inner[i] = grad;
    a->x_grad[i] = a->scale[f] * (grad - a->shift[f] - a->center[f] * a->x[i]);
}

#ifndef __CUDACC__

#include "sim/graph.h"

#include <stdio.h>

enum { GAMMA, BETA };
enum { SUMS, FACTORS };

/* What a run of a norm goes over. */
struct extent {
    size_t workers, pixels, channels, slices, width, lines;
};

static struct extent extent_of(const struct node *x, const struct pass *p)
{
    size_t pixels = (size_t)p->shape.samples * x->height * x->width;

    return (struct extent){.workers = p->shape.workers,
                           .pixels = pixels,
                           .channels = x->features,
                           .slices = (pixels + SLICE - 1) / SLICE,
                           .width = x->width,
                           .lines = (size_t)p->shape.samples * x->height};
}

/* Behind each other in one buffer; room for as many workers as there may be. */
static struct norm_factors factors_of(const struct graph *g, const struct node *x)
{
    size_t channels = (size_t)g->most.workers * x->features;
    float *at = x->extra[FACTORS];

    return (struct norm_factors){at, at + channels, at + 2 * channels,
                                 at + (2 + x->width) * channels,
                                 at + (2 + 2 * (size_t)x->width) * channels};
}

static float *second_sums(const struct graph *g, const struct node *x)
{
    size_t most = (size_t)g->most.samples * x->height * x->width;

    return x->extra[SUMS] + (most + SLICE - 1) / SLICE * g->most.workers * x->features;
}

static size_t at_of(const struct graph *g, const struct node *x, int which)
{
    return g->parameters->item[x->parameter[which]].at;
}

static void norm_forward(struct graph *g, struct node *x, const struct pass *p)
{
    struct extent e = extent_of(x, p);
    struct norm_factors to = factors_of(g, x);
    const float *running = p->running != NULL ? p->running + x->kept : NULL;

    CHECK(running != NULL || p->statistics != NULL);
    if (running == NULL)
        LAUNCH_SUMS(g->dev, norm_sums, e.workers * e.slices, e.channels, .x = x->in->out,
                    .pixels = e.pixels, .channels = e.channels, .slices = e.slices,
                    .sum = x->extra[SUMS], .square = second_sums(g, x));
    LAUNCH_ROWS(g->dev, norm_finish, e.workers, e.channels, .x = x->in->out, .sum = x->extra[SUMS],
                .square = second_sums(g, x), .pixels = e.pixels, .channels = e.channels,
                .slices = e.slices, .width = e.width, .gamma = p->params + at_of(g, x, GAMMA),
                .beta = p->params + at_of(g, x, BETA), .running = running,
                .statistics = running == NULL ? p->statistics + x->kept : NULL,
                .stride = g->parameters->kept_length, .to = to);
    LAUNCH_ROWS(g->dev, norm_apply, e.workers * e.lines, e.width * e.channels, .x = x->in->out,
                .beside = x->beside != NULL ? x->beside->out : NULL, .y = x->out, .lines = e.lines,
                .columns = e.width * e.channels, .center = to.center, .scale = to.scale,
                .shift = to.shift, .relu = x->relu);
}

static void sum_slices(struct graph *g, const struct node *x, const struct extent *e)
{
    struct norm_slice of = {.x = x->in->out,
                            .y = x->out,
                            .more = x->more,
                            .grad = x->grad,
                            .mean = factors_of(g, x).mean,
                            .pixels = e->pixels,
                            .channels = e->channels,
                            .slices = e->slices,
                            .sum = x->extra[SUMS],
                            .product = second_sums(g, x)};
    size_t rows = e->workers * e->slices;

    if (x->relu && x->more != NULL)
        LAUNCH_SUMS(g->dev, norm_sum_relu_more, rows, e->channels, .of = of);
    else if (x->relu)
        LAUNCH_SUMS(g->dev, norm_sum_relu, rows, e->channels, .of = of);
    else if (x->more != NULL)
        LAUNCH_SUMS(g->dev, norm_sum_more, rows, e->channels, .of = of);
    else
        LAUNCH_SUMS(g->dev, norm_sum, rows, e->channels, .of = of);
}

static void norm_backward(struct graph *g, struct node *x, const struct pass *p)
{
    struct extent e = extent_of(x, p);
    struct norm_factors to = factors_of(g, x);

    sum_slices(g, x, &e);
    LAUNCH_ROWS(g->dev, norm_grad_finish, e.workers, e.channels, .sum = x->extra[SUMS],
                .product = second_sums(g, x), .pixels = e.pixels, .channels = e.channels,
                .slices = e.slices, .width = e.width, .stride = p->stride,
                .gamma = p->params + at_of(g, x, GAMMA), .gamma_grad = p->slab + at_of(g, x, GAMMA),
                .beta_grad = p->slab + at_of(g, x, BETA), .to = to);
    LAUNCH_ROWS(g->dev, norm_grad, e.workers * e.lines, e.width * e.channels, .x = x->in->out,
                .grad = x->grad, .y = x->relu ? x->out : NULL, .more = x->more,
                .inner = x->beside != NULL ? x->grad : NULL, .x_grad = x->in_grad, .lines = e.lines,
                .columns = e.width * e.channels, .center = to.center, .scale = to.scale,
                .shift = to.shift);
}

static const struct op norm_op = {"batch_norm", norm_forward, norm_backward, true};

static void add_parameters(struct graph *g, struct node *y, const char *name)
{
    size_t n = y->features;
    char full[64];

    snprintf(full, sizeof(full), "%s.weight", name);
    y->parameter[GAMMA] = graph_parameter(g, full, 0, 1, &n);
    g->parameters->item[y->parameter[GAMMA]].constant = 1;
    snprintf(full, sizeof(full), "%s.bias", name);
    y->parameter[BETA] = graph_parameter(g, full, 0, 1, &n);
    snprintf(full, sizeof(full), "%s.running_mean", name);
    y->kept = graph_keep(g, full, n, 0);
    snprintf(full, sizeof(full), "%s.running_var", name);
    CHECK(graph_keep(g, full, n, 1) == y->kept + n);
}

struct node *graph_batch_norm(struct graph *g, struct node *x, const char *name,
                              struct node *beside, bool relu)
{
    struct node *y =
        graph_image_node(g, &norm_op, x, (struct image_size){x->height, x->width, x->features});
    size_t channels = (size_t)g->most.workers * x->features;
    size_t pixels = (size_t)g->most.samples * x->height * x->width;

    CHECK(x->op->backward != NULL && "a norm of the images themselves");
    y->relu = relu;
    y->in_grad = graph_read(g, x);
    add_parameters(g, y, name);
    y->extra[SUMS] = graph_buffer(g, 2 * ((pixels + SLICE - 1) / SLICE) * channels);
    y->extra[FACTORS] = graph_buffer(g, (2 + 3 * (size_t)x->width) * channels);
    if (beside == NULL)
        return y;
    CHECK(width_of(beside) == width_of(y) && beside->features == y->features);
    y->beside = beside;
    graph_read_beside(g, beside, y);
    return y;
}

#endif

/*
 * layers_pool -- the largest or the mean of windows, ReLU, and the shortcut without weights.
 *
 * Gradients are gathered: an element of x looks at the windows that it is in, so that nothing is
 * added by two threads.
 */
#include "sim/kernel.h"

/* Windows of an image; pixels beyond its edge are none. */
struct pool {
    const float *x;  /* [images][height][width][channels] */
    float *y;        /* [images][out_height][out_width][channels] */
    uint32_t *place; /* of the largest, in its image; NULL: the mean is taken */
    uint32_t height, width, out_height, out_width, channels;
    uint32_t kernel, stride, pad;
};

/* row: a pixel of y. */
ROW_KERNEL(pool)
{
    size_t outs = (size_t)a->out_height * a->out_width;
    size_t image = row / outs;
    uint32_t top = (uint32_t)(row % outs / a->out_width) * a->stride;
    uint32_t left = (uint32_t)(row % a->out_width) * a->stride;
    const float *x = a->x + image * a->height * a->width * a->channels + column;
    uint32_t best = UINT32_MAX;
    float largest = 0;
    float sum = 0;

    for (uint32_t i = 0; i < a->kernel; i++) {
        for (uint32_t j = 0; j < a->kernel; j++) {
            uint32_t h = top + i - a->pad;
            uint32_t w = left + j - a->pad;
            float value;

            if (h >= a->height || w >= a->width)
                continue;
            value = x[((size_t)h * a->width + w) * a->channels];
            sum += value;
            if (best == UINT32_MAX || !(value <= largest)) {
                largest = value;
                best = h * a->width + w;
            }
        }
    }
    if (a->place)
        a->place[row * a->channels + column] = best;
    a->y[row * a->channels + column] =
        a->place ? largest : sum / (float)((size_t)a->kernel * a->kernel);
}

struct pool_grad {
    const float *y_grad;
    const uint32_t *place;
    float *x_grad;
    uint32_t height, width, out_height, out_width, channels;
    uint32_t kernel, stride, pad;
};

/* row: a pixel of x. */
ROW_KERNEL(pool_grad)
{
    size_t pixels = (size_t)a->height * a->width;
    size_t image = row / pixels;
    uint32_t own = (uint32_t)(row % pixels);
    uint32_t h = own / a->width + a->pad;
    uint32_t w = own % a->width + a->pad;
    uint32_t first_i = h < a->kernel ? 0 : (h - a->kernel) / a->stride + 1;
    uint32_t first_j = w < a->kernel ? 0 : (w - a->kernel) / a->stride + 1;
    float part = a->place ? 1 : 1 / (float)((size_t)a->kernel * a->kernel);
    float sum = 0;

    for (uint32_t i = first_i; i < a->out_height && i * a->stride <= h; i++) {
        for (uint32_t j = first_j; j < a->out_width && j * a->stride <= w; j++) {
            size_t at = ((image * a->out_height + i) * a->out_width + j) * a->channels + column;

            if (!a->place || a->place[at] == own)
                sum += a->y_grad[at];
        }
    }
    a->x_grad[row * a->channels + column] = sum * part;
}

struct relu {
    const float *x;
    float *y;
};

KERNEL(relu)
{
    a->y[i] = a->x[i] < 0 ? 0 : a->x[i];
}

struct relu_grad {
    const float *y, *y_grad;
    float *x_grad;
};

KERNEL(relu_grad)
{
    a->x_grad[i] = a->y[i] > 0 ? a->y_grad[i] : 0;
}

/* Channel c of y is channel c - first of x, or zero. */
struct subsample {
    const float *x; /* [images][height][width][channels] */
    float *y;       /* [images][out_height][out_width][features] */
    uint32_t height, width, channels, out_height, out_width, features, stride, first;
};

/* row: a pixel of y. */
ROW_KERNEL(subsample)
{
    size_t outs = (size_t)a->out_height * a->out_width;
    size_t h = row % outs / a->out_width * a->stride;
    size_t w = row % a->out_width * a->stride;
    const float *x = a->x + ((row / outs * a->height + h) * a->width + w) * a->channels;
    bool there = column >= a->first && column < (size_t)a->first + a->channels;

    a->y[row * a->features + column] = there ? x[column - a->first] : 0;
}

struct subsample_grad {
    const float *y_grad;
    float *x_grad;
    uint32_t height, width, channels, out_height, out_width, features, stride, first;
};

/* row: a pixel of x. */
ROW_KERNEL(subsample_grad)
{
    size_t pixels = (size_t)a->height * a->width;
    size_t h = row % pixels / a->width;
    size_t w = row % a->width;
    size_t from = (row / pixels * a->out_height + h / a->stride) * a->out_width + w / a->stride;
    bool taken = h % a->stride == 0 && w % a->stride == 0;

    a->x_grad[row * a->channels + column] =
        taken ? a->y_grad[from * a->features + a->first + column] : 0;
}

#ifndef __CUDACC__

#include "sim/graph.h"

enum { PLACE };

static size_t images_of(const struct pass *p)
{
    return (size_t)p->shape.workers * p->shape.samples;
}

static void pool_forward(struct graph *g, struct node *x, const struct pass *p)
{
    LAUNCH_ROWS(g->dev, pool, images_of(p) * rows_of(x, p), x->features, .x = x->in->out,
                .y = x->out, .place = x->integers[PLACE], .height = x->in->height,
                .width = x->in->width, .out_height = x->height, .out_width = x->width,
                .channels = x->features, .kernel = x->reach.kernel, .stride = x->reach.stride,
                .pad = x->reach.pad);
}

static void pool_backward(struct graph *g, struct node *x, const struct pass *p)
{
    if (x->in_grad != NULL)
        LAUNCH_ROWS(g->dev, pool_grad, images_of(p) * rows_of(x->in, p), x->features,
                    .y_grad = x->grad, .place = x->integers[PLACE], .x_grad = x->in_grad,
                    .height = x->in->height, .width = x->in->width, .out_height = x->height,
                    .out_width = x->width, .channels = x->features, .kernel = x->reach.kernel,
                    .stride = x->reach.stride, .pad = x->reach.pad);
}

static const struct op max_pool_op = {"max_pool", pool_forward, pool_backward, false};
static const struct op average_pool_op = {"average_pool", pool_forward, pool_backward, false};

static struct node *pool_node(struct graph *g, struct node *x, const struct op *op,
                              struct reach reach)
{
    struct image_size size;
    struct node *y;

    reach.stride += reach.stride == 0;
    CHECK(x->height + 2 * reach.pad >= reach.kernel && x->width + 2 * reach.pad >= reach.kernel);
    CHECK(2 * reach.pad <= reach.kernel);
    size = (struct image_size){convolved(x->height, reach.kernel, reach.stride, reach.pad),
                               convolved(x->width, reach.kernel, reach.stride, reach.pad),
                               x->features};
    y = graph_image_node(g, op, x, size);
    y->reach = reach;
    y->in_grad = graph_read(g, x);
    return y;
}

struct node *graph_max_pool(struct graph *g, struct node *x, struct reach reach)
{
    struct node *y = pool_node(g, x, &max_pool_op, reach);

    y->integers[PLACE] = graph_buffer(g, graph_samples(g) * width_of(y));
    return y;
}

struct node *graph_average_pool(struct graph *g, struct node *x, struct reach reach)
{
    if (reach.kernel == 0) {
        CHECK(x->height == x->width);
        reach.kernel = x->height;
    }
    return pool_node(g, x, &average_pool_op, reach);
}

static void relu_forward(struct graph *g, struct node *x, const struct pass *p)
{
    LAUNCH(g->dev, relu, images_of(p) * width_of(x), .x = x->in->out, .y = x->out);
}

static void relu_backward(struct graph *g, struct node *x, const struct pass *p)
{
    if (x->in_grad != NULL)
        LAUNCH(g->dev, relu_grad, images_of(p) * width_of(x), .y = x->out, .y_grad = x->grad,
               .x_grad = x->in_grad);
}

static const struct op relu_op = {"relu", relu_forward, relu_backward, false};

struct node *graph_relu(struct graph *g, struct node *x)
{
    struct node *y =
        graph_image_node(g, &relu_op, x, (struct image_size){x->height, x->width, x->features});

    y->in_grad = graph_read(g, x);
    return y;
}

static void subsample_forward(struct graph *g, struct node *x, const struct pass *p)
{
    LAUNCH_ROWS(g->dev, subsample, images_of(p) * rows_of(x, p), x->features, .x = x->in->out,
                .y = x->out, .height = x->in->height, .width = x->in->width,
                .channels = x->in->features, .out_height = x->height, .out_width = x->width,
                .features = x->features, .stride = x->reach.stride,
                .first = (x->features - x->in->features) / 2);
}

static void subsample_backward(struct graph *g, struct node *x, const struct pass *p)
{
    if (x->in_grad != NULL)
        LAUNCH_ROWS(g->dev, subsample_grad, images_of(p) * rows_of(x->in, p), x->in->features,
                    .y_grad = x->grad, .x_grad = x->in_grad, .height = x->in->height,
                    .width = x->in->width, .channels = x->in->features, .out_height = x->height,
                    .out_width = x->width, .features = x->features, .stride = x->reach.stride,
                    .first = (x->features - x->in->features) / 2);
}

static const struct op subsample_op = {"subsample", subsample_forward, subsample_backward, false};

struct node *graph_subsample(struct graph *g, struct node *x, uint32_t stride, uint32_t features)
{
    struct image_size size = {convolved(x->height, 1, stride, 0), convolved(x->width, 1, stride, 0),
                              features};
    struct node *y;

    CHECK(features >= x->features);
    y = graph_image_node(g, &subsample_op, x, size);
    y->reach.stride = stride;
    y->in_grad = graph_read(g, x);
    return y;
}

#endif

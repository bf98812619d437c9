/*
 * layers_convolution -- the image itself, and filters over images.
 */
#include "sim/kernel.h"

struct convolution_bias_grad {
    const float *grad; /* [workers][rows][columns] */
    size_t rows, columns, stride;
    float *bias; /* [workers][stride] */
};

SUM_KERNEL(convolution_bias_grad)
{
    const float *x = a->grad + row * a->rows * a->columns + column;
    float sum[SUM_SLOTS] = {0};

    for (size_t i = 0; i < a->rows; i++)
        EACH_SUM (s)
            sum[s] += x[i * a->columns + s];
    EACH_SUM (s)
        a->bias[row * a->stride + column + s] = sum[s];
}

#ifndef __CUDACC__

#include "sim/graph.h"

#include <math.h>
#include <stdio.h>

enum { WEIGHT, BIAS };

/* The batch is in place before the graph runs. */
static void image_forward(struct graph *g, struct node *x, const struct pass *p)
{
}

static const struct op image_op = {"image", image_forward, NULL, false};

struct node *graph_image(struct graph *g)
{
    struct node *x = graph_node(g, &image_op, NULL, g->image.channels);

    x->height = g->image.height;
    x->width = g->image.width;
    x->out = g->pixels;
    return x;
}

static struct convolution convolution_of(const struct graph *g, const struct node *x,
                                         const struct pass *p)
{
    const struct parameter *weights = &g->parameters->item[x->parameter[WEIGHT]];

    return (struct convolution){.workers = p->shape.workers,
                                .images = p->shape.samples,
                                .height = x->in->height,
                                .width = x->in->width,
                                .channels = x->in->features,
                                .filters = x->features,
                                .kernel = x->reach.kernel,
                                .stride = x->reach.stride,
                                .pad = x->reach.pad,
                                .groups = x->reach.groups,
                                .x = x->in->out,
                                .weights = p->params + weights->at,
                                .y = x->out,
                                .y_grad = x->grad,
                                .x_grad = x->in_grad,
                                .weights_grad = p->slab != NULL ? p->slab + weights->at : NULL,
                                .stride_grad = p->stride};
}

static void convolution_forward(struct graph *g, struct node *x, const struct pass *p)
{
    struct convolution c = convolution_of(g, x, p);

    if (x->reach.bias)
        c.bias = p->params + g->parameters->item[x->parameter[BIAS]].at;
    device_convolve(g->dev, &c);
}

static void convolution_backward(struct graph *g, struct node *x, const struct pass *p)
{
    struct convolution c = convolution_of(g, x, p);

    device_convolve_weights(g->dev, &c);
    if (x->reach.bias)
        LAUNCH_SUMS(g->dev, convolution_bias_grad, p->shape.workers, x->features, .grad = x->grad,
                    .rows = (size_t)p->shape.samples * rows_of(x, p), .columns = x->features,
                    .stride = p->stride,
                    .bias = p->slab + g->parameters->item[x->parameter[BIAS]].at);
    if (x->in_grad != NULL)
        device_convolve_data(g->dev, &c);
}

static const struct op convolution_op = {"convolution", convolution_forward, convolution_backward,
                                         false};

/* Initial values as PyTorch draws them: uniform, by what one filter reads. */
static void add_parameters(struct graph *g, struct node *y, const char *name)
{
    size_t channels = y->in->features / y->reach.groups;
    size_t read = channels * y->reach.kernel * y->reach.kernel;
    size_t dim[] = {y->features, y->reach.kernel, y->reach.kernel, channels};
    float bound = 1 / sqrtf((float)read);
    char full[64];

    snprintf(full, sizeof(full), "%s.weight", name);
    y->parameter[WEIGHT] = graph_parameter(g, full, bound, 4, dim);
    g->parameters->item[y->parameter[WEIGHT]].deviation = y->reach.deviation;
    if (!y->reach.bias)
        return;
    snprintf(full, sizeof(full), "%s.bias", name);
    y->parameter[BIAS] = graph_parameter(g, full, bound, 1, dim);
}

struct node *graph_convolution(struct graph *g, struct node *x, const char *name, uint32_t filters,
                               struct reach reach)
{
    struct image_size size;
    struct node *y;

    reach.stride += reach.stride == 0;
    reach.groups += reach.groups == 0;
    CHECK(x->height + 2 * reach.pad >= reach.kernel && x->width + 2 * reach.pad >= reach.kernel);
    size = (struct image_size){convolved(x->height, reach.kernel, reach.stride, reach.pad),
                               convolved(x->width, reach.kernel, reach.stride, reach.pad), filters};
    y = graph_image_node(g, &convolution_op, x, size);
    y->reach = reach;
    y->in_grad = graph_read(g, x);
    add_parameters(g, y, name);
    return y;
}

#endif

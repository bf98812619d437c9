/*
 * vgg -- stacks of 3x3 convolutions with a maximum between, of 11, 13, 16 or 19 layers.
 *
 * Simonyan, Zisserman: Very deep convolutional networks for large-scale image recognition, ICLR 2015,
 * configurations A, B, D and E, in the form that CIFAR recipes have: a batch norm after every
 * convolution and one linear layer in place of three.  With 16 layers 14,728,266 parameters for 10
 * classes.  Of larger images the mean over what is left of them goes to the linear layer.
 */
#include "models/model.h"
#include "sim/graph.h"

#include <stdio.h>

enum { DEPTH };

static const struct setting settings[] = {
    [DEPTH] = {"depth", 16, 11, 19, "layers: 11, 13, 16 or 19; of others the next below", WHOLE},
    {0},
};

/* Convolutions of a stage. */
static const struct plan_of_depth {
    uint32_t depth, layers[5];
} depths[] = {
    {11, {1, 1, 2, 2, 2}},
    {13, {2, 2, 2, 2, 2}},
    {16, {2, 2, 3, 3, 3}},
    {19, {2, 2, 4, 4, 4}},
};

/* number: its place in torchvision's list of layers, of which a norm is the next. */
static struct node *layer(struct graph *g, struct node *x, uint32_t *number, uint32_t filters)
{
    struct reach reach = {.kernel = 3, .pad = 1, .bias = true};
    char name[32];

    snprintf(name, sizeof(name), "features.%u", *number);
    x = graph_convolution(g, x, name, filters, reach);
    snprintf(name, sizeof(name), "features.%u", *number + 1);
    *number += 3; /* the ReLU is the third */
    return graph_batch_norm(g, x, name, NULL, true);
}

static void vgg_build(struct graph *g, const double *values, uint32_t classes)
{
    const struct plan_of_depth *plan = depths;
    struct reach pool = {.kernel = 2, .stride = 2};
    struct node *x = graph_image(g);
    uint32_t number = 0;

    while (plan + 1 < depths + ARRAY_LENGTH(depths) && plan[1].depth <= values[DEPTH])
        plan++;
    for (uint32_t stage = 0; stage < 5; stage++) {
        uint32_t filters = stage < 3 ? 64u << stage : 512;

        for (uint32_t i = 0; i < plan->layers[stage]; i++)
            x = layer(g, x, &number, filters);
        x = graph_max_pool(g, x, pool);
        number++;
    }
    x = graph_average_pool(g, x, (struct reach){0});
    graph_softmax_loss(g, graph_linear(g, x, "classifier", classes, 0, NULL));
}

const struct model vgg_model = {
    .name = "vgg",
    .paper = "Simonyan, Zisserman: Very deep convolutional networks for large-scale image "
             "recognition, ICLR 2015",
    .settings = settings,
    .least = 32,
    .build = vgg_build,
};

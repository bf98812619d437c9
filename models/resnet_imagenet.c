/*
 * resnet_imagenet -- the residual networks of ImageNet, of 18, 34, 50, 101 and 152 layers.
 *
 * He, Zhang, Ren, Sun: Deep residual learning for image recognition, 2015, table 1, as torchvision has
 * them: a stem, four stages of 64 to 512 filters, the mean over the image, a linear layer.  Up to 34
 * layers a block is two 3x3 convolutions; above, 1x1, 3x3 (where a stage halves the image) and 1x1
 * with four times the filters.  The stem is a 7x7 convolution and a 3x3 maximum, both of stride 2; of
 * images below 64 pixels a 3x3 convolution alone, as the CIFAR recipes of these networks have it
 * (PowerSGD's ResNet-18: 11,173,962 parameters for 10 classes; ResNet-50 on ImageNet 25,557,032).
 */
#include "models/model.h"
#include "models/residual.h"

#include <stdio.h>

enum { DEPTH };

static const struct setting settings[] = {
    [DEPTH] = {"depth", 50, 18, 152, "layers: 18, 34, 50, 101 or 152; of others the next below",
               WHOLE},
    {0},
};

#define WIDER 4 /* what a bottleneck puts out, in its filters */

static const struct plan_of_depth {
    uint32_t depth, blocks[4];
    bool bottleneck;
} depths[] = {
    {18, {2, 2, 2, 2}, false},  {34, {3, 4, 6, 3}, false},  {50, {3, 4, 6, 3}, true},
    {101, {3, 4, 23, 3}, true}, {152, {3, 8, 36, 3}, true},
};

/* The n-th convolution of a block, with its norm and ReLU. */
static struct node *layer(struct graph *g, struct node *x, struct place *p, uint32_t n,
                          struct reach reach, uint32_t filters)
{
    char part[16];

    snprintf(part, sizeof(part), "conv%u", n);
    x = residual_convolve(g, x, residual_name(p, part), filters, reach.kernel, reach.stride);
    snprintf(part, sizeof(part), "bn%u", n);
    return graph_batch_norm(g, x, residual_name(p, part), NULL, true);
}

/* One that puts out x + ...: filters are those within. */
static struct node *block(struct graph *g, struct node *x, struct place *p, uint32_t filters,
                          bool bottleneck)
{
    uint32_t stride = p->stage > 1 && p->block == 0 ? 2 : 1;
    uint32_t out = bottleneck ? WIDER * filters : filters;
    struct reach one = {.kernel = 1, .stride = 1}, three = {.kernel = 3, .stride = stride};
    struct node *y = layer(g, x, p, 1, bottleneck ? one : three, filters);

    if (bottleneck)
        y = layer(g, y, p, 2, three, filters);
    y = residual_convolve(g, y, residual_name(p, bottleneck ? "conv3" : "conv2"), out,
                          bottleneck ? 1 : 3, 1);
    if (stride > 1 || x->features != out)
        x = residual_projection(g, x, p, out, stride);
    return graph_batch_norm(g, y, residual_name(p, bottleneck ? "bn3" : "bn2"), x, true);
}

static struct node *stem(struct graph *g)
{
    struct node *x = graph_image(g);
    bool large = x->height >= 64;

    x = residual_convolve(g, x, "conv1", 64, large ? 7 : 3, large ? 2 : 1);
    x = graph_batch_norm(g, x, "bn1", NULL, true);
    return large ? graph_max_pool(g, x, (struct reach){.kernel = 3, .stride = 2, .pad = 1}) : x;
}

static void resnet_imagenet_build(struct graph *g, const double *values, uint32_t classes)
{
    const struct plan_of_depth *plan = depths;
    struct node *x = stem(g);

    while (plan + 1 < depths + ARRAY_LENGTH(depths) && plan[1].depth <= values[DEPTH])
        plan++;
    for (uint32_t stage = 1; stage <= 4; stage++) {
        for (uint32_t i = 0; i < plan->blocks[stage - 1]; i++) {
            struct place place = {.stage = stage, .block = i};

            x = block(g, x, &place, 32u << stage, plan->bottleneck);
        }
    }
    x = graph_average_pool(g, x, (struct reach){0});
    graph_softmax_loss(g, graph_linear(g, x, "fc", classes, 0, NULL));
}

const struct model resnet_imagenet_model = {
    .name = "resnet-imagenet",
    .paper = "He, Zhang, Ren, Sun: Deep residual learning for image recognition, 2015",
    .settings = settings,
    .least = 8,
    .build = resnet_imagenet_build,
};

/*
 * resnet -- a residual network for images of CIFAR's size.
 *
 * He, Zhang, Ren, Sun: Deep residual learning for image recognition, 2015, section 4.2: a 3x3
 * convolution, three stages of n blocks of two 3x3 convolutions with 16, 32 and 64 filters, the
 * mean over the image, a linear layer: 6n + 2 layers.  Where a stage halves the image, the shortcut
 * is (A) every second pixel with zeros for the new channels, or (B) a 1x1 convolution with a norm
 * of its own, as the second reference has it: 272,474 parameters at depth 20 for 10 classes,
 * 661,338 at 44, 1,730,714 at 110; four times as wide, 2,777,674 at depth 16.
 */
#include "models/model.h"
#include "models/residual.h"

enum { DEPTH, PROJECTION, WIDTH };

static const struct setting settings[] = {
    [DEPTH] = {"depth", 20, 8, 164, "layers: 6 n + 2; of others the remainder is left out", WHOLE},
    [PROJECTION] = {"projection", 1, 0, 1,
                    "shortcuts with weights where the shape changes (type B)", SWITCH},
    [WIDTH] = {"width", 1, 1, 32, "times the filters (a wide residual network)", WHOLE},
    {0},
};

static struct node *shortcut(struct graph *g, struct node *x, struct place *p, uint32_t filters,
                             bool projection)
{
    if (x->features == filters)
        return x;
    if (!projection)
        return graph_subsample(g, x, 2, filters);
    return residual_projection(g, x, p, filters, 2);
}

static struct node *block(struct graph *g, struct node *x, struct place *p, uint32_t filters,
                          bool projection)
{
    uint32_t stride = x->features == filters ? 1 : 2;
    struct node *y = residual_convolve(g, x, residual_name(p, "conv1"), filters, 3, stride);

    y = graph_batch_norm(g, y, residual_name(p, "bn1"), NULL, true);
    y = residual_convolve(g, y, residual_name(p, "conv2"), filters, 3, 1);
    x = shortcut(g, x, p, filters, projection);
    return graph_batch_norm(g, y, residual_name(p, "bn2"), x, true);
}

static void resnet_build(struct graph *g, const double *values, uint32_t classes)
{
    uint32_t blocks = ((uint32_t)values[DEPTH] - 2) / 6;
    uint32_t filters = 8 * (uint32_t)values[WIDTH];
    struct node *x = residual_convolve(g, graph_image(g), "conv1", 2 * filters, 3, 1);

    x = graph_batch_norm(g, x, "bn1", NULL, true);
    for (uint32_t stage = 1; stage <= 3; stage++) {
        for (uint32_t i = 0; i < blocks; i++) {
            struct place place = {.stage = stage, .block = i};

            x = block(g, x, &place, filters << stage, values[PROJECTION] != 0);
        }
    }
    x = graph_average_pool(g, x, (struct reach){0});
    graph_softmax_loss(g, graph_linear(g, x, "fc", classes, 0, NULL));
}

const struct model resnet_model = {
    .name = "resnet",
    .paper = "He, Zhang, Ren, Sun: Deep residual learning for image recognition, 2015",
    .settings = settings,
    .least = 4,
    .build = resnet_build,
};

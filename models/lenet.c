/*
 * lenet -- two convolutions with the largest of windows, three linear layers.
 *
 * LeCun, Bottou, Bengio, Haffner: Gradient-based learning applied to document recognition, 1998, in
 * the form of today's tutorials, with ReLU: 6 and 16 filters of 5x5, 120, 84.  Images of 28 x 28
 * are padded to 32, so that one of MNIST is 61,706 parameters for 10 classes.
 */
#include "models/model.h"
#include "sim/graph.h"

static const struct setting settings[] = {{0}};

static void lenet_build(struct graph *g, const double *values, uint32_t classes)
{
    struct node *x = graph_image(g);
    struct reach pool = {.kernel = 2, .stride = 2};
    struct reach first = {.kernel = 5, .pad = x->height < 32 ? 2 : 0, .bias = true};
    struct reach second = {.kernel = 5, .bias = true};

    x = graph_convolution(g, x, "conv1", 6, first);
    x = graph_max_pool(g, graph_relu(g, x), pool);
    x = graph_convolution(g, x, "conv2", 16, second);
    x = graph_max_pool(g, graph_relu(g, x), pool);
    x = graph_relu(g, graph_hidden(g, x, "fc1", 120));
    x = graph_relu(g, graph_hidden(g, x, "fc2", 84));
    graph_softmax_loss(g, graph_linear(g, x, "fc3", classes, 0, NULL));
}

const struct model lenet_model = {
    .name = "lenet",
    .paper = "LeCun, Bottou, Bengio, Haffner: Gradient-based learning applied to document "
             "recognition, 1998",
    .settings = settings,
    .least = 12,
    .build = lenet_build,
};

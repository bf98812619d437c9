#include "models/residual.h"

#include <math.h>
#include <stdio.h>

const char *residual_name(struct place *p, const char *part)
{
    snprintf(p->name, sizeof(p->name), "layer%u.%u.%s", p->stage, p->block, part);
    return p->name;
}

struct node *residual_convolve(struct graph *g, struct node *x, const char *name, uint32_t filters,
                               uint32_t kernel, uint32_t stride)
{
    struct reach reach = {.kernel = kernel, .stride = stride, .pad = kernel / 2};

    reach.deviation = sqrtf(2.0f / (float)(kernel * kernel * filters));
    return graph_convolution(g, x, name, filters, reach);
}

struct node *residual_projection(struct graph *g, struct node *x, struct place *p, uint32_t filters,
                                 uint32_t stride)
{
    x = residual_convolve(g, x, residual_name(p, "downsample.0"), filters, 1, stride);
    return graph_batch_norm(g, x, residual_name(p, "downsample.1"), NULL, false);
}

/*
 * residual.h -- what residual networks are made of, under the names that torchvision has for them.
 */
#ifndef MODELS_RESIDUAL_H
#define MODELS_RESIDUAL_H

#include "sim/graph.h"

/* Of a block: layer1.0.conv1. */
struct place {
    uint32_t stage, block;
    char name[64];
};

/* The name of a part of the block, until the next is asked for. */
const char *residual_name(struct place *p, const char *part);

/* A convolution without bias that keeps the size of an image but for its stride.  Filters begin
 * normal, by what one of them writes (He et al.: Delving deep into rectifiers, 2015). */
struct node *residual_convolve(struct graph *g, struct node *x, const char *name, uint32_t filters,
                               uint32_t kernel, uint32_t stride);

/* A shortcut with weights: a 1x1 convolution and a norm of its own. */
struct node *residual_projection(struct graph *g, struct node *x, struct place *p, uint32_t filters,
                                 uint32_t stride);

#endif

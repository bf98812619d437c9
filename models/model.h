/*
 * model.h -- a model: its settings, and one function from input to loss.
 *
 * To add one: a file with a struct model at its end, its line in model.c and in meson.build.
 */
#ifndef MODELS_MODEL_H
#define MODELS_MODEL_H

#include "sim/base.h"

struct graph;

struct model {
    const char *name; /* in regimes */
    const char *paper;
    const struct setting *settings;
    uint32_t least; /* pixels of a side of the smallest image that it reads; 0: it reads text */

    /* Adds its nodes to g; classes: of images, or the words of the vocabulary.  values: in the
     * order of settings. */
    void (*build)(struct graph *g, const double *values, uint32_t classes);
};

/* NULL-terminated, in alphabetical order. */
extern const struct model *const models[];

const struct model *model_find(const char *name);

#endif

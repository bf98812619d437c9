/*
 * gradients.h -- gradients of workers in safetensors files: steps for `gradpress compress`.
 *
 * A tensor NAME of shape [workers][...] is one step's; step-N.NAME that of step N.  square.NAME, of
 * the same shape, is the sum of the squares of what each micro-batch adds to the gradient, for a
 * method that tells micro-batches apart.
 *
 * A file of train --dump, or of compress itself, has grad.k.NAME, square.k.NAME and samples.k of
 * worker k instead, and its other tensors do not count.
 *
 * Where a name does not tell the step, the note "step" of the file does, else the place of the file
 * among those that are given, from 0.
 */
#ifndef SIM_GRADIENTS_H
#define SIM_GRADIENTS_H

#include "sim/safetensors.h"

#define GRADIENT_DIMS 4 /* at most, as of a parameter */

struct gradients {
    struct gradients_file {
        struct safetensors in;
        bool of_workers; /* a tensor for each worker */
    } * file;
    uint32_t files;
    struct gradients_step { /* in the order of their numbers, which differ */
        uint64_t number;
        char *prefix; /* of names: "", or "step-N." as it stands there */
        uint32_t file;
    } * step;
    uint32_t steps;
    struct gradients_tensor { /* the same in all steps, in the order of the first one's file */
        char *name;
        uint32_t dims; /* without the workers */
        size_t dim[GRADIENT_DIMS];
        size_t n;
    } * tensor;
    uint32_t tensors;
    uint32_t workers;
};

/* Checks names and shapes of all; values are read when asked for. */
bool gradients_open(struct gradients *g, char *const *path, size_t paths, struct error *err);
void gradients_close(struct gradients *g);

/* to [workers][n]; what is not finite is refused. */
bool gradients_read(const struct gradients *g, uint32_t step, uint32_t tensor, float *to,
                    struct error *err);

/* The same of the squares, which may not be there. */
bool gradients_read_squares(const struct gradients *g, uint32_t step, uint32_t tensor, float *to,
                            struct error *err);

/* A worker's samples over the mean. */
bool gradients_read_samples(const struct gradients *g, uint32_t step, uint32_t worker,
                            float *samples, struct error *err);

#endif

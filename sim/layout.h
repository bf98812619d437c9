/*
 * layout.h -- how tensors lie in an arena, and sums over them in one defined order.
 *
 * Every tensor begins on a tile of 256 floats; behind it is padding to the next tile, which is
 * zero and stays so.  A slab is [workers][stride] floats of one layout.  A layout over fewer
 * tensors with the same stride is a prefix of the same slab: that is how compressed tensors, which
 * come first, are seen apart from the rest.
 *
 * A sum over a tensor is tile_sum() of its tiles' sums, level by level; a sum over a worker the
 * same over its tensors.  All devices and any number of threads do exactly this.
 */
#ifndef SIM_LAYOUT_H
#define SIM_LAYOUT_H

#include "sim/device.h"
#include "sim/kernel.h"

/* Enough for any tensor: each level is 256 times smaller. */
#define LAYOUT_LEVELS 4

struct layout {
    struct device *dev;
    uint32_t count;                    /* tensors */
    size_t *n;                         /* [count] elements, on the host */
    size_t *at;                        /* [count] the first float of each in a worker's slab */
    size_t *rows;                      /* [count] of each as a matrix; 1 unless told */
    size_t length;                     /* floats of all tensors with their padding */
    size_t elements;                   /* without */
    uint32_t *n_dev;                   /* [count] n, on the device */
    uint32_t *rows_dev;                /* [count] rows; NULL unless told */
    struct tiles tiles;                /* of the values */
    struct tiles level[LAYOUT_LEVELS]; /* of the results of tiles, of the results of those, ... */
    uint32_t levels;                   /* used of level; the last one's results are one a tensor */
    struct tiles across[2];            /* of [workers][count]: a worker's tensors as one tensor */
};

/* Tensors of n[0], n[1], ... elements (each below 2^32).  stride 0: the layout's own length. */
void layout_create(struct layout *l, struct device *dev, const size_t *n, uint32_t count,
                   size_t stride);
void layout_destroy(struct layout *l);

/* rows[count]: the first dimension of matrices, 1 of vectors; elements are rows x columns. */
void layout_tell_rows(struct layout *l, const size_t *rows);

/* The host's part of a layout alone, n, at, length and elements: for planning. */
void layout_describe(struct layout *l, const size_t *n, uint32_t count);

/* out [workers][count] := the sums over each tensor of what a tile kernel put at [workers]
 * [l->tiles.up_stride] with tile_put(). */
void layout_tensor_sums(const struct layout *l, uint32_t workers, const double *results,
                        double *out);

/* The same with the largest of them. */
void layout_tensor_maxima(const struct layout *l, uint32_t workers, const uint32_t *results,
                          uint32_t *out);

/* out [workers] := the sums of in [workers][count]. */
void layout_worker_sums(const struct layout *l, uint32_t workers, const double *in, double *out);

/* out [workers][count] := the sums of squares of each tensor of each worker's slab x. */
void layout_tensor_squares(const struct layout *l, uint32_t workers, const float *x, double *out);

/* out [workers] := the sum of squares of each worker's slab x, by both of the above. */
void layout_squares(const struct layout *l, uint32_t workers, const float *x, double *out);

#endif

/*
 * stream.h -- a corpus on the device, as columns that are read side by side.
 *
 * `columns` streams of `rows` = floor(tokens / columns) tokens each; the tail is dropped.  A batch
 * is some columns, `steps` rows from a position on, and as targets the rows one further.
 */
#ifndef DATA_STREAM_H
#define DATA_STREAM_H

#include "sim/device.h"

struct step;

struct stream {
    uint32_t *token; /* [columns][rows] */
    uint32_t columns;
    size_t rows;
};

void stream_create(struct stream *s, struct device *dev, const uint32_t *token, size_t count,
                   uint32_t columns);
void stream_destroy(struct stream *s, struct device *dev);

/* Segments of bptt rows in an epoch, the last one maybe shorter: rows - 1 are predicted. */
uint64_t stream_segments(size_t rows, uint32_t bptt);
uint32_t stream_steps(size_t rows, uint32_t bptt, uint64_t segment); /* rows of a segment */

/* What is read of a stream: columns from first on, steps rows from position on, which is added to
 * that of *step on the device (NULL: none). */
struct window {
    const struct step *step;
    uint64_t position;
    uint32_t first, columns, steps;
};

/* token, target [columns][steps]. */
void stream_batch(const struct stream *s, struct device *dev, struct window from, uint32_t *token,
                  uint32_t *target);

#endif

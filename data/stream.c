#include "sim/kernel.h"
#include "sim/step.h"

struct stream_read {
    const uint32_t *from; /* [columns][rows] */
    size_t rows;
    const struct step *step;
    uint64_t position;
    uint32_t steps;
    uint32_t *token, *target;
};

ROW_KERNEL(stream_read)
{
    size_t at = row * a->rows + a->position + column;
    size_t to = row * a->steps + column;

    if (a->step)
        at += a->step->position;
    a->token[to] = a->from[at];
    a->target[to] = a->from[at + 1];
}

#ifndef __CUDACC__

#include "data/stream.h"

void stream_create(struct stream *s, struct device *dev, const uint32_t *token, size_t count,
                   uint32_t columns)
{
    *s = (struct stream){.columns = columns, .rows = count / columns};
    s->token = device_alloc(dev, columns * s->rows * sizeof(*token));
    device_upload(dev, s->token, token, columns * s->rows * sizeof(*token));
}

void stream_destroy(struct stream *s, struct device *dev)
{
    device_free(dev, s->token, s->columns * s->rows * sizeof(*s->token));
    *s = (struct stream){0};
}

uint64_t stream_segments(size_t rows, uint32_t bptt)
{
    return rows > 1 ? (rows - 1 + bptt - 1) / bptt : 0;
}

uint32_t stream_steps(size_t rows, uint32_t bptt, uint64_t segment)
{
    size_t left = rows - 1 - segment * bptt;

    return left < bptt ? (uint32_t)left : bptt;
}

void stream_batch(const struct stream *s, struct device *dev, struct window from, uint32_t *token,
                  uint32_t *target)
{
    LAUNCH_ROWS(dev, stream_read, from.columns, from.steps, .from = s->token + from.first * s->rows,
                .rows = s->rows, .step = from.step, .position = from.position, .steps = from.steps,
                .token = token, .target = target);
}

#endif

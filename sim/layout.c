#include "sim/kernel.h"

struct sum_results {
    const double *in;
    double *out;
};

TILE_KERNEL(sum_results)
{
    double v[TILE_SLOTS];

    EACH_SLOT (s)
        v[s] = tile_live(t, s) ? a->in[tile_at(t, s)] : 0;
    tile_put(t, a->out, tile_sum(v));
}

struct max_results {
    const uint32_t *in;
    uint32_t *out;
};

TILE_KERNEL(max_results)
{
    uint32_t v[TILE_SLOTS];

    EACH_SLOT (s)
        v[s] = tile_live(t, s) ? a->in[tile_at(t, s)] : 0;
    tile_put(t, a->out, tile_max(v));
}

struct sum_squares {
    const float *x;
    double *out;
};

TILE_KERNEL(sum_squares)
{
    double v[TILE_SLOTS];

    EACH_SLOT (s)
        v[s] = (double)a->x[tile_at(t, s)] * (double)a->x[tile_at(t, s)];
    tile_put(t, a->out, tile_sum(v));
}

#ifndef __CUDACC__

#include "sim/layout.h"

#include <stdlib.h>

static size_t tiles_in(size_t n)
{
    return n > TILE ? (n + TILE - 1) / TILE : 1;
}

static const uint32_t *upload_array(struct device *dev, uint32_t *host, size_t count)
{
    uint32_t *memory = device_alloc(dev, count * sizeof(*host));

    device_upload(dev, memory, host, count * sizeof(*host));
    free(host);
    return memory;
}

/* The tiles of tensors of n[] elements.  Where every tensor is one tile, their results are
 * [tensors]; else they are an arena of tiles themselves. */
static void tiles_create(struct tiles *l, struct device *dev, const size_t *n, uint32_t count,
                         size_t stride)
{
    uint32_t *first = allocate(count, sizeof(*first));
    uint32_t *tensor;
    uint32_t *live;
    uint32_t *up;
    size_t tiles = 0;
    size_t results = 0;
    bool top = true;

    for (uint32_t i = 0; i < count; i++) {
        first[i] = (uint32_t)tiles;
        tiles += tiles_in(n[i]);
        top = top && n[i] <= TILE;
    }
    tensor = allocate(tiles, sizeof(*tensor));
    live = allocate(tiles, sizeof(*live));
    up = allocate(tiles, sizeof(*up));
    for (uint32_t i = 0; i < count; i++) {
        for (size_t j = 0; j < tiles_in(n[i]); j++) {
            size_t left = n[i] - j * TILE;

            tensor[first[i] + j] = i;
            live[first[i] + j] = (uint32_t)(left < TILE ? left : TILE);
            up[first[i] + j] = (uint32_t)(top ? i : results + j);
        }
        results += top ? 1 : tiles_in(tiles_in(n[i])) * TILE;
    }
    *l = (struct tiles){
        .count = (uint32_t)tiles,
        .tensors = count,
        .stride = stride > 0 ? stride : tiles * TILE,
        .up_stride = results,
        .tensor = upload_array(dev, tensor, tiles),
        .live = upload_array(dev, live, tiles),
        .up = upload_array(dev, up, tiles),
        .first = upload_array(dev, first, count),
    };
}

static void tiles_destroy(struct tiles *l, struct device *dev)
{
    union {
        const uint32_t *in;
        void *out;
    } arrays[] = {{l->tensor}, {l->live}, {l->up}, {l->first}};

    for (size_t i = 0; i < ARRAY_LENGTH(arrays); i++)
        device_free(dev, arrays[i].out, (i < 3 ? l->count : l->tensors) * sizeof(uint32_t));
}

void layout_describe(struct layout *l, const size_t *n, uint32_t count)
{
    *l = (struct layout){.count = count};
    l->n = allocate(count, sizeof(*l->n));
    l->at = allocate(count, sizeof(*l->at));
    l->rows = allocate(count, sizeof(*l->rows));
    for (uint32_t i = 0; i < count; i++) {
        l->rows[i] = 1;
        l->n[i] = n[i];
        l->at[i] = l->length;
        l->length += tiles_in(n[i]) * TILE;
        l->elements += n[i];
    }
}

void layout_tell_rows(struct layout *l, const size_t *rows)
{
    uint32_t *narrow = allocate(l->count, sizeof(*narrow));

    for (uint32_t i = 0; i < l->count; i++) {
        CHECK(l->n[i] % rows[i] == 0);
        l->rows[i] = rows[i];
        narrow[i] = (uint32_t)rows[i];
    }
    if (l->dev != NULL) {
        l->rows_dev = device_alloc(l->dev, l->count * sizeof(*narrow));
        device_upload(l->dev, l->rows_dev, narrow, l->count * sizeof(*narrow));
    }
    free(narrow);
}

/* level[] becomes the sizes of the next level; false if there is none to come. */
static bool next_level(size_t *level, uint32_t count)
{
    bool more = false;

    for (uint32_t i = 0; i < count; i++) {
        more = more || level[i] > TILE;
        level[i] = tiles_in(level[i]);
    }
    return more;
}

void layout_create(struct layout *l, struct device *dev, const size_t *n, uint32_t count,
                   size_t stride)
{
    size_t *level = allocate(count, sizeof(*level));
    uint32_t *narrow = allocate(count, sizeof(*narrow));
    size_t across[2] = {count, tiles_in(count)};

    layout_describe(l, n, count);
    l->dev = dev;
    for (uint32_t i = 0; i < count; i++) {
        CHECK(n[i] <= UINT32_MAX);
        narrow[i] = (uint32_t)n[i];
        level[i] = n[i];
    }
    l->n_dev = device_alloc(dev, count * sizeof(*narrow));
    device_upload(dev, l->n_dev, narrow, count * sizeof(*narrow));
    tiles_create(&l->tiles, dev, n, count, stride);
    while (next_level(level, count)) {
        CHECK(l->levels < LAYOUT_LEVELS);
        tiles_create(&l->level[l->levels++], dev, level, count, 0);
    }
    CHECK(tiles_in(across[1]) == 1);
    tiles_create(&l->across[0], dev, &across[0], 1, count);
    tiles_create(&l->across[1], dev, &across[1], 1, 0);
    free(level);
    free(narrow);
}

void layout_destroy(struct layout *l)
{
    for (uint32_t i = 0; i < l->levels; i++)
        tiles_destroy(&l->level[i], l->dev);
    if (l->dev != NULL) {
        tiles_destroy(&l->tiles, l->dev);
        tiles_destroy(&l->across[0], l->dev);
        tiles_destroy(&l->across[1], l->dev);
        device_free(l->dev, l->n_dev, l->count * sizeof(*l->n_dev));
        device_free(l->dev, l->rows_dev, l->count * sizeof(*l->rows_dev));
    }
    free(l->n);
    free(l->at);
    free(l->rows);
    *l = (struct layout){0};
}

void layout_tensor_sums(const struct layout *l, uint32_t workers, const double *results,
                        double *out)
{
    if (l->levels == 0)
        device_copy(l->dev, out, results, (size_t)workers * l->count * sizeof(*out));
    for (uint32_t i = 0; i < l->levels; i++) {
        size_t bytes = workers * l->level[i].up_stride * sizeof(*out);
        double *sums = i + 1 < l->levels ? device_scratch(l->dev, bytes) : out;

        LAUNCH_TILES(l->dev, sum_results, &l->level[i], workers, .in = results, .out = sums);
        results = sums;
    }
}

void layout_tensor_maxima(const struct layout *l, uint32_t workers, const uint32_t *results,
                          uint32_t *out)
{
    if (l->levels == 0)
        device_copy(l->dev, out, results, (size_t)workers * l->count * sizeof(*out));
    for (uint32_t i = 0; i < l->levels; i++) {
        size_t bytes = workers * l->level[i].up_stride * sizeof(*out);
        uint32_t *maxima = i + 1 < l->levels ? device_scratch(l->dev, bytes) : out;

        LAUNCH_TILES(l->dev, max_results, &l->level[i], workers, .in = results, .out = maxima);
        results = maxima;
    }
}

void layout_worker_sums(const struct layout *l, uint32_t workers, const double *in, double *out)
{
    double *sums = out;

    if (l->count > TILE)
        sums = device_scratch(l->dev, workers * l->across[0].up_stride * sizeof(*sums));
    LAUNCH_TILES(l->dev, sum_results, &l->across[0], workers, .in = in, .out = sums);
    if (l->count > TILE)
        LAUNCH_TILES(l->dev, sum_results, &l->across[1], workers, .in = sums, .out = out);
}

void layout_tensor_squares(const struct layout *l, uint32_t workers, const float *x, double *out)
{
    double *results = device_scratch(l->dev, workers * l->tiles.up_stride * sizeof(*results));

    LAUNCH_TILES(l->dev, sum_squares, &l->tiles, workers, .x = x, .out = results);
    layout_tensor_sums(l, workers, results, out);
}

void layout_squares(const struct layout *l, uint32_t workers, const float *x, double *out)
{
    double *tensors = device_scratch(l->dev, (size_t)workers * l->count * sizeof(*tensors));

    layout_tensor_squares(l, workers, x, tensors);
    layout_worker_sums(l, workers, tensors, out);
}

#endif

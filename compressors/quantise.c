#include "compressors/quantise.h"

struct quantise_share {
    float *scalar; /* [senders][tiles] */
    uint32_t senders;
    size_t tiles;
};

KERNEL(quantise_share)
{
    float most = a->scalar[i];

    for (uint32_t w = 1; w < a->senders; w++) {
        float other = a->scalar[w * a->tiles + i];

        most = other > most ? other : most;
    }
    for (uint32_t w = 0; w < a->senders; w++)
        a->scalar[w * a->tiles + i] = most;
}

struct entries_measure {
    struct entries e;
    double *sum, *square; /* of tiles */
    uint32_t *most;
};

TILE_KERNEL(entries_measure)
{
    double first = (double)a->e.from.value[t->worker * a->e.from.stride + t->place - t->begin];
    double v[TILE_SLOTS];
    uint32_t size[TILE_SLOTS];
    float x[TILE_SLOTS];
    uint32_t live = entries_live(&a->e, t);

    entries_read(&a->e, t, x);
    EACH_SLOT (s)
        v[s] = tile_element(t, s) < live ? (double)x[s] - first : 0;
    tile_put(t, a->sum, tile_sum(v));
    EACH_SLOT (s)
        v[s] *= v[s];
    tile_put(t, a->square, tile_sum(v));
    EACH_SLOT (s)
        size[s] = float_size(x[s]);
    tile_put(t, a->most, tile_max(size));
}

#ifndef __CUDACC__

#include "sim/layout.h"

struct entry_sums entries_measure(const struct layout *rooms, uint32_t senders,
                                  const struct entries *e)
{
    const struct tiles *tiles = &rooms->tiles;
    size_t results = senders * tiles->up_stride;
    size_t pairs = (size_t)senders * tiles->tensors;
    double *of_tiles = device_scratch(rooms->dev, 2 * results * sizeof(*of_tiles));
    uint32_t *most_of_tiles = device_scratch(rooms->dev, results * sizeof(*most_of_tiles));
    double *sums = device_scratch(rooms->dev, 2 * pairs * sizeof(*sums));
    uint32_t *most = device_scratch(rooms->dev, pairs * sizeof(*most));

    LAUNCH_TILES(rooms->dev, entries_measure, tiles, senders, .e = *e, .sum = of_tiles,
                 .square = of_tiles + results, .most = most_of_tiles);
    layout_tensor_sums(rooms, senders, of_tiles, sums);
    layout_tensor_sums(rooms, senders, of_tiles + results, sums + pairs);
    layout_tensor_maxima(rooms, senders, most_of_tiles, most);
    return (struct entry_sums){sums, sums + pairs, most};
}

struct entries entries_of(const struct message *m, struct code_form form)
{
    return (struct entries){.from = m->values,
                            .count = m->count,
                            .form = form,
                            .code = m->own_code,
                            .scalar = m->own_scalar};
}

void quantise_share_scalars(const struct call *call, struct message *m)
{
    LAUNCH(call->dev, quantise_share, m->values.tiles, .scalar = m->own_scalar,
           .senders = m->senders, .tiles = m->values.tiles);
}

#endif

/*
 * efsignsgd -- the sign of every value, and the mean of their sizes.
 *
 *     Q(x) = mean |x| * sign(x), a tensor at a time; sign(0) = +
 *
 * Karimireddy, Rebjock, Stich, Jaggi: Error feedback fixes SignSGD, ICML 2019.  The error feedback
 * is memory residual's, with the learning rate outside.
 *
 *     message:  a 32-bit scalar a tensor, 1 bit a value
 *
 * Bytes on paper: 1 bit a value, as the first reference counts; the paper's n + 32 counts the scalar.
 */
#include "compressors/quantise.h"

struct efsignsgd_size {
    struct entries e;
    double *sum; /* of tiles */
};

TILE_KERNEL(efsignsgd_size)
{
    double size[TILE_SLOTS];
    float x[TILE_SLOTS];

    entries_read(&a->e, t, x);
    EACH_SLOT (s)
        size[s] = (double)(x[s] < 0 ? -x[s] : x[s]);
    tile_put(t, a->sum, tile_sum(size));
}

struct efsignsgd_code {
    struct entries e;
    const double *sum; /* [senders][tensors] */
    const uint32_t *n; /* [tensors] */
};

TILE_KERNEL(efsignsgd_code)
{
    uint32_t count = entry_count(&a->e, a->n, t->scalar, t->tensor);
    uint32_t code[TILE_SLOTS];
    float x[TILE_SLOTS];

    if (t->begin == 0 && tile_leads(t))
        *entries_scalar(&a->e, t) = count > 0 ? (float)(a->sum[t->scalar] / count) : 0;
    if (t->begin >= count)
        return;
    entries_read(&a->e, t, x);
    EACH_SLOT (s)
        code[s] = x[s] >= 0;
    entries_write(&a->e, t, code);
}

#ifndef __CUDACC__

static struct code_form efsignsgd_form(const double *settings)
{
    return (struct code_form){.kind = CODE_SIGN, .bits = 1, .scaled = 1};
}

static void efsignsgd_encode(const struct call *call, struct message *m)
{
    const struct tiles *tiles = &m->rooms.tiles;
    struct entries e = entries_of(m, efsignsgd_form(call->settings));
    double *results = device_scratch(call->dev, m->senders * tiles->up_stride * sizeof(*results));
    double *sums = device_scratch(call->dev, (size_t)m->senders * tiles->tensors * sizeof(*sums));

    LAUNCH_TILES(call->dev, efsignsgd_size, tiles, m->senders, .e = e, .sum = results);
    layout_tensor_sums(&m->rooms, m->senders, results, sums);
    LAUNCH_TILES(call->dev, efsignsgd_code, tiles, m->senders, .e = e, .sum = sums,
                 .n = call->layout->n_dev);
}

static double efsignsgd_paper_bits(const double *settings)
{
    return 1;
}

const struct quantiser efsignsgd_quantiser = {
    .name = "efsignsgd",
    .about = "signs, and the mean size of a tensor",
    .paper = "Karimireddy, Rebjock, Stich, Jaggi: Error feedback fixes SignSGD, ICML 2019",
    .settings = (const struct setting[]){{0}},
    .memory = "residual",
    .contraction = true,
    .form = efsignsgd_form,
    .encode = efsignsgd_encode,
    .paper_bits = efsignsgd_paper_bits,
};

#endif

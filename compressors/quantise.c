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

#ifndef __CUDACC__

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

/*
 * qsgd -- every value to one of so many levels of its bucket's norm, by chance, right on average.
 *
 *     r = levels |x| / norm      l = floor(r), or one more with probability r - floor(r)
 *     Q(x) = norm sign(x) l / levels
 *
 * Alistarh, Grubic, Li, Tomioka, Vojnovic: QSGD: communication-efficient SGD via gradient
 * quantization and encoding, NIPS 2017.  The norm is the 2-norm of the paper's theory or, as in its
 * experiments, the largest size.
 *
 *     message:  a 32-bit scalar a bucket, 2, 4 or 8 bits a value: the sign and the level
 *
 * Bytes on paper: so many bits a value.
 */
#include "compressors/quantise.h"
#include "sim/rng.h"
#include "sim/step.h"

struct qsgd_measure {
    struct entries e;
    double *square; /* of tiles; NULL: */
    uint32_t *most;
};

TILE_KERNEL(qsgd_measure)
{
    double square[TILE_SLOTS];
    uint32_t size[TILE_SLOTS];
    float x[TILE_SLOTS];

    entries_read(&a->e, t, x);
    if (a->square) {
        EACH_SLOT (s)
            square[s] = (double)x[s] * (double)x[s];
        tile_put(t, a->square, tile_sum(square));
    } else {
        EACH_SLOT (s)
            size[s] = float_size(x[s]);
        tile_put(t, a->most, tile_max(size));
    }
}

struct qsgd_norm {
    struct entries e;
    const double *square;
    const uint32_t *most; /* of tiles; or [senders][tensors] where a tensor is one bucket */
    const uint32_t *n;    /* [tensors] the room */
};

/* A bucket's first tile has its norm. */
TILE_KERNEL(qsgd_norm)
{
    uint32_t bucket = a->e.form.bucket;
    uint32_t tile = (uint32_t)(t->begin / TILE);
    uint32_t left = (a->n[t->tensor] + TILE - 1) / TILE - tile;
    size_t at = bucket == 0 ? t->scalar : t->result;
    uint32_t together = bucket == 0 ? 1 : left < bucket ? left : bucket;
    double square = 0;
    uint32_t most = 0;

    if (bucket == 0 ? tile > 0 : tile % bucket > 0)
        return;
    for (uint32_t i = 0; i < together; i++) {
        if (a->square)
            square += a->square[at + i];
        else
            most = a->most[at + i] > most ? a->most[at + i] : most;
    }
    if (tile_leads(t))
        *entries_scalar(&a->e, t) = a->square ? (float)sqrt(square) : bits_float(most);
}

struct qsgd_code {
    struct entries e;
    const struct step *step;
    uint32_t first_worker;
};

TILE_KERNEL(qsgd_code)
{
    uint32_t code[TILE_SLOTS];
    float x[TILE_SLOTS];
    float draw[TILE_SLOTS];
    float norm = *entries_scalar(&a->e, t);
    float levels = (float)a->e.form.levels;
    uint32_t most = a->e.form.levels;
    uint32_t sign = 1u << (a->e.form.bits - 1);

    entries_read(&a->e, t, x);
    tile_uniform(t, a->step->seed, RNG_COMPRESSOR, a->first_worker + t->worker,
                 (uint32_t)a->step->number, draw);
    EACH_SLOT (s) {
        float size = x[s] < 0 ? -x[s] : x[s];
        float r = norm > 0 ? size / norm * levels : 0;
        float held = r < levels ? r : levels; /* a sum that is not finite, too */
        uint32_t level = (uint32_t)(int32_t)held;

        level += (level < most) & (draw[s] < held - (float)(int32_t)level);
        code[s] = ((level > 0) & (x[s] < 0)) ? level | sign : level;
    }
    entries_write(&a->e, t, code);
}

#ifndef __CUDACC__

enum { LEVELS, BUCKET, NORM2, SHARED };

static const struct setting settings[] = {
    [LEVELS] = {"levels", 7, 1, 127,
                "above 0; with the sign 1 takes 2 bits, 7 takes 4, 127 takes 8", WHOLE},
    [BUCKET] = {"bucket", 512, 0, 1048576,
                "values that share a norm, up to the next multiple of 256; 0: all of a tensor",
                WHOLE},
    [NORM2] = {"norm2", 0, 0, 1, "the 2-norm; else the largest size", SWITCH},
    [SHARED] = {"shared", 0, 0, 1, "one norm for all workers, the largest: codes can be added up",
                SWITCH},
    {0},
};

static bool qsgd_shares(const double *values)
{
    return values[SHARED] != 0;
}

static struct code_form qsgd_form(const double *values)
{
    uint32_t levels = (uint32_t)values[LEVELS];

    return (struct code_form){.kind = CODE_LEVEL,
                              .bits = levels <= 1   ? 2
                                      : levels <= 7 ? 4
                                                    : 8,
                              .levels = levels,
                              .scaled = 1,
                              .bucket = (uint32_t)ceil(values[BUCKET] / TILE)};
}

static void qsgd_encode(const struct call *call, struct message *m)
{
    const struct tiles *tiles = &m->rooms.tiles;
    struct entries e = entries_of(m, qsgd_form(call->settings));
    bool norm2 = call->settings[NORM2] != 0;
    size_t size = norm2 ? sizeof(double) : sizeof(uint32_t);
    void *results = device_scratch(call->dev, m->senders * tiles->up_stride * size);
    void *norms = results;

    LAUNCH_TILES(call->dev, qsgd_measure, tiles, m->senders, .e = e,
                 .square = norm2 ? results : NULL, .most = norm2 ? NULL : results);
    if (e.form.bucket == 0) {
        norms = device_scratch(call->dev, (size_t)m->senders * tiles->tensors * size);
        if (norm2)
            layout_tensor_sums(&m->rooms, m->senders, results, norms);
        else
            layout_tensor_maxima(&m->rooms, m->senders, results, norms);
    }
    LAUNCH_TILES(call->dev, qsgd_norm, tiles, m->senders, .e = e, .square = norm2 ? norms : NULL,
                 .most = norm2 ? NULL : norms, .n = m->rooms.n_dev);
    if (qsgd_shares(call->settings))
        quantise_share_scalars(call, m);
    LAUNCH_TILES(call->dev, qsgd_code, tiles, m->senders, .e = e, .step = call->step,
                 .first_worker = call->first);
}

static double qsgd_paper_bits(const double *values)
{
    return qsgd_form(values).bits;
}

const struct quantiser qsgd_quantiser = {
    .name = "qsgd",
    .about = "levels of a bucket's norm, by chance",
    .paper = "Alistarh, Grubic, Li, Tomioka, Vojnovic: QSGD, NIPS 2017",
    .settings = settings,
    .memory = "none",
    .unbiased = true,
    .shares = qsgd_shares,
    .form = qsgd_form,
    .encode = qsgd_encode,
    .paper_bits = qsgd_paper_bits,
};

#endif

/*
 * powersgd -- a matrix of low rank, by one step of the power method from the last one.
 *
 *     P := sum of M_k Q      P^ := orthonormal P      Q_k := M_k' P^      Q := sum of Q_k
 *     M_k is sent as P^ Q_k', so that the mean is P^ Q' / K
 *
 * Vogels, Karimireddy, Jaggi: PowerSGD: practical low-rank gradient compression for distributed
 * optimization, NeurIPS 2019.  A tensor is a matrix [its first dimension][the rest]; it is
 * compressed only if that sends less than half (`rate`) of it, the rule of the authors' library, and
 * else is sent whole.  Q is common, begins as normal draws of the seed, and goes on from step to step.
 *
 *     message:  rank x rows values a tensor, then rank x columns values, both added up on the way
 *
 * Bytes on paper: those values in 32 bits.
 */
#include "compressors/compressor.h"
#include "sim/rng.h"

struct powersgd_orthonormal {
    float *p;             /* of each tensor [rows][rank] */
    const uint32_t *room; /* [tensors] rows x rank; 0: not compressed */
    const uint32_t *rows; /* [tensors] */
};

/* A slice of a column's product with another one, of 256 rows from `from` on. */
KERNEL_FN double powersgd_dot(const struct tile *t, const float *a, const float *b, uint32_t rows,
                              uint32_t rank)
{
    double sum = 0;

    for (uint32_t from = 0; from < rows; from += TILE) {
        double v[TILE_SLOTS];

        EACH_SLOT (s) {
            size_t row = from + tile_element(t, s);

            v[s] = row < rows ? (double)a[row * rank] * (double)b[row * rank] : 0;
        }
        sum += tile_sum(v);
    }
    return sum;
}

/* Gram and Schmidt, a column after the other, each against those before it.  A column of nothing
 * stays zero. */
TILE_KERNEL(powersgd_orthonormal)
{
    uint32_t rows = a->rows[t->tensor];
    uint32_t rank = a->room[t->tensor] / rows;
    float *p = a->p + t->place;

    if (t->begin > 0)
        return;
    for (uint32_t column = 0; column < rank; column++) {
        double square = powersgd_dot(t, p + column, p + column, rows, rank);
        double before = square;
        float scale;

        for (uint32_t other = 0; other < column; other++) {
            float along = (float)powersgd_dot(t, p + column, p + other, rows, rank);

            for (uint32_t from = 0; from < rows; from += TILE) {
                EACH_SLOT (s) {
                    size_t row = from + tile_element(t, s);

                    if (row < rows)
                        p[row * rank + column] -= along * p[row * rank + other];
                }
            }
            square = powersgd_dot(t, p + column, p + column, rows, rank);
        }
        scale = square > before * 1e-12 && square > 0 ? (float)(1 / sqrt(square)) : 0;
        for (uint32_t from = 0; from < rows; from += TILE) {
            EACH_SLOT (s) {
                size_t row = from + tile_element(t, s);

                if (row < rows)
                    p[row * rank + column] *= scale;
            }
        }
    }
}

/* Rows of a matrix, each added `factor` times to what is there, or put in its place; NULL: zero. */
struct powersgd_add {
    const float *from;
    float *to;
    size_t from_stride, to_stride;
    float factor;
    uint32_t adds;
};

ROW_KERNEL(powersgd_add)
{
    float *to = &a->to[row * a->to_stride + column];
    float value = a->from ? a->factor * a->from[row * a->from_stride + column] : 0;

    *to = a->adds ? *to + value : value;
}

#ifndef __CUDACC__

#include "compressors/rounds.h"
#include "sim/layout.h"

#include <stdlib.h>

enum { RANK, RATE, MEAN };

static const struct setting settings[] = {
    [RANK] = {"rank", 1, 1, 64, "of the matrices; their smaller side if that is less", WHOLE},
    [RATE] = {"rate", 2, 0, 1e6, "tensors that are not made so many times smaller are sent whole",
              NUMBER},
    [MEAN] = {"mean", 1, 0, 1,
              "a memory takes off the mean that everybody got; 0: the worker's own part", SWITCH},
    {0},
};

/* A tensor as a matrix. */
struct matrix {
    size_t rows, columns, rank;
    bool low; /* compressed */
};

static struct matrix matrix_of(const struct call *call, uint32_t tensor)
{
    size_t rows = call->layout->rows[tensor];
    size_t columns = call->layout->n[tensor] / rows;
    size_t least = rows < columns ? rows : columns;
    size_t rank = (size_t)call->settings[RANK];

    rank = rank < least ? rank : least;
    return (struct matrix){rows, columns, rank,
                           (double)((rows + columns) * rank) * call->settings[RATE] <
                               (double)(rows * columns)};
}

static size_t powersgd_room_p(const struct call *call, uint32_t tensor)
{
    struct matrix x = matrix_of(call, tensor);

    return x.low ? x.rows * x.rank : 0;
}

static size_t powersgd_room_q(const struct call *call, uint32_t tensor)
{
    struct matrix x = matrix_of(call, tensor);

    return x.low ? x.columns * x.rank : call->layout->n[tensor];
}

/* As the last message of one sender: what it comes to, added up. */
static size_t powersgd_common(const struct call *call)
{
    size_t floats = 0;

    for (uint32_t t = 0; t < call->layout->count; t++)
        floats += (powersgd_room_q(call, t) + TILE - 1) / TILE * TILE;
    return floats;
}

/* Normal draws, by Box and Muller: Q [rank][columns] of each tensor. */
static void powersgd_start(const struct call *call, uint64_t seed)
{
    size_t floats = powersgd_common(call);
    float *q = allocate(floats, sizeof(*q));

    for (size_t i = 0; i < floats; i++) {
        struct rng_block draw =
            rng_block(seed, RNG_COMPRESSOR, (uint32_t)i, (uint32_t)(i >> 32), 0, 0);
        double radius = sqrt(-2 * log(1 - (double)rng_uniform(draw.word[0])));

        q[i] = (float)(radius * cos(6.283185307179586 * (double)rng_uniform(draw.word[1])));
    }
    device_upload(call->dev, call->common, q, floats * sizeof(*q));
    free(q);
}

/* P_k := M_k Q, [rows][rank]. */
static void powersgd_first(const struct call *call, struct message *out)
{
    const struct layout *l = call->layout;
    size_t at = 0;

    for (uint32_t t = 0; t < l->count; t++) {
        struct matrix x = matrix_of(call, t);
        size_t scratch = device_scratch_mark(call->dev);

        if (x.low) {
            float *q = device_scratch(call->dev, x.columns * x.rank * sizeof(*q));

            device_transpose(call->dev, call->common + at, x.rank, x.columns, q);
            GEMM(call->dev, .m = x.rows, .n = x.rank, .k = x.columns, .a = call->wanted + l->at[t],
                 .b = q, .c = out->own_value + out->rooms.at[t], .lda = x.columns, .ldb = x.rank,
                 .ldc = x.rank, .batch = call->workers, .stride_a = l->tiles.stride,
                 .stride_c = out->rooms.length);
        }
        device_scratch_release(call->dev, scratch);
        at += (powersgd_room_q(call, t) + TILE - 1) / TILE * TILE;
    }
}

/* Q_k := M_k' P^, [rank][columns]; or the tensor as it is. */
static void encode_tensor(const struct call *call, const struct message *p, struct message *out,
                          uint32_t tensor)
{
    const struct layout *l = call->layout;
    struct matrix x = matrix_of(call, tensor);
    float *to = out->own_value + out->rooms.at[tensor];

    if (!x.low) {
        LAUNCH_ROWS(call->dev, powersgd_add, call->workers, l->n[tensor],
                    .from = call->wanted + l->at[tensor], .to = to, .from_stride = l->tiles.stride,
                    .to_stride = out->rooms.length, .factor = 1);
        return;
    }
    GEMM(call->dev, .transpose_a = true, .m = x.rank, .n = x.columns, .k = x.rows,
         .a = p->own_value + p->rooms.at[tensor], .b = call->wanted + l->at[tensor], .c = to,
         .lda = x.rank, .ldb = x.columns, .ldc = x.columns, .batch = call->workers,
         .stride_b = l->tiles.stride, .stride_c = out->rooms.length);
}

static void powersgd_encode(const struct call *call, struct message *out)
{
    const struct message *p = &call->rounds->received;

    LAUNCH_TILES(call->dev, powersgd_orthonormal, &p->rooms.tiles, 1, .p = p->own_value,
                 .room = p->rooms.n_dev, .rows = call->layout->rows_dev);
    for (uint32_t t = 0; t < call->layout->count; t++)
        encode_tensor(call, p, out, t);
    message_floats(out);
}

static void powersgd_receive(const struct call *call, const struct message *in)
{
    rounds_add_up(call, in, call->common);
}

/* Adds `factor` times P^ Q' to each of so many slabs: of one Q for all (stride 0), or of each its
 * own. */
struct low_rank {
    const float *q;
    size_t q_stride;
    float factor;
    uint32_t slabs;
    float *to;
    size_t stride;
};

static void add_low_rank(const struct call *call, uint32_t tensor, struct low_rank x)
{
    const struct message *p = &call->rounds->received;
    struct matrix m = matrix_of(call, tensor);
    size_t scratch = device_scratch_mark(call->dev);
    float *scaled = device_scratch(call->dev, m.rows * m.rank * sizeof(*scaled));

    LAUNCH_ROWS(call->dev, powersgd_add, 1, m.rows * m.rank,
                .from = p->own_value + p->rooms.at[tensor], .to = scaled, .factor = x.factor);
    GEMM(call->dev, .m = m.rows, .n = m.columns, .k = m.rank, .a = scaled, .b = x.q, .c = x.to,
         .lda = m.rank, .ldb = m.columns, .ldc = m.columns, .beta = 1, .batch = x.slabs,
         .stride_b = x.q_stride, .stride_c = x.stride);
    device_scratch_release(call->dev, scratch);
}

static void decode_tensor(const struct call *call, const struct message *in, uint32_t tensor,
                          struct target target)
{
    bool low = matrix_of(call, tensor).low;
    bool common = target.one_sum || (low && call->settings[MEAN] != 0);
    size_t room = in->rooms.at[tensor];
    float sign = target.how == ADD ? 1 : -1;
    float share = target.one_sum ? 1 : 1 / (float)call->all;
    struct low_rank x = {.q = common ? call->common + room : in->own_value + room,
                         .q_stride = common ? 0 : in->rooms.length,
                         .factor = common ? sign * share : sign,
                         .slabs = target.one_sum ? 1 : in->senders,
                         .to = target.to + call->layout->at[tensor],
                         .stride = target.stride};

    if (low)
        add_low_rank(call, tensor, x);
    else
        LAUNCH_ROWS(call->dev, powersgd_add, x.slabs, call->layout->n[tensor], .from = x.q,
                    .to = x.to, .from_stride = x.q_stride, .to_stride = x.stride,
                    .factor = x.factor, .adds = 1);
}

static void powersgd_decode(const struct call *call, const struct message *in, struct target target)
{
    uint32_t slabs = target.one_sum ? 1 : in->senders;

    if (target.spare_whole)
        return;
    for (uint32_t t = 0; t < call->layout->count; t++) {
        if (target.how == CLEAR)
            LAUNCH_ROWS(call->dev, powersgd_add, slabs, call->layout->n[t],
                        .to = target.to + call->layout->at[t], .to_stride = target.stride);
        else
            decode_tensor(call, in, t, target);
    }
}

const struct compressor powersgd_compressor = {
    .name = "powersgd",
    .about = "matrices of low rank, added up on the way",
    .paper = "Vogels, Karimireddy, Jaggi: PowerSGD, NeurIPS 2019",
    .settings = settings,
    .memory = "residual",
    .exchange = SUM,
    .no_quantiser = true,
    .together = true,
    .no_indices = true,
    .room = powersgd_room_q,
    .first = {.exchange = SUM, .room = powersgd_room_p, .encode = powersgd_first},
    .common = powersgd_common,
    .start = powersgd_start,
    .encode = powersgd_encode,
    .receive = powersgd_receive,
    .decode = powersgd_decode,
};

#endif

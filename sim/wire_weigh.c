#include "sim/wire.h"

/* How messages are written, as far as their size goes. */
struct wire_form {
    struct code_form code;
    uint32_t encoding;    /* an enum encoding */
    uint32_t count_bytes; /* of a tensor */
    uint32_t placed;      /* 1: indices are sent where not all entries are */
};

/* What a tensor's indices take, as far as it depends on where they are.  Of every entry the zeros
 * before it count; an entry without any adds nothing. */
struct wire_sums {
    uint64_t fillers;      /* floor(zeros / 65536) */
    uint64_t varint;       /* bytes beyond one */
    uint64_t gamma, delta; /* bits beyond one */
    uint64_t ones[32];     /* 1 where zeros has that bit */
};

KERNEL_FN uint32_t varint_more(uint32_t zeros)
{
    return (bit_width(zeros | 1) - 1) / 7;
}

KERNEL_FN uint32_t gamma_more(uint32_t zeros)
{
    return 2 * bit_width((zeros + 1) >> 1);
}

KERNEL_FN uint32_t delta_more(uint32_t zeros)
{
    uint32_t below = bit_width((zeros + 1) >> 1); /* the highest bit of the gap */

    return below + 2 * bit_width((below + 1) >> 1);
}

/* With the best parameter. */
KERNEL_FN uint64_t rice_bits(uint64_t entries, const uint64_t ones[32])
{
    uint64_t quotients = 0; /* the sum of floor(zeros / 2^b) */
    uint64_t least = ~(uint64_t)0;

    for (uint32_t b = 32; b-- > 0;) {
        uint64_t bits;

        quotients = 2 * quotients + ones[b];
        bits = quotients + entries * (1 + b);
        least = bits < least ? bits : least;
    }
    return least;
}

KERNEL_FN uint64_t index_bytes(uint32_t encoding, uint64_t n, uint64_t entries,
                               const struct wire_sums *sums)
{
    switch (encoding) {
    case ENCODING_RUNS16:
        return 2 * entries + 6 * sums->fillers;
    case ENCODING_BITMAP:
        return (n + 7) / 8;
    case ENCODING_VARINT:
        return entries + sums->varint;
    case ENCODING_GAMMA:
        return (entries + sums->gamma + 7) / 8;
    case ENCODING_DELTA:
        return (entries + sums->delta + 7) / 8;
    case ENCODING_RICE:
        return 1 + (rice_bits(entries, sums->ones) + 7) / 8;
    default:
        return 4 * entries;
    }
}

KERNEL_FN uint64_t least_index_bytes(const struct wire_form *form, uint64_t n, uint64_t entries,
                                     const struct wire_sums *sums)
{
    uint64_t least = index_bytes(ENCODING_RAW, n, entries, sums);

    for (uint32_t e = ENCODING_RAW + 1; e < ENCODING_BEST; e++) {
        uint64_t bytes = index_bytes(e, n, entries, sums);

        if (bytes < least && (e != ENCODING_RUNS16 || form->code.bits == 32))
            least = bytes;
    }
    return least;
}

KERNEL_FN uint64_t wire_bytes(const struct wire_form *form, uint64_t n, uint64_t entries,
                              const struct wire_sums *sums)
{
    uint64_t bytes = form->count_bytes +
                     4 * (uint64_t)code_scalars(&form->code, (uint32_t)entries) +
                     (entries * form->code.bits + 7) / 8;
    bool placed = form->placed && entries < n;

    if (form->encoding == ENCODING_BEST)
        return bytes + 1 + (placed ? least_index_bytes(form, n, entries, sums) : 0);
    return bytes + (placed ? index_bytes(form->encoding, n, entries, sums) : 0);
}

struct wire_measure {
    const uint32_t *index; /* [senders][stride of the rooms] */
    const uint32_t *count; /* [senders][tensors] */
    const uint32_t *n;     /* [tensors] */
    uint32_t encoding;
    struct wire_sums *sums; /* [senders][tensors] */
};

KERNEL_FN bool measures(const struct wire_measure *a, uint32_t encoding)
{
    return a->encoding == encoding || a->encoding == ENCODING_BEST;
}

KERNEL_FN void sum_add(const struct tile *t, uint64_t *sum, uint32_t of_tile)
{
    if (tile_leads(t) && of_tile > 0)
        count_add(sum, of_tile);
}

KERNEL_FN void ones_add(const struct tile *t, uint64_t ones[32], const uint32_t zeros[TILE_SLOTS])
{
    uint32_t width = bit_width(tile_max(zeros));
    uint32_t bit[TILE_SLOTS];

    for (uint32_t b = 0; b < width; b++) {
        EACH_SLOT (s)
            bit[s] = zeros[s] >> b & 1;
        sum_add(t, &ones[b], tile_count(bit));
    }
}

/* Only what the encoding goes by; nothing of tensors that are sent whole. */
TILE_KERNEL(wire_measure)
{
    uint32_t zeros[TILE_SLOTS];
    uint32_t more[TILE_SLOTS];
    uint32_t count = a->count[t->scalar];
    struct wire_sums *sums = &a->sums[t->scalar];

    if (t->begin >= count || count == a->n[t->tensor])
        return;
    EACH_SLOT (s) {
        size_t entry = t->begin + tile_element(t, s);
        uint32_t next = entry > 0 && entry < count ? a->index[tile_at(t, s) - 1] + 1 : 0;

        zeros[s] = entry < count ? a->index[tile_at(t, s)] - next : 0;
    }
    if (measures(a, ENCODING_RUNS16)) {
        EACH_SLOT (s)
            more[s] = zeros[s] >> 16;
        sum_add(t, &sums->fillers, tile_total(more));
    }
    if (measures(a, ENCODING_VARINT)) {
        EACH_SLOT (s)
            more[s] = varint_more(zeros[s]);
        sum_add(t, &sums->varint, tile_total(more));
    }
    if (measures(a, ENCODING_GAMMA)) {
        EACH_SLOT (s)
            more[s] = gamma_more(zeros[s]);
        sum_add(t, &sums->gamma, tile_total(more));
    }
    if (measures(a, ENCODING_DELTA)) {
        EACH_SLOT (s)
            more[s] = delta_more(zeros[s]);
        sum_add(t, &sums->delta, tile_total(more));
    }
    if (measures(a, ENCODING_RICE))
        ones_add(t, sums->ones, zeros);
}

struct wire_weigh {
    const uint32_t *count; /* [senders][tensors]; NULL: all */
    const uint32_t *n;     /* [tensors] */
    uint32_t tensors;
    struct wire_form form;
    const struct wire_sums *sums; /* [senders][tensors]; NULL: the form does not go by them */
    struct traffic *total;        /* [tensors] */
    uint64_t *each;               /* [senders] bytes, or NULL */
};

ROW_KERNEL(wire_weigh)
{
    size_t pair = row * a->tensors + column;
    uint32_t n = a->n[column];
    uint32_t count = a->count ? a->count[pair] : n;
    struct wire_sums sums = {0};
    uint64_t bytes;

    if (a->sums)
        sums = a->sums[pair];
    bytes = wire_bytes(&a->form, n, count, &sums);
    count_add(&a->total[column].entries, count);
    count_add(&a->total[column].bytes, bytes);
    if (a->each)
        count_add(&a->each[row], bytes);
}

#ifndef __CUDACC__

#include <math.h>

/* Whether the size of indices depends on where they are. */
static bool goes_by_places(enum encoding encoding)
{
    return encoding != ENCODING_RAW && encoding != ENCODING_BITMAP;
}

size_t message_weigh_bytes(enum encoding encoding, uint32_t tensors, uint32_t senders)
{
    return goes_by_places(encoding) ? (size_t)senders * tensors * sizeof(struct wire_sums) : 0;
}

void message_weigh(const struct message *m, const struct layout *layout, enum encoding encoding,
                   struct traffic *total, uint64_t *each)
{
    struct device *dev = layout->dev;
    bool placed = m->index != NULL && !m->agreed;
    size_t bytes = placed ? message_weigh_bytes(encoding, layout->count, m->senders) : 0;
    struct wire_sums *sums = NULL;

    if (bytes > 0) {
        sums = device_scratch(dev, bytes);
        device_clear(dev, sums, bytes);
        LAUNCH_TILES(dev, wire_measure, &m->rooms.tiles, m->senders, .index = m->index,
                     .count = m->count, .n = layout->n_dev, .encoding = encoding, .sums = sums);
    }
    LAUNCH_ROWS(dev, wire_weigh, m->senders, layout->count, .count = m->count,
                .n = m->index != NULL ? layout->n_dev : m->rooms.n_dev, .tensors = layout->count,
                .form = ((struct wire_form){m->values.form, encoding, m->counted ? 4 : 0, placed}),
                .sums = sums, .total = total, .each = each);
}

static uint64_t rounded(double x)
{
    return (uint64_t)(x + 0.5);
}

/* What is to be expected of entries at random places.  There are z or more zeros before one with
 * probability q^z, whatever is before and behind; so bit b of their number is 1 with probability
 * q^(2^b) / (1 + q^(2^b)).  q is such that the mean is right, (n - k) / (k + 1). */
static struct wire_sums expected_sums(size_t n, size_t entries)
{
    double k = (double)entries;
    double log_q = log1p(-(k + 1) / ((double)n + 1));
    double filler = exp(log_q * 65536);
    double varint = 0, gamma = 0, delta = 0;
    struct wire_sums sums = {.fillers = rounded(k * filler / (1 - filler))};

    for (int b = 7; b < 32; b += 7)
        varint += k * exp(log_q * ldexp(1, b));
    for (int b = 1; b < 32; b++) /* gaps of 2^b or more: zeros of one less */
        gamma += k * exp(log_q * (ldexp(1, b) - 1));
    for (int width = 2; width <= 32; width *= 2)
        delta += 2 * k * exp(log_q * (ldexp(1, width - 1) - 1));
    for (int b = 0; b < 32; b++) {
        double p = exp(log_q * ldexp(1, b));

        sums.ones[b] = rounded(k * p / (1 + p));
    }
    sums.varint = rounded(varint);
    sums.gamma = rounded(2 * gamma);
    sums.delta = rounded(gamma + delta);
    return sums;
}

size_t message_tensor_bytes(const struct method *method, enum encoding encoding, size_t n,
                            size_t entries)
{
    struct wire_form form = {method_form(method), encoding, method_counted(method) ? 4 : 0,
                             !method->compressor->agreed};
    struct wire_sums sums = {0};

    if (entries < n)
        sums = expected_sums(n, entries);
    return wire_bytes(&form, n, entries, &sums);
}

bool message_tensor_exact(const struct method *method, enum encoding encoding, size_t n,
                          size_t entries)
{
    const struct compressor *c = method->compressor;

    return !method_counted(method) && (c->agreed || entries == n || !goes_by_places(encoding));
}

#endif

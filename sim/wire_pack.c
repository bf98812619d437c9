/*
 * wire_pack -- messages as bytes and back, as sim/WIRE.md has them.
 */
#include "sim/wire.h"

#include <stdlib.h>

/* Whether nobody needs to be told which entries of a tensor are sent. */
static bool is_whole(const struct packet *p, uint32_t t)
{
    return p->count[t] == p->n[t] || p->agreed;
}

/* Whether values are 32-bit floats, as runs16 has them. */
static bool has_floats(const struct packet *p)
{
    return p->code == NULL && !p->bare;
}

/* Bits, the first in the lowest of the first byte.  They are only counted while at is NULL. */
struct writer {
    uint8_t *at;
    size_t size;   /* bytes that are full */
    uint64_t bits; /* of the next one */
    unsigned have;
};

static void write_bits(struct writer *w, uint32_t value, unsigned bits)
{
    w->bits |= (uint64_t)value << w->have;
    for (w->have += bits; w->have >= 8; w->have -= 8) {
        if (w->at != NULL)
            w->at[w->size] = (uint8_t)w->bits;
        w->size++;
        w->bits >>= 8;
    }
}

static void write_zeros(struct writer *w, uint32_t zeros)
{
    for (; zeros >= 32; zeros -= 32)
        write_bits(w, 0, 32);
    write_bits(w, 0, zeros);
}

/* Up to the end of the byte. */
static void write_padding(struct writer *w)
{
    write_bits(w, 0, (8 - w->have) % 8);
}

static void write_float(struct writer *w, float value)
{
    write_bits(w, float_bits(value), 32);
}

static void write_unary(struct writer *w, uint32_t zeros)
{
    write_zeros(w, zeros);
    write_bits(w, 1, 1);
}

static uint32_t low_bits(uint32_t x, unsigned bits)
{
    return (uint32_t)(x & ((UINT64_C(1) << bits) - 1));
}

static void write_varint(struct writer *w, uint32_t x)
{
    for (; x >= 128; x >>= 7)
        write_bits(w, low_bits(x, 7) | 128, 8);
    write_bits(w, x, 8);
}

/* Bits below the highest one of x > 0. */
static unsigned width_below(uint32_t x)
{
    return bit_width(x >> 1);
}

static void write_gamma(struct writer *w, uint32_t x)
{
    unsigned below = width_below(x);

    write_unary(w, below);
    write_bits(w, low_bits(x, below), below);
}

static void write_delta(struct writer *w, uint32_t x)
{
    unsigned below = width_below(x);

    write_gamma(w, below + 1);
    write_bits(w, low_bits(x, below), below);
}

static void write_rice(struct writer *w, uint32_t x, unsigned parameter)
{
    write_unary(w, x >> parameter);
    write_bits(w, low_bits(x, parameter), parameter);
}

static uint32_t zeros_before(const uint32_t *index, uint32_t entry)
{
    return entry == 0 ? index[0] : index[entry] - index[entry - 1] - 1;
}

/* The one of the fewest bits, of equals the lower. */
static uint32_t best_parameter(const uint32_t *index, uint32_t count)
{
    uint64_t least = UINT64_MAX;
    uint32_t best = 0;

    for (uint32_t b = 0; b < 32; b++) {
        uint64_t bits = (uint64_t)count * (1 + b);

        for (uint32_t i = 0; i < count; i++)
            bits += zeros_before(index, i) >> b;
        if (bits < least) {
            least = bits;
            best = b;
        }
    }
    return best;
}

static void write_zeros_before(struct writer *w, enum encoding encoding, uint32_t parameter,
                               uint32_t zeros)
{
    switch (encoding) {
    case ENCODING_VARINT:
        write_varint(w, zeros);
        break;
    case ENCODING_GAMMA:
        write_gamma(w, zeros + 1);
        break;
    case ENCODING_DELTA:
        write_delta(w, zeros + 1);
        break;
    case ENCODING_RICE:
        write_rice(w, zeros, parameter);
        break;
    default: /* a bitmap: a 1 for the entry */
        write_unary(w, zeros);
    }
}

static void write_indices(struct writer *w, enum encoding encoding, size_t n, uint32_t count,
                          const uint32_t *index)
{
    uint32_t parameter = 0;

    for (uint32_t i = 0; encoding == ENCODING_RAW && i < count; i++)
        write_bits(w, index[i], 32);
    if (encoding == ENCODING_RAW)
        return;
    if (encoding == ENCODING_RICE) {
        parameter = best_parameter(index, count);
        write_bits(w, parameter, 8);
    }
    for (uint32_t i = 0; i < count; i++)
        write_zeros_before(w, encoding, parameter, zeros_before(index, i));
    if (encoding == ENCODING_BITMAP)
        write_zeros(w, (uint32_t)n - (count > 0 ? index[count - 1] + 1 : 0));
    write_padding(w);
}

static void write_runs(struct writer *w, const uint32_t *index, const float *value, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        uint32_t zeros = zeros_before(index, i);
        uint32_t bits = float_bits(value[i]);

        for (; zeros > 65535; zeros -= 65536) {
            write_bits(w, 65535, 16);
            write_bits(w, 0, 32);
        }
        write_bits(w, zeros, 16);
        /* A zero that would look like a filler goes as -0. */
        write_bits(w, zeros == 65535 && bits == 0 ? 0x80000000u : bits, 32);
    }
}

static void write_codes(struct writer *w, const struct packet *p, uint32_t t)
{
    for (uint32_t i = 0; i < code_scalars(&p->form, p->count[t]); i++)
        write_float(w, p->scalar[p->scalar_begin[t] + i]);
    for (uint32_t i = 0; i < p->count[t]; i++)
        write_bits(w, p->code[p->begin[t] + i], p->form.bits);
    write_padding(w);
}

/* Indices and values, in any encoding but the best. */
static void write_entries(struct writer *w, const struct packet *p, uint32_t t,
                          enum encoding encoding)
{
    const float *value = p->value + p->begin[t];
    uint32_t count = p->count[t];

    if (!is_whole(p, t) && encoding == ENCODING_RUNS16) {
        write_runs(w, p->index + p->begin[t], value, count);
        return;
    }
    if (!is_whole(p, t))
        write_indices(w, encoding, p->n[t], count, p->index + p->begin[t]);
    if (p->code != NULL)
        write_codes(w, p, t);
    for (uint32_t i = 0; i < count && has_floats(p); i++)
        write_float(w, value[i]);
}

static size_t index_bytes(const struct packet *p, uint32_t t, enum encoding encoding)
{
    const uint32_t *index = p->index + p->begin[t];
    uint32_t count = p->count[t];
    struct writer trial = {0};

    if (encoding == ENCODING_RUNS16)
        write_runs(&trial, index, p->value + p->begin[t], count);
    else
        write_indices(&trial, encoding, p->n[t], count, index);
    return trial.size - (encoding == ENCODING_RUNS16 ? 4 * (size_t)count : 0);
}

/* The one of the fewest bytes, of equals the lower. */
static enum encoding best_encoding(const struct packet *p, uint32_t t)
{
    enum encoding best = ENCODING_RAW;
    size_t least = SIZE_MAX;

    for (int e = ENCODING_RAW; !is_whole(p, t) && e < ENCODING_BEST; e++) {
        size_t bytes;

        if (e == ENCODING_RUNS16 && !has_floats(p))
            continue;
        bytes = index_bytes(p, t, e);
        if (bytes < least) {
            least = bytes;
            best = e;
        }
    }
    return best;
}

static void write_packet(struct writer *w, const struct packet *p, enum encoding encoding)
{
    for (uint32_t t = 0; t < p->tensors; t++) {
        enum encoding own = encoding == ENCODING_BEST ? best_encoding(p, t) : encoding;

        if (p->counted)
            write_bits(w, p->count[t], 32);
        if (encoding == ENCODING_BEST)
            write_bits(w, own, 8);
        write_entries(w, p, t, own);
    }
}

size_t packet_pack(const struct packet *p, enum encoding encoding, uint8_t **bytes)
{
    struct writer w = {0};

    write_packet(&w, p, encoding);
    w = (struct writer){.at = allocate(w.size, 1)};
    write_packet(&w, p, encoding);
    *bytes = w.at;
    return w.size;
}

struct reader {
    const uint8_t *at;
    size_t size, place; /* bytes; those that were taken */
    uint64_t bits;      /* of the last one, what is left */
    unsigned have;
};

static bool take_byte(struct reader *r)
{
    if (r->place == r->size)
        return false;
    r->bits |= (uint64_t)r->at[r->place++] << r->have;
    r->have += 8;
    return true;
}

static bool read_bits(struct reader *r, uint32_t *value, unsigned bits)
{
    while (r->have < bits)
        if (!take_byte(r))
            return false;
    *value = (uint32_t)(r->bits & ((UINT64_C(1) << bits) - 1));
    r->bits >>= bits;
    r->have -= bits;
    return true;
}

/* What is left of the byte, which must be zeros. */
static bool read_padding(struct reader *r)
{
    bool zero = r->bits == 0;

    r->bits = 0;
    r->have = 0;
    return zero;
}

static bool read_float(struct reader *r, float *value)
{
    uint32_t bits;

    if (!read_bits(r, &bits, 32))
        return false;
    *value = bits_float(bits);
    return true;
}

/* At most so many zeros, before a one. */
static bool read_unary(struct reader *r, uint32_t most, uint32_t *zeros)
{
    uint64_t found = 0;
    unsigned last;

    while (r->bits == 0) {
        found += r->have;
        r->have = 0;
        if (found > most || !take_byte(r))
            return false;
    }
    last = (unsigned)__builtin_ctzll(r->bits);
    found += last;
    r->bits >>= last + 1;
    r->have -= last + 1;
    *zeros = (uint32_t)found;
    return found <= most;
}

/* Seven bits a byte, the lowest first; no more bytes than it takes. */
static bool read_varint(struct reader *r, uint32_t *x)
{
    uint64_t all = 0;

    for (unsigned shift = 0; shift < 35; shift += 7) {
        uint32_t byte;

        if (!read_bits(r, &byte, 8))
            return false;
        all |= (uint64_t)(byte & 127) << shift;
        *x = (uint32_t)all;
        if (byte < 128)
            return (byte > 0 || shift == 0) && all <= UINT32_MAX;
    }
    return false;
}

/* A number that has `below` bits under its highest one. */
static bool read_below(struct reader *r, unsigned below, uint32_t *x)
{
    if (!read_bits(r, x, below))
        return false;
    *x |= 1u << below;
    return true;
}

static bool read_gamma(struct reader *r, uint32_t *x)
{
    uint32_t below;

    return read_unary(r, 31, &below) && read_below(r, below, x);
}

static bool read_delta(struct reader *r, uint32_t *x)
{
    uint32_t width;

    return read_gamma(r, &width) && width <= 32 && read_below(r, width - 1, x);
}

static bool read_rice(struct reader *r, uint32_t parameter, uint32_t most, uint32_t *x)
{
    uint32_t above, below;

    if (!read_unary(r, most >> parameter, &above) || !read_bits(r, &below, parameter))
        return false;
    *x = above << parameter | below;
    return true;
}

/* At most so many. */
static bool read_zeros_before(struct reader *r, enum encoding encoding, uint32_t parameter,
                              uint32_t most, uint32_t *zeros)
{
    uint32_t gap;

    switch (encoding) {
    case ENCODING_VARINT:
        return read_varint(r, zeros) && *zeros <= most;
    case ENCODING_GAMMA:
    case ENCODING_DELTA:
        if (!(encoding == ENCODING_GAMMA ? read_gamma(r, &gap) : read_delta(r, &gap)))
            return false;
        *zeros = gap - 1;
        return *zeros <= most;
    case ENCODING_RICE:
        return read_rice(r, parameter, most, zeros) && *zeros <= most;
    default:
        return read_unary(r, most, zeros);
    }
}

static bool read_raw(struct reader *r, uint32_t n, uint32_t count, uint32_t *index)
{
    for (uint32_t i = 0; i < count; i++)
        if (!read_bits(r, &index[i], 32) || index[i] >= n || (i > 0 && index[i] <= index[i - 1]))
            return false;
    return true;
}

static bool read_indices(struct reader *r, enum encoding encoding, uint32_t n, uint32_t count,
                         uint32_t *index)
{
    uint32_t parameter = 0;
    uint32_t next = 0;

    if (encoding == ENCODING_RAW)
        return read_raw(r, n, count, index);
    if (encoding == ENCODING_RICE && (!read_bits(r, &parameter, 8) || parameter > 31))
        return false;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t zeros;

        if (next >= n || !read_zeros_before(r, encoding, parameter, n - 1 - next, &zeros))
            return false;
        index[i] = next + zeros;
        next = index[i] + 1;
    }
    for (uint32_t left = n - next; encoding == ENCODING_BITMAP && left > 0;) {
        uint32_t now = left < 32 ? left : 32;
        uint32_t bits;

        if (!read_bits(r, &bits, now) || bits != 0)
            return false;
        left -= now;
    }
    return read_padding(r);
}

static bool read_runs(struct reader *r, uint32_t n, uint32_t count, uint32_t *index, float *value)
{
    uint64_t next = 0;

    for (uint32_t i = 0; i < count;) {
        uint32_t zeros, bits;

        if (!read_bits(r, &zeros, 16) || !read_bits(r, &bits, 32) || next + zeros >= n)
            return false;
        next += zeros;
        if (zeros != 65535 || bits != 0) {
            index[i] = (uint32_t)next;
            value[i++] = bits_float(bits);
        }
        next++;
    }
    return true;
}

/* A code that no value has. */
static bool is_code(const struct code_form *form, uint32_t code)
{
    uint32_t level = code & (((1u << form->bits) >> 1) - 1);

    return form->levels == 0 || (level <= form->levels && (level > 0 || code == 0));
}

/* scalar_begin[t] is known, for counts are. */
static bool read_codes(struct reader *r, struct packet *p, uint32_t t)
{
    for (uint32_t i = 0; i < code_scalars(&p->form, p->count[t]); i++)
        if (!read_float(r, &p->scalar[p->scalar_begin[t] + i]))
            return false;
    for (uint32_t i = 0; i < p->count[t]; i++) {
        uint32_t *code = &p->code[p->begin[t] + i];

        if (!read_bits(r, code, p->form.bits) || !is_code(&p->form, *code))
            return false;
    }
    packet_decode(p, t);
    return read_padding(r);
}

static bool read_floats(struct reader *r, uint32_t count, float *value)
{
    for (uint32_t i = 0; i < count; i++)
        if (!read_float(r, &value[i]))
            return false;
    return true;
}

/* What is told of it must be what the room is for: the caller has it from there, too. */
static bool read_count(struct reader *r, const struct packet *p, uint32_t t)
{
    uint32_t count;

    return !p->counted || (read_bits(r, &count, 32) && count == p->count[t]);
}

/* With the best encoding, which one that is; of a whole tensor raw. */
static bool read_encoding(struct reader *r, const struct packet *p, uint32_t t,
                          enum encoding *encoding)
{
    uint32_t own;

    if (*encoding != ENCODING_BEST)
        return true;
    if (!read_bits(r, &own, 8) || own >= ENCODING_BEST ||
        (own == ENCODING_RUNS16 && !has_floats(p)) || (own != ENCODING_RAW && is_whole(p, t)))
        return false;
    *encoding = own;
    return true;
}

static bool read_tensor(struct reader *r, struct packet *p, uint32_t t, enum encoding encoding)
{
    uint32_t n = (uint32_t)p->n[t];
    uint32_t count = p->count[t];
    float *value = p->value + p->begin[t];
    uint32_t *index = p->index != NULL ? p->index + p->begin[t] : NULL;

    CHECK(count <= n && (count == n || index != NULL));
    if (!read_count(r, p, t) || !read_encoding(r, p, t, &encoding))
        return false;
    if (!is_whole(p, t) && encoding == ENCODING_RUNS16)
        return read_runs(r, n, count, index, value);
    if (!is_whole(p, t) && !read_indices(r, encoding, n, count, index))
        return false;
    for (uint32_t i = 0; count == n && index != NULL && i < count; i++)
        index[i] = i;
    if (p->bare)
        return true;
    return p->code != NULL ? read_codes(r, p, t) : read_floats(r, count, value);
}

bool packet_unpack(struct packet *p, enum encoding encoding, const uint8_t *bytes, size_t size,
                   struct error *err)
{
    struct reader r = {.at = bytes, .size = size};

    CHECK(bytes != NULL);
    for (uint32_t t = 0; t < p->tensors; t++)
        if (!read_tensor(&r, p, t, encoding))
            return fail(err, "a message of %zu bytes is wrong at byte %zu, in tensor %u", size,
                        r.place, t);
    if (r.place != size)
        return fail(err, "a message of %zu bytes ends at byte %zu", size, r.place);
    return true;
}

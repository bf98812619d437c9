#include "sim/wire.h"

/* How a message is written, as far as its size goes. */
struct wire_form {
    struct code_form code;
    uint32_t count_bytes; /* of a tensor */
    uint32_t index_bytes; /* of an entry, where not all are sent */
};

KERNEL_FN uint64_t wire_bytes(const struct wire_form *form, uint64_t n, uint64_t entries)
{
    uint64_t index = entries == n ? 0 : form->index_bytes * entries;

    return form->count_bytes + index + 4 * (uint64_t)code_scalars(&form->code, (uint32_t)entries) +
           (entries * form->code.bits + 7) / 8;
}

struct wire_weigh {
    const uint32_t *count; /* [senders][tensors]; NULL: all */
    const uint32_t *n;     /* [tensors] */
    uint32_t tensors;
    struct wire_form form;
    struct traffic *total; /* [tensors] */
    uint64_t *each;        /* [senders] bytes, or NULL */
};

ROW_KERNEL(wire_weigh)
{
    uint32_t n = a->n[column];
    uint32_t count = a->count ? a->count[row * a->tensors + column] : n;
    uint64_t bytes = wire_bytes(&a->form, n, count);

    count_add(&a->total[column].entries, count);
    count_add(&a->total[column].bytes, bytes);
    if (a->each)
        count_add(&a->each[row], bytes);
}

struct wire_fillers {
    const uint32_t *index; /* [senders][stride of the rooms] */
    const uint32_t *count; /* [senders][tensors] */
    struct traffic *total; /* [tensors] */
    uint64_t *each;        /* [senders], or NULL */
};

/* A filler stands for 65,535 zeros and a value that is one, 65,536 places. */
TILE_KERNEL(wire_fillers)
{
    double fillers[TILE_SLOTS];
    uint32_t count = a->count[t->scalar];
    double sum;

    if (t->begin >= count)
        return;
    EACH_SLOT (s) {
        size_t entry = t->begin + tile_element(t, s);
        uint32_t before = 0;

        fillers[s] = 0;
        if (entry >= count)
            continue;
        if (entry > 0)
            before = a->index[tile_at(t, s) - 1] + 1;
        before = (a->index[tile_at(t, s)] - before) / 65536u;
        fillers[s] = before;
    }
    sum = tile_sum(fillers);
    if (tile_leads(t) && sum > 0) {
        count_add(&a->total[t->tensor].bytes, 6 * (uint64_t)sum);
        if (a->each)
            count_add(&a->each[t->worker], 6 * (uint64_t)sum);
    }
}

#ifndef __CUDACC__

#include <stdlib.h>
#include <string.h>

static struct wire_form form_of(struct code_form code, bool counted, bool agreed,
                                enum encoding encoding)
{
    return (struct wire_form){.code = code,
                              .count_bytes = counted ? 4 : 0,
                              .index_bytes = agreed                        ? 0
                                             : encoding == ENCODING_RUNS16 ? 2
                                                                           : 4};
}

size_t message_tensor_bytes(const struct method *method, enum encoding encoding, size_t n,
                            size_t entries)
{
    struct wire_form form =
        form_of(method_form(method), method_counted(method), method->compressor->agreed, encoding);

    return wire_bytes(&form, n, entries);
}

/* The most entries of each tensor, to be freed. */
static size_t *rooms_of(const struct compressor *c, const struct call *call)
{
    size_t *room = allocate(call->layout->count, sizeof(*room));

    for (uint32_t i = 0; i < call->layout->count; i++)
        room[i] = c->room != NULL ? c->room(call, i) : call->layout->n[i];
    return room;
}

static struct room_bytes bytes_of(const struct method *method, size_t length, uint32_t tensors)
{
    struct room_bytes bytes = {0};

    if (method->compressor->room != NULL)
        bytes.value = 4 * length;
    if (method->compressor->room != NULL && !method->compressor->no_indices) {
        bytes.index = 4 * length;
        bytes.count = 4 * tensors;
    }
    if (method->quantiser != NULL) {
        bytes.code = length / TILE * 32 * method_form(method).bits;
        bytes.scalar = length / TILE * sizeof(float);
    }
    return bytes;
}

size_t message_bytes_needed(const struct method *method, const struct call *call, uint32_t workers)
{
    size_t *room = rooms_of(method->compressor, call);
    struct room_bytes bytes;
    struct layout rooms;

    layout_describe(&rooms, room, call->layout->count);
    bytes = bytes_of(method, rooms.length, rooms.count);
    layout_destroy(&rooms);
    free(room);
    return workers * (bytes.index + bytes.value + bytes.count + bytes.code + bytes.scalar);
}

/* NULL for no bytes. */
static void *room_alloc(struct device *dev, size_t bytes)
{
    return bytes > 0 ? device_alloc(dev, bytes) : NULL;
}

void message_create(struct message *m, const struct method *method, const struct call *call,
                    uint32_t workers)
{
    size_t *room = rooms_of(method->compressor, call);
    struct room_bytes bytes;

    *m = (struct message){.senders = workers,
                          .counted = method_counted(method),
                          .agreed = method->compressor->agreed};
    layout_create(&m->rooms, call->dev, room, call->layout->count, 0);
    free(room);
    bytes = bytes_of(method, m->rooms.length, m->rooms.count);
    m->index = room_alloc(call->dev, workers * bytes.index);
    m->own_value = room_alloc(call->dev, workers * bytes.value);
    m->count = room_alloc(call->dev, workers * bytes.count);
    m->own_code = room_alloc(call->dev, workers * bytes.code);
    m->own_scalar = room_alloc(call->dev, workers * bytes.scalar);
    m->values = (struct values){.form = method_form(method),
                                .code = m->own_code,
                                .scalar = m->own_scalar,
                                .tiles = m->rooms.length / TILE};
    m->bytes = bytes;
    message_floats(m);
}

void message_destroy(struct message *m, struct device *dev, uint32_t workers)
{
    device_free(dev, m->index, workers * m->bytes.index);
    device_free(dev, m->own_value, workers * m->bytes.value);
    device_free(dev, m->count, workers * m->bytes.count);
    device_free(dev, m->own_code, workers * m->bytes.code);
    device_free(dev, m->own_scalar, workers * m->bytes.scalar);
    layout_destroy(&m->rooms);
    *m = (struct message){0};
}

void message_floats(struct message *m)
{
    m->values.value = m->own_value;
    m->values.stride = m->rooms.length;
}

void message_weigh(const struct message *m, const struct layout *layout, enum encoding encoding,
                   struct traffic *total, uint64_t *each)
{
    LAUNCH_ROWS(layout->dev, wire_weigh, m->senders, layout->count, .count = m->count,
                .n = m->index != NULL ? layout->n_dev : m->rooms.n_dev, .tensors = layout->count,
                .form = form_of(m->values.form, m->counted, m->agreed, encoding), .total = total,
                .each = each);
    if (encoding == ENCODING_RUNS16 && m->index != NULL && !m->agreed)
        LAUNCH_TILES(layout->dev, wire_fillers, &m->rooms.tiles, m->senders, .index = m->index,
                     .count = m->count, .total = total, .each = each);
}

struct traffic traffic_sum(const struct traffic *traffic, uint32_t tensors)
{
    struct traffic sum = {0};

    for (uint32_t t = 0; t < tensors; t++) {
        sum.entries += traffic[t].entries;
        sum.bytes += traffic[t].bytes;
    }
    return sum;
}

/* The scalar that goes with an entry; 0 where there is none. */
static float scalar_of(const struct packet *p, uint32_t t, uint32_t entry)
{
    uint32_t bucket = p->form.bucket == 0 ? 0 : entry / (p->form.bucket * TILE);

    return p->form.scaled ? p->scalar[p->scalar_begin[t] + bucket] : 0;
}

static void decode_values(struct packet *p, uint32_t t)
{
    for (uint32_t i = 0; i < p->count[t]; i++)
        p->value[p->begin[t] + i] =
            code_float(&p->form, p->code[p->begin[t] + i], scalar_of(p, t, i));
}

/* Codes one a word, scalars one after another, and the values that they stand for. */
static void download_codes(struct packet *p, const struct message *m, struct device *dev,
                           uint32_t sender)
{
    size_t length = m->rooms.length;
    size_t tiles = length / TILE;
    size_t words = tiles * 8 * p->form.bits;
    uint32_t in_word = 32 / p->form.bits;
    uint32_t *packed = allocate(words, sizeof(*packed));
    float *scalar = allocate(tiles, sizeof(*scalar));
    size_t scalars = 0;

    p->code = allocate(length, sizeof(*p->code));
    p->scalar = allocate(tiles, sizeof(*p->scalar));
    p->scalar_begin = allocate(p->tensors, sizeof(*p->scalar_begin));
    device_download(dev, packed, m->own_code + sender * words, words * sizeof(*packed));
    device_download(dev, scalar, m->own_scalar + sender * tiles, tiles * sizeof(*scalar));
    for (size_t i = 0; i < length; i++)
        p->code[i] =
            packed[i / in_word] >> (i % in_word * p->form.bits) & ((1u << p->form.bits) - 1);
    for (uint32_t t = 0; t < p->tensors; t++) {
        p->scalar_begin[t] = scalars;
        for (uint32_t i = 0; i < code_scalars(&p->form, p->count[t]); i++)
            p->scalar[scalars++] = scalar[p->begin[t] / TILE + (size_t)i * p->form.bucket];
        decode_values(p, t);
    }
    free(packed);
    free(scalar);
}

void packet_download(struct packet *p, const struct message *m, const struct layout *layout,
                     uint32_t sender)
{
    struct device *dev = layout->dev;
    size_t length = m->rooms.length;

    *p = (struct packet){.tensors = layout->count,
                         .n = m->index != NULL ? layout->n : m->rooms.n,
                         .counted = m->counted,
                         .agreed = m->agreed,
                         .bare = m->values.form.bits == 0,
                         .form = m->values.form};
    p->count = allocate(layout->count, sizeof(*p->count));
    p->begin = allocate(layout->count, sizeof(*p->begin));
    p->value = allocate(length, sizeof(*p->value));
    for (uint32_t i = 0; i < layout->count; i++) {
        p->count[i] = (uint32_t)m->rooms.n[i];
        p->begin[i] = m->rooms.at[i];
    }
    if (m->index != NULL) {
        p->index = allocate(length, sizeof(*p->index));
        device_download(dev, p->index, m->index + sender * length, length * 4);
        device_download(dev, p->count, m->count + (size_t)sender * layout->count,
                        layout->count * sizeof(*p->count));
    }
    if (p->form.kind == CODE_FLOAT)
        device_download(dev, p->value, m->values.value + sender * m->values.stride, length * 4);
    else
        download_codes(p, m, dev, sender);
}

void packet_free(struct packet *p)
{
    free(p->count);
    free(p->begin);
    free(p->index);
    free(p->value);
    free(p->code);
    free(p->scalar_begin);
    free(p->scalar);
    *p = (struct packet){0};
}

/* Bytes that are only counted while at is NULL. */
struct writer {
    uint8_t *at;
    size_t size;
};

static void write_bits(struct writer *w, uint32_t value, unsigned bytes)
{
    for (unsigned i = 0; w->at != NULL && i < bytes; i++)
        w->at[w->size + i] = (uint8_t)(value >> 8 * i);
    w->size += bytes;
}

static void write_runs(struct writer *w, const uint32_t *index, const float *value, uint32_t count)
{
    uint32_t next = 0;

    for (uint32_t i = 0; i < count; i++) {
        uint32_t zeros = index[i] - next;
        uint32_t bits = float_bits(value[i]);

        for (; zeros > 65535; zeros -= 65536) {
            write_bits(w, 65535, 2);
            write_bits(w, 0, 4);
        }
        write_bits(w, zeros, 2);
        /* A zero that would look like a filler goes as -0. */
        write_bits(w, zeros == 65535 && bits == 0 ? 0x80000000u : bits, 4);
        next = index[i] + 1;
    }
}

static void write_codes(struct writer *w, const struct packet *p, uint32_t t)
{
    uint32_t scalars = code_scalars(&p->form, p->count[t]);
    uint32_t byte = 0;
    unsigned bits = 0;

    for (uint32_t i = 0; i < scalars; i++)
        write_bits(w, float_bits(p->scalar[p->scalar_begin[t] + i]), 4);
    for (uint32_t i = 0; i < p->count[t]; i++) {
        byte |= p->code[p->begin[t] + i] << bits;
        for (bits += p->form.bits; bits >= 8; bits -= 8) {
            write_bits(w, byte, 1);
            byte >>= 8;
        }
    }
    if (bits > 0)
        write_bits(w, byte, 1);
}

static void write_packet(struct writer *w, const struct packet *p, enum encoding encoding)
{
    for (uint32_t t = 0; t < p->tensors; t++) {
        const float *value = p->value + p->begin[t];
        bool whole = p->count[t] == p->n[t] || p->agreed;

        if (p->counted)
            write_bits(w, p->count[t], 4);
        if (!whole && encoding == ENCODING_RUNS16) {
            write_runs(w, p->index + p->begin[t], value, p->count[t]);
            continue;
        }
        for (uint32_t i = 0; i < p->count[t] && !whole; i++)
            write_bits(w, p->index[p->begin[t] + i], 4);
        if (p->code != NULL)
            write_codes(w, p, t);
        for (uint32_t i = 0; i < p->count[t] && p->code == NULL && !p->bare; i++)
            write_bits(w, float_bits(value[i]), 4);
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
    size_t size, place;
};

static bool read_bits(struct reader *r, uint32_t *value, unsigned bytes)
{
    *value = 0;
    if (r->size - r->place < bytes)
        return false;
    for (unsigned i = 0; i < bytes; i++)
        *value |= (uint32_t)r->at[r->place++] << 8 * i;
    return true;
}

static bool read_runs(struct reader *r, uint32_t n, uint32_t count, uint32_t *index, float *value)
{
    uint64_t next = 0;

    for (uint32_t i = 0; i < count;) {
        uint32_t zeros, bits;

        if (!read_bits(r, &zeros, 2) || !read_bits(r, &bits, 4) || next + zeros >= n)
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

static bool read_indices(struct reader *r, uint32_t n, uint32_t count, uint32_t *index)
{
    for (uint32_t i = 0; i < count; i++)
        if (!read_bits(r, &index[i], 4) || index[i] >= n || (i > 0 && index[i] <= index[i - 1]))
            return false;
    return true;
}

/* A code that no value has. */
static bool is_code(const struct code_form *form, uint32_t code)
{
    uint32_t level = code & ((1u << (form->bits - 1)) - 1);

    return form->kind != CODE_LEVEL || (level <= form->levels && (level > 0 || code == 0));
}

/* scalar_begin[t] is known, for counts are. */
static bool read_codes(struct reader *r, struct packet *p, uint32_t t)
{
    uint32_t scalars = code_scalars(&p->form, p->count[t]);
    uint32_t mask = (1u << p->form.bits) - 1;
    uint32_t bits = 0;
    unsigned have = 0;

    for (uint32_t i = 0; i < scalars; i++) {
        uint32_t word;

        if (!read_bits(r, &word, 4))
            return false;
        p->scalar[p->scalar_begin[t] + i] = bits_float(word);
    }
    for (uint32_t i = 0; i < p->count[t]; i++) {
        for (; have < p->form.bits; have += 8) {
            uint32_t byte;

            if (!read_bits(r, &byte, 1))
                return false;
            bits |= byte << have;
        }
        p->code[p->begin[t] + i] = bits & mask;
        if (!is_code(&p->form, bits & mask))
            return false;
        bits >>= p->form.bits;
        have -= p->form.bits;
    }
    decode_values(p, t);
    return bits == 0;
}

static bool read_floats(struct reader *r, uint32_t count, float *value)
{
    for (uint32_t i = 0; i < count; i++) {
        uint32_t bits;

        if (!read_bits(r, &bits, 4))
            return false;
        value[i] = bits_float(bits);
    }
    return true;
}

/* What is told of it must be what the room is for: the caller has it from there, too. */
static bool read_count(struct reader *r, const struct packet *p, uint32_t t)
{
    uint32_t count;

    return !p->counted || (read_bits(r, &count, 4) && count == p->count[t]);
}

static bool read_tensor(struct reader *r, struct packet *p, uint32_t t, enum encoding encoding)
{
    uint32_t n = (uint32_t)p->n[t];
    uint32_t count = p->count[t];
    float *value = p->value + p->begin[t];
    uint32_t *index = p->index != NULL ? p->index + p->begin[t] : NULL;

    CHECK(count <= n && (count == n || index != NULL));
    if (!read_count(r, p, t))
        return false;
    if (count < n && !p->agreed && encoding == ENCODING_RUNS16)
        return read_runs(r, n, count, index, value);
    if (count < n && !p->agreed && !read_indices(r, n, count, index))
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
    struct reader r = {bytes, size, 0};

    CHECK(bytes != NULL);
    for (uint32_t t = 0; t < p->tensors; t++)
        if (!read_tensor(&r, p, t, encoding))
            return fail(err, "a message of %zu bytes is wrong at byte %zu, in tensor %u", size,
                        r.place, t);
    if (r.place != size)
        return fail(err, "a message of %zu bytes ends at byte %zu", size, r.place);
    return true;
}

static bool same_tensor(const struct packet *a, const struct packet *b, uint32_t t)
{
    size_t at = a->begin[t];

    for (uint32_t i = 0; i < a->count[t] && !a->bare; i++)
        if (a->value[at + i] != b->value[at + i] &&
            (a->value[at + i] == a->value[at + i] || b->value[at + i] == b->value[at + i]))
            return false;
    return a->index == NULL ||
           memcmp(a->index + at, b->index + at, a->count[t] * sizeof(*a->index)) == 0;
}

static bool verify_sender(const struct message *m, const struct layout *layout,
                          enum encoding encoding, uint32_t sender, uint64_t counted,
                          struct error *err)
{
    struct packet sent, got;
    uint8_t *bytes;
    size_t size;
    bool ok;

    packet_download(&sent, m, layout, sender);
    packet_download(&got, m, layout, sender);
    for (uint32_t t = 0; t < got.tensors; t++) {
        memset(got.value + got.begin[t], 0, got.count[t] * sizeof(*got.value));
        if (got.index != NULL && !got.agreed)
            memset(got.index + got.begin[t], 0, got.count[t] * sizeof(*got.index));
        if (got.code != NULL)
            memset(got.code + got.begin[t], 0xff, got.count[t] * sizeof(*got.code));
    }
    size = packet_pack(&sent, encoding, &bytes);
    ok = size == counted ||
         fail(err, "a message of %zu bytes was counted as %llu", size, (unsigned long long)counted);
    ok = ok && packet_unpack(&got, encoding, bytes, size, err);
    for (uint32_t t = 0; ok && t < sent.tensors; t++)
        if (!same_tensor(&sent, &got, t))
            ok = fail(err, "tensor %u of a message is another after unpacking", t);
    free(bytes);
    packet_free(&sent);
    packet_free(&got);
    return ok;
}

bool message_verify(const struct message *m, const struct layout *layout, enum encoding encoding,
                    struct error *err)
{
    struct device *dev = layout->dev;
    size_t totals = layout->count * sizeof(struct traffic);
    size_t size = totals + m->senders * sizeof(uint64_t);
    uint64_t *counts = allocate(size, 1);
    struct traffic *on_device = device_alloc(dev, size);
    bool ok = true;

    message_weigh(m, layout, encoding, on_device, (uint64_t *)(void *)(on_device + layout->count));
    device_download(dev, counts, on_device, size);
    for (uint32_t s = 0; ok && s < m->senders; s++)
        ok = verify_sender(m, layout, encoding, s, counts[totals / sizeof(*counts) + s], err);
    device_free(dev, on_device, size);
    free(counts);
    return ok;
}

#endif

#include "sim/kernel.h"

struct wire_weigh {
    const uint32_t *count; /* [senders][tensors]; NULL: all */
    const uint32_t *n;     /* [tensors] */
    uint32_t tensors;
    uint32_t entry; /* bytes of an entry where not all are sent */
    uint64_t *entries, *bytes;
    uint64_t *each; /* [senders] bytes, or NULL */
};

ROW_KERNEL(wire_weigh)
{
    uint32_t n = a->n[column];
    uint32_t count = a->count ? a->count[row * a->tensors + column] : n;
    uint64_t bytes = (uint64_t)count * (count == n ? 4 : a->entry);

    count_add(a->entries, count);
    count_add(a->bytes, bytes);
    if (a->each)
        count_add(&a->each[row], bytes);
}

struct wire_fillers {
    const uint32_t *index; /* [senders][stride of the rooms] */
    const uint32_t *count; /* [senders][tensors] */
    uint64_t *bytes, *each;
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
        count_add(a->bytes, 6 * (uint64_t)sum);
        if (a->each)
            count_add(&a->each[t->worker], 6 * (uint64_t)sum);
    }
}

#ifndef __CUDACC__

#include "sim/wire.h"

#include <stdlib.h>
#include <string.h>

unsigned message_entry_bytes(enum encoding encoding)
{
    return encoding == ENCODING_RUNS16 ? 6 : 8;
}

bool message_has_indices(const struct compressor *c)
{
    return c->part[0].kind == INDICES || c->part[1].kind == INDICES;
}

static size_t *rooms_of(const struct compressor *c, const struct call *call)
{
    size_t *room = allocate(call->layout->count, sizeof(*room));

    for (uint32_t i = 0; i < call->layout->count; i++)
        room[i] = c->part[0].room(call, i);
    return room;
}

size_t message_bytes_needed(const struct compressor *c, const struct call *call, uint32_t workers)
{
    size_t bytes = 0;

    for (uint32_t i = 0; i < call->layout->count && !c->part[0].whole; i++)
        bytes += (c->part[0].room(call, i) + TILE - 1) / TILE * TILE * 8;
    return workers * (bytes + 4 * (size_t)call->layout->count);
}

void message_create(struct message *m, const struct compressor *c, const struct call *call,
                    uint32_t workers)
{
    size_t *room = rooms_of(c, call);
    size_t entries;

    *m = (struct message){.senders = workers};
    layout_create(&m->rooms, call->dev, room, call->layout->count, 0);
    free(room);
    m->stride = m->rooms.length;
    entries = workers * m->rooms.length * 4;
    if (message_has_indices(c)) {
        m->index = device_alloc(call->dev, entries);
        m->value = m->own_value = device_alloc(call->dev, entries);
        m->count = device_alloc(call->dev, (size_t)workers * call->layout->count * 4);
    }
}

void message_destroy(struct message *m, struct device *dev, uint32_t workers)
{
    size_t entries = workers * m->rooms.length * 4;

    device_free(dev, m->index, entries);
    device_free(dev, m->own_value, entries);
    device_free(dev, m->count, (size_t)workers * m->rooms.count * 4);
    layout_destroy(&m->rooms);
    *m = (struct message){0};
}

void message_weigh(const struct message *m, const struct layout *layout, enum encoding encoding,
                   struct traffic *total, uint64_t *each)
{
    LAUNCH_ROWS(layout->dev, wire_weigh, m->senders, layout->count, .count = m->count,
                .n = layout->n_dev, .tensors = layout->count,
                .entry = message_entry_bytes(encoding), .entries = &total->entries,
                .bytes = &total->bytes, .each = each);
    if (encoding == ENCODING_RUNS16 && m->index != NULL)
        LAUNCH_TILES(layout->dev, wire_fillers, &m->rooms.tiles, m->senders, .index = m->index,
                     .count = m->count, .bytes = &total->bytes, .each = each);
}

void packet_download(struct packet *p, const struct message *m, const struct layout *layout,
                     uint32_t sender)
{
    struct device *dev = layout->dev;
    size_t length = m->index != NULL ? m->rooms.length : layout->length;

    *p = (struct packet){.tensors = layout->count, .n = layout->n};
    p->count = allocate(layout->count, sizeof(*p->count));
    p->begin = allocate(layout->count, sizeof(*p->begin));
    p->value = allocate(length, sizeof(*p->value));
    for (uint32_t i = 0; i < layout->count; i++) {
        p->count[i] = (uint32_t)layout->n[i];
        p->begin[i] = m->index != NULL ? m->rooms.at[i] : layout->at[i];
    }
    device_download(dev, p->value, m->value + sender * m->stride, length * 4);
    if (m->index == NULL)
        return;
    p->index = allocate(length, sizeof(*p->index));
    device_download(dev, p->index, m->index + sender * m->rooms.length, length * 4);
    device_download(dev, p->count, m->count + (size_t)sender * layout->count,
                    layout->count * sizeof(*p->count));
}

void packet_free(struct packet *p)
{
    free(p->count);
    free(p->begin);
    free(p->index);
    free(p->value);
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

static void write_packet(struct writer *w, const struct packet *p, enum encoding encoding)
{
    for (uint32_t t = 0; t < p->tensors; t++) {
        const float *value = p->value + p->begin[t];
        bool whole = p->count[t] == p->n[t];

        if (!whole && encoding == ENCODING_RUNS16) {
            write_runs(w, p->index + p->begin[t], value, p->count[t]);
            continue;
        }
        for (uint32_t i = 0; i < p->count[t] && !whole; i++)
            write_bits(w, p->index[p->begin[t] + i], 4);
        for (uint32_t i = 0; i < p->count[t]; i++)
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

static bool read_tensor(struct reader *r, struct packet *p, uint32_t t, enum encoding encoding)
{
    uint32_t n = (uint32_t)p->n[t];
    uint32_t count = p->count[t];
    float *value = p->value + p->begin[t];
    uint32_t *index = p->index != NULL ? p->index + p->begin[t] : NULL;

    CHECK(count <= n && (count == n || index != NULL));
    if (count < n && encoding == ENCODING_RUNS16)
        return read_runs(r, n, count, index, value);
    if (count < n && !read_indices(r, n, count, index))
        return false;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t bits;

        if (!read_bits(r, &bits, 4))
            return false;
        value[i] = bits_float(bits);
        if (count == n && index != NULL)
            index[i] = i;
    }
    return true;
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

    for (uint32_t i = 0; i < a->count[t]; i++)
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
        if (got.index != NULL)
            memset(got.index + got.begin[t], 0, got.count[t] * sizeof(*got.index));
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
    size_t size = sizeof(struct traffic) + m->senders * sizeof(uint64_t);
    uint64_t *counts = allocate(size, 1);
    struct traffic *on_device = device_alloc(dev, size);
    bool ok = true;

    message_weigh(m, layout, encoding, on_device, (uint64_t *)(void *)(on_device + 1));
    device_download(dev, counts, on_device, size);
    for (uint32_t s = 0; ok && s < m->senders; s++)
        ok = verify_sender(m, layout, encoding, s, counts[sizeof(struct traffic) / 8 + s], err);
    device_free(dev, on_device, size);
    free(counts);
    return ok;
}

#endif

#include "sim/wire.h"

#include <stdlib.h>
#include <string.h>

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
        bytes.count = 4 * (size_t)tensors;
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

struct traffic traffic_sum(const struct traffic *traffic, uint32_t tensors)
{
    struct traffic sum = {0};

    for (uint32_t t = 0; t < tensors; t++) {
        sum.entries += traffic[t].entries;
        sum.bytes += traffic[t].bytes;
    }
    return sum;
}

/* The scalar that goes with an entry; 1 where there is none. */
static float scalar_of(const struct packet *p, uint32_t t, uint32_t entry)
{
    uint32_t bucket = p->form.bucket == 0 ? 0 : entry / (p->form.bucket * TILE);

    return p->form.scaled ? p->scalar[p->scalar_begin[t] + bucket] : 1;
}

void packet_decode(struct packet *p, uint32_t t)
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
    uint32_t *packed = allocate(words, sizeof(*packed));
    float *scalar = allocate(tiles, sizeof(*scalar));
    size_t scalars = 0;

    p->code = allocate(length, sizeof(*p->code));
    p->scalar = allocate(tiles, sizeof(*p->scalar));
    p->scalar_begin = allocate(p->tensors, sizeof(*p->scalar_begin));
    device_download(dev, packed, m->own_code + sender * words, words * sizeof(*packed));
    device_download(dev, scalar, m->own_scalar + sender * tiles, tiles * sizeof(*scalar));
    for (size_t i = 0; i < length && !p->bare; i++)
        p->code[i] = code_at(packed, i, p->form.bits);
    for (uint32_t t = 0; t < p->tensors; t++) {
        p->scalar_begin[t] = scalars;
        for (uint32_t i = 0; i < code_scalars(&p->form, p->count[t]); i++)
            p->scalar[scalars++] = scalar[p->begin[t] / TILE + (size_t)i * p->form.bucket];
        packet_decode(p, t);
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

/*
 * fuzz_wire.c -- the bytes of a message that a stranger wrote, and entries that we send.
 *
 * The input begins with what a receiver knows: a byte of bits (the encoding's lowest; one more
 * tensor; one more; whether the entries are ours; the encoding's other two; whether bytes of the
 * form follow), those bytes, then for each tensor the number of its elements in 4 bytes (ours: in
 * 3, for fillers take time) and of its entries in 2.  Then comes the message; or for each entry of
 * ours the gap before it in 3 bytes and its value in 4, then all scalars.
 *
 * The form: a byte of bits (3 of what stands for a value; 2 of a level's width; counted; agreed;
 * a scalar for each tile), and of levels how many there are in 2.
 */
#include "tests/fuzz/fuzz.h"

#include "sim/wire.h"

#include <stdlib.h>
#include <string.h>

#define TENSORS_MOST 3
#define ENTRIES_MOST 1024

enum { OURS = 8, FORMED = 64 };                              /* of the first byte */
enum { WIDTH = 24, COUNTED = 32, AGREED = 64, PARTS = 128 }; /* of the form's */

struct input {
    const uint8_t *data;
    size_t size;
};

/* What is not there is 0. */
static uint32_t take(struct input *in, unsigned bytes)
{
    uint32_t value = 0;

    for (unsigned i = 0; i < bytes && in->size > 0; i++) {
        value |= (uint32_t)*in->data++ << 8 * i;
        in->size--;
    }
    return value;
}

/* What a receiver knows beside the numbers. */
struct known {
    enum encoding encoding;
    bool counted, agreed, bare;
    struct code_form form;
};

static struct code_form take_form(struct input *in, uint32_t bits)
{
    struct code_form form = {.kind = CODE_FLOAT, .bits = 32};
    uint32_t most;

    switch (bits & 7) {
    case 1:
    case 2:
        form = (struct code_form){CODE_SIGN, .bits = 1, .scaled = (bits & 7) == 1};
        break;
    case 3:
        form = (struct code_form){CODE_LEVEL, .bits = 2u << ((bits & WIDTH) >> 3), .scaled = 1};
        most = (1u << (form.bits - 1)) - 1;
        form.levels = 1 + take(in, 2) % most;
        break;
    case 7:
        form = (struct code_form){CODE_POWER, .bits = 9, .levels = 255, .bias = 127};
        if (bits & WIDTH)
            form = (struct code_form){CODE_POWER, .bits = 8, .levels = 127, .bias = 109};
        break;
    case 4:
        form = (struct code_form){CODE_HALF, .bits = 16};
        break;
    case 5:
        form = (struct code_form){CODE_BFLOAT, .bits = 16};
        break;
    case 6: /* bare */
        form.bits = 0;
    }
    if (form.scaled && bits & PARTS)
        form.bucket = 1;
    return form;
}

/* runs16 is for floats alone: a regime is refused that wants others in it. */
static struct known take_known(struct input *in, uint32_t first)
{
    uint32_t bits = first & FORMED ? take(in, 1) : 0;
    struct known known = {.encoding = (first & 1) | (first >> 4 & 3) << 1,
                          .counted = bits & COUNTED,
                          .agreed = bits & AGREED,
                          .form = take_form(in, bits)};

    known.bare = known.form.bits == 0;
    if (known.encoding == ENCODING_RUNS16 && known.form.bits != 32)
        known.encoding = ENCODING_RAW;
    return known;
}

/* A packet with room for just its counts. */
static void begin(struct packet *p, const struct known *known, const size_t *n,
                  const uint32_t *count, uint32_t tensors)
{
    bool whole = !known->bare;
    size_t entries = 0;
    size_t scalars = 0;

    *p = (struct packet){.tensors = tensors,
                         .n = n,
                         .counted = known->counted,
                         .agreed = known->agreed,
                         .bare = known->bare,
                         .form = known->form};
    p->count = allocate(tensors, sizeof(*p->count));
    p->begin = allocate(tensors, sizeof(*p->begin));
    p->scalar_begin = allocate(tensors, sizeof(*p->scalar_begin));
    for (uint32_t t = 0; t < tensors; t++) {
        p->count[t] = count[t];
        p->begin[t] = entries;
        p->scalar_begin[t] = scalars;
        entries += count[t];
        scalars += code_scalars(&known->form, count[t]);
        whole = whole && count[t] == n[t];
    }
    p->value = allocate(entries, sizeof(*p->value));
    if (!whole)
        p->index = allocate(entries, sizeof(*p->index));
    if (known->form.kind != CODE_FLOAT) {
        p->code = allocate(entries, sizeof(*p->code));
        p->scalar = allocate(scalars, sizeof(*p->scalar));
    }
}

/* What a receiver of agreed entries has from elsewhere. */
static void tell_agreed(struct packet *p, const struct packet *known)
{
    for (uint32_t t = 0; t < p->tensors && p->agreed && p->index != NULL; t++)
        for (size_t i = p->begin[t]; i < p->begin[t] + p->count[t]; i++)
            p->index[i] = known != NULL ? known->index[i] : (uint32_t)(i - p->begin[t]);
}

static void check_order(const struct packet *p)
{
    for (uint32_t t = 0; t < p->tensors && p->index != NULL; t++)
        for (size_t i = p->begin[t]; i < p->begin[t] + p->count[t]; i++) {
            CHECK(p->index[i] < p->n[t]);
            CHECK(i == p->begin[t] || p->index[i] > p->index[i - 1]);
        }
}

static void check_same_tensor(const struct packet *a, const struct packet *b, uint32_t t)
{
    for (uint32_t i = 0; a->code != NULL && i < code_scalars(&a->form, a->count[t]); i++)
        CHECK(float_bits(a->scalar[a->scalar_begin[t] + i]) ==
              float_bits(b->scalar[b->scalar_begin[t] + i]));
    for (size_t i = a->begin[t]; i < a->begin[t] + a->count[t]; i++) {
        CHECK(a->index == NULL || a->index[i] == b->index[i]);
        CHECK(a->code == NULL || a->code[i] == b->code[i]);
        CHECK(a->bare || a->value[i] == b->value[i] ||
              float_bits(a->value[i]) == float_bits(b->value[i]));
    }
}

/* The bytes say what p says to a receiver that knows as much. */
static void check_received(const struct packet *p, const struct known *known, const uint8_t *bytes,
                           size_t size)
{
    struct packet back;
    struct error err = {""};

    begin(&back, known, p->n, p->count, p->tensors);
    tell_agreed(&back, p);
    CHECK(packet_unpack(&back, known->encoding, bytes, size, &err));
    for (uint32_t t = 0; t < p->tensors; t++)
        check_same_tensor(p, &back, t);
    packet_free(&back);
}

/* There is one way to say a thing, what was taken is what we would send; but a parameter of rice,
 * or an encoding, that is not the best is no lie.  The best is never longer. */
static void check_stranger(struct packet *p, const struct known *known, const struct input *in)
{
    bool chooses = known->encoding == ENCODING_RICE || known->encoding == ENCODING_BEST;
    struct error err = {""};
    uint8_t *bytes;
    size_t size;

    tell_agreed(p, NULL);
    if (!packet_unpack(p, known->encoding, in->data, in->size, &err)) {
        CHECK(err.text[0] != '\0');
        return;
    }
    check_order(p);
    size = packet_pack(p, known->encoding, &bytes);
    CHECK(size == in->size || (chooses && size < in->size));
    if (chooses)
        check_received(p, known, bytes, size);
    else
        CHECK(memcmp(bytes, in->data, in->size) == 0);
    free(bytes);
}

/* A code that a value has: of a level the sign, and below it no more than there are; of 0 no sign. */
static uint32_t code_of(const struct code_form *form, uint32_t any)
{
    uint32_t sign = 1u << (form->bits - 1);
    uint32_t level;

    any &= (1u << form->bits) - 1;
    if (form->levels == 0)
        return any;
    level = (any & (sign - 1)) % (form->levels + 1);
    return level > 0 ? level | (any & sign) : 0;
}

/* Rising, and with room for those that follow. */
static void fill(struct packet *p, struct input *in)
{
    for (uint32_t t = 0; t < p->tensors; t++) {
        size_t next = 0;

        for (uint32_t i = 0; i < p->count[t]; i++) {
            size_t spare = p->n[t] - next - (p->count[t] - i);
            size_t gap = take(in, 3);
            uint32_t bits = take(in, 4);

            next += gap < spare ? gap : spare;
            if (p->index != NULL)
                p->index[p->begin[t] + i] = (uint32_t)next;
            next++;
            p->value[p->begin[t] + i] = bits_float(bits);
            if (p->code != NULL)
                p->code[p->begin[t] + i] = code_of(&p->form, bits);
        }
    }
    for (uint32_t t = 0; t < p->tensors && p->code != NULL; t++) {
        for (uint32_t i = 0; i < code_scalars(&p->form, p->count[t]); i++)
            p->scalar[p->scalar_begin[t] + i] = bits_float(take(in, 4));
        packet_decode(p, t);
    }
}

static struct device *cpu(void)
{
    static struct device dev;
    struct error err;

    if (dev.ops == NULL)
        CHECK(device_open(&dev, "cpu", 1, &err));
    device_scratch_reset(&dev);
    return &dev;
}

static void *on_device(struct device *dev, const void *from, size_t bytes)
{
    void *to = device_alloc(dev, bytes);

    device_upload(dev, to, from, bytes);
    return to;
}

/* What a device counts, which has of a packet's values just the form. */
static size_t weighed(const struct packet *p, enum encoding encoding)
{
    struct device *dev = cpu();
    size_t n[TENSORS_MOST];
    uint32_t elements[TENSORS_MOST];
    size_t each = p->tensors * sizeof(uint32_t);
    size_t totals = p->tensors * sizeof(struct traffic);
    struct message m = {
        .senders = 1, .values.form = p->form, .counted = p->counted, .agreed = p->agreed};
    struct layout layout = {.dev = dev, .count = p->tensors};
    struct traffic total[TENSORS_MOST];

    for (uint32_t t = 0; t < p->tensors; t++) {
        n[t] = p->count[t];
        elements[t] = (uint32_t)p->n[t];
    }
    layout_create(&m.rooms, dev, n, p->tensors, 0);
    layout.n_dev = on_device(dev, elements, each);
    if (p->index != NULL) {
        m.count = on_device(dev, p->count, each);
        m.index = device_alloc(dev, m.rooms.length * sizeof(*m.index));
        for (uint32_t t = 0; t < p->tensors; t++)
            device_upload(dev, m.index + m.rooms.at[t], p->index + p->begin[t],
                          p->count[t] * sizeof(*m.index));
    }
    struct traffic *traffic = device_alloc(dev, totals);
    message_weigh(&m, &layout, encoding, traffic, NULL);
    device_download(dev, total, traffic, totals);
    device_free(dev, traffic, totals);
    device_free(dev, m.index, m.index != NULL ? m.rooms.length * sizeof(*m.index) : 0);
    device_free(dev, m.count, m.count != NULL ? each : 0);
    device_free(dev, layout.n_dev, each);
    layout_destroy(&m.rooms);
    return traffic_sum(total, p->tensors).bytes;
}

static void check_ours(struct packet *p, const struct known *known, struct input *in)
{
    uint8_t *bytes;
    size_t size;

    fill(p, in);
    size = packet_pack(p, known->encoding, &bytes);
    CHECK(size == weighed(p, known->encoding));
    check_received(p, known, bytes, size);
    free(bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = {data, size};
    uint32_t bits = take(&in, 1);
    struct known known = take_known(&in, bits);
    uint32_t tensors = 1 + (bits >> 1 & 1) + (bits >> 2 & 1);
    size_t n[TENSORS_MOST];
    uint32_t count[TENSORS_MOST];
    struct packet p;

    for (uint32_t t = 0; t < tensors; t++) {
        n[t] = take(&in, bits & OURS ? 3 : 4);
        count[t] = take(&in, 2) % (ENTRIES_MOST + 1);
        if (count[t] > n[t])
            count[t] = (uint32_t)n[t];
    }
    begin(&p, &known, n, count, tensors);
    if (bits & OURS)
        check_ours(&p, &known, &in);
    else
        check_stranger(&p, &known, &in);
    packet_free(&p);
    return 0;
}

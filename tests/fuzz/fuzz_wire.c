/*
 * fuzz_wire.c -- the bytes of a message that a stranger wrote, and entries that we send.
 *
 * The input begins with what a receiver knows: a byte of bits (runs16; one more tensor; one more;
 * whether the entries are ours), then for each tensor the number of its elements in 4 bytes (ours:
 * in 3, for fillers take time) and of its entries in 2.  Then comes the message; or for each entry
 * of ours the gap before it in 3 bytes and its value in 4.
 */
#include "tests/fuzz/fuzz.h"

#include "sim/wire.h"

#include <stdlib.h>
#include <string.h>

#define TENSORS_MOST 3
#define OURS         8
#define ENTRIES_MOST 1024

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

/* A packet with room for just its counts. */
static void begin(struct packet *p, const size_t *n, const uint32_t *count, uint32_t tensors)
{
    bool whole = true;
    size_t entries = 0;

    *p = (struct packet){.tensors = tensors, .n = n};
    p->count = allocate(tensors, sizeof(*p->count));
    p->begin = allocate(tensors, sizeof(*p->begin));
    for (uint32_t t = 0; t < tensors; t++) {
        p->count[t] = count[t];
        p->begin[t] = entries;
        entries += count[t];
        whole = whole && count[t] == n[t];
    }
    p->value = allocate(entries, sizeof(*p->value));
    if (!whole)
        p->index = allocate(entries, sizeof(*p->index));
}

static void check_order(const struct packet *p)
{
    for (uint32_t t = 0; t < p->tensors && p->index != NULL; t++)
        for (size_t i = p->begin[t]; i < p->begin[t] + p->count[t]; i++) {
            CHECK(p->index[i] < p->n[t]);
            CHECK(i == p->begin[t] || p->index[i] > p->index[i - 1]);
        }
}

/* There is one way to say a thing: what was taken is what we would send. */
static void check_stranger(struct packet *p, enum encoding encoding, const struct input *in)
{
    struct error err = {""};
    uint8_t *bytes;

    if (!packet_unpack(p, encoding, in->data, in->size, &err)) {
        CHECK(err.text[0] != '\0');
        return;
    }
    check_order(p);
    CHECK(packet_pack(p, encoding, &bytes) == in->size);
    CHECK(memcmp(bytes, in->data, in->size) == 0);
    free(bytes);
}

/* Rising, and with room for those that follow. */
static void fill(struct packet *p, struct input *in)
{
    for (uint32_t t = 0; t < p->tensors; t++) {
        size_t next = 0;

        for (uint32_t i = 0; i < p->count[t]; i++) {
            size_t spare = p->n[t] - next - (p->count[t] - i);
            size_t gap = take(in, 3);

            next += gap < spare ? gap : spare;
            if (p->index != NULL)
                p->index[p->begin[t] + i] = (uint32_t)next;
            next++;
            p->value[p->begin[t] + i] = bits_float(take(in, 4));
        }
    }
}

static void check_ours(struct packet *p, enum encoding encoding, struct input *in)
{
    struct packet back;
    struct error err = {""};
    uint8_t *bytes;
    size_t size;

    fill(p, in);
    begin(&back, p->n, p->count, p->tensors);
    size = packet_pack(p, encoding, &bytes);
    CHECK(packet_unpack(&back, encoding, bytes, size, &err));
    for (uint32_t t = 0; t < p->tensors; t++)
        for (size_t i = p->begin[t]; i < p->begin[t] + p->count[t]; i++) {
            CHECK(p->index == NULL || p->index[i] == back.index[i]);
            CHECK(p->value[i] == back.value[i] ||
                  float_bits(p->value[i]) == float_bits(back.value[i]));
        }
    free(bytes);
    packet_free(&back);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = {data, size};
    uint32_t bits = take(&in, 1);
    enum encoding encoding = bits & 1 ? ENCODING_RUNS16 : ENCODING_RAW;
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
    begin(&p, n, count, tensors);
    if (bits & OURS)
        check_ours(&p, encoding, &in);
    else
        check_stranger(&p, encoding, &in);
    packet_free(&p);
    return 0;
}

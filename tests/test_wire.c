/*
 * test_wire -- the bytes of messages: what they are, what they weigh, and what is refused.
 */
#include "tests/lab.h"

#include "compressors/sparse.h"
#include "sim/account.h"
#include "sim/exchange.h"
#include "sim/rng.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *device;

/* A packet with room for just its counts, all zero. */
static struct packet packet_of(uint32_t tensors, const size_t *n, const uint32_t *count)
{
    struct packet p = {.tensors = tensors, .n = n};
    size_t entries = 0;

    p.count = allocate(tensors, sizeof(*p.count));
    p.begin = allocate(tensors, sizeof(*p.begin));
    for (uint32_t t = 0; t < tensors; t++) {
        p.count[t] = count[t];
        p.begin[t] = entries;
        entries += count[t];
    }
    p.index = allocate(entries, sizeof(*p.index));
    p.value = allocate(entries, sizeof(*p.value));
    return p;
}

/* One tensor of n elements with the given entries. */
static struct packet one_tensor(const size_t *n, uint32_t count, const uint32_t *index,
                                const float *value)
{
    struct packet p = packet_of(1, n, &count);

    memcpy(p.index, index, count * sizeof(*index));
    memcpy(p.value, value, count * sizeof(*value));
    return p;
}

/* Room for what p says, as a receiver has it. */
static struct packet room_for(const struct packet *p)
{
    struct packet q = packet_of(p->tensors, p->n, p->count);

    q.counted = p->counted;
    return q;
}

static size_t packed_size(const struct packet *p, enum encoding encoding)
{
    uint8_t *bytes;
    size_t size = packet_pack(p, encoding, &bytes);

    free(bytes);
    return size;
}

/* There and back in every encoding. */
static void require_round_trip(const struct packet *p)
{
    for (int encoding = 0; encoding < ENCODINGS; encoding++) {
        struct packet q = room_for(p);
        uint8_t *bytes;
        size_t size = packet_pack(p, encoding, &bytes);
        struct error err;
        size_t entries = 0;

        assert_true(packet_unpack(&q, encoding, bytes, size, &err));
        for (uint32_t t = 0; t < p->tensors; t++)
            entries += p->count[t];
        for (size_t i = 0; i < entries; i++) {
            assert_int_equal(q.index[i], p->index[i]);
            assert_true(q.value[i] == p->value[i]);
        }
        free(bytes);
        packet_free(&q);
    }
}

static void kept_entries_are_rounded_down_in_double(void **state)
{
    assert_int_equal(sparse_keep(10, .7), 7);
    assert_int_equal(sparse_keep(200, .015), 3);
    assert_int_equal(sparse_keep(700, .01), 7);
    assert_int_equal(sparse_keep(10000, 1e-4), 1);
    assert_int_equal(sparse_keep(100, .29), 28);
    assert_int_equal(sparse_keep(1, .001), 1);
    assert_int_equal(sparse_keep(999, .001), 1);
    assert_int_equal(sparse_keep(1234567, 1), 1234567);
}

/* A tensor of which the entries 3 and 9 of 10 go, then a whole one. */
static void the_format_is_as_told(void **state)
{
    const size_t n[] = {10, 2};
    const uint32_t count[] = {2, 2};
    const uint8_t values[] = {0, 0, 0x80, 0x3f, 0, 0, 0x20, 0xc0};
    const uint8_t whole[] = {0, 0, 0, 0x40, 0, 0, 0x40, 0x40};
    /* Zeros before them: 3 and 5, gaps: 4 and 6. */
    const struct {
        enum encoding encoding;
        uint8_t index[8];
        size_t bytes;
    } told[] = {
        {ENCODING_RAW, {3, 0, 0, 0, 9, 0, 0, 0}, 8},
        {ENCODING_BITMAP, {0x08, 0x02}, 2},
        {ENCODING_VARINT, {3, 5}, 2},
        {ENCODING_GAMMA, {0x84, 0x02}, 2}, /* 00100 00101 */
        {ENCODING_DELTA, {0xc6, 0x02}, 2}, /* 01100 01101 */
        {ENCODING_RICE, {1, 0x66}, 2},     /* 011 0011: 7 bits, as with 2, but less than with 0 */
        {ENCODING_BEST, {ENCODING_BITMAP, 0x08, 0x02}, 3},
    };
    const uint8_t runs[] = {3,    0,    0, 0, 0x80, 0x3f, 5, 0, 0,    0,
                            0x20, 0xc0, 0, 0, 0,    0x40, 0, 0, 0x40, 0x40};
    struct packet p = packet_of(2, n, count);
    uint8_t *bytes;

    p.index[0] = 3;
    p.index[1] = 9;
    p.index[3] = 1;
    p.value[0] = 1;
    p.value[1] = -2.5f;
    p.value[2] = 2;
    p.value[3] = 3;
    for (size_t i = 0; i < ARRAY_LENGTH(told); i++) {
        size_t behind = told[i].bytes + sizeof(values);
        size_t best = told[i].encoding == ENCODING_BEST;

        assert_int_equal(packet_pack(&p, told[i].encoding, &bytes), behind + best + sizeof(whole));
        assert_memory_equal(bytes, told[i].index, told[i].bytes);
        assert_memory_equal(bytes + told[i].bytes, values, sizeof(values));
        assert_true(!best || bytes[behind] == ENCODING_RAW);
        assert_memory_equal(bytes + behind + best, whole, sizeof(whole));
        free(bytes);
    }
    assert_int_equal(packet_pack(&p, ENCODING_RUNS16, &bytes), sizeof(runs));
    assert_memory_equal(bytes, runs, sizeof(runs));
    free(bytes);
    require_round_trip(&p);
    packet_free(&p);
}

/* The bits of one entry's place of so many, the first on the left; spaces do not count. */
static void require_bits(enum encoding encoding, size_t n, uint32_t index, const char *bits)
{
    const float value = 1;
    struct packet p = one_tensor(&n, 1, &index, &value);
    uint8_t *bytes;
    size_t size = packet_pack(&p, encoding, &bytes);
    size_t at = 0;

    for (; *bits != '\0'; bits++) {
        if (*bits == ' ')
            continue;
        assert_int_equal(bytes[at / 8] >> at % 8 & 1, *bits == '1');
        at++;
    }
    assert_int_equal(size, (at + 7) / 8 + 4);
    for (; at % 8 > 0; at++)
        assert_int_equal(bytes[at / 8] >> at % 8 & 1, 0);
    free(bytes);
    packet_free(&p);
}

static void codes_of_places_are_as_told(void **state)
{
    require_bits(ENCODING_BITMAP, 9, 8, "00000000 1");
    require_bits(ENCODING_VARINT, 1000, 127, "1111111 0");
    require_bits(ENCODING_VARINT, 1000, 128, "0000000 1 1000000 0");
    require_bits(ENCODING_VARINT, 1000, 300, "0011010 1 0100000 0");
    require_bits(ENCODING_GAMMA, 1000, 0, "1");
    require_bits(ENCODING_GAMMA, 1000, 1, "01 0");
    require_bits(ENCODING_GAMMA, 1000, 2, "01 1");
    require_bits(ENCODING_GAMMA, 1000, 8, "0001 100"); /* 9 */
    require_bits(ENCODING_DELTA, 1000, 0, "1");
    require_bits(ENCODING_DELTA, 1000, 1, "01 0 0");
    require_bits(ENCODING_DELTA, 1000, 8, "001 00 100");           /* 9: 4 bits */
    require_bits(ENCODING_DELTA, 1000, 18, "001 10 1100");         /* 19: 5 bits */
    require_bits(ENCODING_DELTA, 1000, 511, "0001 010 000000000"); /* 512: 10 bits */
    require_bits(ENCODING_RICE, 1000, 0, "00000000 1");
    require_bits(ENCODING_RICE, 1000, 1, "00000000 01"); /* as long with the parameter 1 */
    require_bits(ENCODING_RICE, 1000, 2, "00000000 001");
    require_bits(ENCODING_RICE, 1000, 3, "10000000 01 1");
    require_bits(ENCODING_RICE, 1000, 300, "11100000 001 0011010");
}

static void whole_tensors_go_without_indices(void **state)
{
    const size_t n[] = {70000, 1, 3};
    const uint32_t count[] = {70000, 1, 2};
    struct packet p = packet_of(3, n, count);

    for (uint32_t i = 0; i < 70000; i++) {
        p.index[i] = i;
        p.value[i] = (float)i;
    }
    p.index[70002] = 2; /* of the third: 0 and 2 */
    p.value[70002] = -1;
    assert_int_equal(packed_size(&p, ENCODING_RAW), 4 * 70001 + 8 * 2);
    assert_int_equal(packed_size(&p, ENCODING_RUNS16), 4 * 70001 + 6 * 2);
    assert_int_equal(packed_size(&p, ENCODING_BITMAP), 4 * 70001 + 1 + 4 * 2);
    assert_int_equal(packed_size(&p, ENCODING_RICE), 4 * 70001 + 2 + 4 * 2);
    assert_int_equal(packed_size(&p, ENCODING_BEST), 4 * 70001 + 1 + 4 * 2 + 3);
    require_round_trip(&p);
    packet_free(&p);
}

/* Also of tensors that nothing is sent of. */
static void a_count_comes_first_where_the_data_say_it(void **state)
{
    const size_t n[] = {9, 20, 1};
    const uint32_t count[] = {0, 2, 1};
    const size_t places[ENCODINGS] = {8, 4, 2 + 3, 2, 2, 2, 1 + 1 + 2, 3 + 2};
    struct packet p = packet_of(3, n, count);

    p.counted = true;
    p.index[0] = 6;
    p.index[1] = 19;
    for (int encoding = 0; encoding < ENCODINGS; encoding++) {
        uint8_t *bytes;

        assert_int_equal(packet_pack(&p, encoding, &bytes), 12 + places[encoding] + 12);
        assert_memory_equal(bytes, &count[0], 4);
        free(bytes);
    }
    require_round_trip(&p);
    packet_free(&p);
}

/* A receiver has the indices from elsewhere. */
static void agreed_indices_are_not_sent(void **state)
{
    const size_t n = 1000;
    const uint32_t index[] = {5, 999};
    const float value[] = {1, 2};
    struct packet p = one_tensor(&n, 2, index, value);

    p.agreed = true;
    for (int encoding = 0; encoding < ENCODINGS; encoding++) {
        struct packet q = one_tensor(&n, 2, index, (const float[]){0, 0});
        uint8_t *bytes;
        size_t size = packet_pack(&p, encoding, &bytes);

        q.agreed = true;
        assert_int_equal(size, encoding == ENCODING_BEST ? 9 : 8);
        assert_true(packet_unpack(&q, encoding, bytes, size, &(struct error){""}));
        assert_memory_equal(q.value, value, sizeof(value));
        assert_memory_equal(q.index, index, sizeof(index));
        free(bytes);
        packet_free(&q);
    }
    packet_free(&p);
}

/* Two halves behind their places; runs16 is not for them. */
static void codes_follow_the_places(void **state)
{
    const size_t n = 10;
    const uint32_t index[] = {3, 9};
    const float value[] = {1, -2.5f};
    const uint8_t gamma[] = {0x84, 0x02, 0x00, 0x3c, 0x00, 0xc1};
    const uint8_t best[] = {ENCODING_BITMAP, 0x08, 0x02, 0x00, 0x3c, 0x00, 0xc1};
    const uint8_t runs[] = {ENCODING_RUNS16, 3, 0, 0, 0, 0x80, 0x3f, 5, 0, 0, 0, 0x20, 0xc0};
    struct packet p = one_tensor(&n, 2, index, value);
    struct error err;
    uint8_t *bytes;

    p.form = (struct code_form){.kind = CODE_HALF, .bits = 16};
    p.code = allocate(2, sizeof(*p.code));
    p.code[0] = float_half(value[0]);
    p.code[1] = float_half(value[1]);
    assert_int_equal(packet_pack(&p, ENCODING_GAMMA, &bytes), sizeof(gamma));
    assert_memory_equal(bytes, gamma, sizeof(gamma));
    free(bytes);
    assert_int_equal(packet_pack(&p, ENCODING_BEST, &bytes), sizeof(best));
    assert_memory_equal(bytes, best, sizeof(best));
    memset(p.value, 0, sizeof(value));
    assert_true(packet_unpack(&p, ENCODING_BEST, bytes, sizeof(best), &err));
    assert_memory_equal(p.value, value, sizeof(value));
    assert_false(packet_unpack(&p, ENCODING_BEST, runs, sizeof(runs), &err));
    free(bytes);
    packet_free(&p);
}

static void the_best_is_the_least_of_all(void **state)
{
    const size_t n = 4000;
    const uint32_t dense[] = {0, 1, 2, 3, 5, 6, 7, 8, 9, 10, 11, 12};
    const uint32_t spread[] = {100, 250, 320, 501, 620, 740, 790, 950, 1100, 1210, 1350, 1400};
    float value[12] = {0};
    struct packet p[] = {one_tensor(&n, 12, dense, value), one_tensor(&n, 12, spread, value)};
    const enum encoding best[] = {ENCODING_GAMMA, ENCODING_RICE};

    for (int i = 0; i < 2; i++) {
        size_t size = packed_size(&p[i], ENCODING_BEST);
        uint8_t *bytes, *chosen;

        for (int encoding = 0; encoding < ENCODING_BEST; encoding++)
            assert_true(size <= packed_size(&p[i], encoding) + 1);
        assert_int_equal(packet_pack(&p[i], ENCODING_BEST, &bytes), size);
        assert_int_equal(bytes[0], best[i]);
        assert_int_equal(packet_pack(&p[i], best[i], &chosen), size - 1);
        assert_memory_equal(bytes + 1, chosen, size - 1);
        free(bytes);
        free(chosen);
        require_round_trip(&p[i]);
        packet_free(&p[i]);
    }
}

/* The last of 2^32 - 1; a bitmap of half a gibibyte is left out. */
static void the_farthest_entry_can_be_told(void **state)
{
    const size_t n = UINT32_MAX;
    const uint32_t index = UINT32_MAX - 1;
    const float value = 1;
    const size_t bytes[] = {
        [ENCODING_VARINT] = 5, [ENCODING_GAMMA] = 8, [ENCODING_DELTA] = 6, [ENCODING_RICE] = 1 + 5};
    struct packet p = one_tensor(&n, 1, &index, &value);

    for (int encoding = ENCODING_VARINT; encoding <= ENCODING_RICE; encoding++) {
        struct packet q = room_for(&p);
        uint8_t *packed;
        size_t size = packet_pack(&p, encoding, &packed);

        assert_int_equal(size, bytes[encoding] + 4);
        assert_true(packet_unpack(&q, encoding, packed, size, &(struct error){""}));
        assert_int_equal(q.index[0], index);
        free(packed);
        packet_free(&q);
    }
    packet_free(&p);
}

static void longer_runs_have_fillers(void **state)
{
    const size_t n = 200000;
    const uint32_t ends[] = {0, 199999};
    const uint32_t edges[] = {65535, 131071, 196608}; /* runs of 65535, 65535 and 65536 */
    const uint32_t last[] = {199999};
    const float value[] = {1, -2, 3};
    struct packet p = one_tensor(&n, 2, ends, value);

    assert_int_equal(packed_size(&p, ENCODING_RUNS16), 30);
    assert_int_equal(packed_size(&p, ENCODING_RAW), 16);
    require_round_trip(&p);
    packet_free(&p);
    p = one_tensor(&n, 3, edges, value);
    assert_int_equal(packed_size(&p, ENCODING_RUNS16), 3 * 6 + 6);
    require_round_trip(&p);
    packet_free(&p);
    p = one_tensor(&n, 1, last, value);
    assert_int_equal(packed_size(&p, ENCODING_RUNS16), 6 + 3 * 6);
    require_round_trip(&p);
    packet_free(&p);
}

static void a_zero_behind_65535_zeros_is_no_filler(void **state)
{
    const size_t n = 300000;
    const uint32_t index[] = {65535, 131071, 131072, 262144};
    const float value[] = {0, -0.0f, 0, 0};
    struct packet p = one_tensor(&n, 4, index, value);

    assert_int_equal(packed_size(&p, ENCODING_RUNS16), 4 * 6 + 6);
    require_round_trip(&p);
    packet_free(&p);
}

/* A packet whose bytes have all kinds of things in them. */
static struct packet small_packet(void)
{
    static const size_t n[] = {5, 140000, 8, 1};
    static const uint32_t count[] = {5, 4, 3, 1};
    const uint32_t index[] = {0, 1, 2, 3, 4, 0, 70000, 70001, 139999, 1, 2, 7, 0};
    struct packet p = packet_of(4, n, count);

    memcpy(p.index, index, sizeof(index));
    for (size_t i = 0; i < ARRAY_LENGTH(index); i++)
        p.value[i] = (float)i - 6;
    return p;
}

static void every_truncation_and_addition_is_refused(void **state)
{
    struct packet p = small_packet();

    require_round_trip(&p);
    for (int encoding = 0; encoding < ENCODINGS; encoding++) {
        uint8_t *bytes;
        size_t size = packet_pack(&p, encoding, &bytes);

        for (size_t cut = 0; cut <= size + 8; cut++) {
            struct packet q = packet_of(p.tensors, p.n, p.count);
            uint8_t *copy = allocate(cut, 1); /* just so large, for the sanitizer */
            struct error err = {""};

            memcpy(copy, bytes, cut < size ? cut : size);
            assert_int_equal(packet_unpack(&q, encoding, copy, cut, &err), cut == size);
            assert_true(cut == size || strstr(err.text, "byte") != NULL);
            free(copy);
            packet_free(&q);
        }
        free(bytes);
    }
    packet_free(&p);
}

/* Three entries of ten, of which a message in words says what it likes. */
static bool takes(enum encoding encoding, const uint8_t *bytes, size_t size)
{
    const size_t n = 10;
    const uint32_t count = 3;
    struct packet q = packet_of(1, &n, &count);
    struct error err;
    bool ok = packet_unpack(&q, encoding, bytes, size, &err);

    packet_free(&q);
    return ok;
}

static bool takes_indices(uint32_t a, uint32_t b, uint32_t c)
{
    const uint32_t words[] = {a, b, c, 0, 0, 0};

    return takes(ENCODING_RAW, (const uint8_t *)words, sizeof(words));
}

static bool takes_runs(uint16_t a, uint16_t b, uint16_t c)
{
    const uint16_t halves[] = {a, 0, 0x3f80, b, 0, 0x3f80, c, 0, 0x3f80};

    return takes(ENCODING_RUNS16, (const uint8_t *)halves, sizeof(halves));
}

static void lies_are_refused(void **state)
{
    const uint16_t fillers[] = {65535, 0, 0, 65535, 0, 0, 65535, 0, 0};

    assert_true(takes_indices(0, 1, 9));
    assert_false(takes_indices(0, 1, 10));
    assert_false(takes_indices(0, 1, UINT32_MAX));
    assert_false(takes_indices(0, 1, 1));
    assert_false(takes_indices(0, 5, 4));
    assert_true(takes_runs(0, 0, 7));
    assert_false(takes_runs(0, 0, 8));
    assert_false(takes_runs(9, 0, 0));
    assert_false(takes_runs(65535, 0, 0));
    assert_false(takes(ENCODING_RUNS16, (const uint8_t *)fillers, sizeof(fillers)));
}

/* A message whose indices are these bytes, before three values. */
static bool takes_places(enum encoding encoding, const uint8_t *bytes, size_t size)
{
    uint8_t *copy = allocate(size + 12, 1);
    bool ok;

    memcpy(copy, bytes, size);
    ok = takes(encoding, copy, size + 12);
    free(copy);
    return ok;
}

#define TAKES(encoding, ...)                                          \
    takes_places(ENCODING_##encoding, (const uint8_t[]){__VA_ARGS__}, \
                 sizeof((const uint8_t[]){__VA_ARGS__}))

static void places_that_lie_are_refused(void **state)
{
    assert_true(TAKES(BITMAP, 0x07, 0));
    assert_true(TAKES(BITMAP, 0x03, 0x02));
    assert_false(TAKES(BITMAP, 0x0f, 0));
    assert_false(TAKES(BITMAP, 0x03, 0));
    assert_false(TAKES(BITMAP, 0x03, 0x04)); /* the eleventh of ten */
    assert_false(TAKES(BITMAP, 0x07, 0x80));
    assert_true(TAKES(VARINT, 0, 0, 7));
    assert_false(TAKES(VARINT, 0, 0, 8));
    assert_false(TAKES(VARINT, 9, 0, 0));
    assert_false(TAKES(VARINT, 0, 0, 0x87, 0));
    assert_false(TAKES(VARINT, 0x80, 0, 0, 0));
    assert_false(TAKES(VARINT, 0x80, 0x80, 0x80, 0x80, 0x10, 0, 0)); /* 2^32 */
    assert_false(TAKES(VARINT, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, 0, 0));
    assert_true(TAKES(GAMMA, 0x07));                          /* 1 1 1 */
    assert_true(TAKES(GAMMA, 0x23, 0));                       /* 1 1 0001000, a gap of 8 */
    assert_false(TAKES(GAMMA, 0x63, 0));                      /* 1 1 0001100, of 9 */
    assert_false(TAKES(GAMMA, 0x0f));                         /* 1 1 1 1 */
    assert_false(TAKES(GAMMA, 0x23, 0x80));                   /* something behind */
    assert_false(TAKES(GAMMA, 0, 0, 0, 0, 1, 0, 0, 0, 0x0c)); /* 32 bits below the highest */
    assert_true(TAKES(DELTA, 0x07));
    assert_true(TAKES(DELTA, 0x13, 0));  /* 1 1 00100 000 */
    assert_false(TAKES(DELTA, 0x93, 0)); /* 1 1 00100 100 */
    assert_false(TAKES(DELTA, 0x17, 0));
    assert_false(TAKES(DELTA, 0x60, 0, 0, 0, 0, 0x18)); /* 000001 10000, 32 zeros, 1 1 */
    assert_false(TAKES(DELTA, 0x80, 0, 0, 0, 0, 0, 0));
    assert_true(TAKES(RICE, 0, 0x07));
    assert_true(TAKES(RICE, 0, 0x03, 0x02));
    assert_false(TAKES(RICE, 0, 0x03, 0x04));
    assert_false(TAKES(RICE, 0, 0x0f));
    assert_true(TAKES(RICE, 3, 0x11, 0x0f));  /* 1 000 1 000 1 111 */
    assert_false(TAKES(RICE, 3, 0x11, 0x02)); /* 1 000 1 000 01 000 */
    assert_true(TAKES(RICE, 31, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0));
    assert_false(TAKES(RICE, 31, 1, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 0));
    assert_false(TAKES(RICE, 32, 1, 0, 0, 0, 2, 0, 0, 0, 4, 0, 0, 0, 0));
    assert_false(TAKES(RICE, 255, 0x07));
    assert_true(TAKES(BEST, ENCODING_BITMAP, 0x07, 0));
    assert_true(TAKES(BEST, ENCODING_RAW, 0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0));
    assert_true(TAKES(BEST, ENCODING_RICE, 0, 0x07));
    assert_false(TAKES(BEST, ENCODING_BEST, 0x07));
    assert_false(TAKES(BEST, ENCODING_BEST, ENCODING_BITMAP, 0x07, 0));
    assert_false(TAKES(BEST, 255, 0x07, 0));
}

/* Of a whole tensor the best names raw. */
static void a_whole_tensor_names_no_other_encoding(void **state)
{
    const size_t n = 1;
    const uint32_t count = 1;
    struct packet q = packet_of(1, &n, &count);
    uint8_t bytes[5] = {ENCODING_RAW};
    struct error err;

    assert_true(packet_unpack(&q, ENCODING_BEST, bytes, sizeof(bytes), &err));
    for (int encoding = 1; encoding <= ENCODINGS; encoding++) {
        bytes[0] = (uint8_t)encoding;
        assert_false(packet_unpack(&q, ENCODING_BEST, bytes, sizeof(bytes), &err));
    }
    packet_free(&q);
}

static uint32_t random_word(uint32_t trial, uint32_t use)
{
    return rng_block(11, RNG_TEST, trial, use, 0, 0).word[0];
}

/* Up to three tensors of up to 5000 entries, of which from none to all are sent. */
static void random_messages_come_back(void **state)
{
    for (uint32_t trial = 0; trial < 300; trial++) {
        uint32_t tensors = 1 + random_word(trial, 0) % 3;
        uint32_t index[3 * 5000];
        size_t n[3];
        uint32_t count[3] = {0};
        size_t entries = 0;
        struct packet p;

        for (uint32_t t = 0; t < tensors; t++) {
            uint32_t sparse = random_word(trial, 1 + t) % 12; /* one in 2^sparse */

            n[t] = 1 + random_word(trial, 4 + t) % 5000;
            for (uint32_t i = 0; i < n[t]; i++)
                if (sparse == 0 || random_word(trial, 7 + 5000 * t + i) >> (32 - sparse) == 0)
                    index[entries + count[t]++] = i;
            entries += count[t];
        }
        p = packet_of(tensors, n, count);
        p.counted = trial % 2 == 0;
        memcpy(p.index, index, entries * sizeof(*index));
        harness_floats(trial, p.value, entries);
        require_round_trip(&p);
        packet_free(&p);
    }
}

/* What was taken is at least in order. */
static void require_order(const struct packet *q)
{
    for (uint32_t t = 0; t < q->tensors; t++)
        for (size_t i = q->begin[t]; i < q->begin[t] + q->count[t]; i++)
            assert_true(q->index[i] < q->n[t] &&
                        (i == q->begin[t] || q->index[i] > q->index[i - 1]));
}

static void flipped_bytes_do_no_harm(void **state)
{
    struct packet p = small_packet();

    for (int encoding = 0; encoding < ENCODINGS; encoding++) {
        uint8_t *bytes;
        size_t size = packet_pack(&p, encoding, &bytes);

        for (uint32_t trial = 0; trial < 10000; trial++) {
            struct packet q = packet_of(p.tensors, p.n, p.count);
            uint8_t *copy = allocate(size, 1);
            struct error err;

            memcpy(copy, bytes, size);
            for (uint32_t flip = 0; flip <= trial % 4; flip++) {
                uint32_t word = random_word(trial, flip);

                copy[(word >> 8) % size] ^= (uint8_t)word;
            }
            if (packet_unpack(&q, encoding, copy, size, &err))
                require_order(&q);
            free(copy);
            packet_free(&q);
        }
        free(bytes);
    }
    packet_free(&p);
}

/* Through a compressor, on the device: a tensor of zeros but at the given places. */
static void check_far_entries(size_t n, const uint32_t *place, uint32_t count, size_t runs_bytes)
{
    const double ratio = (count + 0.5) / (double)n;
    float *x = allocate(n, sizeof(*x));
    struct lab lab;
    struct packet p;
    float *sum;

    for (uint32_t i = 0; i < count; i++)
        x[place[i]] = (float)i + 1;
    lab_open(&lab, &(struct lab_spec){device, compressor_find("topk"), memory_find("none"), &n, 1,
                                      1, ratio, NULL, NULL, NULL, NULL});
    lab_step(&lab, x);
    packet_download(&p, &lab.message, &lab.layout, 0);
    assert_int_equal(p.count[0], count);
    assert_memory_equal(p.index, place, count * sizeof(*place));
    require_round_trip(&p);
    assert_int_equal(packed_size(&p, ENCODING_RAW), 8 * (size_t)count);
    assert_int_equal(packed_size(&p, ENCODING_RUNS16), runs_bytes);
    for (int encoding = 0; encoding < ENCODINGS; encoding++) {
        size_t size = packed_size(&p, encoding);
        struct traffic total;
        uint64_t each;

        lab_weigh(&lab, encoding, &total, &each);
        assert_int_equal(total.bytes, size);
        assert_int_equal(each, size);
        assert_int_equal(total.entries, count);
    }
    sum = lab_download(&lab, lab.sum, 1);
    assert_true(memcmp(sum, x, n * sizeof(*x)) == 0);
    packet_free(&p);
    lab_close(&lab);
    free(sum);
    free(x);
}

static void far_entries_keep_their_place(void **state)
{
    const uint32_t ends[] = {0, 199999};
    const uint32_t across_16[] = {65534, 65535, 65536, 131072, 199999};
    const uint32_t across_24[] = {1,        65536,          (1u << 24) - 1,
                                  1u << 24, (1u << 24) + 1, (1u << 24) + 299};

    check_far_entries(200000, ends, 2, 30);
    check_far_entries(200000, across_16, 5, 5 * 6 + 6);
    check_far_entries(((size_t)1 << 24) + 300, across_24, 6, 6 * 6 + 254 * 6);
}

/* Bits of an index, of entries at random places.  Those of a filler's value count too. */
static const struct {
    double density;
    double bits[ENCODING_BEST];
} on_paper[] = {
    {0.25, {32, 16, 4, 8, 3.64, 4.09, 3.29}},
    {0.1, {32, 16, 10, 8, 5.71, 6.11, 4.76}},
    {0.0625, {32, 16, 16, 8, 6.86, 7.08, 5.48}},
    {0.0156, {32, 16, 64, 9.07, 10.52, 9.79, 7.53}},
    {0.01, {32, 16, 100, 10.21, 11.76, 10.78, 8.11}},
    {0.004, {32, 16, 250, 12.79, 14.33, 12.80, 9.49}},
    {0.001, {32, 16, 1000, 15.04, 18.29, 15.39, 11.49}},
    {0.0001, {32, 16.07, 10000, 17.45, 24.91, 19.00, 14.79}},
};

/* What is told before a run. */
static void expected_sizes_are_those_on_paper(void **state)
{
    const struct method method = {.compressor = compressor_find("topk")};
    const size_t n = 1000000000;

    for (size_t i = 0; i < ARRAY_LENGTH(on_paper); i++) {
        size_t k = (size_t)lround((double)n * on_paper[i].density);
        double least = 32;

        for (int encoding = 0; encoding < ENCODING_BEST; encoding++) {
            size_t bytes = message_tensor_bytes(&method, encoding, n, k);
            double bits = 8 * (double)(bytes - 4 * k) / (double)k;
            double off = fabs(bits - on_paper[i].bits[encoding]);

            least = bits < least ? bits : least;
            if (off > 0.006 + 0.002 * on_paper[i].bits[encoding])
                fail_msg("%s at %g: %.3f", encoding_names[encoding], on_paper[i].density, bits);
        }
        assert_int_equal(message_tensor_bytes(&method, ENCODING_BEST, n, k),
                         4 * k + (size_t)lround(least * (double)k / 8) + 1);
    }
}

/* What the device counts, and the host packs. */
static void check_density(size_t at)
{
    const size_t n = (size_t)1 << 20;
    float *x = allocate(n, sizeof(*x));
    struct lab lab;
    struct packet p;

    harness_floats(at, x, n);
    lab_open(&lab, &(struct lab_spec){device, compressor_find("topk"), memory_find("none"), &n, 1,
                                      1, on_paper[at].density, NULL, NULL, NULL, NULL});
    lab_step(&lab, x);
    packet_download(&p, &lab.message, &lab.layout, 0);
    for (int encoding = 0; encoding < ENCODING_BEST; encoding++) {
        double k = p.count[0];
        double expected = on_paper[at].bits[encoding];
        struct traffic total;
        uint64_t each;
        double bits;

        lab_weigh(&lab, encoding, &total, &each);
        assert_int_equal(each, packed_size(&p, encoding));
        bits = 8 * ((double)each - 4 * k) / k;
        /* A gap's logarithm has a deviation of 1.9 bits, a gamma code twice as much. */
        if (fabs(bits - expected) > 4 * 3.8 / sqrt(k) + 0.002 * expected)
            fail_msg("%s at %g: %.3f", encoding_names[encoding], on_paper[at].density, bits);
    }
    packet_free(&p);
    lab_close(&lab);
    free(x);
}

static void random_places_take_the_bits_on_paper(void **state)
{
    for (size_t at = 0; at < ARRAY_LENGTH(on_paper); at += 2)
        check_density(at);
}

/* Gaps of 65,536: 16 bits as runs, 17 in any other way. */
static void check_best(const char *quantiser, bool bare, enum encoding best)
{
    const size_t n = (size_t)1 << 20;
    float *x = allocate(n, sizeof(*x));
    struct traffic total;
    struct packet p;
    struct lab lab;
    uint8_t *bytes;
    uint64_t each;

    for (size_t i = 65535; i < n; i += 65536)
        x[i] = 1;
    lab_open(&lab,
             &(struct lab_spec){device, compressor_find("topk"), memory_find("none"), &n, 1, 1,
                                16.5 / (double)n, quantiser_find(quantiser), NULL, NULL, NULL});
    lab_step(&lab, x);
    if (bare)
        lab.message.values.form.bits = 0;
    lab_weigh(&lab, ENCODING_BEST, &total, &each);
    packet_download(&p, &lab.message, &lab.layout, 0);
    assert_int_equal(packet_pack(&p, ENCODING_BEST, &bytes), each);
    assert_int_equal(bytes[0], best);
    bytes[0] = ENCODING_RUNS16;
    assert_int_equal(packet_unpack(&p, ENCODING_BEST, bytes, each, &(struct error){""}),
                     best == ENCODING_RUNS16);
    free(bytes);
    packet_free(&p);
    lab_close(&lab);
    free(x);
}

static void runs_may_be_the_best_of_floats_alone(void **state)
{
    check_best("", false, ENCODING_RUNS16);
    check_best("", true, ENCODING_RICE);
    check_best("fp16", false, ENCODING_RICE);
}

static const double no_settings[SETTINGS_MOST];

/* The tensors of an LSTM with 10,000 words, those of one dimension last. */
struct shapes {
    size_t n[16];
    struct workers workers;
};

static void lstm_shapes(struct shapes *s, const char *compressor, size_t hidden, bool tied,
                        bool compress_all)
{
    struct workers *w = &s->workers;
    size_t *n = s->n;
    uint32_t matrices = tied ? 5 : 6;
    const size_t words = 10000;

    *w = (struct workers){
        .method = {.compressor = compressor_find(compressor), .settings = no_settings}, .count = 4};
    for (uint32_t i = 0; i < matrices; i++)
        *n++ = i < 4 ? 4 * hidden * hidden : words * hidden;
    for (uint32_t i = 0; i < 4; i++)
        *n++ = 4 * hidden;
    *n = words;
    w->compressed.n = s->n;
    w->compressed.count = compress_all ? matrices + 5 : matrices;
    for (uint32_t i = 0; i < matrices + 5; i++) {
        w->all.elements += s->n[i];
        w->compressed.elements += i < w->compressed.count ? s->n[i] : 0;
    }
}

/* Of one worker and step. */
static double paper_bytes(const struct workers *w, double ratio)
{
    double bytes = exchange_dense_bytes(w);

    for (uint32_t i = 0; i < w->compressed.count; i++)
        bytes += account_tensor(&w->method, &w->compressed, i, ratio).paper;
    return bytes;
}

/* Table 4 of the paper: 194.68 MB, 0.42 MB, 462x. */
static void dgc_sends_what_its_paper_says(void **state)
{
    struct shapes s;
    double bytes;

    lstm_shapes(&s, "dgc", 1500, true, false);
    assert_int_equal(s.workers.all.elements, 51034000);
    bytes = paper_bytes(&s.workers, 0.001);
    assert_true(bytes == 6 * (15000 + 4 * 9000) + 4 * 34000);
    assert_true(lround(exchange_whole_bytes(&s.workers) / 1048576 * 100) == 19468);
    assert_true(lround(bytes / 1048576 * 10000) == 4215);
    assert_true(lround(exchange_whole_bytes(&s.workers) / bytes * 10) == 4618);
    assert_true(paper_bytes(&s.workers, 1) == exchange_whole_bytes(&s.workers));
    lstm_shapes(&s, "dgc", 1500, true, true);
    bytes = paper_bytes(&s.workers, 0.001);
    assert_true(lround(exchange_whole_bytes(&s.workers) / bytes * 10) == 6667);
}

/* How the first reference counts: two words an entry, every tensor compressed. */
static void topk_sends_what_the_reference_says(void **state)
{
    const double ratio[] = {0.1, 0.01, 0.001, 0.0001, 0.00001};
    const double entries[] = {2186120, 218612, 21858, 2189, 221};
    const double printed[] = {5, 50, 500.07, 4993.4, 49460}; /* to so many digits: */
    const double digits[] = {1, 1, 100, 10, 0.1};

    for (size_t i = 0; i < ARRAY_LENGTH(ratio); i++) {
        struct shapes s;
        double bytes;

        lstm_shapes(&s, "topk", 700, false, true);
        assert_int_equal(s.workers.all.elements, 21861200);
        bytes = paper_bytes(&s.workers, ratio[i]);
        assert_true(bytes == 8 * entries[i]);
        assert_true(lround(exchange_whole_bytes(&s.workers) / bytes * digits[i]) ==
                    lround(printed[i] * digits[i]));
        lstm_shapes(&s, "gradient-dropping", 700, false, true);
        assert_true(paper_bytes(&s.workers, ratio[i]) == bytes);
        lstm_shapes(&s, "none", 700, false, true);
        assert_true(paper_bytes(&s.workers, ratio[i]) == 4.0 * 21861200);
    }
}

/* Three steps in which 4 workers send 600 entries in all, of 2 tensors; 3 elements go dense. */
static double paper_bytes_sent(const char *compressor, const char *quantiser,
                               const char *const *name, const double *value)
{
    const struct compressor *c = compressor_find(compressor);
    const struct quantiser *q = quantiser_find(quantiser);
    double settings[SETTINGS_MOST], of_quantiser[SETTINGS_MOST];
    struct workers w = {.method = {c, q, settings, of_quantiser}, .count = 4};

    for (size_t i = 0; i < setting_count(c->settings); i++)
        settings[i] = c->settings[i].initial;
    for (size_t i = 0; q != NULL && i < setting_count(q->settings); i++)
        of_quantiser[i] = q->settings[i].initial;
    for (size_t i = 0; name[i] != NULL; i++)
        settings[setting_find(c->settings, name[i])] = value[i];
    w.compressed.count = 2;
    w.all.elements = 1003;
    w.compressed.elements = 1000;
    assert_true(method_paper_sent(&w.method));
    return method_paper_bytes_sent(&w.method, 600.0 / w.count, 3 * 2) +
           3 * exchange_dense_bytes(&w);
}

static void what_was_sent_is_counted_as_papers_do(void **state)
{
    const char *const none[] = {NULL}, *const bin[] = {"bin", NULL};
    const char *const original[] = {"original", NULL}, *const plain[] = {"quantise", NULL};
    const char *const values[] = {"values", NULL};
    const double on = 1, off = 0, conv = 50, wide = 16385;

    assert_true(paper_bytes_sent("threshold", "", none, NULL) == 150 * 4 + 36);
    assert_true(paper_bytes_sent("threshold", "", values, &on) == 150 * 8 + 36);
    assert_true(paper_bytes_sent("adacomp", "", none, NULL) == 150 * 2 + 6 * 4 + 36);
    assert_true(paper_bytes_sent("adacomp", "", bin, &conv) == 150 * 1 + 6 * 4 + 36);
    assert_true(paper_bytes_sent("adacomp", "", bin, &wide) == 150 * 4 + 6 * 4 + 36);
    assert_true(paper_bytes_sent("adacomp", "", plain, &off) == 150 * (14 + 32) / 8.0 + 36);
    assert_true(paper_bytes_sent("adacomp", "", original, &on) == 150 * 8 + 36);
    assert_true(paper_bytes_sent("adacomp", "efsignsgd", original, &on) == 150 * 33 / 8.0 + 36);
    assert_true(paper_bytes_sent("adacomp", "terngrad", original, &on) == 150 * 34 / 8.0 + 36);
}

static void agreed_entries_have_no_index_on_paper(void **state)
{
    struct shapes s;

    lstm_shapes(&s, "randomk", 700, false, true);
    assert_true(paper_bytes(&s.workers, .001) == 4 * 21858);
    lstm_shapes(&s, "slice", 700, false, true);
    assert_true(paper_bytes(&s.workers, .001) == 4 * (21858 + 11));
    assert_true(paper_bytes(&s.workers, 1) == 4.0 * 21861200);
}

/* Seven steps in which every worker sends messages of 100 bytes and 3 dense elements; and 10 bytes in
 * a first round, if there is one. */
static void check_up_and_down(const char *compressor, uint32_t workers, double up, double down)
{
    struct workers w = {.method = {.compressor = compressor_find(compressor)}, .count = workers};
    const struct first_round *first = &w.method.compressor->first;
    struct sent sent = {.last = {.bytes = (uint64_t)700 * workers}};

    if (first->encode != NULL)
        sent.first.bytes = first->exchange == BROADCAST ? 70 : (uint64_t)70 * workers;
    w.all.elements = 53;
    w.compressed.elements = 50;
    assert_true(exchange_dense_bytes(&w) == 12);
    assert_true(exchange_whole_bytes(&w) == 4 * 53);
    assert_true(exchange_bytes_up(&w, &sent, 7) == up);
    assert_true(exchange_bytes_down(&w, &sent, 7) == down);
}

static void bytes_go_up_and_down_as_the_exchange_has_it(void **state)
{
    check_up_and_down("none", 1, 700 + 84, 700 + 84);
    check_up_and_down("none", 4, 700 + 84, 700 + 84);
    check_up_and_down("topk", 1, 700 + 84, 84);
    check_up_and_down("topk", 4, 700 + 84, 3 * 700 + 84);
    check_up_and_down("dgc", 4, 700 + 84, 3 * 700 + 84);
    check_up_and_down("gtopk", 4, 700 + 84, 700 + 84);
    check_up_and_down("powersgd", 4, 70 + 700 + 84, 70 + 700 + 84);
    check_up_and_down("clt-k", 4, 70.0 / 4 + 700 + 84, 70 + 700 + 84);
    check_up_and_down("randomk", 4, 700 + 84, 700 + 84);
    check_up_and_down("slice", 4, 700 + 84, 700 + 84);
}

int main(void)
{
    const struct CMUnitTest on_the_host[] = {
        cmocka_unit_test(kept_entries_are_rounded_down_in_double),
        cmocka_unit_test(the_format_is_as_told),
        cmocka_unit_test(whole_tensors_go_without_indices),
        cmocka_unit_test(codes_of_places_are_as_told),
        cmocka_unit_test(a_count_comes_first_where_the_data_say_it),
        cmocka_unit_test(agreed_indices_are_not_sent),
        cmocka_unit_test(codes_follow_the_places),
        cmocka_unit_test(the_best_is_the_least_of_all),
        cmocka_unit_test(the_farthest_entry_can_be_told),
        cmocka_unit_test(longer_runs_have_fillers),
        cmocka_unit_test(a_zero_behind_65535_zeros_is_no_filler),
        cmocka_unit_test(every_truncation_and_addition_is_refused),
        cmocka_unit_test(lies_are_refused),
        cmocka_unit_test(places_that_lie_are_refused),
        cmocka_unit_test(a_whole_tensor_names_no_other_encoding),
        cmocka_unit_test(random_messages_come_back),
        cmocka_unit_test(flipped_bytes_do_no_harm),
        cmocka_unit_test(expected_sizes_are_those_on_paper),
        cmocka_unit_test(dgc_sends_what_its_paper_says),
        cmocka_unit_test(topk_sends_what_the_reference_says),
        cmocka_unit_test(what_was_sent_is_counted_as_papers_do),
        cmocka_unit_test(agreed_entries_have_no_index_on_paper),
        cmocka_unit_test(bytes_go_up_and_down_as_the_exchange_has_it),
    };
    const struct CMUnitTest on_a_device[] = {
        cmocka_unit_test(far_entries_keep_their_place),
        cmocka_unit_test(random_places_take_the_bits_on_paper),
        cmocka_unit_test(runs_may_be_the_best_of_floats_alone),
    };
    int failed = cmocka_run_group_tests_name("host", on_the_host, NULL, NULL);

    for (const char *const *d = harness_devices(); *d != NULL; d++) {
        device = *d;
        failed += cmocka_run_group_tests_name(device, on_a_device, NULL, NULL);
    }
    return failed;
}

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

static size_t packed_size(const struct packet *p, enum encoding encoding)
{
    uint8_t *bytes;
    size_t size = packet_pack(p, encoding, &bytes);

    free(bytes);
    return size;
}

/* There and back in both encodings. */
static void require_round_trip(const struct packet *p)
{
    for (int encoding = ENCODING_RAW; encoding <= ENCODING_RUNS16; encoding++) {
        struct packet q = packet_of(p->tensors, p->n, p->count);
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

static void the_format_is_as_told(void **state)
{
    const size_t n[] = {10, 2};
    const uint32_t count[] = {2, 2};
    const uint8_t raw[] = {3, 0, 0,    0,    9, 0, 0, 0,    0, 0, 0x80, 0x3f,
                           0, 0, 0x20, 0xc0, 0, 0, 0, 0x40, 0, 0, 0x40, 0x40};
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
    assert_int_equal(packet_pack(&p, ENCODING_RAW, &bytes), sizeof(raw));
    assert_memory_equal(bytes, raw, sizeof(raw));
    free(bytes);
    assert_int_equal(packet_pack(&p, ENCODING_RUNS16, &bytes), sizeof(runs));
    assert_memory_equal(bytes, runs, sizeof(runs));
    free(bytes);
    require_round_trip(&p);
    packet_free(&p);
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
    require_round_trip(&p);
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
    for (int encoding = ENCODING_RAW; encoding <= ENCODING_RUNS16; encoding++) {
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

static uint32_t random_word(uint32_t trial, uint32_t use)
{
    return rng_block(11, RNG_TEST, trial, use, 0, 0).word[0];
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

    for (int encoding = ENCODING_RAW; encoding <= ENCODING_RUNS16; encoding++) {
        uint8_t *bytes;
        size_t size = packet_pack(&p, encoding, &bytes);

        for (uint32_t trial = 0; trial < 20000; trial++) {
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
                                      1, ratio, NULL, NULL, NULL});
    lab_step(&lab, x);
    packet_download(&p, &lab.message, &lab.layout, 0);
    assert_int_equal(p.count[0], count);
    assert_memory_equal(p.index, place, count * sizeof(*place));
    require_round_trip(&p);
    for (int encoding = ENCODING_RAW; encoding <= ENCODING_RUNS16; encoding++) {
        size_t size = encoding == ENCODING_RAW ? 8 * (size_t)count : runs_bytes;
        struct traffic total;
        uint64_t each;

        lab_weigh(&lab, encoding, &total, &each);
        assert_int_equal(total.bytes, size);
        assert_int_equal(each, size);
        assert_int_equal(total.entries, count);
        assert_int_equal(packed_size(&p, encoding), size);
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

    *w = (struct workers){.method = {.compressor = compressor_find(compressor)}, .count = 4};
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
        bytes += account_tensor(&w->method, w->compressed.n[i], ratio).paper;
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

/* Seven steps in which every worker sends messages of 100 bytes and 3 dense elements. */
static void check_up_and_down(const char *compressor, uint32_t workers, double up, double down)
{
    struct workers w = {.method = {.compressor = compressor_find(compressor)}, .count = workers};

    w.all.elements = 53;
    w.compressed.elements = 50;
    assert_true(exchange_dense_bytes(&w) == 12);
    assert_true(exchange_whole_bytes(&w) == 4 * 53);
    assert_true(exchange_bytes_up(&w, 700.0 * workers, 7) == up);
    assert_true(exchange_bytes_down(&w, 700.0 * workers, 7) == down);
}

static void bytes_go_up_and_down_as_the_exchange_has_it(void **state)
{
    check_up_and_down("none", 1, 700 + 84, 700 + 84);
    check_up_and_down("none", 4, 700 + 84, 700 + 84);
    check_up_and_down("topk", 1, 700 + 84, 84);
    check_up_and_down("topk", 4, 700 + 84, 3 * 700 + 84);
    check_up_and_down("dgc", 4, 700 + 84, 3 * 700 + 84);
}

int main(void)
{
    const struct CMUnitTest on_the_host[] = {
        cmocka_unit_test(kept_entries_are_rounded_down_in_double),
        cmocka_unit_test(the_format_is_as_told),
        cmocka_unit_test(whole_tensors_go_without_indices),
        cmocka_unit_test(longer_runs_have_fillers),
        cmocka_unit_test(a_zero_behind_65535_zeros_is_no_filler),
        cmocka_unit_test(every_truncation_and_addition_is_refused),
        cmocka_unit_test(lies_are_refused),
        cmocka_unit_test(flipped_bytes_do_no_harm),
        cmocka_unit_test(dgc_sends_what_its_paper_says),
        cmocka_unit_test(topk_sends_what_the_reference_says),
        cmocka_unit_test(bytes_go_up_and_down_as_the_exchange_has_it),
    };
    const struct CMUnitTest on_a_device[] = {
        cmocka_unit_test(far_entries_keep_their_place),
    };
    int failed = cmocka_run_group_tests_name("host", on_the_host, NULL, NULL);

    for (const char *const *d = harness_devices(); *d != NULL; d++) {
        device = *d;
        failed += cmocka_run_group_tests_name(device, on_a_device, NULL, NULL);
    }
    return failed;
}

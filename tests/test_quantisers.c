/*
 * test_quantisers -- what codes say: vectors computed by hand, halves against a search, QSGD and
 * TernGrad against a slow, obvious version.  The laws are in test_compressors.c.
 */
#include "tests/lab.h"

#include "sim/rng.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char *device;

static const size_t eight[] = {8};
static const float g1[] = {.50f, -.11f, .31f, -.83f, .07f, .02f, -.23f, .42f};
static const float g2[] = {-.13f, .19f, .36f, .12f, -.05f, .61f, -.27f, .03f};

/* One tensor of one worker. */
static void begin_with(struct lab *lab, const char *compressor, const char *quantiser,
                       const char *memory, const size_t *n, double ratio, const double *settings)
{
    lab_open(lab, &(struct lab_spec){.device = device,
                                     .compressor = compressor_find(compressor),
                                     .quantiser = quantiser_find(quantiser),
                                     .memory = memory_find(memory),
                                     .n = n,
                                     .tensors = 1,
                                     .workers = 1,
                                     .ratio = ratio,
                                     .quantiser_settings = settings});
}

static void begin(struct lab *lab, const char *compressor, const char *quantiser,
                  const char *memory, const size_t *n, double ratio)
{
    begin_with(lab, compressor, quantiser, memory, n, ratio, NULL);
}

static void require_near(struct lab *lab, const char *what, const float *on_device,
                         const float *want, size_t n)
{
    float *x = lab_download(lab, on_device, 1);

    for (size_t i = 0; i < n; i++)
        if (!(fabsf(x[i] - want[i]) < 1e-5f))
            fail_msg("%s: element %zu is %g, not %g", what, i, (double)x[i], (double)want[i]);
    free(x);
}

/* Two steps of 8 elements with residual memory: what is decoded, and what is kept. */
static void two_steps(const char *compressor, const char *quantiser, double ratio,
                      const float want[4][8])
{
    struct lab lab;

    begin(&lab, compressor, quantiser, "residual", eight, ratio);
    lab_step(&lab, g1);
    require_near(&lab, "sent in step 1", lab.sum, want[0], 8);
    require_near(&lab, "kept in step 1", lab.slab[0], want[1], 8);
    lab_step(&lab, g2);
    require_near(&lab, "sent in step 2", lab.sum, want[2], 8);
    require_near(&lab, "kept in step 2", lab.slab[0], want[3], 8);
    lab_close(&lab);
}

static void efsignsgd_is_as_computed_by_hand(void **state)
{
    const float m1 = .31125f, m2 = .268125f;
    const float want[4][8] = {
        {m1, -m1, m1, -m1, m1, m1, -m1, m1},
        {.18875f, .20125f, -.00125f, -.51875f, -.24125f, -.29125f, .08125f, .10875f},
        {m2, m2, m2, -m2, -m2, m2, -m2, m2},
        {-.20938f, .12313f, .09062f, -.13062f, -.02313f, .05062f, .07938f, -.12938f},
    };

    two_steps("none", "efsignsgd", 1, want);
}

static void efsign_of_the_largest_is_as_computed_by_hand(void **state)
{
    const float want[4][8] = {
        {.665f, 0, 0, -.665f, 0, 0, 0, 0},
        {-.165f, -.11f, .31f, -.165f, .07f, .02f, -.23f, .42f},
        {0, 0, .65f, 0, 0, .65f, 0, 0},
        {-.295f, .08f, .02f, -.045f, .02f, -.02f, -.5f, .45f},
    };

    two_steps("topk", "efsignsgd", .25, want);
}

static void zero_has_the_sign_plus(void **state)
{
    const float x[8] = {0, -0.0f, 8, -8, 0, 0, 0, 0};
    const float want[8] = {2, 2, 2, -2, 2, 2, 2, 2};
    struct lab lab;

    begin(&lab, "none", "efsignsgd", "none", eight, 1);
    lab_step(&lab, x);
    require_near(&lab, "sent", lab.sum, want, 8);
    lab_close(&lab);
}

/* What is added up, and what the bytes say. */
static void a_vote_is_plus_or_minus_one(void **state)
{
    const float x[8] = {0, -0.0f, 8, -8, 1e-30f, -1e-30f, .5f, -.5f};
    const float want[8] = {1, 1, 1, -1, 1, -1, 1, -1};
    struct packet p;
    struct lab lab;

    begin(&lab, "none", "signsgd", "none", eight, 1);
    lab_step(&lab, x);
    require_near(&lab, "sent", lab.sum, want, 8);
    packet_download(&p, &lab.message, &lab.layout, 0);
    for (size_t i = 0; i < 8; i++)
        assert_true(p.value[p.begin[0] + i] == want[i]);
    packet_free(&p);
    lab_close(&lab);
}

/* The scaler of g1, and how often each element is sent, in many steps. */
static void check_terngrad(double clip, float scaler, const double *probability)
{
    enum { DRAWS = 4000 };
    int sent[8] = {0};
    struct lab lab;

    begin_with(&lab, "none", "terngrad", "none", eight, 1, (const double[]){clip, 0});
    for (unsigned draw = 0; draw < DRAWS; draw++) {
        float *x;

        lab.step.number = draw;
        lab_step(&lab, g1);
        x = lab_download(&lab, lab.sum, 1);
        for (int i = 0; i < 8; i++) {
            assert_true(x[i] == 0 || fabsf(x[i] - copysignf(scaler, g1[i])) < 1e-5f);
            sent[i] += x[i] != 0;
        }
        free(x);
    }
    for (int i = 0; i < 8; i++) {
        double p = probability[i];

        assert_true(fabs(sent[i] - DRAWS * p) <= 5 * sqrt(DRAWS * p * (1 - p)));
    }
    lab_close(&lab);
}

static void terngrad_is_as_computed_by_hand(void **state)
{
    const double held[] = {.60241, .13253, .37349, 1, .08434, .02410, .27711, .50602};
    const double cut[] = {1, .27512, .77534, 1, .17508, .05002, .57525, 1};

    check_terngrad(2.5, .83f, held);
    check_terngrad(1, .399826f, cut);
    check_terngrad(0, .83f, held);
}

/* In the first reference such a tensor is never sent. */
static void terngrad_sends_equal_values(void **state)
{
    const size_t n = 1000;
    float *x = allocate(n, sizeof(*x));
    struct lab lab;

    for (size_t i = 0; i < n; i++)
        x[i] = 0.1f;
    begin(&lab, "none", "terngrad", "none", &n, 1);
    lab_step(&lab, x);
    require_near(&lab, "sent", lab.sum, x, n);
    lab_close(&lab);
    begin(&lab, "topk", "terngrad", "residual", eight, .125);
    lab_step(&lab, g1);
    require_near(&lab, "sent", lab.sum, (const float[8]){0, 0, 0, -.83f}, 8);
    lab_close(&lab);
    free(x);
}

/* The same by the formula, with the same draws: entry e of a tensor has word e / 64 % 4 of a block
 * for every four. */
static float draw_of(uint64_t seed, uint32_t entry, uint32_t worker, uint32_t number)
{
    uint32_t e = entry % TILE;

    return rng_uniform(
        rng_block(seed, RNG_COMPRESSOR, entry / TILE * 64 + e % 64, worker, 0, number)
            .word[e / 64]);
}

/* What each of 8 values becomes, low or high, and how often the latter, in many steps. */
static void check_natural(double original, const float *x, const float *low, const float *high,
                          const double *probability)
{
    enum { DRAWS = 4000 };
    int up[8] = {0};
    struct lab lab;

    begin_with(&lab, "none", "natural", "none", eight, 1, &original);
    for (unsigned draw = 0; draw < DRAWS; draw++) {
        float *said;

        lab.step.number = draw;
        lab_step(&lab, x);
        said = lab_download(&lab, lab.sum, 1);
        for (int i = 0; i < 8; i++) {
            assert_true(said[i] == low[i] || said[i] == high[i]);
            up[i] += said[i] != low[i];
        }
        free(said);
    }
    for (int i = 0; i < 8; i++) {
        double p = probability[i];

        assert_true(fabs(up[i] - DRAWS * p) <= 5 * sqrt(DRAWS * p * (1 - p)));
    }
    lab_close(&lab);
}

static void natural_is_as_computed_by_hand(void **state)
{
    const float x[] = {3, -5, 1, -.8125f, 1.001953125f, 0x1p-127f, -0x1.8p127f, 0};
    const float low[] = {2, -4, 1, -.5f, 1, 0, -0x1p127f, 0};
    const float high[] = {4, -8, 1, -1, 2, 0x1p-126f, -0x1p127f, 0};
    const double probability[] = {.5, .25, 0, .625, .001953125, .5, 0, 0};
    const float y[] = {3, -5, 0x1.8p17f, 1e6f, 0x1p-109f, -0x1.8p-109f, -0x1.4p-108f, 1e-38f};
    const float least[] = {2, -4, 0x1p17f, 0x1p18f, 0, 0, -0x1p-108f, 0};
    const float most[] = {4, -8, 0x1p18f, 0x1p18f, 0, -0x1p-108f, -0x1p-107f, 0};
    const double often[] = {.5, .25, .5, 0, 0, .5, .25, 0};

    check_natural(0, x, low, high, probability);
    check_natural(1, y, least, most, often);
}

/* Infinity stays, and is what stands for what is no number; in the original 2^18 does. */
static void natural_of_what_is_not_finite(void **state)
{
    const float x[8] = {INFINITY, -INFINITY, NAN, 0, -0.0f};
    const float want[2][3] = {{INFINITY, -INFINITY, INFINITY}, {0x1p18f, -0x1p18f, 0x1p18f}};

    for (int original = 0; original < 2; original++) {
        const double setting = original;
        struct packet p;
        struct lab lab;

        begin_with(&lab, "none", "natural", "none", eight, 1, &setting);
        lab_step(&lab, x);
        packet_download(&p, &lab.message, &lab.layout, 0);
        for (size_t i = 0; i < 8; i++)
            assert_true(p.value[p.begin[0] + i] == (i < 3 ? want[original][i] : 0));
        packet_free(&p);
        lab_close(&lab);
    }
}

/* By the formula, with the same draws; across tiles. */
static void natural_is_the_slow_one(void **state)
{
    const size_t n = 3000;
    float *x = allocate(n, sizeof(*x));
    struct lab lab;
    float *said;

    harness_floats(3, x, n);
    begin(&lab, "none", "natural", "none", &n, 1);
    lab.step.number = 7;
    lab_step(&lab, x);
    said = lab_download(&lab, lab.sum, 1);
    for (size_t i = 0; i < n; i++) {
        float power = exp2f(floorf(log2f(fabsf(x[i]))));
        bool up = draw_of(1, (uint32_t)i, 0, 7) < (fabsf(x[i]) - power) / power;

        assert_true(said[i] == (x[i] == 0 ? 0 : copysignf(up ? 2 * power : power, x[i])));
    }
    free(said);
    free(x);
    lab_close(&lab);
}

static float norm_of(const float *x, size_t n, bool norm2)
{
    double square = 0;
    float most = 0;

    for (size_t i = 0; i < n; i++) {
        square += (double)x[i] * (double)x[i];
        most = fabsf(x[i]) > most ? fabsf(x[i]) : most;
    }
    return norm2 ? (float)sqrt(square) : most;
}

static void check_qsgd(double levels, size_t bucket, bool norm2)
{
    const size_t n = 3000;
    float *x = allocate(n, sizeof(*x));
    float *want = allocate(n, sizeof(*want));
    struct lab lab;

    harness_floats(3, x, n);
    begin_with(&lab, "none", "qsgd", "none", &n, 1,
               (const double[]){levels, (double)bucket, norm2, 0});
    lab.step.number = 7;
    lab_step(&lab, x);
    bucket = bucket == 0 ? n : bucket;
    for (size_t i = 0; i < n; i++) {
        size_t from = i / bucket * bucket;
        float norm = norm_of(x + from, from + bucket < n ? bucket : n - from, norm2);
        float r = fabsf(x[i]) / norm * (float)levels;
        float level = floorf(r) + (draw_of(1, (uint32_t)i, 0, 7) < r - floorf(r) ? 1.0f : 0.0f);

        want[i] = copysignf(norm * (level / (float)levels), x[i]);
    }
    require_near(&lab, "sent", lab.sum, want, n);
    lab_close(&lab);
    free(want);
    free(x);
}

static void qsgd_is_the_slow_one(void **state)
{
    check_qsgd(1, 512, false);
    check_qsgd(7, 512, false);
    check_qsgd(127, 256, true);
    check_qsgd(5, 1024, true);
    check_qsgd(7, 0, false);
    check_qsgd(127, 0, true);
}

/* What a half is, by definition. */
static double half_value(uint32_t code)
{
    double size = code >> 10 & 31 ? ldexp(1024 + (code & 1023), (int)(code >> 10 & 31) - 25)
                                  : ldexp(code & 1023, -24);

    return code & 0x8000 ? -size : size;
}

/* The nearest half, of two the even one, by a search. */
static uint32_t nearest_half(double size)
{
    uint32_t low = 0, high = 0x7c00; /* infinity stands for 65536 */

    while (high - low > 1) {
        uint32_t middle = (low + high) / 2;

        if (half_value(middle) <= size)
            low = middle;
        else
            high = middle;
    }
    if (size - half_value(low) == half_value(high) - size)
        return low % 2 == 0 ? low : high;
    return size - half_value(low) < half_value(high) - size ? low : high;
}

static void halves_round_to_the_nearest(void **state)
{
    for (uint32_t code = 0; code < 0x7c00; code++) {
        float x = (float)half_value(code);
        double between = (half_value(code) + half_value(code + 1)) / 2;

        assert_true(half_float(code) == x && half_float(code | 0x8000) == -x);
        assert_int_equal(float_half(x), code);
        assert_int_equal(float_half(-x), code | 0x8000);
        assert_int_equal(float_half((float)between), nearest_half(between));
        assert_int_equal(float_half(nextafterf((float)between, 0)), code);
        assert_int_equal(float_half(nextafterf((float)between, 1e6f)), code + 1);
    }
    for (uint32_t i = 0; i < 100000; i++) {
        float x = bits_float(rng_block(5, RNG_TEST, i, 0, 0, 0).word[0] & 0x7fffffff);

        if (x < 65536)
            assert_int_equal(float_half(x), nearest_half((double)x));
        else
            assert_true((float_half(x) & 0x7c00) == 0x7c00);
    }
    assert_int_equal(float_half(INFINITY), 0x7c00);
    assert_true(isnan(half_float(float_half(NAN))));
}

static void bfloats_round_to_the_nearest(void **state)
{
    const struct code_form form = {.kind = CODE_BFLOAT, .bits = 16};

    for (uint32_t i = 0; i < 100000; i++) {
        float x = bits_float(rng_block(6, RNG_TEST, i, 0, 0, 0).word[0]);
        uint32_t below = float_bits(x) >> 16;
        float got = code_float(&form, float_bfloat(x), 0);
        double to_low, to_high;

        if (!isfinite(x) || (below & 0x7fff) >= 0x7f7f)
            continue;
        to_low = fabs((double)x - (double)bits_float(below << 16));
        to_high = fabs((double)x - (double)bits_float((below + 1) << 16));
        assert_true(fabs((double)x - (double)got) <= (to_low < to_high ? to_low : to_high));
        if (to_low == to_high)
            assert_int_equal(float_bfloat(x) % 2, 0);
    }
    assert_true(isnan(code_float(&form, float_bfloat(NAN), 0)));
    assert_true(isinf(code_float(&form, float_bfloat(INFINITY), 0)));
}

/* Powers of two by hand: codes 07f 180 000 07e 081 17f 001 000 of 9 bits, then of 8. */
static void powers_are_packed_as_told(void **state)
{
    const float x[] = {1, -2, 0, .5f, 4, -1, 0x1p-126f, -0.0f};
    const uint8_t nine[] = {0x7f, 0x00, 0x03, 0xf0, 0x13, 0xe8, 0x6f, 0x00, 0x00};
    const uint8_t eight_bits[] = {0x6d, 0xee, 0, 0x6c, 0x6f, 0xed, 0, 0};

    for (int original = 0; original < 2; original++) {
        const uint8_t *want = original ? eight_bits : nine;
        const double setting = original;
        size_t size = original ? 8 : 9;
        struct packet p;
        struct lab lab;
        uint8_t *bytes;

        begin_with(&lab, "none", "natural", "none", eight, 1, &setting);
        lab_step(&lab, x);
        packet_download(&p, &lab.message, &lab.layout, 0);
        assert_int_equal(packet_pack(&p, ENCODING_RAW, &bytes), size);
        assert_memory_equal(bytes, want, size);
        assert_true(packet_unpack(&p, ENCODING_RAW, bytes, size, &(struct error){""}));
        bytes[size - 1] |= 0x80; /* the last value: a zero with a sign, which nobody sends */
        assert_false(packet_unpack(&p, ENCODING_RAW, bytes, size, &(struct error){""}));
        free(bytes);
        packet_free(&p);
        lab_close(&lab);
    }
}

/* Code i has bits i * width ... of the words, the lowest first. */
static void codes_of_any_width_are_packed(void **state)
{
    const struct tile tile = {.live = TILE};

    for (uint32_t width = 1; width <= 16; width++) {
        uint32_t code[TILE], got[TILE];
        uint32_t words[8 * 16 + 1] = {0};
        uint32_t *behind = words + (size_t)8 * width;

        *behind = 0xa5a5a5a5u;
        for (uint32_t i = 0; i < TILE; i++)
            code[i] = rng_block(8, RNG_TEST, i, width, 0, 0).word[0] >> (32 - width);
        tile_pack(&tile, code, width, words);
        for (uint32_t i = 0; i < TILE * width; i++)
            assert_int_equal(words[i / 32] >> i % 32 & 1, code[i / width] >> i % width & 1);
        assert_int_equal(*behind, 0xa5a5a5a5u);
        tile_unpack(&tile, words, width, got);
        assert_memory_equal(got, code, sizeof(code));
        for (uint32_t i = 0; i < TILE; i++)
            assert_int_equal(code_at(words, i, width), code[i]);
    }
}

/* Four workers of 6e4: decoded before they are added up (horovod#1699). */
static void halves_do_not_overflow_in_a_sum(void **state)
{
    const size_t n = 1;
    const float x[] = {6e4f, 6e4f, 6e4f, 6e4f};
    struct lab lab;

    lab_open(&lab, &(struct lab_spec){.device = device,
                                      .compressor = compressor_find("none"),
                                      .quantiser = quantiser_find("fp16"),
                                      .memory = memory_find("residual"),
                                      .n = &n,
                                      .tensors = 1,
                                      .workers = 4,
                                      .ratio = 1});
    lab_step(&lab, x);
    require_near(&lab, "sum", lab.sum, (const float[]){4 * 6e4f}, 1);
    lab_close(&lab);
    begin(&lab, "none", "fp16", "residual", eight, 1);
    lab_step(&lab, g1);
    for (size_t i = 0; i < 8; i++) {
        float *kept = lab_download(&lab, lab.slab[0], 1);

        assert_true(kept[i] == g1[i] - half_float(float_half(g1[i])));
        free(kept);
    }
    lab_close(&lab);
}

/* A message by hand: 4 of 8 values as signs, then the same as levels. */
static void codes_are_packed_as_told(void **state)
{
    const float signs[] = {4, -4, -4, 4, 4, 4, 4, -4};
    const uint8_t want[] = {0, 0, 0x80, 0x40, 0x79}; /* 4.0f; bits 10011110, the first lowest */
    const float levels[] = {1, 0, -1, 0, 0, 0, 0, 1};
    const uint8_t ternary[] = {0, 0, 0x80, 0x3f, 0x31, 0x40};
    struct packet p;
    struct lab lab;
    uint8_t *bytes;

    begin(&lab, "none", "efsignsgd", "none", eight, 1);
    lab_step(&lab, signs);
    packet_download(&p, &lab.message, &lab.layout, 0);
    assert_int_equal(packet_pack(&p, ENCODING_RAW, &bytes), sizeof(want));
    assert_memory_equal(bytes, want, sizeof(want));
    free(bytes);
    packet_free(&p);
    lab_close(&lab);
    begin_with(&lab, "none", "terngrad", "none", eight, 1, (const double[]){0, 0});
    lab_step(&lab, levels);
    packet_download(&p, &lab.message, &lab.layout, 0);
    assert_int_equal(packet_pack(&p, ENCODING_RAW, &bytes), sizeof(ternary));
    assert_memory_equal(bytes, ternary, sizeof(ternary));
    bytes[4] |= 0x08; /* the second value: a level 0 with a sign, which nobody sends */
    assert_false(packet_unpack(&p, ENCODING_RAW, bytes, sizeof(ternary), &(struct error){""}));
    free(bytes);
    packet_free(&p);
    lab_close(&lab);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(efsignsgd_is_as_computed_by_hand),
        cmocka_unit_test(efsign_of_the_largest_is_as_computed_by_hand),
        cmocka_unit_test(zero_has_the_sign_plus),
        cmocka_unit_test(a_vote_is_plus_or_minus_one),
        cmocka_unit_test(terngrad_is_as_computed_by_hand),
        cmocka_unit_test(terngrad_sends_equal_values),
        cmocka_unit_test(natural_is_as_computed_by_hand),
        cmocka_unit_test(natural_of_what_is_not_finite),
        cmocka_unit_test(natural_is_the_slow_one),
        cmocka_unit_test(qsgd_is_the_slow_one),
        cmocka_unit_test(halves_round_to_the_nearest),
        cmocka_unit_test(bfloats_round_to_the_nearest),
        cmocka_unit_test(halves_do_not_overflow_in_a_sum),
        cmocka_unit_test(codes_are_packed_as_told),
        cmocka_unit_test(powers_are_packed_as_told),
        cmocka_unit_test(codes_of_any_width_are_packed),
    };
    int failed = 0;

    for (const char *const *d = harness_devices(); *d != NULL; d++) {
        device = *d;
        failed += cmocka_run_group_tests_name(device, tests, NULL, NULL);
    }
    return failed;
}

/*
 * test_kernel -- what kernels are made of: random numbers, sums in one order, exp and its kin.
 */
#include "tests/harness.h"

#include "sim/exactmath.h"
#include "sim/layout.h"
#include "sim/rng.h"

#include <float.h>
#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

static const char *device_name = "cpu";

/* Guard and recording are the CPU: what takes long runs there only once. */
static bool is_a_copy_of_the_cpu(void)
{
    return strcmp(device_name, "guard") == 0 || strcmp(device_name, "recording") == 0;
}

static void require_block(struct rng_block got, const uint32_t want[4])
{
    for (int i = 0; i < 4; i++)
        assert_int_equal(got.word[i], want[i]);
}

/* Random123's kat_vectors; use 0 leaves the key as it is. */
static void philox_gives_the_known_answers(void **state)
{
    const uint32_t ones = UINT32_MAX;

    require_block(rng_block(0, 0, 0, 0, 0, 0),
                  (uint32_t[]){0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
    require_block(rng_block(UINT64_MAX, 0, ones, ones, ones, ones),
                  (uint32_t[]){0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
    require_block(rng_block(0x299f31d0a4093822, 0, 0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344),
                  (uint32_t[]){0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

static void a_use_is_mixed_into_the_top_of_the_key(void **state)
{
    struct rng_block mixed = rng_block(0x00ffffffffffffff, RNG_DROPOUT, 1, 2, 3, 4);
    struct rng_block plain = rng_block(0x02ffffffffffffff, 0, 1, 2, 3, 4);

    require_block(mixed, plain.word);
}

static void streams_of_one_seed_differ(void **state)
{
    for (uint32_t use = RNG_INITIAL_WEIGHTS; use <= RNG_TEST; use++) {
        for (uint32_t other = RNG_INITIAL_WEIGHTS; other < use; other++) {
            struct rng_block a = rng_block(7, use, 0, 0, 0, 0);
            struct rng_block b = rng_block(7, other, 0, 0, 0, 0);

            assert_memory_not_equal(&a, &b, sizeof(a));
        }
    }
}

static void uniform_numbers_are_0_to_just_below_1(void **state)
{
    double sum = 0;
    int n = 40000;

    assert_true(rng_uniform(0) == 0);
    assert_true(rng_uniform(255) == 0);
    assert_true(rng_uniform(256) == 0x1p-24f);
    assert_true(rng_uniform(UINT32_MAX) == 1 - 0x1p-24f);
    for (int i = 0; i < n; i++)
        sum += (double)rng_uniform(rng_block(3, RNG_TEST, (uint32_t)i, 0, 0, 0).word[i % 4]);
    assert_true(fabs(sum / n - 0.5) < 4 * sqrt(1.0 / 12 / n));
}

/* devices.md 2: lane l adds its elements l, l + 32, ..., l + 224; then halves of lanes. */
static double slow_tile_sum(const double v[TILE])
{
    double lane[32];

    for (int l = 0; l < 32; l++) {
        lane[l] = v[l];
        for (int row = 1; row < 8; row++)
            lane[l] = lane[l] + v[32 * row + l];
    }
    for (int l = 0; l < 16; l++)
        lane[l] = lane[l] + lane[16 + l];
    for (int l = 0; l < 8; l++)
        lane[l] = lane[l] + lane[8 + l];
    for (int l = 0; l < 4; l++)
        lane[l] = lane[l] + lane[4 + l];
    lane[0] = lane[0] + lane[2];
    lane[1] = lane[1] + lane[3];
    return lane[0] + lane[1];
}

/* Of a tensor, or of the sums of its tiles, and so on up; padded with zeros. */
static double slow_sum(const double *v, size_t n)
{
    size_t tiles = n > TILE ? (n + TILE - 1) / TILE : 1;
    double *sums = allocate(tiles, sizeof(*sums));
    double result;

    for (size_t t = 0; t < tiles; t++) {
        size_t left = n - t * TILE;
        double tile[TILE] = {0};

        memcpy(tile, v + t * TILE, (left < TILE ? left : TILE) * sizeof(*tile));
        sums[t] = slow_tile_sum(tile);
    }
    result = tiles > 1 ? slow_sum(sums, tiles) : sums[0];
    free(sums);
    return result;
}

/* Of very different sizes, so that another order gives other bits. */
static void hostile_floats(uint64_t seed, float *x, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct rng_block draw = rng_block(seed, RNG_TEST, (uint32_t)i, 2, 0, 0);

        x[i] = ldexpf(2 * rng_uniform(draw.word[0]) - 1, (int)(draw.word[1] % 40) - 20);
    }
}

static void a_tile_is_summed_by_lanes_and_halves(void **state)
{
    float x[TILE];
    double v[TILE];
    double in_order = 0;
    unsigned other = 0;

    for (uint64_t seed = 0; seed < 100; seed++) {
        hostile_floats(seed, x, TILE);
        in_order = 0;
        for (int i = 0; i < TILE; i++) {
            v[i] = (double)x[i] / 3;
            in_order += v[i];
        }
        assert_true(tile_sum(v) == slow_tile_sum(v));
        other += tile_sum(v) != in_order;
    }
    assert_true(other > 50 && "these values tell orders apart");
}

static void a_tile_counts_ranks_adds_and_has_a_largest(void **state)
{
    struct tile t = {0};
    uint32_t flag[TILE], rank[TILE], size[TILE];
    uint32_t before = 0;
    uint32_t max = 0;
    uint32_t total = 0;

    for (uint32_t i = 0; i < TILE; i++) {
        struct rng_block draw = rng_block(5, RNG_TEST, i, 0, 0, 0);

        flag[i] = draw.word[0] % 3 == 0;
        size[i] = draw.word[1];
        max = size[i] > max ? size[i] : max;
        total += size[i];
    }
    tile_rank(&t, flag, rank);
    for (uint32_t i = 0; i < TILE; i++) {
        assert_int_equal(rank[i], before);
        before += flag[i];
    }
    assert_int_equal(tile_count(flag), before);
    assert_int_equal(tile_max(size), max);
    assert_int_equal(tile_total(size), total);
}

static void a_number_is_so_many_bits_wide(void **state)
{
    assert_int_equal(bit_width(0), 0);
    for (uint32_t b = 0; b < 32; b++) {
        assert_int_equal(bit_width(1u << b), b + 1);
        assert_int_equal(bit_width((1u << b) | ((1u << b) - 1)), b + 1);
    }
}

static void sizes_of_floats_order_as_integers(void **state)
{
    const float rising[] = {0, 1e-45f, 1e-40f, FLT_MIN, 0.5f, 1, 2, 3e38f, INFINITY, NAN};

    assert_int_equal(float_size(-0.0f), 0);
    for (size_t i = 0; i < ARRAY_LENGTH(rising); i++) {
        assert_int_equal(float_size(-rising[i]), float_size(rising[i]));
        if (i > 0)
            assert_true(float_size(rising[i]) > float_size(rising[i - 1]));
    }
}

static void a_layout_is_as_it_was_described(void **state)
{
    const size_t n[] = {300, 1, 256, 600};
    struct device dev;
    struct layout described, l;

    harness_open(&dev, "cpu");
    layout_describe(&described, n, 4);
    layout_create(&l, &dev, n, 4, 0);
    assert_int_equal(described.length, l.length);
    assert_int_equal(described.elements, 1157);
    assert_int_equal(l.elements, 1157);
    assert_int_equal(l.tiles.stride, l.length);
    assert_memory_equal(described.n, n, sizeof(n));
    assert_memory_equal(described.at, l.at, sizeof(n));
    layout_destroy(&described);
    layout_destroy(&l);
    device_close(&dev);
}

static void tiles_know_their_places(void **state)
{
    struct device dev;
    struct layout l;
    struct tile t;

    harness_open(&dev, "cpu");
    layout_create(&l, &dev, (size_t[]){300, 1, 600}, 3, 2048);
    assert_int_equal(l.length, (2 + 1 + 3) * TILE);
    assert_int_equal(l.elements, 901);
    assert_int_equal(l.at[2], 3 * TILE);
    t = tile_of(&l.tiles, 3, 5);
    assert_int_equal(t.worker, 3);
    assert_int_equal(t.tensor, 2);
    assert_int_equal(t.live, 600 - 512);
    assert_int_equal(t.place, 5 * TILE);
    assert_int_equal(t.at, 3 * 2048 + 5 * TILE);
    assert_int_equal(t.begin, 2 * TILE);
    assert_int_equal(t.scalar, 3 * 3 + 2);
    assert_true(tile_live(&t, 87) && !tile_live(&t, 88));
    layout_destroy(&l);
    device_close(&dev);
}

/* What layout.h does, spelt out: x of every worker, and the sums asked of it. */
struct sums {
    const size_t *n;
    uint32_t count, workers;
    double *tensor; /* [workers][count] */
    double *worker; /* [workers] */
};

/* The device's sums of squares; whatever lies in scratch and in the room between is poison. */
static void device_sums(struct device *dev, const struct layout *l, const struct sums *s,
                        const double *results, double *tensor, double *worker)
{
    size_t pairs = (size_t)s->workers * s->count;
    size_t bytes = s->workers * l->tiles.up_stride * sizeof(double);
    double *in = device_alloc(dev, bytes);
    double *sums = device_alloc(dev, pairs * sizeof(*sums));
    double *out = device_alloc(dev, s->workers * sizeof(*out));
    double *poison = allocate(s->workers * l->tiles.up_stride, sizeof(*poison));

    for (size_t i = 0; i < s->workers * l->tiles.up_stride; i++)
        poison[i] = (double)NAN;
    device_scratch_reset(dev);
    for (int i = 0; i < 4; i++)
        device_upload(dev, device_scratch(dev, bytes), poison, bytes);
    device_scratch_reset(dev);
    device_upload(dev, in, results, bytes);
    layout_tensor_sums(l, s->workers, in, sums);
    layout_worker_sums(l, s->workers, sums, out);
    device_download(dev, tensor, sums, pairs * sizeof(*sums));
    device_download(dev, worker, out, s->workers * sizeof(*out));
    device_free(dev, in, bytes);
    device_free(dev, sums, pairs * sizeof(*sums));
    device_free(dev, out, s->workers * sizeof(*out));
    free(poison);
}

/* Where tile kernels would have put the results of tiles: [workers][up_stride], poison between. */
static double *results_of_tiles(const struct layout *l, const struct sums *s)
{
    double *results = allocate(s->workers * l->tiles.up_stride, sizeof(*results));
    float *x;

    for (size_t i = 0; i < s->workers * l->tiles.up_stride; i++)
        results[i] = (double)NAN;
    for (uint32_t w = 0; w < s->workers; w++) {
        size_t at = w * l->tiles.up_stride;

        for (uint32_t i = 0; i < s->count; i++) {
            size_t tiles = s->n[i] > TILE ? (s->n[i] + TILE - 1) / TILE : 1;

            x = allocate(tiles, sizeof(*x));
            hostile_floats(w * 1000 + i, x, tiles);
            for (size_t t = 0; t < tiles; t++)
                results[at + t] = (double)x[t] / 7;
            s->tensor[w * s->count + i] = slow_sum(results + at, tiles);
            at += l->levels > 0 ? (tiles + TILE - 1) / TILE * TILE : 1;
            free(x);
        }
        s->worker[w] = slow_sum(s->tensor + (size_t)w * s->count, s->count);
    }
    return results;
}

/* Sums over results that are already there, and on 1 thread as on 2. */
static void check_sums(const size_t *n, uint32_t count, uint32_t workers)
{
    struct device dev;
    struct layout l;
    size_t pairs = (size_t)workers * count;
    struct sums s = {n, count, workers, allocate(pairs, sizeof(double)),
                     allocate(workers, sizeof(double))};
    double *tensor = allocate(pairs, sizeof(*tensor));
    double *worker = allocate(workers, sizeof(*worker));
    double *results;

    harness_open(&dev, device_name);
    layout_create(&l, &dev, n, count, 0);
    results = results_of_tiles(&l, &s);
    for (int threads = 1; threads <= 2; threads++) {
        omp_set_num_threads(threads);
        device_sums(&dev, &l, &s, results, tensor, worker);
        assert_memory_equal(tensor, s.tensor, pairs * sizeof(*tensor));
        assert_memory_equal(worker, s.worker, workers * sizeof(*worker));
    }
    layout_destroy(&l);
    device_close(&dev);
    free(s.tensor);
    free(s.worker);
    free(tensor);
    free(worker);
    free(results);
}

static void tensors_and_workers_are_summed_level_by_level(void **state)
{
    check_sums((size_t[]){1}, 1, 1);
    check_sums((size_t[]){1, 255, 256}, 3, 4);
    check_sums((size_t[]){257}, 1, 2);
    check_sums((size_t[]){65536, 1, 255, 256, 257, 65537, 9999}, 7, 3);
}

static void a_tensor_of_twenty_million_is_summed_in_four_levels(void **state)
{
    struct device dev;
    struct layout l;

    if (is_a_copy_of_the_cpu())
        return;
    harness_open(&dev, device_name);
    layout_create(&l, &dev, (size_t[]){20000000}, 1, 0);
    assert_int_equal(l.levels, 3);
    layout_destroy(&l);
    device_close(&dev);
    check_sums((size_t[]){1, 20000000, 256}, 3, 1);
}

static void more_than_a_tile_of_tensors_are_summed_in_two_levels(void **state)
{
    const uint32_t counts[] = {255, 256, 257, 3000};
    size_t n[3000];

    for (size_t i = 0; i < ARRAY_LENGTH(n); i++)
        n[i] = i % 7 == 0 ? 300 + i : 1 + i % 250;
    for (size_t i = 0; i < ARRAY_LENGTH(counts); i++)
        check_sums(n, counts[i], 2);
    for (size_t i = 0; i < ARRAY_LENGTH(n); i++)
        n[i] = 1 + i % 250;
    check_sums(n, 3000, 2);
}

/* Workers' slabs of which the layout sees a prefix; behind it lies poison. */
static float *poisoned_slabs(const struct layout *l, uint32_t workers, double *want)
{
    float *x = allocate(workers * l->tiles.stride, sizeof(*x));
    double *tensor = allocate(l->count, sizeof(*tensor));

    for (uint32_t w = 0; w < workers; w++) {
        float *slab = x + w * l->tiles.stride;

        for (uint32_t i = 0; i < l->count; i++) {
            double *squares = allocate(l->n[i], sizeof(*squares));

            hostile_floats(w * 31 + i, slab + l->at[i], l->n[i]);
            for (size_t e = 0; e < l->n[i]; e++)
                squares[e] = (double)slab[l->at[i] + e] * (double)slab[l->at[i] + e];
            tensor[i] = slow_sum(squares, l->n[i]);
            free(squares);
        }
        for (size_t e = l->length; e < l->tiles.stride; e++)
            slab[e] = NAN;
        want[w] = slow_sum(tensor, l->count);
    }
    free(tensor);
    return x;
}

static void check_squares(const size_t *n, uint32_t count, uint32_t workers, size_t stride)
{
    struct device dev;
    struct layout l;
    double want[8], got[8];
    float *x, *slabs;
    double *out;
    size_t bytes;

    harness_open(&dev, device_name);
    layout_create(&l, &dev, n, count, stride);
    x = poisoned_slabs(&l, workers, want);
    bytes = workers * l.tiles.stride * sizeof(*x);
    slabs = device_alloc(&dev, bytes);
    out = device_alloc(&dev, workers * sizeof(*out));
    device_upload(&dev, slabs, x, bytes);
    for (int threads = 1; threads <= 2; threads++) {
        omp_set_num_threads(threads);
        device_scratch_reset(&dev);
        layout_squares(&l, workers, slabs, out);
        device_download(&dev, got, out, workers * sizeof(*out));
        assert_memory_equal(got, want, workers * sizeof(*got));
    }
    device_free(&dev, slabs, bytes);
    device_free(&dev, out, workers * sizeof(*out));
    layout_destroy(&l);
    device_close(&dev);
    free(x);
}

static void squares_of_workers_are_summed_in_the_same_order(void **state)
{
    size_t n[300];

    for (size_t i = 0; i < ARRAY_LENGTH(n); i++)
        n[i] = 1 + i * i % 700;
    check_squares((size_t[]){1}, 1, 1, 0);
    check_squares((size_t[]){255, 256, 257, 70000}, 4, 3, 72192);
    check_squares(n, 300, 2, (size_t)900 * TILE);
}

/* 3 bytes of padding behind the first field and 7 behind the last. */
struct holes {
    uint8_t small;
    uint32_t word;
    double *place;
    uint8_t last;
};

KERNEL(holes)
{
    a->place[i] = a->word;
}

static unsigned char launched[sizeof(struct holes)];

static void catch_run(struct device *dev, struct kernel *k, size_t n, const void *args)
{
    memcpy(launched, args, k->args_bytes);
}

static __attribute__((noinline)) void dirty_the_stack(void)
{
    volatile unsigned char dirt[4096];

    for (size_t i = 0; i < sizeof(dirt); i++)
        dirt[i] = 0xa5;
}

static __attribute__((noinline)) void launch_with_holes(struct device *dev, double *place)
{
    LAUNCH(dev, holes, 1, .small = 0xff, .word = UINT32_MAX, .place = place, .last = 0xff);
}

static void a_launch_zeroes_the_padding_of_its_arguments(void **state)
{
    const struct device_ops ops = {.run = catch_run};
    struct device dev = {.ops = &ops};
    double *place = &(double){0};
    unsigned char want[sizeof(struct holes)] = {0};

    assert_int_equal(sizeof(struct holes), 24);
    memset(want, 0xff, 1);
    memset(want + offsetof(struct holes, word), 0xff, 4);
    memcpy(want + offsetof(struct holes, place), &place, sizeof(place));
    memset(want + offsetof(struct holes, last), 0xff, 1);
    dirty_the_stack();
    launch_with_holes(&dev, place);
    assert_memory_equal(launched, want, sizeof(want));
    holes_kernel.cpu(launched, 1);
    assert_true(*place == (double)UINT32_MAX);
}

/* |got - want| in units of the last place of a float of want's size. */
static double ulps(float got, double want)
{
    int exponent;

    frexp(want, &exponent);
    return fabs((double)got - want) / ldexp(1, (exponent < -125 ? -125 : exponent) - 24);
}

struct function {
    float (*exact)(float x);
    double (*libm)(double x);
    float above, below; /* the bound is claimed for above < x < below */
    double ulps;
};

static double logistic(double x)
{
    return 1 / (1 + exp(-x));
}

/* One of every 1021 floats, so of every exponent 8000. */
static void check_function(const struct function *f)
{
    double worst = 0;

#pragma omp parallel for reduction(max : worst)
    for (uint32_t i = 0; i < UINT32_MAX / 1021; i++) {
        float x = bits_float(i * 1021);
        double off;

        if (!(x > f->above && x < f->below))
            continue;
        off = ulps(f->exact(x), f->libm((double)x));
        worst = off > worst ? off : worst;
    }
    if (!(worst <= f->ulps && worst > f->ulps / 4))
        fail_msg("%.3f ulp, claimed are %.3f", worst, f->ulps);
}

static void exp_is_within_its_claimed_error(void **state)
{
    check_function(&(struct function){exact_exp, exp, -87.3f, 88.3f, 1.05});
}

static void sigmoid_is_within_its_claimed_error(void **state)
{
    check_function(&(struct function){exact_sigmoid, logistic, -87.3f, INFINITY, 2.49});
}

static void tanh_is_within_its_claimed_error(void **state)
{
    check_function(&(struct function){exact_tanh, tanh, -INFINITY, INFINITY, 1.34});
}

static void exp_of_special_values(void **state)
{
    const float one[] = {0, -0.0f, 1e-45f, -1e-45f, FLT_MIN / 2, -FLT_MIN / 2};
    const float none[] = {-87.3f, -88, -104, -1e30f, -INFINITY};
    const float most[] = {88.3f, 88.8f, 104, 1e30f, INFINITY};

    for (size_t i = 0; i < ARRAY_LENGTH(one); i++)
        assert_true(exact_exp(one[i]) == 1);
    for (size_t i = 0; i < ARRAY_LENGTH(none); i++)
        assert_true(exact_exp(none[i]) == 0);
    for (size_t i = 0; i < ARRAY_LENGTH(most); i++)
        assert_true(exact_exp(most[i]) == exact_exp(88.3f));
    assert_true(ulps(exact_exp(88), exp(88)) <= 1.05);
    assert_true(isnan(exact_exp(NAN)) && isnan(exact_exp(-NAN)));
    assert_true(exact_exp(nextafterf(-87.3f, 0)) >= FLT_MIN);
}

static void sigmoid_of_special_values(void **state)
{
    const float half[] = {0, -0.0f, 1e-45f, -1e-45f, FLT_MIN / 2};
    const float low[] = {-88, -88.3f, -104, -1e30f, -INFINITY};
    const float high[] = {88, 104, 1e30f, INFINITY};

    for (size_t i = 0; i < ARRAY_LENGTH(half); i++)
        assert_true(exact_sigmoid(half[i]) == 0.5f);
    for (size_t i = 0; i < ARRAY_LENGTH(low); i++)
        assert_true(exact_sigmoid(low[i]) >= 0 && exact_sigmoid(low[i]) < 2 * FLT_MIN);
    for (size_t i = 0; i < ARRAY_LENGTH(high); i++)
        assert_true(exact_sigmoid(high[i]) == 1);
    assert_true(isnan(exact_sigmoid(NAN)));
}

static void tanh_of_special_values(void **state)
{
    const float itself[] = {0, 1e-45f, 1e-40f, FLT_MIN, 1e-10f, 1e-5f};
    const float high[] = {10, 44, 88, 104, 1e30f, INFINITY};

    for (size_t i = 0; i < ARRAY_LENGTH(itself); i++) {
        assert_true(exact_tanh(itself[i]) == itself[i]);
        assert_true(exact_tanh(-itself[i]) == -itself[i]);
    }
    for (size_t i = 0; i < ARRAY_LENGTH(high); i++) {
        assert_true(exact_tanh(high[i]) == 1);
        assert_true(exact_tanh(-high[i]) == -1);
    }
    assert_true(isnan(exact_tanh(NAN)));
}

static void the_seam_of_tanh_is_smooth(void **state)
{
    float x = 0.625f;

    for (int i = 0; i < 1000; i++)
        x = nextafterf(x, 0);
    for (int i = 0; i < 2000; i++, x = nextafterf(x, 1))
        assert_true(ulps(exact_tanh(x), tanh((double)x)) <= 1.34);
}

static int run_once(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(philox_gives_the_known_answers),
        cmocka_unit_test(a_use_is_mixed_into_the_top_of_the_key),
        cmocka_unit_test(streams_of_one_seed_differ),
        cmocka_unit_test(uniform_numbers_are_0_to_just_below_1),
        cmocka_unit_test(a_tile_is_summed_by_lanes_and_halves),
        cmocka_unit_test(a_tile_counts_ranks_adds_and_has_a_largest),
        cmocka_unit_test(a_number_is_so_many_bits_wide),
        cmocka_unit_test(sizes_of_floats_order_as_integers),
        cmocka_unit_test(a_layout_is_as_it_was_described),
        cmocka_unit_test(tiles_know_their_places),
        cmocka_unit_test(a_launch_zeroes_the_padding_of_its_arguments),
        cmocka_unit_test(exp_is_within_its_claimed_error),
        cmocka_unit_test(sigmoid_is_within_its_claimed_error),
        cmocka_unit_test(tanh_is_within_its_claimed_error),
        cmocka_unit_test(exp_of_special_values),
        cmocka_unit_test(sigmoid_of_special_values),
        cmocka_unit_test(tanh_of_special_values),
        cmocka_unit_test(the_seam_of_tanh_is_smooth),
    };

    return cmocka_run_group_tests_name("host", tests, NULL, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tensors_and_workers_are_summed_level_by_level),
        cmocka_unit_test(a_tensor_of_twenty_million_is_summed_in_four_levels),
        cmocka_unit_test(more_than_a_tile_of_tensors_are_summed_in_two_levels),
        cmocka_unit_test(squares_of_workers_are_summed_in_the_same_order),
    };
    int failed = run_once();

    for (const char *const *d = harness_devices(); *d != NULL; d++) {
        device_name = *d;
        failed += cmocka_run_group_tests_name(device_name, tests, NULL, NULL);
    }
    return failed;
}

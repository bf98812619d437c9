/*
 * test_selectors -- methods that choose entries otherwise than the largest: vectors computed by
 * hand, and each against a slow, obvious version.  The laws are in test_compressors.c.
 */
#include "tests/lab.h"

#include "compressors/sparse.h"
#include "sim/rng.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char *device;

static const size_t eight[] = {8};
static const float g1[] = {.50f, -.11f, .31f, -.83f, .07f, .02f, -.23f, .42f};
static const float g2[] = {-.13f, .19f, .36f, .12f, -.05f, .61f, -.27f, .03f};

#define SOME 3 /* settings that a test gives */

/* A compressor with some of its settings; what is left has a NULL name. */
struct how {
    const char *compressor, *quantiser, *memory;
    double ratio;
    struct {
        const char *name;
        double value;
    } setting[SOME];
};

static void begin(struct lab *lab, const struct how *how, const size_t *n, uint32_t tensors,
                  uint32_t workers)
{
    const struct compressor *c = compressor_find(how->compressor);
    double settings[SETTINGS_MOST];

    for (size_t i = 0; i < setting_count(c->settings); i++)
        settings[i] = c->settings[i].initial;
    for (int i = 0; i < SOME && how->setting[i].name != NULL; i++) {
        int at = setting_find(c->settings, how->setting[i].name);

        assert_true(at >= 0);
        settings[at] = how->setting[i].value;
    }
    lab_open(lab, &(struct lab_spec){.device = device,
                                     .compressor = c,
                                     .quantiser = quantiser_find(how->quantiser),
                                     .memory = memory_find(how->memory),
                                     .n = n,
                                     .tensors = tensors,
                                     .workers = workers,
                                     .ratio = how->ratio > 0 ? how->ratio : 1,
                                     .settings = settings});
}

static double setting_of(const struct lab *lab, const char *name)
{
    return lab->setting[setting_find(lab->spec.compressor->settings, name)];
}

/* What a message should be: of one tensor of one worker, n elements that are sent or not. */
struct expected {
    size_t n;
    bool *sent;
    float *value;
};

/* The slow version: x is wanted, g the gradient. */
typedef void slow(const struct lab *lab, uint32_t worker, uint32_t tensor, const float *x,
                  const float *g, struct expected *e);

static void require_tensor(const struct packet *p, uint32_t t, const struct expected *e,
                           double tolerance)
{
    uint32_t entry = 0;

    for (size_t i = 0; i < e->n; i++) {
        float value;

        if (!e->sent[i])
            continue;
        if (entry == p->count[t] || p->index[p->begin[t] + entry] != i)
            fail_msg("tensor %u of %zu: element %zu is missing", t, e->n, i);
        value = p->value[p->begin[t] + entry++];
        if (!(fabs((double)value - (double)e->value[i]) <= tolerance * fabs((double)e->value[i])))
            fail_msg("tensor %u of %zu: element %zu is %.9g, not %.9g", t, e->n, i, (double)value,
                     (double)e->value[i]);
    }
    if (entry != p->count[t])
        fail_msg("tensor %u of %zu: %u entries, not %u", t, e->n, p->count[t], entry);
}

static void require_message(struct lab *lab, slow *version, double tolerance)
{
    float *wanted = lab_download(lab, lab->wanted, lab->spec.workers);
    float *grad = lab_download(lab, lab->grad, lab->spec.workers);

    for (uint32_t w = 0; w < lab->spec.workers; w++) {
        struct packet p;

        packet_download(&p, &lab->message, &lab->layout, w);
        for (uint32_t t = 0; t < p.tensors; t++) {
            struct expected e = {.n = p.n[t],
                                 .sent = allocate(p.n[t], sizeof(*e.sent)),
                                 .value = allocate(p.n[t], sizeof(*e.value))};
            size_t at = lab_place(lab, w, t, 0);

            version(lab, w, t, wanted + at, grad + at, &e);
            require_tensor(&p, t, &e, tolerance);
            free(e.sent);
            free(e.value);
        }
        packet_free(&p);
    }
    free(wanted);
    free(grad);
}

enum fill { SMOOTH, TIES, ALIKE, SPARSE, ZEROS, FILLS };

static float *gradients(const struct lab *lab, enum fill how, uint64_t seed)
{
    size_t n = lab->spec.workers * lab->layout.elements;
    float *x = allocate(n, sizeof(*x));

    harness_floats(seed, x, n);
    for (size_t i = 0; i < n; i++) {
        if (how == TIES)
            x[i] = truncf(4 * x[i]) / 4;
        else if (how == ALIKE)
            x[i] = .5f;
        else if (how == SPARSE)
            x[i] = i % 97 == 0 ? x[i] : 0;
        else if (how == ZEROS)
            x[i] = i % 2 == 0 ? 0.0f : -0.0f;
    }
    return x;
}

/* Several sizes, kinds of gradients and steps. */
static void compare(const struct how *how, slow *version, double tolerance)
{
    const size_t n[] = {1, 7, 128, 129, 256, 1000, 40000};
    struct lab lab;

    begin(&lab, how, n, ARRAY_LENGTH(n), 2);
    for (uint64_t step = 0; step < (uint64_t)2 * FILLS; step++) {
        float *x = gradients(&lab, step % FILLS, step);

        lab.step.number = step;
        lab_begin(&lab, x);
        lab_enter(&lab, 0, 2);
        lab_compensate(&lab);
        lab_encode(&lab);
        require_message(&lab, version, tolerance);
        lab_update(&lab);
        free(x);
    }
    lab_close(&lab);
}

/* ---- randomk ---- */

struct keyed {
    uint32_t key, place;
};

static int by_key(const void *a, const void *b)
{
    const struct keyed *x = a;
    const struct keyed *y = b;

    if (x->key != y->key)
        return x->key > y->key ? -1 : 1;
    return x->place < y->place ? -1 : 1;
}

/* The k largest of n keys; entry e of a tensor has word e / 64 % 4 of a block for every four. */
static void slow_randomk(const struct lab *lab, uint32_t worker, uint32_t tensor, const float *x,
                         const float *g, struct expected *e)
{
    struct keyed *entry = allocate(e->n, sizeof(*entry));
    size_t k = sparse_keep(e->n, lab->step.ratio);
    bool scaled = setting_of(lab, "scale") != 0 && lab->spec.memory->residual < 0;

    for (uint32_t i = 0; i < e->n; i++) {
        struct rng_block b = rng_block(lab->step.seed, RNG_SELECTION, i / TILE * 64 + i % 64, 0,
                                       tensor, (uint32_t)lab->step.number);

        entry[i] = (struct keyed){b.word[i % TILE / 64] >> 1, i};
    }
    qsort(entry, e->n, sizeof(*entry), by_key);
    for (size_t i = 0; i < k; i++) {
        uint32_t at = entry[i].place;

        e->sent[at] = true;
        e->value[at] = scaled ? (float)((double)e->n / (double)k) * x[at] : x[at];
    }
    free(entry);
}

static void randomk_is_the_slow_one(void **state)
{
    compare(&(struct how){"randomk", "", "none", .01, {{NULL, 0}}}, slow_randomk, 0);
    compare(&(struct how){"randomk", "", "none", .3, {{"scale", 0}}}, slow_randomk, 0);
    compare(&(struct how){"randomk", "", "residual", .01, {{NULL, 0}}}, slow_randomk, 0);
    compare(&(struct how){"randomk", "", "none", 1, {{NULL, 0}}}, slow_randomk, 0);
}

/* byteps#299, #395: 4 k bytes, no indices. */
static void randomk_sends_the_same_entries_for_all(void **state)
{
    const size_t n[] = {1, 1000, 3000};
    struct packet p, q;
    struct traffic total;
    uint64_t each[3];
    struct lab lab;
    float *x;

    begin(&lab, &(struct how){"randomk", "", "none", .1, {{NULL, 0}}}, n, 3, 3);
    x = gradients(&lab, SMOOTH, 1);
    lab_step(&lab, x);
    lab_weigh(&lab, ENCODING_RAW, &total, each);
    packet_download(&p, &lab.message, &lab.layout, 0);
    for (uint32_t w = 0; w < 3; w++) {
        assert_int_equal(each[w], 4 * (1 + 100 + 300));
        packet_download(&q, &lab.message, &lab.layout, w);
        for (uint32_t t = 0; t < 3; t++)
            assert_memory_equal(p.index + p.begin[t], q.index + q.begin[t],
                                p.count[t] * sizeof(*p.index));
        packet_free(&q);
    }
    lab.step.number++;
    lab_step(&lab, x);
    packet_download(&q, &lab.message, &lab.layout, 0);
    assert_memory_not_equal(p.index + p.begin[1], q.index + q.begin[1], 100 * sizeof(*p.index));
    packet_free(&q);
    packet_free(&p);
    free(x);
    lab_close(&lab);
}

/* Every entry as often as any other, and every pair. */
static void randomk_draws_uniformly(void **state)
{
    enum { N = 12, K = 3, DRAWS = 4000 };
    const size_t n = N;
    const double p = (double)K / N, pair = p * (K - 1) / (N - 1);
    int drawn[N] = {0}, both[N][N] = {{0}};
    float ones[N];
    struct lab lab;

    for (int i = 0; i < N; i++)
        ones[i] = 1;
    begin(&lab, &(struct how){"randomk", "", "none", .25, {{NULL, 0}}}, &n, 1, 1);
    for (unsigned draw = 0; draw < DRAWS; draw++) {
        float *x;

        lab.step.number = draw;
        lab_step(&lab, ones);
        x = lab_download(&lab, lab.sum, 1);
        for (int i = 0; i < N; i++) {
            assert_true(x[i] == 0 || x[i] == 4);
            drawn[i] += x[i] != 0;
            for (int j = 0; j < i; j++)
                both[i][j] += x[i] != 0 && x[j] != 0;
        }
        free(x);
    }
    for (int i = 0; i < N; i++) {
        assert_true(fabs(drawn[i] - DRAWS * p) <= 5 * sqrt(DRAWS * p * (1 - p)));
        for (int j = 0; j < i; j++)
            assert_true(fabs(both[i][j] - DRAWS * pair) <= 5 * sqrt(DRAWS * pair * (1 - pair)));
    }
    lab_close(&lab);
}

/* Scaled it would overshoot, and what is kept would grow from step to step. */
static void randomk_with_a_memory_loses_nothing_and_stays_small(void **state)
{
    const size_t n = 300;
    double sent = 0, came = 0, most = 0;
    struct lab lab;
    float *left;

    begin(&lab, &(struct how){"randomk", "", "residual", .1, {{NULL, 0}}}, &n, 1, 1);
    for (uint64_t step = 0; step < 200; step++) {
        float *x = gradients(&lab, SMOOTH, step);
        float *sum;

        lab.step.number = step;
        lab_step(&lab, x);
        sum = lab_download(&lab, lab.sum, 1);
        for (size_t i = 0; i < n; i++) {
            came += (double)x[i];
            sent += (double)sum[i];
        }
        free(sum);
        free(x);
    }
    left = lab_download(&lab, lab.slab[0], 1);
    for (size_t i = 0; i < n; i++) {
        sent += (double)left[i];
        most = fabs((double)left[i]) > most ? fabs((double)left[i]) : most;
    }
    assert_true(fabs(came - sent) < 1e-3);
    assert_true(most > 1 && most < 20);
    free(left);
    lab_close(&lab);
}

/* ---- slice ---- */

/* As the second reference has it: offsets add up. */
static void slow_slice(const struct lab *lab, uint32_t worker, uint32_t tensor, const float *x,
                       const float *g, struct expected *e)
{
    size_t length = (size_t)floor((double)e->n * lab->step.ratio) + 1;
    size_t offset = 0;

    if (e->n <= 128 || length > e->n)
        length = e->n;
    for (uint64_t step = 0; step < lab->step.number && length < e->n; step++)
        offset = offset + length > e->n ? length - (e->n - offset) : offset + length;
    for (size_t i = 0; i < length; i++) {
        size_t at = (offset + i) % e->n;

        e->sent[at] = true;
        e->value[at] = x[at];
    }
}

static void slice_is_the_slow_one(void **state)
{
    compare(&(struct how){"slice", "", "none", .1, {{NULL, 0}}}, slow_slice, 0);
    compare(&(struct how){"slice", "", "residual", .4, {{NULL, 0}}}, slow_slice, 0);
    compare(&(struct how){"slice", "", "dgc", .999, {{NULL, 0}}}, slow_slice, 0);
    compare(&(struct how){"slice", "", "none", 1, {{NULL, 0}}}, slow_slice, 0);
}

/* 129 elements in windows of 13: ten steps see all of them, and 4 bytes go for each. */
static void slice_comes_round(void **state)
{
    const size_t n[] = {129, 128};
    struct traffic total;
    uint64_t each;
    struct lab lab;
    float *x, *left;

    begin(&lab, &(struct how){"slice", "", "residual", .1, {{NULL, 0}}}, n, 2, 1);
    x = gradients(&lab, SMOOTH, 1);
    for (uint64_t step = 0; step < 10; step++) {
        lab.step.number = step;
        lab_step(&lab, x);
        lab_weigh(&lab, ENCODING_RAW, &total, &each);
        assert_int_equal(each, 4 * (13 + 128));
        memset(x, 0, 257 * sizeof(*x));
    }
    left = lab_download(&lab, lab.slab[0], 1);
    for (size_t i = 0; i < lab.layout.length; i++)
        assert_true(left[i] == 0);
    free(left);
    free(x);
    lab_close(&lab);
}

static void require_near(struct lab *lab, const char *what, const float *on_device,
                         const float *want)
{
    float *x = lab_download(lab, on_device, 1);

    for (size_t i = 0; i < 8; i++)
        if (!(fabsf(x[i] - want[i]) < 1e-5f))
            fail_msg("%s: element %zu is %g, not %g", what, i, (double)x[i], (double)want[i]);
    free(x);
}

/* Two steps of 8 elements with residual memory: what is decoded, and what is kept. */
static void two_steps(const struct how *how, const float want[4][8])
{
    struct lab lab;

    begin(&lab, how, eight, 1, 1);
    lab_step(&lab, g1);
    require_near(&lab, "sent in step 1", lab.sum, want[0]);
    require_near(&lab, "kept in step 1", lab.slab[0], want[1]);
    lab.step.number++;
    lab_step(&lab, g2);
    require_near(&lab, "sent in step 2", lab.sum, want[2]);
    require_near(&lab, "kept in step 2", lab.slab[0], want[3]);
    lab_close(&lab);
}

/* ---- threshold ---- */

static void slow_threshold(const struct lab *lab, uint32_t worker, uint32_t tensor, const float *x,
                           const float *g, struct expected *e)
{
    float tau = (float)setting_of(lab, "tau");

    for (size_t i = 0; i < e->n; i++) {
        e->sent[i] = fabsf(x[i]) >= tau;
        e->value[i] = setting_of(lab, "values") != 0 ? x[i] : copysignf(tau, x[i]);
    }
}

static void threshold_is_the_slow_one(void **state)
{
    compare(&(struct how){"threshold", "", "none", 0, {{"tau", .5}}}, slow_threshold, 0);
    compare(&(struct how){"threshold", "", "residual", 0, {{"tau", .75}}}, slow_threshold, 0);
    compare(&(struct how){"threshold", "", "residual", 0, {{"tau", .5}, {"values", 1}}},
            slow_threshold, 0);
    compare(&(struct how){"threshold", "", "none", 0, {{"tau", 2}}}, slow_threshold, 0);
    compare(&(struct how){"threshold", "", "none", 0, {{NULL, 0}}}, slow_threshold, 0);
}

static void threshold_is_as_computed_by_hand(void **state)
{
    const float want[4][8] = {
        {.4f, 0, 0, -.4f, 0, 0, 0, .4f},
        {.1f, -.11f, .31f, -.43f, .07f, .02f, -.23f, .02f},
        {0, 0, .4f, 0, 0, .4f, -.4f, 0},
        {-.03f, .08f, .27f, -.31f, .02f, .23f, -.1f, .05f},
    };

    two_steps(&(struct how){"threshold", "", "residual", 0, {{"tau", .4}}}, want);
    two_steps(&(struct how){"threshold", "efsignsgd", "residual", 0, {{"tau", .4}}}, want);
}

/* ---- adacomp ---- */

/* G, held to so many deviations, two passes over it. */
static float *slow_held(const float *x, size_t n, double sigmas)
{
    float *held = allocate(n, sizeof(*held));
    double mean = 0, variance = 0;
    float limit;

    for (size_t i = 0; i < n; i++)
        mean += (double)x[i] / (double)n;
    for (size_t i = 0; i < n; i++)
        variance += ((double)x[i] - mean) * ((double)x[i] - mean) / (double)n;
    limit = (float)(sigmas * sqrt(variance));
    for (size_t i = 0; i < n; i++)
        held[i] = variance > 0 && sigmas > 0 && fabsf(x[i]) > limit ? copysignf(limit, x[i]) : x[i];
    return held;
}

static void slow_adacomp(const struct lab *lab, uint32_t worker, uint32_t tensor, const float *x,
                         const float *g, struct expected *e)
{
    bool original = setting_of(lab, "original") != 0;
    size_t bin = original ? 0 : (size_t)setting_of(lab, "bin");
    float c = (float)setting_of(lab, "c");
    float *held = slow_held(x, e->n, setting_of(lab, "sigmas"));
    double sum = 0, bins = 0;

    bin = bin == 0 ? e->n : bin;
    for (size_t from = 0; from < e->n; from += bin, bins++) {
        float most = 0;

        for (size_t i = from; i < from + bin && i < e->n; i++)
            most = fabsf(held[i]) > most ? fabsf(held[i]) : most;
        for (size_t i = from; i < from + bin && i < e->n; i++) {
            float h = held[i] + c * g[i];

            e->sent[i] = most > 0 && fabsf(h) >= most;
            e->value[i] = original ? h : held[i];
        }
        sum += (double)most;
    }
    for (size_t i = 0; i < e->n && !original && setting_of(lab, "quantise") != 0; i++)
        e->value[i] = e->value[i] >= 0 ? (float)(sum / bins) : -(float)(sum / bins);
    free(held);
}

static void adacomp_is_the_slow_one(void **state)
{
    const double bins[] = {0, 1, 7, 50, 256, 500, 1000, 50000};

    for (size_t i = 0; i < ARRAY_LENGTH(bins); i++) {
        compare(&(struct how){"adacomp", "", "residual", 0, {{"bin", bins[i]}, {"quantise", 0}}},
                slow_adacomp, 0);
        compare(&(struct how){"adacomp", "", "residual", 0, {{"bin", bins[i]}, {"c", 2.35}}},
                slow_adacomp, 1e-6);
    }
    compare(&(struct how){"adacomp", "", "residual", 0, {{"original", 1}, {"c", 3}}}, slow_adacomp,
            0);
    compare(&(struct how){"adacomp", "", "none", 0, {{NULL, 0}}}, slow_adacomp, 1e-6);
    compare(&(struct how){"adacomp", "", "dgc", 0, {{NULL, 0}}}, slow_adacomp, 1e-6);
}

static void adacomp_holds_to_deviations_as_the_slow_one(void **state)
{
    compare(&(struct how){"adacomp", "", "residual", 0, {{"original", 1}, {"sigmas", 1}}},
            slow_adacomp, 1e-6);
    compare(&(struct how){"adacomp", "", "residual", 0, {{"bin", 50}, {"sigmas", 1.5}}},
            slow_adacomp, 1e-6);
}

static void adacomp_is_as_computed_by_hand(void **state)
{
    const float original[4][8] = {
        {1, 0, 0, -1.66f, 0, 0, 0, .84f},
        {-.5f, -.11f, .31f, .83f, .07f, .02f, -.23f, -.42f},
        {0, 0, 1.03f, 1.07f, 0, 1.24f, 0, 0},
        {-.63f, .08f, -.36f, -.12f, .02f, -.61f, -.5f, -.39f},
    };
    const float plain[4][8] = {
        {.5f, 0, 0, -.83f, 0, 0, 0, .42f},
        {0, -.11f, .31f, 0, .07f, .02f, -.23f, 0},
        {0, 0, .67f, 0, 0, .63f, -.5f, 0},
        {-.13f, .08f, 0, .12f, .02f, 0, 0, .03f},
    };

    two_steps(&(struct how){"adacomp", "", "residual", 0, {{"original", 1}}}, original);
    two_steps(&(struct how){"adacomp", "", "residual", 0, {{"bin", 0}, {"quantise", 0}}}, plain);
}

/* Bins of 4: their largest are .83 and .42, then .67 and .63; s is the mean. */
static void adacomp_in_bins_is_as_computed_by_hand(void **state)
{
    const float want[4][8] = {
        {.625f, 0, 0, -.625f, 0, 0, -.625f, .625f},
        {-.125f, -.11f, .31f, -.205f, .07f, .02f, .395f, -.205f},
        {0, 0, .65f, 0, 0, .65f, 0, 0},
        {-.255f, .08f, .02f, -.085f, .02f, -.02f, .125f, -.175f},
    };

    two_steps(&(struct how){"adacomp", "", "residual", 0, {{"bin", 4}}}, want);
    two_steps(&(struct how){"adacomp", "efsignsgd", "residual", 0, {{"bin", 4}}}, want);
}

static void efsignadacomp_is_as_computed_by_hand(void **state)
{
    const float m1 = 3.5f / 3, m2 = 1.06556f;
    const float want[4][8] = {
        {m1, 0, 0, -m1, 0, 0, 0, m1},
        {-.66667f, -.11f, .31f, .33667f, .07f, .02f, -.23f, -.74667f},
        {-m2, 0, m2, 0, 0, m2, 0, 0},
        {.26889f, .08f, -.39556f, .45667f, .02f, -.43556f, -.5f, -.71667f},
    };

    two_steps(&(struct how){"adacomp", "efsignsgd", "residual", 0, {{"original", 1}}}, want);
}

/* The mean of x is 1, its variance 7. */
static void adacomp2_loses_nothing_of_what_it_holds(void **state)
{
    const float x[8] = {8};
    const float deviation = 2.6457513f;
    const float want[8] = {deviation + 8}, left[8] = {-deviation};
    struct lab lab;

    begin(&lab, &(struct how){"adacomp", "", "residual", 0, {{"original", 1}, {"sigmas", 1}}},
          eight, 1, 1);
    lab_step(&lab, x);
    require_near(&lab, "sent", lab.sum, want);
    require_near(&lab, "kept", lab.slab[0], left);
    lab_close(&lab);
}

/* G is of one sign and the last gradient of the other: nobody reaches the largest. */
static void adacomp_may_send_nothing(void **state)
{
    float x[8] = {4, 3, 3, 3, 3, 3, 3, 3};
    struct traffic total;
    uint64_t each;
    struct lab lab;

    begin(&lab, &(struct how){"adacomp", "efsignsgd", "residual", 0, {{"quantise", 0}, {"c", 0}}},
          eight, 1, 1);
    lab_step(&lab, x);
    lab_weigh(&lab, ENCODING_RAW, &total, &each);
    assert_int_equal(each, 4 + 4 + 4 + 1); /* a count, an index, the scalar, a sign */
    lab_close(&lab);
    begin(&lab, &(struct how){"adacomp", "efsignsgd", "residual", 0, {{NULL, 0}}}, eight, 1, 1);
    lab_upload(&lab, lab.slab[0], x, 1);
    for (int i = 0; i < 8; i++)
        x[i] = -x[i] / 4;
    lab_step(&lab, x);
    lab_weigh(&lab, ENCODING_RAW, &total, &each);
    assert_int_equal(each, 4);
    lab_close(&lab);
}

/* One sample a step. */
static void variance_is_as_computed_by_hand(void **state)
{
    const float sent[8] = {0, 0, .67f, 0, 0, .63f, -.5f, .45f};
    const struct how how = {"variance", "", "none", 1, {{"zeta", .999}}};
    struct lab lab;
    float *sum, *r;

    begin(&lab, &how, eight, 1, 1);
    lab_step(&lab, g1);
    sum = lab_download(&lab, lab.sum, 1);
    for (int e = 0; e < 8; e++)
        assert_true(sum[e] == 0); /* r^2 = v */
    free(sum);
    lab_step(&lab, g2);
    sum = lab_download(&lab, lab.sum, 1);
    r = lab_download(&lab, lab.own[0], 1);
    for (int e = 0; e < 8; e++) {
        assert_true(fabsf(sum[e] - sent[e]) < 1e-6f);
        assert_true(fabsf(r[e] - (sent[e] != 0 ? 0 : g1[e] + g2[e])) < 1e-6f);
    }
    free(sum);
    free(r);
    lab_close(&lab);
}

/* Over steps, tensors and workers, with states of its own. */
static void variance_is_the_slow_one(void **state)
{
    enum { WORKERS = 2, N = 1305 };
    const size_t n[] = {1000, 5, 300};
    const struct how how = {"variance", "", "none", 1, {{"alpha", 1.5}, {"zeta", .9}}};
    float *r = allocate((size_t)WORKERS * N, sizeof(*r)),
          *v = allocate((size_t)WORKERS * N, sizeof(*v));
    float *x = allocate((size_t)WORKERS * N, sizeof(*x));
    struct lab lab;

    begin(&lab, &how, n, 3, WORKERS);
    for (unsigned step = 0; step < 6; step++) {
        float *sum;
        size_t at = 0;

        harness_floats(step, x, (size_t)WORKERS * N);
        lab_step(&lab, x);
        sum = lab_download(&lab, lab.sum, 1);
        for (uint32_t t = 0; t < 3; t++) {
            for (size_t i = 0; i < n[t]; i++, at++) {
                float want = 0;

                for (uint32_t w = 0; w < WORKERS; w++) {
                    size_t e = (size_t)w * N + at;

                    r[e] += x[e];
                    v[e] += x[e] * x[e];
                    if (r[e] * r[e] > 1.5f * v[e]) {
                        want += r[e];
                        r[e] = v[e] = 0;
                    } else {
                        v[e] *= .9f;
                    }
                }
                assert_true(sum[lab_place(&lab, 0, t, i)] == want);
            }
        }
        free(sum);
    }
    free(r);
    free(v);
    free(x);
    lab_close(&lab);
}

/* What the first reference has under this name: r and v go from an element to the next. */
static void slow_walk(const struct lab *lab, uint32_t worker, uint32_t tensor, const float *x,
                      const float *g, struct expected *e)
{
    float alpha = (float)setting_of(lab, "alpha");
    float r = 0, v = 0;

    for (size_t i = 0; i < e->n; i++) {
        float part = x[i] / 128;

        r += part;
        v += part * part;
        e->sent[i] = r * r > alpha * v;
        e->value[i] = x[i];
        if (e->sent[i])
            r = v = 0;
        else
            v *= 0.999f;
    }
}

static void variance_walks_as_the_first_reference(void **state)
{
    const struct how how = {"variance", "", "residual", 1, {{"original", 1}, {"alpha", 0.1}}};

    compare(&how, slow_walk, 0);
}

/* ---- dgc by a sample ---- */

/* As the authors' code has it. */
struct sampling {
    size_t stride, samples, top, selects;
};

static struct sampling sampling_of(size_t n, double ratio, double sample_ratio)
{
    size_t share = (size_t)ceil((double)n * sample_ratio);
    size_t two = (size_t)ceil(2 / ratio);
    size_t least = share > two ? share : two;
    struct sampling s = {.stride = 1, .samples = n, .selects = (size_t)ceil((double)n * ratio)};

    if (sample_ratio < 1 && ratio < 1 && n > two) { /* at ratio 1 it is not asked */
        s.stride = (size_t)ceil((double)n / (double)least / 32) * 32 + 1;
        for (s.samples = n / s.stride; s.samples < least; s.samples = n / s.stride)
            s.stride -= 8;
    }
    s.top = (size_t)ceil((double)s.samples * ratio);
    return s;
}

static void the_sampling_is_as_documented(void **state)
{
    const size_t want[][5] = {
        {1728, 1, 1728, 2, 2},          {2304, 1, 2304, 3, 3},      {9216, 1, 9216, 10, 10},
        {36864, 17, 2168, 3, 37},       {147456, 73, 2019, 3, 148}, {2359296, 97, 24322, 25, 2360},
        {7000000, 97, 72164, 73, 7000},
    };

    for (size_t i = 0; i < ARRAY_LENGTH(want); i++) {
        struct sampling s = sampling_of(want[i][0], .001, .01);

        assert_int_equal(s.stride, want[i][1]);
        assert_int_equal(s.samples, want[i][2]);
        assert_int_equal(s.top, want[i][3]);
        assert_int_equal(s.selects, want[i][4]);
    }
}

static int by_size(const void *a, const void *b)
{
    const float x = *(const float *)a, y = *(const float *)b;

    return x > y ? -1 : x < y;
}

/* The k-th largest size of every stride-th element from start on. */
static float largest_of(const float *x, size_t n, size_t start, size_t stride, size_t k)
{
    float *size = allocate(n, sizeof(*size));
    size_t count = 0;
    float found;

    for (size_t i = start; i < n; i += stride)
        size[count++] = fabsf(x[i]);
    assert_true(k >= 1 && k <= count);
    qsort(size, count, sizeof(*size), by_size);
    found = size[k - 1];
    free(size);
    return found;
}

static size_t reach(const float *x, size_t n, float threshold)
{
    size_t count = 0;

    for (size_t i = 0; i < n; i++)
        count += fabsf(x[i]) >= threshold;
    return count;
}

/* Where the threshold comes to; exact: it is that of the largest, ties to the lower index. */
static float adapted(const struct lab *lab, const float *x, size_t n, size_t selects,
                     float threshold, bool *exact)
{
    double upper = setting_of(lab, "upper");
    double lower = setting_of(lab, "lower");

    for (int round = 0; round < (int)setting_of(lab, "rounds"); round++) {
        size_t count = reach(x, n, threshold);

        if ((double)count > upper * (double)selects) {
            *exact = setting_of(lab, "resample") != 0;
            if (*exact)
                return largest_of(x, n, 0, 1, selects);
            threshold *= (float)upper;
        } else if ((double)count < lower * (double)selects) {
            threshold *= (float)lower;
        } else {
            return threshold;
        }
    }
    return threshold;
}

static void slow_sampled(const struct lab *lab, uint32_t worker, uint32_t tensor, const float *x,
                         const float *g, struct expected *e)
{
    struct sampling s = sampling_of(e->n, lab->step.ratio, setting_of(lab, "sample_ratio"));
    uint32_t word =
        rng_block(lab->step.seed, RNG_SELECTION, 0, worker, tensor, (uint32_t)lab->step.number)
            .word[0];
    size_t start = (size_t)((uint64_t)word * s.stride >> 32);
    float threshold = largest_of(x, e->n, start, s.stride, s.top);
    size_t left = s.selects;
    bool exact = false;

    if (s.stride > 1)
        threshold = adapted(lab, x, e->n, s.selects, threshold, &exact);
    if (exact)
        left -= reach(x, e->n, nextafterf(threshold, INFINITY));
    for (size_t i = 0; i < e->n; i++) {
        bool ties = exact && fabsf(x[i]) > threshold;

        e->sent[i] = ties || (left > 0 && fabsf(x[i]) >= threshold);
        left -= !ties && e->sent[i];
        e->value[i] = x[i];
    }
}

static void sampled_dgc_is_the_slow_one(void **state)
{
    compare(&(struct how){"dgc", "", "dgc", .01, {{"sampled", 1}}}, slow_sampled, 0);
    compare(&(struct how){"dgc", "", "none", .001, {{"sampled", 1}}}, slow_sampled, 0);
    compare(&(struct how){"dgc", "", "residual", .3, {{"sampled", 1}, {"resample", 0}}},
            slow_sampled, 0);
    compare(
        &(struct how){"dgc", "", "none", .005, {{"sampled", 1}, {"resample", 0}, {"rounds", 2}}},
        slow_sampled, 0);
    compare(&(struct how){"dgc", "", "none", .1, {{"sampled", 1}, {"sample_ratio", 1}}},
            slow_sampled, 0);
    compare(&(struct how){"dgc", "", "dgc", 1, {{"sampled", 1}}}, slow_sampled, 0);
}

/* With the count before them; at least .8 of what the ratio says, unless rounds run out. */
static void a_sample_says_how_many_are_sent(void **state)
{
    const size_t n = 40000;
    struct traffic total;
    uint64_t each;
    struct lab lab;
    float *x;

    begin(&lab, &(struct how){"dgc", "", "none", .01, {{"sampled", 1}}}, &n, 1, 1);
    x = gradients(&lab, SMOOTH, 4);
    for (uint64_t step = 0; step < 20; step++) {
        lab.step.number = step;
        lab_step(&lab, x);
        lab_weigh(&lab, ENCODING_RAW, &total, &each);
        assert_int_equal(each, 4 + 8 * total.entries);
        assert_in_range(total.entries, 320, 400);
    }
    free(x);
    lab_close(&lab);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(randomk_is_the_slow_one),
        cmocka_unit_test(randomk_sends_the_same_entries_for_all),
        cmocka_unit_test(randomk_draws_uniformly),
        cmocka_unit_test(randomk_with_a_memory_loses_nothing_and_stays_small),
        cmocka_unit_test(slice_is_the_slow_one),
        cmocka_unit_test(slice_comes_round),
        cmocka_unit_test(threshold_is_the_slow_one),
        cmocka_unit_test(threshold_is_as_computed_by_hand),
        cmocka_unit_test(adacomp_is_the_slow_one),
        cmocka_unit_test(adacomp_holds_to_deviations_as_the_slow_one),
        cmocka_unit_test(adacomp_is_as_computed_by_hand),
        cmocka_unit_test(adacomp_in_bins_is_as_computed_by_hand),
        cmocka_unit_test(efsignadacomp_is_as_computed_by_hand),
        cmocka_unit_test(adacomp2_loses_nothing_of_what_it_holds),
        cmocka_unit_test(adacomp_may_send_nothing),
        cmocka_unit_test(variance_is_as_computed_by_hand),
        cmocka_unit_test(variance_is_the_slow_one),
        cmocka_unit_test(variance_walks_as_the_first_reference),
        cmocka_unit_test(the_sampling_is_as_documented),
        cmocka_unit_test(sampled_dgc_is_the_slow_one),
        cmocka_unit_test(a_sample_says_how_many_are_sent),
    };
    int failed = 0;

    for (const char *const *d = harness_devices(); *d != NULL; d++) {
        device = *d;
        failed += cmocka_run_group_tests_name(device, tests, NULL, NULL);
    }
    return failed;
}

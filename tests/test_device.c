/*
 * test_device -- every entry of the device table against something slow and plain.
 */
#include "tests/harness.h"

#include "sim/layout.h"
#include "sim/rng.h"

#include <float.h>
#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

static const char *device_name = "cpu";
static struct device dev;

/* Device memory of the running test. */
static struct {
    void *memory;
    size_t bytes;
} block[64];
static size_t blocks;

static int begin(void **state)
{
    harness_open(&dev, device_name);
    return 0;
}

static void free_blocks(void)
{
    while (blocks > 0) {
        blocks--;
        device_free(&dev, block[blocks].memory, block[blocks].bytes);
    }
}

static int end(void **state)
{
    free_blocks();
    device_close(&dev);
    return 0;
}

static void *room(size_t bytes)
{
    CHECK(blocks < ARRAY_LENGTH(block));
    block[blocks].memory = device_alloc(&dev, bytes);
    block[blocks].bytes = bytes;
    return block[blocks++].memory;
}

static void *uploaded(const void *host, size_t bytes)
{
    void *memory = room(bytes);

    device_upload(&dev, memory, host, bytes);
    return memory;
}

static void *downloaded(const void *from, size_t bytes)
{
    void *host = allocate(bytes, 1);

    device_download(&dev, host, from, bytes);
    return host;
}

static uint32_t draw(uint64_t seed, size_t i)
{
    return rng_block(seed, RNG_TEST, (uint32_t)i, 3, 0, 0).word[0];
}

/* Memory. */

static void memory_begins_as_zeros_and_is_counted(void **state)
{
    size_t before = dev.bytes;
    size_t allocations = dev.allocations;
    unsigned char *host = allocate(100000, 1);
    void *memory = device_alloc(&dev, 100000);

    memset(host, 1, 100000);
    assert_int_equal(dev.bytes, before + 100000);
    assert_int_equal(dev.allocations, allocations + 1);
    device_download(&dev, host, memory, 100000);
    for (size_t i = 0; i < 100000; i++)
        assert_int_equal(host[i], 0);
    device_free(&dev, memory, 100000);
    device_free(&dev, NULL, 100000);
    assert_int_equal(dev.bytes, before);
    free(host);
}

static void what_goes_up_comes_down(void **state)
{
    const size_t n = 5001;
    unsigned char *host = allocate(n, 1);
    unsigned char *back = allocate(n, 1);
    unsigned char *a, *b;

    for (size_t i = 0; i < n; i++)
        host[i] = (unsigned char)draw(1, i);
    a = uploaded(host, n);
    b = room(n);
    device_copy(&dev, b, a, n);
    device_copy(&dev, b, b, n);
    device_clear(&dev, a + 1, 3);
    device_upload(&dev, a, host, 0);
    device_clear(&dev, b, 0);
    device_wait(&dev);
    device_download(&dev, back, b, n);
    assert_memory_equal(back, host, n);
    device_download(&dev, back, a, n);
    assert_memory_equal(back + 4, host + 4, n - 4);
    assert_memory_equal(back + 1, "\0\0\0", 3);
    assert_int_equal(back[0], host[0]);
    free(host);
    free(back);
}

static void a_posted_copy_is_there_for_what_follows(void **state)
{
    uint32_t host[16];
    uint32_t back[16];
    uint32_t *a = room(sizeof(host));
    uint32_t *b = room(sizeof(host));

    for (uint32_t round = 0; round < 3; round++) {
        for (uint32_t i = 0; i < 16; i++)
            host[i] = round * 100 + i;
        device_post(&dev, a, host, sizeof(host));
        device_copy(&dev, b, a, sizeof(host));
        device_download(&dev, back, b, sizeof(host));
        assert_memory_equal(back, host, sizeof(host));
    }
}

static void a_peek_arrives_after_a_while(void **state)
{
    const uint32_t host[] = {5, 6, 7, 8};
    uint32_t back[4] = {0};
    void *memory = uploaded(host, sizeof(host));

    device_peek(&dev, memory, 2 * sizeof(*host));
    device_wait(&dev);
    while (!device_peeked(&dev, back, 2 * sizeof(*host)))
        continue;
    assert_memory_equal(back, host, 2 * sizeof(*host));
    device_peek(&dev, memory, sizeof(host));
    device_wait(&dev);
    while (!device_peeked(&dev, back, sizeof(host)))
        continue;
    assert_memory_equal(back, host, sizeof(host));
}

/* Takes blocks of these bytes, fills each, and checks that all are still as filled. */
static void use_scratch(const size_t *bytes, size_t count)
{
    unsigned char *memory[8];

    device_scratch_reset(&dev);
    for (size_t i = 0; i < count; i++) {
        unsigned char *host = allocate(bytes[i], 1);

        memory[i] = device_scratch(&dev, bytes[i]);
        memset(host, (int)i + 1, bytes[i]);
        device_upload(&dev, memory[i], host, bytes[i]);
        free(host);
    }
    for (size_t i = 0; i < count; i++) {
        unsigned char *host = downloaded(memory[i], bytes[i]);

        for (size_t j = 0; j < bytes[i]; j++)
            assert_int_equal(host[j], i + 1);
        free(host);
    }
}

static void the_same_scratch_is_allocated_once(void **state)
{
    const size_t bytes[] = {1000, 1, 70000, 256};
    size_t allocations, held;

    use_scratch(bytes, 4);
    allocations = dev.allocations;
    held = dev.bytes;
    use_scratch(bytes, 4);
    use_scratch(bytes, 2);
    use_scratch((size_t[]){999, 1, 20}, 3);
    assert_int_equal(dev.allocations, allocations);
    use_scratch((size_t[]){1000, 2000, 70000}, 3);
    assert_int_equal(dev.allocations, allocations + 1);
    assert_int_equal(dev.bytes, held + 1999);
}

static void scratch_aside_leaves_the_other_where_it_is(void **state)
{
    void *first = device_scratch(&dev, 100);
    void *aside[2];

    for (int i = 0; i < 2; i++) {
        device_scratch_aside(&dev, true);
        aside[i] = device_scratch(&dev, 5000);
        device_scratch_aside(&dev, false);
    }
    assert_ptr_equal(aside[0], aside[1]);
    assert_ptr_not_equal(aside[0], first);
    assert_ptr_not_equal(device_scratch(&dev, 5000), aside[0]);
    device_scratch_reset(&dev);
    assert_ptr_equal(device_scratch(&dev, 100), first);
    device_scratch_reset(&dev);
}

static void streams_have_scratch_of_their_own(void **state)
{
    void *first = device_scratch(&dev, 100);
    void *other;

    if (device_streams(&dev) < 2)
        return;
    device_stream(&dev, 1);
    other = device_scratch(&dev, 100);
    device_scratch_reset(&dev);
    assert_ptr_equal(device_scratch(&dev, 100), other);
    device_signal(&dev, 1);
    device_stream(&dev, 0);
    device_await(&dev, 1);
    assert_ptr_not_equal(first, other);
    device_scratch_reset(&dev);
    assert_ptr_equal(device_scratch(&dev, 100), first);
}

static void a_device_describes_itself(void **state)
{
    char text[256] = "";

    device_describe(&dev, text, sizeof(text));
    assert_true(strlen(text) > 5);
    assert_null(strchr(text, '\n'));
    assert_true(device_memory_free(&dev) > 1 << 20);
}

static void an_unknown_device_is_refused(void **state)
{
    const char *const names[] = {"tpu", "", "CPU", "cuda:", "cuda:1x", "cpu:0"};
    struct device none;
    struct error err;

    for (size_t i = 0; i < ARRAY_LENGTH(names); i++) {
        err.text[0] = '\0';
        assert_false(device_open(&none, names[i], 1, &err));
        assert_non_null(strstr(err.text, "no such device"));
    }
}

/* Products. */

struct product {
    bool transpose_a;
    size_t m, n, k;
    size_t more_a, more_b, more_c; /* floats behind each row */
    size_t batch;
};

/* The rows of a, b and c are poisoned behind their ends; c too within them, where beta is 0. */
static float *matrices(uint64_t seed, size_t batch, size_t rows, size_t columns, size_t ld,
                       bool poison)
{
    float *x = allocate(batch * rows * ld, sizeof(*x));

    harness_floats(seed, x, batch * rows * ld);
    for (size_t i = 0; i < batch * rows * ld; i++)
        if (i % ld >= columns || poison)
            x[i] = NAN;
    return x;
}

static void require_product(const struct product *p, const struct gemm *g, const float *before,
                            const float *c)
{
    for (size_t i = 0; i < p->batch * p->m * g->ldc; i++) {
        size_t row = i / g->ldc % p->m;
        size_t column = i % g->ldc;
        size_t batch = i / g->ldc / p->m;
        const float *a = g->a + batch * g->stride_a;
        const float *b = g->b + batch * g->stride_b;
        double want = g->beta > 0 ? (double)before[i] : 0;
        double scale = 1;

        if (column >= p->n) {
            assert_memory_equal(&c[i], &before[i], sizeof(*c));
            continue;
        }
        for (size_t k = 0; k < p->k; k++) {
            double term = (double)a[p->transpose_a ? k * g->lda + row : row * g->lda + k] *
                          (double)b[k * g->ldb + column];

            want += term;
            scale += fabs(term);
        }
        assert_true(fabs((double)c[i] - want) < 1e-6 * scale);
    }
}

static void check_product(const struct product *p, float beta)
{
    size_t a_rows = p->transpose_a ? p->k : p->m;
    size_t a_columns = p->transpose_a ? p->m : p->k;
    struct gemm g = {.transpose_a = p->transpose_a,
                     .m = p->m,
                     .n = p->n,
                     .k = p->k,
                     .lda = a_columns + p->more_a,
                     .ldb = p->n + p->more_b,
                     .ldc = p->n + p->more_c,
                     .beta = beta,
                     .batch = p->batch};
    float *a = matrices(1, p->batch, a_rows, a_columns, g.lda, false);
    float *b = matrices(2, p->batch, p->k, p->n, g.ldb, false);
    float *before = matrices(3, p->batch, p->m, p->n, g.ldc, beta == 0);
    float *c;

    g.stride_a = a_rows * g.lda;
    g.stride_b = p->k * g.ldb;
    g.stride_c = p->m * g.ldc;
    g.a = uploaded(a, p->batch * g.stride_a * sizeof(*a));
    g.b = uploaded(b, p->batch * g.stride_b * sizeof(*b));
    g.c = uploaded(before, p->batch * g.stride_c * sizeof(*before));
    device_gemm(&dev, &g);
    c = downloaded(g.c, p->batch * g.stride_c * sizeof(*c));
    g.a = a;
    g.b = b;
    require_product(p, &g, before, c);
    free_blocks();
    free(a);
    free(b);
    free(before);
    free(c);
}

static void products_are_those_of_a_double_loop(void **state)
{
    const struct product cases[] = {
        {false, 1, 1, 1, 0, 0, 0, 1},     {false, 1, 37, 5, 0, 0, 0, 1},
        {false, 37, 1, 5, 0, 0, 0, 1},    {false, 7, 13, 1, 2, 3, 5, 1},
        {false, 33, 65, 17, 0, 0, 0, 1},  {false, 33, 65, 17, 40, 3, 7, 1},
        {false, 15, 31, 63, 1, 1, 1, 5},  {false, 128, 96, 200, 56, 0, 32, 2},
        {true, 1, 1, 1, 0, 0, 0, 1},      {true, 5, 37, 1, 0, 0, 0, 1},
        {true, 37, 5, 19, 0, 0, 0, 1},    {true, 33, 65, 17, 3, 9, 1, 1},
        {true, 31, 15, 63, 1, 2, 300, 4}, {true, 129, 127, 255, 0, 0, 0, 2},
    };

    for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
        check_product(&cases[i], 0);
        check_product(&cases[i], 1);
    }
}

/* An LSTM's step: rows of samples that lie (T + 1) H apart. */
static void a_product_may_skip_whole_rows(void **state)
{
    check_product(&(struct product){false, 6, 40, 10, 50, 0, 200, 1}, 1);
    check_product(&(struct product){true, 40, 10, 6, 200, 50, 0, 3}, 1);
}

static void an_empty_product_does_nothing(void **state)
{
    const float one = 1;
    float back;
    float *c = uploaded(&one, sizeof(one));

    device_gemm(&dev, &(struct gemm){.m = 0, .n = 1, .k = 1, .a = c, .b = c, .c = c, .batch = 1});
    device_gemm(&dev, &(struct gemm){.m = 1, .n = 1, .k = 1, .a = c, .b = c, .c = c, .batch = 0});
    device_download(&dev, &back, c, sizeof(back));
    assert_true(back == 1);
}

static void a_transpose_has_rows_for_columns(void **state)
{
    const size_t sizes[][2] = {{1, 1},   {1, 37},  {37, 1},   {16, 16},
                               {17, 33}, {15, 48}, {129, 65}, {700, 30}};

    for (size_t s = 0; s < ARRAY_LENGTH(sizes); s++) {
        size_t rows = sizes[s][0], columns = sizes[s][1], n = rows * columns;
        float *in = allocate(n, sizeof(*in));
        float *out, *to;

        harness_floats(s, in, n);
        to = room(n * sizeof(*in));
        device_transpose(&dev, uploaded(in, n * sizeof(*in)), rows, columns, to);
        out = downloaded(to, n * sizeof(*in));
        for (size_t i = 0; i < n; i++)
            assert_true(out[i % columns * rows + i / columns] == in[i]);
        free(in);
        free(out);
    }
}

/* The loss. */

static double loss_in_double(const float *x, size_t classes, uint32_t target, double *probability)
{
    double max = -INFINITY;
    double sum = 0;

    for (size_t j = 0; j < classes; j++)
        max = (double)x[j] > max ? (double)x[j] : max;
    for (size_t j = 0; j < classes; j++) {
        probability[j] = exp((double)x[j] - max);
        sum += probability[j];
    }
    for (size_t j = 0; j < classes; j++)
        probability[j] /= sum;
    return max - (double)x[target] + log(sum);
}

/* (A sum of so many floats, in whatever order, is what the gradients' sum is off by.) */
static void require_gradient(const float *got, const double *probability, size_t classes,
                             uint32_t target, float scale)
{
    double sum = 0;

    for (size_t j = 0; j < classes; j++) {
        double want = target == NO_TARGET ? 0 : (probability[j] - (j == target)) * (double)scale;

        assert_true(fabs((double)got[j] - want) <= 3e-6 * (double)scale);
        sum += (double)got[j];
    }
    assert_true(fabs(sum) <= (5e-6 + 1e-9 * (double)classes) * (double)scale);
}

/* logits [rows][classes] */
static void check_loss(const float *logits, const uint32_t *target, size_t rows, size_t classes)
{
    size_t bytes = rows * classes * sizeof(*logits);
    struct softmax_loss s = {.rows = rows,
                             .classes = classes,
                             .scale = 1.0f / 7,
                             .target = uploaded(target, rows * sizeof(*target)),
                             .loss = room(rows * sizeof(float))};
    double *probability = allocate(classes, sizeof(*probability));
    float *loss, *grad;

    for (int gradient = 0; gradient <= 1; gradient++) {
        s.logits = uploaded(logits, bytes);
        s.gradient = gradient > 0;
        device_softmax_loss(&dev, &s);
        loss = downloaded(s.loss, rows * sizeof(*loss));
        grad = downloaded(s.logits, bytes);
        for (size_t i = 0; i < rows; i++) {
            double want = target[i] == NO_TARGET ? 0
                                                 : loss_in_double(logits + i * classes, classes,
                                                                  target[i], probability);

            assert_true(fabs((double)loss[i] - want) <= 3e-6 * (1 + want));
            if (gradient > 0)
                require_gradient(grad + i * classes, probability, classes, target[i], s.scale);
        }
        free(loss);
        free(grad);
    }
    free_blocks();
    free(probability);
}

static void losses_of_random_logits(void **state)
{
    const size_t classes[] = {1, 2, 3, 31, 257, 1000, 33001};

    for (size_t c = 0; c < ARRAY_LENGTH(classes); c++) {
        size_t rows = 5;
        float *logits = allocate(rows * classes[c], sizeof(*logits));
        uint32_t target[5];

        harness_floats(c, logits, rows * classes[c]);
        for (size_t i = 0; i < rows * classes[c]; i++)
            logits[i] *= i / classes[c] == 0 ? 0.1f : 5;
        for (size_t i = 0; i < rows; i++)
            target[i] = draw(c, i) % (uint32_t)classes[c];
        target[0] = 0;
        target[4] = (uint32_t)classes[c] - 1;
        target[2] = NO_TARGET;
        check_loss(logits, target, rows, classes[c]);
        free(logits);
    }
}

static void losses_of_hostile_logits(void **state)
{
    const float logits[][6] = {
        {0, 0, 0, 0, 0, 0},
        {1e4f, -1e4f, 1e4f, 0, 5, 9},
        {1e30f, -1e30f, 0, 1, 2, 3},
        {-1e30f, 1e30f, 0, 1, 2, 3},
        {-1e30f, -1e30f, -1e30f, -1e30f, -1e30f, -1e30f},
        {1, 2, -INFINITY, 3, -INFINITY, 4},
        {1e-45f, -1e-45f, 1e-40f, 0, -0.0f, FLT_MIN},
        {88, 89, 104, -104, -88, 0},
        {100, 0, 0, 0, 0, 12.5f},
        {NAN, INFINITY, 0, 0, 0, 0},
    };
    const uint32_t target[] = {3, 0, 0, 0, 5, 1, 2, 2, 0, NO_TARGET};

    check_loss(logits[0], target, ARRAY_LENGTH(logits), 6);
}

static void a_loss_that_is_not_finite_shows(void **state)
{
    const float logits[][5] = {{NAN, 0, 0, 0, 0},      {0, 0, NAN, 0, 0},
                               {0, 0, 0, 0, NAN},      {INFINITY, 0, 0, 0, 0},
                               {0, 0, INFINITY, 0, 0}, {-INFINITY, 0, 0, 0}};
    const uint32_t target[] = {0, 0, 0, 0, 0, 0};
    struct softmax_loss s = {.rows = ARRAY_LENGTH(logits),
                             .classes = 5,
                             .scale = 1,
                             .logits = uploaded(logits, sizeof(logits)),
                             .target = uploaded(target, sizeof(target)),
                             .loss = room(sizeof(target)),
                             .gradient = true};
    float loss[ARRAY_LENGTH(logits)];

    device_softmax_loss(&dev, &s);
    device_download(&dev, loss, s.loss, sizeof(loss));
    for (size_t i = 0; i < ARRAY_LENGTH(logits); i++)
        assert_false(isfinite(loss[i]));
}

/* Scan and sort. */

static void a_scan_sums_what_stands_before(void **state)
{
    const size_t sizes[] = {1, 2, 31, 255, 256, 257, 4097, 100001};

    for (size_t s = 0; s < ARRAY_LENGTH(sizes); s++) {
        size_t n = sizes[s];
        uint32_t *in = allocate(n, sizeof(*in));
        uint32_t *memory, *to, *apart, *within;
        uint32_t sum = 0;

        for (size_t i = 0; i < n; i++)
            in[i] = draw(s, i) % 1000;
        memory = uploaded(in, n * sizeof(*in));
        to = room(n * sizeof(*in));
        device_scan(&dev, memory, n, to);
        device_scan(&dev, memory, n, memory);
        apart = downloaded(to, n * sizeof(*in));
        within = downloaded(memory, n * sizeof(*in));
        for (size_t i = 0; i < n; i++) {
            assert_int_equal(apart[i], sum);
            assert_int_equal(within[i], sum);
            sum += in[i];
        }
        free(in);
        free(apart);
        free(within);
    }
}

static void check_sort(size_t rows, size_t n, uint32_t limit)
{
    size_t bytes = rows * n * sizeof(uint32_t);
    uint32_t *key = allocate(rows * n, sizeof(*key));
    uint32_t *sorted, *place;
    struct sort s = {
        .rows = rows, .n = n, .limit = limit, .sorted = room(bytes), .place = room(bytes)};

    for (size_t i = 0; i < rows * n; i++)
        key[i] = i % 7 == 3 ? limit - 1 : i % 11 == 5 ? 0 : draw(limit, i) % limit;
    s.key = uploaded(key, bytes);
    device_sort(&dev, &s);
    sorted = downloaded(s.sorted, bytes);
    place = downloaded(s.place, bytes);
    for (size_t i = 0; i < rows * n; i++) {
        assert_true(place[i] < n);
        assert_int_equal(key[i / n * n + place[i]], sorted[i]);
        if (i % n > 0)
            assert_true(sorted[i - 1] < sorted[i] ||
                        (sorted[i - 1] == sorted[i] && place[i - 1] < place[i]));
    }
    free_blocks();
    free(key);
    free(sorted);
    free(place);
}

/* Keys that rise, and places that rise where keys are equal, are all the places there are. */
static void a_sort_is_stable(void **state)
{
    const uint32_t limits[] = {1, 2, 255, 256, 257, 65536, 65537, 50};
    const size_t sizes[] = {1, 2, 255, 256, 257, 5000};

    for (size_t l = 0; l < ARRAY_LENGTH(limits); l++)
        for (size_t s = 0; s < ARRAY_LENGTH(sizes); s++)
            check_sort(1 + (l + s) % 3, sizes[s], limits[l]);
}

/* Selection. */

enum pattern {
    ZEROS,
    EQUAL,
    SIGNED_ZEROS,
    INFINITIES,
    NANS,
    DENORMALS,
    LEAST,
    DESCENDING,
    ASCENDING,
    TIES,
    MOSTLY_TIES,
    UNIFORM,
    TAILS,
    LONELY,
    PATTERNS
};

static float value(enum pattern p, uint32_t random, size_t i, size_t n)
{
    float u = 2 * rng_uniform(random) - 1;
    float sign = random & 1 ? -1.0f : 1.0f;

    switch (p) {
    case ZEROS:
        return 0;
    case EQUAL:
        return 0.25f * sign;
    case SIGNED_ZEROS:
        return 0.0f * sign;
    case INFINITIES:
        return random % 16 < 3 ? sign * INFINITY : u;
    case NANS:
        return random % 16 < 3 ? bits_float(0x7f800001u + (random >> 12)) : u;
    case DENORMALS:
        return bits_float((random & 0x80000000u) | (random & 0xfffu));
    case LEAST:
        return bits_float((random & 0x80000000u) | (random & 1));
    case DESCENDING:
        return (float)(n - i);
    case ASCENDING:
        return -(float)(i + 1);
    case TIES:
        return (float)(random >> 8 & 3) * sign;
    case MOSTLY_TIES:
        return random % 1000 < 3 ? 5 * u : sign;
    case UNIFORM:
        return u;
    case TAILS:
        return u * u * u * u * u * u * u;
    case LONELY:
        return i == n / 2 ? -1.0f : 0;
    default:
        return 0;
    }
}

struct selecting {
    struct layout layout;
    uint32_t workers;
    float *x;         /* [workers][stride] */
    uint64_t **order; /* [workers][tensors]: entries, the largest and of these the first in front */
};

static int compare_entries(const void *a, const void *b)
{
    const uint64_t *x = a, *y = b;

    return *x < *y ? -1 : *x > *y;
}

/* Every tensor of every worker has the pattern; the room between is poisoned with NaN, which no
 * size exceeds. */
static void selecting_begin(struct selecting *s, const size_t *n, uint32_t count, uint32_t workers,
                            enum pattern p)
{
    size_t stride;

    layout_describe(&s->layout, n, count);
    stride = s->layout.length + (size_t)2 * TILE;
    layout_destroy(&s->layout);
    layout_create(&s->layout, &dev, n, count, stride);
    s->workers = workers;
    s->x = allocate(workers * stride, sizeof(*s->x));
    s->order = allocate((size_t)workers * count, sizeof(*s->order));
    for (size_t i = 0; i < workers * stride; i++)
        s->x[i] = bits_float(0x7fffffff);
    for (size_t pair = 0; pair < (size_t)workers * count; pair++) {
        size_t tensor = pair % count;
        float *x = s->x + pair / count * stride + s->layout.at[tensor];

        s->order[pair] = allocate(n[tensor], sizeof(**s->order));
        for (size_t i = 0; i < n[tensor]; i++) {
            x[i] = value(p, draw(pair, i), i, n[tensor]);
            s->order[pair][i] = (uint64_t)(UINT32_MAX - float_size(x[i])) << 32 | i;
        }
        qsort(s->order[pair], n[tensor], sizeof(**s->order), compare_entries);
    }
}

static void selecting_end(struct selecting *s)
{
    for (size_t pair = 0; pair < (size_t)s->workers * s->layout.count; pair++)
        free(s->order[pair]);
    free(s->order);
    free(s->x);
    layout_destroy(&s->layout);
}

static uint32_t size_of(uint64_t entry)
{
    return UINT32_MAX - (uint32_t)(entry >> 32);
}

/* That threshold and ties choose just the first `keep` of the sorted entries. */
static void require_choice(const float *x, size_t n, const uint64_t *order, size_t keep,
                           uint32_t threshold, uint32_t ties)
{
    bool *chosen = allocate(n, sizeof(*chosen));

    assert_int_equal(threshold, size_of(order[keep - 1]));
    for (size_t i = 0; i < keep; i++)
        chosen[(uint32_t)order[i]] = true;
    for (size_t i = 0; i < n; i++) {
        bool tie = float_size(x[i]) == threshold && ties > 0;

        ties -= tie;
        assert_true(chosen[i] == (tie || float_size(x[i]) > threshold));
    }
    assert_int_equal(ties, 0);
    free(chosen);
}

static void require_peaks(const float *x, size_t n, const uint32_t *peak)
{
    for (size_t tile = 0; tile * TILE < n; tile++) {
        uint32_t most = 0;

        for (size_t i = tile * TILE; i < n && i < (tile + 1) * TILE; i++)
            most = float_size(x[i]) > most ? float_size(x[i]) : most;
        assert_int_equal(peak[tile], most);
    }
}

static void check_selection(const struct selecting *s, const uint32_t *keep)
{
    const struct layout *l = &s->layout;
    size_t pairs = (size_t)s->workers * l->count;
    size_t peaks = s->workers * l->tiles.up_stride;
    size_t at = 0;
    struct selection sel = {.tiles = &l->tiles,
                            .workers = s->workers,
                            .n = l->n,
                            .x = uploaded(s->x, s->workers * l->tiles.stride * sizeof(*s->x)),
                            .keep = uploaded(keep, l->count * sizeof(*keep)),
                            .threshold = room(pairs * 4),
                            .ties = room(pairs * 4),
                            .peak = room(peaks * 4)};
    uint32_t *threshold, *ties, *peak;

    device_scratch_reset(&dev);
    device_select(&dev, &sel);
    threshold = downloaded(sel.threshold, pairs * 4);
    ties = downloaded(sel.ties, pairs * 4);
    peak = downloaded(sel.peak, peaks * 4);
    for (size_t pair = 0; pair < pairs; pair++) {
        size_t tensor = pair % l->count, n = l->n[tensor], tiles = (n + TILE - 1) / TILE;
        const float *x = s->x + pair / l->count * l->tiles.stride + l->at[tensor];

        at = tensor == 0 ? pair / l->count * l->tiles.up_stride : at;
        require_choice(x, n, s->order[pair], keep[tensor], threshold[pair], ties[pair]);
        require_peaks(x, n, peak + at);
        at += l->levels > 0 ? (tiles + TILE - 1) / TILE * TILE : 1;
    }
    free_blocks();
    free(threshold);
    free(ties);
    free(peak);
}

#define KEEP_RULES 5

static uint32_t keep_of(size_t n, int rule)
{
    const size_t keep[KEEP_RULES] = {1, n / 1000, n / 4, n - 1, n};

    return keep[rule] > 0 ? (uint32_t)keep[rule] : 1;
}

static void check_pattern(const size_t *n, uint32_t count, uint32_t workers, enum pattern p)
{
    struct selecting s;
    uint32_t keep[16];

    selecting_begin(&s, n, count, workers, p);
    for (int rule = 0; rule < KEEP_RULES; rule++) {
        for (uint32_t i = 0; i < count; i++)
            keep[i] = keep_of(n[i], rule);
        omp_set_num_threads(1 + rule % 2);
        check_selection(&s, keep);
    }
    omp_set_num_threads((int)dev.threads);
    selecting_end(&s);
}

static void a_selection_chooses_what_a_sort_does(void **state)
{
    for (enum pattern p = 0; p < PATTERNS; p++)
        check_pattern((size_t[]){1, 2, 255, 256, 257, 4096, 4097, 33000}, 8, 3, p);
}

static void a_selection_of_tensors_of_a_tile_each(void **state)
{
    for (enum pattern p = 0; p < PATTERNS; p++)
        check_pattern((size_t[]){256, 1, 17, 255, 3}, 5, 2, p);
}

static void a_selection_from_large_tensors(void **state)
{
    if (strcmp(device_name, "guard") == 0 || strcmp(device_name, "recording") == 0)
        return;
    for (enum pattern p = 0; p < PATTERNS; p++)
        check_pattern((size_t[]){100000, 1000001}, 2, 1, p);
}

/* Of one tensor whose values changed since selecting_begin(). */
static void sort_again(struct selecting *s)
{
    size_t n = s->layout.n[0];

    for (size_t i = 0; i < n; i++)
        s->order[0][i] = (uint64_t)(UINT32_MAX - float_size(s->x[i])) << 32 | i;
    qsort(s->order[0], n, sizeof(**s->order), compare_entries);
}

/* The CPU looks at a sample first; here the places that it looks at are far larger than the
 * rest, and then zero. */
static void a_sample_that_misleads_changes_nothing(void **state)
{
    const size_t n = 70000;
    struct selecting s;

    for (int large = 0; large <= 1; large++) {
        uint32_t random = 12345;

        selecting_begin(&s, &n, 1, 1, UNIFORM);
        for (int i = 0; i < 4096; i++) {
            size_t at;

            random = random * 1664525u + 1013904223u;
            at = (size_t)(((uint64_t)random * n) >> 32);
            s.x[at] = large ? 1000 + 2 * rng_uniform(draw(1, at)) : 0;
        }
        sort_again(&s);
        for (uint32_t keep = 5; keep < n; keep *= 10)
            check_selection(&s, &keep);
        selecting_end(&s);
    }
}

#define DEVICE_TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        DEVICE_TEST(memory_begins_as_zeros_and_is_counted),
        DEVICE_TEST(what_goes_up_comes_down),
        DEVICE_TEST(a_posted_copy_is_there_for_what_follows),
        DEVICE_TEST(a_peek_arrives_after_a_while),
        DEVICE_TEST(the_same_scratch_is_allocated_once),
        DEVICE_TEST(scratch_aside_leaves_the_other_where_it_is),
        DEVICE_TEST(streams_have_scratch_of_their_own),
        DEVICE_TEST(a_device_describes_itself),
        DEVICE_TEST(an_unknown_device_is_refused),
        DEVICE_TEST(products_are_those_of_a_double_loop),
        DEVICE_TEST(a_product_may_skip_whole_rows),
        DEVICE_TEST(an_empty_product_does_nothing),
        DEVICE_TEST(a_transpose_has_rows_for_columns),
        DEVICE_TEST(losses_of_random_logits),
        DEVICE_TEST(losses_of_hostile_logits),
        DEVICE_TEST(a_loss_that_is_not_finite_shows),
        DEVICE_TEST(a_scan_sums_what_stands_before),
        DEVICE_TEST(a_sort_is_stable),
        DEVICE_TEST(a_selection_chooses_what_a_sort_does),
        DEVICE_TEST(a_selection_of_tensors_of_a_tile_each),
        DEVICE_TEST(a_selection_from_large_tensors),
        DEVICE_TEST(a_sample_that_misleads_changes_nothing),
    };
    int failed = 0;

    for (const char *const *d = harness_devices(); *d != NULL; d++) {
        device_name = *d;
        failed += cmocka_run_group_tests_name(device_name, tests, NULL, NULL);
    }
    return failed;
}

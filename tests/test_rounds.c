/*
 * test_rounds -- methods whose messages are exchanged in several rounds, or made one on the way,
 * against slow and obvious versions.
 */
#include "tests/lab.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char *device;

struct setup {
    const char *compressor, *memory;
    const size_t *n, *rows;
    uint32_t tensors, workers;
    double ratio;
    const double *settings;
};

static void begin(struct lab *lab, const struct setup *s)
{
    lab_open(lab, &(struct lab_spec){.device = device,
                                     .compressor = compressor_find(s->compressor),
                                     .memory = memory_find(s->memory),
                                     .n = s->n,
                                     .rows = s->rows,
                                     .tensors = s->tensors,
                                     .workers = s->workers,
                                     .ratio = s->ratio,
                                     .settings = s->settings});
}

static void require_near(const char *what, const float *got, const float *want, size_t n, float off)
{
    for (size_t i = 0; i < n; i++)
        if (!(fabsf(got[i] - want[i]) <= off))
            fail_msg("%s: element %zu is %g, not %g", what, i, (double)got[i], (double)want[i]);
}

/* The first tensor of a slab's row. */
static void require_tensor(struct lab *lab, const char *what, const float *slab, uint32_t row,
                           const float *want, size_t n, float off)
{
    float *x = lab_download(lab, slab, row + 1);

    require_near(what, x + lab_place(lab, row, 0, 0), want, n, off);
    free(x);
}

/* ---- gtopk ---- */

enum { N = 300, K_MOST = 7 };

/* A list as a dense array, and whether an index is in it. */
struct dense {
    float x[N];
    bool in[N];
};

static void keep_largest(struct dense *d, size_t keep)
{
    memset(d->in, 0, sizeof(d->in));
    for (size_t i = 0; i < keep; i++) {
        size_t best = N;

        for (size_t e = 0; e < N; e++)
            if (!d->in[e] && (best == N || fabsf(d->x[e]) > fabsf(d->x[best])))
                best = e;
        d->in[best] = true;
    }
    for (size_t e = 0; e < N; e++)
        d->x[e] = d->in[e] ? d->x[e] : 0;
}

/* list[workers] in, the end in list[0]; delivered[k] of each worker's own. */
static void tree_slowly(struct dense *list, struct dense *own, uint32_t workers, size_t keep,
                        bool loses)
{
    uint32_t apart = 1;

    for (uint32_t left = workers; apart == 1 || left > 1; left = (left + 1) / 2) {
        apart *= 2;
        for (uint32_t j = 0; 2 * j < left; j++) {
            struct dense sum = list[(size_t)2 * j];

            for (size_t e = 0; e < N && 2 * j + 1 < left; e++)
                sum.x[e] += list[(size_t)2 * j + 1].x[e];
            keep_largest(&sum, keep);
            list[j] = sum;
        }
        for (uint32_t k = 0; k < workers && (!loses || left <= 2); k++)
            for (size_t e = 0; e < N; e++)
                own[k].x[e] = list[k / apart].in[e] ? own[k].x[e] : 0;
    }
}

static void check_gtopk(uint32_t workers, bool original)
{
    const size_t n = N;
    const double settings[] = {0, original};
    const size_t keep = 15;
    struct lab lab;
    float *residual = allocate((size_t)workers * N, sizeof(*residual));

    begin(&lab, &(struct setup){"gtopk", "residual", &n, NULL, 1, workers, 0.05, settings});
    for (unsigned step = 0; step < 3; step++) {
        static struct dense list[K_MOST], own[K_MOST];
        float *x = allocate((size_t)workers * N, sizeof(*x));

        for (uint32_t k = 0; k < workers; k++) {
            harness_floats(step * 10 + k, x + (size_t)k * N, N);
            for (size_t e = 0; e < N; e++)
                residual[(size_t)k * N + e] += x[(size_t)k * N + e];
            memcpy(list[k].x, residual + (size_t)k * N, N * sizeof(*x));
            keep_largest(&list[k], keep);
            own[k] = list[k];
        }
        lab_step(&lab, x);
        tree_slowly(list, own, workers, keep, original);
        require_tensor(&lab, "the end", lab.sum, 0, list[0].x, N, 1e-5f);
        for (uint32_t k = 0; k < workers; k++) {
            for (size_t e = 0; e < N; e++)
                residual[(size_t)k * N + e] -= own[k].x[e];
            require_tensor(&lab, "kept", lab.slab[0], k, residual + (size_t)k * N, N, 1e-5f);
        }
        free(x);
    }
    lab_close(&lab);
    free(residual);
}

static void gtopk_is_the_slow_tree(void **state)
{
    for (uint32_t workers = 1; workers <= K_MOST; workers++) {
        check_gtopk(workers, false);
        check_gtopk(workers, true);
    }
}

/* Nothing is lost: what has gone from the workers is what came. */
static void gtopk_conserves(void **state)
{
    const size_t n[] = {700, 40, 3};
    const double settings[] = {0, 0};
    struct lab lab;
    double before[3] = {0}, after[3] = {0}, came[3] = {0};
    float *x, *slab, *sum;

    begin(&lab, &(struct setup){"gtopk", "residual", n, NULL, 3, 5, 0.1, settings});
    x = allocate((size_t)5 * 743, sizeof(*x));
    harness_floats(1, x, (size_t)5 * 743);
    lab_begin(&lab, x);
    lab_enter(&lab, 0, 5);
    lab_compensate(&lab);
    slab = lab_download(&lab, lab.slab[0], 5);
    for (uint32_t t = 0; t < 3; t++)
        for (size_t i = 0; i < 5 * n[t]; i++)
            before[t] += (double)slab[lab_place(&lab, (uint32_t)(i / n[t]), t, i % n[t])];
    free(slab);
    lab_encode(&lab);
    lab_receive(&lab);
    lab_update(&lab);
    slab = lab_download(&lab, lab.slab[0], 5);
    sum = lab_download(&lab, lab.sum, 1);
    for (uint32_t t = 0; t < 3; t++) {
        for (size_t i = 0; i < 5 * n[t]; i++)
            after[t] += (double)slab[lab_place(&lab, (uint32_t)(i / n[t]), t, i % n[t])];
        for (size_t i = 0; i < n[t]; i++)
            came[t] += (double)sum[lab_place(&lab, 0, t, i)];
        assert_true(fabs(before[t] - after[t] - came[t]) < 1e-4);
        assert_true(fabs(came[t]) > 1e-3);
    }
    free(slab);
    free(sum);
    free(x);
    lab_close(&lab);
}

/* ---- clt-k ---- */

static void the_leader_chooses(void **state)
{
    const size_t n = 8;
    const float x[3][8] = {
        {9, 1, 1, 1, 8, 1, 1, 1}, {1, 9, 1, 1, 1, -8, 1, 1}, {2, 1, 9, 8, 1, 3, 1, 1}};
    const float sums[3][8] = {
        {12, 0, 0, 0, 10, 0, 0, 0}, {0, 11, 0, 0, 0, -4, 0, 0}, {0, 0, 11, 10, 0, 0, 0, 0}};
    struct lab lab;

    begin(&lab, &(struct setup){"clt-k", "none", &n, NULL, 1, 3, 0.25, NULL});
    for (unsigned step = 0; step < 6; step++) {
        struct traffic total;
        uint64_t each[3];

        lab.step.number = step;
        lab_step(&lab, x[0]);
        require_tensor(&lab, "the sum", lab.sum, 0, sums[step % 3], 8, 0);
        lab_weigh(&lab, ENCODING_RAW, &total, each);
        assert_int_equal(total.bytes, 3 * 2 * 4); /* values alone */
        assert_int_equal(lab.rounds.first.senders, 1);
    }
    lab_close(&lab);
}

/* ---- powersgd ---- */

enum { ROWS = 12, COLUMNS = 30, RANKS = 3, WORKERS = 3 };

/* A step in double: g [workers][rows][columns] with what was kept; q [columns][rank]. */
struct slow {
    double m[WORKERS][ROWS][COLUMNS], q[COLUMNS][RANKS], own[WORKERS][COLUMNS][RANKS];
    double p[ROWS][RANKS], mean[ROWS][COLUMNS];
};

static void orthonormalise_slowly(struct slow *s)
{
    for (int j = 0; j < RANKS; j++) {
        double square = 0;

        for (int i = 0; i < j; i++) {
            double along = 0;

            for (int r = 0; r < ROWS; r++)
                along += s->p[r][i] * s->p[r][j];
            for (int r = 0; r < ROWS; r++)
                s->p[r][j] -= along * s->p[r][i];
        }
        for (int r = 0; r < ROWS; r++)
            square += s->p[r][j] * s->p[r][j];
        for (int r = 0; r < ROWS; r++)
            s->p[r][j] /= sqrt(square);
    }
}

static void step_slowly(struct slow *s, bool mean)
{
    memset(s->p, 0, sizeof(s->p));
    for (int k = 0; k < WORKERS; k++)
        for (int r = 0; r < ROWS; r++)
            for (int c = 0; c < COLUMNS; c++)
                for (int j = 0; j < RANKS; j++)
                    s->p[r][j] += s->m[k][r][c] * s->q[c][j];
    orthonormalise_slowly(s);
    memset(s->own, 0, sizeof(s->own));
    memset(s->q, 0, sizeof(s->q));
    memset(s->mean, 0, sizeof(s->mean));
    for (int k = 0; k < WORKERS; k++)
        for (int c = 0; c < COLUMNS; c++)
            for (int j = 0; j < RANKS; j++) {
                for (int r = 0; r < ROWS; r++)
                    s->own[k][c][j] += s->m[k][r][c] * s->p[r][j];
                s->q[c][j] += s->own[k][c][j];
            }
    for (int r = 0; r < ROWS; r++)
        for (int c = 0; c < COLUMNS; c++)
            for (int j = 0; j < RANKS; j++) {
                s->mean[r][c] += s->p[r][j] * s->q[c][j] / WORKERS;
                for (int k = 0; k < WORKERS; k++)
                    s->m[k][r][c] -= s->p[r][j] * (mean ? s->q[c][j] / WORKERS : s->own[k][c][j]);
            }
}

static void check_powersgd(bool mean)
{
    const size_t n = (size_t)ROWS * COLUMNS, rows = ROWS;
    const double settings[] = {RANKS, 1, mean};
    struct slow *s = allocate(1, sizeof(*s));
    float *x = allocate((size_t)WORKERS * n, sizeof(*x));
    float *want = allocate(n, sizeof(*want));
    float *q;
    struct lab lab;

    begin(&lab, &(struct setup){"powersgd", "residual", &n, &rows, 1, WORKERS, 1, settings});
    q = allocate(lab.common_bytes, 1);
    device_download(&lab.dev, q, lab.common, lab.common_bytes);
    for (int c = 0; c < COLUMNS; c++)
        for (int j = 0; j < RANKS; j++)
            s->q[c][j] = (double)q[j * COLUMNS + c];
    for (unsigned step = 0; step < 4; step++) {
        harness_floats(step + 1, x, (size_t)WORKERS * n);
        for (size_t i = 0; i < (size_t)WORKERS * n; i++)
            (&s->m[0][0][0])[i] += (double)x[i];
        lab_step(&lab, x);
        step_slowly(s, mean);
        for (size_t i = 0; i < n; i++)
            want[i] = (float)(WORKERS * (&s->mean[0][0])[i]);
        require_tensor(&lab, "the sum", lab.sum, 0, want, n, 1e-3f);
        for (uint32_t k = 0; k < WORKERS; k++) {
            for (size_t i = 0; i < n; i++)
                want[i] = (float)(&s->m[k][0][0])[i];
            require_tensor(&lab, "kept", lab.slab[0], k, want, n, 1e-3f);
        }
    }
    free(q);
    free(x);
    free(want);
    free(s);
    lab_close(&lab);
}

static void powersgd_is_the_slow_one(void **state)
{
    check_powersgd(true);
    check_powersgd(false);
}

/* Rank above the rows is the rows: nothing is left (pytorch#72043). */
static void full_rank_is_exact(void **state)
{
    const size_t n = 200, rows = 4;
    const double settings[] = {64, 0, 1};
    float *x = allocate(n, sizeof(*x));
    struct lab lab;

    harness_floats(5, x, n);
    begin(&lab, &(struct setup){"powersgd", "residual", &n, &rows, 1, 1, 1, settings});
    assert_int_equal(lab.message.rooms.n[0], 4 * 50);
    assert_int_equal(lab.rounds.first.rooms.n[0], 4 * 4);
    lab_step(&lab, x);
    require_tensor(&lab, "the sum", lab.sum, 0, x, n, 1e-5f);
    lab_close(&lab);
    free(x);
}

/* (rows + columns) rank rate < rows columns, else whole (pytorch#52979). */
static void small_matrices_go_whole(void **state)
{
    const size_t n[] = {100, 10000, 7}, rows[] = {10, 100, 1};
    const double settings[] = {4, 2, 1};
    float *x = allocate((size_t)2 * 10107, sizeof(*x));
    float *sum = allocate(10107, sizeof(*sum));
    struct lab lab;

    harness_floats(5, x, (size_t)2 * 10107);
    for (size_t i = 0; i < 10107; i++)
        sum[i] = x[i] + x[10107 + i];
    begin(&lab, &(struct setup){"powersgd", "residual", n, rows, 3, 2, 1, settings});
    assert_int_equal(lab.message.rooms.n[0], 100);
    assert_int_equal(lab.message.rooms.n[1], 4 * 100);
    assert_int_equal(lab.message.rooms.n[2], 7);
    assert_int_equal(lab.rounds.first.rooms.n[0], 0);
    assert_int_equal(lab.rounds.first.rooms.n[1], 4 * 100);
    lab_step(&lab, x);
    require_tensor(&lab, "the sum", lab.sum, 0, sum, 100, 0);
    memset(x, 0, 100 * sizeof(*x));
    require_tensor(&lab, "kept", lab.slab[0], 1, x, 100, 0);
    free(x);
    free(sum);
    lab_close(&lab);
}

/* The scale of Q is no matter (powersgd#10): gradients doubled are the result doubled. */
static void powersgd_scales(void **state)
{
    const size_t n = 400, rows = 20;
    const double settings[] = {2, 1, 1};
    float *x = allocate(n, sizeof(*x));
    float *once;
    struct lab lab;

    harness_floats(6, x, n);
    begin(&lab, &(struct setup){"powersgd", "none", &n, &rows, 1, 1, 1, settings});
    lab_step(&lab, x);
    lab_step(&lab, x);
    once = lab_download(&lab, lab.sum, 1);
    lab_close(&lab);
    for (size_t i = 0; i < n; i++) {
        x[i] *= 1000;
        once[i] *= 1000;
    }
    begin(&lab, &(struct setup){"powersgd", "none", &n, &rows, 1, 1, 1, settings});
    lab_step(&lab, x);
    lab_step(&lab, x);
    require_tensor(&lab, "the sum", lab.sum, 0, once, n, 1e-2f);
    lab_close(&lab);
    free(once);
    free(x);
}

/* WikiText-2's LSTM of the paper's table: 309.7, 203.1 and 120.3 times less at ranks 1, 2 and 4. */
static void powersgd_sends_what_its_paper_says(void **state)
{
    const size_t words = 28869, h = 650;
    const size_t n[] = {words * h, 4 * h * h, 4 * h * h, 4 * h * h,
                        4 * h * h, 4 * h * h, 4 * h * h};
    const size_t rows[] = {words, 4 * h, 4 * h, 4 * h, 4 * h, 4 * h, 4 * h};
    const double ranks[] = {1, 2, 4}, printed[] = {309.7, 203.1, 120.3};
    const double dense = (double)(24 * h + words);
    struct layout l;
    struct call call = {.layout = &l};

    layout_describe(&l, n, 7);
    layout_tell_rows(&l, rows);
    assert_int_equal((size_t)dense + l.elements, 28949319);
    for (int i = 0; i < 3; i++) {
        const double settings[] = {ranks[i], 2, 1};
        struct method m = {compressor_find("powersgd"), NULL, settings, NULL};
        double bytes = 4 * dense;

        for (uint32_t t = 0; t < 7; t++)
            bytes += method_paper_bytes(&m, &call, t, 1);
        assert_int_equal(lround(4 * 28949319 / bytes * 10), lround(printed[i] * 10));
    }
    layout_destroy(&l);
}

/* Both rounds' messages, packed and unpacked. */
static void messages_of_every_round_hold(void **state)
{
    static const char *const names[] = {"clt-k", "gtopk", "powersgd"};
    const size_t n[] = {3000, 2000, 8}, rows[] = {1, 40, 1};

    for (size_t i = 0; i < ARRAY_LENGTH(names); i++) {
        float *x = allocate((size_t)3 * 5008, sizeof(*x));
        struct error err = {""};
        struct lab lab;

        harness_floats(9, x, (size_t)3 * 5008);
        begin(&lab, &(struct setup){names[i], "residual", n, rows, 3, 3, 0.05, NULL});
        lab_step(&lab, x);
        assert_true(message_verify(&lab.message, &lab.layout, ENCODING_RAW, &err));
        if (lab.rounds.first.senders > 0)
            assert_true(message_verify(&lab.rounds.first, &lab.layout, ENCODING_RAW, &err));
        lab_close(&lab);
        free(x);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gtopk_is_the_slow_tree),
        cmocka_unit_test(gtopk_conserves),
        cmocka_unit_test(the_leader_chooses),
        cmocka_unit_test(powersgd_is_the_slow_one),
        cmocka_unit_test(full_rank_is_exact),
        cmocka_unit_test(small_matrices_go_whole),
        cmocka_unit_test(powersgd_scales),
        cmocka_unit_test(powersgd_sends_what_its_paper_says),
        cmocka_unit_test(messages_of_every_round_hold),
    };
    int failed = 0;

    for (const char *const *d = harness_devices(); *d != NULL; d++) {
        device = *d;
        failed += cmocka_run_group_tests_name(device, tests, NULL, NULL);
    }
    return failed;
}

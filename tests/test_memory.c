/*
 * test_memory -- what memories make of gradients, against numbers computed by hand.
 */
#include "tests/lab.h"

#include "sim/optimizer.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *device;

static const size_t eight[] = {8};
static const float g1[] = {.50f, -.11f, .31f, -.83f, .07f, .02f, -.23f, .42f};
static const float g2[] = {-.13f, .19f, .36f, .12f, -.05f, .61f, -.27f, .03f};

static void begin(struct lab *lab, const char *compressor, const char *memory, const size_t *n,
                  uint32_t tensors, uint32_t workers, double ratio)
{
    lab_open(lab, &(struct lab_spec){device, compressor_find(compressor), memory_find(memory), n,
                                     tensors, workers, ratio, NULL, NULL, NULL, NULL});
}

/* Eight elements of one worker, the usual case. */
static void begin_eight(struct lab *lab, const char *memory, double ratio)
{
    begin(lab, "topk", memory, eight, 1, 1, ratio);
}

/* The first eight floats on the device; what is not told is zero. */
static void require_eight(struct lab *lab, const char *what, const float *on_device,
                          const double *expected)
{
    float *x = lab_download(lab, on_device, 1);

    for (int i = 0; i < 8; i++)
        if (!(fabs((double)x[i] - expected[i]) < 1e-6))
            fail_msg("%s: element %d is %.7g, not %.7g", what, i, (double)x[i], expected[i]);
    free(x);
}

static void a_residual_by_hand(void **state)
{
    struct lab lab;

    begin_eight(&lab, "residual", 0.25);
    lab_step(&lab, g1);
    require_eight(&lab, "sent first", lab.sum, (double[8]){.5, 0, 0, -.83});
    require_eight(&lab, "residual", lab.slab[0], (double[]){0, -.11, .31, 0, .07, .02, -.23, .42});
    lab_step(&lab, g2);
    require_eight(&lab, "sent then", lab.sum, (double[8]){[2] = .67, [5] = .63});
    require_eight(&lab, "residual then", lab.slab[0],
                  (double[]){-.13, .08, 0, .12, .02, 0, -.5, .45});
    lab_close(&lab);
}

static void beta_and_gamma_weigh_old_and_new(void **state)
{
    struct lab lab;

    begin_eight(&lab, "residual", 0.25);
    lab_set_memory(&lab, "beta", 0.5);
    lab_set_memory(&lab, "gamma", 2);
    lab_step(&lab, g1);
    require_eight(&lab, "sent first", lab.sum, (double[8]){1, 0, 0, -1.66});
    lab_step(&lab, g2);
    require_eight(&lab, "sent then", lab.sum, (double[8]){[2] = 1.03, [5] = 1.24});
    require_eight(&lab, "residual then", lab.slab[0],
                  (double[]){-.26, .27, 0, .24, -.03, 0, -.77, .48});
    lab_close(&lab);
}

/* With beta 1/2 half of what is kept comes back. */
static void a_low_pass_by_hand(void **state)
{
    struct lab lab;

    begin_eight(&lab, "low-pass", 0.25);
    lab_set_memory(&lab, "beta", 0.5);
    lab_step(&lab, g1);
    require_eight(&lab, "sent first", lab.sum, (double[8]){.5, 0, 0, -.83});
    require_eight(&lab, "kept", lab.slab[0], (double[]){0, -.11, .31, 0, .07, .02, -.23, .42});
    lab_step(&lab, g2);
    require_eight(&lab, "sent then", lab.sum, (double[8]){[2] = .515, [5] = .62});
    require_eight(&lab, "kept then", lab.slab[0],
                  (double[]){-.13, .08, .155, .12, .02, .01, -.5, .45});
    lab_close(&lab);
}

static void with_beta_1_a_low_pass_is_a_residual(void **state)
{
    float *kept[2];

    for (int i = 0; i < 2; i++) {
        struct lab lab;

        begin_eight(&lab, i == 0 ? "residual" : "low-pass", 0.25);
        if (i == 1)
            lab_set_memory(&lab, "beta", 1);
        lab_step(&lab, g1);
        lab_step(&lab, g2);
        lab_step(&lab, g1);
        kept[i] = lab_download(&lab, lab.slab[0], 1);
        lab_close(&lab);
    }
    assert_memory_equal(kept[0], kept[1], 8 * sizeof(float));
    free(kept[0]);
    free(kept[1]);
}

static void without_memory_what_is_not_sent_is_lost(void **state)
{
    struct lab lab;

    begin_eight(&lab, "none", 0.25);
    lab_step(&lab, g1);
    require_eight(&lab, "sent first", lab.sum, (double[8]){.5, 0, 0, -.83});
    lab_step(&lab, g2);
    require_eight(&lab, "sent then", lab.sum, (double[8]){[2] = .36, [5] = .61});
    lab_close(&lab);
}

/* dgc keeps the velocity in slab 0, the momentum in slab 1. */
static void dgc_by_hand(void **state)
{
    struct lab lab;

    begin_eight(&lab, "dgc", 0.25);
    lab_step(&lab, g1);
    require_eight(&lab, "sent first", lab.sum, (double[8]){.5, 0, 0, -.83});
    require_eight(&lab, "u first", lab.slab[1], (double[]){0, -.11, .31, 0, .07, .02, -.23, .42});
    lab_step(&lab, g2);
    require_eight(&lab, "sent then", lab.sum, (double[8]){[2] = .949, [7] = .828});
    require_eight(&lab, "u", lab.slab[1], (double[]){-.13, .091, 0, .12, .013, .628, -.477, 0});
    require_eight(&lab, "v", lab.slab[0], (double[]){-.13, -.019, 0, .12, .083, .648, -.707, 0});
    lab_close(&lab);
}

static void nesterov_dgc_by_hand(void **state)
{
    struct lab lab;

    begin_eight(&lab, "dgc", 0.25);
    lab.step.nesterov = 1;
    lab_step(&lab, g1);
    require_eight(&lab, "sent first", lab.sum, (double[8]){.95, 0, 0, -1.577});
    lab_step(&lab, g2);
    require_eight(&lab, "sent then", lab.sum, (double[8]){[2] = 1.5241, [5] = 1.2132});
    require_eight(&lab, "u", lab.slab[1],
                  (double[]){-.117, .0819, 0, .108, .0117, 0, -.4293, .3672});
    require_eight(&lab, "v", lab.slab[0],
                  (double[]){-.247, .0629, 0, .228, .0947, 0, -1.1363, 1.1952});
    lab_close(&lab);
}

static void without_masking_momentum_stays_where_was_sent(void **state)
{
    struct lab lab;

    begin_eight(&lab, "dgc", 0.25);
    lab_set_memory(&lab, "masking", 0);
    lab_step(&lab, g1);
    require_eight(&lab, "u first", lab.slab[1],
                  (double[]){.50, -.11, .31, -.83, .07, .02, -.23, .42});
    require_eight(&lab, "v first", lab.slab[0], (double[]){0, -.11, .31, 0, .07, .02, -.23, .42});
    lab_step(&lab, g2);
    require_eight(&lab, "u", lab.slab[1],
                  (double[]){.32, .091, .639, -.627, .013, .628, -.477, .408});
    require_eight(&lab, "sent then", lab.sum, (double[8]){[2] = .949, [7] = .828});
    lab_close(&lab);
}

static void a_tensor_sent_whole_keeps_its_momentum(void **state)
{
    struct lab lab;

    begin_eight(&lab, "dgc", 1);
    lab_step(&lab, g1);
    lab_step(&lab, g2);
    require_eight(&lab, "u", lab.slab[1],
                  (double[]){.32, .091, .639, -.627, .013, .628, -.477, .408});
    require_eight(&lab, "sent", lab.sum,
                  (double[]){.32, .091, .639, -.627, .013, .628, -.477, .408});
    require_eight(&lab, "v", lab.slab[0], (double[8]){0});
    lab_set_ratio(&lab, 0.25); /* after the warm-up it is masked again */
    lab_step(&lab, g2);
    require_eight(&lab, "u then", lab.slab[1],
                  (double[]){.158, .2719, 0, -.4443, -.0383, 0, -.6993, .3972});
    lab_close(&lab);
}

static void momentum_is_the_schedules_and_may_change(void **state)
{
    struct lab lab;

    begin_eight(&lab, "dgc", 0.25);
    lab.step.momentum = 0.5f;
    lab_step(&lab, g1);
    lab_step(&lab, g2);
    require_eight(&lab, "u", lab.slab[1], (double[]){-.13, .135, 0, .12, -.015, .62, -.385, 0});
    lab.step.momentum = 0;
    lab_step(&lab, g2);
    require_eight(&lab, "u without", lab.slab[1], (double[]){-.13, .19, .36, .12, -.05, 0, 0, .03});
    lab_close(&lab);
}

/* What a memory keeps after four steps. */
static float *kept_after_four(const char *memory, bool correction)
{
    const struct memory *m = memory_find(memory);
    struct lab lab;
    float *kept;

    begin_eight(&lab, memory, 0.25);
    if (m->owns_momentum != NULL) {
        assert_true(m->owns_momentum(lab.memory_setting));
        lab_set_memory(&lab, "correction", correction);
        assert_int_equal(m->owns_momentum(lab.memory_setting), correction);
    }
    for (int step = 0; step < 4; step++)
        lab_step(&lab, step % 2 == 0 ? g1 : g2);
    if (m->owns_momentum != NULL && !correction)
        require_eight(&lab, "u", lab.slab[1], (double[8]){0});
    kept = lab_download(&lab, lab.slab[m->residual], 1);
    lab_close(&lab);
    return kept;
}

static void without_correction_dgc_is_a_residual(void **state)
{
    float *dgc = kept_after_four("dgc", false);
    float *residual = kept_after_four("residual", false);
    float *corrected = kept_after_four("dgc", true);

    assert_memory_equal(dgc, residual, 8 * sizeof(*dgc));
    assert_memory_not_equal(dgc, corrected, 8 * sizeof(*dgc));
    free(dgc);
    free(residual);
    free(corrected);
}

/* share g + decay p is what counts, in every memory. */
static void check_share_and_decay(const char *memory)
{
    const float shares[] = {0.5f, 0};
    const float p[] = {1, -1, 2, -2, 3, -3, 4, -4};
    double part = strcmp(memory, "momentum") == 0 ? 0.1 : 1; /* of the first gradient */
    struct lab lab;
    float x[16];
    float *wanted;

    begin(&lab, "topk", memory, eight, 1, 2, 0.25);
    memcpy(x, g1, sizeof(g1));
    memcpy(x + 8, g2, sizeof(g2));
    lab.scales = lab.decays = true;
    lab.step.weight_decay = 0.25f;
    lab_upload(&lab, lab.params, p, 1);
    device_upload(&lab.dev, lab.share, shares, sizeof(shares));
    lab_begin(&lab, x);
    lab_enter(&lab, 0, 2);
    lab_compensate(&lab);
    wanted = lab_download(&lab, lab.wanted, 2);
    for (uint32_t w = 0; w < 2; w++)
        for (int i = 0; i < 8; i++)
            assert_true(fabs((double)wanted[lab_place(&lab, w, 0, (size_t)i)] -
                             part * ((double)shares[w] * (double)x[8 * w + (uint32_t)i] +
                                     0.25 * (double)p[i])) < 1e-6);
    free(wanted);
    lab_close(&lab);
}

static void shares_and_local_weight_decay_count_in_every_memory(void **state)
{
    for (const struct memory *const *m = memories; *m != NULL; m++)
        check_share_and_decay((*m)->name);
}

/* What fades ends as zero, not as a denormal that stays. */
static void what_fades_is_zero_in_the_end(void **state)
{
    static const char *const names[] = {"momentum", "residual", "dgc"};
    const float none[8] = {0};

    for (size_t i = 0; i < ARRAY_LENGTH(names); i++) {
        struct lab lab;
        float *kept;

        begin_eight(&lab, names[i], 0.125);
        lab.step.momentum = 0.75f;
        if (strcmp(names[i], "dgc") != 0)
            lab_set_memory(&lab, "beta", 0.75);
        lab_step(&lab, g1);
        for (int step = 0; step < 400; step++)
            lab_step(&lab, none);
        kept = lab_download(&lab, lab.slab[strcmp(names[i], "dgc") == 0], 1);
        for (int e = 0; e < 8; e++)
            assert_true(kept[e] == 0);
        free(kept);
        lab_close(&lab);
    }
}

/* x -= lr g + e inside: the residual keeps lr times the gradient when lr falls to a quarter. */
static void a_residual_may_keep_the_learning_rate(void **state)
{
    const float one[] = {8, 1, 0, 0, 0, 0, 0, 0}, none[8] = {0};
    struct lab lab;
    float *kept;

    begin_eight(&lab, "residual", 0.125);
    lab_set_memory(&lab, "lr_inside", 1);
    lab_step(&lab, one);
    lab.step.lr_change = 4;
    lab_step(&lab, none);
    kept = lab_download(&lab, lab.sum, 1);
    assert_true(kept[0] == 0 && kept[1] == 4);
    free(kept);
    lab_close(&lab);
}

static void momentum_fades(void **state)
{
    struct lab lab;
    float want[8];
    float *mean;

    begin_eight(&lab, "momentum", 0.25);
    lab_set_memory(&lab, "beta", 0.5);
    lab_step(&lab, g1);
    lab_step(&lab, g2);
    mean = lab_download(&lab, lab.slab[0], 1);
    for (int i = 0; i < 8; i++) {
        want[i] = 0.25f * g1[i] + 0.5f * g2[i];
        assert_true(fabsf(mean[i] - want[i]) < 1e-6f);
    }
    free(mean);
    lab_close(&lab);
}

static void no_memory_leaves_gradients_where_they_are(void **state)
{
    struct lab lab;

    begin_eight(&lab, "none", 0.25);
    lab_step(&lab, g1);
    assert_ptr_equal(lab.wanted, lab.grad);
    lab.scales = true;
    lab_step(&lab, g1);
    assert_ptr_equal(lab.wanted, lab.scaled);
    lab_close(&lab);
}

/* Fifty steps: everything sent and what is left are everything that came, to rounding. */
static void a_residual_loses_nothing(void **state)
{
    enum { N = 309, STEPS = 50 };
    const size_t n[] = {1, 8, 300};
    double off[3][N] = {{0}};
    struct lab lab;
    float x[N];
    float *left;

    begin(&lab, "topk", "residual", n, 3, 1, 0.01);
    for (uint64_t step = 0; step <= STEPS; step++) {
        float *sum;
        size_t at = 0;

        harness_floats(step, x, N);
        if (step < STEPS)
            lab_step(&lab, x);
        sum = lab_download(&lab, step < STEPS ? lab.sum : lab.slab[0], 1);
        for (uint32_t t = 0; t < 3; t++)
            for (size_t i = 0; i < n[t]; i++, at++)
                off[t][i] +=
                    (double)sum[lab_place(&lab, 0, t, i)] - (step < STEPS ? (double)x[at] : 0);
        free(sum);
    }
    for (uint32_t t = 0; t < 3; t++)
        for (size_t i = 0; i < n[t]; i++)
            assert_true(fabs(off[t][i]) < 1e-5);
    left = lab_download(&lab, lab.slab[0], 1);
    assert_true(left[0] == 0 && left[lab_place(&lab, 0, 2, 17)] != 0);
    free(left);
    lab_close(&lab);
}

enum { TENSORS = 4, ELEMENTS = 70309 };
static const size_t mixed[TENSORS] = {1, 8, 300, 70000};

/* The state of worker `own` after three steps: alone, or as one of three. */
static float *state_of(const char *memory, uint32_t slab, uint32_t workers, uint32_t own,
                       size_t *bytes)
{
    float *x = allocate(3 * (size_t)ELEMENTS, sizeof(*x));
    struct lab lab;
    float *kept, *row;

    begin(&lab, "topk", memory, mixed, TENSORS, workers, 0.01);
    for (uint64_t step = 0; step < 3; step++) {
        for (uint32_t w = 0; w < workers; w++)
            harness_floats(10 * step + (workers == 1 ? own : w), x + w * (size_t)ELEMENTS,
                           ELEMENTS);
        lab_step(&lab, x);
    }
    kept = lab_download(&lab, lab.slab[slab], workers);
    *bytes = lab.stride * sizeof(*row);
    row = allocate(lab.stride, sizeof(*row));
    memcpy(row, kept + (workers == 1 ? 0 : own) * lab.stride, *bytes);
    lab_close(&lab);
    free(kept);
    free(x);
    return row;
}

static void workers_remember_each_for_themselves(void **state)
{
    for (const struct memory *const *m = memories; *m != NULL; m++) {
        for (uint32_t slab = 0; slab < memory_slabs(*m); slab++) {
            for (uint32_t own = 0; own < 3; own += 2) {
                size_t bytes;
                float *alone = state_of((*m)->name, slab, 1, own, &bytes);
                float *among = state_of((*m)->name, slab, 3, own, &bytes);

                assert_true(memcmp(alone, among, bytes) == 0);
                free(alone);
                free(among);
            }
        }
    }
}

/* Paddle#21278: p = 1, gradient .5, lr .1, momentum .9, weight decay .1, three steps. */
struct decay_case {
    const char *compressor, *memory;
    enum decay_at at;
    bool nesterov, masking;
};

static void check_decay(const struct decay_case *d)
{
    const double plain[] = {.94, .8266, .666274};
    const double nesterov[] = {.886, .725566, .525364};
    const size_t n = 1;
    const float one = 1, half = .5f;
    struct config *c = allocate(1, sizeof(*c));
    struct workers w;
    struct optimizer o;
    struct lab lab;

    begin(&lab, d->compressor, d->memory, &n, 1, 1, 1);
    if (strcmp(d->memory, "dgc") == 0)
        lab_set_memory(&lab, "masking", d->masking);
    lab.step.weight_decay = .1f;
    lab.step.nesterov = d->nesterov;
    lab.decays = lab.scales = d->at == DECAY_LOCAL;
    lab_upload(&lab, lab.params, &one, 1);
    *c = (struct config){.phases = 1,
                         .phase = {{.optimizer = {.name = "sgd"}, .momentum = .9}},
                         .weight_decay_at = d->at};
    memcpy(c->memory.value, lab.memory_setting, sizeof(c->memory.value));
    w = (struct workers){.dev = &lab.dev,
                         .config = c,
                         .memory = lab.spec.memory,
                         .count = 1,
                         .all = lab.layout,
                         .compressed = lab.layout,
                         .params = lab.params,
                         .step = lab.step_dev};
    optimizer_create(&o, &w);
    for (int step = 0; step < 3; step++) {
        double expected = d->nesterov ? nesterov[step] : plain[step];
        float *p;

        lab_step(&lab, &half);
        device_copy(&lab.dev, o.sum, lab.sum, lab.layout.length * sizeof(float));
        optimizer_apply(&o, &w);
        p = lab_download(&lab, lab.params, 1);
        if (!(fabs((double)p[0] - expected) < 1e-6))
            fail_msg("%s, %s, %s decay%s: p is %.7g after step %d, not %.7g", d->compressor,
                     d->memory, d->at == DECAY_LOCAL ? "local" : "aggregate",
                     d->nesterov ? ", Nesterov" : "", (double)p[0], step + 1, expected);
        free(p);
    }
    lab_require_padding(&lab, "parameters", lab.params, 1);
    optimizer_destroy(&o, &w);
    lab_close(&lab);
    free(c);
}

static void weight_decay_is_that_of_momentum_sgd(void **state)
{
    for (int at = DECAY_AGGREGATE; at <= DECAY_LOCAL; at++) {
        for (int nesterov = 0; nesterov <= 1; nesterov++) {
            check_decay(&(struct decay_case){"none", "none", at, nesterov, false});
            check_decay(&(struct decay_case){"topk", "none", at, nesterov, false});
            check_decay(&(struct decay_case){"topk", "residual", at, nesterov, false});
            check_decay(&(struct decay_case){"dgc", "dgc", at, nesterov, false});
            check_decay(&(struct decay_case){"dgc", "dgc", at, nesterov, true});
            check_decay(&(struct decay_case){"none", "dgc", at, nesterov, true});
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_residual_by_hand),
        cmocka_unit_test(a_low_pass_by_hand),
        cmocka_unit_test(with_beta_1_a_low_pass_is_a_residual),
        cmocka_unit_test(beta_and_gamma_weigh_old_and_new),
        cmocka_unit_test(without_memory_what_is_not_sent_is_lost),
        cmocka_unit_test(dgc_by_hand),
        cmocka_unit_test(nesterov_dgc_by_hand),
        cmocka_unit_test(without_masking_momentum_stays_where_was_sent),
        cmocka_unit_test(a_tensor_sent_whole_keeps_its_momentum),
        cmocka_unit_test(momentum_is_the_schedules_and_may_change),
        cmocka_unit_test(without_correction_dgc_is_a_residual),
        cmocka_unit_test(shares_and_local_weight_decay_count_in_every_memory),
        cmocka_unit_test(what_fades_is_zero_in_the_end),
        cmocka_unit_test(a_residual_may_keep_the_learning_rate),
        cmocka_unit_test(momentum_fades),
        cmocka_unit_test(no_memory_leaves_gradients_where_they_are),
        cmocka_unit_test(a_residual_loses_nothing),
        cmocka_unit_test(workers_remember_each_for_themselves),
        cmocka_unit_test(weight_decay_is_that_of_momentum_sgd),
    };
    int failed = 0;

    for (const char *const *d = harness_devices(); *d != NULL; d++) {
        device = *d;
        failed += cmocka_run_group_tests_name(device, tests, NULL, NULL);
    }
    return failed;
}

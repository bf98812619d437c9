/*
 * test_train -- the identities of the simulator: what must not change the result does not.
 */
#include "tests/harness.h"

#include "sim/exchange.h"

#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WORDS 37
#define SGD   "\"schedule\": {\"0\": {\"optimizer\": \"sgd\", \"lr\": 0.5}}"
#define MOMENTUM_SGD                                                                 \
    "\"schedule\": {\"0\": {\"optimizer\": \"sgd\", \"lr\": 0.2, \"momentum\": 0.9," \
    " \"weight_decay\": 0.01}}"

static const char *device = "cpu";

/* A run of some steps: which regime, and what is done differently. */
struct run {
    uint32_t workers, batch, steps;
    const char *more;         /* keys of the regime */
    const char *const *flags; /* may be NULL */
    size_t tokens;            /* of the text; 0: 1999 */
    int threads;              /* 0: 2 */
    const float *start;       /* parameters, or NULL: those of the seed */
};

static struct config *config_of(const struct run *r)
{
    char *json = format_text(
        "{\"model\": {\"name\": \"lstm\", \"hidden\": 12, \"layers\": 2, \"dropout\": 0.25},"
        " \"data\": {\"name\": \"text\", \"path\": \"none\", \"bptt\": 7},"
        " \"evaluate\": {\"batch\": 4, \"bptt\": 5}, \"workers\": %u, \"batch\": %u,"
        " \"epochs\": 9, %s}",
        r->workers, r->batch, r->more);
    struct config *c = harness_config(json, r->flags);

    free(json);
    return c;
}

static void start(struct train *t, struct config **c, const struct run *r)
{
    size_t count = r->tokens > 0 ? r->tokens : 1999;
    uint32_t *token = harness_tokens(5, WORDS, count);

    *c = config_of(r);
    harness_train(t, *c, device, WORDS, token, count);
    omp_set_num_threads(r->threads > 0 ? r->threads : 2);
    free(token);
    if (r->start != NULL)
        device_upload(&t->dev, t->workers.params, r->start, t->parameters.length * sizeof(float));
}

static void stop(struct train *t, struct config *c)
{
    train_destroy(t);
    harness_config_free(c);
}

static void take_steps(struct train *t, uint32_t steps)
{
    for (uint32_t i = 0; i < steps; i++)
        train_step(t, (uint32_t)(i / t->steps), i % t->steps);
}

/* The parameters after the run's steps, to be freed. */
static float *trained(const struct run *r, size_t *n)
{
    struct train t;
    struct config *c;
    float *params;

    start(&t, &c, r);
    take_steps(&t, r->steps);
    *n = t.parameters.length;
    params = harness_download(&t, t.workers.params, *n);
    stop(&t, c);
    return params;
}

static void require_same(const struct run *a, const struct run *b, double tolerance)
{
    size_t n, m;
    float *x = trained(a, &n);
    float *y = trained(b, &m);

    assert_int_equal(n, m);
    for (size_t i = 0; i < n; i++)
        assert_true(isfinite(x[i]));
    if (tolerance > 0)
        for (size_t i = 0; i < n; i++)
            assert_true(fabs((double)x[i] - (double)y[i]) <= tolerance);
    else
        assert_memory_equal(x, y, n * sizeof(*x));
    free(x);
    free(y);
}

/* Dropout, weight decay, momentum, and a text whose last segment is short (332 rows, bptt 7, epochs
 * of 48 steps and 20 of them over the end of none: so 50 steps). */
static void k_workers_without_compression_are_one(void **state)
{
    struct run one = {.workers = 1, .batch = 12, .steps = 20, .more = MOMENTUM_SGD};
    struct run three = {.workers = 3, .batch = 4, .steps = 20, .more = MOMENTUM_SGD};
    struct run twelve = {.workers = 12, .batch = 1, .steps = 20, .more = MOMENTUM_SGD};

    require_same(&one, &three, 1e-5);
    require_same(&one, &twelve, 1e-5);
}

static void also_over_a_short_last_segment(void **state)
{
    struct run one = {.workers = 1, .batch = 12, .steps = 20, .more = MOMENTUM_SGD, .tokens = 599};
    struct run three = {.workers = 3, .batch = 4, .steps = 20, .more = MOMENTUM_SGD, .tokens = 599};

    require_same(&one, &three, 1e-5);
}

static void weight_decay_in_either_place_is_the_same_without_compression(void **state)
{
    struct run local = {.workers = 3,
                        .batch = 4,
                        .steps = 20,
                        .more = MOMENTUM_SGD ", \"weight_decay_at\": \"local\""};
    struct run aggregate = {.workers = 3,
                            .batch = 4,
                            .steps = 20,
                            .more = MOMENTUM_SGD ", \"weight_decay_at\": \"aggregate\""};

    require_same(&local, &aggregate, 1e-5);
}

static void topk_at_ratio_1_is_none(void **state)
{
    struct run none = {.workers = 3, .batch = 4, .steps = 8, .more = SGD};
    struct run topk = {
        .workers = 3, .batch = 4, .steps = 8, .more = SGD ", \"compressor\": \"topk:ratio=1\""};

    require_same(&none, &topk, 0);
}

static void dgc_at_ratio_1_is_momentum_sgd(void **state)
{
    struct run none = {.workers = 3, .batch = 4, .steps = 12, .more = MOMENTUM_SGD};
    struct run dgc = {.workers = 3,
                      .batch = 4,
                      .steps = 12,
                      .more = MOMENTUM_SGD ", \"compressor\": \"dgc:ratio=1\""};
    struct run unmasked = {.workers = 3,
                           .batch = 4,
                           .steps = 12,
                           .more = MOMENTUM_SGD ", \"compressor\": \"dgc:ratio=1\","
                                                " \"memory\": \"dgc:masking=0\""};
    struct run through_none = {
        .workers = 3, .batch = 4, .steps = 12, .more = MOMENTUM_SGD ", \"memory\": \"dgc\""};

    require_same(&none, &dgc, 1e-5);
    require_same(&none, &unmasked, 1e-5);
    require_same(&none, &through_none, 1e-5);
}

static void without_correction_dgc_is_topk_with_the_optimizers_momentum(void **state)
{
    struct run topk = {.workers = 3,
                       .batch = 4,
                       .steps = 12,
                       .more = MOMENTUM_SGD ", \"compressor\": \"gradient-dropping:ratio=0.1\""};
    struct run dgc = {.workers = 3,
                      .batch = 4,
                      .steps = 12,
                      .more = MOMENTUM_SGD ", \"compressor\": \"dgc:ratio=0.1\","
                                           " \"memory\": \"dgc:correction=0\""};

    require_same(&topk, &dgc, 0);
}

/* From the gradient to the wire, threads change nothing; on this model's sizes neither do they in
 * oneDNN's products. */
static void same_run_twice_is_the_same_to_the_bit(void **state)
{
    struct run a = {.workers = 3,
                    .batch = 4,
                    .steps = 12,
                    .more = MOMENTUM_SGD ", \"compressor\": \"dgc:ratio=0.05\""};

    require_same(&a, &a, 0);
}

static void groups_and_streams_do_not_change_the_result(void **state)
{
    static const char *const groups[][7] = {
        {"--group", "5", NULL}, {"--group", "2", "--streams", "2", NULL}, {"--group", "1", NULL}};
    static const char *const methods[] = {SGD ", \"compressor\": \"none\"",
                                          SGD ", \"compressor\": \"topk:ratio=0.1\","
                                              " \"clip\": {\"norm\": 0.1, \"mode\": \"local\"}",
                                          MOMENTUM_SGD ", \"compressor\": \"dgc:ratio=0.1\""};

    for (size_t m = 0; m < ARRAY_LENGTH(methods); m++) {
        struct run all = {
            .workers = 5, .batch = 3, .steps = 3, .more = methods[m], .flags = groups[0]};

        for (size_t g = 1; g < ARRAY_LENGTH(groups); g++) {
            struct run some = all;

            some.flags = groups[g];
            require_same(&all, &some, 1e-5);
        }
    }
}

/* Worker b of K = 3 has the gradient of a run on its columns alone. */
static void a_workers_gradient_is_the_mean_over_its_own_samples(void **state)
{
    struct run three = {
        .workers = 3, .batch = 4, .more = SGD ", \"compressor\": \"topk:ratio=0.5\""};
    struct run one = {.workers = 1, .batch = 4, .more = SGD};
    size_t rows = 1999 / 12;
    uint32_t *token = harness_tokens(5, WORDS, 1999);
    struct config *c3, *c1;
    struct train all, alone;

    /* Dropout is keyed by the place in the global batch, which differs here: without it. */
    static const char *const flags[] = {"--dropout", "0", NULL};

    three.flags = one.flags = flags;
    start(&all, &c3, &three);
    take_steps(&all, 1);
    for (uint32_t k = 0; k < 3; k++) {
        float *x, *y;

        c1 = config_of(&one);
        harness_train(&alone, c1, "cpu", WORDS, token + k * 4 * rows, 4 * rows);
        take_steps(&alone, 1);
        x = harness_download(&all, all.workers.lane[0].slab + k * all.parameters.length,
                             all.parameters.length);
        y = harness_download(&alone, alone.workers.lane[0].slab, alone.parameters.length);
        require_close("gradient", x, y, alone.parameters.length, 1e-5);
        free(x);
        free(y);
        stop(&alone, c1);
    }
    stop(&all, c3);
    free(token);
}

static void require_zero_padding(struct train *t, const float *slab, uint32_t workers)
{
    size_t p = t->parameters.length;
    float *x = harness_download(t, slab, workers * p);

    for (uint32_t k = 0; k < workers; k++)
        for (uint32_t i = 0; i < t->parameters.count; i++) {
            const struct parameter *q = &t->parameters.item[i];

            for (size_t e = q->at + q->n; e % 256 != 0; e++)
                assert_true(x[k * p + e] == 0);
        }
    free(x);
}

static void padding_behind_tensors_stays_zero(void **state)
{
    struct run r = {.workers = 3,
                    .batch = 4,
                    .steps = 5,
                    .more = MOMENTUM_SGD ", \"compressor\": \"dgc:ratio=0.1\","
                                         " \"weight_decay_at\": \"local\""};
    struct config *c;
    struct train t;

    start(&t, &c, &r);
    take_steps(&t, r.steps);
    require_zero_padding(&t, t.workers.params, 1);
    require_zero_padding(&t, t.optimizer.sum, 1);
    require_zero_padding(&t, t.workers.lane[0].slab, 3);
    require_zero_padding(&t, t.workers.kept[0], 3);
    require_zero_padding(&t, t.workers.kept[1], 3);
    stop(&t, c);
}

/* The first reference's way: one set of columns, segment s goes to worker s mod K, the hidden state
 * is handed on.  With parameters frozen (lr 0), K workers see what one sees. */
static void segments_hand_the_hidden_state_round(void **state)
{
    static const char *const flags[] = {"--sharding", "segments", "--lr", "0",
                                        "--dropout",  "0",        NULL};
    double loss[2];

    for (int i = 0; i < 2; i++) {
        struct run r = {.workers = i ? 4 : 1, .batch = 5, .more = SGD, .flags = flags};
        struct config *c;
        struct train t;
        double sum = 0;

        start(&t, &c, &r);
        /* 399 rows, 57 segments; of the last round of 4, one worker has a segment. */
        assert_int_equal(t.segments, 57);
        assert_int_equal(t.steps, i ? 15 : 57);
        take_steps(&t, (uint32_t)t.steps);
        device_download(&t.dev, t.loss, t.workers.loss_sum, t.loss_rows * sizeof(*t.loss));
        for (size_t row = 0; row < t.loss_rows; row++)
            sum += t.loss[row];
        loss[i] = sum / (398 * 5);
        stop(&t, c);
    }
    assert_true(fabs(loss[0] - loss[1]) < 1e-6 * loss[0]);
}

/* In a round where only some workers have a segment, the mean is over their samples. */
static void a_short_round_of_segments_is_a_mean_over_samples(void **state)
{
    static const char *const flags[] = {"--sharding", "segments", "--dropout", "0", NULL};
    struct run four = {.workers = 4, .batch = 5, .more = SGD, .flags = flags};
    struct config *c;
    struct train t;
    float *before, *after, *slab;

    start(&t, &c, &four);
    take_steps(&t, 14);
    before = harness_download(&t, t.workers.params, t.parameters.length);
    train_step(&t, 0, 14); /* worker 0 alone: segment 56, of 398 - 392 rows */
    after = harness_download(&t, t.workers.params, t.parameters.length);
    slab = harness_download(&t, t.workers.norm_sum == NULL ? NULL : t.workers.lane[0].slab,
                            t.parameters.length);
    for (uint32_t k = 1; k < 4; k++)
        assert_true(t.block.sample_share[k] == 0);
    assert_true(t.block.sample_share[0] == 4);
    free(before);
    free(after);
    free(slab);
    stop(&t, c);
}

static void steps_allocate_nothing_after_the_first_two(void **state)
{
    struct run r = {.workers = 5,
                    .batch = 3,
                    .more = MOMENTUM_SGD ", \"compressor\": \"dgc:ratio=0.1\"",
                    .tokens = 15 * 80};
    struct config *c;
    struct train t;
    size_t allocations;

    start(&t, &c, &r);
    take_steps(&t, 2);
    allocations = t.dev.allocations;
    take_steps(&t, 25);
    assert_int_equal(t.dev.allocations, allocations);
    if (strcmp(device, "recording") == 0)
        assert_true(recording_compared() > 10);
    stop(&t, c);
}

/* Every token is predicted once, whatever the evaluation's batch. */
static void evaluation_scores_every_predicted_token(void **state)
{
    static const char *const flags[][5] = {{"--set", "evaluate.batch=4", NULL},
                                           {"--set", "evaluate.bptt=50", NULL},
                                           {"--set", "evaluate.bptt=1", NULL}};
    double loss[3];

    for (int i = 0; i < 3; i++) {
        struct run r = {.workers = 2, .batch = 3, .more = SGD, .flags = flags[i]};
        struct config *c;
        struct train t;
        uint64_t scored;

        start(&t, &c, &r);
        loss[i] = train_evaluate(&t, TEXT_TEST, t.workers.params, &scored);
        assert_int_equal(scored, 4 * (1999 / 4 - 1));
        stop(&t, c);
    }
    assert_true(fabs(loss[1] - loss[0]) < 1e-6 && fabs(loss[2] - loss[0]) < 1e-6);
}

static void a_run_that_does_not_fit_is_refused_in_a_sentence(void **state)
{
    static const char *const flags[] = {"--hidden", "20000", "--workers", "64", NULL};
    struct run r = {
        .workers = 2, .batch = 3, .more = SGD ", \"compressor\": \"dgc\"", .flags = flags};
    struct config *c = config_of(&r);
    struct train t = {.config = c};
    uint32_t *token = harness_tokens(5, WORDS, 4000);
    struct error err = {""};

    t.text.words = WORDS;
    t.text.word = allocate(WORDS, sizeof(*t.text.word));
    for (int part = 0; part < TEXT_PARTS; part++)
        t.text.part[part] = (struct text_tokens){.count = 0};
    harness_open(&t.dev, device);
    assert_false(train_prepare(&t, &err));
    assert_non_null(strstr(err.text, "GiB"));
    assert_int_equal(t.dev.bytes, 0);
    train_destroy(&t);
    harness_config_free(c);
    free(token);
}

/* What is counted is what would be sent: the device's count against the packed bytes. */
static void counted_bytes_are_those_of_the_packed_messages(void **state)
{
    static const char *const encodings[] = {"raw", "runs16"};

    for (int e = 0; e < 2; e++) {
        const char *const flags[] = {"--encoding", encodings[e], NULL};
        struct run r = {.workers = 3,
                        .batch = 4,
                        .more = MOMENTUM_SGD ", \"compressor\": \"dgc:ratio=0.03\"",
                        .flags = flags};
        struct config *c;
        struct train t;
        struct traffic traffic;
        struct error err;

        start(&t, &c, &r);
        take_steps(&t, 1);
        device_download(&t.dev, &traffic, t.workers.traffic, sizeof(traffic));
        assert_true(traffic.bytes > 0);
        assert_true(workers_verify(&t.workers, &err));
        stop(&t, c);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(k_workers_without_compression_are_one),
        cmocka_unit_test(also_over_a_short_last_segment),
        cmocka_unit_test(weight_decay_in_either_place_is_the_same_without_compression),
        cmocka_unit_test(topk_at_ratio_1_is_none),
        cmocka_unit_test(dgc_at_ratio_1_is_momentum_sgd),
        cmocka_unit_test(without_correction_dgc_is_topk_with_the_optimizers_momentum),
        cmocka_unit_test(same_run_twice_is_the_same_to_the_bit),
        cmocka_unit_test(groups_and_streams_do_not_change_the_result),
        cmocka_unit_test(a_workers_gradient_is_the_mean_over_its_own_samples),
        cmocka_unit_test(padding_behind_tensors_stays_zero),
        cmocka_unit_test(segments_hand_the_hidden_state_round),
        cmocka_unit_test(a_short_round_of_segments_is_a_mean_over_samples),
        cmocka_unit_test(steps_allocate_nothing_after_the_first_two),
        cmocka_unit_test(evaluation_scores_every_predicted_token),
        cmocka_unit_test(a_run_that_does_not_fit_is_refused_in_a_sentence),
        cmocka_unit_test(counted_bytes_are_those_of_the_packed_messages),
    };
    int failed = 0;

    for (const char *const *d = harness_devices(); *d != NULL; d++) {
        device = *d;
        failed += cmocka_run_group_tests_name(device, tests, NULL, NULL);
    }
    return failed;
}

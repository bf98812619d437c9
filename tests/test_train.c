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

/* The parameters after the run's steps, to be freed. */
static float *trained(const struct run *r, size_t *n)
{
    struct train t;
    struct config *c;
    float *params;

    start(&t, &c, r);
    harness_steps(&t, r->steps);
    *n = t.parameters.length;
    params = harness_download(&t, t.workers.params, *n);
    harness_stop(&t, c);
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

/* With dropout, weight decay and momentum. */
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

/* Six workers in two nodes are two workers of three times the batch, whatever the method. */
static void nodes_are_workers_of_larger_batches(void **state)
{
    static const char *const methods[] = {"topk:ratio=0.05", "dgc:ratio=0.05", "qsgd", "powersgd"};

    for (size_t i = 0; i < ARRAY_LENGTH(methods); i++) {
        const char *flags[] = {"--compressor", methods[i], NULL};
        struct run six = {.workers = 6,
                          .batch = 2,
                          .steps = 8,
                          .more = MOMENTUM_SGD ", \"nodes\": 2, \"clip\": {\"norm\": 0.1, \"mode\":"
                                               " \"local-sqrt-k\"}",
                          .flags = flags};
        struct run two = {.workers = 2,
                          .batch = 6,
                          .steps = 8,
                          .more = MOMENTUM_SGD ", \"clip\": {\"norm\": 0.1, \"mode\":"
                                               " \"local-sqrt-k\"}",
                          .flags = flags};

        require_same(&six, &two, 0);
    }
}

/* Moves the compressed tensors of params as a worker does who has but the reply; its bytes: 8 an
 * entry, or 4 an element where all go, and a count. */
static uint64_t move_by_reply(struct train *t, float *params)
{
    const struct layout *l = &t->workers.compressed;
    struct packet reply;
    uint64_t bytes = 0;

    packet_download(&reply, &t->workers.reply, l, 0);
    for (uint32_t i = 0; i < l->count; i++) {
        uint64_t some = reply.count[i];

        for (size_t e = reply.begin[i]; e < reply.begin[i] + some; e++)
            params[l->at[i] + reply.index[e]] -= 0.5f * (reply.value[e] / 3);
        bytes += 4 + 4 * (2 * some < l->n[i] ? 2 * some : l->n[i]);
    }
    packet_free(&reply);
    return bytes;
}

static void check_server(const char *method)
{
    const char *flags[] = {"--compressor", method, "--exchange", "server", "--verify-wire", NULL};
    struct run served = {.workers = 3, .batch = 4, .steps = 6, .more = SGD, .flags = flags};
    const char *const plain_flags[] = {"--compressor", method, NULL};
    struct run plain = {.workers = 3, .batch = 4, .steps = 6, .more = SGD, .flags = plain_flags};
    struct train t;
    struct config *c;
    uint64_t reply = 0;
    struct sent sent;

    require_same(&served, &plain, 0);
    start(&t, &c, &served);
    for (uint32_t i = 0; i < served.steps; i++) {
        float *before = harness_download(&t, t.workers.params, t.parameters.length);
        float *after;

        train_step(&t, 0, i);
        reply += move_by_reply(&t, before);
        after = harness_download(&t, t.workers.params, t.parameters.length);
        assert_memory_equal(before, after, t.workers.compressed.length * sizeof(*after));
        free(after);
        free(before);
    }
    sent = workers_sent(&t.workers);
    assert_true(sent.reply.bytes == reply && reply > 0);
    assert_true(exchange_bytes_down(&t.workers, &sent, 0) == (double)reply);
    assert_true(t.wire_holds);
    harness_stop(&t, c);
}

static void a_server_changes_nothing_but_the_bytes_down(void **state)
{
    check_server("topk:ratio=0.05");
    check_server("topk:ratio=0.9");
    check_server("qsgd");
    check_server("threshold");
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
    harness_steps(&all, 1);
    for (uint32_t k = 0; k < 3; k++) {
        float *x, *y;

        c1 = config_of(&one);
        harness_train(&alone, c1, "cpu", WORDS, token + (size_t)k * 4 * rows, 4 * rows);
        harness_steps(&alone, 1);
        x = harness_download(&all, all.workers.lane[0].slab + k * all.parameters.length,
                             all.parameters.length);
        y = harness_download(&alone, alone.workers.lane[0].slab, alone.parameters.length);
        require_close("gradient", x, y, alone.parameters.length, 1e-5);
        free(x);
        free(y);
        harness_stop(&alone, c1);
    }
    harness_stop(&all, c3);
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
    harness_steps(&t, r.steps);
    require_zero_padding(&t, t.workers.params, 1);
    require_zero_padding(&t, t.optimizer.sum, 1);
    require_zero_padding(&t, t.workers.lane[0].slab, 3);
    require_zero_padding(&t, t.workers.memory_slab[0], 3);
    require_zero_padding(&t, t.workers.memory_slab[1], 3);
    harness_stop(&t, c);
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
        assert_int_equal(t.steps, i ? 15 : 57);
        harness_steps(&t, (uint32_t)t.steps);
        device_download(&t.dev, t.loss, t.workers.loss_sum, t.loss_rows * sizeof(*t.loss));
        for (size_t row = 0; row < t.loss_rows; row++)
            sum += t.loss[row];
        loss[i] = sum / (398 * 5);
        harness_stop(&t, c);
    }
    assert_true(fabs(loss[0] - loss[1]) < 1e-6 * loss[0]);
}

/* In a round where one worker of four has a segment, the update is that of one worker alone. */
static void a_short_round_of_segments_is_a_mean_over_samples(void **state)
{
    static const char *const flags[] = {"--sharding", "segments", "--dropout", "0", NULL};
    struct run run[] = {{.workers = 4, .batch = 5, .more = SGD, .flags = flags},
                        {.workers = 1, .batch = 5, .more = SGD, .flags = flags}};
    struct config *c[2];
    struct train t[2];
    float *params[2], *before, *hidden;
    size_t states;

    start(&t[0], &c[0], &run[0]);
    device = "cpu"; /* the recording device watches one run at a time */
    start(&t[1], &c[1], &run[1]);
    device = t[0].dev.ops->name;
    states = t[0].workers.state_samples * t[0].workers.lane[0].graph.state;
    harness_steps(&t[0], 14);
    before = harness_download(&t[0], t[0].workers.params, t[0].parameters.length);
    hidden = harness_download(&t[0], t[0].workers.state, states);
    device_upload(&t[1].dev, t[1].workers.params, before, t[1].parameters.length * sizeof(float));
    device_upload(&t[1].dev, t[1].workers.state, hidden, states * sizeof(float));
    for (int i = 0; i < 2; i++) {
        assert_int_equal(train_step(&t[i], 0, i ? 56 : 14), 5 * (398 - 56 * 7));
        params[i] = harness_download(&t[i], t[i].workers.params, t[i].parameters.length);
    }
    assert_true(memcmp(before, params[0], t[0].parameters.length * sizeof(float)) != 0);
    require_close("parameters", params[0], params[1], t[0].parameters.length, 1e-6);
    for (int i = 0; i < 2; i++) {
        free(params[i]);
        harness_stop(&t[i], c[i]);
    }
    free(before);
    free(hidden);
}

/* Rounding of a product may depend on the number of threads; what follows the gradient does not. */
static void one_thread_trains_as_two_do(void **state)
{
    struct run two = {.workers = 3,
                      .batch = 4,
                      .steps = 6,
                      .more = MOMENTUM_SGD ", \"compressor\": \"dgc:ratio=0.1\""};
    struct run one = two;

    one.threads = 1;
    require_same(&two, &one, 1e-5);
}

static void require_rates(const char *rule, const double *rates, const bool *improved)
{
    char *more = format_text(SGD ", \"lr_rule\": %s", rule);
    struct run r = {.workers = 2, .batch = 3, .more = more, .tokens = (size_t)6 * 22};
    struct config *c;
    struct train t;

    start(&t, &c, &r);
    assert_int_equal(t.steps, 3);
    for (uint32_t epoch = 0; epoch < c->epochs; epoch++) {
        train_step(&t, epoch, 0);
        assert_true(fabs((double)t.block.step.lr - rates[epoch]) < 1e-7);
        train_next_lr(&t, epoch, improved[epoch]);
    }
    harness_stop(&t, c);
    free(more);
}

/* lr 0.5 over 9 epochs of 3 steps. */
static void learning_rates_follow_their_rules(void **state)
{
    static const bool improved[9] = {true, true, false, true, false, false, true, true, true};
    double rates[9];

    for (int i = 0; i < 9; i++)
        rates[i] = 0.5 * (1 - 0.9 * (3 * i) / 26.0);
    require_rates("{\"name\": \"linear\", \"to\": 0.1}", rates, improved);
    require_rates("{\"name\": \"anneal\", \"factor\": 0.5}",
                  (double[]){.5, .5, .5, .25, .25, .125, .0625, .0625, .0625}, improved);
    require_rates("{\"name\": \"decay\", \"factor\": 0.5, \"from\": 6}",
                  (double[]){.5, .5, .5, .5, .5, .5, .5, .25, .125}, improved);
    for (int i = 0; i < 9; i++)
        rates[i] = 0.5 * (0.1 + 0.9 * (1 + cos(acos(-1.0) * 3 * i / 27)) / 2);
    require_rates("{\"name\": \"cosine\", \"to\": 0.1}", rates, improved);
    rates[0] = 0.5 * 0.1;
    rates[1] = 0.5 * (0.1 + 0.9 / 2);
    for (int i = 2; i < 9; i++)
        rates[i] = 0.5 * (1 + cos(acos(-1.0) * (3 * i - 6) / 21)) / 2;
    require_rates("\"cosine\", \"lr_warmup\": {\"epochs\": 2, \"from\": 0.1}", rates, improved);
    for (int i = 0; i < 9; i++)
        rates[i] = i < 4 ? 0.5 * (0.5 + 0.5 * (3 * i / 12.)) : 0.5;
    require_rates("\"constant\", \"lr_warmup\": {\"epochs\": 4}", rates, improved);
    require_rates(
        "{\"name\": \"decay\", \"factor\": 0.5, \"from\": 0}",
        (double[]){.5, .25, .125, .0625, .03125, .015625, 7.8125e-3, 3.90625e-3, 1.953125e-3},
        improved);
}

static void steps_allocate_nothing_after_the_first_two(void **state)
{
    struct run r = {.workers = 5,
                    .batch = 3,
                    .more = MOMENTUM_SGD ", \"compressor\": \"dgc:ratio=0.1\"",
                    .tokens = (size_t)15 * 80};
    struct config *c;
    struct train t;
    size_t allocations;

    start(&t, &c, &r);
    harness_steps(&t, 2);
    allocations = t.dev.allocations;
    harness_steps(&t, 25);
    assert_int_equal(t.dev.allocations, allocations);
    if (strcmp(device, "recording") == 0)
        assert_true(recording_compared() > 10);
    harness_stop(&t, c);
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
        struct score score;

        start(&t, &c, &r);
        score = train_evaluate(&t, TEXT_TEST, t.workers.params);
        loss[i] = score.loss;
        assert_int_equal(score.scored, 4 * (1999 / 4 - 1));
        harness_stop(&t, c);
    }
    assert_true(fabs(loss[1] - loss[0]) < 1e-6 && fabs(loss[2] - loss[0]) < 1e-6);
}

/* As `gradpress eval` does it, with the text of that part alone: of the run's parameters,
 * to the bit, in a fraction of its memory. */
static void an_evaluation_alone_is_that_of_the_run(void **state)
{
    struct run r = {
        .workers = 5, .batch = 3, .steps = 4, .more = SGD ", \"compressor\": \"dgc:ratio=0.1\""};
    struct train t, alone;
    struct config *c;
    struct error err;
    struct score score[2];
    float *params;
    size_t bytes;

    start(&t, &c, &r);
    harness_steps(&t, r.steps);
    score[0] = train_evaluate(&t, TEXT_VALID, t.workers.params);
    params = harness_download(&t, t.workers.params, t.parameters.length);
    bytes = t.dev.bytes;
    train_destroy(&t);

    alone = (struct train){.config = c};
    train_source(&alone);
    alone.data.text.words = WORDS;
    alone.data.text.word = allocate(WORDS, sizeof(*alone.data.text.word));
    alone.data.text.part[TEXT_VALID] = (struct text_tokens){1999, harness_tokens(5, WORDS, 1999)};
    harness_open(&alone.dev, device);
    assert_false(train_plan_evaluation(&alone, TEXT_TEST, &err));
    assert_non_null(strstr(err.text, "the test text has 0 tokens, too few"));
    assert_true(train_plan_evaluation(&alone, TEXT_VALID, &err));
    train_prepare_evaluation(&alone, TEXT_VALID);
    device_upload(&alone.dev, alone.workers.params, params,
                  alone.parameters.length * sizeof(*params));
    score[1] = train_evaluate(&alone, TEXT_VALID, alone.workers.params);
    assert_memory_equal(&score[0].loss, &score[1].loss, sizeof(score[0].loss));
    assert_int_equal(score[0].scored, score[1].scored);
    assert_true(alone.dev.bytes < bytes / 4);
    free(params);
    harness_stop(&alone, c);
}

/* algorithms.md 1.1 and cases.md 13: columns, rows, segments of the Penn Treebank. */
static void segments_and_scored_tokens_are_the_references(void **state)
{
    static const struct {
        uint32_t columns, bptt, rows, segments, last;
    } known[] = {
        {128, 27, 7262, 269, 25}, {16, 27, 58099, 2152, 21}, {128, 43, 7262, 169, 37},
        {16, 43, 58099, 1352, 5}, {128, 36, 7262, 202, 25},  {16, 36, 58099, 1614, 30},
    };

    for (size_t i = 0; i < ARRAY_LENGTH(known); i++) {
        size_t rows = 929589 / known[i].columns;
        uint64_t segments = stream_segments(rows, known[i].bptt);

        assert_int_equal(rows, known[i].rows);
        assert_int_equal(segments, known[i].segments);
        assert_int_equal(stream_steps(rows, known[i].bptt, segments - 1), known[i].last);
    }
}

static void a_run_that_does_not_fit_is_refused_in_a_sentence(void **state)
{
    static const char *const flags[] = {"--hidden", "20000", "--workers", "64", NULL};
    struct run r = {
        .workers = 2, .batch = 3, .more = SGD ", \"compressor\": \"dgc\"", .flags = flags};
    struct config *c = config_of(&r);
    struct train t = {.config = c};
    struct error err = {""};

    t.data.text.words = WORDS;
    t.data.text.word = allocate(WORDS, sizeof(*t.data.text.word));
    for (int part = 0; part < TEXT_PARTS; part++)
        t.data.text.part[part] = (struct text_tokens){4000, harness_tokens(5, WORDS, 4000)};
    harness_open(&t.dev, device);
    assert_false(train_plan(&t, &err));
    assert_non_null(strstr(err.text, "GiB"));
    assert_int_equal(t.dev.bytes, 0);
    train_destroy(&t);
    harness_config_free(c);
}

/* A vote's step is lr whatever the gradient and however many vote. */
static void a_vote_moves_by_lr(void **state)
{
    const struct run r = {.workers = 4,
                          .batch = 3,
                          .steps = 1,
                          .more = "\"schedule\": {\"0\": {\"optimizer\": \"sgd\", \"lr\": "
                                  "0.125}}, \"compressor\": \"signsgd\""};
    size_t n, m;
    struct run none = r;
    float *before, *after;

    none.steps = 0;
    before = trained(&none, &n);
    after = trained(&r, &m);
    for (size_t i = 0; i < (size_t)WORDS * 12; i++)
        assert_true(fabsf(fabsf(after[i] - before[i]) - 0.125f) < 1e-6f);
    free(before);
    free(after);
}

/* One worker's vote moves every weight as SGD does, by lr. */
static void a_vote_goes_down(void **state)
{
    const char *const vote[] = {"--compressor", "signsgd", NULL};
    const struct run sgd = {.workers = 1, .batch = 3, .steps = 1, .more = SGD};
    struct run signs = sgd, none = sgd;
    const size_t entries = (size_t)WORDS * 12; /* of the first tensor */
    size_t n, fell = 0;
    float *before, *down, *voted;

    signs.flags = vote;
    none.steps = 0;
    before = trained(&none, &n);
    down = trained(&sgd, &n);
    voted = trained(&signs, &n);
    for (size_t i = 0; i < entries; i++) {
        bool falls = down[i] < before[i];

        if (down[i] != before[i])
            assert_true(falls == (voted[i] < before[i]));
        fell += falls;
    }
    assert_true(fell > 0 && fell < entries);
    free(before);
    free(down);
    free(voted);
}

/* Codes of one scaler add up to what the messages say one by one. */
static void methods_with_a_shared_scaler_train(void **state)
{
    const char *const shared[] = {"--compressor", "terngrad:shared=1", NULL};
    const char *const own[] = {"--compressor", "terngrad", NULL};
    struct run a = {.workers = 3, .batch = 4, .steps = 3, .more = MOMENTUM_SGD, .flags = shared};
    struct run b = {.workers = 1, .batch = 4, .steps = 3, .more = MOMENTUM_SGD, .flags = shared};
    struct run c = b;
    size_t n;
    float *x = trained(&a, &n);

    for (size_t i = 0; i < n; i++)
        assert_true(isfinite(x[i]));
    free(x);
    c.flags = own;
    require_same(&b, &c, 0); /* of one worker the largest is its own */
}

/* The gradients of K workers in the first lane's slab, to be freed. */
static float *gradients_of(struct train *t, uint32_t workers)
{
    return harness_download(t, t->workers.lane[0].slab, workers * t->workers.all.length);
}

/* Two workers whose batch of 4 is told apart in 2 are 4 workers with a batch of 2. */
static void micro_batches_are_workers(void **state)
{
    const char *const variance[] = {"--compressor", "variance:micro=2", NULL};
    struct run two = {.workers = 2, .batch = 4, .more = MOMENTUM_SGD, .flags = variance};
    struct run four = {.workers = 4, .batch = 2, .more = MOMENTUM_SGD};
    struct config *c;
    struct train t;
    float *g, *parts, *square;
    size_t p;

    start(&t, &c, &four);
    harness_steps(&t, 1);
    parts = gradients_of(&t, 4);
    harness_stop(&t, c);
    start(&t, &c, &two);
    harness_steps(&t, 1);
    p = t.workers.all.length;
    g = gradients_of(&t, 2);
    square = harness_download(&t, t.workers.lane[0].square, 2 * p);
    harness_stop(&t, c);
    for (size_t w = 0; w < 2; w++) {
        for (size_t i = 0; i < p; i++) {
            float a = parts[2 * w * p + i] / 2, b = parts[(2 * w + 1) * p + i] / 2;

            assert_true(fabsf(g[w * p + i] - (a + b)) < 1e-6f);
            assert_true(fabsf(square[w * p + i] - (a * a + b * b)) < 1e-6f);
        }
    }
    free(g);
    free(parts);
    free(square);
}

/* What is counted is what would be sent: the device's count against the packed bytes. */
static void counted_bytes_are_those_of_the_packed_messages(void **state)
{
    static const char *const sent[][2] = {
        {"dgc:ratio=0.03", "raw"},     {"dgc:ratio=0.03", "runs16"}, {"adacomp", "raw"},
        {"adacomp", "runs16"},         {"randomk", "raw"},           {"slice+fp16", "raw"},
        {"threshold:tau=1e-5", "raw"}, {"dgc:ratio=0.03", "bitmap"}, {"dgc:ratio=0.03", "varint"},
        {"topk+qsgd", "gamma"},        {"adacomp", "delta"},         {"dgc:ratio=0.03", "rice"},
        {"dgc:ratio=0.03", "best"},    {"dgc:sampled=1", "runs16"},
    };

    for (size_t i = 0; i < ARRAY_LENGTH(sent); i++) {
        const char *const flags[] = {"--compressor", sent[i][0], "--encoding", sent[i][1], NULL};
        struct run r = {.workers = 3, .batch = 4, .more = MOMENTUM_SGD, .flags = flags};
        struct config *c;
        struct train t;
        struct traffic traffic; /* of the first tensor */
        struct error err;

        start(&t, &c, &r);
        harness_steps(&t, 4);
        device_download(&t.dev, &traffic, t.workers.traffic, sizeof(traffic));
        assert_true(traffic.bytes > 0);
        assert_true(workers_verify(&t.workers, &t.workers.lane[0], &err));
        harness_stop(&t, c);
    }
}

/* The steps of two epochs that --log-every keeps, to be freed, and what all steps add up to. */
static struct logged_step *logged(const struct run *r, size_t *count, double *loss, float **params)
{
    struct logged_step *steps = allocate(1000, sizeof(*steps));
    struct config *c;
    struct train t;

    *count = 0;
    *loss = 0;
    start(&t, &c, r);
    for (uint32_t epoch = 0; epoch < 2; epoch++) {
        const struct logged_step *of_epoch;
        size_t n;

        for (uint64_t step = 0; step < t.steps; step++)
            train_step(&t, epoch, step);
        of_epoch = step_log_take(&t.log, &t.workers, &n);
        assert_true(*count + n <= 1000);
        if (n > 0)
            memcpy(steps + *count, of_epoch, n * sizeof(*steps));
        *count += n;
    }
    device_download(&t.dev, t.loss, t.workers.loss_sum, t.loss_rows * sizeof(*t.loss));
    for (size_t i = 0; i < t.loss_rows; i++)
        *loss += t.loss[i];
    *params = harness_download(&t, t.workers.params, t.parameters.length);
    harness_stop(&t, c);
    return steps;
}

/* The sums go on over both epochs here, and each step is still its own. */
static void kept_steps_are_those_of_the_run_and_change_nothing(void **state)
{
    static const char *const flags[][3] = {{NULL}, {"--log-every", "1"}, {"--log-every", "3"}};
    struct run r = {.workers = 5, .batch = 3, .more = SGD ", \"compressor\": \"dgc:ratio=0.1\""};
    struct logged_step *steps[3];
    float *params[3];
    size_t count[3], n;
    double loss[3], sum = 0;

    for (int i = 0; i < 3; i++) {
        r.flags = flags[i];
        steps[i] = logged(&r, &count[i], &loss[i], &params[i]);
    }
    free(params[2]);
    params[2] = trained(&(struct run){.workers = 5, .batch = 3, .more = r.more, .steps = 38}, &n);
    assert_memory_equal(params[0], params[1], n * sizeof(float));
    assert_memory_equal(params[0], params[2], n * sizeof(float));
    assert_int_equal(count[0], 0);
    assert_int_equal(count[1], 38);
    assert_int_equal(count[2], 13);
    for (size_t i = 0; i < count[1]; i++) {
        assert_int_equal(steps[1][i].number, i);
        assert_true(steps[1][i].grad_norm > 0 && steps[1][i].density < 0.5);
        sum += steps[1][i].loss * (double)steps[1][i].tokens;
    }
    assert_true(fabs(sum / loss[1] - 1) < 1e-12);
    for (size_t i = 0; i < count[2]; i++)
        assert_memory_equal(&steps[2][i], &steps[1][3 * i], sizeof(steps[2][i]));
    for (int i = 0; i < 3; i++) {
        free(steps[i]);
        free(params[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(k_workers_without_compression_are_one),
        cmocka_unit_test(also_over_a_short_last_segment),
        cmocka_unit_test(nodes_are_workers_of_larger_batches),
        cmocka_unit_test(a_server_changes_nothing_but_the_bytes_down),
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
        cmocka_unit_test(one_thread_trains_as_two_do),
        cmocka_unit_test(learning_rates_follow_their_rules),
        cmocka_unit_test(steps_allocate_nothing_after_the_first_two),
        cmocka_unit_test(evaluation_scores_every_predicted_token),
        cmocka_unit_test(an_evaluation_alone_is_that_of_the_run),
        cmocka_unit_test(segments_and_scored_tokens_are_the_references),
        cmocka_unit_test(a_run_that_does_not_fit_is_refused_in_a_sentence),
        cmocka_unit_test(micro_batches_are_workers),
        cmocka_unit_test(a_vote_moves_by_lr),
        cmocka_unit_test(a_vote_goes_down),
        cmocka_unit_test(methods_with_a_shared_scaler_train),
        cmocka_unit_test(counted_bytes_are_those_of_the_packed_messages),
        cmocka_unit_test(kept_steps_are_those_of_the_run_and_change_nothing),
    };
    int failed = 0;

    for (const char *const *d = harness_devices(); *d != NULL; d++) {
        device = *d;
        failed += cmocka_run_group_tests_name(device, tests, NULL, NULL);
    }
    return failed;
}

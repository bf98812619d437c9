/*
 * test_golden -- the model and the methods against PyTorch's numbers (tests/golden).
 *
 * Those were computed in double; float differs by 2e-6 of an array's largest value at most, other
 * orders of summation by a few times that.
 */
#include "tests/harness.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TOLERANCE 2e-5

static const char *device = "cpu";

/* Every tensor of the model under a prefix: "init.", "grad0.", ... */
static void set_parameters(struct train *t, const struct golden *g, const char *prefix)
{
    for (uint32_t i = 0; i < t->parameters.count; i++) {
        const struct parameter *p = &t->parameters.item[i];
        char name[128];
        size_t n;
        float *x;

        snprintf(name, sizeof(name), "%s%s", prefix, p->name);
        x = golden_floats(g, name, &n);
        assert_int_equal(n, p->n);
        device_upload(&t->dev, t->workers.params + p->at, x, n * sizeof(*x));
        free(x);
    }
}

static void require_arena(struct train *t, const struct golden *g, const char *prefix,
                          const float *arena, bool matrices, bool vectors)
{
    float *x = harness_download(t, arena, t->parameters.length);

    for (uint32_t i = 0; i < t->parameters.count; i++) {
        const struct parameter *p = &t->parameters.item[i];
        char name[128];
        size_t n;
        float *golden;

        if (p->dims > 1 ? !matrices : !vectors)
            continue;
        snprintf(name, sizeof(name), "%s%s", prefix, p->name);
        golden = golden_floats(g, name, &n);
        require_close(name, x + p->at, golden, n, TOLERANCE);
        free(golden);
    }
    free(x);
}

static struct config *config_of(const struct golden *g, uint32_t workers, const char *more)
{
    char *json = format_text(
        "{\"model\": {\"name\": \"lstm\", \"hidden\": %u, \"layers\": %u, \"tied\": %s},"
        " \"data\": {\"name\": \"text\", \"path\": \"none\", \"bptt\": %u},"
        " \"evaluate\": {\"batch\": 3, \"bptt\": 4}, \"workers\": %u, \"batch\": %u,"
        " \"epochs\": 10, %s}",
        golden_integer(g, "hidden"), golden_integer(g, "layers"),
        golden_integer(g, "tied") ? "true" : "false", golden_integer(g, "bptt"), workers,
        golden_integer(g, "columns"), more);
    struct config *c = harness_config(json, NULL);

    free(json);
    return c;
}

/* The mean loss of the steps since the last call. */
static double step_loss(struct train *t, uint64_t samples)
{
    double sum = 0;

    device_download(&t->dev, t->loss, t->workers.loss_sum, t->loss_rows * sizeof(*t->loss));
    device_clear(&t->dev, t->workers.loss_sum, t->loss_rows * sizeof(*t->loss));
    for (size_t i = 0; i < t->loss_rows; i++)
        sum += t->loss[i];
    return sum / (double)samples;
}

static void begin(struct train *t, const struct config *c, const struct golden *g)
{
    size_t count;
    uint32_t *corpus = golden_integers(g, "corpus", &count);

    harness_train(t, c, device, golden_integer(g, "vocabulary"), corpus, count);
    free(corpus);
    set_parameters(t, g, "init.");
}

static void check_one_worker(const char *name, const char *regime)
{
    struct golden g;
    struct config *c;
    struct train t;
    size_t steps;
    float *loss;
    uint32_t *eval;
    size_t eval_count;
    struct score score;
    double eval_loss;

    golden_open(&g, name);
    c = config_of(&g, 1, regime);
    begin(&t, c, &g);
    loss = golden_floats(&g, "loss", &steps);
    for (size_t i = 0; i < steps; i++) {
        uint64_t samples = train_step(&t, (uint32_t)(i / t.steps), i % t.steps);

        assert_true(fabs(step_loss(&t, samples) - (double)loss[i]) < 2e-5 * (double)loss[i]);
        if (i == 0)
            require_arena(&t, &g, "grad0.", t.workers.lane[0].slab, true, true);
        if (i == steps - 1)
            require_arena(&t, &g, "grad19.", t.workers.lane[0].slab, true, true);
    }
    require_arena(&t, &g, "final.", t.workers.params, true, true);
    eval = golden_integers(&g, "eval_corpus", &eval_count);
    harness_evaluation(&t, eval, eval_count);
    score = train_evaluate(&t, TEXT_VALID, t.workers.params);
    eval_loss = score.loss;
    assert_int_equal(score.scored, golden_integer(&g, "eval_tokens"));
    assert_true(fabs(eval_loss - (double)golden_float(&g, "eval_loss")) < 2e-5 * eval_loss);
    free(eval);
    free(loss);
    train_destroy(&t);
    harness_config_free(c);
    golden_close(&g);
}

static void untied_lstm_with_plain_sgd(void **state)
{
    check_one_worker("lstm_untied", "\"schedule\": {\"0\": {\"optimizer\": \"sgd\", \"lr\": 1.5}}");
}

static void tied_lstm_with_clip_nesterov_and_weight_decay(void **state)
{
    check_one_worker("lstm_tied",
                     "\"schedule\": {\"0\": {\"optimizer\": \"sgd\", \"lr\": 2, \"momentum\": 0.9,"
                     " \"nesterov\": true, \"weight_decay\": 0.001}},"
                     " \"clip\": {\"norm\": 0.25, \"mode\": \"local\"}");
}

/* Six steps of three workers; kept: the golden letter of each of the memory's slabs. */
static void check_workers(const char *name, const char *method, const char *schedule,
                          const char *kept)
{
    struct golden g, base;
    struct train t;
    char prefix[64];
    char *regime = format_text("\"clip\": {\"norm\": 0.4, \"mode\": \"local-sqrt-k\"},"
                               " \"compressor\": \"%s\", \"schedule\": {\"0\": %s}",
                               method, schedule);
    struct config *c;

    golden_open(&base, "workers");
    golden_open(&g, name);
    c = config_of(&base, 3, regime);
    begin(&t, c, &base);
    for (uint64_t step = 0; step < 6; step++) {
        train_step(&t, 0, step);
        for (uint32_t k = 0; step == 0 && k < 3; k++) {
            snprintf(prefix, sizeof(prefix), "grad0.w%u.", k);
            require_arena(&t, &base, prefix, t.workers.lane[0].slab + k * t.parameters.length, true,
                          true);
        }
        snprintf(prefix, sizeof(prefix), "step%u.", (unsigned)step);
        require_arena(&t, &g, prefix, t.workers.params, true, true);
        for (uint32_t k = 0; (step == 0 || step == 2 || step == 5) && k < 3; k++) {
            for (size_t i = 0; i < strlen(kept); i++) {
                snprintf(prefix, sizeof(prefix), "step%u.%c.w%u.", (unsigned)step, kept[i], k);
                require_arena(&t, &g, prefix, t.workers.memory_slab[i] + k * t.parameters.length,
                              true, false);
            }
        }
    }
    train_destroy(&t);
    harness_config_free(c);
    free(regime);
    golden_close(&g);
    golden_close(&base);
}

static void dgc_of_three_workers(void **state)
{
    check_workers("workers_dgc", "dgc:ratio=0.1",
                  "{\"optimizer\": \"sgd\", \"lr\": 0.5, \"momentum\": 0.9}", "vu");
}

static void nesterov_dgc_of_three_workers(void **state)
{
    check_workers("workers_dgc_nesterov", "dgc:ratio=0.1",
                  "{\"optimizer\": \"sgd\", \"lr\": 0.5, \"momentum\": 0.9, \"nesterov\": true}",
                  "vu");
}

static void topk_with_residual_of_three_workers(void **state)
{
    check_workers("workers_residual", "topk:ratio=0.1", "{\"optimizer\": \"sgd\", \"lr\": 0.5}",
                  "e");
}

/* DGC at ratio 1 without masking is momentum SGD with weight decay, wherever that is applied. */
static void check_decay(bool nesterov, const char *at)
{
    struct golden g, base;
    struct train t;
    char *regime = format_text(
        "\"clip\": {\"norm\": 0.4, \"mode\": \"local-sqrt-k\"}, \"compressor\": \"dgc:ratio=1\","
        " \"memory\": \"dgc:masking=0\", \"weight_decay_at\": \"%s\", \"schedule\": {\"0\":"
        " {\"optimizer\": \"sgd\", \"lr\": 0.5, \"momentum\": 0.9, \"nesterov\": %s,"
        " \"weight_decay\": 0.01}}",
        at, nesterov ? "true" : "false");
    struct config *c;

    golden_open(&base, "workers");
    golden_open(&g, "workers_decay");
    c = config_of(&base, 3, regime);
    begin(&t, c, &base);
    for (uint64_t step = 0; step < 6; step++)
        train_step(&t, 0, step);
    require_arena(&t, &g, nesterov ? "final_nesterov." : "final_plain.", t.workers.params, true,
                  true);
    train_destroy(&t);
    harness_config_free(c);
    free(regime);
    golden_close(&g);
    golden_close(&base);
}

static void dgc_at_ratio_1_is_momentum_sgd_with_weight_decay(void **state)
{
    check_decay(false, "aggregate");
    check_decay(false, "local");
    check_decay(true, "aggregate");
    check_decay(true, "local");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(untied_lstm_with_plain_sgd),
        cmocka_unit_test(tied_lstm_with_clip_nesterov_and_weight_decay),
        cmocka_unit_test(dgc_of_three_workers),
        cmocka_unit_test(nesterov_dgc_of_three_workers),
        cmocka_unit_test(topk_with_residual_of_three_workers),
        cmocka_unit_test(dgc_at_ratio_1_is_momentum_sgd_with_weight_decay),
    };
    int failed = 0;

    for (const char *const *d = harness_devices(); *d != NULL; d++) {
        device = *d;
        failed += cmocka_run_group_tests_name(device, tests, NULL, NULL);
    }
    return failed;
}

/*
 * test_optimizer -- torch.optim's optimizers: tests/golden/make_optimizers.py.
 */
#include "tests/lab.h"

#include "sim/optimizer.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *device;

static const struct golden_case {
    const char *name, *rule;
    double lr, decay, momentum;
    bool changes; /* lr is halved for the second half */
    struct {
        const char *name;
        double value;
    } setting[2];
} cases[] = {
    {"sgd", "sgd", 0.1, 0.01, 0, true, {{0}}},
    {"sgd-nesterov", "sgd", 0.1, 0.01, 0.9, true, {{0}}},
    {"adam", "adam", 0.01, 0.01, 0, true, {{0}}},
    {"adam-settings", "adam", 0.01, 0, 0, true, {{"beta1", 0.8}, {"eps", 1e-3}}},
    {"adamax", "adamax", 0.02, 0.01, 0, true, {{0}}},
    {"adagrad", "adagrad", 0.1, 0.01, 0, true, {{0}}},
    {"adagrad-decay", "adagrad", 0.1, 0, 0, true, {{"lr_decay", 0.1}}},
    {"adadelta", "adadelta", 1, 0.01, 0, true, {{0}}},
    {"rmsprop", "rmsprop", 0.01, 0.01, 0, true, {{0}}},
    {"rmsprop-centered", "rmsprop", 0.01, 0, 0.9, true, {{"centered", 1}}},
    {"rprop", "rprop", 0.01, 0, 0, false, {{0}}},
    {"asgd", "asgd", 0.1, 0.01, 0, false, {{"lambda", 0.05}}},
};

enum { N = 8, STEPS = 12, WORKERS = 4 };

static void choose(struct choice *to, const struct golden_case *g)
{
    const struct setting *settings = optimizer_rule_find(g->rule)->settings;

    snprintf(to->name, sizeof(to->name), "%s", g->rule);
    for (size_t i = 0; settings != NULL && settings[i].name != NULL; i++)
        to->value[i] = settings[i].initial;
    if (strcmp(g->name, "adam-settings") == 0)
        to->value[setting_find(settings, "beta2")] = 0.95;
    for (size_t i = 0; i < ARRAY_LENGTH(g->setting) && g->setting[i].name != NULL; i++)
        to->value[setting_find(settings, g->setting[i].name)] = g->setting[i].value;
}

/* One step, of workers whose gradients are all g. */
static void take_step(struct lab *lab, struct optimizer *o, struct workers *w,
                      const struct golden_case *g, const float *gradient)
{
    uint64_t number = lab->step.number;
    double lr = g->changes && number >= STEPS / 2 ? g->lr / 2 : g->lr;
    float sum[N];

    for (int i = 0; i < N; i++)
        sum[i] = WORKERS * gradient[i];
    lab->step.lr = (float)lr;
    optimizer_numbers(o, w->config, lr, &lab->step);
    device_upload(&lab->dev, lab->step_dev, &lab->step, sizeof(lab->step));
    device_upload(&lab->dev, o->sum, sum, sizeof(sum));
    optimizer_apply(o, w);
    lab->step.number = number + 1;
}

static void check_case(const struct golden_case *g, const float *start, const float *gradients,
                       const float *expected)
{
    const size_t n = N;
    struct config *c = allocate(1, sizeof(*c));
    struct optimizer o;
    struct workers w;
    struct lab lab;
    float *p, *left;

    lab_open(&lab, &(struct lab_spec){device, compressor_find("none"), memory_find("none"), &n, 1,
                                      1, 1, NULL, NULL, NULL, NULL});
    lab.step.momentum = (float)g->momentum;
    lab.step.nesterov = strcmp(g->name, "sgd-nesterov") == 0;
    lab.step.weight_decay = (float)g->decay;
    lab_upload(&lab, lab.params, start, 1);
    *c = (struct config){.phases = 1, .phase = {{.momentum = g->momentum}}};
    choose(&c->phase[0].optimizer, g);
    w = (struct workers){.dev = &lab.dev,
                         .config = c,
                         .memory = lab.spec.memory,
                         .count = WORKERS,
                         .all = lab.layout,
                         .compressed = lab.layout,
                         .params = lab.params,
                         .step = lab.step_dev};
    optimizer_create(&o, &w);
    for (int step = 0; step < STEPS; step++)
        take_step(&lab, &o, &w, g, gradients + (size_t)step * N);
    p = lab_download(&lab, lab.params, 1);
    for (int i = 0; i < N; i++)
        if (!(fabs((double)p[i] - (double)expected[i]) < 2e-6))
            fail_msg("%s: element %d is %.7g, not %.7g", g->name, i, (double)p[i],
                     (double)expected[i]);
    left = allocate(lab.layout.length, sizeof(*left));
    device_download(&lab.dev, left, o.sum, lab.layout.length * sizeof(*left));
    for (size_t i = 0; i < lab.layout.length; i++)
        assert_true(left[i] == 0);
    lab_require_padding(&lab, g->name, lab.params, 1);
    optimizer_destroy(&o, &w);
    free(left);
    free(p);
    lab_close(&lab);
    free(c);
}

static void optimizers_are_those_of_torch(void **state)
{
    struct golden golden;
    size_t count;
    float *start, *gradients;

    golden_open(&golden, "optimizers");
    start = golden_floats(&golden, "start", &count);
    assert_int_equal(count, N);
    gradients = golden_floats(&golden, "gradients", &count);
    assert_int_equal(count, N * STEPS);
    for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
        char *name = format_text("final.%s", cases[i].name);
        float *expected = golden_floats(&golden, name, &count);

        check_case(&cases[i], start, gradients, expected);
        free(expected);
        free(name);
    }
    free(gradients);
    free(start);
    golden_close(&golden);
}

/* A new rule wants golden numbers. */
static void every_rule_has_a_case(void **state)
{
    for (const struct optimizer_rule *const *r = optimizer_rules; *r != NULL; r++) {
        bool found = false;

        for (size_t i = 0; i < ARRAY_LENGTH(cases); i++)
            found = found || strcmp(cases[i].rule, (*r)->name) == 0;
        if (!found)
            fail_msg("%s is not tested", (*r)->name);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(optimizers_are_those_of_torch),
        cmocka_unit_test(every_rule_has_a_case),
    };
    int failed = 0;

    for (const char *const *d = harness_devices(); *d != NULL; d++) {
        device = *d;
        failed += cmocka_run_group_tests_name(device, tests, NULL, NULL);
    }
    return failed;
}

/*
 * test_measure -- what is measured in one step of many: that it is so, and changes nothing.
 */
#include "tests/harness.h"

#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#define WORDS   37
#define WORKERS 5

static const char *device = "cpu";

/* A run of WORKERS workers, with the flags that a method stands for; ends with NULL. */
static void start(struct train *t, struct config **c, const char *const *flags, size_t tokens)
{
    uint32_t *token = harness_tokens(5, WORDS, tokens);

    *c = harness_config("{\"model\": {\"name\": \"lstm\", \"hidden\": 12, \"dropout\": 0.25},"
                        " \"data\": {\"name\": \"text\", \"path\": \"none\", \"bptt\": 7},"
                        " \"evaluate\": {\"batch\": 4, \"bptt\": 5}, \"workers\": 5, \"batch\": 3,"
                        " \"epochs\": 9, \"schedule\": {\"0\": {\"lr\": 0.5, \"momentum\": 0.9}}}",
                        flags);
    harness_train(t, *c, device, WORDS, token, tokens);
    omp_set_num_threads(2);
    measure_create(&t->measure, &t->workers);
    free(token);
}

/* All that a run has come to: parameters and losses, to be freed. */
static unsigned char *run(const char *const *flags, bool measured, size_t *bytes)
{
    struct config *c;
    struct train t;
    size_t params;
    unsigned char *all;

    start(&t, &c, flags, 1999);
    t.measure.on = measured;
    for (uint64_t step = 0; step < 8; step++)
        train_step(&t, 0, step);
    assert_int_equal(t.measure.steps, measured ? 8 : 0);
    params = t.parameters.length * sizeof(float);
    *bytes = params + t.loss_rows * sizeof(double);
    all = allocate(*bytes, 1);
    device_download(&t.dev, all, t.workers.params, params);
    device_download(&t.dev, all + params, t.workers.loss_sum, *bytes - params);
    harness_stop(&t, c);
    return all;
}

static void measuring_changes_nothing(void **state)
{
    static const char *const flags[][12] = {
        {"--measure-every", "1"},
        {"--measure-every", "1", "--compressor", "topk:ratio=0.1", "--group", "2"},
        {"--measure-every", "1", "--compressor", "dgc:ratio=0.1", "--group", "1"},
        {"--measure-every", "1", "--compressor", "efsignsgd", "--memory", "none"},
        {"--measure-every", "1", "--compressor", "efsignsgd", "--memory", "none", "--tied"},
        {"--measure-every", "1", "--compressor", "topk:ratio=0.1+terngrad", "--memory", "none",
         "--clip", "0.1", "--group", "2"},
        {"--measure-every", "1", "--compressor", "qsgd", "--sharding", "segments"},
    };

    for (size_t i = 0; i < ARRAY_LENGTH(flags); i++) {
        size_t n, m;
        unsigned char *with = run(flags[i], true, &n);
        unsigned char *without = run(flags[i], false, &m);

        assert_int_equal(n, m);
        assert_memory_equal(with, without, n);
        free(with);
        free(without);
    }
}

/* The first step's, of a method and memory; a new array. */
static struct measured_tensor *first_step(const char *compressor, const char *memory,
                                          const char *group)
{
    const char *const flags[] = {"--compressor", compressor,        "--memory", memory, "--group",
                                 group,          "--measure-every", "1",        NULL};
    struct config *c;
    struct train t;
    struct measured_tensor *measured;
    size_t tensors;

    start(&t, &c, flags, 1999);
    train_step(&t, 0, 0);
    tensors = t.workers.compressed.count;
    measured = allocate(tensors + 1, sizeof(*measured));
    memcpy(measured, t.measure.tensor, tensors * sizeof(*measured));
    harness_stop(&t, c);
    return measured;
}

/* Nothing is kept yet, so all memories want the gradient, and lose the same or keep it. */
static void all_memories_agree_on_the_first_step(void **state)
{
    static const char *const methods[] = {"topk:ratio=0.1", "efsignsgd", "topk:ratio=0.1+terngrad"};

    for (size_t i = 0; i < ARRAY_LENGTH(methods); i++) {
        struct measured_tensor *none = first_step(methods[i], "none", "5");
        struct measured_tensor *residual = first_step(methods[i], "residual", "5");
        struct measured_tensor *dgc = first_step(methods[i], "dgc", "5");

        assert_true(none[0].left > 0 && none[0].left < none[0].wanted);
        for (int t = 0; none[t].sent > 0; t++) {
            assert_memory_equal(&residual[t], &none[t], sizeof(none[t]));
            assert_memory_equal(&dgc[t], &none[t], sizeof(none[t]));
        }
        free(none);
        free(residual);
        free(dgc);
    }
}

/* What such a memory keeps is not what was wanted less what was sent: never more than was wanted. */
static void a_low_pass_keeps_more_than_was_wanted(void **state)
{
    const char *const flags[] = {"--compressor",
                                 "topk:ratio=0.1",
                                 "--memory",
                                 "low-pass:beta=0.01",
                                 "--measure-every",
                                 "1",
                                 NULL};
    struct config *c;
    struct train t;
    double kept, *of_tensor;
    double wanted = 0;

    start(&t, &c, flags, 1999);
    of_tensor = allocate(t.workers.compressed.count, sizeof(*of_tensor));
    for (uint32_t step = 0; step < 8; step++) {
        measure_clear(&t.measure, &t.workers);
        train_step(&t, 0, step);
    }
    kept = workers_residual_norm(&t.workers, of_tensor);
    for (uint32_t i = 0; i < t.workers.compressed.count; i++) {
        wanted += t.measure.tensor[i].wanted;
        assert_true(t.measure.tensor[i].left < t.measure.tensor[i].wanted);
    }
    assert_true(kept * kept * WORKERS > wanted);
    free(of_tensor);
    harness_stop(&t, c);
}

/* The same spelt out on the host, from gradients and packets, of a tensor. */
static struct measured_tensor by_hand(struct train *t, const float *grad, uint32_t tensor)
{
    const struct workers *w = &t->workers;
    size_t n = w->compressed.n[tensor];
    bool *any = allocate(n, sizeof(*any));
    float *sent = allocate(n, sizeof(*sent));
    struct measured_tensor m = {0};

    for (uint32_t k = 0; k < WORKERS; k++) {
        const float *own = grad + k * w->all.length + w->compressed.at[tensor];
        struct packet p;

        packet_download(&p, &w->lane[0].message, &w->compressed, k);
        memset(sent, 0, n * sizeof(*sent));
        for (uint32_t i = 0; i < p.count[tensor]; i++) {
            uint32_t at = p.index != NULL ? p.index[p.begin[tensor] + i] : i;

            sent[at] = p.value[p.begin[tensor] + i];
            any[at] = true;
        }
        for (size_t i = 0; i < n; i++) {
            double left = (double)(own[i] - sent[i]);

            m.wanted += (double)own[i] * (double)own[i];
            m.left += left * left;
        }
        packet_free(&p);
    }
    for (size_t i = 0; i < n; i++)
        m.sent += any[i];
    free(any);
    free(sent);
    return m;
}

static void check_by_hand(const char *method)
{
    const char *const flags[] = {"--compressor",    method,     "--ratio", "0.1",
                                 "--memory",        "residual", "--group", "5",
                                 "--measure-every", "1",        NULL};
    struct config *c;
    struct train t;
    float *grad;

    start(&t, &c, flags, 1999);
    train_step(&t, 0, 0);
    grad = harness_download(&t, t.workers.lane[0].slab, WORKERS * t.parameters.length);
    for (uint32_t k = 0; k < t.workers.compressed.count; k++) {
        struct measured_tensor hand = by_hand(&t, grad, k);
        const struct measured_tensor *m = &t.measure.tensor[k];

        assert_true(m->sent == hand.sent);
        assert_true(fabs(m->wanted - hand.wanted) <= 1e-12 * hand.wanted);
        assert_true(fabs(m->left - hand.left) <= 1e-12 * hand.wanted);
    }
    free(grad);
    harness_stop(&t, c);
}

/* Whether what is measured can be had from the workers' own messages, and their batch be parted. */
static bool is_direct(const struct compressor *c)
{
    return c->room != NULL && !c->no_indices && c->exchange != TREE && c->micro == NULL;
}

/* Of every compressor that chooses entries, also with a quantiser, and of every quantiser. */
static void what_is_measured_is_so(void **state)
{
    for (size_t i = 0; compressors[i] != NULL; i++) {
        char *both = format_text("%s+terngrad", compressors[i]->name);

        if (is_direct(compressors[i])) {
            check_by_hand(compressors[i]->name);
            check_by_hand(both);
        }
        free(both);
    }
    for (size_t i = 0; quantisers[i] != NULL; i++)
        if (!quantisers[i]->votes)
            check_by_hand(quantisers[i]->name);
}

static void without_compression_nothing_is_left(void **state)
{
    struct measured_tensor *none = first_step("none", "none", "2");
    struct measured_tensor *residual = first_step("none", "residual", "2");

    assert_true(none[0].sent == 12 * WORDS && none[0].wanted > 0);
    for (int t = 0; none[t].sent > 0; t++)
        assert_true(none[t].left == 0 && residual[t].left == 0);
    free(none);
    free(residual);
}

/* Zeros of a quantiser are sent, too. */
static void a_quantiser_does_not_change_what_is_sent(void **state)
{
    struct measured_tensor *topk = first_step("topk:ratio=0.1", "none", "5");
    struct measured_tensor *both = first_step("topk:ratio=0.1+terngrad", "none", "5");

    for (int t = 0; topk[t].sent > 0; t++) {
        assert_true(topk[t].sent == both[t].sent);
        assert_true(topk[t].left < both[t].left);
    }
    free(topk);
    free(both);
}

static void groups_measure_alike(void **state)
{
    struct measured_tensor *all = first_step("topk:ratio=0.1", "none", "5");

    for (int g = 1; g < 3; g++) {
        struct measured_tensor *some = first_step("topk:ratio=0.1", "none", g == 1 ? "1" : "2");

        for (int t = 0; all[t].sent > 0; t++) {
            assert_true(fabs(some[t].sent - all[t].sent) <= 0.01 * all[t].sent);
            assert_true(fabs(some[t].wanted - all[t].wanted) <= 1e-4 * all[t].wanted);
            assert_true(fabs(some[t].left - all[t].left) <= 1e-4 * all[t].wanted);
        }
        free(some);
    }
    free(all);
}

/* The step before an epoch's last; the only one of an epoch that has one; and each N-th. */
static void check_steps(size_t tokens, const char *every, uint64_t steps, const char *measured)
{
    const char *const flags[] = {"--measure-every", every, "--compressor", "topk:ratio=0.1", NULL};
    struct config *c;
    struct train t;
    uint64_t before = 0;

    start(&t, &c, flags, tokens);
    assert_int_equal(t.steps, steps);
    for (uint64_t step = 0; step < 2 * steps; step++) {
        train_step(&t, (uint32_t)(step / steps), step % steps);
        assert_int_equal(t.measure.steps - before, measured[step] == 'x');
        assert_null(t.dev.watch);
        before = t.measure.steps;
    }
    for (int s = STAGE_FORWARD; s < STAGES; s++)
        assert_true(t.measure.watch.seconds[s] > 0);
    measure_clear(&t.measure, &t.workers);
    assert_int_equal(t.measure.steps, 0);
    assert_true(t.measure.watch.seconds[STAGE_FORWARD] == 0 && t.measure.tensor[0].wanted == 0);
    harness_stop(&t, c);
}

static void steps_are_measured_when_told(void **state)
{
    check_steps((size_t)15 * 36, "0", 5, "...x....x.");
    check_steps((size_t)15 * 33, "0", 5, "...x....x.");
    check_steps((size_t)15 * 36, "3", 5, "x..x..x.xx");
    check_steps((size_t)15 * 36, "1", 5, "xxxxxxxxxx");
    check_steps((size_t)15 * 15, "0", 2, "x.x.");
    check_steps((size_t)15 * 8, "0", 1, "xx");
}

static void the_second_time_allocates_nothing(void **state)
{
    const char *const flags[] = {"--compressor", "dgc:ratio=0.1", "--group", "2", NULL};
    struct config *c;
    struct train t;
    size_t allocations = 0;

    start(&t, &c, flags, (size_t)15 * 36);
    for (uint64_t step = 0; step < 20; step++) {
        train_step(&t, (uint32_t)(step / t.steps), step % t.steps);
        if (step == t.steps - 2)
            allocations = t.dev.allocations;
    }
    assert_int_equal(t.measure.steps, 4);
    assert_int_equal(t.dev.allocations, allocations);
    harness_stop(&t, c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(measuring_changes_nothing),
        cmocka_unit_test(all_memories_agree_on_the_first_step),
        cmocka_unit_test(a_low_pass_keeps_more_than_was_wanted),
        cmocka_unit_test(what_is_measured_is_so),
        cmocka_unit_test(without_compression_nothing_is_left),
        cmocka_unit_test(a_quantiser_does_not_change_what_is_sent),
        cmocka_unit_test(groups_measure_alike),
        cmocka_unit_test(steps_are_measured_when_told),
        cmocka_unit_test(the_second_time_allocates_nothing),
    };
    int failed = 0;

    for (const char *const *d = harness_devices(); *d != NULL; d++) {
        device = *d;
        failed += cmocka_run_group_tests_name(device, tests, NULL, NULL);
    }
    return failed;
}

/*
 * test_account -- what messages weigh by rule: numbers by hand, and laws over the tables.
 */
#include "tests/lab.h"

#include "compressors/sparse.h"
#include "sim/account.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char *device = "cpu";

static double initial[SETTINGS_MOST], quantiser_initial[SETTINGS_MOST];

static void fill_initial(double *value, const struct setting *settings)
{
    for (size_t i = 0; settings[i].name != NULL; i++)
        value[i] = settings[i].initial;
}

/* With the settings that both begin with; quantiser may be "". */
static struct method method_of(const char *compressor, const char *quantiser)
{
    struct method m = {.compressor = compressor_find(compressor),
                       .quantiser = quantiser_find(quantiser),
                       .settings = initial,
                       .quantiser_settings = quantiser_initial};

    fill_initial(initial, m.compressor->settings);
    if (m.quantiser != NULL)
        fill_initial(quantiser_initial, m.quantiser->settings);
    return m;
}

/* Of one vector of n elements. */
static struct by_rule weigh_vector(const struct method *m, size_t n, double ratio, size_t *entries)
{
    struct layout l;
    struct by_rule bytes;

    layout_describe(&l, &n, 1);
    bytes = account_tensor(m, &l, 0, ratio);
    *entries = account_entries(m, &l, 0, ratio);
    layout_destroy(&l);
    return bytes;
}

static struct by_rule weigh(const char *compressor, const char *quantiser, size_t n, double ratio)
{
    struct method m = method_of(compressor, quantiser);
    size_t entries;

    return weigh_vector(&m, n, ratio, &entries);
}

static void assert_close(double a, double b)
{
    if (!(fabs(a - b) <= 1e-9 * fabs(b)))
        fail_msg("%.17g, not %.17g", a, b);
}

/* What GRACE's data have: a byte for a code, 4 for an index or a scalar; 8 for topk, 4 for none. */
static void a_framework_has_whole_bytes(void **state)
{
    const size_t n = 269466;

    assert_true(weigh("none", "", n, 1).framework == 1077864);
    assert_true(weigh("topk", "", n, 0.01).framework == 8 * 2694);
    assert_true(weigh("dgc", "", n, 0.01).framework == 8 * 2694);
    assert_true(weigh("none", "efsignsgd", n, 1).framework == 269470);
    assert_true(weigh("none", "terngrad", n, 1).framework == 269470);
    assert_true(weigh("none", "fp16", n, 1).framework == 538932);
    assert_true(weigh("none", "bf16", n, 1).framework == 538932);
    assert_true(weigh("none", "natural", n, 1).framework == 538932);
    assert_true(weigh("none", "natural", n, 1).paper == 303149.25);
    assert_true(weigh("none", "qsgd", 1000, 1).framework == 1000 + 4 * 2);
    assert_true(weigh("topk", "terngrad", 1000, 0.01).framework == 10 * (4 + 1) + 4);
    assert_true(weigh("topk", "", 1000, 1).framework == 4000);
}

static void the_bound_is_the_log_of_the_messages_there_could_be(void **state)
{
    assert_close(weigh("none", "", 10, 1).bound, 40);
    assert_close(weigh("topk", "", 10, 0.2).bound, log2(45) / 8 + 8);
    assert_close(weigh("topk", "", 10, 1).bound, 40);
    assert_close(weigh("topk", "", 1, 0.2).bound, 4);
    assert_close(weigh("none", "efsignsgd", 24, 1).bound, 3 + 4);
    assert_close(weigh("none", "terngrad", 8, 1).bound, log2(3) + 4);
    assert_close(weigh("none", "qsgd", 1000, 1).bound, 1000 * log2(15) / 8 + 4 * 2);
    assert_close(weigh("none", "natural", 8, 1).bound, log2(511));
    assert_close(weigh("none", "fp16", 8, 1).bound, 16);
    assert_close(weigh("topk", "efsignsgd", 10, 0.2).bound, log2(45) / 8 + 2.0 / 8 + 4);
}

/* Bits of an index, of tensors so large that their entropy is that of a place. */
static void of_many_entries_an_index_has_its_entropy(void **state)
{
    static const struct {
        double ratio, bits;
    } table[] = {{0.25, 3.25}, {0.1, 4.69},   {0.0625, 5.40}, {0.0156, 7.43},
                 {0.01, 8.08}, {0.004, 9.41}, {0.001, 11.41}, {0.0001, 14.73}};
    const size_t n = 4000000000;

    for (size_t i = 0; i < ARRAY_LENGTH(table); i++) {
        double bits = 8 * weigh("topk", "", n, table[i].ratio).bound /
                          (double)sparse_keep(n, table[i].ratio) -
                      32;

        assert_true(fabs(bits - table[i].bits) < 0.0051);
    }
}

/* Indices that all workers know are not sent. */
static void agreed_indices_weigh_nothing(void **state)
{
    struct compressor agreed = *compressor_find("topk");
    struct method m = {.compressor = &agreed, .settings = initial};
    struct by_rule b;
    size_t entries;

    agreed.agreed = true;
    b = weigh_vector(&m, 1000, 0.01, &entries);
    assert_true(b.framework == 40 && b.bound == 40);
}

/* Of a compressor whose entries are counted, over 5 steps of 2 workers: a mean of 4 of 10. */
static void counted_entries_weigh_what_their_mean_does(void **state)
{
    struct compressor counted = *compressor_find("topk");
    struct workers w = {.method = {.compressor = &counted, .settings = initial}, .count = 2};
    size_t n[] = {10, 7};
    struct traffic traffic = {.entries = (uint64_t)2 * 5 * 4};
    const struct by_rule *sum;
    struct account a;

    counted.counted = true;
    counted.paper_entries = NULL;
    layout_describe(&w.all, n, 2);
    layout_describe(&w.compressed, n, 1);
    account_create(&a, &w);
    for (int epoch = 0; epoch < 2; epoch++) {
        for (int step = 0; step < 5; step++)
            account_step(&a, &w, 0.001);
        sum = account_take(&a, &w, &traffic);
        assert_close(sum[0].paper, 5 * 4 * 8);
        assert_close(sum[0].framework, 5 * 4 * 8);
        assert_close(sum[0].bound, 5 * (16 + log2(210) / 8));
        assert_true(sum[1].paper == 140 && sum[1].framework == 140 && sum[1].bound == 140);
    }
    account_destroy(&a);
    layout_destroy(&w.all);
    layout_destroy(&w.compressed);
}

/* A ratio for each of three steps. */
static void each_step_weighs_what_its_ratio_says(void **state)
{
    struct workers w = {.method = method_of("dgc", ""), .count = 3};
    const double ratio[] = {0.5, 0.5, 0.01};
    size_t n[] = {1000};
    struct by_rule hand = {0};
    const struct by_rule *sum;
    struct account a;

    layout_describe(&w.all, n, 1);
    layout_describe(&w.compressed, n, 1);
    account_create(&a, &w);
    for (size_t i = 0; i < ARRAY_LENGTH(ratio); i++) {
        account_step(&a, &w, ratio[i]);
        hand = account_sum(hand, account_tensor(&w.method, &w.compressed, 0, ratio[i]));
    }
    sum = account_take(&a, &w, NULL);
    assert_memory_equal(sum, &hand, sizeof(hand));
    assert_true(sum->paper == 6 * 1010 && sum->framework == 8 * 1010);
    account_destroy(&a);
    layout_destroy(&w.all);
    layout_destroy(&w.compressed);
}

/* Calls check for every compressor, alone and with every quantiser. */
static void each_method(void (*check)(const struct method *m))
{
    for (size_t i = 0; compressors[i] != NULL; i++) {
        struct method m = method_of(compressors[i]->name, "");

        check(&m);
        for (size_t j = 0; quantisers[j] != NULL && !compressors[i]->no_quantiser; j++) {
            m = method_of(compressors[i]->name, quantisers[j]->name);
            check(&m);
        }
    }
}

static void check_bound(const struct method *m)
{
    static const size_t n[] = {1, 2, 255, 256, 257, 1000, 100000, 3000000};
    static const double ratio[] = {1e-5, 0.001, 0.03, 0.25, 0.9, 1};

    for (size_t i = 0; i < ARRAY_LENGTH(n) * ARRAY_LENGTH(ratio); i++) {
        size_t elements = n[i / ARRAY_LENGTH(ratio)];
        double share = ratio[i % ARRAY_LENGTH(ratio)];
        size_t entries;
        struct by_rule b = weigh_vector(m, elements, share, &entries);
        double raw = (double)message_tensor_bytes(m, ENCODING_RAW, elements, entries);

        assert_true(b.bound > 0 && b.bound <= b.framework * (1 + 1e-12));
        assert_true(b.bound <= raw * (1 + 1e-12));
        assert_true(entries >= 1 && entries <= elements);
    }
}

static void nothing_that_is_sent_so_is_below_the_bound(void **state)
{
    each_method(check_bound);
}

/* The host knows how many entries a message has, unless it is for the data to say. */
static void check_entries(const struct method *m)
{
    static const size_t n[] = {5000, 1, 300};
    const double ratio = 0.03;
    float *x = allocate((size_t)2 * 5301, sizeof(*x));
    uint64_t each[2], entries = 0;
    struct traffic total;
    struct lab lab;

    if (!method_counted(m) && !m->compressor->no_indices) {
        harness_floats(3, x, (size_t)2 * 5301);
        lab_open(&lab, &(struct lab_spec){.device = device,
                                          .compressor = m->compressor,
                                          .memory = memory_find("none"),
                                          .n = n,
                                          .tensors = 3,
                                          .workers = 2,
                                          .ratio = ratio,
                                          .quantiser = m->quantiser});
        lab_step(&lab, x);
        lab_weigh(&lab, ENCODING_RAW, &total, each);
        for (size_t i = 0; i < ARRAY_LENGTH(n); i++)
            entries += 2 * account_entries(m, &lab.layout, (uint32_t)i, ratio);
        assert_int_equal(total.entries, entries);
        lab_close(&lab);
    }
    free(x);
}

static void messages_have_the_entries_that_are_told(void **state)
{
    each_method(check_entries);
}

int main(void)
{
    const struct CMUnitTest on_the_host[] = {
        cmocka_unit_test(a_framework_has_whole_bytes),
        cmocka_unit_test(the_bound_is_the_log_of_the_messages_there_could_be),
        cmocka_unit_test(of_many_entries_an_index_has_its_entropy),
        cmocka_unit_test(agreed_indices_weigh_nothing),
        cmocka_unit_test(counted_entries_weigh_what_their_mean_does),
        cmocka_unit_test(each_step_weighs_what_its_ratio_says),
        cmocka_unit_test(nothing_that_is_sent_so_is_below_the_bound),
    };
    const struct CMUnitTest on_a_device[] = {
        cmocka_unit_test(messages_have_the_entries_that_are_told),
    };
    int failed = cmocka_run_group_tests_name("host", on_the_host, NULL, NULL);

    for (const char *const *d = harness_devices(); *d != NULL; d++) {
        device = *d;
        failed += cmocka_run_group_tests_name(device, on_a_device, NULL, NULL);
    }
    return failed;
}

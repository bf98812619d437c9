/*
 * test_config.c -- regimes and flags: what counts, what is refused and in which words, and that a
 * key tells a run.
 */
#include "sim/config.h"

#include <limits.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Last: its macro fail() would hide ours. */
#include <cmocka.h>

static char folder[] = "/tmp/test_config.XXXXXX"; /* where the tests run */
static char root[PATH_MAX];                       /* of the sources */

static struct config c;
static struct error err;
static bool misuse;

#define ENDS    "\"schedule\":{\"0\":{\"lr\":20}}}"
#define MINIMAL "{\"model\":\"lstm\",\"data\":\"ptb\"," ENDS
/* A regime with more keys; the text ends with a comma. */
#define REGIME(more) "{\"model\":\"lstm\",\"data\":\"ptb\"," more "," ENDS

static void write_file(const char *name, const char *text)
{
    FILE *file = fopen(name, "w");

    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static void write_bytes(const char *name, const char *bytes, size_t count)
{
    FILE *file = fopen(name, "w");

    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, count, file), count);
    assert_int_equal(fclose(file), 0);
}

/* The words of a command line. */
static bool parse(const char *line)
{
    char *copy = format_text("%s", line);
    char *argv[64];
    int argc = 0;
    bool ok;

    for (char *word = strtok(copy, " "); word != NULL; word = strtok(NULL, " "))
        argv[argc++] = word;
    config_free(&c);
    err.text[0] = '\0';
    misuse = false;
    ok = config_parse(&c, argc, argv, &misuse, &err);
    free(copy);
    return ok;
}

static void accept(const char *line)
{
    if (!parse(line))
        print_error("%s: %s\n", line, err.text);
    assert_string_equal(err.text, "");
}

static void refuse(const char *line, const char *sentence)
{
    assert_false(parse(line));
    assert_string_equal(err.text, sentence);
    assert_false(misuse);
}

static void refuse_usage(const char *line, const char *sentence)
{
    assert_false(parse(line));
    assert_string_equal(err.text, sentence);
    assert_true(misuse);
}

static void refuse_regime(const char *text, const char *sentence)
{
    write_file("a.json", text);
    refuse("a.json", sentence);
}

static const char *pair(const char *key)
{
    for (size_t i = 0; i < c.pairs; i++)
        if (strcmp(c.pair[i].key, key) == 0)
            return c.pair[i].value;
    return NULL;
}

static void keep_key(char key[65])
{
    memcpy(key, c.key, sizeof(c.key));
}

/* Precedence. */

static void defaults_fill_what_a_regime_leaves_out(void **state)
{
    write_file("a.json", MINIMAL);
    accept("a.json");
    assert_string_equal(c.regime, "a");
    assert_int_equal(c.workers, 1);
    assert_int_equal(c.batch, 32);
    assert_int_equal(c.total_batch, 32);
    assert_int_equal(c.epochs, 1);
    assert_int_equal(c.seed, 1);
    assert_int_equal(c.data.bptt, 35);
    assert_int_equal(c.data.min_count, 1);
    assert_int_equal(c.data.sharding, SHARD_COLUMNS);
    assert_int_equal(c.evaluate.batch, 10);
    assert_int_equal(c.clip.mode, CLIP_NONE);
    assert_int_equal(c.lr_rule.rule, LR_CONSTANT);
    assert_int_equal(c.weight_decay_at, DECAY_LOCAL);
    assert_string_equal(c.compressor.name, "none");
    assert_string_equal(c.memory.name, "none");
    assert_string_equal(c.device, "auto");
    assert_true(c.model.value[0] == 200);
    assert_true(c.phase[0].lr == 20 && c.phase[0].momentum == 0 && !c.phase[0].nesterov);
}

static void later_layers_count(void **state)
{
    write_file("a.json", REGIME("\"epochs\":2,\"seed\":2,\"workers\":2,\"tuned\":{\"topk\":"
                                "{\"epochs\":3,\"workers\":3,\"seed\":3}}"));
    write_file("with.json", "{\"seed\":4,\"workers\":4}");
    accept("a.json --compressor topk --workers 5 --with with.json");
    assert_int_equal(c.epochs, 3);
    assert_int_equal(c.seed, 4);
    assert_int_equal(c.workers, 5);
}

static void flags_and_set_count_in_the_order_given(void **state)
{
    write_file("a.json", MINIMAL);
    accept("a.json --lr 1 --set schedule.0.lr=2");
    assert_true(c.phase[0].lr == 2);
    accept("--set schedule.0.lr=2 --lr=1 a.json");
    assert_true(c.phase[0].lr == 1);
}

static void set_reaches_any_key(void **state)
{
    write_file("a.json", MINIMAL);
    accept("a.json --set model.hidden=32 --set clip={\"norm\":2,\"mode\":\"global\"} --set "
           "compressor=topk:ratio=0.5 --set memory.beta=.5 --set schedule.3.lr=5");
    assert_true(c.model.value[0] == 32);
    assert_int_equal(c.clip.mode, CLIP_GLOBAL);
    assert_true(c.ratio[0].ratio == 0.5);
    assert_string_equal(c.memory.name, "residual");
    assert_true(c.memory.value[0] == 0.5);
    assert_true(config_phase(&c, 2)->lr == 20 && config_phase(&c, 3)->lr == 5);
}

static void every_flag_reaches_its_key(void **state)
{
    write_file("a.json", MINIMAL);
    accept("a.json -K 2 --batch 3 --epochs 4 --seed 5 --lr 6 --momentum .7 --nesterov "
           "--weight-decay 1e-4 --weight-decay-at aggregate --bptt 8 --hidden 9 --layers 1");
    assert_int_equal(c.workers, 2);
    assert_int_equal(c.total_batch, 6);
    assert_int_equal(c.epochs, 4);
    assert_int_equal(c.seed, 5);
    assert_true(c.phase[0].lr == 6 && c.phase[0].momentum == 0.7 && c.phase[0].nesterov);
    assert_true(c.phase[0].weight_decay == 1e-4);
    assert_int_equal(c.weight_decay_at, DECAY_AGGREGATE);
    assert_int_equal(c.data.bptt, 8);
    assert_true(c.model.value[0] == 9 && c.model.value[1] == 1);
    accept("a.json -K4 --dropout .5 --tied --clip 2 --clip-mode local-sqrt-k --sharding segments "
           "--min-count 3 --compressor dgc --memory residual:beta=0.5 --warmup .25,.125 "
           "--warmup-steps 7 --compress-all --encoding runs16");
    assert_int_equal(c.workers, 4);
    assert_true(c.model.value[2] == 0.5 && c.model.value[3] == 1);
    assert_true(c.clip.norm == 2 && c.clip.mode == CLIP_LOCAL_SQRT_K);
    assert_int_equal(c.data.sharding, SHARD_SEGMENTS);
    assert_int_equal(c.data.min_count, 3);
    assert_true(c.memory.value[0] == 0.5);
    assert_int_equal(c.warmup.ratios, 2);
    assert_int_equal(c.warmup.steps, 7);
    assert_true(c.compress_all);
    assert_int_equal(c.encoding, ENCODING_RUNS16);
    accept("a.json --device cpu --threads 2 --group 3 --streams 1 --db x.db --data d --name n "
           "--experiment e --again --json --quiet --fail-on-divergence --verify-wire");
    assert_string_equal(c.device, "cpu");
    assert_true(c.threads == 2 && c.group == 3 && c.streams == 1);
    assert_string_equal(c.db, "x.db");
    assert_string_equal(c.data_root, "d");
    assert_string_equal(c.name, "n");
    assert_string_equal(c.experiment, "e");
    assert_true(c.again && c.json && c.quiet && c.fail_on_divergence && c.verify_wire);
    accept("a.json --again --no-again --tied --no-tied");
    assert_true(!c.again && c.model.value[3] == 0);
}

static void a_clip_can_be_changed_and_taken_away(void **state)
{
    write_file("a.json", REGIME("\"clip\":{\"norm\":0.25,\"mode\":\"reference\"}"));
    accept("a.json --clip 0.5");
    assert_true(c.clip.norm == 0.5 && c.clip.mode == CLIP_REFERENCE);
    accept("a.json --clip none");
    assert_int_equal(c.clip.mode, CLIP_NONE);
}

static void another_choice_forgets_the_settings_of_the_last(void **state)
{
    write_file("a.json", REGIME("\"compressor\":\"topk:ratio=0.5\",\"memory\":\"residual:beta=0.5\""
                                ",\"lr_rule\":{\"name\":\"linear\",\"to\":0.5}"));
    accept("a.json --compressor dgc --memory dgc --set lr_rule=anneal");
    assert_true(c.ratio[0].ratio == 0.001);
    assert_true(c.memory.value[0] == 1);
    assert_true(c.lr_rule.rule == LR_ANNEAL && c.lr_rule.factor == 0.25);
}

static void a_ratio_given_later_counts(void **state)
{
    write_file("a.json", REGIME("\"compressor\":\"topk:ratio=0.5\",\"ratio\":0.1"));
    accept("a.json");
    assert_true(config_ratio(&c, 0, 0) == 0.5);
    accept("a.json --ratio 0.01");
    assert_true(config_ratio(&c, 0, 0) == 0.01);
    accept("a.json --ratio 0.01 --compressor topk:ratio=0.02");
    assert_true(config_ratio(&c, 0, 0) == 0.02);
}

static void the_database_is_the_flag_or_the_environment_or_here(void **state)
{
    write_file("a.json", MINIMAL);
    accept("a.json");
    assert_string_equal(c.db, "./gradpress.db");
    setenv("GRADPRESS_DB", "/x/y.db", 1);
    accept("a.json");
    assert_string_equal(c.db, "/x/y.db");
    accept("a.json --db z.db");
    assert_string_equal(c.db, "z.db");
    unsetenv("GRADPRESS_DB");
}

/* The tuned table. */

#define TABLE                                                                                      \
    REGIME("\"ratio\":{\"0\":0.1,\"2\":0.01},\"tuned\":{\"topk\":{\"lr\":1},"                      \
           "\"topk:ratio=0.01\":{\"lr\":2,\"data.bptt\":36,\"momentum\":0.5,\"weight_decay\":0.1," \
           "\"model.dropout\":0.25},\"dgc\":{\"warmup\":{\"ratios\":[0.5]}}}")

static void the_most_specific_entry_holds(void **state)
{
    write_file("a.json", TABLE);
    accept("a.json --compressor topk");
    assert_string_equal(c.tuned, "topk:ratio=0.01");
    assert_true(c.phase[0].lr == 2 && c.phase[0].momentum == 0.5);
    assert_true(c.phase[0].weight_decay == 0.1);
    assert_int_equal(c.data.bptt, 36);
    assert_true(c.model.value[2] == 0.25);
    accept("a.json --compressor topk:ratio=0.5");
    assert_string_equal(c.tuned, "topk");
    assert_true(c.phase[0].lr == 1);
    accept("a.json --compressor topk --ratio 0.01");
    assert_string_equal(c.tuned, "topk:ratio=0.01");
    accept("a.json --compressor dgc");
    assert_string_equal(c.tuned, "dgc");
    assert_int_equal(c.warmup.epochs, 1);
    accept("a.json");
    assert_string_equal(c.tuned, "");
    assert_true(c.phase[0].lr == 20);
}

static void a_quantiser_stands_behind_a_compressor_or_alone(void **state)
{
    char key[65];

    write_file("a.json", REGIME("\"compressor\":\"topk:ratio=0.1+terngrad:clip=3\""));
    accept("a.json");
    assert_string_equal(c.compressor.name, "topk");
    assert_string_equal(c.quantiser.name, "terngrad");
    assert_true(c.quantiser.value[0] == 3);
    assert_string_equal(c.method, "topk:ratio=0.1+terngrad:clip=3");
    assert_string_equal(c.compressor_name, "topk+terngrad");
    assert_string_equal(c.memory.name, "residual");
    assert_string_equal(pair("compressor.quantiser.name"), "terngrad");
    keep_key(key);
    accept("a.json --compressor terngradtopk --ratio 0.1 --set compressor.quantiser.clip=3");
    assert_string_equal(c.key, key);
    accept("a.json --compressor topk:ratio=0.1");
    assert_string_equal(c.quantiser.name, "");
    accept("a.json --compressor terngrad");
    assert_string_equal(c.compressor.name, "none");
    assert_string_equal(c.method, "terngrad");
    assert_string_equal(c.compressor_name, "terngrad");
    assert_string_equal(c.memory.name, "none");
    assert_int_equal(c.weight_decay_at, DECAY_AGGREGATE);
    assert_true(c.ratio[0].ratio == 1);
    keep_key(key);
    write_file("b.json", REGIME("\"compressor\":{\"name\":\"terngrad\",\"clip\":2.5}"));
    accept("b.json");
    assert_string_equal(c.key, key);
    write_file("b.json", REGIME("\"compressor\":{\"name\":\"none\",\"quantiser\":\"terngrad\"}"));
    accept("b.json");
    assert_string_equal(c.key, key);
}

/* The first reference's names; settings go to the compressor. */
static void some_names_stand_for_others(void **state)
{
    write_file("a.json", MINIMAL);
    accept("a.json --compressor efsigntopk:ratio=0.1");
    assert_string_equal(c.method, "topk:ratio=0.1+efsignsgd");
    accept("a.json --compressor adacomp2");
    assert_string_equal(c.method, "adacomp:original=1,sigmas=60");
    assert_string_equal(c.memory.name, "residual");
    accept("a.json --compressor adacomp2:c=2.35+terngrad:clip=26");
    assert_string_equal(c.method, "adacomp:c=2.35,original=1,sigmas=60+terngrad:clip=26");
    accept("a.json --compressor efsignadacomp:c=2.35");
    assert_string_equal(c.method, "adacomp:c=2.35,original=1+efsignsgd");
    accept("a.json --compressor terngradadacomp --set compressor.quantiser.clip=26");
    assert_string_equal(c.method, "adacomp:original=1+terngrad:clip=26");
    refuse("a.json --compressor adacomp3",
           "--compressor adacomp3: no such compressor; did you mean 'adacomp'?");
}

static void a_quantiser_is_checked(void **state)
{
    write_file("a.json", MINIMAL);
    refuse("a.json --compressor terngard",
           "--compressor terngard: no such compressor; did you mean 'terngrad'?");
    refuse("a.json --compressor topk+qsdg", "--compressor topk+qsdg: compressor.quantiser: no such "
                                            "quantiser 'qsdg'; did you mean 'qsgd'?");
    assert_false(parse("a.json --compressor topk+"));
    assert_non_null(strstr(err.text, "--compressor topk+: compressor.quantiser: no such quantiser "
                                     "''; there are bf16, efsignsgd, "));
    refuse("a.json --compressor qsgd+fp16",
           "--compressor qsgd+fp16: compressor: qsgd is a quantiser, "
           "so none can stand behind it");
    refuse("a.json --compressor qsgd:levels=0",
           "--compressor qsgd:levels=0: compressor.quantiser.levels: 0 is not a whole number in "
           "[1, 127]");
    refuse("a.json --compressor gtopk+fp16",
           "--compressor gtopk+fp16: compressor.quantiser: {\"name\":\"fp16\"} is not anything "
           "behind gtopk, whose values stay floats");
    refuse("a.json --compressor fp16 --encoding runs16",
           "--encoding runs16: not an encoding for the codes of fp16: runs16 has 32-bit values");
    for (int e = 0; encoding_names[e] != NULL; e++) {
        char *flags = format_text("a.json --compressor topk%s --encoding %s",
                                  e == ENCODING_RUNS16 ? "" : "+fp16", encoding_names[e]);

        accept(flags);
        assert_int_equal(c.encoding, e);
        free(flags);
    }
}

static void the_table_goes_by_the_quantiser_too(void **state)
{
    write_file("a.json", REGIME("\"tuned\":{\"topk\":{\"lr\":1},\"topk+terngrad\":{\"lr\":2},"
                                "\"topk+terngrad:clip=3\":{\"lr\":3},\"terngrad\":{\"lr\":4}}"));
    accept("a.json --compressor topk");
    assert_true(c.phase[0].lr == 1);
    accept("a.json --compressor topk+terngrad");
    assert_true(c.phase[0].lr == 2);
    accept("a.json --compressor topk:ratio=.5+terngrad:clip=3");
    assert_true(c.phase[0].lr == 3);
    accept("a.json --compressor terngrad");
    assert_true(c.phase[0].lr == 4);
    accept("a.json --compressor qsgd");
    assert_true(c.phase[0].lr == 20);
}

static void warmups_have_names(void **state)
{
    const double want[] = {0.31622776601683794, 0.1, 0.031622776601683791, 0.01,
                           0.0031622776601683794};

    write_file("a.json", REGIME("\"compressor\":\"dgc:ratio=0.001\",\"warmup\":{\"ratios\":"
                                "\"exponential:5\"},\"epochs\":9"));
    accept("a.json");
    for (uint32_t epoch = 0; epoch < 5; epoch++)
        assert_true(fabs(config_ratio(&c, epoch, 77) / want[epoch] - 1) < 1e-12);
    assert_true(config_ratio(&c, 5, 77) == 0.001);
    accept("a.json --warmup dense:3 --warmup-epochs 2");
    assert_true(config_ratio(&c, 5, 77) == 1 && config_ratio(&c, 6, 77) == 0.001);
    assert_string_equal(pair("warmup.ratios"), "[1,1,1]");
    refuse("a.json --warmup expo:3",
           "--warmup expo:3: not a list of 1 to 64 numbers, exponential:N or "
           "dense:N");
    refuse("a.json --warmup dense:",
           "--warmup dense:: not a list of 1 to 64 numbers, exponential:N or "
           "dense:N");
    refuse("a.json --warmup dense:65", "--warmup dense:65: not a list of 1 to 64 numbers, "
                                       "exponential:N or dense:N");
}

static void dense_steps_come_again(void **state)
{
    write_file("a.json", REGIME("\"compressor\":\"topk:ratio=0.01\",\"dense_every\":5"));
    accept("a.json");
    for (uint64_t step = 0; step < 20; step++)
        assert_true(config_ratio(&c, 0, step) == (step % 5 == 0 ? 1 : 0.01));
    assert_true(config_ratio_most(&c) == 1);
    accept("a.json --dense-every 0");
    assert_true(config_ratio(&c, 0, 0) == 0.01);
    accept("a.json --compressor terngrad");
    assert_int_equal(c.dense_every, 0);
}

/* Scales are in what they scale: the key is that of the schedule spelt out. */
static void scales_are_in_the_schedule(void **state)
{
    char key[65];

    write_file("b.json", "{\"model\":\"lstm\",\"data\":\"ptb\",\"total_batch\":512,\"epochs\":6,"
                         "\"schedule\":{\"0\":{\"lr\":0.4},\"4\":{\"lr\":0.04}}}");
    accept("b.json");
    snprintf(key, sizeof(key), "%s", c.key);
    write_file("a.json", "{\"model\":\"lstm\",\"data\":\"ptb\",\"total_batch\":512,\"epochs\":3,"
                         "\"epoch_scale\":2,\"lr_scale\":\"linear\","
                         "\"schedule\":{\"0\":{\"lr\":0.1},\"2\":{\"lr\":0.01}}}");
    accept("a.json");
    assert_true(c.phase[0].lr == 0.4 && c.phase[1].lr == 0.04 && c.phase[1].epoch == 4);
    assert_int_equal(c.epochs, 6);
    assert_string_equal(c.key, key);
    accept("a.json --lr-scale sqrt:batch=32 --epoch-scale 1");
    assert_true(c.phase[0].lr == 0.4 && c.phase[1].epoch == 2 && c.epochs == 3);
    refuse("a.json --lr-scale cubic", "--lr-scale cubic: no such scale; there are linear, sqrt");
    refuse("a.json --epoch-scale 10000 --epochs 1000",
           "--epoch-scale 10000: not what leaves at most 1000000 epochs");
}

static void no_tuned_leaves_the_table_aside(void **state)
{
    write_file("a.json", TABLE);
    accept("a.json --compressor topk --no-tuned");
    assert_string_equal(c.tuned, "");
    assert_true(c.phase[0].lr == 20);
}

static void every_entry_of_the_table_is_checked(void **state)
{
    refuse_regime(REGIME("\"tuned\":{\"tpok\":{\"lr\":1}}"),
                  "a.json: tuned.tpok: no such compressor 'tpok'; did you mean 'topk'?");
    refuse_regime(REGIME("\"tuned\":{\"topk\":{\"data.bbtt\":1}}"),
                  "a.json: tuned.topk: data.bbtt: no such key; did you mean 'bptt'?");
    refuse_regime(REGIME("\"tuned\":{\"topk\":{\"lr\":\"x\"}}"),
                  "a.json: tuned.topk: schedule.0.lr: \"x\" is not a number in [0, 1000000]");
    refuse_regime(REGIME("\"tuned\":{\"topk:rato=1\":{}}"),
                  "a.json: tuned.topk:rato=1.rato: no such key; did you mean 'ratio'?");
    refuse_regime(REGIME("\"tuned\":{\"topk\":{\"ratio\":1}}"),
                  "a.json: tuned.topk: 'ratio' is what the table goes by, so it cannot be tuned");
    refuse_regime(REGIME("\"tuned\":{\"topk\":1}"), "a.json: tuned: 1 is not an object");
}

static void two_entries_that_say_as_much_are_refused(void **state)
{
    write_file("a.json", REGIME("\"tuned\":{\"topk:ratio=0.01\":{},\"topk:ratio=1e-2\":{}}"));
    accept("a.json --compressor topk");
    refuse(
        "a.json --compressor topk:ratio=.01",
        "a.json: tuned: 'topk:ratio=0.01' and 'topk:ratio=1e-2' both fit, and neither says more");
}

/* A regime whose tuned table has one entry of one key, each so many times a text. */
static char *tuned_of(size_t names, const char *name, size_t keys, const char *key)
{
    char *text = NULL;
    size_t length;
    FILE *out = open_memstream(&text, &length);

    assert_non_null(out);
    fputs("{\"model\":\"lstm\",\"data\":\"ptb\",\"tuned\":{\"topk", out);
    for (size_t i = 0; i < names; i++)
        fputs(name, out);
    fputs("\":{\"lr", out);
    for (size_t i = 0; i < keys; i++)
        fputs(key, out);
    fputs("\":1}}," ENDS, out);
    fclose(out);
    return text;
}

static void long_words_of_the_table_are_refused(void **state)
{
    char *deep = tuned_of(0, "", 25000, ".a");
    char *named = tuned_of(200, ":a=", 0, "");

    refuse_regime(deep, "a.json: tuned.topk: lr.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a."
                        "a.a.a.a.a.a: no such key");
    refuse_regime(named, "a.json: tuned: more than 127 bytes: topk:a=:a=:a=:a=:a=:a=:a=:a=:a=:a=:a="
                         ":a=:a=:a=:a=:a=:a=:a=:a=:a=...");
    free(deep);
    free(named);
}

/* Faults and misuse. */

static void a_file_that_is_no_regime_is_refused(void **state)
{
    char *big = allocate((1 << 16) + 2, 1);

    refuse_regime("{\"model\": \"lstm\",\n\"data\":", "a.json: line 2: the JSON breaks off");
    refuse_regime("{\n\n lr: 3}\n", "a.json: line 3: no JSON: lr: 3}");
    refuse_regime("{} x\n", "a.json: line 1: no JSON: {} x");
    refuse_regime("", "a.json: empty, where JSON is expected");
    refuse_regime("{}x", "a.json: line 1: no JSON: {}x");
    refuse_regime("{\"about\":\n\"\xe9\"}", "a.json: line 2: not UTF-8");
    refuse_regime("{\"about\":\"a\\u0000b\"}", "a.json: not a text: there is a byte 0 in it");
    refuse_regime("[]", "a.json: not an object");
    refuse_regime("{\"seed\":1,\"seed\":2}", "a.json: the key 'seed' is there twice");
    memset(big, ' ', (1 << 16) + 1);
    refuse_regime(big, "a.json: larger than 64 KiB, so hardly a regime");
    free(big);
    refuse("nowhere/b.json", "nowhere/b.json: cannot open it: No such file or directory");
}

static void a_regime_may_break_off_anywhere(void **state)
{
    const char *whole =
        "{\"about\": \"a \\\"b\\\"\", \"compress_all\": true,\"ratio\": {\"0\": 1e-1},"
        "\"clip\": null, \"warmup\": {\"ratios\": [0.5, 0.25]}}";

    for (size_t length = 1; length < strlen(whole); length++) {
        char *text = format_text("%.*s", (int)length, whole);

        refuse_regime(text, "a.json: line 1: the JSON breaks off");
        free(text);
    }
}

static void unknown_keys_are_refused_with_the_nearest(void **state)
{
    refuse_regime(REGIME("\"evaluate\":{\"batsch\":1}"),
                  "a.json: evaluate.batsch: no such key; did you mean 'batch'?");
    refuse_regime(REGIME("\"epcohs\":1"), "a.json: epcohs: no such key; did you mean 'epochs'?");
    refuse_regime(REGIME("\"evaluate\":{\"xyzzy\":1}"),
                  "a.json: evaluate.xyzzy: no such key; there are batch, bptt");
    refuse_regime("{\"model\":{\"name\":\"lstm\",\"hiden\":3},\"data\":\"ptb\"," ENDS,
                  "a.json: model.hiden: no such key; did you mean 'hidden'?");
    refuse_regime(REGIME("\"memory\":{\"name\":\"residual\",\"bta\":3}"),
                  "a.json: memory.bta: no such key; did you mean 'beta'?");
}

static void unknown_names_are_refused_with_the_nearest(void **state)
{
    refuse_regime(REGIME("\"compressor\":\"tpok\""),
                  "a.json: compressor: no such compressor 'tpok'; did you mean 'topk'?");
    refuse_regime(REGIME("\"memory\":{\"name\":\"residul\"}"),
                  "a.json: memory: no such memory 'residul'; did you mean 'residual'?");
    refuse_regime("{\"model\":\"ltsm\",\"data\":\"ptb\"," ENDS,
                  "a.json: model: no such model 'ltsm'; did you mean 'lstm'?");
    refuse_regime("{\"model\":\"lstm\",\"data\":\"ptbb\"," ENDS,
                  "a.json: data: no such data set 'ptbb'; did you mean 'ptb'?");
    refuse_regime(REGIME("\"lr_rule\":\"aneal\""),
                  "a.json: lr_rule: no such rule 'aneal'; did you mean 'anneal'?");
    refuse_regime(REGIME("\"encoding\":\"rwa\""),
                  "a.json: encoding: \"rwa\" is not one of raw, runs16, bitmap, varint, gamma, "
                  "delta, rice, best");
}

static void wrong_values_are_refused(void **state)
{
    refuse_regime(REGIME("\"workers\":\"four\""),
                  "a.json: workers: \"four\" is not a whole number in [1, 4096]");
    refuse_regime(REGIME("\"workers\":1.5"),
                  "a.json: workers: 1.5 is not a whole number in [1, 4096]");
    refuse_regime(REGIME("\"workers\":4097"),
                  "a.json: workers: 4097 is not a whole number in [1, 4096]");
    refuse_regime(REGIME("\"epochs\":0"),
                  "a.json: epochs: 0 is not a whole number in [1, 1000000]");
    refuse_regime(REGIME("\"ratio\":1.5"), "a.json: ratio: 1.5 is not a number in (0, 1]");
    refuse_regime(REGIME("\"compress_all\":1"), "a.json: compress_all: 1 is not true or false");
    refuse_regime(REGIME("\"about\":1"), "a.json: about: 1 is not a text");
    refuse_regime(REGIME("\"evaluate\":[1]"), "a.json: evaluate: [1] is not an object");
    refuse_regime(REGIME("\"model\":7"), "a.json: the key 'model' is there twice");
    refuse_regime("{\"model\":7,\"data\":\"ptb\"," ENDS,
                  "a.json: model: 7 is not an object or a name");
    refuse_regime("{\"model\":\"lstm:hidden=2.5\",\"data\":\"ptb\"," ENDS,
                  "a.json: model.hidden: 2.5 is not a whole number in [1, 65536]");
    refuse_regime(REGIME("\"clip\":{\"mode\":\"local\"}"), "a.json: clip: 'norm' is missing");
    refuse_regime(REGIME("\"warmup\":{\"ratios\":[]}"),
                  "a.json: warmup.ratios: [] is not a list of 1 to 64 numbers, exponential:N or "
                  "dense:N");
    refuse_regime(REGIME("\"lr_rule\":\"linear:to\""),
                  "a.json: lr_rule: \"linear:to\" is not of the form NAME[:key=value,...]");
    refuse_regime(REGIME("\"seed\":9007199254740992"),
                  "a.json: seed: 9007199254740992 is not a whole"
                  " number in [0, 9007199254740991]");
}

static void faults_of_a_schedule_are_refused(void **state)
{
#define SCHEDULE(text) "{\"model\":\"lstm\",\"data\":\"ptb\",\"schedule\":" text "}"
    refuse_regime(SCHEDULE("{\"1\":{\"lr\":1}}"), "a.json: schedule: does not begin at epoch 0");
    refuse_regime(SCHEDULE("{}"), "a.json: schedule: does not begin at epoch 0");
    refuse_regime(SCHEDULE("{\"0\":{}}"), "a.json: schedule.0: 'lr' is missing");
    refuse_regime(SCHEDULE("{\"0\":{\"lr\":1},\"01\":{}}"),
                  "a.json: schedule: '01' is not an epoch, a whole number from 0");
    refuse_regime(SCHEDULE("{\"0\":{\"lr\":1,\"optimizer\":\"adma\"}}"),
                  "a.json: schedule.0.optimizer: no such optimizer 'adma'; did you mean 'adam'?");
    refuse_regime(SCHEDULE("{\"0\":{\"lr\":1,\"optimizer\":\"adam:beta1=1\"}}"),
                  "a.json: schedule.0.optimizer.beta1: 1 is not a number in [0, 0.9999999]");
    refuse_regime(SCHEDULE("{\"0\":{\"lr\":1,\"optimizer\":\"adam\",\"momentum\":0.5}}"),
                  "a.json: schedule: momentum is not for adam, which has its own ways");
    refuse_regime(SCHEDULE("{\"0\":{\"lr\":1,\"optimizer\":\"rmsprop\",\"nesterov\":true}}"),
                  "a.json: schedule: nesterov is not for rmsprop");
    refuse_regime(
        SCHEDULE("{\"0\":{\"lr\":1},\"3\":{\"optimizer\":\"adam\"}}"),
        "a.json: schedule.3.optimizer: \"adam\" is not that of epoch 0, which holds for the "
        "whole run");
    refuse_regime("{\"model\":\"lstm\",\"data\":\"ptb\",\"compressor\":\"dgc\",\"schedule\":"
                  "{\"0\":{\"lr\":1,\"optimizer\":\"adam\"}}}",
                  "a.json: schedule: adam is not for the memory dgc, which owns momentum: sgd is");
    refuse_regime(SCHEDULE("{\"0\":{\"lr\":1,\"momentum\":1}}"),
                  "a.json: schedule.0.momentum: 1 is not a number in [0, 1)");
    refuse_regime("{\"model\":\"lstm\",\"data\":\"ptb\"}", "a.json: 'schedule' is missing");
    refuse_regime("{\"data\":\"ptb\"," ENDS, "a.json: 'model' is missing");
    refuse_regime("{\"model\":\"lstm\"," ENDS, "a.json: 'data' is missing");
}

static void a_flag_is_the_place_of_its_fault(void **state)
{
    write_file("a.json", MINIMAL);
    write_file("with.json", "{\"workers\":0}");
    write_file("table.json", "{\"tuned\":{}}");
    refuse("a.json --ratio abc", "--ratio abc: not a number in (0, 1]");
    refuse("a.json --ratio 0", "--ratio 0: not a number in (0, 1]");
    refuse("a.json --lr nan", "--lr nan: not a number in [0, 1000000]");
    refuse("a.json --lr inf", "--lr inf: not a number in [0, 1000000]");
    refuse("a.json --lr 0x10", "--lr 0x10: not a number in [0, 1000000]");
    refuse("a.json --lr 1e999", "--lr 1e999: not a number in [0, 1000000]");
    refuse("a.json --seed -1", "--seed -1: not a whole number in [0, 9007199254740991]");
    refuse("a.json --warmup 0.5,2", "--warmup 0.5,2: not a number in (0, 1]");
    refuse("a.json --compressor tpok",
           "--compressor tpok: no such compressor; did you mean 'topk'?");
    refuse("a.json --compressor topk:ratio=2",
           "--compressor topk:ratio=2: compressor.ratio: 2 is not a number in [0, 1]");
    refuse("a.json --compressor topk:ratio", "--compressor topk:ratio: not of the form "
                                             "NAME[:key=value,...][+QUANTISER[:key=value,...]]");
    refuse("a.json --sharding rows", "--sharding rows: not one of columns, segments");
    refuse("a.json --set data.bbtt=3", "--set data.bbtt=3: no such key; did you mean 'bptt'?");
    refuse("a.json --threads many", "--threads many: not a whole number in [0, 4096]");
    refuse("a.json --with with.json", "with.json: workers: 0 is not a whole number in [1, 4096]");
    refuse("a.json --with table.json", "table.json: only a regime has a table 'tuned'");
    refuse("a.json --with none.json", "none.json: cannot open it: No such file or directory");
}

static void a_wrong_command_line_is_misuse(void **state)
{
    write_file("a.json", MINIMAL);
    refuse_usage("", "no regime named");
    refuse_usage("a.json b.json", "two regimes, 'a.json' and 'b.json'");
    refuse_usage("a.json --wrokers 3", "no such flag '--wrokers'; did you mean '--workers'?");
    refuse_usage("a.json --no-workers", "no such flag '--no-workers'; did you mean '--workers'?");
    refuse_usage("a.json -q", "no such flag '-q'");
    refuse_usage("a.json --workers", "--workers needs a value: --workers N");
    refuse_usage("a.json --workers --again", "--workers needs a value: --workers N");
    refuse_usage("a.json --again=yes", "--again takes no value");
    refuse_usage("a.json --set seed", "--set seed: not of the form PATH=VALUE");
    refuse_usage("a.json --batch 2 --set total_batch=4",
                 "--batch 2 and --set total_batch=4 exclude each other");
}

static void a_sentence_that_is_too_long_keeps_its_end(void **state)
{
    const char *end = "aaa: cannot open it: File name too long";
    char line[1024] = "a.json --with ";

    write_file("a.json", MINIMAL);
    memset(line + strlen(line), 'a', 900);
    assert_false(parse(line));
    assert_int_equal(strlen(err.text), sizeof(err.text) - 1);
    assert_memory_equal(err.text, "aaa", 3);
    assert_non_null(strstr(err.text, "aaa...aaa"));
    assert_string_equal(err.text + strlen(err.text) - strlen(end), end);
}

static void an_unknown_regime_is_refused_with_the_nearest(void **state)
{
    refuse("lstm-pbt", "no regime 'lstm-pbt'; did you mean 'lstm-ptb'?");
    refuse("zzzzzzzzzzzzzzzzzzzz", "no regime 'zzzzzzzzzzzzzzzzzzzz' in any folder of regimes");
}

/* The batch. */

static void a_total_batch_is_divided_by_the_workers(void **state)
{
    write_file("a.json", REGIME("\"total_batch\":128,\"workers\":4"));
    accept("a.json");
    assert_int_equal(c.batch, 32);
    accept("a.json --workers 8");
    assert_int_equal(c.batch, 16);
    assert_int_equal(c.total_batch, 128);
    refuse("a.json --workers 3", "a.json: total_batch: 128 is not a multiple of the 3 workers");
    refuse("a.json --total-batch 6", "--total-batch 6: not a multiple of the 4 workers");
}

static void batch_and_total_batch_replace_each_other(void **state)
{
    write_file("a.json", REGIME("\"total_batch\":128,\"workers\":4"));
    accept("a.json --batch 5 --workers 3");
    assert_true(c.batch == 5 && c.total_batch == 15);
    write_file("a.json", REGIME("\"batch\":7,\"workers\":4"));
    accept("a.json --total-batch 8");
    assert_true(c.batch == 2 && c.total_batch == 8);
    refuse_regime(REGIME("\"batch\":7,\"total_batch\":28"),
                  "a.json: batch and total_batch exclude each other");
}

/* Ratios. */

static void a_ramp_of_ratios_sticks_to_its_last(void **state)
{
    const double want[] = {1, 1, 0.25, 0.25, 0.001, 0.001, 0.001};

    write_file("a.json", REGIME("\"epochs\":7,\"compressor\":\"topk\","
                                "\"ratio\":{\"4\":0.001,\"0\":1,\"2\":0.25}"));
    accept("a.json");
    for (uint32_t epoch = 0; epoch < ARRAY_LENGTH(want); epoch++)
        assert_true(config_ratio(&c, epoch, 1000) == want[epoch]);
    assert_true(config_ratio_most(&c) == 1);
    accept("a.json --set ratio.5=0.5");
    assert_true(config_ratio(&c, 4, 0) == 0.001 && config_ratio(&c, 5, 0) == 0.5);
    accept("a.json --ratio 0.1");
    assert_true(config_ratio(&c, 0, 0) == 0.1 && config_ratio_most(&c) == 0.1);
    refuse("a.json --set ratio={\"1\":0.5} --ratio 2", "--ratio 2: not a number in (0, 1]");
    refuse_regime(REGIME("\"ratio\":{\"1\":0.5}"), "a.json: ratio: does not begin at epoch 0");
    refuse_regime(REGIME("\"ratio\":{\"0\":0}"), "a.json: ratio.0: 0 is not a number in (0, 1]");
}

static void a_warmup_of_steps_comes_first(void **state)
{
    write_file("a.json", REGIME("\"compressor\":\"dgc\",\"ratio\":0.001,"
                                "\"warmup\":{\"ratios\":[0.25,0.0625],\"steps\":67}"));
    accept("a.json");
    assert_true(config_ratio(&c, 0, 0) == 0.25 && config_ratio(&c, 9, 66) == 0.25);
    assert_true(config_ratio(&c, 0, 67) == 0.0625 && config_ratio(&c, 0, 133) == 0.0625);
    assert_true(config_ratio(&c, 0, 134) == 0.001);
    assert_true(config_ratio_most(&c) == 0.25);
    accept("a.json --warmup none");
    assert_true(config_ratio(&c, 0, 0) == 0.001 && config_ratio_most(&c) == 0.001);
}

static void a_warmup_of_epochs_goes_by_epochs(void **state)
{
    write_file("a.json", REGIME("\"compressor\":\"topk:ratio=0.01\",\"epochs\":9,"
                                "\"warmup\":{\"ratios\":[0.25,0.0625],\"epochs\":2}"));
    accept("a.json");
    assert_true(config_ratio(&c, 1, 1000000) == 0.25 && config_ratio(&c, 2, 0) == 0.0625);
    assert_true(config_ratio(&c, 3, 0) == 0.0625 && config_ratio(&c, 4, 0) == 0.01);
    accept("a.json --warmup-steps 5");
    assert_true(c.warmup.steps == 5 && c.warmup.epochs == 0);
    refuse_regime(REGIME("\"warmup\":{\"ratios\":[1],\"steps\":1,\"epochs\":1}"),
                  "a.json: warmup.steps and warmup.epochs exclude each other");
}

static void without_compression_everything_is_sent(void **state)
{
    write_file("a.json", REGIME("\"ratio\":0.01,\"warmup\":{\"ratios\":[0.25]}"));
    accept("a.json");
    assert_true(config_ratio(&c, 0, 0) == 1 && config_ratio_most(&c) == 1);
    assert_int_equal(c.warmup.ratios, 0);
}

/* Keys. */

static void the_order_of_keys_does_not_change_the_key(void **state)
{
    char key[65];

    write_file("a.json", "{\"model\":{\"name\":\"lstm\",\"hidden\":32,\"tied\":true},\"data\":"
                         "{\"name\":\"ptb\",\"bptt\":20},\"schedule\":{\"0\":{\"lr\":1,"
                         "\"momentum\":0.5},\"9\":{\"lr\":0.1},\"10\":{\"lr\":0.01}}}");
    write_file("b.json", "{\"schedule\":{\"10\":{\"lr\":1e-2},\"9\":{\"lr\":0.10},\"0\":"
                         "{\"momentum\":5e-1,\"lr\":1.0}},\"data\":{\"bptt\":2e1,\"name\":"
                         "\"ptb\"},\"about\":\"x\",\"model\":\"lstm:tied=1,hidden=32\"}");
    accept("a.json");
    keep_key(key);
    accept("b.json");
    assert_string_equal(c.key, key);
    assert_int_equal(strlen(c.key), 64);
    accept("b.json --bptt 21");
    assert_string_not_equal(c.key, key);
}

static void where_and_how_it_runs_does_not_change_the_key(void **state)
{
    char key[65];

    write_file("a.json", MINIMAL);
    accept("a.json");
    keep_key(key);
    accept("a.json --device cpu --threads 3 --group 2 --streams 2 --db x --data y --name z "
           "--experiment e --again --json --quiet --verify-wire --set data.path=/somewhere "
           "--save w --log-every 7 --measure-every 5 --tensors --dump 3 d");
    assert_string_equal(c.save, "w");
    assert_int_equal(c.log_every, 7);
    assert_int_equal(c.measure, 5);
    assert_true(c.tensors);
    assert_string_equal(c.dump, "d");
    assert_int_equal(c.dump_steps, 3);
    assert_string_equal(c.key, key);
    assert_string_equal(c.data.path, "/somewhere");
}

static void a_regime_that_begins_with_weights_wants_their_file(void **state)
{
    char *regime = format_text(REGIME("\"init\":\"%064d\""), 1);

    refuse_regime(regime, "a.json: init: begins with weights of SHA-256 000000000000...; --init "
                          "FILE gives them");
    refuse_regime(REGIME("\"init\":\"x.safetensors\""),
                  "a.json: init: \"x.safetensors\" is not the SHA-256 of a file of weights, which "
                  "--init makes of it");
    write_file("a.json", MINIMAL);
    refuse("a.json --init nowhere", "nowhere: cannot open it: No such file or directory");
    refuse("a.json --init=", "--init '': not a text of at least 1 byte");
    /* The SHA-256 is that of these 10 bytes, by sha256sum. */
    write_bytes("w", "\2\0\0\0\0\0\0\0{}", 10);
    accept("a.json --init w");
    assert_string_equal(pair("init"),
                        "411a485216e432ece6b9af94fa32154cf79a2a56d4f81266baa50063f45092bd");
    write_file("a.json", regime);
    refuse("a.json --init w", "w: its SHA-256 is 411a485216e4..., but the regime begins "
                              "with 000000000000...");
    unlink("w");
    free(regime);
}

static void a_dump_wants_steps_and_a_folder(void **state)
{
    write_file("a.json", MINIMAL);
    accept("a.json --dump=4 d");
    assert_int_equal(c.dump_steps, 4);
    refuse_usage("a.json --dump", "--dump needs a value: --dump STEPS DIR");
    refuse_usage("a.json --dump 3", "--dump needs a value: --dump STEPS DIR");
    refuse_usage("a.json --dump 3 --quiet", "--dump needs a value: --dump STEPS DIR");
    refuse("a.json --dump d 3", "--dump d: not a whole number in [1, 1000000]");
    refuse("a.json --dump 0 d", "--dump 0: not a whole number in [1, 1000000]");
}

static void the_path_of_a_text_without_a_name_is_in_its_key(void **state)
{
    char key[65];

    write_file("a.json", MINIMAL);
    accept("a.json --set data.name=text --set data.path=x");
    keep_key(key);
    accept("a.json --set data.name=text --set data.path=y");
    assert_string_not_equal(c.key, key);
}

static void the_same_run_said_otherwise_has_the_same_key(void **state)
{
    char key[65];

    write_file("a.json", REGIME("\"total_batch\":128,\"workers\":4,\"ratio\":0.001"));
    accept("a.json --compressor topk:ratio=0.01");
    keep_key(key);
    accept("a.json --compressor topk --ratio 0.01 --batch 32 --memory residual");
    assert_string_equal(c.key, key);
    accept("a.json --weight-decay-at aggregate --compressor topk --set ratio={\"0\":0.01}");
    assert_string_equal(c.key, key);
    accept("a.json --ratio 0.5");
    keep_key(key);
    accept("a.json");
    assert_string_equal(c.key, key);
}

static void the_experiment_key_leaves_out_the_seed(void **state)
{
    char key[65], experiment[65];

    write_file("a.json", MINIMAL);
    accept("a.json --seed 1");
    keep_key(key);
    memcpy(experiment, c.experiment_key, sizeof(experiment));
    accept("a.json --seed 2");
    assert_string_not_equal(c.key, key);
    assert_string_equal(c.experiment_key, experiment);
    accept("a.json --workers 2");
    assert_string_not_equal(c.experiment_key, experiment);
}

static void check_round_trip(void)
{
    char *effective = format_text("%s", c.effective);
    char key[65];

    keep_key(key);
    write_file("again.json", effective);
    accept("again.json");
    assert_string_equal(c.effective, effective);
    assert_string_equal(c.key, key);
    free(effective);
}

static void the_effective_regime_is_a_regime_with_the_same_key(void **state)
{
    write_file("a.json", REGIME("\"total_batch\":128,\"workers\":4,\"seed\":9007199254740991"));
    accept("a.json --compressor dgc --warmup .25,.1 --clip 0.1 --lr 0.30000000000000004 --tied");
    check_round_trip();
    accept("a.json --compressor topk --set ratio={\"0\":1,\"12\":0.1} --set lr_rule=decay:from=3");
    check_round_trip();
    accept("a.json --set data=text --set data.path=a\"b\\c");
    check_round_trip();
    accept("a.json --warmup .5 --warmup-steps 3 --compressor gradient-dropping --sharding segments "
           "--encoding runs16 --compress-all --set schedule.7.nesterov=true");
    check_round_trip();
}

static void the_effective_regime_is_canonical(void **state)
{
    write_file("a.json", MINIMAL);
    accept("a.json");
    assert_string_equal(
        c.effective,
        "{\"batch\":32,\"clip\":null,\"compress_all\":false,\"compressor\":{\"name\":\"none\"},"
        "\"data\":{\"bptt\":35,\"min_count\":1,\"name\":\"ptb\",\"sharding\":\"columns\"},"
        "\"encoding\":\"raw\",\"epochs\":1,\"evaluate\":{\"batch\":10,\"bptt\":35},\"lr_rule\":"
        "{\"name\":\"constant\"},\"memory\":{\"name\":\"none\"},\"model\":{\"dropout\":0,"
        "\"hidden\":200,\"layers\":2,\"name\":\"lstm\",\"tied\":0},\"ratio\":1,\"schedule\":{\"0\":"
        "{\"lr\":20,\"momentum\":0,\"nesterov\":false,\"optimizer\":\"sgd\",\"weight_decay\":0}},"
        "\"seed\":1,\"warmup\":null,\"weight_decay_at\":\"local\",\"workers\":1}");
}

static void pairs_are_the_effective_regime_flat(void **state)
{
    write_file("a.json", MINIMAL);
    accept("a.json --compressor dgc --warmup .25,.1");
    assert_string_equal(pair("model.hidden"), "200");
    assert_string_equal(pair("schedule.0.lr"), "20");
    assert_string_equal(pair("data.sharding"), "columns");
    assert_string_equal(pair("clip"), "null");
    assert_string_equal(pair("warmup.ratios"), "[0.25,0.1]");
    assert_string_equal(pair("memory.name"), "dgc");
    assert_null(pair("about"));
    for (size_t i = 1; i < c.pairs; i++)
        assert_true(strcmp(c.pair[i - 1].key, c.pair[i].key) < 0);
}

/* Who said what. */

static void said(const char *key, enum config_source source, const char *place)
{
    for (size_t i = 0; i < c.tolds; i++) {
        if (strcmp(c.told[i].key, key) != 0)
            continue;
        assert_int_equal(c.told[i].source, source);
        assert_string_equal(c.told[i].place, place);
        return;
    }
    print_error("%s is not told\n", key);
    assert_true(false);
}

static void every_key_tells_who_said_it(void **state)
{
    write_file(
        "a.json",
        "{\"model\":\"lstm:hidden=32\",\"data\":\"ptb\",\"total_batch\":16,\"schedule\":{\"0\":"
        "{\"lr\":20},\"4\":{\"momentum\":0.5}},\"tuned\":{\"topk\":{\"lr\":3,\"data.bptt\":9}}}");
    write_file("with.json", "{\"epochs\":2,\"seed\":3}");
    accept("a.json --with with.json --seed 7 --compressor topk --set model.layers=1");
    said("model.hidden", SOURCE_REGIME, "a.json");
    said("model.tied", SOURCE_DEFAULT, "");
    said("model.layers", SOURCE_FLAG, "--set model.layers=1");
    said("data.bptt", SOURCE_TUNED, "topk");
    said("batch", SOURCE_REGIME, "a.json");
    said("epochs", SOURCE_WITH, "with.json");
    said("seed", SOURCE_FLAG, "--seed 7");
    said("schedule.0.lr", SOURCE_TUNED, "topk");
    said("schedule.4.lr", SOURCE_TUNED, "topk");
    said("schedule.4.momentum", SOURCE_REGIME, "a.json");
    said("schedule.4.nesterov", SOURCE_DEFAULT, "");
    said("clip", SOURCE_DEFAULT, "");
    said("workers", SOURCE_DEFAULT, "");
}

static void what_the_compressor_decides_was_said_with_it(void **state)
{
    write_file("a.json", REGIME("\"ratio\":0.5,\"warmup\":{\"ratios\":[1],\"steps\":1}"));
    accept("a.json");
    said("compressor.name", SOURCE_DEFAULT, "");
    said("memory.name", SOURCE_DEFAULT, "");
    said("ratio", SOURCE_DEFAULT, "");
    said("warmup", SOURCE_DEFAULT, "");
    accept("a.json --compressor gradient-dropping");
    said("memory.name", SOURCE_FLAG, "--compressor gradient-dropping");
    said("ratio", SOURCE_REGIME, "a.json");
    said("warmup", SOURCE_FLAG, "--compressor gradient-dropping");
    accept("a.json --compressor topk:ratio=0.1 --memory none --warmup none --clip 2 --clip none");
    said("ratio", SOURCE_FLAG, "--compressor topk:ratio=0.1");
    said("memory.name", SOURCE_FLAG, "--memory none");
    said("warmup", SOURCE_FLAG, "--warmup none");
    said("clip", SOURCE_FLAG, "--clip none");
    accept("a.json --compressor topk --set ratio={\"3\":0.25}");
    said("ratio.0", SOURCE_REGIME, "a.json");
    said("ratio.3", SOURCE_FLAG, "--set ratio={\"3\":0.25}");
}

static void keys_are_told_in_the_order_of_the_readme(void **state)
{
    static const char *const order[] = {
        "about",         "model.name", "data.name",       "evaluate.batch", "workers",
        "schedule.0.lr", "clip",       "compressor.name", "encoding",       NULL};
    size_t at = 0;

    write_file("a.json", MINIMAL);
    accept("a.json --set data.path=x");
    for (size_t i = 0; i < c.tolds; i++)
        at += order[at] != NULL && strcmp(c.told[i].key, order[at]) == 0;
    assert_null(order[at]);
    said("data.path", SOURCE_FLAG, "--set data.path=x");
}

/* Names. */

static void the_name_tells_regime_method_workers_and_seed(void **state)
{
    write_file("a.json",
               REGIME("\"total_batch\":128,\"workers\":4,\"tuned\":{\"topk\":{\"lr\":1}}"));
    accept("a.json");
    assert_string_equal(c.name, "a/none/k4/s1");
    assert_string_equal(c.method, "none");
    accept("a.json --compressor topk:ratio=0.01 --seed 7 -K 8");
    assert_string_equal(c.name, "a/topk-0.01/k8/s7");
    assert_string_equal(c.method, "topk:ratio=0.01");
    accept("a.json --compressor dgc --set ratio={\"0\":1,\"3\":0.0001} --threads 2");
    assert_string_equal(c.name, "a/dgc-0.0001/k4/s1");
}

static void any_other_change_has_the_key_in_the_name(void **state)
{
    char *want;

    write_file("a.json",
               REGIME("\"total_batch\":128,\"workers\":4,\"tuned\":{\"topk\":{\"lr\":1}}"));
    write_file("with.json", "{\"epochs\":2}");
    accept("a.json --lr 20");
    assert_string_equal(c.name, "a/none/k4/s1");
    accept("a.json --lr 21");
    want = format_text("a/none/k4/s1/x%.6s", c.key);
    assert_string_equal(c.name, want);
    free(want);
    accept("a.json --compressor topk --no-tuned");
    assert_non_null(strstr(c.name, "a/topk-0.001/k4/s1/x"));
    accept("a.json --with with.json");
    assert_non_null(strstr(c.name, "/x"));
    accept("a.json --workers 3 --batch 32");
    assert_non_null(strstr(c.name, "/x"));
    accept("a.json --lr 21 --name mine");
    assert_string_equal(c.name, "mine");
}

/* What is shipped. */

static void check_regime(const char *name, const char *about, void *context)
{
    const char *const methods[] = {"none", "topk", "topk:ratio=0.01", "dgc", "gradient-dropping"};

    ++*(int *)context;
    assert_true(strlen(about) > 0);
    for (size_t i = 0; i < ARRAY_LENGTH(methods); i++) {
        char *line = format_text("%s --compressor %s", name, methods[i]);

        accept(line);
        assert_string_equal(c.regime, name);
        assert_null(strstr(c.name, "/x"));
        check_round_trip();
        free(line);
    }
}

static void every_regime_here_is_right(void **state)
{
    int count = 0;

    assert_true(config_each_regime(check_regime, &count, &err));
    assert_true(count >= 4);
}

static void the_demo_is_the_one_that_was_tried(void **state)
{
    accept("lstm-kjv --compressor dgc");
    assert_string_equal(c.name, "lstm-kjv/dgc-0.001/k4/s1");
    assert_string_equal(c.tuned, "dgc");
    assert_int_equal(c.batch, 8);
    assert_int_equal(c.data.min_count, 3);
    assert_int_equal(c.evaluate.batch, 16);
    assert_true(c.clip.mode == CLIP_LOCAL_SQRT_K && c.clip.norm == 0.5);
    assert_true(c.lr_rule.rule == LR_LINEAR && c.lr_rule.to == 0.02);
    assert_true(config_ratio(&c, 0, 267) == 0.004 && config_ratio(&c, 0, 268) == 0.001);
    accept("lstm-kjv");
    assert_true(c.clip.mode == CLIP_GLOBAL && c.clip.norm == 0.25);
}

/* What stands in a file of the sources, up to `room`. */
static void read_source(const char *name, char *text, size_t room)
{
    char *path = format_text("%s/%s", root, name);
    FILE *file = fopen(path, "r");

    assert_non_null(file);
    text[fread(text, 1, room - 1, file)] = '\0';
    fclose(file);
    free(path);
}

static void check_keys(const char *command)
{
    static char text[1 << 16];

    read_source("regimes/README.md", text, sizeof(text));
    accept(command);
    for (size_t i = 0; i < c.pairs; i++) {
        const char *key = c.pair[i].key;
        const char *dot = strrchr(key, '.');
        char *path = format_text("`%s`", key);
        char *word = format_text("`%s`", dot != NULL ? dot + 1 : key);

        if (strstr(text, path) == NULL && strstr(text, word) == NULL)
            print_error("regimes/README.md does not tell %s\n", key);
        assert_true(strstr(text, path) != NULL || strstr(text, word) != NULL);
        free(path);
        free(word);
    }
}

static void every_key_is_in_the_readme(void **state)
{
    check_keys("lstm-kjv --compressor dgc");
    check_keys("resnet8-synthetic --compressor dgc");
}

/* Images. */

#define IMAGES                                                                                     \
    "{\"model\":\"lenet\",\"data\":{\"name\":\"synthetic\",\"side\":20,\"crop\":3,\"flip\":true}," \
    "\"schedule\":{\"0\":{\"lr\":1}}}"

static void sets_of_images_have_keys_of_their_own(void **state)
{
    write_file("i.json", IMAGES);
    accept("i.json --set data.holdout=5 --set batch_norm=worker0");
    assert_int_equal(c.data.bptt, 1);
    assert_int_equal(c.evaluate.bptt, 1);
    assert_int_equal(c.data.augment.crop, 3);
    assert_true(c.data.augment.flip);
    assert_string_equal(pair("data.side"), "20");
    assert_string_equal(pair("data.train"), "2048");
    assert_string_equal(pair("data.sharding"), "global");
    assert_string_equal(pair("data.holdout"), "5");
    assert_string_equal(pair("batch_norm"), "worker0");
    assert_null(strstr(c.effective, "bptt"));
    refuse("i.json --bptt 3",
           "--bptt 3: no such key; there are name, path, holdout, crop, fill, flip,"
           " sharding, classes, side, channels, train, test");
    refuse("i.json --set evaluate.bptt=3", "--set evaluate.bptt=3: no such key; there are batch");
    refuse("i.json --sharding segments", "--sharding segments: not one of global");
    write_file("a.json", MINIMAL);
    refuse("a.json --set data.crop=3", "--set data.crop=3: no such key; there are name, path, bptt,"
                                       " min_count, sharding");
    accept("a.json");
    assert_null(strstr(c.effective, "batch_norm")); /* the keys of runs of texts stay theirs */
}

static void another_set_forgets_what_is_not_for_it(void **state)
{
    write_file("i.json", IMAGES);
    accept("i.json --set data.name=mnist");
    assert_int_equal(c.data.augment.crop, 3);
    assert_null(strstr(c.effective, "side"));
    accept("i.json --set data=ptb --set model=lstm");
    assert_null(strstr(c.effective, "crop"));
    write_file("a.json", MINIMAL);
    accept("a.json --bptt 9 --set data=cifar10 --set model=resnet");
    assert_null(strstr(c.effective, "bptt"));
}

static void a_model_and_its_data_are_of_one_kind(void **state)
{
    write_file("i.json", IMAGES);
    refuse("i.json --set model=lstm",
           "--set model=lstm: not a model of images, as the data set 'synthetic' is");
    refuse("i.json --set data=ptb",
           "i.json: model: \"lenet\" is not a model of texts, as the data set 'ptb' is");
    refuse(
        "i.json --set lr_rule=anneal",
        "--set lr_rule=anneal: not a rule for data without a validation part; data.holdout makes "
        "one");
    accept("i.json --set lr_rule=anneal --set data.holdout=9");
}

/* The README's map of the references' flags. */

static const char flags_there[] =
    "--data --emb_size --num_hid --num_layers --init_lr --lr_decay --epochs --batch_size "
    "--eval_batch_size --test_batch_size --bptt --dropout --seed --use_gpu --log_interval --save "
    "--clip "
    "--exp_name --project_name --num_workers --compressor --memory --compress_ratio --clip_const "
    "--comp_const --alpha "
    "--results_dir --dataset --model --input_size --resnet_depth --model_config --type --gpus "
    "--workers "
    "--start-epoch --batch-size --lr_bb_fix --regime_bb_fix --optimizer --lr --momentum "
    "--weight-decay "
    "--wd --print-freq --resume --evaluate --mini-batch-size --ghost_batch_size --pruning_perc "
    "--use_residue_acc --use_pruning --use_warmup --use_sync --sync_interval --use_nesterov "
    "--use_debug "
    "--use_struct_pruning --lr_scale --use_delayed_sgd";

/* Parses every `--flag` between backquotes; their number. */
static int accept_quoted(const char *cell)
{
    int flags = 0;

    for (const char *at = strchr(cell, '`'); at != NULL; at = strchr(at + 1, '`')) {
        size_t length = strcspn(at + 1, "`");
        char *line = format_text("a.json %.*s", (int)length, at + 1);

        if (strncmp(at + 1, "--", 2) == 0) {
            accept(line);
            flags++;
        }
        free(line);
        at += 1 + length;
    }
    return flags;
}

/* Adds the row's flags to there; checks that ours are flags, or that it says why there is none. */
static void check_row(const char *row, char *there, size_t room)
{
    const char *here = strstr(row, " | ");
    size_t length = strlen(there);

    assert_non_null(here);
    snprintf(there + length, room - length, "%.*s", (int)(here - row), row);
    if (accept_quoted(here) == 0 && strncmp(here, " | none: ", 9) != 0)
        fail_msg("README.md: no flag of ours, and no reason: %s", row);
}

static void the_map_of_the_references_flags_is_true(void **state)
{
    static char text[1 << 16], there[1 << 13];
    char *names = format_text("%s", flags_there);
    char *begin, *end, *rest;

    write_file("a.json", MINIMAL);
    read_source("README.md", text, sizeof(text));
    begin = strstr(text, "\n## Flags of the references\n");
    assert_non_null(begin);
    end = strstr(begin + 1, "\n## ");
    assert_non_null(end);
    *end = '\0';
    for (char *row = strtok_r(begin, "\n", &rest); row != NULL; row = strtok_r(NULL, "\n", &rest))
        if (strncmp(row, "| `-", 4) == 0)
            check_row(row, there, sizeof(there));
    for (char *name = strtok_r(names, " ", &rest); name != NULL;
         name = strtok_r(NULL, " ", &rest)) {
        char *quoted = format_text("`%s`", name);

        if (strstr(there, quoted) == NULL)
            fail_msg("README.md does not map %s", quoted);
        free(quoted);
    }
    free(names);
}

static void help_lists_every_group(void **state)
{
    static char text[1 << 14];
    FILE *out = tmpfile();

    assert_non_null(out);
    config_help(out);
    rewind(out);
    text[fread(text, 1, sizeof(text) - 1, out)] = '\0';
    fclose(out);
    assert_non_null(strstr(text, "Regime:\n  --workers N"));
    assert_non_null(strstr(text, "\nMethod:\n"));
    assert_non_null(strstr(text, "\nRun:\n"));
    assert_non_null(strstr(text, "\n  --[no-]verify-wire"));
}

static void freeing_may_be_done_twice_or_to_nothing(void **state)
{
    struct config empty = {0};

    config_free(&empty);
    config_free(NULL);
    write_file("a.json", MINIMAL);
    accept("a.json");
    config_free(&c);
    config_free(&c);
    assert_null(c.effective);
}

static int enter_folder(void **state)
{
    static const char *const guesses[] = {".", "..", "../.."};
    char *regimes;

    for (size_t i = 0; i < ARRAY_LENGTH(guesses) && root[0] == '\0'; i++) {
        char *path = format_text("%s/regimes/lstm-kjv.json", guesses[i]);

        if (access(path, R_OK) == 0 && realpath(guesses[i], root) == NULL)
            return -1;
        free(path);
    }
    if (root[0] == '\0' || mkdtemp(folder) == NULL || chdir(folder) != 0)
        return -1;
    regimes = format_text("%s/regimes", root);
    setenv("GRADPRESS_REGIMES", regimes, 1);
    unsetenv("GRADPRESS_DB");
    free(regimes);
    return 0;
}

static int leave_folder(void **state)
{
    static const char *const files[] = {"a.json",    "b.json",     "i.json",
                                        "with.json", "table.json", "again.json"};

    config_free(&c);
    for (size_t i = 0; i < ARRAY_LENGTH(files); i++)
        unlink(files[i]);
    return rmdir(folder);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(defaults_fill_what_a_regime_leaves_out),
    cmocka_unit_test(later_layers_count),
    cmocka_unit_test(flags_and_set_count_in_the_order_given),
    cmocka_unit_test(set_reaches_any_key),
    cmocka_unit_test(every_flag_reaches_its_key),
    cmocka_unit_test(a_clip_can_be_changed_and_taken_away),
    cmocka_unit_test(another_choice_forgets_the_settings_of_the_last),
    cmocka_unit_test(a_ratio_given_later_counts),
    cmocka_unit_test(the_database_is_the_flag_or_the_environment_or_here),
    cmocka_unit_test(the_most_specific_entry_holds),
    cmocka_unit_test(a_quantiser_stands_behind_a_compressor_or_alone),
    cmocka_unit_test(some_names_stand_for_others),
    cmocka_unit_test(a_quantiser_is_checked),
    cmocka_unit_test(the_table_goes_by_the_quantiser_too),
    cmocka_unit_test(warmups_have_names),
    cmocka_unit_test(dense_steps_come_again),
    cmocka_unit_test(scales_are_in_the_schedule),
    cmocka_unit_test(no_tuned_leaves_the_table_aside),
    cmocka_unit_test(every_entry_of_the_table_is_checked),
    cmocka_unit_test(two_entries_that_say_as_much_are_refused),
    cmocka_unit_test(long_words_of_the_table_are_refused),
    cmocka_unit_test(a_file_that_is_no_regime_is_refused),
    cmocka_unit_test(a_regime_may_break_off_anywhere),
    cmocka_unit_test(unknown_keys_are_refused_with_the_nearest),
    cmocka_unit_test(unknown_names_are_refused_with_the_nearest),
    cmocka_unit_test(wrong_values_are_refused),
    cmocka_unit_test(faults_of_a_schedule_are_refused),
    cmocka_unit_test(a_flag_is_the_place_of_its_fault),
    cmocka_unit_test(a_wrong_command_line_is_misuse),
    cmocka_unit_test(a_sentence_that_is_too_long_keeps_its_end),
    cmocka_unit_test(an_unknown_regime_is_refused_with_the_nearest),
    cmocka_unit_test(a_total_batch_is_divided_by_the_workers),
    cmocka_unit_test(batch_and_total_batch_replace_each_other),
    cmocka_unit_test(a_ramp_of_ratios_sticks_to_its_last),
    cmocka_unit_test(a_warmup_of_steps_comes_first),
    cmocka_unit_test(a_warmup_of_epochs_goes_by_epochs),
    cmocka_unit_test(without_compression_everything_is_sent),
    cmocka_unit_test(the_order_of_keys_does_not_change_the_key),
    cmocka_unit_test(where_and_how_it_runs_does_not_change_the_key),
    cmocka_unit_test(a_regime_that_begins_with_weights_wants_their_file),
    cmocka_unit_test(a_dump_wants_steps_and_a_folder),
    cmocka_unit_test(the_path_of_a_text_without_a_name_is_in_its_key),
    cmocka_unit_test(the_same_run_said_otherwise_has_the_same_key),
    cmocka_unit_test(the_experiment_key_leaves_out_the_seed),
    cmocka_unit_test(the_effective_regime_is_a_regime_with_the_same_key),
    cmocka_unit_test(the_effective_regime_is_canonical),
    cmocka_unit_test(pairs_are_the_effective_regime_flat),
    cmocka_unit_test(every_key_tells_who_said_it),
    cmocka_unit_test(what_the_compressor_decides_was_said_with_it),
    cmocka_unit_test(keys_are_told_in_the_order_of_the_readme),
    cmocka_unit_test(the_name_tells_regime_method_workers_and_seed),
    cmocka_unit_test(any_other_change_has_the_key_in_the_name),
    cmocka_unit_test(every_regime_here_is_right),
    cmocka_unit_test(the_demo_is_the_one_that_was_tried),
    cmocka_unit_test(every_key_is_in_the_readme),
    cmocka_unit_test(sets_of_images_have_keys_of_their_own),
    cmocka_unit_test(another_set_forgets_what_is_not_for_it),
    cmocka_unit_test(a_model_and_its_data_are_of_one_kind),
    cmocka_unit_test(the_map_of_the_references_flags_is_true),
    cmocka_unit_test(help_lists_every_group),
    cmocka_unit_test(freeing_may_be_done_twice_or_to_nothing),
};

int main(void)
{
    return cmocka_run_group_tests(tests, enter_folder, leave_folder);
}

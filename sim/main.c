/*
 * main -- subcommands, exit codes, and the only place that prints errors.
 *
 *     0  done, already done, or diverged (that is a result)
 *     1  a fault of the input, or a result that cannot be written
 *     2  a command line that is wrong
 *     3  diverged, with --fail-on-divergence
 *     4  another process is at this run
 */
#include "compressors/compressor.h"
#include "compressors/memory.h"
#include "data/dataset.h"
#include "models/model.h"
#include "results/query.h"
#include "sim/bench.h"
#include "sim/bytes.h"
#include "sim/compress.h"
#include "sim/config.h"
#include "sim/data.h"
#include "sim/device.h"
#include "sim/eval.h"
#include "sim/optimizer_rule.h"
#include "sim/run.h"
#include "sim/show.h"
#include "sim/version.h"
#include "sim/words.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { DONE, FAULT, MISUSE, DIVERGED, ELSEWHERE };

struct command {
    const char *name;
    const char *arguments;
    const char *about;
    int (*run)(int argc, char **argv);
    void (*help)(FILE *out);
};

static int fault(const struct error *err)
{
    fprintf(stderr, "gradpress: %s\n", err->text);
    return FAULT;
}

static int misuse(const char *command, const char *text)
{
    fprintf(stderr, "gradpress: %s\n", text);
    fprintf(stderr, "Try 'gradpress %s%s--help'.\n", command, *command != '\0' ? " " : "");
    return MISUSE;
}

/* Dies of the signal that stopped the run, so that a shell loop stops too. */
static int die_of(int number)
{
    fflush(NULL);
    signal(number, SIG_DFL);
    raise(number);
    return FAULT;
}

static int run_status_code(const struct config *c, enum run_status status)
{
    if (status == RUN_ELSEWHERE) {
        fprintf(stderr, "gradpress: %s: another process is at this run\n", c->name);
        return ELSEWHERE;
    }
    return status == RUN_DIVERGED && c->fail_on_divergence ? DIVERGED : DONE;
}

static int train(int argc, char **argv)
{
    struct config *c = allocate(1, sizeof(*c));
    enum run_status status = RUN_DONE;
    struct error err;
    char *summary = NULL;
    bool wrong = false;
    int stopped_by = 0;
    int code;

    if (!config_parse(c, argc, argv, &wrong, &err))
        code = wrong ? misuse("train", err.text) : fault(&err);
    else if (!run(c, &status, &summary, &stopped_by, &err))
        code = fault(&err);
    else
        code = run_status_code(c, status);
    if (summary != NULL)
        puts(summary);
    free(summary);
    config_free(c);
    free(c);
    return stopped_by != 0 ? die_of(stopped_by) : code;
}

static int evaluate(int argc, char **argv)
{
    struct config *c = allocate(1, sizeof(*c));
    struct error err;
    bool wrong = false;
    int code = DONE;

    if (!config_parse_eval(c, argc, argv, &wrong, &err))
        code = wrong ? misuse("eval", err.text) : fault(&err);
    else if (!eval(c, stdout, &err))
        code = fault(&err);
    config_free(c);
    free(c);
    return code;
}

/* Takes a --memory without a SPEC out of the arguments; the others are those of train. */
static bool take_bare_memory(int *argc, char **argv)
{
    int left = 0;

    for (int i = 0; i < *argc; i++)
        if (strcmp(argv[i], "--memory") != 0 || (i + 1 < *argc && argv[i + 1][0] != '-'))
            argv[left++] = argv[i];
    if (left == *argc)
        return false;
    *argc = left;
    return true;
}

/* Missing data are no fault: what does not follow from them is shown. */
static int show_effective(int argc, char **argv)
{
    bool parts = take_bare_memory(&argc, argv);
    struct config *c = allocate(1, sizeof(*c));
    struct error missing = {""}, err;
    bool wrong = false;
    int code = DONE;

    if (!config_parse(c, argc, argv, &wrong, &err))
        code = wrong ? misuse("show", err.text) : fault(&err);
    else if (!show(c, parts, stdout, &missing, &err))
        code = fault(&err);
    if (missing.text[0] != '\0')
        fprintf(stderr, "gradpress: %s\n", missing.text);
    config_free(c);
    free(c);
    return code;
}

static void show_help(FILE *out)
{
    fputs("The flags of train, and\n"
          "  --memory                    without a SPEC: the parts of the memory that is needed\n"
          "  --json                      all of it as one JSON object\n\n",
          out);
    config_help(out);
}

static int measure_step(int argc, char **argv, struct bench_options options)
{
    struct config *c = allocate(1, sizeof(*c));
    struct error err;
    bool wrong = false;
    int code = DONE;

    if (!config_parse(c, argc, argv, &wrong, &err))
        code = wrong ? misuse("bench", err.text) : fault(&err);
    else if (!bench(c, options, stdout, &err))
        code = fault(&err);
    config_free(c);
    free(c);
    return code;
}

static int measure_methods(int argc, char **argv, struct bench_options options)
{
    struct error err;
    bool wrong = false;

    take_word("--compressor", &argc, argv, &options.method);
    if (bench_methods(argc, argv, options, stdout, &wrong, &err))
        return DONE;
    return wrong ? misuse("bench", err.text) : fault(&err);
}

static int measure(int argc, char **argv)
{
    struct bench_options options = {.steps = 10, .vocabulary = 10000};
    char *wrong_count = NULL;
    int code;

    take_count("--steps", 100000, &argc, argv, &options.steps, &wrong_count);
    take_count("--vocabulary", 10000000, &argc, argv, &options.vocabulary, &wrong_count);
    if (wrong_count != NULL)
        code = misuse("bench", wrong_count);
    else if (argc > 0 && strcmp(argv[0], "compressors") == 0)
        code = measure_methods(argc - 1, argv + 1, options);
    else
        code = measure_step(argc, argv, options);
    free(wrong_count);
    return code;
}

static void bench_help(FILE *out)
{
    fputs(
        "Steps of the regime on random words or images, so that no data are needed: seconds of "
        "each\n"
        "stage of a step, beside what the machine can do.  Nothing is written.  The flags of "
        "train,\n"
        "and\n"
        "  --steps N                   steps that are timed (10)\n"
        "  --vocabulary N              words of the text (10000)\n"
        "  --json                      an object; seconds_per_step has every step\n\n"
        "'gradpress bench compressors [flags]' measures every compressor, every quantiser and some "
        "of\n"
        "both on made-up gradients of the 700-unit LSTM and 16 workers: how many times as long "
        "each "
        "stage\n"
        "takes as one read of all gradients (a pass), and the bytes of those a second.  --hidden, "
        "--workers,\n"
        "--group (4) and so on make it another size, --compressor SPEC measures one alone.  It "
        "wants "
        "6 GB.\n\n",
        out);
    config_help(out);
}

/* Takes a flag without a value out of the arguments. */
static bool take_bare(const char *name, int *argc, char **argv)
{
    int left = 0;
    bool found = false;

    for (int i = 0; i < *argc; i++) {
        if (strcmp(argv[i], name) == 0)
            found = true;
        else
            argv[left++] = argv[i];
    }
    *argc = left;
    return found;
}

static int weigh(int argc, char **argv)
{
    struct bytes_options options = {.vocabulary = 10000};
    struct config *c = allocate(1, sizeof(*c));
    char *wrong_count = NULL;
    struct error err;
    bool wrong = false;
    int code = DONE;

    options.per_tensor = take_bare("--per-tensor", &argc, argv);
    take_count("--vocabulary", 10000000, &argc, argv, &options.vocabulary, &wrong_count);
    if (wrong_count != NULL)
        code = misuse("bytes", wrong_count);
    else if (!config_parse_bytes(c, argc, argv, &wrong, &err))
        code = wrong ? misuse("bytes", err.text) : fault(&err);
    else
        bytes(c, options, stdout);
    free(wrong_count);
    config_free(c);
    free(c);
    return code;
}

static void weigh_help(FILE *out)
{
    fputs("MODEL is NAME[:setting=value,...], as lstm:hidden=1500,tied=1, or a regime.  The bytes "
          "are of\n"
          "one worker and step, once any warm-up is over; from shapes alone, in a second:\n\n"
          "  dense      without compression\n"
          "  up, down   what a worker sends and receives, in the encoding in use\n"
          "  paper      by the rule of the method's paper\n"
          "  framework  as GRACE counts: a byte for a sign, 4 for an index\n"
          "  bound      the least that could tell every such message from all others\n\n"
          "MiB is what papers call MB.  The flags of train, and\n"
          "  --vocabulary N              words of a text, which is not looked at (10000)\n"
          "  --per-tensor                a line for each tensor\n"
          "  --json                      an object\n\n",
          out);
    config_help(out);
}

static int compress_file(int argc, char **argv)
{
    struct config *c = allocate(1, sizeof(*c));
    struct error err;
    bool wrong = false;
    int code = DONE;

    if (!config_parse_compress(c, argc, argv, &wrong, &err))
        code = wrong ? misuse("compress", err.text) : fault(&err);
    else if (!compress(c, stdout, &err))
        code = fault(&err);
    config_free(c);
    free(c);
    return code;
}

static void compress_help(FILE *out)
{
    fputs("SPEC is what train --compressor takes.  IN is a safetensors file, or several.  A\n"
          "tensor NAME of shape [workers][...] is a step's gradient, step-N.NAME that of step\n"
          "N; one that is a vector beside the workers is sent whole unless --compress-all.  A\n"
          "file of train --dump has grad.k.NAME of worker k, and is a step.  square.NAME, for\n"
          "variance, is the sum over micro-batches of the square of what each adds to NAME;\n"
          "variance:micro=1 does without.\n\n"
          "OUT has the names of a file of train --dump.  Momentum is 0.9 unless told.  The\n"
          "bytes are those of 'gradpress bytes', the mean of all steps.\n\n",
          out);
    config_help_compress(out);
}

static int unknown_argument(const char *word)
{
    static const char *const names[] = {"--db", "--where", "--json"};
    struct error err;

    if (word[0] != '-')
        fail(&err, "runs takes no arguments but flags, and '%s' is none", word);
    else if (strncmp(word, "--json=", 7) == 0)
        fail(&err, "--json takes no value");
    else
        fail(&err, "no such flag '%.*s'%s", (int)strcspn(word, "="), word,
             nearest_hint(word, names, ARRAY_LENGTH(names)).text);
    return misuse("runs", err.text);
}

static int show_runs(int argc, char **argv)
{
    const char *db = config_default_db(), *where = "true";
    bool json = false;
    struct error err;

    for (int i = 0; i < argc; i++) {
        if (strcmp(argv[i], "--json") == 0)
            json = true;
        else if (!take_value("--db", argc, argv, &i, &db) &&
                 !take_value("--where", argc, argv, &i, &where))
            return unknown_argument(argv[i]);
        if (db == NULL || *db == '\0' || where == NULL)
            return misuse("runs", where == NULL ? "--where needs a value: --where SQL"
                                                : "--db needs a value: --db FILE");
    }
    return query_runs(db, where, json, stdout, &err) ? DONE : fault(&err);
}

static void runs_help(FILE *out)
{
    fputs("  --db FILE    database ($GRADPRESS_DB, else ./gradpress.db)\n"
          "  --where SQL  a condition on columns of the view summary: \"workers = 4\",\n"
          "               \"method like 'topk%' and status = 'done'\"\n"
          "  --json       a list of objects with all columns of summary\n\n"
          "perplexity is of the last epoch, on the validation part; test that of the weights that\n"
          "were best there; ratio what the run sent less than without compression; age since it\n"
          "was begun.  The newest run is last.\n",
          out);
}

static void show_settings(const struct setting *settings)
{
    for (const struct setting *s = settings; s->name != NULL; s++)
        if (s->kind == SWITCH)
            printf("    %-12s %s (%g; 0 or 1)\n", s->name, s->help, s->initial);
        else
            printf("    %-12s %s (%g; %g to %g)\n", s->name, s->help, s->initial, s->low, s->high);
}

static void list_models(void)
{
    for (const struct model *const *m = models; *m != NULL; m++) {
        printf("%-20s %s\n", (*m)->name, (*m)->paper);
        show_settings((*m)->settings);
    }
}

static void list_compressors(void)
{
    for (const struct compressor *const *c = compressors; *c != NULL; c++) {
        printf("%-20s %s\n", (*c)->name, (*c)->about);
        if ((*c)->paper != NULL)
            printf("    %s\n", (*c)->paper);
        show_settings((*c)->settings);
    }
}

static void list_quantisers(void)
{
    for (const struct quantiser *const *q = quantisers; *q != NULL; q++) {
        printf("%-20s %s\n", (*q)->name, (*q)->about);
        printf("    %s\n", (*q)->paper);
        show_settings((*q)->settings);
    }
}

static void list_memories(void)
{
    for (const struct memory *const *m = memories; *m != NULL; m++) {
        printf("%-20s %s\n", (*m)->name, (*m)->about);
        show_settings((*m)->settings);
    }
}

static void list_optimizers(void)
{
    for (const struct optimizer_rule *const *r = optimizer_rules; *r != NULL; r++) {
        printf("%-20s %s\n    %s\n", (*r)->name, (*r)->about, (*r)->paper);
        if ((*r)->settings != NULL)
            show_settings((*r)->settings);
    }
}

static void list_datasets(void)
{
    for (const struct dataset *const *d = datasets; *d != NULL; d++) {
        printf("%-20s %s\n", (*d)->name, (*d)->about);
        show_settings((*d)->settings);
    }
}

static void show_regime(const char *name, const char *about, void *context)
{
    printf("%-20s %s\n", name, is_line(about) ? about : "");
}

static const struct {
    const char *name;
    void (*list)(void);
} tables[] = {
    {"models", list_models},     {"compressors", list_compressors}, {"quantisers", list_quantisers},
    {"memories", list_memories}, {"optimizers", list_optimizers},   {"datasets", list_datasets},
};

#define TABLES "models, compressors, quantisers, memories, optimizers, datasets, regimes"

static int list(int argc, char **argv)
{
    struct error err;

    for (size_t i = 0; argc == 1 && i < ARRAY_LENGTH(tables); i++) {
        if (strcmp(argv[0], tables[i].name) == 0) {
            tables[i].list();
            return DONE;
        }
    }
    if (argc == 1 && strcmp(argv[0], "regimes") == 0)
        return config_each_regime(show_regime, NULL, &err) ? DONE : fault(&err);
    if (argc == 1)
        fail(&err, "no such table '%s'; there are %s", argv[0], TABLES);
    else
        fail(&err, "list wants the name of a table, one of %s", TABLES);
    return misuse("list", err.text);
}

static void list_help(FILE *out)
{
    fputs("Tables: " TABLES ".\n"
          "A setting is shown with its default and its range.  A quantiser may stand alone, or\n"
          "behind a compressor: topk:ratio=0.01+terngrad.\n",
          out);
}

static int show_devices(int argc, char **argv)
{
    struct device dev;
    struct error err;
    char text[512];

    if (argc > 0)
        return misuse("devices", "devices takes no arguments");
    if (!device_open(&dev, "cpu", 0, &err))
        return fault(&err);
    device_describe(&dev, text, sizeof(text));
    printf("cpu    %s\n", text);
    device_close(&dev);
    if (device_probe_cuda(text, sizeof(text)))
        printf("cuda   %s\n", text);
    else
        printf("cuda   not here: %s\n", text);
    return DONE;
}

static int show_version(int argc, char **argv)
{
    if (argc > 0)
        return misuse("version", "version takes no arguments");
    printf("gradpress %s (%s), %s\n", GRADPRESS_VERSION, GRADPRESS_COMMIT, GRADPRESS_BUILD);
    return DONE;
}

static int manage_data(int argc, char **argv)
{
    struct error err;
    bool wrong;

    if (data_command(argc, argv, stdout, &wrong, &err))
        return DONE;
    return wrong ? misuse("data", err.text) : fault(&err);
}

static const struct command commands[] = {
    {"train", "REGIME [flags]", "train as K workers, every epoch a row in the database", train,
     config_help},
    {"eval", "FILE [flags]", "loss and perplexity of the weights that train --save wrote", evaluate,
     config_help_eval},
    {"show", "REGIME [flags]", "every key, its value and who said it; steps, bytes and memory",
     show_effective, show_help},
    {"bench", "REGIME [flags]", "where the time of a step goes, beside what the machine can do",
     measure, bench_help},
    {"bytes", "MODEL [flags]", "what a step's messages would weigh, by every rule", weigh,
     weigh_help},
    {"compress", "SPEC IN [flags]", "what a method makes of gradients in a file", compress_file,
     compress_help},
    {"runs", "[flags]", "the runs in a database, the newest last", show_runs, runs_help},
    {"list", "TABLE", "models, compressors, quantisers, memories, optimizers, datasets or regimes",
     list, list_help},
    {"data", "fetch|check NAME", "data sets: download one, or tell what is wrong with a copy",
     manage_data, data_help},
    {"devices", "", "what --device can be here", show_devices, NULL},
    {"version", "", "version, commit, compiler and libraries", show_version, NULL},
};

static void help(FILE *out)
{
    fputs("gradpress trains a real model as if K workers trained it together, compresses what\n"
          "they send each other, counts every byte, and writes every epoch to SQLite.\n\n",
          out);
    for (size_t i = 0; i < ARRAY_LENGTH(commands); i++)
        fprintf(out, "  gradpress %-8s %-15s %s\n", commands[i].name, commands[i].arguments,
                commands[i].about);
    fputs("\n'gradpress COMMAND --help' tells more.  First: gradpress train lstm-kjv\n", out);
}

static bool asks_for_help(const char *word)
{
    return strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0;
}

static int run_command(const struct command *command, int argc, char **argv)
{
    for (int i = 0; i < argc; i++) {
        if (!asks_for_help(argv[i]))
            continue;
        printf("Usage: gradpress %s %s\n\n%s.\n", command->name, command->arguments,
               command->about);
        if (command->help != NULL) {
            putchar('\n');
            command->help(stdout);
        }
        return DONE;
    }
    return command->run(argc, argv);
}

/* Threads of OpenMP spin while they wait, for long: on a machine that does anything else besides, a
 * run is then ten times slower.  A short while catches the next loop as well.  libgomp reads its
 * environment before main(), so the program begins once more. */
static void spin_shortly(char **argv)
{
    if (getenv("OMP_WAIT_POLICY") != NULL || getenv("GOMP_SPINCOUNT") != NULL)
        return;
    if (setenv("GOMP_SPINCOUNT", "1000", 1) == 0)
        execv("/proc/self/exe", argv);
}

/* Else its number would be that of the next file that is opened, and what is meant for the stream
 * would go there. */
static void occupy_streams(void)
{
    for (int stream = STDIN_FILENO; stream <= STDERR_FILENO; stream++)
        if (fcntl(stream, F_GETFD) < 0)
            open("/dev/null", stream == STDIN_FILENO ? O_WRONLY : O_RDONLY);
}

static int run_any(int argc, char **argv)
{
    const char *names[ARRAY_LENGTH(commands)];
    struct error err;

    if (argc < 2) {
        help(stderr);
        return MISUSE;
    }
    if (asks_for_help(argv[1]) || strcmp(argv[1], "help") == 0) {
        help(stdout);
        return DONE;
    }
    for (size_t i = 0; i < ARRAY_LENGTH(commands); i++) {
        names[i] = commands[i].name;
        if (strcmp(argv[1], names[i]) == 0 ||
            (strcmp(argv[1], "--version") == 0 && commands[i].run == show_version))
            return run_command(&commands[i], argc - 2, argv + 2);
    }
    fail(&err, "no such command '%s'%s", argv[1],
         nearest_hint(argv[1], names, ARRAY_LENGTH(names)).text);
    return misuse("", err.text);
}

/* A result that could not be written is none. */
static int close_results(int code)
{
    bool lost = ferror(stdout) != 0;

    errno = 0;
    if (fclose(stdout) == 0 && !lost)
        return code;
    fprintf(stderr, "gradpress: stdout: the result cannot be written%s%s\n", errno != 0 ? ": " : "",
            errno != 0 ? strerror(errno) : "");
    return code == DONE ? FAULT : code;
}

int main(int argc, char **argv)
{
    occupy_streams();
    spin_shortly(argv);
    signal(SIGXFSZ, SIG_IGN); /* a file that may not grow is a fault like a full disk */
    return close_results(run_any(argc, argv));
}

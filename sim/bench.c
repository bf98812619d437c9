#include "sim/kernel.h"
#include "sim/rng.h"

struct bench_read {
    const float *x;
    uint32_t *out;
};

/* A pass: the least that anything that reads a slab can cost. */
TILE_KERNEL(bench_read)
{
    uint32_t bits[TILE_SLOTS];

    EACH_SLOT (s)
        bits[s] = float_bits(a->x[tile_at(t, s)]);
    tile_put(t, a->out, tile_count(bits));
}

struct bench_copy {
    const float *from;
    float *to;
};

KERNEL(bench_copy)
{
    a->to[i] = a->from[i];
}

struct bench_gradient {
    float *grad;   /* [workers][stride] */
    float *square; /* the same, of micro-batches; NULL: nobody asks */
};

/* Made up: an eighth is zero, few are large, and a sixteenth differs little between micro-batches. */
TILE_KERNEL(bench_gradient)
{
    uint32_t word[TILE_SLOTS];

    tile_random(t, 1, RNG_TEST, t->worker, 0, word);
    EACH_SLOT (s) {
        float u = rng_uniform(word[s]);
        float size = u / sqrtf(1.0001f - u);
        float grad = word[s] & 8 ? -size : size;

        grad = tile_live(t, s) && word[s] & 7 ? grad : 0;
        a->grad[tile_at(t, s)] = grad;
        if (a->square)
            a->square[tile_at(t, s)] = grad * grad * (word[s] & 0xf0 ? 8 : 0.5f);
    }
}

#ifndef __CUDACC__

#include "sim/bench.h"

#include "compressors/compressor.h"
#include "sim/train.h"
#include "sim/tree.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Steps before the clock runs: captures, and caches. */
#define WARM_UP 2

/* Times that each of the machine's measures is taken; the median counts. */
#define TRIES 7

/* Rows, columns and depth of the product that the machine's rate is measured with. */
#define GEMM_SIDE 1536

struct measured {
    double *step;           /* [steps] seconds */
    struct stopwatch watch; /* a step's mean */
    double pass;            /* seconds of one read of all workers' gradients */
    double copy;            /* bytes a second, read and written */
    double gemm;            /* floating-point operations a second */
};

static const char *const stage_names[STAGES] = {
    [STAGE_OTHER] = "other",           [STAGE_FORWARD] = "forward", [STAGE_BACKWARD] = "backward",
    [STAGE_COMPENSATE] = "compensate", [STAGE_ENCODE] = "encode",   [STAGE_EXCHANGE] = "exchange",
    [STAGE_UPDATE] = "update",         [STAGE_APPLY] = "apply",
};

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static double median(const double *x, size_t n)
{
    double *sorted = allocate(n, sizeof(*sorted));
    double middle;

    memcpy(sorted, x, n * sizeof(*x));
    qsort(sorted, n, sizeof(*sorted), compare_doubles);
    middle = n % 2 == 1 ? sorted[n / 2] : (sorted[n / 2 - 1] + sorted[n / 2]) / 2;
    free(sorted);
    return middle;
}

static bool prepare(struct train *t, struct bench_options options, struct error *err)
{
    const struct config *c = t->config;
    uint64_t steps = WARM_UP + 2 * (uint64_t)options.steps;

    if (!device_open(&t->dev, c->device, c->threads, err))
        return false;
    train_source(t);
    t->data.set->kind->imitate(&t->data, options.vocabulary, steps, false);
    if (!train_plan(t, err))
        return false;
    t->data.set->kind->imitate(&t->data, options.vocabulary, steps, true);
    train_prepare(t);
    return true;
}

/* The last epoch's, when any warm-up is over. */
static double time_step(struct train *t, uint64_t step)
{
    double began = seconds_now();

    train_step(t, t->config->epochs - 1, step);
    device_wait(&t->dev);
    return seconds_now() - began;
}

static void measure_steps(struct train *t, uint32_t steps, struct measured *m)
{
    uint64_t step = 0;

    for (uint32_t i = 0; i < WARM_UP; i++)
        time_step(t, step++);
    for (uint32_t i = 0; i < steps; i++)
        m->step[i] = time_step(t, step++);
    t->dev.watch = &m->watch;
    m->watch.since = seconds_now();
    for (uint32_t i = 0; i < steps; i++)
        time_step(t, step++);
    t->dev.watch = NULL;
    for (int s = 0; s < STAGES; s++) {
        m->watch.seconds[s] /= steps;
        m->watch.flop[s] /= steps;
    }
}

/* Over the gradients of one group, as large as a step meets them. */
static double time_pass(struct train *t)
{
    struct workers *w = &t->workers;
    double read[TRIES];
    uint32_t *out;

    device_scratch_reset(w->dev);
    out = device_scratch(w->dev, w->group * w->all.tiles.up_stride * sizeof(*out));
    for (int i = 0; i < TRIES; i++) {
        double began = seconds_now();

        LAUNCH_TILES(w->dev, bench_read, &w->all.tiles, w->group, .x = w->lane[0].slab, .out = out);
        device_wait(w->dev);
        read[i] = seconds_now() - began;
    }
    return median(read, TRIES) * w->count / w->group;
}

static double time_copy(struct train *t)
{
    struct workers *w = &t->workers;
    size_t floats = w->group * w->all.length;
    size_t bytes = floats * sizeof(float);
    float *copy = device_alloc(w->dev, bytes);
    double copied[TRIES];

    for (int i = 0; i < TRIES; i++) {
        double began = seconds_now();

        LAUNCH(w->dev, bench_copy, floats, .from = w->lane[0].slab, .to = copy);
        device_wait(w->dev);
        copied[i] = seconds_now() - began;
    }
    device_free(w->dev, copy, bytes);
    return 2 * (double)bytes / median(copied, TRIES);
}

static void measure_gemm(struct train *t, struct measured *m)
{
    size_t n = GEMM_SIDE;
    size_t bytes = n * n * sizeof(float);
    float *x = device_alloc(&t->dev, bytes);
    float *y = device_alloc(&t->dev, bytes);
    double seconds[TRIES];

    for (int i = 0; i < TRIES; i++) {
        double began = seconds_now();

        GEMM(&t->dev, .m = n, .n = n, .k = n, .a = x, .b = x, .c = y, .lda = n, .ldb = n, .ldc = n,
             .batch = 1);
        device_wait(&t->dev);
        seconds[i] = seconds_now() - began;
    }
    m->gemm = 2.0 * (double)(n * n * n) / median(seconds, TRIES);
    device_free(&t->dev, x, bytes);
    device_free(&t->dev, y, bytes);
}

/* What clipping, memory and compressor cost, in passes. */
static double passes(const struct measured *m)
{
    return (m->watch.seconds[STAGE_COMPENSATE] + m->watch.seconds[STAGE_ENCODE] +
            m->watch.seconds[STAGE_UPDATE]) /
           m->pass;
}

static double slab_bytes(const struct train *t)
{
    return (double)t->workers.count * (double)t->workers.all.length * sizeof(float);
}

/* As a table. */

static bool is_product(enum stage s)
{
    return s == STAGE_FORWARD || s == STAGE_BACKWARD;
}

static void print_stage(FILE *out, const struct measured *m, enum stage s, double total)
{
    double seconds = m->watch.seconds[s];

    fprintf(out, "%-12s %10.4f %6.1f %%", stage_names[s], seconds, 100 * seconds / total);
    if (is_product(s))
        fprintf(out, "   %.0f GFLOP/s, %.0f %% of the machine's", m->watch.flop[s] / seconds * 1e-9,
                100 * m->watch.flop[s] / seconds / m->gemm);
    else if (s != STAGE_APPLY)
        fprintf(out, "   %.2f passes", seconds / m->pass);
    fputc('\n', out);
}

static void print_table(FILE *out, struct train *t, const struct measured *m, uint32_t steps)
{
    const struct config *c = t->config;
    double step = median(m->step, steps);
    const struct source_kind *kind = t->data.set->kind;
    double samples = (double)workers_rows(c);
    double total = 0;
    char device[256];

    device_describe(&t->dev, device, sizeof(device));
    fprintf(out, "%s  %s  memory %s\n", c->regime, c->method, c->memory.name);
    fprintf(out, "%u workers x %u %s x %u, groups of %u; %zu parameters; %s\n\n", c->workers,
            c->batch, kind->images ? kind->samples : "columns", c->data.bptt, t->workers.group,
            t->workers.all.elements, device);
    for (int s = STAGE_FORWARD; s < STAGES; s++)
        total += m->watch.seconds[s];
    fprintf(out, "%-12s %10s\n", "", "s a step");
    for (int s = STAGE_FORWARD; s < STAGES; s++)
        print_stage(out, m, s, total);
    fprintf(out, "%-12s %10.4f            %.2f steps/s, %.0f %s/s, the median of %u\n\n", "step",
            step, 1 / step, samples / step, kind->samples, steps);
    fprintf(out,
            "A pass, one read of the %u workers' gradients (%.0f MB), takes %.4f s: %.1f GB/s.\n"
            "Clipping, memory and compressor take %.1f passes: compensate, encode, update.\n"
            "The machine copies %.1f GB/s (read and written), and multiplies at %.0f GFLOP/s.\n",
            c->workers, slab_bytes(t) * 1e-6, m->pass, slab_bytes(t) / m->pass * 1e-9, passes(m),
            m->copy * 1e-9, m->gemm * 1e-9);
}

/* As JSON. */

static void print_json(FILE *out, struct train *t, const struct measured *m, uint32_t steps)
{
    const struct config *c = t->config;
    struct tree *object = tree_new(TREE_OBJECT, NULL);
    struct tree *list = tree_new(TREE_LIST, NULL);
    const struct source_kind *kind = t->data.set->kind;
    char device[256], per_step[64];
    char *text;

    device_describe(&t->dev, device, sizeof(device));
    tree_put_text(object, "regime", c->regime);
    tree_put_text(object, "method", c->method);
    tree_put_text(object, "memory", c->memory.name);
    tree_put_text(object, "device", device);
    tree_put_number(object, "workers", c->workers);
    tree_put_number(object, "batch", c->batch);
    tree_put_number(object, "bptt", c->data.bptt);
    tree_put_number(object, "group", t->workers.group);
    tree_put_number(object, kind->classes, kind->contents(&t->data).classes);
    tree_put_number(object, "parameters", (double)t->workers.all.elements);
    snprintf(per_step, sizeof(per_step), "%s_per_step", kind->samples);
    tree_put_number(object, per_step, (double)workers_rows(c));
    for (uint32_t i = 0; i < steps; i++)
        tree_add(list, tree_number(m->step[i], NULL));
    tree_put(object, "seconds_per_step", list);
    tree_put_number(object, "seconds_per_step_median", median(m->step, steps));
    for (int s = STAGE_FORWARD; s < STAGES; s++) {
        char path[64];

        snprintf(path, sizeof(path), "stages.%s.seconds", stage_names[s]);
        tree_put_number(object, path, m->watch.seconds[s]);
        snprintf(path, sizeof(path), "stages.%s.flop", stage_names[s]);
        tree_put_number(object, path, m->watch.flop[s]);
    }
    tree_put_number(object, "pass.seconds", m->pass);
    tree_put_number(object, "pass.bytes", slab_bytes(t));
    tree_put_number(object, "passes", passes(m));
    tree_put_number(object, "machine.copy_bytes_per_second", m->copy);
    tree_put_number(object, "machine.flop_per_second", m->gemm);
    text = tree_print(object);
    fprintf(out, "%s\n", text);
    free(text);
    tree_free(object);
}

bool bench(const struct config *c, struct bench_options options, FILE *out, struct error *err)
{
    struct train *t = allocate(1, sizeof(*t));
    struct measured m = {.step = allocate(options.steps, sizeof(*m.step))};
    bool ok;

    t->config = c;
    ok = prepare(t, options, err);
    if (ok) {
        measure_steps(t, options.steps, &m);
        m.pass = time_pass(t);
        m.copy = time_copy(t);
        measure_gemm(t, &m);
        if (c->json)
            print_json(out, t, &m, options.steps);
        else
            print_table(out, t, &m, options.steps);
    }
    train_destroy(t);
    free(t);
    free(m.step);
    return ok;
}

/* Every method beside the others: "gradpress bench compressors". */

/* The stages that are a method's, in the order of the table. */
static const enum stage method_stages[] = {STAGE_COMPENSATE, STAGE_ENCODE, STAGE_EXCHANGE,
                                           STAGE_UPDATE};

/* What counts unless said otherwise.  No network runs, so its batch is as small as methods let it. */
static const char *const method_flags[] = {
    "lstm-ptb", "--workers", "16", "--batch", "2", "--bptt", "1", "--group", "4", "--streams", "1"};

/* Besides every compressor and every quantiser alone: ways that are others, and some of both. */
static const char *const more_methods[] = {
    "dgc:sampled=1", "qsgd:norm2=1,bucket=0", "terngrad:shared=1", "topk+efsignsgd",   "topk+fp16",
    "topk+qsgd",     "topk+terngrad",         "adacomp+efsignsgd", "randomk+terngrad",
};

struct method_row {
    double pass;            /* seconds of a read of all workers' gradients, beside ... */
    double seconds[STAGES]; /* ... the median of a step's */
};

/* The same gradients in every group and step. */
static void method_step(struct train *t, uint64_t step)
{
    struct workers *w = &t->workers;

    train_post(t, t->config->epochs - 1, step);
    for (uint32_t first = 0; first < w->count; first += w->group) {
        uint32_t left = w->count - first;

        workers_enter(w, &w->lane[0], first, left < w->group ? left : w->group);
        train_send(t, &w->lane[0]);
    }
    train_deliver(t);
    device_stage(w->dev, STAGE_OTHER);
}

static struct method_row measure_method(struct train *t, uint32_t steps)
{
    struct workers *w = &t->workers;
    double *seconds = allocate((size_t)STAGES * steps, sizeof(*seconds));
    struct stopwatch watch;
    struct method_row row;
    uint64_t step = 0;

    LAUNCH_TILES(w->dev, bench_gradient, &w->all.tiles, w->group, .grad = w->lane[0].slab,
                 .square = w->lane[0].square);
    while (step < WARM_UP)
        method_step(t, step++);
    t->dev.watch = &watch;
    for (uint32_t i = 0; i < steps; i++) {
        watch = (struct stopwatch){.since = seconds_now()};
        method_step(t, step++);
        for (int s = 0; s < STAGES; s++)
            seconds[s * steps + i] = watch.seconds[s];
    }
    t->dev.watch = NULL;
    row.pass = time_pass(t);
    for (int s = 0; s < STAGES; s++)
        row.seconds[s] = median(seconds + (size_t)s * steps, steps);
    free(seconds);
    return row;
}

static double method_seconds(const struct method_row *row)
{
    double seconds = 0;

    for (size_t i = 0; i < ARRAY_LENGTH(method_stages); i++)
        seconds += row->seconds[method_stages[i]];
    return seconds;
}

static void print_method_head(FILE *out, const struct train *t)
{
    char device[256];

    device_describe(t->workers.dev, device, sizeof(device));
    fprintf(out, "%u workers, groups of %u; %zu parameters; %s\n\n", t->config->workers,
            t->workers.group, t->workers.all.elements, device);
    fprintf(out, "%-24s %-9s", "passes", "memory");
    for (size_t i = 0; i < ARRAY_LENGTH(method_stages); i++)
        fprintf(out, " %10s", stage_names[method_stages[i]]);
    fprintf(out, " %8s %7s\n", "sum", "GB/s");
}

static void print_method(FILE *out, const struct train *t, const struct method_row *row)
{
    double seconds = method_seconds(row);

    fprintf(out, "%-24s %-9s", t->config->method, t->config->memory.name);
    for (size_t i = 0; i < ARRAY_LENGTH(method_stages); i++)
        fprintf(out, " %10.2f", row->seconds[method_stages[i]] / row->pass);
    fprintf(out, " %8.2f %7.2f\n", seconds / row->pass, slab_bytes(t) / seconds * 1e-9);
    fflush(out);
}

static struct tree *method_json(const struct train *t, const struct method_row *row)
{
    struct tree *object = tree_new(TREE_OBJECT, NULL);
    double seconds = method_seconds(row);

    tree_put_text(object, "method", t->config->method);
    tree_put_text(object, "memory", t->config->memory.name);
    tree_put_number(object, "group", t->workers.group);
    tree_put_number(object, "pass_seconds", row->pass);
    for (size_t i = 0; i < ARRAY_LENGTH(method_stages); i++) {
        char path[64];

        snprintf(path, sizeof(path), "passes.%s", stage_names[method_stages[i]]);
        tree_put_number(object, path, row->seconds[method_stages[i]] / row->pass);
    }
    tree_put_number(object, "passes.sum", seconds / row->pass);
    tree_put_number(object, "bytes_per_second", slab_bytes(t) / seconds);
    return object;
}

/* What the rows of a table have in common. */
struct method_table {
    int argc;
    char **argv; /* of the command line */
    struct bench_options options;
    FILE *out;
    struct tree *json;
    struct tree *list; /* in it */
    bool as_json;
    uint32_t rows;
};

static bool parse_method(struct config *c, const struct method_table *table, const char *spec,
                         bool *misuse, struct error *err)
{
    size_t own = ARRAY_LENGTH(method_flags);
    size_t argc = own + (size_t)table->argc + 2;
    char **argv = allocate(argc, sizeof(*argv));
    bool ok;

    for (size_t i = 0; i < own; i++)
        argv[i] = format_text("%s", method_flags[i]);
    memcpy(argv + own, table->argv, (size_t)table->argc * sizeof(*argv));
    argv[argc - 2] = format_text("--compressor");
    argv[argc - 1] = format_text("%s", spec);
    ok = config_parse(c, (int)argc, argv, misuse, err);
    for (size_t i = 0; i < argc; i++)
        if (i < own || i >= argc - 2)
            free(argv[i]);
    free(argv);
    return ok;
}

static void add_row(struct method_table *table, const struct train *t, const struct method_row *row)
{
    table->as_json = t->config->json;
    if (!table->as_json && table->rows == 0)
        print_method_head(table->out, t);
    if (!table->as_json)
        print_method(table->out, t, row);
    if (table->as_json && table->rows == 0) {
        char device[256];

        device_describe(t->workers.dev, device, sizeof(device));
        tree_put_text(table->json, "device", device);
        tree_put_number(table->json, "workers", t->config->workers);
        tree_put_number(table->json, "parameters", (double)t->workers.all.elements);
    }
    if (table->as_json)
        tree_add(table->list, method_json(t, row));
    table->rows++;
}

static bool bench_method(struct method_table *table, const char *spec, bool *misuse,
                         struct error *err)
{
    struct config *c = allocate(1, sizeof(*c));
    struct train *t = allocate(1, sizeof(*t));
    bool ok = parse_method(c, table, spec, misuse, err);

    if (ok) {
        t->config = c;
        ok = prepare(t, table->options, err);
        if (ok) {
            struct method_row row = measure_method(t, table->options.steps);

            add_row(table, t, &row);
        }
        train_destroy(t);
    }
    config_free(c);
    free(c);
    free(t);
    return ok;
}

static bool bench_all(struct method_table *table, bool *misuse, struct error *err)
{
    for (const struct compressor *const *c = compressors; *c != NULL; c++)
        if (!bench_method(table, (*c)->name, misuse, err))
            return false;
    for (const struct quantiser *const *q = quantisers; *q != NULL; q++)
        if (!bench_method(table, (*q)->name, misuse, err))
            return false;
    for (size_t i = 0; i < ARRAY_LENGTH(more_methods); i++)
        if (!bench_method(table, more_methods[i], misuse, err))
            return false;
    return true;
}

bool bench_methods(int argc, char **argv, struct bench_options options, FILE *out, bool *misuse,
                   struct error *err)
{
    struct method_table table = {.argc = argc, .argv = argv, .options = options, .out = out};
    bool ok;

    table.json = tree_new(TREE_OBJECT, NULL);
    table.list = tree_new(TREE_LIST, NULL);
    if (options.method != NULL)
        ok = bench_method(&table, options.method, misuse, err);
    else
        ok = bench_all(&table, misuse, err);
    tree_put(table.json, "methods", table.list);
    if (ok && table.as_json) {
        char *text = tree_print(table.json);

        fprintf(out, "%s\n", text);
        free(text);
    }
    tree_free(table.json);
    return ok;
}

#endif

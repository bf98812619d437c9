#include "sim/kernel.h"

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

#ifndef __CUDACC__

#include "sim/bench.h"

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
static void measure_slab(struct train *t, struct measured *m)
{
    struct workers *w = &t->workers;
    struct lane *lane = &w->lane[0];
    size_t floats = w->group * w->all.length;
    size_t bytes = floats * sizeof(float);
    uint32_t *out;
    float *copy = device_alloc(w->dev, bytes);
    double read[TRIES], copied[TRIES];

    device_scratch_reset(w->dev);
    out = device_scratch(w->dev, w->group * w->all.tiles.up_stride * sizeof(*out));
    for (int i = 0; i < TRIES; i++) {
        double began = seconds_now();

        LAUNCH_TILES(w->dev, bench_read, &w->all.tiles, w->group, .x = lane->slab, .out = out);
        device_wait(w->dev);
        read[i] = seconds_now() - began;
        began = seconds_now();
        LAUNCH(w->dev, bench_copy, floats, .from = lane->slab, .to = copy);
        device_wait(w->dev);
        copied[i] = seconds_now() - began;
    }
    device_free(w->dev, copy, bytes);
    m->pass = median(read, TRIES) * w->count / w->group;
    m->copy = 2 * (double)bytes / median(copied, TRIES);
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
        measure_slab(t, &m);
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

#endif

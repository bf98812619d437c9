/*
 * device_cpu -- the device that is everywhere, and the oracle of the other one.
 *
 * GEMM and convolutions are oneDNN's where there is oneDNN, else plain loops.  Everything else is
 * written to be obviously right first; only the selection is written to be fast, and the tests
 * compare it with a sort.
 */
#include "sim/device.h"
#include "sim/device_cpu_convolve.h"
#include "sim/exactmath.h"
#include "sim/kernel.h"

#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#ifdef HAVE_ONEDNN
#include <oneapi/dnnl/dnnl.h>
#endif

/* Tensors up to so many elements are selected from by one thread, whole tensors side by side. */
#define SELECT_SMALL 32768

struct cpu {
    struct convolver *convolver;
    uint32_t *key; /* candidates of a selection */
    size_t keys;
    uint32_t *place; /* of a sort: [limit + 1] */
    size_t places;
    void *peeked;
    size_t peeked_room;
};

static bool cpu_open(struct device *dev, unsigned index, struct error *err)
{
    struct cpu *cpu = allocate(1, sizeof(*cpu));

    omp_set_num_threads((int)dev->threads);
    cpu->convolver = convolver_create();
    dev->state = cpu;
    return true;
}

static void cpu_close(struct device *dev)
{
    struct cpu *cpu = dev->state;

    convolver_destroy(cpu->convolver);
    free(cpu->key);
    free(cpu->place);
    free(cpu->peeked);
    free(cpu);
}

static void cpu_describe(struct device *dev, char *text, size_t room)
{
    char line[256];
    char model[128] = "CPU";
    FILE *info = fopen("/proc/cpuinfo", "r");

    while (info != NULL && fgets(line, sizeof(line), info) != NULL)
        if (sscanf(line, "model name : %127[^\n]", model) == 1)
            break;
    if (info != NULL)
        fclose(info);
#ifdef HAVE_ONEDNN
    snprintf(text, room, "%s, %u threads, oneDNN %d.%d.%d", model, dev->threads,
             dnnl_version()->major, dnnl_version()->minor, dnnl_version()->patch);
#else
    snprintf(text, room, "%s, %u threads, without oneDNN: slow", model, dev->threads);
#endif
}

static size_t read_size(const char *path)
{
    size_t bytes = 0;
    FILE *file = fopen(path, "r");

    if (file != NULL && fscanf(file, "%zu", &bytes) != 1)
        bytes = 0; /* "max" */
    if (file != NULL)
        fclose(file);
    return bytes;
}

/* What a container may still take; SIZE_MAX where there is no limit. */
static size_t container_free(void)
{
    size_t most = read_size("/sys/fs/cgroup/memory.max");
    size_t used = read_size("/sys/fs/cgroup/memory.current");

    return most == 0 ? SIZE_MAX : most > used ? most - used : 0;
}

/* What the process may still take (ulimit -v); SIZE_MAX where there is no limit. */
static size_t process_free(void)
{
    struct rlimit most;
    size_t used;

    if (getrlimit(RLIMIT_AS, &most) != 0 || most.rlim_cur == RLIM_INFINITY)
        return SIZE_MAX;
    used = read_size("/proc/self/statm") * (size_t)sysconf(_SC_PAGESIZE);
    return most.rlim_cur > used ? most.rlim_cur - used : 0;
}

static size_t cpu_memory_free(struct device *dev)
{
    char line[256];
    size_t kib = 0;
    size_t container = container_free(), process = process_free();
    size_t least = container < process ? container : process;
    FILE *info = fopen("/proc/meminfo", "r");

    while (info != NULL && fgets(line, sizeof(line), info) != NULL)
        if (sscanf(line, "MemAvailable: %zu kB", &kib) == 1)
            break;
    if (info != NULL)
        fclose(info);
    return kib > 0 && kib * 1024 < least ? kib * 1024 : least;
}

/* Large blocks lie on huge pages where the system has them: a slab is read end to end, and a
 * table of 4 KiB pages costs as much as the reading. */
static void *cpu_alloc(struct device *dev, size_t bytes)
{
    size_t huge = (size_t)2 << 20;
    void *memory;

    if (posix_memalign(&memory, bytes >= 2 * huge ? huge : 64, bytes) != 0)
        return NULL;
    if (bytes >= 2 * huge)
        madvise(memory, bytes, MADV_HUGEPAGE);
    memset(memory, 0, bytes);
    return memory;
}

static void cpu_free(struct device *dev, void *memory)
{
    free(memory);
}

static void cpu_copy(struct device *dev, void *to, const void *from, size_t bytes)
{
    memmove(to, from, bytes);
}

static void cpu_clear(struct device *dev, void *memory, size_t bytes)
{
    memset(memory, 0, bytes);
}

static void cpu_wait(struct device *dev)
{
}

static void cpu_run(struct device *dev, struct kernel *k, size_t n, const void *args)
{
    k->cpu(args, n);
}

static void cpu_run_rows(struct device *dev, struct row_kernel *k, size_t rows, size_t columns,
                         const void *args)
{
    k->cpu(args, rows, columns);
}

static void cpu_run_sums(struct device *dev, struct sum_kernel *k, size_t rows, size_t columns,
                         const void *args)
{
    k->cpu(args, rows, columns);
}

static void cpu_run_tiles(struct device *dev, struct tile_kernel *k, const struct tiles *l,
                          uint32_t workers, const void *args)
{
    k->cpu(args, l, workers);
}

#ifdef HAVE_ONEDNN
static void product(const struct gemm *g, const float *a, const float *b, float *c)
{
    dnnl_status_t status = dnnl_sgemm(g->transpose_a ? 'T' : 'N', 'N', (dnnl_dim_t)g->m,
                                      (dnnl_dim_t)g->n, (dnnl_dim_t)g->k, 1, a, (dnnl_dim_t)g->lda,
                                      b, (dnnl_dim_t)g->ldb, g->beta, c, (dnnl_dim_t)g->ldc);

    CHECK(status == dnnl_success);
}
#else
static void product(const struct gemm *g, const float *a, const float *b, float *c)
{
    size_t step = g->transpose_a ? g->lda : 1;

#pragma omp parallel for schedule(static) if (g->m * g->n * g->k >= KERNEL_PARALLEL_FROM)
    for (size_t i = 0; i < g->m; i++) {
        const float *row = g->transpose_a ? a + i : a + i * g->lda;
        float *out = c + i * g->ldc;

        if (g->beta == 0)
            memset(out, 0, g->n * sizeof(*out));
        for (size_t k = 0; k < g->k; k++)
            for (size_t j = 0; j < g->n; j++)
                out[j] += row[k * step] * b[k * g->ldb + j];
    }
}
#endif

static void cpu_gemm(struct device *dev, const struct gemm *g)
{
    for (size_t i = 0; i < g->batch; i++)
        product(g, g->a + i * g->stride_a, g->b + i * g->stride_b, g->c + i * g->stride_c);
}

static void cpu_transpose(struct device *dev, const float *in, size_t rows, size_t columns,
                          float *out)
{
    enum { BLOCK = 16 };

#pragma omp parallel for schedule(static) if (rows * columns >= KERNEL_PARALLEL_FROM)
    for (size_t j0 = 0; j0 < columns; j0 += BLOCK)
        for (size_t i0 = 0; i0 < rows; i0 += BLOCK)
            for (size_t j = j0; j < j0 + BLOCK && j < columns; j++)
                for (size_t i = i0; i < i0 + BLOCK && i < rows; i++)
                    out[j * rows + i] = in[i * columns + j];
}

static void softmax_row(const struct softmax_loss *s, size_t row)
{
    float *x = s->logits + row * s->classes;
    uint32_t target = s->target[row];
    float max = x[0];
    float sum = 0;
    float scale;

    s->loss[row] = 0;
    if (target == NO_TARGET) {
        if (s->gradient)
            memset(x, 0, s->classes * sizeof(*x));
        return;
    }
#pragma omp simd reduction(max : max)
    for (size_t j = 0; j < s->classes; j++)
        max = x[j] > max ? x[j] : max;
    s->loss[row] = max - x[target];
#pragma omp simd reduction(+ : sum)
    for (size_t j = 0; j < s->classes; j++) {
        x[j] = exact_exp(x[j] - max);
        sum += x[j];
    }
    s->loss[row] += logf(sum);
    if (!s->gradient)
        return;
    scale = s->scale / sum;
#pragma omp simd
    for (size_t j = 0; j < s->classes; j++)
        x[j] *= scale;
    x[target] -= s->scale;
}

static void cpu_softmax_loss(struct device *dev, const struct softmax_loss *s)
{
#pragma omp parallel for schedule(static) if (s->rows * s->classes >= KERNEL_PARALLEL_FROM)
    for (size_t row = 0; row < s->rows; row++)
        softmax_row(s, row);
}

static struct convolver *convolver_of(const struct device *dev)
{
    return ((const struct cpu *)dev->state)->convolver;
}

static void cpu_convolve(struct device *dev, const struct convolution *c)
{
    convolver_forward(convolver_of(dev), c);
}

static void cpu_convolve_data(struct device *dev, const struct convolution *c)
{
    convolver_data(convolver_of(dev), c);
}

static void cpu_convolve_weights(struct device *dev, const struct convolution *c)
{
    convolver_weights(convolver_of(dev), c);
}

/* The k-th largest of key[n], k from 1.  Hoare's quickselect with the median of three. */
static uint32_t kth_largest(uint32_t *key, size_t n, size_t k)
{
    size_t low = 0;
    size_t high = n - 1;
    size_t want = k - 1;

    while (low < high) {
        uint32_t x = key[low], y = key[low + (high - low) / 2], z = key[high];
        uint32_t pivot = x > y ? (y > z ? y : (x > z ? z : x)) : (x > z ? x : (y > z ? z : y));
        size_t i = low;
        size_t j = high;

        for (;;) {
            while (key[i] > pivot)
                i++;
            while (key[j] < pivot)
                j--;
            if (i <= j) {
                uint32_t swap = key[i];

                key[i++] = key[j];
                key[j] = swap;
                if (j == 0)
                    break;
                j--;
            }
            if (i > j)
                break;
        }
        if (want <= j)
            high = j;
        else if (want >= i)
            low = i;
        else
            break;
    }
    return key[want];
}

/* One tensor of one worker that a selection looks at. */
struct pick {
    const float *x;
    size_t n, keep;
    uint32_t *peak; /* of its tiles */
};

static struct pick pick_of(const struct selection *s, size_t pair)
{
    uint32_t worker = (uint32_t)(pair / s->tiles->tensors);
    uint32_t tensor = (uint32_t)(pair % s->tiles->tensors);
    uint32_t first = s->tiles->first[tensor];

    return (struct pick){
        .x = s->x + worker * s->tiles->stride + (size_t)first * TILE,
        .n = s->n[tensor],
        .keep = s->keep[tensor],
        .peak = s->peak + worker * s->tiles->up_stride + s->tiles->up[first],
    };
}

/* A size that a few more than keep of n exceed: a quantile of a sample, four deviations down.  About
 * 32 of the sample are enough for that. */
static uint32_t sample_bound(const struct pick *p)
{
    enum { LEAST = 4096, MOST = 65536, ABOVE = 32 };
    size_t share = p->n / p->keep * ABOVE < p->n / 100 ? p->n / p->keep * ABOVE : p->n / 100;
    size_t size = share < LEAST ? LEAST : share > MOST ? MOST : share;
    double expected = (double)p->keep / (double)p->n * (double)size;
    size_t rank = (size_t)(expected + 4 * sqrt(expected) + 4);
    uint32_t sample[MOST];
    uint32_t random = 12345;

    if (p->n <= LEAST || rank >= size)
        return 1;
    for (size_t i = 0; i < size; i++) {
        random = random * 1664525u + 1013904223u;
        sample[i] = float_size(p->x[((uint64_t)random * p->n) >> 32]);
    }
    random = kth_largest(sample, size, rank);
    return random > 0 ? random : 1;
}

/* Sizes from bound up of tiles from ... to - 1, gathered in out; the tiles' peaks.  Block after
 * block: only where the largest is high enough does it pay to look at each. */
static size_t gather(const struct pick *p, size_t from, size_t to, uint32_t bound, uint32_t *out)
{
    size_t count = 0;

    for (size_t tile = from; tile < to; tile++) {
        const float *x = p->x + tile * TILE;
        size_t live = p->n - tile * TILE < TILE ? p->n - tile * TILE : TILE;
        uint32_t peak = 0;

        for (size_t i = 0; i < live; i++)
            peak = float_size(x[i]) > peak ? float_size(x[i]) : peak;
        p->peak[tile] = peak;
        if (peak < bound)
            continue;
        for (size_t i = 0; i < live; i++) {
            out[count] = float_size(x[i]);
            count += float_size(x[i]) >= bound;
        }
    }
    return count;
}

/* The same by all threads: each gathers behind the place of its first element, where there is
 * room for all, and what they found is moved together. */
static size_t gather_parallel(const struct pick *p, uint32_t bound, uint32_t *out)
{
    enum { THREADS = 256 };
    size_t tiles = (p->n + TILE - 1) / TILE;
    size_t found[THREADS] = {0};
    size_t begin[THREADS] = {0};
    size_t count = 0;

#pragma omp parallel num_threads(omp_get_max_threads() < THREADS ? omp_get_max_threads() : THREADS)
    {
        size_t threads = (size_t)omp_get_num_threads();
        size_t id = (size_t)omp_get_thread_num();
        size_t from = tiles * id / threads;

        begin[id] = from * TILE;
        found[id] = gather(p, from, tiles * (id + 1) / threads, bound, out + begin[id]);
    }
    for (size_t id = 0; id < THREADS; id++) {
        memmove(out + count, out + begin[id], found[id] * sizeof(*out));
        count += found[id];
    }
    return count;
}

/* *threshold is at first the sample's bound. */
static void pick_threshold(const struct pick *p, bool parallel, uint32_t *key, uint32_t *threshold,
                           uint32_t *ties)
{
    size_t tiles = (p->n + TILE - 1) / TILE;
    uint32_t bound = *threshold;
    size_t count = parallel ? gather_parallel(p, bound, key) : gather(p, 0, tiles, bound, key);
    size_t above = 0;

    if (count < p->keep && bound > 1)
        count = parallel ? gather_parallel(p, 1, key) : gather(p, 0, tiles, 1, key);
    *threshold = count < p->keep ? 0 : kth_largest(key, count, p->keep);
    for (size_t i = 0; i < count; i++)
        above += key[i] > *threshold;
    *ties = (uint32_t)(p->keep - above);
}

static void cpu_select(struct device *dev, const struct selection *s)
{
    struct cpu *cpu = dev->state;
    size_t pairs = (size_t)s->workers * s->tiles->tensors;
    size_t room = (size_t)omp_get_max_threads() * (SELECT_SMALL + 1);

    for (size_t t = 0; t < s->tiles->tensors; t++)
        room = s->n[t] + TILE > room ? s->n[t] + TILE : room;
    if (cpu->keys < room) {
        free(cpu->key);
        cpu->key = allocate(room, sizeof(*cpu->key));
        cpu->keys = room;
    }
#pragma omp parallel for schedule(dynamic)
    for (size_t pair = 0; pair < pairs; pair++) {
        struct pick p = pick_of(s, pair);
        uint32_t *key = cpu->key + (size_t)omp_get_thread_num() * (SELECT_SMALL + 1);

        s->threshold[pair] = sample_bound(&p);
        if (p.n <= SELECT_SMALL)
            pick_threshold(&p, false, key, &s->threshold[pair], &s->ties[pair]);
    }
    for (size_t pair = 0; pair < pairs; pair++) {
        struct pick p = pick_of(s, pair);

        if (p.n > SELECT_SMALL)
            pick_threshold(&p, true, cpu->key, &s->threshold[pair], &s->ties[pair]);
    }
}

static void cpu_scan(struct device *dev, const uint32_t *in, size_t n, uint32_t *out)
{
    uint32_t sum = 0;

    for (size_t i = 0; i < n; i++) {
        uint32_t value = in[i];

        out[i] = sum;
        sum += value;
    }
}

/* Counting: stable, and the keys are few. */
static void sort_row(const struct sort *s, size_t row, uint32_t *place)
{
    const uint32_t *key = s->key + row * s->n;

    memset(place, 0, ((size_t)s->limit + 1) * sizeof(*place));
    for (size_t i = 0; i < s->n; i++)
        place[key[i] + 1]++;
    for (uint32_t k = 0; k < s->limit; k++)
        place[k + 1] += place[k];
    for (size_t i = 0; i < s->n; i++) {
        size_t to = row * s->n + place[key[i]]++;

        s->sorted[to] = key[i];
        s->place[to] = (uint32_t)i;
    }
}

static void cpu_sort(struct device *dev, const struct sort *s)
{
    struct cpu *cpu = dev->state;

    if (cpu->places <= s->limit) {
        free(cpu->place);
        cpu->places = (size_t)s->limit + 1;
        cpu->place = allocate(cpu->places, sizeof(*cpu->place));
    }
    for (size_t row = 0; row < s->rows; row++)
        sort_row(s, row, cpu->place);
}

static void cpu_peek(struct device *dev, const void *from, size_t bytes)
{
    struct cpu *cpu = dev->state;

    if (cpu->peeked_room < bytes) {
        free(cpu->peeked);
        cpu->peeked = allocate(bytes, 1);
        cpu->peeked_room = bytes;
    }
    memcpy(cpu->peeked, from, bytes);
}

static bool cpu_peeked(struct device *dev, void *to, size_t bytes)
{
    memcpy(to, ((struct cpu *)dev->state)->peeked, bytes);
    return true;
}

const struct device_ops cpu_device = {
    .name = "cpu",
    .chunk_bytes = (size_t)8 << 20,
    .stacked = 1,
    .open = cpu_open,
    .close = cpu_close,
    .describe = cpu_describe,
    .memory_free = cpu_memory_free,
    .alloc = cpu_alloc,
    .free = cpu_free,
    .upload = cpu_copy,
    .download = cpu_copy,
    .copy = cpu_copy,
    .clear = cpu_clear,
    .wait = cpu_wait,
    .run = cpu_run,
    .run_rows = cpu_run_rows,
    .run_sums = cpu_run_sums,
    .run_tiles = cpu_run_tiles,
    .gemm = cpu_gemm,
    .transpose = cpu_transpose,
    .softmax_loss = cpu_softmax_loss,
    .convolve = cpu_convolve,
    .convolve_data = cpu_convolve_data,
    .convolve_weights = cpu_convolve_weights,
    .select = cpu_select,
    .scan = cpu_scan,
    .sort = cpu_sort,
    .post = cpu_copy,
    .peek = cpu_peek,
    .peeked = cpu_peeked,
};

/*
 * kernel.h -- one kernel body, two devices, in four forms.
 *
 * KERNEL is a map: a struct of arguments, a, and a statement for every element i.
 *
 *     struct scale { const float *in; float *out; const struct step *step; };
 *     KERNEL(scale) { a->out[i] = a->step->lr * a->in[i]; }
 *
 *     LAUNCH(dev, scale, n, .in = x, .out = y, .step = step);
 *
 * ROW_KERNEL is the same for every row and column of a matrix; neighbours in a row are neighbours
 * in memory, so the CPU vectorises along the row and no body divides an index.
 *
 *     struct add_bias { const float *bias; float *out; size_t columns; };
 *     ROW_KERNEL(add_bias) { a->out[row * a->columns + column] += a->bias[column]; }
 *
 *     LAUNCH_ROWS(dev, add_bias, rows, columns, .bias = b, .out = y, .columns = columns);
 *
 * SUM_KERNEL is for sums over many, side by side: a statement for so many neighbouring columns of a
 * row, `count` from `column` on, 16 at a time on the CPU (or what is left of a row) and one on a
 * GPU.  What is summed lives in arrays of SUM_SLOTS, and EACH_SUM(s) visits their columns:
 *
 *     struct column_sums { const float *x; float *sum; size_t n, columns; };
 *     SUM_KERNEL(column_sums)
 *     {
 *         float sum[SUM_SLOTS] = {0};
 *
 *         for (size_t i = 0; i < a->n; i++)
 *             EACH_SUM (s)
 *                 sum[s] += a->x[(row * a->n + i) * a->columns + column + s];
 *         EACH_SUM (s)
 *             a->sum[row * a->columns + column + s] = sum[s];
 *     }
 *
 *     LAUNCH_SUMS(dev, column_sums, rows, columns, .x = x, .sum = y, .n = n, .columns = columns);
 *
 * TILE_KERNEL is a statement for every tile, t, of 256 elements of one tensor of one worker.
 * Values of a tile live in arrays of TILE_SLOTS; EACH_SLOT(s) visits them, and tile_at(t, s) is
 * the place in the slab of slot s:
 *
 *     struct square { const float *grad; double *sum; };
 *     TILE_KERNEL(square)
 *     {
 *         double v[TILE_SLOTS];
 *
 *         EACH_SLOT(s)
 *             v[s] = (double)a->grad[tile_at(t, s)] * a->grad[tile_at(t, s)];
 *         tile_put(t, a->sum, tile_sum(v));
 *     }
 *
 *     LAUNCH_TILES(dev, square, &layout->tiles, workers, .grad = slab, .sum = partial);
 *
 * On the CPU a slot is an element, and a thread does a tile after another; on a GPU a warp does a
 * tile, 8 slots a lane.  tile_sum() adds in the same order on both: lane l of 32 adds elements l,
 * l + 32, ..., l + 224, then halves of 16, 8, 4, 2, 1 lanes are added.  So the last bit depends
 * neither on threads nor on the device.
 *
 * A file of kernels is compiled twice: by the C compiler, where a kernel is a loop over the CPU's
 * threads, and by nvcc, where it is a __global__ function.  Bodies keep to the common subset of
 * C11 and CUDA C++ and, but for the layers, to exact arithmetic: + - * /, sqrt, comparisons,
 * floor, integers, float_bits() and what exactmath.h has.  The host part of the file stands under
 * #ifndef __CUDACC__.  Arguments hold addresses and shapes; whatever changes from step to step
 * lies in struct step on the device, so that a step can be captured once and replayed.
 */
#ifndef SIM_KERNEL_H
#define SIM_KERNEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TILE       256
#define TILE_LANES 32

/* How tensors lie in an arena of tiles, as kernels see it: every tensor starts on a tile. */
struct tiles {
    uint32_t count; /* tiles of one worker */
    uint32_t tensors;
    size_t stride;          /* floats from one worker's slab to the next */
    size_t up_stride;       /* results from one worker's tiles to the next's */
    const uint32_t *tensor; /* [count] whose the tile is */
    const uint32_t *live;   /* [count] elements before the padding, 0 to TILE */
    const uint32_t *up;     /* [count] where the tile's result stands among its worker's */
    const uint32_t *first;  /* [tensors] the tensor's first tile */
};

struct tile {
    size_t at;     /* its first element in the slab [workers][stride] */
    size_t place;  /* the same in its worker's part, [stride] */
    size_t result; /* its place among the results [workers][up_stride] */
    size_t begin;  /* its first element in its tensor */
    size_t scalar; /* its place among [workers][tensors] */
    uint32_t worker, tensor, live;
#ifdef __CUDACC__
    uint32_t lane;
#endif
};

/* What a launch hands to a device.  The CUDA module exports <name>_cuda; the program looks it up
 * by that name at the first launch and keeps it here. */
struct kernel {
    const char *name;
    size_t args_bytes;
    void (*cpu)(const void *args, size_t n);
    void *cuda;
};

struct row_kernel {
    const char *name;
    size_t args_bytes;
    void (*cpu)(const void *args, size_t rows, size_t columns);
    void *cuda;
};

struct sum_kernel {
    const char *name;
    size_t args_bytes;
    void (*cpu)(const void *args, size_t rows, size_t columns);
    void *cuda;
};

struct tile_kernel {
    const char *name;
    size_t args_bytes;
    void (*cpu)(const void *args, const struct tiles *l, uint32_t workers);
    void *cuda;
};

/* The formatter would join what the preprocessor must keep apart. */
/* clang-format off */
#ifdef __CUDACC__

#define KERNEL_FN static __device__ __forceinline__
#define KERNEL_BLOCK 256
#define TILE_SLOTS (TILE / TILE_LANES)
#define EACH_SLOT(s) _Pragma("unroll") for (uint32_t s = 0; s < TILE_SLOTS; s++)
#define KERNEL_UNROLL _Pragma("unroll")

KERNEL_FN uint32_t tile_element(const struct tile *t, uint32_t s)
{
    return s * TILE_LANES + t->lane;
}

KERNEL_FN double tile_sum(const double v[TILE_SLOTS])
{
    double sum = v[0];

    _Pragma("unroll") for (uint32_t s = 1; s < TILE_SLOTS; s++)
        sum += v[s];
    _Pragma("unroll") for (uint32_t w = TILE_LANES / 2; w > 0; w /= 2)
        sum += __shfl_down_sync(0xffffffffu, sum, w);
    return __shfl_sync(0xffffffffu, sum, 0);
}

KERNEL_FN uint32_t tile_count(const uint32_t v[TILE_SLOTS])
{
    uint32_t count = 0;

    _Pragma("unroll") for (uint32_t s = 0; s < TILE_SLOTS; s++)
        count += __popc(__ballot_sync(0xffffffffu, v[s]));
    return count;
}

/* Their sum, of whole numbers: tile_count() is for flags. */
KERNEL_FN uint32_t tile_total(const uint32_t v[TILE_SLOTS])
{
    uint32_t total = 0;

    _Pragma("unroll") for (uint32_t s = 0; s < TILE_SLOTS; s++)
        total += v[s];
    return __reduce_add_sync(0xffffffffu, total);
}

/* rank[s]: how many of v stand before slot s, in the order of elements. */
KERNEL_FN void tile_rank(const struct tile *t, const uint32_t v[TILE_SLOTS], uint32_t rank[TILE_SLOTS])
{
    uint32_t before = 0;

    _Pragma("unroll") for (uint32_t s = 0; s < TILE_SLOTS; s++) {
        uint32_t row = __ballot_sync(0xffffffffu, v[s]);

        rank[s] = before + __popc(row & ((1u << t->lane) - 1));
        before += __popc(row);
    }
}

KERNEL_FN uint32_t tile_max(const uint32_t v[TILE_SLOTS])
{
    uint32_t max = v[0];

    _Pragma("unroll") for (uint32_t s = 1; s < TILE_SLOTS; s++)
        max = v[s] > max ? v[s] : max;
    _Pragma("unroll") for (uint32_t w = TILE_LANES / 2; w > 0; w /= 2) {
        uint32_t other = __shfl_down_sync(0xffffffffu, max, w);

        max = other > max ? other : max;
    }
    return __shfl_sync(0xffffffffu, max, 0);
}

KERNEL_FN bool tile_leads(const struct tile *t)
{
    return t->lane == 0;
}

/* Adds to a count that several elements share; of integers, so that the order is no matter. */
KERNEL_FN void count_add(uint64_t *count, uint64_t value)
{
    atomicAdd((unsigned long long *)count, (unsigned long long)value);
}

/* Raises a maximum that several tiles share; of integers, for the same reason. */
KERNEL_FN void max_raise(uint32_t *max, uint32_t value)
{
    if (*(volatile uint32_t *)max < value)
        atomicMax(max, value);
}

/* How many bits x has without the zeros before its first one; 0 of 0. */
KERNEL_FN uint32_t bit_width(uint32_t x)
{
    return 32 - (uint32_t)__clz((int)x);
}

KERNEL_FN uint32_t float_bits(float x)
{
    return __float_as_uint(x);
}

KERNEL_FN float bits_float(uint32_t x)
{
    return __uint_as_float(x);
}

#define KERNEL(name)                                                                               \
    KERNEL_FN void name##_at(const struct name *a, size_t i);                                      \
    static __global__ void name##_grid(const struct name a, size_t n)                              \
    {                                                                                              \
        size_t i = blockIdx.x * (size_t)KERNEL_BLOCK + threadIdx.x;                                \
                                                                                                   \
        for (; i < n; i += (size_t)gridDim.x * KERNEL_BLOCK)                                       \
            name##_at(&a, i);                                                                      \
    }                                                                                              \
    extern "C" void name##_cuda(const void *args, size_t n, unsigned blocks, cudaStream_t stream)  \
    {                                                                                              \
        name##_grid<<<blocks, KERNEL_BLOCK, 0, stream>>>(*(const struct name *)args, n);           \
    }                                                                                              \
    KERNEL_FN void name##_at(const struct name *a, size_t i)

#define ROW_KERNEL(name)                                                                           \
    KERNEL_FN void name##_at(const struct name *a, size_t row, size_t column);                     \
    static __global__ void name##_grid(const struct name a, size_t rows, size_t columns)           \
    {                                                                                              \
        size_t column = blockIdx.x * (size_t)KERNEL_BLOCK + threadIdx.x;                           \
                                                                                                   \
        if (column < columns)                                                                      \
            for (size_t row = blockIdx.y; row < rows; row += gridDim.y)                            \
                name##_at(&a, row, column);                                                        \
    }                                                                                              \
    extern "C" void name##_cuda(const void *args, size_t rows, size_t columns, unsigned blocks,    \
                                cudaStream_t stream)                                               \
    {                                                                                              \
        name##_grid<<<dim3((unsigned)((columns + KERNEL_BLOCK - 1) / KERNEL_BLOCK), blocks),       \
                      KERNEL_BLOCK, 0, stream>>>(*(const struct name *)args, rows, columns);       \
    }                                                                                              \
    KERNEL_FN void name##_at(const struct name *a, size_t row, size_t column)

#define SUM_SLOTS 1
#define EACH_SUM(s) for (uint32_t s = 0; s < 1; s++)

#define SUM_KERNEL(name)                                                                           \
    KERNEL_FN void name##_at(const struct name *a, size_t row, size_t column, uint32_t count);     \
    static __global__ void name##_grid(const struct name a, size_t rows, size_t columns)           \
    {                                                                                              \
        size_t i = blockIdx.x * (size_t)KERNEL_BLOCK + threadIdx.x;                                \
                                                                                                   \
        for (; i < rows * columns; i += (size_t)gridDim.x * KERNEL_BLOCK)                          \
            name##_at(&a, i / columns, i % columns, 1);                                            \
    }                                                                                              \
    extern "C" void name##_cuda(const void *args, size_t rows, size_t columns, unsigned blocks,    \
                                cudaStream_t stream)                                               \
    {                                                                                              \
        name##_grid<<<blocks, KERNEL_BLOCK, 0, stream>>>(*(const struct name *)args, rows, columns); \
    }                                                                                              \
    KERNEL_FN void name##_at(const struct name *a, size_t row, size_t column, uint32_t count)

#define TILE_KERNEL(name)                                                                          \
    KERNEL_FN void name##_at(const struct name *a, const struct tile *t);                          \
    static __global__ void name##_grid(const struct name a, const struct tiles l)                  \
    {                                                                                              \
        size_t i = (blockIdx.x * (size_t)KERNEL_BLOCK + threadIdx.x) / TILE_LANES;                 \
        size_t stride = (size_t)gridDim.x * KERNEL_BLOCK / TILE_LANES;                             \
                                                                                                   \
        for (; i < l.count; i += stride) {                                                         \
            struct tile t = tile_of(&l, blockIdx.y, (uint32_t)i);                                  \
                                                                                                   \
            name##_at(&a, &t);                                                                     \
        }                                                                                          \
    }                                                                                              \
    extern "C" void name##_cuda(const void *args, const struct tiles *l, uint32_t workers,         \
                                unsigned blocks, cudaStream_t stream)                              \
    {                                                                                              \
        name##_grid<<<dim3(blocks, workers), KERNEL_BLOCK, 0, stream>>>(*(const struct name *)args, *l); \
    }                                                                                              \
    KERNEL_FN void name##_at(const struct name *a, const struct tile *t)

#else /* the C compiler */

#include <math.h>
#include <string.h>

/* Left to itself the compiler calls large bodies, and then knows neither what they point to nor that
 * it stays: their loops don't vectorise. */
#define KERNEL_FN static inline __attribute__((always_inline))
#define TILE_SLOTS TILE
#define EACH_SLOT(s) for (uint32_t s = 0; s < TILE_SLOTS; s++)
#define KERNEL_UNROLL _Pragma("GCC unroll 16")

/* Below so many elements a thread costs more to wake than it saves. */
#define KERNEL_PARALLEL_FROM 16384

/* Of a row, what a thread does at a time: few rows are shared out too. */
#define KERNEL_COLUMNS 1024

#define SUM_SLOTS 16
#define EACH_SUM(s) _Pragma("omp simd") for (uint32_t s = 0; s < count; s++)

KERNEL_FN uint32_t tile_element(const struct tile *t, uint32_t s)
{
    (void)t;
    return s;
}

KERNEL_FN double tile_sum(const double v[TILE_SLOTS])
{
    double lane[TILE_LANES];

    for (uint32_t l = 0; l < TILE_LANES; l++) {
        double sum = v[l];

        for (uint32_t s = TILE_LANES; s < TILE; s += TILE_LANES)
            sum += v[s + l];
        lane[l] = sum;
    }
    for (uint32_t l = 0; l < 16; l++)
        lane[l] += lane[l + 16];
    for (uint32_t l = 0; l < 8; l++)
        lane[l] += lane[l + 8];
    for (uint32_t l = 0; l < 4; l++)
        lane[l] += lane[l + 4];
    return (lane[0] + lane[2]) + (lane[1] + lane[3]);
}

KERNEL_FN uint32_t tile_count(const uint32_t v[TILE_SLOTS])
{
    uint32_t count = 0;

    for (uint32_t s = 0; s < TILE; s++)
        count += v[s];
    return count;
}

/* Their sum, of whole numbers: tile_count() is for flags. */
KERNEL_FN uint32_t tile_total(const uint32_t v[TILE_SLOTS])
{
    return tile_count(v);
}

/* rank[s]: how many of v stand before slot s, in the order of elements. */
KERNEL_FN void tile_rank(const struct tile *t, const uint32_t v[TILE_SLOTS], uint32_t rank[TILE_SLOTS])
{
    uint32_t before = 0;

    (void)t;
    for (uint32_t s = 0; s < TILE; s++) {
        rank[s] = before;
        before += v[s];
    }
}

KERNEL_FN uint32_t tile_max(const uint32_t v[TILE_SLOTS])
{
    uint32_t max = 0;

    for (uint32_t s = 0; s < TILE; s++)
        max = v[s] > max ? v[s] : max;
    return max;
}

KERNEL_FN bool tile_leads(const struct tile *t)
{
    (void)t;
    return true;
}

/* Adds to a count that several elements share; of integers, so that the order is no matter. */
KERNEL_FN void count_add(uint64_t *count, uint64_t value) /* NOLINT(readability-non-const-parameter) */
{
    __atomic_fetch_add(count, value, __ATOMIC_RELAXED);
}

/* Raises a maximum that several tiles share; of integers, for the same reason. */
KERNEL_FN void max_raise(uint32_t *max, uint32_t value) /* NOLINT(readability-non-const-parameter) */
{
    uint32_t old = __atomic_load_n(max, __ATOMIC_RELAXED);

    while (old < value && !__atomic_compare_exchange_n(max, &old, value, true, __ATOMIC_RELAXED,
                                                       __ATOMIC_RELAXED))
        continue;
}

/* How many bits x has without the zeros before its first one; 0 of 0. */
KERNEL_FN uint32_t bit_width(uint32_t x)
{
    return x > 0 ? 32 - (uint32_t)__builtin_clz(x) : 0;
}

KERNEL_FN uint32_t float_bits(float x)
{
    uint32_t bits;

    memcpy(&bits, &x, sizeof(bits));
    return bits;
}

KERNEL_FN float bits_float(uint32_t x)
{
    float value;

    memcpy(&value, &x, sizeof(value));
    return value;
}

#define KERNEL(name)                                                                               \
    KERNEL_FN void name##_at(const struct name *a, size_t i);                                      \
    static void name##_cpu(const void *args, size_t n)                                             \
    {                                                                                              \
        const struct name a = *(const struct name *)args;                                          \
                                                                                                   \
        _Pragma("omp parallel for simd schedule(static) firstprivate(a) if (parallel : n >= KERNEL_PARALLEL_FROM)") \
        for (size_t i = 0; i < n; i++)                                                             \
            name##_at(&a, i);                                                                      \
    }                                                                                              \
    static struct kernel name##_kernel = {#name, sizeof(struct name), name##_cpu, NULL};           \
    KERNEL_FN void name##_at(const struct name *a, size_t i)

#define ROW_KERNEL(name)                                                                           \
    KERNEL_FN void name##_at(const struct name *a, size_t row, size_t column);                     \
    static void name##_cpu(const void *args, size_t rows, size_t columns)                          \
    {                                                                                              \
        const struct name a = *(const struct name *)args;                                          \
        size_t blocks = (columns + KERNEL_COLUMNS - 1) / KERNEL_COLUMNS;                           \
                                                                                                   \
        _Pragma("omp parallel for collapse(2) schedule(static) firstprivate(a) if (rows * columns >= KERNEL_PARALLEL_FROM)") \
        for (size_t row = 0; row < rows; row++) {                                                  \
            for (size_t block = 0; block < blocks; block++) {                                      \
                size_t end = (block + 1) * KERNEL_COLUMNS;                                         \
                                                                                                   \
                end = end < columns ? end : columns;                                               \
                _Pragma("omp simd")                                                                \
                for (size_t column = block * KERNEL_COLUMNS; column < end; column++)               \
                    name##_at(&a, row, column);                                                    \
            }                                                                                      \
        }                                                                                          \
    }                                                                                              \
    static struct row_kernel name##_kernel = {#name, sizeof(struct name), name##_cpu, NULL};       \
    KERNEL_FN void name##_at(const struct name *a, size_t row, size_t column)

/* Whole blocks are a constant to the body, so that its loops over slots are vectors. */
#define SUM_KERNEL(name)                                                                           \
    KERNEL_FN __attribute__((always_inline)) void name##_at(const struct name *a, size_t row,      \
                                                            size_t column, uint32_t count);        \
    static void name##_cpu(const void *args, size_t rows, size_t columns)                          \
    {                                                                                              \
        const struct name a = *(const struct name *)args;                                          \
        size_t blocks = (columns + SUM_SLOTS - 1) / SUM_SLOTS;                                     \
                                                                                                   \
        _Pragma("omp parallel for collapse(2) schedule(static) if (rows * blocks > 1)")            \
        for (size_t row = 0; row < rows; row++) {                                                  \
            for (size_t block = 0; block < blocks; block++) {                                      \
                if ((block + 1) * SUM_SLOTS <= columns)                                            \
                    name##_at(&a, row, block * SUM_SLOTS, SUM_SLOTS);                              \
                else                                                                               \
                    name##_at(&a, row, block * SUM_SLOTS, (uint32_t)(columns % SUM_SLOTS));        \
            }                                                                                      \
        }                                                                                          \
    }                                                                                              \
    static struct sum_kernel name##_kernel = {#name, sizeof(struct name), name##_cpu, NULL};       \
    KERNEL_FN void name##_at(const struct name *a, size_t row, size_t column, uint32_t count)

#define TILE_KERNEL(name)                                                                          \
    KERNEL_FN void name##_at(const struct name *a, const struct tile *t);                          \
    static void name##_cpu(const void *args, const struct tiles *l, uint32_t workers)              \
    {                                                                                              \
        const struct name a = *(const struct name *)args;                                          \
        size_t n = (size_t)workers * l->count;                                                     \
                                                                                                   \
        _Pragma("omp parallel for schedule(static) firstprivate(a) if (n * TILE >= KERNEL_PARALLEL_FROM)") \
        for (size_t i = 0; i < n; i++) {                                                           \
            struct tile t = tile_of(l, (uint32_t)(i / l->count), (uint32_t)(i % l->count));        \
                                                                                                   \
            name##_at(&a, &t);                                                                     \
        }                                                                                          \
    }                                                                                              \
    static struct tile_kernel name##_kernel = {#name, sizeof(struct name), name##_cpu, NULL};      \
    KERNEL_FN void name##_at(const struct name *a, const struct tile *t)

/* LAUNCH zeroes the arguments, padding and all, so that equal launches compare equal byte for
 * byte, then assigns the fields it is given. */
#define LAUNCH(dev, name, n, ...)                                    \
    do {                                                             \
        struct name args_;                                           \
                                                                     \
        memset(&args_, 0, sizeof(args_));                            \
        KERNEL_ASSIGN(__VA_ARGS__)                                   \
        device_run((dev), &name##_kernel, (n), &args_);              \
    } while (0)

#define LAUNCH_ROWS(dev, name, rows, columns, ...)                   \
    do {                                                             \
        struct name args_;                                           \
                                                                     \
        memset(&args_, 0, sizeof(args_));                            \
        KERNEL_ASSIGN(__VA_ARGS__)                                   \
        device_run_rows((dev), &name##_kernel, (rows), (columns), &args_); \
    } while (0)

#define LAUNCH_SUMS(dev, name, rows, columns, ...)                   \
    do {                                                             \
        struct name args_;                                           \
                                                                     \
        memset(&args_, 0, sizeof(args_));                            \
        KERNEL_ASSIGN(__VA_ARGS__)                                   \
        device_run_sums((dev), &name##_kernel, (rows), (columns), &args_); \
    } while (0)

#define LAUNCH_TILES(dev, name, tiles, workers, ...)                 \
    do {                                                             \
        struct name args_;                                           \
                                                                     \
        memset(&args_, 0, sizeof(args_));                            \
        KERNEL_ASSIGN(__VA_ARGS__)                                   \
        device_run_tiles((dev), &name##_kernel, (tiles), (workers), &args_); \
    } while (0)

#define KERNEL_ASSIGN(...)                                                                      \
    KERNEL_PICK(__VA_ARGS__, KERNEL_SET16, KERNEL_SET15, KERNEL_SET14, KERNEL_SET13,            \
                KERNEL_SET12, KERNEL_SET11, KERNEL_SET10, KERNEL_SET9, KERNEL_SET8, KERNEL_SET7, \
                KERNEL_SET6, KERNEL_SET5, KERNEL_SET4, KERNEL_SET3, KERNEL_SET2, KERNEL_SET1, )  \
    (__VA_ARGS__)
#define KERNEL_PICK(a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, set, ...) set
#define KERNEL_SET1(x) args_ x;
#define KERNEL_SET2(x, ...) args_ x; KERNEL_SET1(__VA_ARGS__)
#define KERNEL_SET3(x, ...) args_ x; KERNEL_SET2(__VA_ARGS__)
#define KERNEL_SET4(x, ...) args_ x; KERNEL_SET3(__VA_ARGS__)
#define KERNEL_SET5(x, ...) args_ x; KERNEL_SET4(__VA_ARGS__)
#define KERNEL_SET6(x, ...) args_ x; KERNEL_SET5(__VA_ARGS__)
#define KERNEL_SET7(x, ...) args_ x; KERNEL_SET6(__VA_ARGS__)
#define KERNEL_SET8(x, ...) args_ x; KERNEL_SET7(__VA_ARGS__)
#define KERNEL_SET9(x, ...) args_ x; KERNEL_SET8(__VA_ARGS__)
#define KERNEL_SET10(x, ...) args_ x; KERNEL_SET9(__VA_ARGS__)
#define KERNEL_SET11(x, ...) args_ x; KERNEL_SET10(__VA_ARGS__)
#define KERNEL_SET12(x, ...) args_ x; KERNEL_SET11(__VA_ARGS__)
#define KERNEL_SET13(x, ...) args_ x; KERNEL_SET12(__VA_ARGS__)
#define KERNEL_SET14(x, ...) args_ x; KERNEL_SET13(__VA_ARGS__)
#define KERNEL_SET15(x, ...) args_ x; KERNEL_SET14(__VA_ARGS__)
#define KERNEL_SET16(x, ...) args_ x; KERNEL_SET15(__VA_ARGS__)

#endif
/* clang-format on */

KERNEL_FN struct tile tile_of(const struct tiles *l, uint32_t worker, uint32_t in_arena)
{
    struct tile t;

    t.worker = worker;
    t.tensor = l->tensor[in_arena];
    t.live = l->live[in_arena];
    t.place = (size_t)in_arena * TILE;
    t.at = worker * l->stride + t.place;
    t.result = worker * l->up_stride + l->up[in_arena];
    t.begin = (size_t)(in_arena - l->first[t.tensor]) * TILE;
    t.scalar = (size_t)worker * l->tensors + t.tensor;
#ifdef __CUDACC__
    t.lane = threadIdx.x % TILE_LANES;
#endif
    return t;
}

KERNEL_FN size_t tile_at(const struct tile *t, uint32_t s)
{
    return t->at + tile_element(t, s);
}

/* Whose element it is: of one lane, that of its slot. */
KERNEL_FN bool tile_owns(const struct tile *t, uint32_t element)
{
#ifdef __CUDACC__
    return element % TILE_LANES == t->lane;
#else
    (void)t;
    (void)element;
    return true;
#endif
}

/* Not the padding behind the tensor: counts and minima ask, sums needn't (it is zero). */
KERNEL_FN bool tile_live(const struct tile *t, uint32_t s)
{
    return tile_element(t, s) < t->live;
}

/* The size of a float as an integer that orders alike; -0 is 0. */
KERNEL_FN uint32_t float_size(float x)
{
    return float_bits(x) & 0x7fffffffu;
}

/* Every lane computes the value (a tile_sum() needs them all), one writes it. */
#define tile_put(t, array, value)           \
    do {                                    \
        __typeof__(value) value_ = (value); \
                                            \
        if (tile_leads(t))                  \
            (array)[(t)->result] = value_;  \
    } while (0)

#endif

/*
 * device_cuda -- an NVIDIA GPU: cudart, cuBLAS, cuDNN's convolutions and CUB.
 *
 * This file and every file of kernels, compiled by nvcc, are one module that the program loads
 * when asked.  What the module needs of base.h comes to it in a table.
 *
 * Streams and steps: a stream that is used first waits for what was launched before the step's
 * first device_stream(), and stream 0 waits for all others at the end.  So a step begins and ends
 * on stream 0, which is what a capture asks for.
 */
#include "sim/device.h"
#include "sim/exactmath.h"
#include "sim/kernel.h"

#include <cub/cub.cuh>
#include <cublas_v2.h>
#include <cuda_runtime.h>
#include <cudnn.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EVENTS         64
#define SHAPES         64
#define BLAS_WORKSPACE ((size_t)32 << 20)
#define POSTS          64 /* copies to the device that may be under way */
#define POST_BYTES     ((size_t)64 << 10)
#define OLDEST         8 /* compute capability that the module is built for */

/* Memory of a stream that grows with what is asked for. */
enum use { BLAS_ROOM, CUB_ROOM, SORT_ROOM, HISTOGRAM_ROOM, CUDNN_ROOM, ROOMS };

struct room {
    void *memory;
    size_t bytes;
};

/* The first step of a shape runs, the second is captured, then the graph is replayed. */
struct shape {
    unsigned steps;
    cudaGraphExec_t graph;
};

struct gpu {
    unsigned index;
    size_t wide; /* blocks that fill the GPU: kernels with more to do go round */

    cudaStream_t stream[DEVICE_STREAMS];
    cublasHandle_t blas[DEVICE_STREAMS];
    cudnnHandle_t dnn[DEVICE_STREAMS];
    struct room room[DEVICE_STREAMS][ROOMS];
    unsigned used; /* bit s: stream s has run beside stream 0 */
    bool forked;   /* in this step */
    cudaEvent_t fork, join;
    cudaEvent_t event[EVENTS];
    bool signalled[EVENTS]; /* since the streams were last joined */

    struct shape shape[SHAPES];
    struct shape *stepping;
    bool capturing;

    char *post; /* [POSTS][post_bytes], pinned */
    size_t post_bytes, posted;
    cudaEvent_t post_done[POSTS];
    void *peek; /* pinned */
    size_t peek_bytes;
    bool peeking;
    cudaEvent_t peek_done;
};

static struct module_base base;

#define MODULE_CHECK(condition)                                \
    do {                                                       \
        if (!(condition))                                      \
            base.check_failed(#condition, __FILE__, __LINE__); \
    } while (0)

#define CUDA_CHECK(call)   cuda_check((call), #call, __FILE__, __LINE__)
#define CUBLAS_CHECK(call) cublas_check((call), #call, __FILE__, __LINE__)
#define CUDNN_CHECK(call)  cudnn_check((call), #call, __FILE__, __LINE__)

static void call_failed(const char *call, const char *why, const char *file, int line)
{
    char text[512];

    snprintf(text, sizeof(text), "%s: %s", call, why);
    base.check_failed(text, file, line);
}

static void cuda_check(cudaError_t status, const char *call, const char *file, int line)
{
    if (status != cudaSuccess)
        call_failed(call, cudaGetErrorString(status), file, line);
}

static void cublas_check(cublasStatus_t status, const char *call, const char *file, int line)
{
    if (status != CUBLAS_STATUS_SUCCESS)
        call_failed(call, cublasGetStatusString(status), file, line);
}

static void cudnn_check(cudnnStatus_t status, const char *call, const char *file, int line)
{
    if (status != CUDNN_STATUS_SUCCESS)
        call_failed(call, cudnnGetErrorString(status), file, line);
}

static struct gpu *gpu_of(const struct device *dev)
{
    return (struct gpu *)dev->state;
}

static cudaStream_t current(const struct device *dev)
{
    return gpu_of(dev)->stream[dev->current];
}

/* Blocks of threads for n elements, where a kernel goes round. */
static unsigned blocks_for(const struct device *dev, size_t n, size_t most)
{
    size_t blocks = (n + KERNEL_BLOCK - 1) / KERNEL_BLOCK;

    return (unsigned)(blocks < most ? blocks : most);
}

/* ---- open and close ---- */

static void create_event(cudaEvent_t *event)
{
    CUDA_CHECK(cudaEventCreateWithFlags(event, cudaEventDisableTiming));
}

/* Whether GPU index can be used, with its context made. */
static bool usable(unsigned index, struct error *err)
{
    int count = 0;
    int major = 0;
    cudaError_t status = cudaGetDeviceCount(&count);

    if (status != cudaSuccess || count == 0)
        return base.fail(err, "no NVIDIA GPU answers here (CUDA says: %s)",
                         status != cudaSuccess ? cudaGetErrorString(status)
                                               : "there are 0 devices");
    if (index >= (unsigned)count)
        return base.fail(err, "there is no GPU %u: CUDA counts %d here, from 0", index, count);
    status = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, (int)index);
    if (status == cudaSuccess && major < OLDEST)
        return base.fail(err, "GPU %u is of compute capability %d; this program needs %d or newer",
                         index, major, OLDEST);
    if (status == cudaSuccess)
        status = cudaSetDevice((int)index);
    if (status == cudaSuccess)
        status = cudaFree(NULL);
    return status == cudaSuccess || base.fail(err, "GPU %u does not start (CUDA says: %s)", index,
                                              cudaGetErrorString(status));
}

static bool cuda_open(struct device *dev, unsigned index, struct error *err)
{
    struct gpu *c;
    int processors;

    if (!usable(index, err))
        return false;
    c = (struct gpu *)calloc(1, sizeof(*c));
    MODULE_CHECK(c != NULL);
    dev->state = c;
    c->index = index;
    CUDA_CHECK(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, (int)index));
    c->wide = 32 * (size_t)processors;
    for (size_t s = 0; s < DEVICE_STREAMS; s++)
        CUDA_CHECK(cudaStreamCreateWithFlags(&c->stream[s], cudaStreamNonBlocking));
    for (size_t e = 0; e < EVENTS; e++)
        create_event(&c->event[e]);
    for (size_t p = 0; p < POSTS; p++)
        create_event(&c->post_done[p]);
    create_event(&c->fork);
    create_event(&c->join);
    create_event(&c->peek_done);
    return true;
}

/* Memory that a graph may name has gone: no graph is replayed again. */
static void forget_graphs(struct gpu *c)
{
    for (size_t s = 0; s < SHAPES; s++) {
        if (c->shape[s].graph != NULL)
            CUDA_CHECK(cudaGraphExecDestroy(c->shape[s].graph));
        c->shape[s] = shape{};
    }
}

static void cuda_close(struct device *dev)
{
    struct gpu *c = gpu_of(dev);

    CUDA_CHECK(cudaDeviceSynchronize());
    forget_graphs(c);
    for (size_t s = 0; s < DEVICE_STREAMS; s++) {
        if (c->blas[s] != NULL)
            CUBLAS_CHECK(cublasDestroy(c->blas[s]));
        if (c->dnn[s] != NULL)
            CUDNN_CHECK(cudnnDestroy(c->dnn[s]));
        for (size_t use = 0; use < ROOMS; use++)
            CUDA_CHECK(cudaFree(c->room[s][use].memory));
        CUDA_CHECK(cudaStreamDestroy(c->stream[s]));
    }
    for (size_t e = 0; e < EVENTS; e++)
        CUDA_CHECK(cudaEventDestroy(c->event[e]));
    for (size_t p = 0; p < POSTS; p++)
        CUDA_CHECK(cudaEventDestroy(c->post_done[p]));
    CUDA_CHECK(cudaEventDestroy(c->fork));
    CUDA_CHECK(cudaEventDestroy(c->join));
    CUDA_CHECK(cudaEventDestroy(c->peek_done));
    CUDA_CHECK(cudaFreeHost(c->post));
    CUDA_CHECK(cudaFreeHost(c->peek));
    free(c);
}

static void cuda_describe(struct device *dev, char *text, size_t room)
{
    struct cudaDeviceProp p;
    int runtime, driver, major, minor, patch;

    CUDA_CHECK(cudaGetDeviceProperties(&p, (int)gpu_of(dev)->index));
    CUDA_CHECK(cudaRuntimeGetVersion(&runtime));
    CUDA_CHECK(cudaDriverGetVersion(&driver));
    CUBLAS_CHECK(cublasGetProperty(MAJOR_VERSION, &major));
    CUBLAS_CHECK(cublasGetProperty(MINOR_VERSION, &minor));
    CUBLAS_CHECK(cublasGetProperty(PATCH_LEVEL, &patch));
    snprintf(text, room, "%s (%d.%d), %.0f GiB, CUDA %d.%d, driver for CUDA %d.%d, cuBLAS %d.%d.%d",
             p.name, p.major, p.minor, (double)p.totalGlobalMem / (1 << 30), runtime / 1000,
             runtime % 1000 / 10, driver / 1000, driver % 1000 / 10, major, minor, patch);
}

/* ---- memory ---- */

static size_t cuda_memory_free(struct device *dev)
{
    size_t unused, total;

    CUDA_CHECK(cudaMemGetInfo(&unused, &total));
    return unused;
}

/* A stream of ours does not wait for the null stream, so the clearing is waited for. */
static void *cuda_alloc(struct device *dev, size_t bytes)
{
    struct gpu *c = gpu_of(dev);
    void *memory;
    cudaError_t status;

    MODULE_CHECK(!c->capturing);
    status = cudaMalloc(&memory, bytes);
    if (status == cudaErrorMemoryAllocation) {
        cudaGetLastError();
        return NULL;
    }
    CUDA_CHECK(status);
    CUDA_CHECK(cudaMemsetAsync(memory, 0, bytes, c->stream[0]));
    CUDA_CHECK(cudaStreamSynchronize(c->stream[0]));
    return memory;
}

static void cuda_free(struct device *dev, void *memory)
{
    MODULE_CHECK(!gpu_of(dev)->capturing);
    CUDA_CHECK(cudaDeviceSynchronize());
    forget_graphs(gpu_of(dev));
    CUDA_CHECK(cudaFree(memory));
}

/* Of the current stream.  Zeroed when it is made; what is in it later is the user's business. */
static void *room_for(struct device *dev, enum use use, size_t bytes)
{
    struct room *room = &gpu_of(dev)->room[dev->current][use];

    if (room->bytes < bytes) {
        if (room->memory != NULL)
            cuda_free(dev, room->memory);
        room->memory = cuda_alloc(dev, bytes);
        MODULE_CHECK(room->memory != NULL && "the GPU's memory is full");
        room->bytes = bytes;
    }
    return room->memory;
}

/* A copy from pageable memory may return before it has arrived, hence the second wait. */
static void cuda_upload(struct device *dev, void *to, const void *from, size_t bytes)
{
    CUDA_CHECK(cudaDeviceSynchronize());
    CUDA_CHECK(cudaMemcpy(to, from, bytes, cudaMemcpyHostToDevice));
    CUDA_CHECK(cudaDeviceSynchronize());
}

static void cuda_download(struct device *dev, void *to, const void *from, size_t bytes)
{
    CUDA_CHECK(cudaDeviceSynchronize());
    CUDA_CHECK(cudaMemcpy(to, from, bytes, cudaMemcpyDeviceToHost));
}

static void cuda_copy(struct device *dev, void *to, const void *from, size_t bytes)
{
    CUDA_CHECK(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, current(dev)));
}

static void cuda_clear(struct device *dev, void *memory, size_t bytes)
{
    CUDA_CHECK(cudaMemsetAsync(memory, 0, bytes, current(dev)));
}

static void cuda_wait(struct device *dev)
{
    CUDA_CHECK(cudaDeviceSynchronize());
}

/* ---- kernels of kernel.h ---- */

typedef void launcher(const void *args, size_t n, unsigned blocks, cudaStream_t stream);
typedef void row_launcher(const void *args, size_t rows, size_t columns, unsigned blocks,
                          cudaStream_t stream);
typedef void tile_launcher(const void *args, const struct tiles *l, uint32_t workers,
                           unsigned blocks, cudaStream_t stream);

static void cuda_run(struct device *dev, struct kernel *k, size_t n, const void *args)
{
    ((launcher *)k->cuda)(args, n, blocks_for(dev, n, gpu_of(dev)->wide), current(dev));
    CUDA_CHECK(cudaGetLastError());
}

/* Blocks go round the rows, so that with the blocks across they are about as many as are wide. */
static void cuda_run_rows(struct device *dev, struct row_kernel *k, size_t rows, size_t columns,
                          const void *args)
{
    size_t across = (columns + KERNEL_BLOCK - 1) / KERNEL_BLOCK;
    size_t most = gpu_of(dev)->wide / across + 1;

    most = most < 65535 ? most : 65535;
    ((row_launcher *)k->cuda)(args, rows, columns, (unsigned)(rows < most ? rows : most),
                              current(dev));
    CUDA_CHECK(cudaGetLastError());
}

static void cuda_run_sums(struct device *dev, struct sum_kernel *k, size_t rows, size_t columns,
                          const void *args)
{
    ((row_launcher *)k->cuda)(args, rows, columns,
                              blocks_for(dev, rows * columns, gpu_of(dev)->wide), current(dev));
    CUDA_CHECK(cudaGetLastError());
}

static void cuda_run_tiles(struct device *dev, struct tile_kernel *k, const struct tiles *l,
                           uint32_t workers, const void *args)
{
    size_t most = gpu_of(dev)->wide / workers + 1;

    MODULE_CHECK(workers <= 65535);
    ((tile_launcher *)k->cuda)(args, l, workers,
                               blocks_for(dev, (size_t)l->count * TILE_LANES, most), current(dev));
    CUDA_CHECK(cudaGetLastError());
}

/* ---- cuBLAS ---- */

/* The current stream's.  A workspace of its own, so that results repeat and a capture finds
 * nothing to allocate.  In the default mode fp32 is fp32: TF32 has to be asked for. */
static cublasHandle_t blas(struct device *dev)
{
    cublasHandle_t *blas = &gpu_of(dev)->blas[dev->current];

    if (*blas == NULL) {
        MODULE_CHECK(!gpu_of(dev)->capturing);
        CUBLAS_CHECK(cublasCreate(blas));
        CUBLAS_CHECK(cublasSetStream(*blas, current(dev)));
        CUBLAS_CHECK(
            cublasSetWorkspace(*blas, room_for(dev, BLAS_ROOM, BLAS_WORKSPACE), BLAS_WORKSPACE));
        CUBLAS_CHECK(cublasSetMathMode(*blas, CUBLAS_DEFAULT_MATH));
        CUBLAS_CHECK(cublasSetAtomicsMode(*blas, CUBLAS_ATOMICS_NOT_ALLOWED));
    }
    return *blas;
}

/* cuBLAS counts along columns: to it our rows are columns, and c^T = b^T a^T. */
static void cuda_gemm(struct device *dev, const struct gemm *g)
{
    cublasOperation_t op = g->transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N;
    int64_t m = (int64_t)g->m, n = (int64_t)g->n, k = (int64_t)g->k;
    int64_t lda = (int64_t)g->lda, ldb = (int64_t)g->ldb, ldc = (int64_t)g->ldc;
    float one = 1;

    if (g->batch == 1)
        CUBLAS_CHECK(cublasSgemm_64(blas(dev), CUBLAS_OP_N, op, n, m, k, &one, g->b, ldb, g->a, lda,
                                    &g->beta, g->c, ldc));
    else
        CUBLAS_CHECK(cublasSgemmStridedBatched_64(
            blas(dev), CUBLAS_OP_N, op, n, m, k, &one, g->b, ldb, (int64_t)g->stride_b, g->a, lda,
            (int64_t)g->stride_a, &g->beta, g->c, ldc, (int64_t)g->stride_c, (int64_t)g->batch));
}

static void cuda_transpose(struct device *dev, const float *in, size_t rows, size_t columns,
                           float *out)
{
    float one = 1;
    float zero = 0;

    CUBLAS_CHECK(cublasSgeam_64(blas(dev), CUBLAS_OP_T, CUBLAS_OP_N, (int64_t)rows,
                                (int64_t)columns, &one, in, (int64_t)columns, &zero, out,
                                (int64_t)rows, out, (int64_t)rows));
}

/* ---- cuDNN ---- */

/* The current stream's. */
static cudnnHandle_t dnn(struct device *dev)
{
    cudnnHandle_t *dnn = &gpu_of(dev)->dnn[dev->current];

    if (*dnn == NULL) {
        MODULE_CHECK(!gpu_of(dev)->capturing);
        CUDNN_CHECK(cudnnCreate(dnn));
        CUDNN_CHECK(cudnnSetStream(*dnn, current(dev)));
    }
    return *dnn;
}

/* A convolution as cuDNN wants it told; of host memory alone, so it can be made at every call. */
struct described {
    cudnnTensorDescriptor_t x, y, bias;
    cudnnFilterDescriptor_t weights;
    cudnnConvolutionDescriptor_t how;
};

static void describe_images(cudnnTensorDescriptor_t *d, size_t images, uint32_t height,
                            uint32_t width, uint32_t channels)
{
    CUDNN_CHECK(cudnnCreateTensorDescriptor(d));
    CUDNN_CHECK(cudnnSetTensor4dDescriptor(*d, CUDNN_TENSOR_NHWC, CUDNN_DATA_FLOAT, (int)images,
                                           (int)channels, (int)height, (int)width));
}

/* In fp32: no TF32 unless it is asked for. */
static struct described describe(const struct convolution *c, size_t images)
{
    struct described d;

    describe_images(&d.x, images, c->height, c->width, c->channels);
    describe_images(&d.y, images, convolved(c->height, c->kernel, c->stride, c->pad),
                    convolved(c->width, c->kernel, c->stride, c->pad), c->filters);
    describe_images(&d.bias, 1, 1, 1, c->filters);
    CUDNN_CHECK(cudnnCreateFilterDescriptor(&d.weights));
    CUDNN_CHECK(cudnnSetFilter4dDescriptor(d.weights, CUDNN_DATA_FLOAT, CUDNN_TENSOR_NHWC,
                                           (int)c->filters, (int)(c->channels / c->groups),
                                           (int)c->kernel, (int)c->kernel));
    CUDNN_CHECK(cudnnCreateConvolutionDescriptor(&d.how));
    CUDNN_CHECK(cudnnSetConvolution2dDescriptor(d.how, (int)c->pad, (int)c->pad, (int)c->stride,
                                                (int)c->stride, 1, 1, CUDNN_CROSS_CORRELATION,
                                                CUDNN_DATA_FLOAT));
    CUDNN_CHECK(cudnnSetConvolutionMathType(d.how, CUDNN_FMA_MATH));
    CUDNN_CHECK(cudnnSetConvolutionGroupCount(d.how, (int)c->groups));
    return d;
}

static void forget(struct described *d)
{
    CUDNN_CHECK(cudnnDestroyConvolutionDescriptor(d->how));
    CUDNN_CHECK(cudnnDestroyFilterDescriptor(d->weights));
    CUDNN_CHECK(cudnnDestroyTensorDescriptor(d->bias));
    CUDNN_CHECK(cudnnDestroyTensorDescriptor(d->y));
    CUDNN_CHECK(cudnnDestroyTensorDescriptor(d->x));
}

/* The algorithms are fixed: those for NHWC whose sums have one order. */
#define FORWARD_ALGORITHM CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM
#define DATA_ALGORITHM    CUDNN_CONVOLUTION_BWD_DATA_ALGO_1
#define WEIGHTS_ALGORITHM CUDNN_CONVOLUTION_BWD_FILTER_ALGO_1

static void cuda_convolve(struct device *dev, const struct convolution *c)
{
    struct described d = describe(c, c->workers * c->images);
    float one = 1;
    float zero = 0;
    size_t bytes;

    CUDNN_CHECK(cudnnGetConvolutionForwardWorkspaceSize(dnn(dev), d.x, d.weights, d.how, d.y,
                                                        FORWARD_ALGORITHM, &bytes));
    CUDNN_CHECK(cudnnConvolutionForward(dnn(dev), &one, d.x, c->x, d.weights, c->weights, d.how,
                                        FORWARD_ALGORITHM, room_for(dev, CUDNN_ROOM, bytes), bytes,
                                        &zero, d.y, c->y));
    if (c->bias != NULL)
        CUDNN_CHECK(cudnnAddTensor(dnn(dev), &one, d.bias, c->bias, &one, d.y, c->y));
    forget(&d);
}

static void cuda_convolve_data(struct device *dev, const struct convolution *c)
{
    struct described d = describe(c, c->workers * c->images);
    float one = 1;
    float zero = 0;
    size_t bytes;

    CUDNN_CHECK(cudnnGetConvolutionBackwardDataWorkspaceSize(dnn(dev), d.weights, d.y, d.how, d.x,
                                                             DATA_ALGORITHM, &bytes));
    CUDNN_CHECK(cudnnConvolutionBackwardData(dnn(dev), &one, d.weights, c->weights, d.y, c->y_grad,
                                             d.how, DATA_ALGORITHM,
                                             room_for(dev, CUDNN_ROOM, bytes), bytes, &zero, d.x,
                                             c->x_grad));
    forget(&d);
}

/* Worker by worker. */
static void cuda_convolve_weights(struct device *dev, const struct convolution *c)
{
    struct described d = describe(c, c->images);
    size_t x = (size_t)c->height * c->width * c->channels * c->images;
    size_t y = (size_t)convolved(c->height, c->kernel, c->stride, c->pad) *
               convolved(c->width, c->kernel, c->stride, c->pad) * c->filters * c->images;
    float one = 1;
    float zero = 0;
    size_t bytes;
    void *room;

    CUDNN_CHECK(cudnnGetConvolutionBackwardFilterWorkspaceSize(dnn(dev), d.x, d.y, d.how, d.weights,
                                                               WEIGHTS_ALGORITHM, &bytes));
    room = room_for(dev, CUDNN_ROOM, bytes);
    for (size_t w = 0; w < c->workers; w++)
        CUDNN_CHECK(cudnnConvolutionBackwardFilter(
            dnn(dev), &one, d.x, c->x + w * x, d.y, c->y_grad + w * y, d.how, WEIGHTS_ALGORITHM,
            room, bytes, &zero, d.weights, c->weights_grad + w * c->stride_grad));
    forget(&d);
}

/* ---- softmax ---- */

struct larger {
    __device__ float operator()(float x, float y) const
    {
        return x > y ? x : y;
    }
};

struct sum_of {
    __device__ float operator()(float x, float y) const
    {
        return x + y;
    }
};

/* Of all threads' values, in an order that the block's size fixes; every thread gets it. */
template <typename operation> static __device__ float block_all(float value, operation op)
{
    typedef cub::BlockReduce<float, KERNEL_BLOCK> block;
    __shared__ typename block::TempStorage room;
    __shared__ float all;
    float result = block(room).Reduce(value, op);

    if (threadIdx.x == 0)
        all = result;
    __syncthreads();
    result = all;
    __syncthreads();
    return result;
}

static __device__ void softmax_row(const struct softmax_loss *s, size_t row)
{
    float *x = s->logits + row * s->classes;
    uint32_t target = s->target[row];
    bool counts = target != NO_TARGET;
    float at_target = counts ? x[target] : 0;
    float max = x[0];
    float sum = 0;

    for (size_t j = threadIdx.x; j < s->classes; j += KERNEL_BLOCK)
        max = x[j] > max ? x[j] : max;
    max = block_all(max, larger());
    for (size_t j = threadIdx.x; j < s->classes; j += KERNEL_BLOCK)
        sum += exact_exp(x[j] - max);
    sum = block_all(sum, sum_of());
    if (threadIdx.x == 0)
        s->loss[row] = counts ? max - at_target + logf(sum) : 0;
    if (s->gradient)
        for (size_t j = threadIdx.x; j < s->classes; j += KERNEL_BLOCK) {
            float p = exact_exp(x[j] - max) * (s->scale / sum);

            x[j] = !counts ? 0 : j == target ? p - s->scale : p;
        }
}

static __global__ void softmax_rows(const struct softmax_loss s)
{
    for (size_t row = blockIdx.x; row < s.rows; row += gridDim.x)
        softmax_row(&s, row);
}

static void cuda_softmax_loss(struct device *dev, const struct softmax_loss *s)
{
    size_t most = gpu_of(dev)->wide;

    softmax_rows<<<(unsigned)(s->rows < most ? s->rows : most), KERNEL_BLOCK, 0, current(dev)>>>(
        *s);
    CUDA_CHECK(cudaGetLastError());
}

/* ---- selection ----
 *
 * The keep-th largest size is found digit by digit, from the top: count how often each value of
 * the digit occurs among sizes that begin with what is known, then see in which the rank lies.
 * threshold holds the digits known so far, ties the rank among sizes that begin with them. */

#define BINS_MOST 2048
#define CHUNK     64 /* tiles that a block counts in shared memory before it adds to the histogram */

struct digit {
    uint32_t shift, bits;
};

static const struct digit digits[] = {{20, 11}, {10, 10}, {0, 10}};

static __device__ void count_tile(const struct selection *s, const struct tile *t, struct digit d,
                                  bool first, uint32_t *bin)
{
    uint32_t above = d.shift + d.bits;
    uint32_t known = first ? 0 : s->threshold[t->scalar] >> above;
    uint32_t size[TILE_SLOTS];

    if (!first && s->peak[t->result] >> above < known)
        return;
    EACH_SLOT (i)
        size[i] = tile_live(t, i) ? float_size(s->x[tile_at(t, i)]) : 0;
    EACH_SLOT (i)
        if (tile_live(t, i) && size[i] >> above == known)
            atomicAdd(&bin[size[i] >> d.shift & ((1u << d.bits) - 1)], 1u);
    if (first)
        tile_put(t, s->peak, tile_max(size));
}

/* Tiles from ... to - 1 are of one tensor. */
static __device__ void count_tiles(const struct selection *s, const struct tiles *l, uint32_t from,
                                   uint32_t to, struct digit d, bool first, uint32_t *histogram)
{
    __shared__ uint32_t bin[BINS_MOST];
    size_t pair = (size_t)blockIdx.y * l->tensors + l->tensor[from];

    for (uint32_t b = threadIdx.x; b < 1u << d.bits; b += KERNEL_BLOCK)
        bin[b] = 0;
    __syncthreads();
    for (uint32_t i = from + threadIdx.x / TILE_LANES; i < to; i += KERNEL_BLOCK / TILE_LANES) {
        struct tile t = tile_of(l, blockIdx.y, i);

        count_tile(s, &t, d, first, bin);
    }
    __syncthreads();
    for (uint32_t b = threadIdx.x; b < 1u << d.bits; b += KERNEL_BLOCK)
        if (bin[b] > 0)
            atomicAdd(&histogram[pair * BINS_MOST + b], bin[b]);
    __syncthreads();
}

static __global__ void count_digit(const struct selection s, const struct tiles l, struct digit d,
                                   bool first, uint32_t *histogram)
{
    uint32_t tile = blockIdx.x * CHUNK;
    uint32_t end = tile + CHUNK < l.count ? tile + CHUNK : l.count;

    while (tile < end) {
        uint32_t next = l.tensor[tile] + 1;
        uint32_t stop = next < l.tensors && l.first[next] < end ? l.first[next] : end;

        count_tiles(&s, &l, tile, stop, d, first, histogram);
        tile = stop;
    }
}

/* A block for each pair of worker and tensor; thread 0 has the highest bins.  The histogram is
 * left zero, for the next digit. */
static __global__ void pick_digit(const struct selection s, uint32_t tensors, struct digit d,
                                  bool first, uint32_t *histogram)
{
    typedef cub::BlockScan<uint32_t, KERNEL_BLOCK> scan;
    __shared__ scan::TempStorage room;
    size_t pair = blockIdx.x;
    uint32_t known = first ? 0 : s.threshold[pair];
    uint32_t rank = first ? s.keep[pair % tensors] : s.ties[pair];
    uint32_t share = (1u << d.bits) / KERNEL_BLOCK;
    uint32_t low = (1u << d.bits) - (threadIdx.x + 1) * share;
    uint32_t *bin = histogram + pair * BINS_MOST + low;
    uint32_t own = 0;
    uint32_t before;

    for (uint32_t b = 0; b < share; b++)
        own += bin[b];
    scan(room).ExclusiveSum(own, before);
    for (uint32_t b = share; b-- > 0;) {
        uint32_t count = bin[b];

        bin[b] = 0;
        if (before < rank && rank <= before + count) {
            s.threshold[pair] = known | (low + b) << d.shift;
            s.ties[pair] = rank - before;
        }
        before += count;
    }
}

static void cuda_select(struct device *dev, const struct selection *s)
{
    const struct tiles *l = s->tiles;
    size_t pairs = (size_t)s->workers * l->tensors;
    uint32_t *histogram =
        (uint32_t *)room_for(dev, HISTOGRAM_ROOM, pairs * BINS_MOST * sizeof(*histogram));
    dim3 chunks((l->count + CHUNK - 1) / CHUNK, s->workers);

    for (size_t i = 0; i < ARRAY_LENGTH(digits); i++) {
        count_digit<<<chunks, KERNEL_BLOCK, 0, current(dev)>>>(*s, *l, digits[i], i == 0,
                                                               histogram);
        CUDA_CHECK(cudaGetLastError());
        pick_digit<<<(unsigned)pairs, KERNEL_BLOCK, 0, current(dev)>>>(*s, l->tensors, digits[i],
                                                                       i == 0, histogram);
        CUDA_CHECK(cudaGetLastError());
    }
}

/* ---- CUB ---- */

static void cuda_scan(struct device *dev, const uint32_t *in, size_t n, uint32_t *out)
{
    size_t bytes = 0;

    CUDA_CHECK(cub::DeviceScan::ExclusiveSum(NULL, bytes, in, out, n, current(dev)));
    CUDA_CHECK(cub::DeviceScan::ExclusiveSum(room_for(dev, CUB_ROOM, bytes), bytes, in, out, n,
                                             current(dev)));
}

/* All rows are sorted at once: the row stands in front of the key. */
struct compose_keys {
    const uint32_t *key;
    uint64_t *composite;
    uint32_t *place;
    size_t n;
    uint32_t limit;
};

KERNEL(compose_keys)
{
    size_t row = i / a->n;

    a->composite[i] = (uint64_t)row * a->limit + a->key[i];
    a->place[i] = (uint32_t)(i - row * a->n);
}

struct split_keys {
    const uint64_t *composite;
    uint32_t *sorted;
    size_t n;
    uint32_t limit;
};

KERNEL(split_keys)
{
    a->sorted[i] = (uint32_t)(a->composite[i] - (uint64_t)(i / a->n) * a->limit);
}

static int bits_below(uint64_t limit)
{
    int bits = 1;

    while (bits < 64 && (limit - 1) >> bits > 0)
        bits++;
    return bits;
}

static void cuda_sort(struct device *dev, const struct sort *s)
{
    size_t count = s->rows * s->n;
    unsigned blocks = blocks_for(dev, count, gpu_of(dev)->wide);
    int bits = bits_below((uint64_t)s->rows * s->limit);
    uint64_t *composite =
        (uint64_t *)room_for(dev, SORT_ROOM, count * (2 * sizeof(uint64_t) + sizeof(uint32_t)));
    uint64_t *ordered = composite + count;
    uint32_t *place = (uint32_t *)(ordered + count);
    struct compose_keys compose = {s->key, composite, place, s->n, s->limit};
    struct split_keys split = {ordered, s->sorted, s->n, s->limit};
    size_t bytes = 0;

    compose_keys_cuda(&compose, count, blocks, current(dev));
    CUDA_CHECK(cudaGetLastError());
    CUDA_CHECK(cub::DeviceRadixSort::SortPairs(NULL, bytes, composite, ordered, place, s->place,
                                               count, 0, bits, current(dev)));
    CUDA_CHECK(cub::DeviceRadixSort::SortPairs(room_for(dev, CUB_ROOM, bytes), bytes, composite,
                                               ordered, place, s->place, count, 0, bits,
                                               current(dev)));
    split_keys_cuda(&split, count, blocks, current(dev));
    CUDA_CHECK(cudaGetLastError());
}

/* ---- streams ---- */

static void cuda_stream(struct device *dev, uint32_t s)
{
    struct gpu *c = gpu_of(dev);

    if (c->stepping == NULL || !c->forked)
        CUDA_CHECK(cudaEventRecord(c->fork, c->stream[0]));
    c->forked = true;
    if (s == 0 || (c->used >> s & 1) != 0)
        return;
    CUDA_CHECK(cudaStreamWaitEvent(c->stream[s], c->fork, 0));
    c->used |= 1u << s;
}

static void join_streams(struct gpu *c)
{
    for (uint32_t s = 1; s < DEVICE_STREAMS; s++) {
        if ((c->used >> s & 1) == 0)
            continue;
        CUDA_CHECK(cudaEventRecord(c->join, c->stream[s]));
        CUDA_CHECK(cudaStreamWaitEvent(c->stream[0], c->join, 0));
    }
    c->used = 0;
    c->forked = false;
    memset(c->signalled, 0, sizeof(c->signalled));
}

static void cuda_signal(struct device *dev, uint32_t event)
{
    struct gpu *c = gpu_of(dev);

    MODULE_CHECK(event < EVENTS);
    CUDA_CHECK(cudaEventRecord(c->event[event], current(dev)));
    c->signalled[event] = true;
}

/* A signal of an earlier step has been waited for when the streams joined, and a capture must
 * not name it. */
static void cuda_await(struct device *dev, uint32_t event)
{
    struct gpu *c = gpu_of(dev);

    MODULE_CHECK(event < EVENTS);
    if (c->signalled[event])
        CUDA_CHECK(cudaStreamWaitEvent(current(dev), c->event[event], 0));
}

/* ---- steps ---- */

static bool cuda_step_begin(struct device *dev, uint32_t shape)
{
    struct gpu *c = gpu_of(dev);

    MODULE_CHECK(shape < SHAPES && c->stepping == NULL && dev->current == 0);
    join_streams(c);
    if (c->shape[shape].graph != NULL) {
        CUDA_CHECK(cudaGraphLaunch(c->shape[shape].graph, c->stream[0]));
        return true;
    }
    c->stepping = &c->shape[shape];
    c->capturing = c->stepping->steps > 0;
    if (c->capturing)
        CUDA_CHECK(cudaStreamBeginCapture(c->stream[0], cudaStreamCaptureModeThreadLocal));
    return false;
}

static void cuda_step_end(struct device *dev)
{
    struct gpu *c = gpu_of(dev);
    cudaGraph_t graph;

    MODULE_CHECK(c->stepping != NULL);
    join_streams(c);
    if (c->capturing) {
        CUDA_CHECK(cudaStreamEndCapture(c->stream[0], &graph));
        CUDA_CHECK(cudaGraphInstantiate(&c->stepping->graph, graph, 0));
        CUDA_CHECK(cudaGraphDestroy(graph));
        CUDA_CHECK(cudaGraphLaunch(c->stepping->graph, c->stream[0]));
    }
    c->stepping->steps++;
    c->stepping = NULL;
    c->capturing = false;
}

/* ---- small copies beside the steps ---- */

static void grow_pinned(void **memory, size_t *bytes, size_t slots, size_t least)
{
    CUDA_CHECK(cudaDeviceSynchronize());
    CUDA_CHECK(cudaFreeHost(*memory));
    *bytes = least;
    CUDA_CHECK(cudaMallocHost(memory, slots * least));
}

/* The host waits only if it is POSTS copies ahead of the device. */
static void cuda_post(struct device *dev, void *to, const void *from, size_t bytes)
{
    struct gpu *c = gpu_of(dev);
    size_t slot = c->posted++ % POSTS;

    MODULE_CHECK(c->stepping == NULL);
    if (c->post_bytes < bytes || c->post == NULL)
        grow_pinned((void **)&c->post, &c->post_bytes, POSTS,
                    bytes < POST_BYTES ? POST_BYTES : bytes);
    CUDA_CHECK(cudaEventSynchronize(c->post_done[slot]));
    memcpy(c->post + slot * c->post_bytes, from, bytes);
    CUDA_CHECK(cudaMemcpyAsync(to, c->post + slot * c->post_bytes, bytes, cudaMemcpyHostToDevice,
                               c->stream[0]));
    CUDA_CHECK(cudaEventRecord(c->post_done[slot], c->stream[0]));
}

/* On stream 0: a stream of its own would read while the next step writes, or hold it up as long
 * as these few bytes do.  Until the copy has been read there is no other, or who asks right after
 * would never get one. */
static void cuda_peek(struct device *dev, const void *from, size_t bytes)
{
    struct gpu *c = gpu_of(dev);

    MODULE_CHECK(c->stepping == NULL);
    if (c->peeking)
        return;
    if (c->peek_bytes < bytes)
        grow_pinned(&c->peek, &c->peek_bytes, 1, bytes);
    CUDA_CHECK(cudaMemcpyAsync(c->peek, from, bytes, cudaMemcpyDeviceToHost, c->stream[0]));
    CUDA_CHECK(cudaEventRecord(c->peek_done, c->stream[0]));
    c->peeking = true;
}

static bool cuda_peeked(struct device *dev, void *to, size_t bytes)
{
    struct gpu *c = gpu_of(dev);
    cudaError_t status;

    if (!c->peeking)
        return false;
    MODULE_CHECK(bytes <= c->peek_bytes);
    status = cudaEventQuery(c->peek_done);
    if (status == cudaErrorNotReady) {
        cudaGetLastError();
        return false;
    }
    CUDA_CHECK(status);
    memcpy(to, c->peek, bytes);
    c->peeking = false;
    return true;
}

static const struct device_ops cuda_device = {
    .name = "cuda",
    .chunk_bytes = (size_t)256 << 20,
    .stacked = 0,
    .open = cuda_open,
    .close = cuda_close,
    .describe = cuda_describe,
    .memory_free = cuda_memory_free,
    .alloc = cuda_alloc,
    .free = cuda_free,
    .upload = cuda_upload,
    .download = cuda_download,
    .copy = cuda_copy,
    .clear = cuda_clear,
    .wait = cuda_wait,
    .run = cuda_run,
    .run_rows = cuda_run_rows,
    .run_sums = cuda_run_sums,
    .run_tiles = cuda_run_tiles,
    .gemm = cuda_gemm,
    .transpose = cuda_transpose,
    .softmax_loss = cuda_softmax_loss,
    .convolve = cuda_convolve,
    .convolve_data = cuda_convolve_data,
    .convolve_weights = cuda_convolve_weights,
    .select = cuda_select,
    .scan = cuda_scan,
    .sort = cuda_sort,
    .stream = cuda_stream,
    .signal = cuda_signal,
    .await = cuda_await,
    .step_begin = cuda_step_begin,
    .step_end = cuda_step_end,
    .post = cuda_post,
    .peek = cuda_peek,
    .peeked = cuda_peeked,
};

extern "C" const struct device_ops *gradpress_cuda(const struct module_base *of_program)
{
    base = *of_program;
    return &cuda_device;
}

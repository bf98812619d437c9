/*
 * device.h -- where tensors live and what can be done to them.
 *
 * Memory from device_alloc() is the device's: host code passes it on and never reads or writes
 * through it (tests/guard.c is a device that makes sure).  Calls return at once and run in order
 * on the current stream; only device_download() and device_wait() wait.
 *
 * A device is a table with two kinds of entry: a few through which every kernel of kernel.h runs,
 * and library operations, written per device: oneDNN on the CPU, cuBLAS and CUB on CUDA.
 */
#ifndef SIM_DEVICE_H
#define SIM_DEVICE_H

#include "sim/base.h"

struct device;
struct kernel;
struct row_kernel;
struct sum_kernel;
struct tile_kernel;
struct tiles;

/* c [m][n] := a [m][k] b [k][n] + beta c, row after row; transpose_a: a is [k][m].  lda, ldb, ldc are the
 * floats from one row to the next.  batch products stand stride_a, stride_b, stride_c apart. */
struct gemm {
    bool transpose_a;
    size_t m, n, k;
    const float *a, *b;
    float *c;
    size_t lda, ldb, ldc;
    float beta; /* 0 or 1 */
    size_t batch;
    size_t stride_a, stride_b, stride_c;
};

/* Cross-entropy of the softmax of each row.  A row whose target is NO_TARGET has none. */
#define NO_TARGET UINT32_MAX
struct softmax_loss {
    size_t rows, classes;
    float *logits;          /* [rows][classes]; with gradient: becomes scale * d loss / d logits */
    const uint32_t *target; /* [rows] */
    float *loss;            /* [rows] */
    float scale;
    bool gradient;
};

/* A convolution of images, which lie height, width, channels, with filters, which lie likewise; the
 * channels and the filters are in so many groups, and weights have channels / groups.  Every worker
 * has as many images, one worker's behind another's.  A direction reads and writes what it
 * names. */
struct convolution {
    size_t workers, images; /* images: of each worker */
    uint32_t height, width, channels;
    uint32_t filters, kernel, stride, pad, groups;
    const float *x;       /* [workers][images][height][width][channels] */
    const float *weights; /* [filters][kernel][kernel][channels / groups] */
    const float *bias;    /* [filters], or NULL */
    float *y;             /* [workers][images][height'][width'][filters] */
    const float *y_grad;  /* the same */
    float *x_grad;
    float *weights_grad; /* [workers][stride_grad] */
    size_t stride_grad;
};

/* Rows (or columns) of y. */
static inline uint32_t convolved(uint32_t size, uint32_t kernel, uint32_t stride, uint32_t pad)
{
    return (size + 2 * pad - kernel) / stride + 1;
}

/* Of each tensor of each worker: the keep-th largest |x| as float_size() has it, how many entries
 * of just that size belong to the keep largest (those of lower index), and the largest size in
 * every tile. */
struct selection {
    const float *x; /* as tiles says */
    const struct tiles *tiles;
    uint32_t workers;
    const size_t *n;      /* [tensors] elements, on the host */
    const uint32_t *keep; /* [tensors] on the device, 1 to n */
    uint32_t *threshold;  /* [workers][tensors] */
    uint32_t *ties;       /* [workers][tensors] */
    uint32_t *peak;       /* [workers][up_stride] */
};

/* Each row's keys in ascending order, equal ones in the order of their places. */
struct sort {
    size_t rows, n;
    uint32_t limit;      /* keys are below it */
    const uint32_t *key; /* [rows][n] */
    uint32_t *sorted;    /* [rows][n] */
    uint32_t *place;     /* [rows][n] where sorted[i] stood in its row */
};

struct device_ops {
    const char *name;   /* what --device takes */
    size_t chunk_bytes; /* of logits that should lie together: on a CPU, in its cache */
    uint32_t stacked;   /* workers whose images are convolved together; 0: as many as fit */

    bool (*open)(struct device *dev, unsigned index, struct error *err);
    void (*close)(struct device *dev);
    void (*describe)(struct device *dev, char *text,
                     size_t room);             /* model and libraries, one line */
    size_t (*memory_free)(struct device *dev); /* bytes */

    void *(*alloc)(struct device *dev, size_t bytes); /* zeroed; NULL if there is no room */
    void (*free)(struct device *dev, void *memory);
    void (*upload)(struct device *dev, void *to, const void *from, size_t bytes);
    void (*download)(struct device *dev, void *to, const void *from, size_t bytes); /* waits */
    void (*copy)(struct device *dev, void *to, const void *from, size_t bytes);     /* within dev */
    void (*clear)(struct device *dev, void *memory, size_t bytes);                  /* to zero */
    void (*wait)(struct device *dev);

    void (*run)(struct device *dev, struct kernel *k, size_t n, const void *args);
    void (*run_rows)(struct device *dev, struct row_kernel *k, size_t rows, size_t columns,
                     const void *args);
    void (*run_sums)(struct device *dev, struct sum_kernel *k, size_t rows, size_t columns,
                     const void *args);
    void (*run_tiles)(struct device *dev, struct tile_kernel *k, const struct tiles *l,
                      uint32_t workers, const void *args);

    void (*gemm)(struct device *dev, const struct gemm *g);
    void (*transpose)(struct device *dev, const float *in, size_t rows, size_t columns, float *out);
    void (*softmax_loss)(struct device *dev, const struct softmax_loss *s);
    void (*convolve)(struct device *dev, const struct convolution *c);         /* y */
    void (*convolve_data)(struct device *dev, const struct convolution *c);    /* x_grad */
    void (*convolve_weights)(struct device *dev, const struct convolution *c); /* weights_grad */
    void (*select)(struct device *dev, const struct selection *s);
    void (*scan)(struct device *dev, const uint32_t *in, size_t n, uint32_t *out); /* exclusive */
    void (*sort)(struct device *dev, const struct sort *s);

    /* Optional, NULL where there is one stream: what follows goes to stream s; an event marks the
     * current stream's work so far; the current stream waits for an event of this step.  Within a
     * step all streams wait for what stands before its first device_stream(), and what follows it
     * waits for all of them. */
    void (*stream)(struct device *dev, uint32_t s);
    void (*signal)(struct device *dev, uint32_t event);
    void (*await)(struct device *dev, uint32_t event);

    /* Optional, NULL where every step is run as it comes.  step_begin() returns true if it has
     * replayed the step of this shape; else the launches up to step_end() are the step: the first
     * of a shape runs, the second is captured too. */
    bool (*step_begin)(struct device *dev, uint32_t shape);
    void (*step_end)(struct device *dev);

    /* A small copy to the device ahead of the step, without waiting for what runs; and one back
     * that is asked for, not waited for: peek() starts it (unless one has been started and not been
     * read), peeked() reads it if it is there. */
    void (*post)(struct device *dev, void *to, const void *from, size_t bytes);
    void (*peek)(struct device *dev, const void *from, size_t bytes);
    bool (*peeked)(struct device *dev, void *to, size_t bytes);
};

/* What a step is made of, for whoever measures where its time goes. */
enum stage {
    STAGE_OTHER,
    STAGE_FORWARD,
    STAGE_BACKWARD,
    STAGE_COMPENSATE, /* clipping too */
    STAGE_ENCODE,
    STAGE_EXCHANGE,
    STAGE_UPDATE,
    STAGE_APPLY,
    STAGES
};

struct stopwatch {
    double seconds[STAGES];
    double flop[STAGES]; /* of products of matrices, and convolutions */
    enum stage stage;    /* what runs now, ... */
    double since;        /* ... from when on */
};

#define DEVICE_STREAMS   8
#define DEVICE_SCRATCHES 64

struct device {
    const struct device_ops *ops;
    void *state;             /* of the ops */
    void *module;            /* of dlopen(), where kernels are looked up; NULL on the CPU */
    unsigned threads;        /* of the CPU */
    uint32_t current;        /* stream */
    struct stopwatch *watch; /* NULL: nobody measures */

    size_t allocations; /* ever made: the step loop makes none, and a test looks */
    size_t bytes;       /* allocated now */

    bool aside;
    struct scratch {
        size_t taken;
        struct {
            void *memory;
            size_t bytes;
        } block[DEVICE_SCRATCHES];
    } scratch[DEVICE_STREAMS + 1]; /* the last: aside */
};

extern const struct device_ops cpu_device;

/* What the CUDA module exports, as "gradpress_cuda", and what it gets of base.h: a module calls
 * nothing of the program by name. */
struct module_base {
    bool (*fail)(struct error *err, const char *format, ...);
    void (*check_failed)(const char *condition, const char *file, int line);
};
typedef const struct device_ops *device_module(const struct module_base *base);

/* Opens "auto", "cpu", "cuda" or "cuda:N"; auto is CUDA where a GPU answers, else the CPU.
 * threads 0: as many as the machine has. */
bool device_open(struct device *dev, const char *name, unsigned threads, struct error *err);
void device_close(struct device *dev);

/* Whether --device cuda works here, and what it is or why not, as a sentence. */
bool device_probe_cuda(char *text, size_t room);

void device_describe(struct device *dev, char *text, size_t room);
size_t device_memory_free(struct device *dev);

void *device_alloc(struct device *dev, size_t bytes);             /* zeroed, never NULL */
void device_free(struct device *dev, void *memory, size_t bytes); /* memory may be NULL */
void device_upload(struct device *dev, void *to, const void *from, size_t bytes);
void device_download(struct device *dev, void *to, const void *from, size_t bytes);
void device_copy(struct device *dev, void *to, const void *from, size_t bytes);
void device_clear(struct device *dev, void *memory, size_t bytes);
void device_wait(struct device *dev);

/* Memory for a while, of the current stream, with undefined contents: all of it is free again
 * after device_scratch_reset().  The same sequence of calls allocates only the first time. */
void *device_scratch(struct device *dev, size_t bytes);
void device_scratch_reset(struct device *dev);

/* What was taken after the mark is free again: for the turns of a loop. */
size_t device_scratch_mark(const struct device *dev);
void device_scratch_release(struct device *dev, size_t mark);

/* From now on, or no longer, scratch is taken from a set aside: for what comes between or within
 * steps now and then, so that the steps' own stays where it is.  Only while no other stream is at
 * it. */
void device_scratch_aside(struct device *dev, bool aside);

void device_run(struct device *dev, struct kernel *k, size_t n, const void *args);
void device_run_rows(struct device *dev, struct row_kernel *k, size_t rows, size_t columns,
                     const void *args);
void device_run_sums(struct device *dev, struct sum_kernel *k, size_t rows, size_t columns,
                     const void *args);
void device_run_tiles(struct device *dev, struct tile_kernel *k, const struct tiles *l,
                      uint32_t workers, const void *args);

void device_gemm(struct device *dev, const struct gemm *g);

/* The same with the fields of struct gemm by name. */
#define GEMM(dev, ...) device_gemm((dev), &(struct gemm){__VA_ARGS__})

/* out [columns][rows] := in [rows][columns] */
void device_transpose(struct device *dev, const float *in, size_t rows, size_t columns, float *out);
void device_softmax_loss(struct device *dev, const struct softmax_loss *s);

/* y := x convolved with the weights, plus the bias; its gradient in x; and that in the weights, of
 * each worker's images. */
void device_convolve(struct device *dev, const struct convolution *c);
void device_convolve_data(struct device *dev, const struct convolution *c);
void device_convolve_weights(struct device *dev, const struct convolution *c);

void device_select(struct device *dev, const struct selection *s);
/* out[i] := in[0] + ... + in[i - 1]; out may be in. */
void device_scan(struct device *dev, const uint32_t *in, size_t n, uint32_t *out);
void device_sort(struct device *dev, const struct sort *s);

/* What follows is of this stage.  With a watch it waits for the device, so that the watch is right:
 * such a step is no measure of the speed of others. */
void device_stage(struct device *dev, enum stage stage);

uint32_t device_streams(const struct device *dev); /* the most there can be */
void device_stream(struct device *dev, uint32_t s);
void device_signal(struct device *dev, uint32_t event);
void device_await(struct device *dev, uint32_t event);

bool device_step_begin(struct device *dev, uint32_t shape);
void device_step_end(struct device *dev);
void device_post(struct device *dev, void *to, const void *from, size_t bytes);
void device_peek(struct device *dev, const void *from, size_t bytes);
bool device_peeked(struct device *dev, void *to, size_t bytes);

#endif

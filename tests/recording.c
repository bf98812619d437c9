/*
 * recording -- the CPU, with the rule of a device that captures a step and replays it: every
 * launch of the third step of a shape is that of the second, with the same arguments to the byte,
 * and nothing is allocated, uploaded or downloaded inside a step.
 *
 * Two streams, so that the order of signals and waits is part of what is compared.
 */
#include "tests/harness.h"

#include "sim/kernel.h"

#include <stdlib.h>
#include <string.h>

#define SHAPES       8
#define LAUNCH_BYTES 256

struct launch {
    const char *name;
    size_t size;
    unsigned char bytes[LAUNCH_BYTES];
};

static struct {
    unsigned steps[SHAPES]; /* begun, of each shape */
    struct launch *launch[SHAPES];
    size_t count[SHAPES];
    size_t at; /* of the third step */
    bool inside;
    uint32_t shape;
    unsigned compared;
} record;

unsigned recording_compared(void)
{
    return record.compared;
}

static void note(const char *name, const void *bytes, size_t size)
{
    struct launch l = {.name = name, .size = size};
    size_t *count = &record.count[record.shape];

    CHECK(size <= LAUNCH_BYTES);
    if (!record.inside)
        return;
    memcpy(l.bytes, bytes, size);
    if (record.steps[record.shape] == 2) {
        record.launch[record.shape] =
            realloc(record.launch[record.shape], (*count + 1) * sizeof(l));
        record.launch[record.shape][(*count)++] = l;
    } else if (record.steps[record.shape] >= 3) {
        const struct launch *second = &record.launch[record.shape][record.at++];

        CHECK(record.at <= *count && "the third step launches more than the second");
        CHECK(strcmp(second->name, name) == 0 && second->size == size);
        CHECK(memcmp(second->bytes, l.bytes, size) == 0 && "arguments changed between steps");
    }
}

static bool recording_step_begin(struct device *dev, uint32_t shape)
{
    CHECK(shape < SHAPES && !record.inside);
    record.shape = shape;
    record.steps[shape]++;
    record.at = 0;
    record.inside = true;
    return false;
}

static void recording_step_end(struct device *dev)
{
    if (record.steps[record.shape] >= 3) {
        CHECK(record.at == record.count[record.shape]);
        record.compared++;
    }
    record.inside = false;
}

static void recording_stream(struct device *dev, uint32_t s)
{
    note("stream", &s, sizeof(s));
}

static void recording_signal(struct device *dev, uint32_t event)
{
    note("signal", &event, sizeof(event));
}

static void recording_await(struct device *dev, uint32_t event)
{
    note("await", &event, sizeof(event));
}

static void recording_run(struct device *dev, struct kernel *k, size_t n, const void *args)
{
    note("n", &n, sizeof(n));
    note(k->name, args, k->args_bytes);
    cpu_device.run(dev, k, n, args);
}

static void recording_run_rows(struct device *dev, struct row_kernel *k, size_t rows,
                               size_t columns, const void *args)
{
    size_t n[] = {rows, columns};

    note("rows", n, sizeof(n));
    note(k->name, args, k->args_bytes);
    cpu_device.run_rows(dev, k, rows, columns, args);
}

static void recording_run_sums(struct device *dev, struct sum_kernel *k, size_t rows,
                               size_t columns, const void *args)
{
    size_t n[] = {rows, columns};

    note("sums", n, sizeof(n));
    note(k->name, args, k->args_bytes);
    cpu_device.run_sums(dev, k, rows, columns, args);
}

static void recording_run_tiles(struct device *dev, struct tile_kernel *k, const struct tiles *l,
                                uint32_t workers, const void *args)
{
    note("tiles", &workers, sizeof(workers));
    note(k->name, args, k->args_bytes);
    cpu_device.run_tiles(dev, k, l, workers, args);
}

static void recording_gemm(struct device *dev, const struct gemm *g)
{
    size_t sizes[] = {g->transpose_a, g->m,        g->n,        g->k,        g->lda,   g->ldb,
                      g->ldc,         g->stride_a, g->stride_b, g->stride_c, g->batch, g->beta > 0};
    const void *places[] = {g->a, g->b, g->c};

    note("gemm sizes", sizes, sizeof(sizes));
    note("gemm places", places, sizeof(places));
    cpu_device.gemm(dev, g);
}

static void recording_transpose(struct device *dev, const float *in, size_t rows, size_t columns,
                                float *out)
{
    const void *places[] = {in, out};

    note("transpose", places, sizeof(places));
    cpu_device.transpose(dev, in, rows, columns, out);
}

static void recording_softmax_loss(struct device *dev, const struct softmax_loss *s)
{
    const void *places[] = {s->logits, s->target, s->loss};

    note("softmax_loss", places, sizeof(places));
    note("scale", &s->scale, sizeof(s->scale));
    cpu_device.softmax_loss(dev, s);
}

static void recording_convolve(struct device *dev, const struct convolution *c)
{
    note("convolve", c, sizeof(*c));
    cpu_device.convolve(dev, c);
}

static void recording_convolve_data(struct device *dev, const struct convolution *c)
{
    note("convolve_data", c, sizeof(*c));
    cpu_device.convolve_data(dev, c);
}

static void recording_convolve_weights(struct device *dev, const struct convolution *c)
{
    note("convolve_weights", c, sizeof(*c));
    cpu_device.convolve_weights(dev, c);
}

static void recording_select(struct device *dev, const struct selection *s)
{
    const void *places[] = {s->x, s->tiles, s->keep, s->threshold, s->ties, s->peak};

    note("select", places, sizeof(places));
    cpu_device.select(dev, s);
}

static void recording_scan(struct device *dev, const uint32_t *in, size_t n, uint32_t *out)
{
    const void *places[] = {in, out};

    note("scan", places, sizeof(places));
    note("n", &n, sizeof(n));
    cpu_device.scan(dev, in, n, out);
}

static void recording_sort(struct device *dev, const struct sort *s)
{
    const void *places[] = {s->key, s->sorted, s->place};

    note("sort", places, sizeof(places));
    cpu_device.sort(dev, s);
}

static void *recording_alloc(struct device *dev, size_t bytes)
{
    CHECK(!(record.inside && record.steps[record.shape] >= 2) && "allocated inside a step");
    return cpu_device.alloc(dev, bytes);
}

static void recording_free(struct device *dev, void *memory)
{
    cpu_device.free(dev, memory);
}

static void recording_upload(struct device *dev, void *to, const void *from, size_t bytes)
{
    CHECK(!record.inside && "the host waits for an upload inside a step");
    cpu_device.upload(dev, to, from, bytes);
}

static void recording_download(struct device *dev, void *to, const void *from, size_t bytes)
{
    CHECK(!record.inside && "the host waits for a download inside a step");
    cpu_device.download(dev, to, from, bytes);
}

static void recording_copy(struct device *dev, void *to, const void *from, size_t bytes)
{
    cpu_device.copy(dev, to, from, bytes);
}

static void recording_clear(struct device *dev, void *memory, size_t bytes)
{
    note("clear", &memory, sizeof(memory));
    cpu_device.clear(dev, memory, bytes);
}

static void recording_wait(struct device *dev)
{
    CHECK(!record.inside && "the host waits for the device inside a step");
}

static void recording_post(struct device *dev, void *to, const void *from, size_t bytes)
{
    cpu_device.post(dev, to, from, bytes);
}

static void recording_peek(struct device *dev, const void *from, size_t bytes)
{
    cpu_device.peek(dev, from, bytes);
}

static bool recording_peeked(struct device *dev, void *to, size_t bytes)
{
    return cpu_device.peeked(dev, to, bytes);
}

static bool recording_open(struct device *dev, unsigned index, struct error *err)
{
    return cpu_device.open(dev, index, err);
}

static void recording_close(struct device *dev)
{
    for (unsigned i = 0; i < SHAPES; i++)
        free(record.launch[i]);
    memset(&record, 0, sizeof(record));
    cpu_device.close(dev);
}

static void recording_describe(struct device *dev, char *text, size_t room)
{
    cpu_device.describe(dev, text, room);
}

static size_t recording_memory_free(struct device *dev)
{
    return cpu_device.memory_free(dev);
}

const struct device_ops recording_device = {
    .name = "recording",
    .chunk_bytes = 1 << 16,
    .open = recording_open,
    .close = recording_close,
    .describe = recording_describe,
    .memory_free = recording_memory_free,
    .alloc = recording_alloc,
    .free = recording_free,
    .upload = recording_upload,
    .download = recording_download,
    .copy = recording_copy,
    .clear = recording_clear,
    .wait = recording_wait,
    .run = recording_run,
    .run_rows = recording_run_rows,
    .run_sums = recording_run_sums,
    .run_tiles = recording_run_tiles,
    .gemm = recording_gemm,
    .transpose = recording_transpose,
    .softmax_loss = recording_softmax_loss,
    .convolve = recording_convolve,
    .convolve_data = recording_convolve_data,
    .convolve_weights = recording_convolve_weights,
    .select = recording_select,
    .scan = recording_scan,
    .sort = recording_sort,
    .stream = recording_stream,
    .signal = recording_signal,
    .await = recording_await,
    .step_begin = recording_step_begin,
    .step_end = recording_step_end,
    .post = recording_post,
    .peek = recording_peek,
    .peeked = recording_peeked,
};

/*
 * guard -- the CPU, made as strict as a GPU: device memory is unreadable except inside a kernel, a
 * copy or a library call, so host code that follows a device pointer dies here, on any machine.
 *
 * All of it lies in one reserved region, so that it is opened and closed by one call; page after
 * page, and never given back.
 */
#include "tests/harness.h"

#include "sim/kernel.h"

#include <string.h>
#include <sys/mman.h>

#define REGION ((size_t)2 << 30)
#define PAGE   ((size_t)4096)

static struct {
    char *base;
    size_t used;
    char *hidden;
    size_t hidden_bytes;
} region;

struct header {
    size_t bytes;
};

static void protect(int how)
{
    if (region.used > 0)
        CHECK(mprotect(region.base, region.used, how) == 0);
    if (region.hidden != NULL)
        CHECK(mprotect(region.hidden, region.hidden_bytes, PROT_NONE) == 0);
}

static void let_in(void)
{
    protect(PROT_READ | PROT_WRITE);
}

static void keep_out(void)
{
    protect(PROT_NONE);
}

static void *guard_alloc(struct device *dev, size_t bytes)
{
    size_t room = (bytes + PAGE - 1) / PAGE * PAGE;
    char *memory;

    if (region.base == NULL) {
        region.base =
            mmap(NULL, REGION, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        CHECK(region.base != MAP_FAILED);
    }
    CHECK(region.used + room + PAGE <= REGION);
    memory = region.base + region.used + PAGE;
    region.used += room + PAGE;
    CHECK(mprotect(memory - PAGE, PAGE, PROT_READ | PROT_WRITE) == 0);
    *(struct header *)(void *)(memory - PAGE) = (struct header){room};
    keep_out();
    return memory;
}

void guard_hide(const void *memory)
{
    union {
        const void *in;
        char *out;
    } block = {memory};

    region.hidden = NULL;
    if (memory == NULL)
        return;
    let_in();
    region.hidden_bytes = ((struct header *)(void *)(block.out - PAGE))->bytes;
    region.hidden = block.out;
    keep_out();
}

static void guard_free(struct device *dev, void *memory)
{
}

static void guard_copy(struct device *dev, void *to, const void *from, size_t bytes)
{
    let_in();
    memmove(to, from, bytes);
    keep_out();
}

static void guard_clear(struct device *dev, void *memory, size_t bytes)
{
    let_in();
    memset(memory, 0, bytes);
    keep_out();
}

static void guard_run(struct device *dev, struct kernel *k, size_t n, const void *args)
{
    let_in();
    cpu_device.run(dev, k, n, args);
    keep_out();
}

static void guard_run_rows(struct device *dev, struct row_kernel *k, size_t rows, size_t columns,
                           const void *args)
{
    let_in();
    cpu_device.run_rows(dev, k, rows, columns, args);
    keep_out();
}

static void guard_run_sums(struct device *dev, struct sum_kernel *k, size_t rows, size_t columns,
                           const void *args)
{
    let_in();
    cpu_device.run_sums(dev, k, rows, columns, args);
    keep_out();
}

static void guard_run_tiles(struct device *dev, struct tile_kernel *k, const struct tiles *l,
                            uint32_t workers, const void *args)
{
    let_in();
    cpu_device.run_tiles(dev, k, l, workers, args);
    keep_out();
}

static void guard_gemm(struct device *dev, const struct gemm *g)
{
    let_in();
    cpu_device.gemm(dev, g);
    keep_out();
}

static void guard_transpose(struct device *dev, const float *in, size_t rows, size_t columns,
                            float *out)
{
    let_in();
    cpu_device.transpose(dev, in, rows, columns, out);
    keep_out();
}

static void guard_softmax_loss(struct device *dev, const struct softmax_loss *s)
{
    let_in();
    cpu_device.softmax_loss(dev, s);
    keep_out();
}

static void guard_convolve(struct device *dev, const struct convolution *c)
{
    let_in();
    cpu_device.convolve(dev, c);
    keep_out();
}

static void guard_convolve_data(struct device *dev, const struct convolution *c)
{
    let_in();
    cpu_device.convolve_data(dev, c);
    keep_out();
}

static void guard_convolve_weights(struct device *dev, const struct convolution *c)
{
    let_in();
    cpu_device.convolve_weights(dev, c);
    keep_out();
}

static void guard_select(struct device *dev, const struct selection *s)
{
    let_in();
    cpu_device.select(dev, s);
    keep_out();
}

static void guard_scan(struct device *dev, const uint32_t *in, size_t n, uint32_t *out)
{
    let_in();
    cpu_device.scan(dev, in, n, out);
    keep_out();
}

static void guard_sort(struct device *dev, const struct sort *s)
{
    let_in();
    cpu_device.sort(dev, s);
    keep_out();
}

static void guard_peek(struct device *dev, const void *from, size_t bytes)
{
    let_in();
    cpu_device.peek(dev, from, bytes);
    keep_out();
}

static bool guard_open(struct device *dev, unsigned index, struct error *err)
{
    return cpu_device.open(dev, index, err);
}

static void guard_close(struct device *dev)
{
    cpu_device.close(dev);
    if (region.base != NULL)
        CHECK(munmap(region.base, REGION) == 0);
    memset(&region, 0, sizeof(region));
}

static void guard_describe(struct device *dev, char *text, size_t room)
{
    cpu_device.describe(dev, text, room);
}

static size_t guard_memory_free(struct device *dev)
{
    return REGION;
}

static void guard_wait(struct device *dev)
{
}

static bool guard_peeked(struct device *dev, void *to, size_t bytes)
{
    return cpu_device.peeked(dev, to, bytes);
}

const struct device_ops guard_device = {
    .name = "guard",
    .chunk_bytes = 4096, /* so that small tests have several chunks */
    .open = guard_open,
    .close = guard_close,
    .describe = guard_describe,
    .memory_free = guard_memory_free,
    .alloc = guard_alloc,
    .free = guard_free,
    .upload = guard_copy,
    .download = guard_copy,
    .copy = guard_copy,
    .clear = guard_clear,
    .wait = guard_wait,
    .run = guard_run,
    .run_rows = guard_run_rows,
    .run_sums = guard_run_sums,
    .run_tiles = guard_run_tiles,
    .gemm = guard_gemm,
    .transpose = guard_transpose,
    .softmax_loss = guard_softmax_loss,
    .convolve = guard_convolve,
    .convolve_data = guard_convolve_data,
    .convolve_weights = guard_convolve_weights,
    .select = guard_select,
    .scan = guard_scan,
    .sort = guard_sort,
    .post = guard_copy,
    .peek = guard_peek,
    .peeked = guard_peeked,
};

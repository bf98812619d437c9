#include "sim/device.h"

#include "sim/kernel.h"

#include <dlfcn.h>
#include <libgen.h>
#include <limits.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The module lies beside the program. */
static void *module_open(struct error *err)
{
    char path[PATH_MAX];
    char program[PATH_MAX];
    ssize_t length = readlink("/proc/self/exe", program, sizeof(program) - 1);
    void *module;

    program[length > 0 ? length : 0] = '\0';
    if (snprintf(path, sizeof(path), "%s/gradpress-cuda.so", dirname(program)) >= (int)sizeof(path))
        path[0] = '\0';
    if (access(path, R_OK) != 0) {
        fail(err, "this gradpress was built without CUDA (there is no '%s')", path);
        return NULL;
    }
    module = dlopen(path, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    if (module == NULL)
        fail(err, "the CUDA module does not load: %s", dlerror());
    return module;
}

static bool open_cuda(struct device *dev, unsigned index, struct error *err)
{
    static const struct module_base base = {fail, check_failed};
    device_module *entry;

    dev->module = module_open(err);
    if (dev->module == NULL)
        return false;
    *(void **)&entry = dlsym(dev->module, "gradpress_cuda");
    CHECK(entry != NULL);
    dev->ops = entry(&base);
    if (dev->ops->open(dev, index, err))
        return true;
    dlclose(dev->module);
    *dev = (struct device){.threads = dev->threads};
    return false;
}

/* cuda:N */
static bool read_index(const char *name, unsigned *index)
{
    const char *digits = name + strlen("cuda:");

    if (strncmp(name, "cuda:", strlen("cuda:")) != 0)
        return false;
    *index = (unsigned)strtoul(digits, NULL, 10);
    return *digits != '\0' && strlen(digits) <= 4 && strspn(digits, "0123456789") == strlen(digits);
}

static bool open_named(struct device *dev, const char *name, struct error *err)
{
    unsigned index;
    bool automatic = strcmp(name, "auto") == 0;

    if (automatic && open_cuda(dev, 0, err))
        return true;
    if (automatic || strcmp(name, "cpu") == 0) {
        dev->ops = &cpu_device;
        return dev->ops->open(dev, 0, err);
    }
    if (strcmp(name, "cuda") == 0)
        return open_cuda(dev, 0, err);
    if (read_index(name, &index))
        return open_cuda(dev, index, err);
    return fail(err, "no such device '%s'; there are auto, cpu, cuda and cuda:N", name);
}

bool device_open(struct device *dev, const char *name, unsigned threads, struct error *err)
{
    *dev = (struct device){.threads = threads > 0 ? threads : (unsigned)omp_get_num_procs()};
    return open_named(dev, name, err);
}

void device_close(struct device *dev)
{
    if (dev->ops == NULL)
        return;
    for (uint32_t s = 0; s <= DEVICE_STREAMS; s++)
        for (size_t i = 0; i < DEVICE_SCRATCHES; i++)
            device_free(dev, dev->scratch[s].block[i].memory, dev->scratch[s].block[i].bytes);
    dev->ops->close(dev);
    if (dev->module != NULL)
        dlclose(dev->module);
    *dev = (struct device){0};
}

bool device_probe_cuda(char *text, size_t room)
{
    struct device dev;
    struct error err;

    if (!device_open(&dev, "cuda", 0, &err)) {
        snprintf(text, room, "%s", err.text);
        return false;
    }
    device_describe(&dev, text, room);
    device_close(&dev);
    return true;
}

void device_describe(struct device *dev, char *text, size_t room)
{
    dev->ops->describe(dev, text, room);
}

size_t device_memory_free(struct device *dev)
{
    return dev->ops->memory_free(dev);
}

void *device_alloc(struct device *dev, size_t bytes)
{
    void *memory = dev->ops->alloc(dev, bytes > 0 ? bytes : 1);

    if (memory == NULL) /* though plan_make() refused what did not fit a moment ago */
        no_memory((double)bytes);
    dev->allocations++;
    dev->bytes += bytes;
    return memory;
}

void device_free(struct device *dev, void *memory, size_t bytes)
{
    if (memory == NULL)
        return;
    dev->ops->free(dev, memory);
    dev->bytes -= bytes;
}

void device_upload(struct device *dev, void *to, const void *from, size_t bytes)
{
    if (bytes > 0)
        dev->ops->upload(dev, to, from, bytes);
}

void device_download(struct device *dev, void *to, const void *from, size_t bytes)
{
    if (bytes > 0)
        dev->ops->download(dev, to, from, bytes);
}

void device_copy(struct device *dev, void *to, const void *from, size_t bytes)
{
    if (bytes > 0 && to != from)
        dev->ops->copy(dev, to, from, bytes);
}

void device_clear(struct device *dev, void *memory, size_t bytes)
{
    if (bytes > 0)
        dev->ops->clear(dev, memory, bytes);
}

void device_wait(struct device *dev)
{
    dev->ops->wait(dev);
}

static struct scratch *scratch_of(struct device *dev)
{
    return &dev->scratch[dev->aside ? DEVICE_STREAMS : dev->current];
}

void *device_scratch(struct device *dev, size_t bytes)
{
    struct scratch *s = scratch_of(dev);
    size_t i = s->taken++;

    CHECK(i < DEVICE_SCRATCHES);
    if (s->block[i].bytes < bytes || s->block[i].memory == NULL) {
        device_free(dev, s->block[i].memory, s->block[i].bytes);
        s->block[i].memory = device_alloc(dev, bytes);
        s->block[i].bytes = bytes;
    }
    return s->block[i].memory;
}

void device_scratch_reset(struct device *dev)
{
    scratch_of(dev)->taken = 0;
}

void device_scratch_aside(struct device *dev, bool aside)
{
    CHECK(dev->aside != aside);
    dev->aside = aside;
    if (aside)
        device_scratch_reset(dev);
}

size_t device_scratch_mark(const struct device *dev)
{
    return dev->scratch[dev->current].taken;
}

void device_scratch_release(struct device *dev, size_t mark)
{
    CHECK(mark <= dev->scratch[dev->current].taken);
    dev->scratch[dev->current].taken = mark;
}

/* The module exports <name>_cuda for every kernel. */
static void find(const struct device *dev, const char *name, void **entry)
{
    char symbol[128];

    if (dev->module == NULL || *entry != NULL)
        return;
    snprintf(symbol, sizeof(symbol), "%s_cuda", name);
    *entry = dlsym(dev->module, symbol);
    CHECK(*entry != NULL && "the CUDA module lacks a kernel");
}

void device_run(struct device *dev, struct kernel *k, size_t n, const void *args)
{
    find(dev, k->name, &k->cuda);
    if (n > 0)
        dev->ops->run(dev, k, n, args);
}

void device_run_rows(struct device *dev, struct row_kernel *k, size_t rows, size_t columns,
                     const void *args)
{
    find(dev, k->name, &k->cuda);
    if (rows > 0 && columns > 0)
        dev->ops->run_rows(dev, k, rows, columns, args);
}

void device_run_sums(struct device *dev, struct sum_kernel *k, size_t rows, size_t columns,
                     const void *args)
{
    find(dev, k->name, &k->cuda);
    if (rows > 0 && columns > 0)
        dev->ops->run_sums(dev, k, rows, columns, args);
}

void device_run_tiles(struct device *dev, struct tile_kernel *k, const struct tiles *l,
                      uint32_t workers, const void *args)
{
    find(dev, k->name, &k->cuda);
    if (workers > 0 && l->count > 0)
        dev->ops->run_tiles(dev, k, l, workers, args);
}

void device_gemm(struct device *dev, const struct gemm *g)
{
    CHECK(g->beta == 0 || g->beta == 1);
    if (dev->watch != NULL)
        dev->watch->flop[dev->watch->stage] += 2.0 * (double)(g->m * g->n * g->k * g->batch);
    if (g->m > 0 && g->n > 0 && g->k > 0 && g->batch > 0)
        dev->ops->gemm(dev, g);
}

void device_transpose(struct device *dev, const float *in, size_t rows, size_t columns, float *out)
{
    dev->ops->transpose(dev, in, rows, columns, out);
}

void device_softmax_loss(struct device *dev, const struct softmax_loss *s)
{
    if (s->rows > 0)
        dev->ops->softmax_loss(dev, s);
}

/* Whether there is anything to do. */
static bool convolves(struct device *dev, const struct convolution *c)
{
    double y = (double)convolved(c->height, c->kernel, c->stride, c->pad) *
               convolved(c->width, c->kernel, c->stride, c->pad) * c->filters;
    double images = (double)(c->workers * c->images);
    uint32_t channels = c->channels / c->groups; /* that a filter reads */

    CHECK(c->channels % c->groups == 0 && c->filters % c->groups == 0);
    if (dev->watch != NULL)
        dev->watch->flop[dev->watch->stage] += 2 * images * y * c->kernel * c->kernel * channels;
    return images > 0;
}

void device_convolve(struct device *dev, const struct convolution *c)
{
    if (convolves(dev, c))
        dev->ops->convolve(dev, c);
}

void device_convolve_data(struct device *dev, const struct convolution *c)
{
    if (convolves(dev, c))
        dev->ops->convolve_data(dev, c);
}

void device_convolve_weights(struct device *dev, const struct convolution *c)
{
    if (convolves(dev, c))
        dev->ops->convolve_weights(dev, c);
}

void device_select(struct device *dev, const struct selection *s)
{
    if (s->workers > 0 && s->tiles->tensors > 0)
        dev->ops->select(dev, s);
}

void device_scan(struct device *dev, const uint32_t *in, size_t n, uint32_t *out)
{
    if (n > 0)
        dev->ops->scan(dev, in, n, out);
}

void device_sort(struct device *dev, const struct sort *s)
{
    if (s->rows > 0 && s->n > 0)
        dev->ops->sort(dev, s);
}

void device_stage(struct device *dev, enum stage stage)
{
    struct stopwatch *watch = dev->watch;
    double now;

    if (watch == NULL)
        return;
    dev->ops->wait(dev);
    now = seconds_now();
    watch->seconds[watch->stage] += now - watch->since;
    watch->stage = stage;
    watch->since = now;
}

uint32_t device_streams(const struct device *dev)
{
    return dev->ops->stream != NULL ? DEVICE_STREAMS : 1;
}

void device_stream(struct device *dev, uint32_t s)
{
    CHECK(s < device_streams(dev));
    dev->current = s;
    if (dev->ops->stream != NULL)
        dev->ops->stream(dev, s);
}

void device_signal(struct device *dev, uint32_t event)
{
    if (dev->ops->signal != NULL)
        dev->ops->signal(dev, event);
}

void device_await(struct device *dev, uint32_t event)
{
    if (dev->ops->await != NULL)
        dev->ops->await(dev, event);
}

bool device_step_begin(struct device *dev, uint32_t shape)
{
    return dev->ops->step_begin != NULL && dev->ops->step_begin(dev, shape);
}

void device_step_end(struct device *dev)
{
    if (dev->ops->step_end != NULL)
        dev->ops->step_end(dev);
}

void device_post(struct device *dev, void *to, const void *from, size_t bytes)
{
    dev->ops->post(dev, to, from, bytes);
}

void device_peek(struct device *dev, const void *from, size_t bytes)
{
    dev->ops->peek(dev, from, bytes);
}

bool device_peeked(struct device *dev, void *to, size_t bytes)
{
    return dev->ops->peeked(dev, to, bytes);
}

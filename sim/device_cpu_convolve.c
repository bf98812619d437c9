#include "sim/device_cpu_convolve.h"

#include "sim/device.h"

#include <stdlib.h>
#include <string.h>

#ifdef HAVE_ONEDNN

#include <omp.h>
#include <oneapi/dnnl/dnnl.h>

/*
 * A primitive is compiled for a shape and a number of threads when it is first met, and kept.
 * Weights lie as it likes them best, which is not as we have them: they are packed before, and
 * their gradient is unpacked behind it.
 */

#define DNNL_CHECK(call) CHECK((call) == dnnl_success)

enum direction { FORWARD, DATA, WEIGHTS };

/* What a primitive is for: all of one type, so that two are compared as bytes. */
struct purpose {
    dnnl_dim_t direction, threads, images;
    dnnl_dim_t height, width, channels, y_height, y_width, filters;
    dnnl_dim_t kernel, stride, pad, groups, bias;
};

struct compiled {
    struct purpose purpose;
    dnnl_primitive_t primitive,
        pack;                    /* pack: unpack, of gradients; NULL: they lie well as they are */
    dnnl_memory_t x, y, bias;    /* of ours, told at every call */
    dnnl_memory_t packed, plain; /* weights */
    struct compiled *next;
};

struct convolver {
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    struct compiled *first;
};

struct convolver *convolver_create(void)
{
    struct convolver *all = allocate(1, sizeof(*all));

    DNNL_CHECK(dnnl_engine_create(&all->engine, dnnl_cpu, 0));
    DNNL_CHECK(dnnl_stream_create(&all->stream, all->engine, dnnl_stream_default_flags));
    return all;
}

static void destroy_memory(dnnl_memory_t memory)
{
    if (memory != NULL)
        dnnl_memory_destroy(memory);
}

void convolver_destroy(struct convolver *all)
{
    while (all->first != NULL) {
        struct compiled *c = all->first;

        all->first = c->next;
        dnnl_primitive_destroy(c->primitive);
        if (c->pack != NULL)
            dnnl_primitive_destroy(c->pack);
        destroy_memory(c->x);
        destroy_memory(c->y);
        destroy_memory(c->bias);
        destroy_memory(c->packed);
        destroy_memory(c->plain);
        free(c);
    }
    dnnl_stream_destroy(all->stream);
    dnnl_engine_destroy(all->engine);
    free(all);
}

/* The arguments of a convolution as oneDNN wants them. */
struct described {
    dnnl_memory_desc_t x, y, bias, weights, plain; /* weights: as it likes */
    dnnl_dims_t strides, pad;
};

static void describe(struct described *d, const struct purpose *p)
{
    dnnl_dims_t x = {p->images, p->channels, p->height, p->width};
    dnnl_dims_t y = {p->images, p->filters, p->y_height, p->y_width};
    dnnl_dims_t bias = {p->filters};
    dnnl_dims_t grouped = {p->groups, p->filters / p->groups, p->channels / p->groups, p->kernel,
                           p->kernel};
    dnnl_dims_t single = {p->filters, p->channels, p->kernel, p->kernel};
    bool groups = p->groups > 1;
    dnnl_dim_t *weights = groups ? grouped : single;

    memset(d, 0, sizeof(*d));
    d->strides[0] = d->strides[1] = p->stride;
    d->pad[0] = d->pad[1] = p->pad;
    DNNL_CHECK(dnnl_memory_desc_init_by_tag(&d->x, 4, x, dnnl_f32, dnnl_nhwc));
    DNNL_CHECK(dnnl_memory_desc_init_by_tag(&d->y, 4, y, dnnl_f32, dnnl_nhwc));
    DNNL_CHECK(dnnl_memory_desc_init_by_tag(&d->bias, 1, bias, dnnl_f32, dnnl_a));
    DNNL_CHECK(dnnl_memory_desc_init_by_tag(&d->weights, groups ? 5 : 4, weights, dnnl_f32,
                                            dnnl_format_tag_any));
    DNNL_CHECK(dnnl_memory_desc_init_by_tag(&d->plain, groups ? 5 : 4, weights, dnnl_f32,
                                            groups ? dnnl_abdec : dnnl_ohwi));
}

static dnnl_primitive_desc_t create_forward(const struct convolver *all, const struct purpose *p,
                                            const struct described *d)
{
    dnnl_convolution_desc_t forward;
    dnnl_primitive_desc_t made;

    DNNL_CHECK(dnnl_convolution_forward_desc_init(
        &forward, dnnl_forward_training, dnnl_convolution_direct, &d->x, &d->weights,
        p->bias ? &d->bias : NULL, &d->y, d->strides, d->pad, d->pad));
    DNNL_CHECK(dnnl_primitive_desc_create(&made, &forward, NULL, all->engine, NULL));
    return made;
}

/* Backward: with the forward's as a hint. */
static dnnl_primitive_desc_t create(const struct convolver *all, const struct purpose *p,
                                    const struct described *d)
{
    dnnl_primitive_desc_t forward = create_forward(all, p, d), made;
    dnnl_convolution_desc_t backward;

    if (p->direction == FORWARD)
        return forward;
    if (p->direction == DATA)
        DNNL_CHECK(dnnl_convolution_backward_data_desc_init(&backward, dnnl_convolution_direct,
                                                            &d->x, &d->weights, &d->y, d->strides,
                                                            d->pad, d->pad));
    else
        DNNL_CHECK(dnnl_convolution_backward_weights_desc_init(&backward, dnnl_convolution_direct,
                                                               &d->x, &d->weights, NULL, &d->y,
                                                               d->strides, d->pad, d->pad));
    DNNL_CHECK(dnnl_primitive_desc_create(&made, &backward, NULL, all->engine, forward));
    DNNL_CHECK(dnnl_primitive_desc_destroy(forward));
    return made;
}

static dnnl_memory_t memory_of(const struct convolver *all, const dnnl_memory_desc_t *like,
                               void *where)
{
    dnnl_memory_t memory;

    DNNL_CHECK(dnnl_memory_create(&memory, like, all->engine, where));
    return memory;
}

static void create_pack(const struct convolver *all, struct compiled *c,
                        const dnnl_memory_desc_t *plain, const dnnl_memory_desc_t *packed)
{
    bool unpacks = c->purpose.direction == WEIGHTS;
    dnnl_primitive_desc_t made;

    if (dnnl_memory_desc_equal(plain, packed))
        return;
    DNNL_CHECK(dnnl_reorder_primitive_desc_create(&made, unpacks ? packed : plain, all->engine,
                                                  unpacks ? plain : packed, all->engine, NULL));
    DNNL_CHECK(dnnl_primitive_create(&c->pack, made));
    DNNL_CHECK(dnnl_primitive_desc_destroy(made));
}

static struct compiled *compile(struct convolver *all, const struct purpose *p)
{
    struct compiled *c = allocate(1, sizeof(*c));
    struct described d;
    dnnl_primitive_desc_t made;
    const dnnl_memory_desc_t *weights;

    describe(&d, p);
    made = create(all, p, &d);
    weights = dnnl_primitive_desc_query_md(
        made, p->direction == WEIGHTS ? dnnl_query_diff_weights_md : dnnl_query_weights_md, 0);
    c->purpose = *p;
    DNNL_CHECK(dnnl_primitive_create(&c->primitive, made));
    create_pack(all, c, &d.plain, weights);
    c->x = memory_of(all, &d.x, DNNL_MEMORY_NONE);
    c->y = memory_of(all, &d.y, DNNL_MEMORY_NONE);
    c->bias = memory_of(all, &d.bias, DNNL_MEMORY_NONE);
    c->plain = memory_of(all, &d.plain, DNNL_MEMORY_NONE);
    c->packed = memory_of(all, weights, c->pack != NULL ? DNNL_MEMORY_ALLOCATE : DNNL_MEMORY_NONE);
    DNNL_CHECK(dnnl_primitive_desc_destroy(made));
    c->next = all->first;
    all->first = c;
    return c;
}

static struct compiled *find(struct convolver *all, enum direction direction, size_t images,
                             const struct convolution *c)
{
    struct purpose p = {
        .direction = direction,
        .threads = omp_get_max_threads(),
        .images = (dnnl_dim_t)images,
        .height = c->height,
        .width = c->width,
        .channels = c->channels,
        .y_height = convolved(c->height, c->kernel, c->stride, c->pad),
        .y_width = convolved(c->width, c->kernel, c->stride, c->pad),
        .filters = c->filters,
        .kernel = c->kernel,
        .stride = c->stride,
        .pad = c->pad,
        .groups = c->groups,
        .bias = direction == FORWARD && c->bias != NULL,
    };

    for (struct compiled *known = all->first; known != NULL; known = known->next)
        if (memcmp(&known->purpose, &p, sizeof(p)) == 0)
            return known;
    return compile(all, &p);
}

/* oneDNN's handles are not const, though it only reads what is read. */
static void put(dnnl_memory_t memory, const void *where)
{
    union {
        const void *in;
        void *out;
    } handle = {where};

    DNNL_CHECK(dnnl_memory_set_data_handle(memory, handle.out));
}

static void reorder(const struct convolver *all, const struct compiled *c, dnnl_memory_t from,
                    dnnl_memory_t to)
{
    dnnl_exec_arg_t args[] = {{DNNL_ARG_FROM, from}, {DNNL_ARG_TO, to}};

    DNNL_CHECK(dnnl_primitive_execute(c->pack, all->stream, 2, args));
}

/* Weights as the primitive reads them. */
static void give_weights(const struct convolver *all, const struct compiled *c,
                         const float *weights)
{
    put(c->pack != NULL ? c->plain : c->packed, weights);
    if (c->pack != NULL)
        reorder(all, c, c->plain, c->packed);
}

void convolver_forward(struct convolver *all, const struct convolution *c)
{
    const struct compiled *k = find(all, FORWARD, c->workers * c->images, c);
    dnnl_exec_arg_t args[] = {{DNNL_ARG_SRC, k->x},
                              {DNNL_ARG_WEIGHTS, k->packed},
                              {DNNL_ARG_DST, k->y},
                              {DNNL_ARG_BIAS, k->bias}};

    put(k->x, c->x);
    put(k->y, c->y);
    put(k->bias, c->bias);
    give_weights(all, k, c->weights);
    DNNL_CHECK(dnnl_primitive_execute(k->primitive, all->stream, c->bias != NULL ? 4 : 3, args));
}

void convolver_data(struct convolver *all, const struct convolution *c)
{
    const struct compiled *k = find(all, DATA, c->workers * c->images, c);
    dnnl_exec_arg_t args[] = {
        {DNNL_ARG_DIFF_SRC, k->x}, {DNNL_ARG_WEIGHTS, k->packed}, {DNNL_ARG_DIFF_DST, k->y}};

    put(k->x, c->x_grad);
    put(k->y, c->y_grad);
    give_weights(all, k, c->weights);
    DNNL_CHECK(dnnl_primitive_execute(k->primitive, all->stream, 3, args));
}

void convolver_weights(struct convolver *all, const struct convolution *c)
{
    const struct compiled *k = find(all, WEIGHTS, c->images, c);
    dnnl_exec_arg_t args[] = {
        {DNNL_ARG_SRC, k->x}, {DNNL_ARG_DIFF_WEIGHTS, k->packed}, {DNNL_ARG_DIFF_DST, k->y}};
    size_t x = (size_t)c->height * c->width * c->channels * c->images;
    size_t y = (size_t)k->purpose.y_height * (size_t)k->purpose.y_width * c->filters * c->images;

    for (size_t w = 0; w < c->workers; w++) {
        put(k->x, c->x + w * x);
        put(k->y, c->y_grad + w * y);
        put(k->pack != NULL ? k->plain : k->packed, c->weights_grad + w * c->stride_grad);
        DNNL_CHECK(dnnl_primitive_execute(k->primitive, all->stream, 3, args));
        if (k->pack != NULL)
            reorder(all, k, k->packed, k->plain);
    }
}

#else

struct convolver *convolver_create(void)
{
    return NULL;
}

void convolver_destroy(struct convolver *all)
{
}

/* A convolution with what follows from its sizes. */
struct sizes {
    size_t images, height, width; /* of y */
    size_t inputs, outputs;       /* channels and filters of a group */
};

static struct sizes sizes_of(const struct convolution *c)
{
    return (struct sizes){c->workers * c->images,
                          convolved(c->height, c->kernel, c->stride, c->pad),
                          convolved(c->width, c->kernel, c->stride, c->pad),
                          c->channels / c->groups, c->filters / c->groups};
}

/* Where the window at `at` of y begins that has kernel element k at place `to` of x; whether it is
 * there.  Both ways: from y to x, and back. */
static bool place_in_x(const struct convolution *c, size_t at, size_t k, size_t size, size_t *to)
{
    *to = at * c->stride + k - c->pad;
    return at * c->stride + k >= c->pad && *to < size;
}

static bool place_in_y(const struct convolution *c, size_t at, size_t k, size_t size, size_t *to)
{
    if (at + c->pad < k || (at + c->pad - k) % c->stride != 0)
        return false;
    *to = (at + c->pad - k) / c->stride;
    return *to < size;
}

static float dot(const float *x, const float *y, size_t n)
{
    float sum = 0;

#pragma omp simd reduction(+ : sum)
    for (size_t i = 0; i < n; i++)
        sum += x[i] * y[i];
    return sum;
}

static void add_scaled(float *to, float factor, const float *x, size_t n)
{
#pragma omp simd
    for (size_t i = 0; i < n; i++)
        to[i] += factor * x[i];
}

/* One pixel of y. */
static void forward_pixel(const struct convolution *c, const struct sizes *s, const float *image,
                          size_t row, size_t column, float *y)
{
    size_t h, w;

    for (size_t f = 0; f < c->filters; f++) {
        const float *weights = c->weights + f * c->kernel * c->kernel * s->inputs;
        size_t first = f / s->outputs * s->inputs; /* of the group's channels */
        float sum = c->bias != NULL ? c->bias[f] : 0;

        for (size_t i = 0; i < c->kernel; i++)
            for (size_t j = 0; j < c->kernel; j++)
                if (place_in_x(c, row, i, c->height, &h) && place_in_x(c, column, j, c->width, &w))
                    sum += dot(image + (h * c->width + w) * c->channels + first,
                               weights + (i * c->kernel + j) * s->inputs, s->inputs);
        y[f] = sum;
    }
}

void convolver_forward(struct convolver *all, const struct convolution *c)
{
    struct sizes s = sizes_of(c);

#pragma omp parallel for collapse(2) schedule(static)
    for (size_t n = 0; n < s.images; n++)
        for (size_t row = 0; row < s.height; row++)
            for (size_t column = 0; column < s.width; column++)
                forward_pixel(c, &s, c->x + n * c->height * c->width * c->channels, row, column,
                              c->y + ((n * s.height + row) * s.width + column) * c->filters);
}

/* One pixel of x_grad. */
static void data_pixel(const struct convolution *c, const struct sizes *s, const float *image,
                       size_t row, size_t column, float *x)
{
    size_t h, w;

    memset(x, 0, c->channels * sizeof(*x));
    for (size_t i = 0; i < c->kernel; i++) {
        for (size_t j = 0; j < c->kernel; j++) {
            if (!place_in_y(c, row, i, s->height, &h) || !place_in_y(c, column, j, s->width, &w))
                continue;
            for (size_t f = 0; f < c->filters; f++)
                add_scaled(
                    x + f / s->outputs * s->inputs, image[(h * s->width + w) * c->filters + f],
                    c->weights + ((f * c->kernel + i) * c->kernel + j) * s->inputs, s->inputs);
        }
    }
}

void convolver_data(struct convolver *all, const struct convolution *c)
{
    struct sizes s = sizes_of(c);

#pragma omp parallel for collapse(2) schedule(static)
    for (size_t n = 0; n < s.images; n++)
        for (size_t row = 0; row < c->height; row++)
            for (size_t column = 0; column < c->width; column++)
                data_pixel(c, &s, c->y_grad + n * s.height * s.width * c->filters, row, column,
                           c->x_grad + ((n * c->height + row) * c->width + column) * c->channels);
}

/* What one image adds to the gradient of filter f. */
static void weights_of_image(const struct convolution *c, const struct sizes *s, size_t n, size_t f,
                             float *grad)
{
    const float *x = c->x + n * c->height * c->width * c->channels + f / s->outputs * s->inputs;
    const float *y = c->y_grad + n * s->height * s->width * c->filters + f;
    size_t h, w;

    for (size_t row = 0; row < s->height; row++)
        for (size_t column = 0; column < s->width; column++)
            for (size_t i = 0; i < c->kernel; i++)
                for (size_t j = 0; j < c->kernel; j++)
                    if (place_in_x(c, row, i, c->height, &h) &&
                        place_in_x(c, column, j, c->width, &w))
                        add_scaled(grad + (i * c->kernel + j) * s->inputs,
                                   y[(row * s->width + column) * c->filters],
                                   x + (h * c->width + w) * c->channels, s->inputs);
}

void convolver_weights(struct convolver *all, const struct convolution *c)
{
    struct sizes s = sizes_of(c);
    size_t n = c->kernel * c->kernel * s.inputs;

#pragma omp parallel for collapse(2) schedule(static)
    for (size_t worker = 0; worker < c->workers; worker++) {
        for (size_t f = 0; f < c->filters; f++) {
            float *grad = c->weights_grad + worker * c->stride_grad + f * n;

            memset(grad, 0, n * sizeof(*grad));
            for (size_t i = 0; i < c->images; i++)
                weights_of_image(c, &s, worker * c->images + i, f, grad);
        }
    }
}

#endif

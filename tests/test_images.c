/*
 * test_images -- the operators of images: convolutions against a slow one written here, every
 * layer's gradients against finite differences, norms against their definition, and that a worker
 * in a group is as one alone.
 */
#include "tests/harness.h"

#include "models/model.h"
#include "sim/graph.h"
#include "sim/kernel.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define STEP      5e-4f
#define TOLERANCE 2e-2
#define ROUNDING  2e-5
#define PROBES    30
#define CLASSES   5

static const char *device_name = "cpu";
static struct device dev;

static int begin(void **state)
{
    harness_open(&dev, device_name);
    return 0;
}

static int end(void **state)
{
    device_close(&dev);
    return 0;
}

static float *upload(const float *from, size_t n)
{
    float *x = device_alloc(&dev, n * sizeof(*x));

    device_upload(&dev, x, from, n * sizeof(*x));
    return x;
}

static float *download(const float *from, size_t n)
{
    float *x = allocate(n, sizeof(*x));

    device_download(&dev, x, from, n * sizeof(*x));
    return x;
}

static float *random_floats(uint64_t seed, size_t n)
{
    float *x = allocate(n, sizeof(*x));

    harness_floats(seed, x, n);
    return x;
}

/* Convolutions. */

/* workers, images, height, width, channels, filters, kernel, stride, pad, groups */
static const uint32_t shapes[][10] = {
    {1, 2, 8, 8, 3, 16, 3, 1, 1, 1},  {3, 2, 8, 8, 16, 16, 3, 1, 1, 1},
    {2, 3, 9, 7, 16, 32, 3, 2, 1, 1}, {2, 3, 8, 8, 16, 32, 1, 2, 0, 1},
    {1, 1, 12, 12, 1, 6, 5, 1, 0, 1}, {2, 2, 15, 15, 3, 8, 7, 2, 3, 1},
    {2, 2, 6, 6, 8, 12, 3, 1, 1, 4},  {2, 2, 6, 6, 8, 8, 3, 2, 1, 8},
    {2, 1, 4, 4, 64, 64, 3, 1, 1, 1}, {1, 4, 1, 1, 84, 10, 1, 1, 0, 1},
    {2, 3, 5, 5, 5, 7, 4, 3, 2, 1},
};

static struct convolution shape_of(const uint32_t s[10])
{
    return (struct convolution){.workers = s[0],
                                .images = s[1],
                                .height = s[2],
                                .width = s[3],
                                .channels = s[4],
                                .filters = s[5],
                                .kernel = s[6],
                                .stride = s[7],
                                .pad = s[8],
                                .groups = s[9]};
}

/* A convolution and its arrays on the host. */
struct case_of {
    struct convolution c;
    size_t x, y, weights; /* sizes, of all workers but the weights' */
    float *input, *output_grad, *filters, *bias;
};

static struct case_of open_case(const struct convolution *shape)
{
    struct case_of t = {.c = *shape};
    size_t images = shape->workers * shape->images;

    t.x = images * shape->height * shape->width * shape->channels;
    t.y = images * convolved(shape->height, shape->kernel, shape->stride, shape->pad) *
          convolved(shape->width, shape->kernel, shape->stride, shape->pad) * shape->filters;
    t.weights =
        (size_t)shape->filters * shape->kernel * shape->kernel * (shape->channels / shape->groups);
    t.c.stride_grad = t.weights + 37;
    t.input = random_floats(1, t.x);
    t.output_grad = random_floats(2, t.y);
    t.filters = random_floats(3, t.weights);
    t.bias = random_floats(4, shape->filters);
    t.c.x = upload(t.input, t.x);
    t.c.y_grad = upload(t.output_grad, t.y);
    t.c.weights = upload(t.filters, t.weights);
    t.c.bias = upload(t.bias, shape->filters);
    t.c.y = device_alloc(&dev, t.y * sizeof(float));
    t.c.x_grad = device_alloc(&dev, t.x * sizeof(float));
    t.c.weights_grad = device_alloc(&dev, shape->workers * t.c.stride_grad * sizeof(float));
    return t;
}

/* Of memory that is const to a convolution. */
static void release(const float *x, size_t n)
{
    union {
        const float *in;
        void *out;
    } memory = {x};

    device_free(&dev, memory.out, n * sizeof(*x));
}

static void close_case(struct case_of *t)
{
    release(t->c.x, t->x);
    release(t->c.y_grad, t->y);
    release(t->c.weights, t->weights);
    release(t->c.bias, t->c.filters);
    release(t->c.y, t->y);
    release(t->c.x_grad, t->x);
    release(t->c.weights_grad, t->c.workers * t->c.stride_grad);
    free(t->input);
    free(t->output_grad);
    free(t->filters);
    free(t->bias);
}

/* What all three directions are sums of: y[y] += x[x] * weights[w], one after another. */
struct term {
    size_t worker, x, y, w;
};

static bool next_place(const struct convolution *c, const size_t at[7], struct term *t)
{
    size_t height = convolved(c->height, c->kernel, c->stride, c->pad);
    size_t width = convolved(c->width, c->kernel, c->stride, c->pad);
    size_t inputs = c->channels / c->groups, group = at[3] / (c->filters / c->groups);
    ptrdiff_t h = (ptrdiff_t)(at[1] * c->stride + at[4]) - (ptrdiff_t)c->pad;
    ptrdiff_t w = (ptrdiff_t)(at[2] * c->stride + at[5]) - (ptrdiff_t)c->pad;

    if (h < 0 || w < 0 || h >= (ptrdiff_t)c->height || w >= (ptrdiff_t)c->width)
        return false;
    t->worker = at[0] / c->images;
    t->y = ((at[0] * height + at[1]) * width + at[2]) * c->filters + at[3];
    t->x = ((at[0] * c->height + (size_t)h) * c->width + (size_t)w) * c->channels + group * inputs +
           at[6];
    t->w = ((at[3] * c->kernel + at[4]) * c->kernel + at[5]) * inputs + at[6];
    return true;
}

/* The terms in the order of image, row, column, filter, kernel row, kernel column, channel. */
static void each_term(const struct convolution *c, void (*add)(const struct term *t, void *context),
                      void *context)
{
    size_t size[7] = {c->workers * c->images,
                      convolved(c->height, c->kernel, c->stride, c->pad),
                      convolved(c->width, c->kernel, c->stride, c->pad),
                      c->filters,
                      c->kernel,
                      c->kernel,
                      c->channels / c->groups};
    size_t at[7] = {0};

    for (;;) {
        struct term t;
        size_t i = 7;

        if (next_place(c, at, &t))
            add(&t, context);
        while (i > 0 && ++at[i - 1] == size[i - 1])
            at[--i] = 0;
        if (i == 0)
            return;
    }
}

struct sums {
    const struct case_of *of;
    double *y, *x_grad, *weights_grad;
};

static void add_term(const struct term *t, void *context)
{
    struct sums *s = context;

    s->y[t->y] += (double)s->of->input[t->x] * (double)s->of->filters[t->w];
    s->x_grad[t->x] += (double)s->of->output_grad[t->y] * (double)s->of->filters[t->w];
    s->weights_grad[t->worker * s->of->c.stride_grad + t->w] +=
        (double)s->of->output_grad[t->y] * (double)s->of->input[t->x];
}

static void require_near(const char *what, const float *on_device, const double *want, size_t n)
{
    float *got = download(on_device, n);
    double most = 1;

    for (size_t i = 0; i < n; i++)
        most = fabs(want[i]) > most ? fabs(want[i]) : most;
    for (size_t i = 0; i < n; i++)
        if (!(fabs((double)got[i] - want[i]) <= ROUNDING * most))
            fail_msg("%s[%zu] is %.9g, not %.9g", what, i, (double)got[i], want[i]);
    free(got);
}

static void check_case(const struct convolution *shape)
{
    struct case_of t = open_case(shape);
    size_t grads = shape->workers * t.c.stride_grad;
    struct sums s = {&t, allocate(t.y, sizeof(double)), allocate(t.x, sizeof(double)),
                     allocate(grads, sizeof(double))};

    each_term(&t.c, add_term, &s);
    device_convolve_data(&dev, &t.c);
    device_convolve_weights(&dev, &t.c);
    require_near("x_grad", t.c.x_grad, s.x_grad, t.x);
    require_near("weights_grad", t.c.weights_grad, s.weights_grad, grads);
    for (size_t i = 0; i < t.y; i++)
        s.y[i] += (double)t.bias[i % shape->filters];
    device_convolve(&dev, &t.c);
    require_near("y", t.c.y, s.y, t.y);
    for (size_t i = 0; i < t.y; i++)
        s.y[i] -= (double)t.bias[i % shape->filters];
    release(t.c.bias, t.c.filters);
    t.c.bias = NULL;
    device_convolve(&dev, &t.c);
    require_near("y without bias", t.c.y, s.y, t.y);
    close_case(&t);
    free(s.y);
    free(s.x_grad);
    free(s.weights_grad);
}

static void convolutions_are_the_sums_that_define_them(void **state)
{
    for (size_t i = 0; i < ARRAY_LENGTH(shapes); i++) {
        struct convolution shape = shape_of(shapes[i]);

        check_case(&shape);
    }
}

/* Layers. */

enum {
    CONVOLUTION,
    GROUPED,
    NORM,
    BLOCK,
    PROJECTION,
    SUBSAMPLE,
    MAX_POOL,
    AVERAGE_POOL,
    HIDDEN,
    NETS
};

static struct node *normed(struct graph *g, struct node *x, const char *name, uint32_t filters,
                           uint32_t stride)
{
    char norm[32];

    snprintf(norm, sizeof(norm), "%s_norm", name);
    x = graph_convolution(g, x, name, filters,
                          (struct reach){.kernel = 3, .stride = stride, .pad = 1});
    return graph_batch_norm(g, x, norm, NULL, true);
}

/* Two readers of one node: one in a line, one beside. */
static struct node *block(struct graph *g, struct node *x, int net)
{
    uint32_t stride = net == BLOCK ? 1 : 2, filters = net == BLOCK ? 4 : 6;
    struct node *beside = x;
    struct node *y = normed(g, x, "a", filters, stride);

    y = graph_convolution(g, y, "b", filters, (struct reach){.kernel = 3, .pad = 1});
    if (net == SUBSAMPLE)
        beside = graph_subsample(g, x, 2, filters);
    if (net == PROJECTION) {
        beside = graph_convolution(g, x, "c", filters, (struct reach){.kernel = 1, .stride = 2});
        beside = graph_batch_norm(g, beside, "c_norm", NULL, false);
    }
    return graph_batch_norm(g, y, "b_norm", beside, true);
}

static void build(struct graph *g, const double *values, uint32_t classes)
{
    int net = (int)values[0];
    struct reach reach = {.kernel = 3, .stride = 2, .pad = 1, .bias = true, .groups = 1};
    struct node *x = graph_image(g);

    reach.groups = net == GROUPED ? g->image.channels : 1;
    if (net >= NORM && net <= SUBSAMPLE)
        x = normed(g, x, "conv", 4, 1);
    else
        x = graph_convolution(g, x, "conv", 6, reach);
    if (net >= BLOCK && net <= SUBSAMPLE)
        x = block(g, x, net);
    if (net == MAX_POOL)
        x = graph_max_pool(g, x, (struct reach){.kernel = 3, .stride = 2, .pad = 1});
    if (net == AVERAGE_POOL)
        x = graph_average_pool(g, x, (struct reach){.kernel = 2, .stride = 1});
    if (net == HIDDEN)
        x = graph_relu(g, graph_hidden(g, graph_relu(g, x), "hidden", 9));
    if (net == BLOCK)
        x = graph_average_pool(g, x, (struct reach){0});
    graph_softmax_loss(g, graph_linear(g, x, "fc", classes, 0, NULL));
}

static const struct model model = {.name = "test", .build = build};

/* A model, its weights, a batch, and all that a pass wants. */
struct net {
    double values[1];
    struct parameters parameters;
    struct graph graph;
    struct shape shape;
    float *weights, *pixels; /* on the host */
    uint32_t *target;
    float *params, *transposed, *slab, *statistics;
    double *loss;
    uint32_t *top[2], *diverged;
};

#define SIDE     6
#define CHANNELS 3
#define IMAGE    ((size_t)SIDE * SIDE * CHANNELS)

static size_t losses_of(const struct net *n)
{
    return (size_t)n->shape.workers * n->shape.samples;
}

static size_t kept_of(const struct net *n)
{
    return n->shape.workers * n->parameters.kept_length + 1;
}

static void set_weights(struct net *n)
{
    for (uint32_t i = 0; i < n->parameters.count; i++) {
        const struct parameter *p = &n->parameters.item[i];

        harness_floats(i, n->weights + p->at, p->n);
        for (size_t e = 0; e < p->n; e++)
            n->weights[p->at + e] *= 0.6f;
    }
    device_upload(&dev, n->params, n->weights, n->parameters.length * sizeof(float));
}

static struct net *net_open(int which, uint32_t workers, uint32_t samples)
{
    struct net *n = allocate(1, sizeof(*n));
    struct network network = {
        .model = &model, .values = n->values, .classes = CLASSES, .image = {SIDE, SIDE, CHANNELS}};
    size_t floats;

    n->values[0] = which;
    n->shape = (struct shape){workers, samples, 1};
    graph_create(&n->graph, &dev, &n->parameters, &network, n->shape, true);
    graph_place(&n->parameters, false);
    floats = n->parameters.length;
    n->weights = allocate(floats, sizeof(float));
    n->pixels = random_floats(50, losses_of(n) * IMAGE);
    n->target = harness_tokens(51, CLASSES, losses_of(n));
    n->params = device_alloc(&dev, floats * sizeof(float));
    n->transposed = device_alloc(&dev, floats * sizeof(float));
    n->slab = device_alloc(&dev, workers * floats * sizeof(float));
    n->statistics = device_alloc(&dev, kept_of(n) * sizeof(float));
    n->loss = device_alloc(&dev, losses_of(n) * sizeof(double));
    for (int i = 0; i < 2; i++)
        n->top[i] = device_alloc(&dev, losses_of(n) * sizeof(uint32_t));
    n->diverged = device_alloc(&dev, sizeof(uint32_t));
    set_weights(n);
    return n;
}

static void net_close(struct net *n)
{
    size_t bytes = n->parameters.length * sizeof(float);

    device_free(&dev, n->params, bytes);
    device_free(&dev, n->transposed, bytes);
    device_free(&dev, n->slab, n->shape.workers * bytes);
    device_free(&dev, n->statistics, kept_of(n) * sizeof(float));
    device_free(&dev, n->loss, losses_of(n) * sizeof(double));
    for (int i = 0; i < 2; i++)
        device_free(&dev, n->top[i], losses_of(n) * sizeof(uint32_t));
    device_free(&dev, n->diverged, sizeof(uint32_t));
    graph_destroy(&n->graph);
    free(n->weights);
    free(n->pixels);
    free(n->target);
    free(n);
}

/* running: NULL, or what norms go by. */
static void run(struct net *n, bool backward, const float *running)
{
    size_t losses = losses_of(n);

    device_upload(&dev, n->graph.pixels, n->pixels, losses * IMAGE * sizeof(float));
    device_upload(&dev, n->graph.target, n->target, losses * sizeof(uint32_t));
    device_clear(&dev, n->loss, losses * sizeof(double));
    for (int i = 0; i < 2; i++)
        device_clear(&dev, n->top[i], losses * sizeof(uint32_t));
    graph_transpose(&dev, &n->parameters, n->params, n->transposed);
    graph_run(&n->graph, &(struct pass){.shape = n->shape,
                                        .params = n->params,
                                        .transposed = n->transposed,
                                        .slab = backward ? n->slab : NULL,
                                        .stride = n->parameters.length,
                                        .running = running,
                                        .statistics = running == NULL ? n->statistics : NULL,
                                        .loss = n->loss,
                                        .top = {n->top[0], n->top[1]},
                                        .diverged = n->diverged});
}

/* Of each worker, the mean. */
static void worker_losses(struct net *n, double *loss)
{
    double *each = allocate(losses_of(n), sizeof(*each));

    device_download(&dev, each, n->loss, losses_of(n) * sizeof(*each));
    for (uint32_t k = 0; k < n->shape.workers; k++) {
        loss[k] = 0;
        for (uint32_t i = 0; i < n->shape.samples; i++)
            loss[k] += each[k * n->shape.samples + i] / n->shape.samples;
    }
    free(each);
}

/* Of so many elements of one tensor, evenly: every worker's gradient. */
static void check_tensor(struct net *n, const float *slab, const struct parameter *p)
{
    float got[4][PROBES], want[4][PROBES];
    size_t probes = 0;

    for (size_t e = 0; e < p->n; e += (p->n + PROBES - 1) / PROBES) {
        float was = n->weights[p->at + e];
        double loss[2][4];

        for (int side = 0; side < 2; side++) {
            float now = was + (side == 1 ? STEP : -STEP);

            device_upload(&dev, n->params + p->at + e, &now, sizeof(now));
            run(n, false, NULL);
            worker_losses(n, loss[side]);
        }
        device_upload(&dev, n->params + p->at + e, &was, sizeof(was));
        for (uint32_t k = 0; k < n->shape.workers; k++) {
            got[k][probes] = slab[k * n->parameters.length + p->at + e];
            want[k][probes] = (float)((loss[1][k] - loss[0][k]) / (2 * (double)STEP));
        }
        probes++;
    }
    for (uint32_t k = 0; k < n->shape.workers; k++)
        require_close(p->name, got[k], want[k], probes, TOLERANCE);
}

static void gradients_are_finite_differences(void **state)
{
    for (int which = 0; which < NETS; which++) {
        struct net *n = net_open(which, 2, 3);
        float *slab;

        run(n, true, NULL);
        slab = download(n->slab, n->shape.workers * n->parameters.length);
        for (uint32_t i = 0; i < n->parameters.count; i++)
            check_tensor(n, slab, &n->parameters.item[i]);
        free(slab);
        net_close(n);
    }
}

/* Its losses, gradients and statistics; and the same when it runs alone. */
static void check_worker(struct net *all, uint32_t k, const float *slab, const float *statistics)
{
    struct net *one = net_open((int)all->values[0], 1, all->shape.samples);
    size_t kept = one->parameters.kept_length, samples = losses_of(one);
    double loss[4] = {0}, alone[1] = {0};
    float *got, *own;

    memcpy(one->pixels, all->pixels + k * samples * IMAGE, samples * IMAGE * sizeof(float));
    memcpy(one->target, all->target + k * samples, samples * sizeof(uint32_t));
    run(one, true, NULL);
    got = download(one->slab, one->parameters.length);
    own = download(one->statistics, kept + 1);
    worker_losses(all, loss);
    worker_losses(one, alone);
    assert_true(fabs(loss[k] - alone[0]) <= ROUNDING * (1 + alone[0]));
    require_close("statistics", statistics + k * kept, own, kept, ROUNDING);
    for (uint32_t i = 0; i < one->parameters.count; i++) {
        const struct parameter *p = &one->parameters.item[i];

        require_close(p->name, slab + k * one->parameters.length + p->at, got + p->at, p->n,
                      4 * ROUNDING);
    }
    free(got);
    free(own);
    net_close(one);
}

static void a_worker_in_a_group_is_as_one_alone(void **state)
{
    for (int which = 0; which < NETS; which++) {
        struct net *all = net_open(which, 3, 4);
        float *slab, *statistics;

        run(all, true, NULL);
        slab = download(all->slab, 3 * all->parameters.length);
        statistics = download(all->statistics, kept_of(all));
        for (uint32_t k = 0; k < 3; k++)
            check_worker(all, k, slab, statistics);
        free(slab);
        free(statistics);
        net_close(all);
    }
}

/* The norm's input, the convolution's output, is read back; its output is computed again. */
static void check_norm(const struct net *n, const float *running)
{
    const struct node *conv = n->graph.node[1], *norm = n->graph.node[2];
    size_t pixels = (size_t)n->shape.samples * SIDE * SIDE, c = norm->features;
    float *x = download(conv->out, n->shape.workers * pixels * c);
    float *y = download(norm->out, n->shape.workers * pixels * c);
    float *kept = download(n->statistics, kept_of(n));
    const float *gamma = n->weights + n->parameters.item[norm->parameter[0]].at;
    const float *beta = n->weights + n->parameters.item[norm->parameter[1]].at;

    for (size_t k = 0; k < n->shape.workers; k++) {
        for (size_t f = 0; f < c; f++) {
            double mean = 0, square = 0;

            for (size_t i = 0; i < pixels; i++)
                mean += (double)x[(k * pixels + i) * c + f] / (double)pixels;
            for (size_t i = 0; i < pixels; i++)
                square += pow((double)x[(k * pixels + i) * c + f] - mean, 2);
            if (running == NULL) {
                const float *own = kept + k * n->parameters.kept_length + norm->kept;

                assert_true(fabs((double)own[f] - mean) < 1e-5);
                assert_true(fabs((double)own[c + f] - square / ((double)pixels - 1)) < 1e-5);
            } else {
                mean = (double)running[f];
                square = (double)pixels * (double)running[c + f];
            }
            for (size_t i = 0; i < pixels; i++) {
                double want = ((double)x[(k * pixels + i) * c + f] - mean) /
                                  sqrt(square / (double)pixels + 1e-5) * (double)gamma[f] +
                              (double)beta[f];

                want = want > 0 ? want : 0;
                assert_true(fabs((double)y[(k * pixels + i) * c + f] - want) < 1e-5 * (1 + want));
            }
        }
    }
    free(x);
    free(y);
    free(kept);
}

static void norms_are_by_a_workers_own_statistics_or_the_running_ones(void **state)
{
    struct net *n = net_open(NORM, 3, 4);
    float *running = random_floats(7, n->parameters.kept_length), *there;

    for (size_t i = 0; i < n->parameters.kept_length; i++)
        running[i] = fabsf(running[i]) + 0.1f;
    there = upload(running, n->parameters.kept_length);
    run(n, false, NULL);
    check_norm(n, NULL);
    run(n, false, there);
    check_norm(n, running);
    release(there, n->parameters.kept_length);
    free(running);
    net_close(n);
}

/* What a pixel of a window's image should be, by its definition. */
static double window_of(const struct node *y, const float *x, const size_t at[4])
{
    const struct node *in = y->in;
    bool largest = y->integers[0] != NULL;
    double best = -INFINITY, sum = 0;

    for (size_t i = 0; i < y->reach.kernel; i++) {
        for (size_t j = 0; j < y->reach.kernel; j++) {
            size_t h = at[1] * y->reach.stride + i, w = at[2] * y->reach.stride + j;
            double value;

            if (h < y->reach.pad || w < y->reach.pad || h - y->reach.pad >= in->height ||
                w - y->reach.pad >= in->width)
                continue;
            h = (at[0] * in->height + h - y->reach.pad) * in->width + w - y->reach.pad;
            value = (double)x[h * in->features + at[3]];
            sum += value;
            best = value > best ? value : best;
        }
    }
    return largest ? best : sum / (y->reach.kernel * y->reach.kernel);
}

static double subsampled(const struct node *y, const float *x, const size_t at[4])
{
    const struct node *in = y->in;
    size_t first = (y->features - in->features) / 2;
    size_t pixel = (at[0] * in->height + 2 * at[1]) * in->width + 2 * at[2];

    if (at[3] < first || at[3] >= first + in->features)
        return 0;
    return (double)x[pixel * in->features + at[3] - first];
}

static double rectified(const struct node *y, const float *x, const size_t at[4])
{
    size_t i = ((at[0] * y->height + at[1]) * y->width + at[2]) * y->features + at[3];

    return x[i] > 0 ? (double)x[i] : 0;
}

/* Every element of a node's output, from its input's. */
static void check_node(const struct net *n, const struct node *y,
                       double (*want)(const struct node *y, const float *x, const size_t at[4]))
{
    size_t images = losses_of(n), e = 0;
    float *in = download(y->in->out, images * width_of(y->in));
    float *out = download(y->out, images * width_of(y));

    for (size_t image = 0; image < images; image++)
        for (size_t h = 0; h < y->height; h++)
            for (size_t w = 0; w < y->width; w++)
                for (size_t c = 0; c < y->features; c++, e++)
                    assert_true(fabs((double)out[e] - want(y, in, (size_t[]){image, h, w, c})) <
                                1e-6);
    free(in);
    free(out);
}

static void windows_shortcuts_and_relu_are_what_they_say(void **state)
{
    static const struct {
        int net;
        const char *op;
        double (*want)(const struct node *y, const float *x, const size_t at[4]);
    } cases[] = {{MAX_POOL, "max_pool", window_of},
                 {AVERAGE_POOL, "average_pool", window_of},
                 {BLOCK, "average_pool", window_of},
                 {SUBSAMPLE, "subsample", subsampled},
                 {HIDDEN, "relu", rectified}};

    for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
        struct net *n = net_open(cases[i].net, 2, 3);
        uint32_t found = 0;

        run(n, false, NULL);
        for (uint32_t k = 0; k < n->graph.nodes; k++) {
            if (strcmp(n->graph.node[k]->op->name, cases[i].op) != 0)
                continue;
            check_node(n, n->graph.node[k], cases[i].want);
            found++;
        }
        assert_true(found > 0);
        net_close(n);
    }
}

/* A bias before a norm is taken off again: a mean of 1000 must not cost the statistics' digits. */
static void a_mean_far_from_zero_costs_a_norm_nothing(void **state)
{
    struct net *n = net_open(NORM, 1, 8);
    const struct parameter *p = &n->parameters.item[n->graph.node[1]->parameter[0]];
    float *kept[2];

    for (size_t i = 0; i < losses_of(n) * IMAGE; i++)
        n->pixels[i] = 0.25f + 0.125f * n->pixels[i];
    device_clear(&dev, n->params + p->at, p->n * sizeof(float));
    for (size_t f = 0; f < p->dim[0]; f++) { /* the middle of every filter reads channel 0 alone */
        float one = 1;

        device_upload(&dev,
                      n->params + p->at + f * p->dim[1] * p->dim[2] * p->dim[3] + 4 * p->dim[3],
                      &one, sizeof(one));
    }
    run(n, false, NULL);
    kept[0] = download(n->statistics, kept_of(n));
    for (size_t i = 0; i < losses_of(n) * IMAGE; i++)
        n->pixels[i] += 1024;
    run(n, false, NULL);
    kept[1] = download(n->statistics, kept_of(n));
    for (size_t f = 0; f < 4; f++) {
        assert_true(fabs((double)kept[1][f] - (double)kept[0][f] - 1024) < 1e-3);
        assert_true(fabs((double)kept[1][4 + f] / (double)kept[0][4 + f] - 1) < 1e-3);
    }
    free(kept[0]);
    free(kept[1]);
    net_close(n);
}

/* From the logits of one more run, by sorting. */
static void ranks_are_counted(void **state)
{
    struct net *n = net_open(CONVOLUTION, 2, 16);
    size_t losses = losses_of(n);
    uint32_t top[2][32];
    float *logits;

    run(n, false, NULL);
    for (int i = 0; i < 2; i++)
        device_download(&dev, top[i], n->top[i], losses * sizeof(uint32_t));
    assert_int_equal(n->graph.chunk_rows, losses); /* so that all logits can be looked at */
    logits =
        download(n->graph.node[2]->out, losses * CLASSES); /* exponentials, in the same order */
    for (size_t i = 0; i < losses; i++) {
        size_t before = 0;

        for (size_t c = 0; c < CLASSES; c++)
            before += logits[i * CLASSES + c] > logits[i * CLASSES + n->target[i]];
        assert_int_equal(top[0][i], before < 1);
        assert_int_equal(top[1][i], 1); /* of five classes */
    }
    free(logits);
    n->pixels[0] = NAN;
    run(n, false, NULL);
    device_download(&dev, top[0], n->top[0], losses * sizeof(uint32_t));
    assert_int_equal(top[0][0], 0);
    net_close(n);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(convolutions_are_the_sums_that_define_them, begin, end),
        cmocka_unit_test_setup_teardown(gradients_are_finite_differences, begin, end),
        cmocka_unit_test_setup_teardown(a_worker_in_a_group_is_as_one_alone, begin, end),
        cmocka_unit_test_setup_teardown(norms_are_by_a_workers_own_statistics_or_the_running_ones,
                                        begin, end),
        cmocka_unit_test_setup_teardown(a_mean_far_from_zero_costs_a_norm_nothing, begin, end),
        cmocka_unit_test_setup_teardown(windows_shortcuts_and_relu_are_what_they_say, begin, end),
        cmocka_unit_test_setup_teardown(ranks_are_counted, begin, end),
    };
    int failed = 0;

    for (const char *const *d = harness_devices(); *d != NULL; d++) {
        device_name = *d;
        failed += cmocka_run_group_tests_name(device_name, tests, NULL, NULL);
    }
    return failed;
}

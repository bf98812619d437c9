/*
 * test_layers -- the operators of layers_*.c: gradients against finite differences, and that
 * groups of workers, chunks, shapes, states and dropout are what graph.h says they are.
 *
 * A loss is a sum in double of rows in float: with steps of 1e-2 in a weight a difference is
 * right to 1e-3 or so of a tensor's largest gradient.
 */
#include "tests/harness.h"

#include "models/model.h"
#include "sim/graph.h"
#include "sim/kernel.h"
#include "sim/step.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define STEP      1e-2f
#define TOLERANCE 1e-2
#define ROUNDING  2e-5
#define PROBES    40

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

enum { EMBEDDED, HIDDEN, LAYERS, DROPOUT, TIED, SETTINGS };

static void build(struct graph *g, const double *values, uint32_t classes)
{
    float dropout = (float)values[DROPOUT];
    struct node *x =
        graph_embedding(g, "encoder.weight", classes, (uint32_t)values[EMBEDDED], 0.1f);

    x = graph_dropout(g, x, dropout);
    for (uint32_t layer = 0; layer < (uint32_t)values[LAYERS]; layer++) {
        x = graph_lstm(g, x, "rnn", layer, (uint32_t)values[HIDDEN]);
        x = graph_dropout(g, x, dropout);
    }
    x = graph_linear(g, x, "decoder", classes, 0.1f, values[TIED] != 0 ? "encoder.weight" : NULL);
    graph_softmax_loss(g, x);
}

static const struct model model = {.name = "test", .build = build};

static const double just_linear[SETTINGS] = {[EMBEDDED] = 5};
static const double one_lstm[SETTINGS] = {[EMBEDDED] = 5, [HIDDEN] = 7, [LAYERS] = 1};
static const double two_lstms[SETTINGS] = {
    [EMBEDDED] = 5, [HIDDEN] = 6, [LAYERS] = 2, [DROPOUT] = 0.3};
static const double tied_lstm[SETTINGS] = {
    [EMBEDDED] = 6, [HIDDEN] = 6, [LAYERS] = 1, [DROPOUT] = 0.3, [TIED] = 1};

static const double *const all_models[] = {just_linear, one_lstm, two_lstms, tied_lstm};

/* A model, its weights, and all that a pass wants. */
struct net {
    struct parameters parameters;
    struct graph graph;
    float *weights; /* on the host */
    float *params, *transposed, *slab;
    double *loss;
    uint32_t *diverged;
    struct step *step;
    float *state;
    size_t state_samples;
};

static size_t rows_in(struct shape s)
{
    return (size_t)s.workers * s.samples * s.steps;
}

static size_t slab_bytes(const struct net *n)
{
    return n->graph.most.workers * n->parameters.length * sizeof(float);
}

static size_t state_bytes(const struct net *n)
{
    return n->graph.state * n->state_samples * sizeof(float);
}

static void set_weights(struct net *n)
{
    device_upload(&dev, n->params, n->weights, n->parameters.length * sizeof(float));
}

/* With state for 3 samples more than the shape has. */
static struct net *net_open(const double *values, uint32_t classes, struct shape most)
{
    struct net *n = allocate(1, sizeof(*n));
    size_t bytes;

    graph_create(&n->graph, &dev, &n->parameters,
                 &(struct network){.model = &model, .values = values, .classes = classes}, most,
                 true);
    graph_place(&n->parameters, false);
    bytes = n->parameters.length * sizeof(float);
    n->weights = allocate(n->parameters.length, sizeof(float));
    n->params = device_alloc(&dev, bytes);
    n->transposed = device_alloc(&dev, bytes);
    n->slab = device_alloc(&dev, slab_bytes(n));
    n->loss = device_alloc(&dev, rows_in(most) * sizeof(double));
    n->diverged = device_alloc(&dev, sizeof(*n->diverged));
    n->step = device_alloc(&dev, sizeof(*n->step));
    n->state_samples = (size_t)most.workers * most.samples + 3;
    n->state = device_alloc(&dev, state_bytes(n));
    for (uint32_t i = 0; i < n->parameters.count; i++) {
        const struct parameter *p = &n->parameters.item[i];

        harness_floats(i, n->weights + p->at, p->n);
        for (size_t e = 0; e < p->n; e++)
            n->weights[p->at + e] *= 0.6f;
    }
    set_weights(n);
    return n;
}

static void net_close(struct net *n)
{
    size_t bytes = n->parameters.length * sizeof(float);

    device_free(&dev, n->params, bytes);
    device_free(&dev, n->transposed, bytes);
    device_free(&dev, n->slab, slab_bytes(n));
    device_free(&dev, n->loss, rows_in(n->graph.most) * sizeof(double));
    device_free(&dev, n->diverged, sizeof(*n->diverged));
    device_free(&dev, n->step, sizeof(*n->step));
    device_free(&dev, n->state, state_bytes(n));
    graph_destroy(&n->graph);
    free(n->weights);
    free(n);
}

struct batch {
    struct shape shape;
    uint32_t *token, *target;
};

static struct batch batch_open(uint64_t seed, uint32_t classes, struct shape shape)
{
    return (struct batch){shape, harness_tokens(seed, classes, rows_in(shape)),
                          harness_tokens(seed + 1000, classes, rows_in(shape))};
}

static void batch_close(struct batch *b)
{
    free(b->token);
    free(b->target);
}

/* How a net runs over a batch: zero is forward only, without state or dropout. */
struct how {
    bool backward, dropout, state;
    uint64_t seed, number, first_sample;
    size_t state_first;
};

static void run(struct net *n, const struct batch *b, const struct how *how)
{
    size_t rows = rows_in(b->shape);
    struct step step = {.seed = how->seed, .number = how->number};
    struct pass p = {.shape = b->shape,
                     .params = n->params,
                     .transposed = n->transposed,
                     .slab = how->backward ? n->slab : NULL,
                     .stride = n->parameters.length,
                     .step = how->dropout ? n->step : NULL,
                     .first_sample = how->first_sample,
                     .state = how->state ? n->state : NULL,
                     .state_samples = n->state_samples,
                     .state_first = how->state_first,
                     .loss = n->loss,
                     .diverged = n->diverged};

    device_upload(&dev, n->graph.token, b->token, rows * sizeof(*b->token));
    device_upload(&dev, n->graph.target, b->target, rows * sizeof(*b->target));
    device_upload(&dev, n->step, &step, sizeof(step));
    device_clear(&dev, n->loss, rows * sizeof(*n->loss));
    graph_transpose(&dev, &n->parameters, n->params, n->transposed);
    graph_run(&n->graph, &p);
}

static float *floats_of(const float *from, size_t count)
{
    float *x = allocate(count, sizeof(*x));

    device_download(&dev, x, from, count * sizeof(*x));
    return x;
}

static float *slab_of(struct net *n)
{
    return floats_of(n->slab, n->graph.most.workers * n->parameters.length);
}

static double *row_losses(struct net *n, size_t rows)
{
    double *loss = allocate(rows, sizeof(*loss));

    device_download(&dev, loss, n->loss, rows * sizeof(*loss));
    return loss;
}

static void require_rows_close(const double *a, const double *b, size_t n)
{
    for (size_t i = 0; i < n; i++)
        assert_true(fabs(a[i] - b[i]) <= ROUNDING * (1 + fabs(b[i])));
}

/* Every tensor of one worker's part of a slab against another's. */
static void require_gradients(const struct net *n, const float *got, const float *want)
{
    for (uint32_t i = 0; i < n->parameters.count; i++) {
        const struct parameter *p = &n->parameters.item[i];

        require_close(p->name, got + p->at, want + p->at, p->n, ROUNDING);
    }
}

static void require_equal(const float *got, const float *want, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (got[i] != want[i])
            fail_msg("element %zu is %.9g, not %.9g", i, (double)got[i], (double)want[i]);
}

/* Gradients. */

/* Adds sign / (2 step) times each worker's mean loss to difference[workers]. */
static void add_losses(struct net *n, const struct batch *b, const struct how *how,
                       const float *state, double sign, double *difference)
{
    size_t rows = (size_t)b->shape.samples * b->shape.steps;
    double *loss;

    device_upload(&dev, n->state, state, state_bytes(n));
    run(n, b, how);
    loss = row_losses(n, rows * b->shape.workers);
    for (size_t i = 0; i < rows * b->shape.workers; i++)
        difference[i / rows] += sign * loss[i] / (double)rows / (2 * (double)STEP);
    free(loss);
}

/* Of so many elements of one tensor, evenly: every worker's gradient. */
static void check_tensor(struct net *n, const struct batch *b, struct how how, const float *state,
                         const float *slab, const struct parameter *p)
{
    float got[8][PROBES], want[8][PROBES];
    size_t probes = 0;

    how.backward = false;
    for (size_t e = 0; e < p->n; e += (p->n + PROBES - 1) / PROBES) {
        float *w = &n->weights[p->at + e];
        float was = *w;
        double difference[8] = {0};

        for (int sign = -1; sign <= 1; sign += 2) {
            *w = was + (float)sign * STEP;
            device_upload(&dev, n->params + p->at + e, w, sizeof(*w));
            add_losses(n, b, &how, state, sign, difference);
        }
        *w = was;
        device_upload(&dev, n->params + p->at + e, w, sizeof(*w));
        for (uint32_t k = 0; k < b->shape.workers; k++) {
            got[k][probes] = slab[k * n->parameters.length + p->at + e];
            want[k][probes] = (float)difference[k];
        }
        probes++;
    }
    for (uint32_t k = 0; k < b->shape.workers; k++)
        require_close(p->name, got[k], want[k], probes, TOLERANCE);
}

static void check_batch(const double *values, uint32_t classes, struct batch *b, struct how how)
{
    struct net *n = net_open(values, classes, b->shape);
    float *state = allocate(n->graph.state * n->state_samples + 1, sizeof(*state));
    float *slab;

    harness_floats(77, state, n->graph.state * n->state_samples);
    device_upload(&dev, n->state, state, state_bytes(n));
    how.backward = true;
    run(n, b, &how);
    slab = slab_of(n);
    for (uint32_t i = 0; i < n->parameters.count; i++)
        check_tensor(n, b, how, state, slab, &n->parameters.item[i]);
    net_close(n);
    free(state);
    free(slab);
}

static void check_gradients(const double *values, uint32_t classes, struct shape shape,
                            struct how how)
{
    struct batch b = batch_open(1, classes, shape);

    check_batch(values, classes, &b, how);
    batch_close(&b);
}

static const struct how plain = {0};
static const struct how dropping = {.dropout = true, .seed = 9, .number = 3, .first_sample = 5};

static void gradients_of_embedding_and_linear(void **state)
{
    check_gradients(just_linear, 11, (struct shape){1, 3, 5}, plain);
    check_gradients(just_linear, 11, (struct shape){3, 2, 4}, plain);
}

static void gradients_of_an_lstm(void **state)
{
    check_gradients(one_lstm, 11, (struct shape){1, 2, 6}, plain);
    check_gradients(one_lstm, 11, (struct shape){3, 2, 4}, plain);
}

static void gradients_of_an_lstm_that_goes_on_from_a_state(void **state)
{
    check_gradients(one_lstm, 11, (struct shape){2, 2, 3}, (struct how){.state = true});
    check_gradients(two_lstms, 11, (struct shape){2, 2, 3},
                    (struct how){.state = true, .state_first = 2});
}

static void gradients_of_two_layers_with_dropout(void **state)
{
    check_gradients(two_lstms, 11, (struct shape){2, 3, 4}, dropping);
    check_gradients(two_lstms, 11, (struct shape){2, 3, 4}, plain);
}

static void gradients_of_a_tied_weight(void **state)
{
    check_gradients(tied_lstm, 11, (struct shape){2, 3, 4}, dropping);
    check_gradients(tied_lstm, 11, (struct shape){2, 3, 4}, plain);
}

static void gradients_of_the_least_there_is(void **state)
{
    const double least[SETTINGS] = {[EMBEDDED] = 1, [HIDDEN] = 1, [LAYERS] = 1};

    check_gradients(one_lstm, 11, (struct shape){1, 1, 1}, plain);
    check_gradients(least, 2, (struct shape){1, 1, 2}, (struct how){.state = true});
    check_gradients(tied_lstm, 7, (struct shape){4, 1, 1}, dropping);
}

/* The guard's chunks have 18 rows of 60 logits: parts of a worker, one, two, and all of them. */
static void gradients_in_chunks(void **state)
{
    check_gradients(just_linear, 60, (struct shape){3, 5, 9}, plain);
    check_gradients(tied_lstm, 60, (struct shape){3, 4, 6}, dropping);
    check_gradients(just_linear, 60, (struct shape){3, 3, 6}, plain);
    check_gradients(one_lstm, 60, (struct shape){5, 2, 4}, plain);
    check_gradients(just_linear, 60, (struct shape){5, 1, 3}, plain);
}

static void gradients_where_targets_are_missing(void **state)
{
    struct batch b = batch_open(3, 11, (struct shape){2, 3, 4});

    for (size_t i = 0; i < rows_in(b.shape); i += 3)
        b.target[i] = NO_TARGET;
    check_batch(one_lstm, 11, &b, plain);
    batch_close(&b);
}

/* Shapes. */

/* What a net that has run nothing else gives. */
static float *fresh_slab(const double *values, struct shape most, const struct batch *b,
                         const struct how *how)
{
    struct net *n = net_open(values, 60, most);
    float *slab;

    run(n, b, how);
    slab = slab_of(n);
    net_close(n);
    return slab;
}

static void check_shapes(const double *values)
{
    const struct shape most = {3, 4, 6};
    const struct shape shapes[] = {{3, 4, 6}, {3, 4, 2}, {3, 4, 6}, {3, 1, 6}, {1, 3, 5},
                                   {2, 4, 1}, {3, 4, 5}, {1, 1, 1}, {3, 4, 6}};
    struct net *n = net_open(values, 60, most);
    struct how how = {.backward = true, .dropout = true, .seed = 4};

    for (size_t i = 0; i < ARRAY_LENGTH(shapes); i++) {
        struct batch b = batch_open(i + 10, 60, shapes[i]);
        size_t length = b.shape.workers * n->parameters.length;
        float *got, *want;

        how.number = i;
        run(n, &b, &how);
        got = slab_of(n);
        want = fresh_slab(values, most, &b, &how);
        require_equal(got, want, length);
        batch_close(&b);
        free(got);
        free(want);
    }
    net_close(n);
}

static void a_shape_leaves_nothing_for_the_next(void **state)
{
    for (size_t i = 0; i < ARRAY_LENGTH(all_models); i++)
        check_shapes(all_models[i]);
}

/* And nothing is written behind a tensor. */
static void padding_stays_as_it_is(void **state)
{
    struct batch b = batch_open(5, 11, (struct shape){2, 3, 4});

    for (size_t m = 0; m < ARRAY_LENGTH(all_models); m++) {
        struct net *n = net_open(all_models[m], 11, b.shape);
        float *slab;

        run(n, &b, &(struct how){.backward = true});
        slab = slab_of(n);
        for (uint32_t i = 0; i < n->parameters.count; i++) {
            const struct parameter *p = &n->parameters.item[i];

            for (size_t e = p->n; e % TILE != 0; e++)
                for (size_t w = 0; w < 2; w++)
                    assert_true(slab[w * n->parameters.length + p->at + e] == 0);
        }
        net_close(n);
        free(slab);
    }
    batch_close(&b);
}

/* Groups. */

/* The batch of samples first ... first + samples - 1, as one worker's. */
static struct batch part_of(const struct batch *b, size_t first, struct shape shape)
{
    size_t at = first * b->shape.steps;
    struct batch part = batch_open(0, 2, shape);

    memcpy(part.token, b->token + at, rows_in(shape) * sizeof(*part.token));
    memcpy(part.target, b->target + at, rows_in(shape) * sizeof(*part.target));
    return part;
}

static void check_group(const double *values)
{
    const struct shape most = {3, 2, 5}, alone = {1, 2, 5};
    struct net *group = net_open(values, 60, most);
    struct net *single = net_open(values, 60, alone);
    struct batch b = batch_open(21, 60, most);
    struct how how = {.backward = true, .dropout = true, .seed = 6, .first_sample = 4};
    size_t rows = rows_in(alone);
    float *slab;
    double *loss;

    run(group, &b, &how);
    slab = slab_of(group);
    loss = row_losses(group, rows_in(most));
    for (uint32_t w = 0; w < most.workers; w++) {
        struct batch part = part_of(&b, (size_t)w * alone.samples, alone);
        float *its_slab;
        double *its_loss;

        how.first_sample = 4 + w * alone.samples;
        run(single, &part, &how);
        its_slab = slab_of(single);
        its_loss = row_losses(single, rows);
        require_gradients(group, slab + w * group->parameters.length, its_slab);
        require_rows_close(loss + w * rows, its_loss, rows);
        batch_close(&part);
        free(its_slab);
        free(its_loss);
    }
    batch_close(&b);
    net_close(group);
    free(slab);
    free(loss);
    net_close(single);
}

static void a_group_is_each_of_its_workers_alone(void **state)
{
    for (size_t i = 0; i < ARRAY_LENGTH(all_models); i++)
        check_group(all_models[i]);
}

/* The mean over workers of their gradients, which weigh the same here. */
static float *mean_gradient(const struct net *n, const float *slab, uint32_t workers)
{
    float *mean = allocate(n->parameters.length, sizeof(*mean));

    for (size_t i = 0; i < workers * n->parameters.length; i++)
        mean[i % n->parameters.length] += slab[i] / (float)workers;
    return mean;
}

static void dropout_is_the_same_however_the_batch_is_split(void **state)
{
    const struct shape shapes[] = {{1, 6, 5}, {2, 3, 5}, {3, 2, 5}, {6, 1, 5}};
    struct batch b = batch_open(31, 60, shapes[0]);
    struct how how = {.backward = true, .dropout = true, .seed = 8, .number = 2};
    float *want = NULL;
    double *want_loss = NULL;

    for (size_t i = 0; i < ARRAY_LENGTH(shapes); i++) {
        struct net *n = net_open(two_lstms, 60, shapes[i]);
        double *loss;
        float *slab, *mean;

        b.shape = shapes[i];
        run(n, &b, &how);
        slab = slab_of(n);
        mean = mean_gradient(n, slab, shapes[i].workers);
        loss = row_losses(n, rows_in(b.shape));
        if (i > 0) {
            require_gradients(n, mean, want);
            require_rows_close(loss, want_loss, rows_in(b.shape));
        }
        net_close(n);
        free(slab);
        free(i > 0 ? mean : NULL);
        free(i > 0 ? loss : NULL);
        want = i > 0 ? want : mean;
        want_loss = i > 0 ? want_loss : loss;
    }
    batch_close(&b);
    free(want);
    free(want_loss);
}

/* State. */

/* 6 steps at once, and 3 and 3: the same losses, the same state behind. */
static void a_state_is_carried_on(void **state)
{
    const struct shape whole = {2, 2, 6}, half = {2, 2, 3};
    struct net *n = net_open(two_lstms, 11, whole);
    struct batch b = batch_open(41, 11, whole);
    struct how how = {.state = true, .state_first = 2};
    float *all, *parts;
    double *loss = NULL;

    run(n, &b, &how);
    loss = row_losses(n, rows_in(whole));
    all = floats_of(n->state, n->graph.state * n->state_samples);
    device_clear(&dev, n->state, state_bytes(n));
    for (size_t part = 0; part < 2; part++) {
        struct batch h = batch_open(0, 11, half);
        double *its;

        for (size_t i = 0; i < rows_in(half); i++) {
            h.token[i] = b.token[i / 3 * 6 + part * 3 + i % 3];
            h.target[i] = b.target[i / 3 * 6 + part * 3 + i % 3];
        }
        run(n, &h, &how);
        its = row_losses(n, rows_in(half));
        for (size_t i = 0; i < rows_in(half); i += 3)
            require_rows_close(its + i, loss + i / 3 * 6 + part * 3, 3);
        batch_close(&h);
        free(its);
    }
    parts = floats_of(n->state, n->graph.state * n->state_samples);
    require_close("state", parts, all, n->graph.state * n->state_samples, ROUNDING);
    batch_close(&b);
    net_close(n);
    free(all);
    free(parts);
    free(loss);
}

/* 4 samples from the third on, of 7: the others' state is not theirs. */
static void a_group_touches_its_own_state_only(void **state)
{
    struct net *n = net_open(two_lstms, 11, (struct shape){2, 2, 3});
    struct batch b = batch_open(43, 11, n->graph.most);
    size_t hidden = (size_t)two_lstms[HIDDEN];
    size_t count = n->graph.state * n->state_samples;
    float *before = allocate(count, sizeof(*before));
    float *after;

    assert_int_equal(n->graph.state, 4 * hidden);
    assert_int_equal(n->state_samples, 7);
    harness_floats(3, before, count);
    device_upload(&dev, n->state, before, count * sizeof(*before));
    run(n, &b, &(struct how){.state = true, .state_first = 2});
    after = floats_of(n->state, count);
    for (size_t i = 0; i < count; i++) {
        size_t sample = i / hidden % n->state_samples;

        assert_true((after[i] != before[i]) == (sample >= 2 && sample < 6));
    }
    batch_close(&b);
    net_close(n);
    free(before);
    free(after);
}

static void without_a_state_every_run_begins_at_zero(void **state)
{
    struct net *n = net_open(two_lstms, 11, (struct shape){1, 3, 4});
    struct batch b = batch_open(47, 11, n->graph.most);
    double *first, *second;

    run(n, &b, &(struct how){.state = true});
    first = row_losses(n, rows_in(b.shape));
    run(n, &b, &plain);
    second = row_losses(n, rows_in(b.shape));
    assert_memory_equal(first, second, rows_in(b.shape) * sizeof(*first));
    batch_close(&b);
    net_close(n);
    free(first);
    free(second);
}

/* Dropout. */

/* What dropout at a node lets through of ones, where the embedding's table is all ones. */
static float *let_through(struct net *n, const struct batch *b, uint32_t node, struct how how)
{
    const struct parameter *table = &n->parameters.item[0];
    const struct node *x = n->graph.node[node];
    size_t samples = (size_t)b->shape.workers * b->shape.samples;
    size_t room = (size_t)(b->shape.steps + x->spare) * x->features;
    size_t used = (size_t)b->shape.steps * x->features;
    float *out;

    for (size_t i = 0; i < table->n; i++)
        n->weights[table->at + i] = 1;
    set_weights(n);
    run(n, b, &how);
    out = floats_of(x->out, samples * room);
    for (size_t i = 0; i < samples; i++)
        memmove(out + i * used, out + i * room, used * sizeof(*out));
    return out;
}

/* The share of elements that both keep or both drop. */
static double agreement(const float *a, const float *b, size_t n)
{
    size_t count = 0;

    for (size_t i = 0; i < n; i++)
        count += (a[i] == 0) == (b[i] == 0);
    return (double)count / (double)n;
}

static const double wide[SETTINGS] = {
    [EMBEDDED] = 63, [HIDDEN] = 63, [LAYERS] = 1, [DROPOUT] = 0.3};
static const struct shape wide_shape = {2, 6, 10};

static void dropout_keeps_the_mean(void **state)
{
    struct net *n = net_open(wide, 5, wide_shape);
    struct batch b = batch_open(51, 5, wide_shape);
    size_t count = rows_in(wide_shape) * 63;
    size_t dropped = 0;
    float *x = let_through(n, &b, 1, dropping);

    for (size_t i = 0; i < count; i++) {
        assert_true(x[i] == 0 || x[i] == 1 / (1 - 0.3f));
        dropped += x[i] == 0;
    }
    assert_true(fabs((double)dropped / (double)count - 0.3) < 4 * sqrt(0.3 * 0.7 / (double)count));
    free(x);
    x = let_through(n, &b, 1, plain);
    for (size_t i = 0; i < count; i++)
        assert_true(x[i] == 1);
    batch_close(&b);
    net_close(n);
    free(x);
}

/* Independent masks agree in 0.3^2 + 0.7^2 of their places. */
static void dropout_draws_anew_for_every_seed_step_and_node(void **state)
{
    struct net *n = net_open(wide, 5, wide_shape);
    struct batch b = batch_open(51, 5, wide_shape);
    size_t count = rows_in(wide_shape) * 63;
    float *x = let_through(n, &b, 1, (struct how){.dropout = true, .seed = 1, .number = 1});
    float *other[4] = {
        let_through(n, &b, 1, (struct how){.dropout = true, .seed = 2, .number = 1}),
        let_through(n, &b, 1, (struct how){.dropout = true, .seed = 1, .number = 2}),
        let_through(n, &b, 3, (struct how){.dropout = true, .seed = 1, .number = 1}),
        let_through(n, &b, 1, (struct how){.dropout = true, .seed = 1ull << 32, .number = 1}),
    };
    float *again = let_through(n, &b, 1, (struct how){.dropout = true, .seed = 1, .number = 1});

    require_equal(again, x, count);
    for (size_t i = 0; i < ARRAY_LENGTH(other); i++) {
        assert_true(fabs(agreement(x, other[i], count) - 0.58) < 0.03);
        free(other[i]);
    }
    for (size_t row = 1; row < rows_in(wide_shape); row++)
        assert_true(agreement(x, x + row * 63, 63) < 0.9);
    batch_close(&b);
    net_close(n);
    free(x);
    free(again);
}

static void dropout_follows_the_sample_in_the_global_batch(void **state)
{
    struct net *n = net_open(wide, 5, wide_shape);
    struct batch b = batch_open(51, 5, wide_shape);
    size_t sample = (size_t)wide_shape.steps * 63;
    float *x = let_through(n, &b, 1, (struct how){.dropout = true});
    float *later = let_through(n, &b, 1, (struct how){.dropout = true, .first_sample = 5});

    require_equal(later, x + 5 * sample, 7 * sample);
    batch_close(&b);
    net_close(n);
    free(x);
    free(later);
}

/* The rest. */

/* A row of the table's gradient is the sum over its token's places, in their order. */
static void an_embedding_adds_up_repeated_tokens(void **state)
{
    const struct shape shape = {2, 4, 30};
    const size_t places = 120, features = 5;
    struct net *n = net_open(just_linear, 11, shape);
    struct batch b = batch_open(61, 4, shape);
    float *slab, *grad;

    run(n, &b, &(struct how){.backward = true});
    slab = slab_of(n);
    grad = floats_of(n->graph.node[0]->grad, rows_in(shape) * features);
    for (size_t w = 0; w < 2; w++) {
        float want[11 * 5] = {0};

        for (size_t i = 0; i < places; i++)
            for (size_t j = 0; j < features; j++)
                want[b.token[w * places + i] * features + j] +=
                    grad[(w * places + i) * features + j];
        require_equal(slab + w * n->parameters.length + n->parameters.item[0].at, want,
                      ARRAY_LENGTH(want));
    }
    batch_close(&b);
    net_close(n);
    free(slab);
    free(grad);
}

static void without_a_slab_losses_are_the_same(void **state)
{
    for (size_t i = 0; i < ARRAY_LENGTH(all_models); i++) {
        struct net *n = net_open(all_models[i], 60, (struct shape){3, 2, 5});
        struct batch b = batch_open(71, 60, n->graph.most);
        double *with, *without;

        run(n, &b, &(struct how){.backward = true});
        with = row_losses(n, rows_in(b.shape));
        run(n, &b, &plain);
        without = row_losses(n, rows_in(b.shape));
        assert_memory_equal(with, without, rows_in(b.shape) * sizeof(*with));
        batch_close(&b);
        net_close(n);
        free(with);
        free(without);
    }
}

static void losses_are_added_to_what_is_there(void **state)
{
    struct net *n = net_open(one_lstm, 11, (struct shape){2, 2, 3});
    struct batch b = batch_open(73, 11, n->graph.most);
    struct pass p = {.shape = b.shape,
                     .params = n->params,
                     .transposed = n->transposed,
                     .loss = n->loss,
                     .diverged = n->diverged};
    double *once, *twice;

    run(n, &b, &plain);
    once = row_losses(n, rows_in(b.shape));
    graph_run(&n->graph, &p);
    twice = row_losses(n, rows_in(b.shape));
    for (size_t i = 0; i < rows_in(b.shape); i++)
        assert_true(twice[i] == 2 * once[i]);
    batch_close(&b);
    net_close(n);
    free(once);
    free(twice);
}

static uint32_t diverged(struct net *n)
{
    uint32_t flag;

    device_download(&dev, &flag, n->diverged, sizeof(flag));
    return flag;
}

static void a_loss_that_is_not_finite_sets_the_flag(void **state)
{
    for (size_t i = 0; i < ARRAY_LENGTH(all_models); i++) {
        struct net *n = net_open(all_models[i], 60, (struct shape){3, 4, 6});
        struct batch b = batch_open(81, 60, n->graph.most);

        run(n, &b, &(struct how){.backward = true});
        assert_int_equal(diverged(n), 0);
        b.token[rows_in(b.shape) - 1] = 0;
        n->weights[n->parameters.item[0].at] = NAN;
        set_weights(n);
        run(n, &b, &plain);
        assert_int_equal(diverged(n), 1);
        batch_close(&b);
        net_close(n);
    }
}

static void check_measure(const double *values, struct shape most, bool training)
{
    struct graph *g = allocate(1, sizeof(*g));
    struct parameters *a = allocate(1, sizeof(*a)), *b = allocate(1, sizeof(*b));
    size_t before = dev.bytes;
    size_t allocations = dev.allocations;
    size_t bytes;

    bytes =
        graph_measure(&dev, a, &(struct network){.model = &model, .values = values, .classes = 60},
                      most, training);
    assert_int_equal(dev.allocations, allocations);
    graph_create(g, &dev, b, &(struct network){.model = &model, .values = values, .classes = 60},
                 most, training);
    assert_int_equal(dev.bytes - before, bytes);
    assert_int_equal(g->bytes, bytes);
    assert_memory_equal(a, b, sizeof(*a));
    graph_destroy(g);
    assert_int_equal(dev.bytes, before);
    free(g);
    free(a);
    free(b);
}

static void a_graph_takes_the_bytes_that_were_measured(void **state)
{
    for (size_t i = 0; i < ARRAY_LENGTH(all_models); i++) {
        check_measure(all_models[i], (struct shape){3, 4, 6}, true);
        check_measure(all_models[i], (struct shape){3, 4, 6}, false);
        check_measure(all_models[i], (struct shape){1, 1, 1}, true);
    }
}

/* The weights of a model: where they lie, and what they are at first. */
static void matrices_lie_before_vectors(void **state)
{
    struct net *n = net_open(one_lstm, 60, (struct shape){1, 1, 1});
    struct parameters *all = &n->parameters;
    size_t at = 0;

    assert_int_equal(all->count, 7);
    assert_int_equal(all->compressed, 4);
    for (uint32_t i = 0; i < all->count; i++) {
        const struct parameter *p = &all->item[all->order[i]];

        assert_int_equal(p->at, at);
        assert_int_equal(p->dims, i < all->compressed ? 2 : 1);
        at += (p->n + TILE - 1) / TILE * TILE;
    }
    assert_int_equal(all->length, at);
    graph_place(all, true);
    assert_int_equal(all->compressed, all->count);
    for (uint32_t i = 0; i < all->count; i++)
        assert_int_equal(all->order[i], i);
    assert_int_equal(all->length, at);
    net_close(n);
}

static void initial_weights_do_not_depend_on_their_places(void **state)
{
    struct net *n = net_open(one_lstm, 60, (struct shape){1, 1, 1});
    struct parameters *all = &n->parameters;
    float *a = allocate(all->length, sizeof(*a)), *b = allocate(all->length, sizeof(*b));
    size_t at[16] = {0};

    graph_initial(all, 5, a);
    for (uint32_t i = 0; i < all->count; i++)
        at[i] = all->item[i].at;
    graph_place(all, true);
    graph_initial(all, 5, b);
    for (uint32_t i = 0; i < all->count; i++) {
        const struct parameter *p = &all->item[i];
        double most = 0;

        require_equal(b + p->at, a + at[i], p->n);
        for (size_t e = 0; e < p->n; e++)
            most = fmax(most, fabs((double)b[p->at + e]));
        assert_true(most <= (double)p->bound && most >= 0.8 * (double)p->bound);
    }
    graph_initial(all, 6, a);
    assert_memory_not_equal(a, b, all->length * sizeof(*a));
    net_close(n);
    free(a);
    free(b);
}

#define LAYER_TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        LAYER_TEST(gradients_of_embedding_and_linear),
        LAYER_TEST(gradients_of_an_lstm),
        LAYER_TEST(gradients_of_an_lstm_that_goes_on_from_a_state),
        LAYER_TEST(gradients_of_two_layers_with_dropout),
        LAYER_TEST(gradients_of_a_tied_weight),
        LAYER_TEST(gradients_of_the_least_there_is),
        LAYER_TEST(gradients_in_chunks),
        LAYER_TEST(gradients_where_targets_are_missing),
        LAYER_TEST(a_shape_leaves_nothing_for_the_next),
        LAYER_TEST(padding_stays_as_it_is),
        LAYER_TEST(a_group_is_each_of_its_workers_alone),
        LAYER_TEST(dropout_is_the_same_however_the_batch_is_split),
        LAYER_TEST(a_state_is_carried_on),
        LAYER_TEST(a_group_touches_its_own_state_only),
        LAYER_TEST(without_a_state_every_run_begins_at_zero),
        LAYER_TEST(dropout_keeps_the_mean),
        LAYER_TEST(dropout_draws_anew_for_every_seed_step_and_node),
        LAYER_TEST(dropout_follows_the_sample_in_the_global_batch),
        LAYER_TEST(an_embedding_adds_up_repeated_tokens),
        LAYER_TEST(without_a_slab_losses_are_the_same),
        LAYER_TEST(losses_are_added_to_what_is_there),
        LAYER_TEST(a_loss_that_is_not_finite_sets_the_flag),
        LAYER_TEST(a_graph_takes_the_bytes_that_were_measured),
        LAYER_TEST(matrices_lie_before_vectors),
        LAYER_TEST(initial_weights_do_not_depend_on_their_places),
    };
    int failed = 0;

    for (const char *const *d = harness_devices(); *d != NULL; d++) {
        device_name = *d;
        failed += cmocka_run_group_tests_name(device_name, tests, NULL, NULL);
    }
    return failed;
}

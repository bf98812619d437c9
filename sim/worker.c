#include "sim/kernel.h"
#include "sim/step.h"

/* Which batches move the running statistics of norms: each worker's in turn, worker 0's, or their
 * mean.  In the order of what a regime calls them. */
enum { KEEP_AVERAGE, KEEP_SHARED, KEEP_WORKER0 };

struct workers_scale {
    const double *square;       /* [workers] */
    const float *sample_weight; /* [workers] */
    float threshold;            /* 0: no clipping here */
    float *scale;
    double *norm_sum;
    uint32_t *diverged;
};

/* Clips as torch.nn.utils.clip_grad_norm_ does. */
KERNEL(workers_scale)
{
    float norm = (float)sqrt(a->square[i]);
    float scale = a->sample_weight[i];
    float clip = a->threshold / (scale * norm + 1e-6f);

    a->scale[i] = a->threshold > 0 && clip < 1 ? scale * clip : scale;
    a->norm_sum[i] += (double)norm;
    if (!(norm - norm == 0))
        *a->diverged = 1;
}

struct workers_combine {
    const float *micro; /* [workers][micro][stride] */
    uint32_t micros;
    size_t stride;
    float *grad, *square; /* [workers][stride] */
};

/* A worker's gradient is the mean over its own samples, so over its micro-batches. */
ROW_KERNEL(workers_combine)
{
    const float *micro = a->micro + row * a->micros * a->stride + column;
    float part = 1 / (float)a->micros;
    float sum = 0;
    float square = 0;

    for (uint32_t m = 0; m < a->micros; m++) {
        float g = part * micro[m * a->stride];

        sum += g;
        square += g * g;
    }
    a->grad[row * a->stride + column] = sum;
    a->square[row * a->stride + column] = square;
}

struct workers_keep {
    const float *batch;         /* [workers][micro][kept] */
    const float *sample_weight; /* [workers] 0: took no part */
    uint32_t workers, micros, by;
    size_t kept;
    float *running; /* [kept] */
};

/* A batch's part of a running statistic: PyTorch's momentum. */
#define NEW_PART 0.1f

KERNEL(workers_keep)
{
    float running = a->running[i];
    float sum = 0;
    uint32_t count = 0;

    for (uint32_t k = 0; k < (a->by == KEEP_WORKER0 ? 1 : a->workers); k++) {
        for (uint32_t m = 0; m < a->micros && a->sample_weight[k] > 0; m++) {
            float value = a->batch[((size_t)k * a->micros + m) * a->kept + i];

            if (a->by == KEEP_AVERAGE)
                sum += value;
            else
                running += NEW_PART * (value - running);
            count++;
        }
    }
    if (a->by == KEEP_AVERAGE && count > 0)
        running += NEW_PART * (sum / (float)count - running);
    a->running[i] = running;
}

#ifndef __CUDACC__

#include "sim/server.h"
#include "sim/worker.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Bytes for a tile's results: counts, their scans and a peak; sums of squares, level by level. */
#define SCRATCH_OF_A_TILE (5 * sizeof(uint32_t) + 2 * sizeof(double))

struct method workers_method(const struct config *c)
{
    return (struct method){.compressor = compressor_find(c->compressor.name),
                           .quantiser = quantiser_find(c->quantiser.name),
                           .settings = c->compressor.value,
                           .quantiser_settings = c->quantiser.value};
}

size_t workers_rows(const struct config *c)
{
    return (size_t)c->nodes * c->node_batch * c->data.bptt;
}

uint32_t workers_columns(const struct config *c)
{
    return c->data.sharding == SHARD_SEGMENTS ? c->node_batch : c->node_batch * c->nodes;
}

/* Whether weight decay is added to each worker's gradient. */
static bool decays_locally(const struct config *c)
{
    for (uint32_t i = 0; i < c->phases; i++)
        if (c->phase[i].weight_decay != 0)
            return c->weight_decay_at == DECAY_LOCAL;
    return false;
}

/* Whether memory none must scale or decay gradients before they are sent. */
static bool scales(const struct config *c)
{
    return strcmp(c->memory.name, "none") == 0 &&
           ((c->clip.mode != CLIP_NONE && c->clip.mode != CLIP_GLOBAL) || decays_locally(c) ||
            c->data.sharding == SHARD_SEGMENTS || dataset_find(c->data.name)->kind->images);
}

/* The sizes of the tensors in the order of the arena, to be freed. */
static size_t *sizes_of(const struct parameters *parameters)
{
    size_t *n = allocate(parameters->count, sizeof(*n));

    for (uint32_t i = 0; i < parameters->count; i++)
        n[i] = parameters->item[parameters->order[i]].n;
    return n;
}

/* Of compressed tensors the first dimension; a vector is one row. */
static void tell_rows(struct layout *l, const struct parameters *parameters)
{
    size_t *rows = allocate(l->count, sizeof(*rows));

    for (uint32_t i = 0; i < l->count; i++) {
        const struct parameter *p = &parameters->item[parameters->order[i]];

        rows[i] = p->dims > 1 ? p->dim[0] : 1;
    }
    layout_tell_rows(l, rows);
    free(rows);
}

static struct workers who_they_are(const struct config *c)
{
    struct method method = workers_method(c);

    return (struct workers){.config = c,
                            .method = method,
                            .memory = memory_find(c->memory.name),
                            .count = c->nodes,
                            .server = server_replies(&method, c->exchange)};
}

void workers_describe(struct workers *w, const struct config *c,
                      const struct parameters *parameters)
{
    size_t *n = sizes_of(parameters);

    *w = who_they_are(c);
    layout_describe(&w->all, n, parameters->count);
    layout_describe(&w->compressed, n, parameters->compressed);
    tell_rows(&w->compressed, parameters);
    free(n);
}

void workers_undescribe(struct workers *w)
{
    layout_destroy(&w->compressed);
    layout_destroy(&w->all);
}

static void layouts_create(struct device *dev, const struct parameters *parameters,
                           struct layout *all, struct layout *compressed)
{
    size_t *n = sizes_of(parameters);

    layout_create(all, dev, n, parameters->count, 0);
    layout_create(compressed, dev, n, parameters->compressed, all->length);
    tell_rows(compressed, parameters);
    CHECK(all->length == parameters->length);
    free(n);
}

static struct call call_of(const struct workers *w)
{
    return (struct call){
        .dev = w->dev,
        .layout = &w->compressed,
        .all = w->count,
        .ratio_most = config_ratio_most(w->config),
        .kept = w->memory->residual >= 0,
        .step = w->step,
        .keep = w->keep,
        .common = w->common,
    };
}

/* A method's state that is the same everywhere. */
static void common_create(struct workers *w)
{
    struct call call = call_of(w);

    call.settings = w->config->compressor.value;
    if (w->method.compressor->common == NULL)
        return;
    w->common_bytes = w->method.compressor->common(&call) * sizeof(float);
    call.common = w->common = device_alloc(w->dev, w->common_bytes);
    w->method.compressor->start(&call, w->config->seed);
}

/* The largest shape that a lane's graph meets: micro-batches are workers to it. */
static struct shape lane_shape(const struct config *c, const struct method *method, uint32_t group)
{
    uint32_t micro = method_micro(method);

    return (struct shape){group * micro, c->node_batch / micro, c->data.bptt};
}

static void lane_create(struct workers *w, struct lane *lane, const struct network *network)
{
    const struct config *c = w->config;
    size_t slab = w->group * w->all.length * sizeof(float);
    struct shape most = lane_shape(c, &w->method, w->group);
    struct call call = call_of(w);

    if (network != NULL)
        graph_create(&lane->graph, w->dev, w->parameters, network, most, true);
    lane->slab = device_alloc(w->dev, slab);
    if (method_micro(&w->method) > 1) {
        if (network != NULL)
            lane->micro = device_alloc(w->dev, method_micro(&w->method) * slab);
        lane->square = device_alloc(w->dev, slab);
    }
    if (scales(c))
        lane->scaled = device_alloc(w->dev, slab);
    call.settings = c->compressor.value;
    message_create(&lane->message, &w->method, &call, w->group);
    rounds_create(&lane->rounds, &w->method, &call, w->group);
}

static void reply_create(struct workers *w)
{
    struct call call = call_of(w);

    if (w->server)
        server_create(&w->reply, &call);
}

static size_t traffic_bytes(const struct workers *w)
{
    return (size_t)SENDINGS * w->compressed.count * sizeof(struct traffic);
}

/* The step, what is kept of each tensor and each worker's scale: one block. */
static size_t block_bytes(const struct workers *w)
{
    return sizeof(struct step) + w->compressed.count * sizeof(uint32_t) + w->count * sizeof(float);
}

struct traffic *workers_traffic(const struct workers *w, enum sending sending)
{
    return w->traffic + (size_t)sending * w->compressed.count;
}

size_t workers_params_bytes(const struct workers *w)
{
    return graph_floats(w->parameters) * sizeof(float);
}

/* Of all workers. */
static size_t statistics_bytes(const struct workers *w)
{
    return (size_t)w->count * method_micro(&w->method) * w->parameters->kept_length * sizeof(float);
}

/* A text's words are not told apart as classes are. */
static bool ranks(const struct workers *w)
{
    return dataset_find(w->config->data.name)->kind->images;
}

void workers_create_weights(struct workers *w, struct device *dev, const struct config *c,
                            struct parameters *parameters)
{
    *w = who_they_are(c);
    w->dev = dev;
    w->parameters = parameters;
    layouts_create(dev, parameters, &w->all, &w->compressed);
    w->params = device_alloc(dev, workers_params_bytes(w));
    w->transposed = device_alloc(dev, w->all.length * sizeof(float));
    w->diverged = device_alloc(dev, sizeof(*w->diverged));
}

void workers_create(struct workers *w, struct device *dev, const struct config *c,
                    const struct network *network, struct parameters *parameters, uint32_t group,
                    uint32_t lanes)
{
    size_t rows = workers_rows(c);
    size_t p;

    workers_create_weights(w, dev, c, parameters);
    w->group = group;
    w->lanes = lanes;
    w->state_samples = workers_columns(c);
    p = w->all.length * sizeof(float);
    for (uint32_t i = 0; i < memory_slabs(w->memory); i++)
        w->memory_slab[i] = device_alloc(dev, w->count * p);
    for (uint32_t i = 0; i < method_slabs(&w->method); i++)
        w->own_slab[i] = device_alloc(dev, w->count * p);
    common_create(w);
    reply_create(w);
    w->step = device_alloc(dev, block_bytes(w));
    w->keep = (uint32_t *)(void *)(w->step + 1);
    w->sample_weight = (float *)(void *)(w->keep + w->compressed.count);
    w->scale = device_alloc(dev, w->count * sizeof(*w->scale));
    w->square = device_alloc(dev, w->count * sizeof(*w->square));
    w->norm_sum = device_alloc(dev, w->count * sizeof(*w->norm_sum));
    w->loss_sum = device_alloc(dev, rows * sizeof(*w->loss_sum));
    for (int i = 0; i < 2 && ranks(w); i++)
        w->top[i] = device_alloc(dev, rows * sizeof(*w->top[i]));
    w->statistics = device_alloc(dev, statistics_bytes(w));
    w->traffic = device_alloc(dev, traffic_bytes(w));
    for (uint32_t i = 0; i < w->lanes; i++)
        lane_create(w, &w->lane[i], network);
    w->state = device_alloc(dev, w->state_samples * w->lane[0].graph.state * sizeof(float));
}

void workers_destroy(struct workers *w)
{
    size_t p = w->all.length * sizeof(float);
    size_t rows;

    if (w->dev == NULL)
        return;
    rows = workers_rows(w->config);
    device_free(w->dev, w->state, w->state_samples * w->lane[0].graph.state * sizeof(float));
    for (uint32_t i = 0; i < w->lanes; i++) {
        struct call call = call_of(w);

        rounds_destroy(&w->lane[i].rounds, &w->method, &call, w->group);
        message_destroy(&w->lane[i].message, w->dev, w->group);
        device_free(w->dev, w->lane[i].slab, w->group * p);
        device_free(w->dev, w->lane[i].micro, (size_t)method_micro(&w->method) * w->group * p);
        device_free(w->dev, w->lane[i].square, w->group * p);
        device_free(w->dev, w->lane[i].scaled, w->group * p);
        graph_destroy(&w->lane[i].graph);
    }
    if (w->server)
        server_destroy(&w->reply, w->dev);
    device_free(w->dev, w->traffic, traffic_bytes(w));
    device_free(w->dev, w->diverged, sizeof(*w->diverged));
    device_free(w->dev, w->loss_sum, rows * sizeof(*w->loss_sum));
    for (int i = 0; i < 2; i++)
        device_free(w->dev, w->top[i], rows * sizeof(*w->top[i]));
    device_free(w->dev, w->statistics, statistics_bytes(w));
    device_free(w->dev, w->norm_sum, w->count * sizeof(*w->norm_sum));
    device_free(w->dev, w->square, w->count * sizeof(*w->square));
    device_free(w->dev, w->scale, w->count * sizeof(*w->scale));
    device_free(w->dev, w->step, block_bytes(w));
    device_free(w->dev, w->common, w->common_bytes);
    for (uint32_t i = 0; i < MEMORY_SLABS; i++)
        device_free(w->dev, w->memory_slab[i], w->count * p);
    for (uint32_t i = 0; i < COMPRESSOR_SLABS; i++)
        device_free(w->dev, w->own_slab[i], w->count * p);
    device_free(w->dev, w->transposed, p);
    device_free(w->dev, w->params, workers_params_bytes(w));
    layout_destroy(&w->compressed);
    layout_destroy(&w->all);
    *w = (struct workers){0};
}

/* Of a parameter server, if there is one. */
static size_t reply_bytes(const struct config *c, const struct parameters *parameters)
{
    struct workers w;
    struct call call;
    size_t bytes;

    workers_describe(&w, c, parameters);
    call = call_of(&w);
    bytes = w.server ? server_bytes_needed(&call) : 0;
    workers_undescribe(&w);
    return bytes;
}

size_t workers_bytes(const struct config *c, const struct parameters *parameters)
{
    struct method method = workers_method(c);
    uint32_t slabs = memory_slabs(memory_find(c->memory.name)) + method_slabs(&method);
    size_t rows = workers_rows(c);

    return (size_t)slabs * c->nodes * parameters->length * sizeof(float) +
           (size_t)c->nodes * method_micro(&method) * parameters->kept_length * sizeof(float) +
           rows * (sizeof(double) + 2 * sizeof(uint32_t)) + reply_bytes(c, parameters);
}

struct lane_bytes workers_lane_bytes(struct device *dev, const struct config *c,
                                     const struct network *network, struct parameters *parameters,
                                     uint32_t group)
{
    struct method method = workers_method(c);
    struct shape most = lane_shape(c, &method, group);
    uint32_t micro = method_micro(&method) > 1 ? method_micro(&method) : 0;
    size_t slabs = (scales(c) ? 2 : 1) + (micro > 0) + (network != NULL ? micro : 0);
    struct workers w;
    struct lane_bytes bytes;
    struct call call;

    bytes.activations = network != NULL ? graph_measure(dev, parameters, network, most, true) : 0;
    workers_describe(&w, c, parameters);
    w.dev = dev;
    call = call_of(&w);
    call.workers = group;
    call.settings = c->compressor.value;
    bytes.messages =
        message_bytes_needed(&method, &call, group) + rounds_bytes_needed(&method, &call, group);
    bytes.slab = slabs * (size_t)group * parameters->length * sizeof(float);
    bytes.scratch =
        group * SCRATCH_OF_A_TILE * (parameters->length / TILE + (size_t)parameters->count * TILE) +
        message_weigh_bytes(c->encoding, parameters->compressed, group);
    if (method.compressor->scratch != NULL)
        bytes.scratch += method.compressor->scratch(&call);
    if (w.server)
        bytes.scratch += server_scratch(&call);
    workers_undescribe(&w);
    return bytes;
}

void step_block_create(struct step_block *b, const struct workers *w)
{
    *b = (struct step_block){.size = block_bytes(w)};
    b->bytes = allocate(b->size, 1);
    b->keep = (uint32_t *)(void *)((char *)b->bytes + sizeof(struct step));
    b->sample_weight = (float *)(void *)(b->keep + w->compressed.count);
}

void step_block_destroy(struct step_block *b)
{
    free(b->bytes);
    *b = (struct step_block){0};
}

void step_block_post(const struct step_block *b, const struct workers *w)
{
    memcpy(b->bytes, &b->step, sizeof(b->step));
    device_post(w->dev, w->step, b->bytes, b->size);
}

void workers_begin_epoch(struct workers *w)
{
    device_clear(w->dev, w->state, w->state_samples * w->lane[0].graph.state * sizeof(float));
}

void workers_enter(struct workers *w, struct lane *lane, uint32_t first, uint32_t workers)
{
    const struct config *c = w->config;

    lane->group = (struct memory_call){.call = call_of(w),
                                       .settings = c->memory.value,
                                       .scaled = lane->scaled,
                                       .method = &w->method};
    lane->group.call.first = first;
    lane->group.call.workers = workers;
    lane->group.call.rounds = &lane->rounds;
    lane->group.call.grad = lane->slab;
    lane->group.call.square = lane->square;
    lane->group.call.scale = w->scale + first;
    lane->message.senders = workers;
    if (decays_locally(c))
        lane->group.call.params = w->params;
    for (uint32_t i = 0; i < memory_slabs(w->memory); i++)
        lane->group.slab[i] = w->memory_slab[i] + first * w->all.length;
    for (uint32_t i = 0; i < method_slabs(&w->method); i++)
        lane->group.call.own[i] = w->own_slab[i] + first * w->all.length;
    device_scratch_reset(w->dev);
}

/* Of one of counts that there may be none of. */
static uint32_t *place_of(uint32_t *count, size_t at)
{
    return count != NULL ? count + at : NULL;
}

/* Forward and backward of the group; with micro-batches, each of those is a worker there. */
static void run_graph(struct workers *w, struct lane *lane, uint32_t first, struct shape shape,
                      uint32_t column)
{
    const struct config *c = w->config;
    uint32_t micro = method_micro(&w->method);
    size_t rows = (size_t)c->node_batch * c->data.bptt;
    size_t kept = (size_t)micro * w->parameters->kept_length;
    struct shape parts = {shape.workers * micro, shape.samples / micro, shape.steps};

    graph_run(&lane->graph, &(struct pass){.shape = parts,
                                           .params = w->params,
                                           .transposed = w->transposed,
                                           .slab = micro > 1 ? lane->micro : lane->slab,
                                           .stride = w->all.length,
                                           .step = w->step,
                                           .first_sample = (uint64_t)first * c->node_batch,
                                           .state = w->state,
                                           .state_samples = w->state_samples,
                                           .state_first = column,
                                           .statistics = w->statistics + first * kept,
                                           .loss = w->loss_sum + first * rows,
                                           .top = {place_of(w->top[0], first * rows),
                                                   place_of(w->top[1], first * rows)},
                                           .diverged = w->diverged});
    if (micro > 1)
        LAUNCH_ROWS(w->dev, workers_combine, shape.workers, w->all.length, .micro = lane->micro,
                    .micros = micro, .stride = w->all.length, .grad = lane->slab,
                    .square = lane->square);
}

struct feed workers_feed(const struct graph *g)
{
    return (struct feed){.token = g->token, .target = g->target, .pixels = g->pixels};
}

void workers_gradients(struct workers *w, struct lane *lane, const struct source *data,
                       uint32_t first, struct shape shape)
{
    bool segments = data->how.sharding == SHARD_SEGMENTS;

    workers_enter(w, lane, first, shape.workers);
    if (shape.steps == 0) {
        device_clear(w->dev, lane->slab, shape.workers * w->all.length * sizeof(float));
        if (lane->square != NULL)
            device_clear(w->dev, lane->square, shape.workers * w->all.length * sizeof(float));
        return;
    }
    data->set->kind->batch(data, w->dev, w->step, first, shape.workers,
                           (struct share){shape.samples, shape.steps}, workers_feed(&lane->graph));
    run_graph(w, lane, first, shape, segments ? 0 : first * shape.samples);
}

void workers_keep_statistics(struct workers *w)
{
    size_t kept = w->parameters->kept_length;

    if (kept > 0)
        LAUNCH(w->dev, workers_keep, kept, .batch = w->statistics,
               .sample_weight = w->sample_weight, .workers = w->count,
               .micros = method_micro(&w->method), .by = w->config->keep, .kept = kept,
               .running = w->params + w->parameters->length);
}

void workers_take(struct workers *w, struct lane *lane, uint32_t first, uint32_t workers,
                  const float *grad, const float *square)
{
    size_t bytes = workers * w->all.length * sizeof(float);

    workers_enter(w, lane, first, workers);
    device_upload(w->dev, lane->slab, grad, bytes);
    if (lane->square != NULL)
        device_upload(w->dev, lane->square, square, bytes);
}

/* The threshold for the gradient of a worker, undivided. */
static double clip_threshold(const struct config *c)
{
    switch (c->clip.mode) {
    case CLIP_LOCAL:
        return c->clip.norm;
    case CLIP_LOCAL_SQRT_K:
        return c->clip.norm / sqrt(c->nodes);
    case CLIP_REFERENCE:
        return c->clip.norm * c->nodes;
    default:
        return 0;
    }
}

void workers_clip(struct workers *w, struct lane *lane)
{
    uint32_t first = lane->group.call.first;
    uint32_t workers = lane->group.call.workers;

    layout_squares(&w->all, workers, lane->slab, w->square + first);
    LAUNCH(w->dev, workers_scale, workers, .square = w->square + first,
           .sample_weight = w->sample_weight + first, .threshold = (float)clip_threshold(w->config),
           .scale = w->scale + first, .norm_sum = w->norm_sum + first, .diverged = w->diverged);
}

void workers_compensate(struct workers *w, struct lane *lane)
{
    lane->group.call.wanted = w->memory->compensate(&lane->group);
}

void workers_encode(struct workers *w, struct lane *lane)
{
    method_encode(&w->method, &lane->group.call, &lane->message, &lane->rounds);
    lane->group.call.wanted = NULL;
    if (lane->rounds.first.senders > 0)
        message_weigh(&lane->rounds.first, &w->compressed, ENCODING_RAW,
                      workers_traffic(w, SENT_FIRST), NULL);
    message_weigh(&lane->message, &w->compressed, w->config->encoding,
                  workers_traffic(w, SENT_LAST), NULL);
}

void workers_update(struct workers *w, struct lane *lane)
{
    if (w->memory->update != NULL)
        w->memory->update(&lane->group, &lane->message);
}

struct sent workers_sent(struct workers *w)
{
    struct traffic *traffic = workers_download_traffic(w);
    struct sent sent = sent_sum(traffic, w->compressed.count);

    free(traffic);
    return sent;
}

struct traffic *workers_download_traffic(struct workers *w)
{
    struct traffic *traffic = allocate(1, traffic_bytes(w));

    device_download(w->dev, traffic, w->traffic, traffic_bytes(w));
    return traffic;
}

struct sent sent_sum(const struct traffic *traffic, uint32_t tensors)
{
    return (struct sent){.last = traffic_sum(traffic + (size_t)SENT_LAST * tensors, tensors),
                         .first = traffic_sum(traffic + (size_t)SENT_FIRST * tensors, tensors),
                         .reply = traffic_sum(traffic + (size_t)SENT_REPLY * tensors, tensors)};
}

struct sent sent_of_tensor(const struct traffic *traffic, uint32_t tensors, uint32_t tensor)
{
    return (struct sent){.last = traffic[(size_t)SENT_LAST * tensors + tensor],
                         .first = traffic[(size_t)SENT_FIRST * tensors + tensor],
                         .reply = traffic[(size_t)SENT_REPLY * tensors + tensor]};
}

static struct traffic traffic_since(struct traffic now, struct traffic then)
{
    return (struct traffic){now.entries - then.entries, now.bytes - then.bytes};
}

struct sent sent_since(const struct sent *now, const struct sent *then)
{
    return (struct sent){.last = traffic_since(now->last, then->last),
                         .first = traffic_since(now->first, then->first),
                         .reply = traffic_since(now->reply, then->reply)};
}

void workers_clear_sent(struct workers *w)
{
    device_clear(w->dev, w->traffic, traffic_bytes(w));
}

void workers_reply(struct workers *w, const float *sum)
{
    struct call call = call_of(w);

    if (w->server)
        server_reply(&w->reply, &call, sum, w->config->encoding, workers_traffic(w, SENT_REPLY));
}

bool workers_verify_reply(struct workers *w, struct error *err)
{
    return !w->server || message_verify(&w->reply, &w->compressed, w->config->encoding, err);
}

bool workers_verify(struct workers *w, struct lane *lane, struct error *err)
{
    const struct message *first = &lane->rounds.first;

    return (first->senders == 0 || message_verify(first, &w->compressed, ENCODING_RAW, err)) &&
           message_verify(&lane->message, &w->compressed, w->config->encoding, err);
}

/* The root of the mean over workers of the squares in a column of [K][columns]. */
static double column_norm(const struct workers *w, const double *square, size_t columns,
                          size_t column)
{
    double sum = 0;

    for (uint32_t i = 0; i < w->count; i++)
        sum += square[i * columns + column];
    return sqrt(sum / w->count);
}

double workers_residual_norm(struct workers *w, double *of_tensor)
{
    uint32_t tensors = w->compressed.count;
    size_t pairs = (size_t)w->count * tensors;
    double *square = allocate(pairs + w->count, sizeof(*square));
    double norm;

    if (w->memory->residual >= 0) {
        double *on_device;

        device_scratch_aside(w->dev, true);
        on_device = device_scratch(w->dev, pairs * sizeof(*on_device));
        layout_tensor_squares(&w->compressed, w->count, w->memory_slab[w->memory->residual],
                              on_device);
        layout_worker_sums(&w->compressed, w->count, on_device, w->square);
        device_scratch_aside(w->dev, false);
        device_download(w->dev, square, on_device, pairs * sizeof(*square));
        device_download(w->dev, square + pairs, w->square, w->count * sizeof(*square));
    }
    for (uint32_t i = 0; i < tensors; i++)
        of_tensor[i] = column_norm(w, square, tensors, i);
    norm = column_norm(w, square + pairs, 1, 0);
    free(square);
    return norm;
}

#endif

/*
 * train -- read this first.
 *
 * An epoch is steps, and an evaluation: run.c makes a run of epochs and writes its rows.  A step is:
 *
 *     for each group of workers:
 *         gradients    forward and backward of all its workers at once: worker.c, graph.c
 *         clip         a factor for each worker's gradient
 *         compensate   its memory makes of it what it would like to send: compressors/memory*.c
 *         encode       the compressor makes of that a message, and its bytes are counted
 *         receive      everybody adds the messages to one sum, in worker order: exchange.c
 *         update       the memory takes off what was sent
 *     apply            the optimizer moves the parameters by the sum over K: optimizer.c
 *
 * All of it is launches: the host never waits for the device inside a step.  What changes from
 * step to step lies in one block on the device, so a device may capture a step and replay it.
 */
#include "sim/train.h"

#include "compressors/sparse.h"
#include "models/model.h"
#include "sim/exchange.h"

#include <math.h>
#include <stdlib.h>

/* From 1 at 0 to 0 at 1. */
static double half_cosine(double x)
{
    return (1 + cos(x * 3.14159265358979323846)) / 2;
}

/* A warm-up rises step by step; a cosine begins where it ends. */
static double learning_rate(const struct train *t, uint32_t epoch, uint64_t step)
{
    const struct config *c = t->config;
    double lr = config_phase(c, epoch)->lr * t->lr_factor;
    uint64_t last = t->steps * c->epochs - 1;
    double rises = c->lr_warmup.epochs * (double)t->steps;
    double from = c->lr_warmup.from > 0 ? c->lr_warmup.from : 1.0 / c->workers;

    if (c->lr_rule.rule == LR_LINEAR && last > 0)
        lr *= 1 - (1 - c->lr_rule.to) * (double)step / (double)last;
    if (c->lr_rule.rule == LR_COSINE && (double)step > rises)
        lr *= c->lr_rule.to + (1 - c->lr_rule.to) * half_cosine(((double)step - rises) /
                                                                ((double)(last + 1) - rises));
    if ((double)step < rises)
        lr *= from + (1 - from) * (double)step / rises;
    return lr;
}

static const struct source_kind *kind_of(const struct train *t)
{
    return t->data.set->kind;
}

/* Tokens or images. */
static uint64_t samples_of(const struct train *t, uint64_t step, uint32_t worker)
{
    struct share share = kind_of(t)->share(&t->data, step, worker);

    return (uint64_t)share.samples * share.steps;
}

/* What a residual in units of lr times the gradient is to be multiplied with. */
static float lr_change(struct train *t, double lr)
{
    double change = t->lr_before > 0 && lr > 0 ? t->lr_before / lr : 1;

    t->lr_before = lr;
    return (float)change;
}

uint64_t train_post(struct train *t, uint32_t epoch, uint64_t step)
{
    const struct config *c = t->config;
    const struct phase *phase = config_phase(c, epoch);
    uint64_t number = epoch * t->steps + step;
    double ratio = config_ratio(c, epoch, number);
    double lr = learning_rate(t, epoch, number);
    double workers = c->nodes;
    uint64_t samples = 0;

    t->block.step = (struct step){
        .seed = c->seed,
        .number = number,
        .position = kind_of(t)->position(&t->data, step),
        .ratio = ratio,
        .lr = (float)lr,
        .lr_change = lr_change(t, lr),
        .momentum = (float)phase->momentum,
        .weight_decay = (float)phase->weight_decay,
        .nesterov = phase->nesterov,
    };
    optimizer_numbers(&t->optimizer, c, lr, &t->block.step);
    CHECK(ratio <= config_ratio_most(c) && "messages have room for no more");
    for (uint32_t i = 0; i < t->workers.compressed.count; i++)
        t->block.keep[i] = (uint32_t)sparse_keep(t->workers.compressed.n[i], ratio);
    for (uint32_t k = 0; k < c->nodes; k++)
        samples += samples_of(t, step, k);
    for (uint32_t k = 0; k < c->nodes; k++)
        t->block.sample_weight[k] =
            (float)(workers * (double)samples_of(t, step, k) / (double)samples);
    step_block_post(&t->block, &t->workers);
    return samples;
}

/* How many workers from first on are done together: those of a group do as much as each other. */
static uint32_t group_from(const struct train *t, uint64_t step, uint32_t first)
{
    const struct workers *w = &t->workers;
    uint64_t samples = samples_of(t, step, first);
    uint32_t group = 1;

    while (group < w->group && first + group < w->count &&
           samples_of(t, step, first + group) == samples)
        group++;
    return group;
}

void train_send(struct train *t, struct lane *lane)
{
    struct workers *w = &t->workers;
    uint32_t at = (uint32_t)(lane - w->lane);

    device_stage(w->dev, STAGE_COMPENSATE);
    workers_clip(w, lane);
    workers_compensate(w, lane);
    measure_wanted(&t->measure, w, lane);
    dump_wanted(t->dump, w, lane);
    device_stage(w->dev, STAGE_ENCODE);
    workers_encode(w, lane);
    dump_sent(t->dump, w, lane);
    if (t->config->verify_wire && t->wire_holds)
        t->wire_holds = workers_verify(w, lane, &t->wire_fault);
    if (lane->group.call.first > 0)
        device_await(w->dev, (at + w->lanes - 1) % w->lanes);
    device_stage(w->dev, STAGE_EXCHANGE);
    exchange_receive(w, lane, t->optimizer.sum);
    device_signal(w->dev, at);
    device_stage(w->dev, STAGE_UPDATE);
    workers_update(w, lane);
    measure_left(&t->measure, w, lane);
    dump_kept(t->dump, w, lane);
}

void train_deliver(struct train *t)
{
    struct workers *w = &t->workers;

    device_stage(w->dev, STAGE_EXCHANGE);
    exchange_finish(w, t->optimizer.sum);
    if (t->config->verify_wire && t->wire_holds)
        t->wire_holds = workers_verify_reply(w, &t->wire_fault);
    dump_delivered(t->dump, w, t->optimizer.sum);
}

/* number: of the group in its step. */
static void group_step(struct train *t, uint64_t step, uint32_t number, uint32_t first,
                       uint32_t group)
{
    struct workers *w = &t->workers;
    uint32_t at = number % w->lanes;
    struct share share = kind_of(t)->share(&t->data, step, first);
    struct shape shape = {group, share.samples, share.steps};

    device_stream(w->dev, at);
    workers_gradients(w, &w->lane[at], &t->data, first, shape);
    train_send(t, &w->lane[at]);
}

/* Steps of one shape have the same launches. */
static uint32_t shape_of(const struct train *t, uint64_t step)
{
    return step + 1 == t->steps;
}

static void run_step(struct train *t, uint64_t step)
{
    struct workers *w = &t->workers;
    bool eager = t->config->verify_wire || dump_active(t->dump) || w->dev->watch != NULL;
    uint32_t groups = 0;

    if (!eager && device_step_begin(w->dev, shape_of(t, step)))
        return;
    device_stage(w->dev, STAGE_FORWARD);
    graph_transpose(w->dev, w->parameters, w->params, w->transposed);
    for (uint32_t first = 0; first < w->count; groups++) {
        uint32_t group = group_from(t, step, first);

        group_step(t, step, groups, first, group);
        first += group;
    }
    device_stream(w->dev, 0);
    device_await(w->dev, (groups - 1) % w->lanes);
    train_deliver(t);
    device_stage(w->dev, STAGE_APPLY);
    optimizer_apply(&t->optimizer, w);
    workers_keep_statistics(w);
    dump_end(t->dump, w, &t->optimizer);
    device_stage(w->dev, STAGE_OTHER);
    if (!eager)
        device_step_end(w->dev);
}

/* The last step is often shorter than the others. */
static bool last_but_one(const struct train *t, uint64_t step)
{
    return step + 2 == t->steps || t->steps == 1;
}

uint64_t train_step(struct train *t, uint32_t epoch, uint64_t step)
{
    uint64_t samples = train_post(t, epoch, step);

    if (step == 0) {
        workers_begin_epoch(&t->workers);
        kind_of(t)->begin_epoch(&t->data, &t->dev, epoch);
    }
    dump_begin(t->dump, &t->workers, &t->block.step, epoch);
    step_log_before(&t->log, &t->workers, &t->block.step);
    measure_begin(&t->measure, &t->workers, &t->block.step, last_but_one(t, step));
    run_step(t, step);
    measure_end(&t->measure, &t->workers);
    step_log_after(&t->log, &t->workers, &t->block.step, samples);
    return samples;
}

static size_t evaluation_rows(const struct config *c)
{
    return (size_t)c->evaluate.batch * c->evaluate.bptt;
}

static double count_of(struct device *dev, const uint32_t *on_device, size_t n)
{
    uint32_t *count = allocate(n, sizeof(*count));
    double sum = 0;

    device_download(dev, count, on_device, n * sizeof(*count));
    for (size_t i = 0; i < n; i++)
        sum += count[i];
    free(count);
    return sum;
}

/* Sums of what lies on the device: losses, and counts if there are any. */
static struct score sum_up(struct train *t, uint64_t scored)
{
    struct evaluation *e = &t->evaluation;
    size_t rows = evaluation_rows(t->config);
    double *loss = allocate(rows, sizeof(*loss));
    struct score score = {.scored = scored};

    device_download(&t->dev, loss, e->loss, rows * sizeof(*loss));
    for (size_t i = 0; i < rows; i++)
        score.loss += loss[i];
    score.loss /= (double)scored;
    free(loss);
    if (e->top[0] != NULL) {
        score.top1 = count_of(&t->dev, e->top[0], rows) / (double)scored;
        score.top5 = count_of(&t->dev, e->top[1], rows) / (double)scored;
    }
    return score;
}

struct score train_evaluate(struct train *t, enum text_part part, const float *params)
{
    const struct config *c = t->config;
    struct evaluation *e = &t->evaluation;
    size_t rows = evaluation_rows(c);

    graph_transpose(&t->dev, &t->parameters, params, t->workers.transposed);
    device_clear(&t->dev, e->state, c->evaluate.batch * e->graph.state * sizeof(float));
    device_clear(&t->dev, e->loss, rows * sizeof(*e->loss));
    for (int i = 0; i < 2 && e->top[i] != NULL; i++)
        device_clear(&t->dev, e->top[i], rows * sizeof(*e->top[i]));
    for (uint64_t i = 0; i < kind_of(t)->batches(&t->data, part); i++) {
        struct share share;

        device_scratch_reset(&t->dev);
        share = kind_of(t)->evaluate(&t->data, &t->dev, part, i, workers_feed(&e->graph));
        graph_run(&e->graph, &(struct pass){.shape = {1, share.samples, share.steps},
                                            .params = params,
                                            .transposed = t->workers.transposed,
                                            .running = params + t->parameters.length,
                                            .state = e->state,
                                            .state_samples = c->evaluate.batch,
                                            .loss = e->loss,
                                            .top = {e->top[0], e->top[1]},
                                            .diverged = t->workers.diverged});
    }
    return sum_up(t, kind_of(t)->scored(&t->data, part));
}

void train_next_lr(struct train *t, uint32_t epoch, bool improved)
{
    const struct config *c = t->config;

    if (c->lr_rule.rule == LR_ANNEAL && !improved)
        t->lr_factor *= c->lr_rule.factor;
    if (c->lr_rule.rule == LR_DECAY && epoch >= c->lr_rule.from)
        t->lr_factor *= c->lr_rule.factor;
}

static struct network network_of(const struct train *t)
{
    return (struct network){.model = model_find(t->config->model.name),
                            .values = t->config->model.value,
                            .classes = kind_of(t)->contents(&t->data).classes,
                            .image = t->data.images.size};
}

/* Of the parts from first to last. */
static void evaluation_create(struct train *t, const struct network *network, enum text_part first,
                              enum text_part last)
{
    const struct config *c = t->config;
    struct evaluation *e = &t->evaluation;
    struct shape most = {1, c->evaluate.batch, c->evaluate.bptt};

    graph_create(&e->graph, &t->dev, &t->parameters, network, most, false);
    for (enum text_part part = first; part <= last; part++)
        kind_of(t)->open_part(&t->data, &t->dev, part);
    e->state = device_alloc(&t->dev, c->evaluate.batch * e->graph.state * sizeof(float));
    e->loss = device_alloc(&t->dev, evaluation_rows(c) * sizeof(*e->loss));
    for (int i = 0; i < 2 && kind_of(t)->images; i++)
        e->top[i] = device_alloc(&t->dev, evaluation_rows(c) * sizeof(*e->top[i]));
}

static void upload_initial(struct train *t)
{
    size_t bytes = workers_params_bytes(&t->workers);
    float *params = allocate(1, bytes);

    graph_initial(&t->parameters, t->config->seed, params);
    device_upload(&t->dev, t->workers.params, params, bytes);
    free(params);
}

void train_source(struct train *t)
{
    const struct config *c = t->config;
    struct method method = workers_method(c);

    t->data.set = dataset_find(c->data.name);
    t->data.how = (struct reading){.workers = c->nodes,
                                   .batch = c->node_batch,
                                   .bptt = c->data.bptt,
                                   .micro = method_micro(&method),
                                   .sharding = c->data.sharding,
                                   .evaluate_batch = c->evaluate.batch,
                                   .evaluate_bptt = c->evaluate.bptt,
                                   .seed = c->seed,
                                   .min_count = c->data.min_count,
                                   .holdout = c->data.holdout,
                                   .augment = c->data.augment,
                                   .settings = c->data.value};
}

/* Whether the model can read such images. */
static bool check_size(const struct train *t, struct error *err)
{
    const struct model *model = model_find(t->config->model.name);
    uint32_t side = t->data.images.size.height;

    return side >= model->least ||
           fail(err,
                "model '%s' reads images of %u x %u or larger, and those of data set '%s' are "
                "%u x %u",
                model->name, model->least, model->least, t->data.set->name, side, side);
}

bool train_plan(struct train *t, struct error *err)
{
    const struct config *c = t->config;
    const struct source_kind *kind;
    struct network network;
    size_t bytes = 0;

    train_source(t);
    kind = kind_of(t);
    if (!kind->plan(&t->data, err) || !kind->plan_part(&t->data, TEXT_VALID, err) ||
        !kind->plan_part(&t->data, TEXT_TEST, err) || !check_size(t, err))
        return false;
    t->steps = t->data.steps;
    for (enum text_part part = 0; part < TEXT_PARTS; part++)
        bytes += kind->bytes(&t->data, part);
    network = network_of(t);
    return plan_make(&t->plan, &t->dev, c, &network, &t->parameters,
                     bytes + step_log_bytes(c, t->steps), err);
}

void train_prepare(struct train *t)
{
    const struct config *c = t->config;
    struct network network = network_of(t);

    workers_create(&t->workers, &t->dev, c, &network, &t->parameters, t->plan.group,
                   t->plan.streams);
    optimizer_create(&t->optimizer, &t->workers);
    step_block_create(&t->block, &t->workers);
    kind_of(t)->open_training(&t->data, &t->dev);
    evaluation_create(t, &network, TEXT_VALID, TEXT_TEST);
    t->loss_rows = workers_rows(c);
    t->loss = allocate(t->loss_rows, sizeof(*t->loss));
    t->lr_factor = 1;
    t->wire_holds = true;
    step_log_create(&t->log, &t->workers, t->steps);
    t->dump = dump_create(c);
    upload_initial(t);
}

bool train_plan_evaluation(struct train *t, enum text_part part, struct error *err)
{
    struct network network;

    train_source(t);
    network = network_of(t);
    if (part == TEXT_VALID && !kind_of(t)->contents(&t->data).validates)
        return fail(err, "data set '%s' has no validation part, and data.holdout makes none",
                    t->data.set->name);
    return kind_of(t)->plan_part(&t->data, part, err) && check_size(t, err) &&
           plan_evaluation(&t->plan, &t->dev, t->config, &network, &t->parameters,
                           kind_of(t)->bytes(&t->data, part), err);
}

void train_prepare_evaluation(struct train *t, enum text_part part)
{
    struct network network = network_of(t);

    workers_create_weights(&t->workers, &t->dev, t->config, &t->parameters);
    evaluation_create(t, &network, part, part);
}

void train_destroy(struct train *t)
{
    struct evaluation *e = &t->evaluation;

    if (t->workers.dev != NULL) {
        const struct config *c = t->config;

        for (int i = 0; i < 2; i++)
            device_free(&t->dev, e->top[i], evaluation_rows(c) * sizeof(*e->top[i]));
        device_free(&t->dev, e->loss, evaluation_rows(c) * sizeof(*e->loss));
        device_free(&t->dev, e->state, c->evaluate.batch * e->graph.state * sizeof(float));
        graph_destroy(&e->graph);
        kind_of(t)->close(&t->data, &t->dev);
        measure_destroy(&t->measure, &t->workers);
        step_log_destroy(&t->log, &t->workers);
        step_block_destroy(&t->block);
        optimizer_destroy(&t->optimizer, &t->workers);
        workers_destroy(&t->workers);
    }
    device_close(&t->dev);
    if (t->data.set != NULL)
        kind_of(t)->unload(&t->data);
    free(t->loss);
    dump_destroy(t->dump);
}

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

#include <stdlib.h>

static double learning_rate(const struct train *t, uint32_t epoch, uint64_t step)
{
    const struct config *c = t->config;
    double lr = config_phase(c, epoch)->lr * t->lr_factor;
    uint64_t last = t->steps * c->epochs - 1;

    if (c->lr_rule.rule == LR_LINEAR && last > 0)
        lr *= 1 - (1 - c->lr_rule.to) * (double)step / (double)last;
    return lr;
}

/* The segment that worker k is to do in a step of the epoch, or none. */
static bool segment_of(const struct train *t, uint64_t step, uint32_t worker, uint64_t *segment)
{
    bool segments = t->config->data.sharding == SHARD_SEGMENTS;

    *segment = segments ? step * t->config->workers + worker : step;
    return *segment < t->segments;
}

/* Its length; 0: none. */
static uint32_t segment_steps(const struct train *t, uint64_t step, uint32_t worker)
{
    uint64_t segment;

    if (!segment_of(t, step, worker, &segment))
        return 0;
    return stream_steps(t->data.rows, t->config->data.bptt, segment);
}

/* What a residual in units of lr times the gradient is to be multiplied with. */
static float lr_change(struct train *t, double lr)
{
    double change = t->lr_before > 0 && lr > 0 ? t->lr_before / lr : 1;

    t->lr_before = lr;
    return (float)change;
}

/* Fills the block of what changes from step to step; returns the step's tokens. */
static uint64_t post_step(struct train *t, uint32_t epoch, uint64_t step)
{
    const struct config *c = t->config;
    const struct phase *phase = config_phase(c, epoch);
    uint64_t number = epoch * t->steps + step;
    double ratio = config_ratio(c, epoch, number);
    double lr = learning_rate(t, epoch, number);
    uint64_t first_segment;
    uint64_t rows = 0;

    segment_of(t, step, 0, &first_segment);
    t->block.step = (struct step){
        .seed = c->seed,
        .number = number,
        .position = first_segment * c->data.bptt,
        .ratio = ratio,
        .lr = (float)lr,
        .lr_change = lr_change(t, lr),
        .momentum = (float)phase->momentum,
        .weight_decay = (float)phase->weight_decay,
        .nesterov = phase->nesterov,
    };
    CHECK(ratio <= config_ratio_most(c) && "messages have room for no more");
    for (uint32_t i = 0; i < t->workers.compressed.count; i++)
        t->block.keep[i] = (uint32_t)sparse_keep(t->workers.compressed.n[i], ratio);
    for (uint32_t k = 0; k < c->workers; k++)
        rows += segment_steps(t, step, k);
    for (uint32_t k = 0; k < c->workers; k++)
        t->block.sample_weight[k] =
            (float)((double)c->workers * segment_steps(t, step, k) / (double)rows);
    step_block_post(&t->block, &t->workers);
    return rows * c->batch;
}

static void group_step(struct train *t, uint64_t step, uint32_t first, uint32_t group)
{
    struct workers *w = &t->workers;
    uint32_t at = first / w->group % w->lanes;
    struct lane *lane = &w->lane[at];
    struct shape shape = {group, t->config->batch, segment_steps(t, step, first)};

    device_stream(w->dev, at);
    workers_gradients(w, lane, &t->data, first, shape);
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
    if (first > 0)
        device_await(w->dev, (at + w->lanes - 1) % w->lanes);
    device_stage(w->dev, STAGE_EXCHANGE);
    exchange_receive(w, lane, t->optimizer.sum);
    device_signal(w->dev, at);
    device_stage(w->dev, STAGE_UPDATE);
    workers_update(w, lane);
    measure_left(&t->measure, w, lane);
    dump_kept(t->dump, w, lane);
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

    if (!eager && device_step_begin(w->dev, shape_of(t, step)))
        return;
    device_stage(w->dev, STAGE_FORWARD);
    graph_transpose(w->dev, w->parameters, w->params, w->transposed);
    for (uint32_t first = 0; first < w->count; first += w->group) {
        uint32_t left = w->count - first;

        group_step(t, step, first, left < w->group ? left : w->group);
    }
    device_stream(w->dev, 0);
    device_await(w->dev, (w->count - 1) / w->group % w->lanes);
    exchange_finish(w, t->optimizer.sum);
    dump_delivered(t->dump, w, t->optimizer.sum);
    device_stage(w->dev, STAGE_APPLY);
    optimizer_apply(&t->optimizer, w);
    dump_end(t->dump, w, t->optimizer.momentum);
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
    uint64_t tokens = post_step(t, epoch, step);

    if (step == 0)
        workers_begin_epoch(&t->workers);
    dump_begin(t->dump, &t->workers, &t->block.step, epoch);
    step_log_before(&t->log, &t->workers, &t->block.step);
    measure_begin(&t->measure, &t->workers, &t->block.step, last_but_one(t, step));
    run_step(t, step);
    measure_end(&t->measure, &t->workers);
    step_log_after(&t->log, &t->workers, &t->block.step, tokens);
    return tokens;
}

double train_evaluate(struct train *t, enum text_part part, const float *params, uint64_t *scored)
{
    struct evaluation *e = &t->evaluation;
    const struct stream *s = &e->part[part];
    uint32_t batch = t->config->evaluate.batch;
    uint32_t bptt = t->config->evaluate.bptt;
    size_t rows = (size_t)batch * bptt;
    double *loss = allocate(rows, sizeof(*loss));
    double sum = 0;

    graph_transpose(&t->dev, &t->parameters, params, t->workers.transposed);
    device_clear(&t->dev, e->state, batch * e->graph.state * sizeof(float));
    device_clear(&t->dev, e->loss, rows * sizeof(*e->loss));
    for (uint64_t i = 0; i < stream_segments(s->rows, bptt); i++) {
        uint32_t steps = stream_steps(s->rows, bptt, i);

        device_scratch_reset(&t->dev);
        stream_batch(s, &t->dev,
                     (struct window){.position = i * bptt, .columns = batch, .steps = steps},
                     e->graph.token, e->graph.target);
        graph_run(&e->graph, &(struct pass){.shape = {1, batch, steps},
                                            .params = params,
                                            .transposed = t->workers.transposed,
                                            .state = e->state,
                                            .state_samples = batch,
                                            .loss = e->loss,
                                            .diverged = t->workers.diverged});
    }
    device_download(&t->dev, loss, e->loss, rows * sizeof(*loss));
    for (size_t i = 0; i < rows; i++)
        sum += loss[i];
    free(loss);
    *scored = (s->rows - 1) * batch;
    return sum / (double)*scored;
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
                            .classes = t->text.words};
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
        stream_create(&e->part[part], &t->dev, t->text.part[part].token, t->text.part[part].count,
                      c->evaluate.batch);
    e->state = device_alloc(&t->dev, c->evaluate.batch * e->graph.state * sizeof(float));
    e->loss = device_alloc(&t->dev, (size_t)c->evaluate.batch * c->evaluate.bptt * sizeof(double));
}

static void upload_initial(struct train *t)
{
    size_t bytes = t->parameters.length * sizeof(float);
    float *params = allocate(t->parameters.length, sizeof(*params));

    graph_initial(&t->parameters, t->config->seed, params);
    device_upload(&t->dev, t->workers.params, params, bytes);
    free(params);
}

/* A part must have at least two tokens for each of its columns. */
static bool check_columns(const struct train *t, enum text_part part, uint32_t columns,
                          const char *less, struct error *err)
{
    size_t tokens = t->text.part[part].count;

    return tokens / columns >= 2 ||
           fail(err,
                "the %s text has %zu tokens, too few for %u columns of at least 2; %s would do",
                text_part_names[part], tokens, columns, less);
}

static bool check_evaluated(const struct train *t, enum text_part part, struct error *err)
{
    return check_columns(t, part, t->config->evaluate.batch, "a smaller evaluate.batch", err);
}

bool train_plan(struct train *t, struct error *err)
{
    const struct config *c = t->config;
    struct network network = network_of(t);
    size_t rows = t->text.part[TEXT_TRAIN].count / workers_columns(c);
    size_t tokens = 0;

    for (int part = 0; part < TEXT_PARTS; part++)
        tokens += t->text.part[part].count;
    if (!check_columns(t, TEXT_TRAIN, workers_columns(c), "fewer --workers or a smaller --batch",
                       err) ||
        !check_evaluated(t, TEXT_VALID, err) || !check_evaluated(t, TEXT_TEST, err))
        return false;
    t->segments = stream_segments(rows, c->data.bptt);
    t->steps = c->data.sharding == SHARD_SEGMENTS ? (t->segments + c->workers - 1) / c->workers
                                                  : t->segments;
    return plan_make(&t->plan, &t->dev, c, &network, &t->parameters,
                     tokens * sizeof(uint32_t) + step_log_bytes(c, t->steps), err);
}

void train_prepare(struct train *t)
{
    const struct config *c = t->config;
    struct network network = network_of(t);

    workers_create(&t->workers, &t->dev, c, &network, &t->parameters, t->plan.group,
                   t->plan.streams);
    optimizer_create(&t->optimizer, &t->workers);
    step_block_create(&t->block, &t->workers);
    stream_create(&t->data, &t->dev, t->text.part[TEXT_TRAIN].token, t->text.part[TEXT_TRAIN].count,
                  workers_columns(c));
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
    struct network network = network_of(t);
    size_t bytes = t->text.part[part].count * sizeof(uint32_t);

    return check_evaluated(t, part, err) &&
           plan_evaluation(&t->plan, &t->dev, t->config, &network, &t->parameters, bytes, err);
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

        device_free(&t->dev, e->loss,
                    (size_t)c->evaluate.batch * c->evaluate.bptt * sizeof(double));
        device_free(&t->dev, e->state, c->evaluate.batch * e->graph.state * sizeof(float));
        for (int part = 0; part < TEXT_PARTS; part++)
            stream_destroy(&e->part[part], &t->dev);
        graph_destroy(&e->graph);
        stream_destroy(&t->data, &t->dev);
        measure_destroy(&t->measure, &t->workers);
        step_log_destroy(&t->log, &t->workers);
        step_block_destroy(&t->block);
        optimizer_destroy(&t->optimizer, &t->workers);
        workers_destroy(&t->workers);
    }
    device_close(&t->dev);
    text_free(&t->text);
    free(t->loss);
    dump_destroy(t->dump);
}

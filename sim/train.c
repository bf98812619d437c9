/*
 * train -- read this first.
 *
 * A run is: claim its key in the database, load the text, plan the memory, then for every epoch
 * take steps, validate, and write a row.  A step is:
 *
 *     for each group of workers:
 *         gradients    forward and backward of all its workers at once: worker.c, graph.c
 *         clip         each worker's share of its gradient
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
#include "data/dataset.h"
#include "models/model.h"
#include "results/store.h"
#include "sim/exchange.h"
#include "sim/plan.h"
#include "sim/version.h"

#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

/* What an epoch adds up on the host. */
struct tally {
    uint64_t steps, samples;
    uint64_t samples_peeked; /* behind the loss that was asked for and has not come yet; else 0 */
    double bytes_paper, lr;
    struct traffic before_last; /* the traffic before the epoch's last step */
    double began;
};

/* Steps between two looks at whether the loss is still finite. */
#define LOOK_EVERY 64

static volatile sig_atomic_t signalled;

static void on_signal(int number)
{
    signalled = number;
}

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

static uint32_t samples_rows(const struct train *t, uint64_t step, uint32_t worker)
{
    uint64_t segment;

    if (!segment_of(t, step, worker, &segment))
        return 0;
    return stream_steps(t->data.rows, t->config->data.bptt, segment);
}

/* Fills the block of what changes from step to step; returns the step's tokens. */
static uint64_t post_step(struct train *t, uint32_t epoch, uint64_t step)
{
    const struct config *c = t->config;
    const struct phase *phase = config_phase(c, epoch);
    uint64_t number = epoch * t->steps + step;
    double ratio = config_ratio(c, epoch, number);
    uint64_t first_segment;
    uint64_t rows = 0;

    segment_of(t, step, 0, &first_segment);
    t->block.step = (struct step){
        .seed = c->seed,
        .number = number,
        .position = first_segment * c->data.bptt,
        .lr = (float)learning_rate(t, epoch, number),
        .momentum = (float)phase->momentum,
        .weight_decay = (float)phase->weight_decay,
        .nesterov = phase->nesterov,
    };
    for (uint32_t i = 0; i < t->workers.compressed.count; i++)
        t->block.keep[i] = (uint32_t)sparse_keep(t->workers.compressed.n[i], ratio);
    for (uint32_t k = 0; k < c->workers; k++)
        rows += samples_rows(t, step, k);
    for (uint32_t k = 0; k < c->workers; k++)
        t->block.sample_share[k] =
            (float)((double)c->workers * samples_rows(t, step, k) / (double)rows);
    step_block_post(&t->block, &t->workers);
    return rows * c->batch;
}

static void group_step(struct train *t, uint64_t step, uint32_t first, uint32_t group)
{
    struct workers *w = &t->workers;
    uint32_t at = first / w->group % w->lanes;
    struct lane *lane = &w->lane[at];
    struct shape shape = {group, t->config->batch, samples_rows(t, step, first)};

    device_stream(w->dev, at);
    workers_gradients(w, lane, &t->data, first, shape);
    workers_clip(w, lane);
    workers_compensate(w, lane);
    workers_encode(w, lane);
    if (first > 0)
        device_await(w->dev, (at + w->lanes - 1) % w->lanes);
    exchange_receive(w, lane, t->optimizer.sum);
    device_signal(w->dev, at);
    workers_update(w, lane);
}

/* Steps of one shape have the same launches. */
static uint32_t shape_of(const struct train *t, uint64_t step)
{
    return step + 1 == t->steps;
}

static void run_step(struct train *t, uint64_t step)
{
    struct workers *w = &t->workers;

    if (device_step_begin(w->dev, shape_of(t, step)))
        return;
    graph_transpose(w->dev, w->parameters, w->params, w->transposed);
    for (uint32_t first = 0; first < w->count; first += w->group) {
        uint32_t left = w->count - first;

        group_step(t, step, first, left < w->group ? left : w->group);
    }
    device_stream(w->dev, 0);
    device_await(w->dev, (w->count - 1) / w->group % w->lanes);
    optimizer_apply(&t->optimizer, w);
    device_step_end(w->dev);
}

uint64_t train_step(struct train *t, uint32_t epoch, uint64_t step)
{
    uint64_t samples = post_step(t, epoch, step);

    if (step == 0)
        workers_begin_epoch(&t->workers);
    run_step(t, step);
    return samples;
}

static double loss_mean(const struct train *t, uint64_t samples)
{
    double sum = 0;

    for (size_t i = 0; i < t->loss_rows; i++)
        sum += t->loss[i];
    return samples > 0 ? sum / (double)samples : 0;
}

/* The bar's loss comes by a copy that is asked for, never waited for, so it is some steps old.  A
 * loss that is not finite shows here first; the epoch then ends early. */
static bool show(struct train *t, struct tally *tally, uint64_t number)
{
    bool due = progress_due(&t->progress);
    double loss;

    if (!due && tally->steps % LOOK_EVERY != 0)
        return true;
    if (tally->samples_peeked > 0 &&
        device_peeked(&t->dev, t->loss, t->loss_rows * sizeof(*t->loss))) {
        loss = loss_mean(t, tally->samples_peeked);
        tally->samples_peeked = 0;
        if (due)
            progress_show(&t->progress, number + 1, loss);
        if (!isfinite(loss))
            return false;
    }
    if (tally->samples_peeked == 0) {
        device_peek(&t->dev, t->workers.loss_sum, t->loss_rows * sizeof(*t->loss));
        tally->samples_peeked = tally->samples;
    }
    return true;
}

/* The epoch's steps; ends early when a signal comes or the loss is not finite. */
static bool epoch_steps(struct train *t, uint32_t epoch, struct tally *tally, struct error *err)
{
    *tally = (struct tally){.began = seconds_now()};
    for (uint64_t step = 0; step < t->steps && signalled == 0; step++) {
        uint64_t number = epoch * t->steps + step;

        if (step + 1 == t->steps)
            device_download(&t->dev, &tally->before_last, t->workers.traffic,
                            sizeof(struct traffic));
        tally->samples += train_step(t, epoch, step);
        tally->lr = (double)t->block.step.lr;
        tally->bytes_paper +=
            exchange_paper_bytes(&t->workers, config_ratio(t->config, epoch, number));
        tally->steps++;
        if (!show(t, tally, number))
            break;
        if ((t->config->verify_wire && !workers_verify(&t->workers, err)) ||
            !store_heartbeat(t->store, t->run, err))
            return false;
    }
    device_wait(&t->dev);
    if (tally->samples_peeked > 0)
        device_peeked(&t->dev, t->loss, t->loss_rows * sizeof(*t->loss));
    return true;
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

        stream_batch(s, &t->dev, NULL, i * bptt, 0, batch, steps, e->graph.token, e->graph.target);
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

/* What was added up on the device goes into the epoch's row, and is zero again. */
static void collect(struct train *t, const struct tally *tally, struct epoch_row *row)
{
    struct workers *w = &t->workers;
    double k = w->count;
    double steps = (double)tally->steps;
    double *norm = allocate(w->count, sizeof(*norm));
    double norms = 0;
    double dense = (double)(w->all.elements - w->compressed.elements);
    struct traffic traffic;

    device_download(&t->dev, t->loss, w->loss_sum, t->loss_rows * sizeof(*t->loss));
    device_download(&t->dev, norm, w->norm_sum, w->count * sizeof(*norm));
    device_download(&t->dev, &traffic, w->traffic, sizeof(traffic));
    device_clear(&t->dev, w->loss_sum, t->loss_rows * sizeof(*t->loss));
    device_clear(&t->dev, w->norm_sum, w->count * sizeof(*norm));
    device_clear(&t->dev, w->traffic, sizeof(traffic));
    for (uint32_t i = 0; i < w->count; i++)
        norms += norm[i];
    free(norm);
    row->train_loss = loss_mean(t, tally->samples);
    row->grad_norm = norms / (k * steps);
    row->density = ((double)traffic.entries / (k * steps) + dense) / (double)w->all.elements;
    row->bytes_dense = steps * exchange_whole_bytes(w);
    row->bytes_up = exchange_bytes_up(w, (double)traffic.bytes, tally->steps);
    row->bytes_down = exchange_bytes_down(w, (double)traffic.bytes, tally->steps);
    row->bytes_up_step =
        exchange_bytes_up(w, (double)(traffic.bytes - tally->before_last.bytes), 1);
}

static void epoch_row(struct train *t, uint32_t epoch, const struct tally *tally,
                      struct epoch_row *row)
{
    *row = (struct epoch_row){.epoch = epoch,
                              .lr = tally->lr,
                              .steps = tally->steps,
                              .samples = tally->samples,
                              .density_union = NOT_MEASURED,
                              .bytes_paper = tally->bytes_paper,
                              .seconds = seconds_now() - tally->began};
    row->samples_per_second = (double)tally->samples / row->seconds;
    collect(t, tally, row);
    row->residual_norm =
        t->workers.memory->kept >= 0 ? workers_kept_norm(&t->workers) : NOT_MEASURED;
}

static void remember_best(struct train *t, uint32_t epoch, double loss)
{
    if (t->has_best && !(loss < t->best_loss))
        return;
    device_copy(&t->dev, t->best, t->workers.params, t->workers.all.length * sizeof(float));
    t->has_best = true;
    t->best_loss = loss;
    t->best_epoch = epoch;
}

static void next_lr_factor(struct train *t, uint32_t epoch, double loss)
{
    const struct config *c = t->config;

    if (c->lr_rule.rule == LR_ANNEAL && t->has_best && !(loss < t->best_loss))
        t->lr_factor *= c->lr_rule.factor;
    if (c->lr_rule.rule == LR_DECAY && epoch + 1 >= c->lr_rule.from)
        t->lr_factor *= c->lr_rule.factor;
}

static bool has_diverged(struct train *t, const struct epoch_row *row)
{
    uint32_t diverged;

    device_download(&t->dev, &diverged, t->workers.diverged, sizeof(diverged));
    return diverged != 0 || !isfinite(row->train_loss) || !isfinite(row->valid_loss);
}

static void say_epoch(struct train *t, const struct epoch_row *row)
{
    progress_say(&t->progress,
                 "epoch %u of %u  loss %.4f  valid %.4f  perplexity %.2f  up %.3g MB  ratio %.4g  "
                 "%.1f s  %.0f tokens/s",
                 row->epoch + 1, t->config->epochs, row->train_loss, row->valid_loss,
                 exp(row->valid_loss), row->bytes_up * 1e-6, row->bytes_dense / row->bytes_up,
                 row->seconds, row->samples_per_second);
}

static bool run_epochs(struct train *t, enum train_status *status, struct error *err)
{
    *status = TRAIN_DONE;
    for (uint32_t epoch = 0; epoch < t->config->epochs && *status == TRAIN_DONE; epoch++) {
        struct epoch_row row;
        struct tally tally;

        if (!epoch_steps(t, epoch, &tally, err))
            return false;
        if (signalled != 0) {
            *status = TRAIN_STOPPED;
            return true;
        }
        epoch_row(t, epoch, &tally, &row);
        row.valid_loss = train_evaluate(t, TEXT_VALID, t->workers.params, &row.scored);
        if (!store_epoch(t->store, t->run, &row, err))
            return false;
        say_epoch(t, &row);
        if (has_diverged(t, &row)) {
            *status = TRAIN_DIVERGED;
            return true;
        }
        next_lr_factor(t, epoch, row.valid_loss);
        remember_best(t, epoch, row.valid_loss);
    }
    return true;
}

/* A paper's number is the test metric of the weights that were best on validation; the last ones
 * stand beside it. */
static bool finish(struct train *t, enum train_status status, struct error *err)
{
    struct test_row test[] = {
        {.which = "best", .selected_on = "valid", .epoch = t->best_epoch},
        {.which = "last", .selected_on = "none", .epoch = t->config->epochs - 1},
    };
    size_t tests = 0;

    if (status == TRAIN_STOPPED)
        return store_finish(t->store, t->run, "stopped", NULL, 0, err);
    if (t->has_best) {
        test[0].loss = train_evaluate(t, TEXT_TEST, t->best, &test[0].scored);
        tests = 1;
    }
    if (status == TRAIN_DONE) {
        test[1].loss = train_evaluate(t, TEXT_TEST, t->workers.params, &test[1].scored);
        tests = 2;
    }
    return store_finish(t->store, t->run, status == TRAIN_DONE ? "done" : "diverged", test, tests,
                        err);
}

static bool load_text(struct train *t, struct error *err)
{
    const struct config *c = t->config;
    const char *path = c->data.path[0] != '\0' ? c->data.path : NULL;
    const char *root = c->data_root[0] != '\0' ? c->data_root : NULL;
    char *folder;
    bool ok;

    if (!dataset_locate(dataset_find(c->data.name), path, root, &folder, err))
        return false;
    ok = text_load(&t->text, folder, c->data.min_count, err);
    free(folder);
    return ok;
}

/* Every part must have at least two tokens for each of its columns. */
static bool check_columns(const struct train *t, struct error *err)
{
    static const char *const names[] = {"train", "valid", "test"};
    const struct config *c = t->config;
    uint32_t train = c->data.sharding == SHARD_SEGMENTS ? c->batch : c->batch * c->workers;

    for (int part = 0; part < TEXT_PARTS; part++) {
        uint32_t columns = part == TEXT_TRAIN ? train : c->evaluate.batch;

        if (t->text.part[part].count / columns < 2)
            return fail(err,
                        "the %s text has %zu tokens, too few for %u columns of at least 2; fewer "
                        "%s would do",
                        names[part], t->text.part[part].count, columns,
                        part == TEXT_TRAIN ? "--workers or a smaller --batch" : "evaluate.batch");
    }
    return true;
}

static void evaluation_create(struct train *t, const struct model *model)
{
    const struct config *c = t->config;
    struct evaluation *e = &t->evaluation;
    struct shape most = {1, c->evaluate.batch, c->evaluate.bptt};

    graph_create(&e->graph, &t->dev, &t->parameters, model, c->model.value, t->text.words, most,
                 false);
    for (int part = TEXT_VALID; part < TEXT_PARTS; part++)
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

bool train_prepare(struct train *t, struct error *err)
{
    const struct config *c = t->config;
    const struct model *model = model_find(c->model.name);
    size_t tokens = 0;
    uint32_t columns = c->data.sharding == SHARD_SEGMENTS ? c->batch : c->batch * c->workers;
    struct plan plan;

    for (int part = 0; part < TEXT_PARTS; part++)
        tokens += t->text.part[part].count;
    if (!plan_make(&plan, &t->dev, c, model, &t->parameters, t->text.words,
                   tokens * sizeof(uint32_t), err))
        return false;
    workers_create(&t->workers, &t->dev, c, model, &t->parameters, t->text.words, plan.group,
                   plan.streams);
    optimizer_create(&t->optimizer, &t->workers);
    step_block_create(&t->block, &t->workers);
    stream_create(&t->data, &t->dev, t->text.part[TEXT_TRAIN].token, t->text.part[TEXT_TRAIN].count,
                  columns);
    evaluation_create(t, model);
    t->best = device_alloc(&t->dev, t->parameters.length * sizeof(float));
    t->loss_rows = (size_t)c->workers * c->batch * c->data.bptt;
    t->loss = allocate(t->loss_rows, sizeof(*t->loss));
    t->segments = stream_segments(t->data.rows, c->data.bptt);
    t->steps = c->data.sharding == SHARD_SEGMENTS ? (t->segments + c->workers - 1) / c->workers
                                                  : t->segments;
    t->lr_factor = 1;
    upload_initial(t);
    return true;
}

void train_destroy(struct train *t)
{
    struct evaluation *e = &t->evaluation;

    if (t->workers.dev != NULL) {
        const struct config *c = t->config;

        device_free(&t->dev, t->best, t->parameters.length * sizeof(float));
        device_free(&t->dev, e->loss,
                    (size_t)c->evaluate.batch * c->evaluate.bptt * sizeof(double));
        device_free(&t->dev, e->state, c->evaluate.batch * e->graph.state * sizeof(float));
        for (int part = TEXT_VALID; part < TEXT_PARTS; part++)
            stream_destroy(&e->part[part], &t->dev);
        graph_destroy(&e->graph);
        stream_destroy(&t->data, &t->dev);
        step_block_destroy(&t->block);
        optimizer_destroy(&t->optimizer, &t->workers);
        workers_destroy(&t->workers);
    }
    device_close(&t->dev);
    store_close(t->store);
    text_free(&t->text);
    free(t->loss);
}

static bool claim(struct train *t, enum store_claim *claim, struct error *err)
{
    const struct config *c = t->config;
    char device[256];
    struct store_pair *pairs = allocate(c->pairs, sizeof(*pairs));
    struct run_row row;
    bool ok;

    device_describe(&t->dev, device, sizeof(device));
    for (size_t i = 0; i < c->pairs; i++)
        pairs[i] = (struct store_pair){c->pair[i].key, c->pair[i].value};
    row = (struct run_row){.key = c->key,
                           .name = c->name,
                           .experiment = c->experiment,
                           .experiment_key = c->experiment_key,
                           .model = c->model.name,
                           .dataset = c->data.name,
                           .compressor = c->compressor.name,
                           .memory = c->memory.name,
                           .method = c->method,
                           .tuned = c->tuned,
                           .device = device,
                           .config = c->effective,
                           .version = GRADPRESS_VERSION " " GRADPRESS_COMMIT,
                           .data_sha256 = t->text.sha256,
                           .ratio = config_ratio(c, c->epochs, UINT64_MAX),
                           .workers = c->workers,
                           .batch = c->batch,
                           .batch_total = c->total_batch,
                           .seed = c->seed,
                           .settings = pairs,
                           .settings_count = c->pairs};
    ok = store_claim(t->store, &row, c->again, claim, &t->run, err);
    free(pairs);
    return ok;
}

static bool train_claimed(struct train *t, enum train_status *status, struct error *err)
{
    const struct config *c = t->config;

    if (!train_prepare(t, err)) {
        struct error ignored;

        store_finish(t->store, t->run, "failed", NULL, 0, &ignored);
        return false;
    }
    progress_begin(&t->progress, c->quiet, t->steps * c->epochs);
    progress_say(&t->progress,
                 "%s  %zu parameters  %u words  %u workers x %u columns in groups of %u  %llu "
                 "steps an epoch",
                 c->name, t->workers.all.elements, t->text.words, c->workers, c->batch,
                 t->workers.group, (unsigned long long)t->steps);
    if (!run_epochs(t, status, err))
        return false;
    progress_end(&t->progress);
    return finish(t, *status, err);
}

static bool train_opened(struct train *t, enum train_status *status, char **summary,
                         struct error *err)
{
    enum store_claim claimed;

    if (!load_text(t, err) || !check_columns(t, err) ||
        !device_open(&t->dev, t->config->device, t->config->threads, err) ||
        !claim(t, &claimed, err))
        return false;
    *status = claimed == STORE_DONE ? TRAIN_ALREADY_DONE : TRAIN_ELSEWHERE;
    if (claimed == STORE_NEW && !train_claimed(t, status, err))
        return false;
    return store_summary(t->store, t->run, t->config->json, summary, err);
}

static void catch_signals(void (*handler)(int))
{
    struct sigaction action = {.sa_handler = handler, .sa_flags = SA_RESETHAND};

    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

bool train_run(const struct config *c, enum train_status *status, char **summary, int *signal,
               struct error *err)
{
    struct train *t = allocate(1, sizeof(*t));
    bool ok;

    t->config = c;
    *summary = NULL;
    signalled = 0;
    catch_signals(on_signal);
    ok = store_open(&t->store, c->db, err) && train_opened(t, status, summary, err);
    train_destroy(t);
    free(t);
    catch_signals(SIG_DFL);
    *signal = signalled;
    return ok;
}

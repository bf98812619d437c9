#include "sim/run.h"

#include "results/store.h"
#include "sim/progress.h"
#include "sim/rows.h"
#include "sim/safetensors.h"
#include "sim/train.h"
#include "sim/version.h"
#include "sim/weights.h"

#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct run {
    const struct config *config;
    struct train train;
    struct progress progress;
    struct account account;
    struct store *store;
    int64_t id; /* of its row */

    float *initial; /* [P] on the host, of --init; NULL: drawn from the seed */

    float *best; /* [P] the parameters that were best on validation */
    bool has_best;
    double best_loss;
    uint32_t best_epoch;
};

/* The loss so far, which is asked for and comes some steps later. */
struct news {
    bool asked;
    uint64_t samples; /* when it was asked for */
    double loss;      /* what came last */
};

/* Steps between two looks at whether the loss is still finite. */
#define LOOK_EVERY 64

static atomic_int signalled;

static sigset_t ending_signals(void)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    return set;
}

/* The first signal is noted: the step ends, the run is stopped.  A second one kills at once, but not
 * the echo that timeout(1) and some schedulers send to process and group. */
static void *watch(void *unused)
{
    sigset_t set = ending_signals();
    double first;
    int number;

    CHECK(sigwait(&set, &number) == 0);
    signalled = number;
    first = seconds_now();
    do
        CHECK(sigwait(&set, &number) == 0);
    while (seconds_now() - first < 0.3);
    signal(number, SIG_DFL);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    raise(number);
    return unused;
}

/* A thread of its own waits for signals, and they are blocked in all others, which begin after
 * it: a handler's frame on the stack of a thread that is inside of oneDNN's compiled code destroys
 * what that keeps below the stack pointer, and the heap with it. */
static bool watch_signals(pthread_t *watcher, struct error *err)
{
    sigset_t set = ending_signals();
    int code;

    signalled = 0;
    CHECK(pthread_sigmask(SIG_BLOCK, &set, NULL) == 0);
    code = pthread_create(watcher, NULL, watch, NULL);
    return code == 0 || fail(err, "the system gives no more threads: %s", strerror(code));
}

static void unwatch_signals(pthread_t watcher)
{
    sigset_t set = ending_signals();

    CHECK(pthread_cancel(watcher) == 0 && pthread_join(watcher, NULL) == 0);
    CHECK(pthread_sigmask(SIG_UNBLOCK, &set, NULL) == 0);
}

/* The loss so far comes by a copy that is asked for, never waited for. */
static void look(struct train *t, struct news *news, uint64_t samples)
{
    size_t bytes = t->loss_rows * sizeof(*t->loss);

    if (news->asked && device_peeked(&t->dev, t->loss, bytes)) {
        news->loss = rows_loss(t, news->samples);
        news->asked = false;
    }
    if (!news->asked) {
        device_peek(&t->dev, t->workers.loss_sum, bytes);
        news->samples = samples;
        news->asked = true;
    }
}

/* The epoch's steps; ends early when a signal comes or the loss is not finite. */
static bool epoch_steps(struct run *r, uint32_t epoch, struct tally *tally, struct error *err)
{
    struct train *t = &r->train;
    struct news news = {0};

    *tally = (struct tally){.began = seconds_now()};
    for (uint64_t step = 0; step < t->steps && signalled == 0 && isfinite(news.loss); step++) {
        uint64_t number = epoch * t->steps + step;
        bool due = progress_due(&r->progress);

        if (step + 1 == t->steps)
            tally->before_last = workers_sent(&t->workers);
        tally->samples += train_step(t, epoch, step);
        tally->lr = (double)t->block.step.lr;
        account_step(&r->account, &t->workers, config_ratio(r->config, epoch, number));
        tally->steps++;
        if (due || tally->steps % LOOK_EVERY == 0)
            look(t, &news, tally->samples);
        if (due)
            progress_show(&r->progress, number + 1, news.loss);
        if (!t->wire_holds)
            return fail(err, "%s", t->wire_fault.text);
        if (!dump_holds(t->dump, err))
            return false;
        if (!store_heartbeat(r->store, r->id, err))
            return false;
    }
    device_wait(&t->dev);
    if (news.asked)
        device_peeked(&t->dev, t->loss, t->loss_rows * sizeof(*t->loss));
    return true;
}

static void say_epoch(struct run *r, const struct epoch_row *row)
{
    char metric[64];

    if (row->ranked)
        snprintf(metric, sizeof(metric), "top1 %.2f %%", 100 * row->top1);
    else
        snprintf(metric, sizeof(metric), "perplexity %.2f", exp(row->valid_loss));
    progress_say(&r->progress,
                 "epoch %u of %u  loss %.4f  valid %.4f  %s  up %.4g MB  ratio %.4g  "
                 "%.1f s  %.0f %s/s",
                 row->epoch + 1, r->config->epochs, row->train_loss, row->valid_loss, metric,
                 row->bytes_up * 1e-6, row->bytes_dense / row->bytes_up, row->seconds,
                 row->samples_per_second, r->train.data.set->kind->samples);
}

/* *row is what was written, without what it has within. */
static bool write_epoch(struct run *r, uint32_t epoch, const struct tally *tally,
                        struct epoch_row *row, struct error *err)
{
    struct train *t = &r->train;
    struct score score;
    struct rows rows;
    bool ok;

    rows_collect(&rows, t, &r->account, tally);
    rows.epoch.epoch = epoch;
    score = train_evaluate(t, TEXT_VALID, t->workers.params);
    rows.epoch.valid_loss = score.loss;
    rows.epoch.top1 = score.top1;
    rows.epoch.top5 = score.top5;
    rows.epoch.scored = score.scored;
    ok = store_epoch(r->store, r->id, &rows.epoch, err);
    *row = rows.epoch;
    row->step = NULL;
    row->tensor = NULL;
    rows_free(&rows);
    return ok;
}

static bool has_diverged(struct train *t, const struct epoch_row *row)
{
    uint32_t diverged;

    device_download(&t->dev, &diverged, t->workers.diverged, sizeof(diverged));
    return diverged != 0 || !isfinite(row->train_loss) || !isfinite(row->valid_loss);
}

static struct contents contents_of(const struct run *r)
{
    return r->train.data.set->kind->contents(&r->train.data);
}

/* Nothing is chosen by the test part. */
static bool remember_best(struct run *r, uint32_t epoch, double loss)
{
    struct train *t = &r->train;

    if (!contents_of(r).validates || (r->has_best && !(loss < r->best_loss)))
        return false;
    device_copy(&t->dev, r->best, t->workers.params, workers_params_bytes(&t->workers));
    r->has_best = true;
    r->best_loss = loss;
    r->best_epoch = epoch;
    return true;
}

static bool epochs(struct run *r, enum run_status *status, struct error *err)
{
    *status = RUN_DONE;
    for (uint32_t epoch = 0; epoch < r->config->epochs && *status == RUN_DONE; epoch++) {
        struct epoch_row row;
        struct tally tally;

        if (!epoch_steps(r, epoch, &tally, err))
            return false;
        if (signalled != 0) {
            *status = RUN_STOPPED;
            return true;
        }
        if (!write_epoch(r, epoch, &tally, &row, err))
            return false;
        say_epoch(r, &row);
        if (has_diverged(&r->train, &row))
            *status = RUN_DIVERGED;
        else
            train_next_lr(&r->train, epoch, remember_best(r, epoch, row.valid_loss));
    }
    return true;
}

static void test(struct run *r, struct test_row *row, const float *params)
{
    struct score score = train_evaluate(&r->train, TEXT_TEST, params);

    row->loss = score.loss;
    row->ranked = r->train.data.set->kind->images;
    row->top1 = score.top1;
    row->top5 = score.top5;
    row->scored = score.scored;
}

/* A paper's number is the test metric of the weights that were best on validation; the last ones
 * stand beside it. */
static bool finish(struct run *r, enum run_status status, struct error *err)
{
    struct train *t = &r->train;
    struct test_row row[] = {
        {.which = "best", .selected_on = "valid", .epoch = r->best_epoch},
        {.which = "last", .selected_on = "none", .epoch = r->config->epochs - 1},
    };
    struct test_row *first = r->has_best ? &row[0] : &row[1];
    size_t tests = 0;

    if (status == RUN_STOPPED)
        return store_finish(r->store, r->id, "stopped", NULL, 0, err);
    if (r->has_best)
        test(r, &first[tests++], r->best);
    if (status == RUN_DONE)
        test(r, &first[tests++], t->workers.params);
    return store_finish(r->store, r->id, status == RUN_DONE ? "done" : "diverged", first, tests,
                        err);
}

static void say_beginning(struct run *r, const char *device)
{
    const struct config *c = r->config;
    const struct train *t = &r->train;
    const struct source_kind *kind = t->data.set->kind;

    progress_say(&r->progress, "%s  into %s  on %s", c->name, c->db, device);
    progress_say(&r->progress,
                 "%zu parameters  %u %s  %u workers x %u %s in groups of %u  %llu steps an epoch",
                 t->workers.all.elements, contents_of(r).classes, kind->classes, c->workers,
                 c->batch, kind->images ? kind->samples : "columns", t->plan.group,
                 (unsigned long long)t->steps);
    if (store_notice(r->store) != NULL)
        progress_say(&r->progress, "%s", store_notice(r->store));
    if (c->tuned[0] != '\0')
        progress_say(&r->progress, "tuned for %s (--no-tuned leaves that aside)", c->tuned);
}

/* The run is this process's: train, and note how it ended, also if that is a fault. */
static bool train_claimed(struct run *r, const char *device, enum run_status *status,
                          struct error *err)
{
    struct train *t = &r->train;
    struct error ignored;
    bool ok;

    train_prepare(t);
    measure_create(&t->measure, &t->workers);
    account_create(&r->account, &t->workers);
    if (r->initial != NULL)
        device_upload(&t->dev, t->workers.params, r->initial, workers_params_bytes(&t->workers));
    r->best = device_alloc(&t->dev, workers_params_bytes(&t->workers));
    progress_begin(&r->progress, r->config->quiet, t->steps * r->config->epochs);
    say_beginning(r, device);
    ok = epochs(r, status, err);
    progress_end(&r->progress);
    ok = ok && finish(r, *status, err);
    if (!ok)
        store_finish(r->store, r->id, "failed", NULL, 0, &ignored);
    return ok;
}

static bool claim(struct run *r, const char *device, enum store_claim *claimed, struct error *err)
{
    const struct config *c = r->config;
    struct store_pair *pairs = allocate(c->pairs, sizeof(*pairs));
    struct run_row row;
    bool ok;

    for (size_t i = 0; i < c->pairs; i++)
        pairs[i] = (struct store_pair){c->pair[i].key, c->pair[i].value};
    row = (struct run_row){.key = c->key,
                           .name = c->name,
                           .experiment = c->experiment,
                           .experiment_key = c->experiment_key,
                           .model = c->model.name,
                           .dataset = c->data.name,
                           .compressor = c->compressor_name,
                           .memory = c->memory.name,
                           .method = c->method,
                           .tuned = c->tuned,
                           .device = device,
                           .config = c->effective,
                           .version = GRADPRESS_VERSION " " GRADPRESS_COMMIT,
                           .data_sha256 = contents_of(r).sha256,
                           .ratio = c->ratio[c->ratios - 1].ratio,
                           .workers = c->workers,
                           .batch = c->batch,
                           .batch_total = c->total_batch,
                           .threads = r->train.dev.threads,
                           .group = r->train.plan.group,
                           .streams = r->train.plan.streams,
                           .seed = c->seed,
                           .settings = pairs,
                           .settings_count = c->pairs};
    ok = store_claim(r->store, &row, c->again, claimed, &r->id, err);
    free(pairs);
    return ok;
}

bool run_load_data(struct train *t, struct error *err)
{
    const struct config *c = t->config;
    const char *path = c->data.path[0] != '\0' ? c->data.path : NULL;
    const char *root = c->data_root[0] != '\0' ? c->data_root : NULL;
    char *folder;
    bool ok;

    train_source(t);
    if (!dataset_locate(t->data.set, path, root, &folder, err))
        return false;
    ok = t->data.set->kind->load(&t->data, folder, err);
    free(folder);
    return ok;
}

static bool load_initial(struct run *r, struct error *err)
{
    const struct config *c = r->config;
    const struct parameters *parameters = &r->train.parameters;

    if (c->init[0] == '\0')
        return true;
    r->initial = allocate(graph_floats(parameters), sizeof(*r->initial));
    return weights_load(parameters, c->init, c->init_sha256, r->initial, err);
}

/* The last weights; the database has none. */
static bool save(struct run *r, struct error *err)
{
    const struct config *c = r->config;
    struct train *t = &r->train;
    size_t bytes = workers_params_bytes(&t->workers);
    float *params = allocate(1, bytes);
    char epoch[16];
    struct safetensors_note notes[] = {{"key", c->key},
                                       {RUN_NOTE_NAME, c->name},
                                       {RUN_NOTE_EPOCH, epoch},
                                       {RUN_NOTE_DATA, contents_of(r).sha256},
                                       {CONFIG_NOTE, c->effective}};
    bool ok;

    snprintf(epoch, sizeof(epoch), "%u", c->epochs - 1);
    device_download(&t->dev, params, t->workers.params, bytes);
    ok = weights_save(&t->parameters, c->save, params, notes, ARRAY_LENGTH(notes), err);
    free(params);
    return ok;
}

static const char *plain_path(const char *path)
{
    return strncmp(path, "./", 2) == 0 ? path + 2 : path;
}

/* Before hours of training, not behind them. */
static bool can_write_files(const struct run *r, struct error *err)
{
    const struct config *c = r->config;
    size_t bytes = weights_bytes(&r->train.parameters);

    if (strcmp(plain_path(c->save), plain_path(c->db)) == 0)
        return fail(err, "%s: both --save and --db", c->save);
    return (c->save[0] == '\0' || safetensors_writable(c->save, bytes, err)) &&
           dump_folder(c, bytes, err);
}

/* A run that is done does not train again for the sake of a file, or of its steps. */
static bool was_written(const char *path, const char *key, struct error *err)
{
    struct safetensors s;
    struct error unused;
    const char *of = NULL;
    bool there = safetensors_open(&s, path, &unused);

    if (there)
        of = safetensors_metadata(&s, "key");
    there = of != NULL && strcmp(of, key) == 0;
    safetensors_close(&s);
    return there || fail(err, "%s: not written, for the run is done; --again repeats it", path);
}

static bool files_were_written(const struct config *c, struct error *err)
{
    char *path = dump_path(c, 0);
    bool ok = (c->save[0] == '\0' || was_written(c->save, c->key, err)) &&
              (c->dump_steps == 0 || was_written(path, c->key, err));

    free(path);
    return ok;
}

/* What is asked for of a run that is done, and whether it is there. */
static bool was_kept(const struct config *c, bool has, const char *what, struct error *err)
{
    return has ||
           fail(err, "%s: the %s of %s were not kept, for the run is done; --again repeats it",
                c->db, what, c->name);
}

static bool rows_were_kept(struct run *r, struct error *err)
{
    const struct config *c = r->config;
    bool steps = true, tensors = true;
    char what[64];

    if (c->log_every > 0 && !store_has_steps(r->store, r->id, c->log_every, &steps, err))
        return false;
    if (c->tensors && !store_has_tensors(r->store, r->id, &tensors, err))
        return false;
    snprintf(what, sizeof(what), "steps of --log-every %u", c->log_every);
    return was_kept(c, steps, what, err) && was_kept(c, tensors, "tensors of --tensors", err);
}

/* Nothing is written before data and device are known to be there. */
static bool run_through(struct run *r, enum run_status *status, char **summary, struct error *err)
{
    const struct config *c = r->config;
    struct train *t = &r->train;
    enum store_claim claimed;
    char device[256];

    if (!run_load_data(t, err) || !device_open(&t->dev, c->device, c->threads, err) ||
        !train_plan(t, err) || !load_initial(r, err) || !can_write_files(r, err) ||
        !store_open(&r->store, c->db, err))
        return false;
    device_describe(&t->dev, device, sizeof(device));
    if (!claim(r, device, &claimed, err))
        return false;
    *status = claimed == STORE_DONE ? RUN_ALREADY_DONE : RUN_ELSEWHERE;
    if (claimed == STORE_NEW && !train_claimed(r, device, status, err))
        return false;
    if (c->save[0] != '\0' && *status == RUN_DONE && !save(r, err))
        return false;
    if (*status == RUN_ALREADY_DONE && !(rows_were_kept(r, err) && files_were_written(c, err)))
        return false;
    return store_summary(r->store, r->id, c->json, summary, err);
}

bool run(const struct config *c, enum run_status *status, char **summary, int *stopped_by,
         struct error *err)
{
    struct run *r = allocate(1, sizeof(*r));
    pthread_t watcher;
    bool watched, ok;

    r->config = r->train.config = c;
    *summary = NULL;
    watched = watch_signals(&watcher, err);
    ok = watched && run_through(r, status, summary, err);
    if (r->best != NULL)
        device_free(&r->train.dev, r->best, workers_params_bytes(&r->train.workers));
    account_destroy(&r->account);
    train_destroy(&r->train);
    store_close(r->store);
    free(r->initial);
    free(r);
    if (watched)
        unwatch_signals(watcher);
    *stopped_by = signalled;
    return ok;
}

#include "sim/rows.h"

#include <math.h>
#include <stdlib.h>

#include "sim/exchange.h"
#include "sim/train.h"

double rows_loss(const struct train *t, uint64_t samples)
{
    double sum = 0;

    for (size_t i = 0; i < t->loss_rows; i++)
        sum += t->loss[i];
    return samples > 0 ? sum / (double)samples : 0;
}

/* The steps that --log-every keeps; before their sums are cleared. */
static void collect_steps(struct rows *rows, struct train *t)
{
    size_t count;
    const struct logged_step *step = step_log_take(&t->log, &t->workers, &count);

    rows->step = allocate(count, sizeof(*rows->step));
    for (size_t i = 0; i < count; i++)
        rows->step[i] = (struct step_row){.step = step[i].number,
                                          .samples = step[i].tokens,
                                          .loss = step[i].loss,
                                          .lr = step[i].lr,
                                          .density = step[i].density,
                                          .bytes_up = step[i].bytes_up,
                                          .bytes_down = step[i].bytes_down,
                                          .grad_norm = step[i].grad_norm};
    rows->epoch.step = rows->step;
    rows->epoch.steps_kept = count;
}

/* Counts of the epoch's steps, which begin anew. */
static double take_count(struct train *t, uint32_t *count)
{
    size_t bytes = t->loss_rows * sizeof(*count);
    uint32_t *each = allocate(t->loss_rows, sizeof(*each));
    double sum = 0;

    device_download(&t->dev, each, count, bytes);
    device_clear(&t->dev, count, bytes);
    for (size_t i = 0; i < t->loss_rows; i++)
        sum += each[i];
    free(each);
    return sum;
}

static void collect_means(struct epoch_row *row, struct train *t, const struct tally *tally)
{
    struct workers *w = &t->workers;
    double *norm = allocate(w->count, sizeof(*norm));
    double norms = 0;

    device_download(&t->dev, t->loss, w->loss_sum, t->loss_rows * sizeof(*t->loss));
    device_download(&t->dev, norm, w->norm_sum, w->count * sizeof(*norm));
    device_clear(&t->dev, w->loss_sum, t->loss_rows * sizeof(*t->loss));
    device_clear(&t->dev, w->norm_sum, w->count * sizeof(*norm));
    for (uint32_t i = 0; i < w->count; i++)
        norms += norm[i];
    free(norm);
    row->train_loss = rows_loss(t, tally->samples);
    row->ranked = w->top[0] != NULL;
    if (row->ranked) {
        row->train_top1 = take_count(t, w->top[0]) / (double)tally->samples;
        row->train_top5 = take_count(t, w->top[1]) / (double)tally->samples;
    }
    row->grad_norm = norms / ((double)w->count * (double)tally->steps);
}

static void put_bytes(struct epoch_row *row, const struct train *t, const struct tally *tally,
                      struct sent sent)
{
    const struct workers *w = &t->workers;

    row->density = exchange_density(w, (double)sent.last.entries, tally->steps);
    row->bytes_dense = (double)tally->steps * exchange_whole_bytes(w);
    row->bytes_up = exchange_bytes_up(w, &sent, tally->steps);
    row->bytes_down = exchange_bytes_down(w, &sent, tally->steps);
    row->bytes_up_step = NOT_MEASURED; /* of an epoch that ended early */
    if (tally->steps == t->steps) {
        sent = sent_since(&sent, &tally->before_last);
        row->bytes_up_step = exchange_bytes_up(w, &sent, 1);
    }
}

/* Where nothing was wanted, nothing is wrong. */
static double error_of(double left, double wanted)
{
    return wanted == 0 ? 0 : sqrt(left / wanted);
}

static void put_measured(struct epoch_row *row, const struct workers *w, const struct measure *m)
{
    struct measured_tensor sum = {0};
    const double *seconds = m->watch.seconds;
    double share = 0;

    row->density_union = row->compression_error = NOT_MEASURED;
    row->seconds_forward = row->seconds_backward = row->seconds_compensate = NOT_MEASURED;
    row->seconds_encode = row->seconds_exchange = row->seconds_apply = NOT_MEASURED;
    if (m->steps == 0)
        return;
    for (uint32_t i = 0; i < w->compressed.count; i++) {
        sum.sent += m->tensor[i].sent;
        sum.wanted += m->tensor[i].wanted;
        sum.left += m->tensor[i].left;
    }
    row->density_union = exchange_density(w, w->count * sum.sent, m->steps);
    row->compression_error = error_of(sum.left, sum.wanted);
    for (int stage = STAGE_FORWARD; stage < STAGES; stage++)
        share += seconds[stage];
    share = row->seconds / share;
    row->seconds_forward = share * seconds[STAGE_FORWARD];
    row->seconds_backward = share * seconds[STAGE_BACKWARD];
    row->seconds_compensate = share * (seconds[STAGE_COMPENSATE] + seconds[STAGE_UPDATE]);
    row->seconds_encode = share * seconds[STAGE_ENCODE];
    row->seconds_exchange = share * seconds[STAGE_EXCHANGE];
    row->seconds_apply = share * seconds[STAGE_APPLY];
}

/* A tensor that is sent whole. */
static void put_whole(struct tensor_row *row, double steps)
{
    row->entries = steps * (double)row->elements;
    row->density = row->density_union = 1;
    row->bytes_up = row->bytes_down = 4 * row->entries;
}

static void put_compressed(struct tensor_row *row, const struct train *t, uint64_t steps,
                           struct sent sent, const struct measured_tensor *measured)
{
    const struct workers *w = &t->workers;
    double n = (double)row->elements;

    row->entries = (double)sent.last.entries / w->count;
    row->density = row->entries / ((double)steps * n);
    row->bytes_up = exchange_bytes_up(w, &sent, 0);
    row->bytes_down = exchange_bytes_down(w, &sent, 0);
    row->density_union = row->compression_error = NOT_MEASURED;
    if (t->measure.steps > 0) {
        row->density_union = measured->sent / ((double)t->measure.steps * n);
        row->compression_error = error_of(measured->left, measured->wanted);
    }
}

/* The tensors that --tensors keeps. */
static void collect_tensors(struct rows *rows, const struct train *t, const struct by_rule *by_rule,
                            const struct traffic *traffic, const double *residual)
{
    const struct workers *w = &t->workers;
    uint32_t count = t->config->tensors ? w->all.count : 0;

    rows->tensor = allocate(count, sizeof(*rows->tensor));
    for (uint32_t i = 0; i < count; i++) {
        struct tensor_row *row = &rows->tensor[i];

        *row = (struct tensor_row){.tensor = t->parameters.item[t->parameters.order[i]].name,
                                   .elements = w->all.n[i],
                                   .bytes_paper = by_rule[i].paper,
                                   .bytes_framework = by_rule[i].framework,
                                   .bytes_bound = by_rule[i].bound};
        if (i < w->compressed.count)
            put_compressed(row, t, rows->epoch.steps,
                           sent_of_tensor(traffic, w->compressed.count, i), &t->measure.tensor[i]);
        else
            put_whole(row, (double)rows->epoch.steps);
        if (w->memory->residual < 0)
            row->residual_norm = NOT_MEASURED;
        else if (i < w->compressed.count)
            row->residual_norm = residual[i];
    }
    rows->epoch.tensor = rows->tensor;
    rows->epoch.tensors_kept = count;
}

static void put_rules(struct epoch_row *row, const struct by_rule *by_rule, uint32_t tensors)
{
    struct by_rule sum = {0};

    for (uint32_t i = 0; i < tensors; i++)
        sum = account_sum(sum, by_rule[i]);
    row->bytes_paper = sum.paper;
    row->bytes_framework = sum.framework;
    row->bytes_bound = sum.bound;
}

void rows_collect(struct rows *rows, struct train *t, struct account *account,
                  const struct tally *tally)
{
    struct workers *w = &t->workers;
    struct epoch_row *row = &rows->epoch;
    struct traffic *traffic = workers_download_traffic(w);
    const struct by_rule *by_rule = account_take(account, w, traffic);
    double *residual = allocate(w->compressed.count, sizeof(*residual));
    struct sent sent = sent_sum(traffic, w->compressed.count);

    *rows = (struct rows){.epoch = {.lr = tally->lr,
                                    .steps = tally->steps,
                                    .samples = tally->samples,
                                    .seconds = seconds_now() - tally->began}};
    row->samples_per_second = (double)tally->samples / row->seconds;
    collect_steps(rows, t);
    collect_means(row, t, tally);
    put_bytes(row, t, tally, sent);
    put_rules(row, by_rule, w->all.count);
    put_measured(row, w, &t->measure);
    row->residual_norm = workers_residual_norm(w, residual);
    if (w->memory->residual < 0)
        row->residual_norm = NOT_MEASURED;
    collect_tensors(rows, t, by_rule, traffic, residual);
    workers_clear_sent(w);
    measure_clear(&t->measure, w);
    free(residual);
    free(traffic);
}

void rows_free(struct rows *rows)
{
    free(rows->step);
    free(rows->tensor);
    *rows = (struct rows){0};
}

#include "sim/wire.h"

/* Sums over an epoch up to some step. */
struct step_record {
    double loss, norm;
    struct traffic sent[SENDINGS];
};

#define LANES 256

struct step_log_add {
    const double *loss, *norm;
    size_t losses, norms;
    double *lane; /* [2][LANES] */
};

/* Lane i of both sums. */
KERNEL(step_log_add)
{
    double loss = 0;
    double norm = 0;

    for (size_t at = i; at < a->losses; at += LANES)
        loss += a->loss[at];
    for (size_t at = i; at < a->norms; at += LANES)
        norm += a->norm[at];
    a->lane[i] = loss;
    a->lane[LANES + i] = norm;
}

struct step_log_note {
    const double *lane;
    const struct traffic *traffic; /* [SENDINGS][tensors] */
    size_t tensors;
    struct step_record *record;
};

KERNEL(step_log_note)
{
    double loss = 0;
    double norm = 0;

    for (size_t sending = 0; sending < SENDINGS; sending++) {
        const struct traffic *of = a->traffic + sending * a->tensors;
        struct traffic sum = {0, 0};

        for (size_t t = 0; t < a->tensors; t++) {
            sum.entries += of[t].entries;
            sum.bytes += of[t].bytes;
        }
        a->record[i].sent[sending] = sum;
    }
    for (size_t lane = 0; lane < LANES; lane++) {
        loss += a->lane[lane];
        norm += a->lane[LANES + lane];
    }
    a->record[i].loss = loss;
    a->record[i].norm = norm;
}

#ifndef __CUDACC__

#include "sim/step_log.h"

#include <stdlib.h>

#include "sim/exchange.h"

enum { BEFORE, AFTER, MOMENTS };

#define LANE_BYTES (sizeof(double) * 2 * LANES)

static size_t room_for(const struct config *c, uint64_t steps)
{
    return c->log_every > 0 ? (steps + c->log_every - 1) / c->log_every : 0;
}

static size_t record_bytes(size_t room)
{
    return room * MOMENTS * sizeof(struct step_record);
}

size_t step_log_bytes(const struct config *c, uint64_t steps)
{
    return record_bytes(room_for(c, steps));
}

void step_log_create(struct step_log *l, const struct workers *w, uint64_t steps)
{
    *l = (struct step_log){.every = w->config->log_every, .room = room_for(w->config, steps)};
    if (l->every == 0)
        return;
    l->step = allocate(l->room, sizeof(*l->step));
    l->record = device_alloc(w->dev, record_bytes(l->room));
    l->lane = device_alloc(w->dev, LANE_BYTES);
}

void step_log_destroy(struct step_log *l, const struct workers *w)
{
    device_free(w->dev, l->lane, LANE_BYTES);
    device_free(w->dev, l->record, record_bytes(l->room));
    free(l->step);
    *l = (struct step_log){0};
}

static bool is_kept(const struct step_log *l, const struct step *step)
{
    return l->every > 0 && step->number % l->every == 0;
}

static void note(const struct step_log *l, const struct workers *w, int moment)
{
    LAUNCH(w->dev, step_log_add, LANES, .loss = w->loss_sum, .norm = w->norm_sum,
           .losses = workers_rows(w->config), .norms = w->count, .lane = l->lane);
    LAUNCH(w->dev, step_log_note, 1, .lane = l->lane, .traffic = w->traffic,
           .tensors = w->compressed.count, .record = l->record + MOMENTS * l->count + moment);
}

void step_log_before(struct step_log *l, const struct workers *w, const struct step *step)
{
    if (is_kept(l, step))
        note(l, w, BEFORE);
}

void step_log_after(struct step_log *l, const struct workers *w, const struct step *step,
                    uint64_t tokens)
{
    if (!is_kept(l, step))
        return;
    CHECK(l->count < l->room);
    note(l, w, AFTER);
    l->step[l->count++] =
        (struct logged_step){.number = step->number, .tokens = tokens, .lr = (double)step->lr};
}

const struct logged_step *step_log_take(struct step_log *l, const struct workers *w, size_t *count)
{
    struct step_record *record = allocate(l->count, record_bytes(1));

    if (l->count > 0)
        device_download(w->dev, record, l->record, record_bytes(l->count));
    for (size_t i = 0; i < l->count; i++) {
        const struct step_record *before = record + MOMENTS * i + BEFORE;
        const struct step_record *after = record + MOMENTS * i + AFTER;
        struct sent then = sent_sum(before->sent, 1);
        struct sent now = sent_sum(after->sent, 1);
        struct sent sent = sent_since(&now, &then);
        struct logged_step *step = &l->step[i];

        step->loss = (after->loss - before->loss) / (double)step->tokens;
        step->grad_norm = (after->norm - before->norm) / w->count;
        step->density = exchange_density(w, (double)sent.last.entries, 1);
        step->bytes_up = exchange_bytes_up(w, &sent, 1);
        step->bytes_down = exchange_bytes_down(w, &sent, 1);
    }
    free(record);
    *count = l->count;
    l->count = 0;
    return l->step;
}

#endif

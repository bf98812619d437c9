#include "compressors/rounds.h"

struct rounds_sum {
    const float *value; /* [senders][stride] */
    uint32_t senders;
    size_t stride;
    float *to;
};

KERNEL(rounds_sum)
{
    float sum = 0;

    for (uint32_t w = 0; w < a->senders; w++)
        sum += a->value[w * a->stride + i];
    a->to[i] = sum;
}

/* Entries of lists as a tree has them: the tile's worker j is the list j apart + offset. */
struct rounds_put {
    const uint32_t *index;
    const float *value;    /* NULL: put `constant` */
    const uint32_t *count; /* [lists][tensors] */
    size_t room;           /* of a list */
    uint32_t apart, offset, lists, tensors;
    const uint32_t *first; /* [tensors] tile where a tensor begins */
    uint32_t adds;         /* 1: onto what is there */
    float constant;
    float *to; /* [workers][stride] */
    size_t stride;
};

TILE_KERNEL(rounds_put)
{
    uint32_t list = t->worker * a->apart + a->offset;
    float *to = a->to + t->worker * a->stride + (size_t)a->first[t->tensor] * TILE;

    if (list >= a->lists || t->begin >= a->count[(size_t)list * a->tensors + t->tensor])
        return;
    EACH_SLOT (s) {
        size_t e = list * a->room + t->place + tile_element(t, s);

        if (t->begin + tile_element(t, s) < a->count[(size_t)list * a->tensors + t->tensor]) {
            float value = a->value ? a->value[e] : a->constant;
            float *at = &to[a->index[e]];

            *at = a->adds ? *at + value : value;
        }
    }
}

struct rounds_lose {
    const uint32_t *index;
    const uint32_t *count; /* [senders][tensors] */
    const uint32_t *first;
    uint32_t apart;    /* senders that have a mark slab together */
    const float *mark; /* [slabs][stride] 1 where an entry got on */
    size_t stride;
    float *delivered; /* [senders][room] */
};

TILE_KERNEL(rounds_lose)
{
    const float *mark =
        a->mark + t->worker / a->apart * a->stride + (size_t)a->first[t->tensor] * TILE;

    EACH_SLOT (s) {
        size_t e = tile_at(t, s);

        if (t->begin + tile_element(t, s) < a->count[t->scalar] && mark[a->index[e]] == 0)
            a->delivered[e] = 0;
    }
}

#ifndef __CUDACC__

#include "compressors/sparse.h"

static bool has_first(const struct method *m)
{
    return m->compressor->first.encode != NULL;
}

static bool has_tree(const struct method *m)
{
    return m->compressor->exchange == TREE;
}

/* A method whose only round is the first one of m. */
static struct method first_of(const struct method *m, struct compressor *alone)
{
    *alone = (struct compressor){.room = m->compressor->first.room,
                                 .no_indices = !m->compressor->first.indices};
    return (struct method){.compressor = alone, .settings = m->settings};
}

/* A broadcast has one sender. */
static uint32_t first_senders(const struct method *m, uint32_t workers)
{
    return m->compressor->first.exchange == BROADCAST ? 1 : workers;
}

/* Pairs at the bottom of a tree. */
static uint32_t pairs_of(uint32_t workers)
{
    return (workers + 1) / 2;
}

static size_t field_bytes(const struct call *call, uint32_t workers)
{
    return pairs_of(workers) * call->layout->length * sizeof(float);
}

static struct call with_settings(const struct method *m, const struct call *call)
{
    struct call own = *call;

    own.settings = m->settings;
    return own;
}

void rounds_create(struct rounds *r, const struct method *method, const struct call *call,
                   uint32_t workers)
{
    struct call own = with_settings(method, call);
    struct compressor alone;
    struct method first = first_of(method, &alone);

    *r = (struct rounds){0};
    if (has_first(method)) {
        message_create(&r->first, &first, &own, first_senders(method, workers));
        if (method->compressor->first.indices)
            r->first.values.form.bits = 0;
        message_create(&r->received, &first, &own, 1);
    }
    if (has_tree(method)) {
        for (int i = 0; i < 2; i++)
            message_create(&r->merged[i], method, &own, pairs_of(workers));
        r->delivered = device_alloc(call->dev, workers * r->merged[0].bytes.value);
        r->field = device_alloc(call->dev, field_bytes(call, workers));
    }
}

void rounds_destroy(struct rounds *r, const struct method *method, const struct call *call,
                    uint32_t workers)
{
    if (has_tree(method)) {
        device_free(call->dev, r->delivered, workers * r->merged[0].bytes.value);
        device_free(call->dev, r->field, field_bytes(call, workers));
        for (int i = 0; i < 2; i++)
            message_destroy(&r->merged[i], call->dev, pairs_of(workers));
    }
    if (has_first(method)) {
        message_destroy(&r->first, call->dev, first_senders(method, workers));
        message_destroy(&r->received, call->dev, 1);
    }
}

size_t rounds_bytes_needed(const struct method *method, const struct call *call, uint32_t workers)
{
    struct call own = with_settings(method, call);
    struct compressor alone;
    struct method first = first_of(method, &alone);
    size_t bytes = 0;

    if (has_first(method))
        bytes += message_bytes_needed(&first, &own, first_senders(method, workers) + 1);
    if (has_tree(method))
        bytes += message_bytes_needed(method, &own, 2 * pairs_of(workers) + workers) +
                 field_bytes(call, workers);
    return bytes;
}

void rounds_add_up(const struct call *call, const struct message *m, float *to)
{
    LAUNCH(call->dev, rounds_sum, m->rooms.length, .value = m->own_value, .senders = m->senders,
           .stride = m->rooms.length, .to = to);
}

void rounds_first(struct rounds *r, const struct method *method, const struct call *call)
{
    struct call own = with_settings(method, call);

    if (!has_first(method))
        return;
    r->first.senders = first_senders(method, call->workers);
    method->compressor->first.encode(&own, &r->first);
    if (method->compressor->first.exchange == SUM)
        rounds_add_up(call, &r->first, r->received.own_value);
}

/* Of lists [senders], every `apart`-th from offset on, to a slab of the field each. */
struct lists {
    const struct message *of;
    uint32_t apart, offset;
};

static void put(const struct rounds *r, const struct call *call, struct lists from, uint32_t slabs,
                const float *value, float constant)
{
    const struct message *m = from.of;

    LAUNCH_TILES(call->dev, rounds_put, &m->rooms.tiles, slabs, .index = m->index, .value = value,
                 .count = m->count, .room = m->rooms.length, .apart = from.apart,
                 .offset = from.offset, .lists = m->senders, .tensors = m->rooms.count,
                 .first = call->layout->tiles.first, .adds = value != NULL, .constant = constant,
                 .to = r->field, .stride = call->layout->length);
}

/* What of the workers' own entries is no longer in the lists of their part of the tree. */
static void lose(const struct rounds *r, const struct call *call, const struct message *lists,
                 const struct message *sent, uint32_t apart)
{
    const struct lists merged = {lists, 1, 0};
    uint32_t slabs = lists->senders;

    put(r, call, merged, slabs, NULL, 1);
    LAUNCH_TILES(call->dev, rounds_lose, &sent->rooms.tiles, sent->senders, .index = sent->index,
                 .count = sent->count, .first = call->layout->tiles.first, .apart = apart,
                 .mark = r->field, .stride = call->layout->length, .delivered = r->delivered);
    put(r, call, merged, slabs, NULL, 0);
}

/* One level: neighbours among lists are added up, and the largest entries kept.  The field is zero
 * before and after. */
static void merge(struct rounds *r, const struct call *call, const struct message *lists,
                  struct message *to)
{
    struct layout field = *call->layout;
    struct call own = *call;
    size_t scratch = device_scratch_mark(call->dev);

    to->senders = pairs_of(lists->senders);
    for (uint32_t offset = 0; offset < 2; offset++)
        put(r, call, (struct lists){lists, 2, offset}, to->senders, lists->own_value, 0);
    field.tiles.stride = field.length;
    own.layout = &field;
    own.workers = to->senders;
    own.wanted = r->field;
    sparse_select_top(&own, to);
    for (uint32_t offset = 0; offset < 2; offset++)
        put(r, call, (struct lists){lists, 2, offset}, to->senders, NULL, 0);
    device_scratch_release(call->dev, scratch);
}

void rounds_last(struct rounds *r, const struct method *method, const struct call *call,
                 const struct message *sent)
{
    struct call own = with_settings(method, call);
    const struct message *lists = sent;
    uint32_t apart = 1;

    if (method->compressor->receive != NULL)
        method->compressor->receive(&own, sent);
    if (!has_tree(method))
        return;
    device_copy(call->dev, r->delivered, sent->own_value,
                sent->senders * sent->rooms.length * sizeof(*r->delivered));
    for (uint32_t level = 0; level == 0 || lists->senders > 1; level++) {
        bool last = lists->senders <= 2;

        merge(r, &own, lists, &r->merged[level % 2]);
        lists = &r->merged[level % 2];
        apart *= 2;
        if (last || !method->compressor->loses(method->settings))
            lose(r, &own, lists, sent, apart);
    }
    r->end = lists;
}

#endif

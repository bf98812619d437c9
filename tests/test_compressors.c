/*
 * test_compressors -- laws that hold for every compressor, with every memory, on every device.
 *
 * An entry added to compressors[] or memories[] is tested without further work.  What a law takes
 * from an entry: its flags, and what a packet of its messages says (said_by()).
 */
#include "tests/lab.h"

#include "compressors/sparse.h"

#include <float.h>
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WORKERS 5

static const size_t mixed[] = {1, 8, 300, 70000};
static const size_t mixed_rows[] = {1, 2, 10, 200};
static const size_t less[] = {1, 8, 300, 3000}; /* on a device that is about something else */
static const size_t less_rows[] = {1, 2, 10, 20};
static const size_t small[] = {1, 8, 300};
static const double ratios[] = {0.01, 0.3, 1};
static const double few_ratios[] = {0.01, 1};

static const char *device;

struct subject {
    const struct compressor *compressor;
    const struct quantiser *quantiser; /* or NULL */
    const struct memory *memory;
    const double *settings, *quantiser_settings; /* NULL: as they begin */
};

static bool sends_largest(const struct subject *s)
{
    bool dgc = strcmp(s->compressor->name, "dgc") == 0 && s->settings == NULL;

    return dgc || s->compressor->encode == sparse_select_top;
}

/* What gradients look like. */
enum fill { RANDOM, FEW_VALUES, EQUAL, FAR_APART, DENORMAL, HOSTILE, ZERO, FILLS };

static void hostile(float *x, size_t n)
{
    const float odd[] = {NAN, INFINITY, -INFINITY, FLT_MAX, -FLT_MAX, 1e-45f, -0.0f};

    for (size_t i = 0; i < n; i++)
        if (i % 11 < ARRAY_LENGTH(odd))
            x[i] = odd[i % 11];
}

/* The gradient of one worker. */
static void fill(enum fill how, uint64_t seed, float *x, size_t n)
{
    harness_floats(seed, x, n);
    for (size_t i = 0; i < n && how != RANDOM; i++) {
        if (how == FEW_VALUES)
            x[i] = truncf(3 * x[i]) / 2; /* zeros of either sign among them */
        else if (how == EQUAL)
            x[i] = 0.25f;
        else if (how == FAR_APART)
            x[i] = i == 0 || i + 1 == n ? x[i] : 0;
        else if (how == DENORMAL)
            x[i] *= 1e-41f;
        else if (how == ZERO)
            x[i] = 0;
    }
    if (how == HOSTILE)
        hostile(x, n);
}

/* Those of all workers of a lab, the same for the same arguments; freed by the caller. */
static float *gradients(const struct lab *lab, enum fill how, uint64_t seed)
{
    size_t n = lab->layout.elements;
    float *x = allocate(lab->spec.workers * n, sizeof(*x));

    for (uint32_t w = 0; w < lab->spec.workers; w++)
        fill(how, seed * 100 + w, x + w * n, n);
    return x;
}

static void begin(struct lab *lab, const struct subject *s, uint32_t workers, double ratio)
{
    bool slow = strcmp(device, "guard") == 0;

    lab_open(lab, &(struct lab_spec){.device = device,
                                     .compressor = s->compressor,
                                     .memory = s->memory,
                                     .n = slow ? less : mixed,
                                     .rows = slow ? less_rows : mixed_rows,
                                     .tensors = ARRAY_LENGTH(mixed),
                                     .workers = workers,
                                     .ratio = ratio,
                                     .quantiser = s->quantiser,
                                     .settings = s->settings,
                                     .quantiser_settings = s->quantiser_settings});
}

/* Up to the message, with all workers in one group. */
static void send(struct lab *lab, enum fill how, uint64_t seed)
{
    float *x = gradients(lab, how, seed);

    lab_begin(lab, x);
    lab_enter(lab, 0, lab->spec.workers);
    lab_compensate(lab);
    lab_encode(lab);
    free(x);
}

/* A law of what a message says, for every ratio and kind of gradient. */
static void each_message(const struct subject *s, bool with_hostile,
                         void (*law)(struct lab *lab, enum fill how))
{
    for (size_t r = 0; r < ARRAY_LENGTH(ratios); r++) {
        struct lab lab;

        begin(&lab, s, 2, ratios[r]);
        for (int how = 0; how < FILLS; how++) {
            if (how == HOSTILE && !with_hostile)
                continue;
            send(&lab, how, 1);
            law(&lab, how);
        }
        lab_close(&lab);
    }
}

static uint32_t index_of(const struct packet *p, uint32_t tensor, uint32_t entry)
{
    return p->index != NULL ? p->index[p->begin[tensor] + entry] : entry;
}

/* Whether what a worker's message says is not in its entries alone, but in all rounds and workers';
 * tests/test_rounds.c knows more of such methods. */
static bool is_indirect(const struct lab *lab)
{
    return lab->spec.compressor->exchange == TREE || lab->spec.compressor->no_indices;
}

static float *decoded_of(struct lab *lab, uint32_t sender)
{
    uint32_t workers = lab->spec.workers;
    float *slab = lab_slab(lab, workers);
    float *x, *all;

    lab_decode(lab, (struct target){.how = ADD, .to = slab, .stride = lab->stride});
    all = lab_download(lab, slab, workers);
    x = allocate(lab->stride, sizeof(*x));
    memcpy(x, all + sender * lab->stride, lab->layout.length * sizeof(*x));
    lab_drop(lab, slab, workers);
    free(all);
    return x;
}

/* What a sender's message says, as a slab of one row. */
static float *said_by(struct lab *lab, uint32_t sender)
{
    struct packet p;
    float *x;

    if (is_indirect(lab))
        return decoded_of(lab, sender);
    x = allocate(lab->stride, sizeof(*x));
    packet_download(&p, &lab->message, &lab->layout, sender);
    for (uint32_t t = 0; t < p.tensors; t++)
        for (uint32_t i = 0; i < p.count[t]; i++)
            x[lab_place(lab, 0, t, index_of(&p, t, i))] = p.value[p.begin[t] + i];
    packet_free(&p);
    return x;
}

/* Where several workers' messages are made one, sums have another order. */
static void require_equal(const struct lab *lab, const char *what, const float *a, const float *b)
{
    float off = is_indirect(lab) ? 2e-5f : 0;

    for (size_t i = 0; i < lab->layout.length; i++)
        if (!(fabsf(a[i] - b[i]) <= off))
            fail_msg("%s: place %zu holds %.9g, not %.9g", what, i, (double)a[i], (double)b[i]);
}

/* Everything that steps leave behind, byte after byte. */
struct record {
    unsigned char *bytes;
    size_t size, room;
};

static void add(struct record *r, const void *bytes, size_t size)
{
    if (r->bytes == NULL || r->room < r->size + size) {
        r->room = 2 * (r->size + size) + 1;
        r->bytes = realloc(r->bytes, r->room);
        assert_non_null(r->bytes);
    }
    memcpy(r->bytes + r->size, bytes, size);
    r->size += size;
}

static void add_message(struct record *r, struct lab *lab, uint32_t sender)
{
    struct packet p;

    packet_download(&p, &lab->message, &lab->layout, sender);
    for (uint32_t t = 0; t < p.tensors; t++) {
        add(r, &p.count[t], sizeof(*p.count));
        if (p.index != NULL)
            add(r, p.index + p.begin[t], p.count[t] * sizeof(*p.index));
        add(r, p.value + p.begin[t], p.count[t] * sizeof(*p.value));
    }
    packet_free(&p);
}

static void add_slab(struct record *r, struct lab *lab, const float *slab, uint32_t rows)
{
    float *x = lab_download(lab, slab, rows);

    add(r, x, rows * lab->stride * sizeof(*x));
    free(x);
}

static void poison_scratch(struct lab *lab)
{
    struct device *dev = &lab->dev;

    for (size_t i = 0; i < DEVICE_SCRATCHES && dev->scratch[0].block[i].memory != NULL; i++) {
        void *bytes = malloc(dev->scratch[0].block[i].bytes);

        assert_non_null(bytes);
        memset(bytes, 0xa5, dev->scratch[0].block[i].bytes);
        device_upload(dev, dev->scratch[0].block[i].memory, bytes, dev->scratch[0].block[i].bytes);
        free(bytes);
    }
}

enum { STEPS = 2 };

/* STEPS steps of workers in groups; scratch is poisoned before each if asked. */
static struct record record_steps(const struct subject *s, double ratio, uint32_t workers,
                                  uint32_t group, bool poisoned)
{
    struct record r = {0};
    struct lab lab;

    begin(&lab, s, workers, ratio);
    for (unsigned step = 0; step < STEPS; step++) {
        float *x = gradients(&lab, step == 1 ? FEW_VALUES : RANDOM, step);

        lab.step.number = step;
        lab_begin(&lab, x);
        free(x);
        for (uint32_t first = 0; first < workers; first += group) {
            lab_enter(&lab, first, workers - first < group ? workers - first : group);
            if (poisoned)
                poison_scratch(&lab);
            lab_compensate(&lab);
            lab_encode(&lab);
            for (uint32_t w = 0; w < lab.message.senders; w++)
                add_message(&r, &lab, w);
            lab_receive(&lab);
            lab_update(&lab);
        }
        add_slab(&r, &lab, lab.sum, 1);
        for (uint32_t i = 0; i < memory_slabs(s->memory); i++)
            add_slab(&r, &lab, lab.slab[i], workers);
    }
    lab_close(&lab);
    return r;
}

/* Frees b. */
static void require_same_record(const struct record *a, struct record *b)
{
    assert_int_equal(a->size, b->size);
    assert_true(memcmp(a->bytes, b->bytes, a->size) == 0);
    free(b->bytes);
}

static void same_inputs_give_the_same_bytes_in_any_scratch(void **state)
{
    for (size_t i = 0; i < ARRAY_LENGTH(few_ratios); i++) {
        struct record a = record_steps(*state, few_ratios[i], 2, 2, false);
        struct record b = record_steps(*state, few_ratios[i], 2, 2, true);

        require_same_record(&a, &b);
        free(a.bytes);
    }
}

static struct record record_threads(const struct subject *s, double ratio, int threads)
{
    struct record r = {0};
    struct lab lab;
    float *x;

    begin(&lab, s, 2, ratio);
    omp_set_num_threads(threads); /* opening a device has set it too */
    x = gradients(&lab, RANDOM, 3);
    lab_step(&lab, x);
    lab_step(&lab, x);
    for (uint32_t w = 0; w < 2; w++)
        add_message(&r, &lab, w);
    add_slab(&r, &lab, lab.sum, 1);
    for (uint32_t i = 0; i < memory_slabs(s->memory); i++)
        add_slab(&r, &lab, lab.slab[i], 2);
    free(x);
    lab_close(&lab);
    return r;
}

static void one_thread_is_as_good_as_two(void **state)
{
    for (size_t i = 0; i < ARRAY_LENGTH(few_ratios); i++) {
        struct record a = record_threads(*state, few_ratios[i], 1);
        struct record b = record_threads(*state, few_ratios[i], 2);

        require_same_record(&a, &b);
        free(a.bytes);
    }
}

static void groups_do_not_matter(void **state)
{
    const struct subject *s = *state;

    if (s->compressor->together)
        return;
    for (size_t i = 0; i < ARRAY_LENGTH(few_ratios); i++) {
        struct record a = record_steps(*state, few_ratios[i], WORKERS, WORKERS, false);

        for (uint32_t group = 1; group <= 2; group++) {
            struct record b = record_steps(*state, few_ratios[i], WORKERS, group, false);

            require_same_record(&a, &b);
        }
        free(a.bytes);
    }
}

/* All but the first `used` of so many 4-byte words. */
static void poison_words(struct lab *lab, void *on_device, size_t words, size_t used)
{
    uint32_t *x = allocate(words, sizeof(*x));

    device_download(&lab->dev, x, on_device, words * sizeof(*x));
    for (size_t i = used; i < words; i++)
        x[i] = 0xffa5a5a5u; /* not a number, and no index */
    device_upload(&lab->dev, on_device, x, words * sizeof(*x));
    free(x);
}

/* Whatever of a message's rooms has no entry. */
static void poison_room(struct lab *lab)
{
    struct message *m = &lab->message;
    size_t length = m->rooms.length;
    uint32_t bits = m->values.form.bits;
    bool coded = m->values.form.kind != CODE_FLOAT;

    for (uint32_t sender = 0; sender < m->senders; sender++) {
        struct packet p;

        packet_download(&p, m, &lab->layout, sender);
        for (uint32_t t = 0; t < p.tensors; t++) {
            size_t next = t + 1 < p.tensors ? m->rooms.at[t + 1] : length;
            size_t room = next - p.begin[t];
            size_t at = sender * length + p.begin[t];

            if (m->index != NULL)
                poison_words(lab, m->index + at, room, p.count[t]);
            if (m->own_value != NULL)
                poison_words(lab, m->own_value + at, room, coded ? 0 : p.count[t]);
            if (coded)
                poison_words(lab, m->own_code + at / 32 * bits, room / 32 * bits,
                             (p.count[t] * (size_t)bits + 31) / 32);
        }
        packet_free(&p);
    }
}

/* Decodes with a block hidden, on the device that can hide it. */
static float *decode_without(struct lab *lab, const float *hidden)
{
    bool hides =
        strcmp(device, "guard") == 0 && hidden != NULL && hidden != lab->message.values.value;
    float *sum;

    lab_upload(lab, lab->sum, NULL, 1);
    if (hides)
        guard_hide(hidden);
    lab_receive(lab);
    guard_hide(NULL);
    sum = lab_download(lab, lab->sum, 1);
    return sum;
}

static void decode_sees_only_the_message(void **state)
{
    for (size_t r = 0; r < ARRAY_LENGTH(few_ratios); r++) {
        struct lab lab;
        float *sum;

        begin(&lab, *state, 2, few_ratios[r]);
        lab.scales = r == 0;
        send(&lab, RANDOM, 7);
        sum = decode_without(&lab, NULL);
        poison_room(&lab);
        poison_scratch(&lab);
        for (int i = 0; i < 5; i++) {
            const float *hidden[] = {NULL, lab.grad, lab.scaled, lab.slab[0], lab.slab[1]};
            float *again = decode_without(&lab, hidden[i]);

            assert_true(memcmp(again, sum, lab.stride * sizeof(*sum)) == 0);
            free(again);
        }
        free(sum);
        lab_close(&lab);
    }
}

static void require_padding_everywhere(struct lab *lab, const char *stage)
{
    lab_require_padding(lab, stage, lab->grad, lab->spec.workers);
    lab_require_padding(lab, stage, lab->sum, 1);
    if (lab->scales)
        lab_require_padding(lab, stage, lab->scaled, lab->spec.workers);
    for (uint32_t i = 0; i < memory_slabs(lab->spec.memory); i++)
        lab_require_padding(lab, stage, lab->slab[i], lab->spec.workers);
}

static void padding_stays_zero_after_every_stage(void **state)
{
    for (size_t r = 0; r < ARRAY_LENGTH(few_ratios); r++) {
        struct lab lab;

        begin(&lab, *state, 2, few_ratios[r]);
        lab.scales = lab.decays = r == 0;
        lab.step.weight_decay = 0.5f;
        for (unsigned step = 0; step < 2; step++) {
            float *x = gradients(&lab, RANDOM, step);

            lab_begin(&lab, x);
            lab_enter(&lab, 0, 2);
            lab_compensate(&lab);
            require_padding_everywhere(&lab, "compensate");
            lab_encode(&lab);
            require_padding_everywhere(&lab, "encode");
            lab_receive(&lab);
            require_padding_everywhere(&lab, "decode");
            lab_update(&lab);
            require_padding_everywhere(&lab, "update");
            free(x);
        }
        lab_close(&lab);
    }
}

/* after is wanted - said in floats, and nothing is lost by it. */
static void require_kept(const struct lab *lab, const float *wanted, const float *said,
                         const float *after)
{
    for (size_t i = 0; i < lab->layout.length; i++) {
        float most = fabsf(wanted[i]) > fabsf(said[i]) ? fabsf(wanted[i]) : fabsf(said[i]);
        float off = is_indirect(lab) ? 2e-5f : 0;

        if (!(fabsf(after[i] - (wanted[i] - said[i])) <= off) ||
            !(fabsf(after[i] + said[i] - wanted[i]) <= FLT_EPSILON * most + off))
            fail_msg("place %zu: %.9g came in, %.9g was sent, %.9g is kept", i, (double)wanted[i],
                     (double)said[i], (double)after[i]);
    }
}

static void what_is_kept_and_what_was_sent_are_what_came_in(void **state)
{
    const struct subject *s = *state;

    for (size_t r = 0; r < ARRAY_LENGTH(few_ratios) && s->memory->residual >= 0; r++) {
        struct lab lab;

        begin(&lab, s, 2, few_ratios[r]);
        for (unsigned step = 0; step < STEPS; step++) {
            float *wanted, *after, *said[2];

            send(&lab, step == 1 ? FEW_VALUES : RANDOM, step);
            wanted = lab_download(&lab, lab.slab[s->memory->residual], 2);
            for (uint32_t w = 0; w < 2; w++)
                said[w] = said_by(&lab, w);
            lab_update(&lab);
            after = lab_download(&lab, lab.slab[s->memory->residual], 2);
            for (uint32_t w = 0; w < 2; w++) {
                require_kept(&lab, wanted + w * lab.stride, said[w], after + w * lab.stride);
                free(said[w]);
            }
            free(wanted);
            free(after);
        }
        lab_close(&lab);
    }
}

static void zero_stays_zero(void **state)
{
    const struct subject *s = *state;

    if (s->quantiser != NULL && s->quantiser->votes)
        return; /* zero is a vote for + */
    for (size_t r = 0; r < ARRAY_LENGTH(few_ratios); r++) {
        struct lab lab;
        float *zero, *x;

        begin(&lab, s, 2, few_ratios[r]);
        zero = gradients(&lab, ZERO, 0);
        x = allocate(lab.stride, sizeof(*x));
        for (unsigned step = 0; step < 2; step++) {
            float *sum;

            lab_step(&lab, zero);
            sum = lab_download(&lab, lab.sum, 1);
            require_equal(&lab, "sum", sum, x);
            free(sum);
        }
        for (uint32_t i = 0; i < memory_slabs(s->memory); i++) {
            float *slab = lab_download(&lab, lab.slab[i], 2);

            require_equal(&lab, "memory of worker 0", slab, x);
            require_equal(&lab, "memory of worker 1", slab + lab.stride, x);
            free(slab);
        }
        free(zero);
        free(x);
        lab_close(&lab);
    }
}

static void require_rising(struct lab *lab, enum fill how)
{
    for (uint32_t w = 0; w < lab->message.senders; w++) {
        struct packet p;

        packet_download(&p, &lab->message, &lab->layout, w);
        for (uint32_t t = 0; t < p.tensors; t++) {
            size_t room = lab->message.rooms.n[t];

            assert_in_range(p.count[t], 0, room);
            for (uint32_t i = 0; i < p.count[t]; i++) {
                assert_in_range(index_of(&p, t, i), 0, p.n[t] - 1);
                assert_true(i == 0 || index_of(&p, t, i) > index_of(&p, t, i - 1));
            }
        }
        packet_free(&p);
    }
}

static void counts_fit_the_room_and_indices_rise(void **state)
{
    each_message(*state, true, require_rising);
}

/* Not a number in, anything out; but a message that can be sent, and no crash then or later. */
static void numbers_that_are_not_finite_do_no_harm(void **state)
{
    for (size_t r = 0; r < ARRAY_LENGTH(few_ratios); r++) {
        struct lab lab;

        begin(&lab, *state, 2, few_ratios[r]);
        for (unsigned step = 0; step < 2; step++) {
            send(&lab, HOSTILE, step);
            require_rising(&lab, HOSTILE);
            lab_receive(&lab);
            lab_update(&lab);
            require_padding_everywhere(&lab, "update");
        }
        lab_close(&lab);
    }
}

/* runs16 is not for codes.  Where there are no indices, or such as others have, raw and best do. */
static bool is_worth_it(const struct lab *lab, enum fill how, int encoding)
{
    bool as_others = how != RANDOM && how != EQUAL && how != FAR_APART;

    if (lab->message.index == NULL || lab->spec.ratio == 1 || as_others)
        return encoding == ENCODING_RAW || encoding == ENCODING_BEST;
    return encoding != ENCODING_RUNS16 || lab->spec.quantiser == NULL;
}

static void require_counted(struct lab *lab, enum fill how)
{
    struct packet p[2];

    for (uint32_t w = 0; w < 2; w++)
        packet_download(&p[w], &lab->message, &lab->layout, w);
    for (int encoding = 0; encoding < ENCODINGS; encoding++) {
        struct traffic total;
        uint64_t each[2];
        uint64_t bytes = 0;
        uint64_t entries = 0;

        if (!is_worth_it(lab, how, encoding))
            continue;
        lab_weigh(lab, encoding, &total, each);
        for (uint32_t w = 0; w < 2; w++) {
            uint8_t *packed;
            size_t size = packet_pack(&p[w], encoding, &packed);

            assert_int_equal(each[w], size);
            bytes += size;
            for (uint32_t t = 0; t < p[w].tensors; t++)
                entries += p[w].count[t];
            free(packed);
        }
        assert_int_equal(total.bytes, bytes);
        assert_int_equal(total.entries, entries);
    }
    for (uint32_t w = 0; w < 2; w++)
        packet_free(&p[w]);
}

static void bytes_counted_are_bytes_packed(void **state)
{
    each_message(*state, true, require_counted);
}

/* A zero may come back as -0 (wire.h); not a number comes back bit by bit. */
static void require_same_packet(const struct packet *a, const struct packet *b)
{
    for (uint32_t t = 0; t < a->tensors; t++) {
        for (uint32_t i = 0; i < a->count[t]; i++) {
            float x = a->value[a->begin[t] + i];
            float y = b->value[b->begin[t] + i];

            assert_int_equal(index_of(a, t, i), index_of(b, t, i));
            assert_true(float_bits(x) == float_bits(y) || (x == 0 && y == 0));
        }
    }
}

static void require_round_trip(struct lab *lab, enum fill how)
{
    struct packet p, q;
    struct error err;

    packet_download(&p, &lab->message, &lab->layout, 1);
    for (int encoding = 0; encoding < ENCODINGS; encoding++) {
        uint8_t *packed;
        size_t size;

        if (!is_worth_it(lab, how, encoding))
            continue;
        size = packet_pack(&p, encoding, &packed);
        packet_download(&q, &lab->message, &lab->layout, 1);
        for (uint32_t t = 0; t < q.tensors; t++) {
            memset(q.value + q.begin[t], 0xff, q.count[t] * sizeof(*q.value));
            if (q.index != NULL && !q.agreed)
                memset(q.index + q.begin[t], 0xff, q.count[t] * sizeof(*q.index));
            if (q.code != NULL)
                memset(q.code + q.begin[t], 0xff, q.count[t] * sizeof(*q.code));
        }
        assert_true(packet_unpack(&q, encoding, packed, size, &err));
        require_same_packet(&p, &q);
        packet_free(&q);
        free(packed);
    }
    packet_free(&p);
}

static void unpacking_undoes_packing(void **state)
{
    each_message(*state, true, require_round_trip);
}

static void require_contraction(struct lab *lab, enum fill how)
{
    float *wanted = lab_download(lab, lab->grad, 2);

    for (uint32_t w = 0; w < 2; w++) {
        float *said = said_by(lab, w);

        for (uint32_t t = 0; t < lab->layout.count; t++) {
            double before = 0;
            double after = 0;

            for (size_t i = 0; i < lab->layout.n[t]; i++) {
                double x = (double)wanted[lab_place(lab, w, t, i)];
                double off = x - (double)said[lab_place(lab, 0, t, i)];

                before += x * x;
                after += off * off;
            }
            assert_true(before > 0 ? after < before : after == 0);
        }
        free(said);
    }
    free(wanted);
}

static void a_contraction_leaves_less(void **state)
{
    const struct subject *s = *state;
    struct method method = {s->compressor, s->quantiser, NULL, NULL};

    if (method_contraction(&method))
        each_message(s, false, require_contraction);
}

/* The mean of many draws is within 6 of its deviations; the last term is for what was never
 * drawn, so rare that its deviation is not seen either. */
static void require_mean(const double *sum, const double *squares, const double *most,
                         const float *x, size_t n, double draws)
{
    for (size_t i = 0; i < n; i++) {
        double mean = sum[i] / draws;
        double variance = squares[i] / draws - mean * mean;
        double deviation = sqrt((variance > 0 ? variance : 0) / draws);

        if (!(fabs(mean - (double)x[i]) <=
              6 * deviation + 12 * *most / draws + 1e-6 * fabs((double)x[i])))
            fail_msg("element %zu: the mean of %g draws is %g, not %g", i, draws, mean,
                     (double)x[i]);
    }
}

static void an_unbiased_one_is_right_on_average(void **state)
{
    enum { DRAWS = 1000, N = 309 };
    const struct subject *s = *state;
    struct method method = {s->compressor, s->quantiser, NULL, NULL};
    double sum[N] = {0}, squares[N] = {0}, most = 0;
    struct lab lab;
    float *x;

    if (!method_unbiased(&method) || strcmp(device, "guard") == 0)
        return;
    lab_open(&lab, &(struct lab_spec){device, s->compressor, s->memory, small, 3, 1, 0.3,
                                      s->quantiser, s->settings, s->quantiser_settings, NULL});
    x = gradients(&lab, RANDOM, 5);
    for (unsigned draw = 0; draw < DRAWS; draw++) {
        size_t at = 0;
        float *said;

        lab.step.number = draw;
        lab_step(&lab, x);
        said = lab_download(&lab, lab.sum, 1);
        for (uint32_t t = 0; t < 3; t++) {
            for (size_t i = 0; i < small[t]; i++, at++) {
                double value = (double)said[lab_place(&lab, 0, t, i)];

                sum[at] += value;
                squares[at] += value * value;
                most = fabs(value) > most ? fabs(value) : most;
            }
        }
        free(said);
    }
    require_mean(sum, squares, &most, x, N, DRAWS);
    free(x);
    lab_close(&lab);
}

static void a_message_adds_to_the_sum_in_worker_order(void **state)
{
    for (size_t r = 0; r < ARRAY_LENGTH(ratios); r++) {
        struct lab lab;
        float *slow, *sum, *x;

        begin(&lab, *state, WORKERS, ratios[r]);
        send(&lab, RANDOM, 2);
        x = gradients(&lab, RANDOM, 99);
        lab_upload(&lab, lab.sum, x, 1);
        slow = lab_download(&lab, lab.sum, 1);
        for (uint32_t w = 0; w < WORKERS; w++) {
            float *said = said_by(&lab, w);

            for (size_t i = 0; i < lab.layout.length; i++)
                slow[i] += said[i];
            free(said);
        }
        lab_receive(&lab);
        sum = lab_download(&lab, lab.sum, 1);
        require_equal(&lab, "sum", sum, slow);
        free(slow);
        free(sum);
        free(x);
        lab_close(&lab);
    }
}

/* What a target becomes of old in tensor t, by the packet. */
static void apply_slowly(const struct lab *lab, const struct packet *p, struct target target,
                         float *row)
{
    for (uint32_t t = 0; t < p->tensors; t++) {
        for (uint32_t i = 0; i < p->count[t]; i++) {
            float *to = &row[lab_place(lab, 0, t, index_of(p, t, i))];
            float value = p->value[p->begin[t] + i];

            if (target.spare_whole && p->count[t] == p->n[t])
                continue;
            *to = target.how == ADD ? *to + value : target.how == SUBTRACT ? *to - value : 0;
        }
    }
}

static void check_own_slabs(struct lab *lab, struct target target)
{
    float *x = gradients(lab, RANDOM, 55);
    float *after, *slow;

    target.to = lab_slab(lab, 2);
    target.stride = lab->stride;
    lab_upload(lab, target.to, x, 2);
    slow = lab_download(lab, target.to, 2);
    lab_decode(lab, target);
    after = lab_download(lab, target.to, 2);
    for (uint32_t w = 0; w < 2; w++) {
        struct packet p;

        packet_download(&p, &lab->message, &lab->layout, w);
        apply_slowly(lab, &p, target, slow + w * lab->stride);
        require_equal(lab, "own slab", after + w * lab->stride, slow + w * lab->stride);
        packet_free(&p);
    }
    lab_require_padding(lab, "own slab", target.to, 2);
    lab_drop(lab, target.to, 2);
    free(after);
    free(slow);
    free(x);
}

static void a_message_adds_subtracts_and_clears_on_own_slabs(void **state)
{
    for (size_t r = 0; r < ARRAY_LENGTH(ratios); r++) {
        struct lab lab;

        begin(&lab, *state, 2, ratios[r]);
        send(&lab, RANDOM, 2);
        for (int spare = 0; spare <= 1 && !is_indirect(&lab); spare++) {
            check_own_slabs(&lab, (struct target){.how = ADD, .spare_whole = spare});
            check_own_slabs(&lab, (struct target){.how = SUBTRACT, .spare_whole = spare});
            check_own_slabs(&lab, (struct target){.how = CLEAR, .spare_whole = spare});
        }
        lab_close(&lab);
    }
}

struct entry {
    uint32_t size, place;
};

static int by_size(const void *a, const void *b)
{
    const struct entry *x = a;
    const struct entry *y = b;

    if (x->size != y->size)
        return x->size > y->size ? -1 : 1;
    return x->place < y->place ? -1 : 1;
}

/* Whether an entry is among the keep largest of x[n], by a plain sort. */
static bool *largest(const float *x, size_t n, size_t keep)
{
    struct entry *entry = allocate(n, sizeof(*entry));
    bool *chosen = allocate(n, sizeof(*chosen));

    for (size_t i = 0; i < n; i++)
        entry[i] = (struct entry){float_bits(x[i]) & 0x7fffffffu, (uint32_t)i};
    qsort(entry, n, sizeof(*entry), by_size);
    for (size_t i = 0; i < keep; i++)
        chosen[entry[i].place] = true;
    free(entry);
    return chosen;
}

static void require_largest(struct lab *lab, enum fill how)
{
    float *wanted = lab_download(lab, lab->grad, 2);

    for (uint32_t w = 0; w < 2; w++) {
        struct packet p;

        packet_download(&p, &lab->message, &lab->layout, w);
        for (uint32_t t = 0; t < p.tensors; t++) {
            const float *x = wanted + lab_place(lab, w, t, 0);
            bool *chosen = largest(x, p.n[t], lab->keep[t]);

            assert_int_equal(p.count[t], lab->keep[t]);
            for (uint32_t i = 0; i < p.count[t]; i++) {
                uint32_t at = index_of(&p, t, i);

                assert_true(chosen[at]);
                if (lab->spec.quantiser == NULL)
                    assert_int_equal(float_bits(p.value[p.begin[t] + i]), float_bits(x[at]));
            }
            free(chosen);
        }
        packet_free(&p);
    }
    free(wanted);
}

static void top_entries_are_those_of_a_plain_sort(void **state)
{
    if (sends_largest(*state))
        each_message(*state, true, require_largest);
}

/* pytorch#1810: |x| of 1, 2, 5, 4, 5; an only element; a tensor of equal ones. */
static void check_only_entry(const struct subject *s, const float *x, size_t n, uint32_t place)
{
    struct lab lab;
    struct packet p;

    lab_open(&lab, &(struct lab_spec){device, s->compressor, s->memory, &n, 1, 1, 1e-6,
                                      s->quantiser, s->settings, s->quantiser_settings, NULL});
    lab_step(&lab, x);
    packet_download(&p, &lab.message, &lab.layout, 0);
    assert_in_range(p.count[0], lab.message.counted ? 0 : 1, n);
    if (sends_largest(s)) {
        assert_int_equal(p.count[0], 1);
        assert_int_equal(index_of(&p, 0, 0), place);
        if (s->quantiser == NULL)
            assert_float_equal(p.value[p.begin[0]], x[place], 0);
    }
    packet_free(&p);
    lab_close(&lab);
}

static void one_element_and_equal_elements_are_sent(void **state)
{
    const float one[] = {-3};
    const float some[] = {1, -2, 5, 4, -5};
    const float equal[] = {0.5f, 0.5f, -0.5f, 0.5f};
    const float zeros[] = {0.0f, -0.0f, 0.0f};

    check_only_entry(*state, one, 1, 0);
    check_only_entry(*state, some, 5, 2);
    check_only_entry(*state, equal, 4, 0);
    check_only_entry(*state, zeros, 3, 0);
}

static struct {
    struct device_ops ops;
    unsigned launches;
} counting;

static void count_run(struct device *dev, struct kernel *k, size_t n, const void *args)
{
    counting.launches++;
    cpu_device.run(dev, k, n, args);
}

static void count_rows(struct device *dev, struct row_kernel *k, size_t rows, size_t columns,
                       const void *args)
{
    counting.launches++;
    cpu_device.run_rows(dev, k, rows, columns, args);
}

static void count_tiles(struct device *dev, struct tile_kernel *k, const struct tiles *l,
                        uint32_t workers, const void *args)
{
    counting.launches++;
    cpu_device.run_tiles(dev, k, l, workers, args);
}

static void count_select(struct device *dev, const struct selection *s)
{
    counting.launches++;
    cpu_device.select(dev, s);
}

static void count_scan(struct device *dev, const uint32_t *in, size_t n, uint32_t *out)
{
    counting.launches++;
    cpu_device.scan(dev, in, n, out);
}

static void count_sort(struct device *dev, const struct sort *s)
{
    counting.launches++;
    cpu_device.sort(dev, s);
}

static void count_clear(struct device *dev, void *memory, size_t bytes)
{
    counting.launches++;
    cpu_device.clear(dev, memory, bytes);
}

static void count_copy(struct device *dev, void *to, const void *from, size_t bytes)
{
    counting.launches++;
    cpu_device.copy(dev, to, from, bytes);
}

static void count_gemm(struct device *dev, const struct gemm *g)
{
    counting.launches++;
    cpu_device.gemm(dev, g);
}

/* Launches of a step: all but decode into the sum, and that. */
struct launches {
    unsigned step, receive;
};

static struct launches launches_of(const struct subject *s, uint32_t workers, uint32_t tensors)
{
    size_t n[LAB_TENSORS];
    struct lab lab;
    struct launches found;
    float *x;

    for (uint32_t i = 0; i < tensors; i++)
        n[i] = 300;
    lab_open(&lab, &(struct lab_spec){"cpu", s->compressor, s->memory, n, tensors, workers, 0.01,
                                      s->quantiser, s->settings, s->quantiser_settings, NULL});
    x = gradients(&lab, RANDOM, 1);
    lab_begin(&lab, x);
    free(x);
    lab.dev.ops = &counting.ops;
    counting.launches = 0;
    lab_enter(&lab, 0, workers);
    lab_compensate(&lab);
    lab_encode(&lab);
    for (int encoding = 0; encoding < ENCODINGS; encoding++)
        message_weigh(&lab.message, &lab.layout, encoding, lab.traffic, NULL);
    lab_update(&lab);
    found.step = counting.launches;
    lab_receive(&lab);
    found.receive = counting.launches - found.step;
    lab.dev.ops = &cpu_device;
    lab_close(&lab);
    return found;
}

static void launches_do_not_grow_with_workers_or_tensors(void **state)
{
    const struct subject *s = *state;
    struct launches one, many, most;

    if (s->compressor->exchange == TREE || s->compressor->no_indices)
        return; /* the logarithm of the workers; a product a tensor */
    one = launches_of(*state, 1, 1);
    many = launches_of(*state, WORKERS, 1);
    most = launches_of(*state, WORKERS, 40);

    assert_int_equal(one.step, many.step);
    assert_int_equal(one.step, most.step);
    assert_true(many.receive <= WORKERS * one.receive);
    assert_int_equal(many.receive, most.receive);
}

static void set_up_counting(void)
{
    counting.ops = cpu_device;
    counting.ops.run = count_run;
    counting.ops.run_rows = count_rows;
    counting.ops.run_tiles = count_tiles;
    counting.ops.select = count_select;
    counting.ops.scan = count_scan;
    counting.ops.sort = count_sort;
    counting.ops.clear = count_clear;
    counting.ops.copy = count_copy;
    counting.ops.gemm = count_gemm;
}

/* Of a compressor alone: what is wanted is the gradient. */
static const struct CMUnitTest compressor_laws[] = {
    cmocka_unit_test(counts_fit_the_room_and_indices_rise),
    cmocka_unit_test(bytes_counted_are_bytes_packed),
    cmocka_unit_test(unpacking_undoes_packing),
    cmocka_unit_test(a_contraction_leaves_less),
    cmocka_unit_test(an_unbiased_one_is_right_on_average),
    cmocka_unit_test(a_message_adds_to_the_sum_in_worker_order),
    cmocka_unit_test(a_message_adds_subtracts_and_clears_on_own_slabs),
    cmocka_unit_test(top_entries_are_those_of_a_plain_sort),
    cmocka_unit_test(one_element_and_equal_elements_are_sent),
};

/* Of a compressor with a memory. */
static const struct CMUnitTest pair_laws[] = {
    cmocka_unit_test(same_inputs_give_the_same_bytes_in_any_scratch),
    cmocka_unit_test(one_thread_is_as_good_as_two),
    cmocka_unit_test(groups_do_not_matter),
    cmocka_unit_test(decode_sees_only_the_message),
    cmocka_unit_test(padding_stays_zero_after_every_stage),
    cmocka_unit_test(what_is_kept_and_what_was_sent_are_what_came_in),
    cmocka_unit_test(zero_stays_zero),
    cmocka_unit_test(numbers_that_are_not_finite_do_no_harm),
    cmocka_unit_test(launches_do_not_grow_with_workers_or_tensors),
};

static int run_laws(const struct subject *s, const struct CMUnitTest *laws, size_t count)
{
    struct CMUnitTest tests[16];
    char *group =
        format_text("%s+%s with memory %s on %s", s->compressor->name,
                    s->quantiser != NULL ? s->quantiser->name : "floats", s->memory->name, device);
    struct subject subject = *s;
    int failed;

    memcpy(tests, laws, count * sizeof(*laws));
    for (size_t i = 0; i < count; i++)
        tests[i].initial_state = &subject;
    failed = _cmocka_run_group_tests(group, tests, count, NULL, NULL);
    free(group);
    return failed;
}

/* A method with every memory. */
static int run_method(const struct compressor *c, const struct quantiser *q)
{
    int failed = run_laws(&(struct subject){c, q, memory_find("none"), NULL, NULL}, compressor_laws,
                          ARRAY_LENGTH(compressor_laws));

    for (const struct memory *const *m = memories; *m != NULL; m++)
        failed +=
            run_laws(&(struct subject){c, q, *m, NULL, NULL}, pair_laws, ARRAY_LENGTH(pair_laws));
    return failed;
}

/* What settings of either make of a method, and pairs: with their own memory. */
static const struct form {
    const char *compressor, *quantiser;
    struct {
        const char *name;
        double value;
    } setting[3];
} forms[] = {
    {"adacomp", "", {{"bin", 50}, {"sigmas", 1}}},
    {"adacomp", "", {{"original", 1}, {"sigmas", 2}, {"c", 2.35}}},
    {"adacomp", "efsignsgd", {{"bin", 0}, {"quantise", 0}}},
    {"dgc", "", {{"sampled", 1}}},
    {"none", "natural", {{"original", 1}}},
    {"randomk", "qsgd", {{NULL, 0}}},
    {"slice", "fp16", {{NULL, 0}}},
    {"threshold", "terngrad", {{"tau", 0.5}, {"values", 1}}},
};

static void begin_settings(double *value, const struct setting *settings)
{
    for (size_t i = 0; i < setting_count(settings); i++)
        value[i] = settings[i].initial;
}

static int run_form(const struct form *f)
{
    const struct compressor *c = compressor_find(f->compressor);
    const struct quantiser *q = quantiser_find(f->quantiser);
    double settings[SETTINGS_MOST] = {0}, of_quantiser[SETTINGS_MOST] = {0};
    struct subject s = {c, q, memory_find("none"), settings, of_quantiser};
    struct method method = {c, q, settings, of_quantiser};
    int failed;

    begin_settings(settings, c->settings);
    if (q != NULL)
        begin_settings(of_quantiser, q->settings);
    for (size_t i = 0; i < ARRAY_LENGTH(f->setting) && f->setting[i].name != NULL; i++) {
        const char *name = f->setting[i].name;
        int own = setting_find(c->settings, name);
        int its = q != NULL ? setting_find(q->settings, name) : -1;

        CHECK(own >= 0 || its >= 0);
        *(own >= 0 ? &settings[own] : &of_quantiser[its]) = f->setting[i].value;
    }
    failed = run_laws(&s, compressor_laws, ARRAY_LENGTH(compressor_laws));
    s.memory = memory_find(method_memory(&method));
    return failed + run_laws(&s, pair_laws, ARRAY_LENGTH(pair_laws));
}

/* Every compressor; every quantiser alone, and behind one that chooses; forms.  guard is slow, and what
 * it is about needs fewer. */
int main(void)
{
    int failed = 0;

    set_up_counting();
    for (const char *const *d = harness_devices(); *d != NULL; d++) {
        bool guard = strcmp(*d, "guard") == 0;

        device = *d;
        if (strcmp(device, "recording") == 0)
            continue; /* it watches steps, and here are none */
        for (const struct compressor *const *c = compressors; *c != NULL; c++)
            failed += run_method(*c, NULL);
        for (const struct quantiser *const *q = quantisers; *q != NULL; q++) {
            if (!guard)
                failed += run_method(compressor_find("none"), *q);
            failed += run_form(&(struct form){guard ? "none" : "topk", (*q)->name, {{NULL, 0}}});
        }
        for (size_t i = 0; i < ARRAY_LENGTH(forms) && !guard; i++)
            failed += run_form(&forms[i]);
    }
    return failed;
}

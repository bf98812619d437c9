#include "sim/dump.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sim/optimizer.h"
#include "sim/safetensors.h"
#include "sim/tree.h"
#include "sim/weights.h"
#include "sim/worker.h"

struct dump {
    const struct config *config;
    bool active; /* this step is written */
    bool gathers, several;
    char prefix[32]; /* of names in this step */
    struct step step;
    uint32_t epoch;
    const float *params; /* [P] before the step */
    const float **grad;  /* [K], each [P] */
    float *scale;        /* [K] */

    struct safetensors_tensor *tensor; /* of the file to be */
    size_t tensors;
    void **owned; /* their names and values */
    size_t owns;

    bool failed;
    struct error fault;
};

static struct dump *dump_of(const struct config *c)
{
    struct dump *d = allocate(1, sizeof(*d));

    d->config = c;
    d->grad = allocate(c->nodes, sizeof(*d->grad));
    d->scale = allocate(c->nodes, sizeof(*d->scale));
    return d;
}

struct dump *dump_create(const struct config *c)
{
    return c->dump_steps > 0 ? dump_of(c) : NULL;
}

struct dump *dump_gather(const struct config *c, bool several)
{
    struct dump *d = dump_of(c);

    d->gathers = true;
    d->several = several;
    return d;
}

static void forget_step(struct dump *d)
{
    for (size_t i = 0; i < d->owns; i++)
        free(d->owned[i]);
    d->owns = 0;
    d->tensors = 0;
}

void dump_destroy(struct dump *d)
{
    if (d == NULL)
        return;
    forget_step(d);
    free(d->owned);
    free(d->tensor);
    free(d->scale);
    free(d->grad);
    free(d);
}

char *dump_path(const struct config *c, uint64_t step)
{
    return format_text("%s/step-%04llu.safetensors", c->dump, (unsigned long long)step);
}

char *dump_message_path(const struct config *c, uint64_t step, uint32_t worker)
{
    return format_text("%s/step-%04llu.worker-%u.message", c->dump, (unsigned long long)step,
                       worker);
}

static bool make_folder(const char *path, bool *made, struct error *err)
{
    *made = mkdir(path, 0777) == 0;
    return *made || errno == EEXIST ||
           fail(err, "%s: cannot make the folder: %s", path, strerror(errno));
}

bool dump_message_folder(const struct config *c, struct error *err)
{
    bool made;

    return c->dump[0] == '\0' || make_folder(c->dump, &made, err);
}

bool dump_folder(const struct config *c, size_t weights_bytes, struct error *err)
{
    char *path;
    bool made, ok;

    if (c->dump_steps == 0)
        return true;
    if (!make_folder(c->dump, &made, err))
        return false;
    path = dump_path(c, 0);
    ok = safetensors_writable(path, (2 + 3 * (size_t)c->nodes) * weights_bytes, err);
    if (made && !ok)
        rmdir(c->dump);
    free(path);
    return ok;
}

bool dump_active(const struct dump *d)
{
    return d != NULL && d->active;
}

/* Freed when the step is written. */
static void *own(struct dump *d, void *memory)
{
    if (d->owns % 64 == 0) {
        d->owned = realloc(d->owned, (d->owns + 64) * sizeof(*d->owned));
        CHECK(d->owned != NULL);
    }
    d->owned[d->owns++] = memory;
    return memory;
}

static float *download(struct dump *d, const struct workers *w, const float *from, size_t n)
{
    float *x = own(d, allocate(n, sizeof(*x)));

    device_download(w->dev, x, from, n * sizeof(*x));
    return x;
}

static void add(struct dump *d, char *name, struct safetensors_tensor tensor)
{
    if (d->tensors % 64 == 0) {
        d->tensor = realloc(d->tensor, (d->tensors + 64) * sizeof(*d->tensor));
        CHECK(d->tensor != NULL);
    }
    tensor.name = own(d, format_text("%s%s", d->prefix, name));
    free(name);
    d->tensor[d->tensors++] = tensor;
}

enum which { COMPRESSED = 1, UNCOMPRESSED = 2, ALL = 3 };

/* Tensors of an arena under a prefix: those that are compressed, those that are sent whole, or all. */
static void add_arena(struct dump *d, const struct workers *w, const char *prefix, enum which which,
                      const float *arena)
{
    const struct parameters *p = w->parameters;

    for (uint32_t i = 0; i < p->count; i++)
        if (which & (i < p->compressed ? COMPRESSED : UNCOMPRESSED))
            add(d, format_text("%s.%s", prefix, p->item[p->order[i]].name),
                weights_tensor(p, p->order[i], arena));
}

static void add_worker(struct dump *d, const struct workers *w, const char *what, uint32_t k,
                       enum which which, const float *arena)
{
    char *prefix = format_text("%s.%u", what, k);

    add_arena(d, w, prefix, which, arena);
    free(prefix);
}

/* So many values for a compressed tensor: all of its entries in its shape, or others as a vector. */
static void add_values(struct dump *d, const struct workers *w, const char *prefix, uint32_t t,
                       const float *value, size_t count)
{
    const struct parameter *p = &w->parameters->item[w->parameters->order[t]];
    struct safetensors_tensor tensor = {.dims = 1, .dim = {count}, .value = value};

    if (count == p->n) {
        tensor.dims = p->dims;
        memcpy(tensor.dim, p->dim, sizeof(p->dim));
    }
    if (count > 0)
        add(d, format_text("%s.%s", prefix, p->name), tensor);
}

static float add_scalar(struct dump *d, const struct workers *w, const char *what, uint32_t k,
                        const float *from)
{
    const float *x = download(d, w, from + k, 1);

    add(d, format_text("%s.%u", what, k), (struct safetensors_tensor){.value = x});
    return *x;
}

/* What lies as the last message of one sender does. */
static void add_common(struct dump *d, const struct workers *w)
{
    const struct layout *rooms;
    float *common;

    if (w->common == NULL)
        return;
    rooms = &w->lane[0].message.rooms;
    CHECK(w->common_bytes == rooms->length * sizeof(*common));
    common = download(d, w, w->common, rooms->length);
    for (uint32_t t = 0; t < rooms->count; t++)
        add_values(d, w, "common", t, common + rooms->at[t], rooms->n[t]);
}

void dump_begin(struct dump *d, const struct workers *w, const struct step *step, uint32_t epoch)
{
    if (d == NULL)
        return;
    d->active = d->gathers || step->number < d->config->dump_steps;
    d->step = *step;
    d->epoch = epoch;
    if (!d->active)
        return;
    if (d->several)
        snprintf(d->prefix, sizeof(d->prefix), "step-%llu.", (unsigned long long)step->number);
    if (!d->gathers) {
        d->params = download(d, w, w->params, w->all.length);
        add_arena(d, w, "params", ALL, d->params);
    }
    add_common(d, w);
}

/* Tensors that are sent whole pass no memory: what goes is the gradient that counts. */
static void fill_dense(const struct dump *d, const struct workers *w, const struct lane *lane,
                       uint32_t k, float *to)
{
    const float *params = lane->group.call.params != NULL ? d->params : NULL;

    for (size_t i = w->compressed.length; i < w->all.length; i++)
        to[i] = memory_gradient(d->scale[k], d->grad[k][i], &d->step, params, i);
}

void dump_wanted(struct dump *d, const struct workers *w, const struct lane *lane)
{
    const struct call *call = &lane->group.call;
    size_t p = w->all.length;

    if (!dump_active(d))
        return;
    for (uint32_t i = 0; i < call->workers; i++) {
        uint32_t k = call->first + i;
        float *wanted = download(d, w, call->wanted + i * p, p);

        d->grad[k] = download(d, w, lane->slab + i * p, p);
        add_worker(d, w, "grad", k, ALL, d->grad[k]);
        if (call->square != NULL)
            add_worker(d, w, "square", k, COMPRESSED, download(d, w, call->square + i * p, p));
        add_scalar(d, w, "samples", k, w->sample_weight);
        d->scale[k] = add_scalar(d, w, "scale", k, w->scale);
        fill_dense(d, w, lane, k, wanted);
        add_worker(d, w, "wanted", k, ALL, wanted);
    }
}

/* A fault is for dump_holds(). */
static void write_message(struct dump *d, const struct packet *packet, uint32_t k)
{
    char *path;
    uint8_t *bytes;
    size_t size;
    FILE *out;
    bool ok;

    if (d->config->dump[0] == '\0')
        return;
    path = dump_message_path(d->config, d->step.number, k);
    size = packet_pack(packet, d->config->encoding, &bytes);
    out = fopen(path, "wb");
    ok = out != NULL && fwrite(bytes, 1, size, out) == size;
    ok = (out == NULL || fclose(out) == 0) && ok;
    if (!ok && !d->failed)
        d->failed = !fail(&d->fault, "%s: cannot write it: %s", path, strerror(errno));
    free(bytes);
    free(path);
}

/* What a message says of the compressed tensors: entries, with zeros where there is none, or values
 * that are no entries. */
static void add_packet(struct dump *d, const struct workers *w, const char *prefix,
                       const struct packet *packet)
{
    float *arena = own(d, allocate(w->compressed.length, sizeof(*arena)));

    for (uint32_t t = 0; t < packet->tensors; t++) {
        const float *value = packet->value + packet->begin[t];
        float *to = arena + w->compressed.at[t];

        for (uint32_t e = 0; e < packet->count[t]; e++)
            to[packet->index != NULL ? packet->index[packet->begin[t] + e] : e] = value[e];
        add_values(d, w, prefix, t, to,
                   packet->index != NULL ? w->compressed.n[t] : packet->count[t]);
    }
}

/* Of the i-th worker of the lane, an earlier round where that has values, and the last one. */
static void add_rounds(struct dump *d, const struct workers *w, const struct lane *lane, uint32_t i)
{
    const struct message *first = &lane->rounds.first;
    char *prefix = format_text("first.%u", lane->group.call.first + i);
    struct packet packet;

    if (first->senders > 0 && first->index == NULL) {
        packet_download(&packet, first, &w->compressed, i);
        add_packet(d, w, prefix, &packet);
        packet_free(&packet);
    }
    free(prefix);
    prefix = format_text("sent.%u", lane->group.call.first + i);
    packet_download(&packet, &lane->message, &w->compressed, i);
    add_packet(d, w, prefix, &packet);
    write_message(d, &packet, lane->group.call.first + i);
    packet_free(&packet);
    free(prefix);
}

void dump_sent(struct dump *d, const struct workers *w, const struct lane *lane)
{
    const struct call *call = &lane->group.call;

    if (!dump_active(d))
        return;
    for (uint32_t i = 0; i < call->workers; i++) {
        float *whole = own(d, allocate(w->all.length, sizeof(*whole)));

        add_rounds(d, w, lane, i);
        fill_dense(d, w, lane, call->first + i, whole);
        add_worker(d, w, "sent", call->first + i, UNCOMPRESSED, whole);
    }
}

void dump_kept(struct dump *d, const struct workers *w, const struct lane *lane)
{
    const struct call *call = &lane->group.call;
    size_t p = w->all.length;

    if (!dump_active(d))
        return;
    for (uint32_t slab = 0; slab < memory_slabs(w->memory); slab++)
        for (uint32_t k = call->first; k < call->first + call->workers; k++)
            add_worker(d, w, w->memory->slab_names[slab], k, COMPRESSED,
                       download(d, w, w->memory_slab[slab] + k * p, p));
    for (uint32_t slab = 0; slab < method_slabs(&w->method); slab++)
        for (uint32_t k = call->first; k < call->first + call->workers; k++)
            add_worker(d, w, w->method.compressor->own[slab], k, COMPRESSED,
                       download(d, w, w->own_slab[slab] + k * p, p));
}

void dump_delivered(struct dump *d, const struct workers *w, const float *sum)
{
    float *mean;

    if (!dump_active(d))
        return;
    mean = download(d, w, sum, w->all.length);
    for (size_t i = 0; i < w->all.length; i++)
        mean[i] /= (float)w->count;
    add_arena(d, w, "delivered", ALL, mean);
}

/* What a reader of a message has to know beside it: the tensors that are in it, in their order, and
 * what stands for a value.  As JSON, a new string. */
static char *message_note(const struct workers *w)
{
    static const char *const kinds[] = {
        [CODE_FLOAT] = "float", [CODE_SIGN] = "sign", [CODE_LEVEL] = "level",
        [CODE_POWER] = "power", [CODE_HALF] = "half", [CODE_BFLOAT] = "bfloat"};
    const struct compressor *c = w->method.compressor;
    const struct code_form form = method_form(&w->method);
    struct tree *note = tree_new(TREE_OBJECT, NULL);
    struct tree *names = tree_new(TREE_LIST, NULL);
    char *text;

    for (uint32_t i = 0; i < w->parameters->compressed; i++)
        tree_add(names, tree_text(w->parameters->item[w->parameters->order[i]].name, NULL));
    tree_put(note, "tensors", names);
    tree_put(note, "counted", tree_yes_no(method_counted(&w->method), NULL));
    tree_put(note, "agreed", tree_yes_no(c->agreed, NULL));
    tree_put_text(note, "values", kinds[form.kind]);
    tree_put_number(note, "bits", form.bits);
    tree_put_number(note, "levels", form.levels);
    tree_put_number(note, "bias", form.bias);
    tree_put(note, "scaled", tree_yes_no(form.scaled, NULL));
    tree_put_number(note, "bucket", form.bucket * TILE);
    text = tree_print(note);
    tree_free(note);
    return text;
}

static void add_optimizer(struct dump *d, const struct workers *w, const struct optimizer *o)
{
    for (int i = 0; i < OPTIMIZER_SLABS; i++) {
        char *state;

        if (o->slab[i] == NULL)
            continue;
        state = format_text("optimizer.%s", o->rule->slabs[i]);
        add_arena(d, w, state, ALL, download(d, w, o->slab[i], w->all.length));
        free(state);
    }
}

void dump_end(struct dump *d, const struct workers *w, const struct optimizer *o)
{
    enum { TEXTS = 8 };
    char text[TEXTS][32];
    char *message;
    char *path;

    if (!dump_active(d) || d->gathers)
        return;
    add_optimizer(d, w, o);
    snprintf(text[0], sizeof(text[0]), "%llu", (unsigned long long)d->step.number);
    snprintf(text[1], sizeof(text[1]), "%u", d->epoch);
    snprintf(text[2], sizeof(text[2]), "%.17g", config_ratio(d->config, d->epoch, d->step.number));
    snprintf(text[3], sizeof(text[3]), "%.9g", (double)d->step.lr);
    snprintf(text[4], sizeof(text[4]), "%.9g", (double)d->step.momentum);
    snprintf(text[5], sizeof(text[5]), "%u", d->step.nesterov);
    snprintf(text[6], sizeof(text[6]), "%.9g", (double)d->step.weight_decay);
    snprintf(text[7], sizeof(text[7]), "%.9g", (double)d->step.lr_change);
    message = message_note(w);
    struct safetensors_note notes[] = {
        {"key", d->config->key},   {"regime", d->config->effective},
        {"step", text[0]},         {"epoch", text[1]},
        {"ratio", text[2]},        {"lr", text[3]},
        {"momentum", text[4]},     {"nesterov", text[5]},
        {"weight_decay", text[6]}, {"lr_change", text[7]},
        {"message", message},
    };
    path = dump_path(d->config, d->step.number);
    if (!d->failed &&
        !safetensors_write(path, d->tensor, d->tensors, notes, ARRAY_LENGTH(notes), &d->fault))
        d->failed = true;
    free(path);
    free(message);
    forget_step(d);
}

/* The keys of a regime that a model has nothing to do with; a new string. */
static char *method_keys(const struct config *c)
{
    static const char *const others[] = {"model", "data", "evaluate", "epochs", "batch", "lr_rule"};
    struct tree *regime;
    struct error err;
    char *text;

    CHECK(tree_parse(&regime, c->effective, strlen(c->effective), "the regime", &err));
    for (size_t i = 0; i < ARRAY_LENGTH(others); i++)
        tree_remove(regime, others[i]);
    text = tree_print(regime);
    tree_free(regime);
    return text;
}

/* Of one step the same notes as dump_end() has, of several what they share. */
bool dump_write(struct dump *d, const struct workers *w, const char *path, struct error *err)
{
    char *regime = method_keys(d->config);
    char *message = message_note(w);
    char step[32], ratio[32];
    bool ok;

    snprintf(step, sizeof(step), "%llu", (unsigned long long)d->step.number);
    snprintf(ratio, sizeof(ratio), "%.17g", d->step.ratio);
    struct safetensors_note notes[] = {
        {"regime", regime}, {"message", message}, {"step", step}, {"ratio", ratio}};
    ok = dump_holds(d, err) &&
         safetensors_write(path, d->tensor, d->tensors, notes, d->several ? 2 : 4, err);
    free(regime);
    free(message);
    return ok;
}

bool dump_holds(const struct dump *d, struct error *err)
{
    return d == NULL || !d->failed || fail(err, "%s", d->fault.text);
}

#include "sim/show.h"

#include "sim/exchange.h"
#include "sim/run.h"
#include "sim/train.h"
#include "sim/tree.h"

#include <stdlib.h>
#include <string.h>

/* Columns of the table; what is longer moves the rest of its line. */
#define KEY_WIDTH   24
#define VALUE_WIDTH 22

/* What is known: all but c is zero where it is not. */
struct shown {
    const struct config *c;
    struct train *train;
    char device[256];
    size_t elements; /* of all parameters */
    double ratio;    /* of the run's last step */
    size_t message_bytes;
    bool message_exact;
};

static const char *const source_names[] = {"default", "regime", "tuned", "with", "flag"};

/* Of one worker and step. */
static void weigh_message(struct shown *s)
{
    struct workers w;
    double bytes;

    workers_describe(&w, s->c, &s->train->parameters);
    bytes = exchange_dense_bytes(&w);
    s->message_exact = true;
    for (uint32_t i = 0; i < w.compressed.count; i++) {
        struct sent sent = exchange_expected(&w, i, s->ratio);

        bytes += exchange_bytes_up(&w, &sent, 0);
        s->message_exact = s->message_exact && exchange_expected_exact(&w, i, s->ratio);
    }
    s->message_bytes = (size_t)bytes;
    workers_undescribe(&w);
}

static void count_elements(struct shown *s)
{
    const struct train *t = s->train;
    uint64_t steps = s->c->epochs * t->steps;

    for (uint32_t i = 0; i < t->parameters.count; i++)
        s->elements += t->parameters.item[i].n;
    s->ratio = config_ratio(s->c, s->c->epochs - 1, steps - 1);
    weigh_message(s);
}

/* Whether the run could begin here. */
static bool look(struct shown *s, struct error *missing, struct error *err)
{
    struct train *t = s->train;
    bool ok;

    missing->text[0] = '\0';
    if (!run_load_data(t, missing))
        return true;
    missing->text[0] = '\0';
    if (!device_open(&t->dev, s->c->device, s->c->threads, err))
        return false;
    device_describe(&t->dev, s->device, sizeof(s->device));
    ok = train_plan(t, err);
    if (t->parameters.length > 0)
        count_elements(s);
    return ok;
}

/* How many entries there are is for the data to say. */
static bool is_counted(const struct shown *s)
{
    struct method method = workers_method(s->c);

    return method_counted(&method);
}

/* As a table. */

static void print_key(FILE *out, const struct config_told *told)
{
    static const char *const before[] = {"default", "", "tuned ", "--with ", ""};
    bool text = told->value->kind == TREE_TEXT && told->value->text[0] != '\0';
    char *value = text ? format_text("%s", told->value->text) : tree_print(told->value);

    fprintf(out, "%-*s  %-*s  %s%s\n", KEY_WIDTH, told->key, VALUE_WIDTH, value,
            before[told->source], told->place);
    free(value);
}

static void print_size(FILE *out, const char *what, size_t bytes, const char *more)
{
    char *size = size_text(bytes);

    fprintf(out, "%-*s  %s%s\n", KEY_WIDTH, what, size, more);
    free(size);
}

static void print_parts(FILE *out, const struct plan *plan)
{
    char *lanes = plan->streams > 1 ? format_text(" for each of %u streams", plan->streams)
                                    : format_text("%s", "");

    print_size(out, "  parameters", plan->part.parameters, "");
    print_size(out, "  workers' memory", plan->part.workers, "");
    print_size(out, "  evaluation", plan->part.evaluation, "");
    print_size(out, "  data", plan->part.data, "");
    print_size(out, "  gradient slab", plan->part.lane.slab, lanes);
    print_size(out, "  activations", plan->part.lane.activations, lanes);
    print_size(out, "  messages", plan->part.lane.messages, lanes);
    print_size(out, "  scratch", plan->part.lane.scratch, lanes);
    free(lanes);
}

static void print_memory(FILE *out, const struct plan *plan, const char *device, bool parts)
{
    char *free_text = size_text(plan->available);
    char *more = format_text(", of %s that are free", free_text);

    print_size(out, "memory needed", plan->bytes, more);
    if (parts)
        print_parts(out, plan);
    fprintf(out, "%-*s  %u workers in a group, groups at a time: %u\n", KEY_WIDTH, "group, streams",
            plan->group, plan->streams);
    fprintf(out, "%-*s  %s\n", KEY_WIDTH, "device", device);
    free(more);
    free(free_text);
}

static void print_data(FILE *out, const struct source_kind *kind, const struct contents *data)
{
    fprintf(out, "%-*s  %u\n", KEY_WIDTH, kind->classes, data->classes);
    fprintf(out, "%-*s  %zu train, %zu valid, %zu test\n", KEY_WIDTH, kind->samples,
            data->count[TEXT_TRAIN], data->count[TEXT_VALID], data->count[TEXT_TEST]);
}

static void print_model(FILE *out, const struct shown *s)
{
    bool counted = is_counted(s);
    char *when = counted ? format_text("%s", "the data say how many")
                         : format_text("at ratio %.6g", s->ratio);

    fprintf(out, "%-*s  %zu in %u tensors, %zu bytes\n", KEY_WIDTH, "parameters", s->elements,
            s->train->parameters.count, 4 * s->elements);
    fprintf(out, "%-*s  %s%zu bytes a worker and step, %s%s; without compression %zu\n", KEY_WIDTH,
            "message",
            counted            ? "at least "
            : s->message_exact ? ""
                               : "about ",
            s->message_bytes, when, counted || s->message_exact ? "" : ", entries at random places",
            4 * s->elements);
    free(when);
}

static void print_all(FILE *out, const struct shown *s, bool parts)
{
    const struct config *c = s->c;
    const struct train *t = s->train;
    struct contents data = t->data.set->kind->contents(&t->data);

    for (size_t i = 0; i < c->tolds; i++)
        print_key(out, &c->told[i]);
    fprintf(out, "\n%-*s  %s\n", KEY_WIDTH, "key", c->key);
    fprintf(out, "%-*s  %s\n", KEY_WIDTH, "name", c->name);
    fprintf(out, "%-*s  %u a worker, %u in total\n", KEY_WIDTH, "batch", c->batch, c->total_batch);
    if (data.classes > 0)
        print_data(out, t->data.set->kind, &data);
    if (t->steps > 0)
        fprintf(out, "%-*s  %llu an epoch, %llu in all\n", KEY_WIDTH, "steps",
                (unsigned long long)t->steps, (unsigned long long)t->steps * c->epochs);
    if (s->elements > 0)
        print_model(out, s);
    if (t->plan.bytes > 0)
        print_memory(out, &t->plan, s->device, parts);
}

/* As JSON. */

static struct tree *settings_tree(const struct config *c)
{
    struct tree *settings = tree_new(TREE_OBJECT, NULL);

    for (size_t i = 0; i < c->tolds; i++) {
        const struct config_told *told = &c->told[i];
        struct tree *one = tree_new(TREE_OBJECT, NULL);

        tree_put(one, "value", tree_copy(told->value));
        tree_put_text(one, "from", source_names[told->source]);
        if (told->source != SOURCE_DEFAULT)
            tree_put_text(one, "place", told->place);
        tree_put(settings, told->key, one);
    }
    return settings;
}

static void put_plan(struct tree *object, const struct plan *plan, bool parts)
{
    tree_put_number(object, "group", plan->group);
    tree_put_number(object, "streams", plan->streams);
    tree_put_number(object, "memory.bytes", (double)plan->bytes);
    tree_put_number(object, "memory.free", (double)plan->available);
    if (!parts)
        return;
    tree_put_number(object, "memory.parameters", (double)plan->part.parameters);
    tree_put_number(object, "memory.workers", (double)plan->part.workers);
    tree_put_number(object, "memory.evaluation", (double)plan->part.evaluation);
    tree_put_number(object, "memory.data", (double)plan->part.data);
    tree_put_number(object, "memory.lane.slab", (double)plan->part.lane.slab);
    tree_put_number(object, "memory.lane.activations", (double)plan->part.lane.activations);
    tree_put_number(object, "memory.lane.messages", (double)plan->part.lane.messages);
    tree_put_number(object, "memory.lane.scratch", (double)plan->part.lane.scratch);
}

static void put_data(struct tree *object, const struct train *t, const struct contents *data,
                     uint32_t epochs)
{
    const struct source_kind *kind = t->data.set->kind;
    char path[64];

    snprintf(path, sizeof(path), "data.%s", kind->classes);
    tree_put_number(object, path, data->classes);
    for (int part = 0; part < TEXT_PARTS; part++) {
        snprintf(path, sizeof(path), "data.%s_%s", text_part_names[part], kind->samples);
        tree_put_number(object, path, (double)data->count[part]);
    }
    tree_put_text(object, "data.sha256", data->sha256);
    if (t->steps == 0)
        return;
    tree_put_number(object, "steps.epoch", (double)t->steps);
    tree_put_number(object, "steps.run", (double)(t->steps * epochs));
}

static void put_model(struct tree *object, const struct shown *s)
{
    tree_put_number(object, "parameters.count", (double)s->elements);
    tree_put_number(object, "parameters.tensors", s->train->parameters.count);
    tree_put_number(object, "parameters.bytes", 4 * (double)s->elements);
    tree_put_number(object, "message.ratio", s->ratio);
    tree_put_number(object, "message.bytes", (double)s->message_bytes);
    tree_put_path(object, "message.exact", tree_yes_no(s->message_exact, NULL));
}

static void print_json(FILE *out, const struct shown *s, bool parts)
{
    const struct config *c = s->c;
    const struct train *t = s->train;
    struct contents data = t->data.set->kind->contents(&t->data);
    struct tree *object = tree_new(TREE_OBJECT, NULL);
    char *text;

    tree_put_text(object, "regime", c->regime);
    tree_put_text(object, "name", c->name);
    tree_put_text(object, "key", c->key);
    tree_put_text(object, "experiment_key", c->experiment_key);
    tree_put_text(object, "method", c->method);
    tree_put(object, "settings", settings_tree(c));
    tree_put_number(object, "batch.worker", c->batch);
    tree_put_number(object, "batch.total", c->total_batch);
    if (data.classes > 0)
        put_data(object, t, &data, c->epochs);
    if (s->elements > 0)
        put_model(object, s);
    if (s->device[0] != '\0')
        tree_put_text(object, "device", s->device);
    if (t->plan.bytes > 0)
        put_plan(object, &t->plan, parts);
    text = tree_print(object);
    fprintf(out, "%s\n", text);
    free(text);
    tree_free(object);
}

bool show(const struct config *c, bool parts, FILE *out, struct error *missing, struct error *err)
{
    struct shown *s = allocate(1, sizeof(*s));
    bool ok;

    s->c = c;
    s->train = allocate(1, sizeof(*s->train));
    s->train->config = c;
    ok = look(s, missing, err);
    if (c->json)
        print_json(out, s, parts);
    else
        print_all(out, s, parts);
    train_destroy(s->train);
    free(s->train);
    free(s);
    return ok;
}

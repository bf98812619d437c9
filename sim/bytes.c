#include "sim/bytes.h"

#include "models/model.h"
#include "sim/account.h"
#include "sim/exchange.h"
#include "sim/graph.h"
#include "sim/tree.h"

#include <stdlib.h>
#include <string.h>

struct weighed {
    const struct config *c;
    struct bytes_options options;
    struct parameters parameters;
    struct workers workers; /* without a device: as many as there are, and what they would send */
    double ratio;
    uint32_t classes; /* or words */
    bool exact; /* up and down are what would be sent; else what is to be expected, or the least */
    struct tensor_bytes tensor[PARAMETERS_MOST], sum;
};

static const struct parameter *parameter_at(const struct weighed *s, uint32_t i)
{
    return &s->parameters.item[s->parameters.order[i]];
}

static void build(struct weighed *s)
{
    struct device none = {.ops = &cpu_device};
    const struct dataset *set = dataset_find(s->c->data.name);
    struct images images = {.classes = s->options.vocabulary};
    struct network network;

    if (set->expect != NULL)
        set->expect(&images, s->c->data.value);
    s->classes = images.classes;
    network = (struct network){.model = model_find(s->c->model.name),
                               .values = s->c->model.value,
                               .classes = images.classes,
                               .image = images.size};
    graph_measure(&none, &s->parameters, &network, (struct shape){1, 1, 1}, false);
    graph_place(&s->parameters, s->c->compress_all);
    workers_describe(&s->workers, s->c, &s->parameters);
}

/* A tensor that is sent whole is the same by all rules. */
static struct tensor_bytes weigh_whole(size_t n)
{
    double elements = (double)n;
    double whole = 4 * elements;

    return (struct tensor_bytes){elements, elements, whole, whole, {whole, whole, whole}};
}

static struct tensor_bytes weigh_compressed(const struct weighed *s, uint32_t tensor)
{
    const struct workers *w = &s->workers;
    struct sent sent = exchange_expected(w, tensor, s->ratio);

    return (struct tensor_bytes){
        .elements = (double)w->compressed.n[tensor],
        .entries = (double)account_entries(&w->method, &w->compressed, tensor, s->ratio),
        .up = exchange_bytes_up(w, &sent, 0),
        .down = exchange_bytes_down(w, &sent, 0),
        .by_rule = account_tensor(&w->method, &w->compressed, tensor, s->ratio)};
}

static void weigh(struct weighed *s)
{
    const struct workers *w = &s->workers;

    s->exact = true;
    for (uint32_t i = 0; i < w->all.count; i++) {
        struct tensor_bytes *t = &s->tensor[i];
        bool compressed = i < w->compressed.count;

        *t = compressed ? weigh_compressed(s, i) : weigh_whole(w->all.n[i]);
        s->sum.elements += t->elements;
        s->sum.entries += t->entries;
        s->sum.up += t->up;
        s->sum.down += t->down;
        s->sum.by_rule = account_sum(s->sum.by_rule, t->by_rule);
        s->exact = s->exact && (!compressed || exchange_expected_exact(w, i, s->ratio));
    }
}

/* As a table. */

/* Four digits, or all before the point. */
static int decimals(double x)
{
    return x < 10 ? 3 : x < 100 ? 2 : x < 1000 ? 1 : 0;
}

static void print_sum(FILE *out, double dense, const char *what, double bytes)
{
    double mib = bytes / 1048576;
    double less = dense / bytes;

    fprintf(out, "%-10s %15.0f %11.*f", what, bytes, mib < 1 ? 4 : 2, mib);
    if (bytes > 0)
        fprintf(out, " %10.*fx", decimals(less), less);
    fputc('\n', out);
}

void bytes_print(FILE *out, const struct tensor_bytes *t)
{
    double dense = 4 * t->elements;

    fprintf(out, "%-10s %15s %11s %11s\n", "", "bytes", "MiB", "less");
    print_sum(out, dense, "dense", dense);
    print_sum(out, dense, "up", t->up);
    print_sum(out, dense, "down", t->down);
    print_sum(out, dense, "paper", t->by_rule.paper);
    print_sum(out, dense, "framework", t->by_rule.framework);
    print_sum(out, dense, "bound", t->by_rule.bound);
}

static void print_tensor(FILE *out, const char *name, const struct tensor_bytes *t)
{
    fprintf(out, "%-18s %11.0f %11.0f %12.0f %12.0f %12.0f %12.0f %12.0f\n", name, t->elements,
            t->entries, t->up, t->down, t->by_rule.paper, t->by_rule.framework, t->by_rule.bound);
}

static void print_table(FILE *out, const struct weighed *s)
{
    const struct config *c = s->c;
    const struct source_kind *kind = dataset_find(c->data.name)->kind;

    fprintf(out, "%s  %s  encoding %s  %u workers\n", c->regime, c->method,
            encoding_names[c->encoding], c->workers);
    fprintf(out, "%.0f parameters in %u tensors, %u of them compressed; %s %u\n\n", s->sum.elements,
            s->parameters.count, s->parameters.compressed,
            kind->images ? kind->classes : "--vocabulary", s->classes);
    bytes_print(out, &s->sum);
    if (!s->exact)
        fprintf(out, "\nup and down: %s\n",
                method_counted(&s->workers.method) ? "at least; the data decide"
                                                   : "about, entries at random places");
    if (!s->options.per_tensor)
        return;
    fprintf(out, "\n%-18s %11s %11s %12s %12s %12s %12s %12s\n", "tensor", "elements", "entries",
            "up", "down", "paper", "framework", "bound");
    for (uint32_t i = 0; i < s->parameters.count; i++)
        print_tensor(out, parameter_at(s, i)->name, &s->tensor[i]);
}

/* As JSON. */

void bytes_put(struct tree *object, const struct tensor_bytes *t)
{
    tree_put_number(object, "elements", t->elements);
    tree_put_number(object, "entries", t->entries);
    tree_put_number(object, "bytes.dense", 4 * t->elements);
    tree_put_number(object, "bytes.up", t->up);
    tree_put_number(object, "bytes.down", t->down);
    tree_put_number(object, "bytes.paper", t->by_rule.paper);
    tree_put_number(object, "bytes.framework", t->by_rule.framework);
    tree_put_number(object, "bytes.bound", t->by_rule.bound);
}

static struct tree *tensors_tree(const struct weighed *s)
{
    struct tree *list = tree_new(TREE_LIST, NULL);

    for (uint32_t i = 0; i < s->parameters.count; i++) {
        struct tree *one = tree_new(TREE_OBJECT, NULL);

        tree_put_text(one, "tensor", parameter_at(s, i)->name);
        tree_put(one, "compressed", tree_yes_no(i < s->parameters.compressed, NULL));
        bytes_put(one, &s->tensor[i]);
        tree_add(list, one);
    }
    return list;
}

static void print_json(FILE *out, const struct weighed *s)
{
    const struct config *c = s->c;
    struct tree *object = tree_new(TREE_OBJECT, NULL);
    char *text;

    tree_put_text(object, "regime", c->regime);
    tree_put_text(object, "method", c->method);
    tree_put_text(object, "encoding", encoding_names[c->encoding]);
    tree_put_number(object, "ratio", s->ratio);
    tree_put_number(object, "workers", c->workers);
    tree_put_number(object, dataset_find(c->data.name)->kind->classes, s->classes);
    bytes_put(object, &s->sum);
    tree_put(object, "exact", tree_yes_no(s->exact, NULL));
    if (s->options.per_tensor)
        tree_put(object, "tensors", tensors_tree(s));
    text = tree_print(object);
    fprintf(out, "%s\n", text);
    free(text);
    tree_free(object);
}

void bytes(const struct config *c, struct bytes_options options, FILE *out)
{
    struct weighed *s = allocate(1, sizeof(*s));

    s->c = c;
    s->options = options;
    s->ratio = c->ratio[c->ratios - 1].ratio;
    build(s);
    weigh(s);
    if (c->json)
        print_json(out, s);
    else
        print_table(out, s);
    workers_undescribe(&s->workers);
    free(s);
}

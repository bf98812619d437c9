#include "sim/compress.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "compressors/sparse.h"
#include "sim/bytes.h"
#include "sim/exchange.h"
#include "sim/gradients.h"
#include "sim/plan.h"
#include "sim/train.h"
#include "sim/tree.h"

struct compressing {
    struct gradients in;
    struct train train; /* as far as train_send() asks: shapes, and workers in one group */
    struct account account;
    float *grad, *square;      /* [K][P] of a step, on the host */
    struct tensor_bytes *step; /* [steps] */
};

/* A step as far as the exchange: neither parameters nor an optimizer. */
static bool check_config(const struct compressing *s, struct error *err)
{
    const struct config *c = s->train.config;

    if (c->workers != s->in.workers)
        return fail(err, "workers: %u, where the gradients are of %u", c->workers, s->in.workers);
    if (config_phase(c, 0)->weight_decay != 0)
        return fail(err, "weight decay wants parameters, and here are none");
    return c->clip.mode != CLIP_GLOBAL ||
           fail(err, "--clip-mode global: holds what the optimizer gets, and here is none");
}

static bool is_same_file(const char *a, const char *b)
{
    struct stat of_a, of_b;

    return stat(a, &of_a) == 0 && stat(b, &of_b) == 0 && of_a.st_dev == of_b.st_dev &&
           of_a.st_ino == of_b.st_ino;
}

/* Before anything is done. */
static bool check_output(const struct compressing *s, struct error *err)
{
    const struct config *c = s->train.config;
    size_t slabs = c->nodes * (3 + memory_slabs(memory_find(c->memory.name))) + 1;

    for (size_t i = 0; c->save[0] != '\0' && i < c->inputs; i++)
        if (is_same_file(c->input[i], c->save))
            return fail(err, "%s: is a file of gradients that are asked for, and would be replaced",
                        c->save);
    return (c->save[0] == '\0' ||
            safetensors_writable(
                c->save, s->in.steps * slabs * s->train.parameters.length * sizeof(float), err)) &&
           dump_message_folder(c, err);
}

static bool fill_parameters(struct compressing *s, struct error *err)
{
    const struct gradients *g = &s->in;
    const char *path = g->file[g->step[0].file].in.path;

    if (g->tensors > PARAMETERS_MOST)
        return fail(err, "%s: %u tensors, where %d is the most", path, g->tensors, PARAMETERS_MOST);
    for (uint32_t i = 0; i < g->tensors; i++) {
        const struct gradients_tensor *t = &g->tensor[i];
        struct parameter *p = &s->train.parameters.item[i];

        if (strlen(t->name) >= sizeof(p->name))
            return fail(err, "%s: a name of more than %zu bytes: '%.100s'", path,
                        sizeof(p->name) - 1, t->name);
        if (t->n > UINT32_MAX)
            return fail(err, "%s: tensor '%s' has 2^32 elements or more", path, t->name);
        *p = (struct parameter){.dims = t->dims, .n = t->n, .uses = 1};
        memcpy(p->name, t->name, strlen(t->name) + 1);
        memcpy(p->dim, t->dim, sizeof(p->dim));
    }
    s->train.parameters.count = g->tensors;
    graph_place(&s->train.parameters, s->train.config->compress_all);
    return s->train.parameters.compressed > 0 ||
           fail(err,
                "%s: a worker's tensors are vectors, which are sent whole; --compress-all sends "
                "them through the compressor",
                path);
}

static bool open_device(struct compressing *s, struct error *err)
{
    struct plan plan;

    return device_open(&s->train.dev, s->train.config->device, s->train.config->threads, err) &&
           plan_given(&plan, &s->train.dev, s->train.config, &s->train.parameters, err);
}

static void create(struct compressing *s)
{
    const struct config *c = s->train.config;
    struct workers *w = &s->train.workers;
    size_t rows;

    workers_create(w, &s->train.dev, c, NULL, &s->train.parameters, c->nodes, 1);
    rows = w->count * w->all.length;
    step_block_create(&s->train.block, w);
    account_create(&s->account, w);
    if (c->save[0] != '\0' || c->dump[0] != '\0')
        s->train.dump = dump_gather(c, s->in.steps > 1);
    s->grad = allocate(rows, sizeof(*s->grad));
    s->square = allocate(w->lane[0].square != NULL ? rows : 0, sizeof(*s->square));
    s->train.optimizer.sum =
        device_alloc(&s->train.dev, w->all.length * sizeof(*s->train.optimizer.sum));
    s->step = allocate(s->in.steps, sizeof(*s->step));
}

static void destroy(struct compressing *s)
{
    struct workers *w = &s->train.workers;

    if (w->dev != NULL) {
        device_free(&s->train.dev, s->train.optimizer.sum,
                    w->all.length * sizeof(*s->train.optimizer.sum));
        account_destroy(&s->account);
        step_block_destroy(&s->train.block);
        workers_destroy(w);
    }
    dump_destroy(s->train.dump);
    free(s->grad);
    free(s->square);
    free(s->step);
    if (s->train.dev.ops != NULL)
        device_close(&s->train.dev);
    gradients_close(&s->in);
}

typedef bool reader(const struct gradients *g, uint32_t step, uint32_t tensor, float *to,
                    struct error *err);

/* A step's first tensors, each [K][n], to where they lie in the workers' slabs. */
static bool read_slabs(const struct compressing *s, uint32_t step, uint32_t tensors, reader *read,
                       float *slabs, struct error *err)
{
    const struct workers *w = &s->train.workers;
    bool ok = true;

    for (uint32_t i = 0; ok && i < tensors; i++) {
        uint32_t t = s->train.parameters.order[i];
        const struct parameter *p = &s->train.parameters.item[t];
        float *x = allocate(w->count * p->n, sizeof(*x));

        ok = read(&s->in, step, t, x, err);
        for (uint32_t k = 0; ok && k < w->count; k++)
            memcpy(slabs + k * w->all.length + p->at, x + k * p->n, p->n * sizeof(*x));
        free(x);
    }
    return ok;
}

static bool post_step(struct compressing *s, uint32_t i, struct error *err)
{
    const struct config *c = s->train.config;
    const struct phase *phase = config_phase(c, 0);
    const struct workers *w = &s->train.workers;
    uint64_t number = s->in.step[i].number;

    s->train.block.step = (struct step){.seed = c->seed,
                                        .number = number,
                                        .ratio = config_ratio(c, 0, number),
                                        .lr = (float)phase->lr,
                                        .lr_change = 1,
                                        .momentum = (float)phase->momentum,
                                        .nesterov = phase->nesterov};
    for (uint32_t t = 0; t < w->compressed.count; t++)
        s->train.block.keep[t] =
            (uint32_t)sparse_keep(w->compressed.n[t], s->train.block.step.ratio);
    for (uint32_t k = 0; k < w->count; k++)
        if (!gradients_read_samples(&s->in, i, k, &s->train.block.sample_weight[k], err))
            return false;
    step_block_post(&s->train.block, w);
    return true;
}

/* The message of all tensors by every rule. */
static struct tensor_bytes weigh(struct compressing *s)
{
    struct workers *w = &s->train.workers;
    struct tensor_bytes bytes = {.elements = (double)w->all.elements};
    struct traffic *traffic = workers_download_traffic(w);
    struct sent sent = sent_sum(traffic, w->compressed.count);
    const struct by_rule *by_rule = account_take(&s->account, w, traffic);

    for (uint32_t t = 0; t < w->all.count; t++)
        bytes.by_rule = account_sum(bytes.by_rule, by_rule[t]);
    bytes.entries = exchange_density(w, (double)sent.last.entries, 1) * bytes.elements;
    bytes.up = exchange_bytes_up(w, &sent, 1);
    bytes.down = exchange_bytes_down(w, &sent, 1);
    free(traffic);
    return bytes;
}

static bool read_step(const struct compressing *s, uint32_t i, struct error *err)
{
    const struct parameters *p = &s->train.parameters;

    return read_slabs(s, i, p->count, gradients_read, s->grad, err) &&
           (s->train.workers.lane[0].square == NULL ||
            read_slabs(s, i, p->compressed, gradients_read_squares, s->square, err));
}

/* As a step of train.c, but for what a model and an optimizer do. */
static bool run_step(struct compressing *s, uint32_t i, struct error *err)
{
    struct train *t = &s->train;
    struct workers *w = &t->workers;

    if (!post_step(s, i, err) || !read_step(s, i, err))
        return false;
    workers_clear_sent(w);
    device_clear(&t->dev, t->optimizer.sum, w->all.length * sizeof(*t->optimizer.sum));
    dump_begin(t->dump, w, &t->block.step, 0);
    account_step(&s->account, w, t->block.step.ratio);
    workers_take(w, &w->lane[0], 0, w->count, s->grad, s->square);
    train_send(t, &w->lane[0]);
    train_deliver(t);
    s->step[i] = weigh(s);
    return t->wire_holds || fail(err, "%s", t->wire_fault.text);
}

static struct tensor_bytes mean(const struct compressing *s)
{
    double part = 1.0 / s->in.steps;
    struct tensor_bytes sum = {.elements = s->step[0].elements};

    for (uint32_t i = 0; i < s->in.steps; i++) {
        const struct tensor_bytes *t = &s->step[i];

        sum.entries += t->entries * part;
        sum.up += t->up * part;
        sum.down += t->down * part;
        sum.by_rule.paper += t->by_rule.paper * part;
        sum.by_rule.framework += t->by_rule.framework * part;
        sum.by_rule.bound += t->by_rule.bound * part;
    }
    return sum;
}

static void print_table(FILE *out, const struct compressing *s)
{
    const struct config *c = s->train.config;
    const struct tensor_bytes all = mean(s);

    fprintf(out, "%s  memory %s  encoding %s  %u workers\n", c->method, c->memory.name,
            encoding_names[c->encoding], c->workers);
    fprintf(out, "%.0f elements in %u tensors, %u of them compressed; %u step%s\n\n", all.elements,
            s->train.parameters.count, s->train.parameters.compressed, s->in.steps,
            s->in.steps > 1 ? "s, of which these are the mean" : "");
    bytes_print(out, &all);
}

static void print_json(FILE *out, const struct compressing *s)
{
    const struct config *c = s->train.config;
    const struct tensor_bytes all = mean(s);
    struct tree *object = tree_new(TREE_OBJECT, NULL);
    struct tree *steps = tree_new(TREE_LIST, NULL);
    char *text;

    tree_put_text(object, "method", c->method);
    tree_put_text(object, "memory", c->memory.name);
    tree_put_text(object, "encoding", encoding_names[c->encoding]);
    tree_put_number(object, "workers", c->workers);
    bytes_put(object, &all);
    for (uint32_t i = 0; i < s->in.steps; i++) {
        struct tree *one = tree_new(TREE_OBJECT, NULL);

        tree_put_number(one, "step", (double)s->in.step[i].number);
        bytes_put(one, &s->step[i]);
        tree_add(steps, one);
    }
    tree_put(object, "steps", steps);
    text = tree_print(object);
    fprintf(out, "%s\n", text);
    free(text);
    tree_free(object);
}

static bool run_steps(struct compressing *s, struct error *err)
{
    const struct config *c = s->train.config;

    create(s);
    for (uint32_t i = 0; i < s->in.steps; i++)
        if (!run_step(s, i, err))
            return false;
    return c->save[0] != '\0' ? dump_write(s->train.dump, &s->train.workers, c->save, err)
                              : dump_holds(s->train.dump, err);
}

bool compress(const struct config *c, FILE *out, struct error *err)
{
    struct compressing *s = allocate(1, sizeof(*s));
    bool ok;

    s->train.config = c;
    s->train.wire_holds = true;
    ok = gradients_open(&s->in, c->input, c->inputs, err) && check_config(s, err) &&
         fill_parameters(s, err) && check_output(s, err) && open_device(s, err) &&
         run_steps(s, err);
    if (ok && c->json)
        print_json(out, s);
    else if (ok)
        print_table(out, s);
    destroy(s);
    free(s);
    return ok;
}

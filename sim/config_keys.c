#include "sim/config_keys.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "compressors/memory.h"
#include "compressors/method.h"
#include "data/source.h"
#include "models/model.h"
#include "sim/config.h"
#include "sim/config_choice.h"
#include "sim/config_read.h"
#include "sim/config_schedule.h"
#include "sim/tree.h"

#define WORKERS_MOST 4096
#define BATCH_MOST   262144 /* times WORKERS_MOST fits 32 bits */
#define BPTT_MOST    65536
#define SEED_MOST    9007199254740991.0 /* the next whole number has a neighbour that reads as it */

static bool read_model(struct config *c, const struct tree *node, const char *path,
                       struct error *err)
{
    return config_read_choice(&c->model, &model_table, node, path, err);
}

static struct tree *write_model(const struct config *c)
{
    return config_write_choice(&c->model, &model_table);
}

static bool read_compressor(struct config *c, const struct tree *node, const char *path,
                            struct error *err)
{
    return config_read_method(&c->compressor, &c->quantiser, node, path, err);
}

static struct tree *write_compressor(const struct config *c)
{
    return config_write_method(&c->compressor, &c->quantiser);
}

/* "auto", or no name, is the method's own. */
static bool read_memory(struct config *c, const struct tree *node, const char *path,
                        struct error *err)
{
    const struct tree *name = tree_get(node, "name");
    struct method method = {compressor_find(c->compressor.name), quantiser_find(c->quantiser.name),
                            c->compressor.value, c->quantiser.value};
    struct tree *copy = tree_copy(node);
    bool ok;

    CHECK(method.compressor != NULL);
    if (copy->kind == TREE_OBJECT &&
        (name == NULL || (name->kind == TREE_TEXT && strcmp(name->text, "auto") == 0)))
        tree_put(copy, "name", tree_text(method_memory(&method), node->place));
    ok = config_read_choice(&c->memory, &memory_table, copy, path, err);
    tree_free(copy);
    return ok;
}

static struct tree *write_memory(const struct config *c)
{
    return config_write_choice(&c->memory, &memory_table);
}

/* It is in the rates by now. */
static struct tree *write_nothing(const struct config *c)
{
    return tree_new(TREE_NULL, NULL);
}

static const char *const clip_modes[] = {"", "local", "local-sqrt-k", "global", "reference", NULL};

static const struct key clip_keys[] = {
    {"norm", KEY_NUMBER, offsetof(struct config, clip.norm), .low = ABOVE_0, .high = 1e30},
    {"mode", KEY_WORD, offsetof(struct config, clip.mode), .words = clip_modes},
};
static const struct section clip_section = {COUNT_OF(clip_keys), NULL};

static bool read_clip(struct config *c, const struct tree *node, const char *path,
                      struct error *err)
{
    c->clip.mode = CLIP_NONE;
    c->clip.norm = 0;
    if (node->kind == TREE_NULL)
        return true;
    if (node->kind != TREE_OBJECT)
        return config_wrong(node, path, err, "null or an object");
    if (tree_get(node, "norm") == NULL)
        return config_missing(node, path, "norm", err);
    c->clip.mode = CLIP_LOCAL;
    return config_read_section(&clip_section, c, NULL, node, path, err);
}

static struct tree *write_clip(const struct config *c)
{
    struct tree *object;

    if (c->clip.mode == CLIP_NONE)
        return tree_new(TREE_NULL, NULL);
    object = tree_new(TREE_OBJECT, NULL);
    config_write_section(object, &clip_section, c, NULL);
    return object;
}

static bool read_ratio(struct config *c, const struct tree *node, const char *path,
                       struct error *err)
{
    struct at_epoch list[RATIOS_MOST] = {{.node = node}};
    char inner[64];

    c->ratios = 1;
    if (node->kind == TREE_OBJECT &&
        !config_read_epochs(list, RATIOS_MOST, &c->ratios, node, path, err))
        return false;
    for (uint32_t i = 0; i < c->ratios; i++) {
        if (node->kind == TREE_OBJECT)
            snprintf(inner, sizeof(inner), "%s.%u", path, list[i].epoch);
        else
            snprintf(inner, sizeof(inner), "%s", path);
        c->ratio[i].epoch = list[i].epoch;
        if (!config_read_number(&c->ratio[i].ratio, ABOVE_0, 1, false, list[i].node, inner, err))
            return false;
    }
    return true;
}

static struct tree *write_ratio(const struct config *c)
{
    struct tree *object;
    char epoch[16];

    if (c->ratios == 1)
        return tree_number(c->ratio[0].ratio, NULL);
    object = tree_new(TREE_OBJECT, NULL);
    for (uint32_t i = 0; i < c->ratios; i++) {
        snprintf(epoch, sizeof(epoch), "%u", c->ratio[i].epoch);
        tree_put(object, epoch, tree_number(c->ratio[i].ratio, NULL));
    }
    return object;
}

#define WARMUP_FORM "a list of 1 to %d numbers, exponential:N or dense:N", RATIOS_MOST

/* exponential:N, as the official DGC code has it: ratio^(1 / (N + 1)), to the powers 1 to N; dense:N:
 * N times all entries. */
static bool read_warmup_word(struct config *c, const struct tree *node, const char *path,
                             struct error *err)
{
    const char *number = strchr(node->text, ':');
    size_t digits = number != NULL ? strspn(number + 1, "0123456789") : 0;
    unsigned long n = digits > 0 && digits < 4 ? strtoul(number + 1, NULL, 10) : 0;
    bool dense = strncmp(node->text, "dense:", 6) == 0;

    c->warmup.exponential = strncmp(node->text, "exponential:", 12) == 0;
    if (number == NULL || (!dense && !c->warmup.exponential) || number[1 + digits] != '\0' ||
        n < 1 || n > RATIOS_MOST)
        return config_wrong(node, path, err, WARMUP_FORM);
    c->warmup.ratios = (uint32_t)n;
    for (uint32_t i = 0; i < c->warmup.ratios; i++)
        c->warmup.ratio[i] = 1;
    return true;
}

static bool read_warmup_ratios(struct config *c, const struct tree *node, const char *path,
                               struct error *err)
{
    uint32_t n = 0;

    c->warmup.ratios = 0;
    if (node->kind == TREE_TEXT)
        return read_warmup_word(c, node, path, err);
    if (node->kind != TREE_LIST || node->child == NULL)
        return config_wrong(node, path, err, WARMUP_FORM);
    for (const struct tree *r = node->child; r != NULL; r = r->next) {
        if (n == RATIOS_MOST)
            return config_wrong(node, path, err, WARMUP_FORM);
        if (!config_read_number(&c->warmup.ratio[n++], ABOVE_0, 1, false, r, path, err))
            return false;
    }
    c->warmup.ratios = n;
    return true;
}

static struct tree *write_warmup_ratios(const struct config *c)
{
    struct tree *list = tree_new(TREE_LIST, NULL);

    for (uint32_t i = 0; i < c->warmup.ratios; i++)
        tree_add(list, tree_number(c->warmup.ratio[i], NULL));
    return list;
}

static const struct key warmup_keys[] = {
    {"ratios", KEY_OWN, .read = read_warmup_ratios, .write = write_warmup_ratios},
    {"steps", KEY_WHOLE, offsetof(struct config, warmup.steps), .low = 1, .high = 1e9},
    {"epochs", KEY_WHOLE, offsetof(struct config, warmup.epochs), .low = 1, .high = EPOCHS_MOST},
};
static const struct section warmup_section = {COUNT_OF(warmup_keys), NULL};

static void no_warmup(struct config *c)
{
    memset(&c->warmup, 0, sizeof(c->warmup));
}

static bool read_warmup(struct config *c, const struct tree *node, const char *path,
                        struct error *err)
{
    no_warmup(c);
    if (node->kind == TREE_NULL)
        return true;
    if (node->kind != TREE_OBJECT)
        return config_wrong(node, path, err, "null or an object");
    if (tree_get(node, "ratios") == NULL)
        return config_missing(node, path, "ratios", err);
    if (!config_read_section(&warmup_section, c, NULL, node, path, err))
        return false;
    if (c->warmup.steps == 0 && c->warmup.epochs == 0)
        c->warmup.epochs = 1;
    return true;
}

static struct tree *write_warmup(const struct config *c)
{
    struct tree *object;

    if (c->warmup.ratios == 0)
        return tree_new(TREE_NULL, NULL);
    object = tree_new(TREE_OBJECT, NULL);
    config_write_section(object, &warmup_section, c, NULL);
    tree_remove(object, c->warmup.steps == 0 ? "steps" : "epochs");
    return object;
}

static const char *const shardings[] = {"columns", "segments", NULL};

#define NAME_AND_PATH                                                      \
    {"name", KEY_TEXT, offsetof(struct config, data.name), .high = 32},    \
    {                                                                      \
        "path", KEY_TEXT, offsetof(struct config, data.path), .high = 1024 \
    }

static const struct key text_keys[] = {
    NAME_AND_PATH,
    {"bptt", KEY_WHOLE, offsetof(struct config, data.bptt), .low = 1, .high = BPTT_MOST},
    {"min_count", KEY_WHOLE, offsetof(struct config, data.min_count), .low = 1, .high = 1e9},
    {"sharding", KEY_WORD, offsetof(struct config, data.sharding), .words = shardings},
};

static const char *const image_shardings[] = {"global", NULL};

static const struct key image_keys[] = {
    NAME_AND_PATH,
    {"holdout", KEY_WHOLE, offsetof(struct config, data.holdout), .high = 1e9},
    {"crop", KEY_WHOLE, offsetof(struct config, data.augment.crop), .high = 1024},
    {"fill", KEY_WHOLE, offsetof(struct config, data.augment.fill), .high = 255},
    {"flip", KEY_YES_NO, offsetof(struct config, data.augment.flip), .high = 1},
    {"sharding", KEY_WORD, offsetof(struct config, data.sharding), .words = image_shardings},
};

static const struct section text_section = {COUNT_OF(text_keys), NULL};
static const struct section image_section = {COUNT_OF(image_keys), NULL};

/* What may be said of a set of a name. */
static struct section data_section(const char *name)
{
    const struct dataset *set = dataset_find(name);
    struct section section = set != NULL && set->kind->images ? image_section : text_section;

    section.settings = config_settings(&dataset_table, name);
    return section;
}

static bool read_data(struct config *c, const struct tree *node, const char *path,
                      struct error *err)
{
    struct entry entry = {0};
    struct section section;

    if (!config_read_entry(&entry, &dataset_table, node, path, err))
        return false;
    section = data_section(entry.name);
    config_initial_values(c->data.value, entry.settings);
    return config_read_section(&section, c, c->data.value, node, path, err);
}

/* Where the data lie is no part of what they are, unless nothing else tells what they are. */
static struct tree *write_data(const struct config *c)
{
    struct tree *object = tree_new(TREE_OBJECT, NULL);
    struct section section = data_section(c->data.name);
    const struct dataset *set = dataset_find(c->data.name);

    config_write_section(object, &section, c, c->data.value);
    if (set == NULL || set->folder != NULL || c->data.path[0] == '\0')
        tree_remove(object, "path");
    return object;
}

static const struct key evaluate_keys[] = {
    {"batch", KEY_WHOLE, offsetof(struct config, evaluate.batch), .low = 1, .high = BATCH_MOST},
    {"bptt", KEY_WHOLE, offsetof(struct config, evaluate.bptt), .low = 1, .high = BPTT_MOST},
};
static const struct section evaluate_section = {COUNT_OF(evaluate_keys), NULL};
static const struct section evaluate_images = {evaluate_keys, 1, NULL}; /* an image has one step */

static bool is_of_images(const struct config *c)
{
    const struct dataset *set = dataset_find(c->data.name);

    return set != NULL && set->kind->images;
}

static bool read_evaluate(struct config *c, const struct tree *node, const char *path,
                          struct error *err)
{
    return config_read_section(is_of_images(c) ? &evaluate_images : &evaluate_section, c, NULL,
                               node, path, err);
}

static struct tree *write_evaluate(const struct config *c)
{
    struct tree *object = tree_new(TREE_OBJECT, NULL);

    config_write_section(object, is_of_images(c) ? &evaluate_images : &evaluate_section, c, NULL);
    return object;
}

static const char *const keeps[] = {"average", "shared", "worker0", NULL};
static const char *const decays[] = {"aggregate", "local", NULL};
static const char *const exchanges[] = {"auto", "server", NULL};

const char *const encoding_names[] = {"raw",   "runs16", "bitmap", "varint", "gamma",
                                      "delta", "rice",   "best",   NULL};

/* What weights a run begins with, if they are not drawn: told by what the file holds. */
static bool read_init(struct config *c, const struct tree *node, const char *path,
                      struct error *err)
{
    size_t length = sizeof(c->init_sha256) - 1;

    if (node->kind != TREE_TEXT || strlen(node->text) != length ||
        strspn(node->text, "0123456789abcdef") != length)
        return config_wrong(node, path, err,
                            "the SHA-256 of a file of weights, which --init makes of it");
    memcpy(c->init_sha256, node->text, length + 1);
    return true;
}

static struct tree *write_init(const struct config *c)
{
    return tree_text(c->init_sha256, NULL);
}

/* The memory is read after the compressor, of which it may be the own one. */
static const struct key regime_keys[] = {
    {"about", KEY_LINE, offsetof(struct config, about), .high = 256},
    {"model", KEY_OWN, .read = read_model, .write = write_model},
    {"data", KEY_OWN, .read = read_data, .write = write_data},
    {"evaluate", KEY_OWN, .read = read_evaluate, .write = write_evaluate},
    {"workers", KEY_WHOLE, offsetof(struct config, workers), .low = 1, .high = WORKERS_MOST},
    {"nodes", KEY_WHOLE, offsetof(struct config, nodes), .high = WORKERS_MOST},
    {"batch", KEY_WHOLE, offsetof(struct config, batch), .low = 1, .high = BATCH_MOST},
    {"total_batch", KEY_WHOLE, offsetof(struct config, total_batch), .low = 1,
     .high = (double)BATCH_MOST * WORKERS_MOST},
    {"epochs", KEY_WHOLE, offsetof(struct config, epochs), .low = 1, .high = EPOCHS_MOST},
    {"seed", KEY_SEED, offsetof(struct config, seed), .high = SEED_MOST},
    {"schedule", KEY_OWN, .read = config_read_schedule, .write = config_write_schedule},
    {"lr_rule", KEY_OWN, .read = config_read_lr_rule, .write = config_write_lr_rule},
    {"lr_warmup", KEY_OWN, .read = config_read_lr_warmup, .write = config_write_lr_warmup},
    {"lr_scale", KEY_OWN, .read = config_read_lr_scale, .write = write_nothing},
    {"epoch_scale", KEY_WHOLE, offsetof(struct config, epoch_scale), .low = 1, .high = 10000},
    {"clip", KEY_OWN, .read = read_clip, .write = write_clip},
    {"weight_decay_at", KEY_WORD, offsetof(struct config, weight_decay_at), .words = decays},
    {"compressor", KEY_OWN, .read = read_compressor, .write = write_compressor},
    {"memory", KEY_OWN, .read = read_memory, .write = write_memory},
    {"ratio", KEY_OWN, .read = read_ratio, .write = write_ratio},
    {"warmup", KEY_OWN, .read = read_warmup, .write = write_warmup},
    {"dense_every", KEY_WHOLE, offsetof(struct config, dense_every), .high = 1e9},
    {"compress_all", KEY_YES_NO, offsetof(struct config, compress_all), .high = 1},
    {"exchange", KEY_WORD, offsetof(struct config, exchange), .words = exchanges},
    {"batch_norm", KEY_WORD, offsetof(struct config, keep), .words = keeps},
    {"encoding", KEY_WORD, offsetof(struct config, encoding), .words = encoding_names},
    {"init", KEY_OWN, .read = read_init, .write = write_init},
};
static const struct section regime_section = {COUNT_OF(regime_keys), NULL};

static const struct key run_keys[] = {
    {"device", KEY_TEXT, offsetof(struct config, device), .high = 32},
    {"threads", KEY_WHOLE, offsetof(struct config, threads), .high = 4096},
    {"group", KEY_WHOLE, offsetof(struct config, group), .high = WORKERS_MOST},
    {"streams", KEY_WHOLE, offsetof(struct config, streams), .high = 64},
    {"db", KEY_TEXT, offsetof(struct config, db), .low = 1, .high = 1024},
    {"data", KEY_TEXT, offsetof(struct config, data_root), .low = 1, .high = 1024},
    {"name", KEY_LINE, offsetof(struct config, name), .low = 1, .high = 256},
    {"experiment", KEY_LINE, offsetof(struct config, experiment), .high = 128},
    {"init", KEY_TEXT, offsetof(struct config, init), .low = 1, .high = 1024},
    {"split", KEY_WORD, offsetof(struct config, split), .words = text_part_names},
    {"dump_steps", KEY_WHOLE, offsetof(struct config, dump_steps), .low = 1, .high = 1e6},
    {"dump", KEY_TEXT, offsetof(struct config, dump), .low = 1, .high = 1024},
    {"save", KEY_TEXT, offsetof(struct config, save), .low = 1, .high = 1024},
    {"log_every", KEY_WHOLE, offsetof(struct config, log_every), .high = 1e9},
    {"measure_every", KEY_WHOLE, offsetof(struct config, measure), .high = 1e9},
    {"tensors", KEY_YES_NO, offsetof(struct config, tensors), .high = 1},
    {"again", KEY_YES_NO, offsetof(struct config, again), .high = 1},
    {"json", KEY_YES_NO, offsetof(struct config, json), .high = 1},
    {"quiet", KEY_YES_NO, offsetof(struct config, quiet), .high = 1},
    {"fail_on_divergence", KEY_YES_NO, offsetof(struct config, fail_on_divergence), .high = 1},
    {"verify_wire", KEY_YES_NO, offsetof(struct config, verify_wire), .high = 1},
};
static const struct section run_section = {COUNT_OF(run_keys), NULL};

void config_keys_defaults(struct config *c)
{
    memset(c, 0, sizeof(*c));
    c->data.bptt = 35;
    c->data.min_count = 1;
    c->evaluate.batch = 10;
    c->evaluate.bptt = 35;
    c->workers = 1;
    c->batch = 32;
    c->epochs = 1;
    c->epoch_scale = 1;
    c->seed = 1;
    c->ratio[0].ratio = 0.001;
    c->ratios = 1;
    snprintf(c->device, sizeof(c->device), "auto");
    c->split = TEXT_TEST;
}

static void settle_warmup(struct config *c)
{
    double last = c->ratio[c->ratios - 1].ratio;
    uint32_t n = c->warmup.ratios;

    for (uint32_t i = 0; i < n && c->warmup.exponential; i++)
        c->warmup.ratio[i] = pow(last, (i + 1.0) / (n + 1.0));
    c->warmup.exponential = false;
}

/* One place for the ratio, so that topk:ratio=0.01 and --ratio 0.01 are the same run: what the
 * compressor was told moves into the map.  Without such a setting all entries are sent. */
static void settle_ratio(struct config *c)
{
    const struct setting *settings = config_settings(&compressor_table, c->compressor.name);
    const struct compressor *compressor = compressor_find(c->compressor.name);
    int i = settings != NULL ? setting_find(settings, "ratio") : -1;

    if (compressor != NULL && compressor->no_warmup)
        no_warmup(c);
    if (i >= 0 && c->compressor.value[i] == 0) {
        settle_warmup(c);
        return;
    }
    memset(c->ratio, 0, sizeof(c->ratio));
    c->ratios = 1;
    c->ratio[0].ratio = i >= 0 ? c->compressor.value[i] : 1;
    if (i >= 0) {
        c->compressor.value[i] = 0;
    } else {
        c->dense_every = 0;
        no_warmup(c);
    }
    settle_warmup(c);
}

bool config_keys_read(struct config *c, const struct tree *regime, struct error *err)
{
    if (!config_read_section(&regime_section, c, NULL, regime, "", err))
        return false;
    if (is_of_images(c))
        c->data.bptt = c->evaluate.bptt = 1;
    if (tree_get(regime, "weight_decay_at") == NULL)
        c->weight_decay_at = strcmp(c->compressor.name, "none") == 0 && c->quantiser.name[0] == '\0'
                                 ? DECAY_LOCAL
                                 : DECAY_AGGREGATE;
    settle_ratio(c);
    return true;
}

bool config_keys_read_method(struct config *c, const struct tree *regime, struct error *err)
{
    const struct tree *compressor = tree_get(regime, "compressor");
    const struct tree *ratio = tree_get(regime, "ratio");

    if (!read_compressor(c, compressor, "compressor", err))
        return false;
    if (ratio != NULL && !read_ratio(c, ratio, "ratio", err))
        return false;
    settle_ratio(c);
    return true;
}

/* Parts that do not go together. */
static bool check_method(const struct config *c, const struct tree *regime, struct error *err)
{
    const struct compressor *compressor = compressor_find(c->compressor.name);
    const struct quantiser *quantiser = quantiser_find(c->quantiser.name);
    const struct memory *memory = memory_find(c->memory.name);
    const struct tree *method = tree_get(regime, "compressor");

    if (c->exchange == EXCHANGE_SERVER && compressor->exchange == TREE)
        return config_wrong(tree_get(regime, "exchange"), "exchange", err,
                            "auto, as a tree of workers wants it, in which %s merges",
                            compressor->name);
    if (quantiser == NULL)
        return true;
    if (compressor->no_quantiser)
        return config_wrong(tree_get(method, "quantiser"), "compressor.quantiser", err,
                            "anything behind %s, whose values stay floats", compressor->name);
    if (quantiser->votes && compressor->room != NULL)
        return config_wrong(tree_get(method, "quantiser"), "compressor.quantiser", err,
                            "anything behind %s: it is a vote on all entries", compressor->name);
    if (quantiser->votes && memory->residual >= 0)
        return config_wrong(tree_get(regime, "memory"), "memory", err,
                            "a memory for %s: votes tell nothing of sizes, so that nothing can be "
                            "taken off; none or momentum",
                            quantiser->name);
    if (c->encoding == ENCODING_RUNS16)
        return config_wrong(tree_get(regime, "encoding"), "encoding", err,
                            "an encoding for the codes of %s: runs16 has 32-bit values",
                            quantiser->name);
    return true;
}

/* A model and data of the same kind; and nothing is chosen by the test part. */
static bool check_images(const struct config *c, const struct tree *regime, struct error *err)
{
    bool images = model_find(c->model.name)->least > 0;

    if (images != is_of_images(c))
        return config_wrong(tree_get(tree_get(regime, "model"), "name"), "model", err,
                            "a model of %s, as the data set '%s' is", images ? "texts" : "images",
                            c->data.name);
    if (images && c->lr_rule.rule == LR_ANNEAL && c->data.holdout == 0)
        return config_wrong(tree_get(tree_get(regime, "lr_rule"), "name"), "lr_rule", err,
                            "a rule for data without a validation part; data.holdout makes one");
    return true;
}

static bool settle_batch(struct config *c, const struct tree *total, struct error *err)
{
    if (total == NULL) {
        c->total_batch = c->batch * c->workers;
        return true;
    }
    if (c->total_batch % c->workers != 0)
        return config_wrong(total, "total_batch", err, "a multiple of the %u workers", c->workers);
    c->batch = c->total_batch / c->workers;
    return c->batch <= BATCH_MOST ||
           config_wrong(total, "total_batch", err, "at most %d a worker", BATCH_MOST);
}

/* 0 nodes: as many as there are workers. */
static bool settle_nodes(struct config *c, const struct tree *nodes, struct error *err)
{
    if (c->nodes == 0)
        c->nodes = c->workers;
    if (c->workers % c->nodes != 0)
        return config_wrong(nodes, "nodes", err, "a divisor of the %u workers", c->workers);
    if (c->nodes < c->workers && c->data.sharding == SHARD_SEGMENTS)
        return config_wrong(nodes, "nodes", err,
                            "the number of workers, as sharding segments wants it: each has a "
                            "segment of its own");
    c->node_batch = c->total_batch / c->nodes;
    return true;
}

bool config_keys_check(struct config *c, const struct tree *regime, struct error *err)
{
    const struct tree *total = tree_get(regime, "total_batch");
    const struct tree *schedule = tree_get(regime, "schedule");
    struct method method = {.compressor = compressor_find(c->compressor.name),
                            .settings = c->compressor.value};

    if (tree_get(regime, "model") == NULL)
        return config_missing(regime, "", "model", err);
    if (tree_get(regime, "data") == NULL)
        return config_missing(regime, "", "data", err);
    if (schedule == NULL)
        return config_missing(regime, "", "schedule", err);
    if (c->phase[0].lr == LR_UNSAID)
        return config_missing(schedule, "schedule.0", "lr", err);
    if (!check_method(c, regime, err) || !config_check_optimizer(c, regime, err) ||
        !check_images(c, regime, err))
        return false;
    if (!settle_batch(c, total, err) || !settle_nodes(c, tree_get(regime, "nodes"), err) ||
        !config_settle_scales(c, regime, err))
        return false;
    if (c->node_batch % method_micro(&method) != 0)
        return config_wrong(tree_get(regime, "compressor"), "compressor", err,
                            "a method for a batch of %u a %s, which is no multiple of its %u "
                            "micro-batches",
                            c->node_batch, c->nodes < c->workers ? "node" : "worker",
                            method_micro(&method));
    return true;
}

struct tree *config_keys_write_in_order(const struct config *c)
{
    struct tree *regime = tree_new(TREE_OBJECT, NULL);

    config_write_section(regime, &regime_section, c, NULL);
    tree_remove(regime, "total_batch");
    tree_remove(regime, "lr_scale");
    tree_remove(regime, "epoch_scale");
    if (c->init_sha256[0] == '\0')
        tree_remove(regime, "init");
    return regime;
}

struct tree *config_keys_write(const struct config *c)
{
    struct tree *regime = config_keys_write_in_order(c);

    tree_remove(regime, "about");
    /* The keys of runs that knew nothing of these stay theirs. */
    if (c->dense_every == 0)
        tree_remove(regime, "dense_every");
    if (c->nodes == c->workers)
        tree_remove(regime, "nodes");
    if (c->exchange == EXCHANGE_AUTO)
        tree_remove(regime, "exchange");
    if (c->lr_warmup.epochs == 0)
        tree_remove(regime, "lr_warmup");
    if (!is_of_images(c))
        tree_remove(regime, "batch_norm");
    tree_sort(regime);
    return regime;
}

bool config_keys_read_run(struct config *c, const struct tree *run, struct error *err)
{
    return config_read_section(&run_section, c, NULL, run, "", err);
}

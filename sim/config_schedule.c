#include "sim/config_schedule.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "compressors/memory.h"
#include "sim/config.h"
#include "sim/config_choice.h"
#include "sim/config_read.h"
#include "sim/optimizer_rule.h"
#include "sim/tree.h"

#define LR_MOST 1e6

static bool read_epoch(uint32_t *epoch, const struct tree *node, const char *path,
                       struct error *err)
{
    const char *name = node->name;
    size_t length = strlen(name);

    if (length < 1 || length > 6 || strspn(name, "0123456789") != length ||
        (name[0] == '0' && length > 1))
        return fail(err, "%s: %s: '%.32s' is not an epoch, a whole number from 0", node->place,
                    path, name);
    *epoch = (uint32_t)strtoul(name, NULL, 10);
    return true;
}

bool config_read_epochs(struct at_epoch *list, uint32_t most, uint32_t *count,
                        const struct tree *node, const char *path, struct error *err)
{
    uint32_t n = 0;

    for (const struct tree *c = node->child; c != NULL; c = c->next) {
        struct at_epoch entry = {.node = c};
        uint32_t i;

        if (!read_epoch(&entry.epoch, c, path, err))
            return false;
        if (n == most)
            return fail(err, "%s: %s: more than %u epochs", node->place, path, most);
        for (i = n++; i > 0 && list[i - 1].epoch > entry.epoch; i--)
            list[i] = list[i - 1];
        list[i] = entry;
    }
    *count = n;
    if (n == 0 || list[0].epoch != 0)
        return fail(err, "%s: %s: does not begin at epoch 0", node->place, path);
    return true;
}

static const struct key phase_keys[] = {
    {"lr", KEY_NUMBER, offsetof(struct phase, lr), .high = LR_MOST},
    {"momentum", KEY_NUMBER, offsetof(struct phase, momentum), .high = BELOW_1},
    {"nesterov", KEY_YES_NO, offsetof(struct phase, nesterov), .high = 1},
    {"weight_decay", KEY_NUMBER, offsetof(struct phase, weight_decay), .high = 1},
};
static const struct section phase_section = {COUNT_OF(phase_keys), NULL};

/* One for the whole run: what it keeps of the gradients means nothing to another. */
static bool read_optimizer(struct choice *optimizer, const struct tree *node, const char *path,
                           struct error *err)
{
    char *before =
        optimizer->name[0] != '\0' ? config_write_spec(optimizer, &optimizer_table) : NULL;
    struct tree *spec = node->kind == TREE_TEXT ? config_parse_spec(node) : NULL;
    bool ok = spec != NULL ? config_read_choice(optimizer, &optimizer_table, spec, path, err)
                           : config_wrong(node, path, err, "of the form NAME[:key=value,...]");

    tree_free(spec);
    if (ok && before != NULL) {
        char *now = config_write_spec(optimizer, &optimizer_table);

        if (strcmp(before, now) != 0)
            ok = config_wrong(node, path, err, "that of epoch 0, which holds for the whole run");
        free(now);
    }
    free(before);
    return ok;
}

static bool read_phase(struct phase *phase, const struct tree *node, const char *path,
                       struct error *err)
{
    const struct tree *optimizer = tree_get(node, "optimizer");
    struct tree *rest = tree_copy(node);
    char inner[80];
    bool ok;

    snprintf(inner, sizeof(inner), "%s.optimizer", path);
    tree_remove(rest, "optimizer");
    ok = (optimizer == NULL || read_optimizer(&phase->optimizer, optimizer, inner, err)) &&
         config_read_section(&phase_section, phase, NULL, rest, path, err);
    tree_free(rest);
    return ok;
}

bool config_read_schedule(struct config *c, const struct tree *node, const char *path,
                          struct error *err)
{
    struct at_epoch list[PHASES_MOST];
    struct phase now = {.lr = LR_UNSAID};
    char inner[64];

    if (node->kind != TREE_OBJECT)
        return config_wrong(node, path, err, "an object of epochs");
    if (!config_read_epochs(list, PHASES_MOST, &c->phases, node, path, err))
        return false;
    for (uint32_t i = 0; i < c->phases; i++) {
        now.epoch = list[i].epoch;
        snprintf(inner, sizeof(inner), "%s.%u", path, now.epoch);
        if (!read_phase(&now, list[i].node, inner, err))
            return false;
        if (now.optimizer.name[0] == '\0')
            snprintf(now.optimizer.name, sizeof(now.optimizer.name), "sgd");
        c->phase[i] = now;
    }
    return true;
}

struct tree *config_write_schedule(const struct config *c)
{
    struct tree *object = tree_new(TREE_OBJECT, NULL);
    char epoch[16];

    for (uint32_t i = 0; i < c->phases; i++) {
        struct tree *phase = tree_new(TREE_OBJECT, NULL);

        char *spec = config_write_spec(&c->phase[i].optimizer, &optimizer_table);

        tree_put_text(phase, "optimizer", spec);
        config_write_section(phase, &phase_section, &c->phase[i], NULL);
        free(spec);
        snprintf(epoch, sizeof(epoch), "%u", c->phase[i].epoch);
        tree_put(object, epoch, phase);
    }
    return object;
}

static const struct setting linear_settings[] = {
    {"to", 0, 0, 1, "the fraction of the rate that is left at the end", NUMBER},
    {0},
};
static const struct setting anneal_settings[] = {
    {"factor", 0.25, ABOVE_0, 1, "what the rate is multiplied by", NUMBER},
    {0},
};
static const struct setting decay_settings[] = {
    {"factor", 0.5, ABOVE_0, 1, "what the rate is multiplied by after each epoch", NUMBER},
    {"from", 0, 0, EPOCHS_MOST, "the first epoch after which it is", WHOLE},
    {0},
};

/* In the order of enum lr_rule. */
static const struct entry lr_rules[] = {
    {"constant", NULL},          {"linear", linear_settings}, {"cosine", linear_settings},
    {"anneal", anneal_settings}, {"decay", decay_settings},   {0},
};

static struct entry lr_rule_at(size_t i)
{
    return lr_rules[i];
}

static const struct table lr_rule_table = {"rule", lr_rule_at};

bool config_read_lr_rule(struct config *c, const struct tree *node, const char *path,
                         struct error *err)
{
    struct choice rule;
    unsigned i = 0;

    if (!config_read_choice(&rule, &lr_rule_table, node, path, err))
        return false;
    while (strcmp(lr_rules[i].name, rule.name) != 0)
        i++;
    memset(&c->lr_rule, 0, sizeof(c->lr_rule));
    c->lr_rule.rule = (enum lr_rule)i;
    if (c->lr_rule.rule == LR_LINEAR || c->lr_rule.rule == LR_COSINE)
        c->lr_rule.to = rule.value[0];
    if (c->lr_rule.rule == LR_ANNEAL || c->lr_rule.rule == LR_DECAY)
        c->lr_rule.factor = rule.value[0];
    if (c->lr_rule.rule == LR_DECAY)
        c->lr_rule.from = (uint32_t)rule.value[1];
    return true;
}

struct tree *config_write_lr_rule(const struct config *c)
{
    struct choice rule = {.value = {c->lr_rule.factor, c->lr_rule.from}};

    if (c->lr_rule.rule == LR_LINEAR || c->lr_rule.rule == LR_COSINE)
        rule.value[0] = c->lr_rule.to;
    snprintf(rule.name, sizeof(rule.name), "%s", lr_rules[c->lr_rule.rule].name);
    return config_write_choice(&rule, &lr_rule_table);
}

static const struct key lr_warmup_keys[] = {
    {"epochs", KEY_NUMBER, offsetof(struct config, lr_warmup.epochs), .low = ABOVE_0,
     .high = EPOCHS_MOST},
    {"from", KEY_NUMBER, offsetof(struct config, lr_warmup.from), .high = 1},
};
static const struct section lr_warmup_section = {COUNT_OF(lr_warmup_keys), NULL};

bool config_read_lr_warmup(struct config *c, const struct tree *node, const char *path,
                           struct error *err)
{
    memset(&c->lr_warmup, 0, sizeof(c->lr_warmup));
    if (node->kind == TREE_NULL)
        return true;
    if (node->kind != TREE_OBJECT)
        return config_wrong(node, path, err, "null or an object");
    if (tree_get(node, "epochs") == NULL)
        return config_missing(node, path, "epochs", err);
    return config_read_section(&lr_warmup_section, c, NULL, node, path, err);
}

struct tree *config_write_lr_warmup(const struct config *c)
{
    struct tree *object;

    if (c->lr_warmup.epochs == 0)
        return tree_new(TREE_NULL, NULL);
    object = tree_new(TREE_OBJECT, NULL);
    config_write_section(object, &lr_warmup_section, c, NULL);
    return object;
}

static const struct setting lr_scale_settings[] = {
    {"batch", 128, 1, 1e9, "total batch that the schedule's rates are for", WHOLE},
    {0},
};
static const struct entry lr_scales[] = {
    {"linear", lr_scale_settings},
    {"sqrt", lr_scale_settings},
    {0},
};

static struct entry lr_scale_at(size_t i)
{
    return lr_scales[i];
}

static const struct table lr_scale_table = {"scale", lr_scale_at};

bool config_read_lr_scale(struct config *c, const struct tree *node, const char *path,
                          struct error *err)
{
    c->lr_scale.name[0] = '\0';
    return node->kind == TREE_NULL ||
           config_read_choice(&c->lr_scale, &lr_scale_table, node, path, err);
}

bool config_check_optimizer(const struct config *c, const struct tree *regime, struct error *err)
{
    const struct optimizer_rule *rule = optimizer_rule_find(c->phase[0].optimizer.name);
    const struct memory *memory = memory_find(c->memory.name);
    bool owned = memory->owns_momentum != NULL && memory->owns_momentum(c->memory.value);
    const struct tree *schedule = tree_get(regime, "schedule");

    for (uint32_t i = 0; i < c->phases; i++) {
        if (!rule->momentum && c->phase[i].momentum != 0)
            return fail(err, "%s: schedule: momentum is not for %s, which has its own ways",
                        schedule->place, rule->name);
        if (!rule->nesterov && c->phase[i].nesterov)
            return fail(err, "%s: schedule: nesterov is not for %s", schedule->place, rule->name);
    }
    return !owned || strcmp(rule->name, "sgd") == 0 ||
           fail(err, "%s: schedule: %s is not for the memory %s, which owns momentum: sgd is",
                schedule->place, rule->name, memory->name);
}

bool config_settle_scales(struct config *c, const struct tree *regime, struct error *err)
{
    const struct tree *schedule = tree_get(regime, "schedule");
    double larger = c->lr_scale.name[0] != '\0' ? c->total_batch / c->lr_scale.value[0] : 1;
    uint64_t epochs = (uint64_t)c->epochs * c->epoch_scale;

    if (strcmp(c->lr_scale.name, "sqrt") == 0)
        larger = sqrt(larger);
    for (uint32_t i = 0; i < c->phases; i++) {
        c->phase[i].lr *= larger;
        c->phase[i].epoch *= c->epoch_scale;
        if (c->phase[i].lr > LR_MOST)
            return fail(err, "%s: schedule: lr becomes %g by lr_scale, more than %g",
                        schedule->place, c->phase[i].lr, LR_MOST);
    }
    if (epochs > EPOCHS_MOST)
        return config_wrong(tree_get(regime, "epoch_scale"), "epoch_scale", err,
                            "what leaves at most %d epochs", EPOCHS_MOST);
    c->epochs = (uint32_t)epochs;
    c->epoch_scale = 1;
    c->lr_scale.name[0] = '\0';
    return true;
}

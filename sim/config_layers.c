#include "sim/config_layers.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "compressors/compressor.h"
#include "data/dataset.h"
#include "sim/config.h"
#include "sim/config_choice.h"
#include "sim/config_keys.h"
#include "sim/config_read.h"
#include "sim/config_told.h"
#include "sim/tree.h"

#define DEPTH_MOST 8 /* dots in a path: no key is so deep, and trees are walked by recursion */

/* A quantiser that stands alone is that of all entries. */
static struct tree *settle_method(struct tree *object)
{
    const struct tree *name = tree_get(object, "name");
    struct tree *whole;

    if (name == NULL || name->kind != TREE_TEXT || quantiser_find(name->text) == NULL ||
        tree_get(object, "quantiser") != NULL)
        return object;
    whole = tree_new(TREE_OBJECT, object->place);
    tree_put(whole, "name", tree_text("none", object->place));
    tree_put(whole, "quantiser", object);
    return whole;
}

/* SPEC[+SPEC]: a compressor, a quantiser or both, or a name that stands for such. */
static struct tree *parse_method(const struct tree *text)
{
    char *alias = compressor_alias(text->text);
    struct tree *all = tree_text(alias != NULL ? alias : text->text, text->place);
    char *plus = strchr(all->text, '+');
    struct tree *second = NULL, *first;

    all->exact = text->exact;
    if (plus != NULL) {
        struct tree *rest = tree_text(plus + 1, text->place);

        *plus = '\0';
        second = config_parse_spec(rest);
        tree_free(rest);
    }
    first = config_parse_spec(all);
    if (first != NULL && second != NULL)
        tree_put(first, "quantiser", second);
    tree_free(all);
    free(alias);
    if (first != NULL && (plus == NULL || second != NULL))
        return settle_method(first);
    tree_free(first);
    if (first == NULL)
        tree_free(second);
    return NULL;
}

static bool exclusive(const struct tree *object, const char *path, const char *a, const char *b,
                      struct error *err)
{
    const struct tree *both = tree_get(object, b);

    if (tree_get(object, a) == NULL || both == NULL)
        return true;
    return fail(err, "%s: %s%s and %s%s exclude each other", both->place, path, a, path, b);
}

#define METHOD_FORM "of the form NAME[:key=value,...][+QUANTISER[:key=value,...]]"

/* 0 stands for the regime's ratio, as in an effective regime: it is a slip where that is not said. */
static bool check_ratio(const struct tree *layer, struct error *err)
{
    const struct tree *ratio = tree_get(tree_get(layer, "compressor"), "ratio");

    if (ratio == NULL || ratio->kind != TREE_NUMBER || ratio->number != 0 ||
        tree_get(layer, "ratio") != NULL)
        return true;
    return config_wrong(ratio, "compressor.ratio", err, "a number in (0, 1]");
}

static bool prepare_method(struct tree *layer, struct error *err)
{
    const struct tree *node = tree_get(layer, "compressor");
    const struct tree *second = tree_get(node, "quantiser");
    struct tree *object;

    if (node == NULL || (node->kind != TREE_TEXT && node->kind != TREE_OBJECT))
        return true;
    object = node->kind == TREE_TEXT ? parse_method(node) : tree_copy(node);
    if (object == NULL)
        return config_wrong(node, "compressor", err, METHOD_FORM);
    if (second != NULL && second->kind == TREE_TEXT) {
        struct tree *spec = config_parse_spec(second);

        if (spec == NULL) {
            tree_free(object);
            return config_wrong(second, "compressor.quantiser", err,
                                "of the form NAME[:key=value,...]");
        }
        tree_put(object, "quantiser", spec);
    }
    tree_put(layer, "compressor", settle_method(object));
    return check_ratio(layer, err);
}

bool config_layer_prepare(struct tree *layer, struct error *err)
{
    static const char *const choices[] = {"model", "data", "memory", "lr_rule", "lr_scale"};

    if (!prepare_method(layer, err))
        return false;
    for (size_t i = 0; i < ARRAY_LENGTH(choices); i++) {
        const struct tree *node = tree_get(layer, choices[i]);
        struct tree *object;

        if (node == NULL || node->kind != TREE_TEXT)
            continue;
        object = config_parse_spec(node);
        if (object == NULL)
            return config_wrong(node, choices[i], err, "of the form NAME[:key=value,...]");
        tree_put(layer, choices[i], object);
    }
    return exclusive(layer, "", "batch", "total_batch", err) &&
           exclusive(tree_get(layer, "warmup"), "warmup.", "steps", "epochs", err);
}

bool config_layer_put(struct tree *layer, const char *path, struct tree *value, struct error *err)
{
    size_t dots = 0;

    for (const char *p = path; *p != '\0'; p++)
        dots += *p == '.';
    if (dots <= DEPTH_MOST) {
        tree_put_path(layer, path, value);
        return true;
    }
    config_unknown(value, "", "key", path, NULL, 0, err);
    tree_free(value);
    return false;
}

struct tree *config_layers_begin(const char *place)
{
    struct tree *layer = tree_new(TREE_OBJECT, place);

    tree_put_path(layer, "compressor.name", tree_text("none", CONFIG_DEFAULT_PLACE));
    tree_put_path(layer, "memory.name", tree_text("auto", CONFIG_DEFAULT_PLACE));
    return layer;
}

static void exclude(struct tree *into, const struct tree *layer, const char *a, const char *b)
{
    if (tree_get(layer, a) != NULL)
        tree_remove(into, b);
    if (tree_get(layer, b) != NULL)
        tree_remove(into, a);
}

static const char *name_of(const struct tree *object)
{
    const struct tree *name = tree_get(object, "name");

    return name != NULL && name->kind == TREE_TEXT ? name->text : NULL;
}

/* Whether the layer picks another entry than stands; the settings of that are not its. */
static bool picks_another(const struct tree *into, const struct tree *layer, const char *key)
{
    const char *now = name_of(tree_get(into, key));
    const char *then = name_of(tree_get(layer, key));

    return now != NULL && then != NULL && strcmp(now, then) != 0;
}

/* A map that begins at epoch 0 is a new one, any other adds to what stands. */
static void make_way_for_ratio(struct tree *into, const struct tree *ratio)
{
    const struct tree *old = tree_get(into, "ratio");

    tree_remove(tree_get(into, "compressor"), "ratio");
    if (old == NULL || ratio->kind != TREE_OBJECT)
        return;
    if (tree_get(ratio, "0") != NULL) {
        tree_remove(into, "ratio");
    } else if (old->kind == TREE_NUMBER) {
        struct tree *map = tree_new(TREE_OBJECT, old->place);

        tree_put(map, "0", tree_copy(old));
        tree_put(into, "ratio", map);
    }
}

/* Of another data set only what goes for it too stays: of one of its kind all but its place and its
 * own settings. */
static void make_way_for_data(struct tree *into, const struct tree *layer)
{
    const struct dataset *now = dataset_find(name_of(tree_get(into, "data")));
    const struct dataset *then = dataset_find(name_of(tree_get(layer, "data")));
    struct tree *data = tree_get(into, "data");

    tree_remove(data, "path");
    if (now == NULL || then == NULL)
        return;
    for (const struct setting *s = now->settings; s->name != NULL; s++)
        tree_remove(data, s->name);
    if (now->kind != then->kind) {
        tree_remove(into, "data");
        tree_remove(tree_get(into, "evaluate"), "bptt");
    }
}

void config_layer_apply(struct tree *into, const struct tree *layer)
{
    static const char *const whole[] = {"compressor", "memory", "lr_rule", "lr_scale"};

    exclude(into, layer, "batch", "total_batch");
    exclude(tree_get(into, "warmup"), tree_get(layer, "warmup"), "steps", "epochs");
    if (tree_get(layer, "ratio") != NULL)
        make_way_for_ratio(into, tree_get(layer, "ratio"));
    if (picks_another(into, layer, "model"))
        tree_remove(into, "model");
    if (picks_another(into, layer, "data"))
        make_way_for_data(into, layer);
    for (size_t i = 0; i < ARRAY_LENGTH(whole); i++)
        if (name_of(tree_get(layer, whole[i])) != NULL)
            tree_remove(into, whole[i]);
    tree_merge(into, layer);
}

/* The tuned table. */

static void set_place(struct tree *t, const char *place)
{
    free(t->place);
    t->place = format_text("%s", place);
    for (struct tree *c = t->child; c != NULL; c = c->next)
        set_place(c, place);
}

/* lr, momentum and weight_decay are those of the beginning. */
static char *tuned_path(const char *name)
{
    static const char *const of_phase[] = {"lr", "momentum", "nesterov", "weight_decay"};

    for (size_t i = 0; i < ARRAY_LENGTH(of_phase); i++)
        if (strcmp(name, of_phase[i]) == 0)
            return format_text("schedule.0.%s", name);
    return format_text("%s", name);
}

/* What an entry says, as a layer. */
static bool tuned_layer(struct tree **out, const struct tree *entry, struct error *err)
{
    char *place = format_text("%s: tuned.%s", entry->place, entry->name);
    struct tree *layer = tree_new(TREE_OBJECT, place);
    bool ok = true;

    for (const struct tree *c = entry->child; ok && c != NULL; c = c->next) {
        char *path = tuned_path(c->name);
        struct tree *one = tree_new(TREE_OBJECT, place);
        struct tree *value = tree_copy(c);

        set_place(value, place);
        ok = config_layer_put(one, path, value, err);
        if (tree_get(one, "compressor") != NULL || tree_get(one, "ratio") != NULL)
            ok = fail(err, "%s: '%.64s' is what the table goes by, so it cannot be tuned", place,
                      path);
        tree_merge(layer, one);
        tree_free(one);
        free(path);
    }
    free(place);
    if (ok && config_layer_prepare(layer, err)) {
        *out = layer;
        return true;
    }
    tree_free(layer);
    return false;
}

/* The method that an entry is for: as an object and as choices. */
struct tuned_method {
    struct choice compressor, quantiser;
};

static bool tuned_spec(struct tree **out, struct tuned_method *method, const struct tree *entry,
                       struct error *err)
{
    struct tree *text = tree_text(entry->name, entry->place);
    char *path = format_text("tuned.%s", entry->name);
    struct tree *spec = parse_method(text);
    bool ok = spec != NULL &&
              config_read_method(&method->compressor, &method->quantiser, spec, path, err);

    if (spec == NULL)
        config_wrong(text, "tuned", err, METHOD_FORM);
    tree_free(text);
    free(path);
    if (ok) {
        *out = spec;
        return true;
    }
    tree_free(spec);
    return false;
}

static bool check_entry(const struct tree *entry, const struct tree *regime, struct error *err)
{
    struct config *scratch;
    struct tuned_method method;
    struct tree *spec, *layer, *whole;
    bool ok;

    if (strlen(entry->name) >= sizeof(scratch->tuned))
        return fail(err, "%s: tuned: more than %zu bytes: %.64s...", entry->place,
                    sizeof(scratch->tuned) - 1, entry->name);
    if (!tuned_spec(&spec, &method, entry, err))
        return false;
    if (!tuned_layer(&layer, entry, err)) {
        tree_free(spec);
        return false;
    }
    whole = tree_copy(regime);
    tree_put(whole, "compressor", spec);
    config_layer_apply(whole, layer);
    scratch = allocate(1, sizeof(*scratch));
    config_keys_defaults(scratch);
    ok = config_keys_read(scratch, whole, err);
    free(scratch);
    tree_free(whole);
    tree_free(layer);
    return ok;
}

bool config_tuned_check(const struct tree *tuned, const struct tree *regime, struct error *err)
{
    if (tuned == NULL)
        return true;
    if (tuned->kind != TREE_OBJECT)
        return config_wrong(tuned, "tuned", err, "an object");
    for (const struct tree *entry = tuned->child; entry != NULL; entry = entry->next) {
        if (entry->kind != TREE_OBJECT)
            return config_wrong(entry, "tuned", err, "an object");
        if (!check_entry(entry, regime, err))
            return false;
    }
    return true;
}

/* How many settings a spec names if all of them, and the name, are those of c; else -1. */
static int fit_choice(const struct tree *spec, const struct table *table,
                      const struct choice *choice, const struct choice *own, double ratio)
{
    const struct setting *settings = config_settings(table, choice->name);
    int named = 0;

    if (strcmp(choice->name, own->name) != 0)
        return -1;
    for (int i = 0; settings != NULL && settings[i].name != NULL; i++) {
        double effective = strcmp(settings[i].name, "ratio") == 0 ? ratio : own->value[i];

        if (tree_get(spec, settings[i].name) == NULL)
            continue;
        if (choice->value[i] != effective)
            return -1;
        named++;
    }
    return named;
}

static int fit(const struct tree *spec, const struct tuned_method *method, const struct config *c)
{
    double ratio = c->ratio[c->ratios - 1].ratio;
    int first = fit_choice(spec, &compressor_table, &method->compressor, &c->compressor, ratio);
    int second = fit_choice(tree_get(spec, "quantiser"), &quantiser_table, &method->quantiser,
                            &c->quantiser, ratio);

    return first < 0 || second < 0 ? -1 : first + second;
}

bool config_tuned_find(const struct tree *tuned, const struct config *c, const struct tree **found,
                       struct tree **layer, struct error *err)
{
    const struct tree *best = NULL, *rival = NULL;
    int most = -1;

    *found = NULL;
    for (const struct tree *entry = tuned != NULL ? tuned->child : NULL; entry != NULL;
         entry = entry->next) {
        struct tuned_method method;
        struct tree *spec;
        int named;

        if (!tuned_spec(&spec, &method, entry, err))
            return false;
        named = fit(spec, &method, c);
        tree_free(spec);
        if (named >= 0 && named == most)
            rival = entry;
        if (named > most) {
            most = named;
            best = entry;
            rival = NULL;
        }
    }
    if (rival != NULL)
        return fail(err, "%s: tuned: '%s' and '%s' both fit, and neither says more", rival->place,
                    best->name, rival->name);
    if (best != NULL && !tuned_layer(layer, best, err))
        return false;
    *found = best;
    return true;
}

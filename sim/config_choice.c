#include "sim/config_choice.h"

#include <stdlib.h>
#include <string.h>

#include "compressors/compressor.h"
#include "compressors/memory.h"
#include "data/dataset.h"
#include "models/model.h"
#include "sim/config.h"
#include "sim/optimizer_rule.h"
#include "sim/tree.h"

static struct entry model_at(size_t i)
{
    return models[i] != NULL ? (struct entry){models[i]->name, models[i]->settings}
                             : (struct entry){0};
}

static struct entry dataset_at(size_t i)
{
    return datasets[i] != NULL ? (struct entry){datasets[i]->name, datasets[i]->settings}
                               : (struct entry){0};
}

static struct entry quantiser_at(size_t i)
{
    return quantisers[i] != NULL ? (struct entry){quantisers[i]->name, quantisers[i]->settings}
                                 : (struct entry){0};
}

/* A quantiser may stand alone. */
static struct entry compressor_at(size_t i)
{
    size_t count = 0;

    while (compressors[count] != NULL)
        count++;
    return i < count ? (struct entry){compressors[i]->name, compressors[i]->settings}
                     : quantiser_at(i - count);
}

static struct entry memory_at(size_t i)
{
    return memories[i] != NULL ? (struct entry){memories[i]->name, memories[i]->settings}
                               : (struct entry){0};
}

static struct entry optimizer_at(size_t i)
{
    return optimizer_rules[i] != NULL
               ? (struct entry){optimizer_rules[i]->name, optimizer_rules[i]->settings}
               : (struct entry){0};
}

const struct table model_table = {"model", model_at};
const struct table dataset_table = {"data set", dataset_at};
const struct table compressor_table = {"compressor", compressor_at};
const struct table quantiser_table = {"quantiser", quantiser_at};
const struct table memory_table = {"memory", memory_at};
const struct table optimizer_table = {"optimizer", optimizer_at};

/* Adds one key=value of a spec. */
static bool add_setting(struct tree *object, char *setting, const char *place)
{
    char *equals = strchr(setting, '=');

    if (equals == NULL || equals == setting || equals[1] == '\0')
        return false;
    *equals = '\0';
    if (tree_get(object, setting) != NULL)
        return false;
    tree_put(object, setting, tree_typed(equals + 1, place));
    return true;
}

struct tree *config_parse_spec(const struct tree *text)
{
    struct tree *object = tree_new(TREE_OBJECT, text->place);
    char *copy = format_text("%s", text->text);
    char *rest = strchr(copy, ':');
    struct tree *name;
    bool ok = true;

    if (rest != NULL)
        *rest++ = '\0';
    name = tree_text(copy, text->place);
    name->exact = text->exact;
    tree_put(object, "name", name);
    while (ok && rest != NULL) {
        char *comma = strchr(rest, ',');

        if (comma != NULL)
            *comma++ = '\0';
        ok = add_setting(object, rest, text->place);
        rest = comma;
    }
    free(copy);
    if (ok)
        return object;
    tree_free(object);
    return NULL;
}

char *config_write_spec(const struct choice *choice, const struct table *table)
{
    const struct setting *settings = config_settings(table, choice->name);
    char *text = format_text("%s", choice->name);
    char number[32];

    for (size_t i = 0; settings != NULL && settings[i].name != NULL; i++) {
        char *before = text;

        tree_print_number(number, choice->value[i]);
        text = format_text("%s%s%s=%s", before, i == 0 ? ":" : ",", settings[i].name, number);
        free(before);
    }
    return text;
}

const struct setting *config_settings(const struct table *table, const char *name)
{
    struct entry e;

    for (size_t i = 0; (e = table->at(i)).name != NULL; i++)
        if (strcmp(e.name, name) == 0)
            return e.settings;
    return NULL;
}

bool config_read_entry(struct entry *found, const struct table *table, const struct tree *node,
                       const char *path, struct error *err)
{
    const struct tree *name = tree_get(node, "name");
    const char *names[64];
    size_t count;

    if (node->kind != TREE_OBJECT)
        return config_wrong(node, path, err, "an object or a name");
    if (name == NULL)
        return config_missing(node, path, "name", err);
    if (name->kind != TREE_TEXT)
        return config_wrong(name, path, err, "the name of a %s", table->what);
    for (count = 0; (*found = table->at(count)).name != NULL && count < 64; count++) {
        names[count] = found->name;
        if (strcmp(found->name, name->text) == 0)
            return true;
    }
    return config_unknown(name, path, table->what, name->text, names, count, err);
}

void config_initial_values(double *values, const struct setting *settings)
{
    CHECK(settings == NULL || setting_count(settings) <= SETTINGS_MOST);
    memset(values, 0, SETTINGS_MOST * sizeof(*values));
    for (size_t i = 0; settings != NULL && settings[i].name != NULL; i++)
        values[i] = settings[i].initial;
}

static const struct key name_keys[] = {
    {"name", KEY_TEXT, offsetof(struct choice, name), .high = 32},
};

bool config_read_choice(struct choice *to, const struct table *table, const struct tree *node,
                        const char *path, struct error *err)
{
    struct entry entry = {0};
    struct section section = {name_keys, ARRAY_LENGTH(name_keys), NULL};

    if (!config_read_entry(&entry, table, node, path, err))
        return false;
    section.settings = entry.settings;
    config_initial_values(to->value, entry.settings);
    return config_read_section(&section, to, to->value, node, path, err);
}

bool config_read_method(struct choice *compressor, struct choice *quantiser,
                        const struct tree *node, const char *path, struct error *err)
{
    const struct tree *second = tree_get(node, "quantiser");
    struct tree *first = tree_copy(node);
    char *inner = format_text("%s.quantiser", path);
    bool ok;

    tree_remove(first, "quantiser");
    *quantiser = (struct choice){0};
    ok = config_read_choice(compressor, &compressor_table, first, path, err) &&
         (second == NULL || config_read_choice(quantiser, &quantiser_table, second, inner, err));
    if (ok && compressor_find(compressor->name) == NULL)
        ok = fail(err, "%s: %s: %s is a quantiser, so none can stand behind it", node->place, path,
                  compressor->name);
    tree_free(first);
    free(inner);
    return ok;
}

struct tree *config_write_method(const struct choice *compressor, const struct choice *quantiser)
{
    struct tree *object = config_write_choice(compressor, &compressor_table);

    if (quantiser->name[0] != '\0')
        tree_put(object, "quantiser", config_write_choice(quantiser, &quantiser_table));
    return object;
}

struct tree *config_write_choice(const struct choice *choice, const struct table *table)
{
    struct tree *object = tree_new(TREE_OBJECT, NULL);
    struct section section = {name_keys, ARRAY_LENGTH(name_keys),
                              config_settings(table, choice->name)};

    config_write_section(object, &section, choice, choice->value);
    return object;
}

#include "sim/config_told.h"

#include <stdlib.h>
#include <string.h>

#include "compressors/compressor.h"
#include "sim/config.h"
#include "sim/config_keys.h"
#include "sim/tree.h"

/* The value at a dotted path, or NULL. */
static const struct tree *find(const struct tree *t, const char *path)
{
    char *copy = format_text("%s", path);
    char *rest = copy;

    while (t != NULL && rest != NULL) {
        char *dot = strchr(rest, '.');

        if (dot != NULL)
            *dot++ = '\0';
        t = tree_get(t, rest);
        rest = dot;
    }
    free(copy);
    return t;
}

/* What a phase leaves out stays as an earlier one has it. */
static const struct tree *find_in_schedule(const struct config *c, const struct tree *whole,
                                           const char *key)
{
    const struct tree *found = find(whole, key);
    uint32_t epoch = (uint32_t)strtoul(key + strlen("schedule."), NULL, 10);

    for (uint32_t i = c->phases; found == NULL && i-- > 0;) {
        char *path;

        if (c->phase[i].epoch >= epoch)
            continue;
        path = format_text("schedule.%u%s", c->phase[i].epoch, strrchr(key, '.'));
        found = find(whole, path);
        free(path);
    }
    return found;
}

static const struct tree *find_ratio(const struct config *c, const struct tree *whole,
                                     const char *key)
{
    const struct setting *settings = compressor_find(c->compressor.name)->settings;
    const struct tree *own = find(whole, "compressor.ratio");
    const struct tree *found = find(whole, key);

    if (settings == NULL || setting_find(settings, "ratio") < 0)
        return find(whole, "compressor.name");
    if (own != NULL && own->number != 0)
        return own;
    return found != NULL && found->kind == TREE_OBJECT ? tree_get(found, "0") : found;
}

/* The value in the layers that made a key what it is; NULL: none. */
static const struct tree *find_cause(const struct config *c, const struct tree *whole,
                                     const char *key)
{
    const struct tree *found = find(whole, key);

    if (strcmp(key, "batch") == 0 && found == NULL)
        return find(whole, "total_batch");
    if (strncmp(key, "schedule.", strlen("schedule.")) == 0)
        return find_in_schedule(c, whole, key);
    if (strncmp(key, "ratio", strlen("ratio")) == 0)
        return find_ratio(c, whole, key);
    if (strcmp(key, "warmup") == 0 && found != NULL && found->kind == TREE_OBJECT)
        return find(whole, "compressor.name");
    if (strcmp(key, "memory.name") == 0 &&
        (found == NULL || (found->kind == TREE_TEXT && strcmp(found->text, "auto") == 0)))
        return find(whole, "compressor.name");
    return found;
}

static enum config_source source_of(const char *place, const char *regime)
{
    size_t length = strlen(regime);

    if (strcmp(place, CONFIG_DEFAULT_PLACE) == 0)
        return SOURCE_DEFAULT;
    if (strcmp(place, regime) == 0)
        return SOURCE_REGIME;
    if (strncmp(place, regime, length) == 0 && strncmp(place + length, ": tuned.", 8) == 0)
        return SOURCE_TUNED;
    return strncmp(place, "--", 2) == 0 ? SOURCE_FLAG : SOURCE_WITH;
}

static void add(struct config *c, const struct tree *whole, const char *regime, const char *key,
                const struct tree *value)
{
    const struct tree *cause = find_cause(c, whole, key);
    const char *place = cause != NULL ? cause->place : CONFIG_DEFAULT_PLACE;
    struct config_told *told;

    c->told = realloc(c->told, (c->tolds + 1) * sizeof(*c->told));
    CHECK(c->told != NULL);
    told = &c->told[c->tolds++];
    *told = (struct config_told){.key = format_text("%s", key),
                                 .value = tree_copy(value),
                                 .source = source_of(place, regime)};
    if (told->source == SOURCE_TUNED)
        place += strlen(regime) + strlen(": tuned.");
    told->place = format_text("%s", told->source == SOURCE_DEFAULT ? "" : place);
}

static void add_all(struct config *c, const struct tree *whole, const char *regime,
                    const char *path, const struct tree *t)
{
    if (t->kind != TREE_OBJECT) {
        add(c, whole, regime, path, t);
        return;
    }
    for (const struct tree *m = t->child; m != NULL; m = m->next) {
        char *inner = format_text("%s%s%s", path, *path != '\0' ? "." : "", m->name);

        add_all(c, whole, regime, inner, m);
        free(inner);
    }
}

void config_told_fill(struct config *c, const struct tree *whole, const char *regime)
{
    struct tree *t = config_keys_write_in_order(c);
    struct tree *data = tree_get(t, "data");
    struct tree *compressor = tree_get(t, "compressor");

    tree_remove(compressor, "ratio"); /* it has moved: see struct config */
    if (tree_get(data, "path") == NULL && c->data.path[0] != '\0')
        tree_put(data, "path", tree_text(c->data.path, NULL));
    add_all(c, whole, regime, "", t);
    tree_free(t);
}

void config_told_free(struct config *c)
{
    for (size_t i = 0; i < c->tolds; i++) {
        free(c->told[i].key);
        tree_free(c->told[i].value);
        free(c->told[i].place);
    }
    free(c->told);
    c->told = NULL;
    c->tolds = 0;
}

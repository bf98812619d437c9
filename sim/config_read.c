#include "sim/config_read.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim/config.h"
#include "sim/tree.h"

#define NAMES_MOST 64
#define FOUND_MOST 40 /* characters of a value that a sentence repeats */

bool config_wrong(const struct tree *node, const char *path, struct error *err,
                  const char *expected, ...)
{
    char text[256];
    va_list args;
    char *found;

    va_start(args, expected);
    vsnprintf(text, sizeof(text), expected, args);
    va_end(args);
    if (node->exact)
        return fail(err, "%s: not %s", node->place, text);
    found = tree_print(node);
    fail(err, "%s: %s%s%.*s%s is not %s", node->place, path, *path != '\0' ? ": " : "", FOUND_MOST,
         found, strlen(found) > FOUND_MOST ? "..." : "", text);
    free(found);
    return false;
}

bool config_missing(const struct tree *node, const char *path, const char *name, struct error *err)
{
    return fail(err, "%s: %s%s'%s' is missing", node->place, path, *path != '\0' ? ": " : "", name);
}

/* "; did you mean 'x'?", or "; there are a, b, c". */
static void hint(char *text, size_t room, const char *name, const char *const *names, size_t count)
{
    size_t length = (size_t)snprintf(text, room, "%s", nearest_hint(name, names, count).text);

    if (length > 0)
        return;
    for (size_t i = 0; i < count && length < room; i++)
        length += (size_t)snprintf(text + length, room - length, "%s%s",
                                   i == 0 ? "; there are " : ", ", names[i]);
}

bool config_unknown(const struct tree *node, const char *path, const char *what, const char *name,
                    const char *const *names, size_t count, struct error *err)
{
    char text[256];
    bool key = strcmp(what, "key") == 0; /* which the path tells already */

    hint(text, sizeof(text), name, names, count);
    if (node->exact)
        return fail(err, "%s: no such %s%s", node->place, what, text);
    if (key)
        return fail(err, "%s: %s%s%.64s: no such key%s", node->place, path,
                    *path != '\0' ? "." : "", name, text);
    return fail(err, "%s: %s: no such %s '%.64s'%s", node->place, path, what, name, text);
}

/* [low, high], with a round bracket at a bound that the one given falls short of by a rounding. */
static void range_text(char *text, size_t room, double low, double high)
{
    bool above = low > 0 && low < 1e-300;
    char from[32], to[32], whole[32];

    tree_print_number(from, low);
    tree_print_number(to, high);
    snprintf(whole, sizeof(whole), "%.15g", high);
    if (strtod(whole, NULL) > high)
        snprintf(text, room, "%s%s, %s)", above ? "(" : "[", above ? "0" : from, whole);
    else
        snprintf(text, room, "%s%s, %s]", above ? "(" : "[", above ? "0" : from, to);
}

bool config_read_number(double *to, double low, double high, bool whole, const struct tree *node,
                        const char *path, struct error *err)
{
    double value = node->number;
    char range[96];

    if (node->kind == TREE_NUMBER && value >= low && value <= high &&
        (!whole || value == floor(value))) {
        *to = value;
        return true;
    }
    range_text(range, sizeof(range), low, high);
    return config_wrong(node, path, err, "a %s in %s", whole ? "whole number" : "number", range);
}

static bool read_whole(void *to, const struct key *key, const struct tree *node, const char *path,
                       struct error *err)
{
    double value = 0;

    if (!config_read_number(&value, key->low, key->high, true, node, path, err))
        return false;
    if (key->kind == KEY_SEED)
        *(uint64_t *)to = (uint64_t)value;
    else
        *(uint32_t *)to = (uint32_t)value;
    return true;
}

static bool read_text(char *to, const struct key *key, const struct tree *node, const char *path,
                      struct error *err)
{
    size_t room = (size_t)key->high;

    if (node->kind != TREE_TEXT)
        return config_wrong(node, path, err, "a text");
    if (strlen(node->text) >= room)
        return config_wrong(node, path, err, "a text of at most %zu bytes", room - 1);
    if (key->low > 0 && node->text[0] == '\0')
        return config_wrong(node, path, err, "a text of at least 1 byte");
    if (key->kind == KEY_LINE && !is_line(node->text))
        return config_wrong(node, path, err, "a line of UTF-8 without control characters");
    memcpy(to, node->text, strlen(node->text) + 1);
    return true;
}

static bool read_word(void *to, const struct key *key, const struct tree *node, const char *path,
                      struct error *err)
{
    char known[256] = "";
    size_t length = 0;

    for (unsigned i = 0; key->words[i] != NULL; i++) {
        if (*key->words[i] == '\0')
            continue;
        if (node->kind == TREE_TEXT && strcmp(node->text, key->words[i]) == 0) {
            memcpy(to, &i, sizeof(i));
            return true;
        }
        if (length < sizeof(known))
            length += (size_t)snprintf(known + length, sizeof(known) - length, "%s%s",
                                       length > 0 ? ", " : "", key->words[i]);
    }
    return config_wrong(node, path, err, "one of %s", known);
}

static bool read_key(void *base, const struct key *key, const struct tree *node, const char *path,
                     struct error *err)
{
    char *to = (char *)base + key->offset;

    switch (key->kind) {
    case KEY_WHOLE:
    case KEY_SEED:
        return read_whole(to, key, node, path, err);
    case KEY_NUMBER:
        return config_read_number((double *)(void *)to, key->low, key->high, false, node, path,
                                  err);
    case KEY_YES_NO:
        if (node->kind != TREE_YES_NO)
            return config_wrong(node, path, err, "true or false");
        *(bool *)to = node->number != 0;
        return true;
    case KEY_TEXT:
    case KEY_LINE:
        return read_text(to, key, node, path, err);
    case KEY_WORD:
        return read_word(to, key, node, path, err);
    case KEY_OWN:
        break;
    }
    return key->read(base, node, path, err);
}

static struct tree *write_key(const void *base, const struct key *key)
{
    const char *from = (const char *)base + key->offset;
    unsigned place = 0;

    switch (key->kind) {
    case KEY_WHOLE:
        return tree_number(*(const uint32_t *)(const void *)from, NULL);
    case KEY_SEED:
        return tree_number((double)*(const uint64_t *)(const void *)from, NULL);
    case KEY_NUMBER:
        return tree_number(*(const double *)(const void *)from, NULL);
    case KEY_YES_NO:
        return tree_yes_no(*(const bool *)from, NULL);
    case KEY_TEXT:
    case KEY_LINE:
        return tree_text(from, NULL);
    case KEY_WORD:
        memcpy(&place, from, sizeof(place));
        return tree_text(key->words[place], NULL);
    case KEY_OWN:
        break;
    }
    return key->write(base);
}

static bool read_setting(double *to, const struct setting *s, const struct tree *node,
                         const char *path, struct error *err)
{
    if (s->kind == SWITCH && node->kind == TREE_YES_NO) {
        *to = node->number;
        return true;
    }
    return config_read_number(to, s->low, s->high, s->kind != NUMBER, node, path, err);
}

static bool known_members(const struct section *section, const struct tree *node, const char *path,
                          struct error *err)
{
    const char *names[NAMES_MOST];
    size_t count = 0;

    CHECK(section->count + SETTINGS_MOST <= NAMES_MOST);
    for (size_t i = 0; i < section->count; i++)
        names[count++] = section->keys[i].name;
    for (const struct setting *s = section->settings; s != NULL && s->name != NULL; s++)
        names[count++] = s->name;
    for (const struct tree *c = node->child; c != NULL; c = c->next) {
        size_t i = 0;

        while (i < count && strcmp(names[i], c->name) != 0)
            i++;
        if (i == count)
            return config_unknown(c, path, "key", c->name, names, count, err);
    }
    return true;
}

bool config_read_section(const struct section *section, void *base, double *values,
                         const struct tree *node, const char *path, struct error *err)
{
    const char *dot = *path != '\0' ? "." : "";
    const struct tree *member;
    char inner[160];

    if (node->kind != TREE_OBJECT)
        return config_wrong(node, path, err, "an object");
    if (!known_members(section, node, path, err))
        return false;
    for (size_t i = 0; i < section->count; i++) {
        member = tree_get(node, section->keys[i].name);
        snprintf(inner, sizeof(inner), "%s%s%s", path, dot, section->keys[i].name);
        if (member != NULL && !read_key(base, &section->keys[i], member, inner, err))
            return false;
    }
    for (const struct setting *s = section->settings; s != NULL && s->name != NULL; s++) {
        member = tree_get(node, s->name);
        snprintf(inner, sizeof(inner), "%s%s%s", path, dot, s->name);
        if (member != NULL && !read_setting(&values[s - section->settings], s, member, inner, err))
            return false;
    }
    return true;
}

void config_write_section(struct tree *object, const struct section *section, const void *base,
                          const double *values)
{
    for (size_t i = 0; i < section->count; i++)
        tree_put(object, section->keys[i].name, write_key(base, &section->keys[i]));
    for (const struct setting *s = section->settings; s != NULL && s->name != NULL; s++)
        tree_put(object, s->name, tree_number(values[s - section->settings], NULL));
}

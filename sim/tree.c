#include "sim/tree.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FILE_MOST ((size_t)1 << 16) /* of a regime; time goes with the square of its keys */

static char *copy_text(const char *text)
{
    return text != NULL ? format_text("%s", text) : NULL;
}

struct tree *tree_new(enum tree_kind kind, const char *place)
{
    struct tree *t = allocate(1, sizeof(*t));

    t->kind = kind;
    t->place = copy_text(place);
    return t;
}

struct tree *tree_number(double value, const char *place)
{
    struct tree *t = tree_new(TREE_NUMBER, place);

    t->number = value + 0.0; /* there is one zero */
    return t;
}

struct tree *tree_yes_no(bool value, const char *place)
{
    struct tree *t = tree_new(TREE_YES_NO, place);

    t->number = value;
    return t;
}

struct tree *tree_text(const char *value, const char *place)
{
    struct tree *t = tree_new(TREE_TEXT, place);

    t->text = copy_text(value);
    return t;
}

struct tree *tree_copy(const struct tree *t)
{
    struct tree *copy = tree_new(t->kind, t->place);
    struct tree **end = &copy->child;

    copy->name = copy_text(t->name);
    copy->number = t->number;
    copy->text = copy_text(t->text);
    copy->exact = t->exact;
    for (const struct tree *c = t->child; c != NULL; c = c->next) {
        *end = tree_copy(c);
        end = &(*end)->next;
    }
    return copy;
}

void tree_free(struct tree *t)
{
    struct tree *child, *next;

    if (t == NULL)
        return;
    for (child = t->child; child != NULL; child = next) {
        next = child->next;
        tree_free(child);
    }
    free(t->name);
    free(t->text);
    free(t->place);
    free(t);
}

static bool from_json(struct tree **out, const cJSON *json, const char *place, struct error *err);

static int by_name(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* A key that an object has twice, or NULL; sorted, for a header of tensors may have very many. */
static const char *name_twice(const struct tree *object)
{
    const char **name;
    const char *twice = NULL;
    size_t count = 0;

    for (const struct tree *c = object->child; c != NULL; c = c->next)
        count++;
    name = allocate(count, sizeof(*name));
    count = 0;
    for (const struct tree *c = object->child; c != NULL; c = c->next)
        name[count++] = c->name;
    qsort(name, count, sizeof(*name), by_name);
    for (size_t i = 1; i < count && twice == NULL; i++)
        if (strcmp(name[i - 1], name[i]) == 0)
            twice = name[i];
    free(name);
    return twice;
}

static bool children_from_json(struct tree *t, const cJSON *json, const char *place,
                               struct error *err)
{
    struct tree **end = &t->child;
    const char *twice;

    for (const cJSON *c = json->child; c != NULL; c = c->next) {
        if (!from_json(end, c, place, err))
            return false;
        (*end)->name = copy_text(c->string);
        end = &(*end)->next;
    }
    twice = t->kind == TREE_OBJECT ? name_twice(t) : NULL;
    return twice == NULL || fail(err, "%s: the key '%.64s' is there twice", place, twice);
}

static bool from_json(struct tree **out, const cJSON *json, const char *place, struct error *err)
{
    struct tree *t;

    *out = NULL;
    if (cJSON_IsNumber(json))
        t = tree_number(json->valuedouble, place);
    else if (cJSON_IsString(json))
        t = tree_text(json->valuestring, place);
    else if (cJSON_IsBool(json))
        t = tree_yes_no(cJSON_IsTrue(json), place);
    else if (cJSON_IsNull(json))
        t = tree_new(TREE_NULL, place);
    else
        t = tree_new(cJSON_IsArray(json) ? TREE_LIST : TREE_OBJECT, place);
    if (children_from_json(t, json, place, err)) {
        *out = t;
        return true;
    }
    tree_free(t);
    return false;
}

/* at: where cJSON gave up, or one further.  Shows the line, from not too far before that on. */
static bool not_json(const char *text, size_t length, const char *at, const char *place,
                     struct error *err)
{
    size_t line = 1, shown;
    const char *from = text;

    while (at < text + length && strchr(" \t\r\n", *at) != NULL)
        at++;
    for (const char *p = text; p < at; p++) {
        if (*p == '\n') {
            line++;
            from = p + 1;
        }
    }
    if (at + 1 >= text + length)
        return fail(err, "%s: line %zu: the JSON breaks off", place, line);
    if (at - from > 20)
        from = at - 20;
    from += strspn(from, " \t");
    shown = strcspn(from, "\r\n");
    return fail(err, "%s: line %zu: no JSON: %.*s", place, line, (int)(shown < 40 ? shown : 40),
                from);
}

bool tree_parse(struct tree **out, const char *text, size_t length, const char *place,
                struct error *err)
{
    const char *end = text;
    cJSON *json;
    bool ok;

    *out = NULL;
    if (memchr(text, '\0', length) != NULL)
        return fail(err, "%s: not a text: there is a byte 0 in it", place);
    json = cJSON_ParseWithLengthOpts(text, length + 1, &end, true);
    if (json == NULL)
        return not_json(text, length, end, place, err);
    ok = from_json(out, json, place, err);
    cJSON_Delete(json);
    return ok;
}

struct tree *tree_typed(const char *text, const char *place)
{
    struct tree *t;
    struct error unused;
    char *end;
    double value = strtod(text, &end);

    if (end > text && *end == '\0' && strspn(text, "0123456789+-.eE") == strlen(text))
        return tree_number(value, place);
    if (tree_parse(&t, text, strlen(text), place, &unused))
        return t;
    return tree_text(text, place);
}

bool tree_load(struct tree **out, const char *path, struct error *err)
{
    FILE *file = fopen(path, "rb");
    char *text;
    size_t length;
    bool ok = false;

    *out = NULL;
    if (file == NULL)
        return fail(err, "%s: cannot open it: %s", path, strerror(errno));
    text = allocate(FILE_MOST + 2, 1);
    length = fread(text, 1, FILE_MOST + 1, file);
    if (ferror(file))
        fail(err, "%s: cannot read it: %s", path, strerror(errno));
    else if (length > FILE_MOST)
        fail(err, "%s: larger than 64 KiB, so hardly a regime", path);
    else
        ok = tree_parse(out, text, length, path, err);
    fclose(file);
    free(text);
    return ok;
}

struct tree *tree_get(const struct tree *t, const char *name)
{
    if (t == NULL || t->kind != TREE_OBJECT)
        return NULL;
    for (struct tree *c = t->child; c != NULL; c = c->next)
        if (c->name != NULL && strcmp(c->name, name) == 0)
            return c;
    return NULL;
}

void tree_put_number(struct tree *object, const char *path, double value)
{
    tree_put_path(object, path, tree_number(value, NULL));
}

void tree_put_text(struct tree *object, const char *path, const char *value)
{
    tree_put_path(object, path, tree_text(value, NULL));
}

void tree_add(struct tree *list, struct tree *value)
{
    struct tree **end = &list->child;

    while (*end != NULL)
        end = &(*end)->next;
    *end = value;
}

void tree_remove(struct tree *t, const char *name)
{
    struct tree *member = tree_get(t, name);
    struct tree **link;

    if (member == NULL)
        return;
    for (link = &t->child; *link != NULL; link = &(*link)->next) {
        if (*link == member) {
            *link = member->next;
            tree_free(member);
            return;
        }
    }
}

void tree_put(struct tree *object, const char *name, struct tree *value)
{
    char *own = copy_text(name);

    tree_remove(object, own);
    free(value->name);
    value->name = own;
    tree_add(object, value);
}

void tree_put_path(struct tree *object, const char *path, struct tree *value)
{
    const char *dot = strchr(path, '.');
    struct tree *inner;
    char *name;

    if (dot == NULL) {
        tree_put(object, path, value);
        return;
    }
    name = format_text("%.*s", (int)(dot - path), path);
    inner = tree_get(object, name);
    if (inner == NULL || inner->kind != TREE_OBJECT) {
        inner = tree_new(TREE_OBJECT, value->place);
        inner->exact = value->exact;
        tree_put(object, name, inner);
    }
    tree_put_path(inner, dot + 1, value);
    free(name);
}

void tree_merge(struct tree *into, const struct tree *from)
{
    for (const struct tree *c = from->child; c != NULL; c = c->next) {
        struct tree *old = tree_get(into, c->name);

        if (old != NULL && old->kind == TREE_OBJECT && c->kind == TREE_OBJECT)
            tree_merge(old, c);
        else
            tree_put(into, c->name, tree_copy(c));
    }
}

void tree_sort(struct tree *t)
{
    struct tree *sorted = NULL;
    struct tree *c, *next;

    for (c = t->child; c != NULL; c = c->next)
        tree_sort(c);
    if (t->kind != TREE_OBJECT)
        return;
    for (c = t->child; c != NULL; c = next) {
        struct tree **link = &sorted;

        next = c->next;
        while (*link != NULL && strcmp((*link)->name, c->name) < 0)
            link = &(*link)->next;
        c->next = *link;
        *link = c;
    }
    t->child = sorted;
}

void tree_print_number(char *text, double value)
{
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, 32, "%.*g", digits, value);
        if (strtod(text, NULL) == value)
            return;
    }
}

/* A string of JSON, in quotes. */
static void print_text(FILE *out, const char *text)
{
    putc('"', out);
    for (; *text != '\0'; text++) {
        if ((unsigned char)*text < ' ')
            fprintf(out, "\\u%04x", (unsigned)*text);
        else
            fprintf(out, *text == '"' || *text == '\\' ? "\\%c" : "%c", *text);
    }
    putc('"', out);
}

static void print(FILE *out, const struct tree *t)
{
    char number[32];

    switch (t->kind) {
    case TREE_NULL:
        fputs("null", out);
        return;
    case TREE_YES_NO:
        fputs(t->number != 0 ? "true" : "false", out);
        return;
    case TREE_NUMBER:
        tree_print_number(number, t->number);
        fputs(number, out);
        return;
    case TREE_TEXT:
        print_text(out, t->text);
        return;
    case TREE_LIST:
    case TREE_OBJECT:
        break;
    }
    putc(t->kind == TREE_LIST ? '[' : '{', out);
    for (const struct tree *c = t->child; c != NULL; c = c->next) {
        if (t->kind == TREE_OBJECT) {
            print_text(out, c->name);
            putc(':', out);
        }
        print(out, c);
        if (c->next != NULL)
            putc(',', out);
    }
    putc(t->kind == TREE_LIST ? ']' : '}', out);
}

char *tree_print(const struct tree *t)
{
    char *text = NULL;
    size_t length;
    FILE *out = open_memstream(&text, &length);

    CHECK(out != NULL);
    print(out, t);
    CHECK(fclose(out) == 0);
    return text;
}

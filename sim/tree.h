/*
 * tree.h -- JSON as a tree whose every value knows where it was written.
 *
 * tree.c is the only door to cJSON.  A tree owns all below it.
 */
#ifndef SIM_TREE_H
#define SIM_TREE_H

#include "sim/base.h"

enum tree_kind { TREE_NULL, TREE_YES_NO, TREE_NUMBER, TREE_TEXT, TREE_LIST, TREE_OBJECT };

struct tree {
    enum tree_kind kind;
    char *name;    /* its key, in an object */
    double number; /* of a yes or no: 1 or 0 */
    char *text;
    struct tree *child, *next; /* the first inside, the next beside */
    char *place;               /* a file; or a flag as it was typed */
    bool exact;                /* place tells the value too: a fault need not repeat it */
};

struct tree *tree_new(enum tree_kind kind, const char *place);
struct tree *tree_number(double value, const char *place);
struct tree *tree_yes_no(bool value, const char *place);
struct tree *tree_text(const char *value, const char *place);
struct tree *tree_copy(const struct tree *t);
void tree_free(struct tree *t);

/* Whole texts only; an object with a key twice is a fault. */
bool tree_parse(struct tree **out, const char *text, size_t length, const char *place,
                struct error *err);

/* What somebody typed: a number, else JSON, else a text. */
struct tree *tree_typed(const char *text, const char *place);

/* A file of at most 64 KiB, whose path is the place. */
bool tree_load(struct tree **out, const char *path, struct error *err);

/* The member of an object, or NULL; also if t is NULL or no object. */
struct tree *tree_get(const struct tree *t, const char *name);

/* Takes value over; one of that name goes. */
void tree_put(struct tree *object, const char *name, struct tree *value);

/* The same for a dotted path; objects on the way are made. */
void tree_put_path(struct tree *object, const char *path, struct tree *value);
void tree_put_number(struct tree *object, const char *path, double value);
void tree_put_text(struct tree *object, const char *path, const char *value);

void tree_add(struct tree *list, struct tree *value);
void tree_remove(struct tree *t, const char *name);

/* Later counts: objects are merged member by member, all else is replaced. */
void tree_merge(struct tree *into, const struct tree *from);

/* Orders the members of all objects by name. */
void tree_sort(struct tree *t);

/* Without spaces; a number has the fewest digits from 15 that read back the same.  A new string. */
char *tree_print(const struct tree *t);

/* The same numbers.  text has room for 32. */
void tree_print_number(char *text, double value);

#endif

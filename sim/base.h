/*
 * base.h -- what every file may use: errors, checks, memory, settings.
 *
 * A fault of the input (a regime, an argument, a data file) is a value: the function returns
 * false and *err says why, in one sentence.  Nothing below main() prints it.
 * A bug, or a machine that cannot go on, is a CHECK: it names its line and aborts.
 */
#ifndef SIM_BASE_H
#define SIM_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct error {
    char text[512];
};

/* Fills err and returns false, so that a failure is one statement:
 *     return fail(err, "%s: no such compressor '%s'", path, name);
 * It stays one sentence on one line whatever a path or a name holds: of one that is too long the
 * middle goes, and a question mark stands for a character that would break or colour the line.
 */
bool fail(struct error *err, const char *format, ...) __attribute__((format(printf, 2, 3)));

#define CHECK(condition)                                  \
    do {                                                  \
        if (!(condition))                                 \
            check_failed(#condition, __FILE__, __LINE__); \
    } while (0)

void check_failed(const char *condition, const char *file, int line) __attribute__((noreturn));

/* Zeroed, never NULL; freed with free(). */
void *allocate(size_t count, size_t size) __attribute__((returns_nonnull));

/* Where memory that was planned for is not given: says so, and ends with exit code 1. */
void no_memory(double bytes) __attribute__((noreturn));

/* A new string, never NULL; freed with free(). */
char *format_text(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* In MiB or GiB: a new string. */
char *size_text(size_t bytes);

/* The character of UTF-8 at p, which is before end, and its bytes; 0 bytes if that is no UTF-8: cut
 * short, longer than need be, a surrogate or above U+10FFFF. */
size_t utf8_character(const unsigned char *p, const unsigned char *end, uint32_t *character);

/* Whether a text is UTF-8 without control characters, fit for a line of a table and for JSON. */
bool is_line(const char *text);

/* Of a clock that does not jump. */
double seconds_now(void);

#define ARRAY_LENGTH(array) (sizeof(array) / sizeof((array)[0]))

/* What a regime may say about an entry of a table (a model, a compressor, ...), and what stands
 * if it does not.  Lists of settings end with a NULL name.  A switch is 1 or 0. */
enum setting_kind { NUMBER, WHOLE, SWITCH };

struct setting {
    const char *name;
    double initial, low, high;
    const char *help;
    enum setting_kind kind;
};

#define SETTINGS_MOST 16

/* The place of name among settings, or -1. */
int setting_find(const struct setting *settings, const char *name);

/* The number of settings in a list. */
size_t setting_count(const struct setting *settings);

/* Of count candidates, that which a misspelt word most likely meant, or NULL if none is near. */
const char *nearest_name(const char *word, const char *const *candidates, size_t count);

/* The end of a sentence that tells it: "; did you mean 'x'?", or nothing. */
struct hint {
    char text[96];
};
struct hint nearest_hint(const char *word, const char *const *candidates, size_t count);

#endif

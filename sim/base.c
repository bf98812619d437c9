#include "sim/base.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static __attribute__((format(printf, 1, 0))) char *format_args(const char *format, va_list args)
{
    va_list again;
    char *text;
    int length;

    va_copy(again, args);
    length = vsnprintf(NULL, 0, format, again);
    va_end(again);
    CHECK(length >= 0);
    text = allocate((size_t)length + 1, 1);
    vsnprintf(text, (size_t)length + 1, format, args);
    return text;
}

bool fail(struct error *err, const char *format, ...)
{
    size_t half = sizeof(err->text) / 2;
    va_list args;
    size_t length;
    char *text;

    va_start(args, format);
    text = format_args(format, args);
    va_end(args);
    length = strlen(text);
    snprintf(err->text, sizeof(err->text), "%s", text);
    if (length >= sizeof(err->text))
        snprintf(err->text + half, half, "...%s", text + length - (half - 4));
    free(text);
    return false;
}

void check_failed(const char *condition, const char *file, int line)
{
    fprintf(stderr, "%s:%d: check failed: %s\n", file, line, condition);
    abort();
}

void *allocate(size_t count, size_t size)
{
    void *p = calloc(count > 0 ? count : 1, size);

    CHECK(p != NULL);
    return p;
}

char *format_text(const char *format, ...)
{
    va_list args;
    char *text;

    va_start(args, format);
    text = format_args(format, args);
    va_end(args);
    return text;
}

double seconds_now(void)
{
    struct timespec now;

    CHECK(clock_gettime(CLOCK_MONOTONIC, &now) == 0);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

int setting_find(const struct setting *settings, const char *name)
{
    for (int i = 0; settings[i].name != NULL; i++)
        if (strcmp(settings[i].name, name) == 0)
            return i;
    return -1;
}

size_t setting_count(const struct setting *settings)
{
    size_t count = 0;

    while (settings[count].name != NULL)
        count++;
    return count;
}

/* Levenshtein's distance, cut off at 63 characters of b. */
static size_t distance(const char *a, const char *b)
{
    size_t row[64];
    size_t length = strnlen(b, 63);

    for (size_t j = 0; j <= length; j++)
        row[j] = j;
    for (size_t i = 0; a[i] != '\0'; i++) {
        size_t diagonal = row[0];

        row[0] = i + 1;
        for (size_t j = 0; j < length; j++) {
            size_t change = diagonal + (a[i] != b[j]);
            size_t best = (row[j] < row[j + 1] ? row[j] : row[j + 1]) + 1;

            diagonal = row[j + 1];
            row[j + 1] = change < best ? change : best;
        }
    }
    return row[length];
}

const char *nearest_name(const char *word, const char *const *candidates, size_t count)
{
    const char *nearest = NULL;
    size_t best = strlen(word) / 2 + 1;

    for (size_t i = 0; i < count; i++) {
        size_t d = distance(word, candidates[i]);

        if (d < best) {
            best = d;
            nearest = candidates[i];
        }
    }
    return nearest;
}

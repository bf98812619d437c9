#include "sim/base.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* A new string. */
static char *format_list(const char *format, va_list args) __attribute__((format(printf, 1, 0)));

static char *format_list(const char *format, va_list args)
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

static bool is_inside_character(char byte)
{
    return ((unsigned char)byte & 0xC0) == 0x80;
}

/* What does not fit loses its middle, for a sentence says at its end what is wrong. */
static void put_sentence(char *to, size_t room, const char *text)
{
    size_t length = strlen(text), head, tail;

    if (length < room) {
        memcpy(to, text, length + 1);
        return;
    }
    head = room / 2 - 3;
    tail = length - (room / 2 - 1);
    while (is_inside_character(text[head]))
        head--;
    while (is_inside_character(text[tail]))
        tail++;
    snprintf(to, room, "%.*s...%s", (int)head, text, text + tail);
}

bool fail(struct error *err, const char *format, ...)
{
    va_list args;
    char *text;

    va_start(args, format);
    text = format_list(format, args);
    va_end(args);
    put_sentence(err->text, sizeof(err->text), text);
    free(text);
    for (char *p = err->text; *p != '\0'; p++)
        if ((unsigned char)*p < ' ' || *p == 0x7F)
            *p = '?';
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

    if (p == NULL)
        no_memory((double)count * (double)size);
    return p;
}

void no_memory(double bytes)
{
    fprintf(stderr, "gradpress: no memory: the system does not give %.1f MiB more\n",
            bytes / 1048576);
    _exit(1);
}

char *format_text(const char *format, ...)
{
    va_list args;
    char *text;

    va_start(args, format);
    text = format_list(format, args);
    va_end(args);
    return text;
}

char *size_text(size_t bytes)
{
    double mib = (double)bytes / 1048576;

    return mib < 1024 ? format_text("%.1f MiB", mib) : format_text("%.2f GiB", mib / 1024);
}

/* Of a character that begins with this byte; 0 if none does. */
static size_t character_bytes(unsigned char first)
{
    if (first < 0x80)
        return 1;
    if (first < 0xC0 || first >= 0xF8)
        return 0;
    return first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
}

size_t utf8_character(const unsigned char *p, const unsigned char *end, uint32_t *character)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    size_t bytes = character_bytes(*p);
    uint32_t c = *p;

    if (bytes == 0 || bytes > (size_t)(end - p))
        return 0;
    if (bytes > 1)
        c &= 0x7Fu >> bytes;
    for (size_t i = 1; i < bytes; i++) {
        if ((p[i] & 0xC0) != 0x80)
            return 0;
        c = c << 6 | (p[i] & 0x3F);
    }
    if (c < least[bytes] || c > 0x10FFFF || (c >= 0xD800 && c <= 0xDFFF))
        return 0;
    *character = c;
    return bytes;
}

bool is_line(const char *text)
{
    const unsigned char *p = (const unsigned char *)text, *end = p + strlen(text);

    while (p < end) {
        uint32_t c = 0;
        size_t bytes = utf8_character(p, end, &c);

        /* C0, delete, C1, and the two that separate lines. */
        if (bytes == 0 || c < ' ' || (c >= 0x7F && c < 0xA0) || c == 0x2028 || c == 0x2029)
            return false;
        p += bytes;
    }
    return true;
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

struct hint nearest_hint(const char *word, const char *const *candidates, size_t count)
{
    const char *nearest = nearest_name(word, candidates, count);
    struct hint hint = {""};

    if (nearest != NULL)
        snprintf(hint.text, sizeof(hint.text), "; did you mean '%.64s'?", nearest);
    return hint;
}

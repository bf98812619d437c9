/*
 * text.c -- a corpus from three files: found, read, split into words, numbered.
 *
 * A file is read as a whole and walked once, a character of UTF-8 at a time.  The least count comes
 * afterwards: words are numbered as they are, counted in train, and numbered anew without the
 * rare ones.  As the first numbers are in order of appearance, so are the second.
 */
#include "data/text.h"

#include "sim/rng.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sha2.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Token numbers index 32-bit sums and columns on the device. */
#define TOKENS_MOST ((size_t)1 << 31)

#define END_OF_LINE "<eos>"
#define RARE        "<unk>"

const char *const text_part_names[] = {"train", "valid", "test", NULL};

static const char *const part_file[TEXT_PARTS] = {"train.txt", "valid.txt", "test.txt"};

/* Whether name is PREFIX.train.txt; what begins with a dot is hidden (macOS leaves ._ptb.train.txt
 * beside ptb.train.txt on other file systems). */
static bool is_prefixed(const char *name)
{
    const char *end = ".train.txt";
    size_t length = strlen(name), tail = strlen(end);

    return name[0] != '.' && length > tail && strcmp(name + length - tail, end) == 0;
}

/* The only name behind a prefix: a new string, or NULL after a fault. */
static char *pick_prefixed(DIR *dir, const char *folder, struct error *err)
{
    const struct dirent *entry;
    char *train = NULL;

    while ((entry = readdir(dir)) != NULL) {
        if (!is_prefixed(entry->d_name))
            continue;
        if (train != NULL) {
            bool ordered = strcmp(train, entry->d_name) < 0;

            fail(err, "%s: holds both %s and %s, and which is meant is not told", folder,
                 ordered ? train : entry->d_name, ordered ? entry->d_name : train);
            free(train);
            return NULL;
        }
        train = format_text("%s", entry->d_name);
    }
    if (train == NULL)
        fail(err, "%s: holds neither train.txt nor a PREFIX.train.txt", folder);
    return train;
}

/* What precedes the three names, dot included: a new string, or NULL after a fault. */
static char *find_prefix(const char *folder, struct error *err)
{
    DIR *dir = opendir(folder);
    struct stat about;
    char *name;

    if (dir == NULL) {
        fail(err, "%s: %s", folder, strerror(errno));
        return NULL;
    }
    if (fstatat(dirfd(dir), part_file[TEXT_TRAIN], &about, 0) == 0)
        name = format_text("%s", part_file[TEXT_TRAIN]);
    else
        name = pick_prefixed(dir, folder, err);
    closedir(dir);
    if (name != NULL)
        name[strlen(name) - strlen(part_file[TEXT_TRAIN])] = '\0';
    return name;
}

static char *part_path(const char *folder, const char *prefix, enum text_part part)
{
    size_t length = strlen(folder);
    const char *slash = length > 0 && folder[length - 1] == '/' ? "" : "/";

    return format_text("%s%s%s%s", folder, slash, prefix, part_file[part]);
}

struct content {
    unsigned char *byte;
    size_t count, capacity;
};

/* Room for twice as much, or for at_least at first. */
static bool content_grow(struct content *content, size_t at_least)
{
    size_t capacity = content->capacity > 0 ? 2 * content->capacity : at_least;
    unsigned char *byte = realloc(content->byte, capacity);

    if (byte == NULL)
        return false;
    content->byte = byte;
    content->capacity = capacity;
    return true;
}

/* A system may promise memory that it does not have: what is larger than all of it cannot fit. */
static bool exceeds_memory(off_t bytes)
{
    long pages = sysconf(_SC_PHYS_PAGES), page_bytes = sysconf(_SC_PAGESIZE);

    return pages > 0 && page_bytes > 0 && bytes / page_bytes >= pages;
}

static bool read_all(int file, const char *path, struct content *content, struct error *err)
{
    struct stat about;

    if (fstat(file, &about) != 0)
        return fail(err, "%s: %s", path, strerror(errno));
    if (!S_ISREG(about.st_mode))
        return fail(err, "%s: not a regular file", path);
    if (exceeds_memory(about.st_size))
        return fail(err, "%s: its %jd bytes do not fit in memory", path, (intmax_t)about.st_size);
    for (;;) {
        ssize_t got;

        if (content->count == content->capacity &&
            !content_grow(content, (size_t)about.st_size + 1))
            return fail(err, "%s: does not fit in memory", path);
        got = read(file, content->byte + content->count, content->capacity - content->count);
        if (got < 0 && errno != EINTR)
            return fail(err, "%s: %s", path, strerror(errno));
        if (got == 0)
            return true;
        content->count += got > 0 ? (size_t)got : 0;
    }
}

static bool read_file(const char *path, struct content *content, struct error *err)
{
    int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe is not waited for */
    bool ok;

    if (file < 0)
        return fail(err, "%s: %s", path, strerror(errno));
    ok = read_all(file, path, content, err);
    close(file);
    return ok;
}

/* Open addressing, at most half full. */
struct vocabulary {
    char **word;
    uint32_t words, capacity;
    uint32_t *slot; /* 1 + the word's number, or 0 */
    size_t slots;   /* a power of two */
};

/* FNV-1a. */
static uint64_t hash(const char *word, size_t length)
{
    uint64_t h = 14695981039346656037u;

    for (size_t i = 0; i < length; i++)
        h = (h ^ (unsigned char)word[i]) * 1099511628211u;
    return h;
}

/* Where the word is, or where it belongs. */
static uint32_t *find_slot(const struct vocabulary *v, const char *word, size_t length)
{
    for (uint64_t h = hash(word, length);; h++) {
        uint32_t *slot = &v->slot[h & (v->slots - 1)];

        if (*slot == 0)
            return slot;
        if (strncmp(v->word[*slot - 1], word, length) == 0 && v->word[*slot - 1][length] == '\0')
            return slot;
    }
}

static void vocabulary_grow(struct vocabulary *v)
{
    CHECK(v->capacity < UINT32_MAX / 2);
    v->capacity = v->capacity > 0 ? 2 * v->capacity : 1024;
    v->word = realloc(v->word, v->capacity * sizeof(*v->word));
    CHECK(v->word != NULL);
    v->slots = (size_t)2 * v->capacity;
    free(v->slot);
    v->slot = allocate(v->slots, sizeof(*v->slot));
    for (uint32_t i = 0; i < v->words; i++)
        *find_slot(v, v->word[i], strlen(v->word[i])) = i + 1;
}

/* The word's number; a new word gets the next one. */
static uint32_t vocabulary_number(struct vocabulary *v, const char *word, size_t length)
{
    uint32_t *slot;

    if (v->words == v->capacity)
        vocabulary_grow(v);
    slot = find_slot(v, word, length);
    if (*slot == 0) {
        v->word[v->words] = allocate(length + 1, 1);
        memcpy(v->word[v->words], word, length);
        *slot = ++v->words;
    }
    return *slot - 1;
}

/* Unicode's property White_Space. */
static bool is_space(uint32_t c)
{
    if (c < 0x80)
        return c == ' ' || (c >= '\t' && c <= '\r');
    return c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 ||
           c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

struct reader {
    const char *path;
    size_t line; /* from 1 */
    bool blank;  /* so far */
    struct vocabulary *vocabulary;
    struct text_tokens *tokens;
    size_t capacity; /* of tokens */
    struct error *err;
};

static bool append(struct reader *reader, const char *word, size_t length)
{
    struct text_tokens *tokens = reader->tokens;

    if (tokens->count == TOKENS_MOST)
        return fail(reader->err, "%s:%zu: more than %zu tokens", reader->path, reader->line,
                    TOKENS_MOST);
    if (tokens->count == reader->capacity) {
        size_t capacity = reader->capacity > 0 ? 2 * reader->capacity : 4096;
        uint32_t *token = realloc(tokens->token, capacity * sizeof(*token));

        if (token == NULL)
            return fail(reader->err, "%s: its tokens do not fit in memory", reader->path);
        tokens->token = token;
        reader->capacity = capacity;
    }
    tokens->token[tokens->count++] = vocabulary_number(reader->vocabulary, word, length);
    return true;
}

/* The bytes before end, if any, are a word. */
static bool end_word(struct reader *reader, const unsigned char *word, const unsigned char *end)
{
    if (word == end)
        return true;
    reader->blank = false;
    return append(reader, (const char *)word, (size_t)(end - word));
}

static bool end_line(struct reader *reader)
{
    if (!reader->blank && !append(reader, END_OF_LINE, strlen(END_OF_LINE)))
        return false;
    reader->blank = true;
    reader->line++;
    return true;
}

static bool split(struct reader *reader, const unsigned char *p, const unsigned char *end)
{
    const unsigned char *word = p;

    while (p < end) {
        uint32_t c = 0;
        size_t bytes = utf8_character(p, end, &c);

        if (bytes == 0)
            return fail(reader->err, "%s:%zu: not UTF-8", reader->path, reader->line);
        if (c == 0)
            return fail(reader->err, "%s:%zu: a NUL byte, so this is no text", reader->path,
                        reader->line);
        if (is_space(c)) {
            if (!end_word(reader, word, p) || (c == '\n' && !end_line(reader)))
                return false;
            word = p + bytes;
        }
        p += bytes;
    }
    return end_word(reader, word, end) && end_line(reader);
}

static bool split_content(struct reader *reader, const struct content *content)
{
    static const unsigned char byte_order_mark[] = {0xEF, 0xBB, 0xBF};
    size_t mark = sizeof(byte_order_mark);

    if (content->count < mark || memcmp(content->byte, byte_order_mark, mark) != 0)
        mark = 0;
    if (!split(reader, content->byte + mark, content->byte + content->count))
        return false;
    if (reader->tokens->count < 2)
        return fail(reader->err, "%s: holds no word", reader->path);
    return true;
}

/* How often train has each word.  A word that is only in valid or test is rare. */
static size_t *count_words(const struct text *text)
{
    const struct text_tokens *train = &text->part[TEXT_TRAIN];
    size_t *times = allocate(text->words, sizeof(*times));

    for (size_t i = 0; i < train->count; i++)
        times[train->token[i]]++;
    return times;
}

/* The new number of every word; the vocabulary shrinks to those that stay. */
static uint32_t *renumber(struct text *text, const size_t *times, uint32_t min_count)
{
    uint32_t *number = allocate(text->words, sizeof(*number));
    uint32_t words = 0, rare = UINT32_MAX;

    for (uint32_t i = 0; i < text->words; i++) {
        char *word = text->word[i];
        bool stays = times[i] >= min_count || strcmp(word, END_OF_LINE) == 0;

        if (stays && strcmp(word, RARE) != 0) {
            number[i] = words;
            text->word[words++] = word;
            continue;
        }
        free(word);
        if (rare == UINT32_MAX) {
            rare = words;
            text->word[words++] = format_text("%s", RARE);
        }
        number[i] = rare;
    }
    text->words = words;
    return number;
}

static void drop_rare(struct text *text, uint32_t min_count)
{
    size_t *times = count_words(text);
    uint32_t *number = renumber(text, times, min_count);

    for (int part = 0; part < TEXT_PARTS; part++) {
        struct text_tokens *tokens = &text->part[part];

        for (size_t i = 0; i < tokens->count; i++)
            tokens->token[i] = number[tokens->token[i]];
    }
    free(number);
    free(times);
}

static bool load_part(struct text *text, enum text_part part, struct vocabulary *vocabulary,
                      const char *path, SHA2_CTX *sha256, struct error *err)
{
    struct reader reader = {.path = path,
                            .line = 1,
                            .blank = true,
                            .vocabulary = vocabulary,
                            .tokens = &text->part[part],
                            .err = err};
    struct content content = {0};
    bool ok = read_file(path, &content, err) && split_content(&reader, &content);

    if (ok) {
        uint64_t size = content.count;

        SHA256Update(sha256, (const uint8_t *)&size, sizeof(size));
        SHA256Update(sha256, content.byte, content.count);
    }
    free(content.byte);
    return ok;
}

static bool load_parts(struct text *text, struct vocabulary *vocabulary, const char *folder,
                       const char *prefix, struct error *err)
{
    SHA2_CTX sha256;

    SHA256Init(&sha256);
    for (int part = 0; part < TEXT_PARTS; part++) {
        char *path = part_path(folder, prefix, (enum text_part)part);
        bool ok = load_part(text, (enum text_part)part, vocabulary, path, &sha256, err);

        free(path);
        if (!ok)
            return false;
    }
    SHA256End(&sha256, text->sha256);
    return true;
}

bool text_load(struct text *text, const char *folder, uint32_t min_count, struct error *err)
{
    struct text loaded = {0};
    struct vocabulary vocabulary = {0};
    char *prefix = find_prefix(folder, err);
    bool ok;

    if (prefix == NULL)
        return false;
    ok = load_parts(&loaded, &vocabulary, folder, prefix, err);
    free(prefix);
    free(vocabulary.slot);
    loaded.word = vocabulary.word;
    loaded.words = vocabulary.words;
    if (!ok) {
        text_free(&loaded);
        return false;
    }
    if (min_count > 1)
        drop_rare(&loaded, min_count);
    *text = loaded;
    return true;
}

void text_random(struct text *text, uint32_t words, const size_t count[TEXT_PARTS])
{
    *text = (struct text){.words = words};
    for (uint32_t part = 0; part < TEXT_PARTS; part++) {
        uint32_t *token = allocate(count[part], sizeof(*token));

        for (size_t i = 0; i < count[part]; i++) {
            uint32_t word = rng_block(0, RNG_TEXT, (uint32_t)i, part, 0, 0).word[0];

            token[i] = (uint32_t)((uint64_t)word * words >> 32);
        }
        text->part[part] = (struct text_tokens){count[part], token};
    }
}

void text_free(struct text *text)
{
    if (text == NULL)
        return;
    for (uint32_t i = 0; i < text->words && text->word != NULL; i++)
        free(text->word[i]);
    free(text->word);
    for (int part = 0; part < TEXT_PARTS; part++)
        free(text->part[part].token);
    *text = (struct text){0};
}

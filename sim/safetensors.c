#include "sim/safetensors.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <sha2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sim/kernel.h"
#include "sim/tree.h"

#define HEADER_MOST   ((uint64_t)100000000) /* the format's own bound */
#define VALUES_MOST   ((size_t)1 << 22)     /* in a header: a tree of more is no header's */
#define WHOLE_MOST    9007199254740992.0    /* whole numbers that JSON holds exactly */
#define CHUNK         ((size_t)1 << 16)     /* bytes that are read or converted at a time */
#define METADATA      "__metadata__"
#define PREFIX        8
#define ALIGNED(size) (((size) + 63) / 64 * 64)

static const struct type {
    const char *name;
    size_t bytes;
} types[] = {
    {"F64", 8}, {"F32", 4}, {"F16", 2},  {"BF16", 2},    {"I64", 8},
    {"I32", 4}, {"I16", 2}, {"I8", 1},   {"U64", 8},     {"U32", 4},
    {"U16", 2}, {"U8", 1},  {"BOOL", 1}, {"F8_E4M3", 1}, {"F8_E5M2", 1},
};

static const struct type *find_type(const char *name)
{
    for (size_t i = 0; i < ARRAY_LENGTH(types); i++)
        if (strcmp(types[i].name, name) == 0)
            return &types[i];
    return NULL;
}

/* Reading. */

static bool read_at(const struct safetensors *s, void *to, size_t bytes, uint64_t at,
                    struct error *err)
{
    char *next = to;

    while (bytes > 0) {
        ssize_t got = pread(s->file, next, bytes, (off_t)at);

        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return fail(err, "%s: cannot read it: %s", s->path, strerror(errno));
        if (got == 0)
            return fail(err, "%s: became shorter while it was read", s->path);
        next += got;
        at += (uint64_t)got;
        bytes -= (size_t)got;
    }
    return true;
}

/* A tree takes a hundred times the text; so many values are no model's. */
static bool few_values(const struct safetensors *s, const char *text, size_t length,
                       struct error *err)
{
    size_t values = 0;

    for (size_t i = 0; i < length; i++)
        values += text[i] == ',';
    return values <= VALUES_MOST ||
           fail(err, "%s: the header has more than %zu values", s->path, VALUES_MOST);
}

static bool read_header(struct safetensors *s, uint64_t size, uint64_t *begin, struct error *err)
{
    uint8_t prefix[PREFIX];
    uint64_t length = 0;
    char *text;
    bool ok;

    if (size < PREFIX)
        return fail(err, "%s: %llu bytes are no safetensors file", s->path,
                    (unsigned long long)size);
    if (!read_at(s, prefix, PREFIX, 0, err))
        return false;
    for (unsigned i = 0; i < PREFIX; i++)
        length |= (uint64_t)prefix[i] << 8 * i;
    if (length > HEADER_MOST)
        return fail(err, "%s: no safetensors file: a header of %llu bytes, more than %llu", s->path,
                    (unsigned long long)length, (unsigned long long)HEADER_MOST);
    if (length > size - PREFIX)
        return fail(err, "%s: cut off: a header of %llu bytes in a file of %llu", s->path,
                    (unsigned long long)length, (unsigned long long)size);
    text = allocate(length + 1, 1);
    ok = read_at(s, text, length, PREFIX, err) && few_values(s, text, length, err);
    if (ok && text[0] != '{')
        ok = fail(err, "%s: no safetensors file: the header does not begin with '{'", s->path);
    ok = ok && tree_parse(&s->header, text, length, s->path, err);
    free(text);
    *begin = PREFIX + length;
    return ok;
}

static bool whole_number(const struct tree *node, uint64_t *to)
{
    if (node->kind != TREE_NUMBER || !(node->number >= 0 && node->number <= WHOLE_MOST) ||
        node->number != (double)(uint64_t)node->number)
        return false;
    *to = (uint64_t)node->number;
    return true;
}

static bool wrong(const struct safetensors *s, const struct tree *node, const char *what,
                  struct error *err)
{
    return fail(err, "%s: tensor '%.100s': %s", s->path, node->name, what);
}

static bool read_shape(const struct safetensors *s, struct safetensors_entry *entry,
                       const struct tree *node, struct error *err)
{
    const struct tree *shape = tree_get(node, "shape");

    if (shape == NULL || shape->kind != TREE_LIST)
        return wrong(s, node, "has no list 'shape'", err);
    entry->n = 1;
    for (const struct tree *d = shape->child; d != NULL; d = d->next) {
        uint64_t dim;

        if (entry->dims == SAFETENSORS_DIMS)
            return wrong(s, node, "its shape has more than 8 dimensions", err);
        if (!whole_number(d, &dim))
            return wrong(s, node, "its shape is not made of whole numbers", err);
        if (dim > 0 && entry->n > (uint64_t)WHOLE_MOST / dim)
            return wrong(s, node, "its shape has more values than any file", err);
        entry->dim[entry->dims++] = dim;
        entry->n *= dim;
    }
    return true;
}

static bool read_offsets(const struct safetensors *s, struct safetensors_entry *entry,
                         const struct tree *node, uint64_t size, struct error *err)
{
    const struct tree *offsets = tree_get(node, "data_offsets");
    const struct tree *first = offsets != NULL ? offsets->child : NULL;
    const struct type *type = find_type(entry->type);
    uint64_t begin, end;
    char shape[SAFETENSORS_SHAPE];

    CHECK(type != NULL);
    if (first == NULL || offsets->kind != TREE_LIST || first->next == NULL ||
        first->next->next != NULL || !whole_number(first, &begin) ||
        !whole_number(first->next, &end) || begin > end)
        return wrong(s, node, "its data_offsets are not two whole numbers, the lesser first", err);
    if (end > size)
        return fail(err,
                    "%s: tensor '%.100s' ends at byte %llu of the data, of which there are %llu: "
                    "cut off, or its data_offsets are wrong",
                    s->path, node->name, (unsigned long long)end, (unsigned long long)size);
    safetensors_shape(shape, entry->dims, entry->dim);
    if (end - begin != (uint64_t)entry->n * type->bytes)
        return fail(err,
                    "%s: tensor '%.100s': %llu bytes between its data_offsets, but %s of shape %s "
                    "has %llu",
                    s->path, node->name, (unsigned long long)(end - begin), type->name, shape,
                    (unsigned long long)((uint64_t)entry->n * type->bytes));
    entry->at = begin;
    entry->bytes = end - begin;
    return true;
}

static bool read_entry(const struct safetensors *s, struct safetensors_entry *entry,
                       const struct tree *node, uint64_t size, struct error *err)
{
    const struct tree *type = tree_get(node, "dtype");

    *entry = (struct safetensors_entry){.name = node->name};
    if (node->kind != TREE_OBJECT)
        return wrong(s, node, "is described by no object", err);
    if (type == NULL || type->kind != TREE_TEXT)
        return wrong(s, node, "has no text 'dtype'", err);
    if (find_type(type->text) == NULL)
        return fail(err, "%s: tensor '%.100s': no such dtype '%.32s'", s->path, node->name,
                    type->text);
    entry->type = find_type(type->text)->name;
    /* n is at most 2^53, so its bytes do not overflow. */
    return read_shape(s, entry, node, err) && read_offsets(s, entry, node, size, err);
}

static int by_place(const void *a, const void *b)
{
    const struct safetensors_entry *x = a, *y = b;

    if (x->at != y->at)
        return x->at < y->at ? -1 : 1;
    return (x->bytes > y->bytes) - (x->bytes < y->bytes);
}

/* Sorted, every tensor begins where the one before it ends, and the last ends the file. */
static bool check_places(const struct safetensors *s, uint64_t size, struct error *err)
{
    const char *before = NULL;
    uint64_t end = 0;

    for (size_t i = 0; i < s->count; i++) {
        const struct safetensors_entry *e = &s->entry[i];

        if (e->at < end)
            return fail(err, "%s: tensors '%.100s' and '%.100s' overlap", s->path, before, e->name);
        if (e->at > end)
            return fail(err, "%s: before tensor '%.100s' are %llu bytes of no tensor", s->path,
                        e->name, (unsigned long long)(e->at - end));
        end += e->bytes;
        before = e->name;
    }
    if (end == size)
        return true;
    return fail(err, "%s: %llu bytes past the last tensor%s%.100s%s", s->path,
                (unsigned long long)(size - end), before != NULL ? " '" : "",
                before != NULL ? before : "", before != NULL ? "'" : "");
}

static bool read_entries(struct safetensors *s, uint64_t size, uint64_t begin, struct error *err)
{
    size_t room = 0;

    CHECK(s->header != NULL);
    for (const struct tree *node = s->header->child; node != NULL; node = node->next)
        room++;
    s->entry = allocate(room, sizeof(*s->entry));
    for (const struct tree *node = s->header->child; node != NULL; node = node->next) {
        if (strcmp(node->name, METADATA) == 0)
            continue;
        if (!read_entry(s, &s->entry[s->count], node, size, err))
            return false;
        s->count++;
    }
    qsort(s->entry, s->count, sizeof(*s->entry), by_place);
    if (!check_places(s, size, err))
        return false;
    for (size_t i = 0; i < s->count; i++)
        s->entry[i].at += begin;
    return true;
}

bool safetensors_open(struct safetensors *s, const char *path, struct error *err)
{
    struct stat status;
    uint64_t begin = 0;
    bool ok;

    *s = (struct safetensors){.path = format_text("%s", path)};
    s->file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (s->file < 0)
        ok = fail(err, "%s: cannot open it: %s", path, strerror(errno));
    else if (fstat(s->file, &status) != 0 || !S_ISREG(status.st_mode))
        ok = fail(err, "%s: not a regular file", path);
    else
        ok = read_header(s, (uint64_t)status.st_size, &begin, err) &&
             read_entries(s, (uint64_t)status.st_size - begin, begin, err);
    if (!ok)
        safetensors_close(s);
    return ok;
}

void safetensors_close(struct safetensors *s)
{
    if (s->path == NULL)
        return;
    if (s->file >= 0)
        close(s->file);
    free(s->entry);
    tree_free(s->header);
    free(s->path);
    *s = (struct safetensors){0};
}

const struct safetensors_entry *safetensors_find(const struct safetensors *s, const char *name)
{
    for (size_t i = 0; i < s->count; i++)
        if (strcmp(s->entry[i].name, name) == 0)
            return &s->entry[i];
    return NULL;
}

const char *safetensors_metadata(const struct safetensors *s, const char *name)
{
    const struct tree *text = tree_get(tree_get(s->header, METADATA), name);

    return text != NULL && text->kind == TREE_TEXT ? text->text : NULL;
}

static float half_float(uint32_t half)
{
    uint32_t sign = (half & 0x8000) << 16;
    uint32_t exponent = half >> 10 & 31;
    uint32_t fraction = half & 1023;
    float small;

    if (exponent == 31)
        return bits_float(sign | 0x7f800000 | fraction << 13);
    if (exponent > 0)
        return bits_float(sign | (exponent + 112) << 23 | fraction << 13);
    small = (float)fraction * 0x1p-24f;
    return sign != 0 ? -small : small;
}

/* One value, little-endian like every machine this runs on. */
static float convert(const char *type, const unsigned char *from)
{
    uint32_t word = 0;
    double wide;

    if (strcmp(type, "F64") == 0) {
        memcpy(&wide, from, sizeof(wide));
        return (float)wide;
    }
    memcpy(&word, from, strcmp(type, "F32") == 0 ? 4 : 2);
    if (strcmp(type, "F16") == 0)
        return half_float(word);
    return bits_float(strcmp(type, "BF16") == 0 ? word << 16 : word);
}

bool safetensors_read(const struct safetensors *s, const struct safetensors_entry *entry, float *to,
                      struct error *err)
{
    unsigned char chunk[CHUNK];
    size_t bytes = find_type(entry->type)->bytes;

    if (strchr(entry->type, 'F') == NULL || bytes < 2)
        return fail(err, "%s: tensor '%.100s' is %s; F32, F64, F16 and BF16 can be read", s->path,
                    entry->name, entry->type);
    for (size_t done = 0; done < entry->n;) {
        size_t left = entry->n - done;
        size_t now = left < CHUNK / bytes ? left : CHUNK / bytes;

        if (!read_at(s, chunk, now * bytes, entry->at + done * bytes, err))
            return false;
        for (size_t i = 0; i < now; i++)
            to[done++] = convert(entry->type, chunk + i * bytes);
    }
    return true;
}

bool safetensors_read_finite(const struct safetensors *s, const struct safetensors_entry *entry,
                             float *to, struct error *err)
{
    if (!safetensors_read(s, entry, to, err))
        return false;
    for (size_t i = 0; i < entry->n; i++)
        if (!isfinite(to[i]))
            return fail(err, "%s: tensor '%s': value %zu is %s, not a finite number", s->path,
                        entry->name, i, isnan(to[i]) ? "NaN" : "infinite");
    return true;
}

bool safetensors_hash(const struct safetensors *s, char sha256[65], struct error *err)
{
    uint8_t chunk[CHUNK];
    SHA2_CTX context;
    ssize_t got;
    uint64_t at = 0;

    SHA256Init(&context);
    while ((got = pread(s->file, chunk, CHUNK, (off_t)at)) > 0) {
        SHA256Update(&context, chunk, (size_t)got);
        at += (uint64_t)got;
    }
    if (got < 0)
        return fail(err, "%s: cannot read it: %s", s->path, strerror(errno));
    SHA256End(&context, sha256);
    return true;
}

void safetensors_shape(char text[SAFETENSORS_SHAPE], uint32_t dims, const size_t *dim)
{
    size_t length = 0;

    CHECK(dims <= SAFETENSORS_DIMS);
    text[length++] = '[';
    for (uint32_t i = 0; i < dims; i++)
        length += (size_t)snprintf(text + length, SAFETENSORS_SHAPE - length, "%s%zu",
                                   i > 0 ? ", " : "", dim[i]);
    snprintf(text + length, SAFETENSORS_SHAPE - length, "]");
}

/* Writing. */

static size_t values_of(const struct safetensors_tensor *t)
{
    size_t n = 1;

    for (uint32_t i = 0; i < t->dims; i++)
        n *= t->dim[i];
    return n;
}

/* A string of JSON. */
static void print_text(FILE *out, const char *text)
{
    struct tree *t = tree_text(text, NULL);
    char *quoted = tree_print(t);

    fputs(quoted, out);
    free(quoted);
    tree_free(t);
}

static void print_metadata(FILE *out, const struct safetensors_note *metadata, size_t notes)
{
    for (size_t i = 0; i < notes; i++) {
        fputs(i == 0 ? "\"" METADATA "\":{" : ",", out);
        print_text(out, metadata[i].name);
        putc(':', out);
        print_text(out, metadata[i].text);
    }
    if (notes > 0)
        putc('}', out);
}

/* The 8 bytes and the header, with spaces up to where the values are aligned. */
static char *begin_of(const struct safetensors_tensor *tensors, size_t count,
                      const struct safetensors_note *metadata, size_t notes, size_t *size)
{
    FILE *out;
    char *text = NULL;
    size_t at = 0;

    out = open_memstream(&text, size);
    CHECK(out != NULL);
    fprintf(out, "%*s{", PREFIX, "");
    print_metadata(out, metadata, notes);
    for (size_t i = 0; i < count; i++) {
        char shape[SAFETENSORS_SHAPE];
        size_t end = at + values_of(&tensors[i]) * sizeof(float);

        safetensors_shape(shape, tensors[i].dims, tensors[i].dim);
        fputs(i > 0 || notes > 0 ? "," : "", out);
        print_text(out, tensors[i].name);
        fprintf(out, ":{\"dtype\":\"F32\",\"shape\":%s,\"data_offsets\":[%zu,%zu]}", shape, at,
                end);
        at = end;
    }
    putc('}', out);
    CHECK(fflush(out) == 0);
    fprintf(out, "%*s", (int)(ALIGNED(*size) - *size), "");
    CHECK(fclose(out) == 0);
    for (unsigned i = 0; i < PREFIX; i++)
        text[i] = (char)((uint64_t)(*size - PREFIX) >> 8 * i);
    return text;
}

static bool write_all(int file, const void *from, size_t bytes)
{
    const char *next = from;

    while (bytes > 0) {
        ssize_t put = write(file, next, bytes);

        if (put < 0 && errno == EINTR)
            continue;
        if (put <= 0)
            return false;
        next += put;
        bytes -= (size_t)put;
    }
    return true;
}

static bool write_file(int file, const char *begin, size_t size,
                       const struct safetensors_tensor *tensors, size_t count)
{
    bool ok = write_all(file, begin, size);

    for (size_t i = 0; ok && i < count; i++)
        ok = write_all(file, tensors[i].value, values_of(&tensors[i]) * sizeof(float));
    ok = ok && fsync(file) == 0;
    return close(file) == 0 && ok;
}

/* A file beside that which it will replace. */
struct part {
    char *target, *path;
    int file;
};

/* What else is there, a regime or a database, was hardly meant. */
static bool may_be_replaced(const char *path, const struct stat *status, struct error *err)
{
    struct safetensors s;
    struct error unused;

    if (!S_ISREG(status->st_mode))
        return fail(err, "%s: not a regular file", path);
    if (status->st_size > 0 && !safetensors_open(&s, path, &unused))
        return fail(err, "%s: is there, and no safetensors file: it is not replaced", path);
    if (status->st_size > 0)
        safetensors_close(&s);
    return true;
}

/* What a link leads to is replaced, not the link. */
static bool find_target(const char *path, char **target, struct error *err)
{
    struct stat status;

    *target = NULL;
    if (stat(path, &status) == 0) {
        *target = realpath(path, NULL);
        return *target != NULL ? may_be_replaced(path, &status, err)
                               : fail(err, "%s: %s", path, strerror(errno));
    }
    if (lstat(path, &status) == 0)
        return fail(err, "%s: a symbolic link that leads nowhere", path);
    *target = format_text("%s", path);
    return true;
}

static bool open_part(struct part *part, const char *path, struct error *err)
{
    *part = (struct part){.file = -1};
    if (!find_target(path, &part->target, err))
        return false;
    part->path = format_text("%s.%ld.part", part->target, (long)getpid());
    part->file = open(part->path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    return part->file >= 0 || fail(err, "%s: cannot write it: %s", path, strerror(errno));
}

static void free_part(struct part *part)
{
    free(part->target);
    free(part->path);
}

bool safetensors_writable(const char *path, size_t bytes, struct error *err)
{
    struct part part;
    bool ok = open_part(&part, path, err);

    if (ok) {
        int code = posix_fallocate(part.file, 0, bytes > 0 ? (off_t)bytes : 1);

        ok = code == 0 ||
             fail(err, "%s: cannot write its %zu bytes: %s", path, bytes, strerror(code));
        close(part.file);
        unlink(part.path);
    }
    free_part(&part);
    return ok;
}

bool safetensors_write(const char *path, const struct safetensors_tensor *tensors, size_t count,
                       const struct safetensors_note *metadata, size_t notes, struct error *err)
{
    struct part part;
    bool ok = open_part(&part, path, err);

    if (ok) {
        size_t size;
        char *begin = begin_of(tensors, count, metadata, notes, &size);

        ok = write_file(part.file, begin, size, tensors, count) &&
             rename(part.path, part.target) == 0;
        if (!ok) {
            fail(err, "%s: cannot write it: %s", path, strerror(errno));
            unlink(part.path);
        }
        free(begin);
    }
    free_part(&part);
    return ok;
}

bool safetensors_hash_file(const char *path, char sha256[65], struct error *err)
{
    struct safetensors s;
    bool ok;

    if (!safetensors_open(&s, path, err))
        return false;
    ok = safetensors_hash(&s, sha256, err);
    safetensors_close(&s);
    return ok;
}

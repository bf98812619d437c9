#include "tests/fuzz/fuzz.h"

#include "sim/config.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* From `from` on, where a line of ---- begins with the end of the line before it, or size. */
static size_t find_line(const uint8_t *data, size_t size, size_t from, const char *line)
{
    size_t length = strlen(line);

    for (size_t i = from; i + length <= size; i++)
        if (memcmp(data + i, line, length) == 0)
            return i;
    return size;
}

void fuzz_split(struct part *parts, size_t count, const uint8_t *data, size_t size)
{
    const char *line = "\n----\n";
    size_t at = 0;

    for (size_t i = 0; i < count; i++) {
        size_t end = i + 1 < count ? find_line(data, size, at, line) : size;

        parts[i] = (struct part){data + at, end - at};
        at = end < size ? end + strlen(line) : size;
    }
}

static char folder[256];

static void remove_folder(void)
{
    DIR *dir = opendir(folder);
    const struct dirent *entry;

    while (dir != NULL && (entry = readdir(dir)) != NULL)
        unlinkat(dirfd(dir), entry->d_name, 0);
    if (dir != NULL)
        closedir(dir);
    rmdir(folder);
}

const char *fuzz_folder(void)
{
    const char *above = getenv("TMPDIR");

    if (folder[0] != '\0')
        return folder;
    snprintf(folder, sizeof(folder), "%s/gradpress-fuzz-XXXXXX", above != NULL ? above : "/tmp");
    CHECK(mkdtemp(folder) != NULL);
    atexit(remove_folder);
    return folder;
}

char *fuzz_file(const char *name, struct part content)
{
    char *path = format_text("%s/%s", fuzz_folder(), name);
    FILE *file = fopen(path, "wb");

    CHECK(file != NULL);
    CHECK(fwrite(content.data, 1, content.size, file) == content.size);
    CHECK(fclose(file) == 0);
    return path;
}

/* A message has room for what config_ratio_most() says: train.c relies on it. */
static void check_ratios(const struct config *c)
{
    double most = config_ratio_most(c);

    for (uint32_t i = 0; i < c->ratios && c->ratio[i].epoch < c->epochs; i++)
        CHECK(config_ratio(c, c->ratio[i].epoch, (uint64_t)c->ratio[i].epoch * 1000) <= most);
    CHECK(config_ratio(c, 0, 0) <= most);
    CHECK(config_ratio(c, c->epochs - 1, UINT64_MAX) <= most);
    CHECK(config_phase(c, 0) == c->phase);
}

static void check_effective(const struct config *c)
{
    struct part text = {(const uint8_t *)c->effective, strlen(c->effective)};
    char *path = fuzz_file("effective.json", text);
    struct config *again = allocate(1, sizeof(*again));
    struct error err = {""};
    bool misuse;

    if (!config_parse(again, 1, &path, &misuse, &err)) {
        fprintf(stderr, "%s\n", err.text);
        abort();
    }
    CHECK(strcmp(again->key, c->key) == 0);
    CHECK(strcmp(again->experiment_key, c->experiment_key) == 0);
    CHECK(strcmp(again->method, c->method) == 0);
    config_free(again);
    free(again);
    free(path);
}

void fuzz_config(int argc, char **argv)
{
    struct config *c = allocate(1, sizeof(*c));
    struct error err = {""};
    bool misuse = false;

    if (config_parse(c, argc, argv, &misuse, &err)) {
        check_ratios(c);
        check_effective(c);
    } else {
        CHECK(err.text[0] != '\0');
    }
    config_free(c);
    free(c);
}

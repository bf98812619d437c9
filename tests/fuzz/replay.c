/*
 * replay.c -- the targets without libFuzzer: every file of the folders given, once.
 */
#include "tests/fuzz/fuzz.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>

/* Says which one it is, for whoever finds it aborted. */
static void replay(const char *path)
{
    FILE *file = fopen(path, "rb");
    uint8_t *data;
    long size;

    printf("%s\n", path);
    fflush(stdout);
    CHECK(file != NULL && fseek(file, 0, SEEK_END) == 0);
    size = ftell(file);
    CHECK(size >= 0);
    rewind(file);
    data = allocate((size_t)size, 1); /* just so large, for the sanitizer */
    CHECK(fread(data, 1, (size_t)size, file) == (size_t)size);
    fclose(file);
    LLVMFuzzerTestOneInput(data, (size_t)size);
    free(data);
}

static size_t replay_folder(const char *folder)
{
    struct dirent **entry;
    int count = scandir(folder, &entry, NULL, alphasort);
    size_t files = 0;

    CHECK(count >= 0);
    for (int i = 0; i < count; i++) {
        if (entry[i]->d_name[0] != '.') {
            char *path = format_text("%s/%s", folder, entry[i]->d_name);

            replay(path);
            free(path);
            files++;
        }
        free(entry[i]);
    }
    free(entry);
    return files;
}

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++)
        if (replay_folder(argv[i]) == 0)
            return fprintf(stderr, "%s: nothing to replay\n", argv[i]), 1;
    return 0;
}

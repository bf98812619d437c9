#include "sim/config_find.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FOLDERS      4
#define NAME_LONGEST 255

static const char *const suffix = ".json";

/* The program's folder; "" if the system does not tell. */
static char *program_folder(void)
{
    char path[4096];
    ssize_t length = readlink("/proc/self/exe", path, sizeof(path));
    int folder = 0;

    for (int i = 0; i < (int)length; i++)
        if (path[i] == '/')
            folder = i;
    return format_text("%.*s", folder, path);
}

/* New strings, in the order in which they are sought. */
static void folders(char *folder[FOLDERS])
{
    const char *own = getenv("GRADPRESS_REGIMES");
    char *program = program_folder();

    folder[0] = format_text("%s", own != NULL ? own : "");
    folder[1] = format_text("regimes");
    folder[2] = format_text("%s/../regimes", program);
    folder[3] = format_text("%s/../share/gradpress/regimes", program);
    free(program);
}

static bool is_file(const char *path)
{
    struct stat about;

    return stat(path, &about) == 0 && S_ISREG(about.st_mode);
}

/* Whether name ends in .json; *length: without it. */
static bool has_suffix(const char *name, size_t *length)
{
    size_t all = strlen(name), tail = strlen(suffix);

    *length = all > tail ? all - tail : all;
    return all > tail && strcmp(name + all - tail, suffix) == 0;
}

/* Keeps the order; the first of a name stays. */
static void add_name(struct config_names *names, char *name, char *path)
{
    size_t at = 0;

    while (at < names->count && strcmp(names->name[at], name) < 0)
        at++;
    if (at < names->count && strcmp(names->name[at], name) == 0) {
        free(name);
        free(path);
        return;
    }
    names->name = realloc(names->name, (names->count + 1) * sizeof(*names->name));
    names->path = realloc(names->path, (names->count + 1) * sizeof(*names->path));
    CHECK(names->name != NULL && names->path != NULL);
    memmove(names->name + at + 1, names->name + at, (names->count - at) * sizeof(*names->name));
    memmove(names->path + at + 1, names->path + at, (names->count - at) * sizeof(*names->path));
    names->name[at] = name;
    names->path[at] = path;
    names->count++;
}

static void list_folder(struct config_names *names, const char *folder)
{
    DIR *dir = *folder != '\0' ? opendir(folder) : NULL;
    const struct dirent *entry;

    if (dir == NULL)
        return;
    while ((entry = readdir(dir)) != NULL) {
        size_t length;
        char *path = format_text("%s/%s", folder, entry->d_name);

        if (entry->d_name[0] != '.' && has_suffix(entry->d_name, &length) && is_file(path))
            add_name(names, format_text("%.*s", (int)length, entry->d_name), path);
        else
            free(path);
    }
    closedir(dir);
}

void config_names_list(struct config_names *names)
{
    char *folder[FOLDERS];

    *names = (struct config_names){0};
    folders(folder);
    for (size_t i = 0; i < FOLDERS; i++) {
        list_folder(names, folder[i]);
        free(folder[i]);
    }
}

void config_names_free(struct config_names *names)
{
    for (size_t i = 0; i < names->count; i++) {
        free(names->name[i]);
        free(names->path[i]);
    }
    free(names->name);
    free(names->path);
    *names = (struct config_names){0};
}

bool config_find(char **path, const char *regime, struct error *err)
{
    struct config_names names;
    const char *nearest;
    size_t length;

    *path = NULL;
    if (strchr(regime, '/') != NULL || has_suffix(regime, &length) || is_file(regime)) {
        *path = format_text("%s", regime);
        return true;
    }
    config_names_list(&names);
    for (size_t i = 0; i < names.count && *path == NULL; i++)
        if (strcmp(names.name[i], regime) == 0)
            *path = format_text("%s", names.path[i]);
    if (*path == NULL) {
        nearest = nearest_name(regime, (const char *const *)names.name, names.count);
        fail(err, "no regime '%.*s'%s%s%s", NAME_LONGEST, regime,
             nearest != NULL ? "; did you mean '" : " in any folder of regimes",
             nearest != NULL ? nearest : "", nearest != NULL ? "'?" : "");
    }
    config_names_free(&names);
    return *path != NULL;
}

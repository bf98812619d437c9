#include "sim/data.h"

#include <stdlib.h>
#include <string.h>

#include "data/fetch.h"
#include "data/source.h"
#include "sim/words.h"

struct data_words {
    const char *action;
    const struct dataset *set;
    const char *into, *from, *data;
    bool quiet;
};

/* What there is, once all of it was read. */
static bool check(const struct dataset *set, const char *folder, FILE *out, struct error *err)
{
    double settings[SETTINGS_MOST] = {0};
    struct source source = {.set = set};
    struct contents contents;

    for (size_t i = 0; set->settings != NULL && set->settings[i].name != NULL; i++)
        settings[i] = set->settings[i].initial;
    source.how = (struct reading){.min_count = 1, .settings = settings};
    if (!set->kind->load(&source, folder, err))
        return false;
    contents = set->kind->contents(&source);
    fprintf(out, "%s  %u %s", set->name, contents.classes, set->kind->classes);
    for (int part = 0; part < TEXT_PARTS; part++)
        if (contents.count[part] > 0)
            fprintf(out, "  %zu %s", contents.count[part], text_part_names[part]);
    fprintf(out, "\n%s  %s\n", contents.sha256, *folder != '\0' ? folder : "(made, not read)");
    set->kind->unload(&source);
    return true;
}

static bool find_set(struct data_words *w, const char *name, struct error *err)
{
    const char *names[64];
    struct hint near;
    size_t count = 0;

    for (; datasets[count] != NULL && count < ARRAY_LENGTH(names); count++)
        names[count] = datasets[count]->name;
    w->set = dataset_find(name);
    if (w->set != NULL)
        return true;
    near = nearest_hint(name, names, count);
    return fail(err, "no such data set '%s'%s", name,
                near.text[0] != '\0' ? near.text : "; list datasets tells them");
}

static bool parse(struct data_words *w, int argc, char **argv, struct error *err)
{
    const char *name = NULL;

    if (argc < 1 || (strcmp(argv[0], "fetch") != 0 && strcmp(argv[0], "check") != 0))
        return fail(err, "data wants fetch or check and the name of a data set");
    w->action = argv[0];
    for (int i = 1; i < argc; i++) {
        bool fetches = strcmp(w->action, "fetch") == 0;

        if (fetches && ((take_value("--into", argc, argv, &i, &w->into) && w->into != NULL) ||
                        (take_value("--from", argc, argv, &i, &w->from) && w->from != NULL)))
            continue;
        if (!fetches && take_value("--data", argc, argv, &i, &w->data) && w->data != NULL)
            continue;
        if (strcmp(argv[i], "--quiet") == 0)
            w->quiet = true;
        else if (argv[i][0] == '-')
            return fail(err, "no such flag '%s' of data %s, or its value is missing", argv[i],
                        w->action);
        else if (name != NULL)
            return fail(err, "two data sets, '%s' and '%s'", name, argv[i]);
        else
            name = argv[i];
    }
    if (name == NULL)
        return fail(err, "data %s wants the name of a data set", w->action);
    return find_set(w, name, err);
}

bool data_command(int argc, char **argv, FILE *out, bool *misuse, struct error *err)
{
    struct data_words w = {0};
    char *folder = NULL;
    bool ok;

    *misuse = !parse(&w, argc, argv, err);
    if (*misuse || w.set == NULL)
        return false;
    if (strcmp(w.action, "fetch") == 0)
        ok = fetch(w.set, w.into, w.from, w.quiet, &folder, err);
    else
        ok = dataset_locate(w.set, NULL, w.data, &folder, err);
    ok = ok && check(w.set, folder, out, err);
    free(folder);
    return ok;
}

void data_help(FILE *out)
{
    fputs("  fetch NAME    downloads a set where it is found from then on, goes on where it was\n"
          "                cut off, compares with the published SHA-256, and checks it\n"
          "  check NAME    reads all of a set, and tells what is in it or what is wrong\n\n"
          "Flags:\n"
          "  --into FOLDER   of fetch: where it goes (the cache)\n"
          "  --from URL      of fetch: a folder of the web in place of the public ones\n"
          "  --data FOLDER   of check: where it is sought first\n"
          "  --quiet         no progress\n\n"
          "Sets that can be fetched:\n",
          out);
    for (size_t i = 0; datasets[i] != NULL; i++)
        if (fetch_knows(datasets[i]))
            fprintf(out, "  %-14s  %s\n", datasets[i]->name, datasets[i]->about);
}

#include "sim/config.h"

#include <errno.h>
#include <sha2.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "compressors/compressor.h"
#include "models/model.h"
#include "sim/config_find.h"
#include "sim/config_flags.h"
#include "sim/config_keys.h"
#include "sim/config_layers.h"
#include "sim/config_told.h"
#include "sim/gradients.h"
#include "sim/safetensors.h"
#include "sim/tree.h"

/* All that was said. */
struct sources {
    struct config_flags flags;
    struct tree *regime; /* without its tuned table */
    struct tree *tuned;  /* the table, or NULL */
    struct tree *match;  /* what the entry that holds says, or NULL */
};

static bool put_text(char *to, size_t room, const char *text, const char *what, struct error *err)
{
    if (strlen(text) >= room)
        return fail(err, "%s: more than %zu bytes: %.64s...", what, room - 1, text);
    memcpy(to, text, strlen(text) + 1);
    return true;
}

/* The file's name without folder and .json. */
static bool put_regime_name(struct config *c, const char *path, struct error *err)
{
    const char *slash = strrchr(path, '/');
    char *name = format_text("%s", slash != NULL ? slash + 1 : path);
    size_t length = strlen(name);
    bool ok;

    if (length > 5 && strcmp(name + length - 5, ".json") == 0)
        name[length - 5] = '\0';
    ok =
        put_text(c->regime, sizeof(c->regime), name, "name of the regime", err) &&
        (is_line(name) ||
         fail(err, "%s: the name of a regime is a line of UTF-8 without control characters", path));
    free(name);
    return ok;
}

static bool no_table(const struct tree *layers, struct error *err)
{
    for (const struct tree *layer = layers->child; layer != NULL; layer = layer->next)
        if (tree_get(layer, "tuned") != NULL)
            return fail(err, "%s: only a regime has a table 'tuned'", layer->place);
    return true;
}

/* The regime that train --save has noted in a file of weights. */
static bool load_note(struct sources *s, const char *path, struct error *err)
{
    struct safetensors file;
    const char *note;
    bool ok;

    if (!safetensors_open(&file, s->flags.file, err))
        return false;
    note = safetensors_metadata(&file, CONFIG_NOTE);
    if (note != NULL)
        ok = tree_parse(&s->regime, note, strlen(note), path, err);
    else
        ok = fail(err,
                  "%.256s: does not say which regime it is of, as a file of train --save does; "
                  "--regime REGIME says so",
                  s->flags.file);
    safetensors_close(&file);
    return ok;
}

/* Whether a model stands where other commands have a regime. */
static bool names_model(const struct config_flags *flags)
{
    return flags->command == CONFIG_BYTES && strchr(flags->regime, '/') == NULL &&
           (strchr(flags->regime, ':') != NULL || model_find(flags->regime) != NULL);
}

/* NAME[:settings] */
static bool reads_images(const char *spec)
{
    char *name = format_text("%.*s", (int)strcspn(spec, ":"), spec);
    const struct model *model = model_find(name);

    free(name);
    return model != NULL && model->least > 0;
}

/* A regime that has all that one must have; what the model is not goes by defaults. */
static struct tree *regime_of_model(const char *spec)
{
    struct tree *regime = tree_new(TREE_OBJECT, spec);

    tree_put(regime, "model", tree_text(spec, spec));
    tree_put(regime, "data", tree_text(reads_images(spec) ? "synthetic" : "text", spec));
    tree_put_path(regime, "schedule.0.lr", tree_number(0, spec));
    return regime;
}

/* A regime of the method, as for one step; nobody asks which model it was. */
static bool regime_of_method(struct sources *s, const char *spec, struct error *err)
{
    struct gradients g;

    if (!gradients_open(&g, s->flags.input, s->flags.inputs, err))
        return false;
    s->regime = regime_of_model("lstm");
    tree_put(s->regime, "compressor", tree_text(spec, spec));
    tree_put(s->regime, "workers", tree_number(g.workers, s->flags.input[0]));
    tree_put_path(s->regime, "schedule.0.lr", tree_number(1, spec));
    tree_put_path(s->regime, "schedule.0.momentum", tree_number(0.9, spec));
    gradients_close(&g);
    return true;
}

static bool read_regime(struct sources *s, const char *path, struct error *err)
{
    if (s->flags.command == CONFIG_COMPRESS)
        return regime_of_method(s, path, err);
    if (s->flags.regime == NULL)
        return load_note(s, path, err);
    if (!names_model(&s->flags))
        return tree_load(&s->regime, path, err);
    s->regime = regime_of_model(path);
    return true;
}

static bool load_regime(struct sources *s, const char *path, struct error *err)
{
    const struct tree *tuned;

    if (!read_regime(s, path, err))
        return false;
    if (s->regime->kind != TREE_OBJECT)
        return fail(err, "%s: not an object", path);
    tuned = tree_get(s->regime, "tuned");
    if (tuned != NULL)
        s->tuned = tree_copy(tuned);
    tree_remove(s->regime, "tuned");
    if (s->flags.command == CONFIG_EVAL)
        tree_remove(s->regime, "init"); /* what training began with */
    return no_table(s->flags.files, err) && no_table(s->flags.said, err) &&
           config_layer_prepare(s->regime, err);
}

/* Whether the layer says no more than what the default name of a run tells. */
static bool is_in_name(const struct tree *layer)
{
    static const char *const told[] = {"compressor", "ratio", "workers", "seed"};

    for (const struct tree *c = layer->child; c != NULL; c = c->next) {
        size_t i = 0;

        while (i < ARRAY_LENGTH(told) && strcmp(told[i], c->name) != 0)
            i++;
        if (i == ARRAY_LENGTH(told))
            return false;
    }
    return true;
}

enum which { ALL_LAYERS, LAYERS_IN_NAME };

static void lay_all(struct tree *whole, const struct tree *layers, enum which which)
{
    for (const struct tree *layer = layers->child; layer != NULL; layer = layer->next)
        if (which == ALL_LAYERS || is_in_name(layer))
            config_layer_apply(whole, layer);
}

static struct tree *lay(const struct sources *s, bool tuned, enum which which)
{
    struct tree *whole = config_layers_begin(s->regime->place);

    config_layer_apply(whole, s->regime);
    if (tuned && s->match != NULL)
        config_layer_apply(whole, s->match);
    lay_all(whole, s->flags.files, which);
    lay_all(whole, s->flags.said, which);
    return whole;
}

static bool read_whole(struct config *c, const struct tree *whole, struct error *err)
{
    config_keys_defaults(c);
    return config_keys_read(c, whole, err) && config_keys_check(c, whole, err);
}

/* The table goes by compressor and ratio as they are chosen in the end. */
static bool find_tuned(struct sources *s, char *key, size_t room, struct error *err)
{
    struct config *method = allocate(1, sizeof(*method));
    struct tree *base = config_layers_begin(s->regime->place);
    struct tree *whole = lay(s, false, ALL_LAYERS);
    const struct tree *entry = NULL;
    bool ok;

    config_layer_apply(base, s->regime);
    config_keys_defaults(method);
    ok = config_tuned_check(s->tuned, base, err) && config_keys_read_method(method, whole, err) &&
         config_tuned_find(s->tuned, method, &entry, &s->match, err);
    if (ok && entry != NULL && !s->flags.no_tuned)
        ok = put_text(key, room, entry->name, "tuned", err);
    free(method);
    tree_free(base);
    tree_free(whole);
    return ok;
}

static void add_pair(struct config *c, const char *key, char *value)
{
    c->pair = realloc(c->pair, (c->pairs + 1) * sizeof(*c->pair));
    CHECK(c->pair != NULL);
    c->pair[c->pairs].key = format_text("%s", key);
    c->pair[c->pairs].value = value;
    c->pairs++;
}

static void add_pairs(struct config *c, const struct tree *t, const char *path)
{
    if (t->kind != TREE_OBJECT) {
        add_pair(c, path, t->kind == TREE_TEXT ? format_text("%s", t->text) : tree_print(t));
        return;
    }
    for (const struct tree *m = t->child; m != NULL; m = m->next) {
        char *inner = format_text("%s%s%s", path, *path != '\0' ? "." : "", m->name);

        add_pairs(c, m, inner);
        free(inner);
    }
}

static void hash(char key[65], const char *text)
{
    CHECK(SHA256Data((const uint8_t *)text, strlen(text), key) != NULL);
}

static char *effective_text(const struct config *c)
{
    struct tree *t = config_keys_write(c);
    char *text = tree_print(t);

    tree_free(t);
    return text;
}

static void put_effective(struct config *c)
{
    struct tree *t = config_keys_write(c);
    char *without_seed;

    c->effective = tree_print(t);
    hash(c->key, c->effective);
    add_pairs(c, t, "");
    tree_remove(t, "seed");
    without_seed = tree_print(t);
    hash(c->experiment_key, without_seed);
    free(without_seed);
    tree_free(t);
}

/* key=value,... of the settings that are not as they begin, the ratio left out. */
static char *other_settings(const struct choice *choice, const struct setting *settings)
{
    char *text = format_text("%s", "");

    for (size_t i = 0; settings != NULL && settings[i].name != NULL; i++) {
        char number[32];
        char *longer;

        if (strcmp(settings[i].name, "ratio") == 0 || choice->value[i] == settings[i].initial)
            continue;
        tree_print_number(number, choice->value[i]);
        longer = format_text("%s%s%s=%s", text, *text != '\0' ? "," : "", settings[i].name, number);
        free(text);
        text = longer;
    }
    return text;
}

/* spec: topk:ratio=0.01,key=value; label, for names: topk-0.01:key=value. */
static void compressor_texts(const struct config *c, char **spec, char **label)
{
    const struct setting *settings = compressor_find(c->compressor.name)->settings;
    const char *name = c->compressor.name;
    char *others = other_settings(&c->compressor, settings);
    bool any = *others != '\0';
    char ratio[32];

    tree_print_number(ratio, c->ratio[c->ratios - 1].ratio);
    if (settings != NULL && setting_find(settings, "ratio") >= 0) {
        *spec = format_text("%s:ratio=%s%s%s", name, ratio, any ? "," : "", others);
        *label = format_text("%s-%s%s%s", name, ratio, any ? ":" : "", others);
    } else {
        *spec = format_text("%s%s%s", name, any ? ":" : "", others);
        *label = format_text("%s", *spec);
    }
    free(others);
}

static void append(char **text, const char *plus, const char *more)
{
    char *longer = format_text("%s%s%s", *text, plus, more);

    free(*text);
    *text = longer;
}

/* The same with the quantiser; one that stands alone is not told to be of all entries. */
static void method_texts(const struct config *c, char **spec, char **label)
{
    const struct quantiser *quantiser = quantiser_find(c->quantiser.name);
    char *others, *second;
    bool alone;

    compressor_texts(c, spec, label);
    if (quantiser == NULL)
        return;
    others = other_settings(&c->quantiser, quantiser->settings);
    second = format_text("%s%s%s", quantiser->name, *others != '\0' ? ":" : "", others);
    alone = strcmp(*spec, "none") == 0;
    if (alone)
        **spec = **label = '\0';
    append(spec, alone ? "" : "+", second);
    append(label, alone ? "" : "+", second);
    free(others);
    free(second);
}

/* Without settings: topk+terngrad. */
static void put_compressor(struct config *c)
{
    const char *first = c->compressor.name, *second = c->quantiser.name;
    bool both = *second != '\0' && strcmp(first, "none") != 0;

    snprintf(c->compressor_name, sizeof(c->compressor_name), "%s%s%s",
             *second != '\0' && !both ? "" : first, both ? "+" : "", second);
}

/* Whether c is what its default name tells: the regime with its tuned match, and nothing changed
 * but compressor, ratio, workers and seed. */
static bool is_plain(const struct config *c, const struct sources *s)
{
    struct config *plain = allocate(1, sizeof(*plain));
    struct tree *whole = lay(s, true, LAYERS_IN_NAME);
    struct error unused;
    bool same = false;

    if (read_whole(plain, whole, &unused)) {
        char *text = effective_text(plain);

        same = strcmp(text, c->effective) == 0;
        free(text);
    }
    tree_free(whole);
    free(plain);
    return same;
}

static bool put_names(struct config *c, const struct sources *s, struct error *err)
{
    char *spec, *label, *name;
    bool plain, ok;

    put_compressor(c);
    method_texts(c, &spec, &label);
    plain = is_plain(c, s);
    name = format_text("%s/%s/k%u/s%llu%s%.*s", c->regime, label, c->workers,
                       (unsigned long long)c->seed, plain ? "" : "/x", plain ? 0 : 6, c->key);
    ok = put_text(c->method, sizeof(c->method), spec, "method", err) &&
         (c->name[0] != '\0' ||
          put_text(c->name, sizeof(c->name), name, "the run's name (use --name)", err));
    free(spec);
    free(label);
    free(name);
    return ok;
}

const char *config_default_db(void)
{
    const char *db = getenv("GRADPRESS_DB");

    return db != NULL && *db != '\0' ? db : "./gradpress.db";
}

static bool put_db(struct config *c, struct error *err)
{
    return c->db[0] != '\0' ||
           put_text(c->db, sizeof(c->db), config_default_db(), "GRADPRESS_DB", err);
}

/* Weights count by what is in their file: another file is another run. */
static bool put_init(struct config *c, const struct tree *regime, struct error *err)
{
    char sha256[sizeof(c->init_sha256)];

    if (c->init[0] == '\0') {
        return c->init_sha256[0] == '\0' ||
               fail(err,
                    "%s: init: begins with weights of SHA-256 %.12s...; --init FILE gives them",
                    regime->place, c->init_sha256);
    }
    if (!safetensors_hash_file(c->init, sha256, err))
        return false;
    if (c->init_sha256[0] != '\0' && strcmp(c->init_sha256, sha256) != 0)
        return fail(err, "%s: its SHA-256 is %.12s..., but the regime begins with %.12s...",
                    c->init, sha256, c->init_sha256);
    memcpy(c->init_sha256, sha256, sizeof(sha256));
    return true;
}

static bool build(struct config *c, struct sources *s, const char *path, struct error *err)
{
    char tuned[sizeof(c->tuned)] = "";
    struct tree *whole;
    bool ok;

    if (!load_regime(s, path, err) || !find_tuned(s, tuned, sizeof(tuned), err))
        return false;
    whole = lay(s, !s->flags.no_tuned, ALL_LAYERS);
    ok = read_whole(c, whole, err);
    if (ok)
        config_told_fill(c, whole, path);
    tree_free(whole);
    if (!ok || !config_keys_read_run(c, s->flags.run, err) || !put_db(c, err) ||
        !put_init(c, s->regime, err))
        return false;
    memcpy(c->tuned, tuned, sizeof(tuned));
    put_effective(c);
    return s->flags.command == CONFIG_EVAL ||
           (put_regime_name(c, path, err) && put_names(c, s, err));
}

/* Of a run there are numbers, unless it was told to write its weights. */
static bool find_weights(const char *file, struct error *err)
{
    return access(file, F_OK) == 0 || (errno != ENOENT && errno != ENOTDIR) ||
           fail(err,
                "%.256s: there is no such file; eval needs a weights file: train --save FILE "
                "writes one",
                file);
}

/* *path: a new string, or NULL after a fault. */
static bool find_regime(const struct config_flags *flags, char **path, struct error *err)
{
    *path = NULL;
    if (flags->command == CONFIG_EVAL && !find_weights(flags->file, err))
        return false;
    if (flags->regime != NULL && flags->command != CONFIG_COMPRESS && !names_model(flags))
        return config_find(path, flags->regime, err);
    *path = flags->regime != NULL ? format_text("%s", flags->regime)
                                  : format_text("%s: " CONFIG_NOTE, flags->file);
    return true;
}

static void put_inputs(struct config *c, const struct config_flags *flags)
{
    c->input = allocate(flags->inputs, sizeof(*c->input));
    while (c->inputs < flags->inputs) {
        c->input[c->inputs] = format_text("%s", flags->input[c->inputs]);
        c->inputs++;
    }
}

static bool parse(struct config *c, enum config_command command, int argc, char **argv,
                  bool *misuse, struct error *err)
{
    struct sources s = {0};
    char *path;
    bool ok;

    memset(c, 0, sizeof(*c));
    if (!config_flags_parse(&s.flags, command, argc, argv, misuse, err))
        return false;
    if (command == CONFIG_EVAL)
        tree_put(s.flags.run, "init", tree_text(s.flags.file, s.flags.file));
    ok = find_regime(&s.flags, &path, err) && build(c, &s, path, err);
    c->noted = s.flags.regime == NULL;
    if (ok)
        put_inputs(c, &s.flags);
    else
        config_free(c);
    free(path);
    config_flags_free(&s.flags);
    tree_free(s.regime);
    tree_free(s.tuned);
    tree_free(s.match);
    return ok;
}

void config_free(struct config *c)
{
    if (c == NULL)
        return;
    for (size_t i = 0; i < c->pairs; i++) {
        free(c->pair[i].key);
        free(c->pair[i].value);
    }
    free(c->pair);
    for (size_t i = 0; i < c->inputs; i++)
        free(c->input[i]);
    free(c->input);
    config_told_free(c);
    free(c->effective);
    memset(c, 0, sizeof(*c));
}

bool config_parse(struct config *c, int argc, char **argv, bool *misuse, struct error *err)
{
    return parse(c, CONFIG_TRAIN, argc, argv, misuse, err);
}

bool config_parse_bytes(struct config *c, int argc, char **argv, bool *misuse, struct error *err)
{
    return parse(c, CONFIG_BYTES, argc, argv, misuse, err);
}

bool config_parse_compress(struct config *c, int argc, char **argv, bool *misuse, struct error *err)
{
    bool ok = parse(c, CONFIG_COMPRESS, argc, argv, misuse, err);

    c->verify_wire = true; /* whoever tries a method wants to know */
    return ok;
}

bool config_parse_eval(struct config *c, int argc, char **argv, bool *misuse, struct error *err)
{
    return parse(c, CONFIG_EVAL, argc, argv, misuse, err);
}

bool config_each_regime(void (*show)(const char *name, const char *about, void *context),
                        void *context, struct error *err)
{
    struct config_names names;
    bool ok = true;

    config_names_list(&names);
    for (size_t i = 0; ok && i < names.count; i++) {
        struct tree *regime;

        ok = tree_load(&regime, names.path[i], err);
        if (ok) {
            const struct tree *about = tree_get(regime, "about");

            show(names.name[i], about != NULL && about->kind == TREE_TEXT ? about->text : "",
                 context);
            tree_free(regime);
        }
    }
    config_names_free(&names);
    return ok;
}

const struct phase *config_phase(const struct config *c, uint32_t epoch)
{
    uint32_t i = c->phases - 1;

    while (i > 0 && c->phase[i].epoch > epoch)
        i--;
    return &c->phase[i];
}

double config_ratio(const struct config *c, uint32_t epoch, uint64_t step_in_run)
{
    uint64_t warm = c->warmup.steps > 0    ? step_in_run / c->warmup.steps
                    : c->warmup.epochs > 0 ? epoch / c->warmup.epochs
                                           : 0;
    uint32_t i = c->ratios - 1;

    if (c->dense_every > 0 && step_in_run % c->dense_every == 0)
        return 1;
    if (warm < c->warmup.ratios)
        return c->warmup.ratio[warm];
    while (i > 0 && c->ratio[i].epoch > epoch)
        i--;
    return c->ratio[i].ratio;
}

double config_ratio_most(const struct config *c)
{
    double most = c->dense_every > 0 ? 1 : 0;

    for (uint32_t i = 0; i < c->warmup.ratios; i++)
        if (c->warmup.ratio[i] > most)
            most = c->warmup.ratio[i];
    for (uint32_t i = 0; i < c->ratios && c->ratio[i].epoch < c->epochs; i++)
        if (c->ratio[i].ratio > most)
            most = c->ratio[i].ratio;
    return most;
}

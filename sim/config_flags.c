#include "sim/config_flags.h"

#include <stdlib.h>
#include <string.h>

#include "sim/config.h"
#include "sim/config_layers.h"
#include "sim/tree.h"

enum group { OF_EVALUATION, OF_GRADIENTS, OF_REGIME, OF_METHOD, OF_RUN, OF_OUTPUT, GROUPS };

static const char *const group_titles[GROUPS] = {"Evaluation", "Results", "Regime",
                                                 "Method",     "Run",     "Output"};

enum takes {
    A_NUMBER,
    A_TEXT,
    NUMBERS, /* with commas, or none */
    A_NORM,  /* a number, or none */
    NOTHING, /* and has a --no- twin */
    A_SETTING,
    A_FILE,
    STEPS_AND_FOLDER,
    TUNED,
    A_REGIME,
};

struct flag {
    const char *name;
    enum group group;
    enum takes takes;
    const char *path; /* of the key, in a regime or (run, output) of the run */
    const char *argument;
    const char *help;
};

/* In the order of the help. */
static const struct flag flags_table[] = {
    {"split", OF_EVALUATION, A_TEXT, "split", "PART", "test (default), valid or train"},
    {"regime", OF_EVALUATION, A_REGIME, NULL, "REGIME", "in place of what the file says it is of"},

    {"out", OF_GRADIENTS, A_TEXT, "save", "FILE",
     "write what was wanted, sent, delivered and kept (also -o FILE)"},
    {"message", OF_GRADIENTS, A_TEXT, "dump", "DIR",
     "write the messages: DIR/step-NNNN.worker-k.message"},

    {"workers", OF_REGIME, A_NUMBER, "workers", "N", "workers that train together (also -K N)"},
    {"nodes", OF_REGIME, A_NUMBER, "nodes", "N",
     "that exchange messages; workers of a node add up dense gradients; 0: each is one"},
    {"batch", OF_REGIME, A_NUMBER, "batch", "N", "columns or samples of one worker a step"},
    {"total-batch", OF_REGIME, A_NUMBER, "total_batch", "N", "the same of all workers together"},
    {"epochs", OF_REGIME, A_NUMBER, "epochs", "N", "how often to go through the data"},
    {"seed", OF_REGIME, A_NUMBER, "seed", "N", "of weights and of every random draw"},
    {"optimizer", OF_REGIME, A_TEXT, "schedule.0.optimizer", "SPEC", "NAME[:key=value,...]"},
    {"lr", OF_REGIME, A_NUMBER, "schedule.0.lr", "X", "learning rate from epoch 0 on"},
    {"lr-rule", OF_REGIME, A_TEXT, "lr_rule", "SPEC", "constant, linear, cosine, anneal or decay"},
    {"lr-warmup", OF_REGIME, A_NUMBER, "lr_warmup.epochs", "N", "epochs in which the rate rises"},
    {"lr-scale", OF_REGIME, A_TEXT, "lr_scale", "SPEC",
     "linear or sqrt of the total batch over 128, or :batch=N"},
    {"epoch-scale", OF_REGIME, A_NUMBER, "epoch_scale", "N", "times the schedule's epochs"},
    {"momentum", OF_REGIME, A_NUMBER, "schedule.0.momentum", "X", "momentum from epoch 0 on"},
    {"nesterov", OF_REGIME, NOTHING, "schedule.0.nesterov", NULL, "Nesterov's form of momentum"},
    {"weight-decay", OF_REGIME, A_NUMBER, "schedule.0.weight_decay", "X",
     "weight decay from epoch 0 on"},
    {"weight-decay-at", OF_REGIME, A_TEXT, "weight_decay_at", "WHERE",
     "local (before compression) or aggregate (after)"},
    {"bptt", OF_REGIME, A_NUMBER, "data.bptt", "N", "steps of backpropagation through time"},
    {"hidden", OF_REGIME, A_NUMBER, "model.hidden", "N", "units of a layer"},
    {"layers", OF_REGIME, A_NUMBER, "model.layers", "N", "layers"},
    {"dropout", OF_REGIME, A_NUMBER, "model.dropout", "P", "probability of dropping a unit"},
    {"tied", OF_REGIME, NOTHING, "model.tied", NULL, "one matrix for embedding and output"},
    {"clip", OF_REGIME, A_NORM, "clip.norm", "NORM", "largest norm of a gradient, or none"},
    {"clip-mode", OF_REGIME, A_TEXT, "clip.mode", "MODE",
     "local, local-sqrt-k, global or reference"},
    {"sharding", OF_REGIME, A_TEXT, "data.sharding", "HOW",
     "columns or segments; of images global"},
    {"min-count", OF_REGIME, A_NUMBER, "data.min_count", "N", "rarer words become <unk>"},
    {"with", OF_REGIME, A_FILE, NULL, "FILE", "lay the keys of FILE over the regime"},
    {"set", OF_REGIME, A_SETTING, NULL, "PATH=VALUE", "any key, as model.hidden=32"},
    {"tuned", OF_REGIME, TUNED, NULL, NULL, "use what the regime has for this method (default)"},

    {"compressor", OF_METHOD, A_TEXT, "compressor", "SPEC", "NAME[:key=value,...]"},
    {"memory", OF_METHOD, A_TEXT, "memory", "SPEC", "what is kept of what was not sent, or auto"},
    {"ratio", OF_METHOD, A_NUMBER, "ratio", "R", "share of the entries to send, in (0, 1]"},
    {"warmup", OF_METHOD, NUMBERS, "warmup.ratios", "R,R,...",
     "ratios to begin with; exponential:N, dense:N; or none"},
    {"warmup-steps", OF_METHOD, A_NUMBER, "warmup.steps", "N", "updates that each of them lasts"},
    {"warmup-epochs", OF_METHOD, A_NUMBER, "warmup.epochs", "N", "epochs that each of them lasts"},
    {"dense-every", OF_METHOD, A_NUMBER, "dense_every", "N",
     "every N-th step sends all entries; 0: none"},
    {"compress-all", OF_METHOD, NOTHING, "compress_all", NULL, "tensors of one dimension too"},
    {"exchange", OF_METHOD, A_TEXT, "exchange", "HOW",
     "auto, as the method has it, or server, which sends the sum back"},
    {"encoding", OF_METHOD, A_TEXT, "encoding", "NAME",
     "raw, runs16, bitmap, varint, gamma, delta, rice or best"},

    {"device", OF_RUN, A_TEXT, "device", "NAME", "auto, cpu or cuda[:N]"},
    {"threads", OF_RUN, A_NUMBER, "threads", "N", "of the CPU; 0: all"},
    {"group", OF_RUN, A_NUMBER, "group", "N", "workers stacked in a batch; 0: as many as fit"},
    {"streams", OF_RUN, A_NUMBER, "streams", "N", "groups at a time; 0: the device's default"},
    {"db", OF_RUN, A_TEXT, "db", "FILE", "database ($GRADPRESS_DB, else ./gradpress.db)"},
    {"data", OF_RUN, A_TEXT, "data", "FOLDER", "where data are sought first"},
    {"name", OF_RUN, A_TEXT, "name", "NAME", "of the run, instead of REGIME/METHOD/kK/sSEED"},
    {"experiment", OF_RUN, A_TEXT, "experiment", "NAME", "what the run belongs to"},
    {"init", OF_RUN, A_TEXT, "init", "FILE", "begin with the weights of a safetensors file"},
    {"again", OF_RUN, NOTHING, "again", NULL, "repeat a run that is done"},

    {"save", OF_OUTPUT, A_TEXT, "save", "FILE", "write the final weights, as safetensors"},
    {"log-every", OF_OUTPUT, A_NUMBER, "log_every", "N",
     "keep loss and bytes of every N-th step (table steps); 0: none"},
    {"tensors", OF_OUTPUT, NOTHING, "tensors", NULL,
     "keep what each tensor sent in an epoch (table tensors)"},
    {"measure-every", OF_OUTPUT, A_NUMBER, "measure_every", "N",
     "measure errors and parts of the time in every N-th step; 0: once an epoch"},
    {"dump", OF_OUTPUT, STEPS_AND_FOLDER, "dump_steps", "STEPS DIR",
     "write what workers want, send and keep in the first STEPS steps"},
    {"json", OF_OUTPUT, NOTHING, "json", NULL, "the last line as JSON"},
    {"quiet", OF_OUTPUT, NOTHING, "quiet", NULL, "no progress"},
    {"fail-on-divergence", OF_OUTPUT, NOTHING, "fail_on_divergence", NULL,
     "exit with 3 if the loss is not finite"},
    {"verify-wire", OF_OUTPUT, NOTHING, "verify_wire", NULL,
     "serialise each message and count its bytes again"},
};

/* The flags that are a command's own, and of those of train what it takes too, NULL at the end. */
static const struct {
    enum group own;
    const char *shared[20];
} takers[] = {
    [CONFIG_EVAL] = {OF_EVALUATION, {"set", "device", "threads", "data", "json", "quiet"}},
    [CONFIG_COMPRESS] = {OF_GRADIENTS,
                         {"seed", "momentum", "nesterov", "clip", "clip-mode", "set", "memory",
                          "ratio", "warmup", "warmup-steps", "dense-every", "compress-all",
                          "exchange", "encoding", "device", "threads", "json"}},
};

static bool is_of_train(enum group group)
{
    return group != OF_EVALUATION && group != OF_GRADIENTS;
}

static bool belongs_to(const struct flag *flag, enum config_command command)
{
    const char *const *shared;

    if (command != CONFIG_EVAL && command != CONFIG_COMPRESS)
        return is_of_train(flag->group);
    if (!is_of_train(flag->group))
        return flag->group == takers[command].own;
    shared = takers[command].shared;
    while (*shared != NULL && strcmp(*shared, flag->name) != 0)
        shared++;
    return *shared != NULL;
}

/* A flag as it was typed. */
struct typed {
    const struct flag *flag;
    bool no;
    const char *value;  /* or NULL */
    const char *folder; /* of STEPS_AND_FOLDER */
    char *place;
};

static const struct flag *find_flag(enum config_command command, const char *name, size_t length)
{
    for (size_t i = 0; i < ARRAY_LENGTH(flags_table); i++)
        if (strncmp(flags_table[i].name, name, length) == 0 &&
            flags_table[i].name[length] == '\0' && belongs_to(&flags_table[i], command))
            return &flags_table[i];
    return NULL;
}

static bool has_twin(const struct flag *flag)
{
    return flag->takes == NOTHING || flag->takes == TUNED;
}

static bool unknown_flag(enum config_command command, const char *argument, struct error *err)
{
    const char *names[ARRAY_LENGTH(flags_table)];
    size_t count = 0;
    const char *name = argument + strspn(argument, "-");
    char *word = format_text("%.*s", (int)strcspn(name, "="), name);
    const char *nearest;

    for (size_t i = 0; i < ARRAY_LENGTH(flags_table); i++)
        if (belongs_to(&flags_table[i], command))
            names[count++] = flags_table[i].name;
    nearest = nearest_name(strncmp(word, "no-", 3) == 0 ? word + 3 : word, names, count);
    fail(err, "no such flag '%.*s'%s%s%s", (int)strcspn(argument, "="), argument,
         nearest != NULL ? "; did you mean '--" : "", nearest != NULL ? nearest : "",
         nearest != NULL ? "'?" : "");
    free(word);
    return false;
}

/* Flags of one letter. */
static const struct flag *short_flag(enum config_command command, const char *argument)
{
    const char *name = argument[1] == 'K' ? "workers" : argument[1] == 'o' ? "out" : NULL;

    return argument[0] == '-' && name != NULL ? find_flag(command, name, strlen(name)) : NULL;
}

/* --name, --no-name, --name=value, -K, -KN; typed->flag stays NULL if it is none of these. */
static void match_flag(struct typed *typed, enum config_command command, const char *argument)
{
    const char *name = argument + 2;
    size_t length;

    typed->flag = short_flag(command, argument);
    if (typed->flag != NULL) {
        typed->value = *name != '\0' ? name + (*name == '=') : NULL;
        return;
    }
    if (strncmp(argument, "--", 2) != 0)
        return;
    length = strcspn(name, "=");
    typed->flag = find_flag(command, name, length);
    if (typed->flag == NULL && strncmp(name, "no-", 3) == 0) {
        const struct flag *flag = find_flag(command, name + 3, length - 3);

        typed->no = flag != NULL && has_twin(flag);
        typed->flag = typed->no ? flag : NULL;
    }
    typed->value = name[length] == '=' ? name + length + 1 : NULL;
}

static bool needs_value(const struct flag *flag, struct error *err)
{
    return fail(err, "--%s needs a value: --%s %s", flag->name, flag->name, flag->argument);
}

/* Steps *i over a word behind the flag. */
static bool take_word(const char **word, const struct flag *flag, int argc, char **argv, int *i,
                      struct error *err)
{
    if (*i + 1 >= argc || strncmp(argv[*i + 1], "--", 2) == 0)
        return needs_value(flag, err);
    *word = argv[++*i];
    return true;
}

static bool take_flag(struct typed *typed, enum config_command command, int argc, char **argv,
                      int *i, struct error *err)
{
    *typed = (struct typed){0};
    match_flag(typed, command, argv[*i]);
    if (typed->flag == NULL)
        return unknown_flag(command, argv[*i], err);
    if (has_twin(typed->flag) && typed->value != NULL)
        return fail(err, "--%s%s takes no value", typed->no ? "no-" : "", typed->flag->name);
    if (has_twin(typed->flag))
        return true;
    if (typed->value == NULL && !take_word(&typed->value, typed->flag, argc, argv, i, err))
        return false;
    CHECK(typed->value != NULL);
    if (*typed->value == '\0' && (typed->flag->takes == A_FILE || typed->flag->takes == A_REGIME))
        return needs_value(typed->flag, err);
    return typed->flag->takes != STEPS_AND_FOLDER ||
           take_word(&typed->folder, typed->flag, argc, argv, i, err);
}

/* Numbers with commas between, or a word with a number of its own. */
static struct tree *typed_list(const char *text, const char *place)
{
    struct tree *list;
    char *copy, *rest;

    CHECK(text != NULL);
    if (strchr(text, ':') != NULL)
        return tree_text(text, place);
    list = tree_new(TREE_LIST, place);
    copy = rest = format_text("%s", text);
    while (rest != NULL) {
        char *comma = strchr(rest, ',');
        struct tree *value;

        if (comma != NULL)
            *comma++ = '\0';
        value = tree_typed(rest, place);
        value->exact = true;
        tree_add(list, value);
        rest = comma;
    }
    free(copy);
    return list;
}

/* The layer, or keys of the run, that a flag stands for. */
static struct tree *layer_of(const struct typed *typed)
{
    const struct flag *flag = typed->flag;
    struct tree *layer = tree_new(TREE_OBJECT, typed->place);
    bool none = typed->value != NULL && strcmp(typed->value, "none") == 0;
    struct tree *value;

    if (none && (flag->takes == NUMBERS || flag->takes == A_NORM)) {
        char *root = format_text("%.*s", (int)strcspn(flag->path, "."), flag->path);

        tree_put(layer, root, tree_new(TREE_NULL, typed->place));
        free(root);
        return layer;
    }
    if (flag->takes == STEPS_AND_FOLDER)
        tree_put(layer, "dump", tree_text(typed->folder, typed->place));
    if (flag->takes == NOTHING)
        value = tree_yes_no(!typed->no, typed->place);
    else if (flag->takes == NUMBERS)
        value = typed_list(typed->value, typed->place);
    else if (flag->takes == A_TEXT)
        value = tree_text(typed->value, typed->place);
    else
        value = tree_typed(typed->value, typed->place);
    value->exact = true;
    tree_put_path(layer, flag->path, value);
    return layer;
}

static struct tree *layer_of_setting(const struct typed *typed, bool *misuse, struct error *err)
{
    const char *equals;
    struct tree *layer, *value;
    char *path;

    CHECK(typed->value != NULL);
    equals = strchr(typed->value, '=');
    *misuse = equals == NULL || equals == typed->value;
    if (*misuse) {
        fail(err, "%s: not of the form PATH=VALUE", typed->place);
        return NULL;
    }
    path = format_text("%.*s", (int)(equals - typed->value), typed->value);
    layer = tree_new(TREE_OBJECT, typed->place);
    value = tree_typed(equals + 1, typed->place);
    value->exact = true;
    if (!config_layer_put(layer, path, value, err)) {
        tree_free(layer);
        layer = NULL;
    }
    free(path);
    return layer;
}

static bool use_flag(struct config_flags *flags, const struct typed *typed, bool *misuse,
                     struct error *err)
{
    const struct flag *flag = typed->flag;
    struct tree *layer;

    if (flag->takes == TUNED) {
        flags->no_tuned = typed->no;
        return true;
    }
    if (flag->takes == A_REGIME) {
        flags->regime = typed->value;
        return true;
    }
    if (flag->takes == A_FILE) {
        if (!tree_load(&layer, typed->value, err))
            return false;
    } else if (flag->takes == A_SETTING) {
        layer = layer_of_setting(typed, misuse, err);
    } else {
        layer = layer_of(typed);
    }
    if (layer == NULL)
        return false;
    if (!is_of_train(flag->group) || flag->group == OF_RUN || flag->group == OF_OUTPUT) {
        tree_merge(flags->run, layer);
        tree_free(layer);
        return true;
    }
    tree_add(flag->takes == A_FILE ? flags->files : flags->said, layer);
    if (layer->kind != TREE_OBJECT)
        return fail(err, "%s: not an object", layer->place);
    return config_layer_prepare(layer, err);
}

/* One flag after the other would replace what it excludes; on one line it is a slip.  inside: the
 * key of the object that has both, or NULL. */
static bool not_both(const struct config_flags *flags, const char *inside, const char *a,
                     const char *b, struct error *err)
{
    const char *first = NULL, *second = NULL;

    for (const struct tree *layer = flags->said->child; layer != NULL; layer = layer->next) {
        const struct tree *object = inside != NULL ? tree_get(layer, inside) : layer;

        if (tree_get(object, a) != NULL)
            first = layer->place;
        if (tree_get(object, b) != NULL)
            second = layer->place;
    }
    if (first == NULL || second == NULL)
        return true;
    return fail(err, "%s and %s exclude each other", first, second);
}

static char *place_of(const struct typed *typed)
{
    const char *value = typed->value;

    if (value == NULL)
        return format_text("--%s%s", typed->no ? "no-" : "", typed->flag->name);
    return format_text("--%s %.80s", typed->flag->name, *value != '\0' ? value : "''");
}

/* A word that is no flag. */
static bool take_subject(struct config_flags *flags, char *word, struct error *err)
{
    static const char *const whats[] = {[CONFIG_TRAIN] = "regime",
                                        [CONFIG_EVAL] = "file",
                                        [CONFIG_BYTES] = "model",
                                        [CONFIG_COMPRESS] = "compressor"};
    const char **subject = flags->command == CONFIG_EVAL ? &flags->file : &flags->regime;
    const char *what = whats[flags->command];

    if (word == NULL)
        return *subject != NULL || fail(err, "no %s named", what);
    if (*word == '\0')
        return fail(err, "an empty word, where a %s is expected", what);
    if (*subject == NULL) {
        *subject = word;
        return true;
    }
    if (flags->command != CONFIG_COMPRESS)
        return fail(err, "two %ss, '%.64s' and '%.64s'", what, *subject, word);
    flags->input = realloc(flags->input, (flags->inputs + 1) * sizeof(*flags->input));
    CHECK(flags->input != NULL);
    flags->input[flags->inputs++] = word;
    return true;
}

static bool parse(struct config_flags *flags, int argc, char **argv, bool *misuse,
                  struct error *err)
{
    for (int i = 0; i < argc; i++) {
        struct typed typed;
        bool ok;

        *misuse = true;
        if (argv[i][0] != '-') {
            if (!take_subject(flags, argv[i], err))
                return false;
            continue;
        }
        if (!take_flag(&typed, flags->command, argc, argv, &i, err))
            return false;
        CHECK(typed.flag != NULL);
        *misuse = false;
        typed.place = place_of(&typed);
        ok = use_flag(flags, &typed, misuse, err);
        free(typed.place);
        if (!ok)
            return false;
    }
    *misuse = true;
    if (!take_subject(flags, NULL, err))
        return false;
    if (flags->command == CONFIG_COMPRESS && flags->inputs == 0)
        return fail(err, "no file of gradients named");
    return not_both(flags, NULL, "batch", "total_batch", err) &&
           not_both(flags, "warmup", "steps", "epochs", err);
}

bool config_flags_parse(struct config_flags *flags, enum config_command command, int argc,
                        char **argv, bool *misuse, struct error *err)
{
    *flags = (struct config_flags){
        .command = command,
        .files = tree_new(TREE_LIST, NULL),
        .said = tree_new(TREE_LIST, NULL),
        .run = tree_new(TREE_OBJECT, "the command line"),
    };
    if (parse(flags, argc, argv, misuse, err)) {
        *misuse = false;
        return true;
    }
    config_flags_free(flags);
    return false;
}

void config_flags_free(struct config_flags *flags)
{
    tree_free(flags->files);
    tree_free(flags->said);
    tree_free(flags->run);
    free(flags->input);
    *flags = (struct config_flags){0};
}

static void print_flag(FILE *out, const struct flag *flag)
{
    char *usage = format_text("--%s%s%s%s", has_twin(flag) ? "[no-]" : "", flag->name,
                              flag->argument != NULL ? " " : "",
                              flag->argument != NULL ? flag->argument : "");

    fprintf(out, "  %-26s  %s\n", usage, flag->help);
    free(usage);
}

static void print_help(FILE *out, enum config_command command)
{
    const char *before = "";

    for (unsigned g = 0; g < GROUPS; g++) {
        bool begun = false;

        for (size_t i = 0; i < ARRAY_LENGTH(flags_table); i++) {
            const struct flag *flag = &flags_table[i];

            if (flag->group != g || !belongs_to(flag, command))
                continue;
            if (!begun)
                fprintf(out, "%s%s:\n", before, group_titles[g]);
            print_flag(out, flag);
            begun = true;
            before = "\n";
        }
    }
}

void config_help(FILE *out)
{
    print_help(out, CONFIG_TRAIN);
}

void config_help_eval(FILE *out)
{
    print_help(out, CONFIG_EVAL);
}

void config_help_compress(FILE *out)
{
    print_help(out, CONFIG_COMPRESS);
}

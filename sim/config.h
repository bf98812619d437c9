/*
 * config.h -- a regime, what was said on the command line, and what follows from both.
 *
 * A regime is JSON; regimes/README.md tells every key.  What counts, later over earlier: the
 * defaults, the regime, the most specific match of its "tuned" table, --with files, then flags and
 * --set in the order given.  The result is checked as a whole, so that a mistake in any of them is
 * one sentence with its place.  In the files: config_flags parses the command line, config_find finds
 * regimes, config_layers lays one over another, config_keys and config_schedule know every key,
 * config_told who said it, tree is JSON.
 */
#ifndef SIM_CONFIG_H
#define SIM_CONFIG_H

#include "data/source.h"
#include "sim/base.h"

#include <stdio.h>

struct tree;

/* An entry of a table and its settings, in the order of the entry's list. */
struct choice {
    char name[32];
    double value[SETTINGS_MOST];
};

/* What holds from an epoch on; keys that a phase leaves out stay as they were. */
struct phase {
    uint32_t epoch;
    struct choice optimizer; /* the same in all */
    double lr, momentum, weight_decay;
    bool nesterov;
};

/* constant; linear: falls to the fraction `to` over the run, step by step; cosine: the same along
 * half a cosine, from the end of the warm-up on; anneal: multiplied by `factor` for good when an epoch's validation loss is not below the best before it; decay:
 * multiplied by `factor` after each epoch from epoch `from` on. */
enum lr_rule { LR_CONSTANT, LR_LINEAR, LR_COSINE, LR_ANNEAL, LR_DECAY };

/* Where the gradient's norm is held to clip.norm.  local: each worker's own; local-sqrt-k: each
 * worker's, to norm K^-1/2 (DGC); global: that of what the exchange gave, over K; reference: each worker's divided by K,
 * as the first reference has it. */
enum clip_mode { CLIP_NONE, CLIP_LOCAL, CLIP_LOCAL_SQRT_K, CLIP_GLOBAL, CLIP_REFERENCE };

enum decay_at { DECAY_AGGREGATE, DECAY_LOCAL };

/* How messages get to everybody: as the method has it (compressor.h), or over a parameter server. */
enum exchange_over { EXCHANGE_AUTO, EXCHANGE_SERVER };

/* Of indices, by the numbers that messages name them with: sim/WIRE.md. */
enum encoding {
    ENCODING_RAW,
    ENCODING_RUNS16,
    ENCODING_BITMAP,
    ENCODING_VARINT,
    ENCODING_GAMMA,
    ENCODING_DELTA,
    ENCODING_RICE,
    ENCODING_BEST,
    ENCODINGS
};
extern const char *const encoding_names[]; /* ends with NULL */

/* What said a key: see config_told.h. */
enum config_source { SOURCE_DEFAULT, SOURCE_REGIME, SOURCE_TUNED, SOURCE_WITH, SOURCE_FLAG };

#define PHASES_MOST 64
#define RATIOS_MOST 64

struct config {
    /* the regime */
    char regime[256]; /* its name: the file's, without folder and .json */
    char about[256];
    struct choice model;
    struct {
        char name[32];
        double value[SETTINGS_MOST]; /* of its own settings, in the order of their list */
        char path[1024];             /* "" unless given */
        uint32_t bptt, min_count;
        enum sharding sharding;
        uint32_t holdout;
        struct augment augment;
    } data;
    struct {
        uint32_t batch, bptt;
    } evaluate;
    uint32_t workers;
    uint32_t nodes;       /* that exchange messages: groups of workers, else each worker is one */
    uint32_t batch;       /* of one worker */
    uint32_t total_batch; /* of all */
    uint32_t epochs;
    uint64_t seed;
    struct phase phase[PHASES_MOST];
    uint32_t phases; /* at least one, the first at epoch 0 */
    struct {
        enum lr_rule rule;
        double to, factor;
        uint32_t from;
    } lr_rule;
    struct {
        double epochs; /* 0: none */
        double from;   /* the fraction that it begins with; 0: 1/K */
    } lr_warmup;
    struct choice lr_scale; /* of the schedule's rates, for a batch; name "": none */
    uint32_t epoch_scale;   /* of the schedule's epochs; both hold in what was read, and are gone */
    struct {
        enum clip_mode mode;
        double norm;
    } clip;
    struct choice compressor; /* its own "ratio" has moved into ratio[] and is 0 */
    struct choice quantiser;  /* of the values that it chose; name "": none */
    struct choice memory;
    struct {
        uint32_t epoch;
        double ratio;
    } ratio[RATIOS_MOST]; /* from that epoch on */
    uint32_t ratios;      /* at least one, the first at epoch 0 */
    struct {
        double ratio[RATIOS_MOST];
        uint32_t ratios;  /* 0: no warm-up */
        bool exponential; /* they follow from the ratio after them */
        uint32_t steps;   /* each ratio lasts so many updates, or ... */
        uint32_t epochs;  /* ... so many epochs; one of them is 0 */
    } warmup;
    uint32_t dense_every; /* steps of the run that this divides send all entries; 0: none */
    enum decay_at weight_decay_at; /* unless said: local without compression, else aggregate */
    uint32_t keep;                 /* of norms' statistics: see worker.c */
    bool compress_all;             /* tensors of one dimension too */
    enum exchange_over exchange;
    enum encoding encoding;
    char init_sha256[65]; /* of the file of initial weights; "": drawn from the seed */

    /* the run: none of this is in the key */
    char device[32];
    uint32_t threads; /* 0: all */
    uint32_t group;   /* workers stacked in a batch; 0: as many as fit */
    uint32_t streams; /* 0: the device's default */
    char db[1024];
    char data_root[1024]; /* --data; "" unless given */
    char name[256];       /* of the run */
    char init[1024];      /* the file of initial weights, or ""; its content is in the key */
    enum text_part split; /* of eval: what is evaluated */
    bool noted;           /* of eval: the regime is what the file of weights says it is of */
    uint32_t measure;     /* steps, of which one is measured, besides one an epoch; 0: no more */
    uint32_t dump_steps;  /* 0: none */
    char dump[1024];      /* the folder where they go */
    char save[1024];      /* where the final weights go, or what compress found; or "" */
    uint32_t log_every;   /* steps, of which one is kept; 0: none is */
    char experiment[128];
    bool again, json, fail_on_divergence, verify_wire, quiet;
    bool tensors; /* a row for each tensor and epoch */

    /* what follows */
    uint32_t node_batch;      /* of the workers of a node together */
    char compressor_name[72]; /* with the quantiser's */
    char method[256];         /* the same with the settings that differ from their defaults */
    char tuned[128];          /* which entry of the tuned table holds, "" if none */
    char *effective; /* the whole regime as JSON, keys in order, without spaces: what is hashed */
    char key[65];    /* of effective, SHA-256 */
    char experiment_key[65]; /* the same without the seed */
    struct config_pair {
        char *key, *value;
    } * pair; /* effective, flat: model.hidden, schedule.0.lr, ... */
    size_t pairs;
    struct config_told { /* the same in the order of regimes/README.md */
        char *key;
        struct tree *value;
        enum config_source source;
        char *place; /* the file, the entry of the tuned table, or the flag as it was typed */
    } * told;
    size_t tolds;
    char **input; /* of compress: the files of gradients */
    size_t inputs;
};

/* Reads `REGIME [flags]`.  A regime is a file, or a name in a folder of regimes.  Returns false
 * with *misuse set if it is the command line that is wrong (exit code 2), clear if it is what a
 * file or a value says (1). */
bool config_parse(struct config *c, int argc, char **argv, bool *misuse, struct error *err);
void config_free(struct config *c);

/* The same for eval, which reads `FILE [flags]`: weights, which become c->init.  Their regime is the
 * one that --regime names, else the one in the file's note CONFIG_NOTE. */
bool config_parse_eval(struct config *c, int argc, char **argv, bool *misuse, struct error *err);

#define CONFIG_NOTE "config"

/* The same for bytes, which reads `MODEL [flags]`: a model's NAME[:setting=value,...], which is then a
 * regime of that model and defaults, or a regime. */
bool config_parse_bytes(struct config *c, int argc, char **argv, bool *misuse, struct error *err);

/* The same for compress, which reads `SPEC FILE... [flags]`: a compressor and files of gradients, of as
 * many workers as c has then. */
bool config_parse_compress(struct config *c, int argc, char **argv, bool *misuse,
                           struct error *err);

/* The flags of a command in groups, from the table that parses them. */
void config_help(FILE *out);
void config_help_eval(FILE *out);
void config_help_compress(FILE *out);

/* Calls show for every regime that a name finds, in order of names. */
bool config_each_regime(void (*show)(const char *name, const char *about, void *context),
                        void *context, struct error *err);

/* $GRADPRESS_DB, else ./gradpress.db. */
const char *config_default_db(void);

/* What holds in an epoch. */
const struct phase *config_phase(const struct config *c, uint32_t epoch);
double config_ratio(const struct config *c, uint32_t epoch, uint64_t step_in_run);
double config_ratio_most(const struct config *c);

#endif

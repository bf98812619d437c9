#include "sim/eval.h"

#include "sim/progress.h"
#include "sim/run.h"
#include "sim/safetensors.h"
#include "sim/train.h"
#include "sim/tree.h"
#include "sim/weights.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static bool check_data(const struct config *c, const char *trained_on, const char *found,
                       struct progress *p, struct error *err)
{
    if (trained_on == NULL || strcmp(trained_on, found) == 0)
        return true;
    if (c->noted)
        return fail(err,
                    "%.256s: of a run over other data of the name '%s': their SHA-256 was %.12s, "
                    "that of these is %.12s; --regime REGIME evaluates all the same",
                    c->init, c->data.name, trained_on, found);
    progress_say(p, "%s: of a run over other data than these", c->init);
    return true;
}

/* Says what is about to be evaluated, by what the file tells. */
static bool check_notes(const struct train *t, struct progress *p, struct error *err)
{
    const struct config *c = t->config;
    struct safetensors file;
    const char *name, *epoch;
    bool ok;

    if (!safetensors_open(&file, c->init, err))
        return false;
    ok = check_data(c, safetensors_metadata(&file, RUN_NOTE_DATA),
                    t->data.set->kind->contents(&t->data).sha256, p, err);
    name = safetensors_metadata(&file, RUN_NOTE_NAME);
    epoch = safetensors_metadata(&file, RUN_NOTE_EPOCH);
    if (ok && name != NULL && epoch != NULL && is_line(name) && is_line(epoch))
        progress_say(p, "%s: %s after epoch %s", c->init, name, epoch);
    safetensors_close(&file);
    return ok;
}

static bool load(struct train *t, struct error *err)
{
    const struct config *c = t->config;
    float *params = allocate(graph_floats(&t->parameters), sizeof(*params));
    bool ok = weights_load(&t->parameters, c->init, c->init_sha256, params, err);

    if (ok) {
        train_prepare_evaluation(t, c->split);
        device_upload(&t->dev, t->workers.params, params, workers_params_bytes(&t->workers));
    }
    free(params);
    return ok;
}

/* JSON has no infinity: null. */
static struct tree *metric(double value)
{
    return isfinite(value) ? tree_number(value, NULL) : tree_new(TREE_NULL, NULL);
}

static void print_json(FILE *out, const struct config *c, bool images, const struct score *score)
{
    struct tree *object = tree_new(TREE_OBJECT, NULL);
    char *text;

    tree_put(object, "file", tree_text(c->init, NULL));
    tree_put(object, "split", tree_text(text_part_names[c->split], NULL));
    tree_put(object, "loss", metric(score->loss));
    if (images) {
        tree_put(object, "top1", metric(score->top1));
        tree_put(object, "top5", metric(score->top5));
    } else {
        tree_put(object, "perplexity", metric(exp(score->loss)));
    }
    tree_put(object, "scored", tree_number((double)score->scored, NULL));
    text = tree_print(object);
    fprintf(out, "%s\n", text);
    free(text);
    tree_free(object);
}

static void print_metric(FILE *out, const char *name, double value, int decimals)
{
    if (isfinite(value))
        fprintf(out, " %s %.*f", name, decimals, value);
    else
        fprintf(out, " %s Infinity", name);
}

static void print_line(FILE *out, const struct config *c, bool images, const struct score *score)
{
    fprintf(out, "%s %s", c->init, text_part_names[c->split]);
    print_metric(out, "loss", score->loss, 6);
    if (images) {
        print_metric(out, "top1", score->top1, 4);
        print_metric(out, "top5", score->top5, 4);
    } else {
        print_metric(out, "perplexity", exp(score->loss), 2);
    }
    fprintf(out, " scored %llu\n", (unsigned long long)score->scored);
}

static bool evaluate(struct train *t, FILE *out, struct error *err)
{
    const struct config *c = t->config;
    struct progress progress;
    char device[256];
    struct score score;
    bool images;

    progress_begin(&progress, c->quiet, 0);
    if (!run_load_data(t, err) || !check_notes(t, &progress, err) ||
        !device_open(&t->dev, c->device, c->threads, err) ||
        !train_plan_evaluation(t, c->split, err) || !load(t, err))
        return false;
    device_describe(&t->dev, device, sizeof(device));
    progress_say(&progress, "the %s part of %s  on %s", text_part_names[c->split], c->data.name,
                 device);
    score = train_evaluate(t, c->split, t->workers.params);
    images = t->data.set->kind->images;
    if (c->json)
        print_json(out, c, images, &score);
    else
        print_line(out, c, images, &score);
    return true;
}

bool eval(const struct config *c, FILE *out, struct error *err)
{
    struct train *t = allocate(1, sizeof(*t));
    bool ok;

    t->config = c;
    ok = evaluate(t, out, err);
    train_destroy(t);
    free(t);
    return ok;
}

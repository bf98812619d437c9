/*
 * fuzz_compress.c -- a file of gradients: read as steps of workers, put through a method, and what came
 * out once more.
 *
 * The first byte picks the method; the rest is the file.
 */
#include "tests/fuzz/fuzz.h"

#include "sim/compress.h"
#include "sim/gradients.h"

#include <stdlib.h>

static char specs[][20] = {
    "topk:ratio=0.3",   "dgc:ratio=0.3", "powersgd:rank=2", "variance",        "clt-k:ratio=0.3",
    "gtopk:ratio=0.3",  "adacomp:bin=3", "topk+terngrad",   "signum",          "threshold",
    "variance:micro=1", "efsignsgd",     "qsgd:shared=1",   "slice:ratio=0.3", "randomk:ratio=0.3",
};

static void read_all(const struct gradients *g)
{
    struct error err = {""};
    float samples;

    CHECK(g->workers > 0 && g->tensors > 0 && g->steps > 0);
    for (uint32_t i = 0; i < g->steps; i++) {
        CHECK(i == 0 || g->step[i].number > g->step[i - 1].number);
        for (uint32_t t = 0; t < g->tensors; t++) {
            float *x = allocate(g->workers * g->tensor[t].n, sizeof(*x));

            CHECK(gradients_read(g, i, t, x, &err) || err.text[0] != '\0');
            CHECK(gradients_read_squares(g, i, t, x, &err) || err.text[0] != '\0');
            free(x);
        }
        for (uint32_t k = 0; k < g->workers; k++)
            CHECK(gradients_read_samples(g, i, k, &samples, &err) || err.text[0] != '\0');
    }
}

/* Whether it was in order. */
static bool put_through(char *spec, char *in, const char *out)
{
    char *flag = format_text("--out=%s", out);
    char *argv[] = {spec, in, flag};
    struct config *c = allocate(1, sizeof(*c));
    FILE *told = fopen("/dev/null", "w");
    struct error err = {""};
    bool misuse;
    bool ok = config_parse_compress(c, ARRAY_LENGTH(argv), argv, &misuse, &err);

    if (ok) {
        c->threads = 1;
        c->encoding = ENCODING_BEST;
        c->compress_all = true;
        ok = compress(c, told, &err);
    }
    CHECK(ok || err.text[0] != '\0');
    config_free(c);
    free(c);
    free(flag);
    fclose(told);
    return ok;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t method = size > 0 ? data[0] % ARRAY_LENGTH(specs) : 0;
    char *path = fuzz_file("gradients", (struct part){data + (size > 0), size - (size > 0)});
    char *out = format_text("%s/out", fuzz_folder());
    char *again = format_text("%s/again", fuzz_folder());
    struct gradients g;
    struct error err = {""};

    if (gradients_open(&g, &path, 1, &err)) {
        read_all(&g);
        gradients_close(&g);
        if (put_through(specs[method], path, out))
            CHECK(put_through(specs[method], out, again));
    } else {
        CHECK(err.text[0] != '\0');
        CHECK(!put_through(specs[method], path, out));
    }
    free(path);
    free(out);
    free(again);
    return 0;
}

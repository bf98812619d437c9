/*
 * test_safetensors -- weights in and out, and steps that were dumped, recomputed by plain loops.
 */
#include "tests/harness.h"

#include "sim/dump.h"
#include "sim/run.h"
#include "sim/safetensors.h"
#include "sim/weights.h"

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static char folder[] = "/tmp/gradpress-test-XXXXXX";
static char path[64]; /* of the file that most tests write */
static struct error err;

static void put_file(const char *header, size_t length, size_t data)
{
    FILE *file = fopen(path, "wb");

    assert_non_null(file);
    for (unsigned i = 0; i < 8; i++)
        putc((int)((uint64_t)length >> 8 * i & 255), file);
    fputs(header, file);
    for (size_t i = 0; i < data; i++)
        putc((int)(i & 127), file);
    fclose(file);
}

static void refuse(const char *expected)
{
    struct safetensors s;

    err = (struct error){"nothing"};
    assert_false(safetensors_open(&s, path, &err));
    if (strstr(err.text, expected) == NULL || strncmp(err.text, path, strlen(path)) != 0)
        fail_msg("'%s' does not say '%s'", err.text, expected);
    safetensors_close(&s);
}

/* A header in the file's one form, with so many bytes of data behind it. */
static void refuse_header(const char *header, size_t data, const char *expected)
{
    put_file(header, strlen(header), data);
    refuse(expected);
}

static void written_tensors_are_read_back(void **state)
{
    float a[6] = {1, -2, 3.5f, 0, -0.0f, 1e-42f};
    float scalar = 7;
    const size_t most = (size_t)1 << 53;
    struct safetensors_tensor tensor[] = {
        {.name = "a\"b", .dims = 2, .dim = {3, 2}, .value = a},
        {.name = "none", .dims = 2, .dim = {3, 0}, .value = a},
        {.name = "scalar", .value = &scalar},
        {.name = "long", .dims = 8, .dim = {0, most, most, most, most, most, most, most}},
    };
    struct safetensors_note note[] = {{"key", "x \\ y"}, {"epoch", "3"}};
    struct safetensors s;
    float back[6];

    assert_true(safetensors_write(path, tensor, 4, note, 2, &err));
    assert_true(safetensors_open(&s, path, &err));
    assert_int_equal(s.count, 4);
    assert_string_equal(safetensors_metadata(&s, "key"), "x \\ y");
    assert_null(safetensors_metadata(&s, "none"));
    assert_null(safetensors_find(&s, "nothing"));
    assert_true(safetensors_read(&s, safetensors_find(&s, "a\"b"), back, &err));
    assert_memory_equal(back, a, sizeof(a));
    assert_int_equal(safetensors_find(&s, "a\"b")->at % 64, 0);
    assert_int_equal(safetensors_find(&s, "none")->n, 0);
    assert_true(safetensors_read(&s, safetensors_find(&s, "none"), back, &err));
    assert_int_equal(safetensors_find(&s, "scalar")->dims, 0);
    assert_true(safetensors_read(&s, safetensors_find(&s, "scalar"), back, &err));
    assert_true(back[0] == 7);
    assert_int_equal(safetensors_find(&s, "long")->dim[7], most);
    safetensors_close(&s);
    safetensors_close(&s);
}

static void a_file_of_no_tensor_is_a_file(void **state)
{
    struct safetensors s;

    assert_true(safetensors_write(path, NULL, 0, NULL, 0, &err));
    assert_true(safetensors_open(&s, path, &err));
    assert_int_equal(s.count, 0);
    safetensors_close(&s);
}

static void a_header_may_be_odd_and_out_of_order(void **state)
{
    const char *header = "{\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]},"
                         "\"e\":{\"shape\":[0,9],\"data_offsets\":[4,4],\"dtype\":\"F32\"},"
                         "\"__metadata__\":{\"format\":\"pt\"},"
                         "\"a\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]}}  \n";
    struct safetensors s;
    uint8_t bytes[4] = {4, 5, 6, 7};
    float expected, got;

    put_file(header, strlen(header), 8);
    assert_int_equal(strlen(header) % 2, 1);
    assert_true(safetensors_open(&s, path, &err));
    assert_string_equal(s.entry[0].name, "a");
    assert_string_equal(s.entry[1].name, "e");
    assert_true(safetensors_read(&s, safetensors_find(&s, "b"), &got, &err));
    memcpy(&expected, bytes, 4);
    assert_memory_equal(&got, &expected, 4);
    assert_string_equal(safetensors_metadata(&s, "format"), "pt");
    safetensors_close(&s);
}

/* One tensor x of a type whose bytes are given. */
static bool read_as(const char *type, const void *bytes, size_t size, size_t n, float *to)
{
    char header[256];
    struct safetensors s;
    FILE *file;
    bool ok;

    snprintf(header, sizeof(header),
             "{\"x\":{\"dtype\":\"%s\",\"shape\":[%zu],\"data_offsets\":[0,%zu]}}", type, n, size);
    put_file(header, strlen(header), 0);
    file = fopen(path, "ab");
    assert_non_null(file);
    fwrite(bytes, 1, size, file);
    fclose(file);
    assert_true(safetensors_open(&s, path, &err));
    ok = safetensors_read(&s, s.entry, to, &err);
    safetensors_close(&s);
    return ok;
}

static void other_floats_are_converted_and_other_types_refused(void **state)
{
    double wide[] = {0.1, -1e300};
    uint16_t half[] = {0x3c00, 0xc000, 0x0001, 0x8000, 0x7bff, 0xfc00, 0x7e00, 0x83ff};
    uint16_t brain[] = {0x3f80, 0xc120};
    uint8_t whole[] = {1, 0, 0, 0, 0, 0, 0, 0};
    float x[8];

    assert_true(read_as("F64", wide, sizeof(wide), 2, x));
    assert_true(x[0] == 0.1f && isinf(x[1]));
    assert_true(read_as("F16", half, sizeof(half), 8, x));
    assert_true(x[0] == 1 && x[1] == -2 && x[2] == 0x1p-24f && x[3] == 0 && signbit(x[3]));
    assert_true(x[4] == 65504 && x[5] == -INFINITY && isnan(x[6]) && x[7] == -1023 * 0x1p-24f);
    assert_true(read_as("BF16", brain, sizeof(brain), 2, x));
    assert_true(x[0] == 1 && x[1] == -10);
    assert_false(read_as("I64", whole, sizeof(whole), 1, x));
    assert_non_null(strstr(err.text, "tensor 'x' is I64"));
    assert_false(read_as("F8_E4M3", whole, 1, 1, x));
}

#define TENSOR(name, shape, offsets) \
    "\"" name "\":{\"dtype\":\"F32\",\"shape\":" shape ",\"data_offsets\":" offsets "}"

static void headers_that_lie_are_refused(void **state)
{
    refuse_header("{" TENSOR("a", "[2]", "[0,8]") "}", 9, "1 bytes past the last tensor 'a'");
    refuse_header("{}", 4, "4 bytes past the last tensor");
    refuse_header("{" TENSOR("a", "[2]", "[0,8]") "}", 7, "tensor 'a' ends at byte 8");
    refuse_header("{" TENSOR("a", "[1]", "[0,4]") "," TENSOR("b", "[1]", "[8,12]") "}", 12,
                  "before tensor 'b' are 4 bytes of no tensor");
    refuse_header("{" TENSOR("a", "[2]", "[0,8]") "," TENSOR("b", "[2]", "[4,12]") "}", 12,
                  "tensors 'a' and 'b' overlap");
    refuse_header("{" TENSOR("a", "[3]", "[0,8]") "}", 8, "but F32 of shape [3] has 12");
    refuse_header("{" TENSOR("a", "[2]", "[8,0]") "}", 8, "not two whole numbers");
    refuse_header("{" TENSOR("a", "[2]", "[0,8,16]") "}", 8, "not two whole numbers");
    refuse_header("{" TENSOR("a", "[2]", "[-1,8]") "}", 8, "not two whole numbers");
    refuse_header("{" TENSOR("a", "[2]", "[0,8.5]") "}", 8, "not two whole numbers");
    refuse_header("{" TENSOR("a", "[2]", "8") "}", 8, "not two whole numbers");
    refuse_header("{" TENSOR("a", "[2]", "[0,1e300]") "}", 8, "not two whole numbers");
    refuse_header("{" TENSOR("a", "[4294967296,4294967296]", "[0,0]") "}", 0, "more values");
    refuse_header("{" TENSOR("a", "[9007199254740992,1024]", "[0,0]") "}", 0, "more values");
    refuse_header("{" TENSOR("a", "[9007199254740992]", "[0,0]") "}", 0, "has 36028797018963968");
    refuse_header("{" TENSOR("a", "[-2]", "[0,8]") "}", 8, "whole numbers");
    refuse_header("{" TENSOR("a", "[1,1,1,1,1,1,1,1,1]", "[0,4]") "}", 4, "8 dimensions");
    refuse_header("{" TENSOR("a", "2", "[0,8]") "}", 8, "no list 'shape'");
    refuse_header("{" TENSOR("a", "[1]", "[0,4]") "," TENSOR("a", "[1]", "[4,8]") "}", 8,
                  "the key 'a' is there twice");
    refuse_header("{\"a\":{\"dtype\":\"F31\",\"shape\":[],\"data_offsets\":[0,4]}}", 4,
                  "tensor 'a': no such dtype 'F31'");
    refuse_header("{\"a\":{\"shape\":[],\"data_offsets\":[0,4]}}", 4, "no text 'dtype'");
    refuse_header("{\"a\":3}", 4, "tensor 'a': is described by no object");
    refuse_header("{\"a\":", 4, "the JSON breaks off");
    refuse_header("{} {}", 4, "no JSON");
    refuse_header(" {}", 0, "does not begin with '{'");
    refuse_header("", 0, "does not begin with '{'");
}

static void files_that_are_none_are_refused(void **state)
{
    put_file("{}", 100000001, 8);
    refuse("more than 100000000");
    put_file("{}", SIZE_MAX, 8);
    refuse("more than 100000000");
    put_file("{}", 100, 8);
    refuse("cut off: a header of 100 bytes in a file of 18");
    assert_int_equal(truncate(path, 7), 0);
    refuse("7 bytes are no safetensors file");
    assert_int_equal(truncate(path, 0), 0);
    refuse("0 bytes");
    unlink(path);
    refuse("No such file");
    assert_int_equal(mkdir(path, 0700), 0);
    refuse("not a regular file");
    rmdir(path);
}

static void a_file_is_there_as_a_whole_or_not_at_all(void **state)
{
    static float value[4096];
    struct safetensors_tensor tensor = {.name = "a", .dims = 1, .dim = {4096}, .value = value};
    struct rlimit limit = {1000, RLIM_INFINITY}, before;
    struct safetensors s;
    char *command = format_text("ls %s | grep -q part", folder);

    tensor.dim[0] = 10;
    assert_true(safetensors_write(path, &tensor, 1, NULL, 0, &err));
    tensor.dim[0] = 4096;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
    assert_false(safetensors_write(path, &tensor, 1, NULL, 0, &err));
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    assert_non_null(strstr(err.text, "cannot write it: File too large"));
    assert_true(safetensors_open(&s, path, &err));
    assert_int_equal(s.entry[0].n, 10);
    safetensors_close(&s);
    assert_int_not_equal(system(command), 0);
    free(command);
    assert_false(safetensors_write("/nowhere/x", &tensor, 1, NULL, 0, &err));
    assert_non_null(strstr(err.text, "/nowhere/x: cannot write it: No such file"));
    assert_false(safetensors_write("/dev/null", &tensor, 1, NULL, 0, &err));
    assert_non_null(strstr(err.text, "/dev/null: not a regular file"));
}

static void the_hash_is_that_of_the_bytes(void **state)
{
    struct safetensors s;
    char hash[65];

    put_file("{}", 2, 0);
    assert_true(safetensors_open(&s, path, &err));
    assert_true(safetensors_hash(&s, hash, &err));
    /* printf '\2\0\0\0\0\0\0\0{}' | sha256sum */
    assert_string_equal(hash, "411a485216e432ece6b9af94fa32154cf79a2a56d4f81266baa50063f45092bd");
    safetensors_close(&s);
}

/* The golden model: 23 words, 12 units, two layers. */
#define GOLDEN                                                                         \
    "\"model\": {\"name\": \"lstm\", \"hidden\": 12, \"layers\": 2, \"tied\": false}," \
    "\"evaluate\": {\"batch\": 3, \"bptt\": 4}, \"epochs\": 10,"                       \
    "\"data\": {\"name\": \"text\", \"path\": \"none\", \"bptt\": 5},"

static void begin(struct train *t, const struct config *c, const struct golden *g)
{
    size_t count;
    uint32_t *corpus = golden_integers(g, "corpus", &count);

    harness_train(t, c, "cpu", golden_integer(g, "vocabulary"), corpus, count);
    free(corpus);
}

/* Puts the golden initial weights into the file, without the tensor at `without`; their shapes are
 * those of a train of that model.  Frees what it made. */
static void write_golden(const char *name, const char *regime, uint32_t without,
                         const struct safetensors_tensor *extra)
{
    struct safetensors_tensor tensor[PARAMETERS_MOST + 1];
    struct config *c = harness_config(regime, NULL);
    struct golden g;
    struct train t;
    float *arena;
    size_t count = 0;

    golden_open(&g, name);
    begin(&t, c, &g);
    arena = allocate(t.parameters.length, sizeof(*arena));
    for (uint32_t i = 0; i < t.parameters.count; i++) {
        const struct parameter *p = &t.parameters.item[i];
        char *record = format_text("init.%s", p->name);
        float *x = golden_floats(&g, record, NULL);

        memcpy(arena + p->at, x, p->n * sizeof(*x));
        if (i != without)
            tensor[count++] = weights_tensor(&t.parameters, i, arena);
        free(x);
        free(record);
    }
    if (extra != NULL)
        tensor[count++] = *extra;
    assert_true(safetensors_write(path, tensor, count, NULL, 0, &err));
    free(arena);
    train_destroy(&t);
    harness_config_free(c);
    golden_close(&g);
}

/* Loads the file into a train of the regime. */
static bool load(struct train *t, const struct config *c)
{
    float *params = allocate(t->parameters.length, sizeof(*params));
    bool ok = weights_load(&t->parameters, c->init, c->init_sha256, params, &err);

    if (ok)
        device_upload(&t->dev, t->workers.params, params, t->parameters.length * sizeof(*params));
    free(params);
    return ok;
}

static const char one_worker[] = "{" GOLDEN "\"workers\": 1, \"batch\": 6,"
                                 "\"schedule\": {\"0\": {\"lr\": 1.5}}}";

static void golden_weights_give_golden_losses(void **state)
{
    const char *flags[] = {"--init", path, NULL};
    struct golden g;
    struct config *c;
    struct train t;
    float *loss;

    write_golden("lstm_untied", one_worker, UINT32_MAX, NULL);
    c = harness_config(one_worker, flags);
    golden_open(&g, "lstm_untied");
    begin(&t, c, &g);
    loss = golden_floats(&g, "loss", NULL);
    assert_true(load(&t, c));
    for (size_t step = 0; step < 3; step++) {
        double samples = (double)train_step(&t, 0, step);
        double sum = 0;

        device_download(&t.dev, t.loss, t.workers.loss_sum, t.loss_rows * sizeof(*t.loss));
        device_clear(&t.dev, t.workers.loss_sum, t.loss_rows * sizeof(*t.loss));
        for (size_t i = 0; i < t.loss_rows; i++)
            sum += t.loss[i];
        assert_true(fabs(sum / samples - (double)loss[step]) < 2e-5 * (double)loss[step]);
    }
    free(loss);
    train_destroy(&t);
    harness_config_free(c);
    golden_close(&g);
}

static void refuse_weights(uint32_t without, const struct safetensors_tensor *extra,
                           const char *expected)
{
    const char *flags[] = {"--init", path, NULL};
    struct golden g;
    struct config *c;
    struct train t;

    write_golden("lstm_untied", one_worker, without, extra);
    c = harness_config(one_worker, flags);
    golden_open(&g, "lstm_untied");
    begin(&t, c, &g);
    assert_false(load(&t, c));
    if (strstr(err.text, expected) == NULL)
        fail_msg("'%s' does not say '%s'", err.text, expected);
    train_destroy(&t);
    harness_config_free(c);
    golden_close(&g);
}

static void weights_of_another_model_are_refused(void **state)
{
    static float value[600];
    struct safetensors_tensor other = {.name = "x", .dims = 2, .dim = {2, 3}, .value = value};

    refuse_weights(0, NULL, "has no tensor 'encoder.weight', of shape [23, 12] in the model");
    refuse_weights(UINT32_MAX, &other, "tensor 'x' of shape [2, 3] is not in the model");
    other = (struct safetensors_tensor){
        .name = "encoder.weight", .dims = 2, .dim = {12, 23}, .value = value};
    refuse_weights(0, &other,
                   "tensor 'encoder.weight' is of shape [12, 23], in the model of shape [23, 12]");
}

static void weights_are_in_the_key_by_what_they_are(void **state)
{
    const char *flags[] = {"--init", path, NULL};
    struct config *plain = harness_config(one_worker, NULL);
    struct config *a, *b, *again;
    char *effective;

    write_golden("lstm_untied", one_worker, UINT32_MAX, NULL);
    a = harness_config(one_worker, flags);
    effective = format_text("%s", a->effective);
    again = harness_config(effective, flags);
    write_golden("lstm_untied", one_worker, 0, NULL);
    b = harness_config(one_worker, flags);
    assert_null(strstr(plain->effective, "init"));
    assert_non_null(strstr(a->effective, a->init_sha256));
    assert_string_not_equal(a->key, plain->key);
    assert_string_not_equal(a->key, b->key);
    assert_string_equal(a->key, again->key);
    harness_config_free(plain);
    harness_config_free(a);
    harness_config_free(b);
    harness_config_free(again);
    free(effective);
}

static void write_text(const char *name)
{
    char *to = format_text("%s/%s.txt", folder, name);
    FILE *file = fopen(to, "w");

    assert_non_null(file);
    for (int i = 0; i < 200; i++)
        fprintf(file, "%c%s", 'a' + i * i % 7, i % 10 == 9 ? "\n" : " ");
    fclose(file);
    free(to);
}

/* A run of a small regime over the texts; what it begins with and where its weights go. */
static bool run_small(const char *flag, const char *value, const char *to, enum run_status *status)
{
    char *json = format_text("{\"model\": {\"name\": \"lstm\", \"hidden\": 4, \"layers\": 1},"
                             "\"data\": {\"name\": \"text\", \"path\": \"%s\", \"bptt\": 5},"
                             "\"evaluate\": {\"batch\": 2}, \"workers\": 2, \"batch\": 2,"
                             "\"schedule\": {\"0\": {\"lr\": 1}}}",
                             folder);
    char *db = format_text("%s/runs.db", folder);
    char *save = format_text("%s/%s", folder, to);
    const char *flags[] = {"--quiet", "--db", db, "--save", save, flag, value, NULL};
    struct config *c = harness_config(json, flags);
    char *summary;
    int signal;
    bool ok = run(c, status, &summary, &signal, &err);

    free(summary);
    harness_config_free(c);
    free(save);
    free(db);
    free(json);
    return ok;
}

static void a_run_saves_its_weights_and_another_begins_with_them(void **state)
{
    char *first = format_text("%s/first", folder);
    struct safetensors s;
    enum run_status status;

    write_text("train");
    write_text("valid");
    write_text("test");
    assert_true(run_small(NULL, NULL, "first", &status));
    assert_int_equal(status, RUN_DONE);
    assert_true(safetensors_open(&s, first, &err));
    assert_string_equal(safetensors_metadata(&s, "epoch"), "0");
    assert_non_null(safetensors_metadata(&s, "key"));
    safetensors_close(&s);

    assert_true(run_small(NULL, NULL, "first", &status)); /* is there */
    assert_int_equal(status, RUN_ALREADY_DONE);
    assert_false(run_small(NULL, NULL, "elsewhere", &status));
    assert_non_null(strstr(err.text, "elsewhere: not written, for the run is done"));

    assert_false(run_small("--dump=2", folder, "first", &status));
    assert_non_null(strstr(err.text, "step-0000.safetensors: not written, for the run is done"));

    assert_true(run_small("--init", first, "second", &status));
    assert_int_equal(status, RUN_DONE);
    assert_false(run_small(NULL, NULL, "nowhere/x", &status));
    assert_non_null(strstr(err.text, "nowhere/x: cannot write it"));
    free(first);
}

#define WORKERS 3

/* A file of a dump. */
static float *get(const struct safetensors *s, const char *what, int k, const char *name)
{
    char *full = k < 0 ? format_text("%s.%s", what, name) : format_text("%s.%d.%s", what, k, name);
    const struct safetensors_entry *entry = safetensors_find(s, full);
    float *x;

    if (entry == NULL)
        fail_msg("no %s", full);
    CHECK(entry != NULL);
    x = allocate(entry->n, sizeof(*x));
    assert_true(safetensors_read(s, entry, x, &err));
    free(full);
    return x;
}

static float get_scalar(const struct safetensors *s, const char *what, int k)
{
    char *full = format_text("%s.%d", what, k);
    float x = NAN;

    assert_non_null(safetensors_find(s, full));
    assert_int_equal(safetensors_find(s, full)->dims, 0);
    assert_true(safetensors_read(s, safetensors_find(s, full), &x, &err));
    free(full);
    return x;
}

/* A tensor's part in a step of a worker: x is what it wants, u its momentum or NULL. */
static void check_sent(const struct safetensors *s, int k, const struct parameter *p,
                       const float *x, const float *u)
{
    float *wanted = get(s, "wanted", k, p->name);
    float *sent = get(s, "sent", k, p->name);
    float *kept = get(s, u != NULL ? "velocity" : "residual", k, p->name);
    float *momentum = u != NULL ? get(s, "momentum", k, p->name) : NULL;
    size_t keep = p->n / 10 > 0 ? p->n / 10 : 1;

    for (size_t i = 0; i < p->n; i++) {
        size_t before = 0; /* entries that go before this one */

        for (size_t j = 0; j < p->n; j++)
            before += fabsf(x[j]) > fabsf(x[i]) || (j < i && fabsf(x[j]) == fabsf(x[i]));
        assert_true(wanted[i] == x[i]);
        assert_true(sent[i] == (before < keep ? x[i] : 0));
        assert_true(kept[i] == (before < keep ? 0 : x[i]));
        if (u != NULL)
            assert_true(momentum[i] == (before < keep ? 0 : u[i]));
    }
    free(wanted);
    free(sent);
    free(kept);
    free(momentum);
}

/* The step's file against the file before it (of no tensors at the first). */
static void check_compressed(const struct safetensors *s, const struct safetensors *last,
                             const struct parameter *p, bool dgc)
{
    for (int k = 0; k < WORKERS; k++) {
        float scale = get_scalar(s, "scale", k);
        float *g = get(s, "grad", k, p->name);
        float *x = last->count == 0 ? allocate(p->n, sizeof(*x))
                                    : get(last, dgc ? "velocity" : "residual", k, p->name);
        float *u = last->count == 0 || !dgc ? allocate(p->n, sizeof(*u))
                                            : get(last, "momentum", k, p->name);

        for (size_t i = 0; i < p->n; i++) {
            u[i] = 0.9f * u[i] + scale * g[i];
            x[i] += dgc ? u[i] : scale * g[i];
        }
        check_sent(s, k, p, x, dgc ? u : NULL);
        free(g);
        free(x);
        free(u);
    }
}

/* What all workers sent, in their order, over their number. */
static void check_delivered(const struct safetensors *s, const struct parameter *p)
{
    float *sum = allocate(p->n, sizeof(*sum));
    float *delivered = get(s, "delivered", -1, p->name);

    for (int k = 0; k < WORKERS; k++) {
        float scale = get_scalar(s, "scale", k);
        float *sent = get(s, "sent", k, p->name);
        float *g = get(s, "grad", k, p->name);

        for (size_t i = 0; i < p->n; i++) {
            if (p->dims == 1)
                assert_true(sent[i] == scale * g[i]);
            sum[i] += sent[i];
        }
        free(sent);
        free(g);
    }
    for (size_t i = 0; i < p->n; i++)
        assert_true(delivered[i] == sum[i] / WORKERS);
    free(sum);
    free(delivered);
}

static void check_scales(const struct safetensors *s, const struct parameters *parameters)
{
    for (int k = 0; k < WORKERS; k++) {
        double square = 0, clip;

        for (uint32_t i = 0; i < parameters->count; i++) {
            const struct parameter *p = &parameters->item[i];
            float *g = get(s, "grad", k, p->name);

            for (size_t e = 0; e < p->n; e++)
                square += (double)g[e] * (double)g[e];
            free(g);
        }
        clip = 0.4 / sqrt(WORKERS) / (sqrt(square) + 1e-6);
        assert_true(get_scalar(s, "samples", k) == 1);
        assert_true(fabs((double)get_scalar(s, "scale", k) - (clip < 1 ? clip : 1)) < 1e-6);
    }
}

static void check_dump(struct train *t, bool dgc, unsigned steps)
{
    struct safetensors s, last = {0};

    for (unsigned step = 0; step < steps; step++) {
        char *file = dump_path(t->config, step);

        assert_true(safetensors_open(&s, file, &err));
        check_scales(&s, &t->parameters);
        for (uint32_t i = 0; i < t->parameters.count; i++) {
            const struct parameter *p = &t->parameters.item[i];

            if (p->dims > 1)
                check_compressed(&s, &last, p, dgc);
            check_delivered(&s, p);
        }
        safetensors_close(&last);
        last = s;
        assert_int_equal(unlink(file), 0);
        free(file);
    }
    safetensors_close(&last);
}

/* Six steps of the golden three workers, the first five of them dumped; the last parameters. */
static float *dumped(const char *device, bool dgc, const char *group, const char *const *flags,
                     size_t *length)
{
    char *regime = format_text("{" GOLDEN "\"workers\": 3, \"batch\": 2, \"compressor\": \"%s\","
                               "\"clip\": {\"norm\": 0.4, \"mode\": \"local-sqrt-k\"},"
                               "\"schedule\": {\"0\": {\"lr\": 0.5, \"momentum\": 0.9}}}",
                               dgc ? "dgc:ratio=0.1" : "topk:ratio=0.1");
    const char *all[] = {"--group", group, flags[0], flags[1], NULL};
    struct config *c = harness_config(regime, all);
    struct golden g;
    struct train t;
    uint32_t *corpus;
    size_t count;
    float *params;

    golden_open(&g, "workers");
    corpus = golden_integers(&g, "corpus", &count);
    harness_train(&t, c, device, golden_integer(&g, "vocabulary"), corpus, count);
    for (uint64_t step = 0; step < 6; step++)
        train_step(&t, 0, step);
    assert_true(dump_holds(t.dump, &err));
    if (c->dump_steps > 0)
        check_dump(&t, dgc, c->dump_steps);
    *length = t.parameters.length;
    params = harness_download(&t, t.workers.params, *length);
    train_destroy(&t);
    harness_config_free(c);
    golden_close(&g);
    free(corpus);
    free(regime);
    return params;
}

static void a_dump_holds_what_plain_loops_compute(void **state)
{
    const char *flags[] = {"--dump=5", folder, NULL};
    const char *none[] = {NULL, NULL};
    size_t length;

    for (const char *const *d = harness_devices(); *d != NULL; d++) {
        for (int dgc = 0; dgc <= 1; dgc++) {
            float *a = dumped(*d, dgc, "2", flags, &length);
            float *b = dumped(*d, dgc, "2", none, &length);

            /* Looking at a step does not change it. */
            for (size_t i = 0; i < length; i++)
                assert_true(a[i] == b[i]);
            free(a);
            free(b);
        }
    }
    free(dumped("cpu", true, "0", flags, &length));
}

static void a_dump_that_cannot_be_written_is_a_fault(void **state)
{
    struct config c = {.dump_steps = 1, .dump = "/nowhere/d"};

    assert_false(dump_folder(&c, &err));
    assert_string_equal(err.text, "/nowhere/d: cannot make the folder: No such file or directory");
    snprintf(c.dump, sizeof(c.dump), "/dev/null");
    assert_false(dump_folder(&c, &err));
    assert_non_null(strstr(err.text, "/dev/null/step-0000.safetensors: cannot write it"));
    snprintf(c.dump, sizeof(c.dump), "%s/new", folder);
    assert_true(dump_folder(&c, &err));
    assert_true(dump_folder(&c, &err));
}

static int make_folder(void **state)
{
    if (mkdtemp(folder) == NULL)
        return 1;
    snprintf(path, sizeof(path), "%s/x.safetensors", folder);
    return 0;
}

static int remove_folder(void **state)
{
    char *command = format_text("rm -r %s", folder);
    int failed = system(command);

    free(command);
    return failed;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(written_tensors_are_read_back),
        cmocka_unit_test(a_file_of_no_tensor_is_a_file),
        cmocka_unit_test(a_header_may_be_odd_and_out_of_order),
        cmocka_unit_test(other_floats_are_converted_and_other_types_refused),
        cmocka_unit_test(headers_that_lie_are_refused),
        cmocka_unit_test(files_that_are_none_are_refused),
        cmocka_unit_test(a_file_is_there_as_a_whole_or_not_at_all),
        cmocka_unit_test(the_hash_is_that_of_the_bytes),
        cmocka_unit_test(golden_weights_give_golden_losses),
        cmocka_unit_test(weights_of_another_model_are_refused),
        cmocka_unit_test(weights_are_in_the_key_by_what_they_are),
        cmocka_unit_test(a_run_saves_its_weights_and_another_begins_with_them),
        cmocka_unit_test(a_dump_holds_what_plain_loops_compute),
        cmocka_unit_test(a_dump_that_cannot_be_written_is_a_fault),
    };

    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}

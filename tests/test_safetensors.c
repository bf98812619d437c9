/*
 * test_safetensors -- weights in and out, and steps that were dumped, recomputed by plain loops.
 */
#include "tests/harness.h"

#include "sim/safetensors.h"

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
    struct safetensors_tensor tensor[] = {
        {.name = "a\"b", .dims = 2, .dim = {3, 2}, .value = a},
        {.name = "none", .dims = 2, .dim = {3, 0}, .value = a},
        {.name = "scalar", .value = &scalar},
    };
    struct safetensors_note note[] = {{"key", "x \\ y"}, {"epoch", "3"}};
    struct safetensors s;
    float back[6];

    assert_true(safetensors_write(path, tensor, 3, note, 2, &err));
    assert_true(safetensors_open(&s, path, &err));
    assert_int_equal(s.count, 3);
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
    };

    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}

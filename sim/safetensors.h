/*
 * safetensors.h -- named tensors in a file, in the format of that name.
 *
 * 8 bytes little-endian: the length of the header; the header, JSON: {name: {dtype, shape,
 * data_offsets}}, and maybe __metadata__, a table of texts; then the values, row-major,
 * little-endian, one tensor behind another to the end of the file.
 *
 * A file that says anything else is a fault that names the file and the tensor.
 */
#ifndef SIM_SAFETENSORS_H
#define SIM_SAFETENSORS_H

#include "sim/base.h"

struct tree;

#define SAFETENSORS_DIMS  8
#define SAFETENSORS_SHAPE (SAFETENSORS_DIMS * 22 + 1) /* room for the text of any shape */

/* A tensor in a file. */
struct safetensors_entry {
    const char *name;
    const char *type; /* F32, F64, F16, BF16; others cannot be read */
    uint32_t dims;    /* 0: one value */
    size_t dim[SAFETENSORS_DIMS];
    size_t n;
    uint64_t at, bytes; /* in the file */
};

struct safetensors {
    char *path;
    int file;
    struct tree *header;
    struct safetensors_entry *entry; /* in the order in which they lie in the file */
    size_t count;
};

/* Checks the whole header; values are read when asked for. */
bool safetensors_open(struct safetensors *s, const char *path, struct error *err);
void safetensors_close(struct safetensors *s);

/* NULL if there is none of that name. */
const struct safetensors_entry *safetensors_find(const struct safetensors *s, const char *name);
const char *safetensors_metadata(const struct safetensors *s, const char *name);

/* Its values, converted to float; to: [entry->n]. */
bool safetensors_read(const struct safetensors *s, const struct safetensors_entry *entry, float *to,
                      struct error *err);

/* The same; NaN and infinity are a fault. */
bool safetensors_read_finite(const struct safetensors *s, const struct safetensors_entry *entry,
                             float *to, struct error *err);

/* SHA-256 of the whole file, in hexadecimal. */
bool safetensors_hash(const struct safetensors *s, char sha256[65], struct error *err);

/* [48, 12] */
void safetensors_shape(char text[SAFETENSORS_SHAPE], uint32_t dims, const size_t *dim);

/* A tensor to be written, as F32. */
struct safetensors_tensor {
    const char *name;
    uint32_t dims;
    size_t dim[SAFETENSORS_DIMS];
    const float *value;
};

struct safetensors_note {
    const char *name, *text;
};

/* Whether a file of so many bytes can be made there. */
bool safetensors_writable(const char *path, size_t bytes, struct error *err);

/* Names differ.  The file appears under its name when all of it is on the disk, or not at all.  It
 * replaces a safetensors file or an empty one, nothing else. */
bool safetensors_write(const char *path, const struct safetensors_tensor *tensors, size_t count,
                       const struct safetensors_note *metadata, size_t notes, struct error *err);

/* SHA-256 of a file that can be opened. */
bool safetensors_hash_file(const char *path, char sha256[65], struct error *err);

#endif

/*
 * weights.h -- the parameters of a model in a safetensors file, under PyTorch's names and shapes.
 */
#ifndef SIM_WEIGHTS_H
#define SIM_WEIGHTS_H

#include "sim/base.h"

struct parameters;
struct safetensors_note;
struct safetensors_tensor;

/* Fills params [length].  The file has exactly the tensors of the model, and is the one whose
 * SHA-256 is given: else a fault that names the tensor, or the file. */
bool weights_load(const struct parameters *parameters, const char *path, const char *sha256,
                  float *params, struct error *err);

size_t weights_bytes(const struct parameters *parameters);

/* params: [length]. */
bool weights_save(const struct parameters *parameters, const char *path, const float *params,
                  const struct safetensors_note *metadata, size_t notes, struct error *err);

/* A tensor of the model as it is written, with its values in an arena. */
struct safetensors_tensor weights_tensor(const struct parameters *parameters, uint32_t i,
                                         const float *arena);

#endif

#include "tests/lab.h"

#include "compressors/sparse.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Those given, or as they begin. */
static void fill_settings(double *value, const struct setting *settings, const double *given)
{
    for (size_t i = 0; settings != NULL && i < setting_count(settings); i++)
        value[i] = given != NULL ? given[i] : settings[i].initial;
}

void lab_set_ratio(struct lab *lab, double ratio)
{
    lab->step.ratio = ratio;
    for (uint32_t i = 0; i < lab->layout.count; i++)
        lab->keep[i] = (uint32_t)sparse_keep(lab->layout.n[i], ratio);
}

void lab_set_memory(struct lab *lab, const char *setting, double value)
{
    int at = setting_find(lab->spec.memory->settings, setting);

    assert_true(at >= 0);
    lab->memory_setting[at] = value;
}

size_t lab_place(const struct lab *lab, uint32_t worker, uint32_t tensor, size_t element)
{
    return worker * lab->stride + lab->layout.at[tensor] + element;
}

void lab_upload(struct lab *lab, float *to, const float *x, uint32_t rows)
{
    float *slab = allocate(rows * lab->stride, sizeof(*slab));

    for (uint32_t row = 0; row < rows; row++) {
        for (uint32_t t = 0; x != NULL && t < lab->layout.count; t++) {
            memcpy(slab + lab_place(lab, row, t, 0), x, lab->layout.n[t] * sizeof(*x));
            x += lab->layout.n[t];
        }
        for (size_t i = lab->layout.length; i < lab->stride; i++)
            slab[row * lab->stride + i] = LAB_BEHIND;
    }
    device_upload(&lab->dev, to, slab, rows * lab->stride * sizeof(*slab));
    free(slab);
}

float *lab_slab(struct lab *lab, uint32_t rows)
{
    float *slab = device_alloc(&lab->dev, rows * lab->stride * sizeof(*slab));

    lab_upload(lab, slab, NULL, rows);
    return slab;
}

void lab_drop(struct lab *lab, float *slab, uint32_t rows)
{
    device_free(&lab->dev, slab, rows * lab->stride * sizeof(*slab));
}

float *lab_download(struct lab *lab, const float *from, uint32_t rows)
{
    float *x = allocate(rows * lab->stride, sizeof(*x));

    device_download(&lab->dev, x, from, rows * lab->stride * sizeof(*x));
    return x;
}

static void layout_open(struct lab *lab)
{
    size_t rows[LAB_TENSORS];
    struct layout bare;

    layout_create(&bare, &lab->dev, lab->spec.n, lab->spec.tensors, 0);
    lab->stride = bare.length + LAB_TAIL;
    layout_destroy(&bare);
    layout_create(&lab->layout, &lab->dev, lab->spec.n, lab->spec.tensors, lab->stride);
    for (uint32_t i = 0; i < lab->spec.tensors; i++)
        rows[i] = lab->spec.rows != NULL ? lab->spec.rows[i] : 1;
    layout_tell_rows(&lab->layout, rows);
}

static void common_open(struct lab *lab)
{
    const struct compressor *c = lab->spec.compressor;

    if (c->common == NULL)
        return;
    lab->common_bytes = c->common(&lab->call.call) * sizeof(float);
    lab->call.call.common = lab->common = device_alloc(&lab->dev, lab->common_bytes);
    c->start(&lab->call.call, lab->step.seed);
}

void lab_open(struct lab *lab, const struct lab_spec *spec)
{
    uint32_t workers = spec->workers;
    float one[256];

    *lab = (struct lab){.spec = *spec,
                        .step = {.seed = 1, .lr = 0.1f, .lr_change = 1, .momentum = 0.9f}};
    assert_true(spec->tensors <= LAB_TENSORS && workers <= ARRAY_LENGTH(one));
    harness_open(&lab->dev, spec->device);
    layout_open(lab);
    fill_settings(lab->setting, spec->compressor->settings, spec->settings);
    if (spec->quantiser != NULL)
        fill_settings(lab->quantiser_setting, spec->quantiser->settings, spec->quantiser_settings);
    lab->method =
        (struct method){spec->compressor, spec->quantiser, lab->setting, lab->quantiser_setting};
    fill_settings(lab->memory_setting, spec->memory->settings, NULL);
    lab_set_ratio(lab, spec->ratio);
    lab->step_dev = device_alloc(&lab->dev, sizeof(lab->step));
    lab->keep_dev = device_alloc(&lab->dev, spec->tensors * sizeof(*lab->keep));
    lab->share = device_alloc(&lab->dev, workers * sizeof(*lab->share));
    for (uint32_t i = 0; i < workers; i++)
        one[i] = 1;
    device_upload(&lab->dev, lab->share, one, workers * sizeof(*one));
    lab->grad = lab_slab(lab, workers);
    lab->scaled = lab_slab(lab, workers);
    for (uint32_t i = 0; i < memory_slabs(spec->memory); i++)
        lab->slab[i] = lab_slab(lab, workers);
    for (uint32_t i = 0; i < method_slabs(&lab->method); i++)
        lab->own[i] = lab_slab(lab, workers);
    lab->sum = lab_slab(lab, 1);
    lab->params = lab_slab(lab, 1);
    lab->traffic = device_alloc(&lab->dev, spec->tensors * sizeof(*lab->traffic));
    lab->each = device_alloc(&lab->dev, workers * sizeof(*lab->each));
    lab_enter(lab, 0, workers);
    lab->call.call.settings = lab->setting;
    message_create(&lab->message, &lab->method, &lab->call.call, workers);
    rounds_create(&lab->rounds, &lab->method, &lab->call.call, workers);
    common_open(lab);
}

void lab_close(struct lab *lab)
{
    uint32_t workers = lab->spec.workers;

    device_free(&lab->dev, lab->common, lab->common_bytes);
    rounds_destroy(&lab->rounds, &lab->method, &lab->call.call, workers);
    message_destroy(&lab->message, &lab->dev, workers);
    device_free(&lab->dev, lab->each, workers * sizeof(*lab->each));
    device_free(&lab->dev, lab->traffic, lab->spec.tensors * sizeof(*lab->traffic));
    lab_drop(lab, lab->params, 1);
    lab_drop(lab, lab->sum, 1);
    for (uint32_t i = 0; i < MEMORY_SLABS; i++)
        lab_drop(lab, lab->slab[i], workers);
    for (uint32_t i = 0; i < COMPRESSOR_SLABS; i++)
        lab_drop(lab, lab->own[i], workers);
    lab_drop(lab, lab->scaled, workers);
    lab_drop(lab, lab->grad, workers);
    device_free(&lab->dev, lab->share, workers * sizeof(*lab->share));
    device_free(&lab->dev, lab->keep_dev, lab->spec.tensors * sizeof(*lab->keep));
    device_free(&lab->dev, lab->step_dev, sizeof(lab->step));
    layout_destroy(&lab->layout);
    device_close(&lab->dev);
}

void lab_begin(struct lab *lab, const float *x)
{
    device_upload(&lab->dev, lab->step_dev, &lab->step, sizeof(lab->step));
    device_upload(&lab->dev, lab->keep_dev, lab->keep, lab->layout.count * sizeof(*lab->keep));
    lab_upload(lab, lab->grad, x, lab->spec.workers);
    lab_upload(lab, lab->sum, NULL, 1);
}

void lab_enter(struct lab *lab, uint32_t first, uint32_t workers)
{
    size_t at = first * lab->stride;

    lab->call = (struct memory_call){.settings = lab->memory_setting,
                                     .scaled = lab->scales ? lab->scaled + at : NULL,
                                     .method = &lab->method};
    lab->call.call = (struct call){.dev = &lab->dev,
                                   .layout = &lab->layout,
                                   .first = first,
                                   .workers = workers,
                                   .all = lab->spec.workers,
                                   .ratio_most = lab->spec.ratio,
                                   .kept = lab->spec.memory->residual >= 0,
                                   .step = lab->step_dev,
                                   .keep = lab->keep_dev,
                                   .common = lab->common,
                                   .rounds = &lab->rounds,
                                   .grad = lab->grad + at,
                                   .scale = lab->share + first,
                                   .params = lab->decays ? lab->params : NULL};
    for (uint32_t i = 0; i < memory_slabs(lab->spec.memory); i++)
        lab->call.slab[i] = lab->slab[i] + at;
    for (uint32_t i = 0; i < method_slabs(&lab->method); i++)
        lab->call.call.own[i] = lab->own[i] + at;
    lab->message.senders = workers;
    device_scratch_reset(&lab->dev);
}

void lab_compensate(struct lab *lab)
{
    lab->call.call.wanted = lab->wanted = lab->spec.memory->compensate(&lab->call);
}

void lab_encode(struct lab *lab)
{
    method_encode(&lab->method, &lab->call.call, &lab->message, &lab->rounds);
    lab->call.call.wanted = NULL;
}

void lab_decode(struct lab *lab, struct target target)
{
    method_decode(&lab->method, &lab->call.call, &lab->message, target);
}

void lab_receive(struct lab *lab)
{
    lab_decode(lab, (struct target){.how = ADD, .to = lab->sum, .one_sum = true});
}

void lab_update(struct lab *lab)
{
    if (lab->spec.memory->update != NULL)
        lab->spec.memory->update(&lab->call, &lab->message);
}

void lab_step(struct lab *lab, const float *x)
{
    lab_begin(lab, x);
    lab_enter(lab, 0, lab->spec.workers);
    lab_compensate(lab);
    lab_encode(lab);
    lab_receive(lab);
    lab_update(lab);
}

void lab_weigh(struct lab *lab, enum encoding encoding, struct traffic *total, uint64_t *each)
{
    size_t bytes = lab->message.senders * sizeof(*each);
    size_t traffic = lab->spec.tensors * sizeof(*lab->traffic);
    struct traffic of_tensors[LAB_TENSORS];

    device_clear(&lab->dev, lab->traffic, traffic);
    device_clear(&lab->dev, lab->each, bytes);
    message_weigh(&lab->message, &lab->layout, encoding, lab->traffic, lab->each);
    device_download(&lab->dev, of_tensors, lab->traffic, traffic);
    device_download(&lab->dev, each, lab->each, bytes);
    *total = traffic_sum(of_tensors, lab->spec.tensors);
}

void lab_require_padding(struct lab *lab, const char *what, const float *slab, uint32_t rows)
{
    float *x = lab_download(lab, slab, rows);

    for (uint32_t row = 0; row < rows; row++) {
        const float *own = x + row * lab->stride;

        for (uint32_t t = 0; t < lab->layout.count; t++) {
            size_t next = t + 1 < lab->layout.count ? lab->layout.at[t + 1] : lab->layout.length;

            for (size_t i = lab->layout.at[t] + lab->layout.n[t]; i < next; i++)
                if (float_bits(own[i]) != 0)
                    fail_msg("%s: the padding of tensor %u holds %g", what, t, (double)own[i]);
        }
        for (size_t i = lab->layout.length; i < lab->stride; i++)
            if (own[i] != LAB_BEHIND)
                fail_msg("%s: behind the tensors stands %g", what, (double)own[i]);
    }
    free(x);
}

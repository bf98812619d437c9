#include "sim/plan.h"

#include "sim/measure.h"
#include "sim/optimizer.h"
#include "sim/worker.h"

#include <stdlib.h>

/* Of what is free, leave some to the libraries' own workspaces; so much however small the run. */
#define USABLE 0.92
#define SPARED ((size_t)32 << 20)

/* One of the devices' streams where all workers are one group; two where they take turns. */
static uint32_t streams_for(const struct device *dev, const struct config *c, uint32_t group)
{
    uint32_t groups = (c->workers + group - 1) / group;
    uint32_t wanted = c->streams > 0 ? c->streams : 2;
    uint32_t most = c->data.sharding == SHARD_SEGMENTS ? 1 : device_streams(dev);

    wanted = wanted < most ? wanted : most;
    return wanted < groups ? wanted : groups;
}

static bool refuse(const struct plan *plan, const struct config *c, size_t fixed, struct error *err)
{
    char *needed = size_text(plan->bytes), *kept = size_text(fixed);
    char *available = size_text(plan->available);

    fail(err,
         "the run needs %s of the device's memory, %s of them for what %u workers keep, and %s are "
         "free; fewer --workers%s%s, or a smaller model or batch would fit",
         needed, kept, c->workers, available, plan->group > 1 ? ", a smaller --group" : "",
         plan->streams > 1 ? ", fewer --streams" : "");
    free(needed);
    free(kept);
    free(available);
    return false;
}

static bool refuse_evaluation(const struct plan *plan, struct error *err)
{
    char *needed = size_text(plan->bytes), *available = size_text(plan->available);

    fail(err,
         "the evaluation needs %s of the device's memory, and %s are free; a smaller "
         "evaluate.batch might fit",
         needed, available);
    free(needed);
    free(available);
    return false;
}

static size_t lane_total(const struct lane_bytes *lane)
{
    return lane->slab + lane->activations + lane->messages + lane->scratch;
}

static size_t fixed_total(const struct plan *plan)
{
    return plan->part.parameters + plan->part.workers + plan->part.evaluation + plan->part.data;
}

static bool fits(struct plan *plan)
{
    plan->bytes = fixed_total(plan) + plan->streams * lane_total(&plan->part.lane);
    return (double)plan->bytes <= USABLE * (double)plan->available;
}

static bool together(const struct config *c)
{
    struct method method = workers_method(c);

    return method_together(&method);
}

/* Of like size; all where the method wants that; as many as the device likes of images; a segment
 * begins with the state that the one before it left, so there one. */
static uint32_t group_size(const struct device *dev, const struct config *c, uint32_t groups)
{
    bool images = dataset_find(c->data.name)->kind->images;

    if (together(c))
        return c->workers;
    if (c->data.sharding == SHARD_SEGMENTS)
        return 1;
    if (c->group > 0)
        return c->group < c->workers ? c->group : c->workers;
    if (images && dev->ops->stacked > 0)
        return dev->ops->stacked < c->workers ? dev->ops->stacked : c->workers;
    return (c->workers + groups - 1) / groups;
}

/* What is there to evaluate; fills and places *parameters. */
static void begin(struct plan *plan, struct device *dev, const struct config *c,
                  const struct network *network, struct parameters *parameters, size_t data_bytes)
{
    struct shape eval = {1, c->evaluate.batch, c->evaluate.bptt};
    size_t available = device_memory_free(dev);

    *plan = (struct plan){.available = available > SPARED ? available - SPARED : 0};
    plan->part.evaluation = graph_measure(dev, parameters, network, eval, false);
    graph_place(parameters, c->compress_all);
    plan->part.parameters = (parameters->length + graph_floats(parameters)) * sizeof(float);
    plan->part.data = data_bytes;
}

bool plan_evaluation(struct plan *plan, struct device *dev, const struct config *c,
                     const struct network *network, struct parameters *parameters,
                     size_t data_bytes, struct error *err)
{
    begin(plan, dev, c, network, parameters, data_bytes);
    return fits(plan) || refuse_evaluation(plan, err);
}

bool plan_make(struct plan *plan, struct device *dev, const struct config *c,
               const struct network *network, struct parameters *parameters, size_t data_bytes,
               struct error *err)
{
    begin(plan, dev, c, network, parameters, data_bytes);
    plan->part.parameters += graph_floats(parameters) * sizeof(float) +
                             optimizer_bytes(c, parameters) + measure_bytes(c, parameters);
    plan->part.workers = workers_bytes(c, parameters);
    if (together(c) && c->data.sharding == SHARD_SEGMENTS && c->workers > 1)
        return fail(err,
                    "%s wants the gradients of all workers at once, and with sharding segments "
                    "one begins where the other ended",
                    c->compressor_name);
    for (uint32_t groups = 1; groups <= c->workers; groups++) {
        plan->group = group_size(dev, c, groups);
        plan->streams = streams_for(dev, c, plan->group);
        plan->part.lane = workers_lane_bytes(dev, c, network, parameters, plan->group);
        if (c->streams == 0 && !fits(plan))
            plan->streams = 1;
        if (fits(plan))
            return true;
        if (c->group > 0 || plan->group == 1 || together(c))
            break;
    }
    return refuse(plan, c, fixed_total(plan), err);
}

/* Entries of one tensor that are sent; where the data say how many, the least: none. */
static size_t entries_of(const struct method *method, const struct call *call, uint32_t tensor)
{
    return method_counted(method) ? 0 : method_entries(method, call, tensor);
}

/* Of one compressed tensor, in all rounds. */
static size_t tensor_bytes(const struct config *c, const struct method *method,
                           const struct call *call, uint32_t tensor)
{
    const struct compressor *compressor = method->compressor;
    size_t n = call->layout->n[tensor];
    size_t keep = entries_of(method, call, tensor);
    size_t bytes;

    if (compressor->no_indices)
        return keep * sizeof(float);
    bytes = message_tensor_bytes(method, c->encoding, n, keep);
    if (compressor->first.indices && keep < n) /* one worker of all sends them */
        bytes += keep * sizeof(uint32_t) / c->workers;
    return bytes;
}

size_t plan_message_bytes(const struct config *c, const struct parameters *parameters, double ratio)
{
    struct method method = workers_method(c);
    struct layout compressed;
    struct call call = {.layout = &compressed, .ratio_most = ratio};
    size_t bytes = 0;

    workers_describe(&compressed, parameters);
    for (uint32_t i = 0; i < parameters->count; i++)
        bytes += i < parameters->compressed
                     ? tensor_bytes(c, &method, &call, i)
                     : parameters->item[parameters->order[i]].n * sizeof(float);
    layout_destroy(&compressed);
    return bytes;
}

bool plan_message_exact(const struct config *c, const struct parameters *parameters, double ratio)
{
    struct method method = workers_method(c);
    struct layout compressed;
    struct call call = {.layout = &compressed, .ratio_most = ratio};
    bool exact = true;

    workers_describe(&compressed, parameters);
    for (uint32_t i = 0; i < compressed.count && !method.compressor->no_indices; i++)
        exact = exact && message_tensor_exact(&method, c->encoding, compressed.n[i],
                                              entries_of(&method, &call, i));
    layout_destroy(&compressed);
    return exact;
}

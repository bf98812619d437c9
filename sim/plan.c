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
    uint32_t groups = (c->nodes + group - 1) / group;
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
         needed, kept, c->nodes, available, plan->group > 1 ? ", a smaller --group" : "",
         plan->streams > 1 ? ", fewer --streams" : "");
    free(needed);
    free(kept);
    free(available);
    return false;
}

static bool refuse_other(const struct plan *plan, const char *what, const char *less,
                         struct error *err)
{
    char *needed = size_text(plan->bytes), *available = size_text(plan->available);

    fail(err, "%s %s of the device's memory, and %s are free; %s might fit", what, needed,
         available, less);
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
        return c->nodes;
    if (c->data.sharding == SHARD_SEGMENTS)
        return 1;
    if (c->group > 0)
        return c->group < c->nodes ? c->group : c->nodes;
    if (images && dev->ops->stacked > 0)
        return dev->ops->stacked < c->nodes ? dev->ops->stacked : c->nodes;
    return (c->nodes + groups - 1) / groups;
}

static size_t available_on(struct device *dev)
{
    size_t available = device_memory_free(dev);

    return available > SPARED ? available - SPARED : 0;
}

/* What is there to evaluate; fills and places *parameters. */
static void begin(struct plan *plan, struct device *dev, const struct config *c,
                  const struct network *network, struct parameters *parameters, size_t data_bytes)
{
    struct shape eval = {1, c->evaluate.batch, c->evaluate.bptt};

    *plan = (struct plan){.available = available_on(dev)};
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
    return fits(plan) ||
           refuse_other(plan, "the evaluation needs", "a smaller evaluate.batch", err);
}

bool plan_given(struct plan *plan, struct device *dev, const struct config *c,
                struct parameters *parameters, struct error *err)
{
    *plan = (struct plan){.group = c->nodes, .streams = 1, .available = available_on(dev)};
    plan->part.parameters = 3 * parameters->length * sizeof(float); /* and the sum */
    plan->part.workers = workers_bytes(c, parameters);
    plan->part.lane = workers_lane_bytes(dev, c, NULL, parameters, plan->group);
    return fits(plan) || refuse_other(plan, "compressing all workers' gradients at once needs",
                                      "fewer tensors", err);
}

bool plan_make(struct plan *plan, struct device *dev, const struct config *c,
               const struct network *network, struct parameters *parameters, size_t data_bytes,
               struct error *err)
{
    begin(plan, dev, c, network, parameters, data_bytes);
    plan->part.parameters += graph_floats(parameters) * sizeof(float) +
                             optimizer_bytes(c, parameters) + measure_bytes(c, parameters);
    plan->part.workers = workers_bytes(c, parameters);
    if (together(c) && c->data.sharding == SHARD_SEGMENTS && c->nodes > 1)
        return fail(err,
                    "%s wants the gradients of all workers at once, and with sharding segments "
                    "one begins where the other ended",
                    c->compressor_name);
    for (uint32_t groups = 1; groups <= c->nodes; groups++) {
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

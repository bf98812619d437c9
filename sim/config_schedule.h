/*
 * config_schedule.h -- the keys of a regime that tell how parameters move, and when: the schedule and
 * its optimizer, the rule of the learning rate, its warm-up and scales.
 */
#ifndef SIM_CONFIG_SCHEDULE_H
#define SIM_CONFIG_SCHEDULE_H

#include "sim/base.h"

struct config;
struct tree;

#define EPOCHS_MOST 1000000
#define LR_UNSAID   (-1) /* of the first phase, where the schedule has none */

/* A member of an object whose keys are epochs. */
struct at_epoch {
    uint32_t epoch;
    const struct tree *node;
};

/* All of them in order of epochs, the first at 0. */
bool config_read_epochs(struct at_epoch *list, uint32_t most, uint32_t *count,
                        const struct tree *node, const char *path, struct error *err);

/* Of keys, as config_read.h has them. */
bool config_read_schedule(struct config *c, const struct tree *node, const char *path,
                          struct error *err);
struct tree *config_write_schedule(const struct config *c);
bool config_read_lr_rule(struct config *c, const struct tree *node, const char *path,
                         struct error *err);
struct tree *config_write_lr_rule(const struct config *c);
bool config_read_lr_warmup(struct config *c, const struct tree *node, const char *path,
                           struct error *err);
struct tree *config_write_lr_warmup(const struct config *c);
bool config_read_lr_scale(struct config *c, const struct tree *node, const char *path,
                          struct error *err);

/* Momentum has one owner: what the rule has of its own, the schedule's, or the memory's. */
bool config_check_optimizer(const struct config *c, const struct tree *regime, struct error *err);

/* Makes the schedule what holds: rates for the total batch, and epochs, times their scales. */
bool config_settle_scales(struct config *c, const struct tree *regime, struct error *err);

#endif

#include "sim/optimizer_rule.h"
#include "sim/exactmath.h"

struct optimizer_sgd {
    struct optimizer_mean mean;
    float *params, *sum, *momentum; /* NULL: none */
    size_t compensated;
};

/* torch.optim.SGD.  Of what a memory compensates, weight decay alone goes through the buffer. */
KERNEL(optimizer_sgd)
{
    const struct step *step = a->mean.step;
    float g = optimizer_gradient(&a->mean, i);
    float decay = optimizer_decay(&a->mean, i);
    bool owned = i < a->compensated;
    float in = owned ? decay : g + decay;
    float buffer = a->momentum ? exact_fade(step->momentum * a->momentum[i] + in) : in;
    float nesterov = a->momentum ? in + step->momentum * buffer : in;
    float out = step->nesterov ? nesterov : buffer;

    if (a->momentum)
        a->momentum[i] = buffer;
    a->params[i] -= step->lr * (owned ? g + out : out);
    a->sum[i] = 0;
}

struct optimizer_asgd {
    struct optimizer_mean mean;
    float *params, *sum;
};

KERNEL(optimizer_asgd)
{
    float g = optimizer_gradient(&a->mean, i) + optimizer_decay(&a->mean, i);

    a->params[i] = a->params[i] * a->mean.step->of_rule[1] - a->mean.step->of_rule[0] * g;
    a->sum[i] = 0;
}

struct optimizer_adam {
    struct optimizer_mean mean;
    float *params, *sum, *first, *second;
    float beta1, beta2, eps;
    uint32_t largest; /* 1: the second moment is the largest size (Adamax) */
};

KERNEL(optimizer_adam)
{
    const struct step *step = a->mean.step;
    float g = optimizer_gradient(&a->mean, i) + optimizer_decay(&a->mean, i);
    float first = exact_fade(a->beta1 * a->first[i] + (1 - a->beta1) * g);
    float faded = exact_fade(a->beta2 * a->second[i]);
    float size = (g < 0 ? -g : g) + a->eps;
    float second = a->largest ? (faded > size ? faded : size) : faded + (1 - a->beta2) * g * g;
    float by = a->largest ? second : sqrtf(second) / step->of_rule[1] + a->eps;

    a->first[i] = first;
    a->second[i] = second;
    a->params[i] -= step->of_rule[0] * (first / by);
    a->sum[i] = 0;
}

struct optimizer_adagrad {
    struct optimizer_mean mean;
    float *params, *sum, *square;
    float eps;
    uint32_t unused;
};

KERNEL(optimizer_adagrad)
{
    float g = optimizer_gradient(&a->mean, i) + optimizer_decay(&a->mean, i);
    float square = a->square[i] + g * g;

    a->square[i] = square;
    a->params[i] -= a->mean.step->of_rule[0] * (g / (sqrtf(square) + a->eps));
    a->sum[i] = 0;
}

struct optimizer_adadelta {
    struct optimizer_mean mean;
    float *params, *sum, *square, *moved; /* means of squares, of gradients and of moves */
    float rho, eps;
};

KERNEL(optimizer_adadelta)
{
    float g = optimizer_gradient(&a->mean, i) + optimizer_decay(&a->mean, i);
    float square = exact_fade(a->rho * a->square[i]) + (1 - a->rho) * g * g;
    float move = sqrtf(a->moved[i] + a->eps) / sqrtf(square + a->eps) * g;

    a->square[i] = square;
    a->moved[i] = exact_fade(a->rho * a->moved[i]) + (1 - a->rho) * move * move;
    a->params[i] -= a->mean.step->lr * move;
    a->sum[i] = 0;
}

struct optimizer_rmsprop {
    struct optimizer_mean mean;
    float *params, *sum, *square;
    float *center, *momentum; /* NULL: none */
    float alpha, eps;
};

KERNEL(optimizer_rmsprop)
{
    const struct step *step = a->mean.step;
    float g = optimizer_gradient(&a->mean, i) + optimizer_decay(&a->mean, i);
    float square = exact_fade(a->alpha * a->square[i]) + (1 - a->alpha) * g * g;
    float center = a->center ? exact_fade(a->alpha * a->center[i]) + (1 - a->alpha) * g : 0;
    float apart = square - center * center;
    float out = g / (sqrtf(apart > 0 ? apart : 0) + a->eps);

    a->square[i] = square;
    if (a->center)
        a->center[i] = center;
    if (a->momentum) {
        out = exact_fade(step->momentum * a->momentum[i]) + out;
        a->momentum[i] = out;
    }
    a->params[i] -= step->lr * out;
    a->sum[i] = 0;
}

struct optimizer_rprop {
    struct optimizer_mean mean;
    float *params, *sum, *before, *size;
    float down, up, least, most;
};

/* The first step is of size lr. */
KERNEL(optimizer_rprop)
{
    float g = optimizer_gradient(&a->mean, i) + optimizer_decay(&a->mean, i);
    float both = g * a->before[i];
    float size = (a->mean.step->number == 0 ? a->mean.step->lr : a->size[i]) * (both > 0   ? a->up
                                                                                : both < 0 ? a->down
                                                                                           : 1);

    size = size < a->least ? a->least : size > a->most ? a->most : size;
    g = both < 0 ? 0 : g;
    a->before[i] = g;
    a->size[i] = size;
    a->params[i] -= g > 0 ? size : g < 0 ? -size : 0;
    a->sum[i] = 0;
}

#ifndef __CUDACC__

#include "sim/device.h"

#include <math.h>
#include <string.h>

#define EPS(initial)                                                    \
    {                                                                   \
        "eps", initial, 1e-30, 1, "added to what is divided by", NUMBER \
    }
#define SHARE(name, initial, about)                \
    {                                              \
        name, initial, 0, 0.9999999, about, NUMBER \
    }

static bool spares_momentum(const double *settings, bool momentum, int slab)
{
    return !momentum;
}

static void sgd_apply(const struct optimizer_call *c)
{
    LAUNCH(c->dev, optimizer_sgd, c->length, .mean = c->mean, .params = c->params, .sum = c->sum,
           .momentum = c->slab[0], .compensated = c->compensated);
}

static const struct optimizer_rule sgd = {
    .name = "sgd",
    .about = "gradient descent, with momentum if the schedule has any",
    .paper = "Sutskever, Martens, Dahl, Hinton: On the importance of initialization and momentum, "
             "ICML 2013",
    .momentum = true,
    .nesterov = true,
    .slabs = {"momentum"},
    .spares = spares_momentum,
    .apply = sgd_apply,
};

enum { ADAM_BETA1, ADAM_BETA2, ADAM_EPS };

static const struct setting adam_settings[] = {
    [ADAM_BETA1] = SHARE("beta1", 0.9, "share of the mean gradient that stays"),
    [ADAM_BETA2] =
        SHARE("beta2", 0.999, "share of the mean square (adamax: largest size) that stays"),
    [ADAM_EPS] = EPS(1e-8),
    {0},
};

static void launch_adam(const struct optimizer_call *c, bool largest)
{
    LAUNCH(c->dev, optimizer_adam, c->length, .mean = c->mean, .params = c->params, .sum = c->sum,
           .first = c->slab[0], .second = c->slab[1], .beta1 = (float)c->settings[ADAM_BETA1],
           .beta2 = (float)c->settings[ADAM_BETA2], .eps = (float)c->settings[ADAM_EPS],
           .largest = largest);
}

static void adam_numbers(const double *settings, double lr, uint64_t t, float *numbers)
{
    numbers[0] = (float)(lr / (1 - pow(settings[ADAM_BETA1], (double)t)));
    numbers[1] = (float)sqrt(1 - pow(settings[ADAM_BETA2], (double)t));
}

static void adam_apply(const struct optimizer_call *c)
{
    launch_adam(c, false);
}

static const struct optimizer_rule adam = {
    .name = "adam",
    .about = "steps over the root of their mean square",
    .paper = "Kingma, Ba: Adam: a method for stochastic optimization, ICLR 2015",
    .settings = adam_settings,
    .slabs = {"first", "second"},
    .numbers = adam_numbers,
    .apply = adam_apply,
};

static void adamax_apply(const struct optimizer_call *c)
{
    launch_adam(c, true);
}

static const struct optimizer_rule adamax = {
    .name = "adamax",
    .about = "Adam with the largest size in place of the mean square",
    .paper = "Kingma, Ba: Adam: a method for stochastic optimization, ICLR 2015, section 7",
    .settings = adam_settings,
    .slabs = {"first", "second"},
    .numbers = adam_numbers,
    .apply = adamax_apply,
};

enum { ADAGRAD_DECAY, ADAGRAD_EPS };

static const struct setting adagrad_settings[] = {
    [ADAGRAD_DECAY] = {"lr_decay", 0, 0, 1e6, "lr is divided by 1 + lr_decay (t - 1)", NUMBER},
    [ADAGRAD_EPS] = EPS(1e-10),
    {0},
};

static void adagrad_numbers(const double *settings, double lr, uint64_t t, float *numbers)
{
    numbers[0] = (float)(lr / (1 + (double)(t - 1) * settings[ADAGRAD_DECAY]));
}

static void adagrad_apply(const struct optimizer_call *c)
{
    LAUNCH(c->dev, optimizer_adagrad, c->length, .mean = c->mean, .params = c->params,
           .sum = c->sum, .square = c->slab[0], .eps = (float)c->settings[ADAGRAD_EPS]);
}

static const struct optimizer_rule adagrad = {
    .name = "adagrad",
    .about = "steps over the root of the sum of their squares",
    .paper = "Duchi, Hazan, Singer: Adaptive subgradient methods, JMLR 2011",
    .settings = adagrad_settings,
    .slabs = {"square"},
    .numbers = adagrad_numbers,
    .apply = adagrad_apply,
};

enum { ADADELTA_RHO, ADADELTA_EPS };

static const struct setting adadelta_settings[] = {
    [ADADELTA_RHO] = SHARE("rho", 0.9, "share of both mean squares that stays"),
    [ADADELTA_EPS] = EPS(1e-6),
    {0},
};

static void adadelta_apply(const struct optimizer_call *c)
{
    LAUNCH(c->dev, optimizer_adadelta, c->length, .mean = c->mean, .params = c->params,
           .sum = c->sum, .square = c->slab[0], .moved = c->slab[1],
           .rho = (float)c->settings[ADADELTA_RHO], .eps = (float)c->settings[ADADELTA_EPS]);
}

static const struct optimizer_rule adadelta = {
    .name = "adadelta",
    .about = "steps in units of earlier steps",
    .paper = "Zeiler: ADADELTA: an adaptive learning rate method, 2012",
    .settings = adadelta_settings,
    .slabs = {"square", "moved"},
    .apply = adadelta_apply,
};

enum { RMSPROP_ALPHA, RMSPROP_EPS, RMSPROP_CENTERED };
enum { RMSPROP_SQUARE, RMSPROP_CENTER, RMSPROP_MOMENTUM };

static const struct setting rmsprop_settings[] = {
    [RMSPROP_ALPHA] = SHARE("alpha", 0.99, "share of the mean square that stays"),
    [RMSPROP_EPS] = EPS(1e-8),
    [RMSPROP_CENTERED] = {"centered", 0, 0, 1, "the mean's square is taken off", SWITCH},
    {0},
};

static bool rmsprop_spares(const double *settings, bool momentum, int slab)
{
    return (slab == RMSPROP_CENTER && settings[RMSPROP_CENTERED] == 0) ||
           (slab == RMSPROP_MOMENTUM && !momentum);
}

static void rmsprop_apply(const struct optimizer_call *c)
{
    LAUNCH(c->dev, optimizer_rmsprop, c->length, .mean = c->mean, .params = c->params,
           .sum = c->sum, .square = c->slab[RMSPROP_SQUARE], .center = c->slab[RMSPROP_CENTER],
           .momentum = c->slab[RMSPROP_MOMENTUM], .alpha = (float)c->settings[RMSPROP_ALPHA],
           .eps = (float)c->settings[RMSPROP_EPS]);
}

static const struct optimizer_rule rmsprop = {
    .name = "rmsprop",
    .about = "steps over the root of a mean square, with momentum if the schedule has any",
    .paper = "Tieleman, Hinton: Lecture 6.5 of Neural networks for machine learning, 2012",
    .settings = rmsprop_settings,
    .momentum = true,
    .slabs = {"square", "center", "momentum"},
    .spares = rmsprop_spares,
    .apply = rmsprop_apply,
};

enum { RPROP_DOWN, RPROP_UP, RPROP_LEAST, RPROP_MOST };

static const struct setting rprop_settings[] = {
    [RPROP_DOWN] = {"down", 0.5, 1e-6, 0.9999999, "times the step where the sign changed", NUMBER},
    [RPROP_UP] = {"up", 1.2, 1.0000001, 1e6, "times the step where it did not", NUMBER},
    [RPROP_LEAST] = {"least", 1e-6, 0, 1e6, "step there is", NUMBER},
    [RPROP_MOST] = {"most", 50, 0, 1e6, "step there is", NUMBER},
    {0},
};

static void rprop_apply(const struct optimizer_call *c)
{
    LAUNCH(c->dev, optimizer_rprop, c->length, .mean = c->mean, .params = c->params, .sum = c->sum,
           .before = c->slab[0], .size = c->slab[1], .down = (float)c->settings[RPROP_DOWN],
           .up = (float)c->settings[RPROP_UP], .least = (float)c->settings[RPROP_LEAST],
           .most = (float)c->settings[RPROP_MOST]);
}

static const struct optimizer_rule rprop = {
    .name = "rprop",
    .about = "steps of a size of their own that signs make larger or smaller",
    .paper = "Riedmiller, Braun: RPROP, ICNN 1993",
    .settings = rprop_settings,
    .slabs = {"before", "size"},
    .apply = rprop_apply,
};

enum { ASGD_LAMBDA, ASGD_ALPHA };

static const struct setting asgd_settings[] = {
    [ASGD_LAMBDA] = {"lambda", 1e-4, 0, 1, "of the decay of lr and parameters", NUMBER},
    [ASGD_ALPHA] = {"alpha", 0.75, 0, 10, "power of the decay of lr", NUMBER},
    {0},
};

/* torch.optim.ASGD's eta, and 1 - lambda eta. */
static void asgd_numbers(const double *settings, double lr, uint64_t t, float *numbers)
{
    double lambda = settings[ASGD_LAMBDA];
    double eta = lr / pow(1 + lambda * lr * (double)(t - 1), settings[ASGD_ALPHA]);

    numbers[0] = (float)eta;
    numbers[1] = (float)(1 - lambda * eta);
}

static void asgd_apply(const struct optimizer_call *c)
{
    LAUNCH(c->dev, optimizer_asgd, c->length, .mean = c->mean, .params = c->params, .sum = c->sum);
}

static const struct optimizer_rule asgd = {
    .name = "asgd",
    .about = "gradient descent with rates that fall (the average itself is not kept)",
    .paper = "Polyak, Juditsky: Acceleration of stochastic approximation by averaging, SIAM J. "
             "Control Optim. 1992",
    .settings = asgd_settings,
    .numbers = asgd_numbers,
    .apply = asgd_apply,
};

const struct optimizer_rule *const optimizer_rules[] = {
    &sgd, &adadelta, &adagrad, &adam, &adamax, &asgd, &rmsprop, &rprop, NULL,
};

const struct optimizer_rule *optimizer_rule_find(const char *name)
{
    for (const struct optimizer_rule *const *r = optimizer_rules; *r != NULL; r++)
        if (strcmp((*r)->name, name) == 0)
            return *r;
    return NULL;
}

#endif

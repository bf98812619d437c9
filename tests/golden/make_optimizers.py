#!/usr/bin/env python3
"""Golden numbers of torch.optim's optimizers: see README.md."""

import struct
import sys

import torch

STEPS, N = 12, 8
LR_CHANGES_AT, LR_TIMES = 6, 0.5

# Name here, class, its arguments; lr, weight decay.
CASES = {
    "sgd": (torch.optim.SGD, {}, 0.1, 0.01),
    "sgd-nesterov": (torch.optim.SGD, {"momentum": 0.9, "nesterov": True}, 0.1, 0.01),
    "adam": (torch.optim.Adam, {}, 0.01, 0.01),
    "adam-settings": (torch.optim.Adam, {"betas": (0.8, 0.95), "eps": 1e-3}, 0.01, 0.0),
    "adamax": (torch.optim.Adamax, {}, 0.02, 0.01),
    "adagrad": (torch.optim.Adagrad, {}, 0.1, 0.01),
    "adagrad-decay": (torch.optim.Adagrad, {"lr_decay": 0.1}, 0.1, 0.0),
    "adadelta": (torch.optim.Adadelta, {}, 1.0, 0.01),
    "rmsprop": (torch.optim.RMSprop, {}, 0.01, 0.01),
    "rmsprop-centered": (torch.optim.RMSprop, {"centered": True, "momentum": 0.9}, 0.01, 0.0),
    "rprop": (torch.optim.Rprop, {}, 0.01, None),
    "asgd": (torch.optim.ASGD, {"lambd": 0.05}, 0.1, 0.01),
}
CONSTANT_LR = {"rprop", "asgd"}  # one takes lr at first alone, the other a step late


def write(f, name, values):
    f.write(struct.pack("<I", len(name)) + name.encode())
    values = [float(v) for v in values]
    f.write(struct.pack("<I", len(values)) + struct.pack(f"<{len(values)}f", *values))


def run(case, start, gradients):
    kind, arguments, lr, decay = CASES[case]
    if decay is not None:
        arguments = {**arguments, "weight_decay": decay}
    p = torch.nn.Parameter(start.clone())
    optimizer = kind([p], lr=lr, **arguments)
    for t, g in enumerate(gradients):
        if t == LR_CHANGES_AT and case not in CONSTANT_LR:
            for group in optimizer.param_groups:
                group["lr"] *= LR_TIMES
        p.grad = g.clone()
        optimizer.step()
    return p.detach()


def main():
    torch.manual_seed(7)
    start = torch.randn(N).float().double()
    gradients = torch.randn(STEPS, N).float().double()
    gradients[:, 0] = 0  # a place that no gradient comes to
    gradients[3:, 1] = 0
    with open(sys.argv[1] if len(sys.argv) > 1 else "optimizers.bin", "wb") as f:
        write(f, "f:start", start)
        write(f, "f:gradients", gradients.flatten())
        for case in CASES:
            write(f, f"f:final.{case}", run(case, start, gradients))


if __name__ == "__main__":
    main()

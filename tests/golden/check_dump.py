#!/usr/bin/env python3
"""Computes every step of a dump again, in NumPy.

    gradpress train REGIME --dump 10 DIR ...
    python3 check_dump.py DIR

From the gradients of every worker it computes what train.c says a step is: clip, compensate,
select, receive, update, apply.  All but norms (sums of squares, in an order of their own) is one
operation an element in float32, so it must be the same to the bit.  Prints ok, or what differs
and exits with 1.  Knows the memories none, residual and dgc, and the compressor none and those
that keep the largest entries of a tensor (topk, dgc, gradient-dropping).
"""

import glob
import json
import os
import sys

import numpy as np

from read_message import Wrong, read_message

F = np.float32


def read(path):
    """Metadata, and {name: array}, of a safetensors file whose tensors are all F32."""
    with open(path, "rb") as file:
        data = file.read()
    begin = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:begin])
    meta = header.pop("__metadata__")
    arrays = {}
    for name, tensor in header.items():
        first, last = tensor["data_offsets"]
        array = np.frombuffer(data[begin + first : begin + last], dtype="<f4")
        arrays[name] = array.reshape(tensor["shape"])
    return meta, arrays


class Step:
    """One file: the tensors of each kind and worker, and the settings that hold."""

    def __init__(self, path, before):
        self.name = os.path.basename(path)
        self.path = path
        self.meta, self.array = read(path)
        self.regime = json.loads(self.meta["regime"])
        self.before = before  # the step before, or None
        self.workers = range(self.regime["workers"])
        self.tensors = [n[len("params.") :] for n in self.array if n.startswith("params.")]
        self.lr, self.momentum, self.weight_decay = (
            F(self.meta[n]) for n in ("lr", "momentum", "weight_decay")
        )
        self.nesterov = self.meta["nesterov"] == "1"
        self.wrong = 0

    def get(self, *name):
        return self.array[".".join(str(n) for n in name)]

    def state(self, *name):
        """A memory or momentum after the step before; zero at the beginning."""
        name = ".".join(str(n) for n in name)
        return np.zeros_like(self.array[name]) if self.before is None else self.before.array[name]

    def compressed(self, name):
        return self.regime["compress_all"] or self.get("params", name).ndim > 1

    def check(self, what, got, expected, tolerance=0.0):
        off = np.abs(got.astype(np.float64) - expected)
        bad = ~(off <= tolerance * np.abs(expected).max(initial=0)) & ~(np.isnan(got) & np.isnan(expected))
        if bad.any():
            i = int(np.argmax(bad))
            print(
                f"{self.name}: {what}: {int(bad.sum())} of {bad.size} differ, the first at {i}: "
                f"{got.reshape(-1)[i]!r}, not {expected.reshape(-1)[i]!r}"
            )
            self.wrong += 1


def clip_factor(norm, threshold):
    """As torch.nn.utils.clip_grad_norm_."""
    return min(1.0, threshold / (norm + 1e-6))


def norm_of(arrays):
    return np.sqrt(sum((a.astype(np.float64) ** 2).sum() for a in arrays))


def check_scale(s, k):
    """The samples of a short last step, and clipping of a worker's own gradient."""
    clip, count = s.regime["clip"], len(s.workers)
    scale = float(s.get("samples", k))
    norm = norm_of(s.get("grad", k, n) for n in s.tensors)
    if clip is not None and clip["mode"] != "global":
        times = {"local": 1, "local-sqrt-k": count**-0.5, "reference": count}[clip["mode"]]
        scale *= clip_factor(scale * norm, clip["norm"] * times)
    s.check(f"scale.{k}", s.get("scale", k), np.array(scale), 1e-5)


def gradient(s, k, name):
    """The gradient that counts."""
    g = s.get("scale", k) * s.get("grad", k, name)
    if s.regime["weight_decay_at"] == "local":
        g = g + s.weight_decay * s.get("params", name)
    return g


def select(wanted, ratio):
    """The mask of the max(1, floor(n ratio)) largest |x|; of equals the lower index."""
    keep = max(1, int(np.floor(wanted.size * ratio)))
    mask = np.zeros(wanted.size, dtype=bool)
    mask[np.argsort(-np.abs(wanted).reshape(-1), kind="stable")[:keep]] = True
    return mask.reshape(wanted.shape)


def compensate(s, k, name):
    """What the worker wants to send, and its memory before that is taken off."""
    g, memory = gradient(s, k, name), s.regime["memory"]
    if memory["name"] == "none":
        return g, {}
    if memory["name"] == "residual":
        e = F(memory["beta"]) * s.state("residual", k, name) + F(memory["gamma"]) * g
        return e, {"residual": e}
    assert memory["name"] == "dgc", memory["name"]
    v, u = s.state("velocity", k, name), s.state("momentum", k, name)
    if not memory["correction"]:
        return v + g, {"velocity": v + g, "momentum": u}
    u = s.momentum * (u + g) if s.nesterov else s.momentum * u + g
    v = v + u + g if s.nesterov else v + u
    return v, {"velocity": v, "momentum": u}


def check_worker(s, k, name):
    """Returns what the worker sends."""
    if not s.compressed(name):
        sent = gradient(s, k, name)
        s.check(f"wanted.{k}.{name}", s.get("wanted", k, name), sent)
        s.check(f"sent.{k}.{name}", s.get("sent", k, name), sent)
        return sent
    wanted, memory = compensate(s, k, name)
    mask = np.ones(wanted.shape, dtype=bool)
    if s.regime["compressor"]["name"] != "none":
        mask = select(wanted, float(s.meta["ratio"]))
    sent = np.where(mask, wanted, F(0))
    if "quantiser" in s.regime["compressor"]:
        sent = np.where(mask, s.get("sent", k, name), F(0))
    s.check(f"wanted.{k}.{name}", s.get("wanted", k, name), wanted)
    s.check(f"sent.{k}.{name}", s.get("sent", k, name), sent)
    for what, state in memory.items():
        if what != "momentum":
            state = state - sent
        elif s.regime["memory"]["masking"] and s.regime["memory"]["correction"] and not mask.all():
            state = np.where(mask, F(0), state)
        s.check(f"{what}.{k}.{name}", s.get(what, k, name), state)
    return sent


def check_message(s, k):
    """The bytes, by sim/WIRE.md."""
    sizes = {n: s.get("params", n).size for n in s.tensors}
    with open(s.path[: -len("safetensors")] + f"worker-{k}.message", "rb") as file:
        data = file.read()
    try:
        said = read_message(data, s.meta, sizes)
    except Wrong as reason:
        print(f"{s.name}: message {k}: {reason}")
        s.wrong += 1
        return
    for name, (indices, values) in said.items():
        sent = s.get("sent", k, name)
        got = np.zeros(sent.size, dtype=F)
        if indices is not None:
            got[indices] = values
            s.check(f"message {k}: {name}", got.reshape(sent.shape), sent)


def check_update(s, following):
    """SGD on what was delivered: the optimizer's momentum, and the parameters of the next step."""
    clip, memory = s.regime["clip"], s.regime["memory"]
    factor, tolerance = F(1), 0.0
    if clip is not None and clip["mode"] == "global":
        norm = norm_of(s.get("delivered", n) for n in s.tensors)
        factor, tolerance = F(clip_factor(norm, clip["norm"])), 1e-5
    for name in s.tensors:
        params, g = s.get("params", name), s.get("delivered", name) * factor
        aggregate = s.regime["weight_decay_at"] == "aggregate"
        decay = s.weight_decay * params if aggregate else np.zeros_like(params)
        # Momentum of what a memory dgc sends is the memory's.
        owned = memory["name"] == "dgc" and memory["correction"] and s.compressed(name)
        into = decay if owned else g + decay
        out = into
        if "optimizer." + name in s.array:
            buffer = s.momentum * s.state("optimizer", name) + into
            s.check(f"optimizer.{name}", s.get("optimizer", name), buffer, tolerance)
            out = into + s.momentum * buffer if s.nesterov else buffer
        if following is not None:
            after = params - s.lr * (g + out if owned else out)
            s.check(f"params.{name} afterwards", following.get("params", name), after, tolerance)


def check_step(s, following):
    for k in s.workers:
        check_scale(s, k)
        check_message(s, k)
    for name in s.tensors:
        total = np.zeros_like(s.get("params", name))
        for k in s.workers:
            total = total + check_worker(s, k, name)
        s.check(f"delivered.{name}", s.get("delivered", name), total / F(len(s.workers)))
    check_update(s, following)


def main():
    if len(sys.argv) != 2:
        sys.exit("usage: check_dump.py DIR")
    steps = []
    for path in sorted(glob.glob(os.path.join(sys.argv[1], "step-*.safetensors"))):
        steps.append(Step(path, steps[-1] if steps else None))
        last = steps[-1].meta
        if int(last["step"]) != len(steps) - 1 or last["key"] != steps[0].meta["key"]:
            sys.exit(f"{path}: not the next step of the same run")
    if not steps:
        sys.exit(f"{sys.argv[1]}: no step-*.safetensors")
    for s, following in zip(steps, steps[1:] + [None]):
        check_step(s, following)
    if any(s.wrong for s in steps):
        sys.exit(1)
    names = [steps[0].regime[n]["name"] for n in ("compressor", "memory")]
    print(f"ok: {len(steps)} steps of {len(steps[0].workers)} workers, {names[0]}, memory {names[1]}")


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Computes every step of a dump again, in NumPy.

    gradpress train REGIME --dump 10 DIR ...
    python3 check_dump.py DIR...

From the gradients of every worker it computes what train.c says a step is: clip, compensate,
choose, quantise, exchange, update, apply.  Sums have the order of sim/layout.h and draws are those
of sim/rng.h, so all of it must be the same to the bit; but powersgd's products of matrices, whose
sums have an order of the device's own: they may be off by what rounding can do at most.  Prints ok
for each folder, or what differs and exits with 1.  README.md tells how to add a method.
"""

import glob
import json
import os
import sys

import numpy as np

from read_message import Wrong, read_message

F = np.float32
TILE = 256
RNG_COMPRESSOR, RNG_SELECTION = 3, 7  # of enum rng_use
HALF_PLACE = 2.0**-24  # what rounding to a float changes at most, as a share


def read(path):
    """Metadata, and {name: array} in the order of the data, of a safetensors file of F32 alone."""
    with open(path, "rb") as file:
        data = file.read()
    begin = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:begin])
    meta = header.pop("__metadata__")
    arrays = {}
    for name, tensor in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        first, last = tensor["data_offsets"]
        array = np.frombuffer(data[begin + first : begin + last], dtype="<f4")
        arrays[name] = array.reshape(tensor["shape"])
    return meta, arrays


class Step:
    """One file: the tensors of each kind and worker, all of them flat, and what holds then."""

    def __init__(self, path, before):
        self.name = os.path.join(os.path.basename(os.path.dirname(path)), os.path.basename(path))
        self.path = path
        self.meta, self.array = read(path)
        self.regime = json.loads(self.meta["regime"])
        self.before = before  # the step before, or None
        self.number = int(self.meta["step"])
        self.workers = range(self.regime["workers"])
        self.tensors = [n[len("params.") :] for n in self.array if n.startswith("params.")]
        self.lr, self.lr_change, self.momentum, self.weight_decay = (
            F(self.meta[n]) for n in ("lr", "lr_change", "momentum", "weight_decay")
        )
        self.nesterov = self.meta["nesterov"] == "1"
        self.memory, self.compressor = self.regime["memory"], self.regime["compressor"]
        self.quantiser = self.compressor.get("quantiser")
        self.wrong = 0

    def get(self, *name):
        return self.array[".".join(str(n) for n in name)].reshape(-1)

    def shape(self, name):
        return self.array["params." + name].shape

    def state(self, *name):
        """A memory or momentum after the step before; zero at the beginning."""
        return np.zeros_like(self.get(*name)) if self.before is None else self.before.get(*name)

    def compressed(self, name):
        return self.regime["compress_all"] or len(self.shape(name)) > 1

    def check(self, what, expected, slack=0.0):
        """What is in the file against what was computed, which may be off by so much."""
        self.check_values(what, self.get(what), expected, slack)

    def check_values(self, what, got, expected, slack=0.0):
        with np.errstate(invalid="ignore"):
            off = np.abs(got.astype(np.float64) - expected)
            good = (got == expected) | (off <= slack) | (np.isnan(got) & np.isnan(expected))
        if not good.all():
            i = int(np.argmin(good))
            differ = f"{int((~good).sum())} of {got.size} differ, the first at {i}"
            print(f"{self.name}: {what}: {differ}: {got[i]!r}, not {expected[i]!r}")
            self.wrong += 1


# Sums of doubles in the order of sim/kernel.h and sim/layout.h.


def tile_sums(x):
    """Of each 256: lane l of 32 adds elements l, l + 32, ..., then halves of lanes are added."""
    slots = np.pad(x, (0, -x.size % TILE)).reshape(-1, 8, 32)
    lanes = slots[:, 0]
    for slot in range(1, 8):
        lanes = lanes + slots[:, slot]
    while lanes.shape[1] > 1:
        half = lanes.shape[1] // 2
        lanes = lanes[:, :half] + lanes[:, half:]
    return lanes[:, 0]


def level_sum(x):
    """Of all: tiles, tiles of the tiles' sums, ...; of nothing 0."""
    x = tile_sums(x.astype(np.float64)) if x.size > 0 else np.zeros(1)
    while x.size > 1:
        x = tile_sums(x)
    return x[0]


def sum_in_order(arrays):
    total = np.zeros_like(arrays[0])
    for array in arrays:
        total = total + array
    return total


def norm_of(arrays):
    """The 2-norm of tensors together, as layout_squares() has it."""
    return F(np.sqrt(level_sum(np.array([level_sum(a.astype(np.float64) ** 2) for a in arrays]))))


# Random draws of sim/rng.h.


def philox(seed, use, a, b, c, d):
    """Philox4x32-10: the four words of rng_block(), for each of a."""
    low = np.uint64(0xFFFFFFFF)
    x = [np.asarray(a, dtype=np.uint64)] + [np.full(len(a), v, dtype=np.uint64) for v in (b, c, d)]
    key = [seed & 0xFFFFFFFF, (seed >> 32) ^ (use << 24)]
    for _ in range(10):
        p0, p1 = np.uint64(0xD2511F53) * x[0], np.uint64(0xCD9E8D57) * x[2]
        k0, k1 = (np.uint64(k & 0xFFFFFFFF) for k in key)
        x = [
            (p1 >> np.uint64(32)) ^ x[1] ^ k0,
            p1 & low,
            (p0 >> np.uint64(32)) ^ x[3] ^ k1,
            p0 & low,
        ]
        key = [key[0] + 0x9E3779B9, key[1] + 0xBB67AE85]
    return x


def uniform(words):
    return (words >> np.uint64(8)).astype(F) * F(2.0**-24)


def random_words(s, use, k, name, n):
    """For n places of a tensor of worker k, as tile_random() has them: entry e of a tile has word
    e / 64 of block e % 64."""
    blocks = np.arange((n + TILE - 1) // TILE * 64)
    words = philox(s.regime["seed"], use, blocks, k, s.tensors.index(name), s.number)
    by_tile = np.stack(words).reshape(4, -1, 64).transpose(1, 0, 2)
    return by_tile.reshape(-1)[:n]


def draws(s, k, name, n):
    """The same as uniform draws, as a quantiser has them."""
    return uniform(random_words(s, RNG_COMPRESSOR, k, name, n))


# Clipping, and the gradient that counts.


def check_scale(s, k):
    """The samples of a short last step, and clipping of a worker's own gradient."""
    clip, count = s.regime["clip"], len(s.workers)
    scale = s.get("samples", k)
    if clip is not None and clip["mode"] != "global":
        norm = clip["norm"]
        norms = {"local": norm, "local-sqrt-k": norm / np.sqrt(count), "reference": norm * count}
        of_all = norm_of([s.get("grad", k, n) for n in s.tensors])
        factor = F(norms[clip["mode"]]) / (scale * of_all + F(1e-6))
        scale = np.where(factor < 1, scale * factor, scale)
    s.check(f"scale.{k}", scale)


def gradient(s, k, name):
    g = s.get("scale", k) * s.get("grad", k, name)
    if s.regime["weight_decay_at"] == "local":
        g = g + s.weight_decay * s.get("params", name)
    return g


def fade(x):
    """As exact_fade() of sim/exactmath.h."""
    return np.where(np.abs(x) < F(2.0**-120), F(0), x)


# Memories: of the gradient that counts, what a worker wants to send, and its state before anything
# is taken off.  The second table has those whose momentum the optimizer does without, the third
# those that keep what was not sent.


def memory_none(s, k, name, g):
    return g, {}


def memory_residual(s, k, name, g):
    beta = F(s.memory["beta"]) * s.lr_change if s.memory["lr_inside"] else F(s.memory["beta"])
    e = fade(beta * s.state("residual", k, name)) + F(s.memory["gamma"]) * g
    return e, {"residual": e}


def memory_low_pass(s, k, name, g):
    q = s.state("residual", k, name)
    offered = fade(F(s.memory["beta"]) * q) + g
    return offered, {"residual": q + g, "offered": offered}


def memory_dgc(s, k, name, g):
    v, u = s.state("velocity", k, name), s.state("momentum", k, name)
    if not s.memory["correction"]:
        return v + g, {"velocity": v + g, "momentum": u}
    u = fade(s.momentum * (u + g) if s.nesterov else s.momentum * u + g)
    v = v + u + g if s.nesterov else v + u
    return v, {"velocity": v, "momentum": u}


def memory_momentum(s, k, name, g):
    beta = F(s.memory["beta"])
    m = fade(beta * s.state("mean", k, name) + (F(1) - beta) * g)
    return m, {"mean": m}


MEMORIES = {
    "none": memory_none,
    "residual": memory_residual,
    "low-pass": memory_low_pass,
    "dgc": memory_dgc,
    "momentum": memory_momentum,
}

OWNS_MOMENTUM = {"dgc": lambda s: s.memory["correction"], "momentum": lambda s: True}

KEEPS_THE_REST = {"residual", "low-pass", "dgc"}


# Compressors: of what each worker wants to send, which entries its message has, and their values.


def take(wanted, index):
    return index, wanted[index]


def largest(s, wanted):
    """The places of the max(1, floor(n ratio)) largest sizes, rising; of equals the lower one."""
    keep = min(wanted.size, max(1, int(np.floor(wanted.size * float(s.meta["ratio"])))))
    return np.sort(np.argsort(-np.abs(wanted), kind="stable")[:keep])


def held_size(deviations, x):
    """The largest size, or so many standard deviations: exactly 0 where all values are equal."""
    if x.size == 0:
        return F(0)
    apart = x.astype(np.float64) - x[0]
    mean = level_sum(apart) / x.size
    variance = level_sum(apart * apart) / x.size - mean * mean
    limit, most = F(deviations * np.sqrt(max(variance, 0.0))), np.abs(x).max()
    return limit if 0 < limit < most else most


def choose_all(s, name, wanted):
    return [take(w, np.arange(w.size)) for w in wanted]


def choose_largest(s, name, wanted):
    return [take(w, largest(s, w)) for w in wanted]


def choose_leaders(s, name, wanted):
    index = largest(s, wanted[s.number % len(wanted)])
    return [take(w, index) for w in wanted]


def choose_random(s, name, wanted):
    """The same of all workers; times n / k, unless a memory keeps the rest."""
    n = wanted[0].size
    keys = random_words(s, RNG_SELECTION, 0, name, n) >> np.uint64(1)
    index = largest(s, keys.astype(np.int64))
    scaled = s.compressor["scale"] and s.memory["name"] not in KEEPS_THE_REST
    factor = F(n / index.size) if scaled else F(1)
    return [(index, factor * w[index]) for w in wanted]


def choose_window(s, name, wanted):
    """One that moves on by its length; short tensors whole."""
    n = wanted[0].size
    length = min(n, int(np.floor(n * float(s.meta["ratio"]))) + 1) if n > 128 else n
    index = np.sort((s.number * length + np.arange(length)) % n)
    return [take(w, index) for w in wanted]


def choose_large(s, name, wanted):
    """Those of a size of at least tau, as plus or minus tau."""
    tau = F(s.compressor["tau"])
    chosen = [take(w, np.flatnonzero(np.abs(w) >= tau)) for w in wanted]
    if s.compressor["values"]:
        return chosen
    return [(i, np.where(v > 0, tau, -tau)) for i, v in chosen]


def lifted(s, k, name, x):
    """Of adacomp: what is wanted, held to deviations, and the same with the gradient added."""
    c = s.compressor
    if c["sigmas"] > 0:
        most = held_size(c["sigmas"], x)
        x = np.where(x > most, most, np.where(-x > most, -most, x))
    return x, x + F(c["c"]) * gradient(s, k, name)


def choose_lifted(s, name, wanted):
    """Where the last gradient lifts an entry to the largest of its bin; signs times the mean of
    the bins' largest, or as they are, or (original) lifted."""
    c, n, chosen = s.compressor, wanted[0].size, []
    size = n if c["original"] or c["bin"] == 0 else min(n, int(c["bin"]))
    first = np.arange(0, n, size)
    for k, x in enumerate(wanted):
        x, high = lifted(s, k, name, x)
        most = np.maximum.reduceat(np.abs(x), first)
        least = np.repeat(most, size)[:n]
        index = np.flatnonzero((least > 0) & (np.abs(high) >= least))
        if c["original"]:
            x = high
        elif c["quantise"]:
            mean = F(level_sum(spread(first, most.astype(np.float64), n)) / first.size)
            x = np.where(x >= 0, mean, -mean)
        chosen.append(take(x, index))
    return chosen


def choose_steady(s, k, name, x):
    """Where the sum r of gradients is large beside their variance v, r; both begin anew there."""
    c, square = s.compressor, x * x
    if f"square.{k}.{name}" in s.array:
        square = s.get("scale", k) * s.get("scale", k) * s.get("square", k, name)
    r = s.state("accumulated", k, name) + x
    v = s.state("variance", k, name) + square
    sent = r * r > F(c["alpha"]) * v
    s.check(f"accumulated.{k}.{name}", np.where(sent, F(0), r))
    s.check(f"variance.{k}.{name}", np.where(sent, F(0), fade(F(c["zeta"]) * v)))
    return take(r, np.flatnonzero(sent))


def choose_walking(s, k, name, x):
    """The same (original) of a sum over the places of a tensor; nothing is kept."""
    for what in ("accumulated", "variance"):
        s.check(f"{what}.{k}.{name}", np.zeros_like(x))
    alpha, index, r, v = F(s.compressor["alpha"]), [], F(0), F(0)
    for i, part in enumerate(x / F(s.compressor["batch"])):
        r, v = r + part, v + part * part
        if r * r > alpha * v:
            index.append(i)
            r, v = F(0), F(0)
        else:
            v = v * F(0.999)
    return take(x, np.array(index, dtype=np.int64))


def choose_variance(s, name, wanted):
    choose = choose_walking if s.compressor["original"] else choose_steady
    return [choose(s, k, name, w) for k, w in enumerate(wanted)]


COMPRESSORS = {
    "adacomp": choose_lifted,
    "none": choose_all,
    "topk": choose_largest,
    "dgc": choose_largest,
    "gradient-dropping": choose_largest,
    "gtopk": choose_largest,
    "clt-k": choose_leaders,
    "randomk": choose_random,
    "slice": choose_window,
    "threshold": choose_large,
    "variance": choose_variance,
}


# Quantisers: of the values of each worker's message, those that its codes say.


def quantise_fp16(s, name, values):
    with np.errstate(over="ignore"):
        return [v.astype(np.float16).astype(F) for v in values]


def quantise_bf16(s, name, values):
    """To the upper 16 bits, to nearest, ties to even; what is no number stays none."""
    bits = [v.view(np.uint32).astype(np.uint64) for v in values]
    half, odd = np.uint64(0x7FFF), [b >> np.uint64(16) & np.uint64(1) for b in bits]
    codes = [(b + half + o) >> np.uint64(16) for b, o in zip(bits, odd)]
    rounded = [(c.astype(np.uint32) << np.uint32(16)).view(F) for c in codes]
    return [np.where(np.isnan(v), v, r) for v, r in zip(values, rounded)]


def quantise_efsignsgd(s, name, values):
    means = [F(level_sum(np.abs(v)) / max(1, v.size)) for v in values]
    return [np.where(v >= 0, m, -m) for v, m in zip(values, means)]


def shared(s, scalars):
    """One for all workers, the largest, where that is set; a shorter message has fewer."""
    if not s.quantiser["shared"]:
        return scalars
    most = max(x.size for x in scalars)
    return [np.max([np.pad(x, (0, most - x.size)) for x in scalars], axis=0)] * len(scalars)


def quantise_terngrad(s, name, values):
    scalers = shared(s, [np.array([held_size(s.quantiser["clip"], v)]) for v in values])
    said = []
    for k, (x, scaler) in enumerate(zip(values, scalers)):
        sent = draws(s, k, name, x.size) * scaler < np.minimum(np.abs(x), scaler)
        said.append(np.where(sent, np.where(x < 0, -scaler, scaler), F(0)))
    return said


def qsgd_norms(q, x):
    """Of each bucket, which is tiles."""
    tiles = -(-x.size // TILE)
    bucket = -(-q["bucket"] // TILE) or tiles
    squares = tile_sums(x.astype(np.float64) ** 2)
    norms = []
    for b in range(0, tiles, max(1, bucket)):
        if not q["norm2"]:
            norms.append(np.abs(x[b * TILE : (b + bucket) * TILE]).max())
        elif q["bucket"] == 0:
            norms.append(F(np.sqrt(level_sum(x.astype(np.float64) ** 2))))
        else:
            norms.append(F(np.sqrt(np.cumsum(squares[b : b + bucket])[-1])))
    return np.array(norms, dtype=F)


def quantise_qsgd(s, name, values):
    levels = F(s.quantiser["levels"])
    norms = shared(s, [qsgd_norms(s.quantiser, v) for v in values])
    said = []
    width = -(-s.quantiser["bucket"] // TILE) * TILE
    for k, (x, norm) in enumerate(zip(values, norms)):
        norm = np.repeat(norm, width or x.size)[: x.size]
        r = np.divide(np.abs(x), norm, out=np.zeros_like(x), where=norm > 0) * levels
        held = np.minimum(r, levels)
        level = np.floor(held)
        level = level + ((level < levels) & (draws(s, k, name, x.size) < held - level)).astype(F)
        said.append(np.where(x < 0, -(norm * (level / levels)), norm * (level / levels)))
    return said


def quantise_natural(s, name, values):
    """To a power of two, up with the mantissa's probability; between 0 and 2^-126 there is none."""
    said = []
    for k, x in enumerate(values):
        size = np.abs(x).view(np.uint32)
        mantissa = (size & np.uint32(0x7FFFFF)).astype(F) * F(2.0**-23)
        exponent = (size >> np.uint32(23)) + (draws(s, k, name, x.size) < mantissa)
        if s.quantiser["original"]:
            exponent = np.where(exponent <= 127 - 109, 0, np.minimum(exponent, 127 + 18))
        else:
            exponent = np.where(np.isfinite(x), np.minimum(exponent, 254), 255)
        power = (exponent.astype(np.uint32) << np.uint32(23)).view(F)
        said.append(np.where(np.signbit(x), -power, power))
    return said


def quantise_signs(s, name, values):
    return [np.where(v >= 0, F(1), F(-1)) for v in values]


QUANTISERS = {
    "fp16": quantise_fp16,
    "bf16": quantise_bf16,
    "efsignsgd": quantise_efsignsgd,
    "terngrad": quantise_terngrad,
    "qsgd": quantise_qsgd,
    "natural": quantise_natural,
    "signsgd": quantise_signs,
    "signum": quantise_signs,
}


# What becomes of a tensor on the way from the workers to everybody.


class Outcome:
    """Of each worker what its message says, what its memory takes off, and the mask where momentum
    is cleared; the sum that everybody gets.  Beside it stands how far off it all may be."""

    def __init__(self, sent):
        self.sent = sent
        self.total = sum_in_order(sent)
        self.taken = sent
        self.cleared = [None] * len(sent)
        self.slack = {"sent": [0.0] * len(sent), "total": 0.0, "taken": [0.0] * len(sent)}


def exchange_vote(s, o):
    """Where plus has as many votes as minus or more, plus."""
    count = F(len(s.workers))
    o.total = np.where(o.total >= 0, count, -count)


def exchange_tree(s, o):
    """Neighbours are added up and the largest kept, till one is left.  Of its own a worker takes
    off what got on at every level; or (original) whatever is in the end."""
    lists, o.taken, apart = o.sent, list(o.sent), 1
    while apart == 1 or len(lists) > 1:
        last, apart = len(lists) <= 2, 2 * apart
        merged = [sum_in_order(lists[i : i + 2]) for i in range(0, len(lists), 2)]
        kept = [largest(s, m) for m in merged]
        lists = [spread(k, m[k], m.size) for k, m in zip(kept, merged)]
        for k in s.workers:
            if last or not s.compressor["original"]:
                got_on = spread(kept[k // apart], True, o.sent[k].size)
                o.taken[k] = np.where(got_on, o.taken[k], F(0))
    o.total = lists[0]


# By compressor or quantiser; what is not here is added up.
EXCHANGES = {"gtopk": exchange_tree, "signsgd": exchange_vote, "signum": exchange_vote}


def spread(index, values, n):
    """Values at their places among n, else zeros."""
    values = np.asarray(values)
    out = np.zeros(n, dtype=values.dtype)
    out[index] = values
    return out


def send_entries(s, name, wanted):
    """By the tables above."""
    chosen = COMPRESSORS[s.compressor["name"]](s, name, wanted)
    values = [v for _, v in chosen]
    if s.quantiser is not None:
        values = QUANTISERS[s.quantiser["name"]](s, name, values)
    o = Outcome([spread(i, v, w.size) for (i, _), v, w in zip(chosen, values, wanted)])
    masks = [spread(i, True, w.size) for (i, _), w in zip(chosen, wanted)]
    o.cleared = [None if m.all() else m for m in masks]  # tensors sent whole are spared
    for part in (s.compressor, s.quantiser or {}):
        if part.get("name") in EXCHANGES:
            EXCHANGES[part["name"]](s, o)
    return o


# PowerSGD sends no entries.  Products are made of what the file has, so that each is checked alone.


def product(a, b):
    """a b in double; and how far from it a sum in float may be, whatever its order: half a place
    for each term, one for what it is added to, one for a division by K."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    return a @ b, (a.shape[1] + 2) * (HALF_PLACE * (np.abs(a) @ np.abs(b)) + 2.0**-126)


def matrix_of(s, name):
    """Rows, columns and rank of what is sent for a tensor; rank 0: it is sent whole."""
    shape = s.shape(name)
    rows = shape[0] if len(shape) > 1 else 1
    columns = int(np.prod(shape)) // rows
    rank = min(int(s.compressor["rank"]), rows, columns)
    low = (rows + columns) * rank * s.compressor["rate"] < rows * columns
    return rows, columns, rank if low else 0


def normal(s, name, n):
    """The first Q: draws by Box and Muller, a tensor after the other, each from a new tile on."""
    at = 0
    for other in s.tensors[: s.tensors.index(name)]:
        _, columns, rank = matrix_of(s, other)
        at += -(-(columns * rank or s.get("params", other).size) // TILE) * TILE
    words = philox(s.regime["seed"], RNG_COMPRESSOR, np.arange(at, at + n), 0, 0, 0)
    a, b = (uniform(w).astype(np.float64) for w in words[:2])
    return np.sqrt(-2 * np.log(1 - a)) * np.cos(6.283185307179586 * b)


def dot(a, b):
    """A sum over rows, 256 after 256."""
    return np.cumsum(tile_sums(a.astype(np.float64) * b.astype(np.float64)))[-1]


def orthonormal(p):
    """By Gram and Schmidt; a column of nothing is zero."""
    p = p.copy()
    for c in range(p.shape[1]):
        square = before = dot(p[:, c], p[:, c])
        for other in range(c):
            p[:, c] -= F(dot(p[:, c], p[:, other])) * p[:, other]
            square = dot(p[:, c], p[:, c])
        p[:, c] *= F(1 / np.sqrt(square)) if square > before * 1e-12 and square > 0 else F(0)
    return p


def check_q(s, name, n):
    """What it begins with; then the sum of the workers' Q of the step before."""
    if s.before is None:  # but for the last bit of a logarithm and a cosine
        s.check(f"common.{name}", normal(s, name, n), 1e-6)
    else:
        sent = [s.before.get("sent", k, name) for k in s.workers]
        s.check(f"common.{name}", sum_in_order(sent))


def flat(pair):
    return [x.reshape(-1) for x in pair]


def send_low_rank(s, name, wanted):
    """P of each worker, made orthonormal their sum; then Q of each, whose sum times P all get."""
    rows, columns, rank = matrix_of(s, name)
    if rank == 0:
        return Outcome(wanted)
    matrices = [w.reshape(rows, columns) for w in wanted]
    check_q(s, name, rank * columns)
    q = s.get("common", name).reshape(rank, columns)
    for k, m in enumerate(matrices):
        s.check(f"first.{k}.{name}", *flat(product(m, q.T)))
    p = sum_in_order([s.get("first", k, name) for k in s.workers])
    p = orthonormal(p.reshape(rows, rank))
    own = [s.get("sent", k, name).reshape(rank, columns) for k in s.workers]
    o = Outcome([x.reshape(-1) for x in own])
    o.sent, o.slack["sent"] = zip(*(flat(product(p.T, m)) for m in matrices))
    o.total, o.slack["total"] = flat(product(p, sum_in_order(own)))
    if s.compressor["mean"]:
        own, p = [sum_in_order(own)] * len(own), p * (F(1) / F(len(own)))
    o.taken, slack = zip(*(flat(product(p, x)) for x in own))
    added = (rank + 2) * HALF_PLACE
    o.slack["taken"] = [x + added * np.abs(w) for x, w in zip(slack, wanted)]
    return o


# A step.


def check_memory(s, o, k, name, memory):
    """Its state after what was sent is taken off."""
    for what, state in memory.items():
        slack = 0.0
        if what in ("residual", "velocity"):
            state, slack = state - o.taken[k], o.slack["taken"][k]
        elif what == "momentum" and s.memory["masking"] and s.memory["correction"]:
            state = state if o.cleared[k] is None else np.where(o.cleared[k], F(0), state)
        s.check(f"{what}.{k}.{name}", state, slack)


def check_tensor(s, name):
    """From the gradients to what everybody gets; returns the workers' sum."""
    pairs = [(gradient(s, k, name), {}) for k in s.workers]
    if s.compressed(name):
        pairs = [MEMORIES[s.memory["name"]](s, k, name, g) for k, (g, _) in enumerate(pairs)]
    wanted = [w for w, _ in pairs]
    if not s.compressed(name):
        o = Outcome(wanted)
    elif s.compressor["name"] == "powersgd":
        o = send_low_rank(s, name, wanted)
    else:
        o = send_entries(s, name, wanted)
    for k in s.workers:
        s.check(f"wanted.{k}.{name}", wanted[k])
        s.check(f"sent.{k}.{name}", o.sent[k], o.slack["sent"][k])
        check_memory(s, o, k, name, pairs[k][1])
    count = F(len(s.workers))
    s.check(f"delivered.{name}", o.total / count, o.slack["total"] / count)
    return o.total


def global_clip(s, totals):
    """As torch.nn.utils.clip_grad_norm_ has it, of the mean."""
    clip, count = s.regime["clip"], F(len(s.workers))
    if clip is None or clip["mode"] != "global":
        return F(1)
    return min(F(1), F(clip["norm"]) / (norm_of(totals) / count + F(1e-6)))


def check_update(s, following, factor, inexact):
    """SGD on what was delivered: the optimizer's momentum, and the parameters of the next step.
    The factor of clipping may be off by so large a share."""
    owner = OWNS_MOMENTUM.get(s.memory["name"])
    for name in s.tensors:
        params, g = s.get("params", name), s.get("delivered", name) * factor
        aggregate = s.regime["weight_decay_at"] == "aggregate"
        decay = s.weight_decay * params if aggregate else np.zeros_like(params)
        # Momentum of what such a memory sends is the memory's.
        owned = owner is not None and owner(s) and s.compressed(name)
        into = decay if owned else g + decay
        out, slack = into, inexact * np.abs(g)
        if "optimizer.momentum." + name in s.array:
            buffer = fade(s.momentum * s.state("optimizer.momentum", name) + into)
            s.check(f"optimizer.momentum.{name}", buffer, slack)
            out = into + s.momentum * buffer if s.nesterov else buffer
        if following is not None:
            after = params - s.lr * (g + out if owned else out)
            slack = 4 * s.lr * slack + (2 * HALF_PLACE if inexact else 0) * np.abs(after)
            s.check_values(f"params.{name} afterwards", following.get("params", name), after, slack)


def check_message(s, k):
    """The bytes, by sim/WIRE.md; of powersgd they are no entries of a tensor."""
    sizes = {n: s.get("params", n).size for n in s.tensors}
    with open(s.path[: -len("safetensors")] + f"worker-{k}.message", "rb") as file:
        data = file.read()
    if s.compressor["name"] == "powersgd":
        return
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
            s.check_values(f"message {k}: {name}", got, sent)


def check_step(s, following):
    for k in s.workers:
        check_message(s, k)
    if s.before is not None:
        change = s.before.lr / s.lr if s.before.lr > 0 and s.lr > 0 else F(1)
        s.check_values("lr_change", s.lr_change.reshape(1), change.reshape(1), 1e-6 * change)
    for k in s.workers:
        check_scale(s, k)
    totals = [check_tensor(s, name) for name in s.tensors]
    factor = global_clip(s, totals)
    inexact = factor != 1 and s.compressor["name"] == "powersgd"
    check_update(s, following, factor, 1e-5 if inexact else 0)


def refuse_unknown(s, folder):
    known = set(COMPRESSORS) | {"powersgd"}
    parts = [(s.compressor, known), (s.quantiser, QUANTISERS), (s.memory, MEMORIES)]
    for part, table in parts:
        if part is not None and part["name"] not in table:
            sys.exit(f"{folder}: {part['name']}: no function in check_dump.py, see README.md")


def read_steps(folder):
    steps = []
    for path in sorted(glob.glob(os.path.join(folder, "step-*.safetensors"))):
        steps.append(Step(path, steps[-1] if steps else None))
        if steps[-1].number != len(steps) - 1 or steps[-1].meta["key"] != steps[0].meta["key"]:
            sys.exit(f"{path}: not the next step of the same run")
    if not steps:
        sys.exit(f"{folder}: no step-*.safetensors")
    refuse_unknown(steps[0], folder)
    return steps


def check_folder(folder):
    """Whether all of it is so."""
    steps = read_steps(folder)
    for s, following in zip(steps, steps[1:] + [None]):
        check_step(s, following)
    if any(s.wrong for s in steps):
        return False
    s = steps[0]
    parts = [part["name"] for part in (s.compressor, s.quantiser) if part is not None]
    of_all = f"{len(steps)} steps of {len(s.workers)} workers"
    print(f"ok: {of_all}, {'+'.join(parts)}, memory {s.memory['name']}")
    return True


def main():
    if len(sys.argv) < 2:
        sys.exit("usage: check_dump.py DIR...")
    if not all([check_folder(folder) for folder in sys.argv[1:]]):
        sys.exit(1)


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Golden numbers for the word-level LSTM and for K workers with DGC and residual memories.

Run by hand, once; the .bin files it writes beside itself are committed.  Needs PyTorch 1.13 or
newer and NumPy (Debian: python3-torch python3-numpy):

    python3 make_lstm.py                  writes the files
    python3 make_lstm.py --check          computes, asserts and compares, writes nothing
    python3 make_lstm.py --find-seed      looks for the seed of the workers' case again

Everything is computed in float64 and stored in float32.  Initial weights are exact in float32.
Each case is computed a second time in float32 and the largest difference printed: a program that
computes in float32 cannot be expected to come closer than that.

README.md says what is in which file and how the files are laid out.
"""

import math
import os
import struct
import sys

import numpy as np
import torch
from torch import nn

torch.set_num_threads(1)

VOCABULARY = 23
HIDDEN = 12  # of the embedding too

SEED_UNTIED = 101
SEED_TIED = 102
SEED_WORKERS = 1228  # of --find-seed: the selection below has no close calls


# ------------------------------------------------------------------------------------------------
# The files


class Records:
    """An ordered set of named arrays: 'f:...' float32, 'u:...' uint32."""

    def __init__(self):
        self.arrays = {}

    def floats(self, name, values):
        self._add("f:" + name, np.asarray(values, dtype=np.float64))

    def integers(self, name, values):
        self._add("u:" + name, np.asarray(values, dtype=np.uint32))

    def tensors(self, prefix, tensors):
        for name, tensor in tensors.items():
            self.floats(prefix + name, tensor.detach().numpy())

    def _add(self, name, array):
        assert name not in self.arrays, name
        self.arrays[name] = array.reshape(-1).copy()

    def write(self, path):
        """uint32 length of name, name, uint32 count, count 4-byte values; all little-endian."""
        with open(path, "wb") as out:
            for name, array in self.arrays.items():
                encoded = name.encode("ascii")
                out.write(struct.pack("<I", len(encoded)) + encoded)
                out.write(struct.pack("<I", array.size))
                out.write(array.astype("<f4" if name[0] == "f" else "<u4").tobytes())


def read(path):
    """The same file back, as a dict of arrays."""
    arrays = {}
    with open(path, "rb") as file:
        data = file.read()
    at = 0
    while at < len(data):
        (length,) = struct.unpack_from("<I", data, at)
        name = data[at + 4 : at + 4 + length].decode("ascii")
        at += 4 + length
        (count,) = struct.unpack_from("<I", data, at)
        kind = "<f4" if name[0] == "f" else "<u4"
        arrays[name] = np.frombuffer(data, dtype=kind, count=count, offset=at + 4)
        at += 4 + 4 * count
    return arrays


# ------------------------------------------------------------------------------------------------
# The model


class Lstm(nn.Module):
    """Embedding, LSTM, linear.  Tied: the linear layer's weight is the embedding's."""

    def __init__(self, layers, tied):
        super().__init__()
        self.encoder = nn.Embedding(VOCABULARY, HIDDEN)
        self.rnn = nn.LSTM(HIDDEN, HIDDEN, layers)
        self.decoder = nn.Linear(HIDDEN, VOCABULARY)
        if tied:
            self.decoder.weight = self.encoder.weight

    def forward(self, tokens, hidden):
        """tokens [time, column] -> logits [time * column, word], new hidden"""
        output, hidden = self.rnn(self.encoder(tokens), hidden)
        return self.decoder(output.reshape(-1, HIDDEN)), hidden


def random_weights(rng, layers, tied):
    """name -> float32 array; wider than usual, so that no gradient is tiny beside another."""
    shapes = {n: p.shape for n, p in Lstm(layers, tied).named_parameters()}
    bound = {"encoder": 0.5 if tied else 1.0, "decoder": 1.0, "rnn": 0.5}
    return {
        name: rng.uniform(-1, 1, shape).astype(np.float32)
        * np.float32(bound[name.split(".")[0]])
        for name, shape in shapes.items()
    }


def make_model(weights, layers, tied, dtype):
    model = Lstm(layers, tied).to(dtype)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.from_numpy(weights[name]))
    return model


def parameters(model):
    return dict(model.named_parameters())


def gradients(model):
    return {name: p.grad.clone() for name, p in model.named_parameters()}


def clone(tensors):
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def mean_loss(model, inputs, targets, hidden):
    """Mean cross-entropy over the segment's tokens, and the hidden state without its history."""
    logits, hidden = model(inputs, hidden)
    loss = nn.functional.cross_entropy(logits, targets.reshape(-1))
    return loss, tuple(h.detach() for h in hidden)


def worker_gradient(model, inputs, targets, hidden):
    model.zero_grad()
    loss, hidden = mean_loss(model, inputs, targets, hidden)
    loss.backward()
    return loss.item(), gradients(model), hidden


def loss_by_hand(weights, layers, inputs, targets):
    """The same mean loss in NumPy from a zero state: gates i,f,g,o; two biases a layer."""

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    w = {name: array.astype(np.float64) for name, array in weights.items()}
    h = np.zeros((layers, inputs.shape[1], HIDDEN))
    c = np.zeros_like(h)
    total = 0.0
    for tokens, answers in zip(inputs.numpy(), targets.numpy()):
        x = w["encoder.weight"][tokens]
        for l in range(layers):
            gates = x @ w[f"rnn.weight_ih_l{l}"].T + w[f"rnn.bias_ih_l{l}"]
            gates += h[l] @ w[f"rnn.weight_hh_l{l}"].T + w[f"rnn.bias_hh_l{l}"]
            i, f, g, o = np.split(gates, 4, axis=1)
            c[l] = sigmoid(f) * c[l] + sigmoid(i) * np.tanh(g)
            h[l] = sigmoid(o) * np.tanh(c[l])
            x = h[l]
        logits = x @ w.get("decoder.weight", w["encoder.weight"]).T + w["decoder.bias"]
        total -= logits[np.arange(len(answers)), answers].sum()
        total += np.log(np.exp(logits).sum(axis=1)).sum()
    return total / targets.numel()


# ------------------------------------------------------------------------------------------------
# The text


def batchify(stream, columns):
    """[R, columns], row = time; column c is tokens c*R .. (c+1)*R-1, what is left over dropped."""
    rows = len(stream) // columns
    return torch.from_numpy(stream[: rows * columns].reshape(columns, rows).T.copy())


def segments(streams, bptt):
    """(inputs, targets) of one epoch; the last may be short."""
    last = len(streams) - 1
    for i in range(0, last, bptt):
        n = min(bptt, last - i)
        yield streams[i : i + n], streams[i + 1 : i + 1 + n]


def evaluate(model, stream, columns, bptt):
    """Sum of the losses of all predicted tokens / their number, hidden carried; the number."""
    total, tokens, hidden = 0.0, 0, None
    with torch.no_grad():
        for inputs, targets in segments(batchify(stream, columns), bptt):
            loss, hidden = mean_loss(model, inputs, targets, hidden)
            total += loss.item() * targets.numel()
            tokens += targets.numel()
    return total / tokens, tokens


# ------------------------------------------------------------------------------------------------
# Cases 1 and 2: one worker, torch.optim.SGD


def single(dtype, seed, layers, tied, rows, sgd, clip):
    """20 steps over 6 columns; the hidden state is zero at the start of every epoch."""
    columns, bptt, steps = 6, 5, 20
    eval_columns, eval_bptt = 3, 4
    rng = np.random.default_rng(seed)
    corpus = rng.integers(0, VOCABULARY, columns * rows)
    eval_corpus = rng.integers(0, VOCABULARY, 38)  # 12 rows, 2 tokens left over; segments 4 4 3
    weights = random_weights(rng, layers, tied)

    model = make_model(weights, layers, tied, dtype)
    optimizer = torch.optim.SGD(model.parameters(), **sgd)
    streams = batchify(corpus, columns)
    grads, losses, norms, lengths = {}, [], [], []
    while len(losses) < steps:
        hidden = None  # zero
        for inputs, targets in segments(streams, bptt):
            if len(losses) == steps:
                break
            loss, gradient, hidden = worker_gradient(model, inputs, targets, hidden)
            if len(losses) in (0, steps - 1):
                grads[len(losses)] = gradient  # before clipping and weight decay
            if clip:
                norms.append(nn.utils.clip_grad_norm_(model.parameters(), clip).item())
            optimizer.step()
            losses.append(loss)
            lengths.append(len(inputs))
    eval_loss, eval_tokens = evaluate(model, eval_corpus, eval_columns, eval_bptt)

    inputs, targets = next(segments(streams, bptt))
    assert abs(loss_by_hand(weights, layers, inputs, targets) - losses[0]) < 1e-5
    if tied:
        check_tied(weights, inputs, targets, grads[0], dtype)

    records = Records()
    records.integers("vocabulary", [VOCABULARY])
    records.integers("hidden", [HIDDEN])
    records.integers("layers", [layers])
    records.integers("tied", [int(tied)])
    records.integers("columns", [columns])
    records.integers("rows", [rows])
    records.integers("bptt", [bptt])
    records.integers("steps", [steps])
    records.floats("lr", [sgd["lr"]])
    records.floats("momentum", [sgd.get("momentum", 0)])
    records.integers("nesterov", [int(sgd.get("nesterov", False))])
    records.floats("weight_decay", [sgd.get("weight_decay", 0)])
    records.floats("clip", [clip])
    records.integers("corpus", corpus)
    for name, array in weights.items():
        records.floats("init." + name, array)
    records.integers("lengths", lengths)
    records.floats("loss", losses)
    if clip:
        records.floats("norm", norms)
    for step, gradient in grads.items():
        records.tensors(f"grad{step}.", gradient)
    records.tensors("final.", parameters(model))
    records.integers("eval_columns", [eval_columns])
    records.integers("eval_bptt", [eval_bptt])
    records.integers("eval_corpus", eval_corpus)
    records.floats("eval_loss", [eval_loss])
    records.integers("eval_tokens", [eval_tokens])
    return records


def check_tied(weights, inputs, targets, gradient, dtype):
    """A weight used twice: its gradient is the sum of the gradients of both uses."""
    apart = make_model({**weights, "decoder.weight": weights["encoder.weight"]}, 1, False, dtype)
    _, both, _ = worker_gradient(apart, inputs, targets, None)
    total = both["encoder.weight"] + both["decoder.weight"]
    assert torch.allclose(total, gradient["encoder.weight"], rtol=1e-4, atol=1e-6)


def lstm_untied(dtype):
    records = single(dtype, SEED_UNTIED, layers=2, tied=False, rows=101, sgd={"lr": 1.5}, clip=0)
    assert set(records.arrays["u:lengths"]) == {5}  # 20 steps are exactly one epoch
    return {"lstm_untied": records}


def lstm_tied(dtype):
    sgd = {"lr": 2.0, "momentum": 0.9, "nesterov": True, "weight_decay": 1e-3}
    records = single(dtype, SEED_TIED, layers=1, tied=True, rows=18, sgd=sgd, clip=0.25)
    assert list(records.arrays["u:lengths"]) == [5, 5, 5, 2] * 5
    clipped = records.arrays["f:norm"] > 0.25
    assert clipped.any() and not clipped.all()
    return {"lstm_tied": records}


# ------------------------------------------------------------------------------------------------
# Case 3: K workers

WORKERS = 3
COLUMNS = 2  # a worker
BPTT = 5
STEPS = 6
LR = 0.5
MOMENTUM = 0.9
RATIO = 0.1
CLIP = 0.4
SHOWN = (0, 2, 5)  # steps whose memories are recorded

closest_call = [math.inf]  # smallest relative gap between the last sent and the first not sent


def clip_local(gradient):
    """The undivided gradient of one worker, to norm CLIP * K^-1/2; and its norm before."""
    limit = CLIP * WORKERS**-0.5
    norm = math.sqrt(sum((g.double() ** 2).sum().item() for g in gradient.values()))
    scale = min(1.0, limit / (norm + 1e-6))  # as torch.nn.utils.clip_grad_norm_
    return {name: g * scale for name, g in gradient.items()}, norm


def top_k(tensor, ratio):
    """Mask of the k = max(1, floor(n * ratio)) largest |x|; of equals the lower index."""
    flat = tensor.abs().flatten().numpy()
    k = max(1, math.floor(flat.size * ratio))
    order = np.argsort(-flat, kind="stable")
    if k < flat.size:
        last, first_out = flat[order[k - 1]], flat[order[k]]
        closest_call[0] = min(closest_call[0], (last - first_out) / last)
    mask = torch.zeros(flat.size, dtype=tensor.dtype)
    mask[torch.from_numpy(order[:k].copy())] = 1
    return mask.reshape(tensor.shape)


def momentum_step(buffer, gradient, nesterov):
    """New buffer and direction.  Nesterov's buffer is m times that of torch.optim.SGD."""
    if nesterov:
        buffer = MOMENTUM * (buffer + gradient)
        return buffer, buffer + gradient
    buffer = MOMENTUM * buffer + gradient
    return buffer, buffer


class DenseMomentum:
    """1-D tensors with DGC: averaged first, then one momentum buffer for all workers."""

    def __init__(self, nesterov):
        self.nesterov, self.u = nesterov, {}

    def __call__(self, name, mean):
        u = self.u.get(name, torch.zeros_like(mean))
        self.u[name], direction = momentum_step(u, mean, self.nesterov)
        return direction


class Dgc:
    """One worker's memory of DGC: u momentum, v what is not sent yet."""

    def __init__(self, nesterov, ratio=RATIO, masking=True):
        self.nesterov, self.ratio, self.masking = nesterov, ratio, masking
        self.u, self.v = {}, {}

    def __call__(self, name, g):
        u = self.u.get(name, torch.zeros_like(g))
        v = self.v.get(name, torch.zeros_like(g))
        u, direction = momentum_step(u, g, self.nesterov)
        v = v + direction
        mask = top_k(v, self.ratio)
        sent = v * mask
        self.v[name] = v * (1 - mask)
        self.u[name] = u * (1 - mask) if self.masking else u
        return sent

    def state(self):
        return {"u": self.u, "v": self.v}


class Residual:
    """One worker's residual memory: e what is not sent yet."""

    def __init__(self):
        self.e, self.total_in, self.total_sent = {}, {}, {}

    def __call__(self, name, g):
        e = self.e.get(name, torch.zeros_like(g)) + g
        mask = top_k(e, RATIO)
        self.e[name] = e * (1 - mask)
        self.total_in[name] = self.total_in.get(name, 0) + g
        self.total_sent[name] = self.total_sent.get(name, 0) + e * mask
        return e * mask

    def state(self):
        return {"e": self.e}


class DecayAfter:
    """Weight decay after the exchange, uncompressed, with its own momentum, as official DGC."""

    def __init__(self, decay, nesterov):
        self.decay, self.nesterov, self.buffer = decay, nesterov, {}

    def __call__(self, name, weight):
        w = self.decay * weight
        buffer = self.buffer.get(name, torch.zeros_like(w))
        self.buffer[name], direction = momentum_step(buffer, w, self.nesterov)
        return direction


def workers_setup(seed):
    rng = np.random.default_rng(seed)
    corpus = rng.integers(0, VOCABULARY, WORKERS * COLUMNS * (STEPS * BPTT + 1))
    return corpus, random_weights(rng, 2, False)


def run_workers(seed, dtype, update, decay_before=0.0):
    """STEPS steps; update(model, clipped gradients of the workers) changes the weights.

    Worker k owns columns 2k and 2k+1 and a hidden state; all see the same weights.
    decay_before: weight decay added to each worker's gradient after clipping.
    Yields (step, model, losses, norms, gradients before clipping) after each step.
    """
    corpus, weights = workers_setup(seed)
    model = make_model(weights, 2, False, dtype)
    hidden = [None] * WORKERS
    streams = batchify(corpus, WORKERS * COLUMNS)
    for step, (inputs, targets) in enumerate(segments(streams, BPTT)):
        losses, norms, raw, clipped = [], [], [], []
        for k in range(WORKERS):
            mine = slice(k * COLUMNS, (k + 1) * COLUMNS)
            segment = inputs[:, mine], targets[:, mine]
            loss, g, hidden[k] = worker_gradient(model, *segment, hidden[k])
            raw.append(g)
            g, norm = clip_local(g)
            for name, p in model.named_parameters():
                g[name] = g[name] + decay_before * p.detach()
            clipped.append(g)
            losses.append(loss)
            norms.append(norm)
        update(model, clipped)
        yield step, model, losses, norms, raw


def compressed_update(memories, dense, decay_after=None):
    """p -= lr * (mean of what the workers send + decay after the exchange)."""

    def update(model, clipped):
        with torch.no_grad():
            for name, p in model.named_parameters():
                if p.dim() == 2:
                    mean = sum(m(name, g[name]) for m, g in zip(memories, clipped)) / WORKERS
                else:
                    mean = dense(name, sum(g[name] for g in clipped) / WORKERS)
                if decay_after:
                    mean = mean + decay_after(name, p.clone())
                p -= LR * mean

    return update


def workers_run(seed, dtype, memories, dense):
    """The records of one compressed run."""
    records = Records()
    losses, norms = [], []
    update = compressed_update(memories, dense)
    shown = Records()
    for step, model, loss, norm, _ in run_workers(seed, dtype, update):
        losses += loss
        norms += norm
        shown.tensors(f"step{step}.", parameters(model))
        if step in SHOWN:
            for k, memory in enumerate(memories):
                for letter, tensors in memory.state().items():
                    shown.tensors(f"step{step}.{letter}.w{k}.", tensors)
            if isinstance(dense, DenseMomentum):
                shown.tensors(f"step{step}.u.", dense.u)
    records.floats("loss", losses)
    records.floats("norm", norms)
    records.arrays.update(shown.arrays)
    return records


def workers_first_step(seed, dtype):
    """Settings, initial weights and each worker's own gradient."""
    corpus, weights = workers_setup(seed)
    _, _, losses, norms, raw = next(run_workers(seed, dtype, lambda model, clipped: None))

    # The mean of the workers' gradients is the gradient of one worker with all columns.
    inputs, targets = next(segments(batchify(corpus, WORKERS * COLUMNS), BPTT))
    _, whole, _ = worker_gradient(make_model(weights, 2, False, dtype), inputs, targets, None)
    for name, gradient in whole.items():
        mean = sum(g[name] for g in raw) / WORKERS
        assert torch.allclose(mean, gradient, rtol=1e-4, atol=1e-6), name

    records = Records()
    records.integers("vocabulary", [VOCABULARY])
    records.integers("hidden", [HIDDEN])
    records.integers("layers", [2])
    records.integers("tied", [0])
    records.integers("workers", [WORKERS])
    records.integers("columns", [COLUMNS])
    records.integers("rows", [len(corpus) // (WORKERS * COLUMNS)])
    records.integers("bptt", [BPTT])
    records.integers("steps", [STEPS])
    records.floats("lr", [LR])
    records.floats("momentum", [MOMENTUM])
    records.floats("ratio", [RATIO])
    records.floats("clip", [CLIP])
    records.integers("shown", SHOWN)
    records.integers("corpus", corpus)
    for name, array in weights.items():
        records.floats("init." + name, array)
    records.floats("loss0", losses)
    records.floats("norm0", norms)
    for k, gradient in enumerate(raw):
        records.tensors(f"grad0.w{k}.", gradient)
    return records


def torch_sgd(seed, dtype, nesterov, decay):
    """Weights after STEPS steps of torch.optim.SGD on the mean of the clipped gradients."""
    optimizer = None

    def update(model, clipped):
        nonlocal optimizer
        if optimizer is None:
            optimizer = torch.optim.SGD(
                model.parameters(), LR, momentum=MOMENTUM, nesterov=nesterov, weight_decay=decay
            )
        for name, p in model.named_parameters():
            p.grad = sum(g[name] for g in clipped) / WORKERS
        optimizer.step()

    for _, model, _, _, _ in run_workers(seed, dtype, update):
        pass
    return clone(parameters(model))


def dgc_everything(seed, dtype, nesterov, decay_before=0.0, decay_after=0.0):
    """Weights after STEPS steps of DGC at ratio 1 without masking."""
    update = compressed_update(
        [Dgc(nesterov, ratio=1.0, masking=False) for _ in range(WORKERS)],
        DenseMomentum(nesterov),
        DecayAfter(decay_after, nesterov) if decay_after else None,
    )
    for _, model, _, _, _ in run_workers(seed, dtype, update, decay_before):
        pass
    return clone(parameters(model))


def workers_decay(seed, dtype):
    """DGC at ratio 1 is torch.optim.SGD, with weight decay before or after the exchange."""
    decay = 0.01
    records = Records()
    records.floats("weight_decay", [decay])
    for nesterov, label in ((False, "plain"), (True, "nesterov")):
        without = torch_sgd(seed, dtype, nesterov, 0.0)
        expected = torch_sgd(seed, dtype, nesterov, decay)
        near = {"rtol": 1e-10, "atol": 1e-12} if dtype == torch.float64 else {"atol": 1e-5}
        for name in expected:
            assert not torch.allclose(without[name], expected[name], **near)
            same = dgc_everything(seed, dtype, nesterov)
            assert torch.allclose(same[name], without[name], **near), name
            for place in ("decay_before", "decay_after"):
                same = dgc_everything(seed, dtype, nesterov, **{place: decay})
                assert torch.allclose(same[name], expected[name], **near), (name, place)
        records.tensors(f"final_{label}.", expected)
    return records


def workers(dtype, seed=SEED_WORKERS):
    closest_call[0] = math.inf
    files = {"workers": workers_first_step(seed, dtype)}
    for nesterov, name in ((False, "workers_dgc"), (True, "workers_dgc_nesterov")):
        memories = [Dgc(nesterov) for _ in range(WORKERS)]
        files[name] = workers_run(seed, dtype, memories, DenseMomentum(nesterov))
        for memory in memories:
            for tensor, v in memory.v.items():
                assert ((v == 0) <= (memory.u[tensor] == 0)).all(), tensor  # masked where sent
    memories = [Residual() for _ in range(WORKERS)]
    files["workers_residual"] = workers_run(seed, dtype, memories, lambda name, mean: mean)
    for memory in memories:
        for name, e in memory.e.items():  # all that came in was sent or is still there
            both = memory.total_sent[name] + e
            assert torch.allclose(both, memory.total_in[name], rtol=1e-4, atol=1e-6)
    return files


def find_seed():
    best = 0
    for seed in range(100, 1500):
        workers(torch.float64, seed)
        if closest_call[0] > best:
            best = closest_call[0]
            print(f"seed {seed}: closest call {best:.2e}", flush=True)


# ------------------------------------------------------------------------------------------------


def all_files(dtype):
    files = {**lstm_untied(dtype), **lstm_tied(dtype), **workers(dtype)}
    if dtype == torch.float64:
        # A selection that float32 rounding could turn round would be no golden number.
        assert closest_call[0] > 2e-4, closest_call
        print(f"closest call of the selections: {closest_call[0]:.1e}, relative")
    files["workers_decay"] = workers_decay(SEED_WORKERS, dtype)
    return files


def main():
    if "--find-seed" in sys.argv:
        find_seed()
        return
    here = os.path.dirname(os.path.abspath(__file__))
    exact, rounded = all_files(torch.float64), all_files(torch.float32)
    for file, records in exact.items():
        worst = (0.0, "")
        for name, array in records.arrays.items():
            other = rounded[file].arrays[name]
            if name[0] == "u":
                assert (array == other).all()
            else:
                # relative to the array's largest value
                difference = np.abs(array - other).max() / max(np.abs(array).max(), 1e-30)
                worst = max(worst, (difference, name))
        print(f"{file}: float32 differs by {worst[0]:.1e} of an array's largest: {worst[1]}")
        assert worst[0] < 1e-4, file
        if "--check" not in sys.argv:
            path = os.path.join(here, file + ".bin")
            records.write(path)
            back = read(path)
            assert list(back) == list(records.arrays)
            for name, array in records.arrays.items():
                kind = np.float32 if name[0] == "f" else np.uint32
                assert (back[name] == array.astype(kind)).all(), name
                if name.startswith("f:init."):
                    assert (back[name].astype(np.float64) == array).all(), name
    print("ok")


if __name__ == "__main__":
    main()

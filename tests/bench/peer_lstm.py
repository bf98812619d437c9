#!/usr/bin/env python3
"""A step of K workers in PyTorch, in the manner of the reference: one worker after another.

    peer_lstm.py --workers K [--steps N] [--threads N]

Wants requirements.txt; tests/bench/peers runs it.  peer_work.py tells what a step is.

The settings are those that were fastest with PyTorch 2.15 on two cores of a Zen 4, K=16:

    kept    oneDNN's LSTM, which nn.LSTM takes by itself: 0.25 s at 8 columns, 0.83 s without
            malloc that gives nothing back: 5.0 s a step, 6.2 as it comes, which spends them on
            pages that are zeroed again
            linear_cross_entropy: up to 5 % of the projection and the loss
            OMP_WAIT_POLICY=passive: the same on idle cores; beside another program threads that
            spin take 3 times as long
            topk(sorted=False): 0.7 of sorted
    no use  torch.compile of the projection and the loss, huge pages, a sparse gradient of the
            embedding (within 6 %, either way)
    worse   top-k of 2, 8 or 40 rows and then of what they gave (1.7 to 3 times); two tensors at a
            time in threads (more still)

Everything is in float32, as in the others.
"""

import ctypes
import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from torch import nn
from torch.nn import functional

from peer_work import Work, arguments, measure

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3


class Lstm(nn.Module):
    def __init__(self, work):
        super().__init__()
        self.dropout = work.dropout
        self.encoder = nn.Embedding(work.vocabulary, work.hidden)
        self.rnn = nn.LSTM(work.hidden, work.hidden, work.layers, dropout=work.dropout)
        self.decoder = nn.Linear(work.hidden, work.vocabulary)

    def forward(self, tokens, targets, state):
        """[time, column] twice -> mean loss, new state"""
        x = functional.dropout(self.encoder(tokens), self.dropout)
        x, state = self.rnn(x, state)
        x = functional.dropout(x, self.dropout).flatten(0, 1)
        weight, bias = self.decoder.weight, self.decoder.bias
        loss = functional.linear_cross_entropy(x, weight, targets.flatten(), linear_bias=bias)
        return loss, state


class Trainer:
    """The model, and every worker's residual memory and hidden state."""

    def __init__(self, work):
        torch.manual_seed(work.seed)
        self.work = work
        self.model = Lstm(work)
        self.model.load_state_dict({n: torch.from_numpy(w) for n, w in work.weights().items()})
        self.params = list(self.model.parameters())
        self.sparse = [p for p in self.params if p.dim() >= 2]
        self.whole = [p for p in self.params if p.dim() < 2]
        self.size = [torch.empty_like(p) for p in self.sparse]
        workers = range(work.workers)
        self.residual = [[torch.zeros_like(p) for p in self.sparse] for _ in workers]
        zero = torch.zeros(work.layers, work.columns, work.hidden)
        self.state = [(zero, zero) for _ in workers]

    def gradient(self, worker, tokens, targets):
        """Leaves the gradient of loss / K in the parameters; returns the loss."""
        for p in self.params:
            p.grad = None
        loss, state = self.model(tokens, targets, self.state[worker])
        (loss / self.work.workers).backward()
        self.state[worker] = tuple(s.detach() for s in state)
        return loss.item()

    def compensate(self, worker, whole):
        """Clips and adds: sparse tensors to the worker's residual, the others to whole."""
        norm = nn.utils.get_total_norm([p.grad for p in self.params]).item()
        scale = min(1.0, self.work.clip / (norm + 1e-6))
        grads = [p.grad for p in self.sparse]
        torch._foreach_add_(self.residual[worker], grads, alpha=scale)
        torch._foreach_add_(whole, [p.grad for p in self.whole], alpha=scale)

    def encode(self, worker):
        """A message: indices and values of every sparse tensor, taken off the residual."""
        message = []
        for residual, size in zip(self.residual[worker], self.size):
            keep = self.work.keep(residual.numel())
            torch.abs(residual, out=size)
            index = torch.topk(size.flatten(), keep, sorted=False).indices
            flat = residual.view(-1)
            message.append((index, flat[index]))
            flat.index_fill_(0, index, 0)
        return message

    def apply(self, messages, whole):
        """The loss was divided by K, so the sum of the workers is their mean."""
        lr = self.work.lr
        for message in messages:
            for p, (index, value) in zip(self.sparse, message):
                p.view(-1).index_add_(0, index, value, alpha=-lr)
        torch._foreach_add_(self.whole, whole, alpha=-lr)

    def step(self, tokens, targets):
        tokens, targets = torch.from_numpy(tokens), torch.from_numpy(targets)
        whole = [torch.zeros_like(p) for p in self.whole]
        messages, loss = [], 0.0
        for worker in range(self.work.workers):
            loss += self.gradient(worker, tokens[worker], targets[worker])
            with torch.no_grad():
                self.compensate(worker, whole)
                messages.append(self.encode(worker))
        with torch.no_grad():
            self.apply(messages, whole)
        return loss / self.work.workers


def main():
    args = arguments(__doc__.splitlines()[0])
    libc = ctypes.CDLL(None)
    libc.mallopt(M_MMAP_THRESHOLD, 1 << 30)
    libc.mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1)
    torch.set_num_threads(args.threads)
    work = Work(workers=args.workers)
    measure(f"pytorch {torch.__version__}", Trainer(work), work, args.steps)


if __name__ == "__main__":
    main()

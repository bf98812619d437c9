"""The work that the peers do, of which every one does the same, and how they are timed.

A step of K workers: a 2-layer LSTM language model, each worker with its own columns of the text
and its own hidden state; the gradient of its mean loss over K, clipped; top-k of every tensor of
two dimensions by |.| with residual memory, tensors of one dimension whole; SGD by the sum over
workers.  That is the regime lstm-ptb at bptt 35 on random tokens.
"""

import argparse
import json
import os
import time
from dataclasses import dataclass

import numpy as np

WARM_UP = 2  # steps that are not timed: memory is touched, programs are compiled


@dataclass(frozen=True)
class Work:
    workers: int = 1
    total_batch: int = 128
    vocabulary: int = 10000
    hidden: int = 700  # of the embedding too
    layers: int = 2
    bptt: int = 35
    dropout: float = 0.65
    lr: float = 20
    clip: float = 0.25
    ratio: float = 0.001
    seed: int = 1

    @property
    def columns(self):
        """Of one worker."""
        return self.total_batch // self.workers

    def keep(self, n):
        """How many of a tensor's n entries are sent."""
        return max(1, int(n * self.ratio))

    def weights(self):
        """name -> float32 array, named and laid out as PyTorch does: the same for every peer."""
        random = np.random.default_rng(self.seed)
        v, h, inner = self.vocabulary, self.hidden, self.hidden**-0.5

        def uniform(bound, *shape):
            return random.uniform(-bound, bound, shape).astype(np.float32)

        weights = {"encoder.weight": uniform(0.1, v, h)}
        for layer in range(self.layers):
            weights[f"rnn.weight_ih_l{layer}"] = uniform(inner, 4 * h, h)
            weights[f"rnn.weight_hh_l{layer}"] = uniform(inner, 4 * h, h)
            weights[f"rnn.bias_ih_l{layer}"] = uniform(inner, 4 * h)
            weights[f"rnn.bias_hh_l{layer}"] = uniform(inner, 4 * h)
        weights["decoder.weight"] = uniform(0.1, v, h)
        weights["decoder.bias"] = np.zeros(v, np.float32)
        return weights

    def text(self, steps):
        """Tokens [worker, row, column]: enough rows for so many steps."""
        random = np.random.default_rng(self.seed + 1)
        rows = steps * self.bptt + 1
        columns = random.integers(0, self.vocabulary, (self.total_batch, rows))
        return columns.reshape(self.workers, self.columns, rows).transpose(0, 2, 1).copy()

    def segment(self, text, step):
        """Tokens, and those that follow them: [worker, bptt, column] each."""
        first = step * self.bptt
        return text[:, first : first + self.bptt], text[:, first + 1 : first + self.bptt + 1]


def arguments(about):
    """Also keeps to as many cores as there are threads, for JAX goes by the cores it may use."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--workers", type=int, default=1, metavar="K")
    parser.add_argument("--steps", type=int, default=5, metavar="N", help="that are timed")
    parser.add_argument("--threads", type=int, default=2, metavar="N")
    args = parser.parse_args()
    total = Work.total_batch
    if args.workers < 1 or total % args.workers:
        parser.error(f"--workers: {args.workers} does not divide the total batch of {total}")
    if args.steps < 1 or args.threads < 1:
        parser.error("--steps and --threads: at least 1")
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: args.threads])
    return args


def measure(peer, trainer, work, steps):
    """trainer.step(tokens, targets) does a step and returns its mean loss when all is done."""
    text = work.text(WARM_UP + steps)
    seconds = []
    for step in range(WARM_UP + steps):
        tokens, targets = work.segment(text, step)
        began = time.perf_counter()
        loss = trainer.step(tokens, targets)
        seconds.append(round(time.perf_counter() - began, 4))
    result = {"peer": peer, "workers": work.workers, "seconds_per_step": seconds[WARM_UP:]}
    print(json.dumps({**result, "loss": round(loss, 4)}))

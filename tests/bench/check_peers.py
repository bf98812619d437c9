#!/usr/bin/env python3
"""That all three do the same work: from equal weights and tokens, without dropout, equal losses.

    check_peers.py [PROGRAM]

Five steps of PyTorch and of JAX, compared step by step; of PROGRAM, build/gradpress say, the mean
over the steps.  Prints ok, or what differs and exits with 1.  Wants requirements.txt;
tests/bench/peers --check runs it.
"""

import json
import os
import sqlite3
import subprocess
import sys
import tempfile
from dataclasses import replace

import numpy as np

import peer_lstm
import peer_lstm_jax
from peer_work import Work

STEPS = 5
ALLOWED = 1e-4
# Small, but so that gradients are clipped and what is sent is felt.
WORK = Work(total_batch=8, vocabulary=30, hidden=16, bptt=6, dropout=0, clip=0.05, ratio=0.05)


def text_of(work):
    """Tokens numbered by first appearance, as the program does; the last id is its <eos>."""
    text = work.text(STEPS) % (work.vocabulary - 1)
    ids = {}
    for token in columns_of(text).flat:
        ids.setdefault(int(token), len(ids))
    assert len(ids) == work.vocabulary - 1, "a word does not appear"
    return np.array([ids[i] for i in range(len(ids))])[text]


def columns_of(text):
    """[worker, row, column] -> [column of all workers, row]"""
    return text.transpose(0, 2, 1).reshape(-1, text.shape[1])


def losses(trainer, work, text):
    return [trainer.step(*work.segment(text, step)) for step in range(STEPS)]


def write_weights(path, weights):
    """As safetensors."""
    header, at = {}, 0
    for name, array in weights.items():
        header[name] = {
            "dtype": "F32",
            "shape": array.shape,
            "data_offsets": [at, at + array.nbytes],
        }
        at += array.nbytes
    encoded = json.dumps(header).encode()
    with open(path, "wb") as file:
        file.write(len(encoded).to_bytes(8, "little") + encoded)
        for array in weights.values():
            file.write(array.tobytes())


def mean_loss(program, work, text):
    """Of the program: its training loss over an epoch of these steps."""
    with tempfile.TemporaryDirectory() as folder:
        at = lambda name: os.path.join(folder, name)
        write_weights(at("weights"), work.weights())
        for part in ("train", "valid", "test"):
            with open(at(part + ".txt"), "w", encoding="ascii") as file:
                print(*columns_of(text).flat, file=file)
        command = [program, "train", "lstm-ptb", "--no-tuned", "--quiet", "--device", "cpu"]
        settings = {
            "--init": at("weights"),
            "--db": at("db"),
            "--workers": work.workers,
            "--total-batch": work.total_batch,
            "--hidden": work.hidden,
            "--layers": work.layers,
            "--bptt": work.bptt,
            "--dropout": work.dropout,
            "--lr": work.lr,
            "--clip": work.clip,
            "--clip-mode": "reference",
            "--compressor": f"topk:ratio={work.ratio}",
            "--epochs": 1,
        }
        for flag, value in settings.items():
            command += [flag, str(value)]
        command += ["--set", "data.name=text", "--set", f"data.path={folder}"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        database = sqlite3.connect(at("db"))
        ((loss, steps),) = database.execute("select train_loss, steps from epochs")
        database.close()
    assert steps == STEPS
    return loss


def main():
    if len(sys.argv) > 2 or sys.argv[1:2] in (["-h"], ["--help"]):
        sys.exit(__doc__)
    wrong = []
    for workers in (1, 4):
        work = replace(WORK, workers=workers)
        text = text_of(work)
        pytorch = losses(peer_lstm.Trainer(work), work, text)
        jax = losses(peer_lstm_jax.Trainer(work), work, text)
        for step, (a, b) in enumerate(zip(pytorch, jax)):
            if abs(a - b) > ALLOWED:
                wrong.append(f"K={workers}, step {step}: loss {a:.6f} in PyTorch, {b:.6f} in JAX")
        if len(sys.argv) == 2:
            ours, mean = mean_loss(sys.argv[1], work, text), sum(pytorch) / STEPS
            if abs(ours - mean) > ALLOWED:
                wrong.append(f"K={workers}: mean loss {ours:.6f} here, {mean:.6f} in PyTorch")
    print("\n".join(wrong) if wrong else "ok: the same losses")
    sys.exit(len(wrong) > 0)


if __name__ == "__main__":
    main()

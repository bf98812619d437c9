"""curves.py make FOLDER -- a small text and a regime for it, in FOLDER.
curves.py compare A.db B.db TOLERANCE -- whether two runs have the same curve: losses to the
relative tolerance, bytes to the byte."""

import json
import random
import sqlite3
import sys
from pathlib import Path

REGIME = {
    "about": "a small text, to compare devices with",
    "model": {"name": "lstm", "hidden": 96, "layers": 1, "dropout": 0.2, "tied": False},
    "data": {"name": "text", "bptt": 15, "sharding": "columns"},
    "evaluate": {"batch": 4, "bptt": 15},
    "workers": 4,
    "total_batch": 16,
    "epochs": 3,
    "schedule": {"0": {"optimizer": "sgd", "lr": 8, "momentum": 0, "weight_decay": 1e-6}},
    "clip": {"norm": 1, "mode": "local"},
}


def make(folder):
    """Each of 60 words has four that follow it."""
    draw = random.Random(1)
    follow = [[draw.randrange(60) for _ in range(4)] for _ in range(60)]
    for part, lines in (("train", 1600), ("valid", 160), ("test", 160)):
        word = 0
        with open(folder / f"{part}.txt", "w", encoding="ascii") as file:
            for _ in range(lines):
                words = []
                for _ in range(draw.randrange(5, 20)):
                    word = draw.choice(follow[word])
                    words.append(f"w{word}")
                file.write(" ".join(words) + "\n")
    regime = REGIME | {"data": REGIME["data"] | {"path": str(folder)}}
    (folder / "tiny.json").write_text(json.dumps(regime, indent=1), encoding="ascii")


def curve(path):
    with sqlite3.connect(path) as db:
        (status,) = db.execute("select status from runs").fetchone()
        epochs = db.execute(
            "select epoch, bytes_up, bytes_down, steps, train_loss, valid_loss, grad_norm"
            " from epochs order by epoch"
        ).fetchall()
        tests = db.execute("select which, loss from tests order by which").fetchall()
    return status, epochs, tests


def compare(one, other, tolerance):
    (status, epochs, tests), (other_status, other_epochs, other_tests) = curve(one), curve(other)
    print(f"{one}: {status}, {len(epochs)} epochs; {other}: {other_status}, {len(other_epochs)}")
    same = status == other_status == "done" and len(epochs) == len(other_epochs) > 0
    worst = 0.0
    for a, b in zip(epochs, other_epochs):
        print(a, b)
        same = same and a[:4] == b[:4]
        worst = max([worst] + [abs(x - y) / abs(y) for x, y in zip(a[4:], b[4:])])
    for a, b in zip(tests, other_tests):
        worst = max(worst, abs(a[1] - b[1]) / abs(b[1]))
    print(f"largest relative difference {worst:.3g}, {tolerance:g} allowed")
    return same and worst <= tolerance


def main(arguments):
    if arguments[:1] == ["make"] and len(arguments) == 2:
        make(Path(arguments[1]).resolve())
        return 0
    if arguments[:1] == ["compare"] and len(arguments) == 4:
        return 0 if compare(arguments[1], arguments[2], float(arguments[3])) else 1
    print(__doc__, file=sys.stderr)
    return 2


sys.exit(main(sys.argv[1:]))

#!/usr/bin/env python3
"""Plants faults in dumps that are right, and sees that check_dump.py finds each.

    python3 plant_faults.py DIR...

In every kind of array of a step one value becomes the next float; a gradient, which rounding may
swallow, and what is compared with a bound, a thousandth more.  What the regime says of draws, the
order of tensors, and the ratio become something else.  The files stay as they are.
"""

import contextlib
import io
import sys

import numpy as np

import check_dump
from check_dump import F

BOUNDED = ("first", "sent", "delivered", "residual", "velocity")  # of powersgd
MOVING = ("clt-k", "slice")  # with the step
RATIO_FREE = ("adacomp", "threshold", "variance")


def found(s, following):
    """What is printed of a step, or nothing."""
    with contextlib.redirect_stdout(io.StringIO()) as out:
        check_dump.check_step(s, following)
    return out.getvalue()


def kinds(s):
    """Of each kind of array the first one that is not of a tensor that is sent whole."""
    whole = tuple("." + t for t in s.tensors if not s.compressed(t))
    first = {}
    for name in s.array:
        if not name.endswith(whole):
            first.setdefault(name.split(".")[0], name)
    return first


def faulty(s, kind, name):
    """With another largest value; of squares, forgotten where an entry is sent, elsewhere."""
    array = s.array[name].copy()
    counts = s.array[name.replace("square", "sent", 1)] == 0 if kind == "square" else True
    place = np.unravel_index((np.abs(array) * counts).argmax(), array.shape)
    bounded = kind in ("grad", "square") or (s.compressor["name"] == "powersgd" and kind in BOUNDED)
    array[place] = array[place] * F(1.001) if bounded else np.nextafter(array[place], F(np.inf))
    return array


def planted_arrays(steps):
    """For each fault what it is, and whether it is found."""
    before, s, following = steps
    for kind, name in kinds(s).items():
        right = s.array[name]
        s.array[name] = faulty(s, kind, name)
        output = found(before, s) if kind == "params" else found(s, following)
        # What is computed from is seen in what is computed.
        yield name, (":" if kind in ("grad", "samples", "square") else name) in output
        s.array[name] = right


def draws(s, following):
    """Whether anything is drawn in a step."""
    words, drawn = check_dump.random_words, []
    check_dump.random_words = lambda *of: drawn.append(of) or words(*of)
    found(s, following)
    check_dump.random_words = words
    return bool(drawn)


def planted_lies(steps):
    """The same of what is said of the step."""
    _, s, following = steps
    compressed = sum(s.compressed(t) for t in s.tensors)
    right = dict(vars(s))
    lies = {"ratio": {"meta": {**s.meta, "ratio": str(0.7 * float(s.meta["ratio"]))}}}
    drawn = draws(s, following)
    if drawn or s.compressor["name"] in MOVING:
        lies["number"] = {"number": s.number + 1}
    if drawn:
        lies["seed"] = {"regime": {**s.regime, "seed": s.regime["seed"] + 1}}
        lies["order"] = {"tensors": s.tensors[compressed - 1 :: -1] + s.tensors[compressed:]}
    for what, lie in lies.items():
        if what != "ratio" or s.compressor["name"] not in RATIO_FREE and float(s.meta["ratio"]) < 1:
            vars(s).update(lie)
            yield what, found(s, following) != ""
            vars(s).update(right)


def main():
    planted = missed = 0
    for folder in sys.argv[1:]:
        steps = check_dump.read_steps(folder)[:3]
        for what, is_found in [*planted_arrays(steps), *planted_lies(steps)]:
            planted += 1
            missed += not is_found
            if not is_found:
                print(f"{folder}: {what}: a fault is not found")
    print(f"{planted} faults, {missed} not found")
    sys.exit(bool(missed or not planted))


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Medians of the seconds of a step, and their ratios, from what tests/bench/peers measured.

    peer_table.py FILE

A line of FILE: a program, its number of workers, and what it printed, with tabs between.
"""

import json
import sys
from statistics import median

OURS = "gradpress"


def read(path):
    """(program -> K -> seconds of every step of all rounds), and what each calls itself"""
    seconds, names = {}, {}
    with open(path, encoding="utf-8") as file:
        for line in file:
            program, workers, printed = line.split("\t")
            result = json.loads(printed)
            names[program] = result.get("peer", program)
            of_program = seconds.setdefault(program, {})
            of_program.setdefault(int(workers), []).extend(result["seconds_per_step"])
    return seconds, names


def row(name, cells):
    print(f"{name:28}" + "".join(f"{cell:>16}" for cell in cells))


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    seconds, names = read(sys.argv[1])
    workers = sorted(seconds[OURS])
    middle = {program: {k: median(s[k]) for k in workers} for program, s in seconds.items()}
    row("median (fastest)", [f"K={k}" for k in workers])
    for program, of_k in seconds.items():
        row(names[program], [f"{middle[program][k]:.2f} ({min(of_k[k]):.2f})" for k in workers])
    for program in seconds:
        if program != OURS:
            ratios = [f"{middle[program][k] / middle[OURS][k]:.2f}x" for k in workers]
            row(f"{names[program]} / ours", ratios)
    ratios = [f"{middle[OURS][k] / middle[OURS][workers[0]]:.2f}x" for k in workers]
    row(f"ours / ours at K={workers[0]}", ratios)


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Makes safetensors files, and compares what is in them; wants Python alone.

    tensors.py write FILE NAME=LIST...       a number, or lists of them; NAME:I32=LIST of that type,
                                             NAME:bits=LIST floats as words; @NAME=TEXT a note
    tensors.py near FILE NAME=LIST...        whether these are their values, but for rounding
    tensors.py same FILE DIR KIND...         whether FILE has every tensor of the dump in DIR whose
                                             name begins with a KIND, to the bit
"""

import ast
import glob
import json
import math
import os
import struct
import sys

from read_message import read_step

# How they are packed, and what the file calls them.
KINDS = {"F32": ("f", "F32"), "F64": ("d", "F64"), "I32": ("i", "I32"), "bits": ("I", "F32")}


def shape_of(x):
    return [len(x)] + shape_of(x[0]) if isinstance(x, list) and x else [0] if isinstance(x, list) else []


def flat(x):
    return [value for inner in x for value in flat(inner)] if isinstance(x, list) else [x]


def write(path, words):
    header, data = {"__metadata__": {}}, b""
    for word in words:
        name, text = word.split("=", 1)
        if name.startswith("@"):
            header["__metadata__"][name[1:]] = text
            continue
        name, _, kind = name.partition(":")
        pack, kind = KINDS[kind or "F32"]
        x = ast.literal_eval(text)
        values = flat(x)
        begin = len(data)
        data += struct.pack(f"<{len(values)}{pack}", *values)
        header[name] = {"dtype": kind, "shape": shape_of(x), "data_offsets": [begin, len(data)]}
    head = json.dumps(header).encode()
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(head)) + head + data)


def near(path, words):
    tensors = read_step(path)[1]
    for word in words:
        name, text = word.split("=", 1)
        wanted = flat(ast.literal_eval(text))
        if name not in tensors:
            sys.exit(f"{path}: no {name}, but {' '.join(tensors)}")
        count, data = tensors[name]
        found = struct.unpack(f"<{count}f", data)
        if count != len(wanted) or not all(
            math.isclose(a, b, rel_tol=2e-5, abs_tol=2e-6) for a, b in zip(found, wanted)
        ):
            sys.exit(f"{path}: {name} is {found}, not {wanted}")


def same(path, folder, kinds):
    tensors = read_step(path)[1]
    for other in sorted(glob.glob(os.path.join(folder, "step-*.safetensors"))):
        meta, wanted = read_step(other)
        for kind in kinds:
            if not any(name.startswith(kind) for name in wanted):
                sys.exit(f"{other}: no {kind}")
        for name in wanted:
            own = f"step-{meta['step']}.{name}"
            if name.startswith(tuple(kinds)) and tensors.get(own) != wanted[name]:
                sys.exit(f"{path}: {own} is not as in {other}")


def main():
    what, arguments = sys.argv[1], sys.argv[2:]
    if what == "write":
        write(arguments[0], arguments[1:])
    elif what == "near":
        near(arguments[0], arguments[1:])
    else:
        same(arguments[0], arguments[1], arguments[2:])


if __name__ == "__main__":
    main()

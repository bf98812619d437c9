#!/usr/bin/env python3
"""Reads messages as sim/WIRE.md has them; wants Python alone.

    gradpress train REGIME --dump 2 DIR ...
    python3 read_message.py DIR

compares every worker's message with what the step's file says was sent.  Prints ok, or what
differs and exits with 1.
"""

import glob
import json
import os
import re
import struct
import sys

ENCODINGS = ["raw", "runs16", "bitmap", "varint", "gamma", "delta", "rice", "best"]


class Wrong(Exception):
    """A message that nobody would send."""


class Bits:
    """Bytes as bits, the lowest of each first."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, count):
        """A number of so many bits, the lowest first."""
        first, shift, self.at = self.at // 8, self.at % 8, self.at + count
        if self.at > 8 * len(self.data):
            raise Wrong("it ends too early")
        return int.from_bytes(self.data[first : (self.at + 7) // 8], "little") >> shift & (1 << count) - 1

    def skip(self, count):
        if self.take(count) != 0:
            raise Wrong(f"there is a one among the zeros before bit {self.at}")

    def pad(self):
        self.skip(-self.at % 8)

    def unary(self):
        zeros = 0
        while self.take(1) == 0:
            zeros += 1
        return zeros

    def varint(self):
        x, shift = 0, 0
        while True:
            byte = self.take(8)
            x |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return x

    def gamma(self):
        below = self.unary()
        return 1 << below | self.take(below)

    def delta(self):
        below = self.gamma() - 1
        return 1 << below | self.take(below)

    def rice(self, parameter):
        return self.unary() << parameter | self.take(parameter)

    def float(self):
        return to_float(self.take(32))


def to_float(bits):
    return struct.unpack("<f", struct.pack("<I", bits))[0]


def rounded(x):
    """To the nearest 32-bit float."""
    return struct.unpack("<f", struct.pack("<f", x))[0]


def read_indices(bits, encoding, n, count):
    if encoding == "raw":
        return [bits.take(32) for _ in range(count)]
    parameter = bits.take(8) if encoding == "rice" else None
    indices, place = [], -1
    for _ in range(count):
        if encoding == "bitmap":
            place += bits.unary() + 1
        elif encoding == "varint":
            place += bits.varint() + 1
        elif encoding == "gamma":
            place += bits.gamma()
        elif encoding == "delta":
            place += bits.delta()
        else:
            place += bits.rice(parameter) + 1
        indices.append(place)
    if encoding == "bitmap":
        bits.skip(n - 1 - place)
    bits.pad()
    return indices


def read_runs(bits, count):
    indices, values, place = [], [], -1
    while len(indices) < count:
        run, value = bits.take(16), bits.take(32)
        place += run + 1
        if run < 65535 or value != 0:
            indices.append(place)
            values.append(to_float(value))
    return indices, values


def decode(note, code, scalar):
    """What a code stands for."""
    kind = note["values"]
    if kind == "sign":
        return scalar if code else -scalar
    if kind == "level":
        sign = 1 << (note["bits"] - 1)
        size = rounded(scalar * rounded((code & (sign - 1)) / note["levels"]))
        return -size if code & sign else size
    if kind == "power":
        sign = 1 << (note["bits"] - 1)
        e = code & (sign - 1)
        size = to_float(e + 127 - note["bias"] << 23) if e else 0.0
        return -size if code & sign else size
    if kind == "half":
        return struct.unpack("<e", struct.pack("<H", code))[0]
    return to_float(code << 16)


def read_values(bits, note, count):
    if note["values"] == "float":
        return [bits.float() for _ in range(count)]
    bucket = note["bucket"] or max(count, 1)
    scalars = [bits.float() for _ in range(-(-count // bucket) if note["scaled"] else 0)]
    codes = [bits.take(note["bits"]) for _ in range(count)]
    bits.pad()
    return [decode(note, c, scalars[i // bucket] if scalars else 1.0) for i, c in enumerate(codes)]


def told(n, meta):
    """How many of n entries are sent, where the schedule says that."""
    ratio = float(meta["ratio"])
    if json.loads(meta["regime"])["compressor"]["name"] == "slice":
        return n if n <= 128 else min(n, int(n * ratio) + 1)
    return max(1, int(n * ratio))


def read_message(data, meta, sizes):
    """{name: (indices, values)}; sizes: {name: elements}, meta: the metadata of the step's file."""
    note = json.loads(meta["message"])
    bits, said = Bits(data), {}
    for name in note["tensors"]:
        n, encoding = sizes[name], json.loads(meta["regime"])["encoding"]
        count = bits.take(32) if note["counted"] else told(n, meta)
        if encoding == "best":
            number = bits.take(8)
            if number >= ENCODINGS.index("best"):
                raise Wrong(f"{name}: there is no encoding {number}")
            encoding = ENCODINGS[number]
        if count == n:
            said[name] = list(range(n)), read_values(bits, note, n)
        elif note["agreed"]:
            said[name] = None, read_values(bits, note, count)
        elif encoding == "runs16":
            said[name] = read_runs(bits, count)
        else:
            indices = read_indices(bits, encoding, n, count)
            said[name] = indices, read_values(bits, note, count)
        if not all(index < n for index in said[name][0] or []):
            raise Wrong(f"{name} has but {n} entries")
    if bits.at != 8 * len(data):
        raise Wrong(f"{len(data) - bits.at // 8} bytes are left")
    return said


def read_step(path):
    """Metadata, and {name: (elements, values as bytes)}, of a step's file."""
    with open(path, "rb") as file:
        data = file.read()
    begin = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:begin])
    meta = header.pop("__metadata__")
    tensors = {}
    for name, tensor in header.items():
        first, last = tensor["data_offsets"]
        tensors[name] = (last - first) // 4, data[begin + first : begin + last]
    return meta, tensors


def check(path, meta, tensors):
    """The number of a message's tensors that are not what was sent."""
    worker = re.search(r"worker-(\d+)\.message$", path).group(1)
    sizes = {n[len("grad.0.") :]: t[0] for n, t in tensors.items() if n.startswith("grad.0.")}
    wrong = 0
    with open(path, "rb") as file:
        data = file.read()
    try:
        said = read_message(data, meta, sizes)
    except Wrong as reason:
        print(f"{path}: {reason}")
        return 1
    for name, (indices, values) in said.items():
        sent = struct.unpack(f"<{sizes[name]}f", tensors[f"sent.{worker}.{name}"][1])
        got = [0.0] * sizes[name]
        for index, value in zip(indices or [], values):
            got[index] = value
        if indices is not None and any(a != b and (a == a or b == b) for a, b in zip(got, sent)):
            print(f"{path}: {name} is not what was sent")
            wrong += 1
    return wrong


def main():
    if len(sys.argv) != 2:
        sys.exit("usage: read_message.py DIR")
    messages, wrong = 0, 0
    for path in sorted(glob.glob(os.path.join(sys.argv[1], "step-*.safetensors"))):
        meta, tensors = read_step(path)
        for message in sorted(glob.glob(path[: -len("safetensors")] + "worker-*.message")):
            messages += 1
            wrong += check(message, meta, tensors)
    if messages == 0:
        sys.exit(f"{sys.argv[1]}: no step-*.worker-*.message")
    if wrong:
        sys.exit(1)
    print(f"ok: {messages} messages")


if __name__ == "__main__":
    main()

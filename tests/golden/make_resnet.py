#!/usr/bin/env python3
"""Golden numbers for a residual network of 8 layers on images: forward, backward, three updates.

    python3 make_resnet.py                writes resnet.bin beside itself
    python3 make_resnet.py --check        computes and compares, writes nothing

Needs PyTorch 1.13 or newer and NumPy.  Weights and images are hashes of their places, which
tests/test_resnet.c computes too, so that the file has results alone: of every tensor its norm and
some of its values, in PyTorch's order.  In float64; README.md tells how the file is laid out.
"""

import sys

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from make_lstm import Records, read

torch.set_num_threads(1)

SIDE, CHANNELS, CLASSES = 8, 3, 10
TRAIN, TEST, STEPS = 12, 6, 3
LR, MOMENTUM, DECAY = 0.05, 0.9, 0.01
SAMPLES = 24  # values of a tensor that are kept, evenly


def hashes(stream, count):
    """A 32-bit hash of each place of a stream."""
    mask = np.uint64(0xFFFFFFFF)
    h = (np.arange(count, dtype=np.uint64) * np.uint64(2654435761)
         + np.uint64(stream) * np.uint64(2246822519) + np.uint64(12345)) & mask
    h = ((h ^ (h >> np.uint64(15))) * np.uint64(2246822519)) & mask
    return h ^ (h >> np.uint64(13))


def uniform(stream, count):
    """On [0, 1), exact in float32."""
    return (hashes(stream, count) >> np.uint64(8)).astype(np.float64) * 2.0**-24


class Block(nn.Module):
    def __init__(self, inputs, filters, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, filters, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(filters)
        self.conv2 = nn.Conv2d(filters, filters, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(filters)
        self.downsample = None
        if inputs != filters:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, filters, 1, stride, bias=False), nn.BatchNorm2d(filters))

    def forward(self, x):
        y = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        return functional.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet8(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(CHANNELS, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(Block(16, 16, 1))
        self.layer2 = nn.Sequential(Block(16, 32, 2))
        self.layer3 = nn.Sequential(Block(32, 64, 2))
        self.fc = nn.Linear(64, CLASSES)

    def forward(self, x):
        x = functional.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(x.mean((2, 3)))


def initial(name, number, shape):
    """Filters and the last matrix on +-1/8, norms on [0.5, 1.5), biases on +-1/4."""
    u = uniform(number, int(np.prod(shape))).reshape(shape)
    if len(shape) > 1:
        return (2 * u - 1) / 8
    return u + 0.5 if name.endswith(".weight") else (2 * u - 1) / 4


def images():
    """[images][channels][height][width] of train and test, normalised by train; labels."""
    count = (TRAIN + TEST) * SIDE * SIDE * CHANNELS
    pixels = (hashes(1000, count) >> np.uint64(24)).astype(np.float64) / 255
    pixels = pixels.reshape(TRAIN + TEST, SIDE, SIDE, CHANNELS)
    train = pixels[:TRAIN].reshape(-1, CHANNELS)
    pixels = (pixels - train.mean(0)) / train.std(0)
    labels = (hashes(1001, TRAIN + TEST) % np.uint64(CLASSES)).astype(np.int64)
    pixels = torch.tensor(pixels.transpose(0, 3, 1, 2).copy())
    return pixels[:TRAIN], pixels[TRAIN:], torch.tensor(labels[:TRAIN]), torch.tensor(labels[TRAIN:])


def keep(records, name, tensor):
    values = tensor.detach().numpy().reshape(-1)
    records.floats(name + ".norm", np.sqrt((values**2).sum()))
    records.floats(name, values[:: -(-values.size // SAMPLES)])


def main():
    records = Records()
    net = ResNet8().double()
    with torch.no_grad():
        for number, (name, p) in enumerate(net.named_parameters()):
            p.copy_(torch.tensor(initial(name, number, tuple(p.shape))))
    train, test, labels, test_labels = images()
    optimizer = torch.optim.SGD(net.parameters(), LR, MOMENTUM, weight_decay=DECAY, nesterov=True)
    losses, tops = [], []
    for step in range(STEPS):
        logits = net(train)
        loss = functional.cross_entropy(logits, labels)
        optimizer.zero_grad()
        loss.backward()
        if step == 0:
            for name, p in net.named_parameters():
                keep(records, "grad." + name, p.grad)
        optimizer.step()
        losses.append(loss.item())
        tops.append(int((logits.argmax(1) == labels).sum()))
    for name, p in net.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            keep(records, "final." + name, p)
    net.eval()
    logits = net(test)
    top5 = logits.topk(5, 1).indices == test_labels[:, None]
    records.floats("loss", losses)
    records.integers("top1", tops)
    records.floats("test_loss", functional.cross_entropy(logits, test_labels).item())
    records.integers("test_top1", int((logits.argmax(1) == test_labels).sum()))
    records.integers("test_top5", int(top5.any(1).sum()))
    path = __file__.replace("make_resnet.py", "resnet.bin")
    if "--check" not in sys.argv:
        records.write(path)
        return
    written = read(path)
    for name, array in records.arrays.items():
        assert np.allclose(written[name], array, rtol=1e-6, atol=1e-9), name
    print("ok", len(written), "arrays")


main()

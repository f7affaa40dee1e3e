"""The bench's operations in PyTorch: best time of each in ms, as JSON. usage: torch_ops.py MS NAME..."""
import json
import os
import sys
import time

import torch
import torch.nn.functional as F

torch.set_num_threads(int(os.environ.get("NT", "2")))


def best(f, ms):
    for _ in range(2):
        f()
    times, end = [], time.perf_counter() + ms / 1e3
    while time.perf_counter() < end or len(times) < 3:
        start = time.perf_counter()
        f()
        times.append((time.perf_counter() - start) * 1e3)
    return min(times)


def leaf(*shape):
    return torch.randn(*shape, requires_grad=True)


def with_gradients(f, inputs):
    def run():
        for x in inputs:
            x.grad = None
        y = f()
        y.backward(y.detach())

    return run


def attend(q, k, v):
    return torch.softmax(q @ k.transpose(1, 2) * 40**-0.5, -1) @ v


def geglu(x):
    value, gate = x.chunk(2, -1)
    return value * F.gelu(gate)


def product(m, n, k):
    a, b = torch.randn(m, k), torch.randn(k, n)
    return lambda: a @ b


def convolution(batch, c, gradient=False):
    x, w = torch.randn(batch, c, 28, 28), torch.randn(c, c, 3, 3)
    if gradient:
        return lambda: F.conv_transpose2d(x, w, padding=1)
    return lambda: F.conv2d(x, w, padding=1)


q, k, v = leaf(8, 784, 40), leaf(8, 784, 40), leaf(8, 784, 40)
n = 4 * 1024 * 1024
x, y, z = leaf(n), leaf(n), leaf(n)
g, gw, gb = leaf(8, 320, 28, 28), leaf(320), leaf(320)
h, hw, hb = leaf(6272, 320), leaf(320), leaf(320)
s, e = torch.randn(6272, 784), torch.randn(6272, 2560)
chain = lambda: F.silu(x) * y + z
groups = lambda: F.group_norm(g, 32, gw, gb)
rows = lambda: F.layer_norm(h, (320,), hw, hb)

CASES = {
    "dot 512×512×512": product(512, 512, 512),
    "dot 1024×1024×1024": product(1024, 1024, 1024),
    "dot 784×320×320": product(784, 320, 320),
    "dot 1232×320×768": product(1232, 320, 768),
    "dot 784×320×2880": product(784, 320, 2880),
    "conv 3×3 64→64 28² b8": convolution(8, 64),
    "conv 3×3 320→320 28² b1": convolution(1, 320),
    "conv input gradient 64→64": convolution(8, 64, True),
    "conv input gradient 320→320": convolution(1, 320, True),
    "attention 8×784×40": lambda: attend(q, k, v),
    "attention 8×784×40 with gradients": with_gradients(lambda: attend(q, k, v), [q, k, v]),
    "silu(x)·y+z, 4 M": chain,
    "silu(x)·y+z, 4 M with gradients": with_gradients(chain, [x, y, z]),
    "groupNorm 8×28²×320": groups,
    "groupNorm with gradients": with_gradients(groups, [g, gw, gb]),
    "layerNorm 6272×320": rows,
    "layerNorm with gradients": with_gradients(rows, [h, hw, hb]),
    "softmax 6272×784": lambda: torch.softmax(s, -1),
    "geglu 6272×2560": lambda: geglu(e),
}

ms, names = float(sys.argv[1]), sys.argv[2:]
found = {}
for name in names:
    if name not in CASES:
        continue
    if "gradients" in name:
        found[name] = best(CASES[name], ms)
    else:
        with torch.no_grad():
            found[name] = best(CASES[name], ms)
print(json.dumps(found))

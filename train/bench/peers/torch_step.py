"""A LoRA training step of a U-Net in PyTorch, as JSON: best and median time in ms, adapted linears, PyTorch's version.

usage: torch_step.py MS CONFIG BATCH RESOLUTION RANK

The U-Net is diffusers' UNet2DConditionModel with random weights, frozen in f32; every linear layer has an adapter, trained by
Adam on a loss of squares. Attention is PyTorch's fused one.
"""
import json
import math
import os
import sys
import time

import torch
import torch.nn as nn
import torch.nn.functional as F

torch.set_num_threads(int(os.environ.get("NT", "2")))
torch.manual_seed(1)
MS, CONFIG, BATCH, SIDE, RANK = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:6])
with open(CONFIG) as file:
    C = json.load(file)
WIDTHS, LAYERS = C["block_out_channels"], C.get("layers_per_block", 2)
CONTEXT, GROUPS = C.get("cross_attention_dim", 768), C.get("norm_num_groups", 32)
# in diffusers' configurations of Stable Diffusion 1 the name says dimension and means how many
HEADS = C.get("attention_head_dim", 8)
TIME = 4 * WIDTHS[0]


class Linear(nn.Module):
    """x·W + b + x·Aᵀ·Bᵀ; W and b are frozen."""

    def __init__(self, size_in, size_out, bias=True):
        super().__init__()
        self.base = nn.Linear(size_in, size_out, bias)
        self.a = nn.Parameter(torch.randn(RANK, size_in) / math.sqrt(size_in))
        self.b = nn.Parameter(torch.zeros(size_out, RANK))

    def forward(self, x):
        return self.base(x) + F.linear(F.linear(x, self.a), self.b)


class Attention(nn.Module):
    def __init__(self, width, context, heads):
        super().__init__()
        self.heads = heads
        self.to_q = Linear(width, width, False)
        self.to_k, self.to_v = Linear(context, width, False), Linear(context, width, False)
        self.to_out = Linear(width, width)

    def forward(self, x, context):
        split = lambda y: y.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        q, k, v = split(self.to_q(x)), split(self.to_k(context)), split(self.to_v(context))
        return self.to_out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Transformer(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.norm = nn.GroupNorm(GROUPS, width, eps=1e-6)
        self.proj_in, self.proj_out = Linear(width, width), Linear(width, width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.own, self.cross = Attention(width, width, heads), Attention(width, CONTEXT, heads)
        self.wide, self.narrow = Linear(width, 8 * width), Linear(4 * width, width)

    def forward(self, x, context):
        y = self.proj_in(self.norm(x).flatten(2).transpose(1, 2))
        z = self.norms[0](y)
        y = y + self.own(z, z)
        y = y + self.cross(self.norms[1](y), context)
        value, gate = self.wide(self.norms[2](y)).chunk(2, -1)
        y = self.proj_out(y + self.narrow(value * F.gelu(gate)))
        return x + y.transpose(1, 2).unflatten(2, x.shape[2:])


class Resnet(nn.Module):
    def __init__(self, size_in, size_out):
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(GROUPS, size_in), nn.GroupNorm(GROUPS, size_out)
        self.conv1 = nn.Conv2d(size_in, size_out, 3, padding=1)
        self.conv2 = nn.Conv2d(size_out, size_out, 3, padding=1)
        self.time = Linear(TIME, size_out)
        self.shortcut = nn.Identity() if size_in == size_out else nn.Conv2d(size_in, size_out, 1)

    def forward(self, x, t):
        y = self.conv1(F.silu(self.norm1(x))) + self.time(F.silu(t))[:, :, None, None]
        return self.shortcut(x) + self.conv2(F.silu(self.norm2(y)))


class Block(nn.Module):
    """Resnets, each followed by a transformer where the block attends."""

    def __init__(self, sizes, width, attends, heads):
        super().__init__()
        self.resnets = nn.ModuleList(Resnet(size, width) for size in sizes)
        self.attentions = nn.ModuleList(Transformer(width, heads) for _ in sizes if attends)

    def forward(self, i, x, t, context):
        x = self.resnets[i](x, t)
        return self.attentions[i](x, context) if self.attentions else x


class UNet(nn.Module):
    def __init__(self):
        super().__init__()
        heads = lambda level: HEADS[level] if isinstance(HEADS, list) else HEADS
        first, last, top = WIDTHS[0], WIDTHS[-1], len(WIDTHS) - 1
        self.conv_in = nn.Conv2d(C.get("in_channels", 4), first, 3, padding=1)
        self.time = nn.ModuleList([Linear(first, TIME), Linear(TIME, TIME)])
        skips = [first]
        self.down, self.smaller = nn.ModuleList(), nn.ModuleList()
        for level, width in enumerate(WIDTHS):
            sizes = [WIDTHS[max(level - 1, 0)]] + [width] * (LAYERS - 1)
            attends = C["down_block_types"][level] == "CrossAttnDownBlock2D"
            self.down.append(Block(sizes, width, attends, heads(level)))
            skips += [width] * (LAYERS + (level < top))
            if level < top:
                self.smaller.append(nn.Conv2d(width, width, 3, stride=2, padding=1))
        self.middle = nn.ModuleList([Resnet(last, last), Transformer(last, heads(top)), Resnet(last, last)])
        self.up, self.larger = nn.ModuleList(), nn.ModuleList()
        below = last
        for i, level in enumerate(range(top, -1, -1)):
            width = WIDTHS[level]
            sizes = [(below if j == 0 else width) + skips.pop() for j in range(LAYERS + 1)]
            self.up.append(Block(sizes, width, C["up_block_types"][i] == "CrossAttnUpBlock2D", heads(level)))
            if level > 0:
                self.larger.append(nn.Conv2d(width, width, 3, padding=1))
            below = width
        self.norm_out = nn.GroupNorm(GROUPS, first)
        self.conv_out = nn.Conv2d(first, C.get("out_channels", 4), 3, padding=1)

    def forward(self, x, t, context):
        half = WIDTHS[0] // 2
        angles = t[:, None] * torch.exp(-math.log(10_000) * torch.arange(half) / half)
        t = self.time[1](F.silu(self.time[0](torch.cat([angles.cos(), angles.sin()], -1))))
        x = self.conv_in(x)
        skips = [x]
        for level, block in enumerate(self.down):
            for i in range(LAYERS):
                x = block(i, x, t, context)
                skips.append(x)
            if level < len(self.smaller):
                x = self.smaller[level](x)
                skips.append(x)
        x = self.middle[2](self.middle[1](self.middle[0](x, t), context), t)
        for i, block in enumerate(self.up):
            for j in range(LAYERS + 1):
                x = block(j, torch.cat([x, skips.pop()], 1), t, context)
            if i < len(self.larger):
                # to the size of the next skip, which an odd size does not halve into
                x = self.larger[i](F.interpolate(x, size=skips[-1].shape[2:]))
        return self.conv_out(F.silu(self.norm_out(x)))


unet = UNet()
adapted = [m for m in unet.modules() if isinstance(m, Linear)]
unet.requires_grad_(False)
for m in adapted:
    m.a.requires_grad_(True)
    m.b.requires_grad_(True)
optimizer = torch.optim.Adam([p for p in unet.parameters() if p.requires_grad], lr=1e-4)
size = (BATCH, C.get("in_channels", 4), SIDE // 8, SIDE // 8)
x, target = torch.randn(size), torch.randn(BATCH, C.get("out_channels", 4), SIDE // 8, SIDE // 8)
t, context = torch.rand(BATCH) * 1000, torch.randn(BATCH, 77, CONTEXT)


def step():
    optimizer.zero_grad(set_to_none=True)
    F.mse_loss(unet(x, t, context), target).backward()
    optimizer.step()


for _ in range(2):
    step()
times, end = [], time.perf_counter() + float(MS) / 1e3
while time.perf_counter() < end or len(times) < 5:
    start = time.perf_counter()
    step()
    times.append((time.perf_counter() - start) * 1e3)
times.sort()
frozen = sum(p.numel() for p in unet.parameters() if not p.requires_grad)
print(
    json.dumps(
        {
            "version": torch.__version__,
            "step_ms": times[0],
            "step_ms_median": times[len(times) // 2],
            "modules": len(adapted),
            "frozen": frozen,
        }
    )
)

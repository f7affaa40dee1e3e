"""Loads lycoris.safetensors of runs with LyCORIS' own loader and compares the change of every weight with adapter.safetensors.

    npm run train -- --method lokr --targets all --steps 3 --out /tmp/lokr     (dora, loha, oft, ia3, full)
    python test/interop/lycoris.py models/small-base LYCORIS /tmp/lokr ...

Prints one line per run and network: modules that have the right change, and the worst error relative to the largest change
of the module. Exits with 1 when one is wrong. Needs torch, safetensors, diffusers, transformers and a checkout of
KohakuBlueleaf/LyCORIS with what it imports.
"""
import argparse
import sys
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file
from transformers import CLIPTextModel

arguments = argparse.ArgumentParser()
arguments.add_argument("base")
arguments.add_argument("lycoris", type=Path)
arguments.add_argument("runs", type=Path, nargs="+")
options = arguments.parse_args()
sys.path.append(str(options.lycoris))
from lycoris.kohya import create_network_from_weights  # noqa: E402


class Level(torch.nn.Module):
    """The level `text_model` that kohya's names have and transformers 5.6 took away."""

    def __init__(self, model):
        super().__init__()
        self.text_model = model


def networks():
    text = CLIPTextModel.from_pretrained(options.base, subfolder="text_encoder", torch_dtype=torch.float32)
    unet = UNet2DConditionModel.from_pretrained(options.base, subfolder="unet", torch_dtype=torch.float32)
    return {"unet": unet, "text_encoder": text if hasattr(text, "text_model") else Level(text)}


def weights(model):
    return {name: value.double().clone() for name, value in model.state_dict().items() if name.endswith("weight")}


def changes(file):
    """B @ A of every module of a file in diffusers' form, whose strength is 1."""
    tensors = {k: v.double() for k, v in load_file(file).items()}
    names = [k[: -len(".lora_A.weight")] for k in tensors if k.endswith(".lora_A.weight")]
    return {k: tensors[f"{k}.lora_B.weight"].flatten(1) @ tensors[f"{k}.lora_A.weight"].flatten(1) for k in names}


good = True
for run in options.runs:
    parts = networks()
    before = {name: weights(model) for name, model in parts.items()}
    try:
        network, state = create_network_from_weights(
            1.0, str(run / "lycoris.safetensors"), None, parts["text_encoder"], parts["unet"]
        )
    except Exception as error:
        print(f"{run.name:10s} {type(error).__name__}: {str(error).splitlines()[0][:200]}", flush=True)
        good = False
        continue
    for module in network.unet_loras + network.text_encoder_loras:
        if type(module).__name__ == "FullModule":
            # its own merging adds a list to a tensor wherever the layer has a bias
            module.org_module[0].weight.data.add_(module.get_diff_weight(1.0)[0])
        else:
            module.merge_to(1.0)
    for part, model in parts.items():
        after = weights(model)
        errors = {}
        for name, delta in changes(run / "adapter.safetensors").items():
            if name.startswith(f"{part}."):
                key = f"{name[len(part) + 1:]}.weight"
                error = (after[key] - before[part][key]).flatten(1) - delta
                errors[name] = (error.abs().max() / delta.abs().max().clamp(min=1e-12)).item()
        wrong = {name: error for name, error in errors.items() if not error < 1e-3}
        right = [error for name, error in errors.items() if name not in wrong]
        tail = "; wrong: " + ", ".join(f"{n} ({e:.1e})" for n, e in list(wrong.items())[:4]) if wrong else ""
        print(f"{run.name:10s} {part:13s} {len(right)} of {len(errors)} modules, worst error {max(right, default=0):.1e}{tail}", flush=True)
        good &= not wrong
sys.exit(0 if good else 1)

"""Loads the files of make.ts with other programs and compares the change of every weight with B @ A.

    npx tsx test/interop/make.ts models/small-base /tmp/forms
    python test/interop/adapters.py models/small-base /tmp/forms [--kohya SD_SCRIPTS]

Prints one line per file, program and network: modules that have the right change, and the worst error relative to the
largest change of the module. Exits with 1 when one is wrong. Needs torch, safetensors, peft, transformers and diffusers;
kohya's own loader needs a checkout of kohya-ss/sd-scripts.
"""
import argparse
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

arguments = argparse.ArgumentParser()
arguments.add_argument("base")
arguments.add_argument("forms", type=Path)
arguments.add_argument("--kohya", type=Path)
options = arguments.parse_args()
base = options.base
HALF = {"unet": "unet.", "text_encoder": "text_encoder."}
good = True


def expected(forms):
    """B @ A of every module, from the file in diffusers' form, whose strength is 1 by definition."""
    tensors = {k: v.double() for k, v in load_file(forms / "diffusers.safetensors").items()}
    downs = [k for k in tensors if k.endswith(".lora_A.weight")]
    pairs = {k: (tensors[k], tensors[k.replace("lora_A", "lora_B")]) for k in downs}
    return {k[: -len(".lora_A.weight")]: (b.flatten(1) @ a.flatten(1)) for k, (a, b) in pairs.items()}


def plain(name):
    return name.replace("text_model.", "").replace("base_layer.", "")


def compare(label, network, model, before, forms):
    """How much every weight of `model` has changed, after the adapter is merged into it."""
    global good
    after = weights(model)
    right, worst, count, wrong = 0, 0.0, 0, []
    for name, delta in expected(forms).items():
        if not name.startswith(HALF[network]):
            continue
        key = plain(name[len(HALF[network]):]) + ".weight"
        count += 1
        error = ((after[key] - before[key]).flatten(1) - delta).abs().max().item() / delta.abs().max().item()
        if error < 1e-4:
            right += 1
            worst = max(worst, error)
        else:
            wrong.append(f"{key[:-7]} ({error:.1e})")
    tail = f"; wrong: {', '.join(wrong[:6])}" if wrong else ""
    print(f"{label:44s} {network:13s} {right} of {count} modules, worst error {worst:.1e}{tail}", flush=True)
    good &= right == count


def weights(model):
    return {plain(k): v.double().clone() for k, v in model.state_dict().items() if k.endswith("weight")}


def attempt(label, run):
    """`run`, or the line that a person would see."""
    global good
    try:
        run()
    except Exception as error:
        print(f"{label}: {type(error).__name__}: {str(error).splitlines()[0][:200]}", flush=True)
        good = False


def pipeline():
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTokenizer

    return StableDiffusionPipeline(
        unet=UNet2DConditionModel.from_pretrained(base, subfolder="unet", torch_dtype=torch.float32),
        vae=AutoencoderKL.from_pretrained(base, subfolder="vae", torch_dtype=torch.float32),
        text_encoder=CLIPTextModel.from_pretrained(base, subfolder="text_encoder", torch_dtype=torch.float32),
        tokenizer=CLIPTokenizer.from_pretrained(base, subfolder="tokenizer"),
        scheduler=DDIMScheduler.from_pretrained(base, subfolder="scheduler"),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )


def by_diffusers(forms, form, label):
    pipe = pipeline()
    before = {n: weights(getattr(pipe, n)) for n in HALF}
    pipe.load_lora_weights(str(forms), weight_name=f"{form}.safetensors")
    pipe.fuse_lora(components=["unet", "text_encoder"])
    for network in HALF:
        compare(label, network, getattr(pipe, network), before[network], forms)


def by_peft(forms, network, label):
    import peft
    import transformers

    # transformers 5.6 took the level text_model from the text encoder
    flat = tuple(int(n) for n in transformers.__version__.split(".")[:2]) >= (5, 6)

    model = getattr(pipeline(), network)
    before = weights(model)
    compare(label, network, peft.PeftModel.from_pretrained(model, forms / ("peft-flat" if flat else "peft") / network).merge_and_unload(), before, forms)


class Level(torch.nn.Module):
    """The level `text_model` that kohya's names have and transformers 5.6 took away."""

    def __init__(self, model):
        super().__init__()
        self.text_model = model


def by_kohya(forms, label):
    sys.path.insert(0, str(options.kohya))
    from networks.lora import create_network_from_weights

    pipe = pipeline()
    before = {n: weights(getattr(pipe, n)) for n in HALF}
    text = pipe.text_encoder if hasattr(pipe.text_encoder, "text_model") else Level(pipe.text_encoder)
    network, state = create_network_from_weights(
        1.0, str(forms / "kohya.safetensors"), None, text, pipe.unet, for_inference=True
    )
    network.merge_to(text, pipe.unet, state, torch.float32, "cpu")
    for part in HALF:
        compare(label, part, getattr(pipe, part), before[part], forms)


def main():
    import diffusers
    import peft
    import transformers

    print(f"diffusers {diffusers.__version__}, transformers {transformers.__version__}, peft {peft.__version__}")
    for what, forms in [("linears", options.forms), ("all layers", options.forms / "all")]:
        for form in ["diffusers", "kohya", "padded"]:
            label = f"diffusers {diffusers.__version__}, {form}, {what}"
            attempt(label, lambda: by_diffusers(forms, form, label))
        for network in HALF:
            label = f"PEFT {peft.__version__} folder, {what}"
            attempt(f"{label}, {network}", lambda: by_peft(forms, network, label))
        if options.kohya:
            label = f"sd-scripts, kohya, {what}"
            attempt(label, lambda: by_kohya(forms, label))
    sys.exit(0 if good else 1)


main()

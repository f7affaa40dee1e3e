"""Loads the files of make.ts with diffusers and PEFT and compares the change of every weight with B @ A.

    npx tsx test/interop/make.ts models/small-base /tmp/forms
    python test/interop/adapters.py models/small-base /tmp/forms

Prints one line per form and network: modules that have the right change, and the worst error relative to the largest
change of the module. Exits with 1 when one is wrong. Needs torch, safetensors, peft, transformers and diffusers.
"""
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

base, forms = sys.argv[1], Path(sys.argv[2])
HALF = {"unet": "unet.", "text_encoder": "text_encoder."}


def expected():
    """B @ A of every module, from the file in diffusers' form, whose strength is 1 by definition."""
    tensors = {k: v.double() for k, v in load_file(forms / "diffusers.safetensors").items()}
    downs = [k for k in tensors if k.endswith(".lora_A.weight")]
    return {k[: -len(".lora_A.weight")]: tensors[k.replace("lora_A", "lora_B")] @ tensors[k] for k in downs}


def plain(name):
    return name.replace("text_model.", "").replace("base_layer.", "")


def compare(label, network, model, before):
    """How much every weight of `model` has changed, after the adapter is merged into it."""
    after = {plain(k): v.double() for k, v in model.state_dict().items() if k.endswith("weight")}
    right, worst, count = 0, 0.0, 0
    for name, delta in expected().items():
        if not name.startswith(HALF[network]):
            continue
        key = plain(name[len(HALF[network]):]) + ".weight"
        count += 1
        error = ((after[key] - before[key]) - delta).abs().max().item() / delta.abs().max().item()
        right += error < 1e-4
        worst = max(worst, error)
    print(f"{label:34s} {network:13s} {right} of {count} modules, worst error {worst:.1e}", flush=True)
    return right == count


def weights(model):
    return {plain(k): v.double().clone() for k, v in model.state_dict().items() if k.endswith("weight")}


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


def main():
    import peft
    import transformers

    good = True
    try:
        import diffusers

        print(f"diffusers {diffusers.__version__}, transformers {transformers.__version__}, peft {peft.__version__}")
        for form in ["diffusers", "kohya", "padded"]:
            pipe = pipeline()
            before = {n: weights(getattr(pipe, n)) for n in HALF}
            try:
                pipe.load_lora_weights(str(forms), weight_name=f"{form}.safetensors")
                pipe.fuse_lora(components=["unet", "text_encoder"])
            except Exception as error:  # what a person would see
                print(f"{form}: {type(error).__name__}: {error}", flush=True)
                good = False
                continue
            for network in HALF:
                good &= compare(f"diffusers, {form}", network, getattr(pipe, network), before[network])
    except ImportError as error:
        print(f"diffusers is not there ({error}); transformers {transformers.__version__}, peft {peft.__version__}")
    from transformers import CLIPTextModel

    models = {"text_encoder": CLIPTextModel.from_pretrained(base, subfolder="text_encoder", torch_dtype=torch.float32)}
    if "diffusers" in sys.modules:
        models["unet"] = pipeline().unet
    for network, model in models.items():
        before = weights(model)
        try:
            merged = peft.PeftModel.from_pretrained(model, forms / "peft" / network).merge_and_unload()
        except Exception as error:
            print(f"peft, {network}: {type(error).__name__}: {error}", flush=True)
            good = False
            continue
        good &= compare("PEFT folder", network, merged, before)
    sys.exit(0 if good else 1)


main()

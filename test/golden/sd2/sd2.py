"""A tiny model of Stable Diffusion 2's form: its single file, and what diffusers and transformers compute with it.

    python test/golden/sd2/sd2.py convert_diffusers_to_original_stable_diffusion.py test/golden/sd2

The script named first is diffusers' own (`scripts/`): the names of the single file are its names, and the same state dict
read by `StableDiffusionPipeline`'s parts gives `expected.json`. Weights are rounded to half floats before anything runs.
"""
import importlib.util
import json
import sys
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel

spec = importlib.util.spec_from_file_location("convert", sys.argv[1])
convert = importlib.util.module_from_spec(spec)
spec.loader.exec_module(convert)
out = Path(sys.argv[2])

torch.manual_seed(2)
DOWN, UP = "CrossAttnDownBlock2D", "CrossAttnUpBlock2D"
unet_config = dict(
    sample_size=8, in_channels=4, out_channels=4, block_out_channels=[4, 4, 8, 8], layers_per_block=2, norm_num_groups=2,
    down_block_types=[DOWN, DOWN, DOWN, "DownBlock2D"], up_block_types=["UpBlock2D", UP, UP, UP],
    cross_attention_dim=8, attention_head_dim=[1, 2, 4, 2], use_linear_projection=True, upcast_attention=True,
    dual_cross_attention=False, only_cross_attention=False, num_class_embeds=None,
)
text_config = dict(
    vocab_size=64, hidden_size=8, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
    max_position_embeddings=12, hidden_act="gelu", projection_dim=4, bos_token_id=62, eos_token_id=63, pad_token_id=1,
)
vae_config = dict(
    block_out_channels=[2, 2, 4, 4], layers_per_block=2, norm_num_groups=2, latent_channels=4,
    down_block_types=["DownEncoderBlock2D"] * 4, up_block_types=["UpDecoderBlock2D"] * 4,
)
scheduler_config = dict(
    beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type="v_prediction",
    clip_sample=False, set_alpha_to_one=False, steps_offset=1,
)
unet, vae = UNet2DConditionModel(**unet_config), AutoencoderKL(**vae_config)
text = CLIPTextModel(CLIPTextConfig(**text_config))
for model in (unet, vae, text):
    with torch.no_grad():
        for p in model.parameters():
            p.copy_((p + 0.3 * torch.randn_like(p) / max(1, p[0].numel() if p.dim() > 1 else 4) ** 0.5).half().float())
    model.double().eval()


def modern(name):
    return name if name.startswith("text_model.") else f"text_model.{name}"


half = lambda state: {k: v.half().contiguous() for k, v in state.items()}
ldm = {f"model.diffusion_model.{k}": v for k, v in convert.convert_unet_state_dict(half(unet.state_dict())).items()}
ldm |= {f"first_stage_model.{k}": v for k, v in convert.convert_vae_state_dict(half(vae.state_dict())).items()}
tower = {f"transformer.{modern(k)}": v for k, v in half(text.state_dict()).items() if "position_ids" not in k}
tower = convert.convert_text_enc_state_dict_v20(tower)
# what a true file holds besides: the layer that is not used, the projection, the temperature
extra = {k.replace("resblocks.1.", "resblocks.2."): torch.randn_like(v) for k, v in tower.items() if "resblocks.1." in k}
extra |= {"text_projection": torch.randn(8, 4).half(), "logit_scale": torch.ones(()).half()}
ldm |= {f"cond_stage_model.model.{k}": v for k, v in (tower | extra).items()}
save_file({k: v.contiguous() for k, v in ldm.items()}, out / "sd2-like.safetensors", {"format": "pt"})

ids = torch.tensor([[62, 5, 17, 40, 9, 63, 0, 0, 0, 0, 0, 0], [62, 33, 63, 0, 0, 0, 0, 0, 0, 0, 0, 0]])
latents = torch.randn(2, 4, 8, 8, dtype=torch.float64).float().double()
timesteps = torch.tensor([981, 21])
with torch.no_grad():
    context = text(ids).last_hidden_state
    v = unet(latents, timesteps, context).sample
    image = vae.decode(latents[:1]).sample
    scheduler = DDIMScheduler(**scheduler_config)
    scheduler.set_timesteps(3)
    x = latents
    for t in scheduler.timesteps:
        x = scheduler.step(unet(x, t, context).sample, t, x).prev_sample
flat = lambda tensor: [float(f"{value:.10g}") for value in tensor.flatten().tolist()]
configs = {
    "unet": {"_class_name": "UNet2DConditionModel", **unet_config},
    "vae": {"_class_name": "AutoencoderKL", **vae_config},
    "text_encoder": {"architectures": ["CLIPTextModel"], "model_type": "clip_text_model", **text_config},
    "scheduler": {"_class_name": "DDIMScheduler", **scheduler_config},
}
json.dump(
    {
        "configs": configs, "ids": ids.tolist(), "timesteps": timesteps.tolist(), "latents": flat(latents),
        "context": flat(context), "v": flat(v), "image": flat(image[:, :, ::8, ::8]), "sampled": flat(x),
    },
    open(out / "expected.json", "w"),
)

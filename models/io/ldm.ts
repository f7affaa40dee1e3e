/**
 * The original single-file checkpoint (`v1-5-pruned-emaonly.safetensors` and its kin): all three networks in one file
 * under the names of the code it was trained with. It holds no configuration and no tokenizer.
 */
import type { TextEncoderConfig, UNetConfig, VaeConfig } from '../config.ts';
import { LDM_PREFIX, ldmNames, PARTS, type Part } from '../names.ts';
import { FileError, quoted } from './error.ts';
import { OPEN_CLIP_PREFIX, openClipWeights } from './open-clip.ts';
import { textEncoderName, withoutKernel } from './part.ts';
import { openSafetensors } from './safetensors.ts';
import { conversionHint } from './safetensors-header.ts';
import { type Weight, type WeightSource, weightOf, weightSource } from './weights.ts';

/** Other families, by a name that only their files hold. */
const OTHERS: readonly (readonly [string, string])[] = [
  ['conditioner.', 'a Stable Diffusion XL checkpoint'],
  ['model.diffusion_model.joint_blocks.', 'a Stable Diffusion 3 checkpoint'],
  ['model.diffusion_model.double_blocks.', 'a Flux checkpoint'],
];

const FIRST_KERNEL = 'model.diffusion_model.input_blocks.0.0.weight';

/** What a single file says of the family it belongs to and of its noise schedule. */
export type Markers = {
  /** its text encoder is OpenCLIP's: Stable Diffusion 2.x */
  readonly openClip: boolean;
  /** keys without values, or metadata, that stand for how it was trained; undefined where nothing is said */
  readonly prediction: 'v_prediction' | 'epsilon' | undefined;
  readonly ztsnr: boolean;
};

/** @throws FileError as `openSafetensors` */
export async function markersOf(file: string): Promise<Markers> {
  const { tensors, metadata } = await openSafetensors(file);
  const said = metadata.get('modelspec.prediction_type');
  const v = tensors.has('v_pred') || said === 'v' || said === 'v_prediction';
  return {
    openClip: [...tensors.keys()].some((name) => name.startsWith(OPEN_CLIP_PREFIX)),
    prediction: v ? 'v_prediction' : said === 'epsilon' ? 'epsilon' : undefined,
    ztsnr: tensors.has('ztsnr'),
  };
}

/**
 * Opens a single-file checkpoint; headers only. Schedule tables, EMA copies and other extras are left out.
 * @throws FileError for pickles (never opened), other model families and files with one network only
 */
export async function openLdm(
  file: string,
  configs: { readonly unet: UNetConfig; readonly vae: VaeConfig; readonly textEncoder: TextEncoderConfig },
): Promise<Readonly<Record<Part, WeightSource>>> {
  if (/\.(ckpt|pt|pth|bin|pkl)$/i.test(file)) throw new FileError(file, '', conversionHint(file));
  const opened = await openSafetensors(file);
  const stored = [...opened.tensors.keys()];
  const other = OTHERS.find(([prefix]) => stored.some((name) => name.startsWith(prefix)));
  if (other !== undefined)
    throw new FileError(file, 'tensors', `this is ${other[1]}, expected Stable Diffusion 1.5 or 2`);
  const scaled = stored.find((name) => name === 'scaled_fp8' || name.endsWith('.scale_weight'));
  if (scaled !== undefined)
    throw new FileError(
      file,
      `tensor ${quoted(scaled)}`,
      'this is scaled fp8 (ComfyUI), expected plain fp8, f16, bf16 or f32',
    );
  const first = opened.tensors.get(FIRST_KERNEL)?.shape;
  const extra = first === undefined ? 0 : first[1] - configs.unet.in_channels;
  if (extra === 5 || extra === 4)
    throw new FileError(
      file,
      `tensor "${FIRST_KERNEL}"`,
      `takes ${first![1]} channels: this is ${extra === 5 ? 'an inpainting' : 'an instruct-pix2pix'} checkpoint, expected text to image`,
    );
  const openClip = stored.some((name) => name.startsWith(OPEN_CLIP_PREFIX));
  const lacking = PARTS.find(
    (part) => !(part === 'text_encoder' && openClip) && !stored.some((name) => name.startsWith(LDM_PREFIX[part])),
  );
  if (lacking !== undefined) {
    throw new FileError(
      file,
      'tensors',
      `no ${LDM_PREFIX[lacking]}* (${lacking}): expected a full single-file checkpoint, or give the model's folder`,
    );
  }
  const names = ldmNames(configs);
  const text = openClip ? openClipWeights(opened, configs.textEncoder.num_hidden_layers) : [];
  const weights: Record<Part, Weight[]> = { unet: [], vae: [], text_encoder: [...text] };
  for (const name of stored) {
    if (name.startsWith(LDM_PREFIX.text_encoder)) {
      const modern = textEncoderName(name.slice(LDM_PREFIX.text_encoder.length));
      if (modern !== undefined) weights.text_encoder.push(weightOf(opened, name, modern));
      continue;
    }
    const mapped = names.fromLdm(name);
    if (mapped === undefined) {
      // Inside a network's prefix nothing is an extra: let the check of the names report it.
      const part = PARTS.find((p) => name.startsWith(LDM_PREFIX[p]));
      if (part !== undefined && !/^first_stage_model\.loss\./.test(name)) weights[part].push(weightOf(opened, name));
      continue;
    }
    const [part, modern] = mapped;
    const attention = part === 'vae' && modern.includes('.attentions.');
    const shape = attention ? withoutKernel(opened.tensors.get(name)!.shape) : undefined;
    weights[part].push(weightOf(opened, name, modern, shape));
  }
  const source = (part: Part) => weightSource(`${file} (${part})`, weights[part]);
  return { unet: source('unet'), vae: source('vae'), text_encoder: source('text_encoder') };
}

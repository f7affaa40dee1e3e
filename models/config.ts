/**
 * The configuration files of a Stable Diffusion 1.5-shaped model, in diffusers' and transformers' own keys.
 * Keys that change what is computed are either supported or refused by name; other keys are ignored, as diffusers does.
 * Reading order: `int` … `only` (building blocks), the schemas, `parseConfig`, `checkTogether`.
 */
import { z } from 'zod';
import { FileError, printable } from './io/error.ts';
import type { Json } from './io/json.ts';
import { parseSchedulerConfig, type SchedulerConfig } from './schedulers/config.ts';

/** Bounds that no model of this family comes near; a file beyond them must not make us allocate anything. */
const int = (min: number, max: number) => z.int().min(min).max(max);
const channels = int(1, 65_536);
const eps = z.number().gt(0).lt(1);

/** A key that must have one value, if it is there at all, because nothing else is implemented. */
const only = <const T extends string | number | boolean | null>(value: T) =>
  z.literal(value, { error: `only ${JSON.stringify(value)} is supported` }).default(value as never);

/** A key that must be absent, null or false. */
const absent = z
  .literal([null, false], { error: 'is not supported' })
  .default(null)
  .transform(() => null);

const oneOf = <const T extends readonly [string, ...string[]]>(...names: T) =>
  z.enum(names, { error: `expected one of ${names.join(', ')}` });

const downBlock = oneOf('CrossAttnDownBlock2D', 'DownBlock2D');
const upBlock = oneOf('CrossAttnUpBlock2D', 'UpBlock2D');
const levels = <T extends z.ZodType>(item: T) => z.array(item).min(1).max(8);

/** `unet/config.json`. `attention_head_dim` is the number of heads (diffusers' well-known misnomer). */
export const unetSchema = z
  .object({
    _class_name: only('UNet2DConditionModel'),
    sample_size: z.union([int(1, 8192), z.array(int(1, 8192)).length(2)]).nullish(),
    in_channels: channels.default(4),
    out_channels: channels.default(4),
    center_input_sample: only(false),
    flip_sin_to_cos: z.boolean().default(true),
    freq_shift: z.number().min(0).max(1).default(0),
    down_block_types: levels(downBlock).default([
      'CrossAttnDownBlock2D',
      'CrossAttnDownBlock2D',
      'CrossAttnDownBlock2D',
      'DownBlock2D',
    ]),
    mid_block_type: only('UNetMidBlock2DCrossAttn'),
    up_block_types: levels(upBlock).default([
      'UpBlock2D',
      'CrossAttnUpBlock2D',
      'CrossAttnUpBlock2D',
      'CrossAttnUpBlock2D',
    ]),
    only_cross_attention: only(false),
    mid_block_only_cross_attention: absent,
    block_out_channels: levels(channels).default([320, 640, 1280, 1280]),
    layers_per_block: int(1, 16).default(2),
    downsample_padding: only(1),
    mid_block_scale_factor: only(1),
    dropout: only(0),
    act_fn: oneOf('silu', 'swish').default('silu'),
    norm_num_groups: int(1, 65_536).default(32),
    norm_eps: eps.default(1e-5),
    cross_attention_dim: channels.default(1280),
    transformer_layers_per_block: only(1),
    reverse_transformer_layers_per_block: absent,
    encoder_hid_dim: absent,
    encoder_hid_dim_type: absent,
    attention_head_dim: z.union([int(1, 1024), levels(int(1, 1024))]).default(8),
    num_attention_heads: absent,
    dual_cross_attention: only(false),
    use_linear_projection: z.boolean().default(false),
    class_embed_type: absent,
    addition_embed_type: absent,
    num_class_embeds: absent,
    upcast_attention: z.boolean().nullish(),
    resnet_time_scale_shift: only('default'),
    resnet_skip_time_act: only(false),
    resnet_out_scale_factor: only(1),
    time_embedding_type: only('positional'),
    time_embedding_dim: absent,
    time_embedding_act_fn: absent,
    timestep_post_act: absent,
    time_cond_proj_dim: absent,
    conv_in_kernel: only(3),
    conv_out_kernel: only(3),
    projection_class_embeddings_input_dim: absent,
    attention_type: only('default'),
    class_embeddings_concat: only(false),
    cross_attention_norm: absent,
  })
  .check(({ value: c, issues }) => {
    const bad = (key: string, message: string) => issues.push({ code: 'custom', input: c, path: [key], message });
    const n = c.block_out_channels.length;
    if (c.down_block_types.length !== n) bad('down_block_types', `must be as long as block_out_channels (${n})`);
    if (c.up_block_types.length !== n) bad('up_block_types', `must be as long as block_out_channels (${n})`);
    if (Array.isArray(c.attention_head_dim) && c.attention_head_dim.length !== n) {
      bad('attention_head_dim', `must be a number or as long as block_out_channels (${n})`);
    }
    if (c.block_out_channels[0] % 2 !== 0) bad('block_out_channels', 'must begin with an even number');
    for (const [level, width] of c.block_out_channels.entries()) {
      if (width % c.norm_num_groups !== 0) {
        bad('block_out_channels', `${width} is not divisible by norm_num_groups ${c.norm_num_groups}`);
      }
      const heads = Array.isArray(c.attention_head_dim) ? (c.attention_head_dim[level] ?? 1) : c.attention_head_dim;
      const attends =
        c.down_block_types[level] === 'CrossAttnDownBlock2D' ||
        c.up_block_types[n - 1 - level] === 'CrossAttnUpBlock2D' ||
        level === n - 1; // the middle block
      if (attends && width % heads !== 0) {
        bad('attention_head_dim', `${heads} heads do not divide the ${width} channels of level ${level}`);
      }
    }
  });

/** `vae/config.json`. */
export const vaeSchema = z
  .object({
    _class_name: only('AutoencoderKL'),
    in_channels: channels.default(3),
    out_channels: channels.default(3),
    down_block_types: levels(oneOf('DownEncoderBlock2D')).default(['DownEncoderBlock2D']),
    up_block_types: levels(oneOf('UpDecoderBlock2D')).default(['UpDecoderBlock2D']),
    block_out_channels: levels(channels).default([64]),
    layers_per_block: int(1, 16).default(1),
    act_fn: oneOf('silu', 'swish').default('silu'),
    latent_channels: channels.default(4),
    norm_num_groups: int(1, 65_536).default(32),
    sample_size: z.union([int(1, 8192), z.array(int(1, 8192)).length(2)]).nullish(),
    scaling_factor: z.number().gt(0).lt(1000).default(0.18215),
    shift_factor: absent,
    latents_mean: absent,
    latents_std: absent,
    use_quant_conv: only(true),
    use_post_quant_conv: only(true),
    mid_block_add_attention: only(true),
  })
  .check(({ value: c, issues }) => {
    const bad = (key: string, message: string) => issues.push({ code: 'custom', input: c, path: [key], message });
    const n = c.block_out_channels.length;
    if (c.down_block_types.length !== n) bad('down_block_types', `must be as long as block_out_channels (${n})`);
    if (c.up_block_types.length !== n) bad('up_block_types', `must be as long as block_out_channels (${n})`);
    if (c.in_channels !== c.out_channels) bad('out_channels', `must equal in_channels (${c.in_channels})`);
    for (const width of c.block_out_channels) {
      if (width % c.norm_num_groups !== 0) {
        bad('block_out_channels', `${width} is not divisible by norm_num_groups ${c.norm_num_groups}`);
      }
    }
  });

/** `text_encoder/config.json` (transformers' CLIPTextModel). */
export const textEncoderSchema = z
  .object({
    architectures: z
      .array(z.string())
      .refine((names) => names.some((name) => /^CLIPTextModel(WithProjection)?$/.test(name)), {
        error: 'must name CLIPTextModel',
      })
      .nullish(),
    model_type: only('clip_text_model'),
    vocab_size: int(3, 4_194_304).default(49_408),
    hidden_size: channels.default(512),
    intermediate_size: channels.default(2048),
    num_hidden_layers: int(1, 256).default(12),
    num_attention_heads: int(1, 1024).default(8),
    max_position_embeddings: int(3, 65_536).default(77),
    hidden_act: oneOf('quick_gelu', 'gelu').default('quick_gelu'),
    layer_norm_eps: eps.default(1e-5),
  })
  .check(({ value: c, issues }) => {
    if (c.hidden_size % c.num_attention_heads !== 0) {
      const message = `${c.num_attention_heads} heads do not divide hidden_size ${c.hidden_size}`;
      issues.push({ code: 'custom', input: c, path: ['num_attention_heads'], message });
    }
  });

/** `model_index.json`: which pipeline this is. */
export const modelIndexSchema = z.object({
  _class_name: z.string().regex(/^StableDiffusion(?!XL|3|Upscale|Inpaint)\w*Pipeline\w*$/, {
    error: 'only StableDiffusionPipeline is supported',
  }),
});

/** `unet/config.json` with every default filled in. */
export type UNetConfig = Readonly<z.output<typeof unetSchema>>;
/** `vae/config.json` with every default filled in. */
export type VaeConfig = Readonly<z.output<typeof vaeSchema>>;
/** `text_encoder/config.json` with every default filled in. */
export type TextEncoderConfig = Readonly<z.output<typeof textEncoderSchema>>;

/** The configurations of one model, checked one by one (`parseConfig`) and against each other (`checkTogether`). */
export type ModelConfigs = {
  /** of `unet/config.json` */
  readonly unet: UNetConfig;
  /** of `vae/config.json` */
  readonly vae: VaeConfig;
  /** of `text_encoder/config.json` */
  readonly textEncoder: TextEncoderConfig;
  /** of `scheduler/scheduler_config.json` */
  readonly scheduler: SchedulerConfig;
};

/**
 * A parsed JSON value → a typed configuration with all defaults filled in.
 * @throws FileError naming file and key, up to three of them on one line
 * @example parseConfig(unetSchema, await readJson('unet/config.json'), 'unet/config.json')
 */
export function parseConfig<T extends z.ZodType>(schema: T, json: Json, file: string): z.output<T> {
  const result = schema.safeParse(json);
  if (result.success) return result.data;
  const lines = result.error.issues.map(({ path, message }) => {
    const key = path.map(String).join('.');
    return `${key === '' ? '' : `${key}: `}is ${show(json, path)}, ${message.replace(/^Invalid input: |^Too \w+: /, '')}`;
  });
  throw new FileError(file, '', lines.slice(0, 3).join('; '));
}

function show(json: Json, path: readonly PropertyKey[]): string {
  let value: unknown = json;
  for (const key of path) {
    value = typeof value === 'object' && value !== null && Object.hasOwn(value, key) ? value[key as never] : undefined;
  }
  return value === undefined ? 'not given' : printable(JSON.stringify(value), 80);
}

/** The same for `scheduler/scheduler_config.json`, whose schema lives with the schedulers. @throws FileError */
export function parseScheduler(json: Json, file: string): SchedulerConfig {
  try {
    return parseSchedulerConfig(json, file);
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    throw new FileError(file, '', message.startsWith(`${file}: `) ? message.slice(file.length + 2) : message);
  }
}

/**
 * What must fit between the parts. @param file names the configuration file of a part for messages
 * @throws FileError naming both keys with their values
 */
export function checkTogether(configs: ModelConfigs, file: (part: 'unet' | 'vae' | 'text_encoder') => string): void {
  const { unet, vae, textEncoder } = configs;
  const differ = (key: string, value: number, other: string, wanted: number) =>
    new FileError(file('unet'), key, `is ${value}, but ${other} is ${wanted}`);
  if (unet.cross_attention_dim !== textEncoder.hidden_size) {
    throw differ(
      'cross_attention_dim',
      unet.cross_attention_dim,
      "the text encoder's hidden_size",
      textEncoder.hidden_size,
    );
  }
  for (const key of ['in_channels', 'out_channels'] as const) {
    if (unet[key] !== vae.latent_channels)
      throw differ(key, unet[key], "the VAE's latent_channels", vae.latent_channels);
  }
}

/** Number of attention heads at every level of the U-Net. */
export function headsPerLevel(config: UNetConfig): readonly number[] {
  const heads = config.attention_head_dim;
  return typeof heads === 'number' ? config.block_out_channels.map(() => heads) : heads;
}

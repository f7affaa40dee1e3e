/**
 * The names of a model's tensors and modules in the forms that files use: diffusers' (the project's own), the original
 * single file's (LDM), the VAE's old attention names, and kohya's flat module names.
 */
import type { UNetConfig, VaeConfig } from './config.ts';

/** The three networks of a Stable Diffusion 1.5-shaped model, by their folder names. */
export const PARTS = ['unet', 'vae', 'text_encoder'] as const;
/** One of the three networks. */
export type Part = (typeof PARTS)[number];

/** Two prefixes for the same module: [diffusers, LDM]. Both end in `.` or are whole names. */
type Pair = readonly [string, string];

export const LDM_PREFIX: Readonly<Record<Part, string>> = {
  unet: 'model.diffusion_model.',
  vae: 'first_stage_model.',
  text_encoder: 'cond_stage_model.transformer.',
};

const UNET_RESNET: readonly Pair[] = [
  ['norm1.', 'in_layers.0.'],
  ['conv1.', 'in_layers.2.'],
  ['time_emb_proj.', 'emb_layers.1.'],
  ['norm2.', 'out_layers.0.'],
  ['conv2.', 'out_layers.3.'],
  ['conv_shortcut.', 'skip_connection.'],
];

const VAE_RESNET: readonly Pair[] = [
  ['norm1.', 'norm1.'],
  ['conv1.', 'conv1.'],
  ['norm2.', 'norm2.'],
  ['conv2.', 'conv2.'],
  ['conv_shortcut.', 'nin_shortcut.'],
];

const VAE_ATTENTION: readonly Pair[] = [
  ['group_norm.', 'norm.'],
  ['to_q.', 'q.'],
  ['to_k.', 'k.'],
  ['to_v.', 'v.'],
  ['to_out.0.', 'proj_out.'],
];

/** Pairs below one module: `down_blocks.0.resnets.0.` × `norm1.` … */
const below = (diffusers: string, ldm: string, pairs: readonly Pair[]): readonly Pair[] =>
  pairs.map(([d, l]) => [diffusers + d, ldm + l]);

/** Every n of 0 … count − 1 through `f`, flattened. */
const each = (count: number, f: (n: number) => readonly Pair[]): readonly Pair[] =>
  Array.from({ length: count }, (_, n) => f(n)).flat();

/** U-Net: `input_blocks` and `output_blocks` are numbered through all levels, resampling included. */
function unetPairs(config: UNetConfig): readonly Pair[] {
  const perDown = config.layers_per_block;
  const perUp = perDown + 1;
  const levels = config.block_out_channels.length;
  return [
    ['conv_in.', 'input_blocks.0.0.'],
    ['time_embedding.linear_1.', 'time_embed.0.'],
    ['time_embedding.linear_2.', 'time_embed.2.'],
    ['conv_norm_out.', 'out.0.'],
    ['conv_out.', 'out.2.'],
    ...below('mid_block.resnets.0.', 'middle_block.0.', UNET_RESNET),
    ['mid_block.attentions.0.', 'middle_block.1.'],
    ...below('mid_block.resnets.1.', 'middle_block.2.', UNET_RESNET),
    ...each(levels, (i) => [
      ...each(perDown, (j) => {
        const block = `input_blocks.${1 + i * (perDown + 1) + j}`;
        return [
          ...below(`down_blocks.${i}.resnets.${j}.`, `${block}.0.`, UNET_RESNET),
          [`down_blocks.${i}.attentions.${j}.`, `${block}.1.`] as const,
        ];
      }),
      [`down_blocks.${i}.downsamplers.0.conv.`, `input_blocks.${(i + 1) * (perDown + 1)}.0.op.`],
      ...each(perUp, (j) => {
        const block = `output_blocks.${i * perUp + j}`;
        const upsampler = config.up_block_types[i] === 'UpBlock2D' ? 1 : 2; // behind the attention, where there is one
        return [
          ...below(`up_blocks.${i}.resnets.${j}.`, `${block}.0.`, UNET_RESNET),
          ...(upsampler === 2 ? [[`up_blocks.${i}.attentions.${j}.`, `${block}.1.`] as const] : []),
          ...(j === perUp - 1 ? [[`up_blocks.${i}.upsamplers.0.conv.`, `${block}.${upsampler}.conv.`] as const] : []),
        ];
      }),
    ]),
  ];
}

/** VAE: the decoder's levels count from the other end. */
function vaePairs(config: VaeConfig): readonly Pair[] {
  const levels = config.block_out_channels.length;
  const side = (name: 'encoder' | 'decoder'): readonly Pair[] => [
    [`${name}.conv_in.`, `${name}.conv_in.`],
    [`${name}.conv_norm_out.`, `${name}.norm_out.`],
    [`${name}.conv_out.`, `${name}.conv_out.`],
    ...below(`${name}.mid_block.resnets.0.`, `${name}.mid.block_1.`, VAE_RESNET),
    ...below(`${name}.mid_block.attentions.0.`, `${name}.mid.attn_1.`, VAE_ATTENTION),
    ...below(`${name}.mid_block.resnets.1.`, `${name}.mid.block_2.`, VAE_RESNET),
  ];
  return [
    ['quant_conv.', 'quant_conv.'],
    ['post_quant_conv.', 'post_quant_conv.'],
    ...side('encoder'),
    ...side('decoder'),
    ...each(levels, (i) => [
      ...each(config.layers_per_block, (j) =>
        below(`encoder.down_blocks.${i}.resnets.${j}.`, `encoder.down.${i}.block.${j}.`, VAE_RESNET),
      ),
      [`encoder.down_blocks.${i}.downsamplers.0.conv.`, `encoder.down.${i}.downsample.conv.`],
      ...each(config.layers_per_block + 1, (j) =>
        below(`decoder.up_blocks.${i}.resnets.${j}.`, `decoder.up.${levels - 1 - i}.block.${j}.`, VAE_RESNET),
      ),
      [`decoder.up_blocks.${i}.upsamplers.0.conv.`, `decoder.up.${levels - 1 - i}.upsample.conv.`],
    ]),
  ];
}

/** Renames by prefix: the given side of every pair → the other side. Cost: one look-up per dot in the name. */
function renamer(pairs: readonly Pair[], from: 0 | 1): (name: string) => string | undefined {
  const table = new Map(pairs.map((pair) => [pair[from], pair[1 - from]]));
  return (name) => {
    for (let end = name.lastIndexOf('.'); end >= 0; end = name.lastIndexOf('.', end - 1)) {
      const other = table.get(name.slice(0, end + 1));
      if (other !== undefined) return other + name.slice(end + 1);
    }
    return undefined;
  };
}

/** Both ways between diffusers' names and those of the original single file. */
export type LdmNames = {
  /** Tensor name of a part in diffusers' form → name in the single file, or undefined if there is no such module. */
  readonly toLdm: (part: Part, name: string) => string | undefined;
  /** Name in the single file → part and diffusers' name, or undefined for schedule tables, EMA copies and the like. */
  readonly fromLdm: (name: string) => readonly [Part, string] | undefined;
};

/**
 * The names of the original single-file checkpoints for given configurations.
 * @example ldmNames(configs).toLdm('unet', 'conv_in.weight') // 'model.diffusion_model.input_blocks.0.0.weight'
 */
export function ldmNames(configs: { readonly unet: UNetConfig; readonly vae: VaeConfig }): LdmNames {
  const pairs: Readonly<Record<Part, readonly Pair[]>> = {
    unet: unetPairs(configs.unet),
    vae: vaePairs(configs.vae),
    text_encoder: [['text_model.', 'text_model.']],
  };
  const to = new Map(PARTS.map((part) => [part, renamer(pairs[part], 0)]));
  const from = new Map(PARTS.map((part) => [part, renamer(pairs[part], 1)]));
  return {
    toLdm: (part, name) => {
      const other = to.get(part)!(name);
      return other === undefined ? undefined : LDM_PREFIX[part] + other;
    },
    fromLdm: (name) => {
      const part = PARTS.find((p) => name.startsWith(LDM_PREFIX[p]));
      if (part === undefined) return undefined;
      const other = from.get(part)!(name.slice(LDM_PREFIX[part].length));
      return other === undefined ? undefined : [part, other];
    },
  };
}

const OLD_VAE: ReadonlyMap<string, string> = new Map([
  ['query', 'to_q'],
  ['key', 'to_k'],
  ['value', 'to_v'],
  ['proj_attn', 'to_out.0'],
]);

/** The VAE attention's names in SD 1.5's own files → today's; every other name unchanged. */
export function modernVaeName(name: string): string {
  const match = /^((?:en|de)coder\.mid_block\.attentions\.\d+\.)(query|key|value|proj_attn)(\.(?:weight|bias))$/.exec(
    name,
  );
  return match === null ? name : match[1] + OLD_VAE.get(match[2])! + match[3];
}

/** kohya's module prefix per part; `lora_te1_` is what diffusers writes for the text encoder. */
const KOHYA_PREFIXES: readonly (readonly [string, Part])[] = [
  ['lora_unet_', 'unet'],
  ['lora_te1_', 'text_encoder'],
  ['lora_te_', 'text_encoder'],
];

/** `unet.mid_block.attentions.0.proj_in` → `lora_unet_mid_block_attentions_0_proj_in`. */
export function toKohya(modulePath: string): string {
  const [part, ...rest] = modulePath.split('.');
  return `${part === 'unet' ? 'lora_unet' : 'lora_te'}_${rest.join('_')}`;
}

/** Path segments of SD 1.5's modules that contain `_`: where kohya's flat name must not be split. */
const COMPOUND = [
  ...['down_blocks', 'up_blocks', 'mid_block', 'transformer_blocks', 'time_embedding', 'time_emb_proj', 'linear_1'],
  ...['linear_2', 'conv_in', 'conv_out', 'conv_shortcut', 'proj_in', 'proj_out', 'to_q', 'to_k', 'to_v', 'to_out'],
  ...['text_model', 'self_attn', 'q_proj', 'k_proj', 'v_proj', 'out_proj', 'token_embedding', 'position_embedding'],
  // of the original code
  ...['input_blocks', 'output_blocks', 'middle_block', 'in_layers', 'out_layers', 'emb_layers', 'skip_connection'],
  'time_embed',
];
const SEGMENT = new RegExp(`^(?:${COMPOUND.join('|')}|[a-z]+\\d*|\\d+)(?=_|$)`);

/**
 * A kohya module name → module path with its part, or undefined for names that are not SD 1.5's (`lora_te2_…`). Names of
 * the original code stay what they are (`unet.input_blocks.1.1.…`): `ldmNames` knows where they belong.
 * @example fromKohya('lora_unet_mid_block_attentions_0_proj_in') // 'unet.mid_block.attentions.0.proj_in'
 */
export function fromKohya(name: string): string | undefined {
  const found = KOHYA_PREFIXES.find(([prefix]) => name.startsWith(prefix));
  if (found === undefined) return undefined;
  const path: string[] = [];
  let rest = name.slice(found[0].length);
  while (rest !== '') {
    const segment = SEGMENT.exec(rest)?.[0];
    if (segment === undefined) return undefined;
    path.push(segment);
    rest = rest.slice(segment.length + 1);
  }
  return path.length === 0 ? undefined : `${found[1]}.${path.join('.')}`;
}

/**
 * Which module and which half a key of an adapter file means, in all the namings that are about, and what a file is
 * that is no low-rank adapter of a Stable Diffusion 1.5-shaped model.
 */
import { fromKohya, type LdmNames } from '../names.ts';
import { FileError, quoted } from './error.ts';

/** The two halves of a module's adapter and its alpha, as found in a file. */
export type Found = { readonly down?: string; readonly up?: string; readonly alpha?: string };

/** What the keys of a file say. */
export type Sorted = {
  readonly modules: ReadonlyMap<string, Found>;
  /** Names of embeddings that lie in the same file and are left out. */
  readonly embeddings: readonly string[];
};

const XL = 'this is an adapter of Stable Diffusion XL';

/** What else is handed over as "a LoRA", by a key that only it has. The first that fits names the file. */
const OTHERS: readonly (readonly [RegExp, string])[] = [
  [/^lora_te2_|^text_encoder_2\.|^text_encoders?\.clip_g\.|^clip_g\./, `${XL}: it has a second text encoder`],
  [/^(lora_)?transformer[._]/, 'this is an adapter of a transformer (Stable Diffusion 3, Flux, PixArt …)'],
  [/transformer_blocks[._][1-9]/, `${XL}: it has more than one block per transformer`],
  [/^(lora_)?te3_|^text_encoder_3\.|joint_blocks|^text_encoders\.t5xxl\./, 'this is an adapter of Stable Diffusion 3'],
  [/double_blocks|single_blocks|single_transformer_blocks/, 'this is an adapter of Flux or a model like it'],
  [/\.(dora_scale|lora_magnitude_vector(\.\w+)?(\.weight)?)$/, 'this is a DoRA (LoRA with magnitudes)'],
  [/\.hada_(w[12](_[ab])?|t[12])$/, 'this is a LoHa (LyCORIS, Hadamard product)'],
  [/\.lokr_(w[12](_[ab])?|t2)$/, 'this is a LoKr (LyCORIS, Kronecker product)'],
  [/\.lora_mid\.weight$/, 'this is a LoCon with Tucker decomposition (LyCORIS, lora_mid)'],
  [/\.(oft_blocks|oft_diag|oft_r|boft_R|oft_R)(\.\w+)*$/, 'this is an OFT adapter (orthogonal fine-tuning)'],
  [/\.(a[12]|b[12]|bm[12])\.weight$/, 'this is a GLoRA (LyCORIS)'],
  [/\.on_input$|\.ia3_l(\.\w+)*$/, 'this is an (IA)³ adapter (factors of activations)'],
  [/\.(diff|diff_b|w_norm|b_norm|set_weight)$/, 'this holds whole changes of weights (LyCORIS full or norm)'],
  [/\.(vera_lambda|vera_[AB])/, 'this is a VeRA adapter'],
  [/\.lora_embedding_[AB](\.\w+)?$/, 'this adapts an embedding (lora_embedding), which is not supported'],
  [/\.lora_[AB](\.\w+)?\.bias$/, 'this is a LoRA with biases (lora_bias), which is not supported'],
  [/\.lora_E$|\.ranknum$/, 'this is an AdaLoRA adapter'],
  [/^(emb_params|clip_[lg]|<.*>|string_to_param)/, 'this is an embedding (textual inversion), not an adapter'],
];

/** And what is no addition to a model at all. */
const MODELS: readonly (readonly [RegExp, string])[] = [
  [
    /^(?!.*lora)(model\.diffusion_model|first_stage_model|cond_stage_model|conditioner)\./,
    'this is a whole model (a checkpoint), not an adapter: give it as --base',
  ],
  [
    /^(?!.*lora)((down_blocks|up_blocks|mid_block|conv_in|time_embedding|text_model|encoder|decoder)\..*)\.(weight|bias)$/,
    'these are the weights of a whole network of a model, not an adapter',
  ],
];

/** Embeddings that some trainers put beside the adapter they were trained with. */
const EMBEDDING = /^(?:bundle_emb\.([^.]+)\.|embeddings?\.([^.]+)$)/;

/** Ways to end the key of a half: all of them may stand side by side, in any order. */
const HALVES: readonly (readonly [RegExp, 'down' | 'up' | 'alpha'])[] = [
  [/\.lora_A(?:\.[A-Za-z]\w*)?\.weight$/, 'down'],
  [/\.lora_B(?:\.[A-Za-z]\w*)?\.weight$/, 'up'],
  [/\.lora(?:_linear_layer)?\.down\.weight$/, 'down'],
  [/\.lora(?:_linear_layer)?\.up\.weight$/, 'up'],
  [/\.lora_down\.weight$/, 'down'],
  [/\.lora_up\.weight$/, 'up'],
  [/\.alpha$/, 'alpha'],
];

/** Whether a file is an adapter by its keys: a LoRA, or one of those that are refused by name. */
export const looksLikeAdapter = (keys: readonly string[]): boolean =>
  keys.some((key) => /[._]lora[._]/.test(key) || OTHERS.some(([pattern]) => pattern.test(key)));

/**
 * Sorts a file's keys by module.
 * @param ldm names of the original code's modules, which depend on the base's configuration
 * @throws FileError naming the key: what the file is instead, what is no module, what is there twice
 */
export function sortKeys(keys: readonly string[], file: string, ldm: LdmNames): Sorted {
  const fail = (key: string, problem: string) => new FileError(file, `tensor ${quoted(key)}`, problem);
  const embeddings = new Set<string>();
  const own = keys.filter((key) => {
    const [, bundled, plain] = EMBEDDING.exec(key) ?? [];
    if (bundled ?? plain) embeddings.add((bundled ?? plain) as string);
    return (bundled ?? plain) === undefined;
  });
  for (const [pattern, what] of [...OTHERS, ...MODELS]) {
    const key = own.find((name) => pattern.test(name));
    if (key !== undefined) throw fail(key, what);
  }
  if (own.length === 0 && embeddings.size > 0)
    throw fail(keys[0], 'this is an embedding (textual inversion), no adapter');
  const modules = new Map<string, Found>();
  for (const key of own) {
    const plain = withoutProcessor(key);
    const ending = HALVES.find(([pattern]) => pattern.test(plain));
    if (ending === undefined)
      throw fail(key, 'is no part of a LoRA: expected lora_A, lora_B, lora_down, lora_up or alpha');
    const [pattern, half] = ending;
    const modulePath = pathOf(plain.replace(pattern, ''), ldm);
    if (modulePath === undefined)
      throw fail(key, "does not name a module of Stable Diffusion 1.5's unet or text_encoder");
    const entry = modules.get(modulePath) ?? {};
    if (entry[half] !== undefined)
      throw fail(key, `is the second ${half} of ${modulePath}, beside ${quoted(entry[half])}`);
    modules.set(modulePath, { ...entry, [half]: key });
  }
  return { modules, embeddings: [...embeddings] };
}

/**
 * The oldest diffusers files keep the attention's adapters beside its layers, in a "processor" or not:
 * `…attn1.processor.to_q_lora.down.weight` is `…attn1.to_q.lora.down.weight`, `…self_attn.to_q_lora…` CLIP's `q_proj`.
 */
function withoutProcessor(key: string): string {
  return key.replace(
    /(\.self_attn)?(?:\.processor)?\.to_([qkv]|out)_lora\.(down|up)\.weight$/,
    (_, clip: string | undefined, layer: string, half: string) => {
      const own = clip === undefined ? `to_${layer === 'out' ? 'out.0' : layer}` : `${layer}_proj`;
      return `${clip ?? ''}.${own}.lora.${half}.weight`;
    },
  );
}

/** Prefixes of the two networks in other programs, to be taken off; the longest first. */
const PREFIXES: readonly (readonly [string, 'ldm' | 'text_encoder'])[] = [
  ['model.diffusion_model.', 'ldm'],
  ['diffusion_model.', 'ldm'],
  ['cond_stage_model.transformer.', 'text_encoder'],
  ['text_encoders.clip_l.transformer.', 'text_encoder'],
  ['clip_l.transformer.', 'text_encoder'],
];

/** `unet.…` or `text_encoder.…` from the module's name in any form. */
function pathOf(name: string, ldm: LdmNames): string | undefined {
  if (/^lora_(unet|te\d?)_/.test(name)) {
    const path = fromKohya(name);
    const original = path?.startsWith('unet.') ? numbered(path.slice('unet.'.length)) : undefined;
    return original === undefined ? path && canonical(path) : unetPath(original, ldm);
  }
  const bare = name.replace(/^(?:(unet|text_encoder)\.)?base_model\.model\./, (_, part?: string) =>
    part ? `${part}.` : '',
  );
  if (!/^[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*$/.test(bare)) return undefined;
  const [prefix, network] = PREFIXES.find(([p]) => bare.startsWith(p)) ?? [];
  if (prefix !== undefined) {
    const rest = bare.slice(prefix.length);
    if (network === 'text_encoder') return canonical(`text_encoder.${rest}`);
    return numbered(rest) === undefined ? canonical(`unet.${rest}`) : unetPath(rest, ldm);
  }
  if (/^(unet|text_encoder)\../.test(bare)) return canonical(bare);
  // PEFT folders hold one network and do not say which; the text encoder's paths tell themselves.
  return canonical(/^(text_model\.|encoder\.layers\.)/.test(bare) ? `text_encoder.${bare}` : `unet.${bare}`);
}

/** A path of the original code, which numbers its blocks through. */
const numbered = (path: string): string | undefined =>
  /^(input_blocks|output_blocks|middle_block|time_embed|out)\./.test(path) ? path : undefined;

function unetPath(original: string, ldm: LdmNames): string | undefined {
  const [part, name] = ldm.fromLdm(`model.diffusion_model.${original}.weight`) ?? [];
  return part === 'unet' ? canonical(`unet.${name!.slice(0, -'.weight'.length)}`) : undefined;
}

/** One name per module: transformers 5.6 dropped CLIP's level `text_model`, some loaders `to_out`'s number. */
const canonical = (path: string): string =>
  path
    .replace(/^text_encoder\.(?=(encoder|embeddings|final_layer_norm)\.)/, 'text_encoder.text_model.')
    .replace(/\.to_out$/, '.to_out.0');

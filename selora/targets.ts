/** Which layers are adapted: presets and glob patterns over module paths. A pattern that matches nothing is an error. */

/** Patterns by network for the names `--targets` takes. */
export const presets = {
  /** the paper's words: every linear layer of U-Net and text encoder (184 + 72 in SD 1.5) */
  'all-linear': { unet: ['**'], text: ['**'] },
  /** what the published code's name matching reaches (134 + 72) */
  'paper-code': {
    unet: ['**.to_q', '**.to_k', '**.to_v', '**.ff.net.0.proj', '**.time_emb_proj'],
    text: ['**.q_proj', '**.k_proj', '**.v_proj', '**.out_proj', '**.fc1', '**.fc2'],
  },
  /** attention projections of the U-Net only (128), the usual LoRA */
  attn: { unet: ['**.to_q', '**.to_k', '**.to_v', '**.to_out.0'], text: [] },
} as const satisfies Record<string, { unet: readonly string[]; text: readonly string[] }>;
/** The preset of linears and convolutions together: 1×1 `proj_in/out` and `conv_shortcut` among them. */
export const ALL = 'all';
/** The name of a preset. */
export type TargetPreset = keyof typeof presets | typeof ALL;

/**
 * `*` stands for any characters of one path segment, `**` for any number of segments (at the end: at least one).
 * @example globToRegExp('down_blocks.**.to_q').test('down_blocks.0.attentions.1.to_q') // true
 */
export function globToRegExp(glob: string): RegExp {
  const parts = glob.split('.');
  const source = parts.map((part, i) => {
    const last = i === parts.length - 1;
    if (part === '**') return last ? '[^.]+(?:\\.[^.]+)*' : '(?:[^.]+\\.)*';
    const literal = part.replace(/[\\^$+?()[\]{}|]/g, '\\$&').replace(/\*+/g, '[^.]*');
    return last ? literal : `${literal}\\.`;
  });
  return new RegExp(`^${source.join('')}$`);
}

/** One network's linears chosen by patterns, in the order of the model. @throws RangeError for a pattern that matches nothing. */
export function matchTargets(linears: Iterable<string>, patterns: readonly string[], network: string): string[] {
  const all = [...linears];
  const chosen = new Set<string>();
  for (const pattern of patterns) {
    const re = globToRegExp(pattern);
    const hits = all.filter((p) => re.test(p));
    if (hits.length === 0)
      throw new RangeError(
        `--targets ${pattern}: matches none of the ${all.length} linears of the ${network} (for example ${all[0] ?? 'none'})`,
      );
    for (const h of hits) chosen.add(h);
  }
  return all.filter((p) => chosen.has(p));
}

/** A pattern for one network or both: `unet.` and `text.` in front mean one. */
function hitsOf(
  pattern: string,
  unet: readonly string[],
  text: readonly string[],
): { readonly unet: string[]; readonly text: string[] } {
  const only = /^(unet|text)\.(.*)$/.exec(pattern);
  const re = globToRegExp(only ? only[2]! : pattern);
  return {
    unet: only?.[1] === 'text' ? [] : unet.filter((p) => re.test(p)),
    text: only?.[1] === 'unet' ? [] : text.filter((p) => re.test(p)),
  };
}

/**
 * Ranks by hand: `pattern=rank` pairs separated by commas over the adapted linears; of several that match, the last counts.
 * @throws RangeError naming the pair that is none, or whose pattern matches nothing
 * @example ranksByHand('**.attn2.**=4,text.**=2', unetPaths, textPaths, 1)
 */
export function ranksByHand(
  spec: string | null,
  unet: readonly string[],
  text: readonly string[],
  otherwise: number,
): { readonly unet: { readonly [path: string]: number }; readonly text: { readonly [path: string]: number } } {
  const all = (paths: readonly string[]): Record<string, number> =>
    Object.fromEntries(paths.map((p) => [p, otherwise]));
  const out = { unet: all(unet), text: all(text) };
  for (const raw of (spec ?? '')
    .split(',')
    .map((s) => s.trim())
    .filter((s) => s !== '')) {
    const [, pattern, digits] = /^(.+)=(\d{1,4})$/.exec(raw) ?? [];
    const rank = Number(digits);
    if (pattern === undefined || !(rank >= 1 && rank <= 1024))
      throw new RangeError(`--ranks ${raw}: expected pattern=rank with a rank from 1 to 1024, such as **.attn2.**=4`);
    const hits = hitsOf(pattern, unet, text);
    if (hits.unet.length + hits.text.length === 0)
      throw new RangeError(`--ranks ${raw}: matches none of the adapted linears, such as ${unet[0] ?? text[0]}`);
    for (const p of hits.unet) out.unet[p] = rank;
    for (const p of hits.text) out.text[p] = rank;
  }
  return out;
}

/**
 * Layers to adapt in both networks. `spec` is a preset or globs separated by commas; a glob beginning with `unet.` or
 * `text.` means one network, any other must match in at least one. An empty list means: this network is not trained.
 * Globs are over the linears; one that matches none of them is over the U-Net's convolutions.
 * @throws RangeError naming the pattern that matches nothing
 * @example selectTargets('attn', unetPaths, textPaths)   selectTargets('**.to_q,text.**.fc1', unetPaths, textPaths)
 */
export function selectTargets(
  spec: string,
  unet: readonly string[],
  text: readonly string[],
  convolutions: readonly string[] = [],
): { readonly unet: string[]; readonly text: string[] } {
  if (spec === ALL) return { unet: [...unet, ...convolutions], text: [...text] };
  if (Object.hasOwn(presets, spec)) {
    const p = presets[spec as keyof typeof presets];
    if (unet.length + text.length === 0) throw new RangeError(`--targets ${spec}: names no linear`);
    // a network without linears is one that is not trained
    return {
      unet: p.unet.length > 0 && unet.length > 0 ? matchTargets(unet, p.unet, 'U-Net') : [],
      text: p.text.length > 0 && text.length > 0 ? matchTargets(text, p.text, 'text encoder') : [],
    };
  }
  const out = { unet: new Set<string>(), text: new Set<string>() };
  for (const raw of spec
    .split(',')
    .map((s) => s.trim())
    .filter((s) => s !== '')) {
    const linear = hitsOf(raw, unet, text);
    const hits = linear.unet.length + linear.text.length > 0 ? linear : hitsOf(raw, convolutions, []);
    if (hits.unet.length + hits.text.length === 0)
      throw new RangeError(
        `--targets ${raw}: matches no ${convolutions.length > 0 ? 'linear and no convolution' : 'linear'}; presets are ${[...Object.keys(presets), ALL].join(', ')}, a path looks like ${unet[0] ?? text[0]}`,
      );
    for (const p of hits.unet) out.unet.add(p);
    for (const p of hits.text) out.text.add(p);
  }
  if (out.unet.size + out.text.size === 0) throw new RangeError(`--targets '${spec}': names no linear`);
  return { unet: [...unet, ...convolutions].filter((p) => out.unet.has(p)), text: text.filter((p) => out.text.has(p)) };
}

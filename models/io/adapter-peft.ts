/**
 * PEFT's rules for ranks and alphas by module: `adapter_config.json`, or diffusers' `lora_adapter_metadata` in the
 * header. Patterns are looked up separately for rank and alpha, and the first key that matches a module's end wins.
 */
import { z } from 'zod';
import { FileError, printable, quoted } from './error.ts';
import { type Json, parseJson } from './json.ts';

/** Rank and scale of a module path without its part. */
export type PeftRules = {
  readonly rank: (modulePath: string) => number;
  readonly scale: (modulePath: string, rank: number) => number;
};

const positive = z.number().gt(0).lt(1e9);
const patterns = (value: z.ZodNumber) => z.record(z.string().max(512), value).nullish();
const off = z.literal([false, null], { error: 'is not supported' }).optional();

/** Ways to start that leave the base as it is; the others put the difference into its weights, which no adapter holds. */
const STARTS = ['gaussian', 'eva', 'orthogonal'];

const start = z
  .union([z.boolean(), z.string()])
  .refine((value) => typeof value === 'boolean' || STARTS.includes(value), {
    error: ({ input }) =>
      `"${String(input)}" changes the base's own weights, so this adapter alone is not the change that was trained: convert it with PEFT (path_initial_model_for_weight_conversion)`,
  })
  .nullish();

const none = z.null({ error: 'is not supported' }).optional();

const configSchema = z.object({
  peft_type: z.literal('LORA', { error: 'only "LORA" is supported' }).nullish(),
  r: z.int().min(1).max(65_536),
  lora_alpha: z.number().gt(-1e9).lt(1e9),
  rank_pattern: patterns(z.int().min(1).max(65_536)),
  alpha_pattern: patterns(positive),
  use_rslora: z.boolean().nullish(),
  use_dora: off,
  fan_in_fan_out: off,
  lora_bias: off,
  bias: z.literal(['none', null], { error: 'only "none" is supported' }).optional(),
  init_lora_weights: start,
  modules_to_save: none,
  layer_replication: none,
  target_parameters: none,
  trainable_token_indices: none,
  alora_invocation_tokens: z
    .null({ error: 'is not supported: an aLoRA works from these tokens on, not everywhere' })
    .optional(),
  arrow_config: none,
  kasa_config: none,
  use_bdlora: none,
  use_qalora: off,
});

/**
 * The rules of an `adapter_config.json`.
 * @throws FileError naming the key
 */
export function peftRules(json: Json, file: string, field = ''): PeftRules {
  const result = configSchema.safeParse(json);
  if (!result.success) {
    const [{ path, message }] = result.error.issues;
    throw new FileError(file, [field, ...path.map(String)].filter((key) => key !== '').join('.'), printable(message));
  }
  const { r, lora_alpha, rank_pattern, alpha_pattern, use_rslora } = result.data;
  const lookUp = (table: Readonly<Record<string, number>> | null | undefined, otherwise: number) => {
    const matchers = Object.entries(table ?? {}).map(([key, value]) => [suffixMatcher(key, file), value] as const);
    return (modulePath: string) => matchers.find(([matches]) => matches(modulePath))?.[1] ?? otherwise;
  };
  const rank = lookUp(rank_pattern, r);
  const alpha = lookUp(alpha_pattern, lora_alpha);
  return {
    rank,
    scale: (modulePath, ownRank) => alpha(modulePath) / (use_rslora ? Math.sqrt(ownRank) : ownRank),
  };
}

/** The rules per part of diffusers' `lora_adapter_metadata`: one JSON object with keys such as `unet.r`. */
export function peftRulesFromMetadata(text: string | undefined, file: string): ReadonlyMap<string, PeftRules> {
  if (text === undefined) return new Map();
  const field = '__metadata__.lora_adapter_metadata';
  const json = parseJson(text, file, { field });
  if (typeof json !== 'object' || json === null || Array.isArray(json)) {
    throw new FileError(file, field, 'must be a JSON object');
  }
  const byPart = new Map<string, Map<string, Json>>();
  for (const [key, value] of Object.entries(json)) {
    const [, part, name] = /^(unet|text_encoder)\.(.+)$/.exec(key) ?? [];
    if (part === undefined) continue;
    byPart.set(part, (byPart.get(part) ?? new Map()).set(name, value));
  }
  return new Map(
    [...byPart].map(([part, config]) => [part, peftRules(Object.fromEntries(config), file, `${field}.${part}`)]),
  );
}

type Atom = { readonly accepts: (c: string) => boolean; readonly repeat: '' | '*' | '+' | '?' };

const isWord = (c: string) => /\w/.test(c);
const isDigit = (c: string) => c >= '0' && c <= '9';

/**
 * PEFT's test `re.match("(.*\\.)?(KEY)$", path)` for keys of literals, `.`, `\.`, `\d`, `\w`, `[…]` with `*`, `+` or `?`
 * and a leading `^`. Simulated in linear time instead of given to RegExp: the key is from a stranger, and a regular
 * expression can be made to run for years.
 * @throws FileError for alternatives, groups and counts
 */
export function suffixMatcher(key: string, file: string): (modulePath: string) => boolean {
  const anchored = key.startsWith('^');
  const atoms = parseAtoms(key.replace(/^\^/, '').replace(/\$$/, ''), key, file);
  return (modulePath) => {
    const starts = [0];
    if (!anchored) for (const [i, c] of [...modulePath].entries()) if (c === '.') starts.push(i + 1);
    return matchesToEnd(atoms, modulePath, new Set(starts));
  };
}

function parseAtoms(source: string, key: string, file: string): readonly Atom[] {
  const atoms: Atom[] = [];
  // One atom: an escape, a class, the dot, or a character that means itself; then its repetition.
  const pattern = /(\\[.dw\-_]|\[[\w.-]+\]|[^\\[\](){}|^$*+?])([*+?]?)/gy;
  while (pattern.lastIndex < source.length) {
    const match = pattern.exec(source);
    if (match === null) {
      throw new FileError(
        file,
        quoted(key),
        'this pattern is not supported: expected characters, ".", "\\." and [..] with * + ?',
      );
    }
    atoms.push({ accepts: accepter(match[1]), repeat: match[2] as Atom['repeat'] });
  }
  return atoms;
}

function accepter(atom: string): (c: string) => boolean {
  if (atom === '.') return () => true;
  if (atom === '\\d') return isDigit;
  if (atom === '\\w') return isWord;
  if (atom.startsWith('\\')) return (c) => c === atom[1];
  if (!atom.startsWith('[')) return (c) => c === atom;
  const set = new Set<string>();
  for (const [, from, to] of atom.slice(1, -1).matchAll(/(.)(?:-(.))?/g)) {
    for (let code = from.charCodeAt(0); code <= (to ?? from).charCodeAt(0); code++) set.add(String.fromCharCode(code));
  }
  return (c) => set.has(c);
}

/** Whether the atoms, begun at any of `starts`, can end at the end of `text`. State n = n atoms are matched. */
function matchesToEnd(atoms: readonly Atom[], text: string, starts: ReadonlySet<number>): boolean {
  const open = (states: Set<number>, state: number) => {
    for (let s = state; ; s++) {
      states.add(s);
      if (s === atoms.length || (atoms[s].repeat !== '*' && atoms[s].repeat !== '?')) return;
    }
  };
  let states = new Set<number>();
  for (let i = 0; i < text.length; i++) {
    if (starts.has(i)) open(states, 0);
    const next = new Set<number>();
    for (const state of states) {
      if (state === atoms.length || !atoms[state].accepts(text[i])) continue;
      open(next, state + 1);
      if (atoms[state].repeat === '*' || atoms[state].repeat === '+') open(next, state);
    }
    states = next;
  }
  if (starts.has(text.length)) open(states, 0);
  return states.has(atoms.length);
}

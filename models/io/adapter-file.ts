/**
 * Low-rank adapters as plain data, and reading them from all the forms that are about: our own, diffusers' (both of
 * its namings, mixed in one file), kohya's, PEFT folders. Writing: `adapter-write.ts`.
 *
 * Convention: y = x·W + s·x·A·B with A [d_in, r] and B [r, d_out]. Files hold PyTorch's transposes: `lora_A`/`down`
 * [r, d_in], `lora_B`/`up` [d_out, r].
 */
import { readdir, stat } from 'node:fs/promises';
import path from 'node:path';
import { fromKohya } from '../names.ts';
import { type PeftRules, peftRules, peftRulesFromMetadata } from './adapter-peft.ts';
import { asFileError, FileError, quoted } from './error.ts';
import { readJson } from './json.ts';
import { openSafetensors, type Safetensors } from './safetensors.ts';

/** The low-rank addition of one module. */
export type AdapterModule = {
  /** [d_in, r], row-major. For a convolution d_in counts [in, kh, kw]. */
  readonly A: Float32Array;
  /** [r, d_out], row-major. */
  readonly B: Float32Array;
  readonly rank: number;
  readonly dIn: number;
  readonly dOut: number;
  /** ΔW = scale · A·B. */
  readonly scale: number;
  /** [kh, kw] where the module is a convolution. */
  readonly kernel?: readonly [number, number];
};

/** An adapter as plain data, whatever form its file had. */
export type AdapterFile = {
  /** By module path with its part: `unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q`. */
  readonly modules: ReadonlyMap<string, AdapterModule>;
  /** The header's strings; ours is the key `selora`. */
  readonly metadata: ReadonlyMap<string, string>;
};

/** Of PEFT, of diffusers, and of a run's folder. */
const WEIGHT_FILES = ['adapter_model.safetensors', 'pytorch_lora_weights.safetensors', 'adapter.safetensors'];

/** The two halves of a module's adapter and its alpha, as found in a file. */
type Found = { down?: string; up?: string; alpha?: string };

/**
 * Reads an adapter: a safetensors file, or a folder with `adapter_config.json`, with `pytorch_lora_weights.safetensors`,
 * with one PEFT folder per network (`unet`, `text_encoder`), or the folder of a finished run.
 * @throws FileError naming file and module
 * @example const { modules } = await readAdapter('runs/first/adapter.safetensors')
 */
export async function readAdapter(location: string): Promise<AdapterFile> {
  const info = await stat(location).catch((error) => {
    throw asFileError(error, location);
  });
  if (!info.isDirectory()) return readFile(location, undefined);
  const names = await readdir(location);
  const weights = WEIGHT_FILES.find((name) => names.includes(name));
  if (weights !== undefined) {
    const config = path.join(location, 'adapter_config.json');
    const rules = names.includes('adapter_config.json') ? peftRules(await readJson(config), config) : undefined;
    return readFile(path.join(location, weights), rules);
  }
  const parts = ['unet', 'text_encoder'].filter((part) => names.includes(part));
  if (parts.length === 0) {
    throw new FileError(location, '', `is not an adapter: expected ${WEIGHT_FILES.join(', ')} in it`);
  }
  const read = await Promise.all(parts.map((part) => readAdapter(path.join(location, part))));
  return {
    modules: new Map(read.flatMap(({ modules }) => [...modules])),
    metadata: new Map(read.flatMap(({ metadata }) => [...metadata])),
  };
}

async function readFile(location: string, folderRules: PeftRules | undefined): Promise<AdapterFile> {
  if (/\.(bin|pt|pth|ckpt)$/i.test(location)) {
    throw new FileError(location, '', 'pickled adapters are never opened; convert it to safetensors');
  }
  const file = await openSafetensors(location);
  const found = findModules(file);
  const byPart = peftRulesFromMetadata(file.metadata.get('lora_adapter_metadata'), file.file);
  const modules = new Map<string, AdapterModule>();
  for (const [modulePath, halves] of found) {
    const part = modulePath.slice(0, modulePath.indexOf('.'));
    modules.set(modulePath, await readModule(file, modulePath, halves, folderRules ?? byPart.get(part)));
  }
  return { modules, metadata: file.metadata };
}

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

/** Sorts a file's keys by module. */
function findModules(file: Safetensors): ReadonlyMap<string, Found> {
  const modules = new Map<string, Found>();
  for (const key of file.tensors.keys()) {
    const fail = (problem: string) => new FileError(file.file, `tensor ${quoted(key)}`, problem);
    // The oldest diffusers files keep the attention's adapters in a "processor": …attn1.processor.to_q_lora.down.weight
    const plain = key.replace(
      /\.processor\.(to_[qkv]|to_out)_lora\.(down|up)\.weight$/,
      (_, layer: string, half: string) => {
        return `.${layer === 'to_out' ? 'to_out.0' : layer}.lora.${half}.weight`;
      },
    );
    const ending = HALVES.find(([pattern]) => pattern.test(plain));
    if (ending === undefined) throw fail('is no part of a LoRA: expected lora_A, lora_B, lora_down, lora_up or alpha');
    const [pattern, half] = ending;
    const modulePath = pathOf(plain.replace(pattern, ''));
    if (modulePath === undefined) throw fail("does not name a module of Stable Diffusion 1.5's unet or text_encoder");
    const entry = modules.get(modulePath) ?? {};
    if (entry[half] !== undefined) throw fail(`is the second ${half} of ${modulePath}, beside ${quoted(entry[half])}`);
    modules.set(modulePath, { ...entry, [half]: key });
  }
  return modules;
}

/** `unet.…` or `text_encoder.…` from the module's name in any form. */
function pathOf(name: string): string | undefined {
  if (/^lora_(unet|te\d?)_/.test(name)) return fromKohya(name);
  const bare = name.replace(/^(?:(unet|text_encoder)\.)?base_model\.model\./, (_, part?: string) =>
    part ? `${part}.` : '',
  );
  if (!/^[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*$/.test(bare)) return undefined;
  if (/^(unet|text_encoder)\../.test(bare)) return bare;
  // PEFT folders hold one network and do not say which; the text encoder's paths tell themselves.
  return bare.startsWith('text_model.') ? `text_encoder.${bare}` : `unet.${bare}`;
}

async function readModule(
  file: Safetensors,
  modulePath: string,
  { down, up, alpha }: Found,
  rules: PeftRules | undefined,
): Promise<AdapterModule> {
  const fail = (problem: string) => new FileError(file.file, modulePath, problem);
  if (down === undefined)
    throw fail(up === undefined ? 'has an alpha but no adapter' : `has ${quoted(up)} but no down half`);
  if (up === undefined) throw fail(`has ${quoted(down)} but no up half`);
  const a = file.tensors.get(down)!.shape;
  const b = file.tensors.get(up)!.shape;
  const kernel = a.length === 4 ? ([a[2], a[3]] as const) : undefined;
  const wellFormed =
    kernel === undefined ? a.length === 2 && b.length === 2 : b.length === 4 && b[2] === 1 && b[3] === 1;
  if (!wellFormed || a[0] !== b[1] || a.includes(0) || b.includes(0)) {
    throw fail(
      `down [${a}] and up [${b}] do not fit: expected [r, in] and [out, r], or [r, in, kh, kw] and [out, r, 1, 1]`,
    );
  }
  const rank = a[0];
  const dOut = b[0];
  const dIn = a.slice(1).reduce((product, size) => product * size, 1);
  const A = transpose(await file.float32(down), rank, dIn);
  const B = transpose(await file.float32(up), dOut, rank);
  if (!A.every(Number.isFinite) || !B.every(Number.isFinite)) throw fail('holds a value that is not finite');
  const local = modulePath.slice(modulePath.indexOf('.') + 1);
  const ruleRank = rules?.rank(local);
  if (ruleRank !== undefined && ruleRank !== rank) throw fail(`has rank ${rank}, its configuration says ${ruleRank}`);
  const ownAlpha = alpha === undefined ? undefined : await readScalar(file, alpha);
  const scale = ownAlpha === undefined ? (rules?.scale(local, rank) ?? 1) : ownAlpha / rank;
  return { A, B, rank, dIn, dOut, scale, ...(kernel === undefined ? {} : { kernel }) };
}

/** An alpha: one number in any dtype, as a scalar or a list of one. */
async function readScalar(file: Safetensors, name: string): Promise<number> {
  const { shape } = file.tensors.get(name)!;
  const fail = (problem: string) => new FileError(file.file, `tensor ${quoted(name)}`, problem);
  if (shape.some((size) => size !== 1)) throw fail(`has shape [${shape}], expected one number`);
  const value = (await file.float64(name))[0];
  if (!Number.isFinite(value)) throw fail(`is ${value}, expected a finite number`);
  return value;
}

/** [rows, columns] → [columns, rows], row-major. */
export function transpose(values: Float32Array, rows: number, columns: number): Float32Array {
  const out = new Float32Array(values.length);
  for (let i = 0; i < rows; i++) for (let j = 0; j < columns; j++) out[j * rows + i] = values[i * columns + j];
  return out;
}

/**
 * ΔW = scale · A·B in float64, transposed to how PyTorch stores it: [d_out, d_in] row-major (of a convolution
 * [out, in, kh, kw]). Cost: d_in · d_out · r.
 */
export function deltaWeight({ A, B, rank, dIn, dOut, scale }: AdapterModule): Float64Array {
  const out = new Float64Array(dOut * dIn);
  for (let i = 0; i < dIn; i++) {
    for (let r = 0; r < rank; r++) {
      const a = scale * A[i * rank + r];
      for (let o = 0; o < dOut; o++) out[o * dIn + i] += a * B[r * dOut + o];
    }
  }
  return out;
}

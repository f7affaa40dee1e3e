/**
 * Low-rank adapters as plain data, and reading them from all the forms that are about: our own, diffusers' (both of
 * its namings, mixed in one file), kohya's, PEFT folders. Writing: `adapter-write.ts`.
 *
 * Convention: y = x·W + s·x·A·B with A [d_in, r] and B [r, d_out]. Files hold PyTorch's transposes: `lora_A`/`down`
 * [r, d_in], `lora_B`/`up` [d_out, r].
 */
import { readdir, stat } from 'node:fs/promises';
import path from 'node:path';
import type { UNetConfig, VaeConfig } from '../config.ts';
import { unetSchema, vaeSchema } from '../config.ts';
import { ldmNames } from '../names.ts';
import { SD15_UNET, SD15_VAE } from '../sd15.ts';
import { type Found, sortKeys } from './adapter-names.ts';
import { type PeftRules, peftRules, peftRulesFromMetadata } from './adapter-peft.ts';
import { asFileError, FileError, listed, quoted } from './error.ts';
import { readJson } from './json.ts';
import { openSafetensors, type Safetensors } from './safetensors.ts';

/** The low-rank addition of one module. */
export type AdapterModule = {
  /** [d_in, r], row-major. For a convolution d_in counts [in, kh, kw]. */
  readonly A: Float32Array;
  /** [r, d_out], row-major. */
  readonly B: Float32Array;
  /** r. */
  readonly rank: number;
  /** Width of the module's input. */
  readonly dIn: number;
  /** Width of its output. */
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
  /** What the file holds beside the adapter and is left out, one line each. */
  readonly notes?: readonly string[];
};

/** What reading may need to know of the base: the original code numbers its blocks through. */
export type AdapterBase = { readonly unet: UNetConfig; readonly vae: VaeConfig };

/** Of PEFT, of diffusers, and of a run's folder. */
const WEIGHT_FILES = ['adapter_model.safetensors', 'pytorch_lora_weights.safetensors', 'adapter.safetensors'];

/**
 * Reads an adapter: a safetensors file, or a folder with `adapter_config.json`, with `pytorch_lora_weights.safetensors`,
 * with one PEFT folder per network (`unet`, `text_encoder`), or the folder of a finished run.
 * @param base configurations of the model it is for (default: SD 1.5's); only names of the original code need them
 * @throws FileError naming file and module, or what the file is instead of a LoRA
 * @example const { modules } = await readAdapter('runs/first/adapter.safetensors')
 */
export async function readAdapter(location: string, base: AdapterBase = SD15): Promise<AdapterFile> {
  const info = await stat(location).catch((error) => {
    throw asFileError(error, location);
  });
  if (!info.isDirectory()) return readFile(location, base);
  const names = await readdir(location);
  const weights = WEIGHT_FILES.find((name) => names.includes(name));
  if (weights !== undefined) return readFile(path.join(location, weights), base);
  const parts = ['unet', 'text_encoder'].filter((part) => names.includes(part));
  if (parts.length === 0) {
    throw new FileError(location, '', `is not an adapter: expected ${WEIGHT_FILES.join(', ')} in it`);
  }
  const read = await Promise.all(parts.map((part) => readAdapter(path.join(location, part), base)));
  const notes = read.flatMap((part) => part.notes ?? []);
  return {
    modules: new Map(read.flatMap(({ modules }) => [...modules])),
    metadata: new Map(read.flatMap(({ metadata }) => [...metadata])),
    ...(notes.length > 0 ? { notes } : {}),
  };
}

const SD15: AdapterBase = { unet: unetSchema.parse(SD15_UNET), vae: vaeSchema.parse(SD15_VAE) };

async function readFile(location: string, base: AdapterBase): Promise<AdapterFile> {
  if (/\.(bin|pt|pth|ckpt)$/i.test(location)) {
    throw new FileError(location, '', 'pickled adapters are never opened; convert it to safetensors');
  }
  const file = await openSafetensors(location);
  const { modules: found, embeddings } = sortKeys([...file.tensors.keys()], file.file, ldmNames(base));
  const fromFolder = await rulesBeside(file);
  const byPart = peftRulesFromMetadata(file.metadata.get('lora_adapter_metadata'), file.file);
  const modules = new Map<string, AdapterModule>();
  for (const [modulePath, halves] of found) {
    const part = modulePath.slice(0, modulePath.indexOf('.'));
    modules.set(modulePath, await readModule(file, modulePath, halves, fromFolder ?? byPart.get(part)));
  }
  const notes =
    embeddings.length === 0
      ? []
      : [
          `left out: ${listed(embeddings.map((name) => quoted(name, 40)))}, embeddings (textual inversion) in the same file`,
        ];
  return { modules, metadata: file.metadata, ...(notes.length > 0 ? { notes } : {}) };
}

/** PEFT keeps alphas and ranks in a file beside the weights, which hold also when the weights are named alone. */
async function rulesBeside(file: Safetensors): Promise<PeftRules | undefined> {
  const ofPeft =
    path.basename(file.file) === WEIGHT_FILES[0] || [...file.tensors.keys()].some((key) => key.includes(PEFT_PREFIX));
  const config = path.join(path.dirname(file.file), 'adapter_config.json');
  if (!ofPeft || !(await exists(config))) return undefined;
  return peftRules(await readJson(config), config);
}

const PEFT_PREFIX = 'base_model.model.';

const exists = (file: string): Promise<boolean> =>
  stat(file).then(
    () => true,
    () => false,
  );

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
  // some programs write all modules alike: linears with two axes of size 1, 1×1 convolutions without them
  const flat = (shape: readonly number[]) =>
    shape.length === 2 || (shape.length === 4 && shape[2] === 1 && shape[3] === 1);
  const wellFormed = flat(b) && (a.length === 4 || flat(a));
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

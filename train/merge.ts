/**
 * npm run merge: a base model with an adapter added into its weights, W' = W0 + s·(A·B)ᵀ, as a diffusers folder that
 * needs no adapter any more; `--unmerge` takes it out again.
 */
import { Option } from 'commander';
import { checkAdapter } from '../models/io/adapter-check.ts';
import { type AdapterFile, type AdapterModule, readAdapter, transpose } from '../models/io/adapter-file.ts';
import { type RunFacts, runOf } from '../models/io/adapter-run.ts';
import { type Base, openBase } from '../models/io/base.ts';
import { writeBase } from '../models/io/base-write.ts';
import { FileError, printable, quoted } from '../models/io/error.ts';
import type { TensorOut } from '../models/io/safetensors-write.ts';
import { copyWeights, type Weight } from '../models/io/weights.ts';
import { PARTS, type Part } from '../models/names.ts';
import { type BaseOptions, command, type Io, parseArgs, print, runMain, withBase } from './cli.ts';
import { checkBase, openBaseAt, tokenizerOf } from './model.ts';

type Options = BaseOptions & {
  readonly adapter: string;
  readonly out: string;
  readonly unmerge?: boolean;
  readonly dtype?: 'f32' | 'f16';
};

const program = (io: Io) =>
  withBase(
    command(
      'merge',
      'Adds an adapter into the weights of its base and writes the result as a diffusers folder.',
      [
        '--adapter runs/first/adapter.safetensors --out merged',
        '--base DIR --adapter DIR --out merged --dtype f16',
        '--base merged --adapter runs/first/adapter.safetensors --unmerge --out base-again',
      ],
      io,
    ),
  )
    .requiredOption('--adapter <path>', 'LoRA or SeLoRA adapter: file or folder')
    .requiredOption('--out <dir>', 'folder to write; must be empty or not there')
    .option('--unmerge', 'take the adapter out of a base it was merged into')
    .addOption(
      new Option('--dtype <name>', 'number format of all weights (default: as each is stored)').choices(['f32', 'f16']),
    );

const HALF_MAX = 65_504;

/** A weight as it is stored, bit for bit, once its values are known to be finite. Read once. */
function copied(weight: Weight): TensorOut {
  const { dtype, shape } = weight;
  if (dtype === 'F16') return { dtype, shape, data: weight.readHalf };
  if (dtype === 'F32') return { dtype, shape, data: weight.read };
  const data = async () => {
    await weight.read();
    return weight.readBytes();
  };
  return { dtype, shape, data };
}

/**
 * W[d_out, d_in] += sign·scale·(A·B)ᵀ in place, row by row: each ΔW entry summed in f64, W rounded to f32 once.
 * @returns the index of the first entry beyond ±limit, or −1
 */
function addDelta(values: Float32Array, module: AdapterModule, sign: 1 | -1, limit: number): number {
  const { B, rank, dIn, dOut, scale } = module;
  const columns = Float64Array.from(transpose(module.A, dIn, rank), (a) => scale * a); // [r, d_in]
  const row = new Float64Array(dIn);
  let bad = -1;
  for (let o = 0; o < dOut; o++) {
    row.fill(0);
    for (let r = 0; r < rank; r++) {
      const b = B[r * dOut + o];
      for (let i = 0; i < dIn; i++) row[i] += columns[r * dIn + i] * b;
    }
    for (let [i, at] = [0, o * dIn]; i < dIn; i++, at++) {
      values[at] += sign * row[i];
      if (bad < 0 && !(Math.abs(values[at]) <= limit)) bad = at;
    }
  }
  return bad;
}

/** One weight ± its adapter's ΔW, computed when its turn to be written comes. */
function changed(weight: Weight, dtype: TensorOut['dtype'], module: AdapterModule, sign: 1 | -1): TensorOut {
  const data = async (): Promise<Float32Array> => {
    const values = await weight.read();
    const bad = addDelta(values, module, sign, dtype === 'F16' ? HALF_MAX : Number.MAX_VALUE);
    if (bad >= 0)
      throw new FileError(weight.file, `tensor ${quoted(weight.name)}`, `value ${bad} becomes ${values[bad]}`);
    return values;
  };
  return { dtype, shape: weight.shape, data };
}

/**
 * The weights of one network with the adapter's modules added (sign 1) or taken out (sign −1), to be written. Values
 * are read and changed one tensor at a time.
 */
export function mergedWeights(
  base: Base,
  part: Part,
  { modules }: AdapterFile,
  sign: 1 | -1,
  dtype?: 'F32' | 'F16',
): ReadonlyMap<string, TensorOut> {
  const source = base.parts[part];
  const out = new Map(copyWeights(source, dtype));
  if (dtype === undefined) for (const weight of source.weights.values()) out.set(weight.name, copied(weight));
  for (const [name, module] of modules) {
    if (!name.startsWith(`${part}.`)) continue;
    const weight = source.get(`${name.slice(part.length + 1)}.weight`);
    out.set(weight.name, changed(weight, dtype ?? weight.dtype, module, sign));
  }
  return out;
}

/** What a person should know before using a merge, in one line each. */
async function notes(run: RunFacts | undefined, base: Base, unmerge: boolean): Promise<readonly string[]> {
  // A merged base has another hash by nature.
  if (run === undefined || unmerge || run.baseHash === (await base.hash())) return [];
  return ['note: the adapter was trained on another base (its hash differs); it fits in shape'];
}

export async function main(args: readonly string[], io: Io): Promise<void> {
  const o = parseArgs<Options>(program(io), args);
  const base = await openBaseAt(o.base, o.config);
  checkBase(base);
  const adapter = await readAdapter(o.adapter);
  checkAdapter(o.adapter, adapter, base.parts);
  for (const note of await notes(runOf(adapter, o.adapter), base, o.unmerge === true)) print(io, note);

  const dtype = o.dtype === undefined ? undefined : o.dtype === 'f16' ? 'F16' : 'F32';
  const weights = Object.fromEntries(
    PARTS.map((part) => [part, mergedWeights(base, part, adapter, o.unmerge ? -1 : 1, dtype)]),
  ) as Record<Part, ReadonlyMap<string, TensorOut>>;
  const tokenizerFiles = (await tokenizerOf(base)).raw;
  await writeBase(o.out, { configFiles: base.configFiles, tokenizerFiles, weights }, { signal: io.signal });

  checkBase(await openBase(o.out));
  const count = `${adapter.modules.size} module${adapter.modules.size === 1 ? '' : 's'}`;
  print(io, `${o.unmerge ? 'took' : 'added'} ${count} ${o.unmerge ? 'out of' : 'into'} ${printable(o.base)}`);
  print(io, `written to ${printable(o.out)}; npm run inspect -- ${printable(o.out)} shows it`);
}

await runMain(import.meta, main);

/** The weights of a base with an adapter added in or taken out, streamed: read and changed one tensor at a time. */
import { type AdapterFile, type AdapterModule, transpose } from '../../models/io/adapter-file.ts';
import type { Base } from '../../models/io/base.ts';
import { FileError, quoted } from '../../models/io/error.ts';
import type { TensorOut } from '../../models/io/safetensors-write.ts';
import { copyWeights, type Weight } from '../../models/io/weights.ts';
import { PARTS, type Part } from '../../models/names.ts';

const HALF_MAX = 65_504;

/** How a weight is written: as it is stored, those of 8 bits as half floats, which hold their values and a change of them. */
const storedAs = ({ dtype }: Weight): TensorOut['dtype'] => (/^F8/.test(dtype) ? 'F16' : dtype);

/** A weight as it is stored, bit for bit, once its values are known to be finite. Read once. */
function copied(weight: Weight): TensorOut {
  const { shape } = weight;
  const dtype = storedAs(weight);
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
function mergedWeights(
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
    out.set(weight.name, changed(weight, dtype ?? storedAs(weight), module, sign));
  }
  return out;
}

/** All three networks, for `writeBase`. @param dtype of all weights; default: as each is stored, 8 bits as 16 */
export const mergedModel = (
  base: Base,
  adapter: AdapterFile,
  sign: 1 | -1 = 1,
  dtype?: 'F32' | 'F16',
): Readonly<Record<Part, ReadonlyMap<string, TensorOut>>> =>
  Object.fromEntries(PARTS.map((part) => [part, mergedWeights(base, part, adapter, sign, dtype)])) as Record<
    Part,
    ReadonlyMap<string, TensorOut>
  >;

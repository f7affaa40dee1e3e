/** A safetensors file as a list of its tensors, with their values where there are few and their range where many. */
import { stat } from 'node:fs/promises';
import { asFileError, printable } from '../../models/io/error.ts';
import { readBytes } from '../../models/io/json.ts';
import { elements, openSafetensors, parseSafetensors, type Safetensors } from '../../models/io/safetensors.ts';
import { commas, printFacts, table } from '../cli/columns.ts';
import { type Io, print } from '../cli/command.ts';
import { bytes, number } from '../words/format.ts';

/** Tensors of at most this many values are printed whole. */
const FEW = 16;
/** Files of at most this many bytes are read in one go. */
const WHOLE_BYTES = 2 ** 26;
/** Larger tensors are not read: 2²⁷ numbers are half a GiB. */
const MANY = 2 ** 27;

/** Smallest, largest and mean absolute value of the finite ones, and how many are not finite. */
export function rangeOf(values: ArrayLike<number>): {
  readonly low: number;
  readonly high: number;
  readonly meanAbs: number;
  readonly notFinite: number;
} {
  let [low, high, sum, notFinite] = [Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, 0, 0];
  for (let i = 0; i < values.length; i++) {
    const x = values[i];
    if (!Number.isFinite(x)) {
      notFinite++;
      continue;
    }
    if (x < low) low = x;
    if (x > high) high = x;
    sum += Math.abs(x);
  }
  return { low, high, meanAbs: sum / (values.length - notFinite), notFinite };
}

async function valuesOf(file: Safetensors, name: string): Promise<string> {
  const info = file.tensors.get(name)!;
  const count = elements(info);
  if (count === 0) return 'empty';
  if (count > MANY) return 'too large to be read here';
  const exact = count <= FEW || !/^(F16|BF16|F32)$/.test(info.dtype);
  const values = exact ? await file.float64(name) : await file.float32(name);
  if (count <= FEW) return [...values].map((x) => (Object.is(x, -0) ? '-0' : String(x))).join(' ');
  const { low, high, meanAbs, notFinite } = rangeOf(values);
  if (notFinite === count) return 'no finite value';
  const odd = notFinite > 0 ? `, ${commas(notFinite)} not finite` : '';
  return `${number(low)} … ${number(high)}, mean |x| ${number(meanAbs)}${odd}`;
}

/** Small files are read in one go: opening a file for each of thousands of tensors takes longer than reading it. */
async function opened(location: string): Promise<Safetensors> {
  const { size } = await stat(location).catch((error) => {
    throw asFileError(error, location);
  });
  return size <= WHOLE_BYTES
    ? parseSafetensors(await readBytes(location, WHOLE_BYTES), location)
    : openSafetensors(location);
}

/**
 * Prints the tensors of a file, sorted as stored. `quick` reads no values.
 * @throws FileError when the file breaks a rule of the format
 */
export async function inspectTensors(location: string, io: Io, quick: boolean): Promise<void> {
  const file = await opened(location);
  const counts = [...file.tensors.values()].map((info) => elements(info));
  const dtypes = [...new Set([...file.tensors.values()].map(({ dtype }) => dtype))].sort();
  printFacts(io, `safetensors ${printable(location)}`, [
    ['tensors', `${commas(file.tensors.size)} (${dtypes.join(', ') || 'none'})`],
    ['values', commas(counts.reduce((a, b) => a + b, 0))],
    ['file', bytes(file.fileBytes)],
  ]);
  for (const [key, value] of file.metadata) print(io, `  metadata ${printable(key, 60)}: ${printable(value, 200)}`);
  print(io);
  const rows: string[][] = [];
  for (const [name, { dtype, shape }] of file.tensors)
    rows.push([printable(name, 200), dtype, `[${shape.join(', ')}]`, quick ? '' : await valuesOf(file, name)]);
  for (const line of table(rows)) print(io, line);
}

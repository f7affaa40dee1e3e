/** Weights stored as NF4 (ir/nf4.ts), widened one a thread. */
import { NF4_DECADES, NF4_HEAD, NF4_LEVELS, NF4_WORDS } from '../../ir/nf4.ts';
import { sizeOf, type View } from '../../ir/view.ts';
import { forEach, word } from './copies.ts';
import { elementAt } from './half.ts';
import { createParams, type Kernel } from './kernel.ts';
import type { AdapterClass } from './target.ts';

const list = (values: readonly number[]): string =>
  `array<f32, ${values.length}>(${values.map((x) => (Number.isInteger(x) ? `${x}.0` : String(x))).join(', ')})`;

/** y = x as f32 in row-major order. Half a byte in, four out. */
export const fromNf4Kernel = (x: View, adapter: AdapterClass): Kernel => {
  const p = createParams();
  const body = `${elementAt(x, p)}
    let first = (at >> 14u) * ${NF4_WORDS}u; let inside = at & 16383u; let block = inside >> 6u;
    let code = (x[first + ${NF4_HEAD}u + (inside >> 3u)] >> (4u * (inside & 7u))) & 15u;
    let place = i32((x[first + 2u + (block >> 2u)] >> (8u * (block & 3u))) & 255u) - 127;
    let size = u32(abs(place));
    let decade = firstLeadingBit(max(size, 1u)); let power = 1u << decade;
    var levels = ${list(NF4_LEVELS)};
    var decades = ${list([...NF4_DECADES, 1])};
    let part = (0.1 + 0.9 * ((f32(i32(size) - i32(power)) + 0.5) / f32(power))) * decades[decade];
    let share = select(select(part, 1.0, size == 128u), 0.0, size == 0u) * f32(sign(place));
    let scale = share * bitcast<f32>(x[first]) + bitcast<f32>(x[first + 1u]);
    y[i] = bitcast<u32>(levels[code] * scale);`;
  return forEach('fromNf4', adapter, sizeOf(x.shape), p, [word('x')], word('y'), body);
};

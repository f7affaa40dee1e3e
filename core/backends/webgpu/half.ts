/** Stored half floats: two in a word. WGSL's own f16 needs a feature software adapters lack, so they are taken apart by hand. */
import { dtypes, type StoredDType } from '../../ir/dtype.ts';
import { sizeOf, type View } from '../../ir/view.ts';
import { forEach, word } from './copies.ts';
import { ceilDiv, createParams, type Kernel, type Params, range } from './kernel.ts';
import { printCoordinates } from './printWgsl.ts';
import type { AdapterClass } from './target.ts';

/** `at`: where element i of a view, in row-major order, lies. */
export const elementAt = (x: View, p: Params): string => {
  const axes = x.shape.flatMap((n, a) => (n === 1 ? [] : [a]));
  const coordinates = printCoordinates(
    'i',
    axes.map((_, i) => `c${i}`),
    axes.map((a) => x.shape[a]!),
    p,
  );
  const at = [p.word(x.offset), ...axes.map((a, i) => `c${i} * ${p.word(x.strides[a]!)}`)].join(' + ');
  return `${coordinates}
    let at = ${at};`;
};

/** y = x as f32 in row-major order, exact (subnormal halves are normal in f32). Two bytes in, four out. */
export const fromHalfKernel = (x: View, adapter: AdapterClass): Kernel => {
  const p = createParams();
  const body = `${elementAt(x, p)}
    let half = (x[at / 2u] >> (16u * (at & 1u))) & 0xffffu;
    let exponent = (half >> 10u) & 31u; let fraction = half & 1023u;
    let normal = ((exponent + select(112u, 224u, exponent == 31u)) << 23u) | (fraction << 13u);
    let tiny = bitcast<u32>(f32(fraction) * 5.9604644775390625e-8);
    y[i] = ((half & 0x8000u) << 16u) | select(normal, tiny, exponent == 0u);`;
  return forEach('fromHalf', adapter, sizeOf(x.shape), p, [word('x')], word('y'), body);
};

/** gather on a table of a stored type, a word of results per thread; ids outside it read zeros. `width` elements per row. */
export const gatherStoredKernel = (
  dtype: StoredDType,
  rows: number,
  width: number,
  ids: number,
  adapter: AdapterClass,
): Kernel => {
  const p = createParams();
  const [pRows, pWidth, pIds] = [p.word(rows), p.word(width), p.word(ids)];
  const bits = 8 * dtypes[dtype].bytes;
  const each = 32 / bits;
  const part = (k: number) => `let at${k} = ${each}u * i + ${k}u;
    let row${k} = ids[min(at${k} / ${pWidth}, ${pIds} - 1u)];
    let from${k} = min(row${k}, ${pRows} - 1u) * ${pWidth} + at${k} % ${pWidth};
    let part${k} = select(0u, (x[from${k} / ${each}u] >> (${bits}u * (from${k} % ${each}u))) & ${2 ** bits - 1}u, row${k} < ${pRows});`;
  const parts = range(each);
  const body = `${parts.map(part).join('\n    ')}
    y[i] = ${parts.map((k) => `(part${k} << ${bits * k}u)`).join(' | ')};`;
  return forEach(`gather ${dtype}`, adapter, ceilDiv(ids * width, each), p, [word('x'), word('ids')], word('y'), body);
};

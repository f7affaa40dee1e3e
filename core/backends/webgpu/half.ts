/** Stored half floats: two in a word. WGSL's own f16 needs a feature software adapters lack, so they are taken apart by hand. */
import { sizeOf, type View } from '../../ir/view.ts';
import { forEach, word } from './copies.ts';
import type { AdapterClass } from './device.ts';
import { ceilDiv, createParams, type Kernel } from './kernel.ts';
import { printCoordinates } from './printWgsl.ts';

/** y = x as f32 in row-major order, exact (subnormal halves are normal in f32). Two bytes in, four out. */
export const fromHalfKernel = (x: View, adapter: AdapterClass): Kernel => {
  const p = createParams();
  const axes = x.shape.flatMap((n, a) => (n === 1 ? [] : [a]));
  const coordinates = printCoordinates(
    'i',
    axes.map((_, i) => `c${i}`),
    axes.map((a) => x.shape[a]!),
    p,
  );
  const at = [p.word(x.offset), ...axes.map((a, i) => `c${i} * ${p.word(x.strides[a]!)}`)].join(' + ');
  return forEach(
    'fromHalf',
    adapter,
    sizeOf(x.shape),
    p,
    [word('x')],
    word('y'),
    `${coordinates}
    let at = ${at};
    let half = (x[at / 2u] >> (16u * (at & 1u))) & 0xffffu;
    let exponent = (half >> 10u) & 31u; let fraction = half & 1023u;
    let normal = ((exponent + select(112u, 224u, exponent == 31u)) << 23u) | (fraction << 13u);
    let tiny = bitcast<u32>(f32(fraction) * 5.9604644775390625e-8);
    y[i] = ((half & 0x8000u) << 16u) | select(normal, tiny, exponent == 0u);`,
  );
};

/** gather on a table of half floats, two results per word; ids outside it read zeros. `width` halves per row. */
export const gatherHalfKernel = (rows: number, width: number, ids: number, adapter: AdapterClass): Kernel => {
  const p = createParams();
  const [pRows, pWidth, pIds] = [p.word(rows), p.word(width), p.word(ids)];
  const half = (name: string, at: string) => `let ${name}_row = ids[min((${at}) / ${pWidth}, ${pIds} - 1u)];
    let ${name}_at = min(${name}_row, ${pRows} - 1u) * ${pWidth} + (${at}) % ${pWidth};
    let ${name} = select(0u, (x[${name}_at / 2u] >> (16u * (${name}_at & 1u))) & 0xffffu, ${name}_row < ${pRows});`;
  return forEach(
    'gather f16',
    adapter,
    ceilDiv(ids * width, 2),
    p,
    [word('x'), word('ids')],
    word('y'),
    `${half('low', '2u * i')}
    ${half('high', '2u * i + 1u')}
    y[i] = low | (high << 16u);`,
  );
};

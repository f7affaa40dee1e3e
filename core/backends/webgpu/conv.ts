/**
 * The convolution trio as implicit matrix products: no patch matrix is ever stored. One thread makes 8 rows × 8 columns
 *   conv       rows = pixels of y,  columns = o,  sum over (i, j, c)
 *   convInput  rows = pixels of x,  columns = c,  sum over (i, j, o)
 *   convKernel rows = c at one (i, j),  columns = o,  sum over the pixels of y
 * (convKernel is in convKernel.ts). Operands are any strided views; groups of channels are the z axis of the grid.
 */
import type { View } from '../../ir/view.ts';
import type { ConvAttrs } from '../../ops/conv.ts';
import { createParams, type Kernel, range } from './kernel.ts';
import { tileFor, tileKernel, tileThreads } from './registerTile.ts';
import type { AdapterClass } from './target.ts';

/** `x` is the picture that is read: x of conv, g of convInput. `out` is the shape of the result [n, h, w, channels]. */
export interface ConvProblem {
  readonly kind: 'conv' | 'convInput';
  readonly x: View;
  readonly w: View;
  readonly out: readonly number[];
  readonly attrs: ConvAttrs;
}

/** Kernel of conv or convInput. Cost 2·pixels·kh·kw·(c/groups)·o flop. */
export const printConv = ({ kind, x, w, out, attrs }: ConvProblem, adapter: AdapterClass): Kernel => {
  const forward = kind === 'conv';
  const [kh, kw] = w.shape as readonly [number, number, number, number];
  const threads = tileThreads[adapter];
  const [batch, oh, ow, channels] = out as readonly [number, number, number, number];
  const pixels = batch * oh * ow;
  const cols = channels / attrs.groups;
  const depth = x.shape[3]! / attrs.groups;
  const p = createParams();
  const [pPixels, pCols, pDepth] = [p.word(pixels), p.word(cols), p.word(depth)];
  const [pOh, pOw, pChannels] = [p.word(oh), p.word(ow), p.word(channels)];
  const [pH, pW] = [p.word(x.shape[1]!), p.word(x.shape[2]!)];
  const [pKh, pKw] = [p.word(kh), p.word(kw)];
  const [pStrideH, pStrideW] = [p.word(attrs.stride[0]), p.word(attrs.stride[1])];
  const [pTop, pLeft] = [p.word(attrs.pad[0][0]), p.word(attrs.pad[1][0])];
  const [xn, xh, xw, xc] = x.strides.map((s) => p.word(s)) as [string, string, string, string];
  // w[i, j, c, o]: the summed channel is c forward and o backward, the column the other one
  const summed = forward ? 2 : 3;
  const columnStride = w.strides[5 - summed]!;
  const vectorLoad =
    cols % 4 === 0 &&
    columnStride === 1 &&
    w.offset % 4 === 0 &&
    w.strides.every((s, a) => a === 5 - summed || s % 4 === 0) &&
    (forward || attrs.groups === 1);
  const tile = tileFor(vectorLoad);
  const unit = vectorLoad ? 4 : 1;
  const [wi, wj, ws] = [p.word(w.strides[0]! / unit), p.word(w.strides[1]! / unit), p.word(w.strides[summed]! / unit)];
  const wCol = vectorLoad ? '1u' : p.word(columnStride);
  // the axis o of w counts all groups, the axis c one group
  const wGroup = p.word((w.strides[3]! / unit) * (forward ? cols : depth));
  const [xOffset, wOffset] = [p.word(x.offset), p.word(w.offset / unit)];
  const vectorStore = channels % 4 === 0 && cols % 4 === 0;

  // u32 arithmetic wraps: a pixel left of or above the picture becomes a huge number, and one comparison finds both ends
  const unitStride = attrs.stride[0] === 1 && attrs.stride[1] === 1;
  const where = (r: number): string =>
    forward
      ? `let h${r} = oy${r} * ${pStrideH} + i - ${pTop}; let w${r} = ox${r} * ${pStrideW} + j - ${pLeft};
      let on${r} = (h${r} < ${pH}) & (w${r} < ${pW});`
      : unitStride
        ? `let h${r} = oy${r} + ${pTop} - i; let w${r} = ox${r} + ${pLeft} - j;
      let on${r} = (h${r} < ${pH}) & (w${r} < ${pW});`
        : `let th${r} = oy${r} + ${pTop} - i; let tw${r} = ox${r} + ${pLeft} - j;
      let h${r} = th${r} / ${pStrideH}; let w${r} = tw${r} / ${pStrideW};
      let on${r} = (h${r} * ${pStrideH} == th${r}) & (w${r} * ${pStrideW} == tw${r}) & (h${r} < ${pH}) & (w${r} < ${pW});`;
  const rowSetup = (r: number) => `let row${r} = min(row + ${r}u, ${pPixels} - 1u);
  let ox${r} = row${r} % ${pOw}; let oy${r} = row${r} / ${pOw} % ${pOh};
  let start${r} = row${r} / (${pOw} * ${pOh}) * ${xn} + first;`;
  const tap = (r: number) => `${where(r)}
      let ia${r} = select(0u, start${r} + h${r} * ${xh} + w${r} * ${xw}, on${r});`;
  return tileKernel(
    p,
    { tile, threads, rows: pixels, cols, pRows: pPixels, pCols, vectorLoad, columnStride: wCol },
    {
      name: kind,
      left: 'x',
      right: 'w',
      layers: attrs.groups,
      setup: [`let first = ${xOffset} + id.z * ${pDepth} * ${xc};`, ...range(tile.rows).map(rowSetup)],
      sum: (term) => `for (var i = 0u; i < ${pKh}; i++) {
    for (var j = 0u; j < ${pKw}; j++) {
      ${range(tile.rows).map(tap).join('\n      ')}
      let tap = ${wOffset} + i * ${wi} + j * ${wj} + id.z * ${wGroup};
      for (var c = 0u; c < ${pDepth}; c++) {
        let iw = tap + c * ${ws};
        let ic = c * ${xc};
        ${term}
      }
    }
  }`,
      leftAt: (r) => `select(0.0, x[ia${r} + ic], on${r})`,
      rightAt: 'iw',
      vectorStore,
      rowStart: `r_out * ${pChannels} + id.z * ${pCols}`,
    },
  );
};

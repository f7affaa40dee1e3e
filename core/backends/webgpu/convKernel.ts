/** The kernel gradient of a convolution: one small matrix product xᵀ·g over all pixels for every tap (i, j). */
import type { View } from '../../ir/view.ts';
import type { ConvSizedAttrs } from '../../ops/conv.ts';
import { createParams, type Kernel, range } from './kernel.ts';
import { tileFor, tileKernel, tileThreads } from './registerTile.ts';
import type { AdapterClass } from './target.ts';

export interface ConvKernelProblem {
  readonly x: View;
  readonly g: View;
  readonly attrs: ConvSizedAttrs;
}

/** w[i,j,c,o] = Σ_{n,h,w} x[n, h·s+i−p, w·s+j−p, c]·g[n,h,w,o]; the z axis of the grid counts (group, i, j). */
export const printConvKernel = ({ x, g, attrs }: ConvKernelProblem, adapter: AdapterClass): Kernel => {
  const threads = tileThreads[adapter];
  const [kh, kw] = attrs.size;
  const rows = x.shape[3]! / attrs.groups;
  const channels = g.shape[3]!;
  const cols = channels / attrs.groups;
  const p = createParams();
  const [pRows, pCols, pChannels] = [p.word(rows), p.word(cols), p.word(channels)];
  const [pN, pOh, pOw] = range(3).map((a) => p.word(g.shape[a]!));
  const [pH, pW] = [p.word(x.shape[1]!), p.word(x.shape[2]!)];
  const [pKh, pKw] = [p.word(kh), p.word(kw)];
  const [pStrideH, pStrideW] = [p.word(attrs.stride[0]), p.word(attrs.stride[1])];
  const [pTop, pLeft] = [p.word(attrs.pad[0][0]), p.word(attrs.pad[1][0])];
  const [xn, xh, xw, xc] = x.strides.map((s) => p.word(s));
  const vectorLoad =
    cols % 4 === 0 && g.strides[3] === 1 && g.offset % 4 === 0 && g.strides.every((s, a) => a === 3 || s % 4 === 0);
  const tile = tileFor(vectorLoad);
  const unit = vectorLoad ? 4 : 1;
  const [gn, gh, gw] = range(3).map((a) => p.word(g.strides[a]! / unit));
  const gc = vectorLoad ? '1u' : p.word(g.strides[3]!);
  const gGroup = p.word((g.strides[3]! * cols) / unit);
  const [xOffset, gOffset] = [p.word(x.offset), p.word(g.offset / unit)];
  return tileKernel(
    p,
    { tile, threads, rows, cols, pRows, pCols, vectorLoad, columnStride: gc },
    {
      name: 'convKernel',
      left: 'x',
      right: 'g',
      layers: attrs.groups * kh * kw,
      setup: [
        `let j = id.z % ${pKw}; let i = id.z / ${pKw} % ${pKh}; let group = id.z / (${pKw} * ${pKh});`,
        ...range(tile.rows).map((r) => `let row${r} = min(row + ${r}u, ${pRows} - 1u) * ${xc};`),
      ],
      sum: (term) => `let x0 = ${xOffset} + group * ${pRows} * ${xc};
  let g0 = ${gOffset} + group * ${gGroup};
  for (var n = 0u; n < ${pN}; n++) {
    for (var oy = 0u; oy < ${pOh}; oy++) {
      let h = oy * ${pStrideH} + i - ${pTop};
      if (h >= ${pH}) { continue; }
      for (var ox = 0u; ox < ${pOw}; ox++) {
        let w = ox * ${pStrideW} + j - ${pLeft};
        if (w >= ${pW}) { continue; }
        let ix = x0 + n * ${xn} + h * ${xh} + w * ${xw};
        let ig = g0 + n * ${gn} + oy * ${gh} + ox * ${gw};
        ${term}
      }
    }
  }`,
      leftAt: (r) => `x[ix + row${r}]`,
      rightAt: 'ig',
      vectorStore: cols % 4 === 0,
      rowStart: `((i * ${pKw} + j) * ${pRows} + r_out) * ${pChannels} + group * ${pCols}`,
    },
  );
};

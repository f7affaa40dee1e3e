/** The kernel gradient of a convolution: one small matrix product xᵀ·g over all pixels for every tap (i, j). */
import type { View } from '../../ir/view.ts';
import type { ConvSizedAttrs } from '../../ops/conv.ts';
import type { AdapterClass } from './device.ts';
import { assemble, ceilDiv, createParams, type Kernel, MAX_GROUPS } from './kernel.ts';
import { declareTile, loadColumns, multiplyTile, range, storeTile, tileFor, tileThreads } from './registerTile.ts';

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
  const groupsN = ceilDiv(cols, 4 * tile.vecs * threads.n);
  const countN = p.word(groupsN);
  const total = groupsN * ceilDiv(rows, tile.rows * threads.m);
  const vectorStore = cols % 4 === 0;
  const columns = vectorLoad
    ? range(tile.vecs).map((v) => `let col${4 * v} = min(col + ${4 * v}u, ${pCols} - 4u) / 4u;`)
    : range(4 * tile.vecs).map((c) => `let col${c} = min(col + ${c}u, ${pCols} - 1u) * ${gc};`);
  const code = `@compute @workgroup_size(${threads.n}, ${threads.m})
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>) {
  let at = id.x + id.y * ${MAX_GROUPS}u;
  let j = id.z % ${pKw}; let i = id.z / ${pKw} % ${pKh}; let group = id.z / (${pKw} * ${pKh});
  let row = (at / ${countN} * ${threads.m}u + local.y) * ${tile.rows}u;
  let col = (at % ${countN} * ${threads.n}u + local.x) * ${4 * tile.vecs}u;
  if (row >= ${pRows} || col >= ${pCols}) { return; }
  ${range(tile.rows)
    .map((r) => `let row${r} = min(row + ${r}u, ${pRows} - 1u) * ${xc};`)
    .join('\n  ')}
  ${columns.join('\n  ')}
  ${declareTile(tile)}
  let x0 = ${xOffset} + group * ${pRows} * ${xc};
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
        ${loadColumns(tile, vectorLoad, (c) => `g[ig + col${c}]`)}
        ${multiplyTile(tile, (r) => `x[ix + row${r}]`)}
      }
    }
  }
  ${storeTile(tile, { vector: vectorStore, rows: pRows, cols: pCols, rowStart: `((i * ${pKw} + j) * ${pRows} + r_out) * ${pChannels} + group * ${pCols}` })}
}
`;
  return {
    name: 'convKernel',
    code: assemble(
      p,
      [
        { name: 'x', type: 'f32' },
        { name: 'g', type: vectorLoad ? 'vec4<f32>' : 'f32' },
      ],
      [{ name: 'y', type: vectorStore ? 'vec4<f32>' : 'f32' }],
      code,
    ),
    params: p.words(),
    groups: [Math.min(total, MAX_GROUPS), ceilDiv(total, MAX_GROUPS), attrs.groups * kh * kw],
    reads: 2,
    writes: 1,
  };
};

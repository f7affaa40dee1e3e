/**
 * The convolution trio as implicit matrix products: no patch matrix is ever stored. One thread makes 8 rows × 8 columns
 *   conv       rows = pixels of y,  columns = o,  sum over (i, j, c)
 *   convInput  rows = pixels of x,  columns = c,  sum over (i, j, o)
 *   convKernel rows = c at one (i, j),  columns = o,  sum over the pixels of y
 * (convKernel is in convKernel.ts). Operands are any strided views; groups of channels are the z axis of the grid.
 */
import type { View } from '../../ir/view.ts';
import type { ConvAttrs } from '../../ops/conv.ts';
import type { AdapterClass } from './device.ts';
import { assemble, ceilDiv, createParams, type Kernel, MAX_GROUPS } from './kernel.ts';

const range = (n: number): number[] => Array.from({ length: n }, (_, i) => i);
const ROWS = 8;
const VECS = 2;
const COLS = 4 * VECS;
/** Threads of a workgroup along columns and rows: one vector of lanes on software drivers, a patch on GPUs. */
export const convThreads: Readonly<Record<AdapterClass, { readonly n: number; readonly m: number }>> = {
  cpu: { n: 8, m: 1 },
  gpu: { n: 8, m: 8 },
};

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
  const threads = convThreads[adapter];
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
  const unit = vectorLoad ? 4 : 1;
  const [wi, wj, ws] = [p.word(w.strides[0]! / unit), p.word(w.strides[1]! / unit), p.word(w.strides[summed]! / unit)];
  const wCol = vectorLoad ? '1u' : p.word(columnStride);
  // the axis o of w counts all groups, the axis c one group
  const wGroup = p.word((w.strides[3]! / unit) * (forward ? cols : depth));
  const [xOffset, wOffset] = [p.word(x.offset), p.word(w.offset / unit)];
  const groupsN = ceilDiv(cols, COLS * threads.n);
  const countN = p.word(groupsN);
  const total = groupsN * ceilDiv(pixels, ROWS * threads.m);
  const vectorStore = channels % 4 === 0 && cols % 4 === 0;
  const acc = (r: number, v: number) => `acc${r}_${v}`;
  const every = (f: (r: number, v: number) => string) => range(ROWS).flatMap((r) => range(VECS).map((v) => f(r, v)));

  // u32 arithmetic wraps: a pixel left of or above the picture becomes a huge number, and one comparison finds both ends
  const where = forward
    ? (r: number) => `let h = oy${r} * ${pStrideH} + i - ${pTop}; let w = ox${r} * ${pStrideW} + j - ${pLeft};
      let inside = h < ${pH} && w < ${pW};`
    : (r: number) => `let th = oy${r} + ${pTop} - i; let tw = ox${r} + ${pLeft} - j;
      let h = th / ${pStrideH}; let w = tw / ${pStrideW};
      let inside = h * ${pStrideH} == th && w * ${pStrideW} == tw && h < ${pH} && w < ${pW};`;
  const rowSetup = (r: number) => `let row${r} = min(row + ${r}u, ${pPixels} - 1u);
  let ox${r} = row${r} % ${pOw}; let oy${r} = row${r} / ${pOw} % ${pOh};
  let start${r} = ${xOffset} + row${r} / (${pOw} * ${pOh}) * ${xn} + id.z * ${pDepth} * ${xc};`;
  const tap = (r: number) => `var ia${r} = 0u; var on${r} = false;
      { ${where(r)} if (inside) { ia${r} = start${r} + h * ${xh} + w * ${xw}; on${r} = true; } }`;
  const columns = vectorLoad
    ? range(VECS).map((v) => `let col${v} = min(col + ${4 * v}u, ${pCols} - 4u) / 4u;`)
    : range(COLS).map((c) => `let col${c} = min(col + ${c}u, ${pCols} - 1u) * ${wCol};`);
  const loads = range(VECS).map((v) =>
    vectorLoad
      ? `let b${v} = w[iw + col${v}];`
      : `let b${v} = vec4(${range(4)
          .map((c) => `w[iw + col${4 * v + c}]`)
          .join(', ')});`,
  );
  const products = range(ROWS).map(
    (r) =>
      `let a${r} = select(0.0, x[ia${r}], on${r}); ia${r} += ${xc}; ${range(VECS)
        .map((v) => `${acc(r, v)} += a${r} * b${v};`)
        .join(' ')}`,
  );
  const store = (r: number, v: number) =>
    range(vectorStore ? 1 : 4)
      .map((c) => {
        const at = `(row + ${r}u) * ${pChannels} + id.z * ${pCols} + col + ${4 * v + c}u`;
        const value = vectorStore ? acc(r, v) : `${acc(r, v)}.${'xyzw'[c]}`;
        return `if (row + ${r}u < ${pPixels} && col + ${4 * v + c}u < ${pCols}) { y[${vectorStore ? `(${at}) / 4u` : at}] = ${value}; }`;
      })
      .join('\n  ');
  const code = `@compute @workgroup_size(${threads.n}, ${threads.m})
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>) {
  let at = id.x + id.y * ${MAX_GROUPS}u;
  let row = (at / ${countN} * ${threads.m}u + local.y) * ${ROWS}u;
  let col = (at % ${countN} * ${threads.n}u + local.x) * ${COLS}u;
  if (row >= ${pPixels} || col >= ${pCols}) { return; }
  ${range(ROWS).map(rowSetup).join('\n  ')}
  ${columns.join('\n  ')}
  ${every((r, v) => `var ${acc(r, v)} = vec4<f32>(0.0);`).join('\n  ')}
  for (var i = 0u; i < ${pKh}; i++) {
    for (var j = 0u; j < ${pKw}; j++) {
      ${range(ROWS).map(tap).join('\n      ')}
      var iw = ${wOffset} + i * ${wi} + j * ${wj} + id.z * ${wGroup};
      for (var c = 0u; c < ${pDepth}; c++) {
        ${[...loads, ...products].join('\n        ')}
        iw += ${ws};
      }
    }
  }
  ${every(store).join('\n  ')}
}
`;
  return {
    name: kind,
    code: assemble(
      p,
      [
        { name: 'x', type: 'f32' },
        { name: 'w', type: vectorLoad ? 'vec4<f32>' : 'f32' },
      ],
      [{ name: 'y', type: vectorStore ? 'vec4<f32>' : 'f32' }],
      code,
    ),
    params: p.words(),
    groups: [Math.min(total, MAX_GROUPS), ceilDiv(total, MAX_GROUPS), attrs.groups],
    reads: 2,
    writes: 1,
  };
};

/** The kernel gradient of a convolution: one small matrix product xᵀ·g over all pixels for every tap (i, j). */
import type { View } from '../../ir/view.ts';
import type { ConvSizedAttrs } from '../../ops/conv.ts';
import { convThreads } from './conv.ts';
import type { AdapterClass } from './device.ts';
import { assemble, ceilDiv, createParams, type Kernel, MAX_GROUPS } from './kernel.ts';

const range = (n: number): number[] => Array.from({ length: n }, (_, i) => i);
const ROWS = 8;
const VECS = 2;
const COLS = 4 * VECS;

export interface ConvKernelProblem {
  readonly x: View;
  readonly g: View;
  readonly attrs: ConvSizedAttrs;
}

/** w[i,j,c,o] = Σ_{n,h,w} x[n, h·s+i−p, w·s+j−p, c]·g[n,h,w,o]; the z axis of the grid counts (group, i, j). */
export const printConvKernel = ({ x, g, attrs }: ConvKernelProblem, adapter: AdapterClass): Kernel => {
  const threads = convThreads[adapter];
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
  const unit = vectorLoad ? 4 : 1;
  const [gn, gh, gw] = range(3).map((a) => p.word(g.strides[a]! / unit));
  const gc = vectorLoad ? '1u' : p.word(g.strides[3]!);
  const gGroup = p.word((g.strides[3]! * cols) / unit);
  const [xOffset, gOffset] = [p.word(x.offset), p.word(g.offset / unit)];
  const groupsN = ceilDiv(cols, COLS * threads.n);
  const countN = p.word(groupsN);
  const total = groupsN * ceilDiv(rows, ROWS * threads.m);
  const vectorStore = cols % 4 === 0;
  const acc = (r: number, v: number) => `acc${r}_${v}`;
  const every = (f: (r: number, v: number) => string) => range(ROWS).flatMap((r) => range(VECS).map((v) => f(r, v)));
  const columns = vectorLoad
    ? range(VECS).map((v) => `let col${v} = min(col + ${4 * v}u, ${pCols} - 4u) / 4u;`)
    : range(COLS).map((c) => `let col${c} = min(col + ${c}u, ${pCols} - 1u) * ${gc};`);
  const loads = range(VECS).map((v) =>
    vectorLoad
      ? `let b${v} = g[ig + col${v}];`
      : `let b${v} = vec4(${range(4)
          .map((c) => `g[ig + col${4 * v + c}]`)
          .join(', ')});`,
  );
  const products = range(ROWS).map(
    (r) =>
      `let a${r} = x[ix + row${r}]; ${range(VECS)
        .map((v) => `${acc(r, v)} += a${r} * b${v};`)
        .join(' ')}`,
  );
  const store = (r: number, v: number) =>
    range(vectorStore ? 1 : 4)
      .map((c) => {
        const at = `((i * ${pKw} + j) * ${pRows} + row + ${r}u) * ${pChannels} + group * ${pCols} + col + ${4 * v + c}u`;
        const value = vectorStore ? acc(r, v) : `${acc(r, v)}.${'xyzw'[c]}`;
        return `if (row + ${r}u < ${pRows} && col + ${4 * v + c}u < ${pCols}) { y[${vectorStore ? `(${at}) / 4u` : at}] = ${value}; }`;
      })
      .join('\n  ');
  const code = `@compute @workgroup_size(${threads.n}, ${threads.m})
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>) {
  let at = id.x + id.y * ${MAX_GROUPS}u;
  let j = id.z % ${pKw}; let i = id.z / ${pKw} % ${pKh}; let group = id.z / (${pKw} * ${pKh});
  let row = (at / ${countN} * ${threads.m}u + local.y) * ${ROWS}u;
  let col = (at % ${countN} * ${threads.n}u + local.x) * ${COLS}u;
  if (row >= ${pRows} || col >= ${pCols}) { return; }
  ${range(ROWS)
    .map((r) => `let row${r} = min(row + ${r}u, ${pRows} - 1u) * ${xc};`)
    .join('\n  ')}
  ${columns.join('\n  ')}
  ${every((r, v) => `var ${acc(r, v)} = vec4<f32>(0.0);`).join('\n  ')}
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
        ${[...loads, ...products].join('\n        ')}
      }
    }
  }
  ${every(store).join('\n  ')}
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

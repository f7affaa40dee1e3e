/** Workgroup tiles of dot for GPUs: both operands pass through workgroup memory, each thread keeps a block in registers. */
import type { DotPlan, Side } from './dotPlan.ts';
import { ceilDiv, createParams, type Kernel, MAX_GROUPS, makeKernel, range, spreadGroups } from './kernel.ts';

const THREADS = 16;
const DEPTH = 16;

/** Blocks of 8×8 per thread when the result is large enough to fill the device, else 4×4. */
const chooseBlock = ({ g, m, n }: DotPlan): 4 | 8 => (g * ceilDiv(m, 128) * ceilDiv(n, 128) >= 128 ? 8 : 4);

/** y tile of (16·block)² per workgroup of 16×16 threads; k in steps of 16. Cost 2·g·m·k·n flop. */
export const sharedDot = (plan: DotPlan, block: 4 | 8 = chooseBlock(plan)): Kernel => {
  const { g, m, k, n, left, right } = plan;
  const p = createParams();
  const [pm, pn, pk] = [p.word(m), p.word(n), p.word(k)];
  const tile = THREADS * block;
  const quads = tile / 4;
  const tilesN = ceilDiv(n, tile);
  const total = ceilDiv(m, tile) * tilesN;
  const countN = p.word(tilesN);

  /** fills `t[k][free/4]`: vec4s of four neighbours on the free axis, zero beyond the matrix */
  const fill = (name: string, t: string, s: Side, first: string, most: string): string => {
    const u = s.order === 'single' ? 1 : 4;
    const base = `(${p.word(s.offset / u)} + id.z * ${p.word(s.group / u)})`;
    const free = p.word(s.order === 'alongFree' ? 1 : s.free / u);
    const kStep = p.word(s.order === 'alongK' ? 1 : s.k / u);
    const zero = 'vec4<f32>(0.0)';
    if (s.order === 'alongK') {
      // four rows of four k each, transposed in registers
      const rows = range(4).map(
        (f) =>
          `let v${f} = select(${zero}, ${name}[${base} + min(f0 + ${f}u, ${most} - 1u) * ${free} + min(kq, ${pk} / 4u - 1u)], inside);`,
      );
      return `for (var e = lane; e < ${quads * (DEPTH / 4)}u; e += ${THREADS * THREADS}u) {
      let q = e / ${DEPTH / 4}u; let part = e % ${DEPTH / 4}u;
      let f0 = ${first} + q * 4u; let kq = k0 / 4u + part;
      let inside = kq * 4u < ${pk};
      ${rows.join('\n      ')}
      ${range(4)
        .map(
          (i) =>
            `${t}[(part * 4u + ${i}u) * ${quads}u + q] = vec4(${range(4)
              .map((f) => `v${f}.${'xyzw'[i]}`)
              .join(', ')});`,
        )
        .join('\n      ')}
    }`;
    }
    const value =
      s.order === 'alongFree'
        ? `${name}[${base} + min(f0, ${most} - 4u) / 4u * ${free} + min(kk, ${pk} - 1u) * ${kStep}]`
        : `vec4(${range(4)
            .map((f) => `${name}[${base} + min(f0 + ${f}u, ${most} - 1u) * ${free} + min(kk, ${pk} - 1u) * ${kStep}]`)
            .join(', ')})`;
    return `for (var e = lane; e < ${quads * DEPTH}u; e += ${THREADS * THREADS}u) {
      let q = e % ${quads}u; let part = e / ${quads}u;
      let f0 = ${first} + q * 4u; let kk = k0 + part;
      ${t}[part * ${quads}u + q] = select(${zero}, ${value}, kk < ${pk});
    }`;
  };
  const fillA = fill('a', 'ta', left, 'm0', pm);
  const fillB = fill('b', 'tb', right, 'n0', pn);
  const vecs = block / 4;
  // thread (x, y) makes rows y·4 + 64·i and columns x·4 + 64·j: neighbours read neighbouring vec4s
  const acc = (r: number, v: number) => `acc${r}_${v}`;
  const vectorStore = n % 4 === 0;
  const put = vectorStore
    ? `fn put(row: u32, col: u32, group: u32, v: vec4<f32>) {
  if (row < ${pm} && col < ${pn}) { y[((group * ${pm} + row) * ${pn} + col) / 4u] = v; }
}`
    : `fn put(row: u32, col: u32, group: u32, v: vec4<f32>) {
  if (row >= ${pm}) { return; }
  for (var c = 0u; c < 4u; c++) { if (col + c < ${pn}) { y[(group * ${pm} + row) * ${pn} + col + c] = v[c]; } }
}`;
  const store = (r: number, v: number) =>
    `put(m0 + ${64 * (r >> 2) + (r & 3)}u + local.y * 4u, n0 + ${64 * v}u + local.x * 4u, id.z, ${acc(r, v)});`;
  const code = `${put}
var<workgroup> ta: array<vec4<f32>, ${quads * DEPTH}>;
var<workgroup> tb: array<vec4<f32>, ${quads * DEPTH}>;
@compute @workgroup_size(${THREADS}, ${THREADS})
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let at = id.x + id.y * ${MAX_GROUPS}u;
  let m0 = at / ${countN} * ${tile}u;
  let n0 = at % ${countN} * ${tile}u;
  ${range(block)
    .flatMap((r) => range(vecs).map((v) => `var ${acc(r, v)} = vec4<f32>(0.0);`))
    .join('\n  ')}
  for (var k0 = 0u; k0 < ${pk}; k0 += ${DEPTH}u) {
    ${fillA}
    ${fillB}
    workgroupBarrier();
    for (var kk = 0u; kk < ${DEPTH}u; kk++) {
      ${range(vecs)
        .map(
          (v) =>
            `let a${v} = ta[kk * ${quads}u + ${16 * v}u + local.y]; let b${v} = tb[kk * ${quads}u + ${16 * v}u + local.x];`,
        )
        .join('\n      ')}
      ${range(block)
        .flatMap((r) => range(vecs).map((v) => `${acc(r, v)} += a${r >> 2}.${'xyzw'[r & 3]} * b${v};`))
        .join('\n      ')}
    }
    workgroupBarrier();
  }
  ${range(block)
    .flatMap((r) => range(vecs).map((v) => store(r, v)))
    .join('\n  ')}
}
`;
  const binding = (name: string, vector: boolean) => ({ name, type: vector ? 'vec4<f32>' : 'f32' });
  const operands = [binding('a', left.order !== 'single'), binding('b', right.order !== 'single')];
  return makeKernel('dot', p, operands, [binding('y', vectorStore)], spreadGroups(total, g), code);
};

/**
 * layerNorm and groupNorm (with SiLU) and their derivatives in one kernel each. Both are the same computation on
 * x[n, pixels, groups, width]: statistics over (pixels, width), scale and shift per (group, width); a row of layerNorm is
 * a picture of one pixel and one group. A workgroup of a GPU makes one set of statistics; on software drivers a thread does.
 */
import type { AdapterClass } from './device.ts';
import { assemble, ceilDiv, createParams, type Kernel, MAX_GROUPS } from './kernel.ts';
import type { Width } from './math.ts';

export interface NormProblem {
  readonly n: number;
  readonly pixels: number;
  readonly groups: number;
  /** channels of one group */
  readonly width: number;
  readonly silu: boolean;
}

/** Sets of statistics per workgroup, and threads that share one. */
const chooseThreads = (adapter: AdapterClass, count: number) =>
  adapter === 'cpu' ? { sets: 8, lanes: 1 } : count >= 256 ? { sets: 1, lanes: 128 } : { sets: 4, lanes: 32 };

/** What all kernels here share: loops over a set's elements (`at`, channel `ch`), sums over its threads, the kernel around. */
const frame = (problem: NormProblem, adapter: AdapterClass) => {
  const { n, pixels, groups, width } = problem;
  const p = createParams();
  const step: Width = width % 4 === 0 ? 4 : 1;
  const { sets, lanes } = chooseThreads(adapter, (pixels * width) / step);
  const [pSets, pPixels, pGroups, pWidth] = [p.word(n * groups), p.word(pixels), p.word(groups), p.word(width / step)];
  const pInverse = p.float(1 / (pixels * width));
  // lanes share the longer of the two axes
  const acrossPixels = pixels >= width / step;
  const loop = (name: string, bound: string, shared: boolean) =>
    shared && lanes > 1
      ? `for (var ${name} = lane; ${name} < ${bound}; ${name} += ${lanes}u)`
      : `for (var ${name} = 0u; ${name} < ${bound}; ${name}++)`;
  const each = (body: string) => `${loop('pixel', pPixels, acrossPixels)} {
    ${loop('k', pWidth, !acrossPixels)} {
      let ch = group * ${pWidth} + k;
      let at = (picture * ${pPixels} + pixel) * ${pGroups} * ${pWidth} + ch;
      ${body}
    }
  }`;
  const T = step === 4 ? 'vec4<f32>' : 'f32';
  const flat = (x: string) => (step === 4 ? `dot(${x}, vec4<f32>(1.0))` : x);
  /** Σ over all lanes of a value; every lane gets it */
  const total = (x: string) => (lanes === 1 ? x : `meet(${x}, lane, slot)`);
  const meet =
    lanes === 1
      ? ''
      : `var<workgroup> part: array<f32, ${sets * lanes}>;
fn meet(value: f32, lane: u32, slot: u32) -> f32 {
  workgroupBarrier();
  part[lane * ${sets}u + slot] = value;
  for (var half = ${lanes / 2}u; half > 0u; half >>= 1u) {
    workgroupBarrier();
    if (lane < half) { part[lane * ${sets}u + slot] += part[(lane + half) * ${sets}u + slot]; }
  }
  workgroupBarrier();
  return part[slot];
}
`;
  // Kahan's sum: one thread may add up a whole picture, and the statistics scale everything after them
  const declare = (name: string) => `var ${name} = ${T}(0.0); var ${name}_lost = ${T}(0.0);`;
  const add = (name: string, value: string) =>
    `{ let v_in = ${value} - ${name}_lost; let v_sum = ${name} + v_in; ${name}_lost = (v_sum - ${name}) - v_in; ${name} = v_sum; }`;
  const kernel = (
    name: string,
    reads: readonly { readonly name: string; readonly scalar?: boolean }[],
    writes: readonly { readonly name: string; readonly scalar?: boolean }[],
    body: string,
  ): Kernel => {
    const binding = (b: { readonly name: string; readonly scalar?: boolean }) => ({
      name: b.name,
      type: b.scalar ? 'f32' : T,
    });
    const total = ceilDiv(n * groups, sets);
    return {
      name,
      code: assemble(
        p,
        reads.map(binding),
        writes.map(binding),
        `${meet}@compute @workgroup_size(${lanes}, ${sets})
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>) {
  let lane = local.x; let slot = local.y;
  // sets beyond the last repeat it, so that barriers stay uniform; they write the same values
  let own = min((id.x + id.y * ${MAX_GROUPS}u) * ${sets}u + slot, ${pSets} - 1u);
  let picture = own / ${pGroups}; let group = own % ${pGroups};
  ${body}
}
`,
      ),
      params: p.words(),
      groups: [Math.min(total, MAX_GROUPS), ceilDiv(total, MAX_GROUPS), 1],
      reads: reads.length,
      writes: writes.length,
    };
  };
  return { p, step, each, declare, add, flat, total, inverse: pInverse, kernel };
};

/** x, γ, β → y, μ, 1/σ. Cost 10 flop per element; reads x three times. */
export const normKernel = (problem: NormProblem, eps: number, adapter: AdapterClass): Kernel => {
  const f = frame(problem, adapter);
  const act = problem.silu ? `v * sigmoid_${f.step}(v)` : 'v';
  const epsilon = f.p.float(eps);
  return f.kernel(
    problem.silu ? 'norm silu' : 'norm',
    [{ name: 'x' }, { name: 'gamma' }, { name: 'beta' }],
    [{ name: 'y' }, { name: 'mu', scalar: true }, { name: 'rs', scalar: true }],
    `${f.declare('sum')}
  ${f.each(f.add('sum', 'x[at]'))}
  let mean = ${f.total(f.flat('sum'))} * ${f.inverse};
  ${f.declare('square')}
  ${f.each(`let d = x[at] - mean; ${f.add('square', 'd * d')}`)}
  let scale = inverseSqrt(${f.total(f.flat('square'))} * ${f.inverse} + ${epsilon});
  ${f.each(`let v = (x[at] - mean) * scale * gamma[ch] + beta[ch]; y[at] = ${act};`)}
  if (lane == 0u) { mu[own] = mean; rs[own] = scale; }`,
  );
};

/** g, x, γ, (β,) μ, 1/σ → dx; β is there for the derivative of SiLU only. Cost 14 flop per element. */
export const normGradKernel = (problem: NormProblem, hasBeta: boolean, adapter: AdapterClass): Kernel => {
  const f = frame(problem, adapter);
  // ĝ = g·act′(y)·γ, with act′ of SiLU = s·(1 + y·(1 − s))
  const incoming = `let hat = (x[at] - mean) * scale;
      ${problem.silu ? `let v = hat * gamma[ch] + beta[ch]; let s = sigmoid_${f.step}(v);` : ''}
      let gh = g[at] * gamma[ch]${problem.silu ? ' * s * (1.0 + v * (1.0 - s))' : ''};`;
  return f.kernel(
    problem.silu ? 'norm silu gradient' : 'norm gradient',
    [
      { name: 'g' },
      { name: 'x' },
      { name: 'gamma' },
      ...(hasBeta ? [{ name: 'beta' }] : []),
      { name: 'mu', scalar: true },
      { name: 'rs', scalar: true },
    ],
    [{ name: 'dx' }],
    `let mean = mu[own]; let scale = rs[own];
  ${f.declare('first')} ${f.declare('second')}
  ${f.each(`${incoming} ${f.add('first', 'gh')} ${f.add('second', 'gh * hat')}`)}
  let mean_g = ${f.total(f.flat('first'))} * ${f.inverse};
  let mean_gx = ${f.total(f.flat('second'))} * ${f.inverse};
  ${f.each(`${incoming} dx[at] = (gh - mean_g - hat * mean_gx) * scale;`)}`,
  );
};

/**
 * norm (layerNorm, groupNorm, with SiLU) and its derivatives on x[n, pixels, groups, width]: statistics over (pixels,
 * width), scale and shift per (group, width). A workgroup of a GPU makes one set of statistics; on software drivers a
 * thread does.
 */
import {
  ceilDiv,
  createParams,
  input,
  type Kernel,
  MAX_GROUPS,
  makeKernel,
  type Operand,
  output,
  type Recipe,
  range,
  spreadGroups,
} from './kernel.ts';
import type { Width } from './math.ts';
import type { AdapterClass } from './target.ts';

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

interface Value {
  readonly name: string;
  readonly scalar?: boolean;
}

/** Numbers or vectors of four, and their sums: Kahan's, as one thread may add up a whole picture. */
const arithmetic = (step: Width) => {
  const T = step === 4 ? 'vec4<f32>' : 'f32';
  const declare = (name: string) => `var ${name} = ${T}(0.0); var ${name}_lost = ${T}(0.0);`;
  const add = (name: string, value: string) =>
    `{ let v_in = ${value} - ${name}_lost; let v_sum = ${name} + v_in; ${name}_lost = (v_sum - ${name}) - v_in; ${name} = v_sum; }`;
  return { T, declare, add };
};

/** What the kernels of whole sets share: loops over a set's elements (`at`, channel `ch`), sums over its threads, the kernel around. */
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
  const { T, declare, add } = arithmetic(step);
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
  const kernel = (name: string, reads: readonly Value[], writes: readonly Value[], body: string): Kernel => {
    const binding = ({ name, scalar }: Value) => ({ name, type: scalar ? 'f32' : T });
    const total = ceilDiv(n * groups, sets);
    return makeKernel(
      name,
      p,
      reads.map(binding),
      writes.map(binding),
      spreadGroups(total, 1),
      `${meet}@compute @workgroup_size(${lanes}, ${sets})
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>) {
  let lane = local.x; let slot = local.y;
  // sets beyond the last repeat it, so that barriers stay uniform; they write the same values
  let own = min((id.x + id.y * ${MAX_GROUPS}u) * ${sets}u + slot, ${pSets} - 1u);
  let picture = own / ${pGroups}; let group = own % ${pGroups};
  ${body}
}
`,
    );
  };
  return { p, step, each, declare, add, flat, total, inverse: pInverse, kernel };
};

/** the results that are wanted, as bindings and as operands of the op */
const resultsOf = (wanted: readonly boolean[], all: readonly Value[]) => ({
  writes: all.filter((_, i) => wanted[i]),
  operands: all.flatMap((_, index): Operand[] => (wanted[index] ? [output(index)] : [])),
});

/** x, γ, β → y, μ, 1/σ. Cost 10 flop per element; reads x three times. */
export const normRecipe = (
  problem: NormProblem,
  eps: number,
  wanted: readonly boolean[],
  adapter: AdapterClass,
): Recipe => {
  const f = frame(problem, adapter);
  const act = problem.silu ? `v * sigmoid_${f.step}(v)` : 'v';
  const epsilon = f.p.float(eps);
  const [y, mu, rs] = wanted;
  const { writes, operands } = resultsOf(wanted, [
    { name: 'y' },
    { name: 'mu', scalar: true },
    { name: 'rs', scalar: true },
  ]);
  const kernel = f.kernel(
    problem.silu ? 'norm silu' : 'norm',
    [{ name: 'x' }, { name: 'gamma' }, { name: 'beta' }],
    writes,
    `${f.declare('sum')}
  ${f.each(f.add('sum', 'x[at]'))}
  let mean = ${f.total(f.flat('sum'))} * ${f.inverse};
  ${f.declare('square')}
  ${f.each(`let d = x[at] - mean; ${f.add('square', 'd * d')}`)}
  let scale = inverseSqrt(${f.total(f.flat('square'))} * ${f.inverse} + ${epsilon});
  ${y ? f.each(`let v = (x[at] - mean) * scale * gamma[ch] + beta[ch]; y[at] = ${act};`) : ''}
  if (lane == 0u) { ${mu ? 'mu[own] = mean;' : ''} ${rs ? 'rs[own] = scale;' : ''} }`,
  );
  return { launches: [{ kernel, operands: [...[0, 1, 2].map(input), ...operands] }], scratch: [] };
};

/** the derivative of the activation at ŷ, from x̂ = `hat`: of SiLU s·(1 + y·(1 − s)) */
const slope = (silu: boolean, step: Width) =>
  silu
    ? {
        before: `let v = hat * gamma[ch] + beta[ch]; let s = sigmoid_${step}(v);`,
        times: ' * s * (1.0 + v * (1.0 - s))',
      }
    : { before: '', times: '' };

/** g, x, γ, μ, 1/σ, with a SiLU β → dx. Cost 14 flop per element. */
const inputGradient = (problem: NormProblem, adapter: AdapterClass): Kernel => {
  const f = frame(problem, adapter);
  const { silu } = problem;
  const act = slope(silu, f.step);
  const incoming = `let hat = (x[at] - mean) * scale;
      ${act.before}
      let gh = g[at] * gamma[ch]${act.times};`;
  return f.kernel(
    silu ? 'norm silu gradient' : 'norm gradient',
    [
      { name: 'g' },
      { name: 'x' },
      { name: 'gamma' },
      { name: 'mu', scalar: true },
      { name: 'rs', scalar: true },
      ...(silu ? [{ name: 'beta' }] : []),
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

/**
 * g, x, μ, 1/σ, with a SiLU γ and β → dγ, dβ [blocks, c], whichever are wanted: a thread adds up a channel (or four) over
 * every `lanes`-th pixel of a block. Reads g and x once.
 */
const parameterGradients = (
  { n, pixels, groups, width, silu }: NormProblem,
  blocks: number,
  adapter: AdapterClass,
  wanted: readonly boolean[],
  writes: readonly Value[],
): Kernel => {
  const p = createParams();
  const step: Width = width % 4 === 0 ? 4 : 1;
  const { T, declare, add } = arithmetic(step);
  const act = slope(silu, step);
  const terms = blocks && (n / blocks) * pixels;
  const columns = (groups * width) / step;
  // neighbours read neighbouring channels; software drivers do best with a thread for each
  const [across, lanes] = adapter === 'cpu' || terms < 16 ? [32, 1] : [8, 16];
  const [pColumns, pTerms, pPixels] = [p.word(columns), p.word(terms), p.word(pixels)];
  const [pGroups, pWidth, pResults] = [p.word(groups), p.word(width / step), p.word(blocks * columns)];
  const meet = (name: string) =>
    lanes === 1
      ? ''
      : `workgroupBarrier(); part[local.y * ${across}u + local.x] = ${name}; workgroupBarrier();
  if (local.y == 0u) { for (var other = 1u; other < ${lanes}u; other++) { ${name} += part[other * ${across}u + local.x]; } }`;
  const [, dgamma, dbeta] = wanted;
  const reads = ['g', ...(dgamma || silu ? ['x'] : []), ...(silu ? ['gamma'] : [])].map((name) => ({ name, type: T }));
  const stats = dgamma || silu ? ['mu', 'rs'].map((name) => ({ name, type: 'f32' })) : [];
  const total = ceilDiv(blocks * columns, across);
  return makeKernel(
    `norm ${silu ? 'silu ' : ''}parameter gradients: ${writes.map((w) => w.name)}`,
    p,
    [...reads, ...stats, ...(silu ? [{ name: 'beta', type: T }] : [])],
    writes.map(({ name }) => ({ name, type: T })),
    spreadGroups(total, 1),
    `${lanes === 1 ? '' : `var<workgroup> part: array<${T}, ${across * lanes}>;`}
@compute @workgroup_size(${across}, ${lanes})
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>) {
  let result = (id.x + id.y * ${MAX_GROUPS}u) * ${across}u + local.x;
  // threads beyond the last result repeat it, so that barriers stay uniform
  let own = min(result, ${pResults} - 1u);
  let block = own / ${pColumns}; let ch = own % ${pColumns}; let group = ch / ${pWidth};
  ${declare('first')} ${declare('second')}
  for (var i = local.y; i < ${pTerms}; i += ${lanes}u) {
    let pixel = block * ${pTerms} + i;
    let at = pixel * ${pColumns} + ch;
    ${stats.length > 0 ? `let own_set = (pixel / ${pPixels}) * ${pGroups} + group; let hat = (x[at] - mu[own_set]) * rs[own_set];` : ''}
    ${act.before}
    let gy = g[at]${act.times};
    ${dbeta ? add('first', 'gy') : ''} ${dgamma ? add('second', 'gy * hat') : ''}
  }
  ${dbeta ? meet('first') : ''}
  ${dgamma ? meet('second') : ''}
  if (result < ${pResults} && local.y == 0u) { ${dgamma ? 'dgamma[own] = second;' : ''} ${dbeta ? 'dbeta[own] = first;' : ''} }
}
`,
  );
};

/** The derivatives of a norm, whichever are wanted: the input's in one kernel, the parameters' in another. */
export const normGradRecipe = (
  problem: NormProblem,
  blocks: number,
  wanted: readonly boolean[],
  adapter: AdapterClass,
): Recipe => {
  const { silu } = problem;
  const launches: Recipe['launches'][number][] = [];
  if (wanted[0])
    launches.push({
      kernel: inputGradient(problem, adapter),
      operands: [...range(silu ? 6 : 5).map(input), output(0)],
    });
  const { writes, operands } = resultsOf(
    [false, wanted[1] ?? false, wanted[2] ?? false],
    [{ name: 'dx' }, { name: 'dgamma' }, { name: 'dbeta' }],
  );
  if (writes.length > 0) {
    const from = silu ? [0, 1, 2, 3, 4, 5] : wanted[1] ? [0, 1, 3, 4] : [0];
    launches.push({
      kernel: parameterGradients(problem, blocks, adapter, wanted, writes),
      operands: [...from.map(input), ...operands],
    });
  }
  return { launches, scratch: [] };
};

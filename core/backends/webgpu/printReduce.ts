/**
 * Fused reductions: a cluster with `reduce` becomes one kernel (two when there are too few results to fill the device).
 * A workgroup makes `outputs` results with `lanes` threads each; lanes meet in workgroup memory. Neighbouring elements
 * are read four at a time, either along the reduced axis (then a thread's four sums are added at its end) or across
 * four results.
 */
import { collapse } from '../../compile/axes.ts';
import type { Cluster } from '../../compile/scalar.ts';
import { dtypes } from '../../ir/dtype.ts';
import {
  ceilDiv,
  createParams,
  input,
  MAX_GROUPS,
  makeKernel,
  output,
  type Recipe,
  scratch,
  single,
  spreadGroups,
} from './kernel.ts';
import { printCall, storageType, typeName, type Width } from './math.ts';
import { printCoordinates, printSteps } from './printWgsl.ts';
import type { AdapterClass } from './target.ts';

interface Shape {
  /** results (or groups of four) and terms of each (or groups of four) */
  readonly results: number;
  readonly terms: number;
  /** four neighbours lie along a reduced axis */
  readonly along: boolean;
}

/**
 * Threads of a workgroup. Software drivers do best without barriers; GPUs need neighbouring threads on neighbouring
 * addresses and enough of them.
 */
const chooseThreads = (adapter: AdapterClass, { results, terms, along }: Shape) => {
  if (adapter === 'cpu') return results >= 16 || terms < 64 ? { outputs: 16, lanes: 1 } : { outputs: 1, lanes: 64 };
  if (along)
    return terms >= 128
      ? { outputs: 1, lanes: 128 }
      : terms >= 16
        ? { outputs: 4, lanes: 32 }
        : { outputs: 64, lanes: 1 };
  return terms >= 16 ? { outputs: 32, lanes: 8 } : { outputs: 64, lanes: 1 };
};

/** Into how many parts each result is split, so that all cores have work. */
const chooseSplit = (adapter: AdapterClass, groups: number, terms: number, lanes: number): number => {
  const enough = adapter === 'cpu' ? 8 : 256;
  if (groups >= enough || terms < lanes * 64) return 1;
  return Math.min(ceilDiv(enough, groups), ceilDiv(terms, lanes * 32));
};

const partsToOne = (cluster: Cluster, results: number, parts: number): Cluster => {
  const dtype = cluster.steps[cluster.outputs[0]!]!.dtype;
  return {
    shape: [results, parts],
    inputs: [{ dtype, strides: [1, results], offset: 0 }],
    steps: [{ kind: 'load', input: 0, dtype }],
    outputs: [0],
    reduce: { op: cluster.reduce!.op, axes: [1] },
  };
};

/** Kernels of a cluster with reduction. Cost: reads every input element once. Sums run in f32, lane by lane. */
export const printReduce = (cluster: Cluster, adapter: AdapterClass): Recipe => {
  const { op } = cluster.reduce!;
  const result = cluster.outputs[0]!;
  const { dtype } = cluster.steps[result]!;
  const axes = collapse(cluster);
  const last = axes.length - 1;
  const width: Width = last >= 0 && axes[last]!.size % 4 === 0 && axes[last]!.size > 0 ? 4 : 1;
  const along = last >= 0 && axes[last]!.reduced;
  const empty = cluster.shape.includes(0);
  const sizes = axes.map((a, i) => (width === 4 && i === last ? a.size / 4 : a.size));
  const pick = (reduced: boolean) => axes.flatMap((a, i) => (a.reduced === reduced ? [i] : []));
  const count = (reduced: boolean) => pick(reduced).reduce((n, i) => n * sizes[i]!, 1);
  const shape: Shape = {
    results: empty
      ? cluster.shape.reduce((n, s, i) => (cluster.reduce!.axes.includes(i) ? n : n * s), 1)
      : count(false),
    terms: empty ? 0 : count(true),
    along,
  };
  const { outputs, lanes } = chooseThreads(adapter, shape);
  const groups = ceilDiv(shape.results, outputs);
  const parts = chooseSplit(adapter, groups, shape.terms, lanes);

  const params = createParams();
  const results = params.word(shape.results);
  const terms = params.word(shape.terms);
  const stride = params.word(parts * lanes);
  const start =
    op === 'sum'
      ? `${typeName(dtype, 1)}(0)`
      : dtype === 'f32'
        ? params.float(Number.NEGATIVE_INFINITY)
        : dtype === 'i32'
          ? `bitcast<i32>(${params.word(-(2 ** 31))})`
          : params.word(0);
  const combine = (a: string, b: string, w: Width) => printCall(op === 'sum' ? 'add' : 'maximum', [a, b], dtype, w);
  const coordinates = (reduced: boolean, index: string) =>
    printCoordinates(
      index,
      pick(reduced).map((i) => `c${i}`),
      pick(reduced).map((i) => sizes[i]!),
      params,
    )
      .replaceAll('rest', reduced ? 'left' : 'rest')
      .replaceAll('next', reduced ? 'after' : 'next');
  const kept = coordinates(false, 'result');
  const inner = coordinates(true, 'term');
  const { reads, body, value } = printSteps(cluster, axes, width, params);
  // four sums of one result collapse; four results stay apart
  const outWidth: Width = width === 4 && !along ? 4 : 1;
  const type = typeName(dtype, outWidth);
  const folded =
    width === 4 && along ? `${combine(combine('acc.x', 'acc.y', 1), combine('acc.z', 'acc.w', 1), 1)}` : 'acc';
  const meet =
    lanes === 1
      ? ''
      : `shared_part[lane * ${outputs}u + out] = one;
  for (var half = ${lanes / 2}u; half > 0u; half >>= 1u) {
    workgroupBarrier();
    if (lane < half) {
      let mine = lane * ${outputs}u + out;
      shared_part[mine] = ${combine('shared_part[mine]', `shared_part[mine + half * ${outputs}u]`, outWidth)};
    }
  }
  one = shared_part[out];
  `;
  const code = `${lanes === 1 ? '' : `var<workgroup> shared_part: array<${type}, ${outputs * lanes}>;\n`}@compute @workgroup_size(${along ? `${lanes}, ${outputs}` : `${outputs}, ${lanes}`})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>) {
  let lane = local.${along ? 'x' : 'y'};
  let out = local.${along ? 'y' : 'x'};
  let result = (group.x + group.y * ${MAX_GROUPS}u) * ${outputs}u + out;
  var acc = ${typeName(dtype, width)}(${start});
  if (result < ${results}) {
    ${kept}
    for (var term = group.z * ${lanes}u + lane; term < ${terms}; term += ${stride}) {
    ${inner}
    ${body}
    acc = ${combine('acc', value(result), width)};
    }
  }
  var one = ${folded};
  ${meet}if (lane == 0u && result < ${results}) { y0[group.z * ${results} + result] = one; }
}
`;
  const y0 = { name: 'y0', type: storageType(dtype, outWidth) };
  const kernel = makeKernel(`reduce ${op}`, params, reads, [y0], spreadGroups(groups, parts), code);
  if (parts === 1) return single(kernel);
  const all = shape.results * outWidth;
  const second = printReduce(partsToOne(cluster, all, parts), adapter).launches[0]!.kernel;
  return {
    launches: [
      { kernel, operands: [...cluster.inputs.map((_, i) => input(i)), scratch] },
      { kernel: second, operands: [scratch, output(0)] },
    ],
    scratch: [all * parts * dtypes[dtype].bytes],
  };
};

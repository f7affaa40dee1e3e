/**
 * The table of all ops and functions in core/README.md: which dtypes each takes on which backend, and which rules it has.
 * Every entry is tried on the record's own sample: the shape rule takes the dtype, wasm and WGSL have its kernels, its
 * derivative exists, is differentiated again, and maps.
 */
import { printCluster } from '../../core/backends/gpujs/printKernel.ts';
import { hasKernel, isStrided, recipeOf } from '../../core/backends/webgpu/ops.ts';
import { printReduce } from '../../core/backends/webgpu/printReduce.ts';
import { printElementwise } from '../../core/backends/webgpu/printWgsl.ts';
import type { Target } from '../../core/backends/webgpu/target.ts';
import type { Graph } from '../../core/compile/backend.ts';
import { makeGraph } from '../../core/compile/compile.ts';
import { lower } from '../../core/compile/lower.ts';
import { functions } from '../../core/functions/catalog.ts';
import { type Backend, CoreError, full, pullback, registry, vmap } from '../../core/index.ts';
import { type DType, isFloat } from '../../core/ir/dtype.ts';
import { type Attrs, bindAll, hole, type Op, type Sample, type Tensor } from '../../core/ir/tensor.ts';

const DTYPES = ['f32', 'f64', 'i32', 'bool'] as const;
const GPU: Target = { class: 'gpu', subgroup: 0 };

/** whether it can be done; what is refused is refused with an error of the core's own or a printer's */
function possible(attempt: () => unknown): boolean {
  try {
    attempt();
    return true;
  } catch (error) {
    if (error instanceof CoreError || error instanceof RangeError) return false;
    throw error;
  }
}

interface Applied {
  readonly inputs: readonly Tensor[];
  readonly outs: readonly Tensor[];
}
/** the op on its largest sample with `dtype` in the place of floats. @throws CoreError where it does not take it */
function applied(op: Op, dtype: DType): Applied {
  const { operands, attrs } = op.sample((_lo, hi) => hi) as Sample<Attrs>;
  const typed = (d: DType | undefined): DType => (d === undefined || isFloat(d) ? dtype : d);
  const inputs = operands.map((o) => hole({ shape: o.shape, dtype: typed(o.dtype) }));
  const given = Object.entries(attrs).map(([k, v]) => {
    if (v === 'f32') return [k, dtype];
    return [k, k === 'value' && !isFloat(dtype) ? 1 : v];
  });
  return { inputs, outs: bindAll(op as never, inputs, Object.fromEntries(given)) };
}
/** the columns there is something to try in: all, where the sample holds a dtype that can be another */
function dtypesOf(op: Op): readonly DType[] {
  const { operands, attrs } = op.sample((_lo, hi) => hi) as Sample<Attrs>;
  // closed bodies of a sample are written in f64
  if ('holes' in attrs) return ['f64'];
  const free = operands.some((o) => o.dtype === undefined || isFloat(o.dtype)) || Object.values(attrs).includes('f32');
  if (free) return DTYPES;
  // keys and ids are integers, conditions bools; a source makes f32
  const [first] = operands.map((o) => o.dtype);
  return [first === 'bool' ? 'bool' : first === 'i32' || first === 'u32' ? 'i32' : 'f32'];
}

const graphOf = ({ inputs, outs }: Applied, keeps: (op: Op) => boolean): Graph => {
  const any = { name: 'cpu', supports: () => true, hasKernel: keeps } as unknown as Backend;
  return makeGraph(outs, inputs, new Set(), any).graph;
};
function onWebgpu(a: Applied): void {
  for (const k of lower(graphOf(a, hasKernel), { strided: isStrided, maxLoads: 8 }).kernels) {
    if (k.kind === 'op')
      recipeOf(
        k.node,
        k.inputs.map((o) => o.view),
        GPU,
      );
    else if (k.cluster.shape.includes(0)) continue;
    else if (k.cluster.reduce) printReduce(k.cluster, GPU.class);
    else printElementwise(k.cluster, GPU.class, new Map() as never);
  }
}
/** gpu.js runs clusters and dot itself, everything else on the reference loops */
const onGpujs = (a: Applied): boolean =>
  lower(
    graphOf(a, () => false),
    { strided: (op) => op.name === 'dot', maxLoads: 7 },
  ).kernels.every((k) => (k.kind === 'cluster' ? !('refused' in printCluster(k.cluster)) : k.node.op.name === 'dot'));

const floatsOf = ({ inputs }: Applied): Tensor[] => inputs.filter((x) => isFloat(x.dtype));
/** Σ of all results' cotangents of 1 */
const back = (outs: readonly Tensor[], xs: readonly Tensor[]) =>
  pullback(
    outs,
    outs.map((o) => (isFloat(o.dtype) ? full(o.shape, 1, o.dtype) : undefined)),
    xs,
  );
function rules(op: Op, dtype: DType): readonly [vjp: string, second: string, vmap: string] {
  const a = applied(op, dtype);
  const xs = floatsOf(a);
  const mapped = (): unknown => {
    const many = a.inputs.map((x) => hole({ shape: [3, ...x.shape], dtype: x.dtype }));
    const { attrs } = op.sample((_lo, hi) => hi) as Sample<Attrs>;
    return vmap(
      (...ts: Tensor[]) => bindAll(op as never, ts, attrs) as Tensor[],
      many.map(() => 0),
    )(...many);
  };
  const batched = a.inputs.length === 0 ? '–' : possible(mapped) ? 'yes' : 'no';
  if (op.vjp === 'nondifferentiable') return ['refused', '–', batched];
  const first = back(a.outs, xs).flatMap((g) => (g ? [g] : []));
  if (first.length === 0) return ['–', '–', batched];
  return ['yes', possible(() => back(first, xs)) ? 'yes' : 'no', batched];
}

/** The table as Markdown. `wasm` is only asked to build. */
export function opTable(wasm: Backend): string {
  const cell = (op: Op, dtype: DType): string => {
    if (!possible(() => applied(op, dtype))) return '–';
    const a = applied(op, dtype);
    if (dtype === 'f64') return 'cpu';
    const there = [
      'cpu',
      ...(possible(() => wasm.build(makeGraph(a.outs, a.inputs, new Set(), wasm).graph)) ? ['wasm'] : []),
      ...(possible(() => onWebgpu(a)) ? ['webgpu'] : []),
      onGpujs(a) ? 'gpujs' : '(gpujs)',
    ];
    if (there.length < 4) return there.join(' ');
    return there.includes('(gpujs)') ? 'all*' : 'all';
  };
  const row = (op: Op): string => {
    const own = dtypesOf(op);
    const cells = DTYPES.map((d) => (own.includes(d) ? cell(op, d) : '–'));
    const base = !own.includes('f64') || cells[1] === '–' ? (DTYPES.find((_, i) => cells[i] !== '–') ?? 'f32') : 'f64';
    return `| \`${op.name}\` | ${cells.join(' | ')} | ${rules(op, base).join(' | ')} |`;
  };
  const ops = [...registry.values()].map(row);
  const written = ([...functions.values()] as unknown as readonly Op[]).map(row);
  const head = [
    '| | f32 | f64 | i32 | bool | vjp | second | vmap |',
    '| --- | --- | --- | --- | --- | --- | --- | --- |',
  ];
  return [...head, ...ops, ...written].join('\n');
}

/**
 * Graph → what a backend runs, in one place: lower (kernels), merge (clusters with several results), spans (when each
 * intermediate lives), reuse (which results lie over donated inputs). `printKernels` shows the outcome.
 */
import type { DType } from '../ir/dtype.ts';
import { quantity } from '../ir/print.ts';
import { isWhole } from '../ir/view.ts';
import type { Graph, Stage } from './backend.ts';
import { type BodyOptions, bodies } from './bodies.ts';
import { type Buffer, type Lowered, lower, type Operand } from './lower.ts';
import { merge } from './merge.ts';
import { reuseDonated, type Span, spans } from './plan.ts';
import { detailOf, flopsOf, nameOf, trafficOf } from './report.ts';

export interface PrepareOptions extends BodyOptions {
  /** false: values of this type never lie over a donated input */
  readonly over?: (dtype: DType) => boolean;
}
export interface Prepared extends Lowered {
  /** when each intermediate is written first and read last */
  readonly spans: readonly Span[];
  /** result → the donated input it is written over */
  readonly reuse: ReadonlyMap<Buffer, Buffer>;
}

export function prepare(graph: Graph, options: PrepareOptions): Prepared {
  const alone = lower(graph, { ...options, body: bodies(options) });
  const lowered = options.merge ? merge(alone, options.merge) : alone;
  const over = [...graph.donated].filter((i) => options.over?.(lowered.inputs[i]!.dtype) ?? true);
  return { ...lowered, spans: spans(lowered), reuse: reuseDonated(lowered, new Set(over)) };
}

const bufferText = (b: Buffer): string => `%${b.id}: ${b.dtype}[${b.elements}]`;
const operandText = ({ buffer, view }: Operand): string =>
  isWhole(view)
    ? `%${buffer.id}`
    : `%${buffer.id}(${view.offset > 0 ? `${view.offset} + ` : ''}strides ${view.strides.join(', ')})`;

/**
 * The kernels of a program, one a line in the order they run: results (with the kernel that
 * reads an intermediate last, or the donated input a result lies over; – for those nobody reads), what is computed over which shape, operands (with
 * strides where they are views), cost. `planned: false` leaves out where values live.
 *
 *   0  %2: f32[6] until 3 = elementwise [2,3]: mul add   %0 %1   12 F  72 B
 */
export function printKernels(p: Prepared, planned = true): string {
  const ends = new Map(p.spans.map((s) => [s.buffer, s.end]));
  const result = (b: Buffer): string => {
    const over = p.reuse.get(b);
    if (!planned) return bufferText(b);
    return `${bufferText(b)}${ends.has(b) ? ` until ${ends.get(b)}` : over ? ` over %${over.id}` : ''}`;
  };
  const width = String(p.kernels.length).length;
  const lines = p.kernels.map((k, i) =>
    [
      `${String(i).padStart(width)}  ${k.outputs.map((b) => (b ? result(b) : '–')).join(', ')} = ${nameOf(k)} ${detailOf(k)}`,
      k.inputs.map(operandText).join(' '),
      [flopsOf(k) > 0 ? `${quantity(flopsOf(k), 'F')}  ` : '', quantity(trafficOf(k), 'B')].join(''),
    ]
      .filter((part) => part !== '')
      .join('   '),
  );
  return [
    `inputs ${p.inputs.map(bufferText).join(', ') || 'none'}`,
    ...lines,
    `→ ${p.outputs.map((b) => `%${b.id}`).join(', ')}`,
  ].join('\n');
}

/** The kernels of a program as they are, then with the place and time of every value: text and plain data of each. */
export function kernelStages(p: Prepared): { readonly lowered: Stage; readonly planned: Stage } {
  const kernels = p.kernels.map((k) => ({
    name: nameOf(k),
    detail: detailOf(k),
    inputs: k.inputs.map(({ buffer, view }) => ({ buffer: buffer.id, ...view })),
    outputs: k.outputs.map((b) => b?.id ?? null),
    ...(k.kind === 'cluster' ? { steps: k.cluster.steps } : {}),
    flops: flopsOf(k),
    bytes: trafficOf(k),
  }));
  const ids = (list: readonly Buffer[]) => list.map((b) => b.id);
  const program = { inputs: ids(p.inputs), outputs: ids(p.outputs), kernels };
  return {
    lowered: { text: printKernels(p, false), data: program },
    planned: {
      text: printKernels(p),
      data: {
        ...program,
        spans: p.spans.map(({ buffer, bytes, start, end }) => ({ buffer: buffer.id, bytes, start, end })),
        reuse: [...p.reuse].map(([result, over]) => ({ result: result.id, over: over.id })),
      },
    },
  };
}

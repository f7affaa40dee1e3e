/** The page of each op as data, made when the lab is built: what its record says, its source, and what every backend makes of it. */
import { functions } from '../../core/functions/catalog.ts';
import { registry } from '../../core/index.ts';
import { isFloat } from '../../core/ir/dtype.ts';
import type { Op } from '../../core/ir/tensor.ts';
import { applySample } from '../explain/application.ts';
import { isDifferentiable } from '../explain/check.ts';
import { gpujsOf, type KernelText, wgslOf } from '../explain/kernels.ts';
import { wasmListingOf } from '../explain/listing.ts';
import { formText } from '../explain/rules.ts';
import { type Field, recordSource } from '../explain/source.ts';
import { callSites, countsInSd15 } from '../explain/use.ts';
import { wasmPlaceOf } from '../explain/wasm-place.ts';

/** An op in the list of all. */
export interface OpEntry {
  readonly name: string;
  readonly kind: 'op' | 'function';
  readonly doc: string;
  readonly formula: string;
  readonly aliases: readonly string[];
}
/** What a page says of an op beside what it computes. */
export interface OpText extends OpEntry {
  readonly form: string;
  readonly place: string;
  readonly signatures: readonly string[];
  readonly notes: string;
  /** each of its rules as written */
  readonly rules: readonly { readonly title: string; readonly text: string }[];
  readonly differentiable: boolean;
  /** floats it takes: where there are none, nothing can be nudged */
  readonly floats: boolean;
  readonly wasmPlace: string;
  readonly kernels: {
    readonly wasm: readonly KernelText[];
    readonly webgpu: readonly KernelText[];
    readonly gpujs: readonly KernelText[];
  };
  readonly usedBy: readonly string[];
}

const TITLES: readonly (readonly [Field, string])[] = [
  ['shape', 'Shape rule'],
  ['vjp', 'Derivative: cotangents of the results to those of the operands'],
  ['batch', 'Batching rule: a mapped operand carries its samples as axis 0'],
  ['body', 'Meaning, in other ops'],
  ['js', 'On one element'],
  ['cpu', 'Reference loops'],
  ['flops', 'Cost'],
];
const ABSENT: Readonly<Partial<Record<Field, string>>> = {
  vjp: 'none of its own: the body is differentiated',
  batch: 'none of its own: the body is mapped',
};

/** All ops of the registry, then the functions written in ops. */
export const allOps: readonly Op[] = [
  ...registry.values(),
  ...(functions.values() as Iterable<unknown> as Iterable<Op>),
];
export const entryOf = (op: Op): OpEntry => ({
  name: op.name,
  kind: functions.has(op.name) ? 'function' : 'op',
  doc: op.doc,
  formula: op.formula,
  aliases: op.aliases ?? [],
});

/** The text of an op's page. Cost: some ten milliseconds, for the printers. */
export async function textOf(op: Op): Promise<OpText> {
  const source = await recordSource(op);
  const applied = applySample(op, 'f32', 1);
  const counts = countsInSd15().flatMap(([program, map]) => {
    const n = map.get(op.name);
    return n === undefined ? [] : [`${n} times in Stable Diffusion 1.5's ${program}`];
  });
  return {
    ...entryOf(op),
    form: formText(op),
    place: source.place,
    signatures: source.signatures,
    notes: source.doc,
    rules: TITLES.flatMap(([field, title]) => {
      const text = source.fields.get(field) ?? (op.kind === 'composite' ? ABSENT[field] : undefined);
      return text === undefined ? [] : [{ title, text: text.replace(/,$/, '') }];
    }),
    differentiable: isDifferentiable(applied),
    floats: applied.inputs.some((x) => isFloat(x.dtype)),
    wasmPlace: await wasmPlaceOf(op),
    kernels: { wasm: wasmListingOf(op), webgpu: wgslOf(op), gpujs: gpujsOf(op) },
    usedBy: [...counts, ...(await callSites(op.name)).slice(0, 8)],
  };
}

/** The page of one op: everything there is to know about it, from its record and from running it. */
import { bytesOf } from '../../core/ir/dtype.ts';
import type { Op } from '../../core/ir/tensor.ts';
import { sizeOf } from '../../core/ir/view.ts';
import { number } from '../words/format.ts';
import { type Applied, applySample } from './application.ts';
import { type Check, isDifferentiable } from './check.ts';
import { attrsText, typeOf } from './graph.ts';
import { gpujsOf, type KernelText, wgslOf } from './kernels.ts';
import { batchGraph, formText, nameOf, vjpGraph } from './rules.ts';
import { type Field, recordSource } from './source.ts';
import { callSites, countsInSd15 } from './use.ts';
import { wasmPlaceOf } from './wasm-place.ts';

const indent = (text: string, by = '    '): readonly string[] =>
  text.split('\n').map((line) => `${by}${line}`.trimEnd());

const section = (title: string, lines: readonly string[]): readonly string[] =>
  lines.length === 0 ? [] : ['', title, ...lines];

/** `dot(a f64[3, 5, 6], b f64[3, 6, 5]) → f64[3, 5, 5]` */
function application({ op, inputs, attrs, outs }: Applied): string {
  const args = inputs.map((x, i) => `${nameOf(i)} ${typeOf(x)}`).join(', ');
  return `${op.name}(${args})${attrsText(attrs)} → ${outs.map(typeOf).join(', ')}`;
}

/** Graphs longer than this are counted, not printed. */
const LONG = 16;
const graphLines = (lines: readonly string[]): readonly string[] =>
  lines.length <= LONG
    ? lines.map((l) => `      ${l}`)
    : [...lines.slice(0, LONG - 3).map((l) => `      ${l}`), `      … ${lines.length - LONG + 3} more lines`];

function batchLines(applied: Applied): readonly string[] {
  const n = applied.inputs.length;
  if (n === 0) return ['    no operands: nothing to map over'];
  const subsets =
    n === 1
      ? [[true]]
      : [
          ...Array.from({ length: Math.min(n, 3) }, (_, k) => applied.inputs.map((_, i) => i === k)),
          Array(n).fill(true),
        ];
  return subsets.flatMap((mapped) => {
    const who = mapped.every(Boolean) ? 'all operands' : `only ${nameOf(mapped.indexOf(true))}`;
    return [`    ${who} mapped, 3 samples:`, ...graphLines(batchGraph(applied, mapped))];
  });
}

function costLines({ op, inputs, attrs, outs }: Applied): readonly string[] {
  const flops = op.flops?.(inputs, attrs as never) ?? 0;
  const bytes = [...inputs, ...outs].reduce((n, t) => n + bytesOf(t.dtype, sizeOf(t.shape)), 0);
  return [
    `    sample in f32: ${number(flops)} flop, ${number(bytes)} bytes read and written, ${number(flops / bytes)} flop/byte`,
  ];
}

/** A backend's kernels, each with its text. */
const kernelLines = (backend: string, kernels: readonly KernelText[]): readonly string[] =>
  kernels.length === 0
    ? [`    ${backend}: no kernel needed: a view, a constant or an identity`]
    : kernels.flatMap(({ name, text }) => [`    ${backend}: ${name}`, ...(text ? indent(text, '      ') : [])]);

export type PageOptions = {
  readonly seed: number;
  /** Also the text of the kernels. */
  readonly kernels: boolean;
  /** Kernels of the sample as an opened backend names them. */
  readonly named: readonly (readonly [backend: string, names: readonly string[]])[];
  readonly checks: readonly Check[];
};

/** Whether a check is within its tolerance. */
export const passed = ({ error, tolerance }: Check): boolean => error <= tolerance;

function checkLines(checks: readonly Check[]): readonly string[] {
  return checks.flatMap((check) => [
    `    ${passed(check) ? 'ok ' : 'BAD'} ${check.what}`,
    `        ${check.values.map(([name, value]) => `${name} ${value}`).join('   ')}`,
    `        difference ${check.error.toExponential(2)}, allowed ${check.tolerance.toExponential(2)}`,
  ]);
}

async function useLines(op: Op): Promise<readonly string[]> {
  const counts = countsInSd15().flatMap(([program, map]) => {
    const n = map.get(op.name);
    return n === undefined ? [] : [`    ${n} times in Stable Diffusion 1.5's ${program}`];
  });
  const sites = await callSites(op.name);
  const shown = sites.slice(0, 8).map((site) => `    ${site.slice(0, 140)}`);
  const more = sites.length > 8 ? [`    … and ${sites.length - 8} more lines`] : [];
  const none = counts.length + sites.length === 0 ? ['    not used by the models'] : [];
  return [...counts, ...shown, ...more, ...none];
}

/** All lines of an op's page. */
export async function pageOf(op: Op, o: PageOptions): Promise<readonly string[]> {
  const source = await recordSource(op);
  const applied = applySample(op, 'f32', o.seed);
  const field = (name: Field, empty: string): readonly string[] =>
    indent((source.fields.get(name) ?? empty).replace(/,$/, ''));
  const definition = op.kind === 'composite' ? field('body', '–') : field('cpu', '–');
  const js = source.fields.has('js') ? field('js', '') : [];
  return [
    `${op.name}: ${op.doc}`,
    `  ${op.formula}`,
    `  ${formText(op)}; ${source.place}`,
    ...section('signature', source.signatures.length > 0 ? source.signatures.map((s) => `    ${s}`) : ['    internal']),
    `    ${application(applied)}`,
    ...section('notes', source.doc ? indent(source.doc) : []),
    ...section('shape rule', field('shape', '–')),
    ...section('vjp (cotangents of the results → cotangents of the operands)', [
      ...field('vjp', 'none: the body is differentiated'),
      ...(isDifferentiable(applied) ? ['    on the sample:', ...graphLines(vjpGraph(applied))] : []),
    ]),
    ...section('batching rule (a mapped operand carries its samples as axis 0)', [
      ...field('batch', 'none: the body is mapped'),
      ...batchLines(applied),
    ]),
    ...section(op.kind === 'composite' ? 'meaning (body)' : 'reference kernel (cpu: ndarray views, f32 and f64)', [
      ...js,
      ...definition,
    ]),
    ...section('kernels', [
      ...(op.kind === 'primitive' ? ['    cpu: the reference kernel above'] : ['    cpu: the body above']),
      `    wasm: ${await wasmPlaceOf(op)}`,
      ...o.named.flatMap(([backend, names]) => names.map((name) => `    ${backend}, built for the sample: ${name}`)),
      ...(o.kernels ? [...kernelLines('webgpu', wgslOf(op)), ...kernelLines('gpujs', gpujsOf(op))] : []),
    ]),
    ...section('cost', [...field('flops', 'flops: none counted'), ...costLines(applied)]),
    ...section('used by', await useLines(op)),
    ...section('checks, run just now', checkLines(o.checks)),
  ];
}

/** Checks single operations and their gradients against a golden directory (`ops.json`, `ops.safetensors`). */
import { join } from 'node:path';
import { z } from 'zod';
import { type Backend, cpuBackend, type Tensor, vjp } from '../../../core/index.ts';
import { compared, distance, floats, integers, largest, precisionOf, results } from '../distances.ts';
import {
  failedCase,
  type GoldenCase,
  type GoldenTensor,
  type GoldenTensors,
  need,
  readGoldenJson,
  readGoldenTensors,
} from '../golden.ts';
import type { Inputs } from './attributes.ts';
import { MULTILINEAR, OPS } from './table.ts';

export const OPS_FILES = ['ops.json', 'ops.safetensors'] as const;

const shapes = z.record(z.string(), z.array(z.number().int().min(0)));
const schema = z.object({
  cases: z.array(
    z.object({
      name: z.string(),
      op: z.string(),
      attributes: z.record(z.string(), z.unknown()).default({}),
      inputs: shapes,
      integer_inputs: shapes.default({}),
    }),
  ),
});
type Case = z.output<typeof schema>['cases'][number];

/**
 * Output and gradients of every case whose operation is known (`unknownOps` names the others); a case that cannot be
 * computed fails alone.
 * @throws Error one line: a file is missing or malformed
 */
export async function* verifyOps(directory: string, backend: Backend): AsyncGenerator<GoldenCase> {
  const { cases } = await readGoldenJson(directory, 'ops.json', schema);
  const tensors = await readGoldenTensors(join(directory, 'ops.safetensors'));
  for (const golden of cases) {
    if (!Object.hasOwn(OPS, golden.op)) continue;
    try {
      yield* verifyCase(golden, tensors, backend);
    } catch (error) {
      yield failedCase(`ops ${golden.name}`, error);
    }
  }
}

/** The cases of operations this project has no name for: listed as not checked. */
export async function unknownOps(directory: string): Promise<string[]> {
  const { cases } = await readGoldenJson(directory, 'ops.json', schema);
  return cases.filter(({ op }) => !Object.hasOwn(OPS, op)).map(({ name, op }) => `ops.json: ${name} (operation ${op})`);
}

async function* verifyCase(golden: Case, tensors: GoldenTensors, backend: Backend): AsyncGenerator<GoldenCase> {
  const { name } = golden;
  const op = OPS[golden.op]!;
  const precision = precisionOf(backend);
  const pick = (names: object, make: (t: ReturnType<typeof need>) => Tensor): Inputs =>
    Object.fromEntries(Object.keys(names).map((key) => [key, make(need(tensors, `${name}/in.${key}`))]));
  const whole = pick(golden.integer_inputs, integers);
  const inputs = pick(golden.inputs, (t) => floats(t, precision));

  const [out, pull] = vjp((x: Inputs) => op({ ...x, ...whole }, golden.attributes), inputs);
  const cotangent = tensors.get(`${name}/cotangent`);
  const grads = cotangent ? pull(floats(cotangent, precision)) : {};
  const sizes = MULTILINEAR.has(golden.op) && precision === 'f32' ? await termSizes(golden, tensors) : undefined;
  const wanted = { out, ...Object.fromEntries(Object.entries(grads).map(([key, g]) => [`grad.${key}`, g])) };
  for (const [what, actual] of Object.entries(await results(wanted, backend))) {
    const expected = need(tensors, `${name}/${what}`);
    const stored = tensors.get(`${name}/${what}_f32`);
    const reference = stored && distance(stored.data, expected.data);
    // where terms cancel, the reference may have been lucky: eight roundings of the terms are allowed for
    const float32 = sizes && Math.max(reference ?? 0, 0.8 * 2 ** -24 * largest(sizes[what]!));
    yield compared(`ops ${name} ${what}`, actual, expected, {
      precision,
      float32Error: float32 ?? reference,
    });
  }
}

/** A multilinear operation and its gradients of absolute values: the sums of the terms' sizes. */
async function termSizes(golden: Case, tensors: GoldenTensors): Promise<Readonly<Record<string, ArrayLike<number>>>> {
  const at = (key: string) => need(tensors, `${golden.name}/${key}`);
  const size = (t: GoldenTensor) => floats({ ...t, data: t.data.map(Math.abs) }, 'f64');
  const pick = (names: object, make: (t: GoldenTensor) => Tensor): Inputs =>
    Object.fromEntries(Object.keys(names).map((key) => [key, make(at(`in.${key}`))]));
  const whole = pick(golden.integer_inputs, integers);
  const op = OPS[golden.op]!;
  const [out, pull] = vjp((x: Inputs) => op({ ...x, ...whole }, golden.attributes), pick(golden.inputs, size));
  const grads = tensors.has(`${golden.name}/cotangent`) ? pull(size(at('cotangent'))) : {};
  const named = Object.entries(grads).map(([key, g]) => [`grad.${key}`, g]);
  return results({ out, ...Object.fromEntries(named) }, cpuBackend());
}

/** Checks single operations and their gradients against a golden directory (`ops.json`, `ops.safetensors`). */
import { join } from 'node:path';
import { z } from 'zod';
import { type Backend, type Tensor, vjp } from '../../core/index.ts';
import { compared, distance, floats, integers, precisionOf, results } from './compare.ts';
import { type GoldenCase, type GoldenTensors, need, readGoldenJson, readGoldenTensors } from './golden.ts';
import { type Inputs, OPS } from './op-table.ts';

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
 * Output and gradients of every case.
 * @throws Error one line: a file or tensor is missing or malformed, or the operation is not known
 */
export async function* verifyOps(directory: string, backend: Backend): AsyncGenerator<GoldenCase> {
  const { cases } = await readGoldenJson(directory, 'ops.json', schema);
  const tensors = await readGoldenTensors(join(directory, 'ops.safetensors'));
  for (const golden of cases) yield* verifyCase(golden, tensors, backend);
}

async function* verifyCase(golden: Case, tensors: GoldenTensors, backend: Backend): AsyncGenerator<GoldenCase> {
  const { name } = golden;
  const op = Object.hasOwn(OPS, golden.op) ? OPS[golden.op]! : undefined;
  if (!op) throw new Error(`ops.json: case ${name}: no check for operation ${JSON.stringify(golden.op)}`);
  const precision = precisionOf(backend);
  const pick = (names: object, make: (t: ReturnType<typeof need>) => Tensor): Inputs =>
    Object.fromEntries(Object.keys(names).map((key) => [key, make(need(tensors, `${name}/in.${key}`))]));
  const whole = pick(golden.integer_inputs, integers);
  const inputs = pick(golden.inputs, (t) => floats(t, precision));

  const [out, pull] = vjp((x: Inputs) => op({ ...x, ...whole }, golden.attributes), inputs);
  const cotangent = tensors.get(`${name}/cotangent`);
  const grads = cotangent ? pull(floats(cotangent, precision)) : {};
  const wanted = { out, ...Object.fromEntries(Object.entries(grads).map(([key, g]) => [`grad.${key}`, g])) };
  for (const [what, actual] of Object.entries(await results(wanted, backend))) {
    const expected = need(tensors, `${name}/${what}`);
    const float32 = tensors.get(`${name}/${what}_f32`);
    yield compared(`ops ${name} ${what}`, actual, expected, {
      precision,
      float32Error: float32 && distance(float32.data, expected.data),
    });
  }
}

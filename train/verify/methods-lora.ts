/**
 * Checks LoRA training against `methods.*`, entry `optim`: Adam and AdamW with two accumulated batches a step, clipping by
 * the global norm and a learning-rate schedule, on a three-layer network with tanh.
 */
import { join } from 'node:path';
import { z } from 'zod';
import {
  add,
  type Backend,
  compile,
  leaves,
  mul,
  read,
  type Tensor,
  tanh,
  tensor,
  valueAndGrad,
} from '../../core/index.ts';
import { linear, mse } from '../../nn/index.ts';
import type { Adapter } from '../../selora/adapter.ts';
import { LR_SCHEDULES, learningRate } from '../optimise/lr.ts';
import { type AdamState, adamUpdate, clipFactor, globalNorm } from '../optimise/optimizer.ts';
import { compared, floats, precisionOf } from './distances.ts';
import { type GoldenCase, type GoldenTensors, need, readGoldenJson, readGoldenTensors } from './golden.ts';

export const METHODS_LORA_FILES = ['methods.json', 'methods.safetensors'] as const;

const golden = z.object({
  opt: z.enum(['adam', 'adamw']),
  lr: z.number(),
  wd: z.number(),
  max_norm: z.number().nullable(),
  sched: z.enum(LR_SCHEDULES),
  warmup: z.int().min(0),
  betas: z.tuple([z.number(), z.number()]),
  eps: z.number(),
  steps: z.int().min(1).max(100_000),
  lr_used: z.array(z.number()),
  loss: z.array(z.number()),
  grad_norm_before_clipping: z.array(z.number()),
  float32_vs_float64_max_abs: z.number(),
});
const schema = z.object({ optim: z.object({ s: z.number(), cases: z.record(z.string(), golden) }) });

type Layer = { readonly weight: Tensor; readonly bias: Tensor };
type Moments = { readonly A: AdamState; readonly B: AdamState };
type TrainState = { readonly adapters: readonly Adapter[]; readonly moments: readonly Moments[]; readonly age: Tensor };

/** @throws Error one line: a file or tensor is missing or malformed */
export async function* verifyMethodsLora(directory: string, backend: Backend): AsyncGenerator<GoldenCase> {
  const { optim } = await readGoldenJson(directory, 'methods.json', schema);
  const tensors = await readGoldenTensors(join(directory, 'methods.safetensors'));
  for (const [name, info] of Object.entries(optim.cases)) yield* verifyCase(name, info, optim.s, tensors, backend);
}

async function* verifyCase(
  name: string,
  info: z.output<typeof golden>,
  scale: number,
  tensors: GoldenTensors,
  backend: Backend,
): AsyncGenerator<GoldenCase> {
  const precision = precisionOf(backend);
  const float = (key: string) => floats(need(tensors, key), precision);
  const layers: Layer[] = [];
  while (tensors.has(`adalora.l${layers.length}.W`)) {
    const at = `adalora.l${layers.length}`;
    layers.push({ weight: float(`${at}.W`), bias: float(`${at}.b`) });
  }
  const zeroed = (like: Tensor) =>
    floats({ dtype: 'F64', shape: like.shape, data: new Float64Array(like.shape[0]! * like.shape[1]!) }, precision);
  const adapters = layers.map((_, i): Adapter => ({ A: float(`optim.init.l${i}.A`), B: float(`optim.init.l${i}.B`) }));
  let state: TrainState = {
    adapters,
    moments: adapters.map(({ A, B }) => ({
      A: { m: zeroed(A), v: zeroed(A) },
      B: { m: zeroed(B), v: zeroed(B) },
    })),
    age: tensor([0], [], precision),
  };
  /** tanh between layers, none after the last; y = x·Wᵀ + b + s·(x·A)·B */
  const loss = (a: readonly Adapter[], x: Tensor, y: Tensor): Tensor => {
    let h = x;
    for (const [i, layer] of layers.entries()) {
      h = linear({ ...layer, adapter: { ...a[i]!, scale } }, h);
      if (i < layers.length - 1) h = tanh(h);
    }
    return mse(h, y);
  };
  const gradient = valueAndGrad((a: readonly Adapter[], x: Tensor, y: Tensor) => mul(loss(a, x, y), 0.5));
  const options = {
    beta1: info.betas[0],
    beta2: info.betas[1],
    eps: info.eps,
    weightDecay: info.wd,
    decoupled: info.opt === 'adamw',
  };
  const step = compile(
    (s: TrainState, xs: readonly Tensor[], ys: readonly Tensor[], lr: Tensor) => {
      const [first, second] = xs.map((x, i) => gradient(s.adapters, x, ys[i]!));
      const g = first![1].map((a, i): Adapter => {
        const b = second![1][i]!;
        return { A: add(a.A, b.A), B: add(a.B, b.B) };
      });
      const norm = globalNorm(leaves<Tensor>(g));
      const factor = info.max_norm === null ? 1 : clipFactor(norm, info.max_norm);
      const updated = s.adapters.map((a, i) => {
        const side = (key: 'A' | 'B') =>
          adamUpdate(a[key], mul(g[i]![key], factor), s.moments[i]![key], s.age, lr, options);
        return { A: side('A'), B: side('B') };
      });
      return {
        state: {
          adapters: updated.map(({ A, B }): Adapter => ({ A: A.p, B: B.p })),
          moments: updated.map(({ A, B }): Moments => ({ A: { m: A.m, v: A.v }, B: { m: B.m, v: B.v } })),
          age: add(s.age, 1),
        },
        loss: add(first![0], second![0]),
        norm,
      };
    },
    { backend, name: `methods ${name}` },
  );
  const batch = (of: 'x' | 'y', index: number): Tensor => {
    const { data, shape, dtype } = need(tensors, `optim.${of}`);
    const [, rows, width] = shape as [number, number, number];
    const size = rows * width;
    return floats({ dtype, shape: [rows, width], data: data.subarray(index * size, (index + 1) * size) }, precision);
  };
  const visited = new Map<string, number[]>(
    layers.flatMap((_, i) => [
      [`l${i}.A`, []],
      [`l${i}.B`, []],
    ]),
  );
  const losses: number[] = [];
  const norms: number[] = [];
  const rates: number[] = [];
  const schedule = { name: info.sched, base: info.lr, total: info.steps, warmup: info.warmup };
  for (let k = 0; k < info.steps; k++) {
    const rate = learningRate(k, schedule);
    const pair = (of: 'x' | 'y') => [batch(of, 2 * k), batch(of, 2 * k + 1)];
    const next = step(state, pair('x'), pair('y'), tensor([rate], [], precision));
    state = next.state;
    rates.push(rate);
    losses.push((await read(next.loss))[0]!);
    norms.push((await read(next.norm))[0]!);
    for (const [i, a] of state.adapters.entries())
      for (const side of ['A', 'B'] as const) visited.get(`l${i}.${side}`)!.push(...(await read(a[side])));
  }
  const limits = {
    precision,
    float32Error: info.float32_vs_float64_max_abs,
    f64: { tolerance: 1e-9, why: 'f64; Adam divides small gradients by their own size' },
  };
  const list = (values: readonly number[]) => ({ dtype: 'F64', data: Float64Array.from(values) });
  yield {
    ...compared(`methods ${name} rates`, rates, list(info.lr_used), { precision: 'f64' }),
    why: 'f64 on the host',
  };
  yield compared(`methods ${name} losses`, losses, list(info.loss), limits);
  yield compared(`methods ${name} gradient norms`, norms, list(info.grad_norm_before_clipping), limits);
  for (const [key, values] of visited)
    yield compared(
      `methods ${name} ${key} of ${info.steps} steps`,
      values,
      need(tensors, `optim.${name}.${key}`),
      limits,
    );
}

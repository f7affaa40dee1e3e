/** A small network of linears with adapters at random, for the tests of SeLoRA: y = L₂ tanh L₁ tanh L₀ x. */
import { mean, mul, sub, type Tensor, tanh, tensor } from '../../core/index.ts';
import { type Linear, linear } from '../../nn/index.ts';
import type { Adapter, Adapters } from '../../selora/adapter.ts';
import { attach } from '../../selora/attach.ts';
import { rng } from './gradcheck.ts';

export type Float = 'f32' | 'f64';
export type Net = { readonly l: readonly Linear[] };

export interface Case {
  readonly base: Net;
  readonly adapters: Adapters;
  /** inputs [b, d] and targets [b, d'] */
  readonly x: Tensor;
  readonly y: Tensor;
  /** a candidate column for every module */
  readonly K: { readonly [path: string]: Tensor };
}

/** Values that are exact in f32, so that both precisions start from the same numbers. */
export function randomCase(seed: number, dtype: Float, { bZero = false }: { bZero?: boolean } = {}): Case {
  const random = rng(seed);
  const int = (lo: number, hi: number) => lo + Math.floor(random() * (hi - lo + 1));
  const draw = (shape: readonly number[], size = 1): Tensor =>
    tensor(
      Array.from({ length: shape.reduce((p, n) => p * n, 1) }, () => Math.fround((random() * 2 - 1) * size)),
      shape,
      dtype,
    );
  const widths = Array.from({ length: 4 }, () => int(1, 9));
  const pairs = [0, 1, 2].map((i) => [widths[i]!, widths[i + 1]!] as const);
  const adapters = pairs.map(([dIn, dOut], i): [string, Adapter] => {
    const rank = int(1, 4);
    return [`l.${i}`, { A: draw([dIn, rank]), B: draw([rank, dOut], bZero ? 0 : 1) }];
  });
  const batch = int(1, 6);
  return {
    base: { l: pairs.map(([dIn, dOut]) => ({ weight: draw([dOut, dIn]), bias: draw([dOut]) })) },
    adapters: Object.fromEntries(adapters),
    x: draw([batch, widths[0]!]),
    y: draw([batch, widths[3]!]),
    K: Object.fromEntries(pairs.map(([dIn], i) => [`l.${i}`, draw([dIn, 1])])),
  };
}

export const SCALE = 0.75;
export function forward(base: Net, adapters: Adapters, x: Tensor): Tensor {
  const net = attach(base, adapters, SCALE);
  return net.l.reduce((h, layer, i) => (i === 0 ? linear(layer, h) : linear(layer, tanh(h))), x);
}
/** mean over features (and samples) of (output − y)² */
export const loss = (adapters: Adapters, base: Net, x: Tensor, y: Tensor): Tensor => {
  const d = sub(forward(base, adapters, x), y);
  return mean(mul(d, d));
};

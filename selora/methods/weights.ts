/** What methods share that change a weight as a whole: a layer's weight as a matrix, a change of full rank as a file's module. */
import { permute, reshape, type Tensor } from '../../core/index.ts';
import type { AdapterModule } from '../../models/io/adapter-file.ts';
import type { AdaptedModule } from '../attach.ts';
import type { PerNetwork } from '../networks.ts';
import { inputsOf, kernelOf } from './low-rank.ts';
import type { HostModule, HostTensor, Place, Places, Ranks } from './method.ts';

/** A layer's weight as files have it, [d_out, d_in]; a kernel's d_in counts [in, kh, kw]. */
export function matrixOf(weight: Tensor): Tensor {
  if (weight.shape.length !== 4) return weight;
  const [kh, kw, inputs, outputs] = weight.shape as [number, number, number, number];
  return reshape(permute(weight, [3, 2, 0, 1]), [outputs, inputs * kh * kw]);
}

/** The layer with another weight, given as [d_out, d_in]. */
export function withMatrix<M extends AdaptedModule>(module: M, matrix: Tensor): M {
  const { shape } = module.weight;
  if (shape.length !== 4) return { ...module, weight: matrix };
  const [kh, kw, inputs, outputs] = shape as [number, number, number, number];
  return { ...module, weight: permute(reshape(matrix, [outputs, inputs, kh, kw]), [2, 3, 1, 0]) };
}

/**
 * ΔW[d_out, d_in] as a LoRA whose rank is the smaller side: the identity and ΔW itself, so that every program reads it, at
 * the price of a large file.
 */
export function fullModule(delta: ArrayLike<number>, place: Place): AdapterModule {
  const [dOut, dIn] = [place[0], inputsOf(place)];
  const rank = Math.min(dIn, dOut);
  const change = new Float32Array(dIn * dOut);
  for (let o = 0; o < dOut; o++) for (let i = 0; i < dIn; i++) change[i * dOut + o] = delta[o * dIn + i]!;
  const one = new Float32Array(rank * rank);
  for (let i = 0; i < rank; i++) one[i * rank + i] = 1;
  const [A, B] = dIn <= dOut ? [one, change] : [change, one];
  return { A, B, rank, dIn, dOut, scale: 1, ...kernelOf(place) };
}

/** Rows times columns on the host, in f64: a[n, k]·b[k, m]. */
export function product(a: HostTensor, b: HostTensor): Float64Array {
  const [n, k] = a.shape as [number, number];
  const m = b.shape[1]!;
  const out = new Float64Array(n * m);
  for (let i = 0; i < n; i++)
    for (let j = 0; j < k; j++) {
      const x = a.data[i * k + j]!;
      for (let l = 0; l < m; l++) out[i * m + l]! += x * b.data[j * m + l]!;
    }
  return out;
}

/** A and factor·B of the ranks whose factor is not zero: a module with one factor per rank as a LoRA. */
export function keptRanks({ fields }: HostModule, factor: string, dIn: number, dOut: number): HostModule {
  const [A, B, f] = [fields.A!.data, fields.B!.data, fields[factor]!.data];
  const left = Array.from(f.keys()).filter((r) => f[r] !== 0);
  const rank = left.length;
  const inside = (i: number) => A[Math.floor(i / rank) * f.length + left[i % rank]!]!;
  const outside = (i: number) => {
    const r = left[Math.floor(i / dOut)]!;
    return f[r]! * B[r * dOut + (i % dOut)]!;
  };
  return {
    rank,
    fields: {
      A: { shape: [dIn, rank], data: Float32Array.from({ length: dIn * rank }, (_, i) => inside(i)) },
      B: { shape: [rank, dOut], data: Float32Array.from({ length: rank * dOut }, (_, i) => outside(i)) },
    },
  };
}

/** [n, m] → [m, n] */
export function transposed({ shape, data }: HostTensor): HostTensor {
  const [n, m] = shape as [number, number];
  return {
    shape: [m, n],
    data: Float32Array.from({ length: n * m }, (_, i) => data[(i % n) * m + Math.floor(i / n)]!),
  };
}

/** Ranks of a method that has none: 1 each. @throws RangeError where a run is to begin from a file it cannot be said in */
export function withoutRanks(name: string) {
  return (_c: unknown, { unet, text }: PerNetwork<Places>, known?: Ranks): Ranks => {
    refuseKnown(name, known);
    const ones = (places: Places) => Object.fromEntries([...places.keys()].map((path) => [path, 1]));
    return { unet: ones(unet), text: ones(text) };
  };
}

const notFrom = (name: string) =>
  new RangeError(`--init-adapter: a low-rank file has no form that --method ${name} could begin from; use lora`);

/** @throws RangeError where a run is to begin from a file that this method's parameters cannot say */
export function refuseKnown(name: string, known: Ranks | undefined): void {
  if (known) throw notFrom(name);
}
/** `fromFile` of a method that no low-rank file can be said in; `ranks` refuses it before. */
export const cannotBegin = (name: string) => (): never => {
  throw notFrom(name);
};

/** What methods of the form W = W0 + s·A·B have in common: A[d_in, r], B[r, d_out] as trees, at the start, in a layer, in a file. */
import { add, mul, tensor } from '../../core/index.ts';
import type { AdapterModule } from '../../models/io/adapter-file.ts';
import { type Adapter, type HostKey, initAdapters } from '../adapter.ts';
import { type AdaptedModule, inLayer } from '../attach.ts';
import { mapNetworks, networks, type PerNetwork } from '../networks.ts';
import { ranksByHand } from '../targets.ts';
import { Field, type Fields, type HostModule, type Place, type Places, type Ranks } from './method.ts';

type Ranked = { readonly rank: number; readonly ranks: string | null };
type Scaled = { readonly scale: number };

/** d_in of a place: of a convolution c_in·kh·kw */
export const inputsOf = ([, ...inner]: Place): number => inner.reduce((n, side) => n * side, 1);

/** [kh, kw] of a convolution's place, as a module of a file has it */
export const kernelOf = (place: Place): { readonly kernel?: readonly [number, number] } =>
  place.length === 4 ? { kernel: [place[2]!, place[3]!] } : {};

/** Ranks by `--rank` and `--ranks`, and those that are known. @throws RangeError naming the pair that matches nothing */
export function ranksAtStart(c: Ranked, { unet, text }: PerNetwork<Places>, known?: Ranks): Ranks {
  // around the loop there are no modules for --ranks to match
  if (unet.size + text.size === 0) return { unet: {}, text: {} };
  const ranks = ranksByHand(c.ranks, [...unet.keys()], [...text.keys()], c.rank);
  return mapNetworks((own, n) => ({ ...own, ...known?.[n] }), ranks);
}

/** The ranks of a module that are zero on both sides: their gradients are zero, too, and they would never learn. */
export const deadRanks = ({ A, B, rank, dIn, dOut }: AdapterModule): readonly number[] =>
  Array.from({ length: rank }, (_, r) => r).filter(
    (r) =>
      B.subarray(r * dOut, (r + 1) * dOut).every((x) => x === 0) &&
      Array.from({ length: dIn }, (_, i) => A[i * rank + r]).every((x) => x === 0),
  );
/** A·diag(inner) and diag over outputs: a module whose pair is scaled by two vectors, as a LoRA. */
export function scaledPair({ rank, fields }: HostModule, inner: string, outer: string): HostModule {
  const { A, B, [inner]: columns, [outer]: outputs } = fields;
  const dOut = outputs!.data.length;
  return {
    rank,
    fields: {
      A: { shape: A!.shape, data: A!.data.map((x, i) => x * columns!.data[i % rank]!) },
      B: { shape: B!.shape, data: B!.data.map((x, i) => x * outputs!.data[i % dOut]!) },
    },
  };
}
/** More ranks than the smaller side of a layer say nothing more. */
export const mostRank = (place: Place): number => Math.min(inputsOf(place), place[0]);
/** d_in + d_out: the parameters of one rank */
export const costOf = (place: Place): number => inputsOf(place) + place[0];
/** Σ r·(d_in + d_out) over both networks */
export const parametersOf = (ranks: Ranks, places: PerNetwork<Places>): number =>
  networks.reduce(
    (n, net) => n + [...places[net]].reduce((m, [path, place]) => m + ranks[net][path]! * costOf(place), 0),
    0,
  );
/** Σ r over both networks */
export const totalRankOf = (ranks: Ranks): number =>
  Object.values(mapNetworks((r) => Object.values(r).reduce((a, b) => a + b, 0), ranks)).reduce((a, b) => a + b, 0);

export const lowRank = {
  leastRank: (): 0 | 1 => 1,
  ranks: ranksAtStart,
  fields: (place: Place, rank: number): Fields => ({
    A: new Field([inputsOf(place), rank], 1),
    B: new Field([rank, place[0]], 0),
  }),
  init: (
    places: Places,
    ranks: { readonly [path: string]: number },
    key: HostKey,
    c: { readonly gainA: number },
  ): { readonly [path: string]: Adapter } =>
    initAdapters(
      key,
      new Map([...places].map(([path, place]) => [path, [place[0], inputsOf(place)] as const])),
      (path) => ranks[path]!,
      { a: c.gainA },
    ),
  attach: (module: AdaptedModule, adapter: Adapter, c: Scaled): object => ({
    ...module,
    adapter: inLayer(module, adapter, c.scale),
  }),
  /** The scale is multiplied into B: what is drawn from this value is drawn from the file too, to the bit. */
  toFile({ rank, fields }: HostModule, place: Place, c: Scaled): AdapterModule | undefined {
    if (rank === 0) return undefined;
    const [A, B] = [fields.A!.data, fields.B!.data];
    return {
      A,
      B: c.scale === 1 ? B : B.map((b) => c.scale * b),
      rank,
      dIn: inputsOf(place),
      dOut: place[0],
      scale: 1,
      ...kernelOf(place),
    };
  },
  fromFile(module: AdapterModule, c: Scaled, fresh: Adapter): Adapter {
    const { A, B, rank, dIn, dOut, scale } = module;
    const dead = new Set(deadRanks(module));
    const columns = tensor(A, [dIn, rank]);
    const fill = () => mul(fresh.A, tensor(Float32Array.from({ length: rank }, (_, r) => (dead.has(r) ? 1 : 0))));
    const factor = scale / c.scale;
    return {
      A: dead.size === 0 ? columns : add(columns, fill()),
      B: tensor(factor === 1 ? B : B.map((b) => b * factor), [rank, dOut]),
    };
  },
} as const;

/** VeRA: two random matrices for all layers, frozen; of each layer only two vectors are trained. */
import { z } from 'zod';
import { full as filled, mul, reshape, type Tensor, tensor, zeros } from '../../core/index.ts';
import { foldKey, type HostKey, kaimingUniform } from '../adapter.ts';
import { inLayer } from '../attach.ts';
import { inputsOf, lowRank, ranksAtStart, scaledPair } from './low-rank.ts';
import { Field, type MethodOf, type Places } from './method.ts';
import { gainA, rank, ranks, scale, told } from './settings.ts';
import { cannotBegin, refuseKnown } from './weights.ts';

const settings = {
  rank,
  ranks,
  scale,
  gainA,
  veraStart: told(z.number().min(-10).max(10).default(0.1), {
    group: 'Model and adapters',
    value: 'd',
    help: 'vera: what the vector d begins with; b begins with zero',
  }),
};
type Vera = { readonly A: Tensor; readonly B: Tensor; readonly d: Tensor; readonly b: Tensor };

/** The upper left [rows, columns] of a matrix with so many columns. */
const corner = (all: Float32Array, of: number, rows: number, columns: number): Tensor =>
  tensor(
    Float32Array.from({ length: rows * columns }, (_, i) => all[Math.floor(i / columns) * of + (i % columns)]!),
    [rows, columns],
  );

/** A[d_in, r] and B[r, d_out] of every place: corners of one pair as large as the largest, Kaiming-uniform. */
function shared(places: Places, ranks: { readonly [path: string]: number }, key: HostKey, gain: number) {
  const most = {
    inputs: Math.max(0, ...[...places.values()].map(inputsOf)),
    outputs: Math.max(0, ...[...places.values()].map(([dOut]) => dOut)),
    rank: Math.max(0, ...Object.values(ranks)),
  };
  const A = kaimingUniform(foldKey(key, 'vera A'), most.inputs, most.inputs * most.rank, { a: gain });
  const B = kaimingUniform(foldKey(key, 'vera B'), most.rank, most.rank * most.outputs, { a: gain });
  return (path: string) => {
    const place = places.get(path)!;
    return {
      A: corner(A, most.rank, inputsOf(place), ranks[path]!),
      B: corner(B, most.outputs, ranks[path]!, place[0]),
    };
  };
}

/**
 * The method `vera`: y = x·W0ᵀ + bias + s·((x·A) ⊙ d)·B ⊙ b. A and B are corners of one random pair of each network and
 * never change; trained are d[r] = 0.1 and b[d_out] = 0. A checkpoint holds each module's corners.
 * Source: Kopiczko et al., VeRA: Vector-based Random Matrix Adaptation (2024), eq. 2; PEFT's `vera` for the sharing.
 */
export const vera: MethodOf<typeof settings, Vera> = {
  name: 'vera',
  doc: 'VeRA: one random pair A, B for all layers, frozen; two vectors of each layer are trained',
  source: 'Kopiczko et al., VeRA: Vector-based Random Matrix Adaptation (2024), eq. 2',
  settings,
  leastRank: () => 1,
  ranks(c, places, known) {
    refuseKnown('vera', known);
    return ranksAtStart(c, places);
  },
  label: (c) => `VeRA r=${c.rank}`,
  facts: (c) => ({ lambda: null, testEvery: null, scale: c.scale, initA: c.gainA }),
  room: (_c, most) => Math.max(1, most),
  fields: (place, rank) => ({
    A: new Field([inputsOf(place), rank], 1, false),
    B: new Field([rank, place[0]], 0, false),
    d: new Field([rank], 0),
    b: new Field([place[0]]),
  }),
  init(places, ranks, key, c) {
    const pair = shared(places, ranks, key, c.gainA);
    return Object.fromEntries(
      [...places].map(([path, [dOut]]) => [
        path,
        { ...pair(path), d: filled([ranks[path]!], c.veraStart), b: zeros([dOut]) },
      ]),
    );
  },
  attach(module, { A, B, d, b }, c) {
    const adapter = { A: mul(A, d), B: mul(B, reshape(b, [1, b.shape[0]!])) };
    return { ...module, adapter: inLayer(module, adapter, c.scale) };
  },
  toFile: (module, place, c) => lowRank.toFile(scaledPair(module, 'd', 'b'), place, c),
  fromFile: cannotBegin('vera'),
};

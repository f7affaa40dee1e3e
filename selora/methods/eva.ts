/** EVA: a LoRA that begins along the directions in which a layer's inputs vary most, ranks where they explain most of them. */
import { EigenvalueDecomposition, Matrix, QrDecomposition } from 'ml-matrix';
import { z } from 'zod';
import { type HostArray, type Tensor, tensor } from '../../core/index.ts';
import type { Look } from '../../nn/index.ts';
import { type Adapter, foldKey, normalNumbers } from '../adapter.ts';
import { inLayer } from '../attach.ts';
import { mapModules, mapNetworks, moduleName, modulesOf, type PerModule, perModule } from '../networks.ts';
import { rankMost } from './fisher-ranks.ts';
import { lora } from './lora.ts';
import { inputsOf, mostRank, ranksAtStart, totalRankOf } from './low-rank.ts';
import { type Decided, Field, type Growth, type MethodOf, type Place, type Ranks } from './method.ts';
import { selora } from './selora.ts';
import { cannotBegin, refuseKnown } from './weights.ts';

const settings = { ...lora.settings, rankMost, fiBatches: selora.settings.fiBatches };
type Eva = z.output<z.ZodObject<typeof settings>>;
/** Q[d_in, q] looks at the inputs. */
type Trial = { readonly Q: Tensor; readonly total: Tensor };
type Seen<T> = { readonly Y: T; readonly total: T };
type P = Adapter & { readonly look?: Trial };

/** passes over the batches before the last */
const ITERATIONS = 3;
const mostOf = (c: Pick<Eva, 'rank' | 'rankMost'>, place: Place): number =>
  Math.min(c.rankMost ?? 2 * c.rank, mostRank(place));
/** directions that are looked for: twice those that are used, so that the last of these is near to true */
const widthOf = (c: Pick<Eva, 'rank' | 'rankMost'>, place: Place): number =>
  Math.min(inputsOf(place), 2 * mostOf(c, place));

/** What a module's inputs X are like: right singular vectors V[d_in, q], the strongest first, and σ²/‖X‖²_F of each. */
export type Variance = { readonly V: Matrix; readonly shares: readonly number[] };
/** From XᵀX·Q for an orthonormal Q[d_in, q] and ‖X‖²_F, by Rayleigh and Ritz: the eigenvectors of QᵀXᵀXQ. */
export function varianceOf(Q: Matrix, Y: Matrix, total: number): Variance {
  const inner = Q.transpose().mmul(Y);
  const { realEigenvalues, eigenvectorMatrix } = new EigenvalueDecomposition(
    Matrix.mul(Matrix.add(inner, inner.transpose()), 0.5),
    { assumeSymmetric: true },
  );
  const order = realEigenvalues.map((value, i) => ({ value, i })).sort((a, b) => b.value - a.value);
  const W = eigenvectorMatrix.subMatrixColumn(order.map(({ i }) => i));
  return { V: Q.mmul(W), shares: order.map(({ value }) => (total > 0 ? Math.max(0, value) / total : 0)) };
}

/** Ranks by module: the directions of the largest shares of all, so many in all, the earlier module first. */
export function ranksByShare(shares: readonly (readonly number[])[], budget: number): readonly number[] {
  const all = shares.flatMap((of, i) => of.map((share) => ({ share, i })));
  const ranks = shares.map(() => 0);
  for (const { i } of all.sort((a, b) => b.share - a.share || a.i - b.i).slice(0, budget)) ranks[i]!++;
  return ranks;
}

const matrix = (data: HostArray, rows: number, columns: number): Matrix =>
  Matrix.from1DArray(rows, columns, Array.from(data));
/** A module's row in the log: `caught` is the share of its inputs' squares along what it was given. */
type Row = Decided & { readonly caught: number };

const growth: Growth<P, Eva, Trial, Seen<Tensor>, Seen<HostArray>, never, Row, { readonly A: Tensor }> = {
  before: () => true,
  due: (_c, step) => step === 1,
  count: () => 1,
  trial: (place, _room, c) => ({
    Q: new Field([inputsOf(place), widthOf(c, place)]),
    total: new Field([]),
  }),
  place: (p, look) => ({ ...p, look }),
  // no update is ever made beside a look
  settle: (g) => g,
  measure: () => ({ scores: ({ look }) => ({ Y: look!.Q, total: look!.total }) }),
  install: (slot, { A }) => ({ ...slot, p: { A, B: slot.p.B } }),
  test(passes, now, c) {
    const places: PerModule<Place> = mapNetworks((all) => Object.fromEntries(all), now.places);
    const measured = (Q: PerModule<Matrix>) =>
      passes.measure(
        mapModules((of: Matrix) => {
          return { Q: tensor(Float32Array.from(of.to1DArray()), [of.rows, of.columns]), total: tensor(0, []) };
        }, Q),
        [0, passes.batches],
      )();
    return async () => {
      let Q = mapModules((place: Place, path, n) => {
        const [dIn, q] = [inputsOf(place), widthOf(c, place)];
        return matrix(normalNumbers(foldKey(now.key, 'eva', n, path), dIn * q), dIn, q);
      }, places);
      const spanned = (of: PerModule<Seen<HostArray>>) =>
        mapModules((q: Matrix, path, n) => matrix(of[n][path]!.Y, q.rows, q.columns), Q);
      for (let k = 0; k < ITERATIONS; k++)
        Q = mapModules((Y: Matrix) => new QrDecomposition(Y).orthogonalMatrix, spanned(await measured(Q)));
      const last = await measured(Q);
      const of = mapModules(
        (Y: Matrix, path, n) => varianceOf(Q[n][path]!, Y, last[n][path]!.total[0]!),
        spanned(last),
      );
      const all = modulesOf(places);
      const shares = all.map(({ n, path }) => of[n][path]!.shares.slice(0, mostOf(c, places[n][path]!)));
      const given = ranksByShare(shares, totalRankOf(now.ranks));
      const ranks = perModule(given, places);
      const decisions = all.map(({ n, path }, i): Row => {
        const caught = shares[i]!.slice(0, given[i]).reduce((a, b) => a + b, 0);
        const expanded = given[i] !== now.ranks[n][path];
        return { module: moduleName(n, path), expanded, rankAfter: given[i]!, caught };
      });
      const install = (room: Ranks) =>
        mapModules((place: Place, path, n) => {
          const [dIn, r, { V }] = [inputsOf(place), room[n][path]!, of[n][path]!];
          const A = new Float32Array(dIn * r);
          for (let i = 0; i < dIn; i++) for (let j = 0; j < ranks[n][path]!; j++) A[i * r + j] = V.get(i, j);
          return { A: tensor(A, [dIn, r]) };
        }, places);
      return { decisions, ranks, memories: {}, install };
    };
  },
  memory: z.never(),
};

/**
 * The method `eva`: LoRA whose A[d_in, r] begins with the right singular vectors of the layer's inputs X of the first batches
 * (--fi-batches), B zero. Of all modules' directions those that explain the largest shares σ²/‖X‖²_F of their inputs are taken,
 * as many as --rank has in all, at most `rankMost` of a module; some modules may get none. The vectors are found by
 * subspace iteration on XᵀX, four passes over the batches; where a layer has few inputs they are exact. The authors' incremental
 * decomposition goes over the batches until the vectors settle.
 * Source: Paischer et al., Parameter Efficient Fine-tuning via Explained Variance Adaptation (NeurIPS 2025), algorithm 1.
 */
export const eva: MethodOf<typeof settings, P, Trial, Seen<Tensor>, Seen<HostArray>> = {
  name: 'eva',
  doc: 'EVA: LoRA begun along the strongest directions of a layer’s inputs, ranks by the variance they explain',
  source:
    'Paischer et al., Parameter Efficient Fine-tuning via Explained Variance Adaptation (NeurIPS 2025), algorithm 1',
  settings,
  problem: (c) =>
    c.method === 'eva' && c.rank < 1 ? { path: 'rank', message: `is ${c.rank}, expected at least 1` } : undefined,
  implied: (given): { fiBatches?: number } => (given.method === 'eva' ? { fiBatches: 4 } : {}),
  leastRank: () => 0,
  ranks(c, places, known) {
    refuseKnown('eva', known);
    return ranksAtStart(c, places);
  },
  label: (c) => `EVA, mean ${c.rank}`,
  facts: lora.facts,
  room: lora.room,
  fields: lora.fields,
  init: lora.init,
  attach(module, { look, ...adapter }, c) {
    const own = { ...module, adapter: inLayer(module, adapter, c.scale) };
    if (!look) return own;
    // Q has the form of A
    const { A } = inLayer(module, { A: look.Q, B: adapter.B }, 1);
    const layer: Look = { Q: A, total: look.total };
    return { ...own, look: layer };
  },
  growth: growth as unknown as Growth<P, Eva, Trial, Seen<Tensor>, Seen<HostArray>, unknown>,
  toFile: lora.toFile,
  fromFile: cannotBegin('eva'),
};

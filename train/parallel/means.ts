/**
 * Passes over the micro-batches of a step by several processes: micro-batch i is the work of process i mod N. Their means
 * come about slice by slice: process r gets slice r of every micro-batch's gradients and scores, folds them in the order of
 * the micro-batches, as one process would, and gives the mean to all. So N processes make the bits that one makes.
 */
import {
  type Backend,
  compile,
  concat,
  leaves,
  read,
  readScalar,
  reshape,
  type Tensor,
  tensor,
  unflatten,
} from '../../core/index.ts';
import type { Params } from '../../selora/methods/method.ts';
import { combine, type Tested } from '../step/gradients.ts';
import type { Spread } from '../step/growth.ts';
import { type Batch, paramsOf, type Steps } from '../step/step.ts';
import type { Peers } from './peers.ts';

const sizeOf = ({ shape }: Tensor): number => shape.reduce((n, side) => n * side, 1);

/** Which of so many are the work of this process, in rounds; one of another where there is none for it. */
export const ownOf = (count: number, { rank, size }: Pick<Peers, 'rank' | 'size'>): readonly number[] =>
  Array.from({ length: Math.ceil(count / size) }, (_, k) => Math.min(k * size + rank, count - 1));

/**
 * A program's passes in place of those of one process.
 * @param peers at least two
 */
export function spread<P extends Params, X, S, H>(
  programs: Steps<P, X, S, H>,
  peers: Peers,
  backend: Backend,
): Spread<P, X, S, H> {
  const flat = compile(
    (t: Tested<P>) => {
      const all = leaves(t as never) as Tensor[];
      return concat(
        all.map((x) => reshape(x, [sizeOf(x)])),
        0,
      );
    },
    { backend, name: 'gradients to send' },
  );
  const fold = compile((x: Tensor, y: Tensor, share: Tensor) => combine({ x }, { x: y }, share).x, {
    backend,
    donate: [0],
    name: 'gradients of all processes',
  });

  /** the running mean over micro-batches, in their order: `combine` of the same shares as in one process */
  async function mean(batches: readonly Batch[], pass: (b: Batch) => Tested<P>): Promise<Tested<P>> {
    const own = ownOf(batches.length, peers).map((i) => pass(batches[i]!));
    const mine: Float32Array[] = [];
    for (const t of own) mine.push((await read(flat(t))) as Float32Array);
    const [like, length] = [own[0]!, mine[0]!.length];
    const slice = Math.ceil(length / peers.size);
    // piece r: slice r of every round
    const send = new Float32Array(peers.size * mine.length * slice);
    for (let r = 0; r < peers.size; r++)
      for (const [k, x] of mine.entries())
        send.set(x.subarray(Math.min(length, r * slice), (r + 1) * slice), (r * mine.length + k) * slice);
    const got = await peers.swap(send);
    let total: Tensor | undefined;
    for (let i = 0; i < batches.length; i++) {
      const at = Math.floor(i / peers.size) * slice;
      const one = tensor(got[i % peers.size]!.slice(at, at + slice), [slice]);
      total = total ? fold(total, one, tensor(1 / (i + 1), [])) : one;
    }
    const slices = await peers.gather((await read(total!)) as Float32Array);
    const all = new Float32Array(peers.size * slice);
    for (const [r, x] of slices.entries()) all.set(x, r * slice);
    let at = 0;
    const parts = (leaves(like as never) as Tensor[]).map((t) => {
      at += sizeOf(t);
      return tensor(all.slice(at - sizeOf(t), at), t.shape);
    });
    return unflatten(like as never, parts) as Tested<P>;
  }

  return {
    async accumulated(s, base, batches, hyper, trials, extra = []) {
      const one = (b: Batch) => (trials ? programs.testedPart(s, base, b, trials) : programs.part(s, base, b));
      const own = await mean(batches, one);
      const share = extra.length / (batches.length + extra.length);
      const beside = extra.length > 0 ? { mean: await mean(extra, one), share } : undefined;
      return programs.updated(s, own, hyper, trials, beside);
    },
    scores: async (s, base, batches, trials) =>
      programs.sumsOf(s, await mean(batches, (b) => programs.testedPart(s, base, b, trials))),
    async each(s, base, batches, trials) {
      const own = ownOf(batches.length, peers).map((i) => programs.scored(s, base, batches[i]!, trials));
      const rows: Float32Array[] = [];
      for (const sums of own) rows.push((await programs.rowOf(sums)) as Float32Array);
      const width = rows[0]!.length;
      const mine = new Float32Array(rows.length * width);
      for (const [k, row] of rows.entries()) mine.set(row, k * width);
      const of = await peers.gather(mine);
      return batches.map((_, i) => {
        const at = Math.floor(i / peers.size) * width;
        return programs.fromRow(own[0]!, of[i % peers.size]!.subarray(at, at + width));
      });
    },
    async trialLoss(s, base, batches, trials) {
      const loss = async (i: number) => [await readScalar(programs.trialPart(paramsOf(s), base, batches[i]!, trials))];
      const each = (
        await inTurns(
          batches.map(() => 1),
          loss,
          peers,
        )
      ).map(([x]) => x!);
      return each.reduce((sum, x) => sum + x, 0) / batches.length;
    },
  };
}

/** Numbers of every item, `widths[i]` of item i, of which each process makes its own. */
export async function inTurns(
  widths: readonly number[],
  make: (i: number) => Promise<ArrayLike<number>>,
  { rank, size, gather }: Pick<Peers, 'rank' | 'size' | 'gather'>,
): Promise<readonly Float32Array[]> {
  const mine: number[] = [];
  for (let i = rank; i < widths.length; i += size) for (const x of Array.from(await make(i))) mine.push(x);
  const of = await gather(Float32Array.from(mine));
  const at = new Array<number>(size).fill(0);
  return widths.map((n, i) => {
    const r = i % size;
    at[r]! += n;
    return of[r]!.slice(at[r]! - n, at[r]);
  });
}

/** One training stage over a full parameter tree: compiled AdamW step with EMA, cosine rate, resumable to the bit. */
import { existsSync } from 'node:fs';
import path from 'node:path';
import { setImmediate as nextTask } from 'node:timers/promises';
import {
  add,
  type Backend,
  compile,
  entries,
  leaves,
  mapTree,
  mul,
  read,
  readScalar,
  type Tensor,
  type Tree,
  tensor,
  unflatten,
  valueAndGrad,
} from '../../core/index.ts';
import { makeFolders, writeFileAtomic } from '../../models/io/atomic.ts';
import { asFileError } from '../../models/io/error.ts';
import { openSafetensors } from '../../models/io/safetensors.ts';
import { writeSafetensors } from '../../models/io/safetensors-write.ts';
import { Interrupted } from '../cli/command.ts';
import { onInterrupt } from '../cli/signals.ts';
import { type AdamOptions, adamUpdate, clipFactor, globalNorm } from '../optimise/optimizer.ts';

export interface StageOptions<P, B> {
  readonly name: string;
  readonly backend: Backend;
  readonly folder: string;
  readonly params: P;
  readonly steps: number;
  /** the mean loss of a batch; `batch` holds tensors only */
  readonly loss: (params: P, batch: B) => Tensor;
  /** the batch of step i: the same every time it is asked for */
  readonly batch: (step: number) => B;
  readonly lr: (step: number) => number;
  readonly adam: AdamOptions;
  readonly clip: number;
  /** decay of the moving average of the weights, 0 for none */
  readonly ema: number;
  readonly saveEverySeconds?: number;
  /** called every `every` steps; true ends the stage */
  readonly probe?: (step: number, averaged: P) => Promise<boolean>;
  readonly every?: number;
}
interface State<P> {
  readonly p: P;
  readonly m: P;
  readonly v: P;
  readonly ema: P;
}

const zerosLike = <P>(tree: P): P =>
  mapTree((t: Tensor) => tensor(new Float32Array(t.shape.reduce((a, b) => a * b, 1)), t.shape), tree);

/** Trains `params` and returns their moving average. Continues from the stage's last saved state if there is one. */
export async function trainStage<P extends Tree<Tensor>, B extends Tree<Tensor>>(o: StageOptions<P, B>): Promise<P> {
  const file = path.join(o.folder, `${o.name}.state.safetensors`);
  const doneFile = path.join(o.folder, `${o.name}.done.json`);
  await makeFolders(o.folder).catch((error) => {
    throw asFileError(error, o.folder);
  });
  let state: State<P> = { p: o.params, m: zerosLike(o.params), v: zerosLike(o.params), ema: await copied(o.params) };
  let start = 0;
  if (existsSync(file)) {
    const saved = await openSafetensors(file);
    start = Number(saved.metadata.get('step'));
    const values = await Promise.all(
      entries<Tensor>(state as unknown as Tree<Tensor>).map(async ([p, t]) => tensor(await saved.float32(p), t.shape)),
    );
    state = unflatten(state, values);
    console.log(`${o.name}: going on from step ${start}`);
  }
  if (existsSync(doneFile)) return state.ema;

  const step = compile(
    (s: State<P>, hyper: { lr: Tensor; age: Tensor }, batch: B) => {
      const [loss, g] = valueAndGrad((p: P) => o.loss(p, batch))(s.p);
      const norm = globalNorm(leaves<Tensor>(g));
      const factor = clipFactor(norm, o.clip);
      const [ms, vs, gs, es] = [s.m, s.v, g, s.ema].map((t) => leaves<Tensor>(t)) as [
        Tensor[],
        Tensor[],
        Tensor[],
        Tensor[],
      ];
      const next = leaves<Tensor>(s.p).map((p, i) => {
        const u = adamUpdate(p, mul(gs[i]!, factor), { m: ms[i]!, v: vs[i]! }, hyper.age, hyper.lr, o.adam);
        return { ...u, ema: add(mul(es[i]!, o.ema), mul(u.p, 1 - o.ema)) };
      });
      const tree = (k: 'p' | 'm' | 'v' | 'ema') =>
        unflatten(
          s.p,
          next.map((u) => u[k]),
        );
      return [{ p: tree('p'), m: tree('m'), v: tree('v'), ema: tree('ema') }, loss, norm] as [State<P>, Tensor, Tensor];
    },
    { backend: o.backend, donate: [0], name: o.name },
  );

  const save = async (at: number) => {
    const tensors = new Map(
      entries<Tensor>(state as unknown as Tree<Tensor>).map(([p, t]) => [
        p,
        { dtype: 'F32' as const, shape: t.shape, data: async () => (await read(t)) as Float32Array },
      ]),
    );
    await writeSafetensors(file, tensors, new Map([['step', String(at)]]));
  };
  const interrupt = onInterrupt();
  try {
    let [saved, shown, ahead] = [performance.now(), performance.now(), start];
    let sum = 0;
    let count = 0;
    let ended = false;
    for (let i = start; i < o.steps && !ended; i++) {
      const [next, loss, norm] = step(state, { lr: tensor(o.lr(i)), age: tensor(i) }, o.batch(i));
      state = next;
      const value = await readScalar(loss);
      // Backends that compute at once would never let a signal in between.
      await nextTask();
      if (!Number.isFinite(value))
        throw new Error(`${o.name}: the loss is ${value} at step ${i + 1}; the last saved state is ${file}`);
      sum += value;
      count++;
      const now = performance.now();
      if (now - shown > 15_000) {
        console.log(
          `${o.name} ${i + 1}/${o.steps}  loss ${(sum / count).toFixed(5)}  |g| ${(await readScalar(norm)).toFixed(3)}  ${(((i + 1 - ahead) * 1000) / (now - shown)).toFixed(2)} steps/s  ${Math.round(process.memoryUsage.rss() / 2 ** 20)} MiB`,
        );
        [shown, ahead, sum, count] = [now, i + 1, 0, 0];
      }
      if (o.probe && (i + 1) % (o.every ?? 200) === 0) ended = await o.probe(i + 1, state.ema);
      if (interrupt.requested || ended || now - saved > (o.saveEverySeconds ?? 60) * 1000) {
        await save(i + 1);
        saved = performance.now();
      }
      if (interrupt.requested)
        throw new Interrupted(`${o.name}: stopped and saved at step ${i + 1}; the same command goes on from there`);
    }
    if (!ended) await save(o.steps);
    await writeFileAtomic(doneFile, `${JSON.stringify({ finished: new Date().toISOString() })}\n`);
    return state.ema;
  } finally {
    interrupt.dispose();
    step.trim();
  }
}

async function copied<P>(tree: P): Promise<P> {
  const values = await Promise.all(
    leaves(tree as unknown as Tree<Tensor>).map(async (t) => tensor((await read(t)).slice(), t.shape)),
  );
  return unflatten(tree, values);
}
/** Linear warm-up, then a cosine down to `floor`·peak. */
export const warmCosine =
  (peak: number, warmup: number, steps: number, floor = 0.03) =>
  (step: number): number => {
    if (step < warmup) return (peak * (step + 1)) / warmup;
    const x = Math.min(1, (step - warmup) / Math.max(1, steps - warmup));
    return peak * (floor + (1 - floor) * 0.5 * (1 + Math.cos(Math.PI * x)));
  };

/** Linear warm-up, then flat, then linearly down to 0 over the last `tail` steps. */
export const warmFlat =
  (peak: number, warmup: number, steps: number, tail: number) =>
  (step: number): number =>
    peak * Math.min(1, (step + 1) / Math.max(1, warmup), (steps - step) / Math.max(1, tail));

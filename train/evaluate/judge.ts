/**
 * A trained judge: a small network that learns from pictures which words stand in their reports. One that has learned from real
 * films reads drawn ones, and one that has learned from drawn ones reads real films.
 */
import { setImmediate } from 'node:timers/promises';
import {
  type Backend,
  compile,
  leaves,
  mapTree,
  mean,
  mul,
  randomOf,
  read,
  reshape,
  silu,
  softplus,
  sub,
  type Tensor,
  tensor,
  unflatten,
  valueAndGrad,
} from '../../core/index.ts';
import { type Conv, conv2d, convSpec, init, type Linear, linear, linearSpec } from '../../nn/index.ts';
import { foldKey, type HostKey } from '../../selora/adapter.ts';
import type { Judged, WordScores } from '../metrics/sets/metric.ts';
import { adamDefaults, adamUpdate } from '../optimise/optimizer.ts';
import { cells } from './features.ts';
import type { Loaded } from './pictures.ts';

/** A picture and its text. */
export interface Told {
  readonly picture: Loaded;
  readonly text: string;
}
/** Fewer told pictures than this in a set teach nothing. */
export const LEAST_TOLD = 8;
/** words asked for at most, and the share of reports that hold one */
const [MOST_WORDS, RARE, COMMON] = [12, 0.1, 0.9];
const wordsIn = (text: string): ReadonlySet<string> => new Set(text.toLowerCase().match(/\p{L}{4,}/gu) ?? []);

/**
 * Words of four letters or more that stand in 10 to 90% of texts, the most even first; of words that always stand together one.
 * @example wordsToAsk(['clear lungs', 'clear lungs', 'left effusion']) // ['clear', 'left']
 */
export function wordsToAsk(texts: readonly string[]): readonly string[] {
  const sets = texts.map(wordsIn);
  const places = new Map<string, string>();
  for (const word of [...new Set(sets.flatMap((s) => [...s]))].sort()) {
    const held = sets.map((s) => (s.has(word) ? '1' : '0')).join('');
    const share = held.replaceAll('0', '').length / texts.length;
    if (share >= RARE && share <= COMMON && ![...places.values()].includes(held)) places.set(word, held);
  }
  const uneven = (held: string) => Math.abs(held.replaceAll('0', '').length / texts.length - 0.5);
  return [...places].sort(([a, p], [b, q]) => uneven(p) - uneven(q) || a.localeCompare(b)).slice(0, MOST_WORDS).map(([word]) => word); // biome-ignore format: one line
}

/** side of what it sees, pictures of one update, updates */
const [SIDE, BATCH, STEPS, RATE] = [32, 16, 400, 3e-3];
type Net<T> = { readonly one: Conv<T>; readonly two: Conv<T>; readonly three: Conv<T>; readonly out: Linear<T> };
const specOf = (words: number) => ({
  one: convSpec(1, 12, 3),
  two: convSpec(12, 24, 3),
  three: convSpec(24, 32, 3),
  out: linearSpec((SIDE / 8) ** 2 * 32, words),
});
/** x[n, 32, 32, 1] → a number a word [n, words] */
function forward(p: Net<Tensor>, x: Tensor): Tensor {
  const a = silu(conv2d(p.one, x, { stride: 2 }));
  const b = silu(conv2d(p.two, a, { stride: 2 }));
  const c = silu(conv2d(p.three, b, { stride: 2 }));
  return linear(p.out, reshape(c, [x.shape[0]!, (SIDE / 8) ** 2 * 32]));
}
/** Cross-entropy of logits z and words y in 0 and 1: mean ln(1 + eᶻ) − y·z. */
const loss = (p: Net<Tensor>, x: Tensor, y: Tensor): Tensor => {
  const z = forward(p, x);
  return mean(sub(softplus(z), mul(y, z)));
};

type Learning = { readonly p: Net<Tensor>; readonly m: Net<Tensor>; readonly v: Net<Tensor> };
function update({ p, m, v }: Learning, age: Tensor, x: Tensor, y: Tensor): Learning {
  const [, g] = valueAndGrad(loss)(p, x, y);
  const [gs, ms, vs] = [leaves<Tensor>(g), leaves<Tensor>(m), leaves<Tensor>(v)];
  const next = leaves<Tensor>(p).map((w, i) =>
    adamUpdate(w, gs[i]!, { m: ms[i]!, v: vs[i]! }, age, tensor(RATE), adamDefaults),
  );
  const tree = (part: 'p' | 'm' | 'v') => unflatten(p as never, next.map((n) => n[part])) as unknown as Net<Tensor>; // biome-ignore format: one line
  return { p: tree('p'), m: tree('m'), v: tree('v') };
}

/** 32×32 means of grey, mean 0 and deviation 1: brightness and contrast of a set are no sign. */
function seen(picture: Loaded): Float32Array {
  const grey = cells(picture, SIDE);
  const average = grey.reduce((a, b) => a + b, 0) / grey.length;
  const deviation = Math.sqrt(grey.reduce((a, b) => a + (b - average) ** 2, 0) / grey.length) || 1;
  return grey.map((x) => (x - average) / deviation);
}

/**
 * Both kinds of judge for two sets. The same key gives the same answers. Cost: three trainings of 400 updates of 16 pictures of
 * 32×32, seconds.
 */
export async function judges(
  real: readonly Told[],
  fake: readonly Told[],
  {
    backend,
    key,
    say,
    signal,
  }: {
    readonly backend: Backend;
    readonly key: HostKey;
    readonly say: (line: string) => void;
    readonly signal?: AbortSignal;
  },
): Promise<Judged> {
  const words = wordsToAsk(real.map((r) => r.text));
  const truthOf = (set: readonly Told[]) =>
    set.map(({ text }) => {
      const held = wordsIn(text);
      return words.map((word) => held.has(word));
    });
  const prepared = (set: readonly Told[]) => ({ x: set.map((t) => seen(t.picture)), y: truthOf(set) });
  const [learn, test] = [0, 1].map((odd) => prepared(real.filter((_, i) => i % 2 === odd)));
  const drawn = prepared(fake);
  const learned = { real: learn!.x.length, fake: drawn.x.length, few: Math.min(learn!.x.length, drawn.x.length) };
  const truth = { real: test!.y, fake: drawn.y };
  // nothing to ask
  if (words.length === 0) return { words, ofReal: { real: [], fake: [] }, ofFake: [], ofFewReal: [], truth, learned };
  const step = compile(update, { backend, name: 'judge' });
  const score = compile(forward, { backend, name: 'judge reads' });
  const batch = (set: typeof drawn, at: readonly number[]) => {
    const x = new Float32Array(BATCH * SIDE * SIDE);
    const y = new Float32Array(BATCH * words.length);
    for (const [k, i] of at.entries()) {
      x.set(set.x[i]!, k * SIDE * SIDE);
      y.set(set.y[i]!.map(Number), k * words.length);
    }
    return [tensor(x, [BATCH, SIDE, SIDE, 1]), tensor(y, [BATCH, words.length])] as const;
  };
  const train = async (set: typeof drawn, name: string): Promise<Net<Tensor>> => {
    const random = randomOf(foldKey(key, 'judge', name));
    const p = init(specOf(words.length), random.int(2 ** 31)) as unknown as Net<Tensor>;
    const none = () =>
      mapTree(
        (w: Tensor) => tensor(new Float32Array(w.shape.reduce((n, side) => n * side, 1)), w.shape),
        p,
      ) as Net<Tensor>;
    let state: Learning = { p, m: none(), v: none() };
    let order: number[] = [];
    for (let k = 0; k < STEPS; k++) {
      // nothing here waits for the backend, and Ctrl-C is only heard between turns of the loop
      if (k % 20 === 0) await setImmediate();
      signal?.throwIfAborted();
      while (order.length < BATCH) order = [...order, ...random.shuffle(set.x.map((_, i) => i))];
      state = step(state, tensor(k), ...batch(set, order.splice(0, BATCH)));
    }
    say(`a judge has learned from ${set.x.length} ${name}`);
    return state.p;
  };
  const scores = async (p: Net<Tensor>, set: typeof drawn): Promise<WordScores> => {
    const out: number[][] = [];
    for (let from = 0; from < set.x.length; from += BATCH) {
      const at = Array.from({ length: Math.min(BATCH, set.x.length - from) }, (_, k) => from + k);
      const all = (await read(score(p, batch(set, at)[0]))) as Float32Array;
      for (const [k] of at.entries()) out.push([...all.subarray(k * words.length, (k + 1) * words.length)]);
    }
    return out;
  };
  const few = { x: learn!.x.slice(0, drawn.x.length), y: learn!.y.slice(0, drawn.x.length) };
  const [ofReal, ofFake, ofFew] = [
    await train(learn!, 'real pictures'),
    await train(drawn, 'fakes'),
    await train(few, 'as many real pictures'),
  ];
  return {
    words,
    ofReal: { real: await scores(ofReal, test!), fake: await scores(ofReal, drawn) },
    ofFake: await scores(ofFake, test!),
    ofFewReal: await scores(ofFew, test!),
    truth,
    learned,
  };
}

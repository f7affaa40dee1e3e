/** The host's side of a run: ranks and capacity, candidates, decisions, growth, and the way to a checkpoint and back. */
import { describe, expect, test } from 'vitest';
import { cpuBackend, evaluate, read, tensor } from '../../../core/index.ts';
import { type Adapter, kaimingUniform } from '../../../selora/adapter.ts';
import { type Scores, scoresOf } from '../../../selora/fisher.ts';
import { conclude, type Drawn, drawCandidates, judge } from '../../../selora/growth.ts';
import { lora } from '../../../selora/methods/lora.ts';
import { totalRankOf } from '../../../selora/methods/low-rank.ts';
import type { Settings } from '../../../selora/methods/method.ts';
import { selora } from '../../../selora/methods/selora.ts';
import { resolveConfig } from '../../../train/config/resolve.ts';
import type { ModelPlaces } from '../../../train/model/pipeline.ts';
import { bestFrom, bestTensors, ranksSchema, stateFrom, stateTensors, unpadded } from '../../../train/run/tensors.ts';
import { capacityFor, padState, startState } from '../../../train/step/ranks.ts';
import { mapModules, networks, type PerModule, type Ranks, type Slot, type State } from '../../../train/step/step.ts';
import { nowOf, steps } from '../../support/step-fixture.ts';

const cpu = cpuBackend();
const config = resolveConfig({ data: 'x', seed: 9 });
const linears: ModelPlaces = {
  unet: new Map([
    ['mid.to_q', [6, 4]],
    ['mid.to_k', [6, 4]],
  ]),
  text: new Map([['mid.to_q', [3, 5]]]),
};
const ranksOf = (a: number, b: number, c: number): Ranks => ({
  unet: { 'mid.to_q': a, 'mid.to_k': b },
  text: { 'mid.to_q': c },
});
const programs = steps(cpu);
const chosen = { method: selora, settings: config };
const begin = (more: Settings = {}) =>
  startState({ method: selora, settings: { ...config, ...more }, seed: config.seed }, linears, cpu);
const beginLora = (more: Settings = {}) =>
  startState({ method: lora, settings: { ...config, ...more }, seed: config.seed }, linears, cpu);

describe('capacity', () => {
  test('SeLoRA always has a free rank for the candidate, in fours; LoRA has none to spare', () => {
    for (let most = 1; most < 40; most++) {
      const c = capacityFor(ranksOf(1, most, most), chosen).unet['mid.to_q']!;
      expect(c).toBeGreaterThan(most);
      expect(c % 4).toBe(0);
      expect(c - most).toBeLessThanOrEqual(4);
      // alike in a network
      expect(capacityFor(ranksOf(1, most, most), chosen)).toEqual(ranksOf(c, c, c));
      expect(capacityFor(ranksOf(1, most, 2), { method: lora, settings: config })).toEqual(ranksOf(1, most, 2));
    }
  });

  test('with criterion gain each module has the room its own ranks need, none without a rank', () => {
    const gain = { method: selora, settings: { ...config, criterion: 'gain' } };
    expect(capacityFor(ranksOf(0, 1, 2), gain)).toEqual(ranksOf(0, 1, 2));
    expect(capacityFor(ranksOf(3, 5, 16), gain)).toEqual(ranksOf(4, 8, 16));
  });
});

describe('the start', () => {
  test('every linear at the given rank, moments zero, age 0; the networks draw apart', async () => {
    const { state, ranks } = begin({ rank: 2 });
    expect(ranks).toEqual(ranksOf(2, 2, 2));
    expect(totalRankOf(ranks)).toBe(6);
    for (const n of networks)
      for (const [path, [dOut, dIn]] of linears[n]) {
        const s = state[n][path]!;
        expect([s.p.A.shape, s.p.B.shape, s.age.shape]).toEqual([[dIn, 4], [4, dOut], [4]]);
        for (const t of [s.p.B, s.m.A, s.v.A, s.m.B, s.v.B, s.age])
          expect((await read(t)).every((v) => v === 0)).toBe(true);
        const A = Array.from(await read(s.p.A));
        expect(A.every((v, i) => (v === 0) === i % 4 >= 2)).toBe(true);
      }
    const again = begin({ rank: 2 }).state;
    expect(await read(again.unet['mid.to_q']!.p.A)).toEqual(await read(state.unet['mid.to_q']!.p.A));
  });
  test('ranks by hand: the last pattern that matches counts, the others have --rank', () => {
    const c = { rank: 3, ranks: '**.to_q=2, unet.**.to_q=5' };
    const { state, ranks } = begin(c);
    expect(ranks).toEqual({ unet: { 'mid.to_q': 5, 'mid.to_k': 3 }, text: { 'mid.to_q': 2 } });
    expect([state.unet['mid.to_q']!.p.A.shape[1], state.text['mid.to_q']!.p.A.shape[1]]).toEqual([8, 4]);
    const fixed = beginLora(c);
    expect(fixed.state.unet['mid.to_k']!.p.A.shape[1]).toBe(fixed.ranks.unet['mid.to_k']);
    for (const [ranks, message] of [
      ['**.to_v=2', '--ranks **.to_v=2: matches none of the adapted linears, such as mid.to_q'],
      ['**.to_q', '--ranks **.to_q: expected pattern=rank with a rank from 1 to 1024'],
      ['**.to_q=0', '--ranks **.to_q=0: expected pattern=rank'],
      ['text.**.to_k=4', '--ranks text.**.to_k=4: matches none'],
    ] as const)
      expect(() => begin({ ranks })).toThrow(message);
  });
  test('LoRA takes the same path: the same columns, no free rank', async () => {
    const fixed = beginLora({ rank: 2 }).state;
    const growing = begin({ rank: 2 });
    const plain = await unpadded(chosen, growing.state, growing.ranks);
    for (const n of networks)
      for (const [path, a] of plain[n]) expect(await read(fixed[n][path]!.p.A)).toEqual(a.fields.A!.data);
  });
});

describe('candidates', () => {
  const { state, ranks } = begin();
  const draw = (step: number, seed = 9) => drawCandidates(config, nowOf(linears, ranks, step, seed));
  test('one for every module, in the rank after its last, drawn from the key that is logged', async () => {
    const { candidates, keys } = draw(40);
    for (const n of networks)
      for (const [path, c] of Object.entries(candidates[n])) {
        expect(Array.from(await read(c.slot))).toEqual([0, 1, 0, 0]);
        const text = keys[n][path]!;
        const words = [text.slice(0, 8), text.slice(8)].map((w) => Number.parseInt(w, 16)) as [number, number];
        const dIn = linears[n].get(path)![1];
        expect(Array.from(await read(c.K))).toEqual(Array.from(kaimingUniform(words, dIn, dIn, { a: 0 })));
      }
    const all = [...Object.values(keys.unet), ...Object.values(keys.text)];
    expect(new Set(all).size).toBe(3);
  });
  test('drawn afresh at every test and for every seed, never the columns of the start', async () => {
    const of = async (step: number, seed?: number) =>
      Array.from(await read(draw(step, seed).candidates.unet['mid.to_q']!.K));
    const first = await of(40);
    expect(await of(40)).toEqual(first);
    expect(await of(80)).not.toEqual(first);
    expect(await of(40, 10)).not.toEqual(first);
    const A = Array.from(await read(state.unet['mid.to_q']!.p.A));
    expect(first).not.toEqual([0, 1, 2, 3].map((i) => A[i * 4]));
  });
});

describe('growing', () => {
  const sums = (unetQ: number, unetK: number, text: number) => {
    const of = (fiNew: number) => scoresOf(Float32Array.of(0.5, 0, 0, 0), Float32Array.of(0.5, fiNew, 0, 0), 1);
    return { unet: { 'mid.to_q': of(unetQ), 'mid.to_k': of(unetK) }, text: { 'mid.to_q': of(text) } };
  };
  const start = begin();
  const now = nowOf(linears, start.ranks, 40);
  const drawn = drawCandidates(config, now);
  /** what a test that measured these scores leaves of a state */
  const grow = (state: State<Adapter>, ranks: Ranks, s: PerModule<Scores>, { candidates, keys }: Drawn) => {
    const outcome = conclude(config, { ranks, memories: {} }, s, keys, candidates);
    const room = mapModules(({ p }) => p.A.shape[1]!, state);
    return { ...outcome, state: outcome.install ? programs.install(state, outcome.install(room)) : state };
  };

  test('decisions carry names, scores and keys; one budget for both networks', async () => {
    const decisions = judge(config, sums(0.05, 0.5, 1), start.ranks, drawn.keys);
    expect(decisions.map((d) => [d.module, d.ratio, d.expanded, d.rankAfter])).toEqual([
      ['unet.mid.to_q', 1 + Math.fround(0.05), false, 1],
      ['unet.mid.to_k', 1.5, true, 2],
      ['text_encoder.mid.to_q', 2, true, 2],
    ]);
    expect(decisions.map((d) => d.key)).toEqual([
      drawn.keys.unet['mid.to_q'],
      drawn.keys.unet['mid.to_k'],
      drawn.keys.text['mid.to_q'],
    ]);
    const tight = judge({ ...config, budget: 4 }, sums(0.5, 0.5, 1), start.ranks, drawn.keys);
    expect(tight.filter((d) => d.expanded).map((d) => d.module)).toEqual(['text_encoder.mid.to_q']);
    expect(() => judge(config, sums(0, Number.NaN, 0), start.ranks, drawn.keys)).toThrow(
      /^unet\.mid\.to_k: Fisher score is not finite/,
    );
  });

  /** installing takes a state over, so every test needs its own */
  const fresh = () => begin().state;

  test('accepted modules get their column, the others nothing', async () => {
    const state = fresh();
    const before = await unpadded(chosen, state, start.ranks);
    const next = grow(state, start.ranks, sums(0.05, 0.5, 1), drawn);
    expect(next.ranks).toEqual(ranksOf(1, 2, 2));
    expect(capacityFor(next.ranks, chosen)).toEqual(now.room);
    const after = await unpadded(chosen, next.state, next.ranks);
    for (const n of networks)
      for (const [path, a] of after[n]) {
        const was = before[n].get(path)!;
        const K = Array.from(await read(drawn.candidates[n][path]!.K));
        const old = Array.from(was.fields.A!.data);
        const A = Array.from(a.fields.A!.data);
        if (next.ranks[n][path] === 1) expect(A).toEqual(old);
        else expect(A).toEqual(old.flatMap((v, i) => [v, K[i]!]));
      }
  });

  test('no decision, no work: nothing to install, the very same ranks', () => {
    const outcome = conclude(config, { ranks: start.ranks, memories: {} }, sums(0, 0, 0), drawn.keys, drawn.candidates);
    expect(outcome.install).toBeUndefined();
    expect(outcome.ranks).toBe(start.ranks);
  });

  test('when the last free rank is taken the state gets room, and only that network', async () => {
    let state = fresh();
    let ranks = start.ranks;
    const padded: boolean[] = [];
    for (let k = 1; k <= 5; k++) {
      const d = drawCandidates(config, nowOf(linears, ranks, 40 * k));
      const one = (path: string, n: string) =>
        n === 'text' || path === 'mid.to_k' ? 0 : ranks.unet['mid.to_q']! < 9 ? 1 : 0;
      const s = mapModules((r: number, path, n) => {
        const c = state[n][path]!.p.A.shape[1]!;
        const b = new Float32Array(c);
        b.fill(1, 0, r);
        b[r] = one(path, n);
        return scoresOf(new Float32Array(c), b, r);
      }, ranks);
      const before = capacityFor(ranks, chosen);
      const next = grow(state, ranks, s, d);
      const room = capacityFor(next.ranks, chosen);
      padded.push(
        room.unet['mid.to_q']! > before.unet['mid.to_q']! || room.text['mid.to_q']! > before.text['mid.to_q']!,
      );
      state = padState(chosen, next.state, room, cpu);
      ranks = next.ranks;
      for (const n of networks)
        for (const [path, slot] of Object.entries(state[n]))
          expect(slot.p.A.shape[1]!, `${n} ${path}`).toBeGreaterThan(ranks[n][path]!);
    }
    expect(ranks).toEqual(ranksOf(6, 1, 1));
    expect(padded).toEqual([false, false, true, false, false]);
    expect([state.unet['mid.to_k']!.p.A.shape[1], state.text['mid.to_q']!.p.A.shape[1]]).toEqual([8, 4]);
    // every column of the grown module is alive
    const A = (await unpadded(chosen, state, ranks)).unet.get('mid.to_q')!.fields.A!.data;
    for (let r = 0; r < 6; r++) expect(A.filter((_, i) => i % 6 === r).every((v) => v !== 0)).toBe(true);
  });
});

describe('checkpoints', () => {
  test('state → tensors → state is the identity, to the bit', async () => {
    const { state } = begin({ rank: 3 });
    const noisy = evaluate(
      mapModules(
        (s: Slot<Adapter>): Slot<Adapter> => ({
          ...s,
          m: { ...s.m, A: tensor(Float32Array.from({ length: s.p.A.shape[0]! * 4 }, Math.sin), s.p.A.shape) },
        }),
        state,
      ),
      cpu,
    );
    const tensors = await stateTensors(noisy);
    expect(tensors.size).toBe(3 * 7);
    expect([...tensors.keys()][0]).toBe('unet|mid.to_q|A');
    const back = await stateTensors(stateFrom(chosen, tensors, ranksOf(3, 3, 3), linears));
    expect([...back].map(([name, t]) => [name, t.shape, Array.from(t.data)])).toEqual(
      [...tensors].map(([name, t]) => [name, t.shape, Array.from(t.data)]),
    );
  });
  test('a module the checkpoint does not have, or has otherwise, is named', async () => {
    const { state, ranks } = begin();
    const tensors = await stateTensors(state);
    const more: ModelPlaces = { ...linears, text: new Map([...linears.text, ['new.fc1', [2, 2]]]) };
    expect(() => stateFrom(chosen, tensors, ranks, more)).toThrow(
      'the checkpoint has no age of text.new.fc1: was --targets changed?',
    );
    const wider: ModelPlaces = { ...linears, text: new Map([['mid.to_q', [3, 6]]]) };
    expect(() => stateFrom(chosen, tensors, ranks, wider)).toThrow(
      'the checkpoint has another shape [5, 4] of A of text.mid.to_q: was --targets changed?',
    );
    for (const wrong of [ranksOf(1, 5, 1), ranksOf(1, 0, 1), { ...ranks, unet: { 'mid.to_q': 1 } }])
      expect(() => stateFrom(chosen, tensors, wrong, linears)).toThrow('the checkpoint has no rank of unet.mid.to_k');
    const broken = new Map([...tensors].filter(([name]) => name !== 'unet|mid.to_k|vB'));
    expect(() => stateFrom(chosen, broken, ranks, linears)).toThrow('the checkpoint has no vB of unet.mid.to_k');
    expect(ranksSchema.safeParse({ unet: { a: 1.5 }, text: {} }).success).toBe(false);
    expect(ranksSchema.safeParse(ranks).success).toBe(true);
  });
  test('unpadded adapters hold the trained ranks only', async () => {
    const { state, ranks } = begin({ rank: 3 });
    const plain = await unpadded(chosen, state, ranks);
    for (const n of networks)
      for (const [path, a] of plain[n]) {
        const [dOut, dIn] = linears[n].get(path)!;
        const { A, B } = a.fields;
        expect([a.rank, A!.shape, B!.shape, A!.data.length, B!.data.length]).toEqual([
          3,
          [dIn, 3],
          [3, dOut],
          3 * dIn,
          3 * dOut,
        ]);
        expect(A!.data.every((v) => v !== 0)).toBe(true);
      }
  });
  test('the best adapters lie beside the state: to the bit and back, with ranks of their own', async () => {
    const { state, ranks } = begin({ rank: 2 });
    const best = await unpadded(chosen, state, ranksOf(1, 2, 1));
    const all = new Map([...(await stateTensors(state)), ...bestTensors(best)]);
    expect(all.size).toBe(3 * 7 + 3 * 2);
    expect(bestFrom(chosen, all, linears)).toEqual(best);
    const back = await stateTensors(stateFrom(chosen, all, ranks, linears));
    expect(back).toEqual(await stateTensors(state));
    const broken = new Map([...all].filter(([name]) => name !== 'best|text|mid.to_q|B'));
    expect(() => bestFrom(chosen, broken, linears)).toThrow('the checkpoint has no best weights of text.mid.to_q');
    const odd = new Map([...all, ['best|unet|mid.to_q|B', { shape: [2, 6], data: new Float32Array(12) }]] as const);
    expect(() => bestFrom(chosen, odd, linears)).toThrow('the checkpoint has no best weights of unet.mid.to_q');
  });
});

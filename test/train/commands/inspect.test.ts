/** `inspect` on adapters and runs: numbers against independent ones, anything broken in one line. */
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { type AdapterFile, type AdapterModule, deltaWeight } from '../../../models/io/adapter-file.ts';
import { RUN_KEY } from '../../../models/io/adapter-run.ts';
import { frobenius, sizeOfAdapter } from '../../../models/io/adapter-size.ts';
import { type AdapterForm, writeAdapter } from '../../../models/io/adapter-write.ts';
import { openBase } from '../../../models/io/base.ts';
import { bars, histogram, table } from '../../../train/cli/columns.ts';
import { main } from '../../../train/inspect.ts';
import { runCommand, writeCalmBase } from '../../support/commands.ts';

vi.setConfig({ testTimeout: 120_000, hookTimeout: 60_000 });

const UNET = 'unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q';
const TEXT = 'text_encoder.text_model.encoder.layers.0.mlp.fc1';

let scratch: string;
const at = (...names: readonly string[]) => path.join(scratch, ...names);
const inspect = (...args: readonly string[]) => runCommand(main, args);
beforeAll(async () => {
  scratch = mkdtempSync(path.join(tmpdir(), 'selora-inspect-'));
  await writeCalmBase(at('base'));
});
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

const moduleOf = (rank: number, dIn: number, dOut: number, scale = 1, seed = 0): AdapterModule => ({
  A: Float32Array.from({ length: dIn * rank }, (_, i) => Math.sin(seed + 3.1 * i)),
  B: Float32Array.from({ length: rank * dOut }, (_, i) => Math.cos(seed + 5.3 * i)),
  rank,
  dIn,
  dOut,
  scale,
});

/** Two modules that fit the tiny base, of rank 3 and 1. */
async function adapter(metadata = new Map<string, string>()): Promise<AdapterFile> {
  const { parts } = await openBase(at('base'));
  const size = (part: 'unet' | 'text_encoder', name: string) =>
    parts[part].get(`${name.replace(`${part}.`, '')}.weight`).shape;
  const [[uo, ui], [to, ti]] = [size('unet', UNET), size('text_encoder', TEXT)];
  return {
    modules: new Map([
      [UNET, moduleOf(3, ui, uo)],
      [TEXT, moduleOf(1, ti, to, 1, 7)],
    ]),
    metadata,
  };
}

describe('the size of an adapter', () => {
  it('is the norm of the dense ΔW, whatever the shape', () => {
    const side = fc.integer({ min: 1, max: 9 });
    fc.assert(
      fc.property(
        side,
        side,
        fc.integer({ min: 1, max: 24 }),
        fc.double({ min: -3, max: 3, noNaN: true }),
        (dIn, dOut, rank, scale) => {
          const m = moduleOf(rank, dIn, dOut, scale, rank);
          const want = frobenius(deltaWeight(m));
          expect(Math.abs(sizeOfAdapter(m).norm - want)).toBeLessThanOrEqual(1e-6 * (want + 1e-6));
        },
      ),
    );
  });

  it('counts used ranks by singular values: σ = 3, 4 → (9 + 16)²/(81 + 256)', () => {
    // A = columns e0, e1; B = rows 3·e0, 4·e1: ΔW = diag(3, 4)
    const m = { A: Float32Array.of(1, 0, 0, 1), B: Float32Array.of(3, 0, 0, 4), rank: 2, dIn: 2, dOut: 2, scale: 2 };
    expect(sizeOfAdapter(m).norm).toBeCloseTo(10, 12);
    expect(sizeOfAdapter(m).usedRanks).toBeCloseTo(625 / 337, 12);
    const same = { ...m, A: Float32Array.of(1, 1, 0, 0), B: Float32Array.of(1, 0, 1, 0) };
    expect(sizeOfAdapter(same)).toEqual({ norm: 4, usedRanks: 1 });
    expect(sizeOfAdapter({ ...m, B: new Float32Array(4) })).toEqual({ norm: 0, usedRanks: 0 });
  });

  it('needs no memory for a rank far above both sides', () => {
    const rank = 50_000;
    const m = { A: new Float32Array(rank).fill(1), B: new Float32Array(rank).fill(1), rank, dIn: 1, dOut: 1, scale: 1 };
    expect(sizeOfAdapter(m).norm).toBe(rank);
  });
});

describe('an adapter', () => {
  it.each<[AdapterForm, string]>([
    ['diffusers', 'd.safetensors'],
    ['kohya', 'k.safetensors'],
    ['peft', 'p'],
  ])('in the %s form: ranks, parameters, ‖ΔW‖/‖W‖ and maps', async (form, name) => {
    const file = await adapter();
    await writeAdapter(at(name), file, form);
    const { code, stdout, stderr } = await inspect(at(name), '--base', at('base'));
    expect([code, stderr]).toEqual([0, '']);
    expect(stdout).toMatch(/modules +2: 1 U-Net, 1 text encoder/);
    expect(stdout).toMatch(/rank +total 4, mean 2\.00, 1 … 3/);
    const parameters = [...file.modules.values()].reduce((n, m) => n + m.rank * (m.dIn + m.dOut), 0);
    expect(stdout).toMatch(new RegExp(`parameters +${parameters}\n`));
    const { parts } = await openBase(at('base'));
    for (const [key, m] of file.modules) {
      const part = key.startsWith('unet') ? 'unet' : 'text_encoder';
      const weight = await parts[part].get(`${key.slice(part.length + 1)}.weight`).read();
      const ratio = frobenius(deltaWeight(m)) / frobenius(weight);
      const line = stdout.split('\n').find((l) => l.trim().startsWith(`${key} `))!;
      const [shown] = line.trim().split(/ {2,}/).slice(6);
      expect(Number(shown)).toBeCloseTo(ratio, 1);
      expect(line).toMatch(new RegExp(`${key} +${m.rank} `));
    }
    // the map of figure 4: row attn1 q, column d00
    expect(stdout).toMatch(/^ +d00$/m);
    expect(stdout).toMatch(/^attn1 q +3$/m);
  });

  it('draws its maps as SVG with --svg', async () => {
    await writeAdapter(at('svg.safetensors'), await adapter());
    expect(await inspect(at('svg.safetensors'), '--base', at('base'), '--svg', at('maps'))).toMatchObject({ code: 0 });
    const names = ['change-text-encoder.svg', 'change-unet.svg', 'rank-text-encoder.svg', 'rank-unet.svg'];
    expect(readdirSync(at('maps')).sort()).toEqual(names);
    for (const name of names) expect(readFileSync(at('maps', name), 'utf8')).toMatch(/^<svg xmlns=/);
    expect(readFileSync(at('maps', 'rank-unet.svg'), 'utf8')).toContain(UNET);
  });

  it('says how it was made, and that the base is another one', async () => {
    const facts = {
      format: 'selora/1',
      method: 'selora',
      lambda: 1.25,
      testEvery: 30,
      scale: 1,
      initA: 0,
      steps: 120,
      baseHash: 'a'.repeat(64),
      rankHistory: [
        { step: 29, module: UNET, rank: 2, ratio: 1.5 },
        { step: 119, module: UNET, rank: 3, ratio: 4 },
      ],
    };
    await writeAdapter(at('run.safetensors'), await adapter(new Map([[RUN_KEY, JSON.stringify(facts)]])));
    const { stdout } = await inspect(at('run.safetensors'), '--base', at('base'));
    expect(stdout).toContain('selora, 120 steps, s = 1, Kaiming a = 0');
    expect(stdout).toContain('ratio > 1.25 every 30 steps');
    expect(stdout).toContain('expansions 2, FI ratio 1.5 … 4');
    expect(stdout).toContain('trained on another base');
    const same = { ...facts, baseHash: await (await openBase(at('base'))).hash() };
    await writeAdapter(at('same.safetensors'), await adapter(new Map([[RUN_KEY, JSON.stringify(same)]])));
    expect((await inspect(at('same.safetensors'), '--base', at('base'))).stdout).not.toContain('another base');
  });

  it('that does not fit its base is one line', async () => {
    const { modules } = await adapter();
    await writeAdapter(at('bad.safetensors'), {
      modules: new Map([
        [UNET, moduleOf(1, 99, 4)],
        ['unet.gone', modules.get(UNET)!],
      ]),
      metadata: new Map(),
    });
    expect(await inspect(at('bad.safetensors'))).toMatchObject({ code: 0 });
    const { code, stderr } = await inspect(at('bad.safetensors'), '--base', at('base'));
    expect(code).toBe(1);
    expect(stderr).toMatch(
      /bad\.safetensors: modules: 1 not in the base model: unet\.gone; 1 of another size: .*99 → 4.*\n$/,
    );
  });
});

describe('a run folder', () => {
  it('shows progress, best validation and the adapter; a half-written last line is no error', async () => {
    mkdirSync(at('run'));
    writeFileSync(at('run', 'config.json'), JSON.stringify({ method: 'selora', lr: 0.003, epochs: null }));
    const rows = [
      { step: 1, loss: 0.5, seconds: 1 },
      { step: 2, loss: 0.4, validation: { loss: 0.31, shuffled: 0.4 }, totalRank: 4 },
      { step: 3, loss: 0.45, validation: { loss: 0.36, shuffled: 0.4 }, seconds: 65 },
    ];
    const lines = rows.map((row) => `${JSON.stringify(row)}\n`).join('');
    writeFileSync(at('run', 'metrics.jsonl'), `${lines}{"step": 4, "lo`);
    const early = await inspect(at('run'));
    expect([early.code, early.stderr]).toEqual([0, '']);
    expect(early.stdout).toMatch(/steps +3 in 1 min 05 s/);
    expect(early.stdout).toMatch(/validation +best 0\.31 after step 2, of 2/);
    expect(early.stdout).toMatch(/settings +method selora, lr 0\.003\n/);
    expect(early.stdout).toContain('no adapter yet');
    await writeAdapter(at('run', 'adapter.safetensors'), await adapter());
    expect((await inspect(at('run'))).stdout).toMatch(/attn1 q +3\n/);
    writeFileSync(at('run', 'metrics.jsonl'), '{"step": 1}\n{"step": "two"}\n');
    expect((await inspect(at('run'))).stderr).toMatch(/metrics\.jsonl: line 2\.step: .*\n$/);
  });

  it('whose base has become another one, of other sizes, is shown with its adapter alone', async () => {
    mkdirSync(at('old'));
    writeFileSync(at('old', 'config.json'), JSON.stringify({ method: 'lora', base: at('base') }));
    writeFileSync(at('old', 'metrics.jsonl'), '{"step": 1, "loss": 0.5}\n');
    const sizes = { lambda: 1.1, testEvery: 30, scale: 1, initA: 0, steps: 3, rankHistory: [] };
    const file = { format: 'selora/1', method: 'selora', ...sizes, baseHash: 'a'.repeat(64) };
    const metadata = new Map([[RUN_KEY, JSON.stringify(file)]]);
    await writeAdapter(at('old', 'adapter.safetensors'), {
      modules: new Map([[UNET, moduleOf(2, 99, 4)]]),
      metadata,
    });
    const { code, stdout, stderr } = await inspect(at('old'));
    expect([code, stderr]).toEqual([0, '']);
    expect(stdout).toContain('trained on another base than what lies in');
    expect(stdout).toMatch(/attn1\.to_q +2 .*99 → 4/);
    expect(stdout).not.toContain('compared with');
    // who names a base wants it compared
    expect((await inspect(at('old'), '--base', at('base'))).stderr).toMatch(/1 of another size/);
  });
});

describe('text', () => {
  it('columns are aligned by characters, not by code units', () => {
    expect(
      table(
        [
          ['𝟙', '1'],
          ['ab', '10'],
        ],
        [1],
      ),
    ).toEqual(['𝟙    1', 'ab  10']);
  });
  it('bars and histograms keep their sums', () => {
    expect(bars([0, 1, 8])).toBe(' ▂█');
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 0, max: 99 })), fc.integer({ min: 1, max: 30 }), (steps, columns) => {
        const parts = histogram(
          steps.map((s) => [s, 1] as const),
          100,
          columns,
        );
        expect(parts).toHaveLength(columns);
        expect(parts.reduce((a, b) => a + b, 0)).toBe(steps.length);
      }),
    );
  });
});

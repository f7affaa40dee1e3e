/** Which weights a run ends with, by which criterion its ranks grow, and the pictures it draws on the way and at its end. */
import { cpSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, test, vi } from 'vitest';
import { main as generate } from '../../../train/generate.ts';
import { loadCheckpoint } from '../../../train/run/checkpoint.ts';
import { main as train } from '../../../train/train.ts';
import { runCommand } from '../../support/commands.ts';
import { LONG, longRows, longTest } from '../../support/long.ts';

import { adapterBits, base, log, out, prepare, start, stepOf } from '../../support/small-runs.ts';

vi.setConfig({ testTimeout: 300_000, hookTimeout: 120_000 });

beforeAll(prepare);

describe('the weights a run ends with', () => {
  /** a rate so high that the second validation is worse than the first */
  const spoilt =
    '--targets all-linear --budget 60 --lr 1 --steps 12 --samples 1 --seed 6 --clip 0 --save-every 8 --validate-every 8';
  const losses = (name: string) => log(name).flatMap((r) => (r.validation ? [r.validation.loss] : []));

  longTest(
    'best: a later, worse state is left out of adapter, pictures and report; stopping in between changes nothing',
    async () => {
      const { code, stderr, stdout } = await start('spoilt', spoilt);
      expect([code, code === 0 ? '' : stderr]).toEqual([0, '']);
      const [first, second] = losses('spoilt');
      expect(first!).toBeLessThan(second!);
      expect([await stepOf('spoilt'), await stepOf('spoilt', 'last.safetensors')]).toEqual([8, 12]);
      expect(stdout).toMatch(/adapter of the best validated step, 8 of 12: total rank \d+ on/);
      const folder = out('spoilt-again');
      cpSync(out('spoilt'), folder, { recursive: true });
      rmSync(join(folder, 'checkpoints/step-000012.safetensors'));
      // exactly the state that was validated: that of the checkpoint of the step, its trained ranks
      const { tensors } = (await loadCheckpoint(folder))!;
      for (const [path, rank, A] of await adapterBits('spoilt')) {
        const all = tensors.get(`${path.replace(/^text_encoder/, 'text').replace('.', '|')}|A`)!;
        expect(A).toEqual(Array.from(all.data).filter((_, i) => i % all.shape[1]! < rank));
      }
      // resumed after the best step was passed
      for (const f of ['adapter.safetensors', 'best.safetensors', 'last.safetensors', 'report.html'])
        rmSync(join(folder, f));
      expect((await runCommand(train, ['--resume', folder])).code).toBe(0);
      expect(log('spoilt-again')).toEqual(log('spoilt'));
      for (const f of ['adapter.safetensors', 'last.safetensors', 'samples/01-adapted.png'])
        expect(readFileSync(join(folder, f)), f).toEqual(readFileSync(join(out('spoilt'), f)));
    },
  );

  longTest('last: on request', async () => {
    const { code } = await start('spoilt-last', `${spoilt} --final last`);
    expect(code).toBe(0);
    expect([await stepOf('spoilt-last'), await stepOf('spoilt-last', 'best.safetensors')]).toEqual([12, 8]);
    expect(readFileSync(join(out('spoilt-last'), 'samples/01-adapted.png'))).not.toEqual(
      readFileSync(join(out('spoilt'), 'samples/01-adapted.png')),
    );
  });
});

// resuming is held to the bit in `run`, the sums of each criterion in `step/growth`
describe.runIf(LONG)('other ways to grow', () => {
  const decisions = (name: string) => log(name).flatMap((r) => r.tests ?? []);
  test.each([
    ['signal', '--criterion fi-snr --fi-batches 2 --fi-timesteps stratified --fi-ema 0.6 --lambda 1.01'],
    ['published', '--compat published-code --lambda 1'],
  ] as const)('%s: resumed from its first checkpoint it ends with the same bits', async (name, more) => {
    // tests at 2, 4 and 6: the last one after the checkpoint, with what the first ones left
    const { code, stderr } = await start(name, `${more} --samples 0 --save-every 5`);
    expect([code, code === 0 ? '' : stderr]).toEqual([0, '']);
    const all = decisions(name);
    expect(all.some((d) => d.expanded)).toBe(true);
    expect(all.some((d) => !d.expanded)).toBe(true);
    const again = out(`${name}-again`);
    cpSync(out(name), again, { recursive: true });
    for (const f of readdirSync(join(again, 'checkpoints')))
      if (!f.includes('000005')) rmSync(join(again, 'checkpoints', f));
    expect(readdirSync(join(again, 'checkpoints'))).toHaveLength(1);
    expect((await runCommand(train, ['--resume', again])).code).toBe(0);
    expect(log(`${name}-again`)).toEqual(log(name));
    expect(await adapterBits(`${name}-again`)).toEqual(await adapterBits(name));
  });
});

describe('pictures while the run goes on', () => {
  longTest(
    'are those of a run that ends there, and change nothing else; the text encoder runs once per caption where it is frozen',
    async () => {
      const same = '--test-every 5 --samples 1 --no-train-text-encoder --targets **.attn1.*';
      expect((await start('watched', `${same} --steps 4 --sample-every 2`)).code).toBe(0);
      expect((await start('unwatched', `${same} --steps 4`)).code).toBe(0);
      expect((await start('ends there', `${same} --steps 2`)).code).toBe(0);
      const samples = (name: string) => join(out(name), 'samples');
      expect(readdirSync(samples('watched')).filter((f) => f.startsWith('step'))).toEqual(['step-000002-01.png']);
      expect(readFileSync(join(samples('watched'), 'step-000002-01.png'))).toEqual(
        readFileSync(join(samples('ends there'), '01-adapted.png')),
      );
      expect(log('watched')).toEqual(log('unwatched'));
      expect(await adapterBits('watched')).toEqual(await adapterBits('unwatched'));
      expect(readFileSync(join(out('watched'), 'report.html'), 'utf8')).toContain('encode texts');
    },
  );
});

describe('a scale other than 1', () => {
  test.each(longRows(['2', '0.7'], (s) => s === '2'))(
    's = %s: generate draws with the exported adapter what the trainer drew',
    async (scale) => {
      const name = `scale${scale}`;
      const { code, stderr } = await start(name, `--scale ${scale} --steps 4 --samples 2 --targets **.attn1.*`);
      expect([code, code === 0 ? '' : stderr]).toEqual([0, '']);
      const split = JSON.parse(readFileSync(join(out(name), 'split.json'), 'utf8'));
      const report = readFileSync(join(out(name), 'report.html'), 'utf8');
      const texts = [...report.matchAll(/<blockquote>(.*?)<\/blockquote>/g)].map((m) => m[1]!);
      expect([texts.length, split.seed]).toEqual([2, 5]);
      const adapter = join(out(name), 'adapter.safetensors');
      // each picture alone, by the seed that the run tells of it
      for (const [i, text] of texts.entries()) {
        const told = JSON.parse(readFileSync(join(out(name), 'samples/samples.json'), 'utf8'))[i].pictures;
        const again = told.filter((p: { label: string }) => p.label === 'adapted') as { seed: number; file: string }[];
        expect(again.map((p) => p.seed)).toEqual([5 + i, 1005 + i, 2005 + i]);
        for (const { seed, file } of longRows(again, ({ seed }) => Math.floor(seed / 1000) === i + 1)) {
          const folder = join(out(name), `drawn-${seed}`);
          const drawn = await runCommand(generate, [
            ...['--base', base(), '--adapter', adapter, '--backend', 'wasm', '--steps', '2', '--seed', String(seed)],
            ...['--prompt', text, '--out', folder],
          ]);
          expect([drawn.code, drawn.code === 0 ? '' : drawn.stderr]).toEqual([0, '']);
          const [png] = readdirSync(folder).filter((f) => f.endsWith('.png'));
          expect(readFileSync(join(folder, png!))).toEqual(readFileSync(join(out(name), file)));
        }
      }
    },
  );
});

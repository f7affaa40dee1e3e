/** Whole runs of `npm run train` on a tiny base and a folder of pictures: what is written, and that resuming is exact. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { beforeAll, describe, expect, test, vi } from 'vitest';
import { readAdapter } from '../../../models/io/adapter-file.ts';
import { main as train } from '../../../train/train.ts';
import { runCommand } from '../../support/commands.ts';
import { longTest } from '../../support/long.ts';
import { modesIn } from '../../support/modes.ts';

import { adapterBits, log, out, prepare, start, stepOf } from '../../support/small-runs.ts';

vi.setConfig({ testTimeout: 300_000, hookTimeout: 120_000 });

beforeAll(prepare);

/** The run that others are compared with: 8 steps of the common settings. */
const whole = async (): Promise<void> => {
  if (existsSync(join(out('whole'), 'report.html'))) return;
  const { code, stderr, stdout } = await start('whole');
  expect([code, code === 0 ? '' : stderr]).toEqual([0, '']);
  // which file is for which program, and how to get the other form
  expect(stdout).toMatch(/adapter\.safetensors: for diffusers 0\.34 and later/);
  expect(stdout).toMatch(
    /AUTOMATIC1111.*: npm run resize -- --adapter \S+whole --form kohya --out kohya\.safetensors\n/,
  );
  expect(stdout).toMatch(/report \S+report\.html\n$/);
};

describe('a run', () => {
  test('writes log, adapter, pictures and report; ranks grow as the decisions say, up to the budget', async () => {
    await whole();
    const files = readdirSync(out('whole'));
    for (const f of [
      'adapter.safetensors',
      'best.safetensors',
      'metrics.jsonl',
      'report.html',
      'samples',
      'split.json',
    ])
      expect(files).toContain(f);
    const rowsOf = log('whole');
    expect(rowsOf.map((r) => r.step)).toEqual([1, 2, 3, 4, 5, 6, 7, 8]);
    const modules = await adapterBits('whole');
    let rank = modules.length;
    for (const r of rowsOf) {
      // never at the last step: the new ranks would not be trained
      expect(r.tests !== undefined).toBe(r.step % 2 === 0 && r.step < 8);
      if (r.tests) {
        expect(r.tests).toHaveLength(modules.length);
        for (const d of r.tests) expect(d.ratio).toBeGreaterThanOrEqual(1);
        rank += r.tests.filter((d) => d.expanded).length;
      }
      expect(r.totalRank).toBe(rank);
      expect(r.gradNorm).toBeGreaterThan(0);
      if (r.validation) {
        // the timesteps of the grid have equal parts in the mean
        const { byTimestep, loss } = r.validation;
        expect(byTimestep!.map(({ t }) => t)).toEqual([125, 375, 625, 875, 975]);
        expect(byTimestep!.reduce((sum, x) => sum + x.loss, 0) / 5).toBeCloseTo(loss, 12);
      }
    }
    expect(rank).toBe(26);
    // the adapter is that of the best validated step, and says so; the last one lies beside it where that is another
    const validated = rowsOf.flatMap((r) => (r.validation ? [{ step: r.step, loss: r.validation.loss }] : []));
    expect(validated.map((v) => v.step)).toEqual([4, 8]);
    const best = validated.reduce((a, b) => (b.loss < a.loss ? b : a)).step;
    expect(await stepOf('whole')).toBe(best);
    expect(existsSync(join(out('whole'), 'last.safetensors'))).toBe(best < 8);
    expect(modules.reduce((n, [, r]) => n + r, 0)).toBe(rowsOf[best - 1]!.totalRank);
    expect(readFileSync(join(out('whole'), 'report.html'), 'utf8')).toContain('Weights of step');
    if (process.platform !== 'win32') expect(modesIn(out('whole'))).toEqual({ folders: ['700'], files: ['600'] });
    // something was learned
    expect(modules.some(([, , , B]) => B.some((v) => v !== 0))).toBe(true);
  });

  test('stopped at any step and resumed, it ends with the same bits', async () => {
    await whole();
    const stop = (async () => {
      const file = join(out('stopped'), 'metrics.jsonl');
      while (!existsSync(file) || readFileSync(file, 'utf8').split('\n').length < 4) await sleep(2);
      process.emit('SIGINT', 'SIGINT');
    })();
    const first = await start('stopped');
    await stop;
    const done = log('stopped').length;
    expect(process.exitCode).toBe(130);
    process.exitCode = undefined;
    expect(first.stdout).toContain(`stopped after step ${done} and saved`);
    expect(done).toBeLessThan(8);
    // the page of what there is: how far it came, its losses, no picture yet
    const page = readFileSync(join(out('stopped'), 'report.html'), 'utf8');
    expect(page).toContain(`<span class="value">${done} of 8</span>`);
    expect(page).toContain('id="loss"');
    expect(page).not.toMatch(/id="pictures"|Weights of step/);
    expect(first.stdout).toContain(`report so far ${join(out('stopped'), 'report.html')}`);
    const again = await runCommand(train, ['--resume', out('stopped')]);
    expect([again.code, again.code === 0 ? '' : again.stderr]).toEqual([0, '']);
    expect(log('stopped')).toEqual(log('whole'));
    expect(await adapterBits('stopped')).toEqual(await adapterBits('whole'));
    for (const picture of readdirSync(join(out('whole'), 'samples')).filter((f) => f.endsWith('adapted.png')))
      expect(readFileSync(join(out('stopped'), 'samples', picture)), picture).toEqual(
        readFileSync(join(out('whole'), 'samples', picture)),
      );
  });

  longTest('accumulated micro-batches, the U-Net alone, AdamW, other losses', async () => {
    const { code, stderr } = await start(
      'other',
      '--accumulate 2 --no-train-text-encoder --optimizer adamw --weight-decay 0.01 --loss-weight min-snr --samples 0 --targets attn --budget 60 --steps 4',
    );
    expect([code, code === 0 ? '' : stderr]).toEqual([0, '']);
    const modules = await adapterBits('other');
    expect(modules.every(([path]) => /^unet\..*\.(to_q|to_k|to_v|to_out\.0)$/.test(path))).toBe(true);
    expect(log('other').filter((r) => r.tests)).toHaveLength(1);
  });

  // as a run on weights of 4 bits does in the short form
  longTest('LoRA of a fixed rank goes through the same loop: no tests, one rank', async () => {
    const { code, stderr } = await start('lora', '--method lora --rank 3 --samples 0 --steps 4 --targets attn');
    expect([code, code === 0 ? '' : stderr]).toEqual([0, '']);
    expect((await adapterBits('lora')).every(([, rank]) => rank === 3)).toBe(true);
    expect(log('lora').every((r) => r.tests === undefined)).toBe(true);
  });
});

describe('going on for longer', () => {
  longTest('with a constant rate the longer run is the run that was long from the start, bit for bit', async () => {
    await whole();
    expect((await start('short', '--steps 5')).code).toBe(0);
    const more = await runCommand(train, ['--resume', out('short'), '--steps', '8']);
    expect([more.code, more.code === 0 ? '' : more.stderr]).toEqual([0, '']);
    expect(more.stdout).toContain('5 → 8 steps, 5 done: the learning rate stays');
    // the end of the short run is validated
    const plain = (name: string) => log(name).map(({ validation: _v, ...row }) => row);
    expect(plain('short')).toEqual(plain('whole'));
    const bits = async (name: string, file: string) =>
      [...(await readAdapter(join(out(name), file))).modules].map(([p, m]) => [p, Array.from(m.A), Array.from(m.B)]);
    const lastOf = (name: string) =>
      existsSync(join(out(name), 'last.safetensors')) ? 'last.safetensors' : 'adapter.safetensors';
    expect(await bits('short', lastOf('short'))).toEqual(await bits('whole', lastOf('whole')));
    expect(JSON.parse(readFileSync(join(out('short'), 'config.json'), 'utf8')).steps).toBe(8);
    // and once more, without saying it again
    expect((await runCommand(train, ['--resume', out('short')])).code).toBe(0);
  });
  test('a schedule is told to span the new length', async () => {
    expect(
      (await start('cosine', '--steps 3 --schedule cosine --samples 0 --targets **.attn1.* --test-every 100')).code,
    ).toBe(0);
    const more = await runCommand(train, ['--resume', out('cosine'), '--steps', '6']);
    expect([more.code, more.code === 0 ? '' : more.stderr]).toEqual([0, '']);
    expect(more.stdout).toMatch(
      /3 → 6 steps, 3 done: the cosine schedule spans the new length, its rate now \S+ → 0.005/,
    );
    expect(log('cosine').at(-1)!.lr).toBeCloseTo(0.01 * 0.5 * (1 + Math.cos((Math.PI * 5) / 6)), 12);
  });
  test('shorter than what is done, or another setting: refused in one line', async () => {
    const tell = async (...more: string[]) => {
      const r = await runCommand(train, ['--resume', out('cosine'), ...more]);
      expect(r.code).toBe(1);
      return r.stderr.trimEnd();
    };
    expect(await tell('--steps', '4')).toBe('--steps 4: this run has done 6 already; give 6 or more');
    expect(await tell('--lr', '1e-3')).toMatch(
      /^--lr: cannot be given with --resume, .*; --data, --base, --base-config, --steps, --epochs, .* can$/,
    );
    expect(await tell('--preset', 'montgomery')).toMatch(/^--preset: cannot be given with --resume/);
  });
});

describe('what goes wrong is one line', () => {
  test.each([
    ['--targets **.to_w', /^--targets \*\*\.to_w: matches no linear/],
    ['--resolution 15', /^--resolution 15: expected a multiple of 2/],
    [
      '--lr 10 --scale 1000 --optimizer adamw --weight-decay 10 --steps 30 --test-every 100 --targets all-linear --budget 60',
      /^step \d+: the loss is (NaN|Infinity); lower --lr or use --clip \(last checkpoint: step 3\); first spoilt: (unet|text_encoder)\.\S+: \S+ is (NaN|-?Infinity) \(\d+ of \d+ modules\)/,
    ],
  ])('%s', async (more, message) => {
    const { code, stderr } = await start(`bad${more.length}`, more);
    expect(code).toBe(1);
    const last = stderr.trimEnd().split('\n').at(-1)!;
    expect(last).toMatch(message);
  });
});

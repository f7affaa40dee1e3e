/** Whole runs of `npm run train` on a tiny base and a folder of pictures: what is written, and that resuming is exact. */
import { cpSync, existsSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { beforeAll, describe, expect, test, vi } from 'vitest';
import { readAdapter } from '../../../models/io/adapter-file.ts';
import { runOf } from '../../../models/io/adapter-run.ts';
import { encodePng } from '../../../train/data/pictures/image-write.ts';
import { main as generate } from '../../../train/generate.ts';
import { loadCheckpoint } from '../../../train/run/checkpoint.ts';
import { main as train } from '../../../train/train.ts';
import { runCommand, writeCalmBase } from '../../support/commands.ts';
import { folder, rows, scratch } from '../../support/data-fixtures.ts';
import { longRows, longTest } from '../../support/long.ts';
import { modesIn } from '../../support/modes.ts';

vi.setConfig({ testTimeout: 300_000, hookTimeout: 120_000 });

const base = join(scratch, 'base');
const out = (name: string) => join(scratch, 'runs', name);
let data: string;
beforeAll(async () => {
  await writeCalmBase(base);
  const words = ['the left', 'the right', 'a clear', 'the', 'both'];
  const files: Record<string, string | Uint8Array> = {
    'metadata.csv': rows(
      ...Array.from({ length: 15 }, (_, i) => `${i}.png,${words[i % 5]} lung ${'abcdefghijklmno'[i]}`),
    ),
  };
  for (let i = 0; i < 15; i++)
    files[`${i}.png`] = await encodePng(
      Float32Array.from({ length: 16 * 16 * 3 }, (_, k) => Math.sin(i + Math.floor(k / 3) * (0.05 + 0.02 * i))),
      16,
    );
  data = folder(files);
});

const line = (text: string) => text.split(' ').filter((x) => x !== '');
const common =
  '--steps 8 --batch 2 --test-every 2 --lambda 1.02 --save-every 3 --validate-every 4 --samples 2 --sample-steps 2 ' +
  '--lr 1e-2 --split 60/20/20 --caption-dropout 0.2 --clip 1 --seed 5 --budget 60';
const start = (name: string, more = '') =>
  runCommand(train, [
    '--data',
    data,
    '--base',
    base,
    '--out',
    out(name),
    ...line(`${common} --backend wasm --threads 1 ${more}`),
  ]);

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

type Row = Record<string, unknown> & {
  readonly step: number;
  readonly lr: number;
  readonly totalRank: number;
  readonly validation?: { readonly loss: number };
  readonly tests?: readonly { readonly module: string; readonly expanded: boolean; readonly ratio: number }[];
};
/** the log without what depends on the clock and the machine */
const log = (name: string): Row[] =>
  readFileSync(join(out(name), 'metrics.jsonl'), 'utf8')
    .trim()
    .split('\n')
    .map((l) => {
      const { seconds: _s, memory: _m, ...row } = JSON.parse(l) as Row;
      return row as Row;
    });
const adapterBits = async (name: string) => {
  const { modules } = await readAdapter(join(out(name), 'adapter.safetensors'));
  return [...modules].map(([path, m]) => [path, m.rank, Array.from(m.A), Array.from(m.B)] as const);
};

const stepOf = async (name: string, file = 'adapter.safetensors') =>
  runOf(await readAdapter(join(out(name), file)), file)!.steps;

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
    }
    expect(rank).toBe(60);
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

  test('accumulated micro-batches, the U-Net alone, AdamW, other losses', async () => {
    const { code, stderr } = await start(
      'other',
      '--accumulate 2 --no-train-text-encoder --optimizer adamw --weight-decay 0.01 --loss-weight min-snr --samples 0 --targets attn --steps 4',
    );
    expect([code, code === 0 ? '' : stderr]).toEqual([0, '']);
    const modules = await adapterBits('other');
    expect(modules.every(([path]) => /^unet\..*\.(to_q|to_k|to_v|to_out\.0)$/.test(path))).toBe(true);
    expect(log('other').filter((r) => r.tests)).toHaveLength(1);
  });

  test('LoRA of a fixed rank goes through the same loop: no tests, one rank', async () => {
    const { code, stderr } = await start('lora', '--method lora --rank 3 --samples 0 --steps 4 --targets attn');
    expect([code, code === 0 ? '' : stderr]).toEqual([0, '']);
    expect((await adapterBits('lora')).every(([, rank]) => rank === 3)).toBe(true);
    expect(log('lora').every((r) => r.tests === undefined)).toBe(true);
  });
});

describe('the weights a run ends with', () => {
  /** a rate so high that the second validation is worse than the first */
  const spoilt = '--lr 1 --steps 12 --samples 1 --seed 6 --clip 0 --save-every 8 --validate-every 8';
  const losses = (name: string) => log(name).flatMap((r) => (r.validation ? [r.validation.loss] : []));

  test('best: a later, worse state is left out of adapter, pictures and report; stopping in between changes nothing', async () => {
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
  });

  longTest('last: on request', async () => {
    const { code } = await start('spoilt-last', `${spoilt} --final last`);
    expect(code).toBe(0);
    expect([await stepOf('spoilt-last'), await stepOf('spoilt-last', 'best.safetensors')]).toEqual([12, 8]);
    expect(readFileSync(join(out('spoilt-last'), 'samples/01-adapted.png'))).not.toEqual(
      readFileSync(join(out('spoilt'), 'samples/01-adapted.png')),
    );
  });
});

describe('other ways to grow', () => {
  const decisions = (name: string) => log(name).flatMap((r) => r.tests ?? []);
  test.each(
    longRows(
      [
        ['signal', '--criterion fi-snr --fi-batches 2 --fi-timesteps stratified --fi-ema 0.6 --lambda 1.01'],
        ['published', '--compat published-code --lambda 1'],
      ] as const,
      ([name]) => name === 'signal',
    ),
  )('%s: resumed from its first checkpoint it ends with the same bits', async (name, more) => {
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
  test('are those of a run that ends there, and change nothing else; the text encoder runs once per caption where it is frozen', async () => {
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
      /^--lr: cannot be given with --resume, .*; --data, --base, --steps, --epochs, .* can$/,
    );
    expect(await tell('--preset', 'montgomery')).toMatch(/^--preset: cannot be given with --resume/);
  });
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
        for (const { seed, file } of again) {
          const folder = join(out(name), `drawn-${seed}`);
          const drawn = await runCommand(generate, [
            ...['--base', base, '--adapter', adapter, '--backend', 'wasm', '--steps', '2', '--seed', String(seed)],
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

describe('what goes wrong is one line', () => {
  test.each([
    ['--targets **.to_w', /^--targets \*\*\.to_w: matches no linear/],
    ['--resolution 15', /^--resolution 15: expected a multiple of 2/],
    [
      '--lr 10 --scale 1000 --optimizer adamw --weight-decay 10 --steps 30 --test-every 100',
      /^step \d+: the loss is (NaN|Infinity); lower --lr or use --clip \(last checkpoint: step 3\); first spoilt: (unet|text_encoder)\.\S+: \S+ is (NaN|-?Infinity) \(\d+ of \d+ modules\)/,
    ],
  ])('%s', async (more, message) => {
    const { code, stderr } = await start(`bad${more.length}`, more);
    expect(code).toBe(1);
    const last = stderr.trimEnd().split('\n').at(-1)!;
    expect(last).toMatch(message);
  });
});

/** Whole runs of `npm run train` on a tiny base and a folder of pictures: what is written, and that resuming is exact. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { beforeAll, describe, expect, test, vi } from 'vitest';
import { readAdapter } from '../models/io/adapter-file.ts';
import { encodePng } from '../train/data/image-write.ts';
import { main as train } from '../train/train.ts';
import { runCommand, writeCalmBase } from './commands.ts';
import { folder, rows, scratch } from './data-fixtures.ts';

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
  runCommand(train, ['--data', data, '--base', base, '--out', out(name), ...line(`${common} --backend cpu ${more}`)]);

type Row = Record<string, unknown> & {
  readonly step: number;
  readonly totalRank: number;
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

describe('a run', () => {
  test('writes log, adapter, pictures and report; ranks grow as the decisions say, up to the budget', async () => {
    const { code, stderr } = await start('whole');
    expect([code, code === 0 ? '' : stderr]).toEqual([0, '']);
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
      expect(r.tests !== undefined).toBe(r.step % 2 === 0);
      if (r.tests) {
        expect(r.tests).toHaveLength(modules.length);
        for (const d of r.tests) expect(d.ratio).toBeGreaterThanOrEqual(1);
        rank += r.tests.filter((d) => d.expanded).length;
      }
      expect(r.totalRank).toBe(rank);
    }
    expect(rank).toBe(60);
    expect(modules.reduce((n, [, r]) => n + r, 0)).toBe(60);
    // something was learned
    expect(modules.some(([, , , B]) => B.some((v) => v !== 0))).toBe(true);
  });

  test('stopped at any step and resumed, it ends with the same bits', async () => {
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
    expect(existsSync(join(out('stopped'), 'report.html'))).toBe(false);
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
    expect(log('other').filter((r) => r.tests)).toHaveLength(2);
  });

  test('LoRA of a fixed rank goes through the same loop: no tests, one rank', async () => {
    const { code, stderr } = await start('lora', '--method lora --rank 3 --samples 0 --steps 4');
    expect([code, code === 0 ? '' : stderr]).toEqual([0, '']);
    expect((await adapterBits('lora')).every(([, rank]) => rank === 3)).toBe(true);
    expect(log('lora').every((r) => r.tests === undefined)).toBe(true);
  });
});

describe('what goes wrong is one line', () => {
  test.each([
    ['--targets **.to_w', /^--targets \*\*\.to_w: matches no linear/],
    ['--resolution 15', /^--resolution 15: expected a multiple of 2/],
    [
      '--lr 10 --scale 1000 --optimizer adamw --weight-decay 10 --steps 30 --test-every 100',
      /^step \d+: the loss is (NaN|Infinity); lower --lr or use --clip/,
    ],
  ])('%s', async (more, message) => {
    const { code, stderr } = await start(`bad${more.length}`, more);
    expect(code).toBe(1);
    const last = stderr.trimEnd().split('\n').at(-1)!;
    expect(last).toMatch(message);
  });
});

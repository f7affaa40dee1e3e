/** `bench --step`, `profile` and `verify-step` on a tiny U-Net: what they measure, print and find. */
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Backend, cpuBackend, type HostArray } from '../../../core/index.ts';
import { writeAdapter } from '../../../models/io/adapter-write.ts';
import { summary } from '../../../train/bench/clock.ts';
import { flameOf, flameSvg } from '../../../train/bench/flame.ts';
import { benchPeers } from '../../../train/bench/peers.ts';
import { main as bench } from '../../../train/bench.ts';
import { execute, type Io, type Main } from '../../../train/cli/command.ts';
import { grouped, main as profile } from '../../../train/profile.ts';
import { compareStep, main as verifyStep } from '../../../train/verify-step.ts';
import { LONG, longTest } from '../../support/long.ts';
import { TINY_CONFIGS, writeTinyBase } from '../../support/tiny-base.ts';

let folder: string;
let config: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'bench-'));
  config = join(folder, 'unet.json');
  await writeFile(config, JSON.stringify(TINY_CONFIGS.unet));
});
afterAll(() => rm(folder, { recursive: true }));

async function run(main: Main, ...args: string[]): Promise<{ code: number; out: string; err: string }> {
  const [stdout, stderr] = [new PassThrough(), new PassThrough()];
  const io: Io = { stdout, stderr, signal: new AbortController().signal };
  const code = await execute(main, args, io);
  const all = (stream: PassThrough): string => (stream.read() as Buffer | null)?.toString() ?? '';
  return { code, out: all(stdout), err: all(stderr) };
}
const tiny = () => [
  '--unet-config',
  config,
  '--batch',
  '2',
  '--resolution',
  '32',
  '--rank',
  '1',
  '--targets',
  '**.attn1.*',
];

describe('bench --step', { timeout: 300_000 }, () => {
  test('times a U-Net configuration with random weights, as JSON', async () => {
    const { code, out, err } = await run(
      bench,
      '--step',
      ...tiny(),
      '--backend',
      'wasm',
      '--threads',
      '1',
      '--ms',
      '1',
      '--json',
    );
    expect(err).toBe('');
    expect(code).toBe(0);
    const { steps, peak } = JSON.parse(out);
    expect(peak.gflops).toBeGreaterThan(0.1);
    const [figures] = steps;
    for (const key of [
      'trace_ms',
      'compile_ms',
      'step_ms',
      'step_ms_median',
      'fisher_step_ms',
      'replan_ms',
      'peak_bytes',
      'gflops',
    ])
      expect(figures[key], key).toBeGreaterThan(0);
    expect(figures.step_ms_median).toBeGreaterThanOrEqual(figures.step_ms);
    // attentions: one on the way down, one in the middle, two on the way up; `*` is to_q, to_k, to_v, but not to_out.0
    expect(figures.modules).toBe(4 * 3);
    expect(figures.gflops).toBeCloseTo(figures.gflop / (figures.step_ms / 1000), 6);
  });

  test.each([
    [['--step', '--unet-config', 'nowhere.json'], 'nowhere.json'],
    [['--step', '--unet-config', 'x', '--base', 'y'], 'either --base DIR or --unet-config FILE'],
    [['--step', '--peers'], '--peers with --step: give --unet-config'],
    [['--step', '--peers', '--unet-config', 'x', '--modules', '3'], '--peers with --step: adapts all linear layers'],
    [['--step', '--unet-config', 'x', '--adapter', 'y'], '--adapter: its modules are those of a base'],
    [['--step', '--adapter', 'y', '--modules', '3'], '--adapter: has its own modules; leave out --modules'],
    [['--step', '--peers', '--unet-config', 'x', '--adapter', 'y'], '--peers with --step: adapts all linear layers'],
    [
      ['--growth', '--adapter', 'y'],
      '--growth: measures steps of its own; leave out --step, --peers, --modules and --adapter',
    ],
    [['--batch', '0'], 'whole number'],
    [['--only', 'nope'], '--only nope: no operation has this in its name; there are'],
  ])('%j is one line and code 1', async (args, message) => {
    const { code, err } = await run(bench, ...args, '--threads', '1', '--backend', 'cpu');
    expect(code).toBe(1);
    expect(err).toContain(message);
    expect(err.trimEnd().split('\n')).toHaveLength(1);
  });

  test('a resolution or target that does not fit is named', async () => {
    const wrong = await run(bench, '--step', ...tiny(), '--resolution', '30', '--backend', 'cpu');
    expect(wrong.err).toContain('--resolution 30: expected a multiple of 8');
    const none = await run(bench, '--step', ...tiny(), '--targets', '**.attn7.*', '--backend', 'cpu');
    expect(none.err).toContain('**.attn7.*');
    expect(none.code).toBe(1);
  });
});

describe('peers', () => {
  test('a peer that is installed is timed, one that is not is named', { timeout: 120_000 }, async () => {
    const module = async (name: string, text: string) => {
      const at = join(folder, 'node_modules', name);
      await mkdir(at, { recursive: true });
      await writeFile(join(at, 'package.json'), JSON.stringify({ name, type: 'module', exports: './index.js' }));
      await writeFile(join(at, 'index.js'), text);
    };
    // a stand-in for tfjs whose every product takes 5 ms
    await module(
      '@tensorflow/tfjs',
      `export const setBackend = async () => true, randomNormal = (shape) => shape, tidy = (f) => f();
       export const matMul = () => ({ dataSync() { const end = performance.now() + 5; while (performance.now() < end); } });`,
    );
    await module('@tensorflow/tfjs-backend-wasm', '');
    const { figures, missing } = await benchPeers(
      ['dot 512×512×512', 'an operation no peer knows'],
      10,
      folder,
      'nopython',
    );
    const tfjs = figures.filter((f) => f.peer === 'tfjs-wasm');
    expect(tfjs.map((f) => f.name)).toEqual(['dot 512×512×512']);
    expect(tfjs[0]!.ms).toBeGreaterThanOrEqual(5);
    expect(missing).toContain('jax-js');
    expect(missing).not.toContain('tfjs-wasm');
    expect(missing).toContain('PyTorch');
  });

  test("a step stands between two of PyTorch's; a Python without it is named", { timeout: 120_000 }, async () => {
    // a stand-in that says what it was asked for and takes a tenth of a second longer each time
    const python = join(folder, 'python');
    const counter = join(folder, 'calls');
    await writeFile(counter, '');
    await writeFile(
      python,
      `#!${process.execPath}
const { appendFileSync, readFileSync } = require('node:fs');
appendFileSync(${JSON.stringify(counter)}, JSON.stringify(process.argv.slice(2)) + '\\n');
const calls = readFileSync(${JSON.stringify(counter)}, 'utf8').trim().split('\\n').length;
console.log(JSON.stringify({ version: '2.0', step_ms: 100 * calls, step_ms_median: 110, modules: 7 }));
`,
      { mode: 0o755 },
    );
    const few = [...tiny().slice(0, -2), '--backend', 'cpu', '--ms', '1', '--peers', '--step', '--plain'];
    const { out, code } = await run(bench, ...few, '--python', python);
    expect(code).toBe(0);
    const step = Number(/^step +([\d.]+) ms at best/m.exec(out)![1]);
    const lines = out.split('\n').filter((line) => line.startsWith('PyTorch 2.0'));
    expect(lines).toHaveLength(2);
    for (const [i, ms] of [100, 200].entries())
      expect(lines[i]).toMatch(
        new RegExp(`${ms}\\.0 ms at best, 110\\.0 ms median, 7 modules; ours ${(step / ms).toFixed(2)} of it`),
      );
    const asked = (await readFile(counter, 'utf8'))
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as string[]);
    expect(asked.map((a) => a.slice(1))).toEqual(Array(2).fill(['1', config, '2', '32', '1']));
    const without = await run(bench, ...few, '--python', 'nopython', '--json');
    expect(JSON.parse(without.out)).toMatchObject({ peers: [], missing: ['PyTorch'] });
  });
});

describe('profile', { timeout: 300_000 }, () => {
  test('prints tables whose shares add up, and writes a chart', async () => {
    const svg = join(folder, 'step.svg');
    const { code, out } = await run(
      profile,
      ...tiny(),
      '--backend',
      'cpu',
      '--runs',
      '1',
      '--svg',
      svg,
      '--rows',
      '1000',
    );
    expect(code).toBe(0);
    const operations = out.slice(out.indexOf('operation'), out.indexOf('\n\n', out.indexOf('operation')));
    const shares = [...operations.matchAll(/([\d.]+) %/g)].map((m) => Number(m[1]));
    expect(shares.reduce((a, b) => a + b)).toBeGreaterThan(99);
    expect(shares.reduce((a, b) => a + b)).toBeLessThan(101);
    expect(operations).toMatch(/^dot /m);
    expect(await readFile(svg, 'utf8')).toMatch(/^<svg [^>]*xmlns="http:\/\/www\.w3\.org\/2000\/svg"/);
  });
  test('has the modules, ranks and convolutions of an adapter', async () => {
    const base = join(folder, 'base');
    await writeTinyBase(base);
    const module = (rank: number, dIn: number, dOut: number, kernel?: readonly [number, number]) => ({
      ...{ A: new Float32Array(dIn * rank), B: new Float32Array(rank * dOut), rank, dIn, dOut, scale: 1 },
      ...(kernel ? { kernel } : {}),
    });
    const modules = new Map([
      ['unet.conv_in', module(3, 4 * 9, 4, [3, 3])],
      ['text_encoder.text_model.encoder.layers.0.self_attn.q_proj', module(2, 8, 8)],
    ]);
    const adapter = join(folder, 'adapter.safetensors');
    await writeAdapter(adapter, { modules, metadata: new Map() });
    const options = ['--base', base, '--batch', '1', '--resolution', '8', '--backend', 'cpu', '--json'];
    const labels = async (...more: string[]) => {
      const { code, out, err } = await run(profile, ...options, '--runs', '1', ...more);
      expect(err).toBe('');
      expect(code).toBe(0);
      const { kernels } = JSON.parse(out) as { kernels: { name: string; detail: string; label?: string }[] };
      return kernels.filter((k) => k.name === 'convKernel').map((k) => `${k.label} ${k.detail.split('→ ')[1]}`);
    };
    expect(await labels('--adapter', adapter)).toEqual(['unet.conv_in [3,3,4,3]']);
    // convolutions are among the places of `all`, as in train
    expect(await labels('--targets', 'all-linear')).toEqual([]);
    expect(await labels('--targets', 'all', '--rank', '2')).toContain('unet.conv_in [3,3,4,2]');
    const step = await run(bench, '--step', ...options, '--plain', '--ms', '1', '--adapter', adapter);
    expect(JSON.parse(step.out).steps[0].modules).toBe(2);
  });
  test('groups add up', () => {
    const kernels = [1, 2, 3].map((ms) => ({
      name: ms === 2 ? 'b' : 'a',
      detail: '',
      flops: ms,
      bytes: 10,
      widened: 0,
      ms,
    }));
    expect(grouped(kernels, (k) => k.name)).toEqual([
      { name: 'a', count: 2, ms: 4, flops: 4, bytes: 20 },
      { name: 'b', count: 1, ms: 2, flops: 2, bytes: 10 },
    ]);
  });
  test('the chart: children inside their parents, longest first, names escaped', () => {
    const root = flameOf('all', [
      { path: ['unet', '<dot>'], ms: 3 },
      { path: ['unet', 'conv'], ms: 6 },
      { path: ['text'], ms: 1 },
    ]);
    expect(root.ms).toBe(10);
    expect(root.children.map((c) => [c.name, c.ms])).toEqual([
      ['unet', 9],
      ['text', 1],
    ]);
    expect(root.children[0]!.children.map((c) => c.name)).toEqual(['conv', '<dot>']);
    const svg = flameSvg(root, 'a step');
    expect(svg).toContain('&lt;dot&gt;: 3.00 ms, 30.0 %');
    expect(svg).not.toContain('<dot>');
  });
  test('minimum and median', () => expect(summary([5, 1, 3])).toEqual({ min: 1, median: 3, runs: 3 }));
});

describe('verify-step', { timeout: 300_000 }, () => {
  const settings = () => ({
    unetConfig: config,
    batch: 2,
    resolution: 32,
    rank: 1,
    targets: '**.attn1.to_q',
    checkpointBlocks: false,
    // with a test a step has half as many nodes more
    tested: LONG,
  });
  /** the reference loops in f32 */
  const single = (): Backend<HostArray> => ({ ...cpuBackend(), supports: (dtype) => dtype !== 'f64' });

  // the next test finds no other op wrong, the last one no step
  longTest('a right backend stays within rounding, op by op and as a whole', async () => {
    const { nodes, loss, adapters } = await compareStep(settings(), single() as Backend);
    expect(nodes.length).toBeGreaterThan(500);
    expect(Math.max(...nodes.map((n) => n.share))).toBeLessThanOrEqual(1);
    expect(loss).toBeLessThan(1e-5);
    expect(adapters).toBeLessThan(1e-3);
    // modules are named where weights are read
    expect(nodes.some((n) => n.op === 'conv' && n.module === 'conv_in')).toBe(true);
  });

  test('a kernel that is off by 2⁻¹⁶ is found and named, and no other', async () => {
    const right = single();
    const faulty: Backend<HostArray> = {
      ...right,
      build(graph) {
        const program = right.build(graph);
        if (graph.order.at(-1)?.op.name !== 'erf') return program;
        return {
          ...program,
          run: (inputs) => program.run(inputs).map((y) => y.map((v) => v * (1 + 2 ** -16)) as HostArray),
        };
      },
    };
    const { nodes } = await compareStep(settings(), faulty as Backend);
    const wrong = nodes.filter((n) => n.share > 1);
    expect(new Set(wrong.map((n) => n.op))).toEqual(new Set(['erf']));
  });

  longTest('the command prints the worst ops', async () => {
    const { code, out } = await run(verifyStep, ...tiny(), '--backend', 'wasm', '--threads', '1', '--worst', '5');
    expect(out).toMatch(/^\d+ ops of one step on wasm/);
    expect(out).toContain('the whole step, fused: loss off by');
    expect(code).toBe(0);
  });
});

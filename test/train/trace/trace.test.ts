/** `npm run trace`: a step recorded anew has the run's own numbers; a broken file is refused in one line. */
import { existsSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import { openSafetensors } from '../../../models/io/safetensors.ts';
import { streamSafetensors, type TensorOut } from '../../../models/io/safetensors-write.ts';
import { FORMAT, type OpenTrace, openTrace, type Trace } from '../../../train/trace/format.ts';
import { main as trace } from '../../../train/trace.ts';
import { runCommand } from '../../support/commands.ts';
import { longTest } from '../../support/long.ts';
import { scratch } from '../../support/scratch.ts';
import { base, line, log, out, prepare, start } from '../../support/small-runs.ts';

const MODULES = 'unet.mid_block.resnets.*,**.attn1.to_q';
const at = (name: string): string => join(scratch, name);
const record = (words: string) => runCommand(trace, line(words));
/** A file in memory. */
const bytesOf = (data: Uint8Array, name = 'step.safetensors') => ({
  name,
  size: data.length,
  slice: async (begin: number, end: number) => data.subarray(begin, end),
});
const open = (file: string): Promise<OpenTrace> => openTrace(bytesOf(readFileSync(file)));
const sum = (xs: Iterable<number>): number => [...xs].reduce((a, b) => a + b, 0);
const near = (got: number, want: number, relative: number) =>
  expect(Math.abs(got - want), `${got} against ${want}`).toBeLessThanOrEqual(relative * Math.abs(want));

beforeAll(async () => {
  await prepare();
  const run = await start('traced', '--steps 4 --save-every 2 --obedience 0 --samples 0 --accumulate 1');
  expect([run.code, run.stderr]).toEqual([0, expect.anything()]);
}, 240_000);

describe('a step of a run', () => {
  let opened: OpenTrace;
  let told: Trace;
  beforeAll(async () => {
    const { code, stderr, stdout } = await record(`${out('traced')} --modules ${MODULES} --sample 2`);
    expect([code, stderr]).toEqual([0, '']);
    expect(stdout).toContain('trace-step-3.safetensors: step 3, loss');
    opened = await open(join(out('traced'), 'trace-step-3.safetensors'));
    told = opened.trace;
  }, 240_000);

  test('has the loss and the gradient norm that the run wrote down', () => {
    const row = log('traced')[2]! as unknown as { step: number; loss: number; gradNorm: number };
    expect(row.step).toBe(3);
    expect([told.step, told.loss, told.norm]).toEqual([3, row.loss, row.gradNorm]);
    near(sum(told.samples.map((s) => s.loss!)) / told.samples.length, row.loss, 1e-6);
    near(Math.hypot(...told.modules.map((m) => m.gradient!)), row.gradNorm, 1e-5);
    expect(told.samples).toHaveLength(2);
    expect(told.modules.map((m) => m.path).filter((p) => p.startsWith('text_encoder.')).length).toBeGreaterThan(0);
  });

  test('the derivative by the prediction is that of the mean square', async () => {
    const [prediction, target] = [await opened.read('sample', 'prediction'), await opened.read('sample', 'target')];
    const [value, cotangent] = [
      await opened.read('value', 'unet.conv_out'),
      await opened.read('cotangent', 'unet.conv_out'),
    ];
    expect(value).toEqual(prediction);
    const n = target.values.length;
    const loss = sum(prediction.values.map((p, i) => (p - target.values[i]!) ** 2)) / n;
    near(loss, told.samples[1]!.loss!, 1e-5);
    for (const [i, g] of cotangent.values.entries())
      expect(g).toBeCloseTo((2 * (prediction.values[i]! - target.values[i]!)) / (n * told.samples.length), 8);
  });

  test('keeps the blocks and the chosen modules, each in its shape, and no other', async () => {
    const blocks = told.blocks.map((b) => b.path);
    expect(blocks).toEqual([
      'text_encoder',
      'unet.time_embedding',
      'unet.conv_in',
      'unet.down_blocks.0',
      'unet.down_blocks.1',
      'unet.mid_block',
      'unet.up_blocks.0',
      'unet.up_blocks.1',
      'unet.conv_out',
    ]);
    const chosen = told.values.filter((p) => !blocks.includes(p));
    expect(chosen.filter((p) => !p.endsWith('attn1.to_q'))).toEqual([
      'unet.mid_block.resnets.0',
      'unet.mid_block.resnets.1',
    ]);
    expect(chosen.length).toBeGreaterThan(4);
    expect((await opened.read('value', 'unet.down_blocks.0')).shape).toEqual([4, 4, 4]);
    expect((await opened.read('cotangent', 'unet.mid_block')).shape).toEqual([4, 4, 8]);
    for (const path of told.values)
      expect(
        (await opened.read('cotangent', path)).values.some((x) => x !== 0),
        path,
      ).toBe(true);
  });

  test('lists every kernel of the step with its time, each with its module', () => {
    const dots = told.kernels.filter((k) => k.op === 'dot');
    expect(dots.length).toBeGreaterThan(20);
    expect(told.kernels.every((k) => k.ms !== undefined && k.count > 0)).toBe(true);
    expect(dots.every((k) => k.flops > 0 && /^\[.*\] · \[.*\] → \[.*\]$/.test(k.detail))).toBe(true);
    const known =
      /^(unet\.(conv_in|conv_out|conv_norm_out|time_embedding|(down|up)_blocks\.\d|mid_block)|text_encoder)(\.|$)/;
    expect(told.kernels.filter((k) => k.module !== '' && !known.test(k.module))).toEqual([]);
    const fused = told.kernels.find((k) => k.detail.endsWith(': mul') && k.text?.startsWith('v0 = in0'))!;
    expect(fused.text).toMatch(/^v0 = in0\[.*\n(.*\n)*v\d+ = mul\(v\d+, v\d+\)$/);
  });

  test('is private', () => {
    expect(statSync(join(out('traced'), 'trace-step-3.safetensors')).mode & 0o777).toBe(0o600);
  });
});

longTest(
  'micro-batches are one step',
  async () => {
    const run = await start(
      'parts',
      '--steps 1 --save-every 1 --obedience 0 --samples 0 --batch 4 --accumulate 2 --targets **.attn1.to_q',
    );
    expect(run.code).toBe(0);
    const { code } = await record(`${out('parts')} --step 1 --out ${at('parts.safetensors')}`);
    expect(code).toBe(0);
    const { trace: told } = await open(at('parts.safetensors'));
    const row = log('parts')[0]! as unknown as { loss: number; gradNorm: number };
    near(told.loss!, row.loss, 1e-6);
    near(told.norm!, row.gradNorm, 1e-5);
    near(Math.hypot(...told.modules.map((m) => m.gradient!)), row.gradNorm, 1e-5);
    expect(told.samples).toHaveLength(4);
  },
  240_000,
);

describe('what cannot be recorded is told in one line, and leaves nothing', () => {
  test.each([
    ['', 'which step? a run folder, or --base with a model: npm run trace -- runs/first'],
    ['RUN --batch 4', '--batch: RUN has its own; it is for a step without a run'],
    ['RUN --step 2', '--step 2: this run can be stopped before 5, 3, 1: there its checkpoints are'],
    ['RUN --modules unet.nothing', /^--modules unet\.nothing: matches none of \d+ modules/],
    ['RUN --sample 3', '--sample 3: the step has 2 samples'],
    ['RUN --out SCRATCH/none/x.safetensors', 'SCRATCH/none: no such file'],
    ['--base BASE --step 2', '--step: of a run; with --base it is the first'],
    ['SCRATCH/nothing', 'SCRATCH/nothing/config.json: no such file'],
  ])('%s', async (words, said) => {
    const put = (text: string) =>
      text.replaceAll('RUN', out('traced')).replaceAll('BASE', base()).replaceAll('SCRATCH', scratch);
    const whole = /--out|--base|^$|nothing$/.test(words) ? words : `${words} --out SCRATCH/left.safetensors`;
    const { code, stderr } = await record(put(whole));
    expect(code).toBe(1);
    if (typeof said === 'string') expect(stderr).toBe(`${put(said)}\n`);
    else expect(stderr).toMatch(said);
    expect(readdirSync(scratch).filter((name) => name.includes('left'))).toEqual([]);
  });
});

describe('a file', () => {
  const told: Trace = {
    source: 'made',
    method: 'selora',
    step: 1,
    backend: 'cpu',
    device: 'reference',
    loss: 1,
    norm: null,
    samples: [{ report: 'a report', t: 10, loss: 1 }],
    sample: 0,
    blocks: [{ path: 'unet.mid_block', kind: 'mid', level: 0, skips: 0 }],
    modules: [{ path: 'unet.mid_block.x', rank: 1, gradient: 2 }],
    kernels: [{ module: '', op: 'dot', detail: '[1] → [1]', count: 1, flops: 1, bytes: 1 }],
    values: ['unet.mid_block'],
  };
  const tensor = (shape: number[]): TensorOut => ({
    dtype: 'F32',
    shape,
    data: new Float32Array(shape.reduce((a, b) => a * b, 1)).fill(1),
  });
  const whole = () =>
    new Map([
      ['value|unet.mid_block', tensor([2, 2, 3])],
      ['cotangent|unet.mid_block', tensor([2, 2, 3])],
      ...['noisy', 'prediction', 'target'].map((n) => [`sample|${n}`, tensor([2, 2, 4])] as const),
    ]);
  async function written(
    text = JSON.stringify(told),
    tensors: ReadonlyMap<string, TensorOut> = whole(),
    format = FORMAT,
  ): Promise<Uint8Array> {
    const parts: Uint8Array[] = [];
    await streamSafetensors(
      tensors,
      new Map([
        ['format', format],
        ['trace', text],
      ]),
      async (b) => void parts.push(b.slice()),
    );
    return Buffer.concat(parts);
  }
  const refusal = async (data: Uint8Array): Promise<string> =>
    openTrace(bytesOf(data)).then(
      () => 'opened',
      (error) => (error.name === 'FileError' ? error.message : `${error.name}: ${error.message}`),
    );
  const changed = (change: object) => written(JSON.stringify({ ...told, ...change }));

  test('is opened without its values being read', async () => {
    const data = await written();
    const asked: number[] = [];
    const { read } = await openTrace({
      ...bytesOf(data),
      slice: async (begin, end) => {
        asked.push(end);
        return data.subarray(begin, end);
      },
    });
    const header = 8 + Number(new DataView(data.buffer, data.byteOffset).getBigUint64(0, true));
    expect(Math.max(...asked)).toBe(header);
    expect(await read('value', 'unet.mid_block')).toEqual({ shape: [2, 2, 3], values: new Float32Array(12).fill(1) });
  });

  test('of another kind, or with anything wrong in it, is refused', async () => {
    const without = (name: string) => new Map([...whole()].filter(([n]) => n !== name));
    const cases: readonly (readonly [Uint8Array, string | RegExp])[] = [
      [new Uint8Array(), /^step\.safetensors: /],
      [Buffer.from('no safetensors at all, but text'), /^step\.safetensors: /],
      [
        await written(undefined, undefined, 'selora-checkpoint-1'),
        /format: is no recorded step: expected a file of npm run trace/,
      ],
      [await written('{"a":'), /trace: not valid JSON/],
      [await written('{"step":1,"step":2}'), /duplicate key "step"/],
      [await written(`${'['.repeat(50)}${']'.repeat(50)}`), /JSON depth is above 8/],
      [await changed({ step: 0 }), /trace\.step: /],
      [await changed({ extra: 1 }), /trace: Unrecognized key/],
      [await changed({ samples: [] }), /trace\.samples: /],
      [await changed({ sample: 1 }), 'step.safetensors: trace.sample: is 1, there are 1 samples'],
      [await changed({ values: ['unet.mid_block', 'unet.mid_block'] }), /trace: names unet\.mid_block twice/],
      [await changed({ values: ['unet.other'] }), /tensor value\|unet\.other: is not in the file/],
      [await changed({ values: ['__proto__'] }), /tensor value\|__proto__: is not in the file/],
      [await changed({ loss: '1e999' }), /trace\.loss: /],
      [await changed({ kernels: [{ ...told.kernels[0], ms: -1 }] }), /trace\.kernels\.0\.ms: /],
      [await changed({ source: 'x'.repeat(20_001) }), /trace\.source: /],
      [await written(undefined, without('sample|target')), /tensor sample\|target: is not in the file/],
      [
        await written(undefined, new Map([...whole(), ['cotangent|unet.mid_block', tensor([2, 6])]])),
        /value \[2,2,3\] and cotangent \[2,6\] differ in shape/,
      ],
      [
        await written(undefined, new Map([...whole(), ['sample|noisy', tensor([16])]])),
        /expected \[height, width, channels\]/,
      ],
      [
        await written(
          undefined,
          new Map([...whole(), ['value|unet.mid_block', { dtype: 'I32', shape: [12], data: new Int32Array(12) }]]),
        ),
        /is I32, expected F32/,
      ],
    ];
    for (const [data, said] of cases) {
      const line = await refusal(data);
      if (typeof said === 'string') expect(line).toBe(said);
      else expect(line).toMatch(said);
      expect(line).not.toMatch(/\p{Cc}/u);
    }
  });

  test('that is cut or changed anywhere is opened whole or refused in a line', async () => {
    const data = await written();
    for (let end = 0; end < data.length; end += 7)
      expect(await refusal(data.subarray(0, end))).toMatch(/^step\.safetensors: /);
    const length = 8 + Number(new DataView(data.buffer, data.byteOffset).getBigUint64(0, true));
    for (let i = 0; i < length; i += 3) {
      const other = Uint8Array.from(data);
      other[i] = other[i]! ^ 0x11;
      expect(await refusal(other)).toMatch(/^opened$|^step\.safetensors: /);
    }
  });

  test('is safetensors that any reader opens', async () => {
    writeFileSync(at('made.safetensors'), await written());
    expect(existsSync(at('made.safetensors'))).toBe(true);
    const { tensors } = await openSafetensors(at('made.safetensors'));
    expect([...tensors.keys()]).toContain('value|unet.mid_block');
  });
});

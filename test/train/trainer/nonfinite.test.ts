/**
 * NaN, ±∞ and a number near the largest put into one place of a run at one step: the run ends with one line, or goes on
 * where the number was finite, and no file of it ever holds a value that is not finite.
 */
import { existsSync, readdirSync, readFileSync, readlinkSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import type * as Open from '../../../core/backends/open.ts';
import { type Backend, equal, evaluate, max, select, type Tensor, tensor } from '../../../core/index.ts';
import type * as AdapterWrite from '../../../models/io/adapter-write.ts';
import { openSafetensors } from '../../../models/io/safetensors.ts';
import { encodePng } from '../../../train/data/pictures/image-write.ts';
import type * as Encode from '../../../train/model/encode.ts';
import type * as Optimizer from '../../../train/optimise/optimizer.ts';
import type * as Step from '../../../train/step/step.ts';
import { main as train } from '../../../train/train.ts';
import { runCommand, writeCalmBase } from '../../support/commands.ts';
import { folder, rows, scratch } from '../../support/data-fixtures.ts';
import { casesOf, patience, scattered } from '../../support/drivers.ts';
import { longRows, longTest } from '../../support/long.ts';

const PLACES = ['weights', 'latents', 'text state', 'noise', 'gradient', 'moment', 'picture', 'loss'] as const;
const VALUES = [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, 1e38];
/** the first one, one that tests ranks, the last one */
const STEPS = [1, 2, 4];
const BACKENDS = ['wasm', 'webgpu', 'cpu'];

type Plan = { place: (typeof PLACES)[number] | 'file' | ''; value: number; step: number };
const plan = vi.hoisted((): Plan => ({ place: '', value: 0, step: 0 }));

/** The tensor with its first value replaced. */
const spoil = (t: Tensor, backend: Backend): Tensor => {
  const first = new Uint8Array(t.shape.reduce((a, b) => a * b, 1));
  first[0] = 1;
  return evaluate(select(equal(tensor(Float32Array.from(first), t.shape), 1), plan.value, t), backend);
};

// what hundreds of runs have in common is made once: backends, their programs, encoded pictures
const shared = vi.hoisted(() => new Map<string, unknown>());
const closing: (() => Promise<void>)[] = [];
const once = <T>(name: string, make: () => T): T => {
  if (!shared.has(name)) shared.set(name, make());
  return shared.get(name) as T;
};
vi.mock('../../../core/backends/open.ts', async (original) => {
  const real = await original<typeof Open>();
  const open = async (...args: Parameters<typeof real.openBackend>): Promise<Backend> => {
    const backend = await real.openBackend(...args);
    closing.push(() => backend.close());
    return new Proxy(backend, { get: (b, key) => (key === 'close' ? async () => undefined : Reflect.get(b, key, b)) });
  };
  const openBackend: typeof real.openBackend = (name, options) => once(`backend ${name}`, () => open(name, options));
  return { ...real, openBackend };
});
afterAll(async () => {
  for (const close of closing) await close();
});

vi.mock('../../../train/step/step.ts', async (original) => {
  const real = await original<typeof Step>();
  const createSteps: typeof real.createSteps = (options) => {
    const traced = plan.place === 'gradient' ? `${plan.value} ${plan.step}` : '';
    const backend = options.backend;
    const steps = once(`steps ${backend.name} ${options.check} ${traced}`, () => real.createSteps(options));
    let now = 0;
    const spoiltBatch = (b: Step.Batch): Step.Batch => ({
      ...b,
      ...(['latents', 'noise'].includes(plan.place) ? { x: spoil(b.x, backend) } : {}),
      ...(plan.place === 'noise' ? { target: spoil(b.target, backend) } : {}),
      ...(plan.place === 'text state' ? { context: spoil(b.context!, backend) } : {}),
    });
    const spoiltState = <S extends Step.State>(s: S): S => {
      const key = { weights: 'p', moment: 'm' }[plan.place as string] as 'p' | 'm' | undefined;
      if (key === undefined) return s;
      const [path, slot] = Object.entries(s.unet)[0]!;
      const [name, field] = Object.entries(slot[key] as Record<string, Tensor>)[0]!;
      const fields = { ...(slot[key] as object), [name]: spoil(field, backend) };
      return { ...s, unet: { ...s.unet, [path]: { ...slot, [key]: fields } } };
    };
    const through = (f: (...args: never[]) => unknown) =>
      Object.assign((s: Step.State, base: unknown, batch: Step.Batch, ...rest: unknown[]) => {
        const hit = ++now === plan.step;
        const result = f(...([hit ? spoiltState(s) : s, base, hit ? spoiltBatch(batch) : batch, ...rest] as never[]));
        const { loss } = result as { readonly loss: Tensor };
        return hit && plan.place === 'loss' ? { ...(result as object), loss: spoil(loss, backend) } : result;
      }, f);
    return { ...steps, plain: through(steps.plain as never), tested: through(steps.tested as never) } as never;
  };
  return { ...real, createSteps };
});
vi.mock('../../../train/optimise/optimizer.ts', async (original) => {
  const real = await original<typeof Optimizer>();
  const adamUpdate: typeof real.adamUpdate = (p, gradient, moments, age, ...rest) => {
    const g = plan.place === 'gradient' ? select(equal(max(age), plan.step - 1), plan.value, gradient) : gradient;
    return real.adamUpdate(p, g, moments, age, ...rest);
  };
  return { ...real, adamUpdate };
});
vi.mock('../../../train/model/encode.ts', async (original) => {
  const real = await original<typeof Encode>();
  const encodePairs: typeof real.encodePairs = async (backend, vae, config, tokenizer, pairs, ...rest) => {
    const pixels = (i: number) => async () => {
      const values = Float32Array.from(await pairs[i]!.pixels());
      if (plan.place === 'picture' && i === plan.step) values[0] = plan.value;
      return values;
    };
    const some = pairs.map((pair, i) => ({ ...pair, pixels: pixels(i) }));
    const encode = () => real.encodePairs(backend, vae, config, tokenizer, some, ...rest);
    return plan.place === 'picture' ? encode() : once(`pairs ${backend.name} ${pairs.map(({ id }) => id)}`, encode);
  };
  return { ...real, encodePairs };
});
vi.mock('../../../models/io/adapter-write.ts', async (original) => {
  const real = await original<typeof AdapterWrite>();
  const writeAdapter: typeof real.writeAdapter = async (file, ...rest) => {
    await real.writeAdapter(file, ...rest);
    if (plan.place !== 'file') return;
    const bytes = readFileSync(file);
    bytes.writeFloatLE(plan.value, bytes.length - 4);
    writeFileSync(file, bytes);
  };
  return { ...real, writeAdapter };
});

const base = join(scratch, 'base');
const out = join(scratch, 'run');
let data: string;
beforeAll(async () => {
  await writeCalmBase(base);
  const wave = (i: number) =>
    encodePng(
      Float32Array.from({ length: 16 * 16 * 3 }, (_, k) => Math.sin(i + k / (9 + i))),
      16,
    );
  data = folder({
    'metadata.csv': rows(...Array.from({ length: 8 }, (_, i) => `${i}.png,lung ${i}`)),
    ...Object.fromEntries(await Promise.all(Array.from({ length: 8 }, async (_, i) => [`${i}.png`, await wave(i)]))),
  });
}, 60_000);

/** Every value of every file of the run that is not finite, as `file: tensor[i] is NaN`. */
async function unfit(): Promise<readonly string[]> {
  const found: string[] = [];
  const names = existsSync(out) ? readdirSync(out, { recursive: true, encoding: 'utf8' }) : [];
  for (const name of names.filter((file) => file.endsWith('.safetensors'))) {
    const file = await openSafetensors(join(out, name));
    for (const tensor of file.tensors.keys()) {
      const values = await file.float32(tensor);
      const i = values.findIndex((x) => !Number.isFinite(x));
      if (i >= 0) found.push(`${name}: ${tensor}[${i}] is ${values[i]}`);
    }
  }
  for (const name of names.filter((file) => /\.jsonl?$/.test(file)))
    if (/NaN|Infinity|"loss": ?null/.test(readFileSync(join(out, name), 'utf8'))) found.push(name);
  return found;
}

/** Files of the run that this process still has open, where the system tells. */
const openFiles = (): readonly string[] =>
  (existsSync('/proc/self/fd') ? readdirSync('/proc/self/fd') : []).flatMap((fd) => {
    try {
      const file = readlinkSync(`/proc/self/fd/${fd}`);
      return file.startsWith(out) ? [file] : [];
    } catch {
      return [];
    }
  });

/** One run of four steps with the number in its place. */
async function runWith(
  backend: string,
  place: Plan['place'],
  value: number,
  step: number,
  more: readonly string[] = [],
): Promise<string> {
  Object.assign(plan, { place, value, step });
  rmSync(out, { recursive: true, force: true });
  const threads = backend === 'wasm' ? ['--threads', '1'] : [];
  const settings =
    '--steps 4 --batch 4 --test-every 2 --lambda 1.02 --save-every 1 --validate-every 2 --samples 0 --obedience 0 ' +
    '--sample-steps 2 --lr 1e-2 --split 60/20/20 --validation-pairs 1 --targets **.to_q --no-train-text-encoder';
  const args = [
    ...settings.split(' '),
    '--data',
    data,
    '--base',
    base,
    '--out',
    out,
    '--backend',
    backend,
    ...threads,
    ...more,
  ];
  const { code, stderr } = await runCommand(train, args);
  const about = `${value} in the ${place} of step ${step} on ${backend}: code ${code}, ${stderr}`;
  const found = await unfit();
  expect(found, `${about} ${found}`).toEqual([]);
  expect(openFiles(), about).toEqual([]);
  const told = stderr.trimEnd().split('\n').at(-1)!;
  if (code === 0) expect(Number.isFinite(value), about).toBe(true);
  else expect(told, about).toMatch(/^(metrics of )?step \d+: |is (NaN|-?Infinity)|not finite/);
  expect(stderr, about).not.toMatch(/SELORA_DEBUG|\bat .*:\d+:\d+/);
  return told;
}

const cases = PLACES.flatMap((place) =>
  VALUES.flatMap((value) => STEPS.flatMap((step) => BACKENDS.map((backend) => ({ backend, place, value, step })))),
);

describe('a number that is not finite', () => {
  test('ends the run with one line and gets into no file', { timeout: patience('nonfinite', 240_000) }, async () => {
    expect(cases).toHaveLength(288);
    // the programs of a step are built for one backend: on a software driver that takes seconds
    const tried = longRows(cases, ({ backend }) => backend === 'wasm');
    for (const { backend, place, value, step } of scattered(tried, casesOf('nonfinite')))
      await runWith(backend, place, value, step);
  });
  test('is named where it stands first with --check-finite', { timeout: 60_000 }, async () => {
    expect(await runWith('wasm', 'weights', Number.NaN, 2, ['--check-finite'])).toMatch(
      /^step 2: training step with test: the first value that is not finite is argument unet\.\S+\.p\.A in unet\.\S+: f32\[\d+, \d+\] at \[0, 0\]$/,
    );
  });
  longTest('would be found in a file that it got into', { timeout: 60_000 }, async () => {
    await expect(runWith('wasm', 'file', Number.NaN, 0)).rejects.toThrow(/safetensors: .* is NaN/);
  });
});

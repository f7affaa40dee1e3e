/** `npm run verify`: what it checks, what it finds, and what it says. */
import { cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { openBackend } from '../../../core/backends/open.ts';
import { type Backend, cpuBackend } from '../../../core/index.ts';
import { execute, type Io } from '../../../train/cli/command.ts';
import { verifyGenerate } from '../../../train/verify/generate.ts';
import { verifyMethodsLora } from '../../../train/verify/methods-lora.ts';
import { verifySelora } from '../../../train/verify/selora/index.ts';
import { main } from '../../../train/verify.ts';
import { goldenDirectories, tally } from '../../support/golden-cases.ts';
import { writeSeloraGolden } from '../../support/golden-selora.ts';
import { longTest } from '../../support/long.ts';

const OWN = join(import.meta.dirname, '../../golden');
let temporary: string;
let wasm: Backend;
beforeAll(async () => {
  temporary = await mkdtemp(join(tmpdir(), 'verify-'));
  wasm = await openBackend('wasm');
});
afterAll(async () => {
  await wasm.close();
  await rm(temporary, { recursive: true });
});

/** Runs the command in this process. */
async function verify(...args: string[]): Promise<{ code: number; out: string; err: string }> {
  const [stdout, stderr] = [new PassThrough(), new PassThrough()];
  const io: Io = { stdout, stderr, signal: new AbortController().signal };
  const code = await execute(main, args, io);
  const all = (stream: PassThrough): string => (stream.read() as Buffer | null)?.toString() ?? '';
  return { code, out: all(stdout), err: all(stderr) };
}

describe('LoRA training with accumulation, clipping and schedules, against torch.optim', () => {
  test.each(goldenDirectories('methods.safetensors', 'test/golden/methods'))('%s', async (directory) => {
    for (const backend of [cpuBackend(), wasm]) {
      const { count, failed } = await tally(verifyMethodsLora(directory, backend));
      expect(failed).toEqual([]);
      expect(count).toBe(4 * 9);
    }
  });
});

describe('SeLoRA', () => {
  longTest(
    'scores, ratios, gradients and Adam equal plain loops over samples (other width, depth and batch)',
    async () => {
      const directory = join(temporary, 'selora');
      await writeSeloraGolden(directory, 11);
      for (const backend of [cpuBackend(), wasm]) {
        const { count, failed } = await tally(verifySelora(directory, backend));
        expect(failed).toEqual([]);
        expect(count).toBeGreaterThan(28);
      }
      // a check that cannot fail is worth nothing: one wrong score, one wrong gradient
      const json = JSON.parse(await readFile(join(directory, 'selora.json'), 'utf8'));
      const module = json.modules['unet.time_embedding.linear_1'];
      module.fi *= 1 + 1e-6;
      await writeFile(join(directory, 'selora.json'), JSON.stringify(json));
      const { failed } = await tally(verifySelora(directory, cpuBackend()));
      expect(failed.join('\n')).toMatch(/^selora one-pass scores: FI .*time_embedding\.linear_1/m);
      expect(failed.join('\n')).toMatch(/^selora two-pass scores: FI .*time_embedding\.linear_1/m);
    },
    120_000,
  );

  test.each(goldenDirectories('selora.json'))("PyTorch's numbers in %s", { timeout: 300_000 }, async (directory) => {
    const { count, failed } = await tally(verifySelora(directory, wasm));
    expect(failed).toEqual([]);
    expect(count).toBe(63);
  });
  test.each(goldenDirectories('selora.json'))(
    "a generation's numbers in %s",
    { timeout: 300_000 },
    async (directory) => {
      const { count, failed } = await tally(verifyGenerate(directory, wasm));
      expect(failed).toEqual([]);
      expect(count).toBe(5);
    },
  );
});

describe('the command', () => {
  const checks = 'tokenizer,schedulers,samplers,weights,shapes,ops';
  test('prints one line per check and backend and ends with 0', async () => {
    const { code, out } = await verify(OWN, '--only', checks, '--backend', 'wasm');
    expect(out).toMatch(/^ops +wasm +221 .* ok /m);
    expect(out).toMatch(/^tokenizer +host +2 .* ok /m);
    expect(out).toMatch(/all \d+ comparisons within their tolerance/);
    expect(code).toBe(0);
  }, 120_000);

  test('one changed number fails with its case, code 1 and one line', async () => {
    const directory = join(temporary, 'changed');
    await cp(OWN, directory, { recursive: true });
    const file = join(directory, 'weights.json');
    const json = JSON.parse(await readFile(file, 'utf8'));
    const name = Object.keys(json.loss)[0]!;
    json.loss[name] *= 1 + 1e-9;
    await writeFile(file, JSON.stringify(json));
    const { code, out, err } = await verify(directory, '--only', 'weights');
    expect(code).toBe(1);
    expect(out).toContain(`FAIL  weights loss ${name}`);
    expect(err).toMatch(/^1 of \d+ comparisons failed\n$/);
  });

  test('a broken file fails by name and the other checks go on', async () => {
    const directory = join(temporary, 'broken');
    await cp(OWN, directory, { recursive: true });
    await writeFile(join(directory, 'samplers.safetensors'), 'no tensors');
    const { code, out } = await verify(directory, '--only', 'samplers,weights');
    expect(code).toBe(1);
    expect(out).toMatch(/^samplers +host .*FAIL.*samplers\.safetensors/m);
    expect(out).toMatch(/^weights +host .* ok /m);
  });

  test('files without a check are listed', async () => {
    const directory = join(temporary, 'more');
    await cp(join(OWN, 'methods'), directory, { recursive: true });
    const file = join(directory, 'methods.json');
    await writeFile(file, JSON.stringify({ ...JSON.parse(await readFile(file, 'utf8')), adalora: {} }));
    await writeFile(join(directory, 'networks.json'), '{}');
    const { code, out } = await verify(directory, '--backend', 'wasm');
    expect(out).toContain('no check yet for: methods.json: adalora, networks.json');
    expect(code).toBe(0);
  });

  test.each([
    [['nowhere'], 'nowhere: is not a folder of golden numbers\n'],
    [[OWN, '--only', 'colours'], '--only colours: no such check'],
    [[OWN, '--backend', 'abacus'], 'abacus'],
    [[], "missing required argument 'directories'"],
  ])('%j is one line and code 1', async (args, message) => {
    const { code, err } = await verify(...args);
    expect(code).toBe(1);
    expect(err).toContain(message);
    expect(err.trimEnd().split('\n')).toHaveLength(1);
  });
});

/** Training steps in the lab, in a real browser: one that is made there, and one that `npm run trace` recorded of a run. */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { registry } from '../../../core/index.ts';
import type { Op } from '../../../core/ir/tensor.ts';
import type { StepAsk, Stepped } from '../../../train/lab/machine/step.ts';
import { textOf } from '../../../train/lab/texts.ts';
import { openTrace } from '../../../train/trace/format.ts';
import { main as trace } from '../../../train/trace.ts';
import { browserThere } from '../../support/browser.ts';
import { runCommand } from '../../support/commands.ts';
import { dropFiles } from '../../support/dropped.ts';
import {
  axeFaults,
  type Call,
  inNode,
  inWorker,
  type OpenedLab,
  openLab,
  unreached,
  visit,
} from '../../support/lab.ts';
import { scratch } from '../../support/scratch.ts';
import { log, out, prepare, start } from '../../support/small-runs.ts';

/** the step that is recorded before the tests, on its page */
const RECORDED = '#/step?trace=one%2Ftrace-step-1.safetensors';

/** what is worked out in the page may take a while beside other work */
const soon = <T>(what: () => Promise<T>) => expect.poll(what, { timeout: 30_000 });

/** Sizes of gradients as the blocks of the drawing carry them. */
const sizesOf = (units: readonly unknown[]): number[] =>
  units.map((u) => Number((u as { dataset: Record<string, string> }).dataset.size));

describe.runIf(browserThere)('steps in a browser', () => {
  let lab: OpenedLab;
  beforeAll(async () => {
    // a run of one step on a tiny base, and its step recorded
    await prepare();
    const run = await start('one', '--steps 1 --save-every 1 --obedience 0 --samples 0 --validation-pairs 1');
    expect(run.code, run.stderr).toBe(0);
    expect((await runCommand(trace, [out('one'), '--step', '1'])).stderr).toBe('');
    lab = await openLab({ only: ['step'], runs: join(scratch, 'runs') });
    // of the ops' texts the one that is looked at
    mkdirSync(join(lab.built.folder, 'ops'), { recursive: true });
    writeFileSync(join(lab.built.folder, 'ops/conv.json'), JSON.stringify(await textOf(registry.get('conv') as Op)));
  }, 400_000);
  afterAll(() => lab?.close());

  test("a step's losses and Fisher sums are Node's to the bit", async () => {
    const { page } = await visit(lab, '');
    const ask: StepAsk = { lambda: 1.1, gainA: 0, fisher: 'per-sample' };
    const calls: readonly Call[] = [
      ['open', 'wasm'],
      ['step', ask],
    ];
    const here = await inNode(lab, calls);
    const there = await inWorker(page, [...calls, ['module', ask, 'unet.nothing']]);
    const [got, want] = [there, here].map((said) => (said[1] as { value: Stepped }).value) as [Stepped, Stepped];
    expect(want.decisions.length).toBe(137);
    expect({ ...got, ms: 0 }).toEqual({ ...want, ms: 0 });
    // one is drawn for every module that passes
    expect(got.ranks).toBe(137 + got.decisions.filter(({ expanded }) => expanded).length);

    expect(there[2]).toEqual({ error: 'there is no module unet.nothing' });
  }, 300_000);

  test('a sample on its page: a link leads to it, another timestep has another loss', async () => {
    const { page, faults } = await visit(lab, '#/step?report=2&t=900');
    const seen = page.locator('[data-loss]');
    expect(await seen.getAttribute('data-t')).toBe('900');
    const loss = Number(await seen.getAttribute('data-loss'));
    expect(loss).toBeGreaterThan(0);
    expect(await page.locator('.film canvas').count()).toBe(7);
    const t = page.getByLabel('timestep t');
    await t.focus();
    await page.keyboard.press('Home');
    await soon(() => seen.getAttribute('data-t')).toBe('0');
    expect(Number(await seen.getAttribute('data-loss'))).not.toBe(loss);
    expect(faults).toEqual([]);
  }, 120_000);

  test('a step on its page: λ decides anew, a module is looked into', async () => {
    const { page, faults } = await visit(lab, '#/step?report=2&t=900');
    await page.getByRole('button', { name: 'Make the step' }).click();
    await page.waitForSelector('[data-step="1"]', { timeout: 120_000 });
    const grown = async () => Number(await page.locator('[data-grown]').getAttribute('data-grown'));
    const at = await grown();
    expect(at).toBeGreaterThan(0);
    await page.getByLabel('λ').focus();
    await page.keyboard.press('End');
    await soon(grown).toBeLessThan(at);
    // the blocks are lit by the modules of the test; one is opened, and its kernels are there
    const sizes = (await page.locator('.unit').evaluateAll(sizesOf)).filter((x) => x > 0);
    expect(sizes.length).toBe(9);
    await page.locator('[data-block="unet.mid_block"]').press('Enter');
    await page.waitForSelector('[data-value="unet.mid_block"]', { timeout: 120_000 });
    expect(Number(await page.locator('[data-cotangent]').getAttribute('data-cotangent'))).toBeGreaterThan(0);
    expect(Number(await page.locator('[data-kernels]').getAttribute('data-kernels'))).toBeGreaterThan(100);
    expect(await page.evaluate('location.hash')).toContain('block=unet.mid_block');
    await page.locator('[aria-label="All modules"] button').first().click();
    await page.waitForSelector('[data-ratio]', { timeout: 120_000 });
    const told = async (name: string) => Number(await page.locator('[data-ratio]').getAttribute(`data-${name}`));
    // what the samples add up to is what the step's own backward pass measured
    expect((await told('ratio')) / (await told('step-ratio'))).toBeCloseTo(1, 4);
    expect(await told('original')).toBeGreaterThan(0);
    // a quadratic form in dozens of independent numbers stays near its mean
    expect((await told('candidate')) / (await told('expected'))).toBeGreaterThan(0.05);
    expect((await told('candidate')) / (await told('expected'))).toBeLessThan(10);
    expect(await axeFaults(page)).toEqual([]);
    await page.setViewportSize({ width: 390, height: 844 });
    expect(await page.evaluate('checks.fits(390)')).toMatchObject({ width: 390, out: [] });
    expect(faults).toEqual([]);
  }, 300_000);

  test('a recorded step: by a link, by its file and dropped, with the numbers of its run', async () => {
    const file = join(out('one'), 'trace-step-1.safetensors');
    const data = readFileSync(file);
    const whole = { name: file, size: data.length, slice: async (a: number, b: number) => data.subarray(a, b) };
    const recorded = await openTrace(whole);
    const { page, faults } = await visit(lab, `${RECORDED}&block=unet.mid_block`);
    const [row] = log('one') as unknown as [{ loss: number; gradNorm: number }];
    const told = async (name: string) => Number(await page.locator('[data-trace]').getAttribute(`data-${name}`));
    expect([await told('trace'), await told('loss'), await told('norm')]).toEqual([1, row.loss, row.gradNorm]);
    const sizes = await page.locator('.unit').evaluateAll(sizesOf);
    expect(sizes.length).toBe(recorded.trace.blocks.length);
    expect(Math.hypot(...sizes) / row.gradNorm).toBeCloseTo(1, 5);

    const shown = async (): Promise<readonly unknown[]> => {
      const at = page.locator('[data-value]');
      return [await at.getAttribute('data-value'), Number(await at.getAttribute('data-first'))];
    };
    const first = async (module: string) => [module, (await recorded.read('value', module)).values[0]];
    await soon(shown).toEqual(await first('unet.mid_block'));
    await page.locator('[data-block="unet.up_blocks.0"]').press('Enter');
    await soon(shown).toEqual(await first('unet.up_blocks.0'));
    expect(await page.evaluate('location.hash')).toBe(`${RECORDED}&block=unet.up_blocks.0`);
    const own = recorded.trace.kernels.filter((k) => k.module.startsWith('unet.up_blocks.0.'));
    const count = own.reduce((n, k) => n + k.count, 0);
    expect(Number(await page.locator('[data-kernels]').getAttribute('data-kernels'))).toBe(count);
    await page.locator('[aria-label^="Text of conv "]').first().click();
    await soon(() => page.locator('a[href="#/op/conv"]').count()).toBe(1);
    expect(await page.locator('.code').first().textContent()).toMatch(/^\(func/);
    await page.locator('[aria-label^="Text of elementwise"]').first().click();
    await soon(() => page.locator('.code').textContent()).toMatch(/^v0 = /);
    expect(await axeFaults(page)).toEqual([]);
    await page.emulateMedia({ colorScheme: 'dark' });
    expect(await axeFaults(page, ['color-contrast'])).toEqual([]);
    await page.setViewportSize({ width: 390, height: 844 });
    expect(await page.evaluate('checks.fits(390)')).toMatchObject({ width: 390, out: [] });

    // out of a person's file, which is no trace at first
    const other = join(scratch, 'other.safetensors');
    writeFileSync(other, data.subarray(0, data.length - 4));
    const choose = page.getByLabel('File of a recorded step');
    await choose.setInputFiles(other);
    const error = page.locator('.error:not([hidden])');
    await soon(() => error.textContent()).toMatch(/^other\.safetensors: .* past the end of the file/);
    writeFileSync(other, data);
    await choose.setInputFiles(other);
    await soon(() => page.locator('h1').textContent()).toBe('Recorded: other.safetensors');
    expect(await told('loss')).toBe(row.loss);
    writeFileSync(join(scratch, 'dropped.safetensors'), data);
    await dropFiles(page, page.locator('.drop'), [join(scratch, 'dropped.safetensors')]);
    await soon(() => page.locator('h1').textContent()).toBe('Recorded: dropped.safetensors');
    expect(faults).toEqual([]);
  }, 120_000);

  test('a recorded step: the keyboard reaches every control', async () => {
    const { page } = await visit(lab, `${RECORDED}&block=unet.conv_in`);
    expect(await unreached(page)).toEqual([]);
  });
});

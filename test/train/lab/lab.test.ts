/** The lab in a real browser: each page loads, numbers are Node's, the keyboard, a phone, axe-core. One browser for all of it. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { examples } from '../../../train/lab/machine/examples.ts';
import type { LeafReport, Ran } from '../../../train/lab/machine/function.ts';
import { lessons } from '../../../train/lab/machine/lessons.ts';
import type { Tried } from '../../../train/lab/machine/op.ts';
import type { StepAsk, Stepped } from '../../../train/lab/machine/step.ts';
import { allOps } from '../../../train/lab/texts.ts';
import { openTrace } from '../../../train/trace/format.ts';
import { main as trace } from '../../../train/trace.ts';
import { browserThere } from '../../support/browser.ts';
import { runCommand } from '../../support/commands.ts';
import { dropFiles } from '../../support/dropped.ts';
import { axeFaults, type Call, drawn, inNode, inWorker, type OpenedLab, openLab, visit } from '../../support/lab.ts';
import { longRows, longTest } from '../../support/long.ts';
import { scratch } from '../../support/scratch.ts';
import { log, out, prepare, start } from '../../support/small-runs.ts';

const names = allOps.map(({ name }) => name);
/** of the ops one of n, in the short form */
const every = (n: number) => (name: string) => names.indexOf(name) % n === 0;
const asks = names.map((op): Call => ['tryOp', { op, seed: 3 }]);
/** values of an answer without what depends on the clock or the machine */
const numbers = (answer: unknown) => {
  const { operands, results, gradients } = (answer as { value: Tried }).value;
  return { operands, results, gradients };
};

/** the step that is recorded before the tests, on its page */
const RECORDED = '#/step?trace=one%2Ftrace-step-1.safetensors';

/** what is worked out in the page may take a while beside other work */
const soon = <T>(what: () => Promise<T>) => expect.poll(what, { timeout: 30_000 });

describe.runIf(browserThere)('the lab in a browser', () => {
  let lab: OpenedLab;
  beforeAll(async () => {
    // a run of one step on a tiny base, and its step recorded
    await prepare();
    const run = await start('one', '--steps 1 --save-every 1 --obedience 0 --samples 0 --validation-pairs 1');
    expect(run.code, run.stderr).toBe(0);
    expect((await runCommand(trace, [out('one'), '--step', '1'])).stderr).toBe('');
    lab = await openLab({ runs: join(scratch, 'runs') });
  }, 400_000);
  afterAll(() => lab?.close());

  test('weighs at most 1 MB gzipped', () => {
    expect(lab.built.files).toBeGreaterThan(names.length);
    expect(lab.built.gzipped).toBeLessThan(1e6);
  });

  test("each op's page loads and its sample runs, asking no other host for anything", async () => {
    const { page, faults } = await visit(lab, '#/op');
    expect(await page.locator('.ops li').count()).toBe(names.length);
    const wrong: unknown[] = [];
    for (const name of longRows(names, every(10))) {
      const hash = `#/op/${name}`;
      await page.evaluate(`location.hash = ${JSON.stringify(hash)}`);
      await drawn(page, hash);
      const found = await page.evaluate(`({
        title: document.querySelector('h1').textContent,
        errors: [...document.querySelectorAll('.error:not([hidden]), .wrong')].map((e) => e.textContent),
        rules: document.querySelectorAll('.code').length,
        ran: document.querySelector('[data-ran]')?.dataset.ran ?? '',
        results: document.querySelectorAll('.tensors [role=gridcell]').length,
      })`);
      const { title, errors, rules, ran, results } = found as {
        title: string;
        errors: string[];
        rules: number;
        ran: string;
        results: number;
      };
      const fine = title === name && errors.length === 0 && rules > 1 && results > 0 && /WASM SIMD|reference/.test(ran);
      if (!fine) wrong.push(found);
    }
    expect(wrong).toEqual([]);
    expect(faults).toEqual([]);
    await page.close();
  });

  test("samples and gradients are Node's to the bit on the reference and on wasm with threads, and right on WebGPU", async () => {
    const { page } = await visit(lab, '');
    const shown = longRows(names, every(8));
    const asked = (of: readonly string[]) => of.map((name) => asks[names.indexOf(name)]!);
    const calls: readonly Call[] = [['open', 'cpu'], ...asked(shown), ['open', 'wasm'], ...asked(shown)];
    const [here, there] = [await inNode(lab, calls), await inWorker(page, calls)];
    expect(there[0]).toMatchObject({ value: { name: 'cpu' } });
    const wasm = shown.length + 1;
    const cores = (await page.evaluate('navigator.hardwareConcurrency')) as number;
    const threads = cores > 1 ? `${cores} threads` : '1 thread';
    expect(there[wasm]).toMatchObject({ value: { device: `WASM SIMD, ${threads}` } });
    for (const [i, name] of shown.entries())
      for (const at of [1 + i, wasm + 1 + i]) expect(numbers(there[at]), name).toEqual(numbers(here[at]));

    const some = longRows(shown, every(16));
    const [opened, ...gpu] = await inWorker(page, [['open', 'webgpu'], ...asked(some)]);
    expect(opened).toMatchObject({ value: { name: 'webgpu' } });
    for (const [i, name] of some.entries()) {
      const [got, want] = [numbers(gpu[i]), numbers(here[1 + shown.indexOf(name)])];
      for (const kind of ['results', 'gradients'] as const)
        for (const [k, x] of want[kind].entries()) {
          const largest = Math.max(1, ...(x?.values ?? []).filter(Number.isFinite).map(Math.abs));
          for (const [j, v] of (x?.values ?? []).entries())
            if (!Object.is(got[kind][k]!.values[j], v))
              // rounding of single precision, some operations deep
              expect(Math.abs(got[kind][k]!.values[j]! - v), `${name} ${kind}`).toBeLessThan(1e-5 * largest);
        }
    }
    await page.close();
  });

  test('an edited cell, a nudged one and a link: numbers of the rule and of the difference agree', async () => {
    const { page } = await visit(lab, '#/op/mul?a=2,3,4,5,6,7&b=1,2,3,4,5,6&g.0=1,1,1,1,1,1&nudge=a.2');
    const grid = (name: string) => page.locator(`[aria-label^="${name},"] [data-element]`);
    expect(await grid('y').allTextContents()).toEqual(['2', '6', '12', '20', '30', '42']);
    const table = page.locator('[data-rule]');
    expect(Number(await table.getAttribute('data-rule'))).toBe(3);
    expect(Number(await table.getAttribute('data-difference'))).toBeCloseTo(3, 9);
    await grid('a').nth(2).fill('10');
    await grid('a').nth(2).press('Enter');
    await soon(() => grid('y').allTextContents()).toEqual(['2', '6', '30', '20', '30', '42']);
    await soon(() => page.evaluate('location.hash')).toContain('a=2,3,10,5,6,7');
    // what a result follows lights up: one element of each operand
    await grid('y').nth(4).hover();
    await soon(() => page.locator('.fed').count()).toBe(2);
    expect(await page.locator('.fed').first().getAttribute('aria-label')).toBe('a[2, 0]');
    // a number that is none is refused in its cell
    await grid('a').nth(0).fill('x');
    await grid('a').nth(0).press('Tab');
    expect(await grid('a').nth(0).getAttribute('aria-invalid')).toBe('true');
    await page.close();
  });

  test('mapped operands: the rewritten graph follows the boxes', async () => {
    const { page } = await visit(lab, '#/op/dot?map=10');
    const graph = page.locator('[data-error] pre');
    const before = await graph.textContent();
    expect(before).toContain('dot(');
    await page.locator('.checks input').nth(1).check();
    await soon(() => graph.textContent()).not.toBe(before);
    expect(await page.locator('[data-error] .right').count()).toBe(1);
    await page.close();
  });

  test('says which backend runs, and goes on without WebGPU', async () => {
    const { page } = await visit(lab, '#/op/exp');
    await page.getByLabel('Backend').selectOption('cpu');
    await soon(() => page.locator('.device').getAttribute('data-backend')).toBe('cpu');
    await page.getByLabel('Backend').selectOption('webgpu');
    await soon(() => page.locator('.device').getAttribute('data-backend')).toBe('webgpu');
    await soon(() => page.locator('[data-ran]').textContent()).toMatch(/ran on .*SwiftShader/i);
    await page.evaluate(`localStorage.clear()`);
    await page.close();

    const bare = await lab.browser.newPage({ bypassCSP: true });
    await bare.route('**/machine.js', async (route) => {
      const answer = await route.fetch();
      await route.fulfill({ response: answer, body: `delete WorkerNavigator.prototype.gpu;${await answer.text()}` });
    });
    await bare.goto(`${lab.address}#/op/exp`);
    await drawn(bare, '#/op/exp');
    expect(await bare.locator('.device').textContent()).toContain('no WebGPU');
    expect(await bare.locator('[data-ran]').textContent()).toContain('WASM SIMD');
    await bare.close();
  });

  test('an unknown op and a broken address are told in a line', async () => {
    const { page } = await visit(lab, '#/op/dott');
    expect(await page.locator('.error').textContent()).toContain('unknown op "dott"');
    await page.close();
  });

  test("functions: values and gradients are Node's, and right", async () => {
    const { page, faults } = await visit(lab, '');
    const calls: readonly Call[] = [
      ['open', 'wasm'],
      ...examples.map(({ source }): Call => ['runWritten', source]),
      ...examples.map(({ source }): Call => ['checkWritten', source, []]),
    ];
    const [here, there] = [await inNode(lab, calls), await inWorker(page, calls)];
    for (const [i, { id }] of examples.entries()) {
      const [got, want] = [there, here].map((said) => (said[1 + i] as { value: Ran }).value) as [Ran, Ran];
      expect(got.value, id).toBe(want.value);
      expect(got.gradients, id).toEqual(want.gradients);
      expect(got.stages.map(({ name }) => name).slice(-3), id).toEqual(['simplified', 'fused into kernels', 'planned']);
      const leaves = (there[1 + examples.length + i] as { value: LeafReport[] }).value;
      expect(
        leaves.map(({ path, report }) => [path, report.ok]),
        id,
      ).toEqual(got.gradients.map(({ path }) => [path || 'params', true]));
    }
    // softsign: d/dx Σ s² = 2·s/(1 + |x|)²
    const own = (there[1 + examples.findIndex(({ id }) => id === 'own-op')] as { value: Ran }).value;
    for (const [i, x] of [-2, -0.5, 0.25, 3].entries())
      expect(own.gradients[0]!.values[i]).toBeCloseTo((2 * x) / (1 + Math.abs(x)) ** 3, 6);
    expect(faults).toEqual([]);
    await page.close();
  });

  test('a function of one’s own: drawn node by node, its stages by a slider, its mistakes with their line', async () => {
    const { page } = await visit(lab, '#/function/logistic');
    const f = await page.locator('[data-value]').getAttribute('data-value');
    expect(Number(f)).toBeGreaterThan(0);
    // what the text form counts
    const nodes = async () => Number(/(\d+) nodes/.exec((await page.locator('.code').textContent()) ?? '')?.[1]);
    expect(await page.locator('.drawing .node').count()).toBe(await nodes());
    expect(await page.locator('.drawing .by').count()).toBeGreaterThan(10);
    const stage = page.getByLabel('Stage');
    await stage.focus();
    const seen: unknown[] = [];
    for (let i = 0; i < 6; i++) {
      seen.push(await page.locator('[data-stage]').getAttribute('data-stage'));
      await page.keyboard.press('ArrowRight');
    }
    expect(seen).toEqual([
      'traced, of one sample',
      'grad',
      'vmap(grad)',
      'simplified',
      'fused into kernels',
      'planned',
    ]);
    expect(await page.locator('.life').count()).toBeGreaterThan(1);
    expect(await page.evaluate('location.hash')).toBe('#/function/logistic?stage=5');

    const text = page.getByLabel('Your function');
    const error = page.locator('.error:not([hidden])');
    const says = async (source: string, line: RegExp) => {
      await text.fill(source);
      await text.press('Control+Enter');
      await soon(() => error.textContent({ timeout: 5000 }).catch(() => '')).toMatch(line);
    };
    // as in Node: the rule, the operands, the line
    await says(
      'const a = tensor([[1, 2]]);\nconst f = (x) =>\n  sum(add(a, x));\nreturn { f, params: tensor([1, 2, 3]) };',
      /^add: .*\n {2}a {2}f32\[1, 2\]\n {2}b {2}f32\[3\] {3}params\n {2}at your-function\.js:3$/,
    );
    await says('return { f: (x) => x, params: tensor([1, 2]) };', /f returns f32\[2\], expected a scalar/);
    await says('return { f: (x) => x };', /expected return \{ f, params \}/);
    await says('return { f: (x) => x, params: { a: 3 } };', /params\.a is no tensor/);
    await says('\nnothing();\nreturn 1;', /ReferenceError: nothing is not defined\n {2}at your-function\.js:2/);
    await says('return {', /SyntaxError/);
    // one that never ends is stopped, and the next runs
    await text.fill('for (;;);');
    await page.getByRole('button', { name: 'Run' }).click();
    await page.getByRole('button', { name: 'Stop' }).click();
    await soon(() => error.textContent()).toBe('stopped');
    await text.fill('return { f: (x) => mul(x, x), params: tensor(3) };');
    await page.getByRole('button', { name: 'Run' }).click();
    await soon(() => page.locator('[data-value]').getAttribute('data-value')).toBe('9');
    await page.close();
  });

  test('a wrong derivative is called wrong, also out of a link', async () => {
    const { source } = examples.find(({ id }) => id === 'own-op')!;
    const wrong = encodeURIComponent(source.replace('mul(g, mul(d, d))', 'mul(g, d)'));
    expect(wrong).toContain('mul(g%2C%20d)');
    const { page } = await visit(lab, `#/check/own-op?source=${wrong}`);
    expect(await page.locator('[data-ok]').getAttribute('data-ok')).toBe('false');
    expect(Number(await page.locator('[data-leaf]').getAttribute('data-error'))).toBeGreaterThan(0.01);
    await page.evaluate(`location.hash = '#/check/own-op'`);
    await drawn(page, '#/check/own-op');
    expect(await page.locator('[data-ok]').getAttribute('data-ok')).toBe('true');
    expect(await page.locator('.graph svg').count()).toBe(1);
    await page.close();
  });

  test("each lesson holds in the page, with Node's numbers", async () => {
    const { page, faults } = await visit(lab, '#/lesson');
    expect(await page.locator('.pages li').count()).toBe(lessons.length);
    // each third, in the short form
    const shown = longRows(lessons, (lesson) => lessons.indexOf(lesson) % 3 === 0);
    const calls: readonly Call[] = [['open', 'wasm'], ...shown.map(({ source }): Call => ['runLesson', source])];
    const here = await inNode(lab, calls);
    expect(await inWorker(page, calls)).toEqual([expect.anything(), ...here.slice(1)]);
    for (const { id } of shown) {
      await page.evaluate(`location.hash = '#/lesson/${id}'`);
      await drawn(page, `#/lesson/${id}`);
      expect(await page.locator('.error:not([hidden])').allTextContents(), id).toEqual([]);
      expect(await page.locator('[data-lesson]').getAttribute('data-lesson'), id).toBe('true');
      expect(await page.locator('[data-ok]').count(), id).toBeGreaterThan(2);
    }
    // one that says something false is seen to
    const wrong = lessons[0]!.source.replace('dx, matmul(g, swap(W)), 0', 'dx, matmul(g, swap(mul(W, 1.01))), 0');
    expect(wrong).not.toBe(lessons[0]!.source);
    await page.getByLabel('The lesson’s program').fill(wrong);
    await page.getByRole('button', { name: 'Run' }).click();
    await soon(() => page.locator('[data-lesson]').getAttribute('data-lesson')).toBe('false');
    expect(faults).toEqual([]);
    await page.close();
  });

  longTest(
    "a step's losses and Fisher sums are Node's to the bit",
    async () => {
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
      await page.close();
    },
    300_000,
  );

  test('a step on its page: a link leads to the sample, λ decides anew, a module is looked into', async () => {
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
    await page.close();
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
    await page.close();
  }, 120_000);

  const pages = ['', '#/op', '#/op/softmax', '#/function/xor', '#/check/xor', '#/lesson/expansion', '#/train'];
  test.each(longRows(pages, (hash) => ['', '#/op/softmax', '#/function/xor', '#/train'].includes(hash)))(
    '%s: axe-core finds nothing, light and dark; nothing sticks out on a phone',
    async (hash) => {
      const { page } = await visit(lab, hash);
      expect(await axeFaults(page)).toEqual([]);
      await page.emulateMedia({ colorScheme: 'dark' });
      expect(await axeFaults(page, ['color-contrast'])).toEqual([]);
      await page.setViewportSize({ width: 390, height: 844 });
      expect(await page.evaluate('checks.fits(390)')).toMatchObject({ width: 390, out: [] });
      await page.close();
    },
  );

  test.each(['#/op/dot', '#/train', '#/runs?show=one', `${RECORDED}&block=unet.conv_in`])(
    '%s: the keyboard reaches every control',
    async (hash) => {
      const { page } = await visit(lab, hash);
      // panels of a run come after the page
      if (hash.startsWith('#/runs')) await page.waitForSelector('[data-part="head"]');
      expect(await unreached(page)).toEqual([]);
      if (hash === '#/op/dot') {
        // arrows inside a tensor
        await page.locator('[aria-label="a[0, 0, 0]"]').focus();
        await page.keyboard.press('ArrowDown');
        expect(await page.evaluate('document.activeElement.ariaLabel')).toBe('a[0, 1, 0]');
      }
      await page.close();
    },
  );
});

/** Controls that no press of Tab comes to, from the page's first to its last. One that was drawn anew counts by its words. */
async function unreached(page: Page): Promise<readonly string[]> {
  const wanted = (await page.evaluate(`(() => {
    const all = document.querySelectorAll('a[href], button, select, input, textarea, summary, [tabindex="0"]');
    globalThis.wanted = [...all].filter((e) => e.tabIndex >= 0 && !e.disabled && e.checkVisibility());
    globalThis.words = (e) => e.outerHTML.slice(0, 160);
    globalThis.seen = new Set();
    return wanted.length;
  })()`)) as number;
  expect(wanted).toBeGreaterThan(10);
  for (let i = 0; i < wanted + 5; i++) {
    await page.keyboard.press('Tab');
    await page.evaluate('seen.add(document.activeElement).add(words(document.activeElement))');
  }
  const left = 'wanted.filter((e) => !seen.has(e) && (e.isConnected || !seen.has(words(e)))).map(words)';
  return (await page.evaluate(left)) as string[];
}
/** Sizes of gradients as the blocks of the drawing carry them. */
const sizesOf = (units: readonly unknown[]): number[] =>
  units.map((u) => Number((u as { dataset: Record<string, string> }).dataset.size));

/** The lab's pages in a real browser: each loads, numbers are Node's, the keyboard, a phone, axe-core. One page for most. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { examples } from '../../../train/lab/machine/examples.ts';
import type { LeafReport, Ran } from '../../../train/lab/machine/function.ts';
import { lessons } from '../../../train/lab/machine/lessons.ts';
import type { Tried } from '../../../train/lab/machine/op.ts';
import { allOps } from '../../../train/lab/texts.ts';
import { browserThere } from '../../support/browser.ts';
import {
  axeFaults,
  type Call,
  drawn,
  inNode,
  inWorker,
  type OpenedLab,
  openLab,
  unreached,
  visit,
  withWebgpu,
} from '../../support/lab.ts';
import { LONG, longRows } from '../../support/long.ts';

const names = allOps.map(({ name }) => name);
/** of the ops one of n, in the short form */
const every = (n: number) => (name: string) => names.indexOf(name) % n === 0;
const asks = names.map((op): Call => ['tryOp', { op, seed: 3 }]);
/** values of an answer without what depends on the clock or the machine */
const numbers = (answer: unknown) => {
  const { operands, results, gradients } = (answer as { value: Tried }).value;
  return { operands, results, gradients };
};

/** what is worked out in the page may take a while beside other work */
const soon = <T>(what: () => Promise<T>) => expect.poll(what, { timeout: 30_000 });

describe.runIf(browserThere)('the lab in a browser', () => {
  let lab: OpenedLab;
  beforeAll(async () => {
    lab = await openLab();
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
    for (const name of longRows(names, every(20))) {
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
  });

  test('mapped operands: the rewritten graph follows the boxes', async () => {
    const { page } = await visit(lab, '#/op/dot?map=10');
    const graph = page.locator('[data-error] pre');
    const before = await graph.textContent();
    expect(before).toContain('dot(');
    await page.locator('.checks input').nth(1).check();
    await soon(() => graph.textContent()).not.toBe(before);
    expect(await page.locator('[data-error] .right').count()).toBe(1);
  });

  test('an unknown op and a broken address are told in a line', async () => {
    const { page } = await visit(lab, '#/op/dott');
    expect(await page.locator('.error').textContent()).toContain('unknown op "dott"');
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
  });

  test('a wrong derivative is called wrong, also out of a link', async () => {
    const { source } = examples.find(({ id }) => id === 'own-op')!;
    const wrong = encodeURIComponent(source.replace('mul(g, mul(d, d))', 'mul(g, d)'));
    expect(wrong).toContain('mul(g%2C%20d)');
    const { page } = await visit(lab, `#/check/own-op?source=${wrong}`, { fresh: true });
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
  });

  const pages = ['', '#/op', '#/op/softmax', '#/function/xor', '#/check/xor', '#/lesson/expansion', '#/train'];
  test.each(longRows(pages, (hash) => hash === '#/op/softmax'))(
    '%s: axe-core finds nothing, light and dark; nothing sticks out on a phone',
    async (hash) => {
      const { page } = await visit(lab, hash);
      expect(await axeFaults(page)).toEqual([]);
      await page.emulateMedia({ colorScheme: 'dark' });
      expect(await axeFaults(page, ['color-contrast'])).toEqual([]);
      await page.setViewportSize({ width: 390, height: 844 });
      expect(await page.evaluate('checks.fits(390)')).toMatchObject({ width: 390, out: [] });
    },
  );

  const controls = ['', '#/op', '#/op/dot', '#/function/xor', '#/check/xor', '#/lesson/expansion', '#/train', '#/step'];
  test.each(longRows(controls, (hash) => ['#/op/dot', '#/train'].includes(hash)))(
    '%s: the keyboard reaches every control',
    async (hash) => {
      const { page } = await visit(lab, hash);
      expect(await unreached(page)).toEqual([]);
      if (hash === '#/op/dot') {
        // arrows inside a tensor
        await page.locator('[aria-label="a[0, 0, 0]"]').focus();
        await page.keyboard.press('ArrowDown');
        expect(await page.evaluate('document.activeElement.ariaLabel')).toBe('a[0, 1, 0]');
      }
    },
  );

  // another browser, whose GPU is software
  describe.runIf(LONG)('with WebGPU', () => {
    let gpu: OpenedLab;
    beforeAll(async () => {
      gpu = await withWebgpu(lab);
    }, 120_000);
    afterAll(() => gpu?.close());

    test("samples and gradients are Node's to the bit on the reference and on wasm with threads, and right on WebGPU", async () => {
      const { page } = await visit(gpu, '');
      const shown = longRows(names, every(12));
      const asked = (of: readonly string[]) => of.map((name) => asks[names.indexOf(name)]!);
      const calls: readonly Call[] = [['open', 'cpu'], ...asked(shown), ['open', 'wasm'], ...asked(shown)];
      const [here, there] = [await inNode(gpu, calls), await inWorker(page, calls)];
      expect(there[0]).toMatchObject({ value: { name: 'cpu' } });
      const wasm = shown.length + 1;
      const cores = (await page.evaluate('navigator.hardwareConcurrency')) as number;
      const threads = cores > 1 ? `${cores} threads` : '1 thread';
      expect(there[wasm]).toMatchObject({ value: { device: `WASM SIMD, ${threads}` } });
      for (const [i, name] of shown.entries())
        for (const at of [1 + i, wasm + 1 + i]) expect(numbers(there[at]), name).toEqual(numbers(here[at]));

      const some = longRows(shown, every(24));
      const [opened, ...onGpu] = await inWorker(page, [['open', 'webgpu'], ...asked(some)]);
      expect(opened).toMatchObject({ value: { name: 'webgpu' } });
      for (const [i, name] of some.entries()) {
        const [got, want] = [numbers(onGpu[i]), numbers(here[1 + shown.indexOf(name)])];
        for (const kind of ['results', 'gradients'] as const)
          for (const [k, x] of want[kind].entries()) {
            const largest = Math.max(1, ...(x?.values ?? []).filter(Number.isFinite).map(Math.abs));
            for (const [j, v] of (x?.values ?? []).entries())
              if (!Object.is(got[kind][k]!.values[j], v))
                // rounding of single precision, some operations deep
                expect(Math.abs(got[kind][k]!.values[j]! - v), `${name} ${kind}`).toBeLessThan(1e-5 * largest);
          }
      }
    });

    test('says which backend runs, and goes on without WebGPU', async () => {
      // the choice is kept by the browser, for pages of the same reader
      const { page } = await visit(gpu, '#/op/exp', { fresh: true });
      await page.getByLabel('Backend').selectOption('cpu');
      await soon(() => page.locator('.device').getAttribute('data-backend')).toBe('cpu');
      await page.getByLabel('Backend').selectOption('webgpu');
      await soon(() => page.locator('.device').getAttribute('data-backend')).toBe('webgpu');
      await soon(() => page.locator('[data-ran]').textContent()).toMatch(/ran on .*SwiftShader/i);
      await page.close();

      const bare = await gpu.browser.newPage({ bypassCSP: true });
      await bare.route('**/machine.js', async (route) => {
        const answer = await route.fetch();
        await route.fulfill({ response: answer, body: `delete WorkerNavigator.prototype.gpu;${await answer.text()}` });
      });
      await bare.goto(`${gpu.address}#/op/exp`);
      await drawn(bare, '#/op/exp');
      expect(await bare.locator('.device').textContent()).toContain('no WebGPU');
      expect(await bare.locator('[data-ran]').textContent()).toContain('WASM SIMD');
      await bare.close();
    });
  });
});

/** `explain`: a page for every op of the registry whose checks pass, its source found, its kernels printed. */
import fc from 'fast-check';
import { describe, expect, it, vi } from 'vitest';
import { functions } from '../../../core/functions/catalog.ts';
import { dot, mul, registry, type Tensor, tanh, tensor } from '../../../core/index.ts';
import type { Composite, Op } from '../../../core/ir/tensor.ts';
import { checkBatch, checkVjp } from '../../../train/explain/check.ts';
import { attrsText, letForm } from '../../../train/explain/graph.ts';
import { editDistance, nearNames } from '../../../train/explain/near.ts';
import { dedent, recordSource } from '../../../train/explain/source.ts';
import { main } from '../../../train/explain.ts';
import { runCommand } from '../../support/commands.ts';

vi.setConfig({ testTimeout: 120_000 });

const explain = (...args: readonly string[]) => runCommand(main, args);
const names = [...registry.keys()];

/** Ops without operands, of integers, or that stop gradients by their nature have none. */
const derivative = (op: Op): boolean =>
  op.vjp !== 'nondifferentiable' && !['full', 'iota', 'stopGradient', 'fromHalf', 'fromNf4'].includes(op.name);

describe.each(names)('%s', (name) => {
  const op = registry.get(name)!;
  it('has a page: source, rules, kernels and passing checks', async () => {
    const { code, stdout, stderr } = await explain(name, '--backend', 'cpu');
    expect([code, stderr]).toEqual([0, '']);
    expect(stdout.startsWith(`${name}: ${op.doc}\n  ${op.formula}\n`)).toBe(true);
    // every part was found in the source, not left at its placeholder
    expect(stdout).toMatch(/; core\/(ops|fused|transforms|functions)\/[\w/]+\.ts:\d+\n/);
    expect(stdout).not.toMatch(/^ {4}–$/m);
    expect(stdout).toContain('\nshape rule\n');
    expect(stdout).not.toContain('BAD');
    if (op.kind === 'primitive' && !['fill', 'layout', 'identity'].includes(op.form.kind))
      expect(stdout).toMatch(/webgpu: (none: the webgpu backend|.*workgroups for the sample\n {6}@group\(0\))/);
    const checked = /ok +vjp (\(closed form\) )?against finite differences/.test(stdout);
    expect(checked).toBe(derivative(op));
    // a closed form is said to be one; where it does not answer for all results, the body's derivative is checked too
    expect(/ok +vjp \(closed form\) against/.test(stdout)).toBe(op.kind === 'composite' && op.vjp !== undefined);
    expect(/ok +vjp \(of the body\) against/.test(stdout)).toBe(['attention', 'norm'].includes(name));
  });
});

describe('the checks can fail', () => {
  const sigmoid = registry.get('sigmoid') as Op;
  it('on a vjp that is wrong by a factor', async () => {
    const wrong = { ...sigmoid, vjp: ([g]: readonly unknown[]) => [g] } as unknown as Op;
    const { error, tolerance } = await checkVjp(wrong, 1);
    expect(error).toBeGreaterThan(1e3 * tolerance);
    const right = await checkVjp(sigmoid, 1);
    expect(right.error).toBeLessThanOrEqual(right.tolerance);
  });
  it('on a closed form that is wrong, and not on its body', async () => {
    const attention = registry.get('attention') as Composite;
    const closed = ([g]: readonly unknown[], [q, k, v]: readonly Tensor[]) => (g ? [q, k, mul(v!, 2)] : undefined);
    const wrong = { ...attention, vjp: closed } as unknown as Op;
    const rule = await checkVjp(wrong, 1);
    expect(rule.what).toMatch(/^vjp \(closed form\)/);
    expect(rule.error).toBeGreaterThan(1e3 * rule.tolerance);
    const body = await checkVjp(wrong, 1, 'body');
    expect(body.error).toBeLessThanOrEqual(body.tolerance);
  });
  it('on a batching rule that computes something else', async () => {
    const wrong = { ...sigmoid, batch: (_size: number, [x]: readonly Tensor[]) => [tanh(x)] } as unknown as Op;
    const { error, tolerance } = await checkBatch(wrong, 1);
    expect(error).toBeGreaterThan(1e3 * tolerance);
  });
});

describe('the source', () => {
  it('is the record as written, with its comments', async () => {
    const source = await recordSource(registry.get('dot')!);
    expect(source.place).toMatch(/^core\/ops\/dot\.ts:\d+$/);
    expect(source.fields.get('vjp')).toBe(
      '// y = a·b  ⇒  da = g·bᵀ,  db = aᵀ·g\nvjp: ([g], [a, b]) => [dot(g!, swap(b!)), dot(swap(a!), g!)]',
    );
    expect(source.signatures[0]).toBe('dot(a: Tensor, b: Tensor): Tensor');
    expect(source.doc).toContain('grouped matrix product');
  });
  it('of a table row is the row and what the table makes of it', async () => {
    const source = await recordSource(registry.get('exp')!);
    expect(source.fields.get('vjp')).toBe('vjp: (g, _x, y) => [mul(g, y)]');
    expect(source.fields.get('js')).toContain('Math.exp');
    expect(source.fields.get('cpu')).toContain('integer : js;');
    expect(source.signatures[0]).toBe('exp(x: Tensor): Tensor');
    const finite = await recordSource(registry.get('isFinite')!);
    expect(finite.signatures[0]).toBe('finite(x: Tensor): Tensor');
  });
  it('of spread and built records reaches what they are made of', async () => {
    const stop = await recordSource(registry.get('stopGradient')!);
    expect(stop.fields.get('vjp')).toBe('vjp: () => [undefined]');
    expect(stop.fields.get('cpu')).toContain('const copyAll');
    const max = await recordSource(registry.get('max')!);
    expect(max.fields.get('vjp')).toContain('equal(x!, y!)');
    expect(max.fields.get('shape')).toContain('must lie within the operand');
  });
  it('keeps its shape when indentation is taken off', () => {
    expect(dedent('    a {\n      b\n\n    }')).toBe('a {\n  b\n\n}');
  });
});

describe('graphs', () => {
  it('in let form name every node once', () => {
    const [a, b] = [tensor(new Float32Array(6), [1, 2, 3]), tensor(new Float32Array(3), [1, 3, 1])];
    const y = dot(a, b);
    expect(
      letForm(
        [y, y],
        new Map([
          [a, 'a'],
          [b, 'b'],
        ]),
      ),
    ).toEqual({
      lines: ['t0 f32[1, 2, 1] = dot(a, b)'],
      results: ['t0', 't0'],
    });
    expect(letForm([a], new Map([[a, 'a']]))).toEqual({ lines: [], results: ['a'] });
  });
  it('show attributes, but no graphs inside them', () => {
    expect(attrsText({ axes: [0, 2], to: 'f32' })).toBe(' {axes: [0, 2], to: f32}');
    expect(attrsText({ holes: [tensor([1])] })).toBe('');
  });
});

describe('names', () => {
  it('near a mistyped one', () => {
    expect(nearNames('dto', names)[0]).toBe('dot');
    expect(nearNames('Soft_Max', names)[0]).toBe('softmax');
    expect(nearNames('conv2d', names)).toContain('conv');
    expect(nearNames('zzzzzz', names)).toEqual([]);
  });
  it('distance is a metric that counts one swap once', () => {
    expect([editDistance('dto', 'dot'), editDistance('', 'abc'), editDistance('kitten', 'sitting')]).toEqual([1, 3, 3]);
    const word = fc.string({ maxLength: 8, unit: fc.constantFrom('a', 'b', 'c') });
    fc.assert(
      fc.property(word, word, (a, b) => {
        expect(editDistance(a, b)).toBe(editDistance(b, a));
        expect(editDistance(a, b) === 0).toBe(a === b);
        expect(editDistance(a, b)).toBeLessThanOrEqual(Math.max(a.length, b.length));
        expect(editDistance(`${a}x`, a)).toBe(1);
      }),
    );
  });
});

describe('the command', () => {
  it('lists every op', async () => {
    const { code, stdout } = await explain('--list');
    expect(code).toBe(0);
    expect(
      stdout
        .trimEnd()
        .split('\n')
        .map((line) => line.split(' ')[0]),
    ).toEqual([...names, ...functions.keys()]);
  });
  it.each([
    ['layerNorm', 'norm'],
    ['group_norm', 'norm'],
    ['groupNormGrad', 'normGrad'],
    ['relu', 'relu'],
    ['linear', 'matmul'],
    ['ReLU', 'relu'],
    ['log_softmax', 'logSoftmax'],
  ])('finds %s under the name of its record', async (name, op) => {
    const { code, stdout } = await explain(name, '--no-kernels', '--backend', 'cpu');
    expect(code).toBe(0);
    expect(stdout.startsWith(`${op}: `)).toBe(true);
  });
  it('shows a function written in ops with its declaration, its graphs and passing checks', async () => {
    const { code, stdout } = await explain('gelu', '--no-kernels', '--backend', 'cpu');
    expect(code).toBe(0);
    expect(stdout).toMatch(/function written in ops: .*; core\/functions\/activations\.ts:\d+\n/);
    expect(stdout).toContain("gelu(x: Tensor, form: 'erf' | 'tanh' = 'erf'): Tensor");
    expect(stdout).toContain('mul(half, add(erf(mul(x, Math.SQRT1_2)), 1))');
    expect(stdout).toMatch(/ok +vjp against finite differences/);
    expect(stdout).not.toContain('BAD');
  });
  it.each([
    ['rellu', 'relu'],
    ['sofplus', 'softplus'],
    ['crossentropi', 'crossEntropy'],
    ['cholesk', 'cholesky'],
  ])('%s: did you mean %s', async (typed, meant) => {
    expect((await explain(typed)).stderr).toContain(`did you mean ${meant}`);
  });
  it('refuses an unknown op and no op in one line', async () => {
    expect(await explain('so\u001bftmax')).toMatchObject({
      code: 1,
      stderr: expect.stringMatching(/^unknown op "so\\u\{1b\}ftmax"; did you mean softmax.*\n$/),
    });
    expect(await explain()).toMatchObject({ code: 1, stderr: expect.stringMatching(/^which op\?.*\n$/) });
  });
  it('counts uses in Stable Diffusion 1.5: its U-Net has 184 linear layers, 16 attention blocks of two', async () => {
    const uses = async (name: string) =>
      Number(/(\d+) times in Stable Diffusion 1\.5's U-Net\n/.exec((await explain(name, '--no-kernels')).stdout)?.[1]);
    expect(await uses('attention')).toBe(32);
    // 184 linears and 46 convolutions of 1×1: 32 in and out of transformers, 14 shortcuts
    expect(await uses('dot')).toBe(184 + 32 + 14);
  });
  it('leaves kernels out and checks another backend when told to', async () => {
    const { stdout } = await explain('softmax', '--no-kernels', '--backend', 'wasm', '--seed', '5');
    expect(stdout).not.toContain('@group');
    expect(stdout).toMatch(/ok +wasm f32 against the reference in f64/);
  });
});

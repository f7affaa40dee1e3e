/** What must not type-check does not: records without a rule, wrong axes, scalars that are none. Checked by `tsc`. */
import { describe, expect, expectTypeOf, test } from 'vitest';
import {
  type Compiled,
  compile,
  cpuBackend,
  grad,
  mapTree,
  mul,
  sum,
  type Tensor,
  tensor,
  unflatten,
  valueAndGrad,
  vmap,
} from '../../core/index.ts';
import type { Composite, Primitive } from '../../core/ir/tensor.ts';

const common = {
  name: 'twice',
  doc: 'twice the value',
  formula: 'y = 2x',
  shape: ([x]: readonly Tensor[]) => ({ shape: x!.shape, dtype: x!.dtype }),
  sample: () => ({ operands: [{ shape: [2] }], attrs: {} }),
} as const;
const primitive = {
  ...common,
  kind: 'primitive',
  form: { kind: 'kernel' },
  vjp: ([g]) => [g],
  batch: (_size, [x]) => [x!],
  cpu: () => undefined,
} satisfies Primitive;

describe('op records', () => {
  test('a primitive needs vjp, batch, shape, form, cpu, sample, doc and formula', () => {
    expectTypeOf(primitive).toExtend<Primitive>();
    const { vjp: _vjp, ...noVjp } = primitive;
    const { batch: _batch, ...noBatch } = primitive;
    const { shape: _shape, ...noShape } = primitive;
    const { cpu: _cpu, ...noCpu } = primitive;
    const { sample: _sample, ...noSample } = primitive;
    const { formula: _formula, ...noFormula } = primitive;
    // @ts-expect-error a missing derivative is not a zero derivative
    const a: Primitive = noVjp;
    // @ts-expect-error every primitive says how it is batched
    const b: Primitive = noBatch;
    // @ts-expect-error no shape rule
    const c: Primitive = noShape;
    // @ts-expect-error no definition
    const d: Primitive = noCpu;
    // @ts-expect-error nothing for the battery to try
    const e: Primitive = noSample;
    // @ts-expect-error no formula
    const f: Primitive = noFormula;
    expect([a, b, c, d, e, f]).toHaveLength(6);
  });
  test("'nondifferentiable' is a decision, undefined and other words are none", () => {
    expectTypeOf<{ vjp: 'nondifferentiable' }['vjp']>().toExtend<Primitive['vjp']>();
    expectTypeOf<undefined>().not.toExtend<Primitive['vjp']>();
    expectTypeOf<'none'>().not.toExtend<Primitive['vjp']>();
  });
  test('a composite needs its body, may leave out closed forms, and has no cpu kernel', () => {
    const composite = { ...common, kind: 'composite', body: ([x]) => [mul(x!, 2)] } satisfies Composite;
    const { body: _body, ...noBody } = composite;
    // @ts-expect-error the meaning is missing
    const a: Composite = noBody;
    expectTypeOf(composite).toExtend<Composite>();
    expect(a).toBeDefined();
  });
});

describe('transformations keep types', () => {
  type P = { readonly w: Tensor; readonly list: readonly [Tensor, Tensor] };
  const loss = (p: P, x: Tensor): Tensor => sum(mul(p.w, x));
  test('grad gives a tree like its first argument', () => {
    expectTypeOf(grad(loss)).toEqualTypeOf<(p: P, x: Tensor) => P>();
    expectTypeOf(valueAndGrad(loss)).returns.toEqualTypeOf<[Tensor, P]>();
    // @ts-expect-error the function must return one tensor
    expectTypeOf(grad((p: P) => [p.w, p.w])).toBeFunction();
  });
  test('vmap keeps the function and wants an axis or null for every argument', () => {
    expectTypeOf(vmap(loss, [null, 0])).toEqualTypeOf<(p: P, x: Tensor) => Tensor>();
    // @ts-expect-error an axis is missing
    vmap(loss, [null]);
    // @ts-expect-error one axis too many
    vmap(loss, [null, 0, 0]);
    // @ts-expect-error undefined is neither an axis nor null
    vmap(loss, [undefined, 0]);
  });
  test('compile keeps the function', () => {
    const f = compile(loss, { backend: cpuBackend() });
    expectTypeOf(f).toEqualTypeOf<Compiled<[p: P, x: Tensor], Tensor>>();
    expectTypeOf(f).parameters.toEqualTypeOf<[p: P, x: Tensor]>();
    // @ts-expect-error x is missing
    expect(() => f({ w: tensor([1]), list: [tensor(1), tensor(2)] })).toThrow();
    expectTypeOf(f.programs).toEqualTypeOf<number>();
    const set = () => {
      // @ts-expect-error read-only
      f.programs = 3;
    };
    expect(set).toThrow(TypeError);
  });
  test('tensors are readonly; unflatten gives back the type of the tree', () => {
    const x = tensor([1, 2]);
    const set = () => {
      // @ts-expect-error immutable
      x.shape[0] = 3;
    };
    expect(set).toBeTypeOf('function');
    const p: P = { w: x, list: [x, x] };
    expectTypeOf(unflatten(p, [x, x, x])).toEqualTypeOf<P>();
    expectTypeOf(mapTree<P>((t: Tensor) => t, p)).toEqualTypeOf<P>();
  });
});

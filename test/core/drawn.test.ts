/**
 * Edges drawn from every record's own sample: integers and bools in the place of floats, axes of no size, ±0, NaN and
 * infinities. What the shape rule takes, every backend answers as the reference does, and a mapped call as a loop.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { openBackend } from '../../core/backends/open.ts';
import { functions } from '../../core/functions/catalog.ts';
import {
  type Backend,
  CoreError,
  evaluate,
  read,
  registry,
  slice,
  squeeze,
  type Tensor,
  tensor,
  vmap,
} from '../../core/index.ts';
import { type DType, entriesOf, isFloat, isPacked } from '../../core/ir/dtype.ts';
import type { Attrs, Op, OperandSample, Sample } from '../../core/ir/tensor.ts';
import { apply, cpu, picker, rng, values } from '../support/gradcheck.ts';
import { longRows } from '../support/long.ts';

const ops = [...registry.values()];
const written = [...functions.values()] as unknown as readonly Op[];
/** closed bodies hold tensors of their own dtype, so nothing can be put in their place */
const free = (op: Op): boolean => !('holes' in (op.sample((_lo, hi) => hi) as Sample<Attrs>).attrs);
const all = [...ops, ...written].filter(free);

interface Drawn {
  readonly inputs: readonly Tensor[];
  readonly sample: Sample<Attrs>;
}
const drawnFrom = (sample: Sample<Attrs>, random: () => number): Drawn => ({
  sample,
  inputs: sample.operands.map((o) => tensor(values(o, random), o.shape, o.dtype)),
});
const sampleOf = (op: Op, seed: number): Sample<Attrs> =>
  op.sample(picker(rng(seed * 7919 + op.name.length * 31 + op.name.charCodeAt(0)))) as Sample<Attrs>;
const isReal = (o: OperandSample): boolean => o.dtype === undefined || isFloat(o.dtype);

/** whole numbers or truth values where the sample has floats */
function ofDtype(op: Op, dtype: 'i32' | 'bool', seed: number): Drawn {
  const { operands, attrs } = sampleOf(op, seed);
  const range = dtype === 'bool' ? ([0, 2] as const) : ([-3, 4] as const);
  const typed = operands.map((o): OperandSample => (isReal(o) ? { shape: o.shape, dtype, range } : o));
  const given = Object.entries(attrs).map(([k, v]) => [k, v === 'f32' ? dtype : k === 'value' ? 1 : v]);
  return drawnFrom({ operands: typed, attrs: Object.fromEntries(given) as Attrs }, rng(seed + 5));
}
/** every axis of one size has none: sizes that belong together are equal in a sample, and some that do not */
function emptied(op: Op, seed: number): Drawn {
  const { operands, attrs } = sampleOf(op, seed);
  const sizes = [...new Set(operands.flatMap((o) => o.shape))];
  const gone = sizes[seed % Math.max(1, sizes.length)] ?? -1;
  const shrink = (shape: readonly number[]): number[] => shape.map((n) => (n === gone ? 0 : n));
  const given = Object.entries(attrs).map(([k, v]) => [k, ['shape', 'stop', 'size'].includes(k) ? shrink(v) : v]);
  const smaller = operands.map(({ make: _, ...o }) => ({ ...o, shape: shrink(o.shape) }));
  return drawnFrom({ operands: smaller, attrs: Object.fromEntries(given) as Attrs }, rng(seed + 5));
}
const SPECIAL = [0, -0, 1, -2.5, Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, 0.75];
function special(op: Op, seed: number): Drawn {
  const sample = sampleOf(op, seed);
  const random = rng(seed + 5);
  const inputs = sample.operands.map((o) => {
    const list = values(o, random);
    return tensor(
      isReal(o) ? list.map(() => SPECIAL[Math.floor(random() * SPECIAL.length)]!) : list,
      o.shape,
      isReal(o) ? 'f32' : o.dtype,
    );
  });
  return { sample, inputs };
}

/** the results, or undefined where the shape rule refuses the operands */
function accepted(op: Op, { inputs, sample }: Drawn): readonly Tensor[] | undefined {
  try {
    return apply(op, inputs, sample.attrs);
  } catch (error) {
    if (error instanceof CoreError) return undefined;
    throw error;
  }
}
const numbersOf = async (t: Tensor): Promise<number[]> => Array.from(await read(t));
const close = (got: number, want: number, dtype: DType): boolean =>
  Object.is(got, want) || got === want || (isFloat(dtype) && Math.abs(got - want) <= 2e-5 * (1 + Math.abs(want)));
async function compare(about: string, got: readonly Tensor[], want: readonly Tensor[]): Promise<void> {
  for (const [k, t] of want.entries()) {
    const [mine, right] = [await numbersOf(got[k]!), await numbersOf(t)];
    expect(mine.length, about).toBe(right.length);
    const off = right.findIndex((w, i) => !close(mine[i]!, w, t.dtype));
    if (off >= 0) expect.fail(`${about}, result ${k}[${off}]: ${mine[off]} against ${right[off]}`);
  }
}

/** infinities and NaN meet rounds of products there, in another order on every backend */
const summed =
  /^(dot|conv|convInput|convKernel|attention|attentionGrad|norm|normGrad|cholesky|qr|solve|eigh|svd|triangularSolve)$/;
const kinds: readonly (readonly [string, (op: Op, seed: number) => Drawn, (op: Op) => boolean, least: number])[] = [
  ['integers', (op, seed) => ofDtype(op, 'i32', seed), () => true, 60],
  ['bools', (op, seed) => ofDtype(op, 'bool', seed), () => true, 30],
  ['axes of no size', emptied, () => true, 60],
  ['±0, NaN and infinities', special, (op) => !summed.test(op.name) && !written.includes(op), 20],
];

describe.each(longRows(['wasm', 'webgpu'] as const, (name) => name === 'wasm'))('%s', { timeout: 120_000 }, (name) => {
  let backend: Backend;
  beforeAll(async () => {
    backend = await openBackend(name, { threads: 1 });
  });
  afterAll(() => backend.close());
  test.each(kinds)('%s: as the reference', async (kind, draw, takes, least) => {
    let tried = 0;
    for (const op of (name === 'wasm' ? all : ops.filter(free)).filter(takes)) {
      const drawn = draw(op, 1);
      const outs = accepted(op, drawn);
      if (!outs) continue;
      await compare(`${op.name} of ${kind}`, evaluate([...outs], backend), evaluate([...outs], cpu));
      tried++;
    }
    expect(tried).toBeGreaterThan(name === 'wasm' ? least : least / 4);
  });
});

test.each(kinds)('%s: a mapped call is a loop', async (kind, draw, takes) => {
  for (const op of all.filter(takes)) {
    const drawn = draw(op, 2);
    const { operands, attrs } = drawn.sample;
    if (operands.length === 0 || !accepted(op, drawn)) continue;
    const many = drawn.inputs.map((x, i) => {
      const shape = [2, ...x.shape];
      const random = rng(i + 3);
      const list = kind.startsWith('±') && isReal(operands[i]!) ? [] : values({ ...operands[i]!, shape }, random);
      const size = shape.reduce((a, b) => a * b, 1);
      return tensor(
        list.length === entriesOf(x.dtype, size)
          ? isPacked(x.dtype)
            ? Uint32Array.from(list)
            : list
          : Array.from({ length: size }, () => SPECIAL[Math.floor(random() * SPECIAL.length)]!),
        shape,
        x.dtype,
      );
    });
    const mapped = vmap((...xs: Tensor[]) => apply(op, xs, attrs) as Tensor[])(...many);
    for (const b of [0, 1]) {
      const one = (x: Tensor): Tensor => squeeze(slice(x, { axis: 0, start: b, stop: b + 1 }), 0);
      await compare(
        `${op.name} of ${kind}, sample ${b}`,
        evaluate(mapped.map(one), cpu),
        evaluate([...apply(op, many.map(one), attrs)], cpu),
      );
    }
  }
});

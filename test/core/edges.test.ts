/** Inputs at the edges: what every backend answers alike, against plain JavaScript. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { openBackend } from '../../core/backends/open.ts';
import {
  add,
  alias,
  attention,
  type Backend,
  cast,
  concat,
  conv,
  cos,
  div,
  dot,
  evaluate,
  expandTo,
  full,
  gather,
  grad,
  less,
  log,
  max,
  maximum,
  mean,
  minimum,
  mul,
  neg,
  ones,
  pad,
  pow,
  recip,
  reshape,
  scatterAdd,
  sin,
  slice,
  softmax,
  squeeze,
  stack,
  sub,
  sum,
  type Tensor,
  take,
  takeAlong,
  tensor,
  vmap,
  zeros,
} from '../../core/index.ts';
import type { DType } from '../../core/ir/dtype.ts';
import { numbers, rng } from '../support/gradcheck.ts';
import { longRows } from '../support/long.ts';

const f = (v: readonly number[], shape: readonly number[] = [v.length]) => tensor(v, shape);
const i32 = (v: readonly number[], shape: readonly number[] = [v.length]) => tensor(v, shape, 'i32');
const S = {
  stride: [1, 1],
  pad: [
    [0, 0],
    [0, 0],
  ],
  groups: 1,
} as const;
const x23 = f([1, 2, 3, 4, 5, 6], [2, 3]);

/** more than a WebGPU dispatch has workgroups on an axis */
const MANY = 70_000;
const many = ones([1, 1, 1, MANY]);

/** scores of the first row are all −∞, of the second 0 */
const nan = Number.NaN;
const gazes = f([3e38, 3e38, 0, 0], [1, 2, 2]);
const blind = f([-2, -2, -2, -2], [1, 2, 2]);
const seen = f([5, 6, 6, 7], [1, 2, 2]);

/** the same in heads of four numbers */
const wide = (x: Tensor) =>
  pad(x, [
    [0, 0],
    [0, 0],
    [0, 2],
  ]);
/** keys of which the first scores −∞ against q = [3, 0, 0, 0], the second 0 */
const hidden = f([-3e38, 0, 0, 0, 0, 0, 0, 0], [1, 2, 4]);

type Edge = readonly [name: string, build: () => Tensor, want: readonly number[]];
const random = rng(5);
const word = () => Math.floor(random() * 2 ** 32) | 0;
const words = Array.from({ length: 23 }, word);
const others = Array.from({ length: 23 }, (_, i) => (i % 7 === 0 ? 0 : i % 5 === 0 ? -1 : word() >> (i % 29)));
words[5] = -(2 ** 31);
const product = (m: number, k: number, n: number) =>
  Array.from({ length: m * n }, (_, at) => {
    let total = 0;
    for (let p = 0; p < k; p++)
      total = (total + Math.imul(words[(Math.floor(at / n) * k + p) % 23]!, others[(p * n + (at % n)) % 23]!)) | 0;
    return total;
  });
const repeated = (from: readonly number[], n: number) => Array.from({ length: n }, (_, i) => from[i % from.length]!);
const big = [
  65537,
  1e5,
  730791,
  910642624,
  1e10,
  -730791,
  -1e10,
  5e7,
  2 ** 40,
  3e20,
  1e30,
  3.4e38,
  -(2 ** 40),
  -3e20,
].map(Math.fround);
const small = [1e-45, 1e-40, 3e-39, 1.1754943508e-38, 0, -0, -1e-40].map(Math.fround);
const outside = [3e9, -3e9, 1e20, -1e20, Number.NaN, Infinity, -Infinity, 2147483520, -2147483648, 1.9, -1.9, 4e9];
const clamp = (x: number, low: number, high: number) =>
  Number.isNaN(x) ? 0 : Math.max(low, Math.min(high, Math.trunc(x)));
/** two rows that end with one number beside whole vectors */
const five = f([1, 2, 3, 4, 5, 6, 7, 8, 9, 10], [2, 5]);
const fifths = [0, 5].map((from) => [1, 2, 3, 4, 5].reduce((s, i) => s + 1 / (from + i - 11), 0));
const pairs = Array.from({ length: 12 }, (_, i) => repeated([1, 2, 3], 24)[i]! + repeated([1, 2, 3], 24)[i + 12]!);
const sevens = new Array<number>(64).fill(7);
const beside = Array.from({ length: 40 }, (_, i) => (i < 20 ? -1 - i : i - 17));
/** a row with NaN in the middle, a row without */
const sparse = Array.from({ length: 42 }, (_, i) => (i === 9 ? Number.NaN : i % 21));
const u32 = (v: readonly number[]) => tensor(Uint32Array.from(v, (x) => x >>> 0));

const edges: readonly Edge[] = [
  ['i32 products modulo 2³²', () => mul(i32(words), i32(others)), words.map((x, i) => Math.imul(x, others[i]!))],
  ['u32 products modulo 2³²', () => mul(u32(words), u32(others)), words.map((x, i) => Math.imul(x, others[i]!) >>> 0)],
  ['i32 sums modulo 2³²', () => add(i32(words), i32(others)), words.map((x, i) => (x + others[i]!) | 0)],
  ['i32 negation', () => neg(i32(words)), words.map((x) => -x | 0)],
  [
    'i32 quotients, n/0 = 0',
    () => div(i32(words), i32(others)),
    words.map((x, i) => (others[i] ? (x / others[i]!) | 0 : 0)),
  ],
  ['−2³¹/−1', () => div(i32([-(2 ** 31)]), i32([-1])), [-(2 ** 31)]],
  [
    'u32 quotients',
    () => div(u32(words), u32(others)),
    words.map((x, i) => (others[i] ? ((x >>> 0) / (others[i]! >>> 0)) >>> 0 : 0)),
  ],
  ['less of i32', () => less(i32(words), i32(others)), words.map((x, i) => Number(x < others[i]!))],
  ['less of u32', () => less(u32(words), u32(others)), words.map((x, i) => Number(x >>> 0 < others[i]! >>> 0))],
  ['maximum of i32', () => maximum(i32(words), i32(others)), words.map((x, i) => Math.max(x, others[i]!))],
  ['minimum of i32', () => minimum(i32(words), i32(others)), words.map((x, i) => Math.min(x, others[i]!))],
  ['minimum of u32', () => minimum(u32(words), u32(others)), words.map((x, i) => Math.min(x >>> 0, others[i]! >>> 0))],
  ['maximum with NaN', () => maximum(f([Number.NaN, 1, 2]), f([1, Number.NaN, 3])), [Number.NaN, Number.NaN, 3]],
  ['minimum with NaN', () => minimum(f([Number.NaN, 1, 2]), f([1, Number.NaN, 3])), [Number.NaN, Number.NaN, 2]],
  ['max of NaN among others', () => max(f(sparse, [2, 21]), 1), [Number.NaN, 20]],
  ['max of negatives, rows of five', () => max(neg(five), 1), [-1, -6]],
  ['sum of quotients, rows of five', () => sum(recip(sub(five, 11)), 1), fifths],
  ['sum of columns, twelve', () => sum(f(repeated([1, 2, 3], 24), [2, 12]), 0), pairs],
  ['seven numbers', () => mul(f([1, 2, 3, 4, 5, 6, 7]), 2), [2, 4, 6, 8, 10, 12, 14]],
  [
    'gather before and behind a table between others',
    () => {
      const [before, table, after] = [sevens, [5, 6, 7], sevens].map((v) => f(v));
      return add(gather(table!, i32(beside)), sum(mul(add(before!, after!), 0)));
    },
    beside.map(() => 0),
  ],
  [
    'gradient of max at a tie',
    () => grad((x: Tensor) => sum(max(x, 1)))(f([2, 2, 1, 3, 0, 3], [2, 3])),
    [0.5, 0.5, 0, 0.5, 0, 0.5],
  ],
  ['gradient of maximum at a tie', () => grad((x: Tensor) => sum(maximum(x, f([1, 2, 3]))))(f([1, 0, 4])), [0.5, 0, 1]],
  ['gradient of minimum at a tie', () => grad((x: Tensor) => sum(minimum(x, f([1, 2, 3]))))(f([1, 0, 4])), [0.5, 1, 0]],
  ['sum of i32', () => sum(i32(words)), [words.reduce((a, b) => (a + b) | 0, 0)]],
  ['max of i32', () => max(i32(words)), [Math.max(...words)]],
  ['bools: and, or', () => mul(tensor([1, 1, 0, 0], [4], 'bool'), tensor([1, 0, 1, 0], [4], 'bool')), [1, 0, 0, 0]],
  ['bools: or', () => maximum(tensor([1, 1, 0, 0], [4], 'bool'), tensor([1, 0, 1, 0], [4], 'bool')), [1, 1, 1, 0]],
  ...(
    [
      [1, 2, 1],
      [3, 5, 4],
      [2, 9, 7],
    ] as const
  ).map(
    ([m, k, n]): Edge => [
      `dot of i32, ${m}×${k}×${n}`,
      () => dot(i32(repeated(words, m * k), [1, m, k]), i32(repeated(others, k * n), [1, k, n])),
      product(m, k, n),
    ],
  ),
  ['pow of i32', () => pow(i32([-3, 0, 2, 100000]), 3), [-27, 0, 8, Math.imul(Math.imul(100000, 100000), 100000)]],
  ['scatterAdd of i32', () => scatterAdd(i32([1, 2, 3, 4]), i32([1, -1, 1, 5]), 2), [0, 4]],
  ['gather of i32', () => gather(i32([7, 8]), i32([1, 2, -1, 0])), [8, 0, 0, 7]],
  ['takeAlong of columns that are not there', () => takeAlong(x23, i32([3, -1, 1, 2], [2, 2]), 1), [0, 0, 5, 6]],
  ['take of columns that are not there', () => take(x23, i32([3, -1]), 1), [0, 0, 0, 0]],
  ['the first row of a result', () => slice(add(x23, 1), { axis: 0, stop: 1 }), [2, 3, 4]],
  ['cast to i32', () => cast(f(outside), 'i32'), outside.map((x) => clamp(x, -(2 ** 31), 2 ** 31 - 1))],
  ['cast to u32', () => cast(f(outside), 'u32'), outside.map((x) => clamp(x, 0, 2 ** 32 - 1))],
  ['cast to bool', () => cast(f([0, -0, Number.NaN, 1e-40, -2, Infinity]), 'bool'), [0, 0, 0, 1, 1, 1]],
  ['cast of −1 to u32', () => cast(i32([-1]), 'u32'), [2 ** 32 - 1]],
  ['cast of 2³²−1 to i32', () => cast(tensor(Uint32Array.of(2 ** 32 - 1)), 'i32'), [-1]],
  ['max over nothing', () => max(zeros([2, 0]), 1), [-Infinity, -Infinity]],
  ['max of i32 over nothing', () => max(i32([], [2, 0]), 1), [-(2 ** 31), -(2 ** 31)]],
  ['max of u32 over nothing', () => max(tensor([], [1, 0], 'u32'), 1), [0]],
  ['sum over nothing', () => sum(zeros([2, 0]), 1), [0, 0]],
  ['dot over nothing', () => dot(zeros([1, 2, 0]), zeros([1, 0, 3])), [0, 0, 0, 0, 0, 0]],
  [
    'conv over no channels',
    () =>
      conv(zeros([1, 3, 3, 0]), zeros([3, 3, 0, 2]), {
        ...S,
        pad: [
          [1, 1],
          [1, 1],
        ],
      }),
    new Array(18).fill(0),
  ],
  ['gather of an empty table', () => gather(zeros([0, 2]), i32([0, 3])), [0, 0, 0, 0]],
  ['scatterAdd of nothing', () => scatterAdd(zeros([0, 2]), i32([]), 2), [0, 0, 0, 0]],
  ['pad of nothing', () => pad(zeros([0]), [[1, 1]], 5), [5, 5]],
  ['attention over no keys', () => attention(ones([1, 1, 2]), ones([1, 0, 2]), ones([1, 0, 2]), { heads: 1 }), [0, 0]],
  [
    'attention over no keys, heads of four',
    () => attention(ones([1, 1, 4]), ones([1, 0, 4]), ones([1, 0, 4]), { heads: 1 }),
    [0, 0, 0, 0],
  ],
  [
    'attention where all scores of a row are −∞, heads of four',
    () => attention(wide(gazes), wide(blind), wide(seen), { heads: 1 }),
    [nan, nan, nan, nan, 5.5, 6.5, 0, 0],
  ],
  [
    'what a score of −∞ hides has no derivative, however large: dq',
    () => grad((q: Tensor) => sum(attention(q, hidden, wide(seen), { heads: 1 })))(f([3, 0, 0, 0], [1, 1, 4])),
    [0, 0, 0, 0],
  ],
  [
    'attention where all scores of a row are −∞',
    () => attention(gazes, blind, seen, { heads: 1 }),
    [nan, nan, 5.5, 6.5],
  ],
  [
    'attention where all visible scores of a row are −∞',
    () => attention(gazes, blind, seen, { heads: 1, causal: true }),
    [nan, nan, 5.5, 6.5],
  ],
  ...[false, true].map(
    (causal): Edge => [
      `its derivatives, ${causal ? 'causal' : 'not causal'}`,
      () => {
        const loss = ([q, k, v]: readonly Tensor[]) => sum(attention(q!, k!, v!, { heads: 1, causal }));
        return concat(
          grad(loss)([gazes, blind, seen]).map((g) => reshape(g, [4])),
          0,
        );
      },
      // by q: the row; by k and v: what it sees
      [
        ...[nan, nan, 0, 0],
        ...(causal ? [nan, nan, 0, 0] : [nan, nan, nan, nan]),
        ...(causal ? [nan, nan, 0.5, 0.5] : [nan, nan, nan, nan]),
      ],
    ],
  ),
  ['softmax of −∞ only', () => softmax(f([-Infinity, -Infinity])), [Number.NaN, Number.NaN]],
  ['1/−0 beside 1/0', () => sub(recip(full([1], -0)), recip(full([1], 0))), [-Infinity]],
  ['sin of large numbers', () => sin(f(big)), big.map(Math.sin)],
  ['cos of large numbers', () => cos(f(big)), big.map(Math.cos)],
  ['log of subnormals', () => log(f(small)), small.map(Math.log)],
  ['whole powers of any base', () => pow(f([-2, 0, -1, 3]), 2), [4, 0, 1, 9]],
  ['odd powers', () => pow(f([-2, 0, 3]), 3), [-8, 0, 27]],
  ['negative powers', () => pow(f([-2, 4]), -1), [-0.5, 0.25]],
  ['no power', () => pow(f([-2, 0, 3]), 0), [1, 1, 1]],
  ['half powers', () => pow(f([4, 0, -1]), 0.5), [2, 0, Number.NaN]],
  ['powers by tensor', () => pow(f([-2, -2, 0, 0, 2, -2]), f([3, 2, 2, 0, 0.5, -1])), [-8, 4, 0, 1, Math.SQRT2, -0.5]],
  ['gradient of pow(x, 2)', () => grad((x: Tensor) => sum(pow(x, 2)))(f([-2, 0, 3])), [-4, 0, 6]],
  ['gradient of pow(x, b)', () => grad((x: Tensor) => sum(pow(x, f([2, 2, 1, 0]))))(f([-2, 0, 0, 0])), [-4, 0, 1, 0]],
  ['gradient by the exponent', () => grad((b: Tensor) => sum(pow(f([2, 0]), b)))(f([3, 2])), [8 * Math.log(2), 0]],
  [
    'many small products',
    // (1 1)·(1 2; 3 5) = (4 7)
    () => sum(mul(dot(ones([MANY, 1, 2]), expandTo(f([1, 2, 3, 5], [1, 2, 2]), [MANY, 2, 2])), f([1, 10]))),
    [74 * MANY],
  ],
  ['convolution in many groups', () => sum(conv(many, reshape(many, [1, 1, 1, MANY]), { ...S, groups: MANY })), [MANY]],
  [
    'gradient of a convolution in many groups',
    () => sum(grad((w: Tensor) => sum(conv(many, w, { ...S, groups: MANY })))(reshape(many, [1, 1, 1, MANY]))),
    [MANY],
  ],
  [
    'attention over many samples, and its gradient',
    () => {
      const x = reshape(many, [MANY, 1, 1]);
      return stack([
        sum(attention(x, x, x, { heads: 1 })),
        sum(grad((v: Tensor) => sum(attention(x, x, v, { heads: 1 })))(x)),
      ]);
    },
    [MANY, MANY],
  ],
  [
    'attention of many rows',
    () => sum(attention(ones([1, 600_000, 1]), ones([1, 1, 1]), ones([1, 1, 1]), { heads: 1 })),
    [600_000],
  ],
  ['samples last', () => vmap((x: Tensor) => mul(x, 1), [0], -1)(x23), [1, 4, 2, 5, 3, 6]],
  ['samples first of the last axis', () => vmap((x: Tensor) => sum(x), [-1])(x23), [5, 7, 9]],
];

/** ids on both sides of their table */
const wild = (n: number, v: number): number[] => Array.from({ length: n }, () => Math.floor(random() * (v + 4)) - 2);
const one = (t: Tensor, i: number): Tensor => squeeze(slice(t, { axis: 0, start: i, stop: i + 1 }), 0);
/** vmap of a function of a table and ids, beside a loop of it */
const mapped = (
  call: (x: Tensor, ids: Tensor) => Tensor,
  x: Tensor,
  ids: Tensor,
  axes: readonly [number | null, number | null],
): [Tensor, Tensor] => {
  const many = vmap(call, axes)(x, ids);
  const loop = [0, 1, 2].map((i) => call(axes[0] === null ? x : one(x, i), axes[1] === null ? ids : one(ids, i)));
  return [many, stack(loop)];
};
const subsets = [
  [0, 0],
  [0, null],
  [null, 0],
] as const;
const pick = (t: Tensor, axis: number | null): Tensor => (axis === null ? one(t, 0) : t);
const tables: readonly (readonly [string, (x: Tensor, ids: Tensor) => Tensor, readonly number[], readonly number[]])[] =
  [
    ['gather', gather, [3, 4, 2], [3, 5]],
    ['gather of planes', gather, [3, 4, 2], [3, 2, 3]],
    ['take', (x, ids) => take(x, ids, 1), [3, 2, 4], [3, 5]],
    ['takeAlong', (x, ids) => takeAlong(x, ids, 1), [3, 2, 4], [3, 2, 3]],
    ['takeAlong the front', (x, ids) => takeAlong(x, ids, 0), [3, 4, 2], [3, 5, 2]],
    ['scatterAdd', (g, ids) => scatterAdd(g, ids, 4), [3, 5, 2], [3, 5]],
  ];
const gradients = tables.map(
  ([name, call, ...shapes]) =>
    [
      `gradient of ${name}`,
      (x: Tensor, ids: Tensor) => grad((t: Tensor) => sum(mul(call(t, ids), call(t, ids))))(x),
      ...shapes,
    ] as const,
);

const backends = { cpu: {}, wasm: { threads: 1 }, webgpu: {}, gpujs: {} } as const;
describe.each(Object.entries(backends))('%s', { timeout: 120_000 }, (name, options) => {
  let backend: Backend;
  beforeAll(async () => {
    backend = (await openBackend(name as 'cpu', options)) as Backend;
  });
  afterAll(() => backend.close());
  const tolerance = (dtype: DType) => (dtype === 'f32' ? 2e-6 : 0);

  test.each(edges)('%s', async (edge, build, want) => {
    // gpu.js reduces angles and takes logarithms with its driver's arithmetic
    if (name === 'gpujs' && /large|subnormals/.test(edge)) return;
    const y = build();
    const got = await numbers(y, backend);
    expect(got).toHaveLength(want.length);
    const off = want.findIndex(
      (w, i) =>
        !(
          Object.is(got[i], w) ||
          got[i] === w ||
          Math.abs(got[i]! - w) <= tolerance(y.dtype) * Math.max(1, Math.abs(w))
        ),
    );
    expect(off, `${off}: ${got[off]}, want ${want[off]}`).toBe(-1);
  });

  test.each([...tables, ...gradients])(
    '%s with ids outside, mapped, equals a loop',
    async (_name, call, xShape, idShape) => {
      // kernels that a driver compiles: the types of ids in turns
      for (const [at, axes] of subsets.entries())
        for (const dtype of longRows(
          ['i32', 'u32'] as const,
          (d) => !['webgpu', 'gpujs'].includes(name) || (d === 'i32') === (at % 2 === 0),
        )) {
          const n = xShape.reduce((a, b) => a * b, 1);
          const x = pick(
            f(
              Array.from({ length: n }, (_, i) => i + 1),
              xShape,
            ),
            axes[0],
          );
          const list = wild(
            idShape.reduce((a, b) => a * b, 1),
            4,
          );
          const ids = pick(dtype === 'i32' ? i32(list, idShape) : reshape(u32(list), idShape), axes[1]);
          const [many, loop] = evaluate(mapped(call, x, ids, axes), backend);
          expect(await numbers(many, backend), `${axes} ${dtype}`).toEqual(await numbers(loop, backend));
        }
    },
  );
});

test('a loss written with pow has the gradient of its square', async () => {
  const [a, b] = [f([1, 2, 3]), f([2, 2, 1])];
  const loss = (x: Tensor) => mean(pow(sub(alias(x), b), 2));
  expect(await numbers(grad(loss)(a))).toEqual([-2 / 3, 0, 4 / 3].map(Math.fround));
});

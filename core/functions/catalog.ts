/**
 * Every function of this folder that is written in ops, as an op whose body it is: what the battery, the table in the
 * README and `explain` need to treat it like one. Programs never hold these records but the ops the function makes.
 */
import type { Composite } from '../ir/tensor.ts';
import { mean } from '../ops/reduce.ts';
import * as activations from './activations.ts';
import * as arrays from './arrays.ts';
import * as comparisons from './comparisons.ts';
import * as indexing from './indexing.ts';
import * as products from './products.ts';
import * as random from './random.ts';
import * as reductions from './reductions.ts';
import { along, conditions, drawn, floats, ids, keyed, one, some, step, two, written } from './samples.ts';
import { tan } from './smooth.ts';
import * as sorting from './sorting.ts';
import * as windows from './windows.ts';

const all = [
  one(['relu', 'rectified linear unit', 'y = max(x, 0)', ['rectifier']], activations.relu),
  one(['leakyRelu', 'x above 0, a fraction of it below', 'y = x > 0 ? x : slope·x'], (x) =>
    activations.leakyRelu(x, 0.1),
  ),
  one(['elu', 'exponential linear unit', 'y = x > 0 ? x : α(eˣ − 1)'], activations.elu),
  one(['silu', 'sigmoid linear unit', 'y = x·σ(x)', ['swish']], activations.silu),
  one(['logSigmoid', 'logarithm of the logistic function', 'y = ln σ(x)'], activations.logSigmoid),
  written<{ readonly form: 'erf' | 'tanh' }>(
    ['gelu', 'Gaussian error linear unit', 'y = x·Φ(x)'],
    ([x], a) => activations.gelu(x!, a.form),
    (pick) => ({ operands: [floats(some(pick))], attrs: { form: pick(0, 1) ? 'erf' : 'tanh' } }),
  ),
  one(['tan', 'tangent of radians', 'y = sin x / cos x'], tan, [-1.2, 1.2]),

  two(['greater', 'comparison', 'y = a > b', ['gt']], comparisons.greater),
  two(['lessEqual', 'comparison', 'y = a ≤ b', ['le']], comparisons.lessEqual),
  two(['greaterEqual', 'comparison', 'y = a ≥ b', ['ge']], comparisons.greaterEqual),
  two(['notEqual', 'comparison', 'y = (a ≠ b)', ['ne']], comparisons.notEqual, (shape) => ids(shape, 3)),
  two(['logicalAnd', 'both', 'y = a ∧ b', ['and']], comparisons.logicalAnd, conditions),
  two(['logicalOr', 'one or both', 'y = a ∨ b', ['or']], comparisons.logicalOr, conditions),
  two(['logicalXor', 'just one', 'y = (a ≠ b)', ['xor']], comparisons.logicalXor, conditions),
  written(
    ['where', 'a where the condition holds, b elsewhere', 'y = c ? a : b'],
    ([c, a, b]) => comparisons.where(c!, a!, b!),
    (pick) => {
      const shape = some(pick);
      return { operands: [conditions(shape), floats(shape), floats(shape.slice(1))], attrs: {} };
    },
  ),
  one(['isNan', 'not a number', 'y = (x ≠ x)'], comparisons.isNan),
  one(['isInf', 'infinite, of either sign', 'y = (|x| = ∞)'], comparisons.isInf),
  step(['ceil', 'smallest integer not below x', 'y = ⌈x⌉'], comparisons.ceil),
  step(['round', 'nearest integer, halves to the even one', 'y = ⌊x⌉', ['rint']], comparisons.round),
  step(['trunc', 'integer part', 'y = sign(x)·⌊|x|⌋', ['fix']], comparisons.trunc),
  step(['sign', 'sign', 'y = −1, 0 or 1'], comparisons.sign),
  two(
    ['remainder', 'remainder of the division rounded down', 'y = a − b·⌊a/b⌋', ['mod', 'modulo']],
    comparisons.remainder,
    (shape) => ids(shape, 9),
  ),

  along(['min', 'minimum along axes; ties share the gradient', 'y = min_axes x', ['amin']], (x, axis) =>
    reductions.min(x, axis),
  ),
  along(['prod', 'product along axes', 'y = Π_axes x'], (x, axis) => reductions.prod(x, axis)),
  written<{ readonly axis: number }>(
    ['any', 'whether one holds', 'y = ∨_axes c'],
    ([c], a) => reductions.any(c!, a.axis),
    (pick) => ({ operands: [conditions(some(pick))], attrs: { axis: pick(0, 1) } }),
  ),
  written<{ readonly axis: number }>(
    ['all', 'whether all hold', 'y = ∧_axes c'],
    ([c], a) => reductions.all(c!, a.axis),
    (pick) => ({ operands: [conditions(some(pick))], attrs: { axis: pick(0, 1) } }),
  ),
  along(['mean', 'mean along axes', 'y = Σ_axes x / n', ['average']], (x, axis) => mean(x, axis)),
  along(
    ['variance', 'mean squared distance from the mean', 'y = Σ(x − mean x)²/n', ['var']],
    (x, axis) => reductions.variance(x, axis),
    2,
  ),
  along(['std', 'standard deviation', 'y = √variance'], (x, axis) => reductions.std(x, axis), 3),
  along(['vectorNorm', 'length of vectors', 'y = √Σx²', ['l2norm', 'linalg.norm', 'length']], (x, axis) =>
    reductions.vectorNorm(x, axis),
  ),
  along(['logsumexp', 'logarithm of a sum of exponentials', 'y = ln Σ eˣ', ['lse']], (x, axis) =>
    reductions.logsumexp(x, axis),
  ),
  along(['logSoftmax', 'logarithm of softmax', 'y = x − ln Σ eˣ'], (x, axis) => reductions.logSoftmax(x, axis)),
  written(
    [
      'crossEntropy',
      'negative logarithm of the probability of the label',
      'y[b] = ln Σ_c e^x[b,c] − x[b, label[b]]',
      ['nll', 'softmaxCrossEntropy'],
    ],
    ([x, labels]) => reductions.crossEntropy(x!, labels!),
    (pick) => {
      const [b, c] = [pick(1, 4), pick(2, 5)];
      return { operands: [floats([b, c]), ids([b], c)], attrs: {} };
    },
  ),
  along(['argmax', 'where the largest value stands', 'y = min {i : x[i] = max x}'], (x, axis) =>
    reductions.argmax(x, axis),
  ),
  along(['argmin', 'where the smallest value stands', 'y = min {i : x[i] = min x}'], (x, axis) =>
    reductions.argmin(x, axis),
  ),
  along(['cumsum', 'sums up to each element', 'y[i] = x[0] + … + x[i]'], (x, axis) => reductions.cumsum(x, axis)),
  along(['cumprod', 'products up to each element', 'y[i] = x[0]·…·x[i]'], (x, axis) => reductions.cumprod(x, axis)),

  written(
    [
      'matmul',
      'matrix product of any rank, with broadcasting',
      'y[…,m,n] = Σ_k a[…,m,k]·b[…,k,n]',
      ['@', 'mm', 'bmm', 'linear'],
    ],
    ([a, b]) => products.matmul(a!, b!),
    (pick) => {
      const [m, k, n] = [pick(1, 3), pick(1, 4), pick(1, 3)];
      return { operands: [floats([pick(1, 2), m, k]), floats(pick(0, 1) ? [k, n] : [2, 1, k, n])], attrs: {} };
    },
  ),
  written<{ readonly spec: string }>(
    ['einsum', 'sum of products over named axes', 'y[out] = Σ Π x[in]'],
    (x, a) => products.einsum(a.spec, ...x),
    (pick) => {
      const [i, j, k, b] = [pick(1, 3), pick(1, 3), pick(1, 3), pick(1, 2)];
      const cases = [
        { spec: 'bij,bjk->bik', operands: [floats([b, i, j]), floats([b, j, k])] },
        { spec: 'ij,kj,k->i', operands: [floats([i, j]), floats([k, j]), floats([k])] },
        { spec: 'ii,ij->j', operands: [floats([i, i]), floats([i, j])] },
        { spec: '...i,...i->...', operands: [floats([b, i]), floats([1, i])] },
        { spec: 'i,j', operands: [floats([i]), floats([j])] },
      ];
      const { spec, operands } = cases[pick(0, cases.length - 1)]!;
      return { operands, attrs: { spec } };
    },
  ),
  written(
    ['outer', 'outer product of vectors', 'y = a·bᵀ'],
    ([a, b]) => products.outer(a!, b!),
    (pick) => ({ operands: [floats([pick(1, 3)]), floats([pick(1, 4)])], attrs: {} }),
  ),

  one(['diag', 'a diagonal matrix', 'y[…,i,j] = v[…,i]·[i = j]'], arrays.diag),
  one(['diagonalOf', 'the elements on the diagonal', 'y[…,i] = a[…,i,i]', ['diagonal', 'trace']], arrays.diagonalOf),
  one(['tril', 'zeros above the diagonal', 'y[i,j] = j ≤ i + k ? a[i,j] : 0'], arrays.tril),
  one(['triu', 'zeros below the diagonal', 'y[i,j] = j ≥ i + k ? a[i,j] : 0'], arrays.triu),
  written(
    ['oneHot', '1 at the place of the id', 'y[…,j] = [j = ids[…]]'],
    ([x]) => arrays.oneHot(x!, 4),
    (pick) => ({ operands: [ids(some(pick), 5)], attrs: {} }),
  ),
  one(['tile', 'the array repeated', 'y[…, k·n + i, …] = x[…, i, …]'], (x) => arrays.tile(x, [2, 3])),
  one(['repeat', 'every element repeated', 'y[…, i·times + k, …] = x[…, i, …]', ['repeatInterleave']], (x) =>
    arrays.repeat(x, 3, 1),
  ),
  one(['roll', 'elements moved round the end of an axis', 'y[(i + by) mod n] = x[i]'], (x) => arrays.roll(x, 2, 0)),
  written(
    ['arange', 'numbers at equal steps', 'y[i] = start + i·step', ['range']],
    () => arrays.arange(2, 8, 2),
    () => ({ operands: [], attrs: {} }),
  ),
  written(
    ['linspace', 'numbers at equal distances', 'y[i] = start + i·(stop − start)/(n − 1)'],
    () => arrays.linspace(-1, 1, 5),
    () => ({ operands: [], attrs: {} }),
  ),
  written(
    ['eye', 'ones on the diagonal', 'y[i,j] = [j = i + k]', ['identity']],
    () => arrays.eye(3, { columns: 4, k: 1 }),
    () => ({ operands: [], attrs: {} }),
  ),

  written(
    [
      'scatterSet',
      'rows put in the place of others, the last one stays',
      'y[ids[i], …] = rows[i, …], x elsewhere',
      ['at set', 'index_put', 'scatter'],
    ],
    ([x, at, rows]) => indexing.scatterSet(x!, at!, rows!),
    (pick) => {
      const [v, n, d] = [pick(2, 5), pick(1, 4), pick(1, 3)];
      return {
        operands: [floats([v, d]), { shape: [n], dtype: 'i32', range: [-1, v + 1] }, floats([n, d])],
        attrs: {},
      };
    },
  ),
  written(
    ['dynamicSlice', 'a piece that starts where a tensor says', 'y[i] = x[start + i]'],
    ([x, s]) => indexing.dynamicSlice(x!, [s!, 0], [2, 2]),
    (pick) => ({ operands: [floats([pick(2, 5), pick(2, 3)]), ids([], 5)], attrs: {} }),
  ),
  written(
    ['dynamicUpdateSlice', 'a piece written where a tensor says', 'y[start + i] = piece[i], x elsewhere'],
    ([x, p, s]) => indexing.dynamicUpdateSlice(x!, p!, [s!, 1]),
    (pick) => ({ operands: [floats([pick(2, 5), 3]), floats([2, pick(1, 2)]), ids([], 5)], attrs: {} }),
  ),

  along(['sort', 'elements in rising order', 'y[0] ≤ y[1] ≤ …'], (x, axis) => sorting.sort(x, axis)),
  along(['argsort', 'positions in rising order', 'x[y[0]] ≤ x[y[1]] ≤ …'], (x, axis) => sorting.argsort(x, axis)),
  along(['topK', 'the k largest and where they stand', 'y[0] ≥ … ≥ y[k−1]'], (x, axis) => sorting.topK(x, 2, axis), 2),

  written<windows.Windows>(
    ['maxPool', 'largest of each window', 'y[n,h,w,c] = max_{i,j} x[n, h·s+i, w·s+j, c]', ['maxPool2d']],
    ([x], a) => windows.maxPool(x!, a),
    (pick) => ({
      operands: [floats([pick(1, 2), pick(3, 5), pick(3, 4), pick(1, 2)])],
      attrs: {
        window: [2, 3],
        stride: [pick(1, 2), 1],
        pad: [
          [pick(0, 1), 0],
          [0, pick(0, 1)],
        ],
      },
    }),
  ),
  written<windows.Windows & { readonly countPadding: boolean }>(
    [
      'averagePool',
      'mean of each window',
      'y[n,h,w,c] = Σ_{i,j} x[n, h·s+i, w·s+j, c] / k',
      ['avgPool', 'avgPool2d', 'meanPool'],
    ],
    ([x], a) => windows.averagePool(x!, a),
    (pick) => ({
      operands: [floats([pick(1, 2), pick(3, 6), pick(1, 2)])],
      attrs: { window: [3], stride: [pick(1, 2)], pad: [[pick(0, 1), 1]], countPadding: pick(0, 1) === 1 },
    }),
  ),
  written<windows.Conv1dOptions>(
    ['conv1d', 'convolution of sequences, channels last', 'y[n,l,o] = Σ_{i,c} x[n, l·s+i·d−p, c]·w[i,c,o]'],
    ([x, w], a) => windows.conv1d(x!, w!, a),
    (pick) => ({
      operands: [floats([pick(1, 2), pick(4, 6), 2]), floats([2, 2, pick(1, 2)])],
      attrs: { stride: pick(1, 2), pad: [pick(0, 1), pick(0, 1)], dilation: pick(1, 3) },
    }),
  ),

  drawn(
    ['truncatedNormal', 'normal numbers within bounds', 'y = √2·erf⁻¹(u), u ∈ [erf(lower/√2), erf(upper/√2))'],
    (k) => random.truncatedNormal(k, -2, 1, [3]),
  ),
  drawn(['bernoulli', 'true with probability p', 'y = u < p'], (k) => random.bernoulli(k, 0.3, [5])),
  drawn(['gumbel', 'numbers of Gumbel’s distribution', 'y = −ln(−ln u)'], (k) => random.gumbel(k, [3])),
  drawn(['exponential', 'exponentially distributed numbers of mean 1', 'y = −ln(1 − u)'], (k) =>
    random.exponential(k, [3]),
  ),
  drawn(['randint', 'whole numbers in [low, high)', 'y = low + (u mod (high − low))', ['randInt']], (k) =>
    random.randint(k, [4], -3, 7),
  ),
  written(
    ['categorical', 'classes by their logits', 'y = argmax(logits + Gumbel)', ['multinomial']],
    ([k, x]) => random.categorical(k!, x!, [2]),
    () => ({ operands: [keyed(), floats([2, 3])], attrs: {} }),
  ),
  drawn(['permutation', 'numbers in random order', 'y = argsort(u)', ['shuffle']], (k) => random.permutation(k, 5)),
] as readonly unknown[] as readonly Composite<never>[];

/** Every function by its name.  @example functions.get('relu') */
export const functions: ReadonlyMap<string, Composite<never>> = new Map(all.map((f) => [f.name, f]));

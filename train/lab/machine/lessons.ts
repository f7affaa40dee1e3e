/**
 * Lessons: each one page that adds one idea, as a program that says what it finds (`show`) and holds itself to it
 * (`check(what, got, expected, tolerance)`). All functions of the core are there by name, and a few of SeLoRA's.
 */

/** A lesson. */
export interface Lesson {
  readonly id: string;
  readonly title: string;
  /** what it is about, in a few sentences */
  readonly text: string;
  readonly source: string;
}
export const lessons: readonly Lesson[] = [
  {
    id: 'product',
    title: 'A product and its vjp',
    text: 'A derivative that runs backward takes a cotangent g of the result, how much the loss wants each of its numbers to move, and gives one for each operand. For y = x·W these are g·Wᵀ and xᵀ·g: products again. So training needs no other op than the model does.',
    source: `const x = tensor([[1, 2], [3, 4]]);
const W = tensor([[0.5, -1, 2], [1, 0.25, -0.5]]);
const g = tensor([[1, 0, -1], [2, 1, 0.5]]);

const [y, back] = vjp(({ x, W }) => matmul(x, W), { x, W });
const { x: dx, W: dW } = back(g);
show('y = x·W', y);
show('dx = g·Wᵀ', dx);
show('dW = xᵀ·g', dW);
await check('dx is g·Wᵀ', dx, matmul(g, swap(W)), 0);
await check('dW is xᵀ·g', dW, matmul(swap(x), g), 0);

// and against a nudge of one weight: d Σ g·y / d W[0, 0]
const h = 0.125; // a power of two, so that the difference is exact
const at = (w) => sum(mul(g, matmul(x, w)));
const nudge = tensor([[h, 0, 0], [0, 0, 0]]);
const difference = div(sub(at(add(W, nudge)), at(sub(W, nudge))), 2 * h);
const corner = slice(slice(dW, { axis: 0, start: 0, stop: 1 }), { axis: 1, start: 0, stop: 1 });
await check('dW[0, 0] is the difference', corner, reshape(difference, [1, 1]), 1e-6);
`,
  },
  {
    id: 'per-sample',
    title: 'vmap(grad): a gradient for each sample',
    text: 'A batch has one gradient, the mean of those of its samples. Where samples disagree their gradients cancel in it; to see how much each one asks for, they are needed singly. vmap(grad) writes that program: not a loop, but one larger product.',
    source: `const w = tensor([0.5, -0.3, 0.8]);
const x = tensor([[1, 2, 0.5], [2, 0.5, -1], [-1, -1.5, 1], [-2, 0.3, 0.25]]);
const y = tensor([1, 0, 1, -1]);
const loss = (w, x, y) => square(sub(sum(mul(w, x)), y));

const each = vmap(grad(loss), [null, 0, 0])(w, x, y);
show('a gradient a row', each);

// the same by a loop
const row = (t, i) => squeeze(slice(t, { axis: 0, start: i, stop: i + 1 }), 0);
const loop = stack([0, 1, 2, 3].map((i) => grad(loss)(w, row(x, i), row(y, i))), 0);
await check('as by a loop', each, loop, 1e-6);

// their mean is the gradient of the mean loss
const whole = grad((w) => mean(vmap(loss, [null, 0, 0])(w, x, y)))(w);
await check('their mean is the gradient of the batch', mean(each, 0), whole, 1e-6);

// squares do not cancel: eq. 3 of the paper beside what is left of them in the batch
const [squares, left] = [sum(mean(square(each), 0)), sum(square(whole))];
show('mean of squares', squares);
show('square of the mean', left);
await check('the square of the mean is never more', maximum(sub(left, squares), 0), 0, 0);
`,
  },
  {
    id: 'zero',
    title: 'LoRA, and why zero on both sides is dead for ever',
    text: 'An adapter adds s·A·B to a frozen weight. It must begin without changing anything, so one side is zero. Not both: the gradient of each side has the other as a factor, and 0 · 0 never moves.',
    source: `const x = tensor([[1, 2, -1], [0.5, -1, 2]]);
const target = tensor([[1, 0], [0, 1]]);
const frozen = tensor([[0.2, -0.1], [0.4, 0.3], [-0.5, 0.1]]);
const loss = ({ A, B }) => mean(square(sub(add(matmul(x, frozen), matmul(matmul(x, A), B)), target)));

const random = tensor([[0.3], [-0.8], [0.5]]);
const [zeroA, zeroB] = [zeros([3, 1]), zeros([1, 2])];
const none = tensor(0);

// zero on both sides
const dead = grad(loss)({ A: zeroA, B: zeroB });
await check('no gradient for A', sum(abs(dead.A)), none, 0);
await check('and none for B', sum(abs(dead.B)), none, 0);

// zero on one side: the model is the same, and B learns
let now = { A: random, B: zeroB };
await check('the loss is that of the frozen model', loss(now), loss({ A: zeroA, B: zeroB }), 0);
let g = grad(loss)(now);
show('gradient of B', g.B);
await check('A still has none', sum(abs(g.A)), none, 0);

// one step of B later A learns, too
now = { A: sub(now.A, mul(g.A, 0.1)), B: sub(now.B, mul(g.B, 0.1)) };
g = grad(loss)(now);
show('gradient of A after one step', g.A);
await check('which is not zero', less(1e-4, sum(abs(g.A))), tensor([1], [], 'bool'), 0);
`,
  },
  {
    id: 'expansion',
    title: 'One expansion by hand, its ratio three ways',
    text: 'SeLoRA asks whether one more rank would carry information: a random column K beside A, a row of zeros below B. FI is the sum of mean squares of the gradients of single samples; the ratio is FI with the new rank to FI without. Two passes compute both. One pass is enough, since the row of zeros changes nothing: ratio = 1 + FI(new row)/FI. And the new row has the gradient KᵀG of each sample, so that over all K its FI is Var K · mean ‖G‖² on average.',
    source: `const [dIn, dOut, samples] = [6, 4, 5];
const draw = (name, shape) => normal(fold(key(7), name), shape);
const [x, target] = [draw(1, [samples, dIn]), draw(2, [samples, dOut])];
const A = mul(draw(3, [dIn, 1]), 0.5);
const B = mul(draw(4, [1, dOut]), 0.5);
const loss = ({ A, B }, x, t) => sum(square(sub(matmul(matmul(reshape(x, [1, dIn]), A), B), reshape(t, [1, dOut]))));
const gradients = (adapter) => vmap(grad(loss), [null, 0, 0])(adapter, x, target);

const K = tensor(kaimingUniform(hostKey(5), dIn, dIn, { a: 0 }), [dIn, 1]);
const grown = expandAdapter({ A, B }, K);
await check('the product is the same', matmul(grown.A, grown.B), matmul(A, B), 0);

// two passes
const before = fisherScore(gradients({ A, B }));
const after = fisherScore(gradients(grown));
const two = div(after, before);
show('FI without and with', stack([before, after], 0));

// one pass
const g = gradients(grown).B;
const row = slice(g, { axis: 1, start: 1, stop: 2 });
const fresh = sum(mean(square(row), 0));
const one = add(1, div(fresh, before));
show('ratio', one);
await check('one pass is two', one, two, 1e-5);

// the expectation: G is the gradient by the product itself
const by = vmap(grad((M, x, t) => sum(square(sub(matmul(reshape(x, [1, dIn]), M), reshape(t, [1, dOut]))))), [null, 0, 0]);
const G = by(matmul(A, B), x, target);
const variance = 2 / dIn; // of U(−b, b), b = √(6/d)
const expected = mul(variance, mean(sum(square(G), [1, 2])));
show('expected ratio', add(1, div(expected, before)));

// against the mean over 3,000 columns
const many = tensor(kaimingUniform(hostKey(9), dIn, dIn * 3000, { a: 0 }), [3000, dIn]);
const drawn = vmap((k) => mean(sum(square(vmap((G) => matmul(reshape(k, [1, dIn]), G))(G)), [1, 2])))(many);
await check('the mean over 3,000 columns', div(mean(drawn), expected), tensor(1), 0.05);
`,
  },
  {
    id: 'denoise',
    title: 'One denoising step',
    text: 'Noise is mixed in by a schedule: x_t = √ᾱ·x₀ + √(1−ᾱ)·ε. A model that predicts v = √ᾱ·ε − √(1−ᾱ)·x₀ tells both parts: x₀ = √ᾱ·x_t − √(1−ᾱ)·v, ε = √(1−ᾱ)·x_t + √ᾱ·v. A step mixes them again, with less noise. At the last timestep ᾱ is 0: nothing of the picture is left, only the words can tell.',
    source: `const x0 = tensor([0.5, -1, 2, 0.25]);
const noise = tensor([1, 0.3, -0.7, -1.2]);
const schedule = makeSchedule(parseSchedulerConfig({
  beta_start: 0.00085, beta_end: 0.012, beta_schedule: 'scaled_linear', num_train_timesteps: 1000,
  prediction_type: 'v_prediction', rescale_betas_zero_snr: true, timestep_spacing: 'trailing',
}));
const parts = (t) => [Math.sqrt(alphaBar(schedule, t)), Math.sqrt(1 - alphaBar(schedule, t))];
const [s, n] = parts(600);
const xt = add(mul(s, x0), mul(n, noise));
const v = sub(mul(s, noise), mul(n, x0));
show('x at t = 600', xt);
await check('as training mixes it', xt, tensor(addNoise(schedule, await values(x0), await values(noise), [600])), 1e-6);
await check('v is what training asks for', v, tensor(trainingTarget(schedule, await values(x0), await values(noise), [600])), 1e-6);

const clean = sub(mul(s, xt), mul(n, v));
const rest = add(mul(n, xt), mul(s, v));
await check('x₀ comes back', clean, x0, 1e-6);
await check('and the noise', rest, noise, 1e-6);
const [s2, n2] = parts(400);
show('one step on, x at t = 400', add(mul(s2, clean), mul(n2, rest)));
await check('which is where 400 would have been', add(mul(s2, clean), mul(n2, rest)), add(mul(s2, x0), mul(n2, noise)), 1e-6);
await check('the last timestep holds no signal', tensor(parts(999)[0]), tensor(0), 1e-7);
`,
  },
  {
    id: 'gain',
    title: 'What λ means without the gain',
    text: 'The ratio is compared with λ, and the drawn square grows with the variance of K. Two usual ways to draw it, the authors’ (a = 0, variance 2/d) and PEFT’s (a = √5, variance 1/(3d)), differ by a factor of 6 in ratio − 1: λ = 1.1 with PEFT’s is λ = 1.6 with the authors’. A λ without its gain says nothing.',
    source: `const d = 48;
const variance = (a) => {
  const k = tensor(kaimingUniform(hostKey(3), d, 60000, { a }));
  return mean(square(k));
};
const [authors, peft] = [variance(0), variance(Math.sqrt(5))];
show('variances', stack([authors, peft], 0));
await check('the authors’ is 2/d', mul(authors, d), tensor(2), 0.03);
await check('PEFT’s is 1/(3d)', mul(peft, d), tensor(1 / 3), 0.01);
await check('six times', div(authors, peft), tensor(6), 1e-3);

// the same module, the same gradients: ratio − 1 is proportional to the variance
const ratio = (variance) => add(1, mul(variance, 2.4));
const grows = (r, lambda) => less(lambda, r);
show('ratio with each', stack([ratio(authors), ratio(peft)], 0));
await check('grows at 1.05 with the authors’', grows(ratio(authors), 1.05), tensor([1], [], 'bool'), 0);
await check('and does not with PEFT’s', grows(ratio(peft), 1.05), tensor([0], [], 'bool'), 0);
`,
  },
  {
    id: 'mixed-rank',
    title: 'Why a mixed-rank file loads at the wrong strength',
    text: 'Files of adapters carry alpha; loaders multiply the product by alpha/rank. That is fine where all modules have one rank. Where ranks differ and a file says one alpha for all, a module of rank 4 arrives at a quarter of the strength of one of rank 1, though both were trained at the same scale. A file of grown ranks has to say an alpha for each module: scale · rank.',
    source: `const scale = 1;
const change = (rank) => matmul(full([3, rank], 0.5), full([rank, 2], 0.5));
const loaded = (rank, alpha) => mul(alpha / rank, change(rank));
const trained = (rank) => mul(scale, change(rank));

// one alpha for all, right for rank 1
await check('rank 1 arrives as trained', loaded(1, scale), trained(1), 0);
await check('rank 4 at a quarter', mul(loaded(4, scale), 4), trained(4), 0);
show('what arrives of rank 4', loaded(4, scale));
show('what was trained', trained(4));

// an alpha for each: scale · rank
for (const rank of [1, 2, 4, 8]) await check('rank ' + rank + ' with alpha ' + scale * rank, loaded(rank, scale * rank), trained(rank), 0);
`,
  },
];

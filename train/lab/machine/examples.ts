/** Sources that the editor begins with. Each returns `{ f, params }`, or with a batch f of one sample. */

/** A source with its title. */
export interface Example {
  readonly id: string;
  readonly title: string;
  readonly source: string;
}
export const examples: readonly Example[] = [
  {
    id: 'logistic',
    title: 'Logistic regression',
    source: `// f is the loss of one sample; the batch is mapped over
const params = { w: tensor([0.5, -0.3]), b: tensor(0.1) };
const batch = {
  x: tensor([[1, 2], [2, 0.5], [-1, -1.5], [-2, 0.3]]),
  y: tensor([1, 1, 0, 0]),
};
const f = ({ w, b }, { x, y }) => {
  const z = add(sum(mul(w, x)), b);
  // −[y·ln σ(z) + (1 − y)·ln σ(−z)]
  return sub(softplus(z), mul(y, z));
};
return { f, params, batch };
`,
  },
  {
    id: 'xor',
    title: 'XOR',
    source: `// a layer of three units learns what no line can separate
const params = {
  hidden: { W: tensor([[1, -1, 0.5], [0.7, 0.9, -1]]), b: tensor([0, 0.1, 0]) },
  out: { W: tensor([[1.2], [0.8], [-0.6]]), b: tensor([0]) },
};
const batch = {
  x: tensor([[0, 0], [0, 1], [1, 0], [1, 1]]),
  y: tensor([[0], [1], [1], [0]]),
};
const linear = ({ W, b }, x) => add(matmul(x, W), b);
const f = ({ hidden, out }, { x, y }) => {
  const h = tanh(linear(hidden, x));
  return mean(square(sub(sigmoid(linear(out, h)), y)));
};
return { f, params, batch };
`,
  },
  {
    id: 'convolution',
    title: 'A convolution',
    source: `// which 3 × 3 kernel makes an edge out of a picture? one picture is [height, width, channels]
const params = { kernel: tensor([0, 0.1, 0, 0.1, -0.3, 0.1, 0, 0.1, 0], [3, 3, 1, 1]) };
const picture = tensor([
  0, 0, 0, 1, 1,
  0, 0, 0, 1, 1,
  0, 0, 1, 1, 1,
  0, 1, 1, 1, 1,
], [1, 4, 5, 1]);
const target = tensor([
  0, 0, 1, 0, 0,
  0, 0, 1, 0, 0,
  0, 1, 0, 0, 0,
  1, 0, 0, 0, 0,
], [1, 4, 5, 1]);
const f = ({ kernel }) => mean(square(sub(conv(picture, kernel, { pad: [[1, 1], [1, 1]] }), target)));
return { f, params };
`,
  },
  {
    id: 'own-op',
    title: 'An op of your own',
    source: `// softsign y = x / (1 + |x|): a body in other ops is its meaning, vjp its derivative in closed form
const softsignOp = {
  kind: 'composite',
  name: 'softsign',
  doc: 'x / (1 + |x|)',
  formula: 'y = x / (1 + |x|)',
  shape: ([x]) => ({ shape: x.shape, dtype: x.dtype }),
  body: ([x]) => [div(x, add(1, abs(x)))],
  vjp: ([g], [x]) => {
    const d = recip(add(1, abs(x)));
    return [mul(g, mul(d, d))];
  },
  sample: () => ({ operands: [{ shape: [2, 3] }], attrs: {} }),
};
const softsign = (x) => bind(softsignOp, [x], {});

const params = tensor([-2, -0.5, 0.25, 3]);
const f = (x) => sum(square(softsign(x)));
return { f, params };
`,
  },
];

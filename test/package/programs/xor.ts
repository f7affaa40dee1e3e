// XOR: a small network, its parameters a tree, trained by gradient descent.
import {
  add,
  compile,
  crossEntropy,
  fold,
  key,
  matmul,
  mean,
  mul,
  normal,
  openBackend,
  read,
  relu,
  sub,
  type Tensor,
  tensor,
  valueAndGrad,
  zipTrees,
} from 'selora-ts';

type Layer = { readonly weight: Tensor; readonly bias: Tensor };
type Net = { readonly hidden: Layer; readonly out: Layer };
const net = (p: Net, x: Tensor): Tensor => {
  const h = relu(add(matmul(x, p.hidden.weight), p.hidden.bias));
  return add(matmul(h, p.out.weight), p.out.bias);
};
const x = tensor([
  [0, 0],
  [0, 1],
  [1, 0],
  [1, 1],
]);
const labels = tensor([0, 1, 1, 0], [4], 'i32');

const backend = await openBackend('wasm', { threads: 1 });
const start = compile(
  (): Net => ({
    hidden: { weight: normal(fold(key(3), 0), [2, 16]), bias: mul(normal(fold(key(3), 1), [16]), 0.1) },
    out: { weight: mul(normal(fold(key(3), 2), [16, 2]), 0.25), bias: mul(normal(fold(key(3), 3), [2]), 0.1) },
  }),
  { backend },
);
const step = compile(
  (p: Net) => {
    const [loss, g] = valueAndGrad((q: Net) => mean(crossEntropy(net(q, x), labels)))(p);
    return { loss, next: zipTrees((w: Tensor, d: Tensor) => sub(w, mul(d, 0.3)), p, g) };
  },
  { backend },
);
let params = start();
const losses: number[] = [];
for (let i = 0; i < 300; i++) {
  const { loss, next } = step(params);
  params = next;
  if (i % 299 === 0) losses.push((await read(loss))[0]!);
}
const logits = await read(compile((p: Net) => net(p, x), { backend })(params));
const answers = [0, 1, 2, 3].map((i) => (logits[2 * i + 1]! > logits[2 * i]! ? 1 : 0));
console.log(JSON.stringify({ losses, answers }));
await backend.close();

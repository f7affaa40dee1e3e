// Logistic regression: which of two clouds a point belongs to.
import {
  add,
  compile,
  grad,
  key,
  keys,
  matmul,
  mean,
  mul,
  neg,
  normal,
  openBackend,
  read,
  softplus,
  sub,
  type Tensor,
  tensor,
} from 'selora-ts';

const [left, right] = keys(key(1));
const cloud = (k: Tensor, at: number): Tensor => add(normal(k, [100, 2]), at);
type Model = { readonly w: Tensor; readonly b: Tensor };
const score = (m: Model, x: Tensor): Tensor => add(matmul(x, m.w), m.b);
// −ln σ(s) for the right cloud, −ln σ(−s) for the left one
const loss = (m: Model, a: Tensor, b: Tensor): Tensor =>
  add(mean(softplus(score(m, a))), mean(softplus(neg(score(m, b)))));

const backend = await openBackend('wasm', { threads: 1 });
const step = compile(
  (m: Model, a: Tensor, b: Tensor): Model => {
    const g = grad(loss)(m, a, b);
    return { w: sub(m.w, mul(g.w, 0.5)), b: sub(m.b, mul(g.b, 0.5)) };
  },
  { backend },
);
const points = compile(() => ({ a: cloud(left, -1.5), b: cloud(right, 1.5) }), { backend })();
let model: Model = { w: tensor([0, 0]), b: tensor(0) };
for (let i = 0; i < 100; i++) model = step(model, points.a, points.b);
const [a, b] = compile((m: Model, p: typeof points) => [score(m, p.a), score(m, p.b)] as const, { backend })(
  model,
  points,
);
const right100 = [...(await read(a))].filter((s) => s < 0).length + [...(await read(b))].filter((s) => s > 0).length;
console.log(JSON.stringify({ accuracy: right100 / 200, w: [...(await read(model.w))] }));
await backend.close();

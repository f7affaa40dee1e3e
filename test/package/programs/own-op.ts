// An op of one's own: a record with shape rule, derivative and batching rule, used as any other.
import {
  add,
  bind,
  type Composite,
  compile,
  grad,
  mul,
  openBackend,
  read,
  sigmoid,
  sub,
  sum,
  type Tensor,
  tensor,
  vmap,
} from 'selora-ts';

type Slope = { readonly beta: number };
const swishOp: Composite<Slope> = {
  kind: 'composite',
  name: 'swishBeta',
  doc: 'x times the logistic function of βx',
  formula: 'y = x·σ(βx)',
  shape: ([x]) => ({ shape: x!.shape, dtype: x!.dtype }),
  body: ([x], { beta }) => [mul(x!, sigmoid(mul(x!, beta)))],
  // dy/dx = σ(βx) + βy·(1 − σ(βx))
  vjp([g], [x], { beta }, [y]) {
    const s = sigmoid(mul(x!, beta));
    return [mul(g!, add(s, mul(mul(y!, beta), sub(1, s))))];
  },
  batch: (_size, [x], _mapped, attrs) => [bind(swishOp, [x!], attrs)],
  sample: (pick) => ({ operands: [{ shape: [pick(1, 4)] }], attrs: { beta: 1.5 } }),
};
const swish = (x: Tensor, beta: number): Tensor => bind(swishOp, [x], { beta });

const backend = await openBackend('wasm', { threads: 1 });
const perSample = (f: (row: Tensor) => Tensor) => compile((x: Tensor) => vmap(grad(f))(x), { backend });
const x = tensor([
  [-1, 0.5],
  [2, -0.25],
]);
const own = await read(perSample((row) => sum(swish(row, 1.5)))(x));
const plain = await read(perSample((row) => sum(mul(row, sigmoid(mul(row, 1.5)))))(x));
console.log(JSON.stringify({ own: [...own], plain: [...plain] }));
await backend.close();

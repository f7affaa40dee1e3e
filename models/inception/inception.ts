/** Inception v3 as the FID has it: pictures to features. */
import { add, averagePool, concat, maxPool, mean, mul, relu, rsqrt, sub, type Tensor } from '../../core/index.ts';
import { conv2d } from '../../nn/index.ts';
import { seen, type Tap } from '../tap.ts';
import type { Block, Inception, Unit } from './spec.ts';

/** Where features are taken: after the first and the second max pool, after Mixed_6e, at the end. Each averaged over the picture. */
export const TAPS = [64, 192, 768, 2048] as const;
/** How many features. */
export type TapSize = (typeof TAPS)[number];

/** eps of its batch norms */
const EPS = 1e-3;

/** relu((x∗W − mean)/√(var + eps)·weight + bias); `same` keeps the picture's size */
function run({ conv, bn }: Unit<Tensor>, x: Tensor, how: 'same' | 'valid' = 'same', stride = 1): Tensor {
  const [kh, kw] = conv.weight.shape as [number, number];
  const around = (k: number): readonly [number, number] => (how === 'same' ? [(k - 1) / 2, (k - 1) / 2] : [0, 0]);
  const y = conv2d({ weight: conv.weight }, x, { stride, padding: [around(kh), around(kw)] });
  const scale = mul(bn.weight, rsqrt(add(bn.running_var, EPS)));
  return relu(add(mul(y, scale), sub(bn.bias, mul(bn.running_mean, scale))));
}
const chain = (b: Block<Tensor>, names: readonly string[], x: Tensor): Tensor =>
  names.reduce((h, name) => run(b[name]!, h), x);
/** the mean over 3×3, the padding not counted */
const around3 = (x: Tensor): Tensor =>
  averagePool(x, {
    window: [3, 3],
    stride: [1, 1],
    pad: [
      [1, 1],
      [1, 1],
    ],
    countPadding: false,
  });
const halved = (x: Tensor): Tensor => maxPool(x, { window: [3, 3], stride: [2, 2] });
const channels = (list: readonly Tensor[]): Tensor => concat(list, 3);

const blockA = (b: Block<Tensor>, x: Tensor): Tensor =>
  channels([
    run(b.branch1x1!, x),
    chain(b, ['branch5x5_1', 'branch5x5_2'], x),
    chain(b, ['branch3x3dbl_1', 'branch3x3dbl_2', 'branch3x3dbl_3'], x),
    run(b.branch_pool!, around3(x)),
  ]);
const blockB = (b: Block<Tensor>, x: Tensor): Tensor =>
  channels([
    run(b.branch3x3!, x, 'valid', 2),
    run(b.branch3x3dbl_3!, chain(b, ['branch3x3dbl_1', 'branch3x3dbl_2'], x), 'valid', 2),
    halved(x),
  ]);
const blockC = (b: Block<Tensor>, x: Tensor): Tensor =>
  channels([
    run(b.branch1x1!, x),
    chain(b, ['branch7x7_1', 'branch7x7_2', 'branch7x7_3'], x),
    chain(
      b,
      [1, 2, 3, 4, 5].map((i) => `branch7x7dbl_${i}`),
      x,
    ),
    run(b.branch_pool!, around3(x)),
  ]);
const blockD = (b: Block<Tensor>, x: Tensor): Tensor =>
  channels([
    run(b.branch3x3_2!, run(b.branch3x3_1!, x), 'valid', 2),
    run(b.branch7x7x3_4!, chain(b, ['branch7x7x3_1', 'branch7x7x3_2', 'branch7x7x3_3'], x), 'valid', 2),
    halved(x),
  ]);
function blockE(b: Block<Tensor>, x: Tensor, pool: (x: Tensor) => Tensor): Tensor {
  const [narrow, twice] = [run(b.branch3x3_1!, x), chain(b, ['branch3x3dbl_1', 'branch3x3dbl_2'], x)];
  return channels([
    run(b.branch1x1!, x),
    run(b.branch3x3_2a!, narrow),
    run(b.branch3x3_2b!, narrow),
    run(b.branch3x3dbl_3a!, twice),
    run(b.branch3x3dbl_3b!, twice),
    run(b.branch_pool!, pool(x)),
  ]);
}
/** the network's odd one: in Mixed_7c the pool is a max pool */
const most3 = (x: Tensor): Tensor =>
  maxPool(x, {
    window: [3, 3],
    stride: [1, 1],
    pad: [
      [1, 1],
      [1, 1],
    ],
  });

/**
 * x[n, 299, 299, 3] in [−1, 1) → features [n, size]; what lies behind the tap is not computed.
 * Source: Szegedy et al. 2016 as TensorFlow's classify_image graph of 2015-12-05; torch-fidelity and pytorch-fid have the same.
 * Cost at 2,048: 11.4·10⁹ flop a picture; at 64: 1.6·10⁹.
 */
export function inception(p: Inception<Tensor>, x: Tensor, size: TapSize, tap?: Tap): Tensor {
  const unit = (name: string, h: Tensor, how?: 'same' | 'valid', stride?: number) =>
    seen(tap, name, run(p[name] as Unit<Tensor>, h, how, stride));
  const block = (name: string, f: (b: Block<Tensor>, h: Tensor) => Tensor, h: Tensor) =>
    seen(tap, name, f(p[name] as Block<Tensor>, h));
  const over = (h: Tensor): Tensor => mean(h, [1, 2]);
  let h = unit('Conv2d_1a_3x3', x, 'valid', 2);
  h = unit('Conv2d_2b_3x3', unit('Conv2d_2a_3x3', h, 'valid'));
  h = seen(tap, 'MaxPool_1', halved(h));
  if (size === 64) return over(h);
  h = unit('Conv2d_4a_3x3', unit('Conv2d_3b_1x1', h), 'valid');
  h = seen(tap, 'MaxPool_2', halved(h));
  if (size === 192) return over(h);
  for (const name of ['Mixed_5b', 'Mixed_5c', 'Mixed_5d']) h = block(name, blockA, h);
  h = block('Mixed_6a', blockB, h);
  for (const name of ['Mixed_6b', 'Mixed_6c', 'Mixed_6d', 'Mixed_6e']) h = block(name, blockC, h);
  if (size === 768) return over(h);
  h = block('Mixed_7a', blockD, h);
  h = block('Mixed_7b', (b, y) => blockE(b, y, around3), h);
  return over(block('Mixed_7c', (b, y) => blockE(b, y, most3), h));
}

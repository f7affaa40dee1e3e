/** LoKr: a Kronecker product of a small matrix and a low-rank one. */
import { z } from 'zod';
import { add, asFloat, dot, mul, permute, reshape, type Tensor, tensor, zeros } from '../../core/index.ts';
import { foldKey, kaimingUniform } from '../adapter.ts';
import { inputsOf, kernelOf, ranksAtStart } from './low-rank.ts';
import { Field, type HostModule, type HostTensor, type MethodOf, type Place } from './method.ts';
import { rank, ranks, scale, told } from './settings.ts';
import { cannotBegin, fullModule, matrixOf, product, refuseKnown, withMatrix } from './weights.ts';

const settings = {
  rank,
  ranks,
  scale,
  kronFactor: told(z.int().min(2).max(1024).nullable().default(null), {
    group: 'Model and adapters',
    value: 'n',
    help: 'lokr: most rows and columns of the small matrix (default: as near to square as the sizes allow)',
  }),
};
type Lokr = { readonly w: Tensor; readonly a: Tensor; readonly b: Tensor };
type Factored = { readonly kronFactor: number | null };

/**
 * A size as a product of a smaller and a larger number, the smaller one at most `factor`.
 * @example factorization(360, null) // [18, 20], as LyCORIS' code
 */
export function factorization(size: number, factor: number | null): readonly [number, number] {
  const most = factor ?? size;
  if (factor !== null && size % factor === 0) return [Math.min(factor, size / factor), Math.max(factor, size / factor)];
  let best: readonly [number, number] = [1, size];
  for (let m = 2; m <= most && m * m <= size; m++) if (size % m === 0) best = [m, size / m];
  return best;
}

/** [rows, columns] of the small matrix and of the large one; a convolution's window belongs to the large one. */
function sizes(place: Place, { kronFactor }: Factored) {
  const [c, d] = factorization(place[1], kronFactor);
  const [a, b] = factorization(place[0], kronFactor);
  return { small: [a, c] as const, large: [b, (d * inputsOf(place)) / place[1]] as const };
}
/** [rows, columns] of w ⊗ (a·b) by [out small, out large, in small, in large] */
const kron = (w: Tensor, large: Tensor): Tensor => {
  const [[a, c], [b, d]] = [w.shape as [number, number], large.shape as [number, number]];
  const all = mul(reshape(w, [a, c, 1, 1]), reshape(large, [1, 1, b, d]));
  return reshape(permute(all, [0, 2, 1, 3]), [a * b, c * d]);
};
const times = (a: Tensor, b: Tensor): Tensor =>
  reshape(dot(reshape(a, [1, ...a.shape]), reshape(b, [1, ...b.shape])), [a.shape[0]!, b.shape[1]!]);

/** Whether LyCORIS keeps the large matrix whole at this rank. */
const whole = ({ rank, fields: { a, b } }: HostModule, [, , ...kernel]: Place): boolean =>
  rank >= Math.max(a!.shape[0]!, b!.shape[1]! / kernel.reduce((n, side) => n * side, 1)) / 2;

/**
 * The method `lokr`: W = W0 + s·w ⊗ (a·b), w[o₁, i₁] and a·b[o₂, i₂] with o₁·o₂ = d_out, i₁·i₂ = d_in. At the start w and a are
 * Kaiming-uniform with slope √5, b = 0, as in LyCORIS. KronA keeps both matrices whole: a rank of the large one's smaller
 * side reaches the same products here.
 * Source: Yeh et al., Navigating Text-To-Image Customization: From LyCORIS Fine-Tuning to Model Evaluation (2024), 3.2.3;
 * Edalati et al., KronA (2022), eq. 6; LyCORIS `modules/lokr.py`.
 */
export const lokr: MethodOf<typeof settings, Lokr> = {
  name: 'lokr',
  doc: 'LoKr: a Kronecker product of a small matrix and a low-rank one',
  source:
    'Yeh et al., Navigating Text-To-Image Customization: From LyCORIS Fine-Tuning to Model Evaluation (2024), 3.2.3',
  settings,
  leastRank: () => 1,
  ranks(c, places, known) {
    refuseKnown('lokr', known);
    return ranksAtStart(c, places);
  },
  label: (c) => `LoKr r=${c.rank}`,
  facts: (c) => ({ lambda: null, testEvery: null, scale: c.scale, initA: 5 ** 0.5 }),
  room: (_c, _most, own) => Math.max(1, own),
  fields(place, rank, c) {
    const { small, large } = sizes(place, c);
    return { w: new Field(small), a: new Field([large[0], rank], 1), b: new Field([rank, large[1]], 0) };
  },
  init: (places, ranks, key, c) =>
    Object.fromEntries(
      [...places].map(([path, place]) => {
        const { small, large } = sizes(place, c);
        const r = ranks[path]!;
        const draw = (what: string, shape: readonly [number, number]) =>
          tensor(kaimingUniform(foldKey(key, path, what), shape[1], shape[0] * shape[1], { a: 5 ** 0.5 }), shape);
        return [path, { w: draw('w', small), a: draw('a', [large[0], r]), b: zeros([r, large[1]]) }];
      }),
    ),
  attach(module, { w, a, b }, c) {
    return withMatrix(module, add(matrixOf(asFloat(module.weight)), mul(kron(w, times(a, b)), c.scale)));
  },
  toFile({ rank, fields: { w, a, b } }, place, c) {
    const [dOut, dIn] = [place[0], inputsOf(place)];
    const [rows, columns] = w!.shape as [number, number];
    const [o, i] = [a!.shape[0]!, b!.shape[1]!];
    const wide = columns * rank;
    if (wide >= Math.min(dIn, dOut)) {
      const large = product(a!, b!);
      const at = (x: number, y: number) =>
        c.scale * w!.data[Math.floor(x / o) * columns + Math.floor(y / i)]! * large[(x % o) * i + (y % i)]!;
      return fullModule(
        Float64Array.from({ length: dOut * dIn }, (_, k) => at(Math.floor(k / dIn), k % dIn)),
        place,
      );
    }
    // w ⊗ (a·b) = (w ⊗ a)·(1 ⊗ b)
    const A = new Float32Array(dIn * wide);
    const B = new Float32Array(wide * dOut);
    for (let k = 0; k < columns; k++)
      for (let r = 0; r < rank; r++) {
        for (let y = 0; y < i; y++) A[(k * i + y) * wide + k * rank + r] = b!.data[r * i + y]!;
        for (let x = 0; x < rows; x++)
          for (let y = 0; y < o; y++)
            B[(k * rank + r) * dOut + x * o + y] = c.scale * w!.data[x * columns + k]! * a!.data[y * rank + r]!;
      }
    return { A, B, rank: wide, dIn, dOut, scale: 1, ...kernelOf(place) };
  },
  toLycoris(module, place, c) {
    const { w, a, b } = module.fields;
    const kernel = place.slice(2);
    const inner = b!.shape[1]! / kernel.reduce((n, side) => n * side, 1);
    const own: { readonly [name: string]: HostTensor } = {
      lokr_w1: w!,
      lokr_w2_a: a!,
      lokr_w2_b: b!,
      alpha: { shape: [], data: Float32Array.of(c.scale * module.rank) },
    };
    if (!whole(module, place)) return own;
    // with both whole LyCORIS takes the scale for 1, whatever alpha says
    return {
      lokr_w1: { shape: w!.shape, data: w!.data.map((x) => x * c.scale) },
      lokr_w2: { shape: [a!.shape[0]!, inner, ...kernel], data: Float32Array.from(product(a!, b!)) },
      alpha: { shape: [], data: Float32Array.of(1) },
    };
  },
  fromFile: cannotBegin('lokr'),
};

/** The weights of Winograd's F(2×2, 3×3), transformed and in panels: u[position][panel][k][lane] = (G g Gᵀ)[position]. */
import { assembler, type Expr, f32x4, i32, type Local, v128 } from '../assembler/assemble.ts';
import { epilogueWords, loadWords, min } from '../product/gemmCode.ts';

type V128 = Local<'v128'>;
const range = (n: number): readonly number[] => Array.from({ length: n }, (_, i) => i);

/** G v: the weight transform of three values */
const weightTransform = ([a, b, c]: readonly [V128, V128, V128]): readonly Expr<'v128'>[] => [
  a,
  f32x4.mul(f32x4.add(f32x4.add(a, c), b), 0.5),
  f32x4.mul(f32x4.sub(f32x4.add(a, c), b), 0.5),
  c,
];
export const winogradWeightsName = (width: number): string => `winogradWeights${width}`;
const WEIGHT_WORDS = [
  'w',
  'rowStride',
  'columnStride',
  'kStride',
  'laneStride',
  'lanes',
  'k',
  'u',
  'uPosition',
] as const;
type WeightWord = (typeof WEIGHT_WORDS)[number];
export const winogradWeightsWords = (words: Readonly<Record<WeightWord, number>>): readonly number[] => [
  ...epilogueWords({ alpha: 1, activation: 'none', cStride: 0, residualStride: 0 }),
  ...WEIGHT_WORDS.map((word) => words[word]),
];

/** Module with the kernel `winogradWeightsName(width)`: u[position][panel][k][width] = G g Gᵀ; unit = panel. */
export const winogradWeightsModule = (width: number): Uint8Array<ArrayBuffer> => {
  const m = assembler();
  m.kernel(winogradWeightsName(width), (f, { args, start, end }) => {
    const w = loadWords(f, args, WEIGHT_WORDS);
    const [panel, k] = [f.local('i32'), f.local('i32')];
    f.for(panel, start, end, 1, () => {
      const target = f.let(i32.add(w.u, i32.mul(panel, i32.mul(w.k, width * 4))));
      for (let q = 0; q < width; q += 4) {
        // Missing lanes repeat the last one.
        const lanes = range(4).map((i) => {
          const lane = f.let(i32.add(i32.mul(panel, width), q + i));
          const last = f.let(i32.sub(w.lanes, 1));
          return f.let(i32.add(w.w, i32.mul(min(lane, last), w.laneStride)));
        });
        const to = f.let(i32.add(target, q * 4));
        f.for(k, 0, w.k, 1, () => {
          const g = range(3).map((y) =>
            range(3).map((x) => {
              const offset = f.let(i32.add(i32.mul(w.rowStride, y), i32.mul(w.columnStride, x)));
              const value = f.let(v128.load32_splat(i32.add(lanes[0]!, offset)));
              for (const i of [1, 2, 3]) f.set(value, v128.load32_lane(i32.add(lanes[i]!, offset), value, i));
              return value;
            }),
          );
          const half = range(3).map((x) =>
            weightTransform(g.map((row) => row[x]!) as unknown as readonly [V128, V128, V128]).map((e) => f.let(e)),
          );
          const at = f.let(to);
          for (const y of range(4))
            for (const value of weightTransform(half.map((c) => c[y]!) as unknown as readonly [V128, V128, V128])) {
              f.emit(v128.store(at, value));
              f.set(at, i32.add(at, w.uPosition));
            }
          for (const lane of lanes) f.set(lane, i32.add(lane, w.kStride));
          f.inc(to, width * 4);
        });
      }
    });
  });
  return m.bytes();
};

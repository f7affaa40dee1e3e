/** What LyCORIS makes of its tensors, after its `modules/*.py` (3.4): the reference for files in its forms. */
import { inverse, Matrix } from 'ml-matrix';
import type { HostTensor, Place } from '../../selora/methods/method.ts';

type Named = Readonly<Record<string, HostTensor>>;
const matrix = ({ shape, data }: HostTensor): Matrix =>
  Matrix.from1DArray(shape[0]!, data.length / shape[0]!, Array.from(data));

/** W0 + ΔW [d_out, d_in] that LyCORIS computes from a module's tensors, of a weight shaped as its place. */
export function lycorisWeight(t: Named, weight: ArrayLike<number>, [dOut]: Place): number[] {
  const W = Matrix.from1DArray(dOut, weight.length / dOut, Array.from(weight));
  const alpha = t.alpha?.data[0] ?? 0;
  if (t.diff) return W.add(matrix({ ...t.diff, shape: [dOut] })).to1DArray();
  if (t.hada_w1_a) {
    const [a1, b1, a2, b2] = ['hada_w1_a', 'hada_w1_b', 'hada_w2_a', 'hada_w2_b'].map((name) => matrix(t[name]!));
    const change = a1!.mmul(b1!).mul(a2!.mmul(b2!));
    return W.add(change.mul(alpha / b1!.rows)).to1DArray();
  }
  if (t.lokr_w1) {
    const large = t.lokr_w2 ? matrix(t.lokr_w2) : matrix(t.lokr_w2_a!).mmul(matrix(t.lokr_w2_b!));
    // both whole: the scale is 1 whatever alpha is
    const scale = t.lokr_w2 ? 1 : alpha / t.lokr_w2_b!.shape[0]!;
    return W.add(matrix(t.lokr_w1).kroneckerProduct(large).mul(scale)).to1DArray();
  }
  if (t.oft_blocks) {
    const [n, k] = t.oft_blocks.shape as [number, number, number];
    const out = W.clone();
    for (let block = 0; block < n; block++) {
      const X = Matrix.from1DArray(k, k, Array.from(t.oft_blocks.data.subarray(block * k * k, (block + 1) * k * k)));
      const Q = Matrix.sub(X, X.transpose());
      const R = Matrix.add(Matrix.eye(k), Q).mmul(inverse(Matrix.sub(Matrix.eye(k), Q)));
      const rows = W.subMatrix(block * k, (block + 1) * k - 1, 0, W.columns - 1);
      out.setSubMatrix(R.transpose().mmul(rows), block * k, 0);
    }
    return out.to1DArray();
  }
  if (t.dora_scale) {
    const change = matrix(t['lora_up.weight']!).mmul(matrix(t['lora_down.weight']!));
    const V = Matrix.add(W, change.mul(alpha / t['lora_down.weight']!.shape[0]!));
    const lengths = V.to2DArray().map((row) => Math.hypot(...row));
    return V.to2DArray().flatMap((row, o) => row.map((v) => (v * t.dora_scale!.data[o]!) / lengths[o]!));
  }
  if (t.on_input) {
    const { data } = t.weight!;
    const inner = W.columns / data.length;
    const factor = (o: number, i: number) => 1 + (t.on_input!.data[0] === 1 ? data[Math.floor(i / inner)]! : data[o]!);
    return W.to2DArray().flatMap((row, o) => row.map((w, i) => w * factor(o, i)));
  }
  throw new Error(`no form of LyCORIS: ${Object.keys(t).join(', ')}`);
}

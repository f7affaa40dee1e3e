/** How well pictures and texts agree by CLIP's embeddings. */

/** cos ∠(x, y). @throws RangeError for vectors of different lengths */
export function cosine(x: ArrayLike<number>, y: ArrayLike<number>): number {
  if (x.length !== y.length) throw new RangeError(`embeddings of ${x.length} and ${y.length} numbers`);
  let [xy, xx, yy] = [0, 0, 0];
  for (let j = 0; j < x.length; j++) {
    xy += x[j]! * y[j]!;
    xx += x[j]! ** 2;
    yy += y[j]! ** 2;
  }
  return xy / Math.sqrt(xx * yy);
}

/** Three numbers go by this name; each says which it is. Pair i is picture i with text i. */
export interface ClipScore {
  /** 100·cos of each pair */
  readonly pairs: readonly number[];
  /** mean of 100·max(cos, 0): torchmetrics, which clamps each pair */
  readonly hundred: number;
  /** mean of 2.5·max(cos, 0): Hessel et al. 2021 */
  readonly hessel: number;
  /** max(mean of 100·cos, 0): torchmetrics of other versions */
  readonly meanFirst: number;
}
/** @throws RangeError where there are not as many texts as pictures */
export function clipScore(pictures: readonly ArrayLike<number>[], texts: readonly ArrayLike<number>[]): ClipScore {
  if (pictures.length !== texts.length || texts.length === 0)
    throw new RangeError(`${pictures.length} pictures and ${texts.length} texts, expected as many of both`);
  const cos = pictures.map((p, i) => cosine(p, texts[i]!));
  const mean = (values: readonly number[]) => values.reduce((a, b) => a + b, 0) / values.length;
  const clamped = mean(cos.map((x) => Math.max(x, 0)));
  return {
    pairs: cos.map((x) => 100 * x),
    hundred: 100 * clamped,
    hessel: 2.5 * clamped,
    meanFirst: Math.max(0, 100 * mean(cos)),
  };
}

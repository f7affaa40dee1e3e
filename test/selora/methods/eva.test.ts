/** EVA against the whole decomposition of a layer's inputs in f64. */
import { EigenvalueDecomposition, Matrix, QrDecomposition, SingularValueDecomposition } from 'ml-matrix';
import { describe, expect, test } from 'vitest';
import { grad, mul, square, sum, type Tensor, tensor } from '../../../core/index.ts';
import { conv2d, linear } from '../../../nn/index.ts';
import { hostKey, normalNumbers } from '../../../selora/adapter.ts';
import { eva, ranksByShare, varianceOf } from '../../../selora/methods/eva.ts';
import type { Method, Params, Place, Places } from '../../../selora/methods/method.ts';
import { settingsOf } from '../../../selora/methods/registry.ts';
import { mapModules, type PerModule } from '../../../selora/networks.ts';
import { numbers } from '../../support/gradcheck.ts';
import { atRankTwo, layer, places, weightOf } from '../../support/method-layers.ts';

const method = eva as unknown as Method;
const drawn = (seed: number, rows: number, columns: number) =>
  Matrix.from1DArray(rows, columns, Array.from(normalNumbers(hostKey(seed), rows * columns)));
const close = (got: readonly number[], want: readonly number[], by: number, what = '') => {
  expect(got.length, what).toBe(want.length);
  for (const [i, w] of want.entries()) expect(Math.abs(got[i]! - w), `${what} [${i}]`).toBeLessThanOrEqual(by);
};
/** an input of a layer, and what its weight sees of it: a row for every place of the output, d_in counting [in, kh, kw] */
function inputOf(path: string, seed: number): { readonly x: Tensor; readonly X: Matrix } {
  const [, c, kh = 1, kw = 1] = places.get(path)!;
  const linear = places.get(path)!.length === 2;
  const [n, h, w] = linear ? [1, 1, 11] : [2, 4, 3];
  const data = Array.from(normalNumbers(hostKey(seed), n * h * w * c!));
  const at = (b: number, i: number, j: number, k: number) =>
    i < 0 || j < 0 || i >= h || j >= w ? 0 : data[((b * h + i) * w + j) * c! + k]!;
  const rows: number[][] = [];
  for (let b = 0; b < n; b++)
    for (let i = 0; i < h; i++)
      for (let j = 0; j < w; j++) {
        const row: number[] = [];
        for (let k = 0; k < c!; k++)
          for (let y = 0; y < kh; y++)
            for (let z = 0; z < kw; z++) row.push(at(b, i + y - (kh >> 1), j + z - (kw >> 1), k));
        rows.push(row);
      }
  return { x: tensor(data, linear ? [11, c!] : [n, h, w, c!], 'f64'), X: new Matrix(rows) };
}

describe.each([...places.keys()])('%s', (path) => {
  const { c, start } = atRankTwo(method);
  const plain = layer(path, weightOf(path), 'f64');
  const { x, X } = inputOf(path, 4);
  const Q = drawn(5, X.columns, 3);
  const f64 = (t: Float32Array | number[], shape: readonly number[]) => tensor(Array.from(t), shape, 'f64');
  const looking = async () => {
    const { A, B } = start[path]! as { A: Tensor; B: Tensor };
    const own = { A: f64(await numbers(A), A.shape), B: f64(await numbers(B), B.shape) };
    return { own, look: { Q: f64(Q.to1DArray(), [X.columns, 3]), total: tensor([0], [], 'f64') } };
  };
  const output = (p: Params) => {
    const module = method.attach(plain, p, c) as never;
    return places.get(path)!.length === 4 ? conv2d(module, x) : linear(module, x);
  };

  test('looking changes nothing; its derivatives are XᵀXQ and ‖X‖², whatever the loss', async () => {
    const { own, look } = await looking();
    expect(await numbers(output({ ...own, look }))).toEqual(await numbers(output(own)));
    for (const size of [1, 1e-3]) {
      const g = (grad(((p: Params) => mul(sum(square(output(p))), size)) as never) as (p: Params) => Params)({ ...own, look }); // biome-ignore format: one line
      const seen = g.look as { readonly Q: Tensor; readonly total: Tensor };
      close(await numbers(seen.Q), X.transpose().mmul(X).mmul(Q).to1DArray(), 1e-10, 'Q');
      close(await numbers(seen.total), [X.norm() ** 2], 1e-9, 'total');
    }
    // and what is trained has the gradient it has without
    const loss = (p: Params) => sum(square(output(p)));
    const [beside, alone] = [{ ...own, look }, own].map((p) => (grad(loss as never) as (p: Params) => Params)(p));
    close(await numbers(beside!.B as Tensor), await numbers(alone!.B as Tensor), 1e-12, 'B');
  });
});

test('eigenvectors within a subspace that has all of it are those of XᵀX', () => {
  const X = drawn(1, 30, 6).mmul(Matrix.diag([5, 3, 2, 1, 0.5, 0.1]));
  const G = X.transpose().mmul(X);
  const Q = new QrDecomposition(drawn(2, 6, 6)).orthogonalMatrix;
  const { V, shares } = varianceOf(Q, G.mmul(Q), X.norm() ** 2);
  const svd = new SingularValueDecomposition(X);
  close([...shares], svd.diagonal.map((s) => s ** 2 / X.norm() ** 2), 1e-12, 'shares'); // biome-ignore format: one line
  for (let i = 0; i < 6; i++) {
    const overlap = V.getColumn(i).reduce((s, v, j) => s + v * svd.rightSingularVectors.get(j, i), 0);
    expect(Math.abs(overlap), `${i}`).toBeGreaterThan(1 - 1e-10);
  }
  expect(new EigenvalueDecomposition(G, { assumeSymmetric: true }).realEigenvalues.length).toBe(6);
});

test('ranks: the largest shares of all, the sum the budget', () => {
  expect(ranksByShare([[0.5, 0.2], [0.4, 0.3], [0.1, 0.05]], 3)).toEqual([1, 2, 0]); // biome-ignore format: one line
  expect(ranksByShare([[0.5, 0.5], [0.5, 0.5]], 3)).toEqual([2, 1]); // biome-ignore format: one line
  expect(ranksByShare([[0.5], [0.4]], 9)).toEqual([1, 1]); // biome-ignore format: one line
});

test('a start: A are the singular vectors of the inputs, ranks by explained variance, the function as it was', async () => {
  const shapes: Places = new Map<string, Place>([['a', [40, 60]], ['b', [50, 24]], ['c', [12, 16]]]); // biome-ignore format: one line
  const c = settingsOf(method, { rank: 3, rankMost: 6 });
  const all = { unet: shapes, text: new Map() };
  // inputs whose variance falls off at a rate of their own
  const inputs: Readonly<Record<string, Matrix>> = { a: of(60, 0.8, 1), b: of(24, 0.3, 2), c: of(16, 0.7, 3) };
  const passes = {
    batches: 1,
    // the same as the backward pass gives, which the tests above hold to this formula
    measure: (looks: PerModule<{ readonly Q: Tensor }>) => async () => {
      const out: Record<string, object> = {};
      for (const [path, { Q }] of Object.entries(looks.unet)) {
        const X = inputs[path]!;
        const q = Matrix.from1DArray(Q.shape[0]!, Q.shape[1]!, await numbers(Q));
        const Y = X.transpose().mmul(X.mmul(q)).to1DArray();
        out[path] = { Y: Float32Array.from(Y), total: Float32Array.of(X.norm() ** 2) };
      }
      return { unet: out, text: {} };
    },
  };
  const asked = method.ranks(c, all);
  const now = {
    step: 1,
    steps: 9,
    key: hostKey(3),
    places: all,
    ranks: asked,
    room: mapModules(() => 6, asked),
    memories: {},
  };
  const outcome = await method.growth!.test(passes as never, now as never, c)();
  const svd = mapModules((X: Matrix) => new SingularValueDecomposition(X), { unet: inputs, text: {} }).unet;
  const shares = Object.entries(inputs).map(([p, X]) =>
    svd[p]!.diagonal.slice(0, 6).map((s) => s ** 2 / X.norm() ** 2),
  );
  const want = ranksByShare(shares, 9);
  expect(Object.values(outcome.ranks.unet)).toEqual(want);
  expect(want.reduce((a, b) => a + b, 0)).toBe(9);
  expect(new Set(want).size).toBeGreaterThan(1);
  const made = outcome.install!(mapModules(() => 8, asked)) as PerModule<{ readonly A: Tensor }>;
  for (const [i, path] of [...shapes.keys()].entries()) {
    const { A } = made.unet[path]!;
    expect(A.shape).toEqual([shapes.get(path)![1], 8]);
    const values = await numbers(A);
    const column = (r: number) => values.filter((_, k) => k % 8 === r);
    for (let r = 0; r < 8; r++) {
      if (r >= want[i]!) {
        expect(column(r).every((v) => v === 0)).toBe(true);
        continue;
      }
      const overlap = column(r).reduce((s, v, k) => s + v * svd[path]!.rightSingularVectors.get(k, r), 0);
      expect(Math.abs(overlap), `${path} ${r}`).toBeGreaterThan(1 - 1e-4);
    }
  }
  // B is zero before and after: the layer computes what it did
  const slot = { p: method.init(shapes, asked.unet, hostKey(1), c).a!, m: {}, v: {}, age: tensor([0]) };
  const { p } = method.growth!.install(slot as never, { A: tensor(new Float32Array(180), [60, 3]) }, c);
  expect((await numbers(p.B as Tensor)).every((v) => v === 0)).toBe(true);
});

/** 80 rows whose right singular vectors are random and whose singular values are 1, q, q², … */
function of(columns: number, q: number, seed: number): Matrix {
  const U = new QrDecomposition(drawn(seed, 80, columns)).orthogonalMatrix;
  const V = new QrDecomposition(drawn(seed + 50, columns, columns)).orthogonalMatrix;
  return U.mmul(Matrix.diag(Array.from({ length: columns }, (_, i) => q ** i))).mmul(V.transpose());
}

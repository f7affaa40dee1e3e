/**
 * The block of results one thread keeps in registers in dot and the convolutions: `rows` × `vecs` vec4s, named one by one
 * because software drivers keep arrays in memory. Everything around the inner loop is a loop too: unrolled edges and
 * stores made single pipelines take a minute to build.
 */
import type { AdapterClass } from './device.ts';

export interface Tile {
  readonly rows: number;
  /** columns / 4 */
  readonly vecs: number;
}
/** Operands that load four neighbours at once get 8×8 results per thread; the others a small block with short code. */
export const tileFor = (vector: boolean): Tile => (vector ? { rows: 8, vecs: 2 } : { rows: 4, vecs: 1 });

/** Threads of a workgroup along columns (n) and rows (m): one vector of lanes on software drivers, a patch on GPUs. */
export const tileThreads: Readonly<Record<AdapterClass, { readonly n: number; readonly m: number }>> = {
  cpu: { n: 8, m: 1 },
  gpu: { n: 8, m: 8 },
};

export const range = (n: number): number[] => Array.from({ length: n }, (_, i) => i);

const acc = (r: number, v: number): string => `acc${r}_${v}`;
const every = <T>({ rows, vecs }: Tile, f: (r: number, v: number) => T): T[] =>
  range(rows).flatMap((r) => range(vecs).map((v) => f(r, v)));

export const declareTile = (t: Tile): string => every(t, (r, v) => `var ${acc(r, v)} = vec4<f32>(0.0);`).join('\n  ');

/** `acc[r] += a_r · b`, where `a(r)` is the expression of row r's value and b0, b1, … hold the columns. */
export const multiplyTile = (t: Tile, a: (r: number) => string): string =>
  range(t.rows)
    .map(
      (r) =>
        `let a${r} = ${a(r)}; ${range(t.vecs)
          .map((v) => `${acc(r, v)} += a${r} * b${v};`)
          .join(' ')}`,
    )
    .join('\n        ');

/** Names and columns b0, b1, … of one step of the sum: vec4 loads, or four single ones. */
export const loadColumns = (t: Tile, vector: boolean, at: (column: number) => string): string =>
  range(t.vecs)
    .map(
      (v) =>
        `let b${v} = ${
          vector
            ? at(4 * v)
            : `vec4(${range(4)
                .map((c) => at(4 * v + c))
                .join(', ')})`
        };`,
    )
    .join('\n        ');

/** How `y` is written: vec4s when a row's columns come in fours. */
export interface TileStore {
  readonly vector: boolean;
  /** number of rows and columns of the result, as expressions */
  readonly rows: string;
  readonly cols: string;
  /** element index of (row, first column), in terms of `r_out` */
  readonly rowStart: string;
}

/** Writes the block at (`row`, `col`), leaving out what lies beyond the result. */
export const storeTile = (
  t: Tile,
  s: TileStore,
): string => `var block = array<vec4<f32>, ${t.rows * t.vecs}>(${every(t, acc).join(', ')});
  for (var r = 0u; r < ${t.rows}u; r++) {
    let r_out = row + r;
    if (r_out >= ${s.rows}) { break; }
    for (var v = 0u; v < ${t.vecs}u; v++) {
      let c_out = col + 4u * v;
      ${
        s.vector
          ? `if (c_out < ${s.cols}) { y[(${s.rowStart} + c_out) / 4u] = block[r * ${t.vecs}u + v]; }`
          : `for (var c = 0u; c < 4u; c++) { if (c_out + c < ${s.cols}) { y[${s.rowStart} + c_out + c] = block[r * ${t.vecs}u + v][c]; } }`
      }
    }
  }`;

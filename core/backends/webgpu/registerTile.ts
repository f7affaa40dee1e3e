/**
 * The kernel dot and the convolutions share: one thread keeps a block of a matrix's results in registers, `rows` × `vecs`
 * vec4s, named one by one because software drivers keep arrays in memory. What a kernel adds is how it walks the sum and
 * where the block's rows and columns lie. Everything around the inner loop is a loop too: unrolled edges and
 * stores made single pipelines take a minute to build.
 */
import { ceilDiv, gridOf, type Kernel, MAX_GROUPS, makeKernel, type Params, range, spreadGroups } from './kernel.ts';
import type { AdapterClass } from './target.ts';

export interface Tile {
  readonly rows: number;
  /** columns / 4 */
  readonly vecs: number;
}
/** Operands that load four neighbours at once get 8×8 results per thread; the others a small block with short code. */
export const tileFor = (vector: boolean): Tile => (vector ? { rows: 8, vecs: 2 } : { rows: 4, vecs: 1 });

export interface Threads {
  readonly n: number;
  readonly m: number;
}
/** Threads of a workgroup along columns (n) and rows (m): one vector of lanes on software drivers, a patch on GPUs. */
export const tileThreads: Readonly<Record<AdapterClass, Threads>> = {
  cpu: { n: 8, m: 1 },
  gpu: { n: 8, m: 8 },
};

const acc = (r: number, v: number): string => `acc${r}_${v}`;
const every = <T>({ rows, vecs }: Tile, f: (r: number, v: number) => T): T[] =>
  range(rows).flatMap((r) => range(vecs).map((v) => f(r, v)));

const declareTile = (t: Tile): string => every(t, (r, v) => `var ${acc(r, v)} = vec4<f32>(0.0);`).join('\n  ');

/** `acc[r] += a_r · b`, where `a(r)` is the expression of row r's value and b0, b1, … hold the columns. */
const multiplyTile = (t: Tile, a: (r: number) => string): string =>
  range(t.rows)
    .map(
      (r) =>
        `let a${r} = ${a(r)}; ${range(t.vecs)
          .map((v) => `${acc(r, v)} += a${r} * b${v};`)
          .join(' ')}`,
    )
    .join('\n        ');

/** Names and columns b0, b1, … of one step of the sum: vec4 loads, or four single ones. */
const loadColumns = (t: Tile, vector: boolean, at: (column: number) => string): string =>
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
interface TileStore {
  readonly vector: boolean;
  /** number of rows and columns of the result, as expressions */
  readonly rows: string;
  readonly cols: string;
  /** element index of (row, first column), in terms of `r_out` */
  readonly rowStart: string;
}

/** Writes the block at (`row`, `col`), leaving out what lies beyond the result. */
const storeTile = (
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

/** The matrix a kernel makes per layer of its grid, and how its blocks are spread over threads. */
export interface TileShape {
  readonly tile: Tile;
  readonly threads: Threads;
  readonly rows: number;
  readonly cols: number;
  /** the same as words of the uniform block */
  readonly pRows: string;
  readonly pCols: string;
  /** the right operand is read by vec4s of four columns; then the stride of its columns is 1 */
  readonly vectorLoad: boolean;
  readonly columnStride: string;
}
/** What one kernel says: text at block (`row`, `col`) of layer `id.z`. */
export interface TileKernel {
  readonly name: string;
  /** the operands' names; the left one is read value by value */
  readonly left: string;
  readonly right: string;
  readonly layers: number;
  /** what is known before the sum */
  readonly setup: readonly string[];
  /** loops around one term of the sum */
  readonly sum: (term: string) => string;
  /** the left operand at row r, and the place in the right one of the columns' first element */
  readonly leftAt: (r: number) => string;
  readonly rightAt: string;
  readonly vectorStore: boolean;
  readonly rowStart: string;
}

/** The kernel around a register tile. The word of the columns' groups is added to the uniform block here. */
export const tileKernel = (params: Params, s: TileShape, k: TileKernel): Kernel => {
  const { tile, threads, vectorLoad } = s;
  const groupsN = ceilDiv(s.cols, 4 * tile.vecs * threads.n);
  const countN = params.word(groupsN);
  const total = groupsN * ceilDiv(s.rows, tile.rows * threads.m);
  const [x, y] = spreadGroups(total, 1);
  const grid = gridOf([x, y, k.layers], params);
  // positions are clamped to the matrix: what an edge block reads too much is never stored
  const columns = vectorLoad
    ? range(tile.vecs).map((v) => `let col${4 * v} = min(col + ${4 * v}u, ${s.pCols} - 4u) / 4u;`)
    : range(4 * tile.vecs).map((c) => `let col${c} = min(col + ${c}u, ${s.pCols} - 1u) * ${s.columnStride};`);
  const term = `${loadColumns(tile, vectorLoad, (c) => `${k.right}[${k.rightAt} + col${c}]`)}
        ${multiplyTile(tile, k.leftAt)}`;
  const code = `@compute @workgroup_size(${threads.n}, ${threads.m})
fn main(@builtin(workgroup_id) place: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>) {
  ${grid.id}
  let at = id.x + id.y * ${MAX_GROUPS}u;
  let row = (at / ${countN} * ${threads.m}u + local.y) * ${tile.rows}u;
  let col = (at % ${countN} * ${threads.n}u + local.x) * ${4 * tile.vecs}u;
  if (row >= ${s.pRows} || col >= ${s.pCols}) { return; }
  ${k.setup.join('\n  ')}
  ${columns.join('\n  ')}
  ${declareTile(tile)}
  ${k.sum(term)}
  ${storeTile(tile, { vector: k.vectorStore, rows: s.pRows, cols: s.pCols, rowStart: k.rowStart })}
}
`;
  const left = { name: k.left, type: 'f32' };
  const right = { name: k.right, type: vectorLoad ? 'vec4<f32>' : 'f32' };
  const result = { name: 'y', type: k.vectorStore ? 'vec4<f32>' : 'f32' };
  return makeKernel(k.name, params, [left, right], [result], grid.groups, code);
};

/**
 * Where a module path belongs in the paper's figures 3 and 4: which network, which row (kind of layer), which
 * column (place in the network). The order is the order of the forward pass, never that of the alphabet, where
 * "layers.10" would come before "layers.2".
 */
import { group } from 'd3-array';

export type Network = 'unet' | 'text';

/** A cell of a rank map. `row` and `column` are labels; `rowOrder` and `columnOrder` sort them. */
export interface Place {
  readonly network: Network;
  readonly row: string;
  readonly column: string;
  readonly rowOrder: number;
  readonly columnOrder: readonly number[];
}

/** Rows of the U-Net map, top to bottom: in the order a transformer block runs them, then what stands outside of it. */
const unetRows: ReadonlyArray<readonly [suffix: string, label: string]> = [
  ['proj_in', 'proj in'],
  ['attn1.to_q', 'attn1 q'],
  ['attn1.to_k', 'attn1 k'],
  ['attn1.to_v', 'attn1 v'],
  ['attn1.to_out.0', 'attn1 out'],
  ['attn2.to_q', 'attn2 q'],
  ['attn2.to_k', 'attn2 k'],
  ['attn2.to_v', 'attn2 v'],
  ['attn2.to_out.0', 'attn2 out'],
  ['ff.net.0.proj', 'ff proj'],
  ['ff.net.2', 'ff out'],
  ['proj_out', 'proj out'],
  ['time_emb_proj', 'time'],
  ['conv1', 'conv 1'],
  ['conv2', 'conv 2'],
  ['conv_shortcut', 'shortcut'],
  ['samplers.0.conv', 'resample'],
  ['conv_', 'in, out'],
];

/** Rows of the text encoder's map, as in the paper's figure 3. */
const textRows: ReadonlyArray<readonly [suffix: string, label: string]> = [
  ['self_attn.q_proj', 'q'],
  ['self_attn.k_proj', 'k'],
  ['self_attn.v_proj', 'v'],
  ['self_attn.out_proj', 'out'],
  ['mlp.fc1', 'fc1'],
  ['mlp.fc2', 'fc2'],
];

// At most 4 digits: an index of a real network, not a number that a hostile file made up.
const unetPath =
  /^(?:(down|up)_blocks\.(\d{1,4})|mid_block)\.(?:attentions\.(\d{1,4})\.(?:transformer_blocks\.(\d{1,4})\.)?(.+)|resnets\.(\d{1,4})\.(time_emb_proj|conv1|conv2|conv_shortcut)|(?:down|up)(samplers\.0\.conv))$/;
const endPath = /^conv_(in|out)$/;
const timePath = /^time_embedding\.linear_([12])$/;
const textPath = /^text_model\.encoder\.layers\.(\d{1,4})\.(.+)$/;
const prefix = /^(?:base_model\.model\.)?(?:(?:unet|text_encoder)\.)?/;

const rowOf = (rows: typeof unetRows, suffix: string): number => rows.findIndex(([s]) => s === suffix);

/**
 * Parses a module path of Stable Diffusion's U-Net or CLIP text encoder; `undefined` when it is neither.
 * U-Net columns are named as in the paper: `d01` = down block 0, transformer 1; `mid`; `u32`. A transformer with
 * several blocks inside gets one column each (`d10.1`). The two linears of the time embedding share the row
 * `time` with the resnets' `time_emb_proj`, in the columns `t1` and `t2` before everything else; the first and the last
 * convolution share one, in the columns `in` and `out`. What changes the size after a block stands in its first column.
 * @example placeOf('unet.up_blocks.3.attentions.2.transformer_blocks.0.attn2.to_k') // row 'attn2 k', column 'u32'
 */
export function placeOf(path: string): Place | undefined {
  const bare = path.replace(prefix, '');
  const time = timePath.exec(bare);
  if (time) {
    const n = Number(time[1]);
    return cell('unet', unetRows, rowOf(unetRows, 'time_emb_proj'), `t${n}`, [0, 0, n, 0]);
  }
  const end = endPath.exec(bare);
  if (end) return cell('unet', unetRows, rowOf(unetRows, 'conv_'), end[1]!, [end[1] === 'in' ? 0 : 4]);
  const unet = unetPath.exec(bare);
  if (unet) return unetPlace(unet);
  const text = textPath.exec(bare);
  if (!text) return undefined;
  const layer = Number(text[1]);
  return cell('text', textRows, rowOf(textRows, text[2]!), String(layer), [layer]);
}

function unetPlace(match: RegExpExecArray): Place | undefined {
  const [, side, block, attention, inner, rest, resnet, part, resampler] = match;
  const index = Number(attention ?? resnet ?? 0);
  const depth = Number(inner ?? 0);
  const row = rowOf(unetRows, part ?? resampler ?? rest!);
  // The middle is resnet 0, attention 0, resnet 1: its second resnet gets a column of its own, `m1`.
  const name = side === undefined ? (index === 0 ? 'mid' : `m${index}`) : `${side[0]}${block}${index}`;
  const stage = side === 'down' ? 1 : side === undefined ? 2 : 3;
  return cell('unet', unetRows, row, depth === 0 ? name : `${name}.${depth}`, [
    stage,
    Number(block ?? 0),
    index,
    depth,
  ]);
}

function cell(
  network: Network,
  rows: typeof unetRows,
  row: number,
  column: string,
  columnOrder: readonly number[],
): Place | undefined {
  return row < 0 ? undefined : { network, row: rows[row]![1], column, rowOrder: row, columnOrder };
}

/** Modules of one kind: `attn1 q`, `text fc1`, `other`. */
export interface Kind<T> {
  readonly label: string;
  readonly members: readonly T[];
}

/** Kinds of layer in the order of the rank maps, the U-Net's first, what has no place last. */
export function kindsOf<T extends { readonly path: string }>(modules: readonly T[]): readonly Kind<T>[] {
  const placed = modules.map((module) => ({ module, place: placeOf(module.path) }));
  const order = ({ place }: (typeof placed)[number]): number =>
    place === undefined ? 2000 : (place.network === 'unet' ? 0 : 1000) + place.rowOrder;
  const name = ({ place }: (typeof placed)[number]): string =>
    place === undefined ? 'other' : place.network === 'unet' ? place.row : `text ${place.row}`;
  const sorted = [...placed].sort((a, b) => order(a) - order(b));
  return [...group(sorted, name)].map(([label, list]) => ({ label, members: list.map((p) => p.module) }));
}

/** What the names of these columns mean, only those that are there: `['t1, t2: …', 'd01: down block 0, …']`. */
export function columnWords(columns: readonly string[]): readonly string[] {
  const find = (pattern: RegExp): RegExpExecArray | undefined =>
    columns.map((c) => pattern.exec(c)).findLast((m) => m !== null) ?? undefined;
  const side = (letter: string, word: string): readonly string[] => {
    const found = find(new RegExp(`^${letter}(\\d)(\\d+)$`));
    return found ? [`${found[0]}: ${word} block ${found[1]}, transformer or resnet ${found[2]} in it`] : [];
  };
  const time = columns.filter((c) => /^t[12]$/.test(c));
  const inner = find(/^[du]\d+\.(\d+)$|^mid\.(\d+)$/);
  return [
    ...(time.length > 0 ? [`${time.join(', ')}: the time embedding`] : []),
    ...side('d', 'down'),
    ...(columns.includes('mid') ? ['mid: the middle'] : []),
    ...(columns.includes('m1') ? ['m1: its second resnet'] : []),
    ...side('u', 'up'),
    ...(columns.includes('in') ? ['in, out: the first and the last convolution'] : []),
    ...(inner ? [`${inner[0]}: block ${inner[1] ?? inner[2]} inside that transformer`] : []),
  ];
}

/** A module with its place in a map. */
export interface PlacedModule<T> extends Place {
  readonly path: string;
  readonly value: T;
}

/** A rank map: the labels of both axes in drawing order, and the cells. */
export interface Grid<T> {
  readonly rows: readonly string[];
  readonly columns: readonly string[];
  readonly cells: readonly PlacedModule<T>[];
}

/** Values per module path, arranged: one grid per network, and what is in neither (other architectures). */
export interface Layout<T> {
  readonly unet?: Grid<T>;
  readonly text?: Grid<T>;
  readonly other: ReadonlyArray<{ readonly path: string; readonly value: T }>;
}

/** More columns than any real network has: beyond it a map cannot be read, and a hostile file cannot ask for one. */
const maxColumns = 200;

/** Lexicographic order of number lists. */
export function compareLists(a: readonly number[], b: readonly number[]): number {
  for (let i = 0; i < Math.max(a.length, b.length); i++) {
    const d = (a[i] ?? -1) - (b[i] ?? -1);
    if (d !== 0) return d;
  }
  return 0;
}

/**
 * Arranges values per module path into the two maps. Each module appears exactly once, in a grid or in `other`.
 * Cost: O(n log n).
 */
export function layout<T>(values: Iterable<readonly [path: string, value: T]>): Layout<T> {
  const placed: PlacedModule<T>[] = [];
  const other: { path: string; value: T }[] = [];
  const taken = new Set<string>();
  for (const [path, value] of values) {
    const place = placeOf(path);
    // Two spellings of one module (with and without prefix) must not share a cell.
    const key = place && `${place.network}/${place.row}/${place.column}`;
    if (place === undefined || taken.has(key!)) other.push({ path, value });
    else {
      taken.add(key!);
      placed.push({ ...place, path, value });
    }
  }
  const unet = grid(placed.filter((m) => m.network === 'unet'));
  const text = grid(placed.filter((m) => m.network === 'text'));
  const overflow = [unet, text]
    .filter((g) => g !== undefined && g.columns.length > maxColumns)
    .flatMap((g) => g!.cells);
  return {
    ...(unet && unet.columns.length <= maxColumns ? { unet } : {}),
    ...(text && text.columns.length <= maxColumns ? { text } : {}),
    other: [...other, ...overflow.map(({ path, value }) => ({ path, value }))],
  };
}

function grid<T>(cells: readonly PlacedModule<T>[]): Grid<T> | undefined {
  if (cells.length === 0) return undefined;
  const columns = new Map(cells.map((c) => [c.column, c.columnOrder]));
  const rows = new Map(cells.map((c) => [c.row, c.rowOrder]));
  const sorted = [...cells].sort((a, b) => a.rowOrder - b.rowOrder || compareLists(a.columnOrder, b.columnOrder));
  return {
    rows: [...rows].sort((a, b) => a[1] - b[1]).map(([label]) => label),
    columns: [...columns].sort((a, b) => compareLists(a[1], b[1])).map(([label]) => label),
    cells: sorted,
  };
}

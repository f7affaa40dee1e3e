/** What a product is: three matrices in memory, and where its plan may work. */
import type { Word } from '../kernel.ts';
import type { Source } from './pack.ts';
import type { Tile } from './tile.ts';

/** a matrix in memory; strides in elements */
export interface Operand {
  readonly address: Word;
  /** from row to row */
  readonly row: number;
  /** from column to column */
  readonly column: number;
  /** from group to group; 0 shares the matrix. Default 0 */
  readonly group?: number;
}
export type Output = Omit<Operand, 'column'>;

export interface GemmDescription {
  readonly m: number;
  readonly n: number;
  readonly k: number;
  /** default 1 */
  readonly groups?: number;
  readonly a: Operand;
  readonly b: Operand;
  readonly c: Output;
  /** where the plan's `bytes` lie */
  readonly workspace: Word;
  /** the numbers of B; what is not f32 is always packed (pack.ts). Default: f32 */
  readonly fromB?: Source | undefined;
  /** B in panels already, [panel][k][lane], of the width of a tile for `once` */
  readonly packedB?: { readonly at: Word; readonly tile: Tile };
  /** elements from the panels of a group to those of the next. Default: one after the other */
  readonly packedGroup?: number;
}

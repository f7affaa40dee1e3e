/** Choice of the register tiles: what is fastest on this processor and this version of V8. */
import type { Machine } from './machine.ts';
import type { Tile } from './tile.ts';

export interface Tiles {
  /** for many columns */
  readonly wide: Tile;
  /** 4 columns: low ranks */
  readonly narrow: Tile;
}

/** The tiles all contractions of this process use. */
export const tiles = (_machine: Machine): Tiles => ({
  wide: { rows: 6, vectors: 2, fma: true },
  narrow: { rows: 8, vectors: 1, fma: true },
});

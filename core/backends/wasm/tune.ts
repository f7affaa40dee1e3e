/** Choice of the register tiles: what is fastest on this processor and this version of V8. */
import type { Machine } from './machine.ts';
import type { Tile, Walk } from './tile.ts';

/** tiles for one use */
export interface Tiles {
  /** for many columns */
  readonly wide: Tile;
  /** 4 columns: low ranks */
  readonly narrow: Tile;
}
/** `once`: k is one stretch (GEMM); `taps`, `runs`: a list of stretches (convolutions), where V8 has fewer registers left */
export const tiles = (_machine: Machine, walk: Walk): Tiles => ({
  wide: { rows: walk === 'once' ? 6 : 4, vectors: 2, fma: true },
  narrow: { rows: { once: 8, taps: 7, runs: 6 }[walk], vectors: 1, fma: true },
});

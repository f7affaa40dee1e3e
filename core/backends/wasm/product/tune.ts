/**
 * Choice of the register tiles by measurement. Which shape V8 keeps in registers differs between its versions (61 against
 * 31 GFLOP/s for neighbouring shapes), so candidates are timed when a machine first needs a tile: some 3 ms each. The shape never changes the bits of a result, only fused multiplication does, and that is used wherever it
 * exists.
 */
import { assembler, call, i32 } from '../assembler/assemble.ts';
import { hasRelaxedSimd } from '../assembler/features.ts';
import type { Machine } from '../machine/machine.ts';
import { columns, type Stretches, type Tile, type TileVariant, tileFunction, tileName } from './tile.ts';

/** tiles for one kind of stretches */
export interface Tiles {
  /** for many columns */
  readonly wide: Tile;
  /** 8 columns, on a machine that joins vectors, whose `wide` has 16 */
  readonly half: Tile;
  /** 4 columns: low ranks */
  readonly narrow: Tile;
}
type Width = keyof Tiles;

/** rows × vectors, the best known first. The lists of `taps` and `runs` leave V8 fewer registers; joined, two vectors take one. */
const CANDIDATES: Readonly<Record<Stretches, Readonly<Record<Width, string>>>> = {
  once: { wide: '6×2 4×2 2×4 4×4', half: '8×2 6×2 4×2', narrow: '8×1 6×1 4×1' },
  taps: { wide: '4×2 2×4 3×3 4×4', half: '8×2 6×2 4×2', narrow: '7×1 6×1 4×1' },
  runs: { wide: '4×2 2×4 4×4', half: '8×2 6×2 4×2', narrow: '6×1 4×1' },
};

/** the shapes measured for one use, with or without fused multiplication */
export const candidates = (stretches: Stretches, width: Width, fma: boolean): readonly Tile[] =>
  CANDIDATES[stretches][width].split(' ').map((shape) => {
    const [rows, vectors] = shape.split('×').map(Number) as [number, number];
    return { rows, vectors, fma };
  });

/** steps of k in one call, and calls in one measurement: about 20 µs */
const PROBE_K = 64;
const PROBE_CALLS = 100;
const ROUNDS = 6;
/** a later candidate must be this much faster, so that noise does not decide */
const MARGIN = 0.93;

const probeModule = (tile: Tile, stretches: Stretches, name: string): Uint8Array<ArrayBuffer> => {
  const m = assembler();
  const variant: TileVariant = {
    tile,
    a: stretches === 'runs' ? { kind: 'cols', step: tile.rows * 4 } : { kind: 'rows' },
    bStep: columns(tile) * 4,
    stretches,
  };
  const multiply = tileFunction(m, variant, tile.rows);
  m.kernel(name, (f, { start, end, scratch }) => {
    const u = f.local('i32');
    // Zeros everywhere: the time does not depend on the numbers, and no measurement disturbs another.
    const [a, b] = [scratch, f.let(i32.add(scratch, PROBE_K * 64))];
    const out = f.let(i32.add(b, PROBE_K * 64));
    const list = f.let(i32.add(out, 4096));
    f.emit(i32.store(list, stretches === 'taps' ? 0 : a));
    if (stretches === 'taps') for (let r = 0; r < tile.rows; r++) f.emit(i32.store(list, a, 4 + r * 4));
    else f.emit(i32.store(list, 0), i32.store(list, 0, 4), i32.store(list, PROBE_K, 8));
    const [first, second] = { once: [a, i32.const(16)], taps: [list, i32.const(0)], runs: [a, list] }[stretches];
    f.for(u, start, end, 1, () =>
      f.emit(call(multiply, [first!, second!, b, 0, PROBE_K, 1, out, columns(tile) * 4, 0, 0])),
    );
  });
  return m.bytes();
};

const measure = (machine: Machine, stretches: Stretches, width: Width): Tile => {
  const options = candidates(stretches, width, hasRelaxedSimd());
  const times = options.map(() => Number.POSITIVE_INFINITY);
  const programs = options.map((tile) => {
    const kernel = `probe_${stretches}${tileName(tile)}`;
    if (!machine.hasKernel(kernel)) machine.addModule(probeModule(tile, stretches, kernel));
    return machine.prepare([{ kernel, args: [], grid: PROBE_CALLS, chunk: PROBE_CALLS }]);
  });
  for (let round = 0; round < ROUNDS; round++)
    for (const [i, program] of programs.entries()) {
      const start = performance.now();
      machine.run(program);
      const { rows, vectors } = options[i]!;
      times[i] = Math.min(times[i]!, (performance.now() - start) / (rows * vectors));
    }
  for (const program of programs) machine.release(program);
  return options.reduce((best, tile, i) => (times[i]! < times[options.indexOf(best)]! * MARGIN ? tile : best));
};

/** the tiles of a machine: given ones, or those measured so far */
const tilesOf = new WeakMap<Machine, Map<string, Tile>>();
const keyOf = (stretches: Stretches, width: Width): string => `${stretches} ${width}`;

/** Makes a machine use the given tiles instead of measured ones: for tests and benches. */
export const useTiles = (machine: Machine, tiles: Tiles): void => {
  const all = (['once', 'taps', 'runs'] as const).flatMap((stretches) =>
    (['wide', 'half', 'narrow'] as const).map((width): [string, Tile] => [keyOf(stretches, width), tiles[width]]),
  );
  tilesOf.set(machine, new Map(all));
};

/** The tile this machine uses for stretches of a kind and panels of a width; measured on the first call. */
export const tileFor = (machine: Machine, stretches: Stretches, width: Width): Tile => {
  const tiles = tilesOf.get(machine) ?? new Map<string, Tile>();
  tilesOf.set(machine, tiles);
  const key = keyOf(stretches, width);
  const tile = tiles.get(key) ?? measure(machine, stretches, width);
  tiles.set(key, tile);
  return tile;
};

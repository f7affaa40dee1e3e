/**
 * Fresh parameters from a specification and a seed. Every parameter draws from its own stream, named by its path: adding
 * a layer changes no other.
 */
import { entries, type Tensor, type Tree, tensor, threefry, unflatten } from '../core/index.ts';
import { toModelLayout } from './layout.ts';
import type { Init, Param, Params } from './spec.ts';

/** FNV-1a, 32 bits. */
function hash(text: string): number {
  let h = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) h = Math.imul(h ^ text.charCodeAt(i), 0x01000193);
  return h >>> 0;
}

/** Pairs of uniform numbers in (0, 1) that depend on (seed, path, i) only. */
const uniforms = (seed: number, path: string) => {
  const high = Math.floor(seed / 2 ** 32);
  const stream = hash(path);
  return (i: number): readonly [number, number] => {
    const [a, b] = threefry(seed >>> 0, high >>> 0, i, stream);
    return [(a + 0.5) / 2 ** 32, (b + 0.5) / 2 ** 32];
  };
};

function fill(out: Float32Array | Float64Array, init: Init, draw: (i: number) => readonly [number, number]): void {
  if (init.kind === 'constant') {
    out.fill(init.value);
    return;
  }
  for (let i = 0; i < out.length; i += 2) {
    const [u, v] = draw(i / 2);
    // normal: Box–Muller gives two independent numbers from two
    const radius = Math.sqrt(-2 * Math.log(u));
    const [p, q] =
      init.kind === 'uniform'
        ? [(2 * u - 1) * init.bound, (2 * v - 1) * init.bound]
        : [radius * Math.cos(2 * Math.PI * v) * init.std, radius * Math.sin(2 * Math.PI * v) * init.std];
    out[i] = p;
    if (i + 1 < out.length) out[i + 1] = q;
  }
}

/**
 * The parameters a specification starts with. The same seed gives the same numbers on every machine.
 * @example const params = init(unetSpec(config), 7)
 */
export function init<S extends Tree<Param>>(
  spec: S,
  seed: number,
  { dtype = 'f32' }: { dtype?: 'f32' | 'f64' } = {},
): Params<S> {
  const values = entries<Param>(spec).map(([path, param]): Tensor => {
    const n = param.shape.reduce((product, side) => product * side, 1);
    const data = dtype === 'f64' ? new Float64Array(n) : new Float32Array(n);
    fill(data, param.init, uniforms(seed, path));
    const placed = toModelLayout({ data, shape: param.shape });
    return tensor(placed.data, placed.shape, dtype, path);
  });
  return unflatten(spec, values) as unknown as Params<S>;
}

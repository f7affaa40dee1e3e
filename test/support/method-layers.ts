/** Single layers under any method, and what its file says of them: for the laws that hold for all methods. */
import { evaluate, fromPaths, type Tensor, tensor } from '../../core/index.ts';
import { deltaWeight } from '../../models/io/adapter-file.ts';
import { conv2d, linear, toModelLayout } from '../../nn/index.ts';
import { hostKey } from '../../selora/adapter.ts';
import { inputsOf } from '../../selora/methods/low-rank.ts';
import {
  type HostModule,
  type Method,
  mapFields,
  type Params,
  type Place,
  type Places,
  type Settings,
} from '../../selora/methods/method.ts';
import { settingsOf } from '../../selora/methods/registry.ts';
import { cpu, numbers, rng } from './gradcheck.ts';

type Float = 'f32' | 'f64';
export const places: Places = new Map<string, Place>([
  ['wide', [12, 8]],
  ['tall', [6, 10]],
  ['point', [8, 6, 1, 1]],
  ['window', [6, 4, 3, 3]],
]);
const size = (shape: readonly number[]) => shape.reduce((n, side) => n * side, 1);
const drawn = (seed: number, shape: readonly number[], scale = 1): Float32Array => {
  const random = rng(seed);
  return Float32Array.from({ length: size(shape) }, () => (random() * 2 - 1) * scale);
};
const seedOf = (path: string) => [...places.keys()].indexOf(path) + 1;
/** the frozen weight as its place shapes it */
export const weightOf = (path: string): Float32Array => drawn(seedOf(path), places.get(path)!);

/** A layer whose weight is given as its place shapes it. */
export function layer(path: string, weight: ArrayLike<number>, dtype: Float) {
  const place = places.get(path)!;
  const { data, shape } =
    place.length === 4
      ? toModelLayout({ data: Float64Array.from(weight) as never, shape: place })
      : { data: weight, shape: place as readonly number[] };
  return {
    weight: tensor(Array.from(data), shape, dtype),
    bias: tensor(Array.from(drawn(90 + seedOf(path), [place[0]])), [place[0]], dtype),
  };
}
/** what the layer makes of an input of its own */
export function outputs(path: string, module: object, dtype: Float): Promise<number[]> {
  const place = places.get(path)!;
  const shape = place.length === 4 ? [2, 4, 3, place[1]] : [5, place[1]];
  const x = tensor(Array.from(drawn(50 + seedOf(path), shape)), shape, dtype);
  return numbers(place.length === 4 ? conv2d(module as never, x) : linear(module as never, x));
}

/** The method with settings at which its ranks are 2 where it has any. */
export function atRankTwo(method: Method, given: Settings = {}): { readonly c: Settings; readonly start: Modules } {
  const asked = { ...('rank' in method.settings ? { rank: 2 } : {}), ...given };
  const c = settingsOf(method, asked);
  const { unet } = method.ranks(c, { unet: places, text: new Map() });
  return { c, start: method.init(places, unet, hostKey(5), c) };
}
type Modules = { readonly [path: string]: Params };

/** The start moved: every trained field by numbers of its own, what is kept as it is; the same values as host arrays. */
export async function moved(method: Method, c: Settings, path: string, p: Params, dtype: Float) {
  const fields = method.fields(places.get(path)!, 2, c);
  const all = await Promise.all(
    mapFields(
      async (x: Tensor, { trained, tied }, name) => {
        const seed = tied ? x.shape[0]! * 100 + x.shape[1]! : 7 * seedOf(path) + name.length * 31 + name.charCodeAt(0);
        const by = trained ? drawn(seed, x.shape, 0.3) : undefined;
        const data = Float32Array.from(await numbers(evaluate(x, cpu)), (v, i) => v + (by?.[i] ?? 0));
        return [name, { shape: x.shape, data }] as const;
      },
      p,
      fields,
    ),
  );
  const ranked = mapFields((x: Tensor, { axis }) => (axis === null ? 0 : x.shape[axis]!), p, fields);
  const host: HostModule = { rank: Math.max(1, ...ranked), fields: Object.fromEntries(all) };
  const tree = fromPaths(all.map(([name, t]) => [name, tensor(Array.from(t.data), t.shape, dtype)] as const)) as Params;
  return { host, tree };
}

/** W0 + ΔW of the module's file, as the place shapes it. */
export function merged(method: Method, c: Settings, path: string, host: HostModule): Float64Array {
  const W = weightOf(path);
  const file = method.toFile(host, places.get(path)!, c, method.needsWeight ? W : undefined)!;
  if (file.dIn !== inputsOf(places.get(path)!)) throw new Error(`${path}: the file has another size`);
  const delta = deltaWeight(file);
  return Float64Array.from(W, (w, i) => w + delta[i]!);
}

/** The two networks that are adapted, values by network and module path, and how to map over them. */
import type { Part } from '../models/names.ts';

export const networks = ['unet', 'text'] as const;
export type Network = (typeof networks)[number];
export type PerNetwork<T> = { readonly unet: T; readonly text: T };
/** a value for every module: network → path → value */
export type PerModule<T> = PerNetwork<{ readonly [path: string]: T }>;

/** Applies f to the value of each network. */
export const mapNetworks = <T, R>(f: (value: T, network: Network) => R, x: PerNetwork<T>): PerNetwork<R> => ({
  unet: f(x.unet, 'unet'),
  text: f(x.text, 'text'),
});
/** Applies f to every module of both networks. */
export const mapModules = <T, R>(f: (value: T, path: string, network: Network) => R, x: PerModule<T>): PerModule<R> =>
  mapNetworks((net, n) => Object.fromEntries(Object.entries(net).map(([path, v]) => [path, f(v, path, n)])), x);

/** A module of either network. */
export type ModuleAt = { readonly n: Network; readonly path: string };
/** All modules of a tree in one list, in the order of `mapModules`. */
export const modulesOf = (x: PerModule<unknown>): readonly ModuleAt[] =>
  networks.flatMap((n) => Object.keys(x[n]).map((path) => ({ n, path })));
/**
 * One value for every module of x, in the order of `modulesOf`.
 * @example perModule([1, 2], { unet: { a: 0 }, text: { b: 0 } }) // { unet: { a: 1 }, text: { b: 2 } }
 */
export function perModule<T>(values: readonly T[], x: PerModule<unknown>): PerModule<T> {
  let i = 0;
  return mapModules(() => values[i++]!, x);
}

/** What each network is called outside the program: its folder, and what its modules' names begin with. */
export const partOf = { unet: 'unet', text: 'text_encoder' } as const satisfies PerNetwork<Part>;
/** How a module is called outside the program: `text_encoder.text_model.…`. */
export const moduleName = (n: Network, path: string): string => `${partOf[n]}.${path}`;
/**
 * Network and path of a module's name; undefined for one of neither network.
 * @example fromModuleName('text_encoder.text_model.encoder.layers.0.mlp.fc1') // ['text', 'text_model.encoder.layers.0.mlp.fc1']
 */
export function fromModuleName(name: string): readonly [Network, string] | undefined {
  const n = networks.find((network) => name.startsWith(`${partOf[network]}.`));
  return n && [n, name.slice(partOf[n].length + 1)];
}

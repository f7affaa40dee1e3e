/** The two networks that are adapted, values by network and module path, and how to map over them. */

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

/** `unet.` or `text_encoder.` and the path: how a module is called outside the program. */
export const moduleName = (n: Network, path: string): string => `${n === 'unet' ? 'unet' : 'text_encoder'}.${path}`;

/** What a run works on of its base: the adapted layers, and the side of its pictures. */
import type { Base } from '../../models/io/base.ts';
import type { Places } from '../../selora/methods/method.ts';
import { mapNetworks, type PerNetwork } from '../../selora/networks.ts';
import { selectTargets } from '../../selora/targets.ts';
import type { RunConfig } from '../config/config.ts';
import { placesOf } from './model.ts';
import type { ModelPlaces } from './pipeline.ts';
import { vaeFactor } from './programs.ts';

/** The paths that `--targets` chooses, linears before convolutions. @throws RangeError naming the pattern that matches nothing */
export function chosenPaths(targets: string, { unet, text }: ModelPlaces): PerNetwork<readonly string[]> {
  const paths = (places: Places, rank: number) =>
    [...places].filter(([, place]) => place.length === rank).map(([path]) => path);
  return selectTargets(targets, paths(unet, 2), paths(text, 2), paths(unet, 4));
}

/** The layers of a run that adapters are on, in the order of the model. */
export function targetsOf(base: Base, c: Pick<RunConfig, 'targets' | 'trainTextEncoder'>): ModelPlaces {
  const all = placesOf(base);
  const trained = c.trainTextEncoder ? all : { ...all, text: new Map() };
  const chosen = mapNetworks((paths) => new Set(paths), chosenPaths(c.targets, trained));
  return mapNetworks((places, n) => new Map([...places].filter(([path]) => chosen[n].has(path))), all);
}

/** pixels along a side: as told, or the base's own. @throws RangeError for a side the VAE cannot halve often enough */
export function sideOf(base: Base, c: Pick<RunConfig, 'resolution'>): number {
  const size = base.configs.unet.sample_size ?? 64;
  const factor = vaeFactor(base.configs.vae);
  const side = c.resolution ?? (typeof size === 'number' ? size : size[0]!) * factor;
  if (side % factor !== 0) throw new RangeError(`--resolution ${side}: expected a multiple of ${factor} for this VAE`);
  return side;
}

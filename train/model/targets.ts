/** What a run works on of its base: the adapted layers, and the side of its pictures. */
import type { Base } from '../../models/io/base.ts';
import { selectTargets } from '../../selora/targets.ts';
import type { RunConfig } from '../config/config.ts';
import { mapNetworks } from '../step/state.ts';
import { linearsOf, placesOf } from './model.ts';
import type { ModelPlaces } from './pipeline.ts';
import { vaeFactor } from './programs.ts';

/** The layers of a run that adapters are on, in the order of the model. */
export function targetsOf(base: Base, c: RunConfig): ModelPlaces {
  const all = placesOf(base);
  const linears = linearsOf(base);
  const chosen = selectTargets(
    c.targets,
    [...linears.unet.keys()],
    c.trainTextEncoder ? [...linears.text.keys()] : [],
    [...all.unet.keys()].filter((path) => !linears.unet.has(path)),
  );
  return mapNetworks((places, n) => new Map([...places].filter(([path]) => chosen[n].includes(path))), all);
}

/** pixels along a side: as told, or the base's own. @throws RangeError for a side the VAE cannot halve often enough */
export function sideOf(base: Base, c: Pick<RunConfig, 'resolution'>): number {
  const size = base.configs.unet.sample_size ?? 64;
  const factor = vaeFactor(base.configs.vae);
  const side = c.resolution ?? (typeof size === 'number' ? size : size[0]!) * factor;
  if (side % factor !== 0) throw new RangeError(`--resolution ${side}: expected a multiple of ${factor} for this VAE`);
  return side;
}

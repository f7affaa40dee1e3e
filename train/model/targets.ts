/** What a run works on of its base: the adapted linears, and the side of its pictures. */
import type { Base } from '../../models/io/base.ts';
import { selectTargets } from '../../selora/targets.ts';
import type { RunConfig } from '../config/config.ts';
import { linearsOf } from './model.ts';
import type { Linears } from './pipeline.ts';
import { vaeFactor } from './programs.ts';

/** The adapted linears of a run. */
export function targetsOf(base: Base, c: RunConfig): Linears {
  const all = linearsOf(base);
  const chosen = selectTargets(c.targets, [...all.unet.keys()], c.trainTextEncoder ? [...all.text.keys()] : []);
  const pick = (from: Linears['unet'], paths: readonly string[]) => new Map(paths.map((p) => [p, from.get(p)!]));
  return { unet: pick(all.unet, chosen.unet), text: pick(all.text, chosen.text) };
}

/** pixels along a side: as told, or the base's own. @throws RangeError for a side the VAE cannot halve often enough */
export function sideOf(base: Base, c: Pick<RunConfig, 'resolution'>): number {
  const size = base.configs.unet.sample_size ?? 64;
  const factor = vaeFactor(base.configs.vae);
  const side = c.resolution ?? (typeof size === 'number' ? size : size[0]!) * factor;
  if (side % factor !== 0) throw new RangeError(`--resolution ${side}: expected a multiple of ${factor} for this VAE`);
  return side;
}

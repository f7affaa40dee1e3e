/** The adapter that a run begins from (`--init-adapter`), as the run's own places have it. */
import type { AdapterModule } from '../../models/io/adapter-file.ts';
import type { Base } from '../../models/io/base.ts';
import { FileError, listed } from '../../models/io/error.ts';
import { deadRanks } from '../../selora/methods/low-rank.ts';
import { fromModuleName, mapNetworks } from '../../selora/networks.ts';
import type { RunConfig } from '../config/config.ts';
import { readAdapters } from '../model/model.ts';
import { targetsOf } from '../model/targets.ts';
import type { Initial } from '../step/ranks.ts';
import { counted } from '../words/format.ts';

/**
 * Reads `--init-adapter`; undefined where there is none. Any adapter that `generate` takes; `FILE=0.7` at that strength.
 * @throws FileError naming what does not fit the base, or what `--targets` leaves out: the run would not begin where the file is
 */
export async function initialAdapter(c: RunConfig, base: Base): Promise<Initial | undefined> {
  if (c.initAdapter === null) return undefined;
  const { name, adapter } = await readAdapters(base, [c.initAdapter]);
  const places = targetsOf(base, c);
  const found = { unet: new Map<string, AdapterModule>(), text: new Map<string, AdapterModule>() };
  const left: string[] = [];
  for (const [full, module] of adapter.modules) {
    const [network, path] = fromModuleName(full) ?? [];
    if (network && path !== undefined && places[network].has(path)) found[network].set(path, module);
    else left.push(full);
  }
  if (left.length > 0)
    throw new FileError(name, 'modules', `--targets ${c.targets} leaves out ${listed(left, 3)}; all takes every layer`);
  return found;
}

/** What a run begins from, in one line. */
export function initialLine(c: RunConfig, initial: Initial): string {
  const modules = [...initial.unet.values(), ...initial.text.values()];
  const ranks = modules.map(({ rank }) => rank);
  const dead = modules.reduce((n, module) => n + deadRanks(module).length, 0);
  const sizes = mapNetworks((of) => of.size, initial);
  return `begins from ${c.initAdapter}: ${counted(sizes.unet, 'module')} of the U-Net, ${sizes.text} of the text encoder, ranks ${Math.min(...ranks)} to ${Math.max(...ranks)}${
    dead === 0
      ? ''
      : `; ${counted(dead, 'rank')} that ${dead === 1 ? 'was' : 'were'} zero on both sides ${dead === 1 ? 'gets' : 'get'} a new column`
  }`;
}

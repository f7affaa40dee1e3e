/** An adapter file in the form the models take. */
import { tensor } from '../../core/index.ts';
import type { AdapterFile, AdapterModule } from '../../models/io/adapter-file.ts';
import { FileError, listed } from '../../models/io/error.ts';
import type { Adapter } from '../../selora/adapter.ts';
import { inputsOf } from '../../selora/methods/low-rank.ts';
import { fromModuleName, type PerNetwork } from '../../selora/networks.ts';
import type { LoadedAdapters, ModelPlaces } from './pipeline.ts';

/**
 * The adapters of a file as immutable trees by module path.
 * Where all modules have one scale it is kept; else each scale is multiplied into its B and the common scale is 1.
 * @throws FileError naming `file`: one line that lists modules that are no layer of the base, or of another size
 */
export function adaptersFromFile(
  { modules }: AdapterFile,
  places: ModelPlaces,
  { file = 'adapter', dtype = 'f32' }: { readonly file?: string; readonly dtype?: 'f32' | 'f64' } = {},
): LoadedAdapters {
  const scales = new Set([...modules.values()].map((m) => m.scale));
  const scale = scales.size === 1 ? [...scales][0] : 1;
  const found: PerNetwork<Map<string, Adapter>> = { unet: new Map(), text: new Map() };
  const problems: string[] = [];
  for (const [name, module] of modules) {
    const [network, local] = fromModuleName(name) ?? [];
    const place = network && local !== undefined && places[network].get(local);
    if (!place) {
      problems.push(`${name} is no linear layer and no convolution of the base`);
    } else if (place[0] !== module.dOut || inputsOf(place) !== module.dIn) {
      problems.push(`${name} maps ${module.dIn} → ${module.dOut}, the base's layer ${inputsOf(place)} → ${place[0]}`);
    } else {
      found[network].set(local, adapterOf(module, module.scale / scale, dtype));
    }
  }
  if (modules.size === 0) problems.push('it adapts nothing');
  if (problems.length > 0) throw new FileError(file, 'modules', listed(problems, 3));
  return { unet: Object.fromEntries(found.unet), text: Object.fromEntries(found.text), scale };
}

function adapterOf({ A, B, rank, dIn, dOut }: AdapterModule, factor: number, dtype: 'f32' | 'f64'): Adapter {
  const b = factor === 1 ? B : B.map((x) => x * factor);
  return { A: tensor(A, [dIn, rank], dtype), B: tensor(b, [rank, dOut], dtype) };
}

/** Names of modules out of the labels that parameters carry in a step's graph. */
import { moduleName, networks, partOf } from '../../selora/networks.ts';
import type { ModelPlaces } from '../model/pipeline.ts';

/** What a label of the text encoder begins with where it stands without its network. */
const TEXT = 'text_model.';

/**
 * The name of a module whose path stands with its network, as a step's state has it, or without, as the base's weights do.
 * @example fullName('down_blocks.0.proj_in') // 'unet.down_blocks.0.proj_in'
 */
export function fullName(path: string): string {
  const n = networks.find((network) => path.startsWith(`${network}.`) || path.startsWith(`${partOf[network]}.`));
  if (n) return moduleName(n, path.slice(path.indexOf('.') + 1));
  return moduleName(path.startsWith(TEXT) ? 'text' : 'unet', path);
}

/** Which module a label belongs to: the adapted layer below which it stands, or else what its last word is a field of. */
export function moduleOfLabel(places: ModelPlaces): (label: string) => string | undefined {
  const adapted = new Set(networks.flatMap((n) => [...places[n].keys()].map((path) => moduleName(n, path))));
  return (label) => {
    const name = fullName(label);
    for (let end = name.lastIndexOf('.'); end > 0; end = name.lastIndexOf('.', end - 1))
      if (adapted.has(name.slice(0, end))) return name.slice(0, end);
    const end = name.lastIndexOf('.');
    return end > 0 ? name.slice(0, end) : undefined;
  };
}

/** All modules of a tree of parameters by their paths: layers, and what holds them. */
export function modulePaths(leaves: Iterable<string>): readonly string[] {
  const found = new Set<string>();
  for (const leaf of leaves) {
    const parts = fullName(leaf).split('.');
    for (let n = 1; n < parts.length; n++) found.add(parts.slice(0, n).join('.'));
  }
  return [...found];
}

/** What a rank really brings: one step of Adam on it alone, beside what was expected of it. */
import { tensor } from '../../core/index.ts';
import { inputsOf } from '../methods/low-rank.ts';
import type { Passes, Place } from '../methods/method.ts';
import { type ModuleAt, mapModules, moduleName, type PerModule, type PerNetwork } from '../networks.ts';
import type { Direction, Side } from './directions.ts';
import { type Probe, still, widthOf } from './probe.ts';

type Losses = Pick<Passes<Probe, never>, 'loss' | 'batches'>;
type Setting = { readonly places: PerModule<Place>; readonly half: number; readonly probe: number };

/** `count` of the items, evenly spread. */
const spread = <T>(items: readonly T[], count: number): readonly T[] =>
  count >= items.length
    ? items
    : Array.from({ length: count }, (_, i) => items[Math.floor(((i + 0.5) * items.length) / count)]!);

/** Column √2·u beside the row that Adam's first step makes of zeros: −lr·sign. */
function stepped(place: Place, { u, signs }: Side, lr: number, probe: number): Probe {
  const [dIn, dOut, q] = [inputsOf(place), place[0], widthOf(place, probe)];
  const [K, R] = [new Float32Array(dIn * q), new Float32Array(q * dOut)];
  for (let i = 0; i < dIn; i++) K[i * q] = Math.SQRT2 * u[i]!;
  for (let j = 0; j < dOut; j++) R[j] = -lr * signs[j]!;
  return { K: tensor(K, [dIn, q]), R: tensor(R, [q, dOut]) };
}

/**
 * For at most `most` of the modules, evenly spread over them, what the first direction of each brings by one step alone, by
 * module and per unit of learning rate: direction and signs from one half of the batches, the loss on the other, both ways, as its gain was
 * counted. Cost: two passes of the loss over the batches for all, one for each module.
 *   brought = Σ_h (ℓ_h(0) − ℓ_h(√2·u·(−lr·sign)))/(2·lr),  u and sign of the half that is not h
 */
export async function broughtBy(
  passes: Losses,
  modules: readonly ModuleAt[],
  directions: PerModule<readonly Direction[]>,
  { places, half, probe }: Setting,
  rates: PerNetwork<number>,
  most: number,
): Promise<ReadonlyMap<string, number>> {
  const out = new Map<string, number>();
  // a network that does not move tells nothing
  const chosen = spread(
    modules.filter(({ n }) => rates[n] > 0),
    most,
  );
  if (chosen.length === 0) return out;
  const none = mapModules((place: Place) => still(place, probe), places);
  // what the first half says is counted on the second, and back
  const ranges = [
    [half, passes.batches],
    [0, half],
  ] as const;
  const before = [await passes.loss(none, ranges[0]), await passes.loss(none, ranges[1])];
  for (const { n, path } of chosen) {
    let sum = 0;
    for (const [k, range] of ranges.entries()) {
      const probes = stepped(places[n][path]!, directions[n][path]![0]!.halves[k]!, rates[n], probe);
      const alone = { ...none, [n]: { ...none[n], [path]: probes } };
      sum += before[k]! - (await passes.loss(alone, range));
    }
    out.set(moduleName(n, path), sum / (2 * rates[n]));
  }
  return out;
}

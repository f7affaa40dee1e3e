/** What a method may look at before the first step: the gradient of the loss by the frozen weights, some modules at a time. */
import {
  add,
  asFloat,
  type Backend,
  type Compiled,
  compile,
  evaluate,
  mul,
  read,
  type Tensor,
  zeros,
} from '../../core/index.ts';
import { foldKey, hostKey } from '../../selora/adapter.ts';
import type { AdaptedModule } from '../../selora/attach.ts';
import { full } from '../../selora/methods/full.ts';
import { inputsOf } from '../../selora/methods/low-rank.ts';
import type { HostTensor, Looked, Place } from '../../selora/methods/method.ts';
import { matrixOf } from '../../selora/methods/weights.ts';
import { mapModules, mapNetworks, type Network, networks, type PerModule } from '../../selora/networks.ts';
import type { ModelPlaces } from '../model/pipeline.ts';
import { gradients, type LossOptions } from './gradients.ts';
import { type Chosen, startRanks } from './ranks.ts';
import type { Batch, Frozen } from './step.ts';

type Parts = Pick<LossOptions<never>, 'configs' | 'checkpointBlocks'> & { readonly backend: Backend };
type Dense = { readonly D: Tensor };

/** Numbers that gradients of one pass may have in all, unless one module alone has more: 128 MiB of each of three copies. */
const AT_ONCE = 2 ** 25;
/** copies of a group's gradients that are there together: a batch's, the sum so far, and the next sum */
const COPIES = 3;

const numbersOf = (place: Place): number => place[0] * inputsOf(place);

/** The places in their order, in groups whose weights have at most so many numbers together, one module at least. */
export function groupsOf(places: ModelPlaces, most = AT_ONCE): readonly ModelPlaces[] {
  const groups: { unet: Map<string, Place>; text: Map<string, Place> }[] = [];
  let size = Number.POSITIVE_INFINITY;
  for (const n of networks)
    for (const [path, place] of places[n]) {
      if (size + numbersOf(place) > most) {
        groups.push({ unet: new Map(), text: new Map() });
        size = 0;
      }
      groups.at(-1)![n].set(path, place);
      size += numbersOf(place);
    }
  return groups;
}
const sizeOf = (group: ModelPlaces): number =>
  networks.reduce((all, n) => all + [...group[n].values()].reduce((sum, place) => sum + numbersOf(place), 0), 0);

/** ∂loss/∂W of the places of a group, for one batch. */
export const gradientProgram = (
  o: Parts,
  group: ModelPlaces,
): Compiled<[base: Frozen, batch: Batch], PerModule<Dense>> => {
  const method = { configs: o.configs, checkpointBlocks: o.checkpointBlocks, method: full as never, settings: {} };
  return compile(
    (base: Frozen, batch: Batch) => {
      const none = mapNetworks(
        (of) => Object.fromEntries([...of].map(([path, place]) => [path, { D: zeros([place[0], inputsOf(place)]) }])),
        group,
      );
      return gradients(method as never, none as never, base, batch).g as unknown as PerModule<Dense>;
    },
    { backend: o.backend, name: 'gradients of the start' },
  );
};
/** The group with the most numbers, and the bytes its gradients take. */
export function largestGroup(places: ModelPlaces): { readonly group: ModelPlaces; readonly bytes: number } {
  const group = groupsOf(places).reduce((a, b) => (sizeOf(b) > sizeOf(a) ? b : a));
  return { group, bytes: COPIES * 4 * sizeOf(group) };
}

/** The layer at a path of a network. */
const layerAt = (net: unknown, path: string): AdaptedModule =>
  path.split('.').reduce((node, key) => (node as Readonly<Record<string, unknown>>)[key], net) as AdaptedModule;

async function host(t: Tensor): Promise<HostTensor> {
  return { shape: t.shape, data: Float32Array.from(await read(t)) };
}

/**
 * f of ∂loss/∂W[d_out, d_in] of every place, the mean over batches. A convolution's d_in counts [in, kh, kw].
 * Cost: a forward and a backward pass for each batch and group of modules; memory: three numbers for every weight of one
 * group on the backend, one module's gradient here, and what f returns.
 */
export async function weightGradients<K>(
  o: Parts,
  places: ModelPlaces,
  frozen: Frozen,
  batches: readonly Batch[],
  f: (gradient: HostTensor, path: string, n: Network) => K | Promise<K>,
  most?: number,
): Promise<PerModule<K>> {
  const out: { unet: Record<string, K>; text: Record<string, K> } = { unet: {}, text: {} };
  const share = 1 / batches.length;
  for (const group of groupsOf(places, most)) {
    const program = gradientProgram(o, group);
    let total: PerModule<Dense> | undefined;
    for (const batch of batches) {
      const g = program(frozen, batch);
      total = evaluate(
        mapModules(({ D }: Dense, path, n) => {
          const one = mul(D, share);
          return { D: total ? add(total[n][path]!.D, one) : one };
        }, g) as never,
        o.backend,
      ) as PerModule<Dense>;
    }
    program.trim();
    for (const n of networks)
      for (const path of group[n].keys()) out[n][path] = await f(await host(total![n][path]!.D), path, n);
  }
  return out;
}

/**
 * What a method's start keeps of every module; undefined where it looks at nothing.
 * @throws RangeError naming the setting that does not fit these places
 */
export async function lookedAt(
  chosen: Pick<Chosen, 'method' | 'settings'> & { readonly seed: number },
  o: Parts,
  places: ModelPlaces,
  frozen: Frozen,
  batches: readonly Batch[],
): Promise<PerModule<unknown> | undefined> {
  const { method, settings } = chosen;
  const { begin } = method;
  if (!begin) return undefined;
  const ranks = startRanks({ method, settings }, places);
  const root = foldKey(hostKey(chosen.seed), 'start');
  return weightGradients(o, places, frozen, batches, async (gradient, path, n) => {
    const weight =
      begin.weights && (await host(evaluate(matrixOf(asFloat(layerAt(frozen[n], path).weight)), o.backend)));
    const seen: Looked = {
      gradient,
      ...(weight ? { weight } : {}),
      place: places[n].get(path)!,
      rank: ranks[n][path]!,
      key: foldKey(root, n, path),
    };
    return begin.keep(seen, settings);
  });
}

/** The page while a run goes on: written again at each validation, so that a reload shows how far it is. */
import { moduleName, networks } from '../../selora/networks.ts';
import type { ModelPlaces } from '../model/pipeline.ts';
import type { FactsInput } from '../run/record.ts';
import { type FactSources, firstFacts, writeFacts } from './facts.ts';
import type { Progress } from './standing.ts';

/**
 * Work that is done when it is asked for, unless it would take more than a twentieth of the time: as often as twenty
 * times its last duration, which is taken for half a second at first.
 */
export function atMostATwentieth(work: () => Promise<void>, now: () => number): () => Promise<void> {
  let [cost, last] = [500, now()];
  return async () => {
    const began = now();
    if (began - last < 20 * cost) return;
    await work();
    last = now();
    cost = last - began;
  };
}

/** Every module with its rank so far; what it changed is measured at the end. */
const modulesAt = (places: ModelPlaces, { ranks }: Pick<Progress, 'ranks'>): NonNullable<FactsInput['modules']> =>
  networks.flatMap((n) =>
    Object.entries(ranks[n]).map(([path, rank]) => {
      const [dOut, dIn] = places[n].get(path)!;
      return { path: moduleName(n, path), rank, dIn, dOut };
    }),
  );

export interface LivePage {
  /** Writes the page, unless it would come too soon after the last one. */
  readonly offer: () => Promise<void>;
  /** Writes it in any case. */
  readonly write: () => Promise<void>;
}

/**
 * @param progress where the run stands when a page is written
 * @param steps how many it shall have
 */
export function livePage(sources: FactSources, places: ModelPlaces, progress: () => Progress, steps: number): LivePage {
  const known = { facts: undefined as Promise<FactsInput> | undefined };
  const write = () =>
    sources.clock.time('report', async () => {
      known.facts ??= firstFacts(sources);
      const at = progress();
      const unfinished = { step: at.step, of: steps };
      await writeFacts(sources, await known.facts, at, { modules: modulesAt(places, at), unfinished });
      // drawing takes half as long to load as all else together: a run that ends early need not wait for it
      const { writeReport } = await import('../report/write.ts');
      await writeReport(sources.run.path, false);
    });
  return { write, offer: atMostATwentieth(write, () => performance.now()) };
}

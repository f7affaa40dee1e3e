/** Which modules get which of their directions for a budget of parameters. */

/** What a module could have: what each further rank would bring, in order, what one costs, and how many it is owed. */
export type Offer = {
  readonly module: string;
  readonly gains: readonly number[];
  readonly cost: number;
  readonly owed?: number;
};

/**
 * Ranks by module: again and again the rank that brings most for its parameters, while the budget lasts, those that are owed
 * before all others; one that does not fit any more ends its module. A module's ranks are taken in their order, up to the first
 * that brings nothing.
 * Cost: ranks given × modules.
 * @example allot([{ module: 'a', gains: [4, 1], cost: 2 }, { module: 'b', gains: [3], cost: 1 }], 3) // a: 1, b: 1
 */
export function allot(offers: readonly Offer[], budget: number): ReadonlyMap<string, number> {
  const taken = new Map(offers.map(({ module }) => [module, 0]));
  const open = new Set(offers);
  const next = (o: Offer) => (o.gains[taken.get(o.module)!] ?? 0) / o.cost;
  const owed = (o: Offer) => taken.get(o.module)! < (o.owed ?? 0);
  const before = (a: Offer, b: Offer) => (owed(a) === owed(b) ? next(a) > next(b) : owed(a));
  let left = budget;
  for (;;) {
    let best: Offer | undefined;
    for (const offer of open) {
      if (!(next(offer) > 0) || offer.cost > left) open.delete(offer);
      else if (!best || before(offer, best)) best = offer;
    }
    if (!best) return taken;
    taken.set(best.module, taken.get(best.module)! + 1);
    left -= best.cost;
  }
}

/**
 * Evolutionary search over one choice per module, within a budget of parameters: which modules get an adapter, of which rank,
 * and from which run. Each candidate is a pure function of the key, its number and what was scored before it, so that a
 * search goes on where it stopped.
 * Source: Zhang et al., Neural Prompt Search (NOAH, 2022), section 3.3; Chavan et al., One-for-All (GLoRA, 2023), section 3.3.
 */
import { type Random, randomOf } from '../core/index.ts';
import { foldKey, type HostKey } from './adapter.ts';

/** What may be chosen: parameters of each choice, by module. Choice 0 is no adapter and costs nothing. */
export type SearchSpace = readonly (readonly number[])[];

/** A choice for every module. */
export type Candidate = readonly number[];

/** A candidate and its loss; lower is better, what is not finite is worst. */
export interface Scored {
  /** a choice for every module */
  readonly choices: Candidate;
  /** of its evaluation */
  readonly loss: number;
}

/** How candidates are drawn. */
export interface Evolution {
  /** of all draws */
  readonly key: HostKey;
  /** parameters that a candidate may cost */
  readonly budget: number;
  /** candidates drawn at random before any has offspring */
  readonly population: number;
  /** the best so many have offspring */
  readonly parents: number;
  /** share of modules that a mutation draws anew */
  readonly mutation: number;
}

/** Parameters of a candidate: Σ of its choices' costs. */
export const candidateCost = (space: SearchSpace, choices: Candidate): number =>
  choices.reduce((sum, choice, m) => sum + space[m]![choice]!, 0);

/** The candidates that choose alike everywhere and fit: what a search is held against, from the dearest down. */
export function uniformCandidates(space: SearchSpace, budget: number): readonly Candidate[] {
  const most = Math.max(0, ...space.map((costs) => costs.length));
  return Array.from({ length: most }, (_, choice) => space.map((costs) => (choice < costs.length ? choice : 0)))
    .filter((choices) => candidateCost(space, choices) <= budget)
    .sort((a, b) => candidateCost(space, b) - candidateCost(space, a));
}

/** A candidate made to fit: as long as it is too dear, a module drawn at random gets a cheaper choice. */
export function within(space: SearchSpace, choices: Candidate, budget: number, random: Random): Candidate {
  const out = [...choices];
  let cost = candidateCost(space, out);
  while (cost > budget) {
    const dear = out.flatMap((choice, m) => (space[m]![choice]! > 0 ? [m] : []));
    const m = random.choice(dear);
    const now = space[m]![out[m]!]!;
    out[m] = random.choice(space[m]!.flatMap((c, choice) => (c < now ? [choice] : [])));
    cost += space[m]![out[m]!]! - now;
  }
  return out;
}

const texts = new WeakMap<Candidate, string>();
/** a candidate as a key; remembered, since all that were scored are asked for at every draw */
function textOf(choices: Candidate): string {
  const known = texts.get(choices) ?? choices.join();
  texts.set(choices, known);
  return known;
}

/** tries to find a candidate that was not scored yet */
const TRIES = 64;

/** The best of all that was scored, the earlier of equals. @throws RangeError where nothing was */
export function best(scored: readonly Scored[]): Scored {
  const [first, ...rest] = scored;
  if (first === undefined) throw new RangeError('nothing was scored');
  return rest.reduce((a, b) => (rank(b) < rank(a) ? b : a), first);
}
const rank = ({ loss }: Scored): number => (Number.isFinite(loss) ? loss : Number.POSITIVE_INFINITY);

/**
 * The next candidate: first those that choose alike everywhere, then random ones until there are `population`, then
 * offspring of the best: half of them two parents mixed module by module, half one parent with some modules drawn anew.
 * Undefined where no new one was found: a small space is searched through.
 * @example while ((next = nextCandidate(space, e, scored))) scored.push({ choices: next, loss: await lossOf(next) })
 */
export function nextCandidate(space: SearchSpace, e: Evolution, scored: readonly Scored[]): Candidate | undefined {
  const seen = new Set(scored.map(({ choices }) => textOf(choices)));
  const uniform = uniformCandidates(space, e.budget).find((choices) => !seen.has(textOf(choices)));
  if (uniform) return uniform;
  const parents = [...scored].sort((a, b) => rank(a) - rank(b)).slice(0, e.parents);
  for (let again = 0; again < TRIES; again++) {
    const random = randomOf(foldKey(e.key, 'candidate', scored.length, again));
    const drawn = () => space.map((costs) => random.int(costs.length));
    const choices =
      scored.length < e.population || parents.length === 0 ? drawn() : offspring(parents, space, e, random);
    const fitting = within(space, choices, e.budget, random);
    if (!seen.has(textOf(fitting))) return fitting;
  }
  return undefined;
}

function offspring(parents: readonly Scored[], space: SearchSpace, e: Evolution, random: Random): Candidate {
  const one = random.choice(parents).choices;
  if (random.chance(0.5)) {
    const other = random.choice(parents).choices;
    return one.map((choice, m) => (random.chance(0.5) ? choice : other[m]!));
  }
  return one.map((choice, m) => (random.chance(e.mutation) ? random.int(space[m]!.length) : choice));
}

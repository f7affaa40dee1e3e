/** What may be set on page “Train here”, in its address and back. */
import { FIXED, GROWING, type Side } from '../machine/sides.ts';
import { type Route, remember } from './route.ts';

/** numbers of phantoms to choose from */
export const PAIRS = [40, 80, 160, 320];
export const LORA_RANK = 4;
export type Which = 'both' | Side;
/** What is set; changed by the controls. */
export interface TrainState {
  which: Which;
  pairs: number;
  lambda: number;
  steps: number;
  testEvery: number;
  report: number;
  regions: boolean;
}

/** What the address says, within its bounds. */
export function stateOf({ state }: Route): TrainState {
  const number = (name: string, least: number, most: number, otherwise: number): number => {
    const x = Number(state.get(name) ?? otherwise);
    return x >= least && x <= most ? x : otherwise;
  };
  const which = state.get('method');
  return {
    which: which === GROWING || which === FIXED ? which : 'both',
    pairs: PAIRS.find((n) => n === Number(state.get('pairs'))) ?? 80,
    lambda: number('lambda', 1, 3, 1.1),
    steps: Math.round(number('steps', 2, 5000, 300)),
    testEvery: Math.round(number('every', 1, 1000, 20)),
    report: Math.round(number('report', 0, 3, 0)),
    regions: state.get('regions') === '1',
  };
}

/** Writes it into the address; what is as at first is left out. */
export const rememberState = (s: TrainState): void =>
  remember('train', '', {
    method: s.which === 'both' ? undefined : s.which,
    pairs: s.pairs === 80 ? undefined : String(s.pairs),
    lambda: s.lambda === 1.1 ? undefined : String(s.lambda),
    steps: s.steps === 300 ? undefined : String(s.steps),
    every: s.testEvery === 20 ? undefined : String(s.testEvery),
    report: s.report === 0 ? undefined : String(s.report),
    regions: s.regions ? '1' : undefined,
  });

/** What a run is called where runs stand beside each other. */
import { labelOf } from '../../selora/methods/registry.ts';
import { methodName } from '../words/format.ts';
import type { RunRecord } from './record.ts';

/** The method with what its settings make of it, such as `SeLoRA, gain` or `LoRA r=4`. */
export const nameOfRun = ({ method, settings }: Pick<RunRecord, 'method' | 'settings'>): string =>
  labelOf(method, settings as never) ?? methodName(method);

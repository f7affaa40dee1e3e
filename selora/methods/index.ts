/** The methods a run can train with: one file and one line each. The first is the default. */
import { lora } from './lora.ts';
import { selora } from './selora.ts';

/** All of them. */
export const METHODS = [selora, lora] as const;

/** All planted faults; see README.md. */
import { derivatives } from './derivatives.ts';
import type { Fault } from './fault.ts';
import { onGpujs, onWebgpu } from './on-gpus.ts';
import { onWasm } from './on-wasm.ts';
import { parallel } from './parallel.ts';
import { reference } from './reference.ts';
import { rules } from './rules.ts';

export const faults: readonly Fault[] = [
  ...derivatives,
  ...rules,
  ...reference,
  ...onWasm,
  ...onWebgpu,
  ...onGpujs,
  ...parallel,
];

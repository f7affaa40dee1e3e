/**
 * The WASM backend: SIMD kernels on one shared memory, all cores. A program is lowered and planned once; a step is one
 * walk over its commands. Intermediates of all programs share one workspace (programs never run at the same time).
 */

import type { Backend } from '../../compile/backend.ts';
import { createMachine, type MachineOptions } from './machine/machine.ts';
import { Memory, type WasmStorage } from './machine/memory.ts';
import { hasKernel, WasmProgram } from './program.ts';

/** Opens the WASM backend; `threads` defaults to the cores this process may use. */
export function wasmBackend(options: MachineOptions = {}): Backend<WasmStorage> {
  const machine = createMachine(options);
  const memory = new Memory(machine);
  return {
    name: 'wasm',
    device: `WASM SIMD, ${machine.threads} thread${machine.threads > 1 ? 's' : ''}`,
    inProcess: true,
    supports: (d) => d !== 'f64',
    hasKernel,
    store(values, dtype) {
      const s = memory.storage(values.length, dtype);
      memory.view(s).set(values as never);
      return s;
    },
    load: async (s) => memory.view(s).slice(),
    free: (s) => memory.free(s),
    build: (graph) => new WasmProgram(memory, graph),
    memory: () => ({ liveBytes: memory.liveBytes, peakBytes: memory.peakBytes, storages: memory.live.size }),
    fallbacks: [],
    close: async () => machine.close(),
  };
}

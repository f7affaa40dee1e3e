/** Opening a backend by name; the heavy ones are only loaded when asked for. */
import type { Backend, BackendName } from '../compile/backend.ts';
import { CoreError } from '../ir/errors.ts';

/** Names of all backends. */
export const backendNames = ['webgpu', 'wasm', 'gpujs', 'cpu'] as const satisfies readonly BackendName[];
/** A backend by name, or `auto`: the fastest that runs here. */
export type BackendChoice = BackendName | 'auto';

/** What `openBackend` may be told. */
export interface OpenOptions {
  /** threads of the wasm backend; default: the cores this process may use */
  readonly threads?: number;
  /** whether V8 may join the wasm backend's 128-bit operations to 256-bit ones, for the whole process; default: on Node 24 or later */
  readonly revectorize?: boolean;
}

/**
 * `openBackend('auto')`: a real GPU through WebGPU where there is one, WASM otherwise.
 * @throws CoreError with what to install or choose when the backend cannot run here
 */
export async function openBackend(name: BackendChoice = 'auto', options: OpenOptions = {}): Promise<Backend> {
  switch (name) {
    case 'cpu':
      return (await import('./cpu/index.ts')).cpuBackend() as Backend;
    case 'wasm':
      return (await import('./wasm/index.ts')).wasmBackend(options) as Backend;
    case 'webgpu':
      return (await (await import('./webgpu/index.ts')).webgpuBackend()) as Backend;
    case 'gpujs':
      return (await (await import('./gpujs/index.ts')).gpujsBackend()) as Backend;
    case 'auto': {
      const { hasHardwareAdapter } = await import('./webgpu/device.ts');
      return openBackend((await hasHardwareAdapter()) ? 'webgpu' : 'wasm', options);
    }
    default:
      throw new CoreError(`--backend ${String(name)}: expected one of auto, ${backendNames.join(', ')}`);
  }
}

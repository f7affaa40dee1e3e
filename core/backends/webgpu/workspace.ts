/**
 * Intermediates of all programs in the same buffers: programs never run at the same time, so what a process needs is that
 * of its largest one, not of all together. The i-th largest demand of every program gets the i-th buffer.
 */
import { type BufferPool, sizeClass } from './buffers.ts';

export interface Workspace {
  /** what one program needs, once it runs: its buffers in the order of `bytes` */
  lease(bytes: readonly number[]): Lease;
}
export interface Lease {
  /** bytes of its buffers alone */
  readonly bytes: number;
  /** the same buffers until another program asks for larger ones */
  buffers(): readonly GPUBuffer[];
  /** gives the buffers back when no other lease is left */
  close(): void;
}

export const createWorkspace = (pool: BufferPool): Workspace => {
  /** largest first; a hole where a larger one could not be had */
  const shared: (GPUBuffer | undefined)[] = [];
  let leases = 0;
  const release = (from: readonly number[]): void => {
    for (const i of from) {
      if (shared[i]) pool.release(shared[i]);
      shared[i] = undefined;
    }
    // waiting for reuse they would stand beside the larger ones that take their place
    if (from.length > 0) pool.trim();
  };
  return {
    lease(bytes) {
      leases++;
      const order = bytes.map((_, i) => i).sort((a, b) => bytes[b]! - bytes[a]!);
      return {
        bytes: bytes.reduce((n, b) => n + sizeClass(b), 0),
        buffers() {
          release(order.flatMap((from, i) => (shared[i] && shared[i].size < bytes[from]! ? [i] : [])));
          const mine = new Array<GPUBuffer>(bytes.length);
          for (const [i, from] of order.entries()) mine[from] = shared[i] ??= pool.acquire(bytes[from]!);
          return mine;
        },
        close() {
          if (--leases === 0) release([...shared.keys()]);
        },
      };
    },
  };
};

/**
 * A second memory of 4 GiB, for what no kernel addresses: frozen weights in stored types. Kernels fetch a block of
 * them into their thread's scratch memory right where they widen it (half.ts, nf4.ts), so that the 4 GiB a kernel can address
 * are left to intermediates. It is a WebAssembly memory only because that grows in place on every thread.
 */

import { hasSharedMemory, MAX_PAGES } from '../assembler/assemble.ts';
import { type AllocatorStats, allocator } from './allocator.ts';

const PAGE = 65536;
/** grow by at least this much */
const GROWTH_PAGES = 1024;
/** the last page stays unused: an end address of 2³² would wrap to 0 */
const LIMIT_PAGES = MAX_PAGES - 1;

export interface Outside {
  readonly memory: WebAssembly.Memory;
  /** address, outside, of a 64-byte aligned block. @throws Error beyond 4 GiB */
  alloc(bytes: number): number;
  free(address: number): void;
  stats(): AllocatorStats;
  /** view of all of it; take it anew after an `alloc` */
  readonly u8: Uint8Array;
}

/** @throws RangeError when the system refuses the address range */
export const createOutside = (): Outside => {
  const memory = new WebAssembly.Memory({ initial: 0, maximum: MAX_PAGES, shared: hasSharedMemory });
  let pages = 0;
  const heap = allocator(0, 0, (bytes) => {
    const wanted = Math.min(Math.max(Math.ceil(bytes / PAGE), GROWTH_PAGES), LIMIT_PAGES - pages);
    if (wanted * PAGE < bytes) return undefined;
    memory.grow(wanted);
    pages += wanted;
    return pages * PAGE;
  });
  let u8 = new Uint8Array(0);
  return {
    memory,
    alloc: heap.alloc,
    free: heap.free,
    stats: heap.stats,
    get u8() {
      if (u8.length !== pages * PAGE) u8 = new Uint8Array(memory.buffer);
      return u8;
    },
  };
};

/** `fetch(from, to, bytes)` as kernels import it: copies from `outside` to `inside`. Workers have one like it. */
export const FETCH = 'fetch';
export const fetcher =
  (inside: () => Uint8Array, outside: () => Uint8Array) => (from: number, to: number, bytes: number) => {
    inside().set(outside().subarray(from >>> 0, (from >>> 0) + (bytes >>> 0)), to >>> 0);
    return undefined;
  };

/**
 * Allocator of address ranges: best fit, neighbours merged on free. It knows nothing of the memory behind the
 * addresses; `grow` is asked for more room at the end.
 */

export const ALIGNMENT = 64;
const align = (bytes: number): number => Math.max(ALIGNMENT, Math.ceil(bytes / ALIGNMENT) * ALIGNMENT);

export interface AllocatorStats {
  /** bytes handed out now */
  readonly live: number;
  /** most bytes handed out at once since the start or the last `resetPeak` */
  readonly peak: number;
  /** blocks handed out now */
  readonly blocks: number;
  /** end of the managed range */
  readonly end: number;
}

export interface Allocator {
  /** address of a new 64-byte aligned block. @throws Error when there is no room. O(log n) search, O(n) insert */
  alloc(bytes: number): number;
  /** @throws Error when `address` is not a live block */
  free(address: number): void;
  stats(): AllocatorStats;
  resetPeak(): void;
}

interface Block {
  readonly address: number;
  readonly bytes: number;
}
const order = (a: Block, b: Block): number => a.bytes - b.bytes || a.address - b.address;

/** Manages [start, end); `grow(bytes)` enlarges the range by at least `bytes` and returns the new end, or undefined. */
export const allocator = (
  start: number,
  end: number,
  grow: (bytes: number) => number | undefined = () => undefined,
): Allocator => {
  const live = new Map<number, number>();
  /** free blocks by size, then address */
  const bySize: Block[] = [];
  const byStart = new Map<number, Block>();
  const byEnd = new Map<number, Block>();
  let limit = start;
  let used = 0;
  let peak = 0;

  const lowerBound = (key: Block): number => {
    let low = 0;
    let high = bySize.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (order(bySize[middle]!, key) < 0) low = middle + 1;
      else high = middle;
    }
    return low;
  };
  const remove = (block: Block): void => {
    bySize.splice(lowerBound(block), 1);
    byStart.delete(block.address);
    byEnd.delete(block.address + block.bytes);
  };
  const insert = (block: Block): void => {
    const before = byEnd.get(block.address);
    const after = byStart.get(block.address + block.bytes);
    if (before) remove(before);
    if (after) remove(after);
    const merged = {
      address: before?.address ?? block.address,
      bytes: block.bytes + (before?.bytes ?? 0) + (after?.bytes ?? 0),
    };
    bySize.splice(lowerBound(merged), 0, merged);
    byStart.set(merged.address, merged);
    byEnd.set(merged.address + merged.bytes, merged);
  };
  const extend = (to: number): void => {
    if (to > limit) insert({ address: limit, bytes: to - limit });
    limit = Math.max(limit, to);
  };
  const fitting = (bytes: number): Block | undefined => bySize[lowerBound({ address: 0, bytes })];
  extend(end);

  return {
    alloc: (requested) => {
      if (!(requested >= 0)) throw new Error(`wasm memory: ${requested} is not a size in bytes`);
      const bytes = align(requested);
      let block = fitting(bytes);
      if (!block) {
        const tail = byEnd.get(limit)?.bytes ?? 0;
        extend(grow(bytes - tail) ?? limit);
        block = fitting(bytes);
      }
      if (!block) {
        const mib = (n: number): string => (n / 2 ** 20).toFixed(1);
        throw new Error(
          `wasm memory: no room for ${mib(bytes)} MiB; ${mib(used)} MiB are in use and WASM ends at 4 GiB`,
        );
      }
      remove(block);
      if (block.bytes > bytes) insert({ address: block.address + bytes, bytes: block.bytes - bytes });
      live.set(block.address, bytes);
      used += bytes;
      peak = Math.max(peak, used);
      return block.address;
    },
    free: (address) => {
      const bytes = live.get(address);
      if (bytes === undefined) throw new Error(`wasm memory: ${address} is not a live block`);
      live.delete(address);
      used -= bytes;
      insert({ address, bytes });
    },
    stats: () => ({ live: used, peak, blocks: live.size, end: limit }),
    resetPeak: () => {
      peak = used;
    },
  };
};

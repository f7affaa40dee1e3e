/** Liveness and memory: when each buffer is needed, and where it lies in a shared workspace. */
import { isWhole, sizeOf } from '../ir/view.ts';
import { type Buffer, bytesOfBuffer, type Kernel, type Lowered, writesOf } from './lower.ts';

export interface Span {
  readonly buffer: Buffer;
  readonly bytes: number;
  /** index of the kernel that writes it, and of the last one that reads it */
  readonly start: number;
  readonly end: number;
}

/** Spans of the intermediates: everything written that is neither an input nor an output of the program. */
export function spans(p: Lowered): Span[] {
  const fixed = new Set<Buffer>([...p.inputs, ...p.outputs]);
  const open = new Map<Buffer, { start: number; end: number }>();
  for (let i = 0; i < p.kernels.length; i++) {
    const k = p.kernels[i]!;
    for (const b of writesOf(k)) if (!fixed.has(b)) open.set(b, { start: i, end: i });
    for (const { buffer } of k.inputs) {
      const s = open.get(buffer);
      if (s) s.end = i;
    }
  }
  return [...open].map(([buffer, s]) => ({ buffer, bytes: bytesOfBuffer(buffer), ...s }));
}

/**
 * Which outputs may be written over which donated inputs: equal bytes, and the input is not read after the output is
 * written (in the same kernel only by a cluster that reads it element by element in the same order).
 */
export function reuseDonated(p: Lowered, donated: ReadonlySet<number>): Map<Buffer, Buffer> {
  const lastRead = new Map<Buffer, number>();
  const written = new Map<Buffer, number>();
  for (let i = 0; i < p.kernels.length; i++) {
    const k = p.kernels[i]!;
    for (const { buffer } of k.inputs) lastRead.set(buffer, i);
    for (const b of writesOf(k)) written.set(b, i);
  }
  const sameOrder = (k: Kernel, input: Buffer): boolean =>
    k.kind === 'cluster' &&
    !k.cluster.reduce &&
    k.inputs.every(({ buffer, view }) => buffer !== input || (isWhole(view) && sizeOf(view.shape) === buffer.elements));
  // a step donates hundreds of tensors: only those of one size and type are compared
  const kindOf = (b: Buffer): string => `${b.dtype} ${bytesOfBuffer(b)}`;
  const free = new Map<string, Buffer[]>();
  for (const i of donated) {
    const input = p.inputs[i]!;
    const kind = kindOf(input);
    const alike = free.get(kind);
    if (alike) alike.push(input);
    else free.set(kind, [input]);
  }
  const reuse = new Map<Buffer, Buffer>();
  // so that an early one does not take what a better match needs in place
  const inOrder = [...p.outputs].sort((a, b) => (written.get(a) ?? 0) - (written.get(b) ?? 0));
  for (const inPlaceOnly of [true, false])
    for (const output of inOrder) {
      if (reuse.has(output)) continue;
      const at = written.get(output)!;
      const alike = free.get(kindOf(output)) ?? [];
      const found = alike.findIndex((input) => {
        const last = lastRead.get(input) ?? -1;
        if (inPlaceOnly) return last === at && sameOrder(p.kernels[at]!, input);
        return last < at;
      });
      if (found >= 0) reuse.set(output, alike.splice(found, 1)[0]!);
    }
  return reuse;
}

export interface Arena {
  /** byte offset of each intermediate */
  readonly offsets: ReadonlyMap<Buffer, number>;
  readonly bytes: number;
}
interface Hole {
  at: number;
  bytes: number;
}

/** Best-fit placement in one block: a buffer takes the smallest hole that holds it while it lives. */
export function arena(list: readonly Span[], align: number): Arena {
  const size = (s: Span) => Math.max(align, Math.ceil(s.bytes / align) * align);
  const offsets = new Map<Buffer, number>();
  const holes: Hole[] = [];
  let top = 0;
  const ends = [...list].sort((a, b) => a.end - b.end);
  let e = 0;
  const release = (at: number, bytes: number) => {
    let i = holes.findIndex((h) => h.at > at);
    if (i < 0) i = holes.length;
    holes.splice(i, 0, { at, bytes });
    if (i + 1 < holes.length && holes[i]!.at + holes[i]!.bytes === holes[i + 1]!.at) {
      holes[i]!.bytes += holes[i + 1]!.bytes;
      holes.splice(i + 1, 1);
    }
    if (i > 0 && holes[i - 1]!.at + holes[i - 1]!.bytes === holes[i]!.at) {
      holes[i - 1]!.bytes += holes[i]!.bytes;
      holes.splice(i, 1);
    }
  };
  for (const s of [...list].sort((a, b) => a.start - b.start)) {
    // an operand stays alive during the kernel that reads it last
    while (e < ends.length && ends[e]!.end < s.start) {
      release(offsets.get(ends[e]!.buffer)!, size(ends[e]!));
      e++;
    }
    const need = size(s);
    let best: Hole | undefined;
    for (let i = 0; i < holes.length; i++) {
      const h = holes[i]!;
      if (h.bytes >= need && (!best || h.bytes < best.bytes)) best = h;
    }
    const last = holes.at(-1);
    if (!best && last && last.at + last.bytes === top) {
      // grow the hole at the top instead of leaving it
      top = last.at + need;
      offsets.set(s.buffer, last.at);
      holes.pop();
      continue;
    }
    if (!best) {
      offsets.set(s.buffer, top);
      top += need;
      continue;
    }
    offsets.set(s.buffer, best.at);
    best.at += need;
    best.bytes -= need;
    if (best.bytes === 0) holes.splice(holes.indexOf(best), 1);
  }
  return { offsets, bytes: top };
}

export interface Slots {
  readonly slotOf: ReadonlyMap<Buffer, number>;
  readonly sizes: readonly number[];
}
/** Whole buffers instead of one block (WebGPU tracks hazards per buffer): best fit by size, grown when nothing fits. */
export function slots(list: readonly Span[], align: number): Slots {
  const slotOf = new Map<Buffer, number>();
  const sizes: number[] = [];
  const free: number[] = [];
  const ends = [...list].sort((a, b) => a.end - b.end);
  let e = 0;
  for (const s of [...list].sort((a, b) => a.start - b.start)) {
    while (e < ends.length && ends[e]!.end < s.start) free.push(slotOf.get(ends[e++]!.buffer)!);
    const need = Math.max(align, Math.ceil(s.bytes / align) * align);
    const fits = free
      .filter((i) => sizes[i]! >= need && sizes[i]! <= 4 * need)
      .sort((a, b) => sizes[a]! - sizes[b]!)[0];
    const slot = fits ?? sizes.push(need) - 1;
    if (fits !== undefined) free.splice(free.indexOf(fits), 1);
    slotOf.set(s.buffer, slot);
  }
  return { slotOf, sizes };
}

/**
 * The bytes of the backend: storages and the shared workspace in the memory kernels address, stored weights outside of it.
 */
import { type DType, entryBytes, type HostArray, isStored, valuesAt } from '../../../ir/dtype.ts';
import { DeviceLimitError } from '../../../ir/errors.ts';
import type { Machine } from './machine.ts';

export interface WasmStorage {
  /** in the machine's memory; stored types: in the one outside */
  readonly address: number;
  readonly bytes: number;
  readonly dtype: DType;
  readonly entries: number;
}

export const ALIGN = 64;

/** Stored types lie outside the memory kernels address: those few kernels that take them fetch them (outside.ts). */
export const isOutside = isStored;

const mib = (bytes: number): number => Math.ceil(bytes / 2 ** 20);

export class Memory {
  readonly machine: Machine;
  readonly live = new Set<WasmStorage>();
  liveBytes = 0;
  peakBytes = 0;
  private insideBytes = 0;
  /** the shared workspace; programs check `version` and write their commands anew when it has moved */
  workspace = { address: 0, bytes: 0, version: 0 };
  constructor(machine: Machine) {
    this.machine = machine;
  }
  /** a block kernels can address. @throws DeviceLimitError beyond 4 GiB */
  alloc(bytes: number, what: string): number {
    return this.within(bytes, what, () => this.machine.alloc(Math.max(bytes, ALIGN)));
  }
  private within(bytes: number, what: string, take: () => number): number {
    try {
      return take();
    } catch {
      throw new DeviceLimitError(
        `wasm: ${what} needs ${mib(bytes)} MiB more, but of the 4096 MiB a WASM memory may have ${mib(this.insideBytes)} MiB are in use`,
      );
    }
  }
  private allocOutside(bytes: number): number {
    const { outside } = this.machine;
    try {
      return outside.alloc(Math.max(bytes, ALIGN));
    } catch {
      throw new DeviceLimitError(
        `wasm: a tensor of stored weights needs ${mib(bytes)} MiB more, but of the 4096 MiB for such tensors ${mib(outside.stats().live)} MiB are in use`,
      );
    }
  }
  /** a storage of so many entries of a host array, with any values. @throws DeviceLimitError */
  storage(entries: number, dtype: DType): WasmStorage {
    const bytes = entryBytes(dtype, entries);
    const address = isOutside(dtype) ? this.allocOutside(bytes) : this.alloc(bytes, 'a tensor');
    const s = { address, bytes, dtype, entries };
    this.live.add(s);
    this.tally(bytes, dtype);
    return s;
  }
  free(s: WasmStorage): void {
    if (!this.live.delete(s)) return;
    if (isOutside(s.dtype)) this.machine.outside.free(s.address);
    else this.machine.free(s.address);
    this.tally(-s.bytes, s.dtype);
  }
  /** blocks of `alloc` count with their owner */
  count(bytes: number): void {
    this.insideBytes += bytes;
    this.liveBytes += bytes;
    this.peakBytes = Math.max(this.peakBytes, this.liveBytes);
  }
  private tally(bytes: number, dtype: DType): void {
    this.count(bytes);
    if (isOutside(dtype)) this.insideBytes -= bytes;
  }
  reserve(bytes: number): void {
    if (bytes <= this.workspace.bytes) return;
    const address = this.within(bytes, 'the workspace of a program', () => this.machine.top(bytes));
    this.count(bytes - this.workspace.bytes);
    this.workspace = { address, bytes, version: this.workspace.version + 1 };
  }
  view(s: WasmStorage): HostArray {
    return this.at(s.address, s.entries, s.dtype, isOutside(s.dtype));
  }
  /** values in the memory kernels address */
  inside(address: number, elements: number, dtype: DType): HostArray {
    return this.at(address, elements, dtype, false);
  }
  private at(address: number, elements: number, dtype: DType, outside: boolean): HostArray {
    const { buffer } = outside ? this.machine.outside.u8 : this.machine.u8;
    return valuesAt(dtype, buffer, address, elements);
  }
}

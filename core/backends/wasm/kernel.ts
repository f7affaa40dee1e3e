/** What a WASM kernel is to the compiler: which operands it takes as they lie, and the commands that compute it. */
import type { DType } from '../../ir/dtype.ts';
import type { Attrs } from '../../ir/tensor.ts';
import type { View } from '../../ir/view.ts';
import type { KernelSource } from './loops/walk.ts';
import type { Command, Machine } from './machine/machine.ts';

/** an operand in memory: the buffer's byte address and the view read from it (strides and offset in elements) */
export interface Placed {
  readonly address: number;
  readonly dtype: DType;
  readonly view: View;
  /** the address is one outside the memory of kernels (stored halves): `fetch` gets it in */
  readonly outside?: boolean;
}
export interface Call<A extends Attrs = Attrs> {
  readonly machine: Machine;
  readonly attrs: A;
  readonly inputs: readonly Placed[];
  /** contiguous results; undefined where nobody reads one and the kernel is `partial` */
  readonly outputs: readonly (Placed | undefined)[];
  /** address of `workspace(call)` bytes, free during this kernel */
  readonly workspace: number;
}
export interface WasmKernel<A extends Attrs = Attrs> {
  /** operands that may be any strided view; the others arrive contiguous */
  readonly strided: readonly boolean[];
  /** true: it leaves out the results that have no place */
  readonly partial?: boolean;
  workspace?(call: Call<A>): number;
  /** the commands, and kernels to compile if the machine does not have them */
  work(call: Call<A>): { readonly commands: readonly Command[]; readonly kernels?: readonly KernelSource[] };
}

const WORD = 4;
/** byte address of the first element of a view */
export const at = (p: Placed): number => p.address + p.view.offset * WORD;

/** A command that copies a block from the memory outside (machine/outside.ts) to the one kernels address. */
import { call, i32 } from '../assembler/assemble.ts';
import { type KernelCommand, kernel, type Word, words } from '../kernel.ts';

const UNIT_BYTES = 2 ** 16;
const fetchBlock = kernel('fetch block', words(['from to bytes']), ({ f, fetch, start, end, read }) => {
  const at = f.let(i32.mul(start, UNIT_BYTES));
  const bytes = f.let(i32.sub(i32.mul(end, UNIT_BYTES), at));
  const rest = f.let(i32.sub(read('bytes'), at));
  f.if(i32.gt_u(bytes, rest), () => f.set(bytes, rest));
  f.emit(call(fetch, [i32.add(read('from'), at), i32.add(read('to'), at), bytes]));
});
export const fetchCommand = (from: Word, to: Word, bytes: number): KernelCommand =>
  fetchBlock.command({ from, to, bytes }, Math.ceil(bytes / UNIT_BYTES));

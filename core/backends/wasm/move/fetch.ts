/** How kernels read the memory outside (outside.ts): a function they call, and a command that copies a block inside. */
import { type Assembler, assembler, call, type Func, i32 } from '../assembler/assemble.ts';
import { words } from '../loops/walk.ts';
import type { Command, Machine } from '../machine/machine.ts';
import { FETCH } from '../machine/outside.ts';
import { ensure } from '../product/units.ts';

/** fetch(from, to, bytes): from outside to an address inside. One call costs some 0.1 µs */
export const importFetch = (m: Assembler): Func => m.importFunc(FETCH, ['i32', 'i32', 'i32'], 'void');

const UNIT_BYTES = 2 ** 16;
const fetchWords = words(['from', 'to', 'bytes']);
const fetchModule = (): Uint8Array<ArrayBuffer> => {
  const m = assembler();
  const fetch = importFetch(m);
  m.kernel('fetch block', (f, { args, start, end }) => {
    const at = f.let(i32.mul(start, UNIT_BYTES));
    const bytes = f.let(i32.sub(i32.mul(end, UNIT_BYTES), at));
    const rest = f.let(i32.sub(fetchWords.read(args, 'bytes'), at));
    f.if(i32.gt_u(bytes, rest), () => f.set(bytes, rest));
    const from = i32.add(fetchWords.read(args, 'from'), at);
    f.emit(call(fetch, [from, i32.add(fetchWords.read(args, 'to'), at), bytes]));
  });
  return m.bytes();
};
/** Command that copies a block from outside to inside. */
export const fetchCommand = (machine: Machine, from: number, to: number, bytes: number): Command => ({
  kernel: ensure(machine, 'fetch block', fetchModule),
  args: fetchWords.pack({ from, to, bytes }),
  grid: Math.ceil(bytes / UNIT_BYTES),
});

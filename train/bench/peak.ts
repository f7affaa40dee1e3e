/** What this machine can do at most, measured: 128-bit multiply-adds in WASM, and reading and writing of memory. */
import { assembler, f32x4, i32, v128 } from '../../core/backends/wasm/assembler/assemble.ts';
import { createMachine } from '../../core/backends/wasm/machine/machine.ts';
import { timed } from './clock.ts';

export type Peak = { readonly gflops: number; readonly gbs: number; readonly threads: number };

const CHAINS = 12;
const ROUNDS = 1024;
/** one unit of the first kernel: a multiplication and an addition in 4 lanes of every chain */
const UNIT_FLOPS = CHAINS * 4 * 2 * ROUNDS;
/** bytes a unit of the second kernel copies */
const UNIT_BYTES = 16384;
/** larger than any cache */
const COPIED_BYTES = 64 * 2 ** 20;

function kernels(): Uint8Array<ArrayBuffer> {
  const m = assembler();
  // independent chains of multiply-adds that never leave their registers
  m.kernel('benchMultiplyAdd', (f, { start, end, scratch }) => {
    const sums = Array.from({ length: CHAINS }, () => f.local('v128'));
    const a = f.let(f32x4.splat(0.5));
    const [u, i] = [f.local('i32'), f.local('i32')];
    f.for(u, start, end, 1, () =>
      f.for(i, 0, ROUNDS, 8, () => {
        for (let step = 0; step < 8; step++) for (const s of sums) f.set(s, f32x4.relaxed_madd(s, a, a));
      }),
    );
    // without a use the loop would be dropped
    for (const s of sums) f.emit(i32.store(scratch, i32.reinterpret_f32(f32x4.extract_lane(s, 0))));
  });
  m.kernel('benchCopy', (f, { args, start, end }) => {
    const [from, to] = [f.let(i32.load(args, 0)), f.let(i32.load(args, 4))];
    const [u, i] = [f.local('i32'), f.local('i32')];
    f.for(u, start, end, 1, () => {
      const at = f.let(i32.shl(u, Math.log2(UNIT_BYTES)));
      const [x, y] = [f.let(i32.add(from, at)), f.let(i32.add(to, at))];
      f.for(i, 0, UNIT_BYTES, 64, () => {
        for (let k = 0; k < 64; k += 16)
          f.emit(v128.store(i32.add(i32.add(y, i), k), v128.load(i32.add(i32.add(x, i), k))));
      });
    });
  });
  return m.bytes();
}

/** GFLOP/s of fused multiply-adds and GB/s (read + written) of a copy, on all threads. */
export async function measurePeak(threads?: number): Promise<Peak> {
  const machine = createMachine(threads === undefined ? {} : { threads });
  machine.ready();
  machine.addModule(kernels());
  const grid = 64 * machine.threads;
  const compute = machine.prepare([{ kernel: 'benchMultiplyAdd', args: [], grid }]);
  const flops = await timed(() => void machine.run(compute), { ms: 200, warm: 5 });
  const [from, to] = [machine.alloc(COPIED_BYTES), machine.alloc(COPIED_BYTES)];
  const copy = machine.prepare([{ kernel: 'benchCopy', args: [from, to], grid: COPIED_BYTES / UNIT_BYTES }]);
  const bytes = await timed(() => void machine.run(copy), { ms: 300, warm: 2 });
  machine.close();
  return {
    gflops: (grid * UNIT_FLOPS) / flops.min / 1e6,
    gbs: (2 * COPIED_BYTES) / bytes.min / 1e6,
    threads: machine.threads,
  };
}

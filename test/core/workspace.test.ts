/** The workspace at the top of the WASM memory: it grows in place, keeps clear of the heap, and refuses in one line. */
import { expect, it } from 'vitest';
import { wasmBackend } from '../../core/backends/wasm/index.ts';
import { createMachine } from '../../core/backends/wasm/machine/machine.ts';
import { add, type Backend, compile, dot, read, reshape, sum, type Tensor, tensor } from '../../core/index.ts';

const MIB = 2 ** 20;

it('one block, ending where the memory may be read, growing downwards; blocks below keep their values', () => {
  const machine = createMachine({ threads: 1 });
  const low = machine.alloc(MIB);
  machine.u8.fill(7, low, low + MIB);
  const small = machine.top(MIB);
  machine.u8.fill(8, small, small + MIB);
  const large = machine.top(64 * MIB);
  expect(large).toBeLessThanOrEqual(small - 63 * MIB);
  expect(machine.top(MIB), 'never smaller again').toBe(large);
  // vector loads may run a little past its end
  expect(large + 64 * MIB + 1024).toBeLessThanOrEqual(machine.u8.length);
  const later = machine.alloc(2 * MIB);
  expect(later + 2 * MIB).toBeLessThanOrEqual(large);
  machine.u8.fill(9, later, later + 2 * MIB);
  expect([low, low + MIB - 1, small, small + MIB - 1].map((at) => machine.u8[at])).toEqual([7, 7, 8, 8]);
  machine.close();
});

it('heap and top share 4 GiB: neither takes what the other has', () => {
  const machine = createMachine({ threads: 1 });
  machine.top(3 * 2 ** 30);
  expect(() => machine.alloc(1.1 * 2 ** 30)).toThrow(/no room/);
  const block = machine.alloc(0.9 * 2 ** 30);
  expect(() => machine.top(3.5 * 2 ** 30)).toThrow(/no room/);
  machine.free(block);
  machine.close();
});

it('programs of growing size leave no holes: the address space ends where the largest needs it', async () => {
  const backend = wasmBackend({ threads: 1 }) as Backend;
  /** two intermediates that must exist, and a result that stays */
  const step = compile((x: Tensor) => add(x, sum(reshape(add(x, 1), [1, -1]), 1)), { backend });
  const kept: Tensor[] = [];
  let largest = 0;
  for (const n of [1, 2, 4, 8]) {
    const x = tensor(new Float32Array((n * MIB) / 4).fill(1), [(n * MIB) / 4]);
    kept.push(step(x));
    largest = Math.max(largest, step.inspect(x).workspaceBytes);
    expect((await read(kept.at(-1)!))[0]).toBe(1 + (2 * n * MIB) / 4);
  }
  // every input and result, each result's fixed place, and one workspace
  expect(backend.memory().peakBytes).toBeLessThanOrEqual(3 * 15 * MIB + largest + MIB);
  await backend.close();
});

it('a program too large is refused before it runs, in one line with both numbers; the backend goes on', async () => {
  const backend = wasmBackend({ threads: 1 }) as Backend;
  const outer = compile((x: Tensor) => sum(dot(reshape(x, [1, x.shape[0]!, 1]), reshape(x, [1, 1, x.shape[0]!]))), {
    backend,
  });
  const ones = (n: number) => tensor(new Float32Array(n).fill(1), [n]);
  expect(() => outer(ones(40_000))).toThrow(
    /^wasm: the workspace of a program needs 610\d MiB more, but of the 4096 MiB a WASM memory may have \d MiB are in use$/,
  );
  expect((await read(outer(ones(100))))[0]).toBe(10_000);
  await backend.close();
});

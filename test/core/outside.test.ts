/** Stored halves lie outside the memory kernels address: they leave it free, give the same bits, and grow on every thread. */
import { afterAll, expect, it, vi } from 'vitest';
import { wasmBackend } from '../../core/backends/wasm/index.ts';
import { install } from '../../core/backends/wasm/kernel.ts';
import { createMachine } from '../../core/backends/wasm/machine/machine.ts';
import { Memory } from '../../core/backends/wasm/machine/memory.ts';
import { fetchCommand } from '../../core/backends/wasm/product/fetch.ts';
import { type Backend, cast, compile, evaluate, gather, permute, read, type Tensor, tensor } from '../../core/index.ts';
import type { HostArray } from '../../core/ir/dtype.ts';
import { halfValue } from '../../core/ops/half.ts';
import { cpu } from '../support/gradcheck.ts';

vi.setConfig({ testTimeout: 60_000 });
const MIB = 2 ** 20;
const backends = [1, 2, 3].map((threads) => wasmBackend({ threads }) as Backend);
afterAll(async () => {
  for (const b of backends) await b.close();
});
/** same bits; element by element matchers take seconds here */
const same = (a: HostArray, b: HostArray): boolean => {
  const bytes = (x: HostArray) => new Uint8Array(x.buffer, x.byteOffset, x.byteLength);
  return Buffer.compare(bytes(a), bytes(b)) === 0;
};
/** finite patterns of both signs */
const halves = (n: number, seed: number): Uint16Array =>
  Uint16Array.from({ length: n }, (_, i) => (Math.imul(i + seed, 0x9e3779b1) >>> 16) & 0xfbff);

it('takes nothing of the 4 GiB of kernels, and both limits are told with their numbers', () => {
  const machine = createMachine({ threads: 1 });
  const memory = new Memory(machine);
  const stored = [0, 1, 2].map(() => memory.storage(512 * MIB, 'f16'));
  expect(memory.liveBytes).toBe(3 * 1024 * MIB);
  const block = memory.alloc(3.9 * 1024 * MIB, 'a block');
  memory.count(3.9 * 1024 * MIB);
  expect(() => memory.storage(64 * MIB, 'f32')).toThrow(
    /^wasm: a tensor needs 256 MiB more, but of the 4096 MiB a WASM memory may have 3994 MiB are in use$/,
  );
  expect(() => memory.storage(600 * MIB, 'f16')).toThrow(
    /^wasm: a tensor of stored weights needs 1200 MiB more, but of the 4096 MiB for such tensors 3072 MiB are in use$/,
  );
  machine.free(block);
  memory.free(stored[1]!);
  expect(memory.storage(512 * MIB, 'f16').address, 'what is freed is used again').toBe(stored[1]!.address);
  machine.close();
});

it('blocks fetched by any thread arrive whole, also those stored after the workers started', () => {
  const machine = createMachine({ threads: 3 });
  machine.ready();
  const bytes = 3 * MIB + 13;
  const target = machine.alloc(bytes);
  for (let round = 0; round < 8; round++) {
    // beyond what the memory outside had at the round before
    const from = machine.outside.alloc(bytes + 64 * MIB * (round % 2));
    machine.outside.u8.subarray(from, from + bytes).forEach((_, i, all) => {
      all[i] = (i >> 9) + i + round;
    });
    const commands = [fetchCommand(from, target, bytes)];
    install(machine, commands);
    const program = machine.prepare(commands);
    machine.run(program);
    const wrong = machine.u8.subarray(target, target + bytes).findIndex((v, i) => v !== (((i >> 9) + i + round) & 255));
    expect(wrong).toBe(-1);
    machine.release(program);
  }
  machine.close();
});

it('any number of threads gives the values, from outside and from an intermediate inside', {
  timeout: 30_000,
}, async () => {
  const [rows, width] = [300, 777];
  const values = halves(rows * width, 1);
  const table = tensor(values, [rows, width]);
  const ids = tensor(Int32Array.from({ length: rows }, (_, i) => i));
  const want = Float32Array.from(values, halfValue);
  for (const backend of backends)
    for (let round = 0; round < 5; round++) {
      expect(same(await read(evaluate(cast(table, 'f32'), backend)), want)).toBe(true);
      expect(same(await read(evaluate(cast(gather(table, ids), 'f32'), backend)), want)).toBe(true);
    }
  const turned = cast(permute(table, [1, 0]), 'f32');
  const reference = await read(evaluate(turned, cpu));
  for (const backend of backends) expect(same(await read(evaluate(turned, backend)), reference)).toBe(true);
});

it('a compiled function follows its weights to another place, and results of f16 are storages like any other', async () => {
  for (const backend of backends) {
    const widen = compile((x: Tensor) => cast(x, 'f32'), { backend });
    const rowsOf = compile((x: Tensor, ids: Tensor) => gather(x, ids), { backend, donate: [0] });
    for (const seed of [3, 4, 5]) {
      const values = halves(20_000, seed);
      const wide = await read(widen(tensor(values, [20_000])));
      expect(same(wide, Float32Array.from(values, halfValue))).toBe(true);
      const back = Int32Array.from({ length: 2000 }, (_, i) => 1999 - i);
      const reversed = rowsOf(tensor(values, [2000, 10]), tensor(back));
      const expected = values.map((_, i) => values[back[Math.floor(i / 10)]! * 10 + (i % 10)]!);
      expect(same(await read(reversed), expected)).toBe(true);
      expect(same(await read(widen(reversed)), Float32Array.from(expected, halfValue))).toBe(true);
    }
    expect(widen.programs).toBe(2);
  }
});

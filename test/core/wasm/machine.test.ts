import fc from 'fast-check';
import { afterAll, describe, expect, it } from 'vitest';
import { assembler, f32x4, i32, v128 } from '../../../core/backends/wasm/assembler/assemble.ts';
import { allocator } from '../../../core/backends/wasm/machine/allocator.ts';
import { createMachine, f32Bits } from '../../../core/backends/wasm/machine/machine.ts';
import { host, setHost } from '../../../core/ir/host.ts';

/** y[i] = a·x[i], 4 numbers a unit; and a kernel that traps at unit 3 */
const scaleModule = (): Uint8Array<ArrayBuffer> => {
  const m = assembler();
  m.kernel('scale4', (f, { args, start, end }) => {
    const x = f.let(i32.load(args, 0));
    const y = f.let(i32.load(args, 4));
    const a = f.let(v128.load32_splat(args, 8));
    const u = f.local('i32');
    f.for(u, start, end, 1, () => {
      const at = f.let(i32.shl(u, 4));
      f.emit(v128.store(i32.add(y, at), f32x4.mul(a, v128.load(i32.add(x, at)))));
    });
  });
  m.kernel('trapAt3', (f, { start, end }) => {
    const u = f.local('i32');
    f.for(u, start, end, 1, () => f.drop(i32.div_u(1, i32.sub(u, 3))));
  });
  // Spins until another thread has taken a unit too: ends only when workers take part.
  m.kernel('meet', (f, { args, start, end }) => {
    const u = f.local('i32');
    f.for(u, start, end, 1, () => {
      f.drop(i32.atomic.add(i32.load(args, 0), 1));
      f.while(i32.lt_u(i32.atomic.load(i32.load(args, 0)), i32.load(args, 4)), () => {});
    });
  });
  // As `meet`, then the later units take longer; counts the units that are done.
  m.kernel('linger', (f, { args, start, end }) => {
    const u = f.local('i32');
    const i = f.local('i32');
    const sink = f.local('i32');
    f.for(u, start, end, 1, () => {
      f.drop(i32.atomic.add(i32.load(args, 0), 1));
      f.while(i32.lt_u(i32.atomic.load(i32.load(args, 0)), i32.load(args, 4)), () => {});
      f.for(i, 0, i32.mul(u, 100_000), 1, () => f.set(sink, i32.atomic.load(i32.load(args, 0))));
      f.drop(i32.atomic.add(i32.load(args, 8), 1));
    });
  });
  // The turn in which a unit was taken; those of the first two turns wait for each other.
  m.kernel('turn', (f, { args, start, end }) => {
    const [u, turn] = f.locals('i32');
    f.for(u, start, end, 1, () => {
      f.set(turn, i32.atomic.add(i32.load(args, 0), 1));
      f.while(i32.lt_u(i32.atomic.load(i32.load(args, 0)), 2), () => {});
      f.emit(i32.store(i32.add(i32.load(args, 4), i32.shl(u, 2)), turn));
    });
  });
  m.kernel('count', (f, { args, start, end }) => {
    const u = f.local('i32');
    f.for(u, start, end, 1, () => f.drop(i32.atomic.add(i32.add(i32.load(args, 0), i32.shl(u, 2)), 1)));
  });
  m.kernel('copy', (f, { args }) => f.emit(i32.store(i32.load(args, 4), i32.load(i32.load(args, 0)))));
  return m.bytes();
};

describe('machine', { timeout: 60_000 }, () => {
  // ten: more threads than parts
  const machines = [1, 2, 3, 10].map((threads) => createMachine({ threads }));
  for (const machine of machines) machine.addModule(scaleModule());
  afterAll(() => {
    for (const machine of machines) machine.close();
  });

  it.each(machines.map((m) => [m.threads, m] as const))('takes every unit once on %i threads', (_, machine) => {
    machine.ready();
    const most = 300;
    const counts = machine.alloc(most * 4);
    const run = fc.property(
      fc.nat(most),
      fc.option(fc.integer({ min: 1, max: 80 }), { nil: undefined }),
      (grid, chunk) => {
        machine.i32.fill(0, counts / 4, counts / 4 + most);
        const program = machine.prepare([{ kernel: 'count', args: [counts], grid, chunk }]);
        machine.run(program);
        machine.release(program);
        const got = [...machine.i32.subarray(counts / 4, counts / 4 + most)];
        expect(got).toEqual(Array.from({ length: most }, (_, u) => (u < grid ? 1 : 0)));
      },
    );
    fc.assert(run, { numRuns: 300 });
    machine.free(counts);
  });

  it('lets a thread begin with its own part of the units', () => {
    const machine = machines[1]!;
    machine.ready();
    const grid = 8;
    const at = machine.alloc((grid + 1) * 4);
    machine.i32.fill(0, at / 4, at / 4 + grid + 1);
    const program = machine.prepare([{ kernel: 'turn', args: [at, at + 4], grid, chunk: 1 }]);
    machine.run(program);
    const turns = [...machine.i32.subarray(at / 4 + 1, at / 4 + 1 + grid)];
    // those of the first two turns: the main thread's first unit and the worker's
    expect([turns.indexOf(0), turns.indexOf(1)].sort()).toEqual([0, grid / 2]);
    machine.release(program);
    machine.free(at);
  });

  it.each(machines.map((m) => [m.threads, m] as const))('runs every unit once on %i threads', (_, machine) => {
    machine.ready();
    const units = 1001;
    const x = machine.alloc(units * 16);
    const y = machine.alloc(units * 16);
    machine.f32.set(
      Float32Array.from({ length: units * 4 }, (_, i) => i),
      x / 4,
    );
    const program = machine.prepare([
      { kernel: 'scale4', args: [x, y, f32Bits(0.5)], grid: units, chunk: 7 },
      { kernel: 'scale4', args: [y, y, f32Bits(3)], grid: units },
      { kernel: 'scale4', args: [y, y, f32Bits(2)], grid: units, chunk: units },
      { kernel: 'scale4', args: [y, y, f32Bits(100)], grid: 0 },
    ]);
    for (let round = 0; round < 200; round++) {
      machine.f32.fill(0, y / 4, y / 4 + units * 4);
      machine.run(program);
      const wrong = machine.f32.subarray(y / 4, y / 4 + units * 4).findIndex((v, i) => v !== 3 * i);
      expect(wrong).toBe(-1);
    }
    expect(machine.profile(program)).toHaveLength(4);
    for (const address of [x, y]) machine.free(address);
    machine.release(program);
  });

  it.each(machines.map((m) => [m.threads, m] as const))('lets all of %i threads work on a command', (_, machine) => {
    machine.ready();
    const count = machine.alloc(4);
    machine.i32[count / 4] = 0;
    const program = machine.prepare([
      { kernel: 'meet', args: [count, machine.threads], grid: machine.threads, chunk: 1 },
    ]);
    machine.run(program);
    expect(machine.i32[count / 4]).toBe(machine.threads);
    machine.release(program);
    machine.free(count);
  });

  it.each(machines.map((m) => [m.threads, m] as const))(
    'ends a command before the next on %i threads',
    (_, machine) => {
      machine.ready();
      const [met, done, seen] = [machine.alloc(4), machine.alloc(4), machine.alloc(4)];
      const program = machine.prepare([
        { kernel: 'linger', args: [met, machine.threads, done], grid: machine.threads, chunk: 1 },
        { kernel: 'copy', args: [done, seen], grid: 1 },
      ]);
      for (let round = 0; round < 10; round++) {
        for (const word of [met, done, seen]) machine.i32[word / 4] = 0;
        machine.run(program);
        expect(machine.i32[seen / 4]).toBe(machine.threads);
      }
      machine.release(program);
      for (const word of [met, done, seen]) machine.free(word);
    },
  );

  it.each(machines.map((m) => [m.threads, m] as const))('reports a trap on %i threads and goes on', (_, machine) => {
    const trap = machine.prepare([{ kernel: 'trapAt3', args: [], grid: 64, chunk: 1 }]);
    for (let round = 0; round < 20; round++)
      expect(() => machine.run(trap)).toThrow(/^wasm kernel trapAt3 failed: divide by zero$/);
    machine.release(trap);
  });

  it('names what is wrong', () => {
    const [machine] = machines;
    expect(() => machine!.prepare([{ kernel: 'nothing', args: [], grid: 1 }])).toThrow('no kernel named nothing');
    expect(() => machine!.addModule(scaleModule())).toThrow('a kernel named scale4 exists already');
    expect(() => machine!.alloc(2 ** 33)).toThrow('no room for 8192.0 MiB');
  });

  it('is back to the memory it had', () => {
    for (const machine of machines) expect(machine.stats().blocks).toBe(machine.threads);
  });
});

describe('allocator', () => {
  it('never overlaps, stays aligned, merges what is freed', () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 0, max: 5000 }), { minLength: 1, maxLength: 200 }), (steps) => {
        const heap = allocator(64, 1 << 20);
        const live: { at: number; bytes: number }[] = [];
        for (const [i, bytes] of steps.entries()) {
          if (i % 3 === 2) heap.free(live.splice(bytes % live.length, 1)[0]!.at);
          else {
            const at = heap.alloc(bytes);
            expect(at % 64).toBe(0);
            for (const other of live) expect(at + bytes <= other.at || other.at + other.bytes <= at).toBe(true);
            live.push({ at, bytes });
          }
        }
        for (const { at } of live) heap.free(at);
        expect(heap.stats().live).toBe(0);
        // One block again: the whole range fits.
        heap.free(heap.alloc((1 << 20) - 64));
      }),
      { numRuns: 100 },
    );
  });

  it('stays flat over repeated use and tells a wrong free', () => {
    let end = 4096;
    const heap = allocator(64, end, (bytes) => (end += bytes));
    const use = (): void => {
      const blocks = [100, 5000, 64, 20_000].map((bytes) => heap.alloc(bytes));
      for (const block of blocks) heap.free(block);
    };
    use();
    const grown = heap.stats().end;
    for (let i = 0; i < 1000; i++) use();
    expect(heap.stats()).toMatchObject({ live: 0, blocks: 0, end: grown });
    expect(() => heap.free(64)).toThrow('64 is not a live block');
  });
});

it('sets the flags of V8 that this Node needs and knows', () => {
  const mine = host();
  const flagsOf = (node: number, options = {}) => {
    const flags: string[] = [];
    setHost({ ...mine, node, setEngineFlag: (flag) => flags.push(flag) });
    createMachine({ threads: 1, ...options });
    return flags.filter((flag) => /vectorize|deopt|liftoff/.test(flag));
  };
  try {
    expect(flagsOf(20)).toEqual(['--no-liftoff']);
    expect(flagsOf(24)).toEqual(['--experimental-wasm-revectorize', '--no-liftoff']);
    // from here on V8 ends the process without the last one
    expect(flagsOf(25)).toEqual(['--experimental-wasm-revectorize', '--no-liftoff', '--no-wasm-deopt']);
    expect(flagsOf(26, { revectorize: false })[0]).toBe('--no-experimental-wasm-revectorize');
  } finally {
    setHost(mine);
  }
});

it('revectorizes only where V8 can, and says so elsewhere', () => {
  const start = () => createMachine({ threads: 1, revectorize: true });
  if (Number(process.versions.node.split('.')[0]) < 24) expect(start).toThrow('revectorize: needs Node 24 or later');
  else expect(start().threads).toBe(1);
});

/**
 * The WASM machine: one shared memory, the main thread and its workers, and programs of commands.
 *
 * A command is a kernel, its argument words and a number of independent units. Units are handed out in chunks, to a thread
 * from its own part of them while there are any, then to whichever is free; a kernel computes a unit from its number alone,
 * so the bits of a result do not depend on the number of threads. Commands of one program run one after the other.
 *
 * @example
 * const machine = createMachine({ threads: 2 });
 * machine.addModule(m.bytes());                          // exports kernel 'scale4'
 * const x = machine.alloc(4096), y = machine.alloc(4096);
 * const program = machine.prepare([{ kernel: 'scale4', args: [x, y, f32Bits(0.5)], grid: 256 }]);
 * machine.run(program);
 */
import { CoreError } from '../../../ir/errors.ts';
import { type HostWorker, host } from '../../../ir/host.ts';
import { hasSharedMemory, MAX_PAGES } from '../assembler/assemble.ts';
import type { Constants } from '../assembler/encode.ts';
import { hasRelaxedSimd } from '../assembler/features.ts';
import { type AllocatorStats, allocator } from './allocator.ts';
import { CONSTANT_BYTES, constantsAt } from './constants.ts';
import { CONTROL, CONTROL_END, driver, FAILURE_TEXT, MAX_PARTS, RECORD } from './driver.ts';
import { createOutside, FETCH, fetcher, type Outside } from './outside.ts';
import { type WorkerData, workerSource } from './worker.ts';

export interface Command {
  /** exported name of the kernel */
  readonly kernel: string;
  /** argument words, i32 (addresses up to 2³²); floats as {@link f32Bits} */
  readonly args: readonly number[];
  /** number of independent units; 0 does nothing */
  readonly grid: number;
  /** units taken at once; at least `grid` keeps the command on the main thread. Default: 1/8 of a thread's share */
  readonly chunk?: number;
  /** the words that are addresses relative to a base: [word, base] */
  readonly relocations?: readonly (readonly [number, number])[];
}

/** commands laid out in memory */
export interface Program {
  readonly address: number;
  readonly kernels: readonly string[];
  /** for each base: where its words lie (in words), and their distances from it (in bytes), by turns */
  readonly relocations: readonly (readonly number[])[];
}

export interface MachineOptions {
  /** 1 for no workers. Default: the cores this process may use */
  readonly threads?: number;
  /** scratch bytes of each thread; untouched pages cost nothing. Default 4 MiB */
  readonly scratchBytes?: number;
  /**
   * Lets V8 use 256-bit registers where the processor has them (from Node 24; an experiment of V8's, for the whole process):
   * contractions run some 1.9 times as fast, with the same bits. Tiles that allow it are found by measurement. Default: where
   * this Node can
   */
  readonly revectorize?: boolean;
}

export interface Machine {
  readonly threads: number;
  readonly scratchBytes: number;
  /** 64-byte aligned block. @throws Error beyond 4 GiB */
  alloc(bytes: number): number;
  free(address: number): void;
  /**
   * `bytes` at the end of the 4 GiB, always the same block: asked for again, it only becomes larger, so that a workspace
   * grows without leaving holes between the blocks of `alloc`. Untouched pages cost nothing. @throws Error beyond 4 GiB
   */
  top(bytes: number): number;
  stats(): AllocatorStats;
  resetPeak(): void;
  /** the memory kernels fetch stored weights from; made when first asked for */
  readonly outside: Outside;
  /** whether V8 joins neighbouring vectors to wider ones: code may be written for it, of the same bits */
  readonly joins: boolean;
  /** where kernels find constant vectors; undefined where their code had better make them */
  readonly constants: Constants | undefined;
  /** views of the whole memory; take them anew after an `alloc`, which may grow it */
  readonly f32: Float32Array;
  readonly i32: Int32Array;
  readonly u8: Uint8Array;
  /** Makes the exports of a module callable by name; later modules may import them. @throws Error on a taken name */
  addModule(bytes: Uint8Array<ArrayBuffer>): void;
  hasKernel(name: string): boolean;
  /** Writes commands into memory once; `bases` are the addresses theirs are relative to. @throws Error on an unknown kernel. O(commands) */
  prepare(commands: readonly Command[], bases?: readonly number[]): Program;
  /** Makes a base of a program lie elsewhere. O(its words) */
  move(program: Program, base: number, address: number): void;
  release(program: Program): void;
  /** Runs all commands. @throws Error naming the kernel when one traps on any thread */
  run(program: Program): void;
  /** Runs all commands one by one; milliseconds of each */
  profile(program: Program): Float64Array;
  /** waits until all workers are up; only tests and benches need it */
  ready(): void;
  /** ends the workers */
  close(): void;
}

/** the word that holds `x` as f32 */
export const f32Bits = (x: number): number => new Int32Array(Float32Array.of(x).buffer)[0]!;

const PAGE = 65536;
/** grow by at least this much, so that views stay valid for a while */
const GROWTH_PAGES = 256;
/** the last page stays unused: an end address of 2³² would wrap to 0 */
const HEAP_LIMIT_PAGES = MAX_PAGES - 1;
/** vector loads may read this far past a block: never past the memory */
const OVERRUN = 1024;
/** chunks per thread: enough to balance cores that others use too */
const CHUNKS_PER_THREAD = 8;

/** the first major version of Node whose V8 can join neighbouring 128-bit operations into 256-bit ones */
const REVECTORIZE_SINCE = 24;
/** the first whose V8 takes it for granted that every function ran slowly first, and ends the process where none did */
const DEOPT_SINCE = 25;

/** Sets V8 flags, before the first kernel is compiled; they hold for the whole process. @returns whether V8 joins vectors */
const setFlags = (revectorize: boolean | undefined): boolean => {
  const { node, setEngineFlag = () => undefined } = host();
  // older ones take the flag and do nothing
  const able = node !== undefined && node >= REVECTORIZE_SINCE;
  if (revectorize && !able)
    throw new CoreError(
      `revectorize: needs Node ${REVECTORIZE_SINCE} or later, this is ${node === undefined ? 'no Node' : `Node ${node}`}`,
    );
  if (able) setEngineFlag(`--${revectorize === false ? 'no-' : ''}experimental-wasm-revectorize`);
  // On by default from Node 22, which no longer knows the flag.
  if (!hasRelaxedSimd()) setEngineFlag('--experimental-wasm-relaxed-simd');
  // Compile well at the first call (3 ms) instead of after some slow ones (each 4 to 10 times as long).
  setEngineFlag('--no-liftoff');
  // what such functions lack, speculation on indirect calls looks for
  if (node !== undefined && node >= DEOPT_SINCE) setEngineFlag('--no-wasm-deopt');
  return able && revectorize !== false;
};

type DriverExports = {
  readonly runCommands: (first: number, count: number, scratch: number, parts: number) => number;
  readonly closeCommand: () => void;
};
type Kernel = (...args: number[]) => undefined;

/**
 * Starts a machine. Workers start in the background and join when they are up; they do not keep the process alive.
 *
 * @throws RangeError when the system refuses the address range of the memory; CoreError when this Node cannot revectorize
 */
export const createMachine = (options: MachineOptions = {}): Machine => {
  const joins = setFlags(options.revectorize);
  const { threads: cores, startWorker } = host();
  const threads = hasSharedMemory && startWorker ? Math.max(1, Math.floor(options.threads ?? cores)) : 1;
  const scratchBytes = options.scratchBytes ?? 4 * 2 ** 20;
  const memory = new WebAssembly.Memory({ initial: 1, maximum: MAX_PAGES, shared: hasSharedMemory });
  const table = new WebAssembly.Table({ element: 'anyfunc', initial: 0 });
  const env: Record<string, WebAssembly.ImportValue> = { memory, table };
  const driverModule = new WebAssembly.Module(driver());
  const { runCommands, closeCommand } = new WebAssembly.Instance(driverModule, { env })
    .exports as unknown as DriverExports;

  let views = { f32: new Float32Array(0), i32: new Int32Array(0), u8: new Uint8Array(0) };
  const refresh = (): typeof views => {
    const buffer = memory.buffer;
    if (views.u8.length !== buffer.byteLength)
      views = { f32: new Float32Array(buffer), i32: new Int32Array(buffer), u8: new Uint8Array(buffer) };
    return views;
  };
  /** pages of the heap, and of the block at the top */
  let [heapPages, topPages] = [1, 0];
  const growTo = (pages: number): void => {
    const missing = pages - memory.buffer.byteLength / PAGE;
    if (missing > 0) memory.grow(missing);
  };
  const heap = allocator(CONTROL_END + CONSTANT_BYTES, PAGE - OVERRUN, (bytes) => {
    const room = HEAP_LIMIT_PAGES - topPages - heapPages;
    const wanted = Math.min(Math.max(Math.ceil(bytes / PAGE), GROWTH_PAGES), room);
    if (wanted * PAGE < bytes) return undefined;
    heapPages += wanted;
    growTo(heapPages);
    return heapPages * PAGE - OVERRUN;
  });
  const top = (bytes: number): number => {
    const pages = Math.max(topPages, Math.ceil((bytes + OVERRUN) / PAGE));
    if (heapPages + pages > HEAP_LIMIT_PAGES) throw new Error('wasm memory: no room at the top');
    topPages = pages;
    growTo(HEAP_LIMIT_PAGES);
    return (HEAP_LIMIT_PAGES - pages) * PAGE;
  };
  const scratch = Array.from({ length: threads }, () => heap.alloc(scratchBytes));
  const parts = Math.min(threads, MAX_PARTS);
  const workers = scratch.slice(1).map((address, i): HostWorker => {
    const data: WorkerData = { memory, driver: driverModule, scratch: address, home: (i + 1) % parts, parts };
    return startWorker!(workerSource, data);
  });

  const constants = joins
    ? constantsAt(CONTROL_END, (address, bits) => {
        refresh().i32[address / 4] = bits;
      })
    : undefined;

  let outside: Outside | undefined;
  const openOutside = (): Outside => {
    if (!outside) {
      outside = createOutside();
      for (const worker of workers) worker.postMessage(outside.memory);
    }
    return outside;
  };
  env[FETCH] = fetcher(
    () => refresh().u8,
    () => openOutside().u8,
  );

  const kernels = new Map<string, number>();
  const fail = (kernel: string, message: string): never => {
    throw new Error(`wasm kernel ${kernel} failed: ${message}`);
  };
  const runRange = (program: Program, from: number, count: number): void => {
    const { i32 } = refresh();
    let failed = 0;
    try {
      failed = runCommands(program.address + from * RECORD.bytes, count, scratch[0]!, parts);
    } catch (error) {
      const record = Atomics.load(i32, CONTROL.current / 4) >>> 0;
      closeCommand();
      const at = (record - program.address) / RECORD.bytes;
      fail(program.kernels[at] ?? program.kernels.slice(from, from + count).join(', '), (error as Error).message);
    }
    if (failed === 0) return;
    Atomics.store(i32, CONTROL.failed / 4, 0);
    const text = views.u8.slice(FAILURE_TEXT.address + 4, FAILURE_TEXT.address + 4 + i32[FAILURE_TEXT.address / 4]!);
    fail(program.kernels[from + failed - 1]!, new TextDecoder().decode(text));
  };

  return {
    threads,
    scratchBytes,
    alloc: heap.alloc,
    free: heap.free,
    top,
    stats: heap.stats,
    resetPeak: heap.resetPeak,
    joins,
    constants,
    get outside() {
      return openOutside();
    },
    get f32() {
      return refresh().f32;
    },
    get i32() {
      return refresh().i32;
    },
    get u8() {
      return refresh().u8;
    },
    addModule: (bytes) => {
      const module = new WebAssembly.Module(bytes);
      const { exports } = new WebAssembly.Instance(module, { env });
      for (const name of Object.keys(exports))
        if (name in env) throw new Error(`wasm machine: a kernel named ${name} exists already`);
      for (const [name, fn] of Object.entries(exports)) {
        env[name] = fn as Kernel;
        kernels.set(name, table.grow(1, fn));
      }
      for (const worker of workers) worker.postMessage(module);
    },
    hasKernel: (name) => kernels.has(name),
    prepare: (commands, bases = []) => {
      const words = commands.reduce((sum, { args }) => sum + args.length, 0);
      const address = heap.alloc(commands.length * RECORD.bytes + words * 4);
      const { i32 } = refresh();
      const relocations = bases.map((): number[] => []);
      let args = address + commands.length * RECORD.bytes;
      for (let i = 0; i < commands.length; i++) {
        const command = commands[i]!;
        const fn = kernels.get(command.kernel);
        if (fn === undefined) {
          heap.free(address);
          throw new Error(`wasm machine: no kernel named ${command.kernel}`);
        }
        const chunk = command.chunk ?? Math.max(1, Math.floor(command.grid / (threads * CHUNKS_PER_THREAD)));
        i32.set([fn, args, command.grid, chunk, 0], (address + i * RECORD.bytes) / 4);
        i32.set(command.args, args / 4);
        const own = command.relocations ?? [];
        for (let r = 0; r < own.length; r++) {
          const [word, base] = own[r]!;
          const offset = command.args[word]!;
          relocations[base]!.push(args / 4 + word, offset);
          i32[args / 4 + word] = bases[base]! + offset;
        }
        args += command.args.length * 4;
      }
      return { address, kernels: commands.map(({ kernel }) => kernel), relocations };
    },
    move: ({ relocations }, base, address) => {
      const { i32 } = refresh();
      const words = relocations[base]!;
      for (let at = 0; at < words.length; at += 2) i32[words[at]!] = address + words[at + 1]!;
    },
    release: (program) => heap.free(program.address),
    run: (program) => runRange(program, 0, program.kernels.length),
    profile: (program) =>
      Float64Array.from(program.kernels, (_, i) => {
        const start = performance.now();
        runRange(program, i, 1);
        return performance.now() - start;
      }),
    ready: () => {
      const { i32 } = refresh();
      for (let up = 0; up < workers.length; up = Atomics.load(i32, CONTROL.ready / 4))
        Atomics.wait(i32, CONTROL.ready / 4, up, 100);
    },
    close: () => {
      const { i32 } = refresh();
      Atomics.store(i32, CONTROL.quit / 4, 1);
      Atomics.add(i32, CONTROL.open / 4, 1);
      Atomics.notify(i32, CONTROL.open / 4);
    },
  };
};

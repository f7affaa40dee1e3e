/**
 * The loop that walks commands, as WASM so that the main thread and the workers run the same code.
 *
 * The main thread opens a command (`CURRENT` = its record, `OPEN` + 1); every thread takes chunks of its units, those of
 * its own part first and then those that others left; the main thread closes it (`CURRENT` = 0) and waits until no worker is
 * inside (`ACTIVE` = 0). A part is the same share of the units in every command, so that a thread mostly reads what it wrote
 * itself: what another core has in its caches takes longer to come than a small kernel runs.
 *
 * A worker enters by adding to `ACTIVE` *before* it reads `CURRENT`, so after the close it finds either nothing or the
 * next command: a worker that sleeps, starts up or was preempted is never waited for.
 */
import { assembler, call, callIndirect, type Expr, i32, i64 } from '../assembler/assemble.ts';

/** Addresses of the control words; each on its own cache line. Address 0 stays unused. */
export const CONTROL = {
  open: 64,
  current: 128,
  active: 192,
  sleeping: 256,
  failed: 320,
  ready: 384,
  quit: 448,
} as const;
/** where a failing worker leaves its message (UTF-8, length first) */
export const FAILURE_TEXT = { address: 512, bytes: 508 } as const;
/** first address after the control block */
export const CONTROL_END = 1024;

/** Byte offsets inside a command record (64 bytes). */
export const RECORD = { fn: 0, args: 4, grid: 8, chunk: 12, next: 16, bytes: 64 } as const;
/** Counters in a record: as many parts the units of a command have at most. */
export const MAX_PARTS = 8;

/** Rounds a waiting thread looks before it sleeps: some 50 µs, more than most serial stretches inside a step. */
const SPINS = 20_000;
/** A main thread that waits for a preempted worker sleeps in steps of this many ns. */
const NAP_NS = 50_000;

/** what `workerLoop` returns */
export const WORKER_QUITS = 1;

/**
 * Bytes of the driver:
 * - `runCommands(first, count, scratch, parts)`: 0, or 1 + the index of the command in which a worker failed; one part means
 *   that there are no workers;
 * - `workerLoop(seen, kernels, scratch, home, parts)`: serves commands, from part `home` on; returns {@link WORKER_QUITS}, or 0
 *   when a command needs a kernel beyond the `kernels` this thread knows;
 * - `closeCommand()`: after a trap on the main thread.
 */
export const driver = (): Uint8Array<ArrayBuffer> => {
  const m = assembler();
  const kernel = m.importTable(['i32', 'i32', 'i32', 'i32'], 'void');
  const atomicLoad = (address: number): Expr<'i32'> => i32.atomic.load(0, address);

  const takeChunks = m.func('', ['i32', 'i32', 'i32', 'i32'], 'void', (f, record, scratch, home, parts) => {
    const grid = f.let(i32.load(record, RECORD.grid));
    const chunk = f.let(i32.load(record, RECORD.chunk));
    const args = f.let(i32.load(record, RECORD.args));
    const fn = f.let(i32.load(record, RECORD.fn));
    const round = f.let(i32.mul(parts, chunk));
    // units of a part: whole chunks, so that chunks lie where they would without parts
    const share = f.let(i32.mul(i32.div_u(i32.add(grid, i32.sub(round, 1)), round), chunk));
    const [part, i, next, first, limit, start, end] = f.locals('i32');
    const take = (): void => f.set(start, i32.add(first, i32.atomic.add(next, chunk)));
    f.set(part, home);
    f.for(i, 0, parts, 1, () => {
      f.set(next, i32.add(record, i32.add(i32.mul(part, 4), RECORD.next)));
      f.set(first, i32.mul(part, share));
      f.set(limit, i32.add(first, share));
      f.if(i32.gt_u(limit, grid), () => f.set(limit, grid));
      take();
      f.while(i32.lt_u(start, limit), () => {
        f.set(end, i32.add(start, chunk));
        f.if(i32.gt_u(end, limit), () => f.set(end, limit));
        f.emit(callIndirect(kernel, fn, [args, start, end, scratch]));
        take();
      });
      f.inc(part, 1);
      f.if(i32.ge_u(part, parts), () => f.set(part, 0));
    });
  });

  const close = m.func('closeCommand', [], 'void', (f) => {
    const [active, spins] = f.locals('i32');
    f.emit(i32.atomic.store(0, 0, CONTROL.current));
    f.set(active, atomicLoad(CONTROL.active));
    f.while(active, () => {
      f.inc(spins, 1);
      f.if(i32.gt_u(spins, SPINS), () => f.drop(i32.atomic.wait(0, active, NAP_NS, CONTROL.active)));
      f.set(active, atomicLoad(CONTROL.active));
    });
  });

  m.func('runCommands', ['i32', 'i32', 'i32', 'i32'], 'i32', (f, first, count, scratch, parts) => {
    const record = f.let(first);
    const [i, grid, part] = f.locals('i32');
    f.for(i, 0, count, 1, () => {
      f.set(grid, i32.load(record, RECORD.grid));
      f.if(
        i32.or(i32.eq(parts, 1), i32.le_u(grid, i32.load(record, RECORD.chunk))),
        () =>
          f.if(grid, () => {
            const args = i32.load(record, RECORD.args);
            f.emit(callIndirect(kernel, i32.load(record, RECORD.fn), [args, i32.const(0), grid, scratch]));
          }),
        () => {
          f.for(part, 0, parts, 1, () => f.emit(i32.store(i32.add(record, i32.mul(part, 4)), 0, RECORD.next)));
          f.emit(i32.atomic.store(0, record, CONTROL.current));
          f.drop(i32.atomic.add(0, 1, CONTROL.open));
          f.if(atomicLoad(CONTROL.sleeping), () => f.drop(i32.atomic.notify(0, -1, CONTROL.open)));
          f.emit(call(takeChunks, [record, scratch, i32.const(0), parts]), call(close, []));
          f.if(atomicLoad(CONTROL.failed), () => f.return(i32.add(i, 1)));
        },
      );
      f.inc(record, RECORD.bytes);
    });
    f.return(i32.const(0));
  });

  m.func('workerLoop', ['i32', 'i32', 'i32', 'i32', 'i32'], 'i32', (f, seen, kernels, scratch, home, parts) => {
    const [spins, record, unknown] = f.locals('i32');
    f.while(i32.const(1), () => {
      f.set(spins, 0);
      f.while(i32.eq(atomicLoad(CONTROL.open), seen), () => {
        f.inc(spins, 1);
        f.if(i32.gt_u(spins, SPINS), () => {
          f.drop(i32.atomic.add(0, 1, CONTROL.sleeping));
          f.drop(i32.atomic.wait(0, seen, i64.const(-1n), CONTROL.open));
          f.drop(i32.atomic.sub(0, 1, CONTROL.sleeping));
        });
      });
      f.if(atomicLoad(CONTROL.quit), () => f.return(i32.const(WORKER_QUITS)));
      f.set(seen, atomicLoad(CONTROL.open));
      f.drop(i32.atomic.add(0, 1, CONTROL.active));
      f.set(record, atomicLoad(CONTROL.current));
      f.if(record, () => {
        f.set(unknown, i32.ge_u(i32.load(record, RECORD.fn), kernels));
        f.if(i32.eqz(unknown), () => f.emit(call(takeChunks, [record, scratch, home, parts])));
      });
      f.drop(i32.atomic.sub(0, 1, CONTROL.active));
      f.if(unknown, () => f.return(i32.const(0)));
    });
    f.return(i32.const(WORKER_QUITS));
  });
  return m.bytes();
};

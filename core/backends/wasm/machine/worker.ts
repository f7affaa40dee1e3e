/** Plain-JS source of a worker thread, in Node and in a browser page: evaluated as it is, so that it needs no TypeScript loader. */
import { CONTROL, CONTROL_END, FAILURE_TEXT, WORKER_QUITS } from './driver.ts';

/** what a worker is started with */
export interface WorkerData {
  readonly memory: WebAssembly.Memory;
  readonly driver: WebAssembly.Module;
  readonly scratch: number;
  /** the part of a command's units it begins with, and how many there are */
  readonly home: number;
  readonly parts: number;
}

/**
 * Modules with kernels arrive as messages, and the memory outside (outside.ts) when there is one: `received()` is the next
 * one or nothing. They are read when a command names a kernel that is not known yet or a kernel fetches: the main thread
 * posts what a command needs before it opens it. A page has messages only between two turns of its event loop, so that a
 * thread without the kernel it needs waits for `arrived()`; the memory outside came before the kernels that fetch from it. A
 * memory that grew on the main thread may look small for a moment: views are taken again.
 */
export const workerSource = `
(async ({ data, received, arrived, quit }) => {
const { memory, driver, scratch, home, parts } = data;
const table = new WebAssembly.Table({ element: 'anyfunc', initial: 0 });
let outside, from8 = new Uint8Array(0), to8 = new Uint8Array(memory.buffer);
const fetch = (from, to, bytes) => {
  from >>>= 0;
  to >>>= 0;
  bytes >>>= 0;
  if (!outside) learn();
  while (from8.length < from + bytes) from8 = new Uint8Array(outside.buffer);
  while (to8.length < to + bytes) to8 = new Uint8Array(memory.buffer);
  to8.set(from8.subarray(from, from + bytes), to);
};
const env = { memory, table, fetch };
const words = new Int32Array(memory.buffer, 0, ${CONTROL_END / 4});
const { workerLoop } = new WebAssembly.Instance(driver, { env }).exports;
const fail = (error) => {
  const text = new TextEncoder().encode(String(error && error.message || error)).subarray(0, ${FAILURE_TEXT.bytes - 4});
  new Uint8Array(memory.buffer, ${FAILURE_TEXT.address} + 4, text.length).set(text);
  words[${FAILURE_TEXT.address / 4}] = text.length;
  Atomics.store(words, ${CONTROL.failed / 4}, 1);
  Atomics.sub(words, ${CONTROL.active / 4}, 1);
};
const learn = () => {
  for (let message; (message = received()); ) {
    if (message instanceof WebAssembly.Memory) {
      outside = message;
      continue;
    }
    const { exports } = new WebAssembly.Instance(message, { env });
    for (const [name, fn] of Object.entries(exports)) {
      env[name] = fn;
      table.grow(1, fn);
    }
  }
};
// A worker that starts late joins at the next command: it takes the counter as seen before it is counted as ready.
let seen = Atomics.load(words, ${CONTROL.open / 4});
Atomics.add(words, ${CONTROL.ready / 4}, 1);
Atomics.notify(words, ${CONTROL.ready / 4});
for (;;) {
  learn();
  try {
    if (workerLoop(seen, table.length, scratch, home, parts) === ${WORKER_QUITS}) break;
    // Back for a new kernel: the open command may be joined again.
    await arrived();
    seen = Atomics.load(words, ${CONTROL.open / 4}) - 1;
  } catch (error) {
    fail(error);
    seen = Atomics.load(words, ${CONTROL.open / 4});
  }
}
quit();
})(thread);
`;

/**
 * What the core asks of the machine it runs on: the one module that knows Node. Node's own modules are asked for when they
 * are needed and not imported, so that everything else, and this file, run in a browser page as they are. `setHost` puts
 * another in its place.
 */
import type { WorkerOptions } from 'node:worker_threads';

/** A thread that was started with a source text; it ends by itself. */
export interface HostWorker {
  /** sends it a message */
  postMessage(message: unknown): void;
}
/** What the core asks of the machine it runs on. Parts a machine lacks are left out. */
export interface Host {
  /** the folder that paths in messages are told from */
  readonly folder: string;
  /** the cores programs may use */
  readonly threads: number;
  /** the first number of Node's version */
  readonly node?: number;
  /**
   * a thread that evaluates `source`, in which `thread` is what it was started with (`data`), the next message that came
   * (`received()`), the promise of one (`arrived()`) and its end (`quit()`); left out where memory cannot be shared
   */
  readonly startWorker?: (source: string, data: unknown) => HostWorker;
  /** sets a flag of V8, for the whole process */
  readonly setEngineFlag?: (flag: string) => void;
  /** the entry to WebGPU. @throws Error with the reason when it does not load */
  readonly gpu?: () => Promise<GPU>;
}

type Builtin = (name: string) => unknown;
/** options of Dawn: timestamps come as the device counts them, not in 100 µs steps */
const DAWN = ['disable-dawn-features=timestamp_quantization'];

/** Dawn prints a warning and a stack of its own where Linux has no Vulkan loader; then it is not asked at all. */
function hasVulkan(): boolean {
  if (process.platform !== 'linux') return true;
  try {
    process.dlopen({ exports: {} }, 'libvulkan.so.1');
  } catch (error) {
    // a library that loads is refused for not being an addon
    return /did not self-register/.test((error as Error).message);
  }
  return true;
}

/** where Linux shows a GPU to programs; without any of them there can only be a driver in software */
const DEVICES = ['/dev/dri', '/dev/nvidiactl', '/dev/dxg', '/dev/kfd', '/dev/kgsl-3d0', '/dev/mali0'];
const PROBE = `
  const { create } = await import(process.argv[1]);
  globalThis.held = create([]);
  process.exit((await globalThis.held.requestAdapter()) ? 0 : 1);`;

/**
 * Dawn prints warnings and a stack of its own where Vulkan has a loader and no driver: on a Linux that shows no GPU, and
 * whose driver nobody has named, another process asks first, whose words go nowhere. Cost there: its start, .2 s.
 */
function hasDriver(builtin: Builtin): boolean {
  if (process.platform !== 'linux') return true;
  const { existsSync } = builtin('node:fs') as typeof import('node:fs');
  const { VK_DRIVER_FILES, VK_ICD_FILENAMES } = process.env;
  const named = `${VK_DRIVER_FILES ?? ''}:${VK_ICD_FILENAMES ?? ''}`.split(':');
  if ([...DEVICES, ...named].some((file) => file !== '' && existsSync(file))) return true;
  const { spawnSync } = builtin('node:child_process') as typeof import('node:child_process');
  const asked = spawnSync(process.execPath, ['--input-type=module', '-e', PROBE, import.meta.resolve('webgpu')], {
    stdio: 'ignore',
    timeout: 60_000,
  });
  return asked.status === 0;
}
async function dawn(builtin: Builtin): Promise<GPU> {
  if (!hasVulkan() || !hasDriver(builtin)) throw new Error('no Vulkan driver');
  // by a name that bundlers for pages do not follow
  const name = 'webgpu';
  const { create, globals } = (await import(name).catch((error: Error) => {
    throw new Error(`it does not load on ${process.platform}-${process.arch}: ${error.message.split('\n', 1)[0]}`);
  })) as typeof import('webgpu');
  Object.assign(globalThis, globals);
  return create([...DAWN]);
}

/** what a thread finds in Node: messages are there at once */
const NODE_THREAD = `'use strict';
const { parentPort, receiveMessageOnPort, workerData } = require('node:worker_threads');
const thread = {
  data: workerData,
  received: () => receiveMessageOnPort(parentPort)?.message,
  arrived: () => undefined,
  quit: () => process.exit(0),
};
`;
/** and in a page: messages come by the event loop, the first of them is the data */
const PAGE_THREAD = (source: string): string => `'use strict';
const messages = [];
let wake = () => undefined;
onmessage = ({ data }) => {
  onmessage = ({ data }) => {
    messages.push(data);
    wake();
  };
  const thread = {
    data,
    received: () => messages.shift(),
    arrived: () => messages.length > 0 || new Promise((resolve) => (wake = resolve)),
    quit: () => close(),
  };
  ${source}
};
`;

function nodeHost(builtin: Builtin): Host {
  const os = () => builtin('node:os') as typeof import('node:os');
  const threads = () => builtin('node:worker_threads') as typeof import('node:worker_threads');
  return {
    get folder() {
      return process.cwd();
    },
    get threads() {
      return os().availableParallelism();
    },
    node: Number.parseInt(process.versions.node, 10),
    startWorker(source, data) {
      // No inherited loader flags: the source is plain JS and should start at once.
      const options: WorkerOptions = { eval: true, workerData: data, execArgv: [] };
      const worker = new (threads().Worker)(NODE_THREAD + source, options);
      worker.unref();
      return worker;
    },
    setEngineFlag: (flag) => (builtin('node:v8') as typeof import('node:v8')).setFlagsFromString(flag),
    gpu: () => dawn(builtin),
  };
}

/** What a browser has, as far as it is asked for here. */
interface Page {
  readonly navigator?: { readonly gpu?: GPU; readonly hardwareConcurrency?: number };
  /** true where memory may be shared between threads */
  readonly crossOriginIsolated?: boolean;
  /** there in workers only: a page itself may not wait for threads */
  readonly WorkerGlobalScope?: unknown;
  readonly Worker?: new (address: string) => HostWorker;
  readonly Blob: new (parts: readonly string[], options: { readonly type: string }) => object;
  readonly URL: { createObjectURL(blob: object): string; revokeObjectURL(address: string): void };
}

/** A page's own thread may not wait for others, so that programs have one thread there, and all in a worker. */
function pageHost(page: Page): Host {
  const { navigator, Worker } = page;
  const shares = page.crossOriginIsolated === true && page.WorkerGlobalScope !== undefined && Worker !== undefined;
  const gpu = navigator?.gpu;
  return {
    folder: '',
    threads: shares ? (navigator?.hardwareConcurrency ?? 1) : 1,
    ...(gpu ? { gpu: async () => gpu } : {}),
    ...(shares
      ? {
          startWorker(source: string, data: unknown) {
            const address = page.URL.createObjectURL(new page.Blob([PAGE_THREAD(source)], { type: 'text/javascript' }));
            const worker = new Worker!(address);
            page.URL.revokeObjectURL(address);
            worker.postMessage(data);
            return worker;
          },
        }
      : {}),
  };
}

let current: Host | undefined;
/** The machine the core runs on. @throws Error on a Node that is too old to tell */
export function host(): Host {
  if (current) return current;
  const node = (globalThis as { process?: NodeJS.Process }).process;
  const isNode = typeof node?.versions?.node === 'string';
  if (isNode && !node.getBuiltinModule)
    throw new Error(`Node ${node.versions.node} is too old: 20.16 or later is needed`);
  current = isNode ? nodeHost((name) => node.getBuiltinModule(name)) : pageHost(globalThis as unknown as Page);
  return current;
}
/** Puts another machine in the place of the one found: before the first backend is opened. */
export function setHost(other: Host): void {
  current = other;
}

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
  /** a thread that evaluates `source`, with `workerData`; left out where threads cannot wait for messages */
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
async function dawn(): Promise<GPU> {
  if (!hasVulkan()) throw new Error('no Vulkan loader');
  // by a name that bundlers for pages do not follow
  const name = 'webgpu';
  const { create, globals } = (await import(name).catch((error: Error) => {
    throw new Error(`it does not load on ${process.platform}-${process.arch}: ${error.message.split('\n', 1)[0]}`);
  })) as typeof import('webgpu');
  Object.assign(globalThis, globals);
  return create([...DAWN]);
}

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
      const worker = new (threads().Worker)(source, options);
      worker.unref();
      return worker;
    },
    setEngineFlag: (flag) => (builtin('node:v8') as typeof import('node:v8')).setFlagsFromString(flag),
    gpu: dawn,
  };
}

/** A page has no threads that wait for messages, so that programs run on its own one. */
const pageHost = (): Host => {
  const gpu = (globalThis as { navigator?: { gpu?: GPU } }).navigator?.gpu;
  return { folder: '', threads: 1, ...(gpu ? { gpu: async () => gpu } : {}) };
};

let current: Host | undefined;
/** The machine the core runs on. @throws Error on a Node that is too old to tell */
export function host(): Host {
  if (current) return current;
  const node = (globalThis as { process?: NodeJS.Process }).process;
  const isNode = typeof node?.versions?.node === 'string';
  if (isNode && !node.getBuiltinModule)
    throw new Error(`Node ${node.versions.node} is too old: 20.16 or later is needed`);
  current = isNode ? nodeHost((name) => node.getBuiltinModule(name)) : pageHost();
  return current;
}
/** Puts another machine in the place of the one found: before the first backend is opened. */
export function setHost(other: Host): void {
  current = other;
}

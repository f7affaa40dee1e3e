/**
 * A WebGPU device that fails where a test wants it to: Dawn's own, with each call counted and one of them spoilt in one of
 * the ways a driver, a full memory or an unplugged card spoils it.
 */
import { gpuEntry } from '../../core/backends/webgpu/device.ts';

/** Calls that are counted; each fault strikes at the nth of one kind. */
export type DeviceCall =
  | 'createBuffer'
  | 'createShaderModule'
  | 'createComputePipeline'
  | 'createBindGroup'
  | 'submit'
  | 'writeBuffer'
  | 'mapAsync';

type Strike = (target: Target, call: () => unknown) => unknown;
interface Target {
  readonly device: GPUDevice;
  /** tells the program of an error that no scope caught */
  readonly report: (message: string) => void;
  /** resolves `device.lost` */
  readonly lose: (reason: string, message: string) => void;
}
export interface DeviceFault {
  readonly name: string;
  readonly at: DeviceCall | 'any';
  readonly strike: Strike;
}

const invalidBuffer = ({ device }: Target): GPUBuffer =>
  device.createBuffer({ size: device.limits.maxBufferSize + 4, usage: GPUBufferUsage.STORAGE });
/** The same without Dawn's message about it. */
const quietly = <T>(target: Target, make: () => T): T => {
  target.device.pushErrorScope('validation');
  const made = make();
  target.device.popErrorScope().catch(() => undefined);
  return made;
};

export const DEVICE_FAULTS: readonly DeviceFault[] = [
  {
    name: 'the device is destroyed before a call',
    at: 'any',
    strike: ({ device }, call) => {
      device.destroy();
      return call();
    },
  },
  {
    name: 'the device is lost for a reason unknown',
    at: 'any',
    strike: ({ device, lose }, call) => {
      lose('unknown', 'the driver was reset');
      device.destroy();
      return call();
    },
  },
  {
    name: 'the device is destroyed while a readback waits',
    at: 'mapAsync',
    strike: ({ device }, call) => {
      const waiting = call();
      device.destroy();
      return waiting;
    },
  },
  { name: 'a buffer is refused', at: 'createBuffer', strike: (target) => invalidBuffer(target) },
  {
    name: 'memory runs out',
    at: 'createBuffer',
    strike: (target) => {
      setImmediate(() => target.report('out of memory'));
      return quietly(target, () => invalidBuffer(target));
    },
  },
  {
    name: 'a buffer cannot be mapped at its creation',
    at: 'createBuffer',
    strike: () => {
      throw new RangeError('createBuffer failed: out of memory');
    },
  },
  {
    name: 'a shader does not compile',
    at: 'createShaderModule',
    strike: ({ device }) => device.createShaderModule({ code: '@compute fn main() { no such thing }' }),
  },
  {
    name: 'a pipeline is refused',
    at: 'createComputePipeline',
    strike: ({ device }) => {
      const module = device.createShaderModule({ code: '@compute @workgroup_size(1) fn main() {}' });
      return device.createComputePipeline({ layout: 'auto', compute: { module, entryPoint: 'other' } });
    },
  },
  {
    name: 'a bind group is refused',
    at: 'createBindGroup',
    strike: (target) => {
      const layout = target.device.createBindGroupLayout({
        entries: [{ binding: 0, visibility: GPUShaderStage.COMPUTE, buffer: { type: 'uniform' } }],
      });
      return target.device.createBindGroup({
        layout,
        entries: [{ binding: 0, resource: { buffer: quietly(target, () => invalidBuffer(target)) } }],
      });
    },
  },
  {
    name: 'work is refused',
    at: 'submit',
    strike: (target) => {
      const encoder = target.device.createCommandEncoder();
      const bad = quietly(target, () => invalidBuffer(target));
      encoder.copyBufferToBuffer(bad, 0, bad, 0, 4);
      target.device.queue.submit([encoder.finish()]);
    },
  },
  {
    name: 'a readback is refused',
    at: 'mapAsync',
    strike: () => Promise.reject(new DOMException('mapping was refused', 'OperationError')),
  },
  {
    name: 'values do not arrive',
    at: 'writeBuffer',
    strike: (target) => {
      const small = target.device.createBuffer({ size: 4, usage: GPUBufferUsage.COPY_DST });
      target.device.queue.writeBuffer(small, 256, new Uint8Array(4));
    },
  },
];

/** What is to fail now, and what was counted since `arm`. */
const state = { fault: undefined as DeviceFault | undefined, n: 0, deaf: false, struck: false };
const counts = new Map<DeviceCall | 'any', number>();

/**
 * From now on the nth call of the fault's kind is spoilt, once.
 * @param deaf the program does not hear of errors: a fault of the program, for the tests of the tests
 */
export function arm(fault?: DeviceFault, n = 0, deaf = false): void {
  Object.assign(state, { fault, n, deaf, struck: false });
  counts.clear();
}
/** Calls of a kind since `arm`. */
export const callsOf = (kind: DeviceCall | 'any'): number => counts.get(kind) ?? 0;
/** Whether the fault was met. */
export const struck = (): boolean => state.struck;

function spoilDevice(device: GPUDevice): GPUDevice {
  const listeners: ((event: {
    readonly error: { readonly message: string };
    readonly preventDefault: () => void;
  }) => void)[] = [];
  let lose: (info: { readonly reason: string; readonly message: string }) => void = () => undefined;
  const lost = Promise.race([device.lost, new Promise((resolve) => (lose = resolve as typeof lose))]);
  const target: Target = {
    device: Object.create(device) as GPUDevice,
    report: (message) => {
      for (const listener of listeners) listener({ error: { message }, preventDefault: () => undefined });
    },
    lose: (reason, message) => lose({ reason, message }),
  };
  let striking = false;
  const counted = (kind: DeviceCall, call: () => unknown): unknown => {
    // what a strike does itself is not counted
    if (striking) return call();
    for (const name of [kind, 'any'] as const) counts.set(name, callsOf(name) + 1);
    const { fault, n } = state;
    if (fault === undefined || state.struck || callsOf(fault.at) !== n || (fault.at !== 'any' && fault.at !== kind))
      return call();
    state.struck = true;
    striking = true;
    try {
      return fault.strike({ ...target, device }, call);
    } finally {
      striking = false;
    }
  };
  const { queue } = device;
  const wrap = (on: object, kind: DeviceCall, after: (made: never) => unknown = (made) => made): void => {
    const real = Reflect.get(on, kind) as (...args: unknown[]) => unknown;
    const value = (...args: unknown[]) => after(counted(kind, () => real.apply(on, args)) as never);
    Object.defineProperty(on, kind, { value, configurable: true });
  };
  wrap(device, 'createBuffer', (buffer: GPUBuffer) => {
    if (!striking && !Object.hasOwn(buffer, 'mapAsync')) wrap(buffer, 'mapAsync');
    return buffer;
  });
  for (const kind of ['createShaderModule', 'createComputePipeline', 'createBindGroup'] as const) wrap(device, kind);
  for (const kind of ['submit', 'writeBuffer'] as const) wrap(queue, kind);
  const listen = device.addEventListener.bind(device);
  Object.defineProperty(device, 'addEventListener', {
    value: (type: string, listener: (typeof listeners)[number]) => {
      if (state.deaf) return;
      if (type === 'uncapturederror') listeners.push(listener);
      listen(type as 'uncapturederror', listener as never);
    },
  });
  Object.defineProperty(device, 'queue', { value: queue });
  Object.defineProperty(device, 'lost', { value: lost });
  return device;
}

/** Makes every device that is opened from now on one that can be spoilt. Call once. */
export async function spoilDevices(): Promise<void> {
  const entry = await gpuEntry();
  const requestAdapter = entry.requestAdapter.bind(entry);
  Object.defineProperty(entry, 'requestAdapter', {
    value: async (options?: GPURequestAdapterOptions) => {
      const adapter = await requestAdapter(options);
      if (adapter === null) return null;
      const requestDevice = adapter.requestDevice.bind(adapter);
      Object.defineProperty(adapter, 'requestDevice', {
        value: async (descriptor?: GPUDeviceDescriptor) => spoilDevice(await requestDevice(descriptor)),
      });
      return adapter;
    },
  });
}

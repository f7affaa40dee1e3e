/**
 * The one WebGPU device of a process. Dawn faults when its entry object is garbage-collected while in use, so that
 * object stays in a module variable for the process's whole life; the device itself is opened once and closed by hand.
 */
import { CoreError, LostDeviceError } from '../../ir/errors.ts';
import { host } from '../../ir/host.ts';
import type { BindingLimits, Target } from './target.ts';

/** No WebGPU adapter on this machine. */
export class NoAdapterError extends CoreError {
  override name = 'NoAdapterError';
}
/** Dawn refused a call of ours: a fault of the program or a limit of the device that was not checked before. */
export class DeviceError extends CoreError {
  override name = 'DeviceError';
}

export interface Gpu extends Target {
  readonly device: GPUDevice;
  readonly adapter: string;
  readonly timestamps: boolean;
  readonly limits: GPUSupportedLimits;
  readonly bindings: BindingLimits;
  /** throws LostDeviceError or DeviceError when something went wrong since the last call */
  check(): void;
}

/** What Dawn throws where it refuses a call at once; TypeErrors and errors of our own are passed on as they are. */
const REFUSALS = new Set(['OperationError', 'AbortError', 'InvalidStateError', 'RangeError']);

/**
 * An error that was caught at work on the device, as one of ours.
 * @throws LostDeviceError or DeviceError where the device has told of the cause already
 */
export const toldError = (error: unknown, gpu: Gpu): unknown => {
  if (!(error instanceof Error) || !REFUSALS.has(error.name)) return error;
  gpu.check();
  const [why] = error.message.split('\n', 1);
  return new DeviceError(`WebGPU (${gpu.adapter}): a call was refused${why ? `: ${why}` : ''}`, { cause: error });
};

/** Limits we take as large as the adapter offers; the defaults (128 MiB, 8 buffers) are below what models need. */
const wanted = [
  'maxBufferSize',
  'maxStorageBufferBindingSize',
  'maxStorageBuffersPerShaderStage',
  'maxComputeInvocationsPerWorkgroup',
  'maxComputeWorkgroupSizeX',
  'maxComputeWorkgroupSizeY',
  'maxComputeWorkgroupStorageSize',
] as const;

const softwareNames = /swiftshader|llvmpipe|lavapipe|softpipe|warp|basic render/i;

let entry: GPU | undefined;
let opened: Promise<Gpu> | undefined;

const noAdapter = (): NoAdapterError =>
  new NoAdapterError(
    "no WebGPU adapter: install a Vulkan driver (Debian/Ubuntu: libvulkan1 with mesa-vulkan-drivers >= 25, or your GPU vendor's) or borrow the tests' software one: npx tsx test/run.ts -- COMMAND",
  );

/** The entry point of WebGPU, loaded and created once. */
export const gpuEntry = async (): Promise<GPU> => {
  if (!entry) {
    const { gpu } = host();
    if (!gpu) throw noAdapter();
    const made = await gpu().catch((error: Error) => {
      throw error.message.startsWith('no Vulkan') ? noAdapter() : new NoAdapterError(`WebGPU: ${error.message}`);
    });
    entry ??= made;
  }
  return entry;
};
const isSoftware = ({ info }: GPUAdapter): boolean =>
  info.isFallbackAdapter || softwareNames.test(`${info.description} ${info.architecture}`);

/** Is there a real GPU? (`--backend auto` prefers it; software adapters are slower than wasm.) */
export const hasHardwareAdapter = async (): Promise<boolean> => {
  try {
    const adapter = await (await gpuEntry()).requestAdapter({ powerPreference: 'high-performance' });
    return adapter !== null && !isSoftware(adapter);
  } catch (error) {
    if (error instanceof NoAdapterError) return false;
    throw error;
  }
};

const open = async (): Promise<Gpu> => {
  const adapter = await (await gpuEntry()).requestAdapter({ powerPreference: 'high-performance' });
  if (!adapter) throw noAdapter();
  const { vendor, architecture, description, subgroupMinSize, subgroupMaxSize } = adapter.info;
  const features = (['timestamp-query', 'subgroups'] as const).filter((f) => adapter.features.has(f));
  const [timestamps, subgroups] = [features.includes('timestamp-query'), features.includes('subgroups')];
  const device = await adapter.requestDevice({
    requiredLimits: Object.fromEntries(wanted.map((name) => [name, adapter.limits[name]])),
    requiredFeatures: features,
  });
  // browsers leave the description out
  const name = description || [vendor, architecture].filter(Boolean).join(' ') || 'unnamed adapter';
  let failure: CoreError | undefined;
  device.lost.then(
    (info) => {
      failure = new LostDeviceError(`the WebGPU device was lost (${info.reason}): ${info.message || name}`);
      opened = undefined; // the next openDevice() asks for a new one
    },
    () => undefined,
  );
  device.addEventListener('uncapturederror', (event) => {
    // or Dawn prints it too, on standard output
    event.preventDefault();
    failure ??= new DeviceError(`WebGPU (${name}): ${event.error.message.split('\n', 1)[0]}`);
  });
  return {
    device,
    adapter: name,
    class: isSoftware(adapter) ? 'cpu' : 'gpu',
    subgroup: subgroups && subgroupMinSize === subgroupMaxSize ? (subgroupMinSize ?? 0) : 0,
    timestamps,
    limits: device.limits,
    bindings: {
      bytes: device.limits.maxStorageBufferBindingSize - (device.limits.maxStorageBufferBindingSize % 256),
      count: device.limits.maxStorageBuffersPerShaderStage,
    },
    check() {
      if (!failure) return;
      const error = failure;
      if (!(error instanceof LostDeviceError)) failure = undefined;
      throw error;
    },
  };
};

/**
 * Opens the device, or returns the one already open.
 * @throws NoAdapterError with what to install
 */
export const openDevice = (): Promise<Gpu> => {
  opened ??= open().catch((error: unknown) => {
    opened = undefined;
    throw error;
  });
  return opened;
};

/** Destroys the device so that the process can end. Programs and buffers made on it are dead afterwards. */
export const closeDevice = async (): Promise<void> => {
  const closing = opened;
  opened = undefined;
  if (!closing) return;
  const { device } = await closing;
  device.destroy();
  await device.lost;
};

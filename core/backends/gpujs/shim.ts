/**
 * gpu.js finds WebGPU on `navigator.gpu`, which Node lacks: this puts Dawn there while a gpu.js backend is open, with an
 * adapter that hands out our own device, so that the process has only one.
 */
import { openDevice } from '../webgpu/device.ts';

/** Installs the shim; the returned function takes it away again. @throws NoAdapterError */
export const shareDevice = async (): Promise<() => void> => {
  const { device, limits } = await openDevice();
  const adapter = { limits, features: device.features, requestDevice: async () => device };
  const before = Object.getOwnPropertyDescriptor(globalThis, 'navigator');
  Object.defineProperty(globalThis, 'navigator', {
    configurable: true,
    value: { gpu: { requestAdapter: async () => adapter, getPreferredCanvasFormat: () => 'bgra8unorm' } },
  });
  return () => {
    if (before) Object.defineProperty(globalThis, 'navigator', before);
    else Reflect.deleteProperty(globalThis, 'navigator');
  };
};

/** Whole processes that use WebGPU: they end by themselves with code 0, and say in one line when there is no adapter. */
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { compiledAll } from '../../support/compiled.ts';

const root = join(import.meta.dirname, '../../..');
const [core, webgpu, device, bench] = await compiledAll(
  ['core/index.ts', 'core/backends/webgpu/index.ts', 'core/backends/webgpu/device.ts', 'train/bench.ts'].map((file) =>
    join(root, file),
  ),
);
const run = (source: string, env: Record<string, string> = {}) =>
  start(['--expose-gc', '--input-type=module', '-e', source], env);
const start = (args: readonly string[], env: Record<string, string> = {}) =>
  new Promise<{ code: number | null; signal: string | null; out: string; err: string }>((resolve) => {
    const child = spawn(process.execPath, args, {
      cwd: root,
      env: { ...process.env, ...env },
    });
    let [out, err] = ['', ''];
    child.stdout.on('data', (d) => {
      out += d;
    });
    child.stderr.on('data', (d) => {
      err += d;
    });
    child.on('close', (code, signal) => resolve({ code, signal, out, err }));
  });

const work = `
  const { webgpuBackend } = await import('${webgpu}');
  const { evaluate, exp, read, tensor } = await import('${core}');
  const backend = await webgpuBackend();
  for (let i = 0; i < 3; i++) { globalThis.gc(); await new Promise((r) => setTimeout(r, 5)); }
  console.log((await read(evaluate(exp(tensor([0, 1])), backend))).join());
`;

test('a closed backend lets the process end with code 0, garbage collection included', {
  timeout: 60_000,
}, async () => {
  for (let i = 0; i < 3; i++) {
    const { code, signal, out } = await run(`${work} await backend.close(); globalThis.gc();`);
    expect({ code, signal }).toEqual({ code: 0, signal: null });
    expect(out.trim()).toBe(`1,${Math.fround(Math.E)}`);
  }
});

test('a process that ends early ends cleanly too', { timeout: 60_000 }, async () => {
  const { code, signal } = await run(`${work} process.exit(3);`);
  expect({ code, signal }).toEqual({ code: 3, signal: null });
});

test('without an adapter one line says what to install', { timeout: 60_000 }, async () => {
  const source = `
    const { webgpuBackend } = await import('${webgpu}');
    const { hasHardwareAdapter } = await import('${device}');
    console.log(await hasHardwareAdapter());
    try { await webgpuBackend(); } catch (error) { console.log(error.name + ': ' + error.message); }`;
  const { code, out, err } = await run(source, { VK_DRIVER_FILES: '/nowhere.json', VK_ICD_FILENAMES: '/nowhere.json' });
  expect(code).toBe(0);
  if (process.platform === 'linux' && !existsSync('/dev/dri')) expect(err, 'Dawn says nothing itself').toBe('');
  const lines = out.trim().split('\n');
  expect(lines[0]).toBe('false');
  expect(lines).toHaveLength(2);
  expect(lines[1]).toMatch(/^NoAdapterError: no WebGPU adapter: install .*mesa-vulkan-drivers.* npx tsx test\/run\.ts/);
});

test('a call that the device refuses is told by the program alone, not by Dawn', { timeout: 60_000 }, async () => {
  const source = `
    const { openDevice } = await import('${device}');
    const { webgpuBackend } = await import('${webgpu}');
    const backend = await webgpuBackend();
    const x = backend.store(Float32Array.of(1), 'f32');
    (await openDevice()).device.queue.writeBuffer(x.buffer, 2 ** 20, new Uint8Array(4));
    try { await backend.load(x); } catch (error) { console.log(error.name + ': ' + error.message); }
    await backend.close();`;
  const { code, out, err } = await run(source);
  expect({ code, err }).toEqual({ code: 0, err: '' });
  expect(out).toMatch(/^DeviceError: WebGPU \([^\n]*\): Write range [^\n]*\n$/);
});

test.runIf(process.platform === 'linux')('without a Vulkan loader nothing of Dawn reaches the terminal', async () => {
  // also on a machine that has one
  const missing = `const { dlopen } = process;
    process.dlopen = (module, file, ...rest) => {
      if (file === 'libvulkan.so.1') throw new Error(file + ': cannot open shared object file');
      return dlopen(module, file, ...rest);
    };`;
  const preload = `data:text/javascript,${encodeURIComponent(missing)}`;
  const args = ['--import', preload, bench!, '--backend', 'webgpu', '--ms', '1'];
  const { code, out, err } = await start(args, { LD_LIBRARY_PATH: '' });
  expect({ code, out }).toEqual({ code: 1, out: '' });
  expect(err).toMatch(/^no WebGPU adapter: install .*\n$/);
});

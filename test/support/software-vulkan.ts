/**
 * A software Vulkan driver out of npm, for machines without a GPU: SwiftShader and its loader lie in the dev dependency
 * `@sparticuz/chromium` (tar in brotli). Vulkan reads its environment when the process starts, so the result is an
 * environment for a *child* process (see `run.ts`).
 */
import { execFileSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { unpackedOnce } from './chromium-package.ts';

type Env = Readonly<Record<string, string>>;

const driverFiles = ['libvk_swiftshader.so', 'libvulkan.so.1', 'vk_swiftshader_icd.json'];

/** Prints `vendor description` of the adapter Dawn finds, or exits with 1. Run in a child: a driver may crash it. */
const probe = `
  const { create } = await import('webgpu');
  globalThis.held = create([]);
  const adapter = await globalThis.held.requestAdapter();
  if (!adapter) process.exit(1);
  const { vendor, architecture, description } = adapter.info;
  process.stdout.write([description, vendor, architecture].filter(Boolean)[0] ?? 'unnamed adapter');
  process.exit(0);`;

/** Name of the adapter that a process with `env` would get, or undefined when it would get none. */
const adapterWith = (env: Env): string | undefined => {
  try {
    return execFileSync(process.execPath, ['--input-type=module', '-e', probe], {
      env: { ...process.env, ...env },
      stdio: ['ignore', 'pipe', 'ignore'],
      timeout: 60_000,
      encoding: 'utf8',
      cwd: resolve(import.meta.dirname, '../..'),
    });
  } catch {
    return undefined;
  }
};

/** Unpacks the driver once and returns its folder. */
const unpackedDriver = (): string =>
  unpackedOnce('software-vulkan', (folder, from) => {
    const files = from.archive('swiftshader');
    for (const name of driverFiles) {
      const data = files.get(name);
      if (!data) throw new Error(`swiftshader.tar.br of @sparticuz/chromium ${from.version} holds no ${name}`);
      writeFileSync(join(folder, name), data, { mode: 0o755 });
    }
  });

/**
 * What a child process needs in its environment so that Dawn finds an adapter, and that adapter's name. The machine's
 * own adapter wins (empty environment); SwiftShader is the fallback.
 * @throws Error in one line when neither is there
 */
export const vulkanEnvironment = (): { readonly env: Env; readonly adapter: string } => {
  const own = adapterWith({});
  if (own !== undefined) return { env: {}, adapter: own };
  if (process.platform !== 'linux' || process.arch !== 'x64')
    throw new Error(
      `no WebGPU adapter, and the software one exists for linux-x64 only (this is ${process.platform}-${process.arch})`,
    );
  const folder = unpackedDriver();
  const path = process.env.LD_LIBRARY_PATH;
  const env = {
    VK_DRIVER_FILES: join(folder, 'vk_swiftshader_icd.json'),
    LD_LIBRARY_PATH: path ? `${folder}:${path}` : folder,
  };
  const adapter = adapterWith(env);
  if (adapter === undefined) throw new Error(`no WebGPU adapter, not even with the software driver in ${folder}`);
  return { env, adapter };
};

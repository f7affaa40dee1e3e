/**
 * A software Vulkan driver out of npm, for machines without a GPU: SwiftShader and its loader lie in the dev dependency
 * `@sparticuz/chromium` (tar in brotli). Vulkan reads its environment when the process starts, so the result is an
 * environment for a *child* process (see `run.ts`).
 */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { basename, dirname, join, resolve } from 'node:path';
import { brotliDecompressSync } from 'node:zlib';

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

/** The regular files of a ustar archive: 512-byte header blocks (name at 0, octal size at 124), data padded to 512. */
const untar = (tar: Buffer): ReadonlyMap<string, Buffer> => {
  const files = new Map<string, Buffer>();
  for (let at = 0; at + 512 <= tar.length && tar[at] !== 0; ) {
    const name = tar.toString('latin1', at, at + 100).split('\0', 1)[0]!;
    const size = Number.parseInt(tar.toString('latin1', at + 124, at + 136), 8);
    if (!(size >= 0) || at + 512 + size > tar.length) throw new Error(`swiftshader.tar.br: broken entry ${name}`);
    files.set(basename(name), tar.subarray(at + 512, at + 512 + size));
    at += 512 + Math.ceil(size / 512) * 512;
  }
  return files;
};

/** Unpacks the driver once into `node_modules/.cache` and returns its folder. Safe when several processes start at once. */
const unpackedDriver = (): string => {
  const require = createRequire(import.meta.url);
  const packageFolder = dirname(dirname(dirname(require.resolve('@sparticuz/chromium'))));
  const version = (JSON.parse(readFileSync(join(packageFolder, 'package.json'), 'utf8')) as { version: string })
    .version;
  const cache = join(resolve(import.meta.dirname, '../..'), 'node_modules', '.cache', 'software-vulkan');
  const folder = join(cache, version);
  if (existsSync(folder)) return folder;
  mkdirSync(cache, { recursive: true });
  const temporary = mkdtempSync(join(cache, 'unpack-'));
  const files = untar(brotliDecompressSync(readFileSync(join(packageFolder, 'bin', 'swiftshader.tar.br'))));
  for (const name of driverFiles) {
    const data = files.get(name);
    if (!data) throw new Error(`swiftshader.tar.br of @sparticuz/chromium ${version} holds no ${name}`);
    writeFileSync(join(temporary, name), data, { mode: 0o755 });
  }
  try {
    renameSync(temporary, folder);
  } catch (error) {
    rmSync(temporary, { recursive: true, force: true });
    if (!existsSync(folder)) throw error; // another process was faster: its folder is the same
  }
  return folder;
};

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

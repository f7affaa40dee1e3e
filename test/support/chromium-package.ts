/**
 * What the dev dependency `@sparticuz/chromium` (MIT; Chromium itself BSD) holds: a headless browser for linux-x64 with
 * its libraries and fonts, and a software Vulkan driver, brotli, some of it tar.
 */
import { existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join, resolve } from 'node:path';
import { brotliDecompressSync } from 'node:zlib';

/** The regular files of a ustar archive: 512-byte header blocks (name at 0, octal size at 124), data padded to 512. */
function untar(tar: Buffer, archive: string): ReadonlyMap<string, Buffer> {
  const files = new Map<string, Buffer>();
  for (let at = 0; at + 512 <= tar.length && tar[at] !== 0; ) {
    const name = tar.toString('latin1', at, at + 100).split('\0', 1)[0]!;
    const size = Number.parseInt(tar.toString('latin1', at + 124, at + 136), 8);
    if (!(size >= 0) || at + 512 + size > tar.length) throw new Error(`${archive}: broken entry ${name}`);
    if (!name.endsWith('/')) files.set(name, tar.subarray(at + 512, at + 512 + size));
    at += 512 + Math.ceil(size / 512) * 512;
  }
  return files;
}

/** What can be read of the package. */
export interface ChromiumPackage {
  readonly version: string;
  /** a file that is packed alone: `chromium` */
  readonly file: (name: string) => Buffer;
  /** the files of an archive by their paths in it: `fonts` */
  readonly archive: (name: string) => ReadonlyMap<string, Buffer>;
}

function openPackage(): ChromiumPackage {
  const folder = dirname(dirname(dirname(createRequire(import.meta.url).resolve('@sparticuz/chromium'))));
  const { version } = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8')) as { version: string };
  const read = (name: string): Buffer => brotliDecompressSync(readFileSync(join(folder, 'bin', name)));
  return {
    version,
    file: (name) => read(`${name}.br`),
    archive: (name) => untar(read(`${name}.tar.br`), `${name}.tar.br of @sparticuz/chromium ${version}`),
  };
}

/**
 * A folder in `node_modules/.cache` that `fill` fills once. Safe when several processes start at once.
 * @returns its path
 */
export function unpackedOnce(name: string, fill: (folder: string, from: ChromiumPackage) => void): string {
  const from = openPackage();
  const cache = join(resolve(import.meta.dirname, '../..'), 'node_modules', '.cache', name);
  const folder = join(cache, from.version);
  if (existsSync(folder)) return folder;
  mkdirSync(cache, { recursive: true });
  const temporary = mkdtempSync(join(cache, 'unpack-'));
  fill(temporary, from);
  try {
    renameSync(temporary, folder);
  } catch (error) {
    rmSync(temporary, { recursive: true, force: true });
    if (!existsSync(folder)) throw error; // another process was faster: its folder is the same
  }
  return folder;
}

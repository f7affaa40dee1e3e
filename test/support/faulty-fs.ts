/**
 * A file system that fails where a test wants it to, and that remembers every change: `node:fs/promises` with each call
 * announced first. What the code under test imported by name is replaced too.
 */
import fs from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';

/** One call about to be made. `file` numbers the opened files, so that data can be followed through a rename. */
export type Call =
  | { readonly kind: 'open'; readonly path: string; readonly file: number; readonly creates: boolean }
  | { readonly kind: 'write'; readonly path: string; readonly file: number; readonly data: Uint8Array }
  | { readonly kind: 'sync' | 'close' | 'read'; readonly path: string; readonly file: number }
  | { readonly kind: 'truncate'; readonly path: string; readonly file: number; readonly length: number }
  | { readonly kind: 'rename'; readonly path: string; readonly to: string }
  | { readonly kind: 'unlink' | 'mkdir' | 'readdir' | 'stat' | 'chmod'; readonly path: string };

type Before = (call: Call, n: number) => void;
type Handle = fs.promises.FileHandle;

/** A failure as the system gives it. */
export function systemError(code: string): Error {
  return Object.assign(new Error(`${code}: planted`), { code });
}

/**
 * Runs `work` with every call announced to `before`, which may throw instead of letting it happen.
 * @returns the number of calls made
 */
export async function withCalls(before: Before, work: () => Promise<unknown>): Promise<number> {
  const real = { ...fs.promises };
  let [calls, files] = [0, 0];
  const announce = (call: Call) => before(call, ++calls);

  const open = async (path: string, flags: string | number = 'r', mode?: number): Promise<Handle> => {
    const file = ++files;
    announce({
      kind: 'open',
      path,
      file,
      creates: flags === 'wx' || (typeof flags === 'number' && (flags & fs.constants.O_CREAT) !== 0),
    });
    const handle = await real.open(path, flags, mode);
    const [write, read] = [handle.write.bind(handle), handle.read.bind(handle)];
    const { sync, close, truncate } = handle;
    return Object.assign(handle, {
      write: async (data: Uint8Array, from = 0, length = data.length - from) => {
        announce({ kind: 'write', path, file, data: data.slice(from, from + length) });
        return write(data, from, length);
      },
      read: async (into: Uint8Array, from: number, length: number, position: number | null) => {
        announce({ kind: 'read', path, file });
        return read(into, from, length, position);
      },
      sync: async () => {
        announce({ kind: 'sync', path, file });
        await sync.call(handle);
      },
      truncate: async (length = 0) => {
        announce({ kind: 'truncate', path, file, length });
        await truncate.call(handle, length);
      },
      // The descriptor is given back also where close reports an error, as the system does it.
      close: async () => {
        await close.call(handle);
        announce({ kind: 'close', path, file });
      },
    }) as Handle;
  };
  const simple = (kind: 'unlink' | 'mkdir' | 'readdir' | 'stat' | 'chmod') => {
    const call = real[kind] as (path: string, ...rest: readonly unknown[]) => Promise<unknown>;
    return async (path: string, ...rest: readonly unknown[]) => {
      announce({ kind, path });
      return call(path, ...rest);
    };
  };
  const rename = async (path: string, to: string) => {
    announce({ kind: 'rename', path, to });
    await real.rename(path, to);
  };
  const replaced = {
    open,
    rename,
    ...Object.fromEntries(
      (['unlink', 'mkdir', 'readdir', 'stat', 'chmod'] as const).map((kind) => [kind, simple(kind)]),
    ),
  };
  try {
    Object.assign(fs.promises, replaced);
    syncBuiltinESMExports();
    await work();
    return calls;
  } finally {
    Object.assign(fs.promises, real);
    syncBuiltinESMExports();
  }
}

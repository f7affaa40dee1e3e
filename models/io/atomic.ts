/**
 * Files and folders that are either wholly there or not there at all, whatever moment the power fails:
 * write to a temporary name, fsync, rename, fsync the folder that holds the name.
 * (The package write-file-atomic writes whole buffers only and does not fsync the folder.)
 */
import { randomBytes } from 'node:crypto';
import { type FileHandle, mkdir, open, readdir, rename, rm, stat, unlink } from 'node:fs/promises';
import path from 'node:path';
import { asFileError, FileError, systemCode } from './error.ts';

/** Appends bytes to the file being written. */
export type Sink = (bytes: Uint8Array) => Promise<void>;

export type AtomicOptions = {
  /** Others may read what is written, as far as the process's umask lets them. Without it, it is the owner's alone. */
  readonly public?: boolean;
  /** Gives up between two chunks; nothing is left behind. */
  readonly signal?: AbortSignal;
};

/** Permission bits of what is written unless the caller says `public`: reports and pictures of patients may be in there. */
export const PRIVATE_FILE = 0o600;
export const PRIVATE_FOLDER = 0o700;

const TEMPORARY = /^\..*\.tmp-(\d+)-[0-9a-f]{12}$/su;

/** A hidden name beside `target`, on the same file system, that tells which process made it. */
function temporaryName(target: string): string {
  const base = Buffer.from(path.basename(target)).subarray(0, 180).toString('utf8').replaceAll('\ufffd', '');
  return path.join(path.dirname(target), `.${base}.tmp-${process.pid}-${randomBytes(6).toString('hex')}`);
}

/**
 * Makes a folder and its parents, unless they are there. (`mkdir` of Node, told to be recursive, never ends below /proc, where
 * a folder that is not there cannot be made either.)
 * @returns the folders made, the highest first
 * @throws the system's error
 */
export async function makeFolders(
  folder: string,
  options: Pick<AtomicOptions, 'public'> = {},
): Promise<readonly string[]> {
  const target = path.resolve(folder);
  const isFolder = (): Promise<boolean> => stat(target).then((info) => info.isDirectory());
  try {
    if (await isFolder()) return [];
  } catch (error) {
    if (systemCode(error) !== 'ENOENT') throw error;
  }
  const parent = path.dirname(target);
  const above = parent === target ? [] : await makeFolders(parent, options);
  try {
    await mkdir(target, { mode: options.public ? 0o777 : PRIVATE_FOLDER });
  } catch (error) {
    // another process may have made it in between
    if (systemCode(error) === 'EEXIST' && (await isFolder())) return above;
    throw error;
  }
  return [...above, target];
}

/** Makes a rename or a new name in `folder` survive a power failure. */
export async function syncFolder(folder: string): Promise<void> {
  let handle: FileHandle | undefined;
  try {
    handle = await open(folder, 'r');
    await handle.sync();
  } catch (error) {
    // Windows cannot open folders; its file systems order the rename themselves.
    if (process.platform !== 'win32') throw asFileError(error, folder);
  } finally {
    await handle?.close().catch(() => undefined);
  }
}

/**
 * Writes one file atomically. `content` is the bytes, a text, or a function that streams them.
 * @throws FileError with path and cause; the temporary file is gone and an older file of that name is untouched
 * @example await writeFileAtomic('run/config.json', JSON.stringify(config))
 */
export async function writeFileAtomic(
  file: string,
  content: string | Uint8Array | ((write: Sink) => Promise<void>),
  options: AtomicOptions = {},
): Promise<void> {
  const temporary = temporaryName(file);
  let handle: FileHandle | undefined;
  try {
    // 'wx' neither follows a link nor opens a file that is there already.
    handle = await open(temporary, 'wx', options.public ? 0o666 : PRIVATE_FILE);
    const target = handle;
    const write: Sink = async (bytes) => {
      options.signal?.throwIfAborted();
      for (let done = 0; done < bytes.length; ) {
        done += (await target.write(bytes, done, Math.min(bytes.length - done, 1 << 30))).bytesWritten;
      }
    };
    if (typeof content === 'function') await content(write);
    else await write(typeof content === 'string' ? new TextEncoder().encode(content) : content);
    options.signal?.throwIfAborted();
    await handle.sync();
    await handle.close();
    handle = undefined;
    await rename(temporary, file);
  } catch (error) {
    await handle?.close().catch(() => undefined);
    await unlink(temporary).catch(() => undefined);
    if (systemCode(error) === 'ENOENT') throw new FileError(file, 'writing', 'no such folder', { cause: error });
    throw asFileError(error, file, 'writing');
  }
  await syncFolder(path.dirname(file));
}

/**
 * Makes a whole folder appear at once: `fill` writes into a temporary sibling that is then renamed.
 * @throws FileError if `folder` exists and is not an empty folder: nothing is ever overwritten
 */
export async function createFolderAtomic(
  folder: string,
  fill: (temporary: string) => Promise<void>,
  options: AtomicOptions = {},
): Promise<void> {
  const target = path.resolve(folder);
  await refuseUsed(target, folder);
  const temporary = temporaryName(target);
  try {
    await makeFolders(path.dirname(target), options);
    await mkdir(temporary, { mode: options.public ? 0o777 : PRIVATE_FOLDER });
    await fill(temporary);
    options.signal?.throwIfAborted();
    for (const inner of await foldersWithin(temporary)) await syncFolder(inner);
    await rename(temporary, target);
  } catch (error) {
    await rm(temporary, { recursive: true, force: true }).catch(() => undefined);
    throw asFileError(error, folder, 'writing');
  }
  await syncFolder(path.dirname(target));
}

/** Refuses a target that holds something (rename replaces an empty folder, and only that). */
async function refuseUsed(target: string, shown: string): Promise<void> {
  try {
    const info = await stat(target);
    if (!info.isDirectory()) throw new FileError(shown, '', 'exists already and is not a folder');
    if ((await readdir(target)).length > 0) throw new FileError(shown, '', 'exists already and is not empty');
  } catch (error) {
    if (systemCode(error) !== 'ENOENT') throw asFileError(error, shown);
  }
}

/** `folder` and all folders below it, deepest first. */
async function foldersWithin(folder: string): Promise<readonly string[]> {
  const entries = await readdir(folder, { withFileTypes: true });
  const inner = entries.filter((entry) => entry.isDirectory()).map((entry) => path.join(folder, entry.name));
  return [...(await Promise.all(inner.map(foldersWithin))).flat(), folder];
}

/**
 * Removes what writers killed in mid-write left in `folder`: temporary names whose process is gone.
 * @param own also removes names of this process's number: a container gives every start the same one. Only for callers
 * that know that this process is not writing there.
 * @returns the names removed
 */
export async function sweepTemporary(folder: string, own = false): Promise<readonly string[]> {
  const stale = (await readdir(folder)).filter((name) => {
    const pid = Number(TEMPORARY.exec(name)?.[1] ?? Number.NaN);
    return !Number.isNaN(pid) && (own && pid === process.pid ? true : !isAlive(pid));
  });
  for (const name of stale) await rm(path.join(folder, name), { recursive: true, force: true });
  return stale;
}

/** Whether a process runs (signal 0 only asks; EPERM means: it does, under another user). */
function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return systemCode(error) === 'EPERM';
  }
}

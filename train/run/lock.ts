/**
 * One process per run folder. Each process that wants the folder leaves an empty file whose name is its identity,
 * `lock-<pid>-<start>-<boot>`, and then looks for others: as every process writes before it looks, at least one of two
 * sees the other (Dekker). The winner writes "held" into its file. A dead owner's file blocks nobody: its name cannot
 * belong to a running process, even after its number was given away again.
 */
import { type FileHandle, open, readdir, readFile, stat, unlink, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { asFileError, FileError, systemCode } from '../../models/io/error.ts';
import { PRIVATE_FILE } from './atomic.ts';

const LOCK = /^lock-(\d{1,10})-(\d{1,16})-([0-9a-f]{8})$/;
/** How long two processes that started at the same moment may take to settle who goes on. */
const SETTLE_MS = 10_000;

type Identity = { readonly pid: number; readonly start: number; readonly boot: string };

/** Lock files that this process made: a leftover of the same name is told from these. */
const held = new Set<string>();

/** Whether a folder entry belongs to the lock. */
export function isLockName(name: string): boolean {
  return LOCK.test(name);
}

/**
 * Takes the folder for this process.
 * @returns gives it back; may be called twice
 * @throws FileError naming the process that has it
 */
export async function acquireLock(folder: string): Promise<() => Promise<void>> {
  const me = { pid: process.pid, ...(await startOf(process.pid)) };
  const file = path.resolve(folder, `lock-${me.pid}-${me.start}-${me.boot}`);
  if (held.has(file)) throw new FileError(folder, '', 'is in use by this process already');
  held.add(file);
  try {
    await create(file);
    await waitForOthers(folder, me);
    await writeFile(file, 'held\n');
    await sweepDead(folder, me);
  } catch (error) {
    held.delete(file);
    await unlink(file).catch(() => undefined);
    throw asFileError(error, folder, 'locking');
  }
  return async () => {
    if (held.delete(file)) await unlink(file).catch(() => undefined);
  };
}

/** The empty file; one of that name that this process did not make is a leftover of an earlier process. */
async function create(file: string): Promise<void> {
  let handle: FileHandle | undefined;
  try {
    handle = await open(file, 'wx', PRIVATE_FILE);
  } catch (error) {
    if (systemCode(error) !== 'EEXIST') throw error;
    await unlink(file);
    handle = await open(file, 'wx', PRIVATE_FILE);
  } finally {
    await handle?.close();
  }
}

/** Returns when no other live process wants the folder. Of several that start at once the oldest goes on. */
async function waitForOthers(folder: string, me: Identity): Promise<void> {
  for (const started = performance.now(); ; await sleep(10)) {
    const others = await rivals(folder, me, true);
    if (others.length === 0) return;
    for (const other of others) {
      const size = await stat(path.join(folder, nameOf(other))).then(
        (info) => info.size,
        () => -1,
      );
      const senior = other.start < me.start || (other.start === me.start && other.pid < me.pid);
      if (size > 0 || (size === 0 && (senior || performance.now() - started > SETTLE_MS))) {
        throw new FileError(folder, '', `is in use by process ${other.pid}; wait for its end or use another folder`);
      }
    }
  }
}

async function sweepDead(folder: string, me: Identity): Promise<void> {
  for (const dead of await rivals(folder, me, false)) await unlink(path.join(folder, nameOf(dead)));
}

/** The other processes with a lock file here: those that run, or those that are gone. */
async function rivals(folder: string, me: Identity, alive: boolean): Promise<readonly Identity[]> {
  const found: Identity[] = [];
  for (const name of await readdir(folder)) {
    const match = LOCK.exec(name);
    if (match === null) continue;
    const other = { pid: Number(match[1]), start: Number(match[2]), boot: match[3] };
    const same = other.pid === me.pid && other.start === me.start && other.boot === me.boot;
    if (!same && (await isAlive(other)) === alive) found.push(other);
  }
  return found;
}

const nameOf = ({ pid, start, boot }: Identity) => `lock-${pid}-${start}-${boot}`;

/** Whether exactly this process runs. Where start times cannot be read, a process of the same number counts. */
async function isAlive({ pid, start, boot }: Identity): Promise<boolean> {
  try {
    process.kill(pid, 0);
  } catch (error) {
    if (systemCode(error) !== 'EPERM') return false;
  }
  const now = await startOf(pid);
  return now.boot === boot && (now.start === start || now.start === 0);
}

/**
 * When a process was started, in the kernel's ticks since the boot `boot` (proc(5): field 22 of /proc/PID/stat).
 * 0 where the system does not tell; -1 for a process that ended and only waits for its parent.
 */
async function startOf(pid: number): Promise<Pick<Identity, 'start' | 'boot'>> {
  const read = (file: string) => readFile(file, 'latin1').catch(() => '');
  const [status, bootId] = await Promise.all([read(`/proc/${pid}/stat`), read('/proc/sys/kernel/random/boot_id')]);
  // The name before the last ")" is the program's own and may hold blanks and brackets.
  const fields = status.slice(status.lastIndexOf(')') + 2).split(' ');
  const start = /^[ZX]/.test(fields[0]) ? -1 : Number(fields[19] ?? 0);
  return { start: Number.isSafeInteger(start) ? start : 0, boot: /^[0-9a-f]{8}/.exec(bootId)?.[0] ?? '00000000' };
}

/**
 * One process per run folder. Each process that wants the folder leaves an empty file whose name is its identity,
 * `lock-<pid>-<start>-<boot>-<namespace>-<host>`, and then looks for others: as every process writes before it looks, at
 * least one of two sees the other (Dekker). The winner writes "held" into its file. A dead owner's file blocks nobody.
 *
 * Whether an owner lives is asked of the kernel where it can tell: same boot, same namespace of process numbers. Of any
 * other process (another container, another machine on a shared disk) only its file speaks: a thread renews it every
 * `RENEW_MS`, and one that has not been renewed for `STALE_MS` is taken over. Ages are told by the file system that holds
 * both files, so clocks of different machines do not matter.
 */
import { readlinkSync, statSync } from 'node:fs';
import { type FileHandle, open, readdir, readFile, stat, unlink, writeFile } from 'node:fs/promises';
import { hostname } from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';
import { asFileError, FileError, systemCode } from '../../models/io/error.ts';
import { PRIVATE_FILE } from './atomic.ts';

/** Without namespace and host: as earlier versions named it. */
const LOCK = /^lock-(\d{1,10})-(\d{1,16})-([0-9a-f]{8})(?:-(\d{1,20})-([\w.-]{1,64}))?$/;
/** How long two processes that started at the same moment may take to settle who goes on. */
const SETTLE_MS = 10_000;
/** Stands for the boot where the system does not tell it. */
const NO_BOOT = '00000000';
const RENEW_MS = 10_000;
/** An owner that the kernel cannot be asked about counts as gone when its file is older than this. */
export const STALE_MS = 60_000;

type Identity = {
  readonly name: string;
  readonly pid: number;
  readonly start: number;
  readonly boot: string;
  readonly namespace?: string;
  readonly host?: string;
};

/** Lock files that this process made: a leftover of the same name is told from these. */
const held = new Set<string>();

/** Whether a folder entry belongs to the lock. */
export function isLockName(name: string): boolean {
  return LOCK.test(name);
}

/** A folder that this process has. */
export interface Lock {
  /** What was taken over from whom, as one line. */
  readonly note?: string;
  /** @throws FileError where another process has taken the folder over: this one was not heard of for too long */
  check(): Promise<void>;
  /** Gives the folder back; may be called twice. @returns a line where the file could not be removed */
  release(): Promise<string | undefined>;
}

/**
 * Takes the folder for this process.
 * @param stale age in milliseconds at which the file of a process of another machine or container counts for nothing
 * @throws FileError naming the process that has it
 */
export async function acquireLock(folder: string, stale = STALE_MS): Promise<Lock> {
  const me = await ownIdentity();
  const file = path.resolve(folder, me.name);
  if (held.has(file)) throw new FileError(folder, '', 'is in use by this process already');
  held.add(file);
  let note: string | undefined;
  try {
    await create(file);
    await waitForOthers(folder, me, stale);
    await writeFile(file, 'held\n');
    note = await sweepDead(folder, me, stale);
  } catch (error) {
    held.delete(file);
    await unlink(file).catch(() => undefined);
    throw asFileError(error, folder, 'locking');
  }
  const stopRenewing = renew(file);
  return {
    ...(note === undefined ? {} : { note }),
    check: async () => {
      // synchronous: a step asks before each line it writes, and this costs microseconds
      if (held.has(file) && statSync(file, { throwIfNoEntry: false }) === undefined)
        throw new FileError(folder, '', 'was taken over by another process, which found this one’s lock not renewed');
    },
    release: async () => {
      if (!held.delete(file)) return undefined;
      stopRenewing();
      return remove(file);
    },
  };
}

/** Several tries: a disk that reports one error may not report the next. */
async function remove(file: string): Promise<string | undefined> {
  for (let left = 4; ; left--) {
    try {
      await unlink(file);
      return undefined;
    } catch (error) {
      if (systemCode(error) === 'ENOENT') return undefined;
      if (left === 0) return `${asFileError(error, file, 'removing').message}; the file means nothing any more`;
      await sleep(20);
    }
  }
}

/**
 * Keeps a lock renewed, in a thread of its own, since a training step may keep this one busy for minutes. The thread
 * starts after a second, so that a folder that is only looked at costs none; it holds nobody up at the end.
 * @returns ends it
 */
function renew(file: string): () => void {
  const text = `const { writeFileSync } = require('node:fs');
    const { workerData: { file, ms } } = require('node:worker_threads');
    const timer = setInterval(() => {
      try { writeFileSync(file, 'held\\n', { flag: 'r+' }); }
      catch (error) { if (error.code === 'ENOENT') clearInterval(timer); }
    }, ms);`;
  let worker: Worker | undefined;
  const timer = setTimeout(() => {
    worker = new Worker(text, { eval: true, workerData: { file, ms: RENEW_MS }, execArgv: [], env: {} });
    worker.on('error', () => undefined);
    worker.unref();
  }, 1_000);
  timer.unref();
  return () => {
    clearTimeout(timer);
    void worker?.terminate();
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
async function waitForOthers(folder: string, me: Identity, stale: number): Promise<void> {
  for (const started = performance.now(); ; await sleep(10)) {
    const others = await rivals(folder, me, stale, true);
    if (others.length === 0) return;
    for (const other of others) {
      const size = await stat(path.join(folder, other.name)).then(
        (info) => info.size,
        () => -1,
      );
      const senior = other.start < me.start || (other.start === me.start && other.name < me.name);
      if (size > 0 || (size === 0 && (senior || performance.now() - started > SETTLE_MS))) {
        throw new FileError(folder, '', `is in use by ${spoken(other, me)}; wait for its end or use another folder`);
      }
    }
  }
}

/** How a person is told of a process. */
const spoken = (other: Identity, me: Identity): string =>
  isNear(other, me)
    ? `process ${other.pid}`
    : `process ${other.pid} of another machine or container (${other.host}); a lock that is not renewed for ${STALE_MS / 1000} s is taken over`;

/** @returns a line that names owners of elsewhere whose locks were taken over */
async function sweepDead(folder: string, me: Identity, stale: number): Promise<string | undefined> {
  const dead = await rivals(folder, me, stale, false);
  for (const { name } of dead) await unlink(path.join(folder, name));
  const far = dead.filter((other) => !isNear(other, me)).map(({ pid, host }) => `process ${pid} of ${host}`);
  if (far.length === 0) return undefined;
  return `${folder}: taken over from ${far.join(', ')}, whose lock was not renewed for ${STALE_MS / 1000} s`;
}

/** The other processes with a lock file here: those that run, or those that are gone. */
async function rivals(folder: string, me: Identity, stale: number, alive: boolean): Promise<readonly Identity[]> {
  const found: Identity[] = [];
  const now = await written(folder, me.name);
  for (const name of await readdir(folder)) {
    const match = LOCK.exec(name);
    if (match === null || name === me.name) continue;
    const [pid, start, boot] = [Number(match[1]), Number(match[2]), match[3]!];
    const place = match[4] === undefined ? {} : { namespace: match[4], host: match[5]! };
    const other: Identity = { name, pid, start, boot, ...place };
    const living = isNear(other, me) ? await isAlive(other) : now - (await written(folder, name)) < stale;
    if (living === alive) found.push(other);
  }
  return found;
}

/** When a file was last written, as its file system has it; long ago where it is gone. */
const written = (folder: string, name: string): Promise<number> =>
  stat(path.join(folder, name)).then(
    ({ mtimeMs }) => mtimeMs,
    () => Number.NEGATIVE_INFINITY,
  );

/** Whether this kernel can be asked about the process. Of names without a place it is assumed, as it was when they were made. */
const isNear = (other: Identity, me: Identity): boolean =>
  other.namespace === undefined ||
  (other.boot === me.boot && other.namespace === me.namespace && (me.boot !== NO_BOOT || other.host === me.host));

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

async function ownIdentity(): Promise<Identity> {
  const { start, boot } = await startOf(process.pid);
  const { pid } = process;
  const namespace = namespaceOfProcesses();
  const host =
    hostname()
      .replace(/[^\w.-]/g, '_')
      .slice(0, 64) || 'unnamed';
  return { name: `lock-${pid}-${start}-${boot}-${namespace}-${host}`, pid, start, boot, namespace, host };
}

/** The namespace that process numbers are valid in: containers have one each. "0" where the system has no such thing. */
function namespaceOfProcesses(): string {
  try {
    return /\d+/.exec(readlinkSync('/proc/self/ns/pid'))?.[0] ?? '0';
  } catch {
    return '0';
  }
}

/**
 * When a process was started, in the kernel's ticks since the boot `boot` (proc(5): field 22 of /proc/PID/stat).
 * 0 where the system does not tell; -1 for a process that ended and only waits for its parent.
 */
export async function startOf(pid: number): Promise<Pick<Identity, 'start' | 'boot'>> {
  const read = (file: string) => readFile(file, 'latin1').catch(() => '');
  const [status, bootId] = await Promise.all([read(`/proc/${pid}/stat`), read('/proc/sys/kernel/random/boot_id')]);
  // The name before the last ")" is the program's own and may hold blanks and brackets.
  const fields = status.slice(status.lastIndexOf(')') + 2).split(' ');
  const start = /^[ZX]/.test(fields[0]!) ? -1 : Number(fields[19] ?? 0);
  return { start: Number.isSafeInteger(start) ? start : 0, boot: /^[0-9a-f]{8}/.exec(bootId)?.[0] ?? NO_BOOT };
}

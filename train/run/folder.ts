/**
 * The folder of one run: who may use it, and its resolved configuration.
 * What lies in it, and which of its fields hold wall-clock times: `README.md`.
 */
import { chmod, readdir, stat } from 'node:fs/promises';
import path from 'node:path';
import { asFileError, FileError, systemCode } from '../../models/io/error.ts';
import { type Json, parseJson, readJson } from '../../models/io/json.ts';
import { makeRunFolder, PRIVATE_FOLDER, sweepTemporary, writeRunFile } from './atomic.ts';
import { canonicalJson, type Plain } from './canonical.ts';
import { acquireLock, isLockName, type Lock } from './lock.ts';

export const CONFIG_FILE = 'config.json';

/** A run folder that this process has for itself until `close`. */
export interface RunFolder {
  readonly path: string;
  /** Whether the run was there before. */
  readonly resumed: boolean;
  /** As in `config.json`; every checkpoint carries it too. */
  readonly config: Json;
  /** From whom the folder was taken over, as one line, where its owner of elsewhere had not been heard of for long. */
  readonly note?: string;
  /** @throws FileError where another process has taken the folder over */
  check(): Promise<void>;
  /**
   * Gives the folder back; may be called twice. A process that ends without it blocks nobody for long.
   * @returns a line where its lock file could not be removed
   */
  close(): Promise<string | undefined>;
}

/**
 * Makes the folder of a new run and writes its configuration.
 * @throws FileError if the folder holds a run that has begun or anything else, or another process is using it
 * @throws RangeError if the configuration holds what JSON cannot
 * @example const run = await createRun('runs/first', { steps: 100 })
 */
export async function createRun(folder: string, config: Plain): Promise<RunFolder> {
  const text = `${canonicalJson(config, 2)}\n`;
  await refuseNoFolder(folder, 'ENOENT');
  await makeRunFolder(folder);
  await refuseUsed(folder);
  const lock = await acquireLock(folder);
  try {
    // Again, since another process may have made a whole run between the first look and the lock.
    await refuseUsed(folder);
    await chmod(folder, PRIVATE_FOLDER);
    await sweepTemporary(folder, true);
    await writeRunFile(path.join(folder, CONFIG_FILE), text);
  } catch (error) {
    await lock.release();
    throw asFileError(error, folder);
  }
  return ownedBy(lock, { path: folder, resumed: false, config: parseJson(text, CONFIG_FILE) });
}

/**
 * Opens the folder of a run to go on with it, and removes what a killed process left half-written.
 * @throws FileError if it is no run folder, its configuration cannot be read, or another process is using it
 * @example const { run, config } = await openRun('runs/first')
 */
export async function openRun(folder: string): Promise<{ readonly run: RunFolder; readonly config: Json }> {
  await refuseNoFolder(folder);
  const file = path.join(folder, CONFIG_FILE);
  await stat(file).catch((error) => {
    if (systemCode(error) !== 'ENOENT') throw asFileError(error, file);
    throw new FileError(folder, '', `is not the folder of a run: it has no ${CONFIG_FILE}`);
  });
  const lock = await acquireLock(folder);
  try {
    await sweepAll(folder);
    const config = await readJson(file);
    return { run: ownedBy(lock, { path: folder, resumed: true, config }), config };
  } catch (error) {
    await lock.release();
    throw asFileError(error, folder);
  }
}

const ownedBy = (lock: Lock, run: Pick<RunFolder, 'path' | 'resumed' | 'config'>): RunFolder => ({
  ...run,
  ...(lock.note === undefined ? {} : { note: lock.note }),
  check: lock.check,
  close: lock.release,
});

/** The same run under another configuration, which is written into its folder unless it is the same. */
export async function changeConfig(run: RunFolder, config: Plain): Promise<RunFolder> {
  const text = canonicalJson(config, 2);
  if (text === canonicalJson(run.config as Plain, 2)) return run;
  await writeRunFile(path.join(run.path, CONFIG_FILE), `${text}\n`);
  return { ...run, config: parseJson(text, CONFIG_FILE) };
}

/** @param allowed an error code that is no reason to refuse */
async function refuseNoFolder(folder: string, allowed?: string): Promise<void> {
  try {
    if (!(await stat(folder)).isDirectory()) throw new FileError(folder, '', 'is not a folder');
  } catch (error) {
    const code = systemCode(error);
    if (code === 'ENOENT' && allowed !== code) throw new FileError(folder, '', 'no such folder');
    if (code === undefined || code !== allowed) throw asFileError(error, folder);
  }
}

/** What a run writes before its first step: a folder with nothing else in it holds no work. */
const BEFORE_FIRST_STEP: ReadonlySet<string> = new Set([CONFIG_FILE, 'split.json']);

/** A new run takes an empty folder, or one where a run failed before it began (a wrong path, broken data). */
async function refuseUsed(folder: string): Promise<void> {
  const all = await readdir(folder).catch((error) => {
    throw asFileError(error, folder);
  });
  const names = all.filter((name) => !isLockName(name) && !/^\..*\.tmp-\d+-[0-9a-f]{12}$/s.test(name));
  if (names.every((name) => BEFORE_FIRST_STEP.has(name))) return;
  if (names.includes(CONFIG_FILE)) {
    throw new FileError(folder, '', 'holds a run already; go on with --resume, or choose another folder');
  }
  throw new FileError(folder, '', 'is not empty; choose another folder');
}

/** Sweeps the folder and every folder below it; links are not followed. */
async function sweepAll(folder: string): Promise<void> {
  await sweepTemporary(folder, true);
  for (const entry of await readdir(folder, { withFileTypes: true })) {
    if (entry.isDirectory()) await sweepAll(path.join(folder, entry.name));
  }
}

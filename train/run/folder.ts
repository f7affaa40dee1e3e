/**
 * The folder of one run: who may use it, and its resolved configuration.
 * What lies in it, and which of its fields hold wall-clock times: `README.md`.
 */
import { chmod, readdir, rmdir, stat, unlink } from 'node:fs/promises';
import path from 'node:path';
import { asFileError, FileError, systemCode } from '../../models/io/error.ts';
import { type Json, parseJson, readJson } from '../../models/io/json.ts';
import { makeRunFolder, PRIVATE_FOLDER, sweepTemporary, writeRunFile } from './atomic.ts';
import { canonicalJson, type Plain } from './canonical.ts';
import { acquireLock, isLockName, type Lock } from './lock.ts';
import { METRICS_FILE } from './metrics.ts';

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
  /** `work` is done before the folder is given back: what was opened in it is closed however the run ends. */
  atClose(work: () => Promise<unknown>): void;
  /**
   * Gives the folder back; may be called twice. A process that ends without it blocks nobody for long.
   * @returns a line where its lock file could not be removed
   */
  close(): Promise<string | undefined>;
  /**
   * Takes a run back that failed before its first step: what it wrote goes, and the folders that were made for it. A folder
   * that holds work, or held a run before, stays. It is closed then.
   */
  abandon(): Promise<void>;
}

/**
 * Refuses a folder that cannot take a new run, before anything is made or read for it.
 * @throws FileError if the folder holds a run that has begun or anything else
 */
export async function refuseTaken(folder: string, config: Plain): Promise<void> {
  await refuseNoFolder(folder, 'ENOENT');
  if (await isThere(folder)) await refuseUsed(folder, config);
}

const isThere = (file: string): Promise<boolean> =>
  stat(file).then(
    () => true,
    () => false,
  );

/**
 * Makes the folder of a new run and writes its configuration.
 * @throws FileError if the folder holds a run that has begun or anything else, or another process is using it
 * @throws RangeError if the configuration holds what JSON cannot
 * @example const run = await createRun('runs/first', { steps: 100 })
 */
export async function createRun(folder: string, config: Plain): Promise<RunFolder> {
  const text = `${canonicalJson(config, 2)}\n`;
  await refuseTaken(folder, config);
  const made = await makeRunFolder(folder);
  const lock = await acquireLock(folder).catch(async (error) => {
    await removeEmpty(made);
    throw error;
  });
  try {
    // Again, since another process may have made a whole run between the first look and the lock.
    await refuseUsed(folder, config);
    await chmod(folder, PRIVATE_FOLDER);
    await sweepTemporary(folder, true);
    await writeRunFile(path.join(folder, CONFIG_FILE), text);
  } catch (error) {
    await lock.release();
    await removeEmpty(made);
    throw asFileError(error, folder);
  }
  return ownedBy(lock, { path: folder, resumed: false, config: parseJson(text, CONFIG_FILE) }, made);
}

/** Folders that were made, the highest first, as far as they are empty. */
async function removeEmpty(made: readonly string[]): Promise<void> {
  for (const folder of [...made].reverse()) await rmdir(folder).catch(() => undefined);
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

/** @param made the folders made for a new run */
const ownedBy = (
  lock: Lock,
  run: Pick<RunFolder, 'path' | 'resumed' | 'config'>,
  made: readonly string[] = [],
): RunFolder => {
  const last: (() => Promise<unknown>)[] = [];
  const close = async (): Promise<string | undefined> => {
    for (const work of last.splice(0)) await work().catch(() => undefined);
    return lock.release();
  };
  return {
    ...run,
    ...(lock.note === undefined ? {} : { note: lock.note }),
    check: lock.check,
    atClose: (work) => last.push(work),
    close,
    async abandon() {
      const begun = run.resumed || (await hasWork(run.path).catch(() => true));
      if (!begun)
        for (const name of [...BEFORE_FIRST_STEP, METRICS_FILE])
          await unlink(path.join(run.path, name)).catch(() => undefined);
      await close();
      if (!begun) await removeEmpty(made);
    },
  };
};

/** Whether a folder holds more than what precedes the first step, and a log without a line. */
async function hasWork(folder: string): Promise<boolean> {
  for (const name of await entriesOf(folder)) {
    if (BEFORE_FIRST_STEP.has(name)) continue;
    if (name !== METRICS_FILE || (await stat(path.join(folder, name))).size > 0) return true;
  }
  return false;
}

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

/** The names in a folder without locks and what killed writers left. */
const entriesOf = async (folder: string): Promise<readonly string[]> =>
  (await readdir(folder)).filter((name) => !isLockName(name) && !/^\..*\.tmp-\d+-[0-9a-f]{12}$/s.test(name));

/** A new run takes an empty folder, or one where a run of ours was killed before it began. */
async function refuseUsed(folder: string, config: Plain): Promise<void> {
  const names = await entriesOf(folder).catch((error) => {
    throw asFileError(error, folder);
  });
  if (names.length === 0) return;
  const ours = names.includes(CONFIG_FILE) && (await isOurs(path.join(folder, CONFIG_FILE), config));
  if (ours && names.every((name) => BEFORE_FIRST_STEP.has(name))) return;
  if (ours || (names.includes(CONFIG_FILE) && names.includes(METRICS_FILE)))
    throw new FileError(folder, '', 'holds a run already; go on with --resume, or choose another folder');
  throw new FileError(folder, '', 'is not empty; choose another folder');
}

/** Whether a configuration has settings of a run, and nothing else. */
async function isOurs(file: string, config: Plain): Promise<boolean> {
  const found = await readJson(file).catch(() => null);
  if (typeof found !== 'object' || found === null || Array.isArray(found)) return false;
  const keys = Object.keys(found);
  return keys.length > 0 && keys.every((key) => Object.hasOwn(config as object, key));
}

/** Sweeps the folder and every folder below it; links are not followed. */
async function sweepAll(folder: string): Promise<void> {
  await sweepTemporary(folder, true);
  for (const entry of await readdir(folder, { withFileTypes: true })) {
    if (entry.isDirectory()) await sweepAll(path.join(folder, entry.name));
  }
}

/**
 * Checkpoints: the whole state of a run as one safetensors file per saved step, `checkpoints/step-000123.safetensors`.
 * The metadata hold the host's part of the state and the run's configuration (texts as hashes) as JSON, and the SHA-256 of the whole file
 * (its own digits read as zeros), so that a changed bit anywhere is noticed. The same state gives the same bytes.
 */
import { createHash } from 'node:crypto';
import { type FileHandle, open, readdir, unlink } from 'node:fs/promises';
import path from 'node:path';
import { z } from 'zod';
import { asFileError, FileError, quoted, systemCode } from '../../models/io/error.ts';
import { type Json, parseJson } from '../../models/io/json.ts';
import { openSafetensors } from '../../models/io/safetensors.ts';
import { streamSafetensors, type TensorOut } from '../../models/io/safetensors-write.ts';
import { makeRunFolder, writeRunFile } from './atomic.ts';
import { canonicalJson, concealed, refuseChanges } from './canonical.ts';
import { CONFIG_FILE, type RunFolder } from './folder.ts';

export const CHECKPOINT_FOLDER = 'checkpoints';
const FORMAT = 'selora-checkpoint-1';
const NAME = /^step-(\d{6,15})\.safetensors$/;
/** Precedes the digest in the header; inside a JSON string its quotes would be escaped, so it occurs once. */
const DIGEST_KEY = '"sha256":"';
const NO_DIGEST = '0'.repeat(64);

/** One tensor on the host. */
export type HostTensor = { readonly shape: readonly number[]; readonly data: Float32Array };
/** The host's part of the state: ranks, history, keys, data cursor, hashes of config and data. */
export interface CheckpointInfo {
  readonly step: number;
  readonly [key: string]: Json;
}
export interface Checkpoint {
  /** In the order of their names. */
  readonly tensors: ReadonlyMap<string, HostTensor>;
  readonly info: CheckpointInfo;
}

const infoSchema = z.looseObject({ step: z.int().min(0) });

/**
 * Writes the state after `info.step` steps; older checkpoints are removed once the new one is safe on the disk.
 * Later ones are removed too: they belong to a future that this run has left (a damaged file, for example).
 * Cost: one pass for the hash, one for the file; no copy of the tensors.
 * @throws RangeError naming the tensor that holds NaN or ±Infinity or does not fill its shape: nothing is written
 * @throws FileError from the disk, or where the run is no longer this process's: older checkpoints are untouched
 */
export async function saveCheckpoint(
  run: RunFolder,
  tensors: ReadonlyMap<string, HostTensor>,
  info: CheckpointInfo,
  options: { readonly keep?: number } = {},
): Promise<void> {
  infoSchema.parse(info);
  await run.check();
  for (const [name, { data }] of tensors) {
    const bad = data.findIndex((x) => !Number.isFinite(x));
    if (bad >= 0) throw new RangeError(`checkpoint of step ${info.step}: ${name}[${bad}] is ${data[bad]}`);
  }
  const out = new Map<string, TensorOut>(
    [...tensors].map(([name, { shape, data }]) => [name, { dtype: 'F32', shape, data }]),
  );
  const [config, text] = [canonicalJson(concealed(run.config)), canonicalJson(info)];
  const metadata = (sha256: string) => new Map(Object.entries({ format: FORMAT, config, info: text, sha256 }));
  const hash = createHash('sha256');
  await streamSafetensors(out, metadata(NO_DIGEST), async (bytes) => {
    hash.update(bytes);
  });
  const digest = hash.digest('hex');
  const folder = path.join(run.path, CHECKPOINT_FOLDER);
  await makeRunFolder(folder);
  const name = `step-${String(info.step).padStart(6, '0')}.safetensors`;
  await writeRunFile(path.join(folder, name), (write) => streamSafetensors(out, metadata(digest), write));
  await prune(folder, info.step, Math.max(1, options.keep ?? 2));
}

async function prune(folder: string, step: number, keep: number): Promise<void> {
  const all = await list(folder);
  const older = all.filter((found) => found.step <= step).slice(keep);
  for (const { file } of [...all.filter((found) => found.step > step), ...older]) {
    await unlink(file).catch((error) => {
      throw asFileError(error, file, 'removing');
    });
  }
}

/** The checkpoints of a folder, newest first. */
async function list(folder: string): Promise<readonly { readonly step: number; readonly file: string }[]> {
  const names = await readdir(folder).catch((error) => {
    if (systemCode(error) === 'ENOENT') return [];
    throw asFileError(error, folder);
  });
  return names
    .flatMap((name) => {
      const match = NAME.exec(name);
      return match === null ? [] : [{ step: Number(match[1]), file: path.join(folder, name) }];
    })
    .sort((a, b) => b.step - a.step);
}

/** Failures that say nothing about the file: going back to an older one would lose work for no reason. */
const NOT_DAMAGE: ReadonlySet<string | undefined> = new Set(['EACCES', 'EPERM', 'EMFILE', 'ENFILE', 'ENOMEM']);

/**
 * The newest checkpoint that is whole, or undefined if there is none yet.
 * @param run an open run also has its configuration compared with the one that the checkpoint was saved under
 * @param warn gets one line per damaged file that was passed over
 * @param settings `changeable` ones may be others than they were; `defaults` are meant where one is missing: a version
 * before it wrote the file
 * @throws FileError if there are checkpoints and all of them are damaged, or the configuration was changed
 * @example const state = await loadCheckpoint('runs/first')
 */
export async function loadCheckpoint(
  run: RunFolder | string,
  warn: (line: string) => void = (line) => process.stderr.write(`${line}\n`),
  settings: { readonly changeable?: readonly string[]; readonly defaults?: Json } = {},
): Promise<Checkpoint | undefined> {
  const folder = path.join(typeof run === 'string' ? run : run.path, CHECKPOINT_FOLDER);
  const damaged: FileError[] = [];
  for (const { step, file } of await list(folder)) {
    const found = await readUnlessDamaged(file, step);
    if (found instanceof FileError) {
      damaged.push(found);
      continue;
    }
    for (const error of damaged) warn(`warning: ${error.message}; going on from step ${step} instead`);
    if (typeof run !== 'string') {
      const { changeable = [], defaults = {} } = settings;
      const whole = (c: Json): Json => without({ ...(concealed(defaults) as object), ...(c as object) }, changeable);
      const [before, now] = [whole(found.config), whole(concealed(run.config))];
      refuseChanges(path.join(run.path, CONFIG_FILE), before, now);
    }
    return { tensors: found.tensors, info: found.info };
  }
  if (damaged.length > 0) throw damaged[0];
  return undefined;
}

/** The steps a folder has checkpoints of, newest first. */
export const checkpointSteps = async (folder: string): Promise<readonly number[]> =>
  (await list(path.join(folder, CHECKPOINT_FOLDER))).map(({ step }) => step);

/** The checkpoint of one step. @throws FileError where it is not there or damaged */
export async function checkpointAt(folder: string, step: number): Promise<Checkpoint> {
  const found = (await list(path.join(folder, CHECKPOINT_FOLDER))).find((c) => c.step === step);
  if (!found) throw new FileError(folder, CHECKPOINT_FOLDER, `there is none of step ${step}`);
  return readCheckpoint(found.file, step);
}

const without = (config: Json, keys: readonly string[]): Json =>
  typeof config !== 'object' || config === null || Array.isArray(config)
    ? config
    : Object.fromEntries(Object.entries(config).filter(([key]) => !keys.includes(key)));

type Read = Checkpoint & { readonly config: Json };

async function readUnlessDamaged(file: string, step: number): Promise<Read | FileError> {
  try {
    return await readCheckpoint(file, step);
  } catch (error) {
    if (error instanceof FileError && !NOT_DAMAGE.has(systemCode(error.cause))) return error;
    throw error;
  }
}

/** Reads one file and checks everything in it. @throws FileError */
async function readCheckpoint(file: string, step: number): Promise<Read> {
  const source = await openSafetensors(file);
  if (source.metadata.get('format') !== FORMAT) throw new FileError(file, 'format', `is not ${FORMAT}`);
  if ((await digestOf(file)) !== source.metadata.get('sha256')) {
    throw new FileError(file, 'sha256', 'the file is damaged: its contents do not match the checksum in it');
  }
  const json = (field: string) => parseJson(source.metadata.get(field) ?? '', file, { field });
  const info = json('info');
  if (!isInfo(info)) throw new FileError(file, 'info.step', 'is not a step number');
  if (info.step !== step) throw new FileError(file, 'info.step', `is ${info.step}, the name says ${step}`);
  const tensors = new Map<string, HostTensor>();
  for (const name of [...source.tensors.keys()].sort()) {
    const { dtype, shape } = source.tensors.get(name)!;
    if (dtype !== 'F32') throw new FileError(file, `tensor ${quoted(name)}`, `is ${dtype}, expected F32`);
    tensors.set(name, { shape, data: await source.float32(name) });
  }
  return { tensors, info, config: json('config') };
}

function isInfo(info: Json): info is CheckpointInfo {
  return infoSchema.safeParse(info).success;
}

/** SHA-256 of a file whose header has its digest's digits replaced by zeros. Cost: one pass, 4 MiB of memory. */
async function digestOf(file: string): Promise<string> {
  let handle: FileHandle | undefined;
  try {
    handle = await open(file, 'r');
    const hash = createHash('sha256');
    const prefix = Buffer.alloc(8);
    await handle.read(prefix, 0, 8, 0);
    const header = Buffer.alloc(Number(prefix.readBigUInt64LE()));
    await handle.read(header, 0, header.length, 8);
    const at = header.indexOf(DIGEST_KEY) + DIGEST_KEY.length;
    header.write(NO_DIGEST, at, 'latin1');
    hash.update(prefix).update(header);
    const chunk = Buffer.alloc(Math.min(4 << 20, 1 + (await handle.stat()).size));
    for (let position = 8 + header.length; ; ) {
      const { bytesRead } = await handle.read(chunk, 0, chunk.length, position);
      if (bytesRead === 0) return hash.digest('hex');
      hash.update(chunk.subarray(0, bytesRead));
      position += bytesRead;
    }
  } catch (error) {
    throw asFileError(error, file);
  } finally {
    await handle?.close().catch(() => undefined);
  }
}

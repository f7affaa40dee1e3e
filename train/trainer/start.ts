/**
 * A run's beginning, a new one or one to go on with. The order is that of cost: settings, data, base, backend, folder; what
 * can be refused is refused before anything dearer is opened, and nothing is written before everything is checked.
 */
import { stat } from 'node:fs/promises';
import path from 'node:path';
import { type Backend, openBackend } from '../../core/index.ts';
import type { Base } from '../../models/io/base.ts';
import { FileError, systemCode } from '../../models/io/error.ts';
import { type Json, readJson } from '../../models/io/json.ts';
import { type Io, print, UsageError } from '../cli/command.ts';
import { configSchema, type RunConfig } from '../config/config.ts';
import type { StartOptions } from '../config/invocation.ts';
import { type Given, isOpen, resolveConfig, resolveStart, takesBetter } from '../config/resolve.ts';
import { CHANGEABLE, lengthOf, newLength, resumedConfig } from '../config/resume.ts';
import { optionOf } from '../config/setting.ts';
import { writeSplit } from '../data/split.ts';
import { refuseUnfit, settleRun } from '../estimate/index.ts';
import { openBaseAt } from '../model/model.ts';
import { placeOfBase } from '../model/paths.ts';
import { vaeFactor } from '../model/programs.ts';
import { sideOf } from '../model/targets.ts';
import { followedRun, type Peers } from '../parallel/index.ts';
import { type Checkpoint, loadCheckpoint } from '../run/checkpoint.ts';
import { CONFIG_FILE, changeConfig, createRun, openRun, type RunFolder, refuseTaken } from '../run/folder.ts';
import type { PhaseClock } from '../run/phases.ts';
import { readComparison } from '../run/read.ts';
import type { Initial } from '../step/ranks.ts';
import { counted } from '../words/format.ts';
import { initialAdapter, initialLine } from './initial.ts';
import { type Origin, originOf, refuseOtherBase, refuseOtherData } from './origin.ts';
import { type FoundData, findData, type RunData } from './pairs.ts';

/** A run that may begin: its folder, backend and base are open, its data read and split. */
export type Started = {
  readonly run: RunFolder;
  readonly config: RunConfig;
  readonly backend: Backend;
  readonly base: Base;
  readonly data: RunData;
  /** pixels along a side */
  readonly side: number;
  /** updates in all */
  readonly steps: number;
  readonly origin: Origin;
  /** the adapter it begins from */
  readonly initial?: Initial;
  /** where a run that is gone on with stands */
  readonly checkpoint?: Checkpoint;
};

/** Runs to compare with are read when the report is written: hours too late to tell that one is not there. */
const checkCompared = async ({ compare }: RunConfig): Promise<void> =>
  void (await Promise.all(compare.map(readComparison)));

/** Opens the backend of a run, and closes it again where what follows fails. */
async function withBackend<T>(c: RunConfig, io: Io, then: (backend: Backend) => Promise<T>): Promise<T> {
  const backend = await openBackend(c.backend, c.threads === null ? {} : { threads: c.threads });
  try {
    print(io, `backend ${backend.name}: ${backend.device}`);
    return await then(backend);
  } catch (error) {
    await backend.close();
    throw error;
  }
}

/**
 * A new run or an old one; undefined when only the estimate was asked for. Of several processes the first makes or opens
 * the folder, and settles what is left open; the others follow it.
 * @throws one line; no folder was made then
 */
export async function start(given: Given, clock: PhaseClock, io: Io, peers?: Peers): Promise<Started | undefined> {
  const options = resolveStart(given);
  if (given.steps !== undefined && given.epochs !== undefined)
    throw new UsageError('--steps and --epochs exclude each other: updates, or passes over the training pairs');
  if (options.resume !== undefined) return resumeRun(options.resume, given, clock, io, peers);
  const shared = peers && isOpen(given, 'accumulate') ? { ...given, accumulate: peers.size } : given;
  return options.estimate ? estimateRun(shared, io) : newRun(shared, options, clock, io, peers);
}

const BETTER =
  'ranks by gain, the better way on these pairs (RESULTS.md, "Where ranks belong"); as the paper gives them: --method selora';

/** @throws RangeError where there is no micro-batch for each process */
function refuseIdle({ accumulate }: RunConfig, peers: Peers | undefined): void {
  if (peers && accumulate < peers.size)
    throw new RangeError(
      `--accumulate ${accumulate}: ${peers.size} processes share the micro-batches of a step, expected at least ${peers.size}`,
    );
}

async function estimateRun(given: Given, io: Io): Promise<undefined> {
  const asked = resolveConfig(given);
  const base = await openBaseAt(asked.base, asked.baseConfig);
  const initial = await initialAdapter(asked, base);
  refuseUnfit(asked, base, initial);
  await withBackend(asked, io, async (backend) => {
    await settleRun(given, asked, base, backend, io, initial);
    await backend.close();
  });
}

async function newRun(
  given: Given,
  options: StartOptions,
  clock: PhaseClock,
  io: Io,
  peers: Peers | undefined,
): Promise<Started> {
  const first = resolveConfig(given);
  refuseIdle(first, peers);
  const follows = peers !== undefined && !peers.leads;
  if (options.out !== undefined && !follows) await refuseTaken(options.out, first);
  await checkCompared(first);
  const found = await clock.time('read data', () => findData(first));
  const asked = withBatch(first, given, found.pairs.train, io);
  const base = await openBaseAt(asked.base, asked.baseConfig);
  const initial = await initialAdapter(asked, base);
  refuseUnfit(asked, base, initial);
  return withBackend(asked, io, async (backend) => {
    type Place = { readonly config: RunConfig; readonly folder: string };
    if (follows) {
      const { config, folder } = await peers.share<Place>(undefined);
      const run = followedRun(folder, false, config as unknown as Json);
      return { run, ...(await madeFrom(config, found, base, clock)), backend, ...(initial ? { initial } : {}) };
    }
    const config = (await settleRun(given, asked, base, backend, io, initial))!;
    const run = await makeFolder(options, config);
    if (run.note !== undefined) print(io, run.note);
    print(io, `run folder ${run.path}`);
    if (takesBetter(given)) print(io, BETTER);
    if (initial) print(io, initialLine(config, initial));
    try {
      await peers?.share<Place>({ config, folder: run.path });
      if (found.split) await writeSplit(path.join(run.path, 'split.json'), found.split);
      return { run, ...(await madeFrom(config, found, base, clock)), backend, ...(initial ? { initial } : {}) };
    } catch (error) {
      await run.abandon();
      throw error;
    }
  });
}

/** A batch that was asked for must be there; the default one takes what there is. @throws RangeError */
function withBatch(c: RunConfig, given: Given, pairs: number, io: Io): RunConfig {
  if (c.batch <= pairs || pairs === 0) return c;
  if (given.batch !== undefined)
    throw new RangeError(
      `--batch ${c.batch}: the training part has ${counted(pairs, 'pair')}, expected at most as many`,
    );
  print(io, `the training part has ${counted(pairs, 'pair')}: --batch ${pairs} instead of ${c.batch}`);
  return resolveConfig({ ...given, batch: pairs });
}

/** The folder that was told, or one of that time and data; a number tells runs of one second apart. */
async function makeFolder({ out, name }: StartOptions, c: RunConfig): Promise<RunFolder> {
  if (out !== undefined) return createRun(out, c as unknown as Json);
  if (name !== undefined) return createRun(path.join('runs', name), c as unknown as Json);
  const stamp = new Date().toISOString().slice(0, 19).replace('T', '-').replaceAll(':', '');
  const plain = path.join('runs', `${stamp}-${path.basename(path.resolve(c.data))}-${c.method}`);
  for (let n = 1; ; n++) {
    const folder = n === 1 ? plain : `${plain}-${n}`;
    if (!(await isThere(folder))) return createRun(folder, c as unknown as Json);
  }
}

const isThere = (folder: string): Promise<boolean> =>
  stat(folder).then(
    () => true,
    (error) => systemCode(error) !== 'ENOENT',
  );

const madeFrom = async (config: RunConfig, found: FoundData, base: Base, clock: PhaseClock) => {
  const side = sideOf(base, config);
  return {
    config,
    base,
    side,
    data: clock.sync('read data', () => found.at(side, vaeFactor(base.configs.vae))),
    steps: lengthOf(config, found.pairs.train),
    origin: await originOf(found.hash, base),
  };
};

/** What a setting is where nobody gave it: a run of an earlier version, without a setting of today, has that. */
const DEFAULTS = configSchema.parse({});

const PLACES = ['data', 'base', 'baseConfig'] as const;

/** Before the first checkpoint nothing tells whether another place holds the same. @throws RangeError */
function refuseMoved(begun: RunConfig, config: RunConfig): void {
  const moved = PLACES.find((key) => begun[key] !== config[key]);
  if (moved)
    throw new RangeError(
      `${optionOf(moved)}: this run has no checkpoint yet that tells what was there; give it to a new run instead`,
    );
}

/** @throws FileError where a place of a run is gone, with how to name its new one */
async function refuseGone(key: (typeof PLACES)[number], config: RunConfig): Promise<void> {
  const place = config[key];
  if (place !== undefined && !(await isThere(placeOfBase(place))))
    throw new FileError(place, '', `no such file or folder; where it lies now is told by ${optionOf(key)}`);
}

/** The run as a process sees it that is not the first: the folder is the first one's to lock and to change. */
async function followRun(folder: string): Promise<Awaited<ReturnType<typeof openRun>>> {
  const config = await readJson(path.join(folder, CONFIG_FILE));
  return { run: followedRun(folder, true, config), config };
}

async function resumeRun(
  folder: string,
  given: Given,
  clock: PhaseClock,
  io: Io,
  peers: Peers | undefined,
): Promise<Started> {
  const follows = peers !== undefined && !peers.leads;
  const { run, config: written } = await (follows ? followRun : openRun)(folder);
  try {
    const begun = resolveConfig(written as Given);
    const config = resumedConfig(begun, given);
    refuseIdle(config, peers);
    await checkCompared(config);
    const checkpoint = await loadCheckpoint(run, undefined, {
      changeable: CHANGEABLE,
      defaults: DEFAULTS as unknown as Json,
    });
    if (!checkpoint) refuseMoved(begun, config);
    if (config.data !== DEFAULTS.data) await refuseGone('data', config);
    const found = await clock.time('read data', () => findData(config));
    if (checkpoint) refuseOtherData(folder, checkpoint.info, found.hash);
    const [from, to] = [begun, config].map((c) => lengthOf(c, found.pairs.train)) as [number, number];
    const longer = newLength(config, { done: checkpoint?.info.step ?? 0, from, to });
    await refuseGone('base', config);
    await refuseGone('baseConfig', config);
    const base = await openBaseAt(config.base, config.baseConfig);
    const initial = checkpoint ? undefined : await initialAdapter(config, base);
    refuseUnfit(config, base, initial);
    const made = await madeFrom(config, found, base, clock);
    const note = checkpoint && refuseOtherBase(folder, checkpoint.info, made.origin);
    return await withBackend(config, io, async (backend) => {
      for (const line of [run.note, longer, note]) if (line !== undefined) print(io, line);
      const changed = follows ? run : await changeConfig(run, config as unknown as Json);
      return { run: changed, ...made, backend, ...(checkpoint ? { checkpoint } : {}), ...(initial ? { initial } : {}) };
    });
  } catch (error) {
    await run.close();
    throw error;
  }
}

/** The step that is recorded: the next one after a checkpoint of a run, or the first of a run that would begin with a base. */
import path from 'node:path';
import { type Backend, openBackend, read } from '../../core/index.ts';
import type { Base } from '../../models/io/base.ts';
import { readJson } from '../../models/io/json.ts';
import { type Io, print, UsageError } from '../cli/command.ts';
import type { RunConfig } from '../config/config.ts';
import { type Given, resolveConfig } from '../config/resolve.ts';
import { lengthOf } from '../config/resume.ts';
import { type Encoded, encodePairs, pairsPerEncoding } from '../model/encode.ts';
import { loadBase, openBaseAt } from '../model/model.ts';
import type { Pipeline } from '../model/pipeline.ts';
import { vaeFactor } from '../model/programs.ts';
import { sideOf, targetsOf } from '../model/targets.ts';
import { adamDefaults } from '../optimise/optimizer.ts';
import { ratesOf } from '../optimise/rates.ts';
import { type Checkpoint, checkpointAt, checkpointSteps } from '../run/checkpoint.ts';
import { CONFIG_FILE } from '../run/folder.ts';
import { batchSource } from '../step/batches.ts';
import { lookedAt } from '../step/begin.ts';
import { chosenOf } from '../step/ranks.ts';
import { type Batch, createSteps, hyperOf } from '../step/step.ts';
import { initialAdapter } from '../trainer/initial.ts';
import { originOf, refuseOtherBase, refuseOtherData } from '../trainer/origin.ts';
import { findData, type RunPair } from '../trainer/pairs.ts';
import { standingOf } from '../trainer/standing.ts';
import type { Recording, Told } from './record.ts';

/** A step with all it takes, its backend open. */
export interface Source {
  readonly recording: Recording;
  readonly told: Told;
  /** the updates the run has in all */
  readonly steps: number;
}

/** Which step, after which checkpoint; 0: before any. */
async function chosenStep(run: string, asked: number | undefined, steps: number): Promise<number> {
  const saved = await checkpointSteps(run);
  const kept = [...saved, 0];
  // of the run's own steps the last; where only its end is kept, the one that would follow
  if (asked === undefined) return (saved.find((step) => step < steps) ?? kept[0]!) + 1;
  if (kept.includes(asked - 1)) return asked;
  throw new UsageError(
    `--step ${asked}: this run can be stopped before ${kept.map((step) => step + 1).join(', ')}: there its checkpoints are`,
  );
}

/** The run's own settings with what of them may be changed for a look. */
async function configOf(run: string | undefined, given: Given): Promise<RunConfig> {
  if (run === undefined) return resolveConfig(given);
  const written = (await readJson(path.join(run, CONFIG_FILE))) as Given;
  return resolveConfig({ ...written, ...given });
}

/** Opens everything, in the order of cost. @throws one line, before anything dear is opened where that can be told */
export async function openSource(
  run: string | undefined,
  given: Given,
  { step: asked }: { readonly step?: number },
  io: Io,
): Promise<Source> {
  const c = await configOf(run, given);
  const found = await findData(c);
  const steps = lengthOf(c, found.pairs.train);
  const step = run === undefined ? 1 : await chosenStep(run, asked, steps);
  const checkpoint = step > 1 ? await checkpointAt(run!, step - 1) : undefined;
  if (checkpoint) refuseOtherData(run!, checkpoint.info, found.hash);
  if (c.batch > found.pairs.train)
    throw new RangeError(`--batch ${c.batch}: there are ${found.pairs.train} training pairs`);
  const base = await openBaseAt(c.base, c.baseConfig);
  if (checkpoint) refuseOtherBase(run!, checkpoint.info, await originOf(found.hash, base));
  const backend = await openBackend(c.backend, c.threads === null ? {} : { threads: c.threads });
  try {
    print(io, `backend ${backend.name}: ${backend.device}`);
    const side = sideOf(base, c);
    const pairs = found.at(side, vaeFactor(base.configs.vae)).train;
    const recording = await recordingOf({ c, base, backend, side, pairs, steps, step, checkpoint });
    const name = run === undefined ? path.basename(path.resolve(c.base)) : path.basename(path.resolve(run));
    const { reports, ...rest } = recording;
    return { recording: rest, told: { source: name, method: c.method, step, reports }, steps };
  } catch (error) {
    await backend.close();
    throw error;
  }
}

interface Parts {
  readonly c: RunConfig;
  readonly base: Base;
  readonly backend: Backend;
  readonly side: number;
  readonly pairs: readonly RunPair[];
  readonly steps: number;
  readonly step: number;
  readonly checkpoint: Checkpoint | undefined;
}

async function recordingOf(parts: Parts): Promise<Recording & { readonly reports: readonly string[] }> {
  const { c, base, backend, steps, step, checkpoint } = parts;
  const { pipeline } = await loadBase(base, backend, { weights: c.weights });
  const places = targetsOf(base, c);
  const initial = checkpoint ? undefined : await initialAdapter(c, base);
  const chosen = chosenOf(c, initial);
  const configs = { unet: pipeline.configs.unet, text: pipeline.configs.text };
  const frozen = { unet: pipeline.unet, text: pipeline.text };
  const testing = chosen.method.growth?.due(c, step, steps) ?? false;
  const { begin } = chosen.method;
  const looks = checkpoint || initial || !begin ? 0 : begin.batches(c);
  const source = await batchesOf(parts, pipeline, [
    [step - 1, testing],
    ...Array.from({ length: looks }, (_, i) => [i, false] as const),
  ]);
  const [own, ...looked] = source.batches;
  const loss = { configs, checkpointBlocks: c.checkpointBlocks };
  const kept =
    begin && looked.length > 0
      ? await lookedAt({ ...chosen, seed: c.seed }, { ...loss, backend }, places, frozen, looked.flat())
      : undefined;
  const { state, progress } = standingOf(checkpoint, chosen, c.seed, places, backend, kept);
  const adam = { ...adamDefaults, weightDecay: c.weightDecay, decoupled: c.optimizer === 'adamw' };
  const all = { ...chosen, ...loss };
  return {
    backend,
    loss: all as never,
    steps: createSteps({ ...all, backend, adam, clip: c.clip }) as never,
    frozen,
    places,
    state: state as never,
    ranks: progress.ranks,
    batches: own!,
    hyper: hyperOf(chosen.method, ratesOf(c, Math.min(step, steps) - 1, steps), c.seed, step, steps),
    reports: source.reports,
  };
}

/**
 * Batches of some steps. Of the pairs only those are encoded that stand in them, in the groups a run encodes them in, so
 * that the numbers are its own; where pictures are of several sizes, all are.
 */
async function batchesOf(
  { c, backend, side, pairs, steps }: Parts,
  { vae, tokenizer, configs, schedule }: Pipeline,
  wanted: readonly (readonly [step: number, testing: boolean])[],
): Promise<{ readonly batches: readonly (readonly Batch[])[]; readonly reports: readonly string[] }> {
  const along = side / vaeFactor(configs.vae);
  const latent = [along, along, configs.vae.latent_channels] as const;
  const empty = tokenizer.encode('', c.captionChunks).ids;
  const made = (all: readonly Encoded[]) => {
    const source = batchSource(c, schedule, all, latent, empty, steps);
    return wanted.map(([step, testing]) => source.training(step, testing));
  };
  const group = pairsPerEncoding(side);
  const used = new Set<number>();
  const nothing = new Float32Array(latent[0] * latent[1] * latent[2]);
  const plain = pairs.every(({ sized }) => sized === undefined);
  const stand = pairs.map(
    (p, i): Encoded => ({
      id: p.id,
      text: p.text,
      ids: tokenizer.encode(p.text, c.captionChunks).ids,
      cut: false,
      get mean() {
        used.add(i);
        return nothing;
      },
      std: nothing,
    }),
  );
  if (plain) made(stand);
  const places = pairs.flatMap((_, i) => {
    const first = i - (i % group);
    const near = Array.from({ length: group }, (_, k) => first + k);
    return !plain || near.some((k) => used.has(k)) ? [i] : [];
  });
  const encoded = await encodePairs(
    backend,
    vae,
    configs.vae,
    tokenizer,
    places.map((i) => pairs[i]!),
    side,
    { captionChunks: c.captionChunks },
  );
  const known = new Map(places.map((i, k) => [i, encoded[k]!]));
  const batches = made(stand.map((s, i) => known.get(i) ?? s));
  return { batches, reports: await reportsOf(batches[0]!, encoded) };
}

/** What each sample of some micro-batches is told, by its ids. */
async function reportsOf(batches: readonly Batch[], pairs: readonly Encoded[]): Promise<readonly string[]> {
  const byIds = new Map(pairs.map(({ ids, text }) => [ids.join(), text]));
  const out: string[] = [];
  for (const { ids, t } of batches) {
    const all = Array.from(await read(ids), Number);
    const each = all.length / t.shape[0]!;
    for (let at = 0; at < all.length; at += each)
      out.push(byIds.get(all.slice(at, at + each).join()) ?? 'no report (caption dropout)');
  }
  return out;
}

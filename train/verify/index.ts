/**
 * All checks a golden directory can be put to: which files each one reads, and whether a backend takes part in it.
 * `npm run verify` prints them; reading order: golden.ts, compare.ts, then any check.
 */
import { existsSync } from 'node:fs';
import { readdir } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { z } from 'zod';
import type { Backend } from '../../core/index.ts';
import { verifyAdapterOutputs } from './adapter-outputs.ts';
import { DEBUG_FILES, verifyDebug } from './debug.ts';
import { GENERATE_FILES, verifyGenerate } from './generate.ts';
import { type GoldenCase, readGoldenJson } from './golden.ts';
import { verifyHalfStorage } from './half-storage.ts';
import { verifyInterchange } from './interchange.ts';
import { LEGACY_FILES, verifyLegacyNames } from './legacy-names.ts';
import { verifyWeights, WEIGHT_FILES } from './loss-weights.ts';
import { LR_FILES, verifyLr } from './lr.ts';
import { METHODS_LORA_FILES, verifyMethodsLora } from './methods-lora.ts';
import { MODEL_FILES, verifyModels } from './models.ts';
import { OPS_FILES, unknownOps, verifyOps } from './ops/index.ts';
import { SHAPES_FILES, verifyShapes } from './parameter-shapes.ts';
import { verifyResize } from './resample.ts';
import { SAMPLER_FILES, verifySamplers } from './samplers.ts';
import { SCHEDULER_FILES, verifySchedulers } from './schedulers.ts';
import { SELORA_FILES } from './selora/data.ts';
import { verifySelora } from './selora/index.ts';
import { TOKENIZER_FILES, verifyTokenizer } from './tokenizer.ts';

export type CheckName =
  | 'ops'
  | 'models'
  | 'f16'
  | 'debug'
  | 'selora'
  | 'generate'
  | 'schedulers'
  | 'samplers'
  | 'tokenizer'
  | 'shapes'
  | 'names'
  | 'weights'
  | 'methods'
  | 'resize'
  | 'interchange';

type Cases = AsyncIterable<GoldenCase>;
export type GoldenCheck = {
  /** as in `--only`; several checks may share one */
  readonly name: CheckName;
  /** what must be in the directory; without all of them there is nothing to check */
  readonly files: readonly string[];
  /** also needs the model that `interchange/` was made for */
  readonly needsBase?: true;
} & (
  | { readonly on: 'host'; readonly run: (directory: string, base: string) => Cases }
  | { readonly on: 'backend'; readonly run: (directory: string, backend: Backend, base: string) => Cases }
);

/** In the order in which a failure explains the later ones. */
export const CHECKS: readonly GoldenCheck[] = [
  { name: 'tokenizer', files: TOKENIZER_FILES, on: 'host', run: (directory) => verifyTokenizer(directory) },
  { name: 'shapes', files: SHAPES_FILES, on: 'host', run: verifyShapes },
  { name: 'names', files: LEGACY_FILES, on: 'host', run: verifyLegacyNames },
  { name: 'schedulers', files: SCHEDULER_FILES, on: 'host', run: verifySchedulers },
  { name: 'samplers', files: SAMPLER_FILES, on: 'host', run: verifySamplers },
  { name: 'weights', files: WEIGHT_FILES, on: 'host', run: verifyWeights },
  { name: 'methods', files: LR_FILES, on: 'host', run: verifyLr },
  { name: 'resize', files: ['resize.json', 'resize.safetensors'], on: 'host', run: verifyResize },
  { name: 'interchange', files: ['interchange'], on: 'host', needsBase: true, run: verifyInterchange },
  { name: 'ops', files: OPS_FILES, on: 'backend', run: verifyOps },
  { name: 'debug', files: [...DEBUG_FILES, ...MODEL_FILES], on: 'backend', run: verifyDebug },
  { name: 'models', files: MODEL_FILES, on: 'backend', run: verifyModels },
  { name: 'f16', files: MODEL_FILES, on: 'backend', run: verifyHalfStorage },
  { name: 'generate', files: GENERATE_FILES, on: 'backend', run: verifyGenerate },
  { name: 'selora', files: SELORA_FILES, on: 'backend', run: verifySelora },
  { name: 'methods', files: METHODS_LORA_FILES, on: 'backend', run: verifyMethodsLora },
  {
    name: 'interchange',
    files: ['interchange'],
    on: 'backend',
    needsBase: true,
    run: (directory, backend, base) => verifyAdapterOutputs(directory, base, backend),
  },
];
export const CHECK_NAMES: readonly CheckName[] = [...new Set(CHECKS.map((c) => c.name))];

/** Checks whose files are all there. */
export const checksFor = (directory: string, only: readonly CheckName[] = CHECK_NAMES): readonly GoldenCheck[] =>
  CHECKS.filter((c) => only.includes(c.name) && c.files.every((file) => existsSync(join(directory, file))));

/** Entries of JSON files that a check reads or that only describe; whatever else there is has no check. */
const SECTIONS: Readonly<Record<string, readonly string[]>> = {
  'methods.json': ['about', 'optim'],
  'models.json': ['about', 'tensors', 'unet', 'vae', 'clip'],
  'ops.json': ['about', 'cases'],
  'schedulers.json': ['about', 'tensors', 'settings', 'trajectories', 'rule', 'generate'],
};

/** What else the directory holds: files no check reads, and parts of files. */
export async function uncheckedIn(directory: string): Promise<string[]> {
  const covered = new Set(checksFor(directory).flatMap((c) => c.files));
  for (const { name } of missingIn(directory)) covered.add(name);
  const rest = (await readdir(directory)).filter((name) => !covered.has(name) && !/^(\.|README)/.test(name));
  for (const [file, known] of Object.entries(SECTIONS)) {
    if (!covered.has(file)) continue;
    // a file too broken to be read has failed its own check already
    const parts = await readGoldenJson(directory, file, z.record(z.string(), z.unknown())).catch(() => ({}));
    rest.push(...Object.keys(parts).flatMap((p) => (known.includes(p) ? [] : `${file}: ${p}`)));
    if (file === 'schedulers.json' && 'generate' in parts && !existsSync(join(directory, 'tiny-sd')))
      rest.push(`${file}: generate (there is no tiny-sd)`);
  }
  if (covered.has('ops.json')) rest.push(...(await unknownOps(directory).catch(() => [])));
  return rest.sort();
}

/** Files that no check can use because a file beside them is missing: half a pair is a broken copy, not a smaller set. */
export function missingIn(
  directory: string,
  only: readonly CheckName[] = CHECK_NAMES,
): { readonly name: string; readonly lacks: string }[] {
  const there = (file: string) => existsSync(join(directory, file));
  const used = new Set(checksFor(directory).flatMap((c) => c.files));
  const found = new Map<string, string>();
  for (const check of CHECKS.filter((c) => only.includes(c.name))) {
    const lacks = check.files.filter((file) => !there(file)).join(', ');
    for (const name of check.files)
      if (name !== 'tiny-sd' && there(name) && !used.has(name) && !found.has(name)) found.set(name, lacks);
  }
  return [...found].map(([name, lacks]) => ({ name, lacks }));
}

/**
 * The model the files of `interchange/` were made for: `tiny-sd` of this directory, of the others that are checked with
 * it, or of a first set beside it.
 */
export const baseFor = (directory: string, others: readonly string[]): string | undefined =>
  [directory, ...others, join(directory, '..', 'golden')]
    .filter((d) => basename(d) !== '')
    .map((d) => join(d, 'tiny-sd'))
    .find((model) => existsSync(join(model, 'unet', 'config.json')));

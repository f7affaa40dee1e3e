/** What a run says of itself beside its settings and rows: `facts.json`, written at each validation and at the end. */
import { execFile } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';
import { type Backend, compile, read, type Tensor } from '../../core/index.ts';
import { capacityOf } from '../../models/clip/tokenizer.ts';
import type { AdapterFile } from '../../models/io/adapter-file.ts';
import { sizeOfAdapter } from '../../models/io/adapter-size.ts';
import type { Adapter } from '../../selora/adapter.ts';
import { changeNorms } from '../../selora/merge.ts';
import { moduleName, networks } from '../../selora/networks.ts';
import type { RunConfig } from '../config/config.ts';
import type { LoadedModel } from '../model/model.ts';
import type { LoadedAdapters } from '../model/pipeline.ts';
import { writeRunFile } from '../run/atomic.ts';
import type { RunFolder } from '../run/folder.ts';
import type { PhaseClock } from '../run/phases.ts';
import { FACTS_FILE } from '../run/read.ts';
import type { FactsInput } from '../run/record.ts';
import type { RunData, RunPair } from './pairs.ts';
import type { Validated } from './validate.ts';

/** The parts of a run that its facts are taken from. */
export interface FactSources {
  readonly run: RunFolder;
  readonly config: RunConfig;
  readonly model: LoadedModel;
  readonly backend: Backend;
  readonly data: RunData;
  readonly encoded: { readonly validation: readonly unknown[] };
  readonly clock: PhaseClock;
  readonly command: string;
}

/** ‖ΔW‖/‖W‖ of every adapted module. */
async function changes(
  { backend, model }: Pick<FactSources, 'backend' | 'model'>,
  adapters: LoadedAdapters,
): Promise<Map<string, number>> {
  const norms = compile((weight: Tensor, a: Adapter) => changeNorms(weight, a, adapters.scale), {
    backend,
    name: 'norms',
  });
  const out = new Map<string, number>();
  const weightAt = (tree: unknown, p: string): Tensor =>
    (p.split('.').reduce((node, key) => (node as Record<string, unknown>)[key], tree) as { weight: Tensor }).weight;
  for (const n of networks)
    for (const [p, a] of Object.entries(adapters[n])) {
      const r = norms(weightAt(model.pipeline[n], p), a);
      out.set(moduleName(n, p), (await read(r.delta))[0]! / (await read(r.weight))[0]!);
    }
  norms.trim();
  return out;
}

/** Every adapted module: rank, size, how much it was changed and how many of its ranks carry that. */
export async function moduleFacts(
  sources: Pick<FactSources, 'backend' | 'model'>,
  file: AdapterFile,
  adapters: LoadedAdapters,
): Promise<NonNullable<FactsInput['modules']>> {
  const change = await changes(sources, adapters);
  return [...file.modules].map(([p, m]) => ({
    path: p,
    rank: m.rank,
    dIn: m.dIn,
    dOut: m.dOut,
    change: change.get(p) ?? Number.NaN,
    used: sizeOfAdapter(m).usedRanks,
  }));
}

const root = path.resolve(import.meta.dirname, '../..');

/** Version of this software, and the commit where it runs from a checkout. */
async function version(): Promise<string> {
  const { version: number } = JSON.parse(await readFile(path.join(root, 'package.json'), 'utf8')) as {
    version: string;
  };
  const commit = await promisify(execFile)('git', ['rev-parse', '--short=12', 'HEAD'], {
    cwd: root,
    timeout: 5000,
  }).then(
    ({ stdout }) => `, commit ${stdout.trim()}`,
    () => '',
  );
  return `${number}${commit}`;
}

/** What of the facts is known from the start of a run. */
export async function firstFacts(f: FactSources): Promise<FactsInput> {
  const { config: c, model, backend, data } = f;
  const { tokenizer } = model.pipeline;
  const cut = (pairs: readonly RunPair[]) => pairs.filter((p) => tokenizer.encode(p.text, c.captionChunks).cut).length;
  const part = (name: 'train' | 'validation' | 'test') => ({
    name,
    images: data[name].length,
    patients: data.patients[name],
    cut: cut(data[name]),
  });
  const cpus = os.cpus();
  return {
    command: f.command,
    base: await model.base.hash(),
    environment: [
      { label: 'selora-ts', value: await version() },
      { label: 'backend', value: `${backend.name}: ${backend.device}` },
      { label: 'processor', value: `${cpus[0]?.model.trim() ?? 'unknown'}, ${cpus.length} threads` },
      { label: 'system', value: `${os.type()} ${os.release()} ${os.arch()}` },
      { label: 'Node.js', value: process.version },
      { label: 'base', value: `${path.basename(c.base)}, sha256 ${(await model.base.hash()).slice(0, 12)}` },
    ],
    data: {
      source: data.source,
      splits: [{ ...part('train'), hash: data.hash }, part('validation'), part('test')],
      limit: capacityOf(tokenizer.config, c.captionChunks),
      duplicates: data.duplicates,
    },
    warnings: [...data.warnings],
  };
}

/** How far a run has come. */
export interface FactProgress {
  readonly seconds: number;
  readonly baseline: Validated | null;
}

/** Writes `facts.json`; `last`: how far the run is, or what is known only at its end. */
export async function writeFacts(
  f: FactSources,
  first: FactsInput,
  progress: FactProgress,
  last: Pick<FactsInput, 'modules' | 'parameters' | 'weights' | 'unfinished'>,
): Promise<void> {
  const n = f.encoded.validation.length;
  const facts: FactsInput = {
    ...first,
    ...last,
    seconds: progress.seconds,
    phases: f.clock.rows(),
    ...(n > 0 ? { validation: { n, ...(progress.baseline ? { base: progress.baseline } : {}) } } : {}),
  };
  await writeRunFile(path.join(f.run.path, FACTS_FILE), `${JSON.stringify(facts, null, 1)}\n`);
}

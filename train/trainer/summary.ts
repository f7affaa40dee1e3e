/** A finished run as the plain value its report is drawn from. */
import path from 'node:path';
import { compile, read, type Tensor } from '../../core/index.ts';
import { capacityOf } from '../../models/clip/tokenizer.ts';
import type { AdapterFile } from '../../models/io/adapter-file.ts';
import type { Adapter } from '../../selora/adapter.ts';
import { changeNorms } from '../../selora/merge.ts';
import { methodOf } from '../../selora/methods/registry.ts';
import type { Obeyed } from '../metrics/obedience.ts';
import type { LoadedAdapters } from '../model/model.ts';
import type { RunSummaryInput } from '../report/summary.ts';
import type { Comparison } from '../run/read.ts';
import type { Finish } from './finish.ts';
import type { RunPair } from './pairs.ts';

/** ‖ΔW‖/‖W‖ of every adapted module. */
async function changes(f: Finish, adapters: LoadedAdapters): Promise<Map<string, number>> {
  const norms = compile((weight: Tensor, a: Adapter) => changeNorms(weight, a, adapters.scale), {
    backend: f.backend,
    name: 'norms',
  });
  const out = new Map<string, number>();
  const weightAt = (tree: unknown, p: string): Tensor =>
    (p.split('.').reduce((node, key) => (node as Record<string, unknown>)[key], tree) as { weight: Tensor }).weight;
  for (const [n, prefix] of [
    ['unet', 'unet'],
    ['text', 'text_encoder'],
  ] as const)
    for (const [p, a] of Object.entries(adapters[n])) {
      const r = norms(weightAt(f.model.pipeline[n], p), a);
      out.set(`${prefix}.${p}`, (await read(r.delta))[0]! / (await read(r.weight))[0]!);
    }
  norms.trim();
  return out;
}

/** the picture files of one held-out report */
export const sampleFile = (i: number, what: 'real' | 'base' | 'adapted'): string =>
  `samples/${String(i + 1).padStart(2, '0')}-${what}.png`;

export interface Drawn {
  readonly file: AdapterFile;
  readonly adapters: LoadedAdapters;
  readonly shown: readonly RunPair[];
  readonly obeyed?: Obeyed;
  readonly memorisation?: RunSummaryInput['memorisation'];
  readonly others: readonly Comparison[];
}

export async function summarise(
  f: Finish,
  { file, adapters, shown, obeyed, memorisation, others }: Drawn,
): Promise<RunSummaryInput> {
  const { config: c, model, backend, data, clock, run } = f;
  const facts = methodOf(c.method).facts(c);
  const change = await changes(f, adapters);
  const picture = (i: number, what: 'real' | 'base' | 'adapted') => ({
    label: what,
    image: { path: path.join(run.path, sampleFile(i, what)) },
  });
  const validationRows = f.metrics.flatMap((m) =>
    m.validation ? [{ step: m.step, ...(m.validation as { loss: number; shuffled: number }) }] : [],
  );
  const { tokenizer } = model.pipeline;
  const cut = (pairs: readonly RunPair[]) => pairs.filter((p) => tokenizer.encode(p.text, c.captionChunks).cut).length;
  return {
    name: path.basename(run.path),
    method: c.method,
    seconds: f.progress.seconds,
    ...(facts.lambda === null || facts.testEvery === null ? {} : { lambda: facts.lambda, testEvery: facts.testEvery }),
    command: f.command,
    config: Object.entries(c).map(([label, value]) => ({ label, value: String(value) })),
    environment: [
      { label: 'backend', value: `${backend.name}: ${backend.device}` },
      { label: 'Node.js', value: process.version },
      { label: 'base', value: `${path.basename(c.base)}, sha256 ${(await model.base.hash()).slice(0, 12)}` },
    ],
    metrics: f.metrics.map((m) => ({
      step: m.step,
      loss: m.loss as number,
      lr: m.lr as number,
      totalRank: m.totalRank as number,
      seconds: m.seconds as number,
      memory: m.memory as number,
    })),
    ...(validationRows.length > 0
      ? {
          validation: {
            n: f.encoded.validation.length,
            rows: validationRows,
            ...(f.progress.baseline ? { base: f.progress.baseline } : {}),
            ...(f.progress.best ? { bestStep: f.progress.best.step } : {}),
          },
        }
      : {}),
    expansions: f.metrics.flatMap((m) =>
      (
        (m.tests as
          | {
              module: string;
              fiOriginal: number;
              fiExpanded: number;
              ratio: number;
              expanded: boolean;
              rankAfter: number;
              key: string;
            }[]
          | undefined) ?? []
      ).map(({ key, module, fiOriginal, fiExpanded, ratio, expanded, rankAfter }) => ({
        step: m.step,
        module,
        fiOriginal,
        fiExpanded,
        ratio,
        expanded,
        rankAfter,
        keyHash: key,
      })),
    ),
    modules: [...file.modules].map(([p, m]) => ({
      path: p,
      rank: m.rank,
      dIn: m.dIn,
      dOut: m.dOut,
      change: change.get(p) ?? Number.NaN,
    })),
    samples: shown.map((p, i) => ({
      report: p.text,
      split: data.test.includes(p) ? 'test' : 'validation',
      pictures: [
        picture(i, 'real'),
        picture(i, 'base'),
        {
          ...picture(i, 'adapted'),
          ...(obeyed?.verdicts[i] ? { verdict: obeyed.verdicts[i].text, right: obeyed.verdicts[i].right } : {}),
        },
      ],
    })),
    weights: { name: f.final.name, step: f.final.step, of: f.progress.step },
    samplesNote: `The first ${shown.length} held-out reports, not chosen; base and adapted start from the same noise (seed ${c.seed}); ${c.sampler}, ${c.sampleSteps} steps, guidance ${c.guidance}.`,
    phases: clock.rows().map((p) => ({ name: p.name, seconds: p.seconds, calls: p.calls })),
    data: {
      source: data.source,
      splits: [
        {
          name: 'train',
          images: data.train.length,
          patients: data.patients.train,
          cut: cut(data.train),
          hash: data.hash,
        },
        {
          name: 'validation',
          images: data.validation.length,
          patients: data.patients.validation,
          cut: cut(data.validation),
        },
        { name: 'test', images: data.test.length, patients: data.patients.test, cut: cut(data.test) },
      ],
      limit: capacityOf(tokenizer.config, c.captionChunks),
      duplicates: data.duplicates,
    },
    comparisons: others.map(({ method, parameters, validation }) => ({
      method,
      validation: [...validation],
      ...(parameters === undefined ? {} : { parameters }),
    })),
    ...(obeyed
      ? {
          obedience: {
            ...obeyed.table,
            rows: [
              ...obeyed.table.rows,
              ...others.flatMap(({ method, parameters, scores }) =>
                scores ? [{ method, ...(parameters === undefined ? {} : { parameters }), scores: [...scores] }] : [],
              ),
            ],
          },
        }
      : {}),
    ...(memorisation ? { memorisation } : {}),
    warnings: [...data.warnings],
  };
}

/** The end of a run: adapter files, pictures of held-out reports, detectors, and the report. */
import path from 'node:path';
import { type Backend, compile, evaluate, read, type Tensor } from '../core/index.ts';
import type { AdapterFile, AdapterModule } from '../models/io/adapter-file.ts';
import { writeAdapter } from '../models/io/adapter-write.ts';
import { filesOf, writeBase } from '../models/io/base-write.ts';
import { toCheckpoint } from '../models/spec.ts';
import type { Adapter, Adapters } from '../selora/adapter.ts';
import { attach } from '../selora/attach.ts';
import { changeNorms, merge } from '../selora/merge.ts';
import { type Io, print } from './cli.ts';
import { readComparison } from './compare.ts';
import type { RunConfig } from './config.ts';
import { filmReader } from './data/detectors.ts';
import { contactSheet, encodePng, toGrey } from './data/image-write.ts';
import { ALWAYS_NORMAL, judgeFilm, type Obedience, scoreFilms } from './data/obedience.ts';
import type { LoadedModel } from './model.ts';
import type { Encoded } from './pairs.ts';
import type { PhaseClock } from './phases.ts';
import type { RunSummaryInput } from './report/summary.ts';
import { textRankMaps } from './report/terminal.ts';
import { writeReport } from './report/write.ts';
import { makeRunFolder, writeRunFile } from './run/atomic.ts';
import type { RunFolder } from './run/folder.ts';
import type { RunData, RunPair } from './run-data.ts';
import { type Ranks, totalRankOf, unpadded } from './run-state.ts';
import { createGenerator, type Pipeline, type SampleOptions } from './sample.ts';
import type { PerNetwork, State } from './step.ts';
import type { Progress } from './train.ts';

/** The adapters of a state as a file: mixed ranks, scale multiplied into B, the run's facts in the header. */
export async function adapterFileOf(
  state: State,
  ranks: Ranks,
  c: RunConfig,
  baseHash: string,
  history: unknown,
): Promise<AdapterFile> {
  const plain = await unpadded(state, ranks);
  const modules = new Map<string, AdapterModule>();
  for (const [path, a] of plain.unet) modules.set(`unet.${path}`, { ...a, scale: c.scale });
  for (const [path, a] of plain.text) modules.set(`text_encoder.${path}`, { ...a, scale: c.scale });
  const facts = {
    method: c.method,
    lambda: c.lambda,
    testEvery: c.testEvery,
    scale: c.scale,
    gainA: c.gainA,
    seed: c.seed,
    targets: c.targets,
    steps: c.steps,
    base: baseHash,
    history,
  };
  return { modules, metadata: new Map([['selora', JSON.stringify(facts)]]) };
}

export interface Finish {
  readonly run: RunFolder;
  readonly config: RunConfig;
  readonly model: LoadedModel;
  readonly backend: Backend;
  readonly data: RunData;
  readonly encoded: { readonly train: readonly Encoded[]; readonly validation: readonly Encoded[] };
  readonly state: State;
  readonly ranks: Ranks;
  readonly adapted: PerNetwork<Adapters>;
  readonly progress: Progress;
  readonly metrics: readonly ({ readonly step: number } & Readonly<Record<string, unknown>>)[];
  readonly clock: PhaseClock;
  readonly steps: number;
  readonly side: number;
  readonly command: string;
  readonly io: Io;
}

/** ‖ΔW‖/‖W‖ of every adapted module. */
async function changes(f: Finish): Promise<Map<string, number>> {
  const norms = compile((weight: Tensor, a: Adapter) => changeNorms(weight, a, f.config.scale), {
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
    for (const [p, a] of Object.entries(f.adapted[n])) {
      const r = norms(weightAt(f.model.pipeline[n], p), a);
      out.set(`${prefix}.${p}`, (await read(r.delta))[0]! / (await read(r.weight))[0]!);
    }
  norms.trim();
  return out;
}

const questions = (o: Obedience) => [
  { question: 'each lung right', right: o.eachLung.right, n: o.eachLung.of },
  { question: 'side right', right: o.side.right, n: o.side.of },
  { question: 'effusion seen', right: o.hit.effusion.right, n: o.hit.effusion.of },
  { question: 'opacity seen', right: o.hit.opacity.right, n: o.hit.opacity.of },
  { question: 'pneumothorax seen', right: o.hit.pneumothorax.right, n: o.hit.pneumothorax.of },
  { question: 'heart right', right: o.heart.right, n: o.heart.of },
  { question: 'whole report right', right: o.wholeReport.right, n: o.wholeReport.of },
];

/** L2 distance of pictures shrunk to 32×32 grey, standardised. */
function thumbnail(pixels: Float32Array, side: number): Float32Array {
  const n = 32;
  const out = new Float32Array(n * n);
  const cell = side / n;
  for (let y = 0; y < side; y++)
    for (let x = 0; x < side; x++) out[Math.floor(y / cell) * n + Math.floor(x / cell)]! += pixels[(y * side + x) * 3]!;
  const mean = out.reduce((a, b) => a + b, 0) / out.length;
  const sd = Math.sqrt(out.reduce((a, b) => a + (b - mean) ** 2, 0) / out.length) || 1;
  return out.map((v) => (v - mean) / sd);
}
const distance = (a: Float32Array, b: Float32Array): number =>
  Math.sqrt(a.reduce((s, v, i) => s + (v - b[i]!) ** 2, 0) / a.length);

export async function finishRun(f: Finish): Promise<void> {
  const { config: c, model, backend, data, clock, run, io } = f;
  const { pipeline } = model;
  const warnings: string[] = [...data.warnings];
  const others = await Promise.all(c.compare.map(readComparison));

  // files
  const file = await adapterFileOf(
    f.state,
    f.ranks,
    c,
    await model.base.hash(),
    f.metrics.filter((m) => m.tests).map((m) => ({ step: m.step, totalRank: m.totalRank })),
  );
  await writeAdapter(path.join(run.path, 'adapter.safetensors'), file);
  const adaptedPipeline: Pipeline = {
    ...pipeline,
    unet: attach(pipeline.unet, f.adapted.unet, c.scale),
    text: attach(pipeline.text, f.adapted.text, c.scale),
  };
  if (c.merged && model.base.tokenizer) {
    await writeBase(path.join(run.path, 'merged'), {
      ...filesOf(model.base),
      weights: {
        unet: toCheckpoint(evaluate(merge(pipeline.unet, f.adapted.unet, c.scale), backend), 'F32'),
        vae: toCheckpoint(pipeline.vae, 'F32'),
        text_encoder: toCheckpoint(evaluate(merge(pipeline.text, f.adapted.text, c.scale), backend), 'F32'),
      },
    });
  }

  // pictures: the same noise for base and adapted
  const held: readonly RunPair[] = [...data.test, ...data.validation];
  const wanted = data.train[0]?.findings ? Math.max(c.samples, c.obedience) : c.samples;
  const chosen = held.slice(0, wanted);
  const options: SampleOptions = {
    steps: c.sampleSteps,
    guidance: c.guidance,
    sampler: c.sampler as SampleOptions['sampler'],
    seed: c.seed,
    height: f.side,
    width: f.side,
    batch: 8,
  };
  const generate = createGenerator(backend, pipeline.configs);
  const texts = chosen.map((p) => p.text);
  const base = await clock.time('sample pictures', () => generate(pipeline, texts, options));
  const adapted = await clock.time('sample pictures', () => generate(adaptedPipeline, texts, options));
  const real = await Promise.all(chosen.map((p) => p.pixels()));
  const shown = chosen.slice(0, c.samples);
  await makeRunFolder(path.join(run.path, 'samples'));
  for (const [i] of shown.entries()) {
    const name = `samples/${String(i + 1).padStart(2, '0')}`;
    await writeRunFile(path.join(run.path, `${name}-real.png`), await encodePng(real[i]!, f.side));
    await writeRunFile(path.join(run.path, `${name}-base.png`), await encodePng(base[i]!, f.side));
    await writeRunFile(path.join(run.path, `${name}-adapted.png`), await encodePng(adapted[i]!, f.side));
  }
  if (shown.length > 0)
    await writeRunFile(
      path.join(run.path, 'samples/sheet.png'),
      await contactSheet(
        shown.flatMap((p, i) => [
          { pixels: real[i]!, caption: `real: ${p.text}` },
          { pixels: base[i]!, caption: 'base' },
          { pixels: adapted[i]!, caption: 'adapted' },
        ]),
        f.side,
        6,
      ),
    );

  // do the pictures obey the report?
  let obedience: RunSummaryInput['obedience'];
  const verdicts: { text: string; right: boolean }[] = [];
  if (chosen.length > 0 && chosen[0]!.findings) {
    const reader = await clock.time('detectors', async () => filmReader(f.side));
    const told = chosen.map((p) => p.findings!);
    const readings = (pictures: readonly Float32Array[]) => pictures.map((p) => reader(toGrey(p)));
    const [ofBase, ofAdapted] = await clock.time('detectors', async () => [readings(base), readings(adapted)] as const);
    const score = (r: readonly (typeof ofBase)[number][]) =>
      questions(scoreFilms(told.map((t, i) => ({ told: t, read: r[i]! }))));
    for (const [i, r] of ofAdapted.entries()) {
      const v = judgeFilm(told[i]!, r);
      verdicts.push({
        text: v.whole
          ? 'as told'
          : `${[!v.lungs.right && 'right lung', !v.lungs.left && 'left lung', !v.heart && 'heart'].filter(Boolean).join(', ') || 'size or zone'} wrong`,
        right: v.whole,
      });
    }
    obedience = {
      what: `simple detectors on ${chosen.length} held-out reports, guidance ${c.guidance}`,
      rows: [
        { method: 'always normal', scores: score(told.map(() => ALWAYS_NORMAL)) },
        { method: 'base', scores: score(ofBase) },
        { method: c.method, parameters: parameters(file), scores: score(ofAdapted) },
      ],
    };
    await writeRunFile(path.join(run.path, 'obedience.json'), `${JSON.stringify(obedience, null, 1)}\n`);
  }

  // nearest training picture of every sample, against the distance real held-out pictures keep
  let memorisation: RunSummaryInput['memorisation'];
  if (chosen.length >= 4) {
    const thumbs = await clock.time('nearest pictures', () =>
      Promise.all(data.train.slice(0, 2000).map(async (p) => thumbnail(await p.pixels(), f.side))),
    );
    const nearest = (p: Float32Array) =>
      thumbs.reduce(
        (best, t, i) => {
          const d = distance(p, t);
          return d < best.d ? { d, i } : best;
        },
        { d: Number.POSITIVE_INFINITY, i: -1 },
      );
    const realDistances = real.map((p) => nearest(thumbnail(p, f.side)).d).sort((a, b) => a - b);
    const threshold = realDistances[Math.floor(realDistances.length * 0.01)]!;
    const ours = adapted.map((p, sample) => ({ sample, ...nearest(thumbnail(p, f.side)) })).sort((a, b) => a.d - b.d);
    memorisation = {
      measure:
        '32×32 grey, standardised, root mean square difference; threshold: the closest 1% of real held-out pictures',
      threshold,
      below: ours.filter((o) => o.d < threshold).length,
      n: ours.length,
      pairs: await Promise.all(
        ours.slice(0, 3).map(async (o) => ({
          sample: { bytes: await encodePng(adapted[o.sample]!, f.side) },
          nearest: { bytes: await encodePng(await data.train[o.i]!.pixels(), f.side) },
          distance: o.d,
        })),
      ),
    };
  }

  // the report
  const change = await clock.time('report', () => changes(f));
  const rankOf = new Map([...file.modules].map(([p, m]) => [p, m.rank]));
  const validationRows = f.metrics.flatMap((m) =>
    m.validation ? [{ step: m.step, ...(m.validation as { loss: number; shuffled: number }) }] : [],
  );
  const cut = (pairs: readonly Encoded[]) => pairs.filter((p) => p.cut).length;
  const last = f.metrics.at(-1);
  const summary: RunSummaryInput = {
    name: path.basename(run.path),
    method: c.method,
    seconds: f.progress.seconds,
    ...(c.method === 'selora' ? { lambda: c.lambda, testEvery: c.testEvery } : {}),
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
        { label: 'real', image: { path: path.join(run.path, `samples/${String(i + 1).padStart(2, '0')}-real.png`) } },
        { label: 'base', image: { path: path.join(run.path, `samples/${String(i + 1).padStart(2, '0')}-base.png`) } },
        {
          label: 'adapted',
          image: { path: path.join(run.path, `samples/${String(i + 1).padStart(2, '0')}-adapted.png`) },
          ...(verdicts[i] ? { verdict: verdicts[i]!.text, right: verdicts[i]!.right } : {}),
        },
      ],
    })),
    samplesNote: `The first ${shown.length} held-out reports, not chosen; base and adapted start from the same noise (seed ${c.seed}); ${c.sampler}, ${c.sampleSteps} steps, guidance ${c.guidance}.`,
    phases: clock.rows().map((p) => ({ name: p.name, seconds: p.seconds, calls: p.calls })),
    data: {
      source: data.source,
      splits: [
        {
          name: 'train',
          images: data.train.length,
          patients: data.patients.train,
          cut: cut(f.encoded.train),
          hash: data.hash,
        },
        {
          name: 'validation',
          images: data.validation.length,
          patients: data.patients.validation,
          cut: cut(f.encoded.validation),
        },
        { name: 'test', images: data.test.length, patients: data.patients.test },
      ],
      duplicates: data.duplicates,
    },
    comparisons: others.map(({ method, parameters, validation }) => ({
      method,
      validation: [...validation],
      ...(parameters === undefined ? {} : { parameters }),
    })),
    ...(obedience
      ? {
          obedience: {
            ...obedience,
            rows: [
              ...obedience.rows,
              ...others.flatMap(({ method, parameters, scores }) =>
                scores ? [{ method, ...(parameters === undefined ? {} : { parameters }), scores: [...scores] }] : [],
              ),
            ],
          },
        }
      : {}),
    ...(memorisation ? { memorisation } : {}),
    warnings,
  };
  await clock.time('report', () => writeReport(summary, run.path));

  // the last words on the terminal
  print(io, textRankMaps(rankOf, io.stdout.columns ?? 100));
  print(io, `total rank ${totalRankOf(f.ranks)} on ${rankOf.size} modules, ${parameters(file)} adapter parameters`);
  const best = f.progress.best;
  if (best && f.progress.baseline)
    print(
      io,
      `validation loss ${best.loss.toFixed(5)} at step ${best.step} (untouched base ${f.progress.baseline.loss.toFixed(5)}; last step's training loss ${(last?.loss as number | undefined)?.toFixed(5) ?? '-'})`,
    );
  if (obedience)
    for (const row of obedience.rows)
      print(io, `  ${row.method.padEnd(14)} ${row.scores.map((s) => `${s.question} ${s.right}/${s.n}`).join(', ')}`);
  print(io, `report ${path.join(run.path, 'report.html')}`);
}

const parameters = (file: AdapterFile): number =>
  [...file.modules.values()].reduce((n, m) => n + m.A.length + m.B.length, 0);

/**
 * A run as its folder tells it: settings, rows of the metrics, facts, results of the metrics, samples. What the report,
 * `--compare` and `inspect` read; each part may be missing, so that a run that was stopped at step 0 still has a page.
 */
import { z } from 'zod';
import type { Json } from '../../models/io/json.ts';
import { defaultMethod } from '../../selora/methods/registry.ts';

/**
 * A measured number. Unlike `z.number()` it lets NaN and ±∞ through (a diverged loss is a fact to draw, not a
 * reason to have no report), and reads JSON's `null` as NaN because that is what `JSON.stringify(NaN)` writes.
 */
export const measured = z
  .union([z.custom<number>((v) => typeof v === 'number', 'expected a number'), z.null()])
  .transform(
    // null is only ever NaN that went through a JSON file
    (v): number => v ?? Number.NaN,
  );
export const count = z.int().nonnegative();

/** A label with a value that is already text: `{ label: 'backend', value: 'wasm, 2 threads' }`. */
export const fact = z.strictObject({ label: z.string(), value: z.string(), note: z.string().optional() });

/** Most reports whose pictures a page or a sheet holds; a run that is scored by its pictures draws hundreds. */
export const SHOWN = 48;
/** A picture in the run's folder, by a name the run gave it. */
export const pictureFile = z.string().regex(/^samples\/[\w.-]+\.png$/, 'expected samples/NAME.png');

/** One line of `metrics.jsonl`: an optimizer step. `seconds` counts from the start of the run, `memory` is live bytes. */
export const metricRow = z.strictObject({
  step: count,
  loss: measured,
  lr: measured.optional(),
  /** norm of the whole gradient, before it is clipped */
  gradNorm: measured.optional(),
  totalRank: count.optional(),
  seconds: measured.optional(),
  memory: measured.optional(),
  /** at a test that gave ranks by gain: what each of its samples, a report at a timestep, had to do with their gains (`part` of the sum) */
  asked: z.array(z.strictObject({ report: z.string(), t: count, part: measured })).optional(),
});

/**
 * Losses on the fixed grid of noise and timesteps: with each picture's own report and, `shuffled`, with another
 * picture's. `gapError` is the standard error of their difference, pictures as the samples; `byTimestep` the first of
 * them at each timestep of the grid.
 */
export const validationLosses = z.strictObject({
  loss: measured,
  shuffled: measured.optional(),
  gapError: measured.optional(),
  byTimestep: z.array(z.strictObject({ t: count, loss: measured })).optional(),
});
export const validationRow = validationLosses.extend({ step: count });

/**
 * One test of one module and what was decided: FI scores of eq. 4 before and with the candidate column; of a test by gain
 * the ranks added, the parameters of one, the expected gain, what a step of it alone brought, σ of the strongest direction and how much of the other half
 * it catches, the samples that carried the gain (their place in `asked` of the step, their part of it), the ranks lost and by how
 * much the loss was expected to miss them. In a long run a row may stand for neighbouring tests of its module (`tests`; it grew in `grown` of them):
 * their last step and scores, `expanded` where it grew at all.
 */
export const expansionRow = z.strictObject({
  step: count,
  module: z.string(),
  fiOriginal: measured.optional(),
  fiExpanded: measured.optional(),
  ratio: measured.optional(),
  added: count.optional(),
  cost: count.optional(),
  gain: measured.optional(),
  brought: measured.optional(),
  sigma: measured.optional(),
  caught: measured.optional(),
  carried: z.array(z.tuple([count, measured])).optional(),
  lost: count.optional(),
  missed: measured.optional(),
  expanded: z.boolean(),
  rankAfter: count,
  expectedRatio: measured.optional(),
  tests: count.optional(),
  grown: count.optional(),
});

/** An adapted linear; `change` = ‖ΔW‖/‖W‖ (Frobenius), `used` = participation ratio of ΔW's singular values. */
const moduleRow = z.strictObject({
  path: z.string(),
  rank: count,
  dIn: count.optional(),
  dOut: count.optional(),
  change: measured.optional(),
  used: measured.optional(),
});

/** Exclusive wall time of one phase, so that the phases add up to the run; `peakBytes`: the process's memory at most. */
const phase = z.strictObject({
  name: z.string(),
  seconds: measured,
  calls: count.optional(),
  peakBytes: measured.optional(),
});

/** What the run was trained on. `cut` = captions longer than `limit` ids, `shared`: pictures that other parts have too. */
const dataFacts = z.strictObject({
  source: z.string(),
  splits: z.array(
    z.strictObject({
      name: z.string(),
      images: count,
      patients: count.optional(),
      cut: count.optional(),
      hash: z.string().optional(),
    }),
  ),
  limit: count.default(77),
  duplicates: count.optional(),
  facts: z.array(fact).default([]),
});

/** A held-out report with its pictures in display order; `right`: the detectors' verdict on the picture. */
export const sampleSchema = z.strictObject({
  report: z.string(),
  split: z.string(),
  note: z.string().optional(),
  pictures: z.array(
    z.strictObject({
      label: z.string(),
      file: pictureFile,
      /** what `generate --seed` draws it from */
      seed: count.optional(),
      verdict: z.string().optional(),
      right: z.boolean().optional(),
    }),
  ),
});

/** `facts.json`: what a run says of itself beside its settings and its rows. */
export const factsSchema = z.strictObject({
  command: z.string().default(''),
  /** hash of the base's weights */
  base: z.string().optional(),
  seconds: measured.optional(),
  environment: z.array(fact).default([]),
  /** the validation grid: number of pictures, the untouched base's losses */
  validation: z.strictObject({ n: count, base: validationLosses.optional() }).optional(),
  modules: z.array(moduleRow).default([]),
  /** numbers that were trained; of an older run without them they follow from ranks and sizes */
  parameters: count.optional(),
  /** Which weights the adapter, the pictures and the ranks are of; missing for the last ones of a run without validation. */
  weights: z.strictObject({ name: z.enum(['best', 'last']), step: count, of: count }).optional(),
  /** How far a run is that still goes on, or was stopped. */
  unfinished: z.strictObject({ step: count, of: count }).optional(),
  phases: z.array(phase).default([]),
  data: dataFacts.optional(),
  warnings: z.array(z.string()).default([]),
});
export type Facts = z.output<typeof factsSchema>;
export type FactsInput = Readonly<z.input<typeof factsSchema>>;

export const runRecordSchema = factsSchema.extend({
  name: z.string().min(1),
  /** where the pictures lie */
  folder: z.string().default(''),
  method: z.string().default(defaultMethod),
  lambda: measured.optional(),
  testEvery: count.optional(),
  /** the settings as `config.json` has them */
  settings: z.record(z.string(), z.custom<Json>()).default({}),
  metrics: z.array(metricRow).default([]),
  validations: z.array(validationRow).default([]),
  expansions: z.array(expansionRow).default([]),
  samples: z.array(sampleSchema).default([]),
  /** per metric what it measured; its own schema reads it */
  results: z.record(z.string(), z.custom<Json>()).default({}),
});
/** What a caller writes: defaults may be left out, numbers may be NaN. */
export type RunRecordInput = Readonly<z.input<typeof runRecordSchema>>;

/** A run, and those it is compared with. */
export type RunRecord = Readonly<z.output<typeof runRecordSchema>> & { readonly compared: readonly Compared[] };
/** Another run beside this one: what the pages draw of it. */
export interface Compared {
  /** `LoRA r=4` */
  readonly label: string;
  readonly parameters?: number;
  readonly validations: RunRecord['validations'];
  readonly results: RunRecord['results'];
  readonly method: string;
}
export type ExpansionRow = RunRecord['expansions'][number];
export type ModuleRow = RunRecord['modules'][number];
export type ValidationRow = RunRecord['validations'][number];
export type Sample = RunRecord['samples'][number];
export type Fact = z.output<typeof fact>;

/**
 * Checks a record at the border.
 * @throws Error one line that names the field: `run: metrics[3].loss: expected a number`
 * @example parseRecord({ name: 'demo' }).metrics // []
 */
export function parseRecord(input: unknown, compared: readonly Compared[] = []): RunRecord {
  const result = runRecordSchema.safeParse(input);
  if (result.success) return { ...result.data, compared };
  const issue = result.error.issues[0]!;
  const path = issue.path.map((p) => (typeof p === 'number' ? `[${p}]` : `.${String(p)}`)).join('');
  throw new Error(`run: ${path.replace(/^\./, '') || 'record'}: ${issue.message}`);
}

/** Numbers that were trained, else of A and B in the file: Σ rank · (d_in + d_out); undefined where a size is unknown. */
export function trainedParameters(run: Pick<RunRecord, 'modules' | 'parameters'>): number | undefined {
  if (run.parameters !== undefined) return run.parameters;
  const total = run.modules.reduce((sum, m) => sum + m.rank * ((m.dIn ?? Number.NaN) + (m.dOut ?? Number.NaN)), 0);
  return run.modules.length === 0 || Number.isNaN(total) ? undefined : total;
}

/** Lowest finite validation loss and its step. */
export function bestValidation(
  rows: readonly Pick<ValidationRow, 'step' | 'loss'>[],
): { step: number; loss: number } | undefined {
  const finite = rows.filter((r) => Number.isFinite(r.loss));
  return finite.length === 0 ? undefined : finite.reduce((a, b) => (b.loss < a.loss ? b : a));
}

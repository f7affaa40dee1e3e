/**
 * What a run tells its report: one plain, validated value.
 *
 * The trainer fills it, `writeReport` draws it; nothing here computes. Every section but the name may be
 * empty, so that a run that was stopped at step 0 still gets a page.
 */
import { z } from 'zod';
import { defaultMethod } from '../../selora/methods/registry.ts';

/**
 * A measured number. Unlike `z.number()` it lets NaN and ±∞ through (a diverged loss is a fact to draw, not a
 * reason to have no report), and reads JSON's `null` as NaN because that is what `JSON.stringify(NaN)` writes.
 */
const measured = z.union([z.custom<number>((v) => typeof v === 'number', 'expected a number'), z.null()]).transform(
  // null is only ever NaN that went through a JSON file
  (v): number => v ?? Number.NaN,
);

const count = z.int().nonnegative();

/** A picture: PNG or JPEG bytes, or a file that holds them. Re-encoded before it enters the page. */
const picture = z.union([
  z.strictObject({ path: z.string() }),
  z.strictObject({ bytes: z.custom<Uint8Array>((v) => v instanceof Uint8Array, 'expected bytes') }),
]);

/** A label with a value that is already text: `{ label: 'backend', value: 'wasm, 2 threads' }`. */
const fact = z.strictObject({ label: z.string(), value: z.string(), note: z.string().optional() });

/** One line of `metrics.jsonl`: an optimizer step. `seconds` counts from the start of the run, `memory` is live bytes. */
const metricRow = z.strictObject({
  step: count,
  loss: measured,
  lr: measured.optional(),
  totalRank: count.optional(),
  seconds: measured.optional(),
  memory: measured.optional(),
});

/** One validation on the fixed noise/timestep grid; `shuffled` is the same with each report given to another picture. */
const validationRow = z.strictObject({ step: count, loss: measured, shuffled: measured.optional() });

/** One expansion test of one module: FI scores of eq. 4 before and with the candidate column, and what was decided. */
const expansionRow = z.strictObject({
  step: count,
  module: z.string(),
  fiOriginal: measured,
  fiExpanded: measured,
  ratio: measured,
  expanded: z.boolean(),
  rankAfter: count,
  keyHash: z.string().optional(),
  expectedRatio: measured.optional(),
});

/** An adapted linear at the end of the run; `change` = ‖ΔW‖/‖W‖ (Frobenius). */
const moduleRow = z.strictObject({
  path: z.string(),
  rank: count,
  dIn: count.optional(),
  dOut: count.optional(),
  change: measured.optional(),
});

/** One held-out report with its pictures in display order; `right` of `n` = the detectors' verdict on the picture. */
const sample = z.strictObject({
  report: z.string(),
  split: z.string(),
  note: z.string().optional(),
  pictures: z.array(
    z.strictObject({
      label: z.string(),
      image: picture,
      verdict: z.string().optional(),
      right: z.boolean().optional(),
    }),
  ),
});

/** Where time and memory went: exclusive wall time of one phase, so that the phases add up to the run. */
const phase = z.strictObject({
  name: z.string(),
  seconds: measured,
  calls: count.optional(),
  peakBytes: measured.optional(),
});

/** What the run was trained on. `cut` = captions longer than `limit` ids. */
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

/** How many findings each method drew as the report says: rows = methods, `scores` = `right` of `n` per question. */
const obedience = z.strictObject({
  what: z.string(),
  rows: z.array(
    z.strictObject({
      method: z.string(),
      parameters: count.optional(),
      scores: z.array(z.strictObject({ question: z.string(), right: count, n: count })),
    }),
  ),
});

/** Nearest training picture of every sample: an alarm for memorised pictures. */
const memorisation = z.strictObject({
  measure: z.string(),
  threshold: measured,
  below: count,
  n: count,
  pairs: z
    .array(z.strictObject({ sample: picture, nearest: picture, distance: measured, label: z.string().optional() }))
    .default([]),
});

export const runSummarySchema = z.strictObject({
  name: z.string().min(1),
  question: z.string().default('Does the adapted model draw what the report says?'),
  answer: z.string().optional(),
  method: z.string().default(defaultMethod),
  started: z.string().optional(),
  seconds: measured.optional(),
  lambda: measured.optional(),
  testEvery: count.optional(),
  command: z.string().default(''),
  headlines: z.array(fact).default([]),
  config: z.array(fact).default([]),
  environment: z.array(fact).default([]),
  metrics: z.array(metricRow).default([]),
  validation: z
    .strictObject({
      n: count,
      what: z.string().default('mean squared error on a fixed grid of noise and timesteps'),
      base: validationRow.omit({ step: true }).optional(),
      rows: z.array(validationRow),
      bestStep: count.optional(),
    })
    .optional(),
  comparisons: z
    .array(z.strictObject({ method: z.string(), parameters: count.optional(), validation: z.array(validationRow) }))
    .default([]),
  expansions: z.array(expansionRow).default([]),
  modules: z.array(moduleRow).default([]),
  samples: z.array(sample).default([]),
  /** Which weights the adapter, the pictures and the ranks are of; missing for the last ones of a run without validation. */
  weights: z.strictObject({ name: z.enum(['best', 'last']), step: count, of: count }).optional(),
  /** How the pictures were drawn: seeds, guidance, steps, whether they were chosen. */
  samplesNote: z.string().default(''),
  phases: z.array(phase).default([]),
  data: dataFacts.optional(),
  obedience: obedience.optional(),
  memorisation: memorisation.optional(),
  warnings: z.array(z.string()).default([]),
});

/** What a caller writes: defaults may be left out, numbers may be NaN. */
export type RunSummaryInput = Readonly<z.input<typeof runSummarySchema>>;
/** What the report reads: complete and checked. */
export type RunSummary = Readonly<z.output<typeof runSummarySchema>>;
export type ExpansionRow = RunSummary['expansions'][number];
export type ModuleRow = RunSummary['modules'][number];
export type Sample = RunSummary['samples'][number];
export type Picture = z.output<typeof picture>;
export type Fact = z.output<typeof fact>;

/**
 * Checks a summary at the border.
 * @throws Error one line that names the field: `report: metrics[3].loss: expected a number`
 * @example parseSummary({ name: 'demo' }).metrics // []
 */
export function parseSummary(input: unknown): RunSummary {
  const result = runSummarySchema.safeParse(input);
  if (result.success) return result.data;
  const issue = result.error.issues[0]!;
  const path = issue.path.map((p) => (typeof p === 'number' ? `[${p}]` : `.${String(p)}`)).join('');
  throw new Error(`report: ${path.replace(/^\./, '') || 'summary'}: ${issue.message}`);
}

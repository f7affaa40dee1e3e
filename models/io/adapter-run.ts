/**
 * What an adapter says about the run that made it, in the header's key `selora`: enough to read λ, to draw the rank
 * maps and to notice the wrong base, without the run folder.
 */
import { z } from 'zod';
import type { AdapterFile } from './adapter-file.ts';
import { FileError, printable } from './error.ts';
import { parseJson } from './json.ts';

export const RUN_KEY = 'selora';

const count = z.int().min(0);

/** Known keys are checked, others pass: newer programs may say more. */
export const runSchema = z.looseObject({
  format: z.literal('selora/1'),
  /** What trained it. */
  method: z.string().min(1).max(64),
  /** Expansion where FI_expanded / FI_original is above this. */
  lambda: z.number().nullable(),
  /** Steps between two tests. */
  testEvery: count.nullable(),
  /** s of the run: W₀ + s·A·B. It is multiplied into B in the file. */
  scale: z.number(),
  /** `a` of the Kaiming-uniform initialiser, √5 for PEFT's; λ means nothing without it. */
  initA: z.number(),
  steps: count,
  /** Pieces of 77 ids that a caption could take; absent: one. */
  captionChunks: z.int().min(1).max(64).optional(),
  /** `Base.hash()` of the model that was adapted. */
  baseHash: z.string().regex(/^[0-9a-f]{64}$/),
  /** Every expansion in order. */
  rankHistory: z.array(z.object({ step: count, module: z.string(), rank: count, ratio: z.number().nullable() })),
});

export type RunFacts = z.output<typeof runSchema>;

/** The adapter with the run's facts in its metadata. */
export function withRun(adapter: AdapterFile, run: RunFacts): AdapterFile {
  return { ...adapter, metadata: new Map([...adapter.metadata, [RUN_KEY, JSON.stringify(run)]]) };
}

/**
 * The facts of the run that made an adapter; undefined for adapters of other programs.
 * @throws FileError naming the key that is wrong
 */
export function runOf(adapter: AdapterFile, file: string): RunFacts | undefined {
  const text = adapter.metadata.get(RUN_KEY);
  if (text === undefined) return undefined;
  const field = `__metadata__.${RUN_KEY}`;
  const result = runSchema.safeParse(parseJson(text, file, { field }));
  if (result.success) return result.data;
  const [{ path, message }] = result.error.issues;
  throw new FileError(file, [field, ...path.map(String)].join('.'), printable(message));
}

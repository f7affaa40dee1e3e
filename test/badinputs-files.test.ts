/** Every weights file of the bad-inputs folder gets its verdict. The folder is optional: SELORA_BADINPUTS or ../shared/badinputs. */
import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { FileError } from '../models/io/error.ts';
import { openSafetensors } from '../models/io/safetensors.ts';
import { type BadCase, badInputs, expectRefusal } from './bad-inputs.ts';

const corpus = badInputs();

describe.runIf(corpus !== undefined)('badinputs: safetensors', () => {
  for (const bad of corpus?.cases.filter((c) => c.kind === 'safetensors') ?? []) {
    it(`${bad.id}: ${bad.expect}`, async () => {
      const file = path.join(corpus!.folder, bad.file!);
      const before = performance.now();
      const outcome = await readAll(file).catch((error: unknown) => error);
      expect(performance.now() - before).toBeLessThan((bad.limits?.seconds ?? 60) * 1000);
      if (bad.expect === 'reject' || (bad.expect === 'either' && outcome instanceof Error)) expectRefusal(bad, outcome);
      else expectValues(bad, outcome);
      expect(Object.getOwnPropertyNames(Object.prototype)).not.toContain('dtype');
    });
  }
});

type Read = ReadonlyMap<string, { dtype: string; shape: readonly number[]; data: readonly number[] }>;

async function readAll(file: string): Promise<Read> {
  const opened = await openSafetensors(file);
  const out = new Map<string, { dtype: string; shape: readonly number[]; data: readonly number[] }>();
  for (const [name, { dtype, shape }] of opened.tensors) {
    out.set(name, { dtype, shape, data: [...(await opened.float64(name))] });
  }
  return out;
}

function expectValues(bad: BadCase, outcome: unknown): void {
  if (outcome instanceof Error) throw outcome;
  for (const [name, wanted] of Object.entries(bad.value?.tensors ?? {})) {
    const got = (outcome as Read).get(name);
    expect(got).toEqual({
      dtype: wanted.dtype,
      shape: wanted.shape,
      data: wanted.data.map((x) => expect.closeTo(Number(x), 12)),
    });
  }
}

/**
 * Weights files, configurations and model folders of the bad-inputs corpus get their verdicts. The corpus is optional
 * (SELORA_BADINPUTS or ../shared/badinputs); models/io/safetensors.test.ts and models/io/base.test.ts hold cases of our own.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { textEncoderSpec } from '../../models/clip/text-encoder.ts';
import { openBase } from '../../models/io/base.ts';
import { openSafetensors } from '../../models/io/safetensors.ts';
import { checkWeights } from '../../models/io/weights.ts';
import { PARTS } from '../../models/names.ts';
import { specShapes } from '../../models/spec.ts';
import { unetSpec } from '../../models/unet/index.ts';
import { vaeSpec } from '../../models/vae/index.ts';
import { type BadCase, badInputs, expectRefusal, materialised } from '../support/bad-inputs.ts';
import { cpuSeconds } from '../support/cpu-seconds.ts';

const corpus = badInputs();
const casesOf = (...kinds: string[]) => corpus?.cases.filter((c) => kinds.includes(c.kind)) ?? [];

/** Runs a case within its time limit and compares the outcome with its verdict. */
async function judge<T>(bad: BadCase, open: () => Promise<T>): Promise<T | undefined> {
  const [outcome, seconds] = await cpuSeconds(() =>
    open().then(
      (value) => ({ value }),
      (error: unknown) => ({ error }),
    ),
  );
  expect(seconds).toBeLessThan(2 * (bad.limits?.seconds ?? 60)); // the first use of a reader is compiled in it
  expect(Object.getOwnPropertyNames(Object.prototype)).not.toContain('dtype');
  if ('value' in outcome && bad.expect !== 'reject') return outcome.value;
  if ('error' in outcome && bad.expect === 'accept') throw outcome.error;
  expectRefusal(bad, 'error' in outcome ? outcome.error : undefined);
  return undefined;
}

describe.runIf(corpus !== undefined)('bad inputs: safetensors', () => {
  it.each(casesOf('safetensors').map((bad) => [bad.id, bad.expect, bad] as const))(
    '%s: %s',
    async (_id, _expect, bad) => {
      const file = path.join(corpus!.folder, bad.file!);
      const read = await judge(bad, async () => {
        const opened = await openSafetensors(file);
        const values = new Map<string, Float64Array>();
        for (const name of opened.tensors.keys()) values.set(name, await opened.float64(name));
        return { opened, values };
      });
      for (const [name, wanted] of Object.entries(read === undefined ? {} : (bad.value?.tensors ?? {}))) {
        expect(read!.opened.tensors.get(name)).toMatchObject({ dtype: wanted.dtype, shape: wanted.shape });
        expect([...read!.values.get(name)!]).toEqual(wanted.data.map((x) => expect.closeTo(Number(x), 12)));
      }
    },
  );
});

describe.runIf(corpus !== undefined)('bad inputs: configurations and layouts', () => {
  let scratch: string;
  let made: ReadonlyMap<string, string>;
  beforeAll(() => {
    scratch = mkdtempSync(path.join(tmpdir(), 'selora-bad-'));
    const cases = corpus!.cases.filter(({ kind }) => kind === 'config' || kind === 'layout');
    made = materialised({ folder: corpus!.folder, cases }, scratch);
  });
  afterAll(() => rmSync(scratch, { recursive: true, force: true }));

  it.each(casesOf('config', 'layout').map((bad) => [bad.id, bad.expect, bad] as const))(
    '%s: %s',
    async (id, _expect, bad) => {
      const folder = made.get(id)!;
      await judge(bad, async () => {
        const base = await openBase(folder);
        checkWeights(base.parts.unet, specShapes(unetSpec(base.configs.unet)));
        checkWeights(base.parts.vae, specShapes(vaeSpec(base.configs.vae)));
        checkWeights(base.parts.text_encoder, specShapes(textEncoderSpec(base.configs.textEncoder)));
        for (const part of PARTS) for (const weight of base.parts[part].weights.values()) await weight.read();
      });
    },
  );
});

/** The log of a run: what is written is what is read, a resumed run cuts off what it writes again, damage is noticed. */
import { appendFileSync, mkdtempSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { FileError } from '../../../models/io/error.ts';
import { createRun, type RunFolder } from '../../../train/run/folder.ts';
import { type Metrics, openMetrics } from '../../../train/run/metrics.ts';
import { soaks } from '../../support/drivers.ts';
import { systemError, withCalls } from '../../support/faulty-fs.ts';
import { scratchFolder } from '../../support/run-state.ts';

const scratch = scratchFolder();
const newRun = (): Promise<RunFolder> => createRun(path.join(mkdtempSync(path.join(scratch, 'x-')), 'run'), {});
const fileOf = (run: RunFolder) => path.join(run.path, 'metrics.jsonl');
const textOf = (run: RunFolder) => readFileSync(fileOf(run), 'utf8');

/** A log of steps 1 … n, closed. @returns the mark at the end */
async function logged(run: RunFolder, n: number) {
  const metrics = await openMetrics(run, 0);
  for (let step = 1; step <= n; step++) await metrics.write({ step, loss: 1 / step });
  const mark = await metrics.sync();
  await metrics.close();
  return mark;
}

describe('writing', () => {
  it('gives one JSON line per row, keys in their order, readable by anyone', async () => {
    const run = await newRun();
    const metrics = await openMetrics(run, 0);
    await metrics.write({ step: 1, loss: 0.1, nested: { z: [-0, 1e-300], a: null }, left: undefined });
    await metrics.write({ step: 1, ratio: Number.POSITIVE_INFINITY, text: 'a\nb\u2028' });
    await metrics.close();
    await metrics.close();
    expect(textOf(run)).toBe(
      '{"step":1,"loss":0.1,"nested":{"z":[-0,1e-300],"a":null}}\n{"step":1,"ratio":1e999,"text":"a\\nb\u2028"}\n',
    );
    expect(
      textOf(run)
        .trim()
        .split('\n')
        .map((line) => JSON.parse(line)),
    ).toStrictEqual(metrics.rows());
    expect(metrics.rows()[1].ratio).toBe(Number.POSITIVE_INFINITY);
    expect(statSync(fileOf(run)).mode & 0o777).toBe(0o600);
  });
  it('keeps the order of calls that nobody waited for', async () => {
    const run = await newRun();
    const metrics = await openMetrics(run, 0);
    await Promise.all(Array.from({ length: 200 }, (_, i) => metrics.write({ step: i, x: 'y'.repeat((i * 37) % 500) })));
    await metrics.close();
    expect(
      textOf(run)
        .trim()
        .split('\n')
        .map((line) => JSON.parse(line).step),
    ).toEqual(Array.from({ length: 200 }, (_, i) => i));
  });
  it('refuses NaN by its name and a step that lies behind; the file stays as it was', async () => {
    const run = await newRun();
    const metrics = await openMetrics(run, 0);
    await metrics.write({ step: 5, loss: 1 });
    await expect(metrics.write({ step: 6, validation: { loss: Number.NaN } })).rejects.toThrow(
      'metrics of step 6: validation.loss: NaN cannot be written as JSON',
    );
    await expect(metrics.write({ step: 4 })).rejects.toThrow('metrics: step 4 after step 5');
    await expect(metrics.write({ step: 5.5 })).rejects.toThrow('step 5.5');
    await metrics.close();
    expect(textOf(run)).toBe('{"step":5,"loss":1}\n');
  });
  it('leaves no half line when the disk is full, and goes on when there is room', async () => {
    const run = await newRun();
    let metrics: Metrics | undefined;
    let full = false;
    await withCalls(
      (call) => {
        if (call.kind !== 'write' || !full) return;
        // As a full disk does it: some bytes go in, then the error.
        appendFileSync(fileOf(run), call.data.subarray(0, 5));
        throw systemError('ENOSPC');
      },
      async () => {
        metrics = await openMetrics(run, 0);
        await metrics.write({ step: 1 });
        full = true;
        await expect(metrics.write({ step: 2 })).rejects.toThrow(
          /metrics.jsonl: writing: no space left on the device$/,
        );
        full = false;
        await metrics.write({ step: 3 });
      },
    );
    expect(textOf(run)).toBe('{"step":1}\n{"step":3}\n');
    expect(metrics?.rows()).toEqual([{ step: 1 }, { step: 3 }]);
    await metrics?.close();
  });
  it('writes to no file behind a link', async () => {
    const run = await newRun();
    const precious = path.join(run.path, '../precious');
    writeFileSync(precious, '');
    symlinkSync(precious, fileOf(run));
    await expect(openMetrics(run, 0)).rejects.toThrow(/metrics.jsonl: too many symbolic links$/);
  });
});

describe('going on', () => {
  it('cuts off the rows after the checkpoint, by mark and by step alike', async () => {
    for (const byMark of [true, false]) {
      const run = await newRun();
      const mark = await logged(run, 3);
      const kept = textOf(run);
      appendFileSync(fileOf(run), '{"step":4,"loss":1}\n{"step":5,"lo');
      const metrics = await openMetrics(run, 3, byMark ? mark : undefined);
      expect(textOf(run)).toBe(kept);
      expect(metrics.rows().map((row) => row.step)).toEqual([1, 2, 3]);
      await metrics.write({ step: 4, loss: 0.25 });
      expect(await metrics.sync()).toEqual({
        bytes: textOf(run).length,
        sha256: expect.stringMatching(/^[0-9a-f]{64}$/),
      });
      await metrics.close();
    }
  });
  it('ends with the bytes of a log never cut, wherever it was cut', async () => {
    const whole = await newRun();
    const last = await logged(whole, 6);
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: 0, max: 6 }), fc.nat(200), async (upTo, torn) => {
        const run = await newRun();
        const mark = await logged(run, upTo);
        appendFileSync(fileOf(run), textOf(whole).slice(textOf(run).length).slice(0, torn));
        const metrics = await openMetrics(run, upTo, upTo === 0 ? undefined : mark);
        for (let step = upTo + 1; step <= 6; step++) await metrics.write({ step, loss: 1 / step });
        expect(await metrics.sync()).toEqual(last);
        await metrics.close();
        expect(textOf(run)).toBe(textOf(whole));
      }),
      { numRuns: 30 },
    );
  });
  it('notices any changed bit of what it keeps', async () => {
    const run = await newRun();
    const mark = await logged(run, 4);
    const bytes = readFileSync(fileOf(run));
    for (let bit = 0; bit < bytes.length * 8; bit += soaks('bits') ? 1 : 11) {
      const damaged = Buffer.from(bytes);
      damaged[bit >> 3] ^= 1 << (bit & 7);
      writeFileSync(fileOf(run), damaged);
      await expect(openMetrics(run, 4, mark), `bit ${bit}`).rejects.toThrow(/metrics.jsonl: was changed since/);
    }
    writeFileSync(fileOf(run), bytes.subarray(0, -1));
    await expect(openMetrics(run, 4, mark)).rejects.toThrow(/was changed since/);
    await expect(openMetrics(run, 4, { bytes: -1 })).rejects.toThrow(/does not say how far it went/);
    rmSync(fileOf(run));
    await expect(openMetrics(run, 4, mark)).rejects.toThrow(/metrics.jsonl: no such file$/);
  });
  it('without a mark names the line that is no row, unless it lies behind the checkpoint', async () => {
    const run = await newRun();
    const broken = [
      'nonsense',
      '[1]',
      '{"loss":1}',
      '{"step":-1}',
      '{"step":1.5}',
      '{"step":2,"step":2}',
      '',
      '\0\0',
      '{"step":"2"}',
    ];
    for (const line of broken) {
      writeFileSync(fileOf(run), `{"step":1}\n${line}\n{"step":3}\n`);
      const error = await openMetrics(run, 3).catch((reason) => reason);
      expect(error).toBeInstanceOf(FileError);
      expect(error.message).toMatch(
        /metrics.jsonl: line 2: is not a row: expected a JSON object with an integer step$/,
      );
      const metrics = await openMetrics(run, 1);
      await metrics.close();
      expect(textOf(run)).toBe('{"step":1}\n');
    }
  });
});

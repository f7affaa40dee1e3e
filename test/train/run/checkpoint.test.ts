/** Checkpoints: exact round trips, deterministic bytes, every damage noticed, older ones kept until the new one is safe. */
import { createHash } from 'node:crypto';
import { chmodSync, mkdtempSync, readdirSync, readFileSync, renameSync, statSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { FileError } from '../../../models/io/error.ts';
import type { Json } from '../../../models/io/json.ts';
import type { Plain } from '../../../train/run/canonical.ts';
import { type HostTensor, loadCheckpoint, saveCheckpoint } from '../../../train/run/checkpoint.ts';
import { createRun, openRun, type RunFolder } from '../../../train/run/folder.ts';
import { casesOf, patience } from '../../support/drivers.ts';
import { scratchFolder } from '../../support/run-state.ts';
import { infoAt, sameState, stateAt } from '../../support/run-values.ts';

const scratch = scratchFolder();
const newRun = (config: Plain = { steps: 9 }): Promise<RunFolder> =>
  createRun(path.join(mkdtempSync(path.join(scratch, 'x-')), 'run'), config);
const names = (run: RunFolder) => readdirSync(path.join(run.path, 'checkpoints')).sort();
const fileOf = (run: RunFolder, step: number) =>
  path.join(run.path, 'checkpoints', `step-${String(step).padStart(6, '0')}.safetensors`);
const silent = (line: string) => expect.unreachable(line);

describe('round trip', () => {
  it('gives back every bit of tensors and host state', async () => {
    const run = await newRun();
    const special = Float32Array.of(-0, 1e-45, -1.1754942e-38, 3.4028235e38, 1 / 3);
    const info = {
      step: 7,
      'odd name': '\u2028"\ud800',
      minus: -0,
      deep: [[{ a: null, b: true }]],
      big: 2 ** 53 - 1,
      tiny: 5e-324,
    };
    await saveCheckpoint(run, new Map([...stateAt(7), ['special', { shape: [5], data: special }]]), info);
    const found = await loadCheckpoint(run, silent);
    expect(found?.info).toStrictEqual(info);
    expect(Object.is(found?.info.minus, -0)).toBe(true);
    expect(sameState(found!.tensors, new Map([...stateAt(7), ['special', { shape: [5], data: special }]]))).toBe(true);
    expect([...found!.tensors.keys()]).toEqual(['age', 'none', 'special', 'unet/a/B', 'unet/b/A']);
  });
  it('holds for any tensors and any JSON', async () => {
    const run = await newRun();
    const tensors = fc
      .dictionary(
        fc.string({ unit: 'grapheme', maxLength: 12 }),
        fc.array(fc.integer({ min: 0, max: 4 }), { maxLength: 4 }),
      )
      .map(
        (shapes) =>
          new Map(
            Object.entries(shapes).map(([name, shape], k): [string, HostTensor] => {
              const n = shape.reduce((a, b) => a * b, 1);
              return [name, { shape, data: Float32Array.from({ length: n }, (_, i) => Math.sin(i + k)) }];
            }),
          ),
      );
    const json = fc.jsonValue({ maxDepth: 4 }).map((value) => value as Json);
    await fc.assert(
      fc.asyncProperty(tensors, json, async (state, value) => {
        await saveCheckpoint(run, state, { step: 1, value });
        const found = await loadCheckpoint(run, silent);
        expect(sameState(found!.tensors, state)).toBe(true);
        expect(found!.info).toStrictEqual({ step: 1, value });
      }),
      { numRuns: 40 },
    );
  });
  it('has the same bytes for the same state, whatever the order of the map', async () => {
    const [a, b] = [await newRun(), await newRun()];
    await saveCheckpoint(a, stateAt(3), { step: 3, x: 1, y: { p: 2, q: 3 } });
    await saveCheckpoint(b, new Map([...stateAt(3)].reverse()), { y: { q: 3, p: 2 }, x: 1, step: 3 });
    expect(readFileSync(fileOf(a, 3)).equals(readFileSync(fileOf(b, 3)))).toBe(true);
  });
  it('is a safetensors file whose checksum another program can follow', async () => {
    // The rule in words: SHA-256 of the whole file with the 64 digits behind "sha256":" read as zeros.
    const run = await newRun();
    await saveCheckpoint(run, stateAt(3), infoAt(3));
    const bytes = readFileSync(fileOf(run, 3));
    const text = bytes.toString('latin1');
    const header = JSON.parse(text.slice(8, 8 + Number(bytes.readBigUInt64LE())));
    const digest = header.__metadata__.sha256;
    expect(
      createHash('sha256')
        .update(Buffer.from(text.replace(digest, '0'.repeat(64)), 'latin1'))
        .digest('hex'),
    ).toBe(digest);
    expect(header['unet/a/B']).toMatchObject({ dtype: 'F32', shape: [2, 150] });
    expect(JSON.parse(header.__metadata__.config)).toEqual({ steps: 9 });
  });
  it('is private', async () => {
    const run = await newRun();
    await saveCheckpoint(run, stateAt(1), infoAt(1));
    expect(statSync(fileOf(run, 1)).mode & 0o777).toBe(0o600);
    expect(statSync(path.dirname(fileOf(run, 1))).mode & 0o777).toBe(0o700);
  });
});

describe('what is kept', () => {
  it('the newest two, or as many as asked for', async () => {
    const run = await newRun();
    for (const step of [1, 2, 3]) await saveCheckpoint(run, stateAt(step), infoAt(step));
    expect(names(run)).toEqual(['step-000002.safetensors', 'step-000003.safetensors']);
    await saveCheckpoint(run, stateAt(1_000_000), infoAt(1_000_000), { keep: 3 });
    expect(names(run)).toHaveLength(3);
    expect((await loadCheckpoint(run, silent))?.info.step).toBe(1_000_000);
    await saveCheckpoint(run, stateAt(1_000_001), infoAt(1_000_001), { keep: 0 });
    expect(names(run)).toEqual(['step-1000001.safetensors']);
  });
  it('never a step of a future that was left', async () => {
    const run = await newRun();
    for (const step of [10, 20]) await saveCheckpoint(run, stateAt(step), infoAt(step));
    await saveCheckpoint(run, stateAt(15), infoAt(15));
    expect(names(run)).toEqual(['step-000010.safetensors', 'step-000015.safetensors']);
  });
  it('other files in the folder stay', async () => {
    const run = await newRun();
    await saveCheckpoint(run, stateAt(1), infoAt(1), { keep: 1 });
    writeFileSync(path.join(run.path, 'checkpoints/mine.safetensors'), 'x');
    await saveCheckpoint(run, stateAt(2), infoAt(2), { keep: 1 });
    expect(names(run)).toEqual(['mine.safetensors', 'step-000002.safetensors']);
  });
});

describe('nothing is written', () => {
  it('when a tensor or the host state is not finite', async () => {
    const run = await newRun();
    await saveCheckpoint(run, stateAt(1), infoAt(1));
    for (const value of [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY]) {
      const bad = new Map([...stateAt(2), ['unet/x/A', { shape: [3], data: Float32Array.of(0, value, 1) }]]);
      await expect(saveCheckpoint(run, bad, infoAt(2))).rejects.toThrow(
        `checkpoint of step 2: unet/x/A[1] is ${value}`,
      );
      await expect(saveCheckpoint(run, stateAt(2), { step: 2, best: { loss: value } })).rejects.toThrow(
        `best.loss: ${value}`,
      );
    }
    const short = new Map([['w', { shape: [2, 2], data: new Float32Array(3) }]]);
    await expect(saveCheckpoint(run, short, infoAt(2))).rejects.toThrow('w: 12 bytes do not fill F32 [2, 2]');
    await expect(saveCheckpoint(run, stateAt(2), { step: 1.5 })).rejects.toThrow('step');
    expect(names(run)).toEqual(['step-000001.safetensors']);
  });
});

/**
 * Flips bits of the newest checkpoint (that of step 2, beside one of step 1), one at a time: each must be noticed, the file
 * named and the older one used. @returns how many were tried
 */
async function flipBits(run: RunFolder, count: number, load: typeof loadCheckpoint): Promise<number> {
  const file = fileOf(run, 2);
  const whole = readFileSync(file);
  const bits = whole.length * 8;
  // An odd stride meets every region and every bit of a byte.
  const stride = 2 * Math.floor((Math.max(1, bits / count) - 1) / 2) + 1;
  let tried = 0;
  for (let bit = 0; bit < bits; bit += stride, tried++) {
    const bytes = Buffer.from(whole);
    bytes[bit >> 3] ^= 1 << (bit & 7);
    writeFileSync(file, bytes);
    const lines: string[] = [];
    const found = await load(run, (line) => lines.push(line));
    expect(found?.info.step, `bit ${bit}`).toBe(1);
    expect(lines).toHaveLength(1);
    expect(lines[0].startsWith(`warning: ${file}: `) && !lines[0].includes('\n')).toBe(true);
    expect(lines[0]).toContain('going on from step 1 instead');
  }
  return tried;
}

describe('damage', () => {
  it('of any single bit is noticed; the one before is used and the file named', {
    timeout: patience('bits', 60_000),
  }, async () => {
    const run = await newRun();
    for (const step of [1, 2]) await saveCheckpoint(run, stateAt(step, 40), infoAt(step));
    const whole = readFileSync(fileOf(run, 2));
    expect(await flipBits(run, casesOf('bits'), loadCheckpoint)).toBeGreaterThanOrEqual(150);
    writeFileSync(fileOf(run, 2), whole);
    expect((await loadCheckpoint(run, silent))?.info.step).toBe(2);
  });
  it('would be found out in a reader that does not look at the checksum', async () => {
    const run = await newRun();
    for (const step of [1, 2]) await saveCheckpoint(run, stateAt(step, 40), infoAt(step));
    const trusting: typeof loadCheckpoint = async (of, warn) => {
      const bytes = readFileSync(fileOf(run, 2));
      const text = bytes.toString('latin1');
      const at = text.indexOf('"sha256":"') + 10;
      const zeroed = Buffer.from(`${text.slice(0, at)}${'0'.repeat(64)}${text.slice(at + 64)}`, 'latin1');
      bytes.write(createHash('sha256').update(zeroed).digest('hex'), at, 'latin1');
      writeFileSync(fileOf(run, 2), bytes);
      return loadCheckpoint(of, warn);
    };
    await expect(flipBits(run, 100, trusting)).rejects.toThrow(/bit \d+|config\.json/);
  });
  it('by cutting, growing, swapping or emptying is noticed', async () => {
    const run = await newRun();
    for (const step of [1, 2]) await saveCheckpoint(run, stateAt(step), infoAt(step));
    const [file, whole] = [fileOf(run, 2), readFileSync(fileOf(run, 2))];
    const cases: readonly (readonly [Buffer, RegExp])[] = [
      [Buffer.alloc(0), /too short/],
      [whole.subarray(0, 100), /truncated/],
      [whole.subarray(0, -4), /truncated/],
      [Buffer.concat([whole, Buffer.alloc(1)]), /trailing/],
      [Buffer.alloc(whole.length), /length is 0/],
      [Buffer.from('{}'), /too short/],
      [readFileSync(fileOf(run, 1)), /info.step: is 1, the name says 2/],
    ];
    for (const [bytes, message] of cases) {
      writeFileSync(file, bytes);
      const lines: string[] = [];
      expect((await loadCheckpoint(run, (line) => lines.push(line)))?.info.step).toBe(1);
      expect(lines[0]).toMatch(message);
    }
  });
  it('of all of them ends with the newest one named, never with a silent new start', async () => {
    const run = await newRun();
    expect(await loadCheckpoint(run, silent)).toBeUndefined();
    for (const step of [1, 2]) await saveCheckpoint(run, stateAt(step), infoAt(step));
    for (const step of [1, 2]) writeFileSync(fileOf(run, step), 'x');
    await expect(loadCheckpoint(run, silent)).rejects.toThrow(/step-000002.safetensors: header: the file is too short/);
  });
  it('is replaced by the next save', async () => {
    const run = await newRun();
    for (const step of [1, 2]) await saveCheckpoint(run, stateAt(step), infoAt(step));
    writeFileSync(fileOf(run, 2), 'x');
    await saveCheckpoint(run, stateAt(2), infoAt(2));
    expect((await loadCheckpoint(run, silent))?.info.step).toBe(2);
  });
  it('is not what missing permission means: no work is thrown away for it', async () => {
    const run = await newRun();
    for (const step of [1, 2]) await saveCheckpoint(run, stateAt(step), infoAt(step));
    // The superuser reads everything, so a loop of links stands for permission there.
    if (process.getuid?.() === 0) return;
    chmodSync(fileOf(run, 2), 0);
    await expect(loadCheckpoint(run, silent)).rejects.toThrow(/permission denied/);
  });
});

describe('the configuration', () => {
  it('is known by hashes where it is text: no path, name or machine gets into a checkpoint', async () => {
    const canaries = [
      '/home/ann-canary/films',
      'Doe^Jane',
      os.hostname(),
      os.userInfo().username.padEnd(5, '-'),
      os.homedir(),
    ];
    const run = await newRun({ data: canaries[0], list: [canaries[1]], deep: { rest: canaries.slice(2) } });
    await saveCheckpoint(run, stateAt(1), infoAt(1));
    const bytes = readFileSync(fileOf(run, 1));
    for (const canary of canaries) expect(bytes.includes(canary), canary).toBe(false);
    await run.close();
    const file = path.join(run.path, 'config.json');
    writeFileSync(file, readFileSync(file, 'utf8').replace('Doe^Jane', 'Doe^John'));
    const again = await openRun(run.path);
    await expect(loadCheckpoint(again.run, silent)).rejects.toThrow(/config.json: list: was \["sha256:/);
  });
  it('is refused by name if it was changed since', async () => {
    const first = await newRun({ steps: 9 });
    await saveCheckpoint(first, stateAt(1), infoAt(1));
    await first.close();
    const config = path.join(first.path, 'config.json');
    const moved = path.join(first.path, '../moved');
    writeFileSync(config, '{"steps": 10, "lambda": 1.3}');
    const { run } = await openRun(first.path);
    await expect(loadCheckpoint(run, silent)).rejects.toThrow(
      `${config}: lambda: was not set when the run was saved, is 1.3 now (changed as well: steps)`,
    );
    await expect(loadCheckpoint(run, silent)).rejects.toBeInstanceOf(FileError);
    await run.close();
    // Looked at from outside, as `inspect` does, only the file itself counts; and a run may be moved.
    expect((await loadCheckpoint(first.path, silent))?.info.step).toBe(1);
    writeFileSync(config, '{\n"steps":9.0}');
    renameSync(first.path, moved);
    const again = await openRun(moved);
    expect((await loadCheckpoint(again.run, silent))?.info.step).toBe(1);
    await again.run.close();
  });
});

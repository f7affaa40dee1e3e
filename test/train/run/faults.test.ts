/** Failing disks and lost power: every call of a save may fail, every state a crash may leave must open. */
import { cpSync, mkdtempSync, readdirSync, readFileSync } from 'node:fs';
import { open } from 'node:fs/promises';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { asFileError, FileError } from '../../../models/io/error.ts';
import { loadCheckpoint, saveCheckpoint } from '../../../train/run/checkpoint.ts';
import { createRun, openRun, type RunFolder } from '../../../train/run/folder.ts';
import { openMetrics } from '../../../train/run/metrics.ts';
import { type Disk, layOut, statesAfter } from '../../support/crash-states.ts';
import { casesOf, patience } from '../../support/drivers.ts';
import { type Call, systemError, withCalls } from '../../support/faulty-fs.ts';
import { LONG } from '../../support/long.ts';
import { scratchFolder } from '../../support/run-state.ts';
import { infoAt, sameState, stateAt } from '../../support/run-values.ts';

const scratch = scratchFolder();
const fresh = () => path.join(mkdtempSync(path.join(scratch, 'x-')), 'run');

/** Values of a state: 180 kB, so that a file has many sectors to lose. */
const SIZE = 45_000;

const CAUSES = {
  ENOSPC: 'no space left on the device',
  EIO: 'the device reported an input/output error',
  EMFILE: 'too many open files',
  EACCES: 'permission denied',
  EROFS: 'the file system is read-only',
} as const;
const codes = Object.keys(CAUSES) as (keyof typeof CAUSES)[];

/** What a trainer does between two checkpoints. */
async function advance(run: RunFolder, from: number, to: number): Promise<void> {
  const saved = await loadCheckpoint(run);
  const metrics = await openMetrics(run, from, saved?.info.metrics);
  try {
    for (let step = from + 1; step <= to; step++) await metrics.write({ step, loss: 1 / step });
    await saveCheckpoint(run, stateAt(to, SIZE), { ...infoAt(to), metrics: await metrics.sync() }, { keep: 1 });
  } finally {
    await metrics.close().catch(() => undefined);
  }
}

/** The run opens as it was after step 2 or after step 4, whole. @returns which */
async function expectOldOrNew(folder: string): Promise<number> {
  const { run } = await openRun(folder);
  const found = await loadCheckpoint(run, (line) => expect.unreachable(line));
  const step = found?.info.step ?? 0;
  if (found !== undefined) {
    expect([2, 4]).toContain(step);
    expect(sameState(found.tensors, stateAt(step, SIZE))).toBe(true);
  }
  const metrics = await openMetrics(run, step, found?.info.metrics);
  expect(metrics.rows().map((row) => row.step)).toEqual(Array.from({ length: step }, (_, i) => i + 1));
  await metrics.close();
  await run.close();
  return step;
}

/** A run after step 2, once for all tests. */
const begun = (async () => {
  const folder = fresh();
  const run = await createRun(folder, { steps: 4 });
  await advance(run, 0, 2);
  await run.close();
  return folder;
})();

const temporaryIn = (folder: string) =>
  readdirSync(folder, { recursive: true, encoding: 'utf8' }).filter((name) => name.includes('.tmp-'));

/**
 * Lets each call of `work` from step 2 to 4 fail, once (every call) and for good (every `stride`th), each with `perCall` of
 * the causes in turn. @returns the steps the folder opened at afterwards
 */
async function failEveryCall(perCall: number, stride: number, work: typeof advance): Promise<ReadonlySet<number>> {
  const outcomes = new Set<number>();
  for (const persistent of [false, true]) {
    for (let n = 1, more = true; more; n += persistent ? stride : 1) {
      for (let k = 0; k < Math.min(perCall, codes.length); k++) {
        const code = codes[(n + k) % codes.length];
        const folder = fresh();
        cpSync(await begun, folder, { recursive: true });
        const { run } = await openRun(folder);
        let thrown: unknown;
        const calls = await withCalls(
          (_, i) => {
            if (persistent ? i >= n : i === n) throw systemError(code);
          },
          () =>
            work(run, 2, 4).catch((error) => {
              thrown = error;
            }),
        );
        await run.close();
        more = calls >= n;
        if (thrown !== undefined) {
          expect(thrown).toBeInstanceOf(FileError);
          const { message } = thrown as FileError;
          expect(message.startsWith(folder) && message.endsWith(CAUSES[code]) && !message.includes('\n'), message).toBe(
            true,
          );
        }
        if (!persistent) expect(temporaryIn(folder)).toEqual([]);
        const step = await expectOldOrNew(folder);
        // what was not told as a failure was done
        if (thrown === undefined) expect(step, `${code} at call ${n}`).toBe(4);
        outcomes.add(step);
        expect(temporaryIn(folder)).toEqual([]);
        const again = await openRun(folder);
        await advance(again.run, (await loadCheckpoint(again.run))!.info.step, 4);
        await again.run.close();
        expect(readdirSync(path.join(folder, 'checkpoints'))).toEqual(['step-000004.safetensors']);
      }
    }
  }
  return outcomes;
}

describe('a disk that fails at the nth call', () => {
  it('ends with one line, the older checkpoint, and nothing half-written', {
    timeout: patience('disk', 120_000),
  }, async () => {
    const perCall = casesOf('disk');
    const outcomes = await failEveryCall(perCall, perCall === 1 ? 3 : 1, advance);
    expect([...outcomes].sort()).toEqual([2, 4]);
  });
  it('would be found out if a save kept its failure to itself, or wrote in place', { timeout: 60_000 }, async () => {
    const silent: typeof advance = (...args) => advance(...args).catch(() => undefined);
    await expect(failEveryCall(1, 9, silent)).rejects.toThrow(/at call \d+: expected 2 to be 4/);
    const inPlace: typeof advance = async (run, from, to) => {
      const file = await open(path.join(run.path, 'checkpoints/step-000004.safetensors'), 'w').catch((error) => {
        throw asFileError(error, run.path, 'writing');
      });
      try {
        for (const part of ['one half', 'the other half'])
          await file.write(Buffer.from(part), 0, part.length).catch((error) => {
            throw asFileError(error, run.path, 'writing');
          });
      } finally {
        await file.close();
      }
      await advance(run, from, to);
    };
    await expect(failEveryCall(1, 9, inPlace)).rejects.toThrow(/step-000004\.safetensors/);
  });
  it('at the start of a run leaves a folder that can be used', { timeout: 60_000 }, async () => {
    for (let n = 1, more = true; more; n++) {
      const folder = fresh();
      let thrown: unknown;
      const calls = await withCalls(
        (_, i) => {
          if (i === n) throw systemError('ENOSPC');
        },
        async () => {
          await createRun(folder, { steps: 4 }).then(
            (run) => run.close(),
            (error) => {
              thrown = error;
            },
          );
        },
      );
      more = calls >= n;
      if (thrown !== undefined) expect((thrown as Error).message).toMatch(/no space left on the device$/);
      const again = await createRun(folder, { steps: 4 }).catch(() => openRun(folder).then(({ run }) => run));
      await again.close();
      expect(readdirSync(folder)).toEqual(['config.json']);
    }
  });
});

describe('lost power', () => {
  const record = async (): Promise<{ start: Disk; log: readonly Call[]; folder: string }> => {
    const folder = fresh();
    cpSync(await begun, folder, { recursive: true });
    const names = readdirSync(folder, { recursive: true, encoding: 'utf8', withFileTypes: true }).filter((entry) =>
      entry.isFile(),
    );
    const start = new Map(
      names.map((entry) => path.join(entry.parentPath, entry.name)).map((name) => [name, readFileSync(name)]),
    );
    const { run } = await openRun(folder);
    const log: Call[] = [];
    await withCalls(
      (call) => log.push(call),
      () => advance(run, 2, 4),
    );
    await run.close();
    return { start, log, folder };
  };
  /** The step that a state opens with, -1 if it does not. */
  const opensAt = async (disk: Disk, folder: string): Promise<number> => {
    const target = fresh();
    layOut(disk, folder, target);
    return expectOldOrNew(target).then(
      (step) => step,
      () => -1,
    );
  };
  it('leaves the old or the new checkpoint, never a mix, and the new one once the save returned', {
    timeout: 120_000,
  }, async () => {
    const { start, log, folder } = await record();
    let states = 0;
    for (let length = 0; length <= log.length; length++) {
      const allowed = length === 0 ? [2] : length === log.length ? [4] : [2, 4];
      const last = states;
      for (const disk of statesAfter(start, log, length)) {
        // every third of a call's states, its first one always
        if (LONG || (states - last) % 3 === 0)
          expect(allowed, `after call ${length}`).toContain(await opensAt(disk, folder));
        states++;
      }
    }
    expect(states).toBeGreaterThanOrEqual(500);
  });
  it('would be found out without any one of the syncs', { timeout: 120_000 }, async () => {
    // The check of the check: the same log with a sync left out must have a state that is not allowed.
    const { start, log, folder } = await record();
    const last = log.findLastIndex((call) => call.kind === 'unlink');
    // Metrics, checkpoint, its folder: each of them counts (the run's own folder changes nothing here).
    const needed = log.flatMap((call, i) => (call.kind === 'sync' && i < last && call.path !== folder ? [i] : []));
    expect(needed.map((i) => path.relative(folder, log[i].path).replace(/\.tmp-.*/, ''))).toEqual([
      'metrics.jsonl',
      'checkpoints/.step-000004.safetensors',
      'checkpoints',
    ]);
    const isFoundOut = async (shorter: readonly Call[]): Promise<boolean> => {
      for (let length = shorter.length; length > 0; length--) {
        const allowed = length === shorter.length ? [4] : [2, 4];
        for (const disk of statesAfter(start, shorter, length)) {
          if (!allowed.includes(await opensAt(disk, folder))) return true;
        }
      }
      return false;
    };
    for (const i of needed) expect(await isFoundOut(log.toSpliced(i, 1)), log[i].path).toBe(true);
  });
});

/**
 * The processes that the tests of run folders start, kill and interrupt:
 *   rival                    messages { create | open | release: folder }, answered by 'held', 'released' or the refusal
 *   blind-rival              the same, one that takes other processes' locks away first
 *   train FOLDER STEPS [HOW] a trainer in small: saves every second step, goes on where it was stopped. HOW: `calls` tells
 *                            its file-system calls, a number kills it at that one; `torn` renames by copying, `deaf`
 *                            overhears signals, as no trainer should
 *   hold FOLDER              opens a run, says so, and keeps it until it is killed
 *   wait MS                  until interrupted, then "saves" for MS
 *   busy MS                  the same, but deaf for MS at a time, as in a training step
 *   fill FOLDER [torn]       checkpoints of growing size until the disk is full
 */
import fs, { existsSync, readdirSync, readFileSync, unlinkSync } from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { onInterrupt } from '../../train/cli/signals.ts';
import { isWatchedByTsx, runUnwatched } from '../../train/cli/supervise.ts';
import { loadCheckpoint, saveCheckpoint } from '../../train/run/checkpoint.ts';
import { createRun, openRun, type RunFolder } from '../../train/run/folder.ts';
import { openMetrics } from '../../train/run/metrics.ts';
import { type Call, withCalls } from './faulty-fs.ts';
import { infoAt, sameState, stateAt } from './run-values.ts';

type Request = { readonly create?: string; readonly open?: string; readonly release?: string };

function rival(blind: boolean): void {
  const held = new Map<string, RunFolder>();
  const answer = async ({ create, open, release }: Request): Promise<string> => {
    const folder = create ?? open;
    if (blind && folder !== undefined) {
      await sleep(200);
      for (const name of readdirSync(folder).filter((file) => file.startsWith('lock-')))
        unlinkSync(path.join(folder, name));
    }
    try {
      if (create !== undefined) held.set(create, await createRun(create, { by: process.pid }));
      else if (open !== undefined) held.set(open, (await openRun(open)).run);
      else if (release !== undefined) {
        await held.get(release)?.close();
        return 'released';
      }
      return 'held';
    } catch (error) {
      return (error as Error).message;
    }
  };
  process.on('message', async (request: Request) => process.send?.(await answer(request)));
  process.send?.('ready');
}

/** A rename that is none: the new name holds half of the content for most of a step, so that most kills find it so. */
function tearRenames(): void {
  fs.promises.rename = async (from, to) => {
    const data = readFileSync(from);
    const file = await fs.promises.open(to, 'w');
    await file.write(data, 0, data.length >> 1);
    await sleep(50);
    await file.write(data, data.length >> 1, data.length - (data.length >> 1));
    await file.close();
    await fs.promises.unlink(from);
  };
  syncBuiltinESMExports();
}

async function trainAs(how: string | undefined, folder: string, steps: number, killAt?: string): Promise<void> {
  if (how === 'torn') tearRenames();
  const at = how === 'torn' ? killAt : how;
  if (at === undefined || at === 'deaf') return train(folder, steps, how);
  const log: Pick<Call, 'kind' | 'path'>[] = [];
  await withCalls(
    ({ kind, path }, n) => {
      log.push({ kind, path });
      if (n === Number(at)) process.kill(process.pid, 'SIGKILL');
    },
    () => train(folder, steps, 'told'),
  );
  process.stdout.write(`${JSON.stringify(log)}\n`);
}

async function train(folder: string, steps: number, how?: string): Promise<void> {
  const run = existsSync(path.join(folder, 'config.json'))
    ? (await openRun(folder)).run
    : await createRun(folder, { steps });
  const saved = await loadCheckpoint(run, (line) => {
    throw new Error(line);
  });
  let step = saved?.info.step ?? 0;
  if (saved !== undefined && !sameState(saved.tensors, stateAt(step))) throw new Error('another state than was saved');
  const metrics = await openMetrics(run, step, saved?.info.metrics);
  const interrupt = how === 'deaf' ? { requested: false, exitCode: 0 } : onInterrupt();
  process.stdout.write('ready\n');
  while (step < steps && !interrupt.requested) {
    step++;
    await metrics.write({ step, loss: 1 / step });
    if (step % 2 === 0 || interrupt.requested) {
      await saveCheckpoint(run, stateAt(step), { ...infoAt(step), metrics: await metrics.sync() });
    }
  }
  await metrics.close();
  await run.close();
  if (how !== 'told') process.exit(step < steps ? interrupt.exitCode : 0);
}

async function hold(folder: string): Promise<void> {
  try {
    const { run } = await openRun(folder);
    process.stdout.write(`${run.note === undefined ? '' : `${run.note}\n`}held\n`);
    setInterval(() => undefined, 1000);
  } catch (error) {
    process.stdout.write(`${(error as Error).message}\n`);
  }
}

async function wait(ms: number): Promise<void> {
  const interrupt = onInterrupt();
  process.stdout.write('ready\n');
  while (!interrupt.requested) await sleep(5);
  process.stdout.write('saving\n');
  await sleep(ms);
  process.exit(interrupt.exitCode);
}

async function busy(ms: number): Promise<void> {
  if (isWatchedByTsx()) process.exit(await runUnwatched());
  const interrupt = onInterrupt();
  process.stdout.write('ready\n');
  const parent = process.ppid;
  while (!interrupt.requested) {
    // whoever started it was killed, and nobody will ever say a word
    if (process.ppid !== parent) {
      process.stdout.write('orphaned\n');
      process.exit(1);
    }
    for (const until = performance.now() + ms; performance.now() < until; );
    await sleep(0);
  }
  process.stdout.write('saving\n');
  await sleep(100);
  process.exit(interrupt.exitCode);
}

async function fill(folder: string, how?: string): Promise<void> {
  if (how === 'torn') tearRenames();
  const run = await createRun(path.join(folder, 'run'), { steps: 1 });
  let message = '';
  let last = 0;
  while (message === '') {
    const step = last + 1;
    await saveCheckpoint(run, stateAt(step, 1000 * step), infoAt(step)).then(
      () => {
        last = step;
      },
      (error) => {
        message = error.message;
      },
    );
  }
  const left = readdirSync(path.join(run.path, 'checkpoints'));
  const kept = await loadCheckpoint(run);
  const same = kept !== undefined && sameState(kept.tensors, stateAt(last, 1000 * last));
  // Room again: what failed must go through now.
  unlinkSync(path.join(folder, 'ballast'));
  await saveCheckpoint(run, stateAt(last + 1, 1000 * (last + 1)), infoAt(last + 1));
  const after = (await loadCheckpoint(run))?.info.step;
  process.stdout.write(JSON.stringify({ message, last, left, kept: kept?.info.step, same, after }));
}

const [mode, ...args] = process.argv.slice(2);
if (mode === 'rival' || mode === 'blind-rival') rival(mode === 'blind-rival');
else if (mode === 'train') await trainAs(args[2], args[0], Number(args[1]), args[3]);
else if (mode === 'hold') await hold(args[0]);
else if (mode === 'wait') await wait(Number(args[0]));
else if (mode === 'busy') await busy(Number(args[0]));
else if (mode === 'fill') await fill(args[0], args[1]);

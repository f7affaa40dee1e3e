/** Locks of processes that this kernel cannot be asked about: other containers and machines on one disk. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, unlinkSync, utimesSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { loadCheckpoint, saveCheckpoint } from '../../../train/run/checkpoint.ts';
import { createRun, openRun } from '../../../train/run/folder.ts';
import { acquireLock, STALE_MS } from '../../../train/run/lock.ts';
import { openMetrics } from '../../../train/run/metrics.ts';
import { compiled } from '../../support/compiled.ts';
import { systemError, withCalls } from '../../support/faulty-fs.ts';
import { scratchFolder } from '../../support/run-state.ts';
import { infoAt, stateAt } from '../../support/run-values.ts';

const scratch = scratchFolder();
const fresh = () => path.join(mkdtempSync(path.join(scratch, 'x-')), 'run');
const locks = (folder: string) => readdirSync(folder).filter((name) => name.startsWith('lock-'));
const begun = async () => {
  const folder = fresh();
  await (await createRun(folder, {})).close();
  return folder;
};
/** pid, start, boot, namespace, host of this process's lock */
const ownParts = async () => {
  const folder = await begun();
  const lock = await acquireLock(folder);
  const parts = /^lock-(\d+)-(\d+)-([0-9a-f]{8})-(\d+)-(.+)$/.exec(locks(folder)[0]!)!.slice(1);
  await lock.release();
  return parts as [string, string, string, string, string];
};
const write = (folder: string, name: string, age: number, text = 'held\n') => {
  writeFileSync(path.join(folder, name), text);
  const then = Date.now() / 1000 - age / 1000;
  utimesSync(path.join(folder, name), then, then);
};

describe('the lock of another container or machine', () => {
  it('names process, boot, namespace and host', async () => {
    const [pid, , boot, , host] = await ownParts();
    expect(Number(pid)).toBe(process.pid);
    const id = spawnSync('cat', ['/proc/sys/kernel/random/boot_id']).stdout.toString();
    expect(id.startsWith(boot)).toBe(true);
    expect(host).toBe(
      spawnSync('uname', ['-n'])
        .stdout.toString()
        .trim()
        .replace(/[^\w.-]/g, '_'),
    );
  });
  it('is respected while it is renewed, though no process of that number runs here', async () => {
    const [, , boot, namespace, host] = await ownParts();
    const gone = spawnSync('true').pid;
    for (const name of [
      `lock-${gone}-5-${boot}-7-${host}`,
      `lock-${gone}-5-0123abcd-${namespace}-${host}`,
      `lock-${process.pid}-5-0123abcd-${namespace}-other.example`,
    ]) {
      const folder = await begun();
      write(folder, name, STALE_MS - 5_000);
      const pid = name.split('-')[1];
      await expect(openRun(folder)).rejects.toThrow(
        new RegExp(`^[^\\n]*run: is in use by process ${pid} of another machine or container \\([\\w.-]+\\)[^\\n]*$`),
      );
      expect(locks(folder)).toEqual([name]);
    }
  });
  it('is taken over when it is stale, with a line that says from whom', async () => {
    const folder = await begun();
    write(folder, 'lock-17-5-0123abcd-7-far.example', STALE_MS + 5_000);
    const { run } = await openRun(folder);
    expect(run.note).toBe(`${folder}: taken over from process 17 of far.example, whose lock was not renewed for 60 s`);
    expect(locks(folder)).toHaveLength(1);
    await run.close();
    expect(locks(folder)).toEqual([]);
  });
  it('of the same place is judged by its process, however fresh the file', async () => {
    const [, , boot, namespace, host] = await ownParts();
    const folder = await begun();
    write(folder, `lock-${process.ppid}-1-${boot}-${namespace}-${host}`, 0);
    const { run } = await openRun(folder);
    expect(run.note).toBeUndefined();
    await run.close();
  });
});

describe('an owner that was taken over', () => {
  it('writes nothing more', async () => {
    const folder = fresh();
    const run = await createRun(folder, {});
    const metrics = await openMetrics(run, 0);
    await metrics.write({ step: 1 });
    await saveCheckpoint(run, stateAt(1), { ...infoAt(1), metrics: await metrics.sync() });
    unlinkSync(path.join(folder, locks(folder)[0]!));
    await expect(metrics.write({ step: 2 })).rejects.toThrow(/^[^\n]*run: was taken over by another process[^\n]*$/);
    await expect(saveCheckpoint(run, stateAt(2), infoAt(2))).rejects.toThrow(/was taken over by another process/);
    expect((await loadCheckpoint(folder))?.info.step).toBe(1);
    await metrics.close();
    await run.close();
  });
});

describe('the end of a run', () => {
  it('removes the lock although the disk fails once, and names a file that it cannot remove', async () => {
    for (const [failures, left] of [
      [1, 0],
      [99, 1],
    ] as const) {
      const folder = fresh();
      const run = await createRun(folder, {});
      let [unlinks, line] = [0, undefined as string | undefined];
      await withCalls(
        (call) => {
          if (call.kind === 'unlink' && ++unlinks <= failures) throw systemError('EIO');
        },
        async () => {
          line = await run.close();
        },
      );
      expect(locks(folder)).toHaveLength(left);
      if (left === 0) expect(line).toBeUndefined();
      else expect(line).toMatch(/^[^\n]*run\/lock-[^\n]*: the device reported an input\/output error; [^\n]*$/);
    }
  });
});

const unshares = spawnSync('unshare', ['--pid', '--fork', '--mount-proc', 'true']).status === 0;
if (!unshares) process.stderr.write('skipped: locks in two PID namespaces (unshare is not allowed here)\n');
describe.runIf(unshares)('two containers on one disk', async () => {
  const script = await compiled(path.join(import.meta.dirname, '../../support/run-child.ts'));
  const inside = async (folder: string, steps: number): Promise<{ child: ChildProcess; said: () => string }> => {
    const child = spawn('unshare', [
      '--pid',
      '--fork',
      '--kill-child',
      '--mount-proc',
      process.execPath,
      script,
      'hold',
      folder,
      String(steps),
    ]);
    let text = '';
    child.stdout!.on('data', (data) => (text += data));
    child.stderr!.on('data', (data) => (text += data));
    for (const until = Date.now() + 20_000; !text.includes('\n') && child.exitCode === null && Date.now() < until; )
      await new Promise((done) => setTimeout(done, 20));
    return { child, said: () => text };
  };
  it('the second start is refused, from either side; a stale lock is taken over', async () => {
    const folder = await begun();
    const first = await inside(folder, 1);
    expect(first.said()).toBe('held\n');
    await expect(openRun(folder)).rejects.toThrow(/in use by process \d+ of another machine or container/);
    const second = await inside(folder, 1);
    expect(second.said()).toMatch(/^[^\n]*in use by process \d+ of another machine or container[^\n]*\n$/);
    const ended = once(first.child, 'exit');
    first.child.kill('SIGKILL');
    await ended;
    expect(locks(folder)).toHaveLength(1);
    await expect(openRun(folder)).rejects.toThrow(/in use/);
    const then = Date.now() / 1000 - 120;
    utimesSync(path.join(folder, locks(folder)[0]!), then, then);
    const third = await inside(folder, 1);
    expect(third.said()).toMatch(/taken over from process \d+ of [^\n]*\nheld\n$/);
    third.child.kill('SIGKILL');
  });
});

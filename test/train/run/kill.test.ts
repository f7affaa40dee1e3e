/** A trainer in small, killed and interrupted at any moment: after going on, its folder has the bytes of one never stopped. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { isWatchedByTsx, unwatched } from '../../../train/cli/supervise.ts';
import { compiled } from '../../support/compiled.ts';
import { FAULTS, filesOf, scratchFolder } from '../../support/run-state.ts';
import { there } from '../../support/there.ts';

const scratch = scratchFolder();
const fresh = () => path.join(mkdtempSync(path.join(scratch, 'x-')), 'run');
const script = path.join(import.meta.dirname, '../../support/run-child.ts');
const node = [process.execPath, await compiled(script)] as const;
const STEPS = 300;

/** A child that has said "ready"; `output` grows. */
async function started(command: readonly string[], options: { readonly detached?: boolean } = {}) {
  const child = spawn(command[0], command.slice(1), { ...options, stdio: ['ignore', 'pipe', 'pipe'] });
  const seen = { output: '', errors: '' };
  child.stdout.on('data', (text) => {
    seen.output += text;
  });
  child.stderr.on('data', (text) => {
    seen.errors += text;
  });
  while (!seen.output.includes('ready') && child.exitCode === null && child.signalCode === null) await sleep(5);
  return { child, seen };
}

async function ended(child: ChildProcess): Promise<number | string> {
  if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
  return child.exitCode ?? child.signalCode ?? 'unknown';
}

/** Runs to the end without any disturbance. */
function finish(folder: string): void {
  const run = spawnSync(node[0], [...node.slice(1), 'train', folder, String(STEPS)], { encoding: 'utf8' });
  expect(run.stderr).toBe('');
  expect(run.status).toBe(0);
}

const unkilled = (() => {
  let files: Record<string, string> | undefined;
  return () => {
    if (files === undefined) {
      const folder = fresh();
      finish(folder);
      files = filesOf(folder);
    }
    return files;
  };
})();

describe('killed', () => {
  it('at random moments, again and again, it ends with the bytes of a run never killed', {
    timeout: 300_000,
  }, async () => {
    expect(Object.keys(unkilled())).toEqual([
      'checkpoints/step-000298.safetensors',
      'checkpoints/step-000300.safetensors',
      'config.json',
      'metrics.jsonl',
    ]);
    let killed = 0;
    for (let round = 0; round < FAULTS; round++) {
      const folder = fresh();
      for (let n = 0; n < 4; n++) {
        const { child } = await started([...node, 'train', folder, String(STEPS)]);
        await sleep(((n * 37 + round * 11) % 60) + 1);
        child.kill('SIGKILL');
        if ((await ended(child)) === 'SIGKILL') killed++;
      }
      finish(folder);
      expect(filesOf(folder)).toEqual(unkilled());
    }
    expect(killed).toBeGreaterThan(0);
  });
  const hasStrace = there('strace', spawnSync('strace', ['-o', '/dev/null', 'true']).status === 0, 'install it');
  it.runIf(hasStrace)('at the nth system call of each kind likewise', { timeout: 600_000 }, () => {
    const cases = (['rename', 'fsync', 'unlink'] as const).flatMap((call) =>
      Array.from({ length: FAULTS }, (_, i) => [call, 2 + i * 3] as const),
    );
    for (const [call, n] of cases) {
      const folder = fresh();
      const inject = `inject=${call}:signal=KILL:when=${n}`;
      const trace = ['-f', '-o', '/dev/null', '-e', `trace=${call}`, '-e', inject];
      const run = spawnSync('strace', [...trace, ...node, 'train', folder, String(STEPS)], {
        env: { ...process.env, UV_THREADPOOL_SIZE: '1' },
      });
      expect(run.status === 0, `${call} ${n}`).toBe(false);
      finish(folder);
      expect(filesOf(folder)).toEqual(unkilled());
    }
  });
});

describe('interrupted', () => {
  it('it saves, says so by its exit code, and goes on to the same bytes', { timeout: 300_000 }, async () => {
    const codes = [
      ['SIGINT', 130],
      ['SIGTERM', 143],
      ['SIGHUP', 129],
    ] as const;
    for (const [signal, code] of codes) {
      const folder = fresh();
      const { child, seen } = await started([...node, 'train', folder, String(STEPS)]);
      await sleep(20);
      child.kill(signal);
      expect([code, 0]).toContain(await ended(child));
      expect(seen.errors).toBe('');
      finish(folder);
      // A checkpoint of the step it was stopped after may have taken the place of an even one; the newest is the same.
      const { 'checkpoints/step-000300.safetensors': newest, 'metrics.jsonl': metrics } = filesOf(folder);
      expect(newest).toBe(unkilled()['checkpoints/step-000300.safetensors']);
      expect(metrics).toBe(unkilled()['metrics.jsonl']);
    }
  });
  it('twice it ends at once; one keypress that arrives twice is one', { timeout: 60_000 }, async () => {
    const slow = await started([...node, 'wait', '60000']);
    slow.child.kill('SIGINT');
    while (!slow.seen.output.includes('saving')) await sleep(5);
    slow.child.kill('SIGINT'); // npm and tsx pass the terminal's signal on once more
    await sleep(400);
    expect(slow.child.exitCode).toBeNull();
    const began = performance.now();
    slow.child.kill('SIGINT');
    expect(await ended(slow.child)).toBe(130);
    expect(performance.now() - began).toBeLessThan(1000);
  });
  it('through the command tsx, which kills what does not answer at once, it saves as well', {
    timeout: 120_000,
  }, async () => {
    const tsx = path.join(import.meta.dirname, '../../../node_modules/.bin/tsx');
    // To tsx alone, as `kill PID` does; and to all processes of the terminal, as Ctrl-C does.
    for (const all of [false, true]) {
      const { child, seen } = await started([tsx, script, 'busy', '300'], { detached: true });
      await sleep(50);
      process.kill(all ? -child.pid! : child.pid!, 'SIGINT');
      expect(await ended(child)).toBe(130);
      expect(seen.output).toBe('ready\nsaving\n');
    }
  });
  it('only what tsx adds to watch is taken out of the arguments', () => {
    const execArgv = [
      '--max-old-space-size=9',
      '--require',
      '/a/node_modules/tsx/dist/preflight.cjs',
      '--import',
      'file:///a/tsx/dist/loader.mjs',
    ];
    expect(isWatchedByTsx(execArgv)).toBe(true);
    expect(unwatched(execArgv)).toEqual(['--max-old-space-size=9', '--import', 'file:///a/tsx/dist/loader.mjs']);
    expect(isWatchedByTsx(['--import', 'tsx'])).toBe(false);
  });
});

const canMount = there(
  'a file system of its own',
  spawnSync('unshare', ['-rm', 'mount', '-t', 'tmpfs', 'none', '/mnt']).status === 0,
  'user namespaces may mount none here',
);
describe.runIf(canMount)('a full disk', () => {
  it('costs nothing that was saved, and the run goes on when there is room again', { timeout: 300_000 }, () => {
    for (let n = 0; n < 2 * FAULTS; n++) {
      const place = fresh();
      mkdirSync(place);
      writeFileSync(
        path.join(place, 'go.sh'),
        `mount -t tmpfs -o size=${96 + n * 52}k none "$1" && head -c 40000 /dev/zero > "$1/ballast" && shift && exec "$@"`,
      );
      const run = spawnSync('unshare', ['-rm', 'sh', path.join(place, 'go.sh'), place, ...node, 'fill', place], {
        encoding: 'utf8',
      });
      expect(run.stderr).toBe('');
      const found = JSON.parse(run.stdout);
      expect(found.message).toMatch(/^[^\n]*step-\d+\.safetensors: writing: no space left on the device$/);
      expect(found.last).toBeGreaterThan(0);
      expect(found).toMatchObject({ kept: found.last, same: true, after: found.last + 1 });
      expect(found.left.every((name: string) => /^step-\d{6}\.safetensors$/.test(name))).toBe(true);
    }
  });
});

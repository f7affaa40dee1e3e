/** A trainer in small, killed and interrupted at any moment: after going on, its folder has the bytes of one never stopped. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { cpSync, mkdirSync, mkdtempSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { isWatchedByTsx, unwatched } from '../../../train/cli/supervise.ts';
import { compiled } from '../../support/compiled.ts';
import { casesOf, patience, seedOf, spread } from '../../support/drivers.ts';
import { LONG, longTest } from '../../support/long.ts';
import { filesOf, scratchFolder } from '../../support/run-state.ts';
import { there } from '../../support/there.ts';

const scratch = scratchFolder();
const fresh = () => path.join(mkdtempSync(path.join(scratch, 'x-')), 'run');
const script = path.join(import.meta.dirname, '../../support/run-child.ts');
const node = [process.execPath, await compiled(script)] as const;
// more than are made before the kills and signals below arrive
const STEPS = LONG ? 300 : 120;
const lastCheckpoints = [STEPS - 2, STEPS].map(
  (step) => `checkpoints/step-${String(step).padStart(6, '0')}.safetensors`,
);

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
function finish(folder: string, steps = STEPS): void {
  const run = spawnSync(node[0], [...node.slice(1), 'train', folder, String(steps)], { encoding: 'utf8' });
  expect(run.stderr, run.stderr).toBe('');
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

/** Kills runs four times each, at moments spread over them, lets them end and compares. @returns how many kills hit */
async function killAtRandom(kills: number, how: readonly string[] = []): Promise<number> {
  const seed = seedOf(0);
  let killed = 0;
  for (let round = 0; killed < kills && round < kills; round++) {
    const folder = fresh();
    for (let n = 0; n < 4; n++) {
      const { child } = await started([...node, 'train', folder, String(STEPS), ...how]);
      await sleep(((n * 37 + (round + seed) * 11) % 60) + 1);
      child.kill('SIGKILL');
      if ((await ended(child)) === 'SIGKILL') killed++;
    }
    finish(folder);
    expect(filesOf(folder)).toEqual(unkilled());
  }
  return killed;
}

describe('killed', () => {
  it('at random moments, again and again, it ends with the bytes of a run never killed', {
    timeout: patience('kills', 300_000),
  }, async () => {
    expect(Object.keys(unkilled())).toEqual([...lastCheckpoints, 'config.json', 'metrics.jsonl']);
    expect(await killAtRandom(casesOf('kills'))).toBeGreaterThan(0);
  });
  // at a known call, below, in the short form
  longTest('it would be found out if it wrote its checkpoints in place', { timeout: 60_000 }, async () => {
    await expect(killAtRandom(16, ['torn'])).rejects.toThrow(/damaged|truncated|too short/);
  });

  /** The file-system calls of one step and save after another, and what the folder holds then. */
  const oneSave = (() => {
    let made: { readonly begun: string; readonly files: Record<string, string> } | undefined;
    return () => {
      if (made === undefined) {
        const [begun, whole] = [fresh(), fresh()];
        finish(begun, 2);
        cpSync(begun, whole, { recursive: true });
        finish(whole, 4);
        made = { begun, files: filesOf(whole) };
      }
      return made;
    };
  })();
  const killedAt = (n: number | 'calls', torn: boolean) => {
    const folder = fresh();
    cpSync(oneSave().begun, folder, { recursive: true });
    const how = [...(torn ? ['torn'] : []), String(n)];
    const run = spawnSync(node[0], [...node.slice(1), 'train', folder, '4', ...how], { encoding: 'utf8' });
    return { folder, run };
  };
  const callsOf = (torn: boolean): readonly { readonly kind: string; readonly path: string }[] =>
    JSON.parse(killedAt('calls', torn).run.stdout.split('\n')[1]!);
  const killEach = (numbers: readonly number[], torn = false): void => {
    for (const n of numbers) {
      const { folder, run } = killedAt(n, torn);
      expect(run.signal, `call ${n}: ${run.stderr}`).toBe('SIGKILL');
      finish(folder, 4);
      expect(filesOf(folder), `call ${n}`).toEqual(oneSave().files);
    }
  };
  it('at a file-system call of a save likewise', { timeout: patience('kill-calls', 300_000) }, () => {
    const calls = callsOf(false);
    expect(calls.length).toBeGreaterThan(30);
    const numbers = calls.map((_, i) => i + 1);
    killEach(spread(numbers, casesOf('kill-calls')));
  });
  it('at a file-system call, it would be found out if it wrote in place', { timeout: 60_000 }, () => {
    const calls = callsOf(true);
    const half = calls.findLastIndex(
      ({ kind, path: at }) => kind === 'write' && /\/step-000004\.safetensors$/.test(at),
    );
    expect(half).toBeGreaterThan(0);
    expect(() => killEach([half + 1], true)).toThrow(/damaged|truncated|too short/);
  });

  const hasStrace = there('strace', spawnSync('strace', ['-o', '/dev/null', 'true']).status === 0, 'install it');
  it.runIf(hasStrace && LONG)(
    'at the nth system call of each kind likewise',
    {
      timeout: patience('kill-calls', 600_000),
    },
    () => {
      const perKind = Math.min(40, Math.ceil(casesOf('kill-calls') / 3));
      const cases = (['rename', 'fsync', 'unlink'] as const).flatMap((call) =>
        Array.from({ length: perKind }, (_, i) => [call, 2 + i * 3] as const),
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
    },
  );
});

/** Interrupts runs by each signal in turn, lets them end and compares. */
async function interruptAtRandom(signals: number, how: readonly string[] = []): Promise<void> {
  const codes = [
    ['SIGINT', 130],
    ['SIGTERM', 143],
    ['SIGHUP', 129],
  ] as const;
  for (let n = 0; n < signals; n++) {
    const [signal, code] = codes[n % codes.length]!;
    const folder = fresh();
    const { child, seen } = await started([...node, 'train', folder, String(STEPS), ...how]);
    await sleep(20 + ((n * 13 + seedOf(0)) % 60) * (n < codes.length ? 0 : 1));
    child.kill(signal);
    expect([code, 0]).toContain(await ended(child));
    expect(seen.errors).toBe('');
    finish(folder);
    // A checkpoint of the step it was stopped after may have taken the place of an even one; the newest is the same.
    for (const file of [lastCheckpoints[1]!, 'metrics.jsonl'])
      expect(filesOf(folder)[file], file).toBe(unkilled()[file]);
  }
}

describe('interrupted', () => {
  it(
    'it saves, says so by its exit code, and goes on to the same bytes',
    {
      timeout: patience('signals', 300_000),
    },
    () => interruptAtRandom(casesOf('signals')),
  );
  it('it would be found out if it were deaf', { timeout: 60_000 }, async () => {
    await expect(interruptAtRandom(3, ['deaf'])).rejects.toThrow(/SIG(INT|TERM|HUP)/);
  });
  it('twice it ends at once; one keypress that arrives twice is one', { timeout: 60_000 }, async () => {
    const slow = await started([...node, 'wait', '600000']);
    slow.child.kill('SIGINT');
    while (!slow.seen.output.includes('saving')) await sleep(5);
    slow.child.kill('SIGINT'); // npm and tsx pass the terminal's signal on once more
    await sleep(400);
    expect(slow.child.exitCode).toBeNull();
    slow.child.kill('SIGINT');
    expect(await ended(slow.child)).toBe(130); // not after the ten minutes it would wait
  });
  it.runIf(LONG)(
    'through the command tsx, which kills what does not answer at once, it saves as well',
    {
      timeout: 120_000,
    },
    async () => {
      const tsx = path.join(import.meta.dirname, '../../../node_modules/.bin/tsx');
      // To tsx alone, as `kill PID` does; and to all processes of the terminal, as Ctrl-C does.
      for (const all of [false, true]) {
        let said = 'orphaned';
        // where the machine is so busy that the one who answers gets no core within tsx's 30 ms, nothing was tested
        for (let attempt = 0; attempt < 3 && said.includes('orphaned'); attempt++) {
          const { child, seen } = await started([tsx, script, 'busy', '300'], { detached: true });
          const silent = new Promise((resolve) => child.stdout!.once('close', resolve));
          await sleep(50);
          process.kill(all ? -child.pid! : child.pid!, 'SIGINT');
          expect(await ended(child)).toBe(130);
          await silent;
          said = seen.output;
        }
        expect(said).toBe('ready\nsaving\n');
      }
    },
  );
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
  const fillDisks = (count: number, how: readonly string[] = []): void => {
    for (let n = 0; n < count; n++) {
      const place = fresh();
      mkdirSync(place);
      writeFileSync(
        path.join(place, 'go.sh'),
        `mount -t tmpfs -o size=${96 + n * 52}k none "$1" && head -c 40000 /dev/zero > "$1/ballast" && shift && exec "$@"`,
      );
      const run = spawnSync(
        'unshare',
        ['-rm', 'sh', path.join(place, 'go.sh'), place, ...node, 'fill', place, ...how],
        {
          encoding: 'utf8',
        },
      );
      expect(run.stderr).toBe('');
      const found = JSON.parse(run.stdout);
      expect(found.message).toMatch(/^[^\n]*step-\d+\.safetensors: writing: no space left on the device$/);
      expect(found.last).toBeGreaterThan(0);
      expect(found).toMatchObject({ kept: found.last, same: true, after: found.last + 1 });
      expect(found.left.every((name: string) => /^step-\d{6}\.safetensors$/.test(name))).toBe(true);
    }
  };
  it(
    'costs nothing that was saved, and the run goes on when there is room again',
    {
      timeout: patience('full-disk', 300_000),
    },
    () => fillDisks(casesOf('full-disk')),
  );
  it('it would be found out if it wrote its checkpoints in place', { timeout: 60_000 }, () => {
    expect(() => fillDisks(2, ['torn'])).toThrow();
  });
});

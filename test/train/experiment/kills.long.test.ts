/**
 * An experiment killed at random moments, its own process, the trainer's or both: given again until it is through, the same
 * command ends with the tables of one that was never disturbed.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { randomOf, seedKey } from '../../../core/index.ts';
import { programOf, writeCalmBase } from '../../support/commands.ts';
import { casesOf, patience, seedOf } from '../../support/drivers.ts';
import { scratchFolder } from '../../support/run-state.ts';

const scratch = scratchFolder();
const root = path.resolve(import.meta.dirname, '../../..');
const at = (name: string) => path.join(scratch, name);
const config = at('killed.yaml');
const text = `
name: killed
settings: { base: ${JSON.stringify(at('base'))}, pairs: 20, batch: 2, steps: 8, save-every: 1, validate-every: 4, validation-pairs: 2, samples: 0, obedience: 0, targets: "**.to_q", train-text-encoder: false, lr: 1e-2, backend: wasm, threads: 1, resolution: 32 }
methods:
  - { name: LoRA, settings: { method: lora, rank: 2 } }
  - { name: SeLoRA, settings: { test-every: 2, lambda: 1 } }
seeds: [1]
`;

/** The command, in a process group of its own. */
function begun(out: string) {
  const child = spawn(process.execPath, [...programOf('experiment'), '--config', config, '--out', out], {
    cwd: root,
    detached: true,
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  let errors = '';
  child.stderr.on('data', (chunk) => {
    errors += String(chunk);
  });
  const ended = once(child, 'close').then(() => ({ code: child.exitCode, errors }));
  return { pid: child.pid!, ended, over: () => child.exitCode !== null || child.signalCode !== null };
}
/** Steps that all runs have told. */
const steps = (out: string): number =>
  existsSync(path.join(out, 'runs'))
    ? readdirSync(path.join(out, 'runs')).reduce((n, name) => {
        const file = path.join(out, 'runs', name, 'metrics.jsonl');
        return n + (existsSync(file) ? readFileSync(file, 'utf8').split('\n').length : 0);
      }, 0)
    : 0;
/** All below a process, itself first. */
function familyOf(pid: number): readonly number[] {
  try {
    const children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim();
    return [pid, ...(children === '' ? [] : children.split(' ').flatMap((child) => familyOf(Number(child))))];
  } catch {
    return [];
  }
}
const kill = (pids: readonly number[]): void => {
  for (const pid of pids)
    try {
      process.kill(pid, 'SIGKILL');
    } catch {
      // it has ended by itself
    }
};
const tables = (out: string): readonly string[] =>
  readFileSync(path.join(out, 'comparison.csv'), 'utf8')
    .split('\n')
    .filter((line) => !/^(seconds|memory|memory-mean),/.test(line));
/** Gives the command until it ends well. */
async function through(out: string): Promise<void> {
  for (let tries = 0; ; tries++) {
    const { code, errors } = await begun(out).ended;
    if (code === 0) return;
    // a trainer that outlived its experiment still has its run
    expect(errors).toMatch(/^\d runs? did not finish; the same command goes on with them\n$/);
    expect(tries).toBeLessThan(20);
    await sleep(500);
  }
}

test('killed again and again it ends with the same tables', {
  timeout: patience('experiment-kills', 900_000),
}, async () => {
  await writeCalmBase(at('base'));
  writeFileSync(config, text);
  const reference = at('reference');
  await through(reference);
  const want = tables(reference);
  expect(want.filter((line) => /^loss,(LoRA|SeLoRA),1,/.test(line))).toHaveLength(2);
  const random = randomOf(seedKey(seedOf(1)));
  const [cases, whom] = [casesOf('experiment-kills'), [0, 0, 0]];
  for (let kills = 0, folder = 0; kills < cases; folder++) {
    const out = at(`out-${folder}`);
    for (let done = false; !done && kills < cases; ) {
      const before = steps(out);
      const { pid, ended, over } = begun(out);
      // early, or when something new is there, or a little later
      const when = random.int(3);
      if (when > 0) while (!over() && steps(out) <= before) await sleep(5);
      await sleep(when === 1 ? 0 : random.int(when === 0 ? 4000 : 1500));
      done = over();
      if (!done) {
        const who = random.int(3);
        const family = familyOf(pid);
        kill(who === 0 ? family : who === 1 ? family.slice(1) : [pid]);
        if (who !== 1) await ended;
        kills++;
        whom[who]!++;
      }
      done = (await ended).code === 0 || done;
    }
    await through(out);
    expect(tables(out), `after ${kills} kills`).toEqual(want);
  }
  process.stderr.write(`${cases} kills: ${whom[0]} of both, ${whom[1]} of the trainer, ${whom[2]} of the experiment\n`);
});

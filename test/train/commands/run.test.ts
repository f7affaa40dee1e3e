/** What all commands share: one line per failure, exit codes, options, and an end of the process. */
import { describe, expect, it, vi } from 'vitest';
import { z } from 'zod';
import { CoreError } from '../../../core/index.ts';
import { FileError } from '../../../models/io/error.ts';
import {
  command,
  decimal,
  errorLine,
  Interrupted,
  type Main,
  parseArgs,
  UsageError,
  wholeNumber,
} from '../../../train/cli/command.ts';
import { main as explain } from '../../../train/explain.ts';
import { main as generate } from '../../../train/generate.ts';
import { main as inspect } from '../../../train/inspect.ts';
import { main as merge } from '../../../train/merge.ts';
import { runCommand, runProcess } from '../../support/commands.ts';
import { longRows } from '../../support/long.ts';

// other processes may have all cores
vi.setConfig({ testTimeout: 180_000, hookTimeout: 60_000 });

const fails =
  (error: unknown): Main =>
  async () => {
    throw error;
  };

describe('a failure', () => {
  it.each([
    ['FileError', new FileError('a.json', 'rank', 'is 0'), 'a.json: rank: is 0'],
    ['CoreError of several lines', new CoreError('dot: no\n  a  f32[1]\n  at x.ts:1'), 'dot: no; a  f32[1]; at x.ts:1'],
    ['UsageError', new UsageError('--n 0'), '--n 0'],
    ['RangeError', new RangeError('--targets x: matches nothing'), '--targets x: matches nothing'],
    ['control bytes', new UsageError('a\u001b[2Jb'), 'a\\u{1b}[2Jb'],
    ['zod', z.object({ a: z.array(z.number()) }).safeParse({ a: ['x'] }).error, /^a\.0: .*expected number/],
    ['a bug', new TypeError('x is undefined'), 'TypeError: x is undefined (SELORA_DEBUG=1 shows where)'],
    ['no error at all', 'boo', 'boo (SELORA_DEBUG=1 shows where)'],
  ])('%s is one line and exit code 1', async (_name, error, line) => {
    const { code, stdout, stderr } = await runCommand(fails(error), []);
    expect(code).toBe(1);
    expect(stdout).toBe('');
    expect(stderr.endsWith('\n')).toBe(true);
    expect(stderr.slice(0, -1)).not.toMatch(/[\n\r]/);
    if (typeof line === 'string') expect(stderr).toBe(`${line}\n`);
    else expect(stderr).toMatch(line);
  });

  it('by Ctrl-C is exit code 130', async () => {
    const stop = new AbortController();
    // what the handler of SIGINT aborts with
    stop.abort(new Interrupted('stopped by Ctrl-C'));
    const { code, stderr } = await runCommand(async (_args, io) => io.signal.throwIfAborted(), [], stop.signal);
    expect([code, stderr]).toEqual([130, 'stopped by Ctrl-C\n']);
  });

  it('keeps a very long message on one line of bounded length', () => {
    expect(errorLine(new UsageError('x\n'.repeat(100_000))).length).toBeLessThan(4100);
  });
});

describe('options', () => {
  const main: Main = async (args, io) => {
    const program = command('demo', 'Demo.', ['--steps 3'], io)
      .option('--steps <n>', 'whole', wholeNumber(1, 10))
      .option('--x <x>', 'decimal', decimal(-1, 1));
    io.stdout.write(JSON.stringify(parseArgs(program, args)));
  };
  it.each([
    ['--steps', '10', '{"steps":10}'],
    ['--x', '-.5', '{"x":-0.5}'],
    ['--x', '1e-3', '{"x":0.001}'],
  ])('%s %s', async (flag, value, parsed) => {
    expect(await runCommand(main, [`${flag}=${value}`])).toEqual({ code: 0, stdout: parsed, stderr: '' });
  });
  it.each([
    ['--steps', '0', 'expected a whole number from 1 to 10'],
    ['--steps', '11', 'expected a whole number from 1 to 10'],
    ['--steps', '1.5', 'expected a whole number from 1 to 10'],
    ['--steps', '0x5', 'expected a whole number from 1 to 10'],
    ['--steps', '', 'expected a whole number from 1 to 10'],
    ['--x', 'NaN', 'expected a number from -1 to 1'],
    ['--x', '1.01', 'expected a number from -1 to 1'],
    ['--x', 'Infinity', 'expected a number from -1 to 1'],
  ])('%s %j is refused', async (flag, value, why) => {
    const { code, stderr } = await runCommand(main, [`${flag}=${value}`]);
    expect(code).toBe(1);
    expect(stderr).toContain(`${flag} <`);
    expect(stderr).toContain(why);
    expect(stderr.trimEnd()).not.toContain('\n');
  });
  it('an unknown one is one line with the nearest', async () => {
    expect((await runCommand(main, ['--step', '3'])).stderr).toBe("unknown option '--step' (Did you mean --steps?)\n");
    expect((await runCommand(main, ['more'])).stderr).toMatch(/^too many arguments.*\n$/);
  });
});

describe('every command', () => {
  const commands = { generate, merge, inspect, explain };
  it.each(Object.entries(commands))('%s --help shows examples and exits with 0', async (name, main) => {
    const { code, stdout, stderr } = await runCommand(main, ['--help']);
    expect([code, stderr]).toEqual([0, '']);
    expect(stdout).toContain(`Usage: ${name}`);
    expect(stdout).toContain(`Examples:\n  npm run ${name} -- `);
  });
  const refusals = [
    ['generate', [], 'nothing to draw'],
    ['merge', ['--out', 'x'], '--adapter'],
    ['inspect', ['no\u0007where'], 'no\\u{7}where: no such file'],
    ['explain', ['dto'], 'unknown op "dto"; did you mean dot, '],
  ] as const;
  it.each(longRows(refusals, ([name]) => ['generate', 'inspect'].includes(name)))(
    '%s as a process: one line on stderr, exit code 1, no stack',
    async (name, args, words) => {
      const { code, stderr, signal } = await runProcess(name, args);
      expect([code, signal]).toEqual([1, null]);
      expect(stderr.split('\n')).toHaveLength(2);
      expect(stderr).toContain(words);
      expect(stderr).not.toMatch(/\bat .*:\d+:\d+/);
    },
  );
});

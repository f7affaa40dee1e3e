/** No command opens a connection or looks up a name: the kernel's log of every socket, of each of them, all threads included. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { programOf, writeCalmBase } from '../../support/commands.ts';
import { BRIEF } from '../../support/compiled.ts';
import { casesOf, patience } from '../../support/drivers.ts';
import { scratchFolder } from '../../support/run-state.ts';
import { there } from '../../support/there.ts';

const scratch = scratchFolder();
const at = (name: string) => path.join(scratch, name);
const words = (text: string) => text.split(' ');
const root = path.join(import.meta.dirname, '../../..');

/** Calls of a program with addresses outside the machine or of its own network. @throws Error where it does not end well */
function addressesOf(args: readonly string[]): readonly string[] {
  const log = path.join(mkdtempSync(path.join(scratch, 'x-')), 'log');
  const trace = ['-f', '--seccomp-bpf', '-o', log, '-e', 'trace=network'];
  const run = spawnSync('strace', [...trace, process.execPath, ...args], { cwd: root, encoding: 'utf8' });
  expect(run.status, run.stderr).toBe(0);
  return readFileSync(log, 'utf8')
    .split('\n')
    .filter((line) => /\bAF_(?!UNIX\b|NETLINK\b)\w+/.test(line));
}

const hasStrace = there('strace', spawnSync('strace', ['-o', '/dev/null', 'true']).status === 0, 'install it');
describe.runIf(hasStrace)('no connection to any address', () => {
  const commandLines: readonly (readonly [command: string, args: string])[] = [
    [
      'train',
      `--base ${at('base')} --resolution 16 --pairs 24 --steps 2 --batch 2 --test-every 1 --samples 1 --obedience 0 --sample-steps 1 --validation-pairs 1 --targets **.attn1.to_q --backend wasm --out ${at('run')}`,
    ],
    ['train', `--resume ${at('run')} --steps 3`],
    ['generate', `--base ${at('base')} --prompt lung --steps 1 --backend cpu --out ${at('drawn')}`],
    ['generate', `--base ${at('base')} --prompt lung --steps 1 --backend webgpu --out ${at('drawn-webgpu')}`],
    ['inspect', at('run')],
    ['inspect', at('base')],
    ['merge', `--base ${at('base')} --adapter ${at('run/adapter.safetensors')} --out ${at('merged')}`],
    ['explain', '--list'],
    ['bench', '--help'],
    ['verify', '--help'],
  ];
  const tried = commandLines.slice(0, casesOf('network'));
  beforeAll(() => writeCalmBase(at('base')), 120_000);
  it('by any command', { timeout: patience('network', 240_000) }, () => {
    // the first one writes what the others read
    for (const [name, args] of tried)
      expect(addressesOf([...BRIEF, ...programOf(name), ...words(args)]), `${name} ${args}`).toEqual([]);
  });
  it.each([
    ['a connection', `require('net').connect(9, '127.0.0.1').on('error', () => 0)`],
    ['a name looked up', `require('dns').resolve('example.invalid', () => 0)`],
    ['a datagram', `const s = require('dgram').createSocket('udp6'); s.send('x', 9, '::1', () => s.close())`],
  ])('would be seen: %s', (_, program) => {
    expect(addressesOf(['-e', program])).not.toEqual([]);
  });
});

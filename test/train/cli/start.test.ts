/** What is told before a command is loaded, through the commands as package.json names them. */
import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { describe, expect, it } from 'vitest';
import { longRows } from '../../support/long.ts';

const root = join(import.meta.dirname, '../../..');
const { scripts } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as {
  readonly scripts: Readonly<Record<string, string>>;
};
// `experiment:quick` and the like are a command with words of its own
const commands = Object.entries(scripts).filter(([, line]) => line.includes(' train/') && !line.startsWith('npm run '));

it('every command is started so', () => {
  expect(commands.length).toBeGreaterThan(10);
  for (const [name, line] of commands) expect(line, name).toBe(`node train/cli/start.mjs train/${name}.ts`);
});

describe.skipIf(process.platform === 'win32')('where few files may be open', () => {
  it.each(longRows([22, 24, 32, 48, 64, 100], (files) => [22, 64].includes(files)))('%i: one line', async (files) => {
    const script = `ulimit -n ${files}; exec ${scripts.inspect} models/small-base`;
    const { code, stderr } = await promisify(execFile)('sh', ['-c', script], { cwd: root }).catch((error) => error);
    expect(stderr).toMatch(/^too few files may be open at once: \d+ more, and 100 are needed \(ulimit -n 256\)\n$/);
    expect(code).toBe(1);
  });
});

it.each(['18.20.4', '20.15.1'])('Node %s: one line', async (version) => {
  const old = `Object.defineProperty(process, 'versions', { value: { node: '${version}' } })`;
  const before = ['--import', `data:text/javascript,${encodeURIComponent(old)}`];
  const args = [...before, 'train/cli/start.mjs', 'train/inspect.ts'];
  const { code, stderr } = await promisify(execFile)(process.execPath, args, { cwd: root }).catch((error) => error);
  expect(stderr).toBe(`Node ${version} is too old: 20.16 or later is needed\n`);
  expect(code).toBe(1);
});

/** Exit codes of whole processes: what a run that was stopped and saved tells its shell. */
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { compiled } from '../../support/compiled.ts';

const script = await compiled(join(import.meta.dirname, '../../support/exit-code-child.ts'));
const run = (...args: string[]) => spawnSync(process.execPath, [script, ...args], { encoding: 'utf8' });

test.each([0, 130, 143])('a command that ends well keeps the code it set: %i', (code) => {
  expect(run(String(code)).status).toBe(code);
});
test('a failure is 1 with its line, whatever was set', () => {
  const { status, stderr } = run('130', 'films/: no pictures');
  expect([status, stderr]).toEqual([1, 'films/: no pictures\n']);
});

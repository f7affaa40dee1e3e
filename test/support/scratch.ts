/**
 * A folder for each test file, gone after it. vitest runs this module's `renew` before every file (`each-file.ts`), since
 * files that share a process share its modules too.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll } from 'vitest';

/** The folder of the test file that runs. */
export let scratch: string;

/** Makes the folder of the next test file. */
export function renew(): void {
  const folder = mkdtempSync(join(tmpdir(), 'selora-test-'));
  scratch = folder;
  afterAll(() => rmSync(folder, { recursive: true, force: true }));
}

/** What the tests of run folders share: a place, and what is on the disk. */
import { createHash } from 'node:crypto';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll } from 'vitest';

/**
 * A folder for the tests of one file, gone after them: in memory where the machine has such a file system, since syncs
 * cost nothing there (what they are for is tested by crash states).
 */
export function scratchFolder(): string {
  const folder = mkdtempSync(path.join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), 'selora-run-'));
  afterAll(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/** Relative path → SHA-256 of every file below a folder, locks left out. */
export function filesOf(folder: string, at = ''): Record<string, string> {
  return Object.assign(
    {},
    ...readdirSync(path.join(folder, at), { withFileTypes: true })
      .filter((entry) => !/^lock-/.test(entry.name))
      .sort((a, b) => (a.name < b.name ? -1 : 1))
      .map((entry) => {
        const name = path.join(at, entry.name);
        if (entry.isDirectory()) return filesOf(folder, name);
        return {
          [name]: createHash('sha256')
            .update(readFileSync(path.join(folder, name)))
            .digest('hex'),
        };
      }),
  );
}

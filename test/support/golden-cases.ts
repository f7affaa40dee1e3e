/** What the golden tests share: where golden directories are, and what failed in a stream of cases. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { GoldenCase } from '../../train/verify/golden.ts';
import { there } from './there.ts';

/** The folders of the full sets that are here; a line for each that is not. */
export function goldenFolders(): string[] {
  const full = [
    ['SELORA_GOLDEN', process.env.SELORA_GOLDEN ?? '../shared/golden'],
    ['SELORA_GOLDEN2', process.env.SELORA_GOLDEN2 ?? '../shared/golden2'],
  ] as const;
  return full.flatMap(([name, directory]) =>
    there(`the numbers in ${directory}`, existsSync(directory), `${name} names the folder`) ? [directory] : [],
  );
}

/** The small set in the repository, and the full ones where SELORA_GOLDEN and SELORA_GOLDEN2 (or a folder beside) have them. */
export function goldenDirectories(file: string, own = 'test/golden'): string[] {
  return [own, ...goldenFolders()].filter((directory) => existsSync(join(directory, file)));
}

/** Number of cases, and a line for each that is off by more than its tolerance. */
export async function tally(cases: AsyncIterable<GoldenCase>): Promise<{ count: number; failed: string[] }> {
  let count = 0;
  const failed: string[] = [];
  for await (const { case: name, error, tolerance } of cases) {
    count++;
    if (!(error <= tolerance)) failed.push(`${name}: ${error} > ${tolerance}`);
  }
  return { count, failed };
}

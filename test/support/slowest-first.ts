/**
 * The order of test files: those with a process of their own, then those that share one (a process is shared only by
 * files that follow each other); in both slowest first, so that no worker is left with a long file when the other has
 * nothing to do. `durations.json` holds the seconds of CPU that slow files took when they were last measured; the others
 * follow by size.
 */
import { readFileSync, statSync } from 'node:fs';
import { relative } from 'node:path';
import { BaseSequencer, type TestSpecification } from 'vitest/node';

const seconds = new Map<string, number>(
  Object.entries(JSON.parse(readFileSync(new URL('durations.json', import.meta.url), 'utf8'))),
);

export default class SlowestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const rank = (file: TestSpecification): readonly number[] => [
      Number(file.project.config.isolate),
      seconds.get(relative(this.ctx.config.root, file.moduleId)) ?? 0,
      statSync(file.moduleId).size,
    ];
    return files
      .map((file) => ({ file, rank: rank(file) }))
      .sort((a, b) => b.rank[0]! - a.rank[0]! || b.rank[1]! - a.rank[1]! || b.rank[2]! - a.rank[2]!)
      .map(({ file }) => file);
  }
}

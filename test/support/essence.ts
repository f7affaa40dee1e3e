/** What of a run's folder tells whether two runs made the same. */
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { expect } from 'vitest';
import { loadCheckpoint } from '../../train/run/checkpoint.ts';
import { filesOf } from './run-state.ts';

/** Everything that must not depend on when the run was stopped: all files but those with times in them, and those without. */
export async function essence(folder: string) {
  const rows = readFileSync(path.join(folder, 'metrics.jsonl'), 'utf8').trim().split('\n');
  const { tensors, info } = (await loadCheckpoint(folder, (line) => expect.unreachable(line)))!;
  const { seconds: _s, metrics: _m, ...host } = info;
  const files = Object.entries(filesOf(folder)).filter(
    ([name]) => !/^(checkpoints|report|facts|metrics|.*\.svg$)/.test(name),
  );
  return {
    files: Object.fromEntries(files),
    rows: rows.map((row) => ({ ...JSON.parse(row), seconds: 0, memory: 0 })),
    host,
    tensors: [...tensors].map(
      ([name, { shape, data }]) => `${name} ${shape} ${Buffer.from(data.buffer).toString('base64')}`,
    ),
  };
}

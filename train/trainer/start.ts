/** A run's beginning: a new folder, or one to go on with. */
import path from 'node:path';
import { openBackend } from '../../core/backends/open.ts';
import type { Backend } from '../../core/index.ts';
import type { Json } from '../../models/io/json.ts';
import { type Io, print, UsageError } from '../cli/command.ts';
import type { RunConfig } from '../config/config.ts';
import { resolveConfig } from '../config/resolve.ts';
import { resumedConfig } from '../config/resume.ts';
import { settleRun } from '../estimate/index.ts';
import { printable } from '../report/printable.ts';
import { createRun, openRun, type RunFolder } from '../run/folder.ts';
import { readComparison } from '../run/read.ts';

/** A run with its folder and backend; `begun` are the settings it was begun with. */
export type Started = {
  readonly run: RunFolder;
  readonly config: RunConfig;
  readonly begun: RunConfig;
  readonly backend: Backend;
};

/** Runs to compare with are read when the report is written: hours too late to tell that one is not there. */
const checkCompared = async ({ compare }: RunConfig): Promise<void> =>
  void (await Promise.all(compare.map(readComparison)));

/** A new run or an old one; undefined when only the estimate was asked for. */
export async function start(options: Readonly<Record<string, unknown>>, io: Io): Promise<Started | undefined> {
  if (options.steps !== undefined && options.epochs !== undefined)
    throw new UsageError('--steps and --epochs exclude each other: updates, or passes over the training pairs');
  const open = async (c: RunConfig) => {
    const backend = await openBackend(c.backend, c.threads === null ? {} : { threads: c.threads });
    print(io, `backend ${backend.name}: ${backend.device}`);
    return backend;
  };
  if (typeof options.resume === 'string') {
    const { run, config } = await openRun(options.resume);
    try {
      if (run.note !== undefined) print(io, printable(run.note));
      const begun = resolveConfig(config as Record<string, unknown>);
      const resolved = resumedConfig(begun, options);
      await checkCompared(resolved);
      return { run, config: resolved, begun, backend: await open(resolved) };
    } catch (error) {
      await run.close();
      throw error;
    }
  }
  const backend = await open(resolveConfig(options));
  const config = await settleRun(options, backend, io);
  if (!config) return undefined;
  await checkCompared(config);
  const stamp = new Date().toISOString().slice(0, 16).replace('T', '-').replace(':', '');
  const name =
    typeof options.name === 'string' ? options.name : `${stamp}-${path.basename(config.data)}-${config.method}`;
  const folder = typeof options.out === 'string' ? options.out : path.join('runs', name);
  const run = await createRun(folder, config as unknown as Json);
  if (run.note !== undefined) print(io, printable(run.note));
  print(io, `run folder ${run.path}`);
  return { run, config, begun: config, backend };
}

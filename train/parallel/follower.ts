/** What a process that is not the first has in place of the run folder and the terminal: it writes nothing and says nothing. */
import { Writable } from 'node:stream';
import type { Json } from '../../models/io/json.ts';
import type { Io } from '../cli/command.ts';
import type { RunFolder } from '../run/folder.ts';
import type { Metrics } from '../run/metrics.ts';
import type { Keeper } from '../trainer/keep.ts';
import type { LivePage } from '../trainer/live.ts';

const nothing = async (): Promise<void> => undefined;

/** The folder of the first process, as another sees it. */
export const followedRun = (path: string, resumed: boolean, config: Json): RunFolder => ({
  path,
  resumed,
  config,
  check: nothing,
  atClose: () => undefined,
  close: async () => undefined,
  abandon: nothing,
});

/** Streams that lead nowhere. */
export const mute = (io: Io): Io => {
  const stream = new Writable({ write: (_chunk, _encoding, done) => done() });
  return {
    stdout: stream,
    stderr: stream,
    get signal() {
      return io.signal;
    },
  };
};

export const followedMetrics: Metrics = {
  write: nothing,
  rows: () => [],
  sync: async () => ({ bytes: 0, sha256: '' }),
  close: nothing,
};
export const followedPage: LivePage = { offer: nothing, write: nothing };
export const followedKeeper: Keeper = {
  save: nothing,
  offer: async (now) => now,
  // the first process has the same loss, and says more of it
  refuse: async (step, loss) => {
    throw new RangeError(`step ${step}: the loss is ${loss}`);
  },
};

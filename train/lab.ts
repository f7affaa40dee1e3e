/** npm run lab: builds the pages of the lab into one static folder and serves it on this machine. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { command, type Io, parseArgs, print, runMain, UsageError, wholeNumber } from './cli/command.ts';
import { buildLab } from './lab/build.ts';
import { serveLab } from './lab/serve.ts';
import { openInBrowser } from './lab/watch.ts';

type Options = {
  readonly out?: string;
  readonly port: number;
  readonly serve: boolean;
  readonly runs: string;
  readonly show?: string;
  readonly onlyRuns?: boolean;
  readonly browser?: boolean;
};

const PORT = 8420;
const program = (io: Io) =>
  command(
    'lab',
    'Every op, every step and every run, alive in a browser tab: builds a static folder and serves it on 127.0.0.1.',
    ['', '--port 0', '--runs runs --only-runs', '--out site --no-serve'],
    io,
  )
    .option('--out <dir>', 'folder that is written: empty, or of an earlier build (default: lab)')
    .option('--port <n>', 'port on 127.0.0.1; 0 for any that is free', wholeNumber(0, 65535), PORT)
    .option('--runs <dir>', 'folder of runs that the page “Runs” shows', 'runs')
    .option('--show <name>', 'the run that is shown first')
    .option('--only-runs', 'nothing but that page, built in seconds')
    .option('--browser', 'open it in the browser, where there is a desktop')
    .option('--no-serve', 'only build the folder: any web host can serve it');

/** Until Ctrl-C, or the end of the process that started this one to be shown. */
const asLongAsWanted = (signal: AbortSignal): Promise<void> =>
  new Promise((resolve) => {
    if (signal.aborted) resolve();
    signal.addEventListener('abort', () => resolve(), { once: true });
    if (process.channel) process.once('disconnect', () => resolve());
  });

export async function main(args: readonly string[], io: Io): Promise<void> {
  const o = parseArgs<Options>(program(io), args);
  if (!o.serve) return void (await built(o, path.resolve(o.out ?? 'lab'), io));
  if (o.out !== undefined || !o.onlyRuns) return served(o, path.resolve(o.out ?? 'lab'), io);
  const folder = await mkdtemp(path.join(tmpdir(), 'selora-lab-'));
  try {
    await served(o, folder, io);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

async function built(o: Options, folder: string, io: Io): Promise<void> {
  const { files, gzipped, weights } = await buildLab(folder, o.onlyRuns ? { only: ['runs'] } : {});
  if (o.onlyRuns) return;
  const kilobytes = (n: number): string => `${Math.round(n / 1000)} kB`;
  print(
    io,
    `${o.out ?? 'lab'}: ${files} files, ${kilobytes(gzipped)} gzipped, beside ${kilobytes(weights)} of weights`,
  );
}

async function served(o: Options, folder: string, io: Io): Promise<void> {
  const over = asLongAsWanted(io.signal);
  await built(o, folder, io);
  const { address, close } = await serveLab(folder, o.port, path.resolve(o.runs)).catch(
    (error: NodeJS.ErrnoException) => {
      throw new UsageError(
        error.code === 'EADDRINUSE'
          ? `--port ${o.port}: something else listens there; --port 0 takes a free one`
          : `--port ${o.port}: ${error.message}`,
      );
    },
  );
  const shown = o.show === undefined ? '' : `?show=${encodeURIComponent(o.show)}`;
  const place = o.onlyRuns || shown ? `${address}#/runs${shown}` : address;
  print(io, `open ${place} (${process.channel ? 'it ends with the run' : 'Ctrl-C ends it'})`);
  if (o.browser) openInBrowser(place);
  await over;
  await close();
}

await runMain(import.meta, main);

/** npm run lab: builds the pages of the lab into one static folder and serves it on this machine. */
import path from 'node:path';
import { command, type Io, parseArgs, print, runMain, UsageError, wholeNumber } from './cli/command.ts';
import { buildLab } from './lab/build.ts';
import { serveLab } from './lab/serve.ts';

type Options = { readonly out: string; readonly port: number; readonly serve: boolean };

const PORT = 8420;
const program = (io: Io) =>
  command(
    'lab',
    'Every op and every step, alive in a browser tab: builds a static folder and serves it on 127.0.0.1.',
    ['', '--port 0', '--out site --no-serve'],
    io,
  )
    .option('--out <dir>', 'folder that is written: empty, or of an earlier build', 'lab')
    .option('--port <n>', 'port on 127.0.0.1; 0 for any that is free', wholeNumber(0, 65535), PORT)
    .option('--no-serve', 'only build the folder: any web host can serve it');

export async function main(args: readonly string[], io: Io): Promise<void> {
  const o = parseArgs<Options>(program(io), args);
  const folder = path.resolve(o.out);
  const { files, gzipped, weights } = await buildLab(folder);
  const kilobytes = (n: number): string => `${Math.round(n / 1000)} kB`;
  print(io, `${o.out}: ${files} files, ${kilobytes(gzipped)} gzipped, beside ${kilobytes(weights)} of weights`);
  if (!o.serve) return;
  const { signal } = io;
  const { address, close } = await serveLab(folder, o.port).catch((error: NodeJS.ErrnoException) => {
    throw new UsageError(
      error.code === 'EADDRINUSE'
        ? `--port ${o.port}: something else listens there; --port 0 takes a free one`
        : `--port ${o.port}: ${error.message}`,
    );
  });
  print(io, `open ${address} (Ctrl-C ends it)`);
  await new Promise<void>((resolve) => {
    if (signal.aborted) resolve();
    signal.addEventListener('abort', () => resolve(), { once: true });
  });
  await close();
}

await runMain(import.meta, main);

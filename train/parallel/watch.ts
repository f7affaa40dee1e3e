/**
 * A process that is killed tells nobody, and the others would wait for it for good. A thread of each process looks after
 * those on the same machine; when one is gone, the first that is left says so in a line and all end. A process of another
 * machine is missed by its mpirun, which ends the others too.
 */
import { hostname } from 'node:os';
import { Worker } from 'node:worker_threads';
import { startOf } from '../run/lock.ts';
import { nameOf, type Peers } from './peers.ts';

/** how often it looks, and how long it leaves the others to see the same before it ends its process */
const [LOOK_MS, LEAVE_MS] = [50, 1000];

/** Plain JavaScript, since a thread begins without the loader of TypeScript. */
const THREAD = `
const { readFileSync, writeSync } = require('node:fs');
const { parentPort, workerData: { others, rank, host, stopped, look, leave } } = require('node:worker_threads');
const off = new Int32Array(stopped);
let end = '';
parentPort.on('message', (text) => { end = text; });
const lives = ({ pid, start }) => {
  try {
    const status = readFileSync('/proc/' + pid + '/stat', 'latin1');
    const fields = status.slice(status.lastIndexOf(')') + 2).split(' ');
    return !/^[ZX]/.test(fields[0]) && (start === 0 || Number(fields[19]) === start);
  } catch {
    try { process.kill(pid, 0); return start === 0; } catch (error) { return error.code === 'EPERM'; }
  }
};
const timer = setInterval(() => {
  if (Atomics.load(off, 0)) return clearInterval(timer);
  const gone = others.filter((other) => !lives(other));
  if (gone.length === 0 || Atomics.load(off, 0)) return;
  clearInterval(timer);
  const first = others.every((other) => other.rank > rank || gone.includes(other));
  if (first) writeSync(2, gone[0].name + ' is gone; ' + end + '\\n');
  setTimeout(() => parentPort.postMessage('end'), leave);
  setTimeout(() => process.kill(process.pid, 'SIGKILL'), 2 * leave);
}, look);
`;

export interface Watch {
  /** Where the run lies, so that the line can say how to go on. */
  tell(folder: string): void;
  /** Ends it: from here on processes may end. */
  stop(): void;
}

const ending = (folder?: string): string =>
  `the run ends at its last checkpoint${folder === undefined ? '' : `: go on with the same command and --resume ${folder}`}`;

/** Looks after the processes of this machine, from here to `stop`. */
export async function watchPeers(peers: Peers): Promise<Watch> {
  const { start } = await startOf(process.pid);
  const mine = { host: hostname(), pid: process.pid, start };
  const text = new TextEncoder().encode(JSON.stringify(mine));
  // as numbers: what is gathered are floats
  const all = (await peers.gather(Float32Array.from(text))).map(
    (codes) => JSON.parse(new TextDecoder().decode(Uint8Array.from(codes))) as typeof mine,
  );
  const others = all
    .map((p, rank) => ({ ...p, rank, name: nameOf(rank, peers.size, p.host) }))
    .filter(({ host, rank }) => host === mine.host && rank !== peers.rank);
  const off = new Int32Array(new SharedArrayBuffer(4));
  const worker = new Worker(THREAD, {
    eval: true,
    workerData: { others, rank: peers.rank, host: mine.host, stopped: off.buffer, look: LOOK_MS, leave: LEAVE_MS },
    execArgv: [],
    env: {},
  });
  worker.on('error', () => undefined);
  worker.on('message', () => process.exit(1));
  worker.unref();
  worker.postMessage(ending());
  return {
    tell: (folder) => worker.postMessage(ending(folder)),
    stop: () => {
      Atomics.store(off, 0, 1);
      void worker.terminate();
    },
  };
}

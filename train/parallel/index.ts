/** A run over several processes: how it is joined, and how it ends for all of them. */
import { createHash } from 'node:crypto';
import { CommanderError } from 'commander';
import { type Io, print, UsageError } from '../cli/command.ts';
import type { HostTensor } from '../run/checkpoint.ts';
import { bytes, number } from '../words/format.ts';
import { mute } from './follower.ts';
import { openMpi, rankInEnvironment } from './mpi.ts';
import { type Peers, peersOn } from './peers.ts';
import { type Watch, watchPeers } from './watch.ts';

export { followedKeeper, followedMetrics, followedPage, followedRun } from './follower.ts';
export { inTurns, spread } from './means.ts';
export type { Peers } from './peers.ts';

/** The processes of this run, and the thread that looks after them. */
export type Joined = { readonly peers: Peers; readonly watch: Watch };

/**
 * A process that has nothing to say stays where all fail: mpirun ends all with the first that ends, be it before the one that
 * speaks has spoken. That one's end is then this one's; if it does not come, 10 s are enough.
 */
export const stayForWords = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 10_000));

/** What all processes would say alike is said by the first one; in another, undefined where it fails. */
export function saidOnce<T>(io: Io, work: (io: Io) => T): T | undefined {
  if (rankInEnvironment() === 0) return work(io);
  try {
    return work(mute(io));
  } catch (error) {
    process.exitCode = error instanceof CommanderError ? error.exitCode : 1;
    return undefined;
  }
}

/**
 * Work that all processes of mpirun do together. One that fails ends all of them, and the first says why; this one's exit
 * code is set where another said it.
 */
export async function together(io: Io, work: (io: Io, joined: Joined) => Promise<void>): Promise<void> {
  const transport = await openMpi();
  const peers = peersOn(transport);
  const watch = await watchPeers(peers);
  let failed = false;
  try {
    await work(peers.leads ? io : mute(io), { peers, watch });
    // nobody ends before the first has written everything
    await peers.agree({});
  } catch (error) {
    const told = await peers.fail(error);
    if (peers.leads) throw told === '' ? error : new UsageError(told);
    process.exitCode = 1;
    failed = true;
  } finally {
    watch.stop();
    transport.close();
  }
  if (failed) await stayForWords();
}

/** What the transfers of so many steps took. */
export function printTraffic(io: Io, peers: Peers, steps: number, seconds: number): void {
  const { bytes: sent, seconds: waited } = peers.traffic;
  if (steps === 0) return;
  print(
    io,
    `${peers.size} processes: ${bytes(sent / steps)} sent by each per step; the first waited ${number(waited, 3)} of ${number(seconds, 3)} s for the others`,
  );
}

/** A short name of tensors: the same where every bit is. */
export function digestOf(tensors: ReadonlyMap<string, HostTensor>): string {
  const hash = createHash('sha256');
  for (const [name, { data }] of tensors)
    hash.update(name).update(new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
  return hash.digest('hex').slice(0, 16);
}

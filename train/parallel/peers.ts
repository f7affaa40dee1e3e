/**
 * What the processes of one run tell each other. Every exchange begins with a line of each: that it goes on, or why it
 * cannot, so that a failure anywhere ends all of them, with the words of the one that failed.
 */
import { hostname } from 'node:os';
import { errorLine, UsageError } from '../cli/command.ts';
import type { Transport } from './mpi.ts';

/** The other processes of a run, and this one among them. */
export interface Peers {
  readonly rank: number;
  readonly size: number;
  /** whether this is the first, which alone writes the run folder and speaks */
  readonly leads: boolean;
  /** Whether any of them had been asked to end when they last met: the same answer for all. */
  readonly stopping: boolean;
  /** How it is told that this process was asked to end. */
  askBy(requested: () => boolean): void;
  /** Piece r goes to process r; what comes, one piece of each. All of one length. @throws UsageError where a process failed */
  swap(send: Float32Array): Promise<readonly Float32Array[]>;
  /** What each process sends, in their order; lengths may differ. @throws UsageError where a process failed */
  gather(send: Float32Array): Promise<readonly Float32Array[]>;
  /** What the first process knows, told to all of them. */
  share<T>(told: T | undefined): Promise<T>;
  /** @throws RangeError naming the first process whose facts differ from the first one's, and which of them */
  agree(facts: Readonly<Record<string, string | number>>): Promise<void>;
  /** Tells all that this one cannot go on. @returns whose failure it was, and its words, for the first process to say */
  fail(error: unknown): Promise<string>;
  /** bytes that this process has sent, and seconds in which it waited for others or for transfers */
  readonly traffic: { readonly bytes: number; readonly seconds: number };
}

/** A process that could not go on said so. */
export class PeerFailed extends UsageError {
  override name = 'PeerFailed';
}

/** going on, asked to end, failed */
const [ON, STOP, FAILED] = [0, 1, 2];

/** `process 2 of 4 (on HOST)` */
export const nameOf = (rank: number, size: number, host: string): string =>
  `process ${rank + 1} of ${size} (on ${host})`;

const bytesOf = (x: Float32Array): Uint8Array => new Uint8Array(x.buffer, x.byteOffset, x.byteLength);
const encode = (text: string): Uint8Array => new TextEncoder().encode(text);
const decode = (bytes: Uint8Array): string => new TextDecoder().decode(bytes);

export function peersOn(transport: Transport): Peers {
  const { rank, size } = transport;
  const state = { stopping: false, requested: () => false, bytes: 0, seconds: 0 };
  const timed = async (send: Uint8Array, how: 'swap' | 'gather', times: number): Promise<Uint8Array> => {
    const began = performance.now();
    const got = await transport[how](send);
    state.seconds += (performance.now() - began) / 1000;
    state.bytes += send.length * times;
    return got;
  };
  const gathered = (send: Uint8Array): Promise<Uint8Array> => timed(send, 'gather', size - 1);
  const pieces = (all: Uint8Array, each: number): readonly Uint8Array[] =>
    Array.from({ length: size }, (_, r) => all.subarray(r * each, (r + 1) * each));
  /** texts or numbers of any length each */
  const ragged = async (send: Uint8Array, lengths: readonly number[]): Promise<readonly Uint8Array[]> => {
    const most = Math.max(1, ...lengths);
    const padded = new Uint8Array(most);
    padded.set(send);
    return pieces(await gathered(padded), most).map((piece, r) => piece.subarray(0, lengths[r]));
  };
  const words = ({ host, text }: { host: string; text: string }, r: number) =>
    r === rank ? text : `${nameOf(r, size, host)}: ${text}`;
  /** how each of them stands, and how much it will send; @throws PeerFailed where one failed */
  const meet = async (length: number, failure?: string): Promise<readonly number[]> => {
    const text = failure === undefined ? undefined : encode(JSON.stringify({ host: hostname(), text: failure }));
    const status = text ? FAILED : state.requested() ? STOP : ON;
    const mine = new Float64Array([status!, text?.length ?? length]);
    const all = new Float64Array((await gathered(new Uint8Array(mine.buffer))).slice().buffer);
    const of = Array.from({ length: size }, (_, r) => [all[2 * r]!, all[2 * r + 1]!] as const);
    state.stopping ||= of.some(([how]) => how === STOP);
    if (!of.some(([how]) => how === FAILED)) return of.map(([, n]) => n);
    const lengths = of.map(([how, n]) => (how === FAILED ? n : 0));
    const told = await ragged(text ?? new Uint8Array(0), lengths);
    // its own words where it failed, too: all may have failed by the same
    const whose = text ? rank : lengths.findIndex((n) => n > 0);
    throw new PeerFailed(words(JSON.parse(decode(told[whose]!)), whose));
  };
  const floats = (bytes: Uint8Array): Float32Array => new Float32Array(bytes.slice().buffer);
  const peers: Peers = {
    rank,
    size,
    leads: rank === 0,
    get stopping() {
      return state.stopping;
    },
    askBy(requested) {
      state.requested = requested;
    },
    async swap(send) {
      await meet(send.length);
      const [got, each] = [await timed(bytesOf(send), 'swap', (size - 1) / size), send.byteLength / size];
      return pieces(got, each).map(floats);
    },
    async gather(send) {
      const lengths = await meet(send.byteLength);
      return (await ragged(bytesOf(send), lengths)).map(floats);
    },
    async share<T>(told: T | undefined) {
      const text = encode(rank === 0 ? JSON.stringify(told) : '');
      const all = await ragged(text, await meet(text.length));
      return JSON.parse(decode(all[0]!)) as T;
    },
    async agree(facts) {
      const text = encode(JSON.stringify({ host: hostname(), facts }));
      const all = (await ragged(text, await meet(text.length))).map(
        (piece) => JSON.parse(decode(piece)) as { host: string; facts: typeof facts },
      );
      for (const [r, { host, facts: theirs }] of all.entries())
        for (const [key, value] of Object.entries(all[0]!.facts))
          if (theirs[key] !== value)
            throw new RangeError(
              `${nameOf(r, size, host)} has another ${key} than the first: ${theirs[key]}, there ${value}`,
            );
    },
    async fail(error) {
      if (error instanceof PeerFailed) return error.message;
      return meet(0, errorLine(error)).then(
        () => '',
        (told: Error) => told.message,
      );
    },
    get traffic() {
      return { bytes: state.bytes, seconds: state.seconds };
    },
  };
  return peers;
}

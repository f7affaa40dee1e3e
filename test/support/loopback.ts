/** Several processes in one: transports that meet in memory, for tests of what is told between the processes of a run. */
import type { Transport } from '../../train/parallel/mpi.ts';

/** `size` transports; a transfer is over when all of them have begun it. */
export function loopback(size: number): readonly Transport[] {
  type Meeting = { readonly sent: Uint8Array[]; readonly done: Promise<void>; readonly end: () => void; here: number };
  const meetings: Meeting[] = [];
  const at = new Array<number>(size).fill(0);
  async function meet(rank: number, send: Uint8Array): Promise<readonly Uint8Array[]> {
    const turn = at[rank]!;
    at[rank] = turn + 1;
    if (!meetings[turn]) {
      let end = () => {};
      const done = new Promise<void>((resolve) => {
        end = resolve;
      });
      meetings[turn] = { sent: [], done, end, here: 0 };
    }
    const meeting = meetings[turn];
    meeting.sent[rank] = send.slice();
    meeting.here++;
    if (meeting.here === size) meeting.end();
    await meeting.done;
    return meeting.sent;
  }
  const joined = (parts: readonly Uint8Array[]): Uint8Array => new Uint8Array(Buffer.concat(parts));
  return Array.from({ length: size }, (_, rank) => ({
    rank,
    size,
    gather: async (send) => joined(await meet(rank, send)),
    swap: async (send) =>
      joined(
        (await meet(rank, send)).map((all) => {
          const each = all.length / size;
          return all.subarray(rank * each, (rank + 1) * each);
        }),
      ),
    close: () => undefined,
  }));
}

/**
 * The few functions of OpenMPI that a run over several processes takes, called through `koffi`: neither is loaded before
 * somebody asks for it. Transfers are begun and asked after, so that this thread stays free for signals while it waits.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { UsageError } from '../cli/command.ts';

/** A transfer between all processes; every process calls the same ones in the same order. */
export interface Transport {
  /** this process, from 0 */
  readonly rank: number;
  /** how many there are */
  readonly size: number;
  /** Piece r of what is sent goes to process r; piece r of what comes is from process r. Both hold `size` equal pieces. */
  swap(send: Uint8Array): Promise<Uint8Array>;
  /** What every process sends, in their order; all send as much. */
  gather(send: Uint8Array): Promise<Uint8Array>;
  /** Ends it, when all processes do. */
  close(): void;
}

/** Debian's OpenMPI 4 and 5 have this name. */
const LIBRARY = 'libmpi.so.40';
/** set by mpirun, and by srun --mpi=pmix */
const STARTED = ['OMPI_COMM_WORLD_SIZE', 'PMIX_RANK'];
/** How long a transfer is asked after without pause. */
const EAGER_MS = 5;
const MOST = 2 ** 31 - 1;

/** What this process is of those that mpirun started; 0 where nobody says so. */
export const rankInEnvironment = (): number => Number(process.env.OMPI_COMM_WORLD_RANK ?? process.env.PMIX_RANK ?? 0);

async function loadKoffi() {
  try {
    return (await import('koffi')).default;
  } catch {
    throw new UsageError('--data-parallel mpi: the package koffi is not installed (npm install koffi)');
  }
}

/**
 * Joins the processes that mpirun started.
 * @throws UsageError where this process was started alone, or koffi or OpenMPI are not there
 */
export async function openMpi(): Promise<Transport> {
  if (!STARTED.some((name) => process.env[name] !== undefined))
    throw new UsageError(
      '--data-parallel mpi: this process was started alone; expected mpirun -n N npm run train -- --data-parallel mpi',
    );
  const koffi = await loadKoffi();
  // its handlers of SIGSEGV and others would take the place of those that V8 checks the memory of WASM with
  process.env.OMPI_MCA_opal_signal ??= '';
  let lib: ReturnType<typeof koffi.load>;
  try {
    // its plugins look for its symbols
    lib = koffi.load(LIBRARY, { global: true });
  } catch {
    throw new UsageError(`--data-parallel mpi: ${LIBRARY} was not found; install OpenMPI (Debian: openmpi-bin)`);
  }
  const world = lib.symbol('ompi_mpi_comm_world', 'char');
  const byte = lib.symbol('ompi_mpi_byte', 'char');
  const call = (name: string, parameters: string) => {
    const f = lib.func(`int ${name}(${parameters})`);
    return (...args: readonly unknown[]): void => {
      const code = f(...args) as number;
      if (code !== 0) throw new UsageError(`--data-parallel mpi: ${name} ended with ${code}`);
    };
  };
  const transfer = 'void *, int, void *, void *, int, void *, void *, void *';
  const [swap, gather] = [call('MPI_Ialltoall', transfer), call('MPI_Iallgather', transfer)];
  const test = call('MPI_Test', 'void *, _Out_ int *, void *');
  call('MPI_Init', 'void *, void *')(null, null);
  const number = (name: string): number => {
    const out = [0];
    call(name, 'void *, _Out_ int *')(world, out);
    return out[0]!;
  };
  const [rank, size] = [number('MPI_Comm_rank'), number('MPI_Comm_size')];

  async function done(begin: typeof swap, send: Uint8Array, each: number): Promise<Uint8Array> {
    if (each > MOST) throw new RangeError(`--data-parallel mpi: ${each} bytes at once, expected at most ${MOST}`);
    const receive = new Uint8Array(each * size);
    const [request, flag] = [new BigUint64Array(1), [0]];
    begin(send, each, byte, receive, each, byte, world, request);
    for (const began = performance.now(); ; ) {
      test(request, flag, null);
      if (flag[0] !== 0) return receive;
      if (performance.now() - began < EAGER_MS) await new Promise(setImmediate);
      else await sleep(1);
    }
  }
  return {
    rank,
    size,
    swap: (send) => done(swap, send, send.length / size),
    gather: (send) => done(gather, send, send.length),
    close: () => call('MPI_Finalize', '')(),
  };
}

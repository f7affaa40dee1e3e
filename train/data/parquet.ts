/** Parquet files from people, read by a process with a limited heap (`parquet-reader.mjs`). */
import { type ChildProcess, fork } from 'node:child_process';
import path from 'node:path';
import { FileError } from '../../models/io/error.ts';

/** What a column holds; `picture` is the struct {bytes, path} of the datasets hub. */
export type ColumnKind = 'picture' | 'bytes' | 'text' | 'number' | 'other';
/** A value; bytes also where a text is not UTF-8. */
export type Cell =
  | string
  | number
  | boolean
  | null
  | undefined
  | Uint8Array
  | { readonly bytes: unknown; readonly path: unknown };

/** An opened file: its footer is read. */
export type Parquet = {
  readonly file: string;
  /** rows of each group */
  readonly groups: readonly number[];
  readonly rows: number;
  readonly columns: readonly { readonly name: string; readonly kind: ColumnKind }[];
};

const READER = path.join(import.meta.dirname, 'parquet-reader.mjs');
const HEAP_MB = 256;
const PATIENCE_MS = 120_000;

type Answer = { readonly id: number; readonly result?: unknown; readonly problem?: string; readonly code?: string };

let reader: ChildProcess | undefined;
let asked = 0;
const waiting = new Map<number, (answer: Answer) => void>();

/** Everything that was asked of this process ends with the problem; the next question starts another. */
function giveUp(of: ChildProcess, problem: string): void {
  if (reader !== of) return;
  reader = undefined;
  of.kill('SIGKILL');
  for (const [id, answer] of [...waiting]) answer({ id, problem });
  waiting.clear();
}

/** The reader holds up the end of this process only while it is asked something. */
function hold(of: ChildProcess, held: boolean): void {
  for (const each of [of, of.channel]) {
    if (held) each?.ref();
    else each?.unref();
  }
}

function started(): ChildProcess {
  if (reader) return reader;
  const made = fork(READER, [], {
    execArgv: [`--max-old-space-size=${HEAP_MB}`],
    env: {},
    serialization: 'advanced',
    stdio: ['ignore', 'ignore', 'ignore', 'ipc'],
  });
  made.on('message', (answer: Answer) => {
    waiting.get(answer.id)?.(answer);
    waiting.delete(answer.id);
    if (waiting.size === 0) hold(made, false);
  });
  made.on('error', () => giveUp(made, 'cannot be read, the process that reads it does not start'));
  made.on('exit', () => giveUp(made, 'would fill the memory: it is broken, or has too many rows in a group'));
  reader = made;
  return made;
}

/** One question to the reader. @throws FileError */
async function ask(order: string, file: string, rest: object = {}): Promise<unknown> {
  const id = asked++;
  const asking = started();
  hold(asking, true);
  const { result, problem, code } = await new Promise<Answer>((resolve) => {
    const timer = setTimeout(
      () => giveUp(asking, `cannot be read within ${PATIENCE_MS / 1000} s, it may be broken`),
      PATIENCE_MS,
    );
    const answer = (value: Answer) => {
      clearTimeout(timer);
      resolve(value);
    };
    waiting.set(id, answer);
    // a reader that has just ended answers by its end
    asking.send({ id, order, file, ...rest }, () => undefined);
  });
  if (problem !== undefined) throw new FileError(file, '', code === undefined ? problem : `cannot be read (${code})`);
  return result;
}

/**
 * Opens a parquet file.
 * @throws FileError in one line: no parquet file, cut, broken, or of sizes that are not read
 */
export async function openParquet(file: string): Promise<Parquet> {
  return { file, ...((await ask('open', file)) as Omit<Parquet, 'file'>) };
}

/** All rows of one group, the columns in the order of their names. @throws FileError as `openParquet`, or of its codec */
export const readGroup = async (
  { file }: Parquet,
  columns: readonly string[],
  group: number,
): Promise<readonly (readonly Cell[])[]> => (await ask('column', file, { columns, group })) as Cell[][];

/** One cell. Rows of one group that are asked for one after another decode it once. @throws FileError as `readGroup` */
export const readCell = async (file: string, column: string, group: number, row: number): Promise<Cell> =>
  (await ask('row', file, { column, group, row })) as Cell;

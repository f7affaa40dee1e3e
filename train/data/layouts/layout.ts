/** What a layout of data is: a way in which people keep pictures and their texts in a folder. */
import type { RecordSet } from '../records.ts';

export type ReadOptions = {
  /** Draws a subset where a layout reads one. */
  readonly seed?: number;
  /** The column of a table that holds the texts, where it has another name than the usual ones. */
  readonly captionColumn?: string;
};

/** One layout: a file of its own beside this one, and a line in `index.ts`. */
export interface Layout {
  /** As given to `--layout`. */
  readonly name: string;
  /** What a folder of this layout holds, in a few words: for help and for the line that says what was looked for. */
  readonly doc: string;
  /** Whether a folder with these names (sorted, without what systems leave) is of this layout. */
  readonly detect: (dir: string, names: readonly string[]) => boolean | Promise<boolean>;
  /**
   * Its pairs: paths checked, no picture opened yet. What is wrong with one pair goes into `problems`, so that all of it
   * is told at once.
   * @throws FileError where nothing can be read at all
   */
  readonly read: (dir: string, names: readonly string[], options: ReadOptions) => Promise<RecordSet>;
  /** What `inspect` says of it besides what it says of any: where the prompt comes from, what is left out. */
  readonly says: string;
}

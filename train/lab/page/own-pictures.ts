/** A folder of one's own: `metadata.csv` and the pictures it names. Files stay files: the worker reads each when its turn comes. */
import { CsvError, parse } from 'csv-parse/browser/esm/sync';
import { FILE_COLUMNS, TEXT_COLUMNS } from '../../data/layouts/columns.ts';
import type { OwnPicture } from '../machine/data.ts';

/** A file with its place in the folder. */
export interface Placed {
  readonly path: string;
  readonly file: File;
}
const TABLE = 'metadata.csv';
/** Pictures of a page at most: all are encoded before the first step. */
const MOST = 2000;

/** Everything below what was dropped. */
export async function droppedFiles(entries: readonly FileSystemEntry[]): Promise<readonly Placed[]> {
  const found: Placed[] = [];
  const look = async (entry: FileSystemEntry): Promise<void> => {
    if (entry.isFile) {
      const file = await new Promise<File>((resolve, reject) => (entry as FileSystemFileEntry).file(resolve, reject));
      found.push({ path: entry.fullPath.replace(/^\//, ''), file });
      return;
    }
    const reader = (entry as FileSystemDirectoryEntry).createReader();
    for (;;) {
      const entries = await new Promise<FileSystemEntry[]>((resolve, reject) => reader.readEntries(resolve, reject));
      if (entries.length === 0) return;
      for (const each of entries) await look(each);
    }
  };
  for (const entry of entries) await look(entry);
  return found;
}
/** Everything of a folder that was chosen. */
export const chosenFiles = (files: readonly File[]): readonly Placed[] =>
  files.map((file) => ({ path: file.webkitRelativePath || file.name, file }));

/** @throws Error naming the line of the table that cannot be used */
export async function readOwn(files: readonly Placed[]): Promise<readonly OwnPicture[]> {
  const table = files.find(({ path }) => path.split('/').at(-1) === TABLE);
  if (!table) throw new Error(`there is no ${TABLE} in this folder: expected one with the columns file_name and text`);
  const folder = table.path.slice(0, -TABLE.length);
  const byPath = new Map(files.map(({ path, file }) => [path, file]));
  let rows: Record<string, string>[];
  try {
    rows = parse(new TextDecoder('utf-8', { fatal: true }).decode(await table.file.arrayBuffer()), {
      columns: true,
      bom: true,
      trim: true,
      skip_empty_lines: true,
      delimiter: [',', ';', '\t'],
    }) as Record<string, string>[];
  } catch (error) {
    if (error instanceof CsvError) throw new Error(`${TABLE}: line ${error.lines ?? '?'}: is no row of this table`);
    throw new Error(`${TABLE}: is not UTF-8 text`);
  }
  const column = (names: readonly string[], what: string): string => {
    const found = names.find((name) => rows[0] && name in rows[0]);
    if (found === undefined) throw new Error(`${TABLE}: no column for the ${what}: expected ${names[0]}`);
    return found;
  };
  if (rows.length === 0) throw new Error(`${TABLE}: has no row`);
  if (rows.length > MOST) throw new Error(`${TABLE}: ${rows.length} rows, at most ${MOST} fit here`);
  const [name, text] = [column(FILE_COLUMNS, 'pictures'), column(TEXT_COLUMNS, 'texts')];
  return rows.map((row, i) => {
    const file = byPath.get(folder + row[name]!);
    if (!file) throw new Error(`${TABLE}: row ${i + 1}: there is no picture ${row[name]}`);
    if (row[text] === '') throw new Error(`${TABLE}: row ${i + 1}: has no text`);
    return { name: row[name]!, text: row[text]!, file };
  });
}

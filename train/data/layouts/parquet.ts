/**
 * Parquet as the datasets hub writes it: a column of pictures ({bytes, path}, the encoded file itself or its name) and a
 * column of texts, in files such as `train-00000-of-00002.parquet`, in the folder or up to two folders below.
 */
import path from 'node:path';
import { FileError, listed, quoted } from '../../../models/io/error.ts';
import { type Cell, openParquet, type Parquet, readCell, readGroup } from '../parquet.ts';
import { MAX_IMAGE_BYTES } from '../pictures/images.ts';
import { checkText, type DataRecord, namesIn, problemList, type RecordSet, resolveInside } from '../records.ts';
import { FILE_COLUMNS, knownPatient, PATIENT_COLUMNS, TEXT_COLUMNS } from './columns.ts';
import type { Layout, ReadOptions } from './layout.ts';

const isTable = (name: string): boolean => /\.parquet$/i.test(name);
const DEPTH = 2;

/** Names of the tables in a folder and those below it, sorted. */
async function tablesIn(dir: string, names: readonly string[], depth = DEPTH): Promise<readonly string[]> {
  const below = await Promise.all(
    names.map(async (name) => {
      if (isTable(name) || depth === 0 || /\.\w{1,5}$/.test(name)) return [];
      const inside = await namesIn(path.join(dir, name)).catch(() => undefined);
      const found = inside ? await tablesIn(path.join(dir, name), inside, depth - 1) : [];
      return found.map((each) => `${name}/${each}`);
    }),
  );
  return [...names.filter(isTable), ...below.flat()].sort();
}

type Columns = { readonly picture: string; readonly text: string; readonly patient?: string };

/** Which columns hold what. @throws FileError naming those that are there */
function columnsOf({ file, columns }: Parquet, { captionColumn }: ReadOptions): Columns {
  const there = (kinds: readonly string[]) =>
    columns.filter(({ kind }) => kinds.includes(kind)).map(({ name }) => name);
  const found = listed(columns.map(({ name }) => quoted(name, 40)));
  const pictures = there(['picture', 'bytes', 'text']);
  const stored = there(['picture']);
  const picture = FILE_COLUMNS.find((name) => pictures.includes(name)) ?? (stored.length === 1 ? stored[0] : undefined);
  if (picture === undefined) throw new FileError(file, '', `no column of pictures such as "image", found ${found}`);
  const texts = captionColumn === undefined ? TEXT_COLUMNS : [captionColumn];
  const text = texts.find((name) => name !== picture && there(['text']).includes(name));
  if (text === undefined) {
    const way = captionColumn === undefined ? '; --caption-column names another' : '';
    throw new FileError(file, '', `column ${quoted(texts[0]!)} of texts is missing, found ${found}${way}`);
  }
  const patient = PATIENT_COLUMNS.find((name) => there(['text', 'number']).includes(name));
  return { picture, text, ...(patient === undefined ? {} : { patient }) };
}

/** The encoded picture of a cell. */
async function bytesOf(file: string, field: string, cell: Cell): Promise<Uint8Array> {
  const bytes = typeof cell === 'object' && cell !== null && 'bytes' in cell ? cell.bytes : cell;
  if (!(bytes instanceof Uint8Array)) throw new FileError(file, field, 'holds no picture');
  if (bytes.length > MAX_IMAGE_BYTES)
    throw new FileError(file, field, `has ${bytes.length} bytes, at most ${MAX_IMAGE_BYTES} are read`);
  return bytes;
}

/** The name that a cell gives in place of bytes; undefined where it does not. */
const nameOf = (cell: Cell): string | undefined => (typeof cell === 'string' ? cell : undefined);

async function readTable(dir: string, table: string, options: ReadOptions) {
  const { problems, attempt } = problemList();
  const records: DataRecord[] = [];
  const file = await resolveInside(dir, table, { file: path.join(dir, table), field: '' });
  const opened = await openParquet(file);
  const columns = columnsOf(opened, options);
  const named = opened.columns.find(({ name }) => name === columns.picture)!.kind === 'text';
  const wanted = [columns.text, ...(columns.patient === undefined ? [] : [columns.patient])];
  let before = 0;
  for (const [group, rows] of opened.groups.entries()) {
    const cells = rows === 0 ? [] : await readGroup(opened, [...wanted, ...(named ? [columns.picture] : [])], group);
    for (const [row, values] of cells.entries()) {
      const at = before + row;
      const id = `${table}#${String(at).padStart(6, '0')}`;
      const field = `row ${at}: ${columns.picture}`;
      const record = await attempt(id, async (): Promise<DataRecord> => {
        const [text] = values;
        const place = { file, field: `row ${at}: ${columns.text}` };
        if (typeof text !== 'string' && text !== null)
          throw new FileError(file, place.field, text instanceof Uint8Array ? 'is not UTF-8 text' : 'is no text');
        const patient = columns.patient === undefined ? undefined : knownPatient(values[1]);
        const name = named ? nameOf(values.at(-1)) : undefined;
        if (named && name === undefined) throw new FileError(file, field, 'names no picture');
        return {
          id,
          file: id,
          text: checkText(text ?? '', place),
          ...(patient === undefined ? {} : { patient }),
          ...(name === undefined
            ? {
                image: file,
                encoded: async () => bytesOf(file, field, await readCell(file, columns.picture, group, row)),
              }
            : { image: await resolveInside(dir, name, { file, field }) }),
        };
      });
      if (record) records.push(record);
    }
    before += rows;
  }
  return { records, problems };
}

async function read(dir: string, names: readonly string[], options: ReadOptions): Promise<RecordSet> {
  const tables = await tablesIn(dir, names);
  const sets = [];
  for (const table of tables) sets.push(await readTable(dir, table, options));
  const parts = [...new Set(tables.map((name) => path.posix.basename(name).split(/[-.\d]/)[0]!))];
  const pooled = parts.length > 1 ? [`${listed(parts)} are taken together: --split says what is trained on`] : [];
  return {
    layout: parquetTables.name,
    dir,
    records: sets.flatMap(({ records }) => records),
    skipped: [],
    warnings: pooled,
    problems: sets.flatMap(({ problems }) => problems),
  };
}

export const parquetTables: Layout = {
  name: 'parquet',
  doc: '.parquet files with columns image and text, as the datasets hub writes them',
  detect: async (dir, names) => (await tablesIn(dir, names)).length > 0,
  read,
  says: `the column ${TEXT_COLUMNS.join(', ')}, or the one that --caption-column names`,
};

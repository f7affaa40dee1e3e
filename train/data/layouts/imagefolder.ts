/**
 * The imagefolder layout of the datasets hub: `metadata.csv` or `metadata.jsonl` beside the pictures, with a column for
 * their names and one for their texts; or such tables in folders of their own (`train/`, `test/`, one per class).
 */
import path from 'node:path';
import { FileError, listed, quoted } from '../../../models/io/error.ts';
import {
  checkText,
  type DataRecord,
  namesIn,
  type Problem,
  problemList,
  type RecordSet,
  resolveInside,
} from '../records.ts';
import { readCsv, readJsonLines } from '../table.ts';
import { FILE_COLUMNS, knownPatient, PATIENT_COLUMNS, TEXT_COLUMNS } from './columns.ts';
import type { Layout, ReadOptions } from './layout.ts';

const TABLES = ['metadata.csv', 'metadata.jsonl'] as const;

type Entry = {
  readonly line: number;
  readonly name: string;
  readonly text: string;
  readonly patient: string | undefined;
};

/** Rows that are pairs, and what is wrong with the others. */
type Entries = { readonly entries: readonly Entry[]; readonly problems: readonly Problem[] };

async function csvEntries(file: string, textColumns: readonly string[]): Promise<Entries> {
  const problems: Problem[] = [];
  const rows = await readCsv(file, [FILE_COLUMNS, textColumns], (error) => {
    problems.push({ file: `${path.basename(file)} ${error.field}`, error });
  });
  const entries = rows.map(({ line, cells }) => ({
    line,
    name: cells.get(FILE_COLUMNS[0]!)!,
    text: cells.get(textColumns[0]!)!,
    patient: knownPatient(PATIENT_COLUMNS.map((column) => cells.get(column)).find((value) => value !== undefined)),
  }));
  return { entries, problems };
}

async function jsonEntries(file: string, textColumns: readonly string[]): Promise<Entries> {
  const { problems, attempt } = problemList();
  const entries: Entry[] = [];
  for (const { line, value } of await readJsonLines(file)) {
    const entry = await attempt(`${path.basename(file)} line ${line}`, () => {
      if (typeof value !== 'object' || value === null || Array.isArray(value)) {
        throw new FileError(file, `line ${line}`, 'expected a JSON object such as {"file_name": "…", "text": "…"}');
      }
      const row = new Map<string, unknown>(Object.entries(value));
      const string = (columns: readonly string[]): string => {
        const column = columns.find((each) => row.has(each));
        const field = `line ${line}: ${column ?? columns[0]}`;
        if (column === undefined) throw new FileError(file, field, 'is missing');
        const text = row.get(column);
        if (typeof text !== 'string') throw new FileError(file, field, 'expected a string');
        return text;
      };
      const patient = PATIENT_COLUMNS.map((column) => row.get(column)).find((each) => each !== undefined);
      if (patient !== undefined && patient !== null && typeof patient !== 'string' && typeof patient !== 'number') {
        throw new FileError(file, `line ${line}: patient`, 'expected a string or a number');
      }
      return { line, name: string(FILE_COLUMNS), text: string(textColumns), patient: knownPatient(patient) };
    });
    if (entry) entries.push(entry);
  }
  return { entries, problems };
}

/** The table among the names of a folder. @throws FileError where there are two */
function tableOf(dir: string, names: readonly string[]): string | undefined {
  const found = TABLES.filter((name) => names.includes(name));
  if (found.length > 1) {
    const problem = 'metadata.jsonl is there too: which one counts is ambiguous, keep one of them';
    throw new FileError(path.join(dir, TABLES[0]), '', problem);
  }
  return found[0];
}

/** Folders below that hold a table. */
async function tableFolders(dir: string, names: readonly string[]): Promise<readonly string[]> {
  const lists = await Promise.all(
    names.map(async (name) => (await namesIn(path.join(dir, name)).catch(() => undefined)) ?? []),
  );
  return names.filter((_, at) => lists[at]!.some((name) => (TABLES as readonly string[]).includes(name)));
}

async function readTable(
  root: string,
  below: string,
  names: readonly string[],
  options: ReadOptions,
): Promise<Omit<RecordSet, 'layout' | 'dir'>> {
  const dir = path.join(root, below);
  const table = tableOf(dir, names)!;
  const file = path.join(dir, table);
  const textColumns = options.captionColumn === undefined ? TEXT_COLUMNS : [options.captionColumn];
  const { entries, problems: rows } = await (table === 'metadata.csv' ? csvEntries : jsonEntries)(file, textColumns);
  const { problems, attempt } = problemList();
  const seen = new Map<string, number>();
  const records: DataRecord[] = [];
  const skipped = [];
  for (const { line, name: written, text, patient } of entries) {
    const name = written.trim();
    const inRoot = path.posix.join(below, name);
    if (path.posix.basename(name).startsWith('._')) {
      skipped.push({ file: inRoot, reason: 'is a twin that a Mac wrote beside a file' });
      continue;
    }
    const record = await attempt(inRoot, async () => {
      const image = await resolveInside(dir, name, { file, field: `line ${line}: file_name` });
      const times = (seen.get(name) ?? 0) + 1;
      seen.set(name, times);
      const id = below === '.' ? name : `${below}/${name}`;
      return {
        id: times === 1 ? id : `${id}#${times}`,
        file: id,
        image,
        text: checkText(text, { file, field: `line ${line}: text` }),
        ...(patient === undefined ? {} : { patient }),
      };
    });
    if (record) records.push(record);
  }
  const repeated = [...seen].filter(([, times]) => times > 1).map(([name]) => quoted(name));
  const warnings = repeated.length > 0 ? [`named in more than one line of ${table}: ${listed(repeated)}`] : [];
  return { records, skipped, warnings, problems: [...rows, ...problems] };
}

/**
 * The pairs of an imagefolder. A column `patient`, `patient_id` or `subject_id` is used for grouping where there is one.
 * @throws FileError naming file, line and column: as `readCsv`, `readJsonLines`, `resolveInside`, `checkText`.
 */
async function read(dir: string, names: readonly string[], options: ReadOptions): Promise<RecordSet> {
  const own = tableOf(dir, names) !== undefined;
  const folders = own ? ['.'] : await tableFolders(dir, names);
  const sets = [];
  for (const below of folders) {
    const inside = own ? names : ((await namesIn(path.join(dir, below))) ?? []);
    sets.push(await readTable(dir, below, inside, options));
  }
  const pooled = folders.length > 1 ? [`${listed(folders)} are taken together: --split says what is trained on`] : [];
  return {
    layout: imageFolder.name,
    dir,
    records: sets.flatMap(({ records }) => records),
    skipped: sets.flatMap(({ skipped }) => skipped),
    warnings: [...pooled, ...sets.flatMap(({ warnings }) => warnings)],
    problems: sets.flatMap(({ problems }) => problems),
  };
}

export const imageFolder: Layout = {
  name: 'imagefolder',
  doc: 'metadata.csv or metadata.jsonl with file_name and text',
  detect: async (dir, names) =>
    TABLES.some((name) => names.includes(name)) || (await tableFolders(dir, names)).length > 0,
  read,
  says: `the column ${TEXT_COLUMNS.join(', ')}, or the one that --caption-column names`,
};

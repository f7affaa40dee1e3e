/** Tables from people: CSV with a header line, and JSON lines. Strict, since a cut-off report is worse than an error. */
import { isUtf8 } from 'node:buffer';
import { CsvError, parse } from 'csv-parse/sync';
import { FileError, listed, quoted } from '../../models/io/error.ts';
import { decodeText, parseJson, readBytes } from '../../models/io/json.ts';

/** One row: the line it begins on (the header is line 1) and its cells by column name. */
export type Row = { readonly line: number; readonly cells: ReadonlyMap<string, string> };

const MAX_TABLE_BYTES = 256 * 2 ** 20;

/** The text of a table. @throws FileError naming the first line that is not UTF-8, or as `readBytes`. */
async function readText(file: string): Promise<string> {
  const bytes = await readBytes(file, MAX_TABLE_BYTES);
  if (isUtf8(bytes)) return decodeText(bytes, file);
  let line = 1;
  for (let from = 0; from < bytes.length; line++) {
    const end = bytes.indexOf(0x0a, from);
    const to = end < 0 ? bytes.length : end + 1;
    if (!isUtf8(bytes.subarray(from, to))) break;
    from = to;
  }
  throw new FileError(file, `line ${line}`, 'is not UTF-8 text, save the table with UTF-8 encoding');
}

const csvProblem = (error: CsvError): string => {
  switch (error.code) {
    case 'CSV_QUOTE_NOT_CLOSED':
      return 'a quote is opened and never closed';
    case 'INVALID_OPENING_QUOTE':
    case 'CSV_INVALID_CLOSING_QUOTE':
      return 'a double quote within a cell; write it twice and put the cell in double quotes';
    default:
      return 'row cannot be read as CSV';
  }
};

type Parsed = { readonly record: readonly string[]; readonly line: number };

const SEPARATORS = [',', ';', '\t'] as const;
const blank = (cell: string): boolean => cell.trim() === '';

/** A header's names without the blanks around them; a byte-order mark is none of the text by then. */
const headerOf = (rows: readonly Parsed[]): readonly string[] => rows[0]?.record.map((name) => name.trim()) ?? [];

/**
 * The separator: the one whose header holds most of the columns that are asked for; a comma where none does.
 * Spreadsheets save semicolons where the comma is the decimal point.
 */
function separatorOf(text: string, required: readonly (readonly string[])[]): (typeof SEPARATORS)[number] {
  const line =
    text
      .slice(0, 100_000)
      .split(/\r\n|\n|\r/)
      .find((each) => !blank(each)) ?? '';
  const names = (separator: string) =>
    line.split(separator).map((name) =>
      name
        .trim()
        .replace(/^"(.*)"$/, '$1')
        .trim(),
    );
  const score = (separator: string) =>
    required.filter((some) => some.some((name) => names(separator).includes(name))).length;
  return SEPARATORS.reduce((best, each) => (score(each) > score(best) ? each : best), ',');
}

/**
 * Reads a table with a header line. UTF-8 only; a byte-order mark, CRLF, semicolons or tabs between columns, blanks
 * around names, empty columns and empty rows are fine; every other row has the header's columns.
 * @param required columns that must be there, each by its name or a list of names of which the first found counts
 * @param badRow told of each row that cannot be read; without it the first one is thrown
 * @throws FileError naming file and line: not UTF-8, empty, columns missing or twice, quotes, rows of other length.
 * @example await readCsv('data/metadata.csv', ['file_name', ['text', 'caption']])
 */
export async function readCsv(
  file: string,
  required: readonly (string | readonly string[])[],
  badRow: (error: FileError) => void = (error) => {
    throw error;
  },
): Promise<readonly Row[]> {
  const wanted = required.map((names) => (typeof names === 'string' ? [names] : names));
  const text = await readText(file);
  if (text.trim() === '') {
    throw new FileError(file, '', `is empty, expected a header line with the columns ${wanted.map(([name]) => name)}`);
  }
  const rows = parseRows(text, file, separatorOf(text, wanted));
  const header = headerOf(rows);
  const named = header.filter((name) => name !== '');
  const twice = named.find((name, at) => named.indexOf(name) !== at);
  if (twice !== undefined) throw new FileError(file, 'line 1', `column ${quoted(twice)} is there twice`);
  const found = wanted.map((names) => names.find((name) => named.includes(name)));
  const missing = wanted.filter((_, at) => found[at] === undefined).map(([name]) => quoted(name!));
  if (missing.length > 0) {
    const there = listed(named.map((name) => quoted(name, 40)));
    const way = found[0] !== undefined && missing.includes(quoted('text')) ? '; --caption-column names another' : '';
    throw new FileError(file, 'line 1', `column ${listed(missing)} is missing, found ${there}${way}`);
  }
  const body = rows.slice(1).filter(({ record }) => !record.every(blank));
  if (body.length === 0) throw new FileError(file, '', 'has a header line but no rows');
  return body.flatMap(({ record, line }) => {
    if (record.length < header.length || !record.slice(header.length).every(blank)) {
      const problem = 'row has another number of columns than the header; put texts with commas in double quotes';
      badRow(new FileError(file, `line ${line}`, problem));
      return [];
    }
    const cells = new Map<string, string>();
    header.forEach((name, at) => {
      if (name !== '') cells.set(name, record[at]!);
    });
    // a column under its first name, whatever the table calls it
    wanted.forEach(([name], at) => {
      cells.set(name!, cells.get(found[at]!)!);
    });
    return [{ line, cells }];
  });
}

function parseRows(text: string, file: string, separator: string, trimmed = false): readonly Parsed[] {
  const breaks = (cell: string) => cell.split(/\r\n|\n|\r/).length - 1;
  const rows: Parsed[] = [];
  try {
    parse(text, {
      skip_empty_lines: true,
      relax_column_count: true,
      delimiter: separator,
      ltrim: trimmed,
      record_delimiter: ['\r\n', '\n', '\r'],
      max_record_size: 4_000_000,
      on_record: (record: readonly string[], { lines }) => {
        // `lines` is the last line of a record; people look for the first one.
        rows.push({ record, line: lines - record.reduce((sum, cell) => sum + breaks(cell), 0) });
        return null;
      },
    });
    return rows;
  } catch (error) {
    if (!(error instanceof CsvError)) throw error;
    // a blank before an opening quote: a, "b, c"
    if (error.code === 'INVALID_OPENING_QUOTE' && !trimmed) return parseRows(text, file, separator, true);
    const line = typeof error.lines === 'number' ? `line ${error.lines}` : 'row';
    throw new FileError(file, line, csvProblem(error));
  }
}

/** One line of JSON lines: its number and its value, parsed strictly (no duplicate keys, bounded depth). */
export type JsonLine = { readonly line: number; readonly value: unknown };

/** A line with `null` where Python writes NaN or Infinity, which JSON does not know; texts stay as they are. */
const withoutNaN = (source: string): string =>
  /NaN|Infinity/.test(source)
    ? source.replace(/"(?:[^"\\]|\\.)*"|-?\b(?:NaN|Infinity)\b/g, (part) => (part.startsWith('"') ? part : 'null'))
    : source;

/**
 * Reads a file with one JSON value per line; empty lines are skipped.
 * @throws FileError naming file and line: not UTF-8, empty, or a line that is no JSON.
 */
export async function readJsonLines(file: string): Promise<readonly JsonLine[]> {
  const text = await readText(file);
  const lines = text
    .split('\n')
    .map((source, at) => ({ line: at + 1, source: source.endsWith('\r') ? source.slice(0, -1) : source }))
    .filter(({ source }) => source.trim() !== '');
  if (lines.length === 0) throw new FileError(file, '', 'is empty, expected one JSON object per line');
  return lines.map(({ line, source }) => {
    try {
      return { line, value: parseJson(withoutNaN(source), file, { field: `line ${line}` }) };
    } catch (error) {
      if (!(error instanceof FileError)) throw error;
      // The parser counts lines within the text it is given, which is one line here.
      const problem = error.message.replace(/ \(line 1, column (\d+)\)$/, ' at column $1');
      const place = error.field.startsWith('line') || error.field === '' ? '' : `${error.field}: `;
      const detail = problem.slice(problem.lastIndexOf(': ') + 2);
      throw new FileError(file, `line ${line}`, `${place}${detail}`);
    }
  });
}

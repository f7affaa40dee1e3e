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
    case 'CSV_RECORD_INCONSISTENT_FIELDS_LENGTH':
    case 'CSV_RECORD_INCONSISTENT_COLUMNS':
      return 'row has another number of columns than the header; put texts with commas in double quotes';
    case 'INVALID_OPENING_QUOTE':
    case 'CSV_INVALID_CLOSING_QUOTE':
      return 'a double quote within a cell; write it twice and put the cell in double quotes';
    default:
      return 'row cannot be read as CSV';
  }
};

type Parsed = { readonly record: readonly string[]; readonly line: number };

/**
 * Reads a comma-separated table. UTF-8 only, a byte-order mark and CRLF are fine; every row has the header's columns.
 * @throws FileError naming file and line: not UTF-8, empty, columns missing or twice, quotes, rows of other length.
 * @example await readCsv('data/metadata.csv', ['file_name', 'text'])
 */
export async function readCsv(file: string, required: readonly string[]): Promise<readonly Row[]> {
  const text = await readText(file);
  if (text.trim() === '') {
    throw new FileError(file, '', `is empty, expected a header line with the columns ${required.join(',')}`);
  }
  const rows = parseRows(text, file);
  const [header, ...body] = rows;
  const columns = header!.record;
  const twice = columns.find((name, at) => columns.indexOf(name) !== at);
  if (twice !== undefined) throw new FileError(file, 'line 1', `column ${quoted(twice)} is there twice`);
  const missing = required.filter((name) => !columns.includes(name));
  if (missing.length > 0) {
    const found = listed(columns.map((name) => quoted(name, 40)));
    throw new FileError(
      file,
      'line 1',
      `column ${listed(missing.map((name) => quoted(name)))} is missing, found ${found}`,
    );
  }
  if (body.length === 0) throw new FileError(file, '', 'has a header line but no rows');
  return body.map(({ record, line }) => ({
    line,
    cells: new Map(columns.map((name, at) => [name, record[at]!])),
  }));
}

function parseRows(text: string, file: string): readonly Parsed[] {
  const breaks = (cell: string) => cell.split(/\r\n|\n|\r/).length - 1;
  const rows: Parsed[] = [];
  try {
    parse(text, {
      skip_empty_lines: true,
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
    const line = typeof error.lines === 'number' ? `line ${error.lines}` : 'row';
    throw new FileError(file, line, csvProblem(error));
  }
}

/** One line of JSON lines: its number and its value, parsed strictly (no duplicate keys, bounded depth). */
export type JsonLine = { readonly line: number; readonly value: unknown };

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
      return { line, value: parseJson(source, file, { field: `line ${line}` }) };
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

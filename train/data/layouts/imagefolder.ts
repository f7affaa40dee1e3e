/** The imagefolder layout: `metadata.csv` or `metadata.jsonl` with `file_name,text` beside the images. */
import path from 'node:path';
import { z } from 'zod';
import { FileError, listed, quoted } from '../../../models/io/error.ts';
import { checkText, type DataRecord, nonEmpty, type RecordSet, resolveInside } from '../records.ts';
import { readCsv, readJsonLines } from '../table.ts';

/** Optional columns that tell whose image it is. */
const PATIENT_COLUMNS = ['patient', 'patient_id', 'subject_id'] as const;

const ROW = z.looseObject({
  file_name: z.string('expected a string'),
  text: z.string('expected a string'),
  patient: z.union([z.string(), z.number()]).optional(),
  patient_id: z.union([z.string(), z.number()]).optional(),
  subject_id: z.union([z.string(), z.number()]).optional(),
});

type Entry = { readonly line: number; readonly name: string; readonly text: string; readonly patient: string };

async function csvEntries(file: string): Promise<readonly Entry[]> {
  const rows = await readCsv(file, ['file_name', 'text']);
  return rows.map(({ line, cells }) => ({
    line,
    name: cells.get('file_name')!,
    text: cells.get('text')!,
    patient: PATIENT_COLUMNS.map((column) => cells.get(column)).find((value) => value !== undefined) ?? '',
  }));
}

async function jsonEntries(file: string): Promise<readonly Entry[]> {
  const lines = await readJsonLines(file);
  return lines.map(({ line, value }) => {
    if (typeof value !== 'object' || value === null || Array.isArray(value)) {
      throw new FileError(file, `line ${line}`, 'expected a JSON object such as {"file_name": "…", "text": "…"}');
    }
    const row = ROW.safeParse(value);
    if (!row.success) {
      const issue = row.error.issues[0]!;
      const field = issue.path.join('.');
      const problem = Object.hasOwn(value, field) ? issue.message : 'is missing';
      throw new FileError(file, `line ${line}: ${field}`, problem);
    }
    const { file_name: name, text, patient, patient_id, subject_id } = row.data;
    return { line, name, text, patient: String(patient ?? patient_id ?? subject_id ?? '') };
  });
}

/** Whether the folder has this layout. */
export const isImageFolder = (names: readonly string[]): boolean =>
  names.includes('metadata.csv') || names.includes('metadata.jsonl');

/**
 * The pairs of an imagefolder. A column `patient`, `patient_id` or `subject_id` is used for grouping where there is one.
 * @throws FileError naming file, line and column: as `readCsv`, `readJsonLines`, `resolveInside`, `checkText`.
 */
export async function loadImageFolder(dir: string, names: readonly string[]): Promise<RecordSet> {
  const [csv, jsonl] = ['metadata.csv', 'metadata.jsonl'].map((name) => path.join(dir, name)) as [string, string];
  if (names.includes('metadata.csv') && names.includes('metadata.jsonl')) {
    throw new FileError(csv, '', 'metadata.jsonl is there too: which one counts is ambiguous, keep one of them');
  }
  const file = names.includes('metadata.csv') ? csv : jsonl;
  const entries = await (file === csv ? csvEntries(file) : jsonEntries(file));
  const seen = new Map<string, number>();
  const records: DataRecord[] = [];
  for (const { line, name, text, patient } of entries) {
    const image = await resolveInside(dir, name, { file, field: `line ${line}: file_name` });
    const times = (seen.get(name) ?? 0) + 1;
    seen.set(name, times);
    records.push({
      id: times === 1 ? name : `${name}#${times}`,
      file: name,
      image,
      text: checkText(text, { file, field: `line ${line}: text` }),
      ...(patient.trim() === '' ? {} : { patient: patient.trim() }),
    });
  }
  const repeated = [...seen].filter(([, times]) => times > 1).map(([name]) => quoted(name));
  const warnings =
    repeated.length > 0 ? [`named in more than one line of ${path.basename(file)}: ${listed(repeated)}`] : [];
  return nonEmpty({ layout: 'imagefolder', dir, records, skipped: [], warnings });
}

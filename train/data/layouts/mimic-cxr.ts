/**
 * MIMIC-CXR-JPG as PhysioNet ships it, unpacked or not: `mimic-cxr-2.0.0-split.csv`, `…-metadata.csv` (views),
 * `files/p10/p10000032/s50414267/{dicom_id}.jpg`, and the reports beside them (`s50414267.txt` in the patient's folder, of
 * `mimic-cxr-reports`). Films from the front (PA, AP) only; one whose report is not there is left out and counted.
 * Source: physionet.org/content/mimic-cxr-jpg.
 */
import path from 'node:path';
import { FileError } from '../../../models/io/error.ts';
import { decodeText, readBytes } from '../../../models/io/json.ts';
import {
  checkText,
  type DataRecord,
  namesIn,
  oneLine,
  problemList,
  type RecordSet,
  resolveInside,
  type Skip,
} from '../records.ts';
import { readCsv } from '../table.ts';
import type { Layout } from './layout.ts';

const SPLIT = /^mimic-cxr-[\d.]+-split\.csv$/;
const METADATA = /^mimic-cxr-[\d.]+-metadata\.csv$/;
const ARCHIVE = /^mimic-cxr-[\d.]+-(split|metadata)\.csv\.gz$/;
/** Where the patients' folders of reports may lie. */
const REPORTS = ['files', 'mimic-cxr-reports/files', 'reports/files', 'reports'] as const;
const MAX_REPORT_BYTES = 1 << 20;
const FRONTAL = ['PA', 'AP'];

/** The paragraphs of a report by their headings in capitals. */
function sections(report: string): ReadonlyMap<string, string> {
  const found = new Map<string, string>();
  const headings = [...report.matchAll(/^[ \t]*([A-Z][A-Z ,/()&-]{2,60}):/gm)];
  headings.forEach((heading, at) => {
    const text = oneLine(report.slice(heading.index + heading[0].length, headings[at + 1]?.index));
    if (text !== '' && !found.has(heading[1]!)) found.set(heading[1]!, text);
  });
  return found;
}

/** The prompt of a report: its findings, else its impression, else its last paragraph where it names neither. */
export function reportText(report: string): string | undefined {
  const parts = sections(report);
  const text = ['FINDINGS', 'FINDINGS AND IMPRESSION', 'IMPRESSION']
    .map((name) => parts.get(name))
    .find((each) => each);
  if (text !== undefined) return text;
  const last = report
    .split(/\n\s*\n/)
    .map(oneLine)
    .filter((each) => each !== '')
    .at(-1);
  return last !== undefined && !/^[A-Z ,/()&-]+:$/.test(last) ? last.replace(/^[A-Z ,/()&-]{3,}:\s*/, '') : undefined;
}

/** p10000032 lies in p10. */
const placeOf = (subject: string, study: string) => `p${subject.slice(0, 2)}/p${subject}/s${study}`;

/**
 * The frontal pairs.
 * @throws FileError naming table, line and column, or the table that is missing
 */
async function read(dir: string, names: readonly string[]): Promise<RecordSet> {
  const [split, metadata] = [SPLIT, METADATA].map((kind) => names.find((name) => kind.test(name)));
  if (split === undefined || metadata === undefined) {
    const packed = names.some((name) => ARCHIVE.test(name)) ? '; unpack it with gunzip' : '';
    const lacking = split === undefined ? '…-split.csv' : '…-metadata.csv';
    throw new FileError(dir, 'data', `mimic-cxr-${lacking} is not there${packed}`);
  }
  const file = path.join(dir, metadata);
  const views = new Map(
    (await readCsv(file, ['dicom_id', 'ViewPosition'])).map(({ cells }) => [
      cells.get('dicom_id')!.trim(),
      cells.get('ViewPosition')!.trim().toUpperCase(),
    ]),
  );
  const records: DataRecord[] = [];
  const skipped: Skip[] = [];
  const { problems, attempt } = problemList();
  const table = path.join(dir, split);
  const texts = new Map<string, string | undefined>();
  const folders = new Map<string, readonly string[]>();
  const inside = async (folder: string): Promise<readonly string[]> => {
    if (!folders.has(folder)) folders.set(folder, (await namesIn(path.join(dir, folder))) ?? []);
    return folders.get(folder)!;
  };
  /** The report of a study; undefined where there is none, or none that says anything. */
  const textOf = async (place: string): Promise<string | undefined> => {
    for (const root of REPORTS) {
      const name = `${root}/${place}.txt`;
      if (!(await inside(path.posix.dirname(name))).includes(path.posix.basename(name))) continue;
      const real = await resolveInside(dir, name, { file: table, field: 'report' });
      const text = reportText(decodeText(await readBytes(real, MAX_REPORT_BYTES), path.join(dir, name)));
      return text === undefined ? undefined : checkText(text, { file: path.join(dir, name), field: 'report' });
    }
    return undefined;
  };
  for (const { line, cells } of await readCsv(table, ['dicom_id', 'study_id', 'subject_id'])) {
    const [id, study, subject] = ['dicom_id', 'study_id', 'subject_id'].map((name) => cells.get(name)!.trim()) as [
      string,
      string,
      string,
    ];
    if (!FRONTAL.includes(views.get(id) ?? '')) continue;
    const place = placeOf(subject, study);
    const image = `files/${place}/${id}.jpg`;
    const record = await attempt(image, async () => {
      if (![id, study, subject].every((name) => /^[\w-]+$/.test(name)))
        throw new FileError(table, `line ${line}`, 'dicom_id, study_id or subject_id is no name');
      if (!(await inside(`files/${place}`)).includes(`${id}.jpg`)) {
        skipped.push({ file: image, reason: 'is not there' });
        return undefined;
      }
      if (!texts.has(place)) texts.set(place, await textOf(place));
      const text = texts.get(place);
      if (text === undefined) {
        skipped.push({ file: image, reason: `no report ${place}.txt with findings or impression` });
        return undefined;
      }
      const real = await resolveInside(dir, image, { file: table, field: `line ${line}: dicom_id` });
      return { id, file: image, image: real, text, patient: subject };
    });
    if (record) records.push(record);
  }
  return { layout: mimicCxr.name, dir, records, skipped, warnings: [], problems };
}

export const mimicCxr: Layout = {
  name: 'mimic-cxr',
  doc: 'mimic-cxr-2.0.0-split.csv and -metadata.csv, files/p10/… with .jpg and reports',
  detect: (_, names) => names.some((name) => SPLIT.test(name) || METADATA.test(name) || ARCHIVE.test(name)),
  read,
  says: 'the findings of the report, its impression where there are none; films from the front (PA, AP) only',
};

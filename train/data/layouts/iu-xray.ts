/**
 * IU X-Ray (Open-i), frontal films only, in its two forms:
 * - `ecgen-radiology/*.xml` with the PNG files beside it (NLMCXR_png, images or the folder itself),
 * - `indiana_reports.csv` and `indiana_projections.csv` with `images/images_normalized`.
 * The prompt is the report's findings; its impression where there are none.
 */
import path from 'node:path';
import { FileError } from '../../../models/io/error.ts';
import { decodeText, readBytes } from '../../../models/io/json.ts';
import {
  checkText,
  type DataRecord,
  firstFolder,
  namesIn,
  oneLine,
  problemList,
  type RecordSet,
  resolveInside,
  type Skip,
} from '../records.ts';
import { readCsv } from '../table.ts';
import type { Layout } from './layout.ts';
import { type OpenIReport, parseOpenI } from './open-i-xml.ts';

const XML_FOLDER = 'ecgen-radiology';
const REPORTS = 'indiana_reports.csv';
const PROJECTIONS = 'indiana_projections.csv';
const XML_IMAGES = ['NLMCXR_png', 'images', 'png', '.'] as const;
const CSV_IMAGES = ['images/images_normalized', 'images_normalized', 'images', '.'] as const;
const MAX_XML_BYTES = 4 * 2 ** 20;

/** The report's findings, or its impression; 'None.' says there is nothing. */
function promptOf(findings: string, impression: string): string | undefined {
  const said = (text: string) => /[a-z]/i.test(text) && !/^none\.?$/i.test(text);
  return [findings, impression].map(oneLine).find(said);
}

/**
 * Which of a report's images is the frontal film. Captions decide where they name one view only ("Frontal view",
 * "Lateral"). Most name both ("PA and lateral chest x-ray"); Open-i then lists the frontal film first.
 */
export function frontalImages(images: OpenIReport['images']): OpenIReport['images'] {
  const view = ({ caption }: { readonly caption: string }) => {
    const frontal = /\b(frontal|pa|ap|portable)\b/i.test(caption);
    const lateral = /\blateral\b/i.test(caption);
    return frontal === lateral ? 'unknown' : frontal ? 'frontal' : 'lateral';
  };
  const named = images.filter((image) => view(image) === 'frontal');
  return named.length > 0 ? named : images.filter((image) => view(image) !== 'lateral').slice(0, 1);
}

async function loadXml(dir: string): Promise<RecordSet> {
  const reports = (await namesIn(path.join(dir, XML_FOLDER)))?.filter((name) => name.endsWith('.xml')) ?? [];
  if (reports.length === 0) throw new FileError(path.join(dir, XML_FOLDER), 'data', 'holds no .xml report');
  const films = await firstFolder(dir, XML_IMAGES);
  const present = new Set(films?.names);
  const records: DataRecord[] = [];
  const skipped: Skip[] = [];
  const { problems, attempt } = problemList();
  // 1.xml, 2.xml, 10.xml
  for (const name of reports.toSorted((a, b) => a.localeCompare(b, 'en', { numeric: true }))) {
    const file = path.join(dir, XML_FOLDER, name);
    const skip = (reason: string) => skipped.push({ file: `${XML_FOLDER}/${name}`, reason });
    const report = await attempt(`${XML_FOLDER}/${name}`, async () => {
      const real = await resolveInside(dir, `${XML_FOLDER}/${name}`, { file, field: 'report' });
      return parseOpenI(decodeText(await readBytes(real, MAX_XML_BYTES), file), file);
    });
    if (!report) continue;
    const text = promptOf(report.findings, report.impression);
    if (report.images.length === 0) skip('no parentImage');
    else if (text === undefined) skip('neither findings nor impression');
    else {
      const frontal = frontalImages(report.images);
      if (frontal.length === 0) skip('no frontal image');
      for (const { id } of frontal) {
        const image = `${films!.folder}/${id}.png`;
        if (!present.has(`${id}.png`)) {
          skip(`image ${id}.png is not there`);
          continue;
        }
        const record = await attempt(path.posix.normalize(image), async () => ({
          id,
          file: path.posix.normalize(image),
          image: await resolveInside(dir, image, { file, field: 'parentImage' }),
          text: checkText(text, { file, field: 'findings' }),
          patient: report.uid || name.slice(0, -'.xml'.length),
        }));
        if (record) records.push(record);
      }
    }
  }
  return { layout: iuXray.name, dir, records, skipped, warnings: [], problems };
}

async function loadCsv(dir: string, names: readonly string[]): Promise<RecordSet> {
  for (const name of [REPORTS, PROJECTIONS]) {
    if (!names.includes(name)) throw new FileError(path.join(dir, name), '', 'is not there beside the other table');
  }
  const [reportsFile, file] = [path.join(dir, REPORTS), path.join(dir, PROJECTIONS)];
  const reports = await readCsv(reportsFile, ['uid', 'findings', 'impression']);
  const byUid = new Map(reports.map((row) => [row.cells.get('uid')!, row]));
  if (byUid.size !== reports.length) throw new FileError(reportsFile, 'uid', 'is there twice for one report');
  const films = await firstFolder(dir, CSV_IMAGES);
  const present = new Set(films?.names);
  const records: DataRecord[] = [];
  const skipped: Skip[] = [];
  const { problems, attempt } = problemList();
  for (const { line, cells } of await readCsv(file, ['uid', 'filename', 'projection'])) {
    const [uid, filename, projection] = ['uid', 'filename', 'projection'].map((name) => cells.get(name)!) as [
      string,
      string,
      string,
    ];
    const view = projection.trim().toLowerCase();
    if (view === 'lateral') continue;
    if (view !== 'frontal') {
      const error = new FileError(file, `line ${line}: projection`, `is neither Frontal nor Lateral`);
      await attempt(filename, () => Promise.reject(error));
      continue;
    }
    const report = byUid.get(uid);
    const text = report && promptOf(report.cells.get('findings')!, report.cells.get('impression')!);
    const image = `${films!.folder}/${filename}`;
    if (!report) skipped.push({ file: filename, reason: 'has no report' });
    else if (text === undefined) skipped.push({ file: filename, reason: 'neither findings nor impression' });
    else if (/^[\w.-]+$/.test(filename) && !present.has(filename)) {
      skipped.push({ file: filename, reason: `image ${filename} is not there` });
    } else {
      const record = await attempt(path.posix.normalize(image), async () => ({
        id: filename.replace(/\.(png|jpe?g)$/i, ''),
        file: path.posix.normalize(image),
        image: await resolveInside(dir, image, { file, field: `line ${line}: filename` }),
        text: checkText(text, { file: reportsFile, field: `line ${report.line}: findings` }),
        patient: uid,
      }));
      if (record) records.push(record);
    }
  }
  return { layout: iuXray.name, dir, records, skipped, warnings: [], problems };
}

/**
 * The frontal pairs of an IU X-Ray folder; reports without film, findings or frontal view are left out and counted.
 * @throws FileError naming the report or table and its field.
 */
const read = (dir: string, names: readonly string[]): Promise<RecordSet> =>
  names.includes(XML_FOLDER) ? loadXml(dir) : loadCsv(dir, names);

export const iuXray: Layout = {
  name: 'iu-xray',
  doc: 'ecgen-radiology, or indiana_reports.csv and indiana_projections.csv',
  detect: (_, names) => [XML_FOLDER, REPORTS, PROJECTIONS].some((name) => names.includes(name)),
  read,
  says: 'the findings of the report, its impression where there are none; frontal films only',
};

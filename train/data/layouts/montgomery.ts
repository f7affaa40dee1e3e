/**
 * Montgomery County CXR: `CXR_png/MCUCXR_0001_0.png` with `ClinicalReadings/MCUCXR_0001_0.txt`. A reading is three or
 * more lines: "Patient's Sex: F", "Patient's Age: 045Y", the finding. Sex, age and finding together are the prompt.
 */
import path from 'node:path';
import { FileError, quoted } from '../../../models/io/error.ts';
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
import type { Layout } from './layout.ts';

const IMAGES = 'CXR_png';
const READINGS = 'ClinicalReadings';
const MAX_READING_BYTES = 1 << 16;

/**
 * The prompt of a reading.
 * @throws FileError naming file and field (sex, age, finding) with what was expected.
 * @example readingText("Patient's Sex: F\nPatient's Age: 045Y\nnormal", 'x.txt')
 * // "Patient's Sex: F, Patient's Age: 045Y, normal"
 */
export function readingText(source: string, file: string): string {
  if (source.trim() === '') throw new FileError(file, '', 'the reading is empty, expected sex, age and finding');
  const [sexLine = '', ageLine = '', ...rest] = source
    .split(/\r\n|\n|\r/)
    .map(oneLine)
    .filter((line) => line !== '');
  const sex = /^Patient'?s Sex:\s*([MFO])$/i.exec(sexLine)?.[1];
  if (!sex) throw new FileError(file, 'sex', `line 1 is ${quoted(sexLine, 60)}, expected "Patient's Sex: F"`);
  const age = /^Patient'?s Age:\s*(\d{1,3}[YMWD]?)$/i.exec(ageLine)?.[1];
  if (!age) throw new FileError(file, 'age', `line 2 is ${quoted(ageLine, 60)}, expected "Patient's Age: 045Y"`);
  const finding = oneLine(rest.join(' '));
  if (finding === '') throw new FileError(file, 'finding', 'is empty, expected a reading after sex and age');
  return checkText(`Patient's Sex: ${sex}, Patient's Age: ${age}, ${finding}`, { file, field: 'reading' });
}

/**
 * The pairs of a Montgomery folder; images without reading and readings without image are left out and counted.
 * @throws FileError naming the reading and its field, or what was looked for and not found.
 */
async function read(dir: string): Promise<RecordSet> {
  const images = await namesIn(path.join(dir, IMAGES));
  const readings = await namesIn(path.join(dir, READINGS));
  if (!images || !readings) {
    throw new FileError(
      dir,
      'data',
      `folder ${images ? READINGS : IMAGES} is missing beside ${images ? IMAGES : READINGS}`,
    );
  }
  const films = new Set(images.filter((name) => name.endsWith('.png')));
  const texts = readings.filter((name) => name.endsWith('.txt'));
  const records: DataRecord[] = [];
  const skipped: Skip[] = [];
  const { problems, attempt } = problemList();
  for (const name of texts) {
    const id = name.slice(0, -'.txt'.length);
    const reading = path.join(dir, READINGS, name);
    const image = `${IMAGES}/${id}.png`;
    if (!films.delete(`${id}.png`)) {
      skipped.push({ file: `${READINGS}/${name}`, reason: `${image} is not there` });
      continue;
    }
    const record = await attempt(image, async () => {
      const real = await resolveInside(dir, `${READINGS}/${name}`, { file: reading, field: 'reading' });
      const source = decodeText(await readBytes(real, MAX_READING_BYTES), reading);
      return {
        id,
        file: image,
        image: await resolveInside(dir, image, { file: reading, field: 'image' }),
        text: readingText(source, reading),
        // MCUCXR_0001_0: number of the patient, then 1 for tuberculosis.
        patient: id.replace(/_\d$/, ''),
      };
    });
    if (record) records.push(record);
  }
  skipped.push(...[...films].map((name) => ({ file: `${IMAGES}/${name}`, reason: 'has no reading' })));
  return { layout: montgomery.name, dir, records, skipped, warnings: [], problems };
}

export const montgomery: Layout = {
  name: 'montgomery',
  doc: 'CXR_png and ClinicalReadings',
  detect: (_, names) => names.includes(READINGS) || names.includes(IMAGES),
  read,
  says: 'sex, age and finding of the reading',
};

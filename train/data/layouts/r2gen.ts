/**
 * R2Gen's form of IU X-Ray: `annotation.json` with lists `train`, `val` and `test` of {id, report, image_path}, and the
 * films in `images`. A study has a frontal film (`0.png`) and mostly a lateral one (`1.png`); the frontal one is taken.
 * Source: github.com/cuhksz-nlp/R2Gen.
 */
import path from 'node:path';
import { z } from 'zod';
import { FileError, listed } from '../../../models/io/error.ts';
import { readJson } from '../../../models/io/json.ts';
import {
  checkText,
  type DataRecord,
  firstFolder,
  oneLine,
  problemList,
  type RecordSet,
  resolveInside,
} from '../records.ts';
import type { Layout } from './layout.ts';

const TABLE = 'annotation.json';
const IMAGES = ['images', '.'] as const;
const PARTS = ['train', 'val', 'test'] as const;
const MAX_TABLE_BYTES = 256 * 2 ** 20;

const study = z.object({
  id: z.string().min(1),
  report: z.string(),
  image_path: z.array(z.string()).min(1),
  subject_id: z.union([z.string(), z.number()]).nullish(),
});
const schema = z.partialRecord(z.enum(PARTS), z.array(z.unknown()));

/** `CXR2384_IM-0942` → the patient's `CXR2384`; other names are not taken apart. */
const patientOf = (id: string): string => /^(CXR\d+)_/.exec(id)?.[1] ?? id;

/** The film that shows the chest from the front: R2Gen puts it first, and calls it `0.png`. */
const frontal = (paths: readonly string[]): string => paths.find((name) => /(^|\/)0\.\w+$/.test(name)) ?? paths[0]!;

/**
 * The frontal pairs of all three parts.
 * @throws FileError naming file, part and place in its list
 */
async function read(dir: string): Promise<RecordSet> {
  const file = path.join(dir, TABLE);
  const lists = schema.safeParse(await readJson(file, MAX_TABLE_BYTES));
  if (!lists.success) throw new FileError(file, '', `expected an object with lists ${PARTS.join(', ')}`);
  const films = await firstFolder(dir, IMAGES);
  const records: DataRecord[] = [];
  const { problems, attempt } = problemList();
  const seen = new Set<string>();
  const parts = PARTS.filter((part) => lists.data[part] !== undefined);
  for (const part of parts)
    for (const [at, value] of lists.data[part]!.entries()) {
      const field = `${part}[${at}]`;
      const record = await attempt(`${TABLE} ${field}`, async () => {
        const entry = study.safeParse(value);
        if (!entry.success) {
          const [issue] = entry.error.issues;
          throw new FileError(
            file,
            `${field}.${issue!.path.join('.')}`,
            'expected an object of id, report and image_path',
          );
        }
        const { id, report, image_path, subject_id } = entry.data;
        if (seen.has(id)) throw new FileError(file, `${field}.id`, 'is there twice');
        seen.add(id);
        const image = `${films!.folder}/${frontal(image_path)}`;
        return {
          id,
          file: path.posix.normalize(image),
          image: await resolveInside(dir, image, { file, field: `${field}.image_path` }),
          text: checkText(oneLine(report), { file, field: `${field}.report` }),
          patient: subject_id === undefined || subject_id === null ? patientOf(id) : String(subject_id),
        };
      });
      if (record) records.push(record);
    }
  const pooled = parts.length > 1 ? [`${listed(parts)} are taken together: --split says what is trained on`] : [];
  return { layout: r2gen.name, dir, records, skipped: [], warnings: pooled, problems };
}

export const r2gen: Layout = {
  name: 'r2gen',
  doc: 'annotation.json with train, val and test, and images',
  detect: (_, names) => names.includes(TABLE),
  read,
  says: 'the report; of each study the film from the front',
};

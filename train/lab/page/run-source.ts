/** Runs as the local server tells them: a record, and its rows as they come. What arrives is checked as a file would be. */
import { z } from 'zod';
import { printable } from '../../../models/io/error.ts';
import { type RunRecord, runRecordSchema } from '../../run/record.ts';
import { rowLog } from '../../run/row-log.ts';
import { rowOf } from '../../run/rows.ts';

const entrySchema = z.object({
  name: z.string().min(1),
  method: z.string(),
  step: z.int().min(0),
  changed: z.number(),
  /** files of recorded steps */
  traces: z.array(z.string().min(1)).optional(),
});
export type Entry = z.output<typeof entrySchema>;

const comparedSchema = z.array(
  runRecordSchema
    .pick({ validations: true, results: true, method: true })
    .extend({ label: z.string(), parameters: z.number().optional() })
    .strip(),
);
const answerSchema = z.object({
  end: z.int().min(0),
  record: runRecordSchema.strip().extend({ compared: comparedSchema }),
});

const place = (name: string, what: string): string => `runs/${encodeURIComponent(name)}/${what}`;
/** The address of a picture of a run. */
export const pictureAt = (name: string, file: string): string => place(name, file);

async function answer<T>(address: string, schema: z.ZodType<T>): Promise<T> {
  const got = await fetch(address);
  if (!got.ok) throw new Error(`${address}: ${printable((await got.text()).trim(), 500)}`);
  const parsed = schema.safeParse(await got.json());
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  throw new Error(`${address}: ${issue!.path.map(String).join('.')}: ${issue!.message}`);
}

/** All runs, or undefined where the page came from a host that has none: the folder itself says `null`. */
export async function listRuns(): Promise<readonly Entry[] | undefined> {
  const got = await fetch('runs/index.json');
  const isJson = got.headers.get('content-type')?.includes('json');
  if (!got.ok || !isJson) return undefined;
  return (
    z
      .array(entrySchema)
      .nullable()
      .parse(await got.json()) ?? undefined
  );
}

/** A run that is followed. */
export interface Followed {
  readonly name: string;
  /** as far as it has come */
  run(): RunRecord;
  stop(): void;
}

/** Reads a run, and calls `changed` whenever more of it is known. @throws Error with a line for the reader */
export async function followRun(name: string, changed: () => void): Promise<Followed> {
  let log = rowLog();
  let rest: RunRecord;
  let source: EventSource | undefined;
  let stopped = false;
  const read = async (): Promise<void> => {
    const { record, end } = await answer(place(name, 'record.json'), answerSchema);
    if (stopped) return;
    rest = record as RunRecord;
    log = rowLog(rest);
    source?.close();
    source = new EventSource(place(name, `rows?from=${end}`));
    source.onmessage = ({ data }) => {
      try {
        log.add(rowOf(String(data), 0, name));
        changed();
      } catch {
        // a row that is none: the record tells which, when it is read again
      }
    };
    for (const event of ['facts', 'restart'])
      source.addEventListener(event, () => void read().then(changed, () => undefined));
  };
  await read();
  return {
    name,
    run: () => ({ ...rest, ...log.rows() }),
    stop: () => {
      stopped = true;
      source?.close();
    },
  };
}

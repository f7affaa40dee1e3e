/** The folders below a root that hold runs. A name that is asked for is looked up here, so that no path leads elsewhere. */
import { type FileHandle, lstat, open, readdir } from 'node:fs/promises';
import path from 'node:path';
import { FileError } from '../../../models/io/error.ts';
import { readJson } from '../../../models/io/json.ts';
import { CONFIG_FILE } from '../../run/folder.ts';
import { METRICS_FILE } from '../../run/metrics.ts';
import { TRACE_FILE } from '../../trace/format.ts';

/** A run in the list. */
export interface RunEntry {
  /** its folder below the root: `first`, `methods/selora-s1` */
  readonly name: string;
  readonly method: string;
  /** step of its last finished row */
  readonly step: number;
  /** when its last row was written, in ms since 1970 */
  readonly changed: number;
  /** names of its recorded steps */
  readonly traces: readonly string[];
}

/** Folders of an experiment lie one below that of runs. */
const DEEPEST = 3;
const MB = 2 ** 20;

const isFile = (file: string): Promise<boolean> =>
  lstat(file).then(
    (info) => info.isFile(),
    () => false,
  );

/** Names of all runs below a root, links not followed. */
export async function runNames(root: string): Promise<readonly string[]> {
  const found: string[] = [];
  const look = async (folder: string, depth: number): Promise<void> => {
    const entries = await readdir(path.join(root, folder), { withFileTypes: true }).catch(() => []);
    const names = new Set(entries.filter((e) => e.isFile()).map((e) => e.name));
    if (folder !== '' && names.has(CONFIG_FILE) && names.has(METRICS_FILE)) {
      found.push(folder);
      return;
    }
    if (depth < DEEPEST)
      for (const e of entries)
        if (e.isDirectory() && !e.name.startsWith('.') && e.name !== 'node_modules')
          await look(path.posix.join(folder, e.name), depth + 1);
  };
  await look('', 0);
  return found.sort();
}

/** The folder of a run by its name; undefined where the root has none of that name. */
export async function runFolder(root: string, name: string): Promise<string | undefined> {
  return (await runNames(root)).includes(name) ? path.join(root, name) : undefined;
}

const BLOCK = 2 ** 16;
/** Bytes of a file up to its last line break: what is whole. */
export async function wholeLines(file: string): Promise<number> {
  return withFile(file, async (handle, size) => {
    for (let end = size; end > 0; ) {
      const from = Math.max(0, end - BLOCK);
      const at = (await bytesOf(handle, from, end)).lastIndexOf(0x0a);
      if (at >= 0) return from + at + 1;
      end = from;
    }
    return 0;
  });
}
/** Opens a file for the time of `use`; its size is that of this moment. */
export async function withFile<T>(file: string, use: (handle: FileHandle, size: number) => Promise<T>): Promise<T> {
  const handle = await open(file);
  try {
    return await use(handle, (await handle.stat()).size);
  } finally {
    await handle.close();
  }
}
/** Bytes from … to of a file, or as many as there are. */
export async function bytesOf(handle: FileHandle, from: number, to: number): Promise<Buffer> {
  const { buffer, bytesRead } = await handle.read(Buffer.alloc(to - from), 0, to - from, from);
  return buffer.subarray(0, bytesRead);
}

/** The step of the last finished row; 0 where there is none that can be read. */
async function lastStep(file: string): Promise<number> {
  const end = await wholeLines(file);
  const tail = await withFile(file, (handle) => bytesOf(handle, Math.max(0, end - MB), end));
  const line = tail.toString('utf8').trimEnd().split('\n').at(-1) ?? '';
  const step = /"step":(\d{1,15})[,}]/.exec(line);
  return step ? Number(step[1]) : 0;
}

/** Recorded steps in the folder of a run, by their step. */
async function tracesIn(folder: string): Promise<readonly string[]> {
  const entries = await readdir(folder, { withFileTypes: true });
  const step = (name: string): number => Number(/\d+/.exec(name)![0]);
  const names = entries.flatMap((e) => (e.isFile() && TRACE_FILE.test(e.name) ? [e.name] : []));
  return names.sort((a, b) => step(a) - step(b));
}

/** All runs below a root, the one that was last written to first. One whose files cannot be read is left out. */
export async function findRuns(root: string): Promise<readonly RunEntry[]> {
  const entries: RunEntry[] = [];
  for (const name of await runNames(root))
    try {
      const folder = path.join(root, name);
      const [config, rows] = [path.join(folder, CONFIG_FILE), path.join(folder, METRICS_FILE)];
      if (!((await isFile(config)) && (await isFile(rows)))) continue;
      const settings = (await readJson(config, MB)) as { readonly method?: unknown };
      const { mtimeMs } = await lstat(rows);
      const method = String(settings.method ?? '');
      entries.push({ name, method, step: await lastStep(rows), changed: mtimeMs, traces: await tracesIn(folder) });
    } catch (error) {
      if (!(error instanceof FileError) && (error as NodeJS.ErrnoException).code === undefined) throw error;
    }
  return entries.sort((a, b) => b.changed - a.changed);
}

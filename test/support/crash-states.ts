/**
 * Every state that a power failure may leave on the disk, rebuilt from the log of calls: for each prefix of the log, data
 * not yet synced may be there, missing, torn at a sector or replaced by zeros, and names not yet synced may be there or
 * not, each on its own (what POSIX permits; "All File Systems Are Not Created Equal", OSDI 2014).
 */
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import type { Call } from './faulty-fs.ts';

/** Path below the folder → content. */
export type Disk = ReadonlyMap<string, Buffer>;
const SECTOR = 512;
/** What became of unsynced data: all there, zeros instead, or only so many sectors (none, one, …). */
type Loss = 'kept' | 'zeros' | number;

type NameChange =
  | { readonly kind: 'create'; readonly to: string; readonly file: number }
  | { readonly kind: 'rename'; readonly from: string; readonly to: string }
  | { readonly kind: 'unlink'; readonly from: string };
type Pending = { readonly change: NameChange; readonly folder: string; synced: boolean };
type Content = { synced: Buffer; written: Buffer };

/** The states after the first `length` calls, without repetition. `start` is the folder before the log began. */
export function statesAfter(start: Disk, log: readonly Call[], length: number): readonly Disk[] {
  const contents = new Map<number, Content>();
  const opened = new Map<number, string>();
  const names: Pending[] = [];
  // Files that were there are numbered below zero.
  const existing = new Map([...start].map(([name], i) => [name, -1 - i]));
  for (const [name, number] of existing) contents.set(number, { synced: start.get(name)!, written: start.get(name)! });
  const current = new Map(existing);
  const alias = new Map<number, number>();
  for (const call of log.slice(0, length)) {
    if (call.kind === 'open') {
      opened.set(call.file, call.path);
      const there = current.get(call.path);
      if (there !== undefined) alias.set(call.file, there);
      else if (call.creates) {
        contents.set(call.file, { synced: Buffer.alloc(0), written: Buffer.alloc(0) });
        current.set(call.path, call.file);
        names.push({
          change: { kind: 'create', to: call.path, file: call.file },
          folder: path.dirname(call.path),
          synced: false,
        });
      }
    } else if (call.kind === 'write') {
      const content = contents.get(alias.get(call.file) ?? call.file)!;
      content.written = Buffer.concat([content.written, call.data]);
    } else if (call.kind === 'sync') {
      const content = contents.get(alias.get(call.file) ?? call.file);
      if (content !== undefined) content.synced = content.written;
      // A synced file keeps its name as well on common systems, but POSIX does not promise it.
      for (const name of names) if (name.folder === opened.get(call.file)) name.synced = true;
    } else if (call.kind === 'rename') {
      current.set(call.to, current.get(call.path)!);
      current.delete(call.path);
      names.push({
        change: { kind: 'rename', from: call.path, to: call.to },
        folder: path.dirname(call.to),
        synced: false,
      });
    } else if (call.kind === 'unlink') {
      current.delete(call.path);
      names.push({ change: { kind: 'unlink', from: call.path }, folder: path.dirname(call.path), synced: false });
    }
  }
  const most = Math.max(0, ...[...contents.values()].map(({ synced, written }) => written.length - synced.length));
  const losses: readonly Loss[] = ['kept', 'zeros', ...Array.from({ length: Math.ceil(most / SECTOR) }, (_, i) => i)];
  const loose = names.filter((name) => !name.synced);
  const states = new Map<string, Disk>();
  for (let subset = 0; subset < 1 << loose.length; subset++) {
    const kept = names.filter((name) => name.synced || (subset >> loose.indexOf(name)) & 1);
    for (const loss of losses) {
      const files = [...applied(existing, kept)].map(([name, file]) => ({
        name,
        file,
        data: damaged(contents.get(file)!, loss),
      }));
      // what a file holds is told by its length (its first bytes), or zeros, more briefly than by its bytes
      const key = files
        .map(
          ({ name, file, data }) => `${name}:${file}:${data.length}${isZeroed(contents.get(file)!, loss) ? 'z' : ''}`,
        )
        .sort()
        .join('|');
      if (!states.has(key)) states.set(key, new Map(files.map(({ name, data }) => [name, data])));
    }
  }
  return [...states.values()];
}

function applied(start: ReadonlyMap<string, number>, changes: readonly Pending[]): ReadonlyMap<string, number> {
  const now = new Map(start);
  // A rename takes its file along even where the creation of the old name never reached the disk.
  const files = new Map(start);
  for (const { change } of changes) {
    if (change.kind === 'create') {
      now.set(change.to, change.file);
      files.set(change.to, change.file);
    } else if (change.kind === 'unlink') now.delete(change.from);
    else {
      const file = files.get(change.from);
      if (file !== undefined) now.set(change.to, file);
      now.delete(change.from);
    }
  }
  return now;
}

/** What of the data that were written after the last sync is on the disk. */
function damaged({ synced, written }: Content, loss: Loss): Buffer {
  const fresh = written.length - synced.length;
  if (loss === 'kept' || fresh === 0) return written;
  if (loss === 'zeros') return Buffer.concat([synced, Buffer.alloc(fresh)]);
  const sectors = Math.floor(synced.length / SECTOR) + loss;
  return written.subarray(0, loss === 0 ? synced.length : Math.max(synced.length, sectors * SECTOR));
}

const isZeroed = ({ synced, written }: Content, loss: Loss) => loss === 'zeros' && written.length > synced.length;

/** Makes `folder` hold exactly this; paths are those of the log. */
export function layOut(disk: Disk, from: string, folder: string): void {
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  for (const [name, data] of disk) {
    const target = path.join(folder, path.relative(from, name));
    mkdirSync(path.dirname(target), { recursive: true });
    writeFileSync(target, data);
  }
}

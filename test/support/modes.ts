/** Who may read what was written. */
import { readdirSync, statSync } from 'node:fs';
import path from 'node:path';

/** Permission bits of everything in a folder (itself included), each once, in octal. */
export function modesIn(folder: string): { readonly folders: readonly string[]; readonly files: readonly string[] } {
  const bits = (name: string) => (statSync(name).mode & 0o777).toString(8);
  const entries = readdirSync(folder, { withFileTypes: true, recursive: true });
  const of = (kind: 'isFile' | 'isDirectory') =>
    new Set(entries.filter((e) => e[kind]()).map((e) => bits(path.join(e.parentPath, e.name))));
  return { folders: [...of('isDirectory').add(bits(folder))], files: [...of('isFile')] };
}

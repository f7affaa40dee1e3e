/** READMEs tell the truth: every folder with many files has one, the files it names are there, and none of its files is left out. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { expect, test } from 'vitest';

const root = path.resolve(import.meta.dirname, '../..');
const ROOMS = ['core', 'nn', 'models', 'selora', 'train', 'test'];
/** folders of files, hidden ones and those of generated output left out */
const folders = ROOMS.flatMap((room) => [
  room,
  ...(readdirSync(path.join(root, room), { recursive: true, withFileTypes: true }) as import('node:fs').Dirent[])
    .filter((entry) => entry.isDirectory())
    .map((entry) => path.relative(root, path.join(entry.parentPath, entry.name))),
]);
const filesOf = (folder: string): string[] =>
  readdirSync(path.join(root, folder), { withFileTypes: true }).flatMap((e) => (e.isFile() ? [e.name] : []));
const readmes = folders.filter((folder) => filesOf(folder).includes('README.md'));
const text = (folder: string): string => readFileSync(path.join(root, folder, 'README.md'), 'utf8');

const { scripts } = JSON.parse(readFileSync(path.join(root, 'package.json'), 'utf8')) as { scripts: object };

test('each folder with more than six files has one', () => {
  expect(readmes.length).toBeGreaterThan(40);
  const without = folders.filter((folder) => filesOf(folder).length > 6 && !readmes.includes(folder));
  expect(without).toEqual([]);
});

test('the source files they name are there', () => {
  const all = new Set(folders.flatMap((folder) => filesOf(folder).map((file) => path.posix.join(folder, file))));
  const gone = readmes.flatMap((folder) =>
    [...text(folder).matchAll(/`((?:[\w.-]+\/)*[\w.-]+\.(?:ts|mjs|py))`/g)]
      .map((m) => m[1]!)
      .filter((name) => !name.includes('NAME'))
      // relative to the README, to its room, to the root, or the name of a file below it
      .filter(
        (name) =>
          ![folder, folder.split('/')[0]!, '.'].some((from) => existsSync(path.join(root, from, name))) &&
          ![...all].some((file) => file.startsWith(`${folder}/`) && file.endsWith(`/${name}`)),
      )
      .map((name) => `${folder}/README.md names ${name}`),
  );
  expect(gone).toEqual([]);
});

test('a folder with many source files names each of them', () => {
  // one check a file, in any order: the table of checks says which files of a directory they read
  const lists = new Set(['train/verify']);
  const unnamed = readmes
    .filter((folder) => !lists.has(folder))
    .flatMap((folder) => {
      const sources = filesOf(folder).filter((f) => f.endsWith('.ts') && !f.endsWith('.d.ts') && f !== 'index.ts');
      const said = text(folder);
      // commands: "each `npm run NAME` is `train/NAME.ts`"
      const told = (f: string) => said.includes(f) || (folder === 'train' && f.replace('.ts', '') in scripts);
      return sources.length > 6 ? sources.filter((f) => !told(f)).map((f) => `${folder}/${f}`) : [];
    });
  expect(unnamed).toEqual([]);
});

/** Plain JavaScript of a test's child process: a child that is started fifty times should not compile itself each time. */
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import path from 'node:path';
import { type BuildOptions, build, type Plugin } from 'esbuild';
import { afterAll } from 'vitest';

const root = path.resolve(import.meta.dirname, '../..');

/**
 * What `node` is told for a run of a few steps: V8 optimises no JavaScript. Half of the time of such a run went into
 * optimised code that was hardly used.
 */
export const BRIEF = ['--no-opt'] as const;

/** As commands are bundled. */
const asCommands = JSON.parse(readFileSync(path.join(root, 'train/cli/esbuild.json'), 'utf8')) as BuildOptions;

/** What modules read beside them lies where their sources are. */
const sourceFolders: Plugin = {
  name: 'source folders',
  setup({ onLoad }) {
    onLoad({ filter: /\.ts$/ }, ({ path: file }) => ({
      contents: readFileSync(file, 'utf8').replaceAll('import.meta.dirname', JSON.stringify(path.dirname(file))),
      loader: 'ts',
    }));
  },
};

/**
 * Bundles programs with all they import by relative names into a folder that is gone after the tests of the file. The
 * folder lies in node_modules, so that packages are found.
 * @returns the paths of the entries' JavaScript
 */
export async function compiledAll(entries: readonly string[]): Promise<string[]> {
  const cache = path.join(root, 'node_modules/.cache');
  mkdirSync(cache, { recursive: true });
  const outdir = mkdtempSync(path.join(cache, 'selora-test-'));
  afterAll(() => rmSync(outdir, { recursive: true, force: true }));
  await build({
    ...asCommands,
    entryPoints: [...entries],
    outbase: root,
    outdir,
    plugins: [sourceFolders],
  });
  return entries.map((entry) => path.join(outdir, path.relative(root, entry).replace(/\.ts$/, '.mjs')));
}
/** The same of one program. */
export const compiled = async (entry: string): Promise<string> => (await compiledAll([entry]))[0]!;

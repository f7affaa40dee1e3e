/** Plain JavaScript of a test's child process: a child that is started fifty times should not compile itself each time. */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import ts from 'typescript';
import { afterAll } from 'vitest';

const root = path.resolve(import.meta.dirname, '../..');

/**
 * Strips the types of a module and of all it imports by relative names, into a folder that is gone after the tests.
 * The folder lies in node_modules, so that packages are found.
 * @returns the path of the entry's JavaScript
 */
export function compiled(entry: string): string {
  const cache = path.join(root, 'node_modules/.cache');
  mkdirSync(cache, { recursive: true });
  const out = mkdtempSync(path.join(cache, 'selora-test-'));
  afterAll(() => rmSync(out, { recursive: true, force: true }));
  writeFileSync(path.join(out, 'package.json'), '{"type":"module"}');
  const target = (file: string) => path.join(out, path.relative(root, file)).replace(/\.ts$/, '.js');
  const done = new Set<string>();
  const visit = (file: string): void => {
    if (done.has(file)) return;
    done.add(file);
    const source = readFileSync(file, 'utf8');
    const { outputText } = ts.transpileModule(source, {
      compilerOptions: {
        module: ts.ModuleKind.ESNext,
        target: ts.ScriptTarget.ES2023,
        verbatimModuleSyntax: true,
        rewriteRelativeImportExtensions: true,
      },
    });
    mkdirSync(path.dirname(target(file)), { recursive: true });
    writeFileSync(target(file), outputText);
    for (const { fileName } of ts.preProcessFile(outputText).importedFiles) {
      if (fileName.startsWith('.')) visit(path.resolve(path.dirname(file), fileName.replace(/\.js$/, '.ts')));
    }
  };
  visit(path.resolve(entry));
  return target(path.resolve(entry));
}

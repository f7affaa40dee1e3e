/** What one can import is explained: every public name of the four entry points has a docstring. */
import path from 'node:path';
import ts from 'typescript';
import { expect, test } from 'vitest';

const ROOT = path.join(import.meta.dirname, '../..');
const ENTRIES = ['core', 'nn', 'models', 'selora'];

test('every public name has a docstring', () => {
  const files = ENTRIES.map((entry) => path.join(ROOT, entry, 'index.ts'));
  const program = ts.createProgram(files, {
    module: ts.ModuleKind.NodeNext,
    moduleResolution: ts.ModuleResolutionKind.NodeNext,
    allowImportingTsExtensions: true,
    noEmit: true,
    // comments are all that is read: neither the library's types nor those of packages are needed
    noLib: true,
    types: [],
  });
  const checker = program.getTypeChecker();
  let names = 0;
  const bare = files.flatMap((file, i) =>
    checker.getExportsOfModule(checker.getSymbolAtLocation(program.getSourceFile(file)!)!).flatMap((exported) => {
      names++;
      const symbol = exported.flags & ts.SymbolFlags.Alias ? checker.getAliasedSymbol(exported) : exported;
      const said = ts.displayPartsToString(symbol.getDocumentationComment(checker)).trim();
      return said === '' ? [`${ENTRIES[i]}: ${exported.name}`] : [];
    }),
  );
  expect(bare).toEqual([]);
  expect(names).toBeGreaterThan(200);
});

/** What one can import is explained: every public name of the four entry points has a docstring, and every member of its types. */
import path from 'node:path';
import ts from 'typescript';
import { expect, test } from 'vitest';

const ROOT = path.join(import.meta.dirname, '../..');
const ENTRIES = ['core', 'nn', 'models', 'selora'];

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
/** what is exported, behind its name in the entry point */
const symbols = files.flatMap((file, i) =>
  checker.getExportsOfModule(checker.getSymbolAtLocation(program.getSourceFile(file)!)!).map((exported) => ({
    name: `${ENTRIES[i]}: ${exported.name}`,
    symbol: exported.flags & ts.SymbolFlags.Alias ? checker.getAliasedSymbol(exported) : exported,
  })),
);
const isBare = (symbol: ts.Symbol): boolean =>
  ts.displayPartsToString(symbol.getDocumentationComment(checker)).trim() === '';

test('every public name has a docstring', () => {
  expect(symbols.flatMap(({ name, symbol }) => (isBare(symbol) ? [name] : []))).toEqual([]);
  expect(symbols.length).toBeGreaterThan(200);
});

/** the members that a type says itself, those of its alternatives and parts among them */
function membersOf(node: ts.Node): readonly ts.NamedDeclaration[] {
  if (ts.isTypeAliasDeclaration(node)) return membersOf(node.type);
  if (ts.isUnionTypeNode(node) || ts.isIntersectionTypeNode(node)) return node.types.flatMap(membersOf);
  return ts.isInterfaceDeclaration(node) || ts.isClassDeclaration(node) || ts.isTypeLiteralNode(node)
    ? [...node.members]
    : [];
}
test('and so has every member of a public type', () => {
  const members = symbols.flatMap(({ name, symbol }) =>
    (symbol.declarations ?? []).flatMap(membersOf).flatMap((member) => {
      const found = member.name && checker.getSymbolAtLocation(member.name);
      return found ? [{ name: `${name}.${found.name}`, bare: isBare(found) }] : [];
    }),
  );
  expect(members.flatMap(({ name, bare }) => (bare ? [name] : []))).toEqual([]);
  expect(members.length).toBeGreaterThan(300);
});

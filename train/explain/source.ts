/**
 * The source text of an op's record, comments included: what a person would look up in core/. The TypeScript compiler
 * finds the places; without it (an installation without dev dependencies) the functions' own text is shown.
 */
import { readdir, readFile } from 'node:fs/promises';
import path from 'node:path';
import type TypeScript from 'typescript';
import type { Op } from '../../core/ir/tensor.ts';

/** The parts of a record a page shows, in this order. */
export const FIELDS = ['shape', 'vjp', 'batch', 'body', 'cpu', 'js', 'form', 'flops'] as const;
export type Field = (typeof FIELDS)[number];

export type RecordSource = {
  /** `core/ops/dot.ts:14` */
  readonly place: string;
  /** The doc comment of the record, without its stars. */
  readonly doc: string;
  readonly fields: ReadonlyMap<Field, string>;
  /** The functions a person calls, as declared. */
  readonly signatures: readonly string[];
};

const ROOT = path.resolve(import.meta.dirname, '../..');
const FOLDERS = ['core/ops', 'core/fused', 'core/transforms', 'core/functions', 'core/functions/linalg'];

type Ts = typeof TypeScript;
type SourceFile = TypeScript.SourceFile;
type Node = TypeScript.Node;
type ObjectLiteral = TypeScript.ObjectLiteralExpression;

let parsed: Promise<readonly SourceFile[]> | undefined;
/** All files that define ops, parsed once. */
function coreFiles(ts: Ts): Promise<readonly SourceFile[]> {
  parsed ??= parseCore(ts);
  return parsed;
}

async function parseCore(ts: Ts): Promise<readonly SourceFile[]> {
  const files: SourceFile[] = [];
  for (const folder of FOLDERS)
    for (const name of (await readdir(path.join(ROOT, folder))).filter((n) => n.endsWith('.ts')).sort()) {
      const file = `${folder}/${name}`;
      files.push(
        ts.createSourceFile(file, await readFile(path.join(ROOT, file), 'utf8'), ts.ScriptTarget.ESNext, true),
      );
    }
  return files;
}

/** Takes the common indentation off all lines but the first, and blank lines at both ends. */
export function dedent(text: string): string {
  const lines = text
    .replace(/^\s*\n/, '')
    .trimEnd()
    .split('\n');
  const indent = Math.min(...lines.filter((l) => l.trim() !== '').map((l) => l.length - l.trimStart().length));
  return lines.map((l) => l.slice(indent)).join('\n');
}

/** A node with the comments in front of it. */
function withComments(ts: Ts, node: Node, file: SourceFile): string {
  const [first] = ts.getLeadingCommentRanges(file.text, node.getFullStart()) ?? [];
  const start = first?.pos ?? node.getStart(file);
  const lineStart = file.text.lastIndexOf('\n', start) + 1;
  const from = file.text.slice(lineStart, start).trim() === '' ? lineStart : start;
  return dedent(file.text.slice(from, node.end));
}

function docOf(ts: Ts, node: Node, file: SourceFile): string {
  const range = ts.getLeadingCommentRanges(file.text, node.getFullStart())?.at(-1);
  const text = range === undefined ? '' : file.text.slice(range.pos, range.end);
  return text
    .replace(/^\/\*\*?|\*\/$|^\/\//g, '')
    .split('\n')
    .map((line) => line.replace(/^\s*\* ?/, '').trimEnd())
    .join('\n')
    .trim();
}

const declared = new WeakMap<SourceFile, ReadonlyMap<string, Node>>();
/** All top-level variables and functions of a file by name, found once. */
function declarations(ts: Ts, file: SourceFile): ReadonlyMap<string, Node> {
  const known = declared.get(file);
  if (known) return known;
  const found = new Map<string, Node>();
  declared.set(file, found);
  for (const statement of file.statements) {
    if (ts.isFunctionDeclaration(statement) && statement.name) found.set(statement.name.text, statement);
    if (ts.isVariableStatement(statement))
      for (const d of statement.declarationList.declarations) if (ts.isIdentifier(d.name)) found.set(d.name.text, d);
  }
  return found;
}

/** The first object literal below a node. */
function firstObject(ts: Ts, node: Node): ObjectLiteral | undefined {
  let found: ObjectLiteral | undefined;
  const visit = (n: Node): void => {
    if (found) return;
    if (ts.isObjectLiteralExpression(n) && n.properties.length > 2) found = n;
    else ts.forEachChild(n, visit);
  };
  visit(node);
  return found;
}

type Located = { readonly file: SourceFile; readonly node: Node; readonly objects: readonly ObjectLiteral[] };

/** The object literals that make an op: its own first, then what it is spread from or built by. */
function locate(ts: Ts, files: readonly SourceFile[], name: string): Located | undefined {
  for (const file of files) {
    const all = declarations(ts, file);
    const own = all.get(`${name}Op`);
    if (own && ts.isVariableDeclaration(own) && own.initializer)
      return { file, node: own.parent.parent, objects: objectsOf(ts, own.initializer, all) };
    // rows of the elementwise table
    for (const [variable, declaration] of all) {
      if (!/^rows\d$/.test(variable) || !ts.isVariableDeclaration(declaration)) continue;
      const rows = declaration.initializer;
      if (!rows || !ts.isObjectLiteralExpression(rows)) continue;
      const row = rows.properties.find((p) => p.name?.getText(file) === name);
      if (row && ts.isPropertyAssignment(row) && ts.isObjectLiteralExpression(row.initializer)) {
        const factory = all.get('elementwise');
        const generic = factory && firstObject(ts, factory);
        return { file, node: row, objects: generic ? [row.initializer, generic] : [row.initializer] };
      }
    }
  }
  return undefined;
}

function objectsOf(ts: Ts, value: Node, all: ReadonlyMap<string, Node>): readonly ObjectLiteral[] {
  if (ts.isObjectLiteralExpression(value)) {
    const spreads = value.properties.flatMap((p) => {
      if (!ts.isSpreadAssignment(p) || !ts.isIdentifier(p.expression)) return [];
      const from = all.get(p.expression.text);
      return from && ts.isVariableDeclaration(from) && from.initializer ? objectsOf(ts, from.initializer, all) : [];
    });
    return [value, ...spreads];
  }
  if (ts.isCallExpression(value)) {
    const own = value.arguments.flatMap((a) => (ts.isObjectLiteralExpression(a) ? [a] : []));
    const factory = all.get(value.expression.getText());
    const generic = factory && firstObject(ts, factory);
    return generic ? [...own, generic] : own;
  }
  return [];
}

/** Fields of the record; a field that only names a function of the same file is followed by that function. */
function fieldsOf(ts: Ts, { file, objects }: Located): ReadonlyMap<Field, string> {
  const all = declarations(ts, file);
  const fields = new Map<Field, string>();
  for (const object of objects)
    for (const property of object.properties) {
      const key = property.name?.getText(file) as Field | undefined;
      if (key === undefined || !FIELDS.includes(key) || fields.has(key)) continue;
      const text = withComments(ts, property, file);
      const named =
        ts.isPropertyAssignment(property) && ts.isIdentifier(property.initializer)
          ? all.get(property.initializer.text)
          : undefined;
      const statement = named && ts.isVariableDeclaration(named) ? named.parent.parent : named;
      fields.set(key, statement ? `${text}\n${withComments(ts, statement, file)}` : text);
    }
  return fields;
}

/** Declarations of the exported functions of this name: `dot(a: Tensor, b: Tensor): Tensor` with their doc comments. */
function signaturesOf(ts: Ts, files: readonly SourceFile[], name: string): readonly string[] {
  const scalar = files.flatMap((file) => elementwiseSignature(ts, file, name));
  if (scalar.length > 0) return scalar;
  return files.flatMap((file) => {
    const node = declarations(ts, file).get(name);
    if (node === undefined) return [];
    const statement = ts.isVariableDeclaration(node) ? node.parent.parent : node;
    if (!/^export\b/.test(statement.getText(file))) return [];
    const doc = docOf(ts, statement, file).split('\n')[0];
    return [headOf(ts, node, file), ...(doc ? [`  ${doc}`] : [])];
  });
}

/** The public function of a table row: `export const exp = unary('exp')`, with the first line of its comment. */
function elementwiseSignature(ts: Ts, file: SourceFile, name: string): readonly string[] {
  for (const [own, node] of declarations(ts, file)) {
    if (!ts.isVariableDeclaration(node) || !node.initializer) continue;
    const made = /^(unary|binary)\('(\w+)'\)$/.exec(node.initializer.getText(file));
    if (made?.[2] !== name) continue;
    const parameters = made[1] === 'unary' ? 'x: Tensor' : 'a: Tensor | number, b: Tensor | number';
    const doc = docOf(ts, node.parent.parent, file).split('\n')[0];
    return [`${own}(${parameters}): Tensor`, ...(doc ? [`  ${doc}`] : [])];
  }
  return [];
}

/** A declaration without its body. */
function headOf(ts: Ts, node: Node, file: SourceFile): string {
  const oneLine = (text: string) => text.replace(/\s+/g, ' ').trim();
  if (ts.isFunctionDeclaration(node)) {
    const end = node.body?.getStart(file) ?? node.end;
    return oneLine(file.text.slice(node.name!.getStart(file), end));
  }
  if (ts.isVariableDeclaration(node) && node.initializer && ts.isArrowFunction(node.initializer)) {
    const arrow = node.initializer;
    return oneLine(
      `${node.name.getText(file)}${file.text.slice(arrow.getStart(file), arrow.equalsGreaterThanToken.pos)}`,
    );
  }
  return oneLine(node.getText(file));
}

/** A function written in ops: its declaration is its body, and all its rules are those of the body. */
function writtenSource(ts: Ts, files: readonly SourceFile[], name: string): RecordSource | undefined {
  for (const file of files) {
    const node = declarations(ts, file).get(name);
    const statement = node && ts.isVariableDeclaration(node) ? node.parent.parent : node;
    if (statement === undefined || !/^export\b/.test(statement.getText(file))) continue;
    const { line } = file.getLineAndCharacterOfPosition(statement.getStart(file));
    return {
      place: `${file.fileName}:${line + 1}`,
      doc: docOf(ts, statement, file),
      fields: new Map<Field, string>([
        ['shape', 'that of the body'],
        ['body', dedent(statement.getText(file))],
      ]),
      signatures: signaturesOf(ts, files, name),
    };
  }
  return undefined;
}

/** What can be had without a compiler: the functions as they run. */
function withoutCompiler(op: Op): RecordSource {
  const record = op as unknown as Readonly<Record<string, unknown>>;
  const texts = FIELDS.flatMap((field): [Field, string][] =>
    typeof record[field] === 'function' ? [[field, dedent(String(record[field]))]] : [],
  );
  return { place: 'core/ops', doc: '', fields: new Map(texts), signatures: [] };
}

/**
 * Where an op is written and what its fields say.
 * @example (await recordSource(registry.get('dot')!)).fields.get('vjp') // "// y = a·b ⇒ …\nvjp: ([g], [a, b]) => …"
 */
export async function recordSource(op: Op): Promise<RecordSource> {
  const ts = await import('typescript').then(
    (m) => m.default,
    () => undefined,
  );
  if (ts === undefined) return withoutCompiler(op);
  const files = await coreFiles(ts);
  const located = locate(ts, files, op.name);
  if (located === undefined) return writtenSource(ts, files, op.name) ?? withoutCompiler(op);
  const { line } = located.file.getLineAndCharacterOfPosition(located.node.getStart(located.file));
  return {
    place: `${located.file.fileName}:${line + 1}`,
    doc: docOf(ts, located.node, located.file),
    fields: fieldsOf(ts, located),
    signatures: signaturesOf(ts, files, op.name),
  };
}

/**
 * Report files of Open-i (Indiana University): one XML per study with the report's parts and the images it belongs to.
 * Document types and entities of their own are refused before any parser sees them.
 */
import { XMLParser, XMLValidator } from 'fast-xml-parser';
import { z } from 'zod';
import { FileError, quoted } from '../../../models/io/error.ts';
import { oneLine } from '../records.ts';

/** What a report file says. */
export type OpenIReport = {
  readonly uid: string;
  readonly findings: string;
  readonly impression: string;
  readonly images: readonly { readonly id: string; readonly caption: string }[];
};

/** fast-xml-parser's ordered form: one object per node with the tag as its key, or `#text`; attributes under `:@`. */
type Node = { readonly [tag: string]: unknown };

const parser = new XMLParser({
  preserveOrder: true,
  ignoreAttributes: false,
  attributeNamePrefix: '',
  parseTagValue: false,
  parseAttributeValue: false,
  trimValues: false,
  // The five entities of XML and character numbers; others cannot be declared without a DOCTYPE.
  htmlEntities: true,
  maxNestedTags: 64,
});

const NODES = z.array(z.record(z.string(), z.unknown()));

function parseXml(source: string, file: string): readonly Node[] {
  const fail = (problem: string) => new FileError(file, 'xml', problem);
  if (source.trim() === '') throw fail('is empty, expected an eCitation document');
  if (source.includes('\0')) throw fail('holds a NUL character');
  const markup = source.replace(/<!\[CDATA\[[\s\S]*?\]\]>|<!--[\s\S]*?-->/g, '');
  if (/<!(DOCTYPE|ENTITY)/i.test(markup)) throw fail('DOCTYPE and entity declarations are refused');
  const entity = /&(?!(?:lt|gt|amp|quot|apos|#\d{1,7}|#x[0-9a-f]{1,6});)[^\s;&<]{0,20};?/i.exec(markup)?.[0];
  if (entity !== undefined) throw fail(`unknown entity ${quoted(entity)}`);
  try {
    const valid = XMLValidator.validate(source);
    if (valid !== true) throw fail(`line ${valid.err.line}: ${oneLine(valid.err.msg)}`);
    return NODES.parse(parser.parse(source));
  } catch (error) {
    if (error instanceof FileError) throw error;
    const message = error instanceof Error ? error.message : '';
    throw fail(
      /nested/i.test(message) ? 'tags are nested too deep' : `cannot be read: ${oneLine(message).slice(0, 120)}`,
    );
  }
}

const childrenOf = (node: Node, tag: string): readonly Node[] => {
  const value = Object.hasOwn(node, tag) ? node[tag] : undefined;
  return Array.isArray(value) ? value : [];
};

/** Every node of this tag, at any depth. */
function* descendants(nodes: readonly Node[], tag: string): Generator<{ node: Node; children: readonly Node[] }> {
  for (const node of nodes) {
    for (const key of Object.keys(node)) {
      if (key === ':@' || key === '#text') continue;
      const children = childrenOf(node, key);
      if (key === tag) yield { node, children };
      yield* descendants(children, tag);
    }
  }
}

const textOf = (children: readonly Node[]): string =>
  children
    .map((child) =>
      typeof child['#text'] === 'string'
        ? child['#text']
        : Object.keys(child)
            .filter((key) => key !== ':@')
            .map((key) => textOf(childrenOf(child, key)))
            .join(' '),
    )
    .join('');

function attribute(node: Node, name: string): string {
  const attributes = node[':@'];
  if (typeof attributes !== 'object' || attributes === null || !Object.hasOwn(attributes, name)) return '';
  const value: unknown = Object.entries(attributes).find(([key]) => key === name)?.[1];
  return typeof value === 'string' ? value.trim() : '';
}

/**
 * Parses one report file.
 * @throws FileError (one line: file and line or tag): empty, no well-formed XML, DOCTYPE or entities, another document.
 */
export function parseOpenI(source: string, file: string): OpenIReport {
  const document = parseXml(source, file);
  const roots = document
    .flatMap((node) => Object.keys(node))
    .filter((tag) => tag !== ':@' && !tag.startsWith('?') && tag !== '#text');
  if (roots.length !== 1 || roots[0] !== 'eCitation') {
    throw new FileError(file, 'xml', `root is ${quoted(roots.join(', ') || 'nothing', 60)}, expected eCitation`);
  }
  const part = (label: string) =>
    oneLine(
      [...descendants(document, 'AbstractText')]
        .filter(({ node }) => attribute(node, 'Label').toUpperCase() === label)
        .map(({ children }) => textOf(children))
        .join(' '),
    );
  const [uid] = [...descendants(document, 'uId')].map(({ node }) => attribute(node, 'id'));
  return {
    uid: uid ?? '',
    findings: part('FINDINGS'),
    impression: part('IMPRESSION'),
    images: [...descendants(document, 'parentImage')].map(({ node, children }) => ({
      id: attribute(node, 'id'),
      caption: oneLine([...descendants(children, 'caption')].map((caption) => textOf(caption.children)).join(' ')),
    })),
  };
}

/** Pages and charts as parsed trees, for the report's tests. */
import { parseHTML } from 'linkedom';

/** What the tests read of a parsed element. */
export interface Node {
  readonly tagName: string;
  readonly textContent: string;
  readonly children: Iterable<Node>;
  readonly attributes: Iterable<{ readonly name: string; readonly value: string }>;
  getAttribute(name: string): string | null;
  querySelectorAll(selector: string): Iterable<Node>;
  querySelector(selector: string): Node | null;
}

export const parse = (page: string): Node => parseHTML(page).document as unknown as Node;
export const all = (node: Node, selector: string): Node[] => [...node.querySelectorAll(selector)];

/** Element and attribute names in document order: what must not depend on any text. */
export function skeleton(node: Node): string {
  const own = [...(node.attributes ?? [])].map((a) => a.name).join(' ');
  return `<${node.tagName} ${own}>${[...node.children].map(skeleton).join('')}</>`;
}

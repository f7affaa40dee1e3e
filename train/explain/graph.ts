/** Graphs as text, one node a line: `t2 f32[2, 3] = mul(x0, t1)`. */
import { head, type Tensor, topo } from '../../core/ir/tensor.ts';

const typeOf = (t: Tensor): string => `${t.dtype}[${t.shape.join(', ')}]`;

/** Attributes as text; graphs inside them (checkpoint) are left out. */
export function attrsText(attrs: object): string {
  const plain = Object.entries(attrs).filter(([, v]) => !JSON.stringify(v, replaceGraphs)?.includes(GRAPH));
  if (plain.length === 0) return '';
  const text = plain.map(([k, v]) => `${k}: ${JSON.stringify(v)?.replaceAll('"', '').replaceAll(',', ', ')}`);
  return ` {${text.join(', ')}}`;
}
const GRAPH = '(graph)';
const replaceGraphs = (_key: string, value: unknown): unknown =>
  typeof value === 'object' && value !== null && 'outs' in value ? GRAPH : value;

/**
 * The graph below `outs` in let form. `names` are given to what is already there; everything below them is left out.
 * @returns one line per node, inputs first, and the names of `outs`
 */
export function letForm(
  outs: readonly Tensor[],
  names: ReadonlyMap<Tensor, string>,
): { readonly lines: readonly string[]; readonly results: readonly string[] } {
  const known = new Map(names);
  const lines: string[] = [];
  const needed = reachable(outs, known);
  let count = 0;
  for (const node of topo(outs)) {
    if (!needed.has(node) || node.outs.every((o) => known.has(o))) continue;
    for (const o of node.outs) if (!known.has(o)) known.set(o, `t${count++}`);
    const left = node.outs.map((o) => `${known.get(o)} ${typeOf(o)}`).join(', ');
    const args = node.inputs.map((x) => known.get(x) ?? typeOf(x)).join(', ');
    lines.push(`${left} = ${node.op.name}(${args})${attrsText(node.attrs)}`);
  }
  return { lines, results: outs.map((o) => known.get(o) ?? typeOf(o)) };
}

/** Heads of the nodes between `outs` and the named tensors. */
function reachable(outs: readonly Tensor[], named: ReadonlyMap<Tensor, string>): ReadonlySet<Tensor> {
  const found = new Set<Tensor>();
  const stack = outs.filter((o) => !named.has(o)).map(head);
  while (stack.length > 0) {
    const node = stack.pop()!;
    if (found.has(node)) continue;
    found.add(node);
    for (const x of node.inputs) if (!named.has(x)) stack.push(head(x));
  }
  return found;
}

export { typeOf };

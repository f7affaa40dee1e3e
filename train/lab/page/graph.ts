/** A graph drawn by dagre: a node for each op with its shape, what it holds and the derivative by it. */
import { Graph, layout } from '@dagrejs/dagre';
import type { Drawn, Value } from '../machine/function.ts';
import { h, short, svg } from './dom.ts';

const [LINE, CHAR, PAD] = [15, 6.4, 10];
const cut = (text: string, most: number): string => (text.length > most ? `${text.slice(0, most - 1)}…` : text);

/** A few of a value's numbers. */
function told({ values, count, shape }: Value): string {
  const first = values.slice(0, 3).map(short).join(' ');
  return shape.length === 0 ? first : `[${first}${count > 3 ? ' …' : ''}]`;
}
/** All of the numbers that were sent. */
const whole = ({ values, count }: Value): string =>
  `${values.map(short).join(' ')}${count > values.length ? ` … ${count} in all` : ''}`;

interface Node {
  readonly lines: readonly string[];
  readonly title: string;
  readonly leaf: boolean;
}

function nodesOf({ graph, values, gradients }: Drawn): readonly Node[] {
  return graph!.nodes.map(({ op, outs, label }) => {
    const [out] = outs;
    const type = outs.map((o) => `[${o.shape.join(', ')}]`).join(' ');
    const value = out && values?.[out.id];
    const gradient = out && gradients?.[out.id];
    const lines = [
      cut(op === 'data' || op === 'hole' ? (label ?? 'constant') : op, 22),
      cut(type, 22),
      ...(value ? [cut(told(value), 26)] : []),
      ...(gradient ? [cut(`∂ ${told(gradient)}`, 28)] : []),
    ];
    const title = [
      `${label ? `${label} ` : ''}${op} ${type}`,
      ...(value ? [`value: ${whole(value)}`] : []),
      ...(gradient ? [`derivative: ${whole(gradient)}`] : []),
    ].join('\n');
    return { lines, title, leaf: op === 'data' || op === 'hole' };
  });
}

/** Draws a stage; nothing where it is told as text only, or has more nodes than an eye can follow. */
export function drawGraph(stage: Drawn): HTMLElement | undefined {
  const { graph } = stage;
  if (!graph || graph.nodes.length > 120) return undefined;
  const g = new Graph({ multigraph: true });
  g.setGraph({ rankdir: 'TB', nodesep: 14, ranksep: 26, marginx: 4, marginy: 4 });
  g.setDefaultEdgeLabel(() => ({}));
  const nodes = nodesOf(stage);
  const made = new Map<number, number>();
  for (const [i, { lines }] of nodes.entries()) {
    for (const o of graph.nodes[i]!.outs) made.set(o.id, i);
    const width = Math.max(...lines.map((l) => l.length)) * CHAR + 2 * PAD;
    g.setNode(String(i), { width, height: lines.length * LINE + PAD });
  }
  for (const [i, { inputs }] of graph.nodes.entries())
    for (const [k, input] of inputs.entries()) g.setEdge(String(made.get(input)!), String(i), {}, String(k));
  layout(g);
  const { width = 0, height = 0 } = g.graph() as { width?: number; height?: number };
  const results = new Set(graph.outputs.map(({ id }) => made.get(id)!));
  const edges = g.edges().map((e: { v: string; w: string; name?: string }) => {
    const { points } = g.edge(e) as { points: readonly { x: number; y: number }[] };
    return svg('path', { class: 'edge', d: `M${points.map((p) => `${p.x.toFixed(1)} ${p.y.toFixed(1)}`).join('L')}` });
  });
  const boxes = nodes.map(({ lines, title, leaf }, i) => {
    const at = g.node(String(i)) as { x: number; y: number; width: number; height: number };
    const top = at.y - at.height / 2;
    return svg(
      'g',
      { class: `node${leaf ? ' leaf' : ''}${results.has(i) ? ' result' : ''}` },
      svg('title', {}, title),
      svg('rect', { x: at.x - at.width / 2, y: top, width: at.width, height: at.height, rx: 5 }),
      lines.map((line, k) =>
        svg(
          'text',
          { x: at.x, y: top + PAD / 2 + (k + 0.75) * LINE, class: line.startsWith('∂') ? 'by' : k === 0 ? 'op' : '' },
          line,
        ),
      ),
    );
  });
  const label = `${stage.name}: ${graph.nodes.length} nodes, ${short(graph.flops)} flop; the same as text below`;
  const picture = svg(
    'svg',
    { class: 'drawing', width, height, viewBox: `0 0 ${width} ${height}`, role: 'img', 'aria-label': label },
    edges,
    boxes,
  );
  return h('div', { class: 'graph', tabindex: 0, role: 'region', 'aria-label': `Graph, ${stage.name}` }, picture);
}

/** When each buffer of a program is alive: a row each, the kernels from left to right. */
export function drawLives(
  kernels: readonly string[],
  lives: readonly { buffer: number; bytes: number; start: number; end: number }[],
): HTMLElement {
  const [step, row, left] = [Math.max(6, Math.min(26, 640 / Math.max(1, kernels.length))), 18, 150];
  const sorted = [...lives].sort((a, b) => a.start - b.start || a.buffer - b.buffer);
  const [width, height] = [left + step * (kernels.length + 1), row * sorted.length + 26];
  const bars = sorted.map(({ buffer, bytes, start, end }, i) =>
    svg(
      'g',
      { class: 'life' },
      svg(
        'title',
        {},
        `buffer ${buffer}, ${bytes} bytes: written by ${kernels[start] ?? start}, last read by ${kernels[end] ?? end}`,
      ),
      svg('text', { class: 'start', x: 0, y: row * i + 13 }, `buffer ${buffer}, ${short(bytes)} B`),
      svg('rect', {
        x: left + step * start,
        y: row * i + 3,
        width: step * Math.max(1, end - start + 1),
        height: row - 6,
        rx: 3,
      }),
    ),
  );
  const axis = svg(
    'text',
    { class: 'start', x: left, y: row * sorted.length + 18 },
    `kernels 0 to ${kernels.length - 1}`,
  );
  const picture = svg(
    'svg',
    {
      class: 'drawing',
      width,
      height,
      viewBox: `0 0 ${width} ${height}`,
      role: 'img',
      'aria-label': `${sorted.length} buffers over ${kernels.length} kernels`,
    },
    bars,
    axis,
  );
  return h('div', { class: 'graph', tabindex: 0, role: 'region', 'aria-label': 'Life of every buffer' }, picture);
}

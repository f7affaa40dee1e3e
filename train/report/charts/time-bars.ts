/** Where the wall time went, phase by phase. */
import * as Plot from '@observablehq/plot';
import { printable } from '../../../models/io/error.ts';
import type { RunRecord } from '../../run/record.ts';
import { duration, percent } from '../../words/format.ts';
import { onHigh, series } from './colors.ts';
import { appendHeading, draw, inline } from './svg.ts';

/** Longest name an axis has room for. */
const longest = 24;

/** A name on one line, cut to what the axis can hold. */
function short(name: string): string {
  const line = [...printable(name)];
  return line.length > longest ? `${line.slice(0, longest - 1).join('')}…` : line.join('');
}

/** A bar: its place on the axis (names need not be unique), its length, and what stands beside it. */
interface Bar {
  readonly row: number;
  readonly seconds: number;
  readonly label: string;
}

/** Wall time by phase as bars, longest first; `undefined` when no phase took time. */
export function timeBars(s: Pick<RunRecord, 'phases'>): string | undefined {
  const phases = s.phases
    .filter((p) => Number.isFinite(p.seconds) && p.seconds > 0)
    .sort((a, b) => b.seconds - a.seconds);
  if (phases.length === 0) return undefined;
  const total = phases.reduce((sum, p) => sum + p.seconds, 0);
  const bars = phases.map(({ seconds }, row): Bar => {
    return { row, seconds, label: `${duration(seconds)} · ${percent(seconds / total)}` };
  });
  // Beside a bar that nearly fills the width there is no room: write into it.
  const inside = (b: Bar): boolean => b.seconds > 0.7 * bars[0]!.seconds;
  const at = { x: 'seconds', y: 'row', text: 'label' };
  const node = draw(
    {
      width: 992,
      height: 34 + bars.length * 26,
      marginTop: 28,
      marginLeft: 180,
      marginRight: 18,
      marginBottom: 6,
      x: { axis: null },
      y: {
        domain: bars.map((b) => b.row),
        tickFormat: (row: number) => short(phases[row]!.name),
        tickSize: 0,
        label: null,
        padding: 0.25,
        type: 'band',
      },
      marks: [
        Plot.barX(bars, { x: 'seconds', y: 'row', fill: series[0]!.light, rx: 2 }),
        Plot.text(bars.filter(inside), { ...at, textAnchor: 'end', dx: -8, fill: onHigh.light }),
        Plot.text(
          bars.filter((b) => !inside(b)),
          { ...at, textAnchor: 'start', dx: 6 },
        ),
      ],
    },
    { title: 'Time by phase', description: bars.map((b) => `${short(phases[b.row]!.name)} ${b.label}`).join('; ') },
  );
  appendHeading(node, `Where the time went (${duration(total)})`);
  return inline(node);
}

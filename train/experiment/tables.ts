/** Tables as Markdown, LaTeX and CSV, and one CSV row per run. */
import { stringify } from 'csv-stringify/sync';
import type { Row as Compared } from './compare.ts';
import { sayDifference, saySummary } from './compare.ts';
import type { Experiment } from './config.ts';
import { MEASURES } from './measures.ts';
import type { State } from './state.ts';

/** Text cells under a heading each; the first column names its row. */
export type Table = {
  readonly title: string;
  readonly head: readonly string[];
  readonly rows: readonly (readonly string[])[];
};

/** Means and differences of all methods. */
export function tablesOf(e: Experiment, rows: readonly Compared[]): readonly Table[] {
  const names = e.arms.map((a) => a.name);
  const others = names.filter((name) => name !== e.against);
  const cell = (row: Compared, arm: string) => row.cells.find((c) => c.arm === arm);
  const judged = rows.filter((row) => row.measure.better);
  return [
    {
      title: 'Mean ± standard deviation over seeds',
      head: ['', ...names],
      rows: rows.map((row) => [row.measure.label, ...names.map((n) => saySummary(cell(row, n)?.summary))]),
    },
    ...(others.length === 0
      ? []
      : [
          {
            title: `Difference to ${e.against}, paired by seed, with its 95% interval`,
            head: ['', ...others],
            rows: judged.map((row) => [
              `${row.measure.label} (${row.measure.better} is better)`,
              ...others.map((n) => sayDifference(cell(row, n)?.difference)),
            ]),
          },
        ]),
  ];
}

const line = (cells: readonly string[]) => `| ${cells.map((c) => c.replace(/[\\|]/g, '\\$&')).join(' | ')} |`;
export const markdown = ({ title, head, rows }: Table): string =>
  [`### ${title}`, '', line(head), line(head.map(() => '---')), ...rows.map(line), ''].join('\n');

const TEX: Readonly<Record<string, string>> = {
  '\\': '\\textbackslash{}',
  '~': '\\textasciitilde{}',
  '^': '\\textasciicircum{}',
  '±': '$\\pm$',
  '–': '--',
  '−': '$-$',
};
const tex = (text: string) => text.replace(/[\\~^±–−&%$#_{}]/g, (c) => TEX[c] ?? `\\${c}`);
/** A table of the `booktabs` package. */
export const latex = ({ title, head, rows }: Table): string =>
  [
    '\\begin{table}',
    `\\caption{${tex(title)}}`,
    `\\begin{tabular}{l${'r'.repeat(head.length - 1)}}`,
    '\\toprule',
    `${head.map(tex).join(' & ')} \\\\`,
    '\\midrule',
    ...rows.map((row) => `${row.map(tex).join(' & ')} \\\\`),
    '\\bottomrule',
    '\\end{tabular}',
    '\\end{table}',
    '',
  ].join('\n');

/** One row per run with every measure in full precision. */
export const runsCsv = (states: readonly State[]): string =>
  stringify([
    ['method', 'seed', 'state', ...MEASURES.map((m) => m.id), 'folder'],
    ...states.map((s) => [
      s.run.arm.name,
      s.run.seed,
      s.state,
      ...MEASURES.map((m) => (s.state === 'done' ? m.of(s.record) : undefined)),
      s.run.folder,
    ]),
  ]);
/** Means, standard deviations, differences and intervals in full precision. */
export const comparisonCsv = (rows: readonly Compared[]): string =>
  stringify([
    ['measure', 'method', 'n', 'mean', 'sd', 'difference', 'pairs', 'low', 'high'],
    ...rows.flatMap(({ measure, cells }) =>
      cells.map(({ arm, summary: s, difference: d }) => [
        measure.id,
        arm,
        s?.n ?? 0,
        s?.mean,
        s?.sd,
        d?.mean,
        d?.n,
        d?.interval?.[0],
        d?.interval?.[1],
      ]),
    ),
  ]);

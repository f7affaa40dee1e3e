/** Tables as Markdown, LaTeX and CSV, and one CSV row per run. */
import { stringify } from 'csv-stringify/sync';
import type { Row as Compared } from './compare.ts';
import { sayDifference, saySummary } from './compare.ts';
import type { Experiment } from './config.ts';
import { MEASURES, type Measure } from './measures.ts';
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

/**
 * Like the paper's table 3, with any settings in place of its λ: a row for every combination of a grid's values, a column for
 * every measure that judges, and what was trained.
 */
export function gridTables(e: Experiment, rows: readonly Compared[]): readonly Table[] {
  const names = [...new Set(e.arms.flatMap(({ cell }) => cell?.of ?? []))];
  const shown = rows.filter(({ measure }) => measure.better || measure.id === 'rank' || measure.id === 'parameters');
  return names.map((of) => {
    const arms = e.arms.filter(({ cell }) => cell?.of === of);
    const keys = Object.keys(arms[0]!.cell!.at);
    const arrow = { lower: ' ↓', higher: ' ↑' } as const;
    return {
      title: `${of}, by ${keys.join(' × ')}${keys.includes('lambda') ? ' (the paper’s table 3)' : ''}`,
      head: [...keys, ...shown.map(({ measure: m }) => `${m.label}${m.better ? arrow[m.better] : ''}`)],
      rows: arms.map(({ name, cell }) => [
        ...keys.map((key) => cell!.at[key]!),
        ...shown.map(({ cells }) => saySummary(cells.find((c) => c.arm === name)?.summary)),
      ]),
    };
  });
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
  '×': '$\\times$',
  '↓': '$\\downarrow$',
  '↑': '$\\uparrow$',
  λ: '$\\lambda$',
  '¹': '$^{1}$',
  '²': '$^{2}$',
  '’': "'",
  // thousands apart, without a break
  '\u202f': '\\,',
};
const tex = (text: string) => text.replace(/[\\~^±–−×↓↑λ¹²’\u202f&%$#_{}]/g, (c) => TEX[c] ?? `\\${c}`);
/** A table of the `booktabs` package: no rule but its own, text escaped, nothing that pdflatex does not know. */
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
export const runsCsv = (states: readonly State[], measures: readonly Measure[] = MEASURES): string =>
  stringify([
    ['method', 'seed', 'state', ...measures.map((m) => m.id), 'folder'],
    ...states.map((s) => [
      s.run.arm.name,
      s.run.seed,
      s.state,
      ...measures.map((m) => (s.state === 'done' ? m.of(s.record) : undefined)),
      s.run.folder,
    ]),
  ]);
/** Every combination of every grid with its means, in full precision. */
export const gridCsv = (e: Experiment, rows: readonly Compared[]): string => {
  const cells = e.arms.filter((arm) => arm.cell);
  const keys = [...new Set(cells.flatMap(({ cell }) => Object.keys(cell!.at)))];
  return stringify([
    ['method', ...keys, 'n', ...rows.flatMap(({ measure: { id } }) => [id, `${id} sd`])],
    ...cells.map(({ name, cell }) => {
      const of = rows.map((row) => row.cells.find((c) => c.arm === name)?.summary);
      return [
        cell!.of,
        ...keys.map((key) => cell!.at[key]),
        Math.max(0, ...of.map((s) => s?.n ?? 0)),
        ...of.flatMap((s) => [s?.mean, s?.sd]),
      ];
    }),
  ]);
};
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

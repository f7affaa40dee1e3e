/** A run of page “Train here” as the page keeps it: its rows, its films, and the record that panels draw. */
import { parseRecord, type RunRecord } from '../../run/record.ts';
import { rowLog } from '../../run/row-log.ts';
import { GROWING } from '../machine/sides.ts';
import type { Begun, Film, TrainRow } from '../machine/train.ts';

export interface PageRun {
  readonly id: number;
  readonly name: string;
  readonly steps: number;
  readonly films: readonly Film[];
  /** of its last row, or where it was forked */
  step(): number;
  last(): TrainRow | undefined;
  add(row: TrainRow): void;
  addFilm(film: Film): void;
  record(): RunRecord;
  /** the same rows and films under another name */
  fork(begun: Begun, name: string): PageRun;
}

/** @param before what a fork has behind it */
export function pageRun(
  begun: Begun,
  name: string,
  before?: { readonly rows: readonly TrainRow[]; readonly films: readonly Film[] },
): PageRun {
  const log = rowLog();
  const rows: TrainRow[] = [];
  const films: Film[] = [...(before?.films ?? [])];
  const ranks = new Map(begun.modules.map((m) => [m.path, m.rank]));
  const { settings } = begun;
  const plain = parseRecord({
    name,
    method: settings.method,
    lambda: settings.method === GROWING ? settings.lambda : undefined,
    testEvery: settings.method === GROWING ? settings.testEvery : undefined,
    settings: settings as never,
  });
  const add = (row: TrainRow): void => {
    rows.push(row);
    const tests = row.tests?.map((t) => ({ ...t }));
    log.add((tests ? { ...row, tests } : row) as never);
    for (const t of row.tests ?? []) ranks.set(t.module, t.rankAfter);
  };
  for (const row of before?.rows ?? []) add(row);
  return {
    id: begun.id,
    name,
    steps: settings.steps,
    films,
    step: () => rows.at(-1)?.step ?? 0,
    last: () => rows.at(-1),
    add,
    addFilm: (film) => void films.push(film),
    record: () => ({
      ...plain,
      ...log.rows(),
      modules: begun.modules.map((m) => ({ ...m, rank: ranks.get(m.path)! })),
    }),
    fork: (other, called) => pageRun(other, called, { rows, films }),
  };
}

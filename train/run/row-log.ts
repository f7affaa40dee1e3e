/** Rows of a run by what they tell, in bounded memory: read from the start, or added as they come. */
import type { RunRecord } from './record.ts';
import type { StepRow } from './rows.ts';
import { testLog } from './test-log.ts';

export interface RowLog {
  add(row: StepRow): void;
  /** what has come so far */
  rows(): Pick<RunRecord, 'metrics' | 'validations' | 'expansions'>;
}

/** @param begun rows that are there already, as `rows()` gave them */
export function rowLog(begun?: ReturnType<RowLog['rows']>): RowLog {
  const metrics: RunRecord['metrics'][number][] = [...(begun?.metrics ?? [])];
  const validations: RunRecord['validations'][number][] = [...(begun?.validations ?? [])];
  const before = begun?.expansions ?? [];
  const log = testLog();
  return {
    add({ validation, tests, ...row }) {
      metrics.push({ ...row, loss: row.loss ?? Number.NaN });
      if (validation) validations.push({ step: row.step, ...validation });
      if (tests && tests.length > 0) log.add(row.step, tests);
    },
    rows: () => ({ metrics: [...metrics], validations: [...validations], expansions: [...before, ...log.rows()] }),
  };
}

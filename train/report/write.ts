/** Writes a report into its run's folder. */
import path from 'node:path';
import { writeRunFile } from '../run/atomic.ts';
import { readRun } from '../run/read.ts';
import type { RunRecord } from '../run/record.ts';
import { renderReport } from './page.ts';
import { withReferences } from './reference/reference.ts';

/**
 * Reads a run's folder and writes `report.html` and one SVG file per chart (`loss.svg`, `rank-unet.svg`, …) into it, each
 * atomically and readable by the owner only. Returns the paths, the page first.
 * @param charts whether the SVG files are written, too; the page holds them anyway
 * @throws FileError naming file and field of what cannot be read
 * @example const [page] = await writeReport('runs/first')
 */
export async function writeReport(folder: string, charts = true): Promise<readonly string[]> {
  return writePage(await withReferences(await readRun(folder)), folder, charts);
}

/** The same of a record at hand. */
export async function writePage(run: RunRecord, folder: string, withCharts = true): Promise<readonly string[]> {
  const { html, charts: drawn } = await renderReport(run);
  const charts = withCharts ? drawn : [];
  const files = [['report.html', html] as const, ...[...charts].map(([name, svg]) => [`${name}.svg`, svg] as const)];
  for (const [name, text] of files) await writeRunFile(path.join(folder, name), text);
  return files.map(([name]) => path.join(folder, name));
}

/** Writes a report into a run folder. */
import { join } from 'node:path';
import { makeRunFolder, writeRunFile } from '../run/atomic.ts';
import { renderReport } from './page.ts';
import type { RunSummaryInput } from './summary.ts';

/**
 * Writes `report.html` and one SVG file per chart (`loss.svg`, `rank-unet.svg`, `rank-text-encoder.svg`, …) into
 * `folder`, each atomically and readable by the owner only. Returns the paths, the page first.
 * @throws Error one line that names the field when the summary is not of the declared form
 * @example const [page] = await writeReport({ name: 'demo', metrics }, 'runs/demo')
 */
export async function writeReport(summary: RunSummaryInput, folder: string): Promise<readonly string[]> {
  const { html, charts } = await renderReport(summary);
  await makeRunFolder(folder);
  const files = [['report.html', html] as const, ...[...charts].map(([name, svg]) => [`${name}.svg`, svg] as const)];
  for (const [name, text] of files) await writeRunFile(join(folder, name), text);
  return files.map(([name]) => join(folder, name));
}

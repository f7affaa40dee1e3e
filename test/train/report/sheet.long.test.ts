/** The sheet of a run: real films, the autoencoder's and the run's, in this order, five of a finding in a row. */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import sharp from 'sharp';
import { describe, expect } from 'vitest';
import { openBackend } from '../../../core/index.ts';
import { phantomAt } from '../../../train/data/made/phantoms.ts';
import { sheetOf } from '../../../train/report/sheet.ts';
import { main as train } from '../../../train/train.ts';
import { runCommand } from '../../support/commands.ts';
import { longTest } from '../../support/long.ts';
import { scratch } from '../../support/scratch.ts';

const SIDE = 128;

describe('the sheet of a run', () => {
  longTest('shows fifteen pictures of each finding', { timeout: 300_000 }, async () => {
    mkdirSync(scratch, { recursive: true });
    const folder = join(scratch, 'run');
    const settings = '--pairs 20 --steps 2 --samples 0 --obedience 0 --validation-pairs 2 --backend wasm --threads 1';
    const run = await runCommand(train, ['--out', folder, '--seed', '3', ...settings.split(' ')]);
    expect([run.code, run.code === 0 ? '' : run.stderr]).toEqual([0, '']);
    const backend = await openBackend('wasm', { threads: 1 });
    const png = await sheetOf(backend, folder);
    await backend.close();
    const { data, info } = await sharp(png).greyscale().raw().toBuffer({ resolveWithObject: true });
    // pictures lie at the upper left of cells that are all alike, behind a first gap
    const GAP = 8;
    const [across, down] = [(info.width - GAP) / 15, (info.height - GAP) / 5];
    expect([across, down].every(Number.isInteger)).toBe(true);
    const tile = (row: number, column: number): number[] => {
      const [left, top] = [GAP + column * across, GAP + row * down];
      return Array.from({ length: SIDE * SIDE }, (_, i) => {
        const at = (top + Math.floor(i / SIDE)) * info.width + left + (i % SIDE);
        return data[at]! / 255;
      });
    };
    const apart = (a: ArrayLike<number>, b: ArrayLike<number>) =>
      Array.from(a).reduce((sum, x, i) => sum + Math.abs(x - b[i]!), 0) / a.length;
    const kinds = ['opacity', 'effusion', 'pneumothorax', 'cardiomegaly', undefined];
    for (const [row, kind] of kinds.entries()) {
      const one = Array.from({ length: 200 }, (_, i) => phantomAt(3, 'sheet', i, SIDE)).find(
        (p) => p.findings.length === (kind ? 1 : 0) && p.findings[0]?.kind === kind,
      )!;
      expect(apart(tile(row, 0), one.pixels)).toBeLessThan(0.004);
      const kept = apart(tile(row, 5), one.pixels);
      expect(kept).toBeGreaterThan(0.004);
      expect(kept).toBeLessThan(0.04);
      expect(apart(tile(row, 10), one.pixels)).toBeGreaterThan(2 * kept);
    }
  });
});

/**
 * A checkpoint written before methods had records of their own (`old-checkpoint/`, step 3 of 6, one module per attention):
 * gone on with, it ends with the bits of a run that was never stopped. The form is that of then; the numbers were put in
 * anew when the built-in films changed.
 */
import { cpSync, readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import { loadCheckpoint } from '../../../train/run/checkpoint.ts';
import { main } from '../../../train/train.ts';
import { runCommand, writeCalmBase } from '../../support/commands.ts';
import { scratchFolder } from '../../support/run-state.ts';

vi.setConfig({ testTimeout: 300_000, hookTimeout: 120_000 });

const scratch = scratchFolder();
/** its configuration names the base by a relative path: the trainer runs where that leads to one */
const place = process.cwd();
async function train(...args: string[]): Promise<void> {
  const { code, stderr } = await runCommand(main, args);
  expect([code, code === 0 ? '' : stderr]).toEqual([0, '']);
}
beforeAll(async () => {
  await writeCalmBase(path.join(scratch, 'base'));
  process.chdir(scratch);
});
afterAll(() => process.chdir(place));

const SETTINGS =
  '--base base --resolution 16 --pairs 24 --batch 2 --test-every 2 --lambda 1.02 --validate-every 3 --save-every 3 ' +
  '--samples 0 --obedience 0 --sample-steps 2 --lr 1e-2 --text-lr 1e-2 --guidance 3 --validation-pairs 2 --backend cpu --clip 1 --seed 5 --steps 6 ' +
  '--targets **.attn1.to_q --fi-ema 0.5';

test('an old checkpoint is read: the same bits as without a stop', async () => {
  await train(...SETTINGS.split(' '), '--out', 'whole');
  cpSync(path.join(import.meta.dirname, 'old-checkpoint'), path.join(scratch, 'old'), { recursive: true });
  await train('--resume', 'old', '--samples', '0');
  const at = (run: string, file: string) => readFileSync(path.join(scratch, run, file));
  const kept = (run: string) => readdirSync(path.join(scratch, run)).filter((file) => file.endsWith('.safetensors'));
  expect(kept('whole')).toContain('adapter.safetensors');
  expect(kept('old')).toEqual(kept('whole'));
  for (const file of kept('whole')) expect(at('old', file).equals(at('whole', file)), file).toBe(true);
  const [old, whole] = await Promise.all(['old', 'whole'].map((run) => loadCheckpoint(path.join(scratch, run))));
  expect(old!.tensors).toEqual(whole!.tensors);
  expect(old!.info.ranks).toEqual(whole!.info.ranks);
  expect(old!.info.memories).toEqual(whole!.info.memories);
});

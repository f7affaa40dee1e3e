/** What commands must do with bad inputs, whatever these are. */
import { existsSync, readdirSync } from 'node:fs';
import { expect } from 'vitest';
import type { AdapterModule } from '../../models/io/adapter-file.ts';
import { openBase } from '../../models/io/base.ts';
import { linearsOf } from '../../train/model/model.ts';
import type { Outcome } from './commands.ts';

/** An adapter that fits the tiny base in a folder (and the corpus's model, which has the same sizes). */
export async function fitting(base: string): Promise<ReadonlyMap<string, AdapterModule>> {
  const [[name, [dOut, dIn]]] = linearsOf(await openBase(base)).unet;
  const module = { A: new Float32Array(dIn).fill(1), B: new Float32Array(dOut).fill(1), rank: 1, dIn, dOut, scale: 1 };
  return new Map([[`unet.${name}`, module]]);
}

/** The manifest's rule for a refusal. */
export function expectRefused({ code, stderr }: Outcome, file: string, words: readonly string[] = []): void {
  expect(code).toBe(1);
  expect(stderr.endsWith('\n')).toBe(true);
  expect(stderr.slice(0, -1)).not.toMatch(/\p{Cc}/u);
  expect(stderr.toLowerCase()).toContain(file.toLowerCase());
  if (words.length > 0)
    expect(
      words.filter((word) => stderr.toLowerCase().includes(word.toLowerCase())),
      stderr,
    ).not.toEqual([]);
  expect(stderr).not.toMatch(/SELORA_DEBUG|\bat .*:\d+:\d+/);
}

/** Nothing that was read reached the prototype of all objects. */
export const clean = () => {
  expect(Object.getOwnPropertyNames(Object.prototype)).not.toContain('dtype');
  expect(Object.hasOwn(Object.prototype, 'polluted')).toBe(false);
};

/** One step of `train` on a small base. */
export const trainArgs = (data: string, base: string, out: string) => [
  '--data',
  data,
  '--base',
  base,
  '--out',
  out,
  '--steps',
  '1',
  '--samples',
  '0',
  '--resolution',
  '16',
  '--backend',
  'cpu',
];

/** No folder that one could take for a finished run. */
export function expectNoRun(out: string): void {
  const names = existsSync(out) ? readdirSync(out) : [];
  for (const name of ['adapter.safetensors', 'best.safetensors', 'report.html']) expect(names).not.toContain(name);
}

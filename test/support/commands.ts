/** Running commands in this process as a person would: arguments in, exit code and texts out. */
import { spawn } from 'node:child_process';
import path from 'node:path';
import { Writable } from 'node:stream';
import { randomOf, seedKey } from '../../core/index.ts';
import type { TensorOut } from '../../models/io/safetensors-write.ts';
import { PARTS, type Part } from '../../models/names.ts';
import { execute, type Main } from '../../train/cli/command.ts';
import { sizeOf, TINY_SPECS, writeTinyBase } from './tiny-base.ts';

export type Outcome = { readonly code: number; readonly stdout: string; readonly stderr: string };

function collector(): { readonly stream: Writable; readonly text: () => string } {
  let all = '';
  const stream = new Writable({
    write(chunk, _encoding, done) {
      all += String(chunk);
      done();
    },
  });
  return { stream, text: () => all };
}

/** `main(args)` with its streams collected. */
export async function runCommand(
  main: Main,
  args: readonly string[],
  signal = new AbortController().signal,
): Promise<Outcome> {
  const [out, err] = [collector(), collector()];
  const code = await execute(main, args, { stdout: out.stream, stderr: err.stream, signal });
  return { code, stdout: out.text(), stderr: err.text() };
}

const ROOT = path.resolve(import.meta.dirname, '../..');

/** What node is given for the command `npm run NAME`. */
export const programOf = (name: string): readonly string[] => [
  path.join(ROOT, 'train/cli/start.mjs'),
  path.join(ROOT, `train/${name}.ts`),
];

/** `npm run NAME -- …` as a process of its own. */
export function runProcess(
  name: string,
  args: readonly string[],
): Promise<Outcome & { readonly signal: string | null }> {
  const child = spawn(process.execPath, [...programOf(name), ...args], {
    cwd: ROOT,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let [stdout, stderr] = ['', ''];
  child.stdout.on('data', (chunk) => {
    stdout += String(chunk);
  });
  child.stderr.on('data', (chunk) => {
    stderr += String(chunk);
  });
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code, signal) => resolve({ code: code ?? 1, stdout, stderr, signal }));
  });
}

/** Weights that give finite pictures: U(−1, 1)·√(3/fan-in), norms 1, biases 0. */
export function calmWeights(part: Part, seed = 1): ReadonlyMap<string, TensorOut> {
  const random = randomOf(seedKey(seed));
  return new Map(
    [...TINY_SPECS[part]].map(([name, shape]): [string, TensorOut] => {
      const bound = Math.sqrt(3 / Math.max(1, sizeOf(shape.slice(1))));
      const value = () => (shape.length > 1 ? random.uniform(-bound, bound) : name.endsWith('bias') ? 0 : 1);
      return [name, { dtype: 'F32', shape, data: Float32Array.from({ length: sizeOf(shape) }, value) }];
    }),
  );
}

/** A tiny base that draws finite pictures, 16 × 16. */
export async function writeCalmBase(folder: string): Promise<void> {
  const weights = Object.fromEntries(PARTS.map((part, i) => [part, calmWeights(part, i + 1)])) as Record<
    Part,
    ReadonlyMap<string, TensorOut>
  >;
  await writeTinyBase(folder, { weights });
}

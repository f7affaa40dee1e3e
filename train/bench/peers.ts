/**
 * What people would pick instead, timed in the same run: PyTorch in a Python that has it, jax-js and tfjs where this
 * given folder has them. Nothing is installed; what is not there is named.
 */
import { spawnSync } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';

export type PeerFigure = { readonly name: string; readonly peer: string; readonly ms: number };
export type Peers = { readonly figures: readonly PeerFigure[]; readonly missing: readonly string[] };

const THREADS = '2';
/** Debian's PyTorch belongs to the system's own Python. */
export const PYTHON = '/usr/bin/python3';
/** The setting in which PyTorch is fast: without it allocations and oversubscription make it several times slower. */
const TORCH_SETTING = {
  OPENBLAS_NUM_THREADS: '1',
  NT: THREADS,
  MALLOC_MMAP_THRESHOLD_: '1073741824',
  MALLOC_TRIM_THRESHOLD_: '4294967296',
};

type Command = { readonly command: string; readonly args: readonly string[]; readonly cwd: string };

/** What a peer's script prints as JSON; undefined where the peer is not installed. */
function run<T>(
  { command, args, cwd }: Command,
  of: readonly string[],
  ms: number,
  schema: z.ZodType<T>,
): T | undefined {
  const child = spawnSync(command, [...args, String(ms), ...of], {
    cwd,
    encoding: 'utf8',
    env: { ...process.env, ...TORCH_SETTING },
    timeout: 600_000,
    maxBuffer: 1 << 20,
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  if (child.status !== 0) return undefined;
  try {
    return schema.parse(JSON.parse(child.stdout));
  } catch {
    return undefined;
  }
}

/**
 * @param names operations of the bench (ops.ts)
 * @param folder where jax-js and tfjs are installed
 * @param python one that has PyTorch
 */
export async function benchPeers(names: readonly string[], ms: number, folder: string, python: string): Promise<Peers> {
  const scripts = join(import.meta.dirname, 'peers');
  // a program given as text looks for its packages where it runs, not where its file lies
  const inFolder = async (script: string): Promise<Command> => {
    const text = await readFile(join(scripts, script), 'utf8');
    return { command: process.execPath, args: ['--input-type=module', '-e', text, '--'], cwd: folder };
  };
  const peers: readonly (readonly [string, Command])[] = [
    ['PyTorch', { command: python, args: [join(scripts, 'torch_ops.py')], cwd: folder }],
    ['jax-js', await inFolder('jax-js.mjs')],
    ['tfjs-wasm', await inFolder('tfjs.mjs')],
  ];
  const figures: PeerFigure[] = [];
  const missing: string[] = [];
  for (const [peer, command] of peers) {
    const found = run(command, [...new Set(names)], ms, z.record(z.string(), z.number()));
    if (!found) missing.push(peer);
    else for (const [name, time] of Object.entries(found)) figures.push({ name, peer, ms: time });
  }
  return { figures, missing };
}

const stepSchema = z.object({
  version: z.string(),
  step_ms: z.number(),
  step_ms_median: z.number(),
  /** adapted linear layers */
  modules: z.number(),
});
/** A step of a peer: its best and median time. */
export type PeerStep = z.output<typeof stepSchema>;

/** The same training step in PyTorch; undefined where this Python has none. @param unetConfig all linear layers are adapted */
export const benchPeerStep = (
  settings: { readonly unetConfig: string; readonly batch: number; readonly resolution: number; readonly rank: number },
  ms: number,
  python: string,
): PeerStep | undefined => {
  const { unetConfig, batch, resolution, rank } = settings;
  const script = join(import.meta.dirname, 'peers', 'torch_step.py');
  const of = [unetConfig, ...[batch, resolution, rank].map(String)];
  return run({ command: python, args: [script], cwd: '.' }, of, ms, stepSchema);
};

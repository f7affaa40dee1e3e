/**
 * What people would pick instead, timed in the same run: PyTorch in a Python that has it, jax-js and tfjs where this
 * project's folder has them. Nothing is installed; what is not there is named.
 */
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { z } from 'zod';

export type PeerFigure = { readonly name: string; readonly peer: string; readonly ms: number };
export type Peers = { readonly figures: readonly PeerFigure[]; readonly missing: readonly string[] };

const THREADS = '2';
/** The setting in which PyTorch is fast: without it allocations and oversubscription make it several times slower. */
const TORCH_SETTING = {
  OPENBLAS_NUM_THREADS: '1',
  NT: THREADS,
  MALLOC_MMAP_THRESHOLD_: '1073741824',
  MALLOC_TRIM_THRESHOLD_: '4294967296',
};

/** Runs the names it knows of and returns best times in ms; undefined where the peer is not installed. */
function run(
  command: string,
  args: readonly string[],
  names: readonly string[],
  ms: number,
): Record<string, number> | undefined {
  const child = spawnSync(command, [...args, String(ms), ...names], {
    encoding: 'utf8',
    env: { ...process.env, ...TORCH_SETTING },
    timeout: 600_000,
    maxBuffer: 1 << 20,
  });
  if (child.status !== 0) return undefined;
  try {
    return z.record(z.string(), z.number()).parse(JSON.parse(child.stdout));
  } catch {
    return undefined;
  }
}

/** @param names operations of the bench (ops.ts) */
export async function benchPeers(names: readonly string[], ms: number): Promise<Peers> {
  const folder = join(import.meta.dirname, 'peers');
  const peers: readonly (readonly [string, string, readonly string[]])[] = [
    ['PyTorch', '/usr/bin/python3', [join(folder, 'torch_ops.py')]],
    ['jax-js', process.execPath, [join(folder, 'jax-js.mjs')]],
    ['tfjs-wasm', process.execPath, [join(folder, 'tfjs.mjs')]],
  ];
  const figures: PeerFigure[] = [];
  const missing: string[] = [];
  for (const [peer, command, args] of peers) {
    const found = run(command, args, [...new Set(names)], ms);
    if (!found) missing.push(peer);
    else for (const [name, time] of Object.entries(found)) figures.push({ name, peer, ms: time });
  }
  return { figures, missing };
}

/** How times are taken: the best and the median of many runs, and what the machine was doing meanwhile. */
import { availableParallelism, loadavg } from 'node:os';

export type Timing = { readonly min: number; readonly median: number; readonly runs: number };

/** Minimum and median of milliseconds. */
export function summary(times: readonly number[]): Timing {
  const sorted = [...times].sort((a, b) => a - b);
  return { min: sorted[0]!, median: sorted[Math.floor(sorted.length / 2)]!, runs: sorted.length };
}

/**
 * Runs f for about `ms` milliseconds and at least `least` times after `warm` runs that do not count.
 * @param f gives its own time where it knows better (a device's clock), otherwise the wall clock counts
 */
export async function timed(
  f: () => Promise<number | undefined> | number | undefined,
  { ms = 400, least = 3, warm = 2 }: { readonly ms?: number; readonly least?: number; readonly warm?: number } = {},
): Promise<Timing> {
  for (let i = 0; i < warm; i++) await f();
  const times: number[] = [];
  for (const end = performance.now() + ms; performance.now() < end || times.length < least; ) {
    const start = performance.now();
    const own = await f();
    times.push(own ?? performance.now() - start);
  }
  return summary(times);
}

/** A warning where other programs keep the cores busy: ratios within one run still count, times do not. */
export function loadWarning(): string | undefined {
  const [load, cores] = [loadavg()[0]!, availableParallelism()];
  return load > cores + 0.5
    ? `other programs were running (load ${load.toFixed(1)} on ${cores} cores): trust ratios, not times`
    : undefined;
}

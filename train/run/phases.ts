/**
 * Where a run's time and memory go: exclusive wall time by phase, and the process's memory at most when one begins and
 * ends; what no phase claims is `other`.
 */
export interface PhaseClock {
  /** runs f and charges its time (less that of phases inside it) to `name` */
  time<T>(name: string, f: () => Promise<T>): Promise<T>;
  sync<T>(name: string, f: () => T): T;
  /** all phases in the order in which they first ended, and the rest */
  rows(): { readonly name: string; readonly seconds: number; readonly calls: number; readonly peakBytes: number }[];
}
export function phaseClock(
  now: () => number = () => performance.now(),
  memory: () => number = () => process.memoryUsage.rss(),
): PhaseClock {
  const phases = new Map<string, { seconds: number; calls: number; peakBytes: number }>();
  const started = now();
  // time already charged to phases inside the one that runs
  let inner = 0;
  const charge = (name: string, from: number, innerBefore: number, bytes: number): void => {
    const spent = now() - from;
    const own = spent - (inner - innerBefore);
    const p = phases.get(name) ?? { seconds: 0, calls: 0, peakBytes: 0 };
    phases.set(name, {
      seconds: p.seconds + own / 1000,
      calls: p.calls + 1,
      peakBytes: Math.max(p.peakBytes, bytes, memory()),
    });
    inner = innerBefore + spent;
  };
  return {
    async time(name, f) {
      const [from, before, bytes] = [now(), inner, memory()];
      try {
        return await f();
      } finally {
        charge(name, from, before, bytes);
      }
    },
    sync(name, f) {
      const [from, before, bytes] = [now(), inner, memory()];
      try {
        return f();
      } finally {
        charge(name, from, before, bytes);
      }
    },
    rows() {
      const rows = [...phases].map(([name, p]) => ({ name, ...p }));
      const rest = (now() - started) / 1000 - rows.reduce((s, r) => s + r.seconds, 0);
      return [...rows, { name: 'other', seconds: Math.max(0, rest), calls: 1, peakBytes: memory() }];
    },
  };
}

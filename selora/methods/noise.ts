/** Normal numbers on the host from a key, for starts. */
import { threefry } from '../../core/index.ts';
import type { HostKey } from '../adapter.ts';

/** n draws of N(0, 1) in f64 by Box and Muller, a pure function of key and place. */
export function hostNormal(key: HostKey, n: number): Float64Array {
  const out = new Float64Array(n);
  for (let i = 0; i < n; i += 2) {
    const [a, b] = threefry(key[0], key[1], i / 2, 0);
    const radius = Math.sqrt(-2 * Math.log((a + 0.5) / 2 ** 32));
    const angle = (2 * Math.PI * (b + 0.5)) / 2 ** 32;
    out[i] = radius * Math.cos(angle);
    if (i + 1 < n) out[i + 1] = radius * Math.sin(angle);
  }
  return out;
}

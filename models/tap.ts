import type { Tensor } from '../core/index.ts';

/**
 * Sees the result of every submodule under its module path (`mid_block.attentions.0`) while a model is traced: for
 * debugging against another implementation. It must not change anything.
 */
export type Tap = (path: string, value: Tensor) => void;

/** The tap of a submodule: paths get a prefix. */
export const below = (tap: Tap | undefined, prefix: string): Tap | undefined =>
  tap && ((path, value) => tap(path === '' ? prefix : `${prefix}.${path}`, value));

/** Shows a value to the tap and hands it on. */
export function seen(tap: Tap | undefined, path: string, value: Tensor): Tensor {
  tap?.(path, value);
  return value;
}

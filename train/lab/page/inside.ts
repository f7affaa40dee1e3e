/** The inside of a step, made here or recorded: the same drawing, blocks, values and ops for both. */
import type { Block } from '../../trace/blocks.ts';
import type { Recorded, Trace } from '../../trace/format.ts';

export interface Inside {
  readonly blocks: readonly Block[];
  /** what is trained, with the size of its gradient; null: not finite */
  readonly modules: readonly { readonly path: string; readonly rank?: number; readonly gradient: number | null }[];
  /** what that size is, in words */
  readonly size: string;
  /** where and by what it was made */
  readonly backend: string;
  /** kernels and names of modules with values, when they are first asked for */
  readonly kernels: () => Promise<Trace['kernels']>;
  readonly values: () => Promise<readonly string[]>;
  readonly read: (module: string) => Promise<{ readonly value: Recorded; readonly cotangent: Recorded }>;
}
/** Which block is open, and what of it. */
export interface Place {
  readonly block: string;
  readonly value: string;
}
/** `unet.down_blocks.0` → `down 0` */
export function titleOf({ path, kind }: Pick<Block, 'path' | 'kind'>): string {
  const number = /\d+$/.exec(path)?.[0];
  const names = {
    text: 'text encoder',
    time: 'timestep',
    in: 'first convolution',
    mid: 'middle',
    out: 'last convolution',
  };
  return kind === 'down' || kind === 'up' ? `${kind} ${number}` : names[kind];
}
/** Size of the gradient of all that is trained in a block; undefined where nothing is. */
export function gradientOf(path: string, modules: Inside['modules']): number | null | undefined {
  const own = modules.filter((m) => m.path.startsWith(`${path}.`));
  if (own.length === 0) return undefined;
  return own.some((m) => m.gradient === null) ? null : Math.hypot(...own.map((m) => m.gradient!));
}

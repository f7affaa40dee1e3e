/** The blocks of a model as they are drawn, and which block a module belongs to. */
import type { UNetConfig } from '../../models/config.ts';
import { partOf } from '../../selora/networks.ts';

/** A part of the model that is one box of the drawing. */
export interface Block {
  /** as modules are called outside the program: `unet.down_blocks.0` */
  readonly path: string;
  readonly kind: 'text' | 'time' | 'in' | 'down' | 'mid' | 'up' | 'out';
  /** how often the picture was halved there: 0 is the finest */
  readonly level: number;
  /** values that go across: handed on by the way down, taken in by the way up */
  readonly skips: number;
}

/** All blocks, in the order they compute. */
export function blocksOf(c: Pick<UNetConfig, 'block_out_channels' | 'layers_per_block'>): readonly Block[] {
  const levels = c.block_out_channels.length;
  const at = (path: string, kind: Block['kind'], level = 0, skips = 0): Block => ({ path, kind, level, skips });
  const unet = (path: string): string => `${partOf.unet}.${path}`;
  return [
    at(partOf.text, 'text'),
    at(unet('time_embedding'), 'time'),
    at(unet('conv_in'), 'in', 0, 1),
    ...Array.from({ length: levels }, (_, i) =>
      at(unet(`down_blocks.${i}`), 'down', i, c.layers_per_block + (i < levels - 1 ? 1 : 0)),
    ),
    at(unet('mid_block'), 'mid', levels - 1),
    ...Array.from({ length: levels }, (_, i) =>
      at(unet(`up_blocks.${i}`), 'up', levels - 1 - i, c.layers_per_block + 1),
    ),
    at(unet('conv_out'), 'out'),
  ];
}

/**
 * The path of the block a module is in; undefined for what is in none.
 * @example blockPath('unet.down_blocks.0.attentions.1.proj_in') // 'unet.down_blocks.0'
 */
export function blockPath(module: string): string | undefined {
  const [part, first, second] = module.split('.');
  if (part === partOf.text) return part;
  if (part !== partOf.unet || first === undefined) return undefined;
  if (/^(down|up)_blocks$/.test(first)) return second === undefined ? undefined : `${part}.${first}.${second}`;
  return `${part}.${first === 'conv_norm_out' ? 'conv_out' : first}`;
}

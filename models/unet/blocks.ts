/**
 * The U-Net's blocks of one resolution: `DownBlock2D` and `CrossAttnDownBlock2D`, `UNetMidBlock2DCrossAttn`, `UpBlock2D`
 * and `CrossAttnUpBlock2D`. A block with cross-attention is one whose record has `attentions`.
 */
import { concat, type Tensor } from '../../core/index.ts';
import { type Downsampler, downsample, type Resnet, resnet, type Upsampler, upsample } from '../../nn/index.ts';
import { below, seen, type Tap } from '../tap.ts';
import { type Transformer, transformer } from './transformer.ts';

export type DownBlock<T = Tensor> = {
  readonly attentions?: readonly Transformer<T>[];
  readonly resnets: readonly Resnet<T>[];
  readonly downsamplers?: readonly [Downsampler<T>];
};
export type MidBlock<T = Tensor> = {
  readonly attentions: readonly Transformer<T>[];
  readonly resnets: readonly Resnet<T>[];
};
export type UpBlock<T = Tensor> = {
  readonly attentions?: readonly Transformer<T>[];
  readonly resnets: readonly Resnet<T>[];
  readonly upsamplers?: readonly [Upsampler<T>];
};

/** What every block is given beside its parameters. */
export type BlockOptions = {
  readonly heads: number;
  readonly groups: number;
  readonly eps: number;
  readonly tap?: Tap | undefined;
};
/** Time embedding [n, 4·c₀] and text [n, k, d]. */
export type Conditions = { readonly time: Tensor; readonly context: Tensor };

function resnetAt(p: readonly Resnet[], i: number, x: Tensor, { time }: Conditions, o: BlockOptions): Tensor {
  return seen(o.tap, `resnets.${i}`, resnet(p[i]!, x, o, time));
}
function attentionAt(
  p: readonly Transformer[] | undefined,
  i: number,
  x: Tensor,
  c: Conditions,
  o: BlockOptions,
): Tensor {
  if (!p) return x;
  const path = `attentions.${i}`;
  return seen(o.tap, path, transformer(p[i]!, x, c.context, o, below(o.tap, path)));
}

/** x[n, h, w, c] → the result (half the size, where there is a downsampler) and what the way up will need. */
export function downBlock(
  p: DownBlock,
  x: Tensor,
  c: Conditions,
  o: BlockOptions,
): { x: Tensor; skips: readonly Tensor[] } {
  const skips: Tensor[] = [];
  let h = x;
  for (let i = 0; i < p.resnets.length; i++) {
    h = attentionAt(p.attentions, i, resnetAt(p.resnets, i, h, c, o), c, o);
    skips.push(h);
  }
  if (p.downsamplers) {
    h = seen(o.tap, 'downsamplers.0', downsample(p.downsamplers[0], h, 'around'));
    skips.push(h);
  }
  return { x: h, skips };
}

/** x[n, h, w, c] → [n, h, w, c]: resnet, then attention and resnet by turns. */
export function midBlock(p: MidBlock, x: Tensor, c: Conditions, o: BlockOptions): Tensor {
  let h = resnetAt(p.resnets, 0, x, c, o);
  for (let i = 0; i < p.attentions.length; i++)
    h = resnetAt(p.resnets, i + 1, attentionAt(p.attentions, i, h, c, o), c, o);
  return h;
}

/**
 * x[n, h, w, c] → [n, h', w', c']. Every resnet reads the latest result and one skip, last skip first. `size` is that of
 * the next block's skips: with an odd side it is not twice this block's.
 */
export function upBlock(
  p: UpBlock,
  x: Tensor,
  skips: readonly Tensor[],
  c: Conditions,
  o: BlockOptions & { readonly size: readonly [number, number] },
): Tensor {
  let h = x;
  for (let i = 0; i < p.resnets.length; i++) {
    const joined = concat([h, skips[skips.length - 1 - i]!], 3);
    h = attentionAt(p.attentions, i, resnetAt(p.resnets, i, joined, c, o), c, o);
  }
  return p.upsamplers ? seen(o.tap, 'upsamplers.0', upsample(p.upsamplers[0], h, o.size)) : h;
}

export type { DownBlock, MidBlock, UpBlock } from './blocks.ts';
export { type UNet, unetSpec } from './spec.ts';
export type { Transformer, TransformerBlock } from './transformer.ts';
export { type UNetOptions, unet } from './unet.ts';

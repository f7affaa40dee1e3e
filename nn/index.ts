/** The layers: parameters in, graph out. Each takes its parameters as a plain record with checkpoint names. */
export { geglu, gelu, quickGelu, silu } from './activations.ts';
export { type Attention, attention, attentionSpec } from './attention.ts';
export { type AdaptedConv, type Conv, conv2d, convSpec, type Padding } from './conv.ts';
export { type Embedding, embedding, embeddingSpec, timestepEmbedding } from './embedding.ts';
export { init } from './init.ts';
export { fileShape, permuteAxes, toFileLayout, toModelLayout, toModelShape } from './layout.ts';
export { type AdaptedLinear, type Linear, type Look, type LowRank, linear, linearSpec } from './linear.ts';
export { mse } from './loss.ts';
export { groupNorm, layerNorm, type Norm, normSpec } from './norm.ts';
export { type Downsampler, downsample, type Upsampler, upsample, upsampleNearest } from './resample.ts';
export { type Resnet, resnet, resnetSpec } from './resnet.ts';
export { constant, fanIn, gaussian, type Init, type LayerKind, Param, type Params } from './spec.ts';

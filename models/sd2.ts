/**
 * What Stable Diffusion 2.x has other than 1.5, as the JSON its files hold: OpenCLIP ViT-H/14's text tower up to its last
 * layer but one, heads of 64 channels at every level, linear projections around the transformers.
 */
import type { Json } from './io/json.ts';
import { SD15_SCHEDULER, SD15_TEXT_ENCODER, SD15_UNET } from './sd15.ts';

type JsonObject = { readonly [key: string]: Json };

/** SD 2.x's `unet/config.json`; 96 is the sample size of the models of 768 pixels, 64 of those of 512. */
export const sd2Unet = (sampleSize: 96 | 64): JsonObject => ({
  ...SD15_UNET,
  attention_head_dim: [5, 10, 20, 20],
  cross_attention_dim: 1024,
  sample_size: sampleSize,
  use_linear_projection: true,
});

/** SD 2.x's `text_encoder/config.json`: 23 of the tower's 24 layers, since it is the last but one that is used. */
export const SD2_TEXT_ENCODER: JsonObject = {
  ...SD15_TEXT_ENCODER,
  hidden_act: 'gelu',
  hidden_size: 1024,
  intermediate_size: 4096,
  num_attention_heads: 16,
  num_hidden_layers: 23,
  projection_dim: 512,
};

/** SD 2.x's `scheduler/scheduler_config.json`. */
export const sd2Scheduler = (prediction: 'v_prediction' | 'epsilon'): JsonObject => ({
  ...SD15_SCHEDULER,
  _class_name: 'DDIMScheduler',
  prediction_type: prediction,
});

/** What stands behind the end of a text: OpenCLIP's tokenizer fills up with zeros, and id 0 is "!". */
export const SD2_PAD = '!';

/** Small adapters with ranks 1 to 4 on modules of both networks. */
import type { AdapterFile, AdapterModule } from '../../models/io/adapter-file.ts';

export const module = (rank: number, dIn: number, dOut: number, scale: number, seed: number): AdapterModule => ({
  A: Float32Array.from({ length: dIn * rank }, (_, i) => Math.sin(seed + 3 * i)),
  B: Float32Array.from({ length: rank * dOut }, (_, i) => Math.cos(seed + 5 * i)),
  rank,
  dIn,
  dOut,
  scale,
});

export const MODULES = [
  'unet.time_embedding.linear_1',
  'unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q',
  'unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_out.0',
  'unet.mid_block.attentions.0.transformer_blocks.0.ff.net.0.proj',
  'unet.up_blocks.3.attentions.1.transformer_blocks.0.ff.net.2',
  'text_encoder.text_model.encoder.layers.10.self_attn.v_proj',
  'text_encoder.text_model.encoder.layers.2.mlp.fc1',
];

export const adapter = (scale: number, names = MODULES): AdapterFile => ({
  modules: new Map(names.map((name, i) => [name, module(1 + (i % 4), 5 + i, 3 + 2 * i, scale, i)])),
  metadata: new Map([['selora', '{"lambda":1.1,"note":"ünï"}']]),
});

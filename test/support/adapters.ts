/** Small adapters with ranks 1 to 4 on modules of both networks, and larger ones of every linear of a base. */
import type { AdapterFile, AdapterModule } from '../../models/io/adapter-file.ts';
import { openBase } from '../../models/io/base.ts';
import { linearsOf } from '../../train/model/model.ts';

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

/** An adapter of every linear of the base in a folder: A as a wave, B = `size`·wave. */
export async function wavyAdapter(base: string, rank: number, size: number): Promise<AdapterFile> {
  const linears = linearsOf(await openBase(base));
  const modules = new Map<string, AdapterModule>();
  for (const [part, paths] of [['unet', linears.unet] as const, ['text_encoder', linears.text] as const])
    for (const [name, [dOut, dIn]] of paths) {
      const wave = (n: number, f: number) => Float32Array.from({ length: n }, (_, i) => f * Math.sin(1 + 3 * i));
      modules.set(`${part}.${name}`, { A: wave(dIn * rank, 1), B: wave(rank * dOut, size), rank, dIn, dOut, scale: 1 });
    }
  return { modules, metadata: new Map() };
}

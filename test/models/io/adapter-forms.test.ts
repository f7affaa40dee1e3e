/** Forms that arrive with the right strength in programs whose rules for alpha differ, and names of other programs. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, describe, expect, it, test } from 'vitest';
import { checkAdapter } from '../../../models/io/adapter-check.ts';
import { type AdapterFile, deltaWeight, readAdapter } from '../../../models/io/adapter-file.ts';
import { looksLikeAdapter } from '../../../models/io/adapter-names.ts';
import { readerNotes } from '../../../models/io/adapter-readers.ts';
import { type AdapterForm, writeAdapter } from '../../../models/io/adapter-write.ts';
import { openBase } from '../../../models/io/base.ts';
import { openSafetensors } from '../../../models/io/safetensors.ts';
import { type TensorOut, writeSafetensors } from '../../../models/io/safetensors-write.ts';
import { ldmNames } from '../../../models/names.ts';
import { adapter, MODULES, module } from '../../support/adapters.ts';
import { writeTinyBase } from '../../support/tiny-base.ts';

const scratch = mkdtempSync(path.join(tmpdir(), 'selora-forms-'));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

type Tensors = Readonly<Record<string, readonly number[]>>;
let count = 0;
async function write(
  tensors: Tensors,
  metadata: Readonly<Record<string, string>> = {},
  name = 'adapter',
): Promise<string> {
  const folder = path.join(scratch, `file-${count++}`);
  mkdirSync(folder);
  const file = path.join(folder, `${name}.safetensors`);
  const out = Object.entries(tensors).map(([key, shape]): [string, TensorOut] => {
    const size = shape.reduce((a, b) => a * b, 1);
    return [key, { dtype: 'F32', shape, data: Float32Array.from({ length: size }, (_, i) => 1 + i) }];
  });
  await writeSafetensors(file, new Map(out), new Map(Object.entries(metadata)));
  return file;
}
const lora = (name: string, inner = 3, out = 4): Tensors => ({
  [`${name}.lora_down.weight`]: [2, inner],
  [`${name}.lora_up.weight`]: [out, 2],
});
const modulesOf = async (tensors: Tensors): Promise<string[]> =>
  [...(await readAdapter(await write(tensors))).modules.keys()].sort();

/** PEFT's rule: the first pattern that matches the end of a module's path, looked up for rank and alpha apart. */
function strengths(config: Record<string, unknown>, part: string, modules: readonly (readonly [string, number])[]) {
  const pick = (table: string, otherwise: string, name: string): number => {
    const entries = Object.entries(config[`${part}.${table}`] as Record<string, number>);
    return (
      entries.find(([key]) => new RegExp(`^(.*\\.)?(${key})$`).test(name))?.[1] ??
      (config[`${part}.${otherwise}`] as number)
    );
  };
  return modules.map(([name, rank]) => {
    expect(pick('rank_pattern', 'r', name), name).toBe(rank);
    return pick('alpha_pattern', 'lora_alpha', name) / rank;
  });
}

describe('what diffusers builds its configuration from', () => {
  it.each(['diffusers', 'kohya'] satisfies AdapterForm[])(
    '%s: every module gets its rank and strength 1',
    async (form) => {
      const file = path.join(scratch, `header-${form}.safetensors`);
      await writeAdapter(file, adapter(0.5), form);
      const config = JSON.parse((await openSafetensors(file)).metadata.get('lora_adapter_metadata')!);
      for (const part of ['unet', 'text_encoder']) {
        const modules = [...adapter(0.5).modules]
          .filter(([name]) => name.startsWith(`${part}.`))
          .map(([name, { rank }]) => [name.slice(part.length + 1), rank] as const);
        // with CLIP's level text_model (transformers 4) and without it (5.6)
        const bare = modules.map(([name, rank]) => [name.replace('text_model.', ''), rank] as const);
        for (const names of [modules, bare]) expect(strengths(config, part, names)).toEqual(names.map(() => 1));
        // PEFT adapts the modules whose path ends so
        for (const [name] of [...modules, ...bare])
          expect(config[`${part}.target_modules`].some((t: string) => name === t || name.endsWith(`.${t}`))).toBe(true);
        expect(config[`${part}.target_modules`]).toHaveLength(modules.length);
      }
      // of a network that is not there nothing is said
      await writeAdapter(`${file}-2.safetensors`, adapter(1, MODULES.slice(0, 2)), form);
      const one = JSON.parse((await openSafetensors(`${file}-2.safetensors`)).metadata.get('lora_adapter_metadata')!);
      expect(Object.keys(one).every((key) => key.startsWith('unet.'))).toBe(true);
    },
  );

  it('the header that was read does not outlive a change of form', async () => {
    const file = path.join(scratch, 'again.safetensors');
    await writeAdapter(file, adapter(1));
    const folder = path.join(scratch, 'again');
    await writeAdapter(folder, await readAdapter(file), 'peft');
    const { metadata } = await openSafetensors(path.join(folder, 'unet/adapter_model.safetensors'));
    expect(metadata.has('lora_adapter_metadata')).toBe(false);
  });
});

test('notes: kohya adapts no time embedding, told with its share of ‖ΔW‖', () => {
  const names = ['unet.time_embedding.linear_1', 'unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q'];
  const two: AdapterFile = {
    modules: new Map(names.map((name, i) => [name, module(2, 5, 4, 1, i)])),
    metadata: new Map(),
  };
  const [lost, other] = names.map((name) => deltaWeight(two.modules.get(name)!).reduce((s, x) => s + x * x, 0));
  const percent = (100 * Math.sqrt(lost / (lost + other))).toPrecision(2);
  expect(readerNotes(two, 'kohya').join('\n')).toMatch(
    new RegExp(`time_embedding.*linear_1 would be lost.* ${percent}% of ‖ΔW‖`),
  );
  const still = { ...two, modules: new Map([...two.modules].map(([n, m]) => [n, { ...m, B: m.B.map(() => 0) }])) };
  expect(readerNotes(still, 'kohya').join('\n')).not.toMatch(/would be lost|‖ΔW‖/);
  expect(readerNotes(two, 'diffusers').join('\n')).toMatch(/ComfyUI.*--form kohya/);
});

describe('PEFT', () => {
  const config = (extra: object) => JSON.stringify({ peft_type: 'LORA', r: 2, lora_alpha: 1, ...extra });
  const name = 'base_model.model.mid_block.attentions.0.transformer_blocks.0.attn1.to_q';
  const peft: Tensors = { [`${name}.lora_A.weight`]: [2, 3], [`${name}.lora_B.weight`]: [4, 2] };

  it('reads the configuration beside a file that is named alone', async () => {
    for (const stem of ['adapter_model', 'renamed']) {
      const file = await write(peft, {}, stem);
      writeFileSync(path.join(path.dirname(file), 'adapter_config.json'), config({}));
      expect([...(await readAdapter(file)).modules.values()][0].scale, stem).toBe(0.5);
    }
    // a file of another program that happens to lie there is not PEFT's
    const other = await write(lora('lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q'));
    writeFileSync(path.join(path.dirname(other), 'adapter_config.json'), config({}));
    expect([...(await readAdapter(other)).modules.values()][0].scale).toBe(1);
  });

  it.each([
    [{ init_lora_weights: 'pissa' }, /init_lora_weights: "pissa" changes the base's own weights/],
    [{ init_lora_weights: 'pissa_niter_16' }, /"pissa_niter_16"/],
    [{ init_lora_weights: 'olora' }, /"olora"/],
    [{ init_lora_weights: 'corda' }, /"corda"/],
    [{ init_lora_weights: 'loftq' }, /"loftq"/],
    [{ alora_invocation_tokens: [1, 2] }, /alora_invocation_tokens: is not supported/],
    [{ trainable_token_indices: [3] }, /trainable_token_indices/],
    [{ use_qalora: true }, /use_qalora/],
  ])('refuses %j, whose ΔW is another', async (extra, message) => {
    const file = await write(peft, {}, 'adapter_model');
    writeFileSync(path.join(path.dirname(file), 'adapter_config.json'), config(extra));
    await expect(readAdapter(file)).rejects.toThrow(message);
    await expect(readAdapter(path.dirname(file))).rejects.toThrow(message);
  });

  it.each([true, false, null, 'gaussian', 'eva', 'orthogonal'])('takes init_lora_weights %j', async (start) => {
    const file = await write(peft, {}, 'adapter_model');
    writeFileSync(path.join(path.dirname(file), 'adapter_config.json'), config({ init_lora_weights: start }));
    expect((await readAdapter(file)).modules.size).toBe(1);
  });
});

describe('names of other programs', () => {
  const TEXT = 'text_encoder.text_model.encoder.layers.0.self_attn.q_proj';
  const BLOCK = 'unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1';

  it.each([
    ['text_encoder.encoder.layers.0.self_attn.q_proj', TEXT],
    ['lora_te_encoder_layers_0_self_attn_q_proj', TEXT],
    ['base_model.model.encoder.layers.0.self_attn.q_proj', TEXT],
    ['text_encoder.base_model.model.encoder.layers.0.self_attn.q_proj', TEXT],
    ['cond_stage_model.transformer.text_model.encoder.layers.0.self_attn.q_proj', TEXT],
    ['text_encoders.clip_l.transformer.text_model.encoder.layers.0.self_attn.q_proj', TEXT],
    ['lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q', `${BLOCK}.to_q`],
    ['diffusion_model.input_blocks.4.1.transformer_blocks.0.attn1.to_q', `${BLOCK}.to_q`],
    ['model.diffusion_model.input_blocks.4.1.transformer_blocks.0.attn1.to_q', `${BLOCK}.to_q`],
    ['diffusion_model.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q', `${BLOCK}.to_q`],
    ['lora_unet_middle_block_1_proj_in', 'unet.mid_block.attentions.0.proj_in'],
    ['lora_unet_time_embed_0', 'unet.time_embedding.linear_1'],
    ['lora_unet_output_blocks_3_0_skip_connection', 'unet.up_blocks.1.resnets.0.conv_shortcut'],
    ['lora_unet_input_blocks_1_0_emb_layers_1', 'unet.down_blocks.0.resnets.0.time_emb_proj'],
    ['unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_out', `${BLOCK}.to_out.0`],
  ])('%s', async (name, expected) => {
    expect(await modulesOf(lora(name))).toEqual([expected]);
  });

  it.each([
    ['unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.processor.to_q_lora', `${BLOCK}.to_q`],
    ['unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q_lora', `${BLOCK}.to_q`],
    ['down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_out_lora', `${BLOCK}.to_out.0`],
    ['text_encoder.text_model.encoder.layers.0.self_attn.to_q_lora', TEXT],
    ['text_encoder.text_model.encoder.layers.0.self_attn.to_out_lora', TEXT.replace('q_proj', 'out_proj')],
  ])('%s, of the first diffusers', async (name, expected) => {
    expect(await modulesOf({ [`${name}.down.weight`]: [2, 3], [`${name}.up.weight`]: [4, 2] })).toEqual([expected]);
  });

  it('the original names of a base with other levels than SD 1.5’s, all of its linears', async () => {
    const folder = path.join(scratch, 'tiny');
    await writeTinyBase(folder);
    const base = await openBase(folder);
    const names = ldmNames(base.configs);
    const linears = [...base.parts.unet.weights].filter(
      ([name, { shape }]) => name.endsWith('.weight') && shape.length === 2,
    );
    expect(linears.length).toBeGreaterThan(10);
    for (const flat of [true, false]) {
      const tensors = Object.assign(
        {},
        ...linears.map(([name, { shape }]) => {
          const original = names
            .toLdm('unet', name)!
            .replace('model.diffusion_model.', '')
            .replace(/\.weight$/, '');
          const prefix = flat ? `lora_unet_${original.replaceAll('.', '_')}` : `diffusion_model.${original}`;
          return lora(prefix, shape[1], shape[0]);
        }),
      );
      const file = await write(tensors);
      const read = checkAdapter(file, await readAdapter(file, base.configs), base.parts);
      expect([...read.modules.keys()].sort()).toEqual(
        linears.map(([n]) => `unet.${n.replace(/\.weight$/, '')}`).sort(),
      );
    }
  });

  it('linears stored with four axes and 1×1 convolutions stored with two', async () => {
    const folder = path.join(scratch, 'tiny-kernels');
    await writeTinyBase(folder);
    const base = await openBase(folder);
    const [linear] = [...base.parts.unet.weights].find(([n, w]) => n.endsWith('to_q.weight') && w.shape.length === 2)!;
    const [conv] = [...base.parts.unet.weights].find(
      ([n, w]) => n.endsWith('conv_shortcut.weight') && w.shape[2] === 1,
    )!;
    const shapeOf = (name: string) => base.parts.unet.get(name).shape;
    const name = (weight: string) => `unet.${weight.replace(/\.weight$/, '')}`;
    const [lo, li] = shapeOf(linear);
    const [co, ci] = shapeOf(conv);
    const file = await write({
      [`${name(linear)}.lora_down.weight`]: [2, li, 1, 1],
      [`${name(linear)}.lora_up.weight`]: [lo, 2, 1, 1],
      [`${name(conv)}.lora_down.weight`]: [2, ci],
      [`${name(conv)}.lora_up.weight`]: [co, 2],
    });
    const { modules } = checkAdapter(file, await readAdapter(file), base.parts);
    expect(modules.get(name(linear))!.kernel).toBeUndefined();
    expect(modules.get(name(conv))!.kernel).toEqual([1, 1]);
  });

  it('leaves embeddings in the same file out and says so', async () => {
    const name = 'lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q';
    const read = await readAdapter(await write({ ...lora(name), 'bundle_emb.mark.string_to_param.*': [2, 48] }));
    expect(read.modules.size).toBe(1);
    expect(read.notes).toEqual([expect.stringMatching(/left out: "mark".*embedding/)]);
  });
});

describe('what is no LoRA is named for what it is', () => {
  const q = 'lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q';
  it.each([
    ['DoRA', { ...lora(q), [`${q}.dora_scale`]: [4, 1] }],
    ['LoHa', { [`${q}.hada_w1_a`]: [4, 2], [`${q}.hada_t1`]: [2, 2, 3, 3] }],
    ['LoKr', { [`${q}.lokr_w1`]: [2, 2], [`${q}.lokr_w2_a`]: [2, 2] }],
    ['Tucker', { ...lora(q), [`${q}.lora_mid.weight`]: [2, 2, 3, 3] }],
    ['OFT', { [`${q}.oft_blocks`]: [2, 2, 2] }],
    ['GLoRA', { [`${q}.a1.weight`]: [2, 2], [`${q}.b1.weight`]: [2, 2] }],
    ['IA', { [`${q}.weight`]: [4], [`${q}.on_input`]: [] }],
    ['whole changes', { [`${q}.diff`]: [4, 4] }],
    ['embedding', { emb_params: [1, 8] }],
    ['embedding', { 'bundle_emb.mark.string_to_param.*': [1, 8] }],
    ['Stable Diffusion XL', { ...lora(q), ...lora('lora_te2_text_model_encoder_layers_0_mlp_fc1') }],
    ['Stable Diffusion XL', lora('unet.down_blocks.1.attentions.0.transformer_blocks.1.attn1.to_q')],
    ['Flux', lora('lora_unet_double_blocks_0_img_attn_proj')],
    ['Stable Diffusion 3', lora('transformer.transformer_blocks.0.attn.to_q')],
    ['whole model', { 'model.diffusion_model.input_blocks.0.0.weight': [4, 4, 3, 3] }],
    ['whole network', { 'down_blocks.0.resnets.0.conv1.weight': [4, 4, 3, 3] }],
  ] as const)('%s', async (what, tensors) => {
    const file = await write(tensors);
    await expect(readAdapter(file)).rejects.toThrow(new RegExp(`(this|these) .*${what}`));
    expect(looksLikeAdapter(Object.keys(tensors)), 'inspect takes it for an adapter').toBe(
      !what.startsWith('whole m') && !what.startsWith('whole n') && !('bundle_emb.mark.string_to_param.*' in tensors),
    );
  });
});

/** Reading adapters of other programs: namings, PEFT's patterns, and files that must be refused. */
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import fc from 'fast-check';
import { afterAll, describe, expect, it } from 'vitest';
import { readAdapter } from '../../../models/io/adapter-file.ts';
import { suffixMatcher } from '../../../models/io/adapter-peft.ts';
import { writeAdapter } from '../../../models/io/adapter-write.ts';
import { type TensorOut, writeSafetensors } from '../../../models/io/safetensors-write.ts';
import { adapter, MODULES } from '../../support/adapters.ts';
import { cpuSeconds } from '../../support/cpu-seconds.ts';

const scratch = mkdtempSync(path.join(tmpdir(), 'selora-adapter-'));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));
const golden = path.join(import.meta.dirname, '../../golden/io');

describe('reading', () => {
  const write = async (tensors: Record<string, readonly number[]>, metadata: Record<string, string> = {}) => {
    const file = path.join(mkdtempSync(path.join(scratch, 'read-')), 'adapter.safetensors');
    const out = Object.entries(tensors).map(([name, shape]): [string, TensorOut] => {
      const size = shape.reduce((a, b) => a * b, 1);
      return [name, { dtype: 'F32', shape, data: Float32Array.from({ length: size }, (_, i) => 1 + i) }];
    });
    await writeSafetensors(file, new Map(out), new Map(Object.entries(metadata)));
    return file;
  };
  const Q = 'unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q';

  it('takes both namings of diffusers in one file, and the oldest one', async () => {
    const read = await readAdapter(
      await write({
        [`${Q}.lora.down.weight`]: [2, 3],
        [`${Q}.lora_B.default.weight`]: [4, 2],
        'unet.mid_block.attentions.0.transformer_blocks.0.attn1.processor.to_out_lora.down.weight': [1, 3],
        'unet.mid_block.attentions.0.transformer_blocks.0.attn1.processor.to_out_lora.up.weight': [3, 1],
        'text_encoder.text_model.encoder.layers.0.mlp.fc1.lora_linear_layer.down.weight': [1, 2],
        'text_encoder.text_model.encoder.layers.0.mlp.fc1.lora_linear_layer.up.weight': [2, 1],
      }),
    );
    expect(Object.fromEntries([...read.modules].map(([name, m]) => [name, [m.dIn, m.rank, m.dOut, m.scale]]))).toEqual({
      [Q]: [3, 2, 4, 1],
      'unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0': [3, 1, 3, 1],
      'text_encoder.text_model.encoder.layers.0.mlp.fc1': [2, 1, 2, 1],
    });
  });
  it('divides alpha by rank', async () => {
    const flat = 'lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q';
    const shapes = { [`${flat}.lora_down.weight`]: [4, 3], [`${flat}.lora_up.weight`]: [2, 4] };
    const file = await write({ ...shapes, [`${flat}.alpha`]: [] }); // the writer's first value is 1
    expect((await readAdapter(file)).modules.get(Q)!.scale).toBe(1 / 4);
  });

  const half = { [`${Q}.lora_A.weight`]: [2, 3] };
  const whole = { ...half, [`${Q}.lora_B.weight`]: [4, 2] };
  const refused: readonly (readonly [string, Record<string, readonly number[]>, Record<string, string>, RegExp])[] = [
    ['half an adapter', half, {}, /to_q: has ".*lora_A.weight" but no up half/],
    ['only an alpha', { [`${Q}.alpha`]: [] }, {}, /to_q: has an alpha but no adapter/],
    ['ranks that differ', { ...half, [`${Q}.lora_B.weight`]: [4, 3] }, {}, /down \[2,3\] and up \[4,3\] do not fit/],
    ['rank 0', { [`${Q}.lora_A.weight`]: [0, 3], [`${Q}.lora_B.weight`]: [4, 0] }, {}, /do not fit/],
    ['two halves of one name', { ...whole, [`${Q}.lora.down.weight`]: [2, 3] }, {}, /is the second down of/],
    ['DoRA', { ...whole, [`${Q}.lora_magnitude_vector.weight`]: [4] }, {}, /lora_magnitude_vector.*: this is a DoRA/],
    ['LoHa', { 'lora_unet_mid_block.hada_w1_a': [1, 1] }, {}, /hada_w1_a": this is a LoHa/],
    [
      'SDXL’s names',
      { 'lora_unet_input_blocks_4_1_transformer_blocks_1_ff_net_2.lora_down.weight': [1, 1] },
      {},
      /Stable Diffusion XL/,
    ],
    ['a second text encoder', { 'lora_te2_text_model_encoder.lora_down.weight': [1, 1] }, {}, /second text encoder/],
    ['blocks that are not there', { 'lora_unet_input_blocks_99_1_proj_in.alpha': [] }, {}, /does not name a module/],
    ['alpha of two numbers', { ...whole, [`${Q}.alpha`]: [2] }, {}, /alpha": has shape \[2\], expected one number/],
    ['metadata that are no JSON', whole, { lora_adapter_metadata: '{' }, /lora_adapter_metadata: not valid JSON/],
    [
      'metadata of another rank',
      whole,
      { lora_adapter_metadata: '{"unet.r":3,"unet.lora_alpha":3}' },
      /has rank 2, its configuration says 3/,
    ],
    ['metadata without r', whole, { lora_adapter_metadata: '{"unet.lora_alpha":3}' }, /lora_adapter_metadata.unet.r: /],
    [
      'DoRA in metadata',
      whole,
      { lora_adapter_metadata: '{"unet.r":2,"unet.lora_alpha":3,"unet.use_dora":true}' },
      /use_dora: is not supported/,
    ],
    [
      'a pattern with a group',
      whole,
      { lora_adapter_metadata: '{"unet.r":2,"unet.lora_alpha":3,"unet.rank_pattern":{"(a+)+$":2}}' },
      /"\(a\+\)\+\$": this pattern is not supported/,
    ],
  ];
  it.each(refused)('refuses %s', async (_what, tensors, metadata, message) => {
    const file = await write(tensors, metadata);
    await expect(readAdapter(file)).rejects.toThrow(message);
    await expect(readAdapter(file)).rejects.toThrow(/^\S+adapter\.safetensors: .*$/);
  });
  it('refuses folders without an adapter, pickles, NaN', async () => {
    await expect(readAdapter(mkdtempSync(path.join(scratch, 'empty-')))).rejects.toThrow(/is not an adapter/);
    writeFileSync(path.join(scratch, 'a.bin'), 'x');
    await expect(readAdapter(path.join(scratch, 'a.bin'))).rejects.toThrow(/never opened/);
    const file = path.join(scratch, 'nan.safetensors');
    const bad = adapter(1);
    bad.modules.get(MODULES[0])!.B[0] = NaN;
    await writeAdapter(file, bad);
    await expect(readAdapter(file)).rejects.toThrow(/time_embedding.linear_1: holds a value that is not finite/);
  });
  it('refuses a damaged PEFT configuration', async () => {
    const folder = path.join(scratch, 'peft-bad');
    cpSync(path.join(golden, 'interchange/peft-unet'), folder, { recursive: true });
    const config = path.join(folder, 'adapter_config.json');
    const text = readFileSync(config, 'utf8');
    for (const [from, to, message] of [
      ['"r": 2', '"r": 0', /adapter_config.json: r: /],
      ['"peft_type": "LORA"', '"peft_type": "LOHA"', /peft_type: only "LORA"/],
      ['"bias": "none"', '"bias": "all"', /bias: only "none"/],
      ['"fan_in_fan_out": false', '"fan_in_fan_out": true', /fan_in_fan_out: is not supported/],
      ['"attn2.to_k": 3', '"attn2.to_k": "3"', /_pattern.attn2.to_k/],
      ['{', '{"r":1,', /duplicate key "r"/],
    ] as const) {
      writeFileSync(config, text.replace(from, to));
      await expect(readAdapter(folder), to).rejects.toThrow(message);
    }
  });
});

describe('PEFT’s patterns in linear time', () => {
  const piece = fc.constantFrom('a', 'b', '\\.', '.', '.*', 'a+', 'b?', '\\d', '\\d*', '[ab]', '[a-c]*', '_', '1');
  it('agree with regular expressions', () => {
    const pattern = fc
      .tuple(fc.boolean(), fc.array(piece, { minLength: 1, maxLength: 6 }))
      .map(([a, p]) => (a ? '^' : '') + p.join(''));
    const text = fc.string({ unit: fc.constantFrom('a', 'b', 'c', '.', '1', '_'), maxLength: 12 });
    fc.assert(
      fc.property(pattern, text, (key, modulePath) => {
        expect(suffixMatcher(key, 'f')(modulePath)).toBe(new RegExp(`^(?:.*\\.)?(?:${key})$`).test(modulePath));
      }),
      { numRuns: 3000 },
    );
  });
  it('do not run away', async () => {
    const [matched, seconds] = await cpuSeconds(() => suffixMatcher(`${'.*'.repeat(100)}x`, 'f')('a.'.repeat(1000)));
    expect(matched).toBe(false);
    expect(seconds).toBeLessThan(20); // what runs away has no end
  });
});

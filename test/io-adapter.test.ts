/** Adapters in all forms: against the reference's ΔW, round trips, PEFT's patterns, and files that must be refused. */
import { cpSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import fc from 'fast-check';
import { afterAll, describe, expect, it } from 'vitest';
import { checkAdapter } from '../models/io/adapter-check.ts';
import { type AdapterFile, type AdapterModule, deltaWeight, readAdapter } from '../models/io/adapter-file.ts';
import { suffixMatcher } from '../models/io/adapter-peft.ts';
import { type RunFacts, runOf, withRun } from '../models/io/adapter-run.ts';
import { type AdapterForm, writeAdapter } from '../models/io/adapter-write.ts';
import { openBase } from '../models/io/base.ts';
import { openSafetensors } from '../models/io/safetensors.ts';
import { type TensorOut, writeSafetensors } from '../models/io/safetensors-write.ts';
import { verifyInterchange } from '../train/verify/interchange.ts';
import { writeTinyBase } from './tiny-base.ts';

const scratch = mkdtempSync(path.join(tmpdir(), 'selora-adapter-'));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));
const golden = path.join(import.meta.dirname, 'golden/io');
const full = process.env.SELORA_GOLDEN2 ?? path.resolve(import.meta.dirname, '../../shared/golden2');
const model = path.join(
  process.env.SELORA_GOLDEN ?? path.resolve(import.meta.dirname, '../../shared/golden'),
  'tiny-sd',
);

describe('what PEFT, diffusers and kohya wrote', () => {
  const folders = [golden, ...(existsSync(full) ? [full] : [])];
  it.each(folders)('gives the reference’s ΔW (%s)', { timeout: 60_000 }, async (folder) => {
    const found: string[] = [];
    for await (const one of verifyInterchange(folder, existsSync(model) ? model : undefined)) {
      found.push(one.case);
      expect(one.error, one.case).toBeLessThanOrEqual(one.tolerance);
    }
    expect(found.length).toBeGreaterThanOrEqual(8);
  });
});

const module = (rank: number, dIn: number, dOut: number, scale: number, seed: number): AdapterModule => ({
  A: Float32Array.from({ length: dIn * rank }, (_, i) => Math.sin(seed + 3 * i)),
  B: Float32Array.from({ length: rank * dOut }, (_, i) => Math.cos(seed + 5 * i)),
  rank,
  dIn,
  dOut,
  scale,
});

const MODULES = [
  'unet.time_embedding.linear_1',
  'unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q',
  'unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_out.0',
  'unet.mid_block.attentions.0.transformer_blocks.0.ff.net.0.proj',
  'unet.up_blocks.3.attentions.1.transformer_blocks.0.ff.net.2',
  'text_encoder.text_model.encoder.layers.10.self_attn.v_proj',
  'text_encoder.text_model.encoder.layers.2.mlp.fc1',
];

const adapter = (scale: number, names = MODULES): AdapterFile => ({
  modules: new Map(names.map((name, i) => [name, module(1 + (i % 4), 5 + i, 3 + 2 * i, scale, i)])),
  metadata: new Map([['selora', '{"lambda":1.1,"note":"ünï"}']]),
});

/** Largest difference of ΔW, relative to Σ|terms|, in units of float32's rounding. */
function distance(a: AdapterFile, b: AdapterFile): number {
  expect(new Set(b.modules.keys())).toEqual(new Set(a.modules.keys()));
  let worst = 0;
  for (const [name, one] of a.modules) {
    const other = b.modules.get(name)!;
    const bound = deltaWeight({ ...one, A: one.A.map(Math.abs), B: one.B.map(Math.abs), scale: Math.abs(one.scale) });
    const [x, y] = [deltaWeight(one), deltaWeight(other)];
    for (const [i, value] of x.entries())
      worst = Math.max(worst, Math.abs(value - y[i]) / (bound[i] * 2 ** -24 + 1e-300));
  }
  return worst;
}

describe('writing', () => {
  it.each(['diffusers', 'kohya', 'peft'] satisfies AdapterForm[])(
    '%s: the same ΔW, then the same bits',
    async (form) => {
      const extension = form === 'peft' ? '' : '.safetensors';
      for (const scale of [1, 8, 0.3]) {
        const first = path.join(scratch, `${form}-${scale}-a${extension}`);
        const written = adapter(scale);
        await writeAdapter(first, written, form);
        const read = await readAdapter(first);
        expect(distance(written, read)).toBeLessThanOrEqual(1); // one rounding of scale·B, none for powers of two
        if (scale !== 0.3) expect(distance(written, read)).toBe(0);
        expect(read.metadata.get('selora')).toBe('{"lambda":1.1,"note":"ünï"}');
        for (const [name, { A, B, scale: one }] of read.modules) {
          expect(one).toBe(1);
          expect(A).toEqual(written.modules.get(name)!.A);
          expect(B).toEqual(written.modules.get(name)!.B.map((b) => scale * b));
        }
        const second = path.join(scratch, `${form}-${scale}-b${extension}`);
        await writeAdapter(second, read, form);
        const files =
          form === 'peft' ? ['unet', 'text_encoder'].map((part) => `${part}/adapter_model.safetensors`) : [''];
        for (const file of files) {
          expect(readFileSync(path.join(second, file))).toEqual(readFileSync(path.join(first, file)));
        }
      }
    },
  );

  it('uses the names that every loader reads right', async () => {
    const names = async (form: AdapterForm) => {
      const file = path.join(scratch, `names-${form}.safetensors`);
      await writeAdapter(file, adapter(2, MODULES.slice(1, 3)), form);
      const opened = await openSafetensors(file);
      return { keys: [...opened.tensors.keys()].sort(), metadata: opened.metadata };
    };
    const prefix = 'down_blocks.0.attentions.0.transformer_blocks.0.attn1';
    expect(await names('diffusers')).toEqual({
      keys: ['to_out.0.lora_A', 'to_out.0.lora_B', 'to_q.lora_A', 'to_q.lora_B'].map(
        (k) => `unet.${prefix}.${k}.weight`,
      ),
      metadata: new Map([
        ['format', 'pt'],
        ['selora', '{"lambda":1.1,"note":"ünï"}'],
      ]),
    });
    const flat = `lora_unet_${prefix.replaceAll('.', '_')}`;
    expect((await names('kohya')).keys).toEqual(
      ['to_out_0.lora_down', 'to_out_0.lora_up', 'to_q.lora_down', 'to_q.lora_up'].map((k) => `${flat}_${k}.weight`),
    );
  });

  it('stores PyTorch’s transposes', async () => {
    const file = path.join(scratch, 'transposed.safetensors');
    const one = { A: Float32Array.of(1, 2, 3, 4, 5, 6), B: Float32Array.of(7, 8), rank: 2, dIn: 3, dOut: 1, scale: 1 };
    await writeAdapter(file, { modules: new Map([['unet.conv.x', one]]), metadata: new Map() });
    const opened = await openSafetensors(file);
    expect(opened.tensors.get('unet.conv.x.lora_A.weight')!.shape).toEqual([2, 3]);
    expect(await opened.float32('unet.conv.x.lora_A.weight')).toEqual(Float32Array.of(1, 3, 5, 2, 4, 6));
    expect(await opened.float32('unet.conv.x.lora_B.weight')).toEqual(Float32Array.of(7, 8));
    expect(deltaWeight(one)).toEqual(Float64Array.of(1 * 7 + 2 * 8, 3 * 7 + 4 * 8, 5 * 7 + 6 * 8));
  });

  it('writes a PEFT folder whose patterns give every module its rank and scale 1', async () => {
    const folder = path.join(scratch, 'peft-one');
    const unetOnly = adapter(0.5, MODULES.slice(0, 5));
    await writeAdapter(folder, unetOnly, 'peft');
    const config = JSON.parse(readFileSync(path.join(folder, 'adapter_config.json'), 'utf8'));
    for (const [name, { rank }] of unetOnly.modules) {
      // PEFT's own rule, by a real regular expression.
      const look = (table: Record<string, number>, otherwise: number) => {
        const key = Object.keys(table).find((k) => new RegExp(`^(.*\\.)?(${k})$`).test(name.slice(5)));
        return key === undefined ? otherwise : table[key];
      };
      expect(look(config.rank_pattern, config.r)).toBe(rank);
      expect(look(config.alpha_pattern, config.lora_alpha)).toBe(rank);
    }
    await expect(writeAdapter(folder, unetOnly, 'peft')).rejects.toThrow(/peft-one: exists already and is not empty/);
  });
});

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
    [
      'DoRA',
      { ...whole, [`${Q}.lora_magnitude_vector.weight`]: [4] },
      {},
      /lora_magnitude_vector.* is no part of a LoRA/,
    ],
    [
      'LoHa',
      { 'lora_unet_mid_block.hada_w1_a': [1, 1] },
      {},
      /hada_w1_a" is no part of a LoRA|hada_w1_a": is no part of a LoRA/,
    ],
    ['SDXL’s names', { 'lora_unet_input_blocks_4_1_proj_in.lora_down.weight': [1, 1] }, {}, /does not name a module/],
    ['a second text encoder', { 'lora_te2_text_model_encoder.lora_down.weight': [1, 1] }, {}, /does not name a module/],
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

describe('run facts', () => {
  const run: RunFacts = {
    format: 'selora/1',
    method: 'selora',
    lambda: 1.1,
    testEvery: 40,
    scale: 1,
    initA: 0,
    steps: 1200,
    baseHash: 'a'.repeat(64),
    rankHistory: [{ step: 40, module: MODULES[1], rank: 2, ratio: 1.97 }],
    criterion: 'fi-ratio',
  };
  it.each(['diffusers', 'kohya', 'peft'] satisfies AdapterForm[])(
    'travel in the header of the %s form',
    async (form) => {
      const target = path.join(scratch, `run-${form}`);
      await writeAdapter(target, withRun(adapter(1, MODULES.slice(0, 3)), run), form);
      expect(runOf(await readAdapter(target), target)).toEqual(run);
    },
  );
  it('are checked, and absent in other programs’ files', () => {
    const other = { modules: new Map(), metadata: new Map([['format', 'pt']]) };
    expect(runOf(other, 'f')).toBeUndefined();
    const wrong = withRun(other, { ...run, baseHash: 'x' });
    expect(() => runOf(wrong, 'f')).toThrow(/^f: __metadata__.selora.baseHash: /);
    const broken = { ...other, metadata: new Map([['selora', '[']]) };
    expect(() => runOf(broken, 'f')).toThrow(/^f: __metadata__.selora: not valid JSON/);
  });
});

describe('an adapter and its base', () => {
  it('must have the same modules and sizes', async () => {
    const folder = path.join(scratch, 'base');
    await writeTinyBase(folder);
    const { parts } = await openBase(folder);
    const Q = 'unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q';
    const fits = (modules: Record<string, AdapterModule>) => () =>
      checkAdapter('a.safetensors', { modules: new Map(Object.entries(modules)), metadata: new Map() }, parts);
    const conv = { ...module(1, 4 * 9, 4, 1, 0), kernel: [3, 3] as const };
    fits({
      [Q]: module(2, 8, 8, 1, 0),
      'unet.conv_in': conv,
      'text_encoder.text_model.encoder.layers.0.mlp.fc1': module(1, 8, 16, 1, 0),
    })();
    expect(fits({ [Q]: module(2, 8, 9, 1, 0) })).toThrow(
      /^a.safetensors: modules: 1 of another size: unet.*to_q is 8 → 9, the base has \[8,8\]$/,
    );
    expect(fits({ 'unet.conv_in': { ...conv, kernel: [9, 1] } })).toThrow(/another size/);
    expect(fits({ 'unet.conv_in': module(1, 36, 4, 1, 0) })).toThrow(/another size/);
    expect(fits({ [`${Q}x`]: module(2, 8, 8, 1, 0) })).toThrow(/1 not in the base model: unet.*to_qx$/);
    expect(fits({})).toThrow(/adapts nothing/);
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
  it('do not run away', () => {
    const before = performance.now();
    expect(suffixMatcher(`${'.*'.repeat(200)}x`, 'f')('a.'.repeat(2000))).toBe(false);
    expect(performance.now() - before).toBeLessThan(4000);
  });
});

/** Base models: what openBase takes, what it refuses, what writeBase leaves. */
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { gunzipSync } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openBase } from '../models/io/base.ts';
import { filesOf, writeBase } from '../models/io/base-write.ts';
import { floatToHalf, halfToFloat } from '../models/io/dtypes.ts';
import { openSafetensors } from '../models/io/safetensors.ts';
import { type TensorOut, writeSafetensors } from '../models/io/safetensors-write.ts';
import { checkWeights, compareWeights, copyWeights } from '../models/io/weights.ts';
import { ldmNames, PARTS, type Part } from '../models/names.ts';
import * as sd15 from '../models/sd15.ts';
import { sizeOf, TINY_CONFIGS, TINY_SPECS, TINY_TOKENIZER, tinyWeights, valueAt, writeTinyBase } from './tiny-base.ts';

const scratch = mkdtempSync(path.join(tmpdir(), 'selora-base-'));
const good = path.join(scratch, 'good');
beforeAll(() => writeTinyBase(good));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

/** A copy of the good model to be damaged. */
function copy(): string {
  const folder = path.join(mkdtempSync(path.join(scratch, 'copy-')), 'model');
  cpSync(good, folder, { recursive: true });
  return folder;
}

const UNET = 'unet/diffusion_pytorch_model.safetensors';
const VAE = 'vae/diffusion_pytorch_model.safetensors';
const TEXT = 'text_encoder/model.safetensors';

/** Every value of every part is the one that was written. */
async function expectTiny(location: string, options = {}): Promise<void> {
  const base = await openBase(location, options);
  for (const part of PARTS) {
    checkWeights(base.parts[part], TINY_SPECS[part]);
    for (const [t, [name, shape]] of [...TINY_SPECS[part]].entries()) {
      const values = await base.parts[part].get(name).read();
      expect(values).toHaveLength(sizeOf(shape));
      for (const [i, value] of values.entries())
        if (value !== valueAt(t, i)) throw new Error(`${part} ${name} ${i}: ${value}`);
    }
  }
}

/** Rewrites a weight file with its tensors changed. */
async function rewrite(
  file: string,
  change: (name: string, tensor: TensorOut) => readonly (readonly [string, TensorOut])[],
) {
  const opened = await openSafetensors(file);
  const tensors: [string, TensorOut][] = [];
  for (const [name, { dtype, shape }] of opened.tensors) {
    tensors.push([name, { dtype, shape, data: await opened.bytes(name) }]);
  }
  await writeSafetensors(file, new Map(tensors.flatMap(([name, tensor]) => change(name, tensor))));
}

describe('openBase takes', () => {
  it('what writeBase wrote: configurations, tokenizer and every value', async () => {
    await expectTiny(good);
    const base = await openBase(good);
    expect(base.configs.unet).toMatchObject({ block_out_channels: [4, 8], cross_attention_dim: 8, norm_eps: 1e-5 });
    expect(base.configs.scheduler).toMatchObject({ prediction_type: 'epsilon', beta_start: 0.00085 });
    expect(base.tokenizer!.tokenizer.encode('the').length).toBe(3);
    expect(readdirSync(scratch).filter((name) => name.includes('.tmp-'))).toEqual([]);
  });

  it('half floats under the fp16 variant’s name, preferring full precision where both are', async () => {
    const folder = copy();
    await writeSafetensors(
      path.join(folder, 'unet/diffusion_pytorch_model.fp16.safetensors'),
      tinyWeights('unet', 'F16'),
    );
    expect((await openBase(folder)).parts.unet.get('conv_in.weight').dtype).toBe('F32');
    unlinkSync(path.join(folder, UNET));
    expect((await openBase(folder)).parts.unet.get('conv_in.weight').dtype).toBe('F16');
    await expectTiny(folder);
  });

  it('shards with an index', async () => {
    const folder = copy();
    unlinkSync(path.join(folder, UNET));
    await shard(folder);
    await expectTiny(folder);
  });

  it('the VAE attention’s old names, also as 1×1 convolutions, and position_ids', async () => {
    const old = { to_q: 'query', to_k: 'key', to_v: 'value', 'to_out.0': 'proj_attn' };
    for (const kernel of [[], [1, 1]]) {
      const folder = copy();
      let renamed = 0;
      await rewrite(path.join(folder, VAE), (name, tensor) => {
        const found = Object.entries(old).find(([now]) => name.includes(`mid_block.attentions.0.${now}.`));
        if (found === undefined) return [[name, tensor]];
        renamed++;
        const shape = tensor.shape.length === 2 ? [...tensor.shape, ...kernel] : tensor.shape;
        return [[name.replace(`.${found[0]}.`, `.${found[1]}.`), { ...tensor, shape }]];
      });
      expect(renamed).toBe(16);
      await rewrite(path.join(folder, TEXT), (name, tensor) => [
        [name, tensor],
        ['text_model.embeddings.position_ids', positions(Int32Array.from({ length: 77 }, (_, i) => i))],
      ]);
      await expectTiny(folder);
    }
  });

  it('files behind links, as download caches lay them out', async () => {
    const folder = copy();
    const blob = path.join(folder, '..', 'blob');
    renameSync(path.join(folder, UNET), blob);
    symlinkSync('../../blob', path.join(folder, UNET));
    await expectTiny(folder);
  });

  it('a folder without model_index.json, and unknown keys', async () => {
    const folder = copy();
    unlinkSync(path.join(folder, 'model_index.json'));
    const config = {
      ...TINY_CONFIGS.unet,
      _name_or_path: '../../x',
      some_new_key: { a: [1] },
      upcast_attention: false,
    };
    writeFileSync(path.join(folder, 'unet/config.json'), `\ufeff${JSON.stringify(config)}`);
    await expectTiny(folder);
  });
});

const positions = (ids: Int32Array): TensorOut => ({ dtype: 'I64', shape: [1, ids.length], data: ids });

/** Splits the U-Net over two files. */
async function shard(folder: string, change: (map: Record<string, string>) => void = () => undefined): Promise<void> {
  const all = [...tinyWeights('unet')];
  const files = [
    'diffusion_pytorch_model-00001-of-00002.safetensors',
    'diffusion_pytorch_model-00002-of-00002.safetensors',
  ];
  const map: Record<string, string> = {};
  for (const [n, file] of files.entries()) {
    const some = all.filter((_, i) => i % 2 === n);
    await writeSafetensors(path.join(folder, 'unet', file), new Map(some));
    for (const [name] of some) map[name] = file;
  }
  change(map);
  const index = path.join(folder, 'unet/diffusion_pytorch_model.safetensors.index.json');
  writeFileSync(index, JSON.stringify({ metadata: { total_size: 1 }, weight_map: map }));
}

describe('openBase refuses', () => {
  const json = (folder: string, file: string, change: object) => {
    const target = path.join(folder, file);
    writeFileSync(target, JSON.stringify({ ...JSON.parse(readFileSync(target, 'utf8')), ...change }));
  };
  type Damage = (folder: string) => void | Promise<void>;
  const cases: readonly (readonly [string, Damage, RegExp])[] = [
    [
      'an empty folder',
      (f) => rmSync(f, { recursive: true }) ?? mkdirSync(f),
      /model: is not a model: no model_index.json, unet/,
    ],
    ['no folder', (f) => rmSync(f, { recursive: true }), /model: no such file/],
    ['no unet', (f) => rmSync(path.join(f, 'unet'), { recursive: true }), /unet\/config.json: no such file/],
    ['no weights', (f) => unlinkSync(path.join(f, TEXT)), /text_encoder: no weights: expected model.safetensors/],
    [
      'pickles only',
      (f) => renameSync(path.join(f, UNET), path.join(f, 'unet/diffusion_pytorch_model.bin')),
      /unet: no weights.*only "diffusion_pytorch_model.bin": pickled weights are never opened.*torch\.load/,
    ],
    [
      'a folder for a file',
      (f) => rmSync(path.join(f, UNET)) ?? mkdirSync(path.join(f, UNET)),
      /safetensors: is a directory/,
    ],
    ['no vocabulary', (f) => unlinkSync(path.join(f, 'tokenizer/vocab.json')), /vocab.json: no such file/],
    [
      'a merge of three',
      (f) => writeFileSync(path.join(f, 'tokenizer/merges.txt'), '#version\nt h\na b c\n'),
      /merges.txt: line 3/,
    ],
    [
      'a token twice',
      (f) => writeFileSync(path.join(f, 'tokenizer/vocab.json'), '{"a":1,"a":2}'),
      /vocab.json: a: duplicate key "a"/,
    ],
    [
      'ids beyond the table',
      (f) => json(f, 'text_encoder/config.json', { vocab_size: 50 }),
      /vocab.json: ids go up to 55/,
    ],
    [
      'long encodings',
      (f) => json(f, 'text_encoder/config.json', { max_position_embeddings: 70 }),
      /model_max_length: is 77, above/,
    ],
    [
      'another pipeline',
      (f) => json(f, 'model_index.json', { _class_name: 'StableDiffusionXLPipeline' }),
      /model_index.json: _class_name/,
    ],
    [
      'other latents',
      (f) => json(f, 'vae/config.json', { latent_channels: 8 }),
      /in_channels: is 4, but the VAE's latent_channels is 8/,
    ],
    [
      'another context',
      (f) => json(f, 'unet/config.json', { cross_attention_dim: 16 }),
      /cross_attention_dim: is 16, but .*hidden_size is 8/,
    ],
    [
      'position_ids out of order',
      (f) =>
        rewrite(path.join(f, TEXT), (name, tensor) => [
          [name, tensor],
          ['text_model.embeddings.position_ids', positions(Int32Array.of(0, 2, 1))],
        ]),
      /position_ids": value 1 is 2, expected the positions/,
    ],
    [
      'a name in two forms',
      (f) =>
        rewrite(path.join(f, VAE), (name, tensor) => [
          [name, tensor],
          ...(name.includes('encoder.mid_block.attentions.0.to_q.')
            ? [[name.replace('to_q', 'query'), tensor] as const]
            : []),
        ]),
      /is there twice, under two names/,
    ],
    [
      'a shard outside the folder',
      (f) =>
        unlinkSync(path.join(f, UNET)) ??
        shard(f, (map) => {
          map['conv_in.weight'] = '../vae/diffusion_pytorch_model.safetensors';
        }),
      /index.json: weight_map: ".*" is not the name of a .safetensors file in this folder/,
    ],
    [
      'a shard that is missing',
      (f) =>
        unlinkSync(path.join(f, UNET)) ??
        shard(f, (map) => {
          map['conv_in.weight'] = 'other.safetensors';
        }),
      /other.safetensors: no such file/,
    ],
    [
      'an index that lacks a tensor',
      (f) =>
        unlinkSync(path.join(f, UNET)) ??
        shard(f, (map) => {
          delete map['conv_in.weight'];
        }),
      /tensors: not in the index: conv_in.weight/,
    ],
    [
      'an index with a tensor too many',
      (f) =>
        unlinkSync(path.join(f, UNET)) ??
        shard(f, (map) => {
          map.extra = map['conv_in.weight'];
        }),
      /names tensors that no shard holds: extra/,
    ],
  ];
  it.each(cases)('%s', async (_what, damage, message) => {
    const folder = copy();
    await damage(folder);
    await expect(openBase(folder)).rejects.toThrow(message);
    await expect(openBase(folder)).rejects.toThrow(/^.*$/);
  });

  it.each([
    '../x.safetensors',
    '/etc/x.safetensors',
    'a/b.safetensors',
    '..\\x.safetensors',
    'x\u0000.safetensors',
    '.x.safetensors',
    'x.bin',
    '',
    'file:x.safetensors/',
    'x.safetensors/',
    `${'a'.repeat(300)}.safetensors`,
  ])('a shard called %j', async (name) => {
    const folder = copy();
    unlinkSync(path.join(folder, UNET));
    await shard(folder, (map) => {
      map['conv_in.weight'] = name;
    });
    await expect(openBase(folder)).rejects.toThrow(/weight_map/);
  });
});

describe('weights', () => {
  it('are compared with the configuration: one list of all differences', async () => {
    const folder = copy();
    await rewrite(path.join(folder, UNET), (name, tensor) => {
      if (name === 'conv_in.bias') return [];
      if (name === 'conv_out.bias') return [['conv_out.bias_', tensor]];
      return [
        [name, name.endsWith('ff.net.0.proj.weight') ? { ...tensor, shape: [...tensor.shape].reverse() } : tensor],
      ];
    });
    const { unet } = (await openBase(folder)).parts;
    const { missing, unexpected, wrongShape } = compareWeights(unet, TINY_SPECS.unet);
    expect([missing, unexpected]).toEqual([['conv_in.bias', 'conv_out.bias'], ['conv_out.bias_']]);
    expect(
      wrongShape.map(({ found, wanted }) => [found, [...wanted].reverse()]).every(([a, b]) => `${a}` === `${b}`),
    ).toBe(true);
    expect(wrongShape.length).toBeGreaterThan(2);
    expect(() => checkWeights(unet, TINY_SPECS.unet)).toThrow(
      /model.safetensors: tensors: 2 missing: conv_in.bias, conv_out.bias; \d+ of the wrong shape: .*proj.weight is \[4,32\], the configuration wants \[32,4\].*; 1 unexpected: conv_out.bias_$/,
    );
  });

  it('must be finite floating-point numbers', async () => {
    const folder = copy();
    const replaced: Record<string, TensorOut> = {
      'conv_in.bias': { dtype: 'F32', shape: [4], data: Float32Array.of(0, NaN, 0, 0) },
      'conv_out.bias': { dtype: 'F32', shape: [4], data: Float32Array.of(0, 0, 0, 1e5) },
      'time_embedding.linear_1.bias': { dtype: 'I32', shape: [16], data: new Int32Array(16) },
    };
    await rewrite(path.join(folder, UNET), (name, tensor) => [[name, replaced[name] ?? tensor]]);
    const { unet } = (await openBase(folder)).parts;
    await expect(unet.get('conv_in.bias').read()).rejects.toThrow(
      /"conv_in.bias": value 1 is NaN, weights must be finite/,
    );
    await expect(unet.get('conv_out.bias').readHalf()).rejects.toThrow(/"conv_out.bias": value 3 .*above 65504/);
    await expect(unet.get('time_embedding.linear_1.bias').read()).rejects.toThrow(/holds I32, floating-point/);
    expect(() => unet.get('nothing')).toThrow(/"nothing": is missing/);
  });

  it('have a hash that depends on every byte and on nothing else', async () => {
    const [a, b] = [copy(), copy()];
    const hash = async (folder: string) => (await openBase(folder)).hash();
    expect(await hash(a)).toMatch(/^[0-9a-f]{64}$/);
    expect(await hash(a)).toBe(await hash(b));
    const bytes = readFileSync(path.join(b, VAE));
    bytes[bytes.length - 1] ^= 1;
    writeFileSync(path.join(b, VAE), bytes);
    expect(await hash(b)).not.toBe(await hash(a));
  });
});

describe('writeBase', () => {
  it('copies an opened base bit for bit, or as half floats', async () => {
    const base = await openBase(good);
    const weights = (dtype?: 'F16') =>
      Object.fromEntries(PARTS.map((part) => [part, copyWeights(base.parts[part], dtype)])) as Record<
        Part,
        ReadonlyMap<string, TensorOut>
      >;
    const same = path.join(scratch, 'same');
    await writeBase(same, { ...filesOf(base), weights: weights() });
    for (const file of ['model_index.json', 'unet/config.json', 'tokenizer/vocab.json', UNET, VAE, TEXT]) {
      expect(readFileSync(path.join(same, file)), file).toEqual(readFileSync(path.join(good, file)));
    }
    const half = path.join(scratch, 'half');
    await writeBase(half, { ...filesOf(base), weights: weights('F16') });
    expect((await openBase(half)).parts.unet.get('conv_in.weight').dtype).toBe('F16');
    await expectTiny(half); // its values are exact as half floats
  });

  it('overwrites nothing and leaves nothing half-written', async () => {
    await expect(writeTinyBase(good)).rejects.toThrow(/good: exists already and is not empty/);
    const weights = { unet: tinyWeights('unet'), vae: tinyWeights('vae'), text_encoder: tinyWeights('text_encoder') };
    const model = { configFiles: TINY_CONFIGS, tokenizerFiles: TINY_TOKENIZER, weights };
    const folder = mkdtempSync(path.join(scratch, 'stop-'));
    const stop = new AbortController();
    const [name, tensor] = [...weights.vae][5];
    const stopping: TensorOut = {
      ...tensor,
      data: () => {
        stop.abort();
        return new Float32Array(sizeOf(tensor.shape));
      },
    };
    const aborting = new Map([...weights.vae, [name, stopping]]);
    const target = path.join(folder, 'model');
    const write = writeBase(target, { ...model, weights: { ...weights, vae: aborting } }, { signal: stop.signal });
    await expect(write).rejects.toThrow(/abort/i);
    expect(readdirSync(folder)).toEqual([]);
    await writeTinyBase(target); // the same target works afterwards
    await expectTiny(target);
  });
});

type Names = Readonly<Record<Part, Readonly<Record<string, string>>>>;
type Table = {
  readonly sd15: Names;
  readonly tiny: Names;
  readonly kohya: Readonly<Record<string, string>>;
  readonly shapes: Readonly<Record<Part, Readonly<Record<string, readonly number[]>>>>;
  readonly sd15Configs: Readonly<Record<string, unknown>>;
};
const table: Table = JSON.parse(
  gunzipSync(readFileSync(path.join(import.meta.dirname, 'golden/io/names.json.gz'))).toString(),
);

describe('single-file checkpoints', () => {
  it('know SD 1.5 as it is published', () => {
    expect(sd15.SD15_UNET).toEqual(table.sd15Configs.unet);
    expect(sd15.SD15_VAE).toEqual(table.sd15Configs.vae);
    expect(sd15.SD15_TEXT_ENCODER).toEqual(table.sd15Configs.text_encoder);
    expect(sd15.SD15_SCHEDULER).toEqual(table.sd15Configs.scheduler);
  });

  it('have SD 1.5’s names: all 1,130 tensors and their shapes', async () => {
    // A file with the names and shapes of the published one but a byte count of its own: only the header is read.
    const file = path.join(scratch, 'v1-5-like.safetensors');
    const out = new Map<string, TensorOut>();
    for (const part of PARTS) {
      for (const [name, original] of Object.entries(table.sd15[part])) {
        const shape = table.shapes[part][name];
        const kernel = part === 'vae' && name.includes('.attentions.') && shape.length === 2 ? [1, 1] : [];
        out.set(original, {
          dtype: 'U8',
          shape: [...shape, ...kernel].map((side) => Math.min(side, 3)),
          data: new Uint8Array(0),
        });
      }
    }
    out.set('alphas_cumprod', { dtype: 'F32', shape: [2], data: new Float32Array(2) });
    out.set('model_ema.decay', { dtype: 'F32', shape: [], data: new Float32Array(1) });
    const filled = new Map(
      [...out].map(
        ([name, tensor]) =>
          [name, tensor.dtype === 'U8' ? { ...tensor, data: new Uint8Array(sizeOf(tensor.shape)) } : tensor] as const,
      ),
    );
    await writeSafetensors(file, filled);
    const base = await openBase(file);
    for (const part of PARTS) {
      const wanted = Object.entries(table.shapes[part]).map(
        ([name, shape]) => [name, shape.map((side) => Math.min(side, 3))] as const,
      );
      checkWeights(base.parts[part], new Map(wanted));
    }
    expect(base.tokenizer).toBeUndefined();
  });

  it('read with the configuration of a folder, bit for bit', async () => {
    const base = await openBase(good);
    const names = ldmNames(base.configs);
    const out = new Map<string, TensorOut>();
    for (const part of PARTS) {
      for (const [name, tensor] of tinyWeights(part, 'F16')) {
        const kernel = part === 'vae' && name.includes('.attentions.') && tensor.shape.length === 2 ? [1, 1] : [];
        out.set(names.toLdm(part, name)!, { ...tensor, shape: [...tensor.shape, ...kernel] });
      }
    }
    const file = path.join(scratch, 'single.safetensors');
    await writeSafetensors(file, out);
    await expectTiny(file, { configFolder: good });
    // With SD 1.5's own configuration the shapes do not fit, and the message says where.
    const wrong = await openBase(file);
    const shapes = new Map(Object.entries(table.shapes.text_encoder));
    expect(() => checkWeights(wrong.parts.text_encoder, shapes)).toThrow(
      /single.safetensors \(text_encoder\): tensors: \d+ missing/,
    );
  });

  it('refuse what is something else', async () => {
    const write = async (names: readonly string[]) => {
      const file = path.join(mkdtempSync(path.join(scratch, 'ldm-')), 'x.safetensors');
      await writeSafetensors(
        file,
        new Map(names.map((name) => [name, { dtype: 'U8', shape: [0], data: new Uint8Array(0) }])),
      );
      return file;
    };
    await expect(openBase(await write(['conditioner.x']))).rejects.toThrow(/Stable Diffusion XL/);
    await expect(openBase(await write(['cond_stage_model.model.x']))).rejects.toThrow(/Stable Diffusion 2/);
    await expect(openBase(path.join(good, UNET))).rejects.toThrow(
      /no model.diffusion_model\.\* \(unet\).*give the model's folder/,
    );
    const pickle = path.join(scratch, 'v1-5.ckpt');
    writeFileSync(pickle, 'PK\u0003\u0004');
    await expect(openBase(pickle)).rejects.toThrow(
      /v1-5.ckpt: pickled weights are never opened; .*python -c .*torch\.load\('.*v1-5.ckpt'.*save_file/,
    );
    expect(existsSync(pickle)).toBe(true);
  });
});

describe('half-float weights', () => {
  it('are the nearest half floats', async () => {
    const weight = (await openBase(good)).parts.unet.get('conv_in.weight');
    expect(await weight.readHalf()).toEqual(floatToHalf(await weight.read()));
    expect(halfToFloat(await weight.readHalf())).toEqual(await weight.read());
  });
});

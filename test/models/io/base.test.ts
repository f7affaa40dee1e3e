/** Base models: what openBase takes, what writeBase leaves. */
import {
  cpSync,
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
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openBase } from '../../../models/io/base.ts';
import { filesOf, writeBase } from '../../../models/io/base-write.ts';
import { floatToHalf, halfToFloat } from '../../../models/io/dtypes.ts';
import { type TensorOut, writeSafetensors } from '../../../models/io/safetensors-write.ts';
import { checkWeights, compareWeights, copyWeights } from '../../../models/io/weights.ts';
import { PARTS, type Part } from '../../../models/names.ts';
import {
  sizeOf,
  TINY_CONFIGS,
  TINY_SPECS,
  TINY_TOKENIZER,
  tinyWeights,
  writeTinyBase,
} from '../../support/tiny-base.ts';
import { expectTiny, positions, rewrite, shard, TEXT, UNET, VAE } from '../../support/tiny-base-files.ts';

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

  it('position_ids that a merge has spoilt, and a projection beside the text encoder: neither is used', async () => {
    const folder = copy();
    await rewrite(path.join(folder, TEXT), (name, tensor) => [
      [name, tensor],
      ['text_model.embeddings.position_ids', positions(Int32Array.of(0, 2, 1))],
      ['text_projection.weight', { dtype: 'F32', shape: [1, 1], data: Float32Array.of(1) }],
    ]);
    await expectTiny(folder);
  });

  it('what transformers 5 writes: no level text_model, tokenizer.json alone', async () => {
    const folder = copy();
    await rewrite(path.join(folder, TEXT), (name, tensor) => [[name.replace(/^text_model\./, ''), tensor]]);
    await expectTiny(folder);
    const before = (await openBase(folder)).tokenizer!.tokenizer;
    const file = (name: string) => path.join(folder, 'tokenizer', name);
    const vocab = JSON.parse(readFileSync(file('vocab.json'), 'utf8')) as Record<string, number>;
    const lines = readFileSync(file('merges.txt'), 'utf8').trim().split('\n').slice(1);
    const end = '<|endoftext|>';
    const { [end]: id, ...rest } = vocab;
    for (const merges of [lines, lines.map((line) => line.split(' '))]) {
      const model = { type: 'BPE', end_of_word_suffix: '</w>', vocab: rest, merges };
      writeFileSync(file('tokenizer.json'), JSON.stringify({ added_tokens: [{ id, content: end }], model }));
      for (const name of ['vocab.json', 'merges.txt', 'tokenizer_config.json']) rmSync(file(name), { force: true });
      const after = (await openBase(folder)).tokenizer!.tokenizer;
      for (const text of ['a small left effusion', '', 'x '.repeat(200)])
        expect(after.encode(text)).toEqual(before.encode(text));
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

describe('half-float weights', () => {
  it('are the nearest half floats', async () => {
    const weight = (await openBase(good)).parts.unet.get('conv_in.weight');
    expect(await weight.readHalf()).toEqual(floatToHalf(await weight.read()));
    expect(halfToFloat(await weight.readHalf())).toEqual(await weight.read());
  });
});

/** Parameters to and from checkpoints, and the two models that test/models/golden.test.ts checks by number only. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { cpuBackend, entries, evaluate, read, type Tensor, tensor } from '../../core/index.ts';
import { textContext, textEncoder, textEncoderSpec } from '../../models/clip/text-encoder.ts';
import { parseConfig, textEncoderSchema, vaeSchema } from '../../models/config.ts';
import { openPart } from '../../models/io/part.ts';
import { writeSafetensors } from '../../models/io/safetensors-write.ts';
import { linearPaths, load, parameterCount, specShapes, toCheckpoint } from '../../models/spec.ts';
import { vaeDecode, vaeEncode, vaeSample, vaeSpec } from '../../models/vae/index.ts';
import { init } from '../../nn/index.ts';

const backend = cpuBackend();
const numbers = async (x: Tensor): Promise<number[]> => [...(await read(evaluate(x, backend)))];
const vae = parseConfig(
  vaeSchema,
  {
    block_out_channels: [4, 6],
    down_block_types: ['DownEncoderBlock2D', 'DownEncoderBlock2D'],
    up_block_types: ['UpDecoderBlock2D', 'UpDecoderBlock2D'],
    norm_num_groups: 2,
  },
  'vae',
);
const text = parseConfig(
  textEncoderSchema,
  {
    vocab_size: 20,
    hidden_size: 8,
    intermediate_size: 12,
    num_hidden_layers: 2,
    num_attention_heads: 2,
    max_position_embeddings: 6,
  },
  'text encoder',
);

describe('checkpoints', () => {
  let folder: string;
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'selora-parameters-'));
  });
  afterAll(() => rm(folder, { recursive: true }));
  const file = () => join(folder, 'diffusion_pytorch_model.safetensors');

  test('written and read again: the same names, shapes and bits', async () => {
    const params = init(vaeSpec(vae), 5);
    const checkpoint = toCheckpoint(params);
    for (const [name, shape] of specShapes(vaeSpec(vae))) expect(checkpoint.get(name)?.shape, name).toEqual(shape);
    expect(checkpoint.size).toBe(specShapes(vaeSpec(vae)).size);
    await writeSafetensors(file(), checkpoint);
    const { source } = await openPart(folder, 'vae');
    const again = await load(vaeSpec(vae), source);
    const before = new Map(entries<Tensor>(params));
    for (const [path, p] of entries<Tensor>(again)) {
      expect(p.shape).toEqual(before.get(path)!.shape);
      expect(await read(p)).toEqual(await read(before.get(path)!));
      expect(p.label).toBe(path);
    }
    // a kernel lies in the file as [out, in, row, column], in memory as [row, column, in, out]
    const stored = await source.get('encoder.conv_in.weight').read();
    const held = await read(again.encoder.conv_in.weight);
    expect(stored[((3 * 3 + 2) * 3 + 0) * 3 + 1]).toBe(held[((0 * 3 + 1) * 3 + 2) * 4 + 3]);
    const wide = await load(vaeSpec(vae), source, { dtype: 'f64' });
    expect(wide.quant_conv.bias.dtype).toBe('f64');
    expect([...(await read(wide.quant_conv.bias))]).toEqual([...(await read(again.quant_conv.bias))]);
  });

  test('a checkpoint of another width is refused in one line that names the first differences', async () => {
    await writeSafetensors(file(), toCheckpoint(init(vaeSpec(vae), 5)));
    const { source } = await openPart(folder, 'vae');
    const wider = vaeSpec({ ...vae, block_out_channels: [4, 8] });
    const error = await load(wider, source).catch((e: unknown) => e as Error);
    expect(error).toBeInstanceOf(Error);
    expect((error as Error).message).toContain('is [6], the configuration wants [8]');
    expect((error as Error).message).not.toContain('\n');
  });
});

describe('autoencoder', () => {
  const params = init(vaeSpec(vae), 1, { dtype: 'f64' });
  const image = tensor(
    Float64Array.from({ length: 2 * 6 * 4 * 3 }, (_, i) => Math.sin(i)),
    [2, 6, 4, 3],
    'f64',
  );

  test('halves and doubles the sides once per level but the last', () => {
    const { mean, logvar } = vaeEncode(params, vae, image);
    expect([mean.shape, logvar.shape]).toEqual([[2, 3, 2, 4], [2, 3, 2, 4]]); // biome-ignore format: one line
    expect(vaeDecode(params, vae, mean).shape).toEqual([2, 6, 4, 3]);
    expect(() => vaeEncode(params, vae, tensor(new Float64Array(16), [1, 2, 2, 4], 'f64'))).toThrow('[n, h, w, 3]');
    expect(() => vaeDecode(params, vae, image)).toThrow('latents [2, 6, 4, 3], expected [n, h, w, 4]');
  });

  test('the log-variance is kept within −30 and 20', async () => {
    const loud = {
      ...params,
      quant_conv: { ...params.quant_conv, bias: tensor([0, 0, 0, 0, 99, -99, 0, 0], [8], 'f64') },
    };
    const logvar = await numbers(vaeEncode(loud, vae, image).logvar);
    expect(logvar[0]).toBe(20);
    expect(logvar[1]).toBe(-30);
  });

  test('a sample is mean + deviation·noise', async () => {
    const [mean, logvar, noise] = [tensor([1, 2]), tensor([0, Math.log(9)]), tensor([2, -1])];
    expect((await numbers(vaeSample({ mean, logvar }, noise))).map((v) => Math.round(v * 1e6) / 1e6)).toEqual([3, -1]);
  });
});

describe('text encoder', () => {
  const params = init(textEncoderSpec(text), 2, { dtype: 'f64' });
  const encode = (...ids: number[]) => textEncoder(params, text, tensor(Int32Array.from(ids), [1, ids.length]));

  test('a token changes what follows it and nothing before it', async () => {
    const [a, b] = [
      await numbers(encode(1, 2, 3, 4, 19).lastHiddenState),
      await numbers(encode(1, 2, 7, 4, 19).lastHiddenState),
    ];
    expect(a.slice(0, 16)).toEqual(b.slice(0, 16));
    for (let row = 2; row < 5; row++) expect(a.slice(row * 8, row * 8 + 8)).not.toEqual(b.slice(row * 8, row * 8 + 8));
  });

  test('pools at the first position of the largest id', async () => {
    const { lastHiddenState, poolerOutput } = encode(1, 19, 3, 19, 19);
    expect(await numbers(poolerOutput)).toEqual((await numbers(lastHiddenState)).slice(8, 16));
  });

  test('gelu and quick_gelu are two models; too long a text is refused', async () => {
    const ids = tensor(Int32Array.of(1, 2, 19), [1, 3]);
    const other = textEncoder(params, { ...text, hidden_act: 'gelu' }, ids).lastHiddenState;
    expect(await numbers(other)).not.toEqual(await numbers(encode(1, 2, 19).lastHiddenState));
    expect(() => encode(1, 2, 3, 4, 5, 6, 7)).toThrow('at most 6');
  });

  test('the context of chunks: first start, all that lies within the chunks, last end', async () => {
    const chunks = [
      [1, 2, 3, 19],
      [1, 4, 5, 19],
      [1, 6, 7, 19],
    ];
    const other = [
      [1, 8, 9, 19],
      [1, 10, 19, 19],
      [1, 19, 19, 19],
    ];
    const ids = tensor(Int32Array.from([chunks, other].flat(2)), [2, 3, 4]);
    const context = textContext(params, text, ids);
    expect(context.shape).toEqual([2, 8, 8]);
    const alone = async (chunk: readonly number[]) => {
      const h = await numbers(encode(...chunk).lastHiddenState);
      return Array.from({ length: 4 }, (_, i) => h.slice(i * 8, i * 8 + 8));
    };
    const want: number[][] = [];
    for (const one of [chunks, other]) {
      const [a, b, c] = await Promise.all(one.map(alone));
      want.push(a![0]!, a![1]!, a![2]!, b![1]!, b![2]!, c![1]!, c![2]!, c![3]!);
    }
    const got = await numbers(context);
    for (const [i, x] of want.flat().entries()) expect(got[i]).toBeCloseTo(x, 6);
    // a text of one piece is what it always was
    const plain = tensor(Int32Array.from(chunks[0]!), [1, 4]);
    expect(await numbers(textContext(params, text, plain))).toEqual(
      await numbers(encode(...chunks[0]!).lastHiddenState),
    );
  });

  test('counts its parameters and its linears', () => {
    const spec = textEncoderSpec(text);
    const layer = 4 * (8 * 8 + 8) + 2 * 16 + (8 * 12 + 12) + (12 * 8 + 8);
    expect(parameterCount(spec)).toBe(20 * 8 + 6 * 8 + 2 * layer + 16);
    expect(linearPaths(spec)).toHaveLength(12);
    expect(linearPaths(spec)).not.toContain('text_model.embeddings.token_embedding');
  });
});

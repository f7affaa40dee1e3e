/** The U-Net: blocks against PyTorch's numbers, and properties that hold for any weights. */
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import {
  cpuBackend,
  entries,
  evaluate,
  fromPaths,
  mapTree,
  pullback,
  read,
  reshape,
  slice,
  square,
  stack,
  sum,
  type Tensor,
  tensor,
  vmap,
} from '../../core/index.ts';
import { parseConfig, type UNetConfig, unetSchema } from '../../models/config.ts';
import { readJson } from '../../models/io/json.ts';
import { linearPaths } from '../../models/spec.ts';
import { type BlockOptions, downBlock, upBlock } from '../../models/unet/blocks.ts';
import { type UNet, unet, unetSpec } from '../../models/unet/index.ts';
import { conv2d, groupNorm, init, linear, silu, timestepEmbedding, toModelLayout } from '../../nn/index.ts';
import { distance, floats, integers, toChannelsFirst, toChannelsLast } from '../../train/verify/distances.ts';
import { need, readGoldenTensors } from '../../train/verify/golden.ts';
import { rng } from '../support/gradcheck.ts';

const golden = join(import.meta.dirname, '../golden');
const backend = cpuBackend();
const numbers = async (x: Tensor): Promise<number[]> => [...(await read(evaluate(x, backend)))];
const draw = (seed: number, shape: readonly number[], dtype: 'f32' | 'f64' = 'f64'): Tensor => {
  const random = rng(seed);
  const values = Array.from({ length: shape.reduce((p, q) => p * q, 1) }, () => random() * 2 - 1);
  return tensor(values, shape, dtype);
};

/** Two levels, attention at the first, few channels. */
const small = (extra: object = {}): UNetConfig =>
  parseConfig(
    unetSchema,
    {
      block_out_channels: [8, 12],
      down_block_types: ['CrossAttnDownBlock2D', 'DownBlock2D'],
      up_block_types: ['UpBlock2D', 'CrossAttnUpBlock2D'],
      layers_per_block: 1,
      attention_head_dim: 2,
      norm_num_groups: 4,
      cross_attention_dim: 6,
      ...extra,
    },
    'small',
  );
const inputs = (n: number, h: number, w: number) => ({
  x: draw(1, [n, h, w, 4]),
  t: tensor(Int32Array.from({ length: n }, (_, i) => 990 - 300 * i)),
  context: draw(2, [n, 5, 6]),
});

describe('against PyTorch', () => {
  // The file holds weights, inputs and submodule outputs of a U-Net of widths 32, 32, 64, 64, cut to its first and last
  // resolution; outputs are f64 results stored as f32.
  const compared: [actual: Tensor, expected: { data: Float64Array }][] = [];
  const close = (...pair: (typeof compared)[number]) => void compared.push(pair);
  /** All pairs, by one evaluation of what they have in common. */
  const allClose = async () => {
    const actual = evaluate(
      compared.map(([t]) => t),
      backend,
    );
    for (const [i, [, { data }]] of compared.entries()) {
      const scale = data.reduce((m, v) => Math.max(m, Math.abs(v)), 0);
      expect(distance([...(await read(actual[i]!))], data) / scale).toBeLessThan(1e-7);
    }
    expect(compared).toHaveLength(13);
  };

  test('first and last resolution: skips, time, text, resampling, output', async () => {
    const file = await readGoldenTensors(join(golden, 'unet-blocks.safetensors'));
    const config = parseConfig(unetSchema, await readJson(join(golden, 'tiny-sd/unet/config.json')), 'config.json');
    const output = (name: string) => need(file, `output.${name}`);
    const given = (name: string) => floats(output(name), 'f64');
    const p = fromPaths<Tensor>(
      [...file]
        .filter(([name]) => name.startsWith('weight.'))
        .map(([name, { data, shape }]) => {
          const placed = toModelLayout({ data, shape });
          return [name.slice('weight.'.length), tensor(placed.data, placed.shape, 'f64')];
        }),
    ) as unknown as Omit<UNet, 'down_blocks' | 'up_blocks'> & {
      readonly down_blocks: readonly [UNet['down_blocks'][number]];
      readonly up_blocks: { readonly 3: UNet['up_blocks'][number] };
    };

    const wave = timestepEmbedding(integers(need(file, 'input.timestep')), 32, { dtype: 'f64' });
    close(wave, output('time_proj'));
    const time = linear(p.time_embedding.linear_2, silu(linear(p.time_embedding.linear_1, wave)));
    close(time, output('time_embedding'));
    const first = conv2d(p.conv_in, toChannelsLast(floats(need(file, 'input.sample'), 'f64')));
    close(toChannelsFirst(first), output('conv_in'));

    const seen = new Map<string, Tensor>();
    const options: BlockOptions = {
      heads: 4,
      groups: config.norm_num_groups,
      eps: config.norm_eps,
      tap: (path, value) => seen.set(path, value),
    };
    const conditions = { time, context: floats(need(file, 'input.encoder_hidden_states'), 'f64') };
    const down = downBlock(p.down_blocks[0], first, conditions, options);
    close(toChannelsFirst(down.x), output('down_blocks.0.downsamplers.0'));
    const inner = ['attn1', 'attn2', 'ff'].map((name) => `attentions.0.transformer_blocks.0.${name}`);
    for (const path of ['resnets.0', 'attentions.0', ...inner]) {
      const value = seen.get(path)!;
      close(value.shape.length === 4 ? toChannelsFirst(value) : value, output(`down_blocks.0.${path}`));
    }

    // the last block reads the result below it and the first two skips
    const skips = [first, down.skips[0]!];
    const before = toChannelsLast(given('up_blocks.2'));
    const last = upBlock(p.up_blocks[3], before, skips, conditions, { ...options, size: [16, 16] });
    close(toChannelsFirst(last), output('up_blocks.3'));
    const norm = { groups: config.norm_num_groups, eps: config.norm_eps };
    close(toChannelsFirst(groupNorm(p.conv_norm_out, last, norm)), output('conv_norm_out'));
    const end = conv2d(p.conv_out, groupNorm(p.conv_norm_out, last, { ...norm, silu: true }));
    close(toChannelsFirst(end), output('conv_out'));
    close(toChannelsFirst(end), output('unet'));
    await allClose();
  });
});

describe('for any weights', () => {
  const config = small();
  const params = init(unetSpec(config), 3, { dtype: 'f64' });
  const run = (p: UNet, { x, t, context }: ReturnType<typeof inputs>, options = {}) =>
    unet(p, config, x, t, context, options);

  test('every height and width comes back as it was', () => {
    for (let h = 1; h <= 9; h++)
      for (let w = 1; w <= 5; w++) expect(run(params, inputs(1, h, w)).shape).toEqual([1, h, w, 4]);
  });

  test('samples of a batch do not see each other, and vmap is the batch', async () => {
    const all = inputs(3, 6, 5);
    const whole = await numbers(run(params, all));
    const one = (i: number) => ({
      x: slice(all.x, { axis: 0, start: i, stop: i + 1 }),
      t: slice(all.t, { axis: 0, start: i, stop: i + 1 }),
      context: slice(all.context, { axis: 0, start: i, stop: i + 1 }),
    });
    const single = await numbers(stack([0, 1, 2].map((i) => run(params, one(i)))));
    expect(distance(single, whole)).toBeLessThan(1e-12);
    const lead = (x: Tensor) => reshape(x, [3, 1, ...x.shape.slice(1)]);
    const mapped = vmap((x: Tensor, t: Tensor, c: Tensor) => unet(params, config, x, t, c), [0, 0, 0])(
      lead(all.x),
      lead(all.t),
      lead(all.context),
    );
    expect(distance(await numbers(mapped), whole)).toBeLessThan(1e-12);
  });

  test('checkpointed blocks give the same value and the same gradients', async () => {
    const given = inputs(2, 5, 6);
    const leaves = entries<Tensor>(params).map(([, p]) => p);
    const gradients = async (options: object) => {
      const loss = sum(square(run(params, given, options)));
      const back = pullback([loss], [tensor(1, [], 'f64')], [given.x, given.context, ...leaves]);
      expect(back.every((g) => g !== undefined)).toBe(true);
      const all = evaluate([loss, ...back.map((g) => g!)], backend);
      return Promise.all(all.map(async (g) => [...(await read(g))]));
    };
    const [plain, checkpointed] = [await gradients({}), await gradients({ checkpointBlocks: true })];
    for (const [i, expected] of plain.entries()) {
      const scale = Math.max(1e-6, ...expected.map(Math.abs));
      expect(distance(checkpointed[i]!, expected) / scale).toBeLessThan(1e-10);
    }
  });

  test('linear projections are the same maps as 1×1 convolutions, and count as linears', async () => {
    const linearConfig = small({ use_linear_projection: true });
    const given = inputs(1, 4, 4);
    const projection = /attentions\.\d+\.proj_(in|out)\.weight$/;
    const asLinear = new Map<Tensor, Tensor>();
    for (const [path, p] of entries<Tensor>(params)) {
      if (!projection.test(path)) continue;
      const [, , from, to] = p.shape as [number, number, number, number];
      const values = await numbers(p); // [in, out] → [out, in]
      const turned = Float64Array.from(
        { length: values.length },
        (_, i) => values[(i % from) * to + Math.floor(i / from)]!,
      );
      asLinear.set(p, tensor(turned, [to, from], 'f64'));
    }
    const turned = mapTree((p: Tensor) => asLinear.get(p) ?? p, params) as UNet;
    const y = await numbers(unet(turned, linearConfig, given.x, given.t, given.context));
    expect(distance(y, await numbers(run(params, given)))).toBeLessThan(1e-12);
    const [convs, linears] = [linearPaths(unetSpec(config)), linearPaths(unetSpec(linearConfig))];
    expect(linears.length - convs.length).toBe(asLinear.size);
    expect(asLinear.size).toBe(2 * (1 + 1 + 2)); // down, middle, up
  });

  test('heads per level: a list of equal numbers is that number, another list is another model', async () => {
    const given = inputs(1, 4, 4);
    const y = async (heads: number | number[]) =>
      numbers(unet(params, small({ attention_head_dim: heads }), given.x, given.t, given.context));
    expect(await y([2, 2])).toEqual(await y(2));
    expect(distance(await y([4, 2]), await y(2))).toBeGreaterThan(1e-6);
    expect(distance(await y([2, 4]), await y(2))).toBeGreaterThan(1e-6);
  });

  test('shapes that do not fit are refused by name', () => {
    const { x, t, context } = inputs(2, 4, 4);
    expect(() => unet(params, config, draw(1, [2, 4, 4, 4, 1]), t, context)).toThrow('expected [n, h, w, 4]');
    expect(() => unet(params, config, draw(1, [2, 4, 4, 3]), t, context)).toThrow('latents [2, 4, 4, 3]');
    expect(() => unet(params, config, x, tensor([1]), context)).toThrow('timesteps [1], expected [2]');
    expect(() => unet(params, config, x, t, draw(1, [2, 5, 7]))).toThrow('context [2, 5, 7], expected [2, length, 6]');
  });
});

test('the wiring of the whole, pinned on the day the reference’s own U-Nets were matched to 4e-15', async () => {
  const config = small({
    block_out_channels: [8, 8, 12],
    down_block_types: ['CrossAttnDownBlock2D', 'DownBlock2D', 'CrossAttnDownBlock2D'],
    up_block_types: ['CrossAttnUpBlock2D', 'UpBlock2D', 'CrossAttnUpBlock2D'],
    layers_per_block: 2,
  });
  const params = init(unetSpec(config), 11, { dtype: 'f64' });
  const { x, t, context } = inputs(2, 7, 10);
  const y = await numbers(unet(params, config, x, t, context));
  const position = y.reduce((s, v, i) => s + v * Math.cos(i), 0);
  expect(y.reduce((s, v) => s + v, 0)).toBeCloseTo(-8.558345330331576, 9);
  expect(y.reduce((s, v) => s + v * v, 0)).toBeCloseTo(52.00425384301847, 9);
  expect(position).toBeCloseTo(-5.387386712710449, 9);
});

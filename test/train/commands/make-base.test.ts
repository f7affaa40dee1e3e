/** make-base: true shapes, sane numbers, files a strict reader takes. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { openBase } from '../../../models/io/base.ts';
import { floatToHalf, halfToFloat } from '../../../models/io/dtypes.ts';
import { specEntries } from '../../../models/spec.ts';
import { unetSpec } from '../../../models/unet/index.ts';
import { drawWeights, LIKE, main, randomWeights } from '../../../train/make-base.ts';
import { checkBase } from '../../../train/model/model.ts';
import { runCommand } from '../../support/commands.ts';
import { longRows } from '../../support/long.ts';

const folder = await mkdtemp(path.join(tmpdir(), 'make-base-'));
afterAll(() => rm(folder, { recursive: true }));

describe('drawWeights', () => {
  it('uniform: within the bound, mean 0 and variance bound²/3 of a uniform law, neighbours uncorrelated', () => {
    const n = 200_000;
    const x = drawWeights('a', n, { kind: 'uniform', bound: 0.5 }, 3);
    const mean = x.reduce((s, v) => s + v, 0) / n;
    const variance = x.reduce((s, v) => s + v * v, 0) / n;
    const neighbours = x.subarray(1).reduce((s, v, i) => s + v * x[i]!, 0) / n;
    expect(x.every((v) => Math.abs(v) <= 0.5)).toBe(true);
    // five standard errors
    expect(Math.abs(mean)).toBeLessThan((5 * 0.5) / Math.sqrt(3 * n));
    expect(Math.abs(variance - 0.25 / 3)).toBeLessThan((5 * 0.25 * Math.sqrt(4 / 45)) / Math.sqrt(n));
    expect(Math.abs(neighbours)).toBeLessThan((5 * 0.25) / 3 / Math.sqrt(n));
  });
  it('normal: mean 0, variance std², kurtosis 3', () => {
    const n = 200_000;
    const x = drawWeights('b', n, { kind: 'normal', std: 2 }, 3);
    const moment = (p: number) => x.reduce((s, v) => s + v ** p, 0) / n;
    expect(Math.abs(moment(1))).toBeLessThan((5 * 2) / Math.sqrt(n));
    expect(Math.abs(moment(2) - 4)).toBeLessThan((5 * 4 * Math.SQRT2) / Math.sqrt(n));
    expect(Math.abs(moment(4) / 16 - 3)).toBeLessThan((5 * Math.sqrt(96)) / Math.sqrt(n));
  });
  it('another name or seed gives other numbers, the same gives the same', () => {
    const draw = (name: string, seed: number) => [...drawWeights(name, 8, { kind: 'uniform', bound: 1 }, seed)];
    expect(draw('a', 1)).toEqual(draw('a', 1));
    expect(draw('a', 1)).not.toEqual(draw('a', 2));
    expect(draw('a', 1)).not.toEqual(draw('a', 1 + 2 ** 32));
    expect(draw('a', 1)).not.toEqual(draw('b', 1));
  });
});

it("sd15: the published model's parameter counts, largest tensor and dtype, nothing drawn before it is asked for", () => {
  const weights = randomWeights(LIKE.sd15, 1, 'F16');
  const sizes = Object.values(weights).map((part) =>
    [...part.values()].map(({ shape }) => shape.reduce((n, side) => n * side, 1)),
  );
  expect(sizes.map((s) => s.reduce((a, b) => a + b, 0))).toEqual([859_520_964, 83_653_863, 123_060_480]);
  expect(Math.max(...sizes.flat())).toBe(49_408 * 768);
  expect([...weights.unet.values()].every((t) => t.dtype === 'F16' && typeof t.data === 'function')).toBe(true);
});

describe('the command', () => {
  const run = async (out: string, ...more: string[]) => {
    const result = await runCommand(main, ['--like', 'small', '--out', path.join(folder, out), ...more]);
    return result.code === 0 ? result.stdout : result.stderr;
  };
  it('writes a complete base; f16 is the rounding of what is drawn for f32; the seed decides', {
    timeout: 120_000,
  }, async () => {
    for (const dtype of longRows(['f16', 'f32'], (name) => name === 'f16')) {
      expect(await run(dtype, '--seed', '7', '--dtype', dtype)).toMatch(/unet +5,975,796 parameters/);
      const base = await openBase(path.join(folder, dtype));
      checkBase(base);
      for (const name of ['mid_block.attentions.0.proj_in.weight', 'conv_in.bias']) {
        const written = await base.parts.unet.get(name).read();
        const init = specEntries(unetSpec(base.configs.unet)).find(([path]) => path === name)![1].init;
        const drawn = drawWeights(`unet/${name}`, written.length, init, 7);
        expect(written).toEqual(dtype === 'f16' ? halfToFloat(floatToHalf(drawn)) : drawn);
      }
    }
  });
  it('refuses a folder with something in it, in one line', async () => {
    await writeFile(path.join(folder, 'mine.txt'), 'mine');
    const said = await run('.');
    expect(said).toMatch(/^[^\n]*(empty|exists|holds)[^\n]*\n$/);
  });
});

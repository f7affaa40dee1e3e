/** Module paths to rank maps: SD 1.5's true names, the order of the network, hostile names. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { rankHeatMaps } from '../../../train/report/charts/heatmap.ts';
import { layout, placeOf } from '../../../train/report/charts/modules.ts';
import { textRankMaps } from '../../../train/words/progress.ts';
import { cpuSeconds } from '../../support/cpu-seconds.ts';
import { randomFrom, sd15Modules } from '../../support/report-fixture.ts';

const columns = 't1 t2 d00 d01 d10 d11 d20 d21 d30 d31 mid m1 u00 u01 u02 u10 u11 u12 u20 u21 u22 u30 u31 u32';

function shuffled<T>(items: readonly T[], seed: number): T[] {
  const random = randomFrom(seed);
  return items
    .map((item) => [random(), item] as const)
    .sort((a, b) => a[0] - b[0])
    .map(([, item]) => item);
}

describe('placing SD 1.5', () => {
  const names = sd15Modules();

  test('the fixture has the 184 + 72 linears of the true model', () => {
    expect(names.filter((n) => n.startsWith('unet.'))).toHaveLength(184);
    expect(names.filter((n) => n.startsWith('text_encoder.'))).toHaveLength(72);
    const reference = join(process.env.SELORA_GOLDEN ?? 'test/golden', 'sd15-shapes.json');
    const shapes = JSON.parse(readFileSync(reference, 'utf8')) as Record<string, { linear_in_out: object }>;
    const true_ = ['unet', 'text_encoder'].flatMap((p) =>
      Object.keys(shapes[p]!.linear_in_out).map((k) => `${p}.${k}`),
    );
    expect([...names].sort()).toEqual(true_.sort());
  });

  test('every module has its own cell, columns follow the network and not the alphabet', () => {
    const placed = layout(shuffled(names, 3).map((n) => [n, 1] as const));
    expect(placed.other).toEqual([]);
    expect(placed.unet!.cells).toHaveLength(184);
    expect(placed.text!.cells).toHaveLength(72);
    expect(placed.unet!.columns.join(' ')).toBe(columns);
    expect(placed.text!.columns).toEqual(Array.from({ length: 12 }, (_, i) => String(i)));
    expect(placed.text!.rows).toEqual(['q', 'k', 'v', 'out', 'fc1', 'fc2']);
    expect(placed.unet!.rows[0]).toBe('attn1 q');
    expect(placed.unet!.rows.at(-1)).toBe('time');
    const cells = new Set(placed.unet!.cells.map((c) => `${c.row}/${c.column}`));
    expect(cells.size).toBe(184);
  });

  test('with its convolutions, each has its own cell, from the first to the last', () => {
    const units = (side: string, blocks: number, count: number): string[] =>
      Array.from({ length: blocks * count }, (_, i) => `${side}.${Math.floor(i / count)}.resnets.${i % count}`);
    const resnets = [
      ...units('down_blocks', 4, 2),
      'mid_block.resnets.0',
      'mid_block.resnets.1',
      ...units('up_blocks', 4, 3),
    ];
    const convolutions = [
      'conv_in',
      'conv_out',
      ...resnets.flatMap((name) => [`${name}.conv1`, `${name}.conv2`]),
      ...resnets.filter((name) => /^up|^down_blocks.[12].resnets.0/.test(name)).map((name) => `${name}.conv_shortcut`),
      ...[0, 1, 2].flatMap((i) => [`down_blocks.${i}.downsamplers.0.conv`, `up_blocks.${i}.upsamplers.0.conv`]),
    ].map((name) => `unet.${name}`);
    const placed = layout(shuffled([...names, ...convolutions], 4).map((name) => [name, 1] as const));
    expect(placed.other).toEqual([]);
    expect(placed.unet!.cells).toHaveLength(184 + 2 + 44 + 14 + 6);
    expect(placed.unet!.columns.join(' ')).toBe(`in ${columns} out`);
  });

  test.each([
    ['unet.up_blocks.3.attentions.2.transformer_blocks.0.attn2.to_k', 'attn2 k', 'u32'],
    ['down_blocks.0.attentions.1.transformer_blocks.0.attn1.to_out.0', 'attn1 out', 'd01'],
    ['mid_block.attentions.0.transformer_blocks.0.ff.net.2', 'ff out', 'mid'],
    ['mid_block.resnets.1.time_emb_proj', 'time', 'm1'],
    ['time_embedding.linear_2', 'time', 't2'],
    ['unet.conv_in', 'in, out', 'in'],
    ['conv_out', 'in, out', 'out'],
    ['down_blocks.2.resnets.1.conv1', 'conv 1', 'd21'],
    ['mid_block.resnets.1.conv2', 'conv 2', 'm1'],
    ['unet.up_blocks.3.resnets.2.conv_shortcut', 'shortcut', 'u32'],
    ['down_blocks.1.downsamplers.0.conv', 'resample', 'd10'],
    ['up_blocks.0.upsamplers.0.conv', 'resample', 'u00'],
    ['down_blocks.1.attentions.0.transformer_blocks.3.attn1.to_q', 'attn1 q', 'd10.3'],
    ['down_blocks.1.attentions.0.proj_in', 'proj in', 'd10'],
    ['base_model.model.text_model.encoder.layers.10.mlp.fc1', 'fc1', '10'],
  ])('%s', (path, row, column) => {
    expect(placeOf(path)).toMatchObject({ row, column });
  });

  test.each([
    '',
    'unet.conv_norm_out',
    'unet.conv_in.extra',
    'unet.mid_block.resnets.0.norm1',
    'vae.decoder.mid_block.attentions.0.to_q',
    'down_blocks.0.attentions.0.transformer_blocks.0.attn3.to_q',
    'down_blocks.99999999999.resnets.0.time_emb_proj',
    'text_model.encoder.layers.1.mlp.fc1.extra',
    '__proto__',
  ])('no place for %j', (path) => {
    expect(placeOf(path)).toBeUndefined();
  });
});

test('any list of paths is kept completely, each path once', () => {
  const path = fc.oneof(
    fc.constantFrom(...sd15Modules()),
    fc.string(),
    fc.stringMatching(/^text_model\.encoder\.layers\.\d{1,6}\.mlp\.fc1$/),
  );
  fc.assert(
    fc.property(fc.uniqueArray(path, { maxLength: 60 }), (paths) => {
      const placed = layout(paths.map((p, i) => [p, i] as const));
      const found = [...(placed.unet?.cells ?? []), ...(placed.text?.cells ?? []), ...placed.other];
      expect(found.map((c) => c.path).sort()).toEqual([...paths].sort());
      for (const c of found) expect(paths[c.value]).toBe(c.path);
    }),
  );
});

describe('rank maps', () => {
  const names = sd15Modules();
  const ranks = new Map(names.map((n, i) => [n, 1 + ((i * 7) % 23)]));

  test('means of several runs have one decimal everywhere, also where they sum to thirds', () => {
    const q = 'text_model.encoder.layers.0.self_attn.q_proj';
    const k = 'text_model.encoder.layers.0.self_attn.k_proj';
    const { text } = rankHeatMaps(new Map([[q, 4 / 3], [k, 5]])); // biome-ignore format: one line
    expect(text).toContain('total 6.3');
    expect(text).toContain('>1.3<');
    expect(text).not.toMatch(/\d\.\d{3}\d*</);
  });
  test('each number is drawn in the middle of the rectangle of its module', () => {
    const { unet, text } = rankHeatMaps(ranks);
    for (const svg of [unet!, text!]) {
      const rects = [...svg.matchAll(/<rect ([^>]*)data-module="([^"]+)"[^>]*><title>([^<]*)<\/title>/g)].map((m) => {
        const at = (name: string): number => Number(new RegExp(`\\b${name}="([\\d.]+)"`).exec(m[0])![1]);
        return { x: at('x'), y: at('y'), w: at('width'), h: at('height'), path: m[2]!, title: m[3]! };
      });
      const [, dx, dy, numbers] = /<g [^>]*data-mark="text" transform="translate\((\d+),(\d+)\)">(.*?)<\/g>/.exec(svg)!;
      const texts = [...numbers!.matchAll(/transform="translate\((\d+),(\d+)\)"[^>]*>(\d+)</g)].map((m) => ({
        x: Number(m[1]) + Number(dx),
        y: Number(m[2]) + Number(dy),
        value: Number(m[3]),
      }));
      expect(rects.length).toBe(svg === unet ? 184 : 72);
      for (const r of rects) {
        const inside = texts.filter((t) => t.x > r.x && t.x < r.x + r.w && t.y > r.y && t.y < r.y + r.h);
        expect(inside.map((t) => t.value)).toEqual([ranks.get(r.path)]);
        expect(r.title).toBe(`${r.path}: rank ${ranks.get(r.path)}`);
      }
    }
  });

  test('an adapter for one network has one map, one for neither has none', () => {
    expect(Object.keys(rankHeatMaps(new Map([[names.at(-1)!, 4]])))).toEqual(['unet']);
    expect(rankHeatMaps(new Map([['transformer.h.0.attn', 4]]))).toEqual({});
    expect(rankHeatMaps(new Map())).toEqual({});
  });

  test('a hostile file with 100,000 modules draws nothing and takes no time', async () => {
    const many = Array.from(
      { length: 1e5 },
      (_, i) => [`down_blocks.${i % 9999}.resnets.${i}.time_emb_proj`, 1] as const,
    );
    const [maps, seconds] = await cpuSeconds(() => rankHeatMaps(new Map(many)));
    expect(maps).toEqual({});
    expect(seconds).toBeLessThan(5);
  });

  test('in the terminal: same numbers, cut to the width, no control bytes', () => {
    const plain = textRankMaps(new Map([...ranks, ['evil\u001b[2J', 9]]), 60);
    for (const line of plain.split('\n').filter((l) => /^ {3}|^attn|^ff|^time/.test(l)))
      expect(line.length).toBeLessThanOrEqual(60);
    expect(plain).toContain('other modules: 1\n  evil\\u{1b}[2J: 9');
    expect(plain).not.toContain('\u001b');
    const total = [...ranks].filter(([n]) => n.startsWith('unet')).reduce((s, [, r]) => s + r, 0);
    expect(plain).toContain(`U-Net: 184 modules, total rank ${total}`);
    const q = plain
      .split('\n')
      .filter((l) => l.startsWith('attn1 q'))
      .flatMap((l) => l.slice(9).trim().split(/\s+/));
    const expected = columns.split(' ').map((c) => {
      const [, side, block, i] = /^([du])(\d)(\d)$/.exec(c) ?? [];
      const place =
        c === 'mid' ? 'mid_block.attentions.0' : `${side === 'd' ? 'down' : 'up'}_blocks.${block}.attentions.${i}`;
      return String(ranks.get(`unet.${place}.transformer_blocks.0.attn1.to_q`) ?? '·');
    });
    expect(q).toEqual(expected);
  });
});

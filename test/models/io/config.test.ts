/** Configurations: one field wrong at a time is named; files of models that exist are taken; strict JSON. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import fc from 'fast-check';
import { afterAll, describe, expect, it } from 'vitest';
import type { z } from 'zod';
import {
  headsPerLevel,
  parseConfig,
  parseScheduler,
  textEncoderSchema,
  unetSchema,
  vaeSchema,
} from '../../../models/config.ts';
import { type Json, parseJson, readJson } from '../../../models/io/json.ts';
import { SD15_SCHEDULER, SD15_TEXT_ENCODER, SD15_UNET, SD15_VAE } from '../../../models/sd15.ts';

type JsonObject = { readonly [key: string]: Json };
const scratch = mkdtempSync(path.join(tmpdir(), 'selora-config-'));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

const parsers: readonly (readonly [string, JsonObject, readonly string[], (json: Json) => unknown])[] = [
  part('unet', SD15_UNET, unetSchema),
  part('vae', SD15_VAE, vaeSchema),
  part('text_encoder', SD15_TEXT_ENCODER, textEncoderSchema),
  [
    'scheduler',
    SD15_SCHEDULER,
    ['num_train_timesteps', 'beta_start', 'beta_end', 'beta_schedule', 'steps_offset', 'skip_prk_steps', 'clip_sample'],
    (json) => parseScheduler(json, 'scheduler.json'),
  ],
];

function part(name: string, good: JsonObject, schema: z.ZodType & { shape: object }) {
  const known = Object.keys(good).filter((key) => Object.hasOwn(schema.shape, key));
  return [name, good, known, (json: Json) => parseConfig(schema, json, `${name}.json`)] as const;
}

describe.each(parsers)('%s', (name, good, known, parse) => {
  it('is taken as published, and with keys unknown to us', () => {
    expect(parse(good)).toMatchObject(
      name === 'scheduler' ? {} : { ...Object.fromEntries(known.map((key) => [key, good[key]])) },
    );
    parse({ ...good, _name_or_path: '../../etc', key_of_next_year: [1, { a: null }], __proto__x: 1 });
  });
  it('names the field that is wrong', () => {
    // No field of any schema takes these.
    const wrong: fc.Arbitrary<Json> = fc.constantFrom<Json>(
      { a: 1 },
      'swish9',
      -7,
      1e300,
      0.123456,
      [],
      [[]],
      ['x', 'y'],
      [-1, 2],
    );
    fc.assert(
      fc.property(fc.constantFrom(...known), wrong, (key, value) => {
        // The few pairs that are valid: any positive decimal is a beta or an epsilon.
        fc.pre(!(value === 0.123456 && /^(beta_start|beta_end|norm_eps|layer_norm_eps|freq_shift)$/.test(key)));
        let message = '';
        try {
          parse({ ...good, [key]: value });
        } catch (error) {
          message = (error as Error).message;
          expect((error as Error).name).toBe('FileError');
        }
        expect(message.startsWith(`${name}.json: `), message).toBe(true);
        expect(message).toContain(key);
        expect(message).not.toContain('\n');
        expect(message.length).toBeLessThan(1000);
      }),
      { numRuns: 400 },
    );
  });
  it('refuses anything that is not an object', () => {
    for (const value of [null, [], 'x', 1, true]) expect(() => parse(value)).toThrow(new RegExp(`^${name}.json: .*$`));
  });
});

describe('what is not implemented is refused by name', () => {
  it.each([
    ['mid_block_type', 'UNetMidBlock2D'],
    ['use_linear_projection', 'yes'],
    ['num_class_embeds', 10],
    ['addition_embed_type', 'text_time'],
    ['time_embedding_type', 'fourier'],
    ['transformer_layers_per_block', [1, 2, 10]],
    ['resnet_time_scale_shift', 'scale_shift'],
    ['dual_cross_attention', true],
    ['class_embed_type', 'timestep'],
    ['down_block_types', ['DownBlock2D', 'AttnDownBlock2D', 'DownBlock2D', 'DownBlock2D']],
    ['act_fn', 'mish'],
  ])('%s %j', (key, value) => {
    expect(() => parseConfig(unetSchema, { ...SD15_UNET, [key]: value }, 'unet/config.json')).toThrow(
      new RegExp(`^unet/config.json: ${key}.*$`),
    );
  });
  it('and so are lists and numbers that do not fit together', () => {
    const parse = (change: JsonObject) => parseConfig(unetSchema, { ...SD15_UNET, ...change }, 'f');
    expect(() => parse({ block_out_channels: [320, 640] })).toThrow(
      /down_block_types: .*as long as block_out_channels/,
    );
    expect(() => parse({ block_out_channels: [320, 640, 1280, 1290] })).toThrow(
      /1290 is not divisible by norm_num_groups/,
    );
    expect(() => parse({ attention_head_dim: 7 })).toThrow(/attention_head_dim: .*7 heads do not divide the 320/);
    expect(() => parse({ attention_head_dim: [5, 10, 20] })).toThrow(/attention_head_dim/);
    expect(headsPerLevel(parse({ attention_head_dim: [5, 10, 20, 20], use_linear_projection: true }))).toEqual([
      5, 10, 20, 20,
    ]);
    expect(headsPerLevel(parse({}))).toEqual([8, 8, 8, 8]);
    expect(() => parseConfig(vaeSchema, { ...SD15_VAE, shift_factor: 0.1 }, 'f')).toThrow(
      /^f: shift_factor: is 0.1, is not supported/,
    );
  });
});

describe('strict JSON', () => {
  it('reads what JSON.parse reads', () => {
    fc.assert(
      fc.property(fc.json({ maxDepth: 10 }), (text) => {
        expect(parseJson(text, 'f')).toEqual(JSON.parse(text));
      }),
      { numRuns: 300 },
    );
  });
  it('never takes what JSON.parse refuses, and never throws anything but a FileError', () => {
    const scraps = fc.constantFrom(...'{}[],:"\\ \n0-1.eE+truefalsn'.split(''), '"a"', '{"a":1}', '\\u0061', 'null');
    fc.assert(
      fc.property(fc.array(scraps, { maxLength: 24 }), (pieces) => {
        const text = pieces.join('');
        const attempt = <T>(f: () => T) => {
          try {
            return { value: f() };
          } catch (error) {
            return { error: error as Error };
          }
        };
        const ours = attempt(() => parseJson(text, 'f'));
        const plain = attempt(() => JSON.parse(text));
        if (plain.error) expect(ours.error?.name).toBe('FileError');
        else if (ours.error) expect(ours.error.message).toMatch(/duplicate key/);
        else expect(ours.value).toEqual(plain.value);
      }),
      { numRuns: 5000 },
    );
  });
  it.each([
    ['{"a":{"b":1,"b":2}}', /^f: a\.b: duplicate key "b"$/],
    ['{"a":1,"\\u0061":2}', /^f: a: duplicate key "a"$/],
    ['{"a":1,\n "b":}', /^f: not valid JSON( \(line 2, column \d+\))?$/],
    ['{"a":1,}', /^f: not valid JSON/],
    ['', /^f: not valid JSON/],
    ['['.repeat(20_000), /^f: JSON depth is above 64$/],
    [`{"a":${'['.repeat(64)}`, /^f: a: JSON depth is above 64$/],
  ])('refuses %j', (text, message) => {
    expect(() => parseJson(text, 'f')).toThrow(message);
  });
  it('takes 64 levels and equal keys in different objects', () => {
    expect(parseJson(`${'['.repeat(64)}${']'.repeat(64)}`, 'f')).toBeTruthy();
    expect(parseJson('[{"a":1},{"a":{"a":2}}]', 'f')).toEqual([{ a: 1 }, { a: { a: 2 } }]);
    expect(Object.keys(parseJson('{"__proto__":{"x":1}}', 'f') as object)).toEqual(['__proto__']);
    expect(({} as { x?: unknown }).x).toBeUndefined();
  });
  it('limits size and decodes UTF-8 strictly', async () => {
    const file = path.join(scratch, 'a.json');
    writeFileSync(file, Buffer.from([0x22, 0xff, 0x22]));
    await expect(readJson(file)).rejects.toThrow(/a.json: is not UTF-8/);
    writeFileSync(file, `"${'x'.repeat(100)}"`);
    await expect(readJson(file, 50)).rejects.toThrow(/has 102 bytes, at most 50 are read/);
    await expect(readJson(scratch)).rejects.toThrow(/is a directory/);
    await expect(readJson('/dev/zero')).rejects.toThrow(/not a regular file/);
  });
});

/** Methods are told apart in selora/methods/ only; everything else asks the record. */
import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, test } from 'vitest';
import type { z } from 'zod';
import { entries, leaves, type Tensor } from '../../../core/index.ts';
import { hostKey } from '../../../selora/adapter.ts';
import { METHODS } from '../../../selora/methods/index.ts';
import { lora } from '../../../selora/methods/lora.ts';
import type { Field, Method, Places } from '../../../selora/methods/method.ts';
import { defaultMethod, methodNames, methodOf, methodSettings, settingsOf } from '../../../selora/methods/registry.ts';

const ROOT = path.join(import.meta.dirname, '../../..');
const sources = ['core', 'nn', 'models', 'selora', 'train'].flatMap((folder) =>
  readdirSync(path.join(ROOT, folder), { recursive: true, encoding: 'utf8' })
    .filter((f) => f.endsWith('.ts'))
    .map((f) => path.join(folder, f)),
);

/** lines of a text that compare with, choose or set a method by its name */
const naming = (text: string, names: readonly string[]): string[] => {
  const name = `['"\`](${names.join('|')})['"\`]`;
  const branch = new RegExp(
    `([=!]==?\\s*|\\bcase\\s+|\\bmethod\\b[^'"\`]*|\\benum\\(\\[[^\\]]*)${name}|${name}\\s*[=!]==?`,
  );
  return text.split('\n').filter((line) => branch.test(line));
};

describe('names', () => {
  test('the search finds what it is for', () => {
    for (const line of [
      "if (c.method === 'lora') x();",
      "const t = 'selora' !== m;",
      "method: z.enum(['selora', 'lora'])",
      "case 'lora':",
      "method: z.string().default('selora')",
    ])
      expect(naming(line, ['selora', 'lora']), line).toHaveLength(1);
    expect(naming("export const RUN_KEY = 'selora';", ['selora', 'lora'])).toEqual([]);
  });
  test('no file outside selora/methods/ names a method to branch on', () => {
    expect(sources.length).toBeGreaterThan(200);
    const found = sources
      .filter((f) => !f.startsWith(path.join('selora', 'methods')))
      .flatMap((f) =>
        naming(readFileSync(path.join(ROOT, f), 'utf8'), methodNames).map((line) => `${f}: ${line.trim()}`),
      );
    expect(found).toEqual([]);
  });
});

describe('the registry', () => {
  test('finds methods by name; the first is the default', () => {
    expect(methodNames).toEqual(METHODS.map((m) => m.name));
    expect(new Set(methodNames).size).toBe(methodNames.length);
    expect(defaultMethod).toBe('selora');
    for (const m of METHODS) expect(methodOf(m.name)).toBe(m);
    expect(() => methodOf('lo-ra')).toThrow(`there is no method lo-ra, only ${methodNames.join(', ')}`);
  });
  test('a name that two methods mean differently is refused', () => {
    const { scale, ...rest } = lora.settings;
    const other: Method = {
      ...(lora as Method),
      name: 'other',
      settings: { ...rest, scale: scale.describe('another') },
    };
    expect(() => methodSettings([...METHODS, other])).toThrow(
      'other: its setting scale is another than that of a method',
    );
  });
});

describe.each(METHODS.map((m): [string, Method] => [m.name, m]))('%s', (_name, method) => {
  const c = settingsOf(method);
  const places: Places = new Map([
    ['a.to_q', [6, 4]],
    ['a.to_k', [3, 5]],
    ['a.conv', [4, 2, 3, 3]],
  ]);
  const ranks = method.ranks(c, { unet: places, text: new Map() });

  test('every setting has words and a default', () => {
    for (const [name, field] of Object.entries(method.settings)) {
      const words = (field as z.ZodType).meta();
      expect([words?.help, words?.group], name).toEqual([expect.stringMatching(/\w/), expect.stringMatching(/\w/)]);
    }
    expect(method.doc.length + method.source.length).toBeGreaterThan(20);
  });
  test('init fills its fields, and no two tensors of a checkpoint have one name', () => {
    const modules = method.init(places, ranks.unet, hostKey(3), c);
    expect(Object.keys(modules)).toEqual([...places.keys()]);
    for (const [path, place] of places) {
      const fields = entries<Field>(method.fields(place, ranks.unet[path]!, c));
      expect(entries<Tensor>(modules[path] as never).map(([name, t]) => [name, t.shape])).toEqual(
        fields.map(([name, { shape }]) => [name, shape]),
      );
      const names = fields.flatMap(([name]) => [name, `m${name}`, `v${name}`]);
      expect(new Set([...names, 'age']).size).toBe(names.length + 1);
      // which axis counts ranks does not depend on the place
      expect(fields.map(([name, { axis }]) => [name, axis])).toEqual(
        entries<Field>(method.fields([1, 1], 1, c)).map(([name, { axis }]) => [name, axis]),
      );
      expect(leaves(modules[path] as never).length).toBe(fields.length);
    }
  });
  test('room is never less than the largest rank', () => {
    for (let most = 0; most < 20; most++)
      for (let own = 0; own <= most; own++) expect(method.room(c, most, own)).toBeGreaterThanOrEqual(Math.max(1, own));
  });
});

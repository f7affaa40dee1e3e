/** Which linears are adapted: presets on SD 1.5's true names, globs, patterns that match nothing. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { hostKey, initAdapters, parameterCount } from '../../selora/adapter.ts';
import { globToRegExp, matchTargets, selectTargets } from '../../selora/targets.ts';

const shapes = JSON.parse(readFileSync(join(import.meta.dirname, '../golden/sd15-shapes.json'), 'utf8')) as Record<
  'unet' | 'text_encoder',
  { readonly linear_in_out: Readonly<Record<string, readonly [number, number]>> }
>;
const [unet, text] = [Object.keys(shapes.unet.linear_in_out), Object.keys(shapes.text_encoder.linear_in_out)];
/** number of parameters of rank-1 adapters on the modules */
const ranks1 = (network: 'unet' | 'text_encoder', paths: readonly string[]) => {
  const weights = paths.map((p) => {
    const [dIn, dOut] = shapes[network].linear_in_out[p]!;
    return [p, [dOut, dIn]] as const;
  });
  return parameterCount(initAdapters(hostKey(1), new Map(weights), 1, { a: 0 }));
};

describe("SD 1.5's linears", () => {
  // numbers of modules and of rank-1 parameters: computed from the public configurations
  test.each([
    ['all-linear', 184, 72, 426_496, 165_888],
    ['paper-code', 134, 72, 310_016, 165_888],
    ['attn', 128, 0, 199_296, 0],
  ] as const)('%s', (preset, unetModules, textModules, unetParameters, textParameters) => {
    const chosen = selectTargets(preset, unet, text);
    expect([chosen.unet.length, chosen.text.length]).toEqual([unetModules, textModules]);
    expect(ranks1('unet', chosen.unet)).toBe(unetParameters);
    expect(ranks1('text_encoder', chosen.text)).toBe(textParameters);
  });

  test('what the published code misses: to_out.0, ff.net.2 and the time embedding', () => {
    const code = new Set(selectTargets('paper-code', unet, text).unet);
    const missed = unet.filter((p) => !code.has(p));
    expect(missed).toHaveLength(50);
    expect(missed.every((p) => /\.(to_out\.0|ff\.net\.2)$|^time_embedding\./.test(p))).toBe(true);
  });

  test('globs choose by network, keep the order of the model and count a module once', () => {
    const chosen = selectTargets('text.**.fc1, unet.mid_block.**, **.attn2.to_k,**.fc1', unet, text);
    expect(chosen.text).toEqual(text.filter((p) => p.endsWith('.fc1')));
    expect(chosen.unet).toEqual(unet.filter((p) => p.startsWith('mid_block.') || p.endsWith('.attn2.to_k')));
  });
});

test('convolutions: all of them by name, some by a glob that matches no linear', () => {
  const convolutions = ['conv_in', 'down_blocks.0.resnets.0.conv_shortcut', 'down_blocks.0.attentions.0.proj_in'];
  const all = selectTargets('all', unet, text, convolutions);
  expect([all.unet.length, all.text.length]).toEqual([184 + 3, 72]);
  expect(selectTargets('**.proj_in', unet, text, convolutions)).toEqual({ unet: [convolutions[2]], text: [] });
  expect(selectTargets('**', unet, text, convolutions).unet).toEqual(unet);
});

describe('globs', () => {
  test.each([
    ['**.to_q', ['a.to_q', 'to_q', 'a.b.to_q'], ['a.to_k', 'xto_q', 'a.to_q.b']],
    ['a.**.c', ['a.c', 'a.b.c', 'a.b.b.c'], ['ac', 'a.bc', 'b.c']],
    ['a.**', ['a.b', 'a.b.c'], ['a', 'ab', 'b.a']],
    ['**', ['a', 'a.b.c'], ['']],
    ['a.*.c', ['a.b.c', 'a.bb.c'], ['a.c', 'a.b.b.c']],
    ['net.*.proj_*', ['net.0.proj_in'], ['net.0.proj', 'net.0.0.proj_in']],
    ['ff.net.0+', ['ff.net.0+'], ['ff.net.00', 'ffxnet.0+']],
  ])('%s', (glob, hits, misses) => {
    const re = globToRegExp(glob);
    expect(hits.filter((p) => !re.test(p))).toEqual([]);
    expect(misses.filter((p) => re.test(p))).toEqual([]);
  });

  test('a glob equals the recursive definition on segments', () => {
    const matches = (glob: readonly string[], path: readonly string[]): boolean => {
      const [g, ...rest] = glob;
      if (g === undefined) return path.length === 0;
      if (g === '**' && rest.length === 0) return path.length > 0;
      if (g === '**') return path.some((_, i) => matches(rest, path.slice(i)));
      return path.length > 0 && (g === '*' || g === path[0]) && matches(rest, path.slice(1));
    };
    const segment = fc.constantFrom('a', 'b', '0');
    fc.assert(
      fc.property(
        fc.array(fc.oneof(segment, fc.constantFrom('*', '**')), { minLength: 1, maxLength: 5 }),
        fc.array(segment, { minLength: 1, maxLength: 6 }),
        (glob, path) => {
          expect(globToRegExp(glob.join('.')).test(path.join('.'))).toBe(matches(glob, path));
        },
      ),
      { numRuns: 2000 },
    );
  });
});

describe('what matches nothing', () => {
  test('a glob is named, with the presets and an example', () => {
    expect(() => selectTargets('**.to_q,**.to_w', unet, text)).toThrow(
      /^--targets \*\*\.to_w: matches no linear; presets are all-linear, paper-code, attn, all, a path looks like time_embedding/,
    );
    expect(() => selectTargets('text.**.to_q', unet, text)).toThrow(/^--targets text\.\*\*\.to_q: matches no linear/);
  });
  test('a preset with a part that matches nothing', () => {
    expect(() => selectTargets('attn', ['a.to_q'], [])).toThrow(/^--targets \*\*\.to_k: matches none of the 1 linears/);
    expect(() => matchTargets([], ['**'], 'U-Net')).toThrow('matches none of the 0 linears of the U-Net');
  });
  test('nothing at all', () => {
    for (const empty of ['', ' , ']) expect(() => selectTargets(empty, unet, text)).toThrow(/names no linear/);
  });
  test('a network that is not trained is left out of a preset, not missed', () => {
    expect(selectTargets('all-linear', unet, [])).toEqual({ unet, text: [] });
    expect(() => selectTargets('all-linear', [], [])).toThrow(/names no linear/);
  });
});

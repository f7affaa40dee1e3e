/** Trees of parameters: paths, order, structure, and what counts as a leaf. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { entries, fromPaths, leaves, mapTree, type Tree, tensor, unflatten, zipTrees } from '../../core/index.ts';

const tree = { b: [1, { c: 2 }], a: 3 } as const;

describe('trees', () => {
  test('paths are dotted, in the order of the tree', () => {
    expect(entries<number>(tree)).toEqual([
      ['b.0', 1],
      ['b.1.c', 2],
      ['a', 3],
    ]);
    expect(leaves<number>(tree)).toEqual([1, 2, 3]);
    expect(entries<number>(7)).toEqual([['', 7]]);
  });
  test('mapTree keeps the structure and gives paths; arrays stay arrays', () => {
    expect(mapTree((x: number, path) => `${path}=${x}`, tree)).toEqual({ b: ['b.0=1', { c: 'b.1.c=2' }], a: 'a=3' });
    expect(mapTree((x: number) => x, [])).toEqual([]);
    expect(mapTree((x: number) => x, {})).toEqual({});
  });
  test('tensors, typed arrays, maps, class instances, null and undefined are leaves', () => {
    class Point {
      readonly x = 1;
    }
    const values = [tensor([1]), Float32Array.of(1, 2), new Map(), new Point(), null, undefined, 'text', () => 1];
    const seen: unknown[] = [];
    mapTree((x: unknown) => seen.push(x), values);
    expect(seen).toEqual(values);
    expect(seen[0]).toBe(values[0]);
  });
  test('records without a prototype are nodes', () => {
    const bare = Object.assign(Object.create(null) as Record<string, number>, { p: 1 });
    expect(entries<number>(bare)).toEqual([['p', 1]]);
  });
  test('zipTrees walks two trees together and names the first difference', () => {
    expect(zipTrees((a: number, b: number, path) => `${path}:${a + b}`, tree, { b: [10, { c: 20 }], a: 30 })).toEqual({
      b: ['b.0:11', { c: 'b.1.c:22' }],
      a: 'a:33',
    });
    expect(() => zipTrees((a: number) => a, tree as Tree<number>, { b: [1, { d: 2 }], a: 3 })).toThrow(
      new TypeError('trees differ: b.1.c against b.1.d'),
    );
    expect(() => zipTrees((a: number) => a, [1, 2] as Tree<number>, [1])).toThrow('trees differ: 1 against nothing');
  });

  const leaf = fc.integer();
  const { any } = fc.letrec<{ any: Tree<number> }>((tie) => ({
    any: fc.oneof(
      { maxDepth: 4 },
      leaf,
      fc.array(tie('any'), { minLength: 1, maxLength: 4 }),
      fc.dictionary(fc.stringMatching(/^[a-z_]{1,6}$/), tie('any'), { minKeys: 1, maxKeys: 4 }),
    ) as fc.Arbitrary<Tree<number>>,
  }));
  test('unflatten(tree, leaves(tree)) is the tree; fromPaths(entries(tree)) is the tree', () => {
    fc.assert(
      fc.property(any, (t) => {
        expect(unflatten(t, leaves(t))).toEqual(t);
        if (typeof t !== 'number')
          expect(JSON.parse(JSON.stringify(fromPaths(entries(t))))).toEqual(JSON.parse(JSON.stringify(t)));
        expect(leaves(mapTree((x: number) => x + 1, t) as Tree<number>)).toEqual(leaves(t).map((x) => x + 1));
      }),
    );
  });
  test('fromPaths: parts that count 0…n−1 become arrays, also out of order; gaps stay records', () => {
    expect(
      fromPaths([
        ['l.1.w', 'b'],
        ['l.0.w', 'a'],
        ['g.0', 'x'],
        ['g.2', 'y'],
      ]),
    ).toEqual({ l: [{ w: 'a' }, { w: 'b' }], g: { 0: 'x', 2: 'y' } });
  });
});

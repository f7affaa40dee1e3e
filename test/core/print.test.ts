/** print: the let-form of a graph, with shapes, attributes and costs. */
import { describe, expect, test } from 'vitest';
import {
  checkpoint,
  dot,
  full,
  grad,
  layerNorm,
  mul,
  neg,
  print,
  sin,
  slice,
  sum,
  type Tensor,
  tensor,
  zeros,
} from '../../core/index.ts';

const data = (shape: readonly number[], label: string): Tensor =>
  tensor(new Float32Array(shape.reduce((p, n) => p * n, 1)), shape, 'f32', label);

describe('print', () => {
  test('one line for a node, inputs first: name, type, op, operands, attributes, label, cost', () => {
    const [a, b] = [data([1, 2, 3], 'x'), data([1, 3, 5], 'W')];
    expect(print(sum(dot(a, b), [1]))).toBe(
      [
        '%0: f32[1, 2, 3] = data   x',
        '%1: f32[1, 3, 5] = data   W',
        // 2·2·3·5 flop; 6 + 15 + 10 numbers of 4 bytes
        '%2: f32[1, 2, 5] = dot %0 %1   60 F  124 B',
        '%3: f32[1, 1, 5] = sum %2 {axes: [1]}   10 F  60 B',
        '%4: f32[1, 5] = reshape %3 {shape: [1, 5]}',
        '→ %4',
        '5 nodes, 70 F',
      ].join('\n'),
    );
  });
  test('several results, outputs by their path, constants with their value', () => {
    const y = layerNorm(data([2, 4], 'x'), data([4], 'γ'), data([4], 'β'), 1e-5);
    const text = print({ y, c: [full([2], -0), full([], Number.POSITIVE_INFINITY)] });
    expect(text).toMatch(
      /%\d, %\d, %\d: f32\[2, 4\], f32\[2, 1, 1, 1\], f32\[2, 1, 1, 1\] = norm %0 %1 %2 \{groups: 1, eps: 0\.00001, silu: false\} {3}64 F/,
    );
    expect(text).toMatch(/= full \{value: -0\}\n/);
    expect(text).toMatch(/= full \{value: Infinity\}\n/);
    expect(text.split('\n').slice(-4, -1)).toEqual(['→ y = %3', '→ c.0 = %6', '→ c.1 = %7']);
  });
  test('a shared node is printed once, a closed body by its size', () => {
    const x = data([3], 'x');
    const s = sin(x);
    expect(print(mul(s, s)).match(/= sin/g)).toHaveLength(1);
    const text = print(checkpoint((y: Tensor) => mul(sin(y), y))(x));
    expect(text).toContain('= checkpoint %0 {holes: 1 nodes, results: 3 nodes}');
  });
  test('units go by thousands', () => {
    const square = (n: number) => print(dot(data([1, n, n], 'a'), zeros([1, n, n])));
    expect(square(100)).toMatch(/= dot %\d %\d {3}2 MF {2}120 kB/);
    expect(print(neg(data([1000], 'x')))).toMatch(/= neg %0 {3}1 kF {2}8 kB/);
  });
  test('numbers count the nodes of this graph, not of the process', () => {
    const f = (x: Tensor) => sum(mul(sin(x), slice(x, { axis: 0, start: 0, stop: 2 })));
    const [one, two] = [print(grad(f)(data([2], 'x'))), print(grad(f)(data([2], 'x')))];
    expect(one).toBe(two);
    expect(one).toContain('= cos');
  });
});

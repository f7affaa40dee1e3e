/** Wrong reference loops and bodies: what all backends are held to. */
import { battery, edges, type Fault, faultsOf, named, wasm } from './fault.ts';

export const reference: readonly Fault[] = [
  ...faultsOf('ops/reduce.ts', [
    '          at -= strides[axis]! * x!.shape[axis]!;\n',
    '',
    'sum: an axis is not wound back',
    battery('sum', 'max'),
  ]),
  ...faultsOf('ops/concat.ts', [
    'y!.data[o * row + at + i] = flat[o * width + i]!',
    'y!.data[o * row + at + i] = flat[i]!',
    'concat: the first rows again',
    battery('concat'),
  ]),
  ...faultsOf('ops/gather.ts', [
    'if (row >= 0 && row < v) for',
    'if (row >= 0 && row <= v) for',
    'gather: a row behind the table',
    battery('gather'),
  ]),
  ...faultsOf('ops/slice.ts', [
    '(a.low[axis]! + p * (a.interior[axis]! + 1)) * y!.stride[axis]!',
    '(a.low[axis]! + p) * y!.stride[axis]!',
    'pad: nothing between',
    battery('pad'),
  ]),
  ...faultsOf('ops/dot.ts', [
    'let at = b!.offset + g * bg + p * bk;',
    'let at = b!.offset + p * bk;',
    'dot: the first group’s operand',
    battery('dot'),
    wasm('dot'),
  ]),
  ...faultsOf(
    'ops/conv.ts',
    [
      'const row = r * a.stride[0] + i - a.pad[0][0];',
      'const row = r * a.stride[0] + i - a.pad[0][1];',
      'conv: padding below for padding above',
      battery('conv'),
      wasm('conv'),
    ],
    [
      'const column = s * a.stride[1] + j - a.pad[1][0];',
      'const column = s * a.stride[0] + j - a.pad[1][0];',
      'conv: stride down for stride across',
      battery('conv'),
      wasm('conv'),
    ],
    [
      'w.offset + i * w.stride[0]! + j * w.stride[1]! + ((g * o) / a.groups) * w.stride[3]!',
      'w.offset + i * w.stride[0]! + j * w.stride[1]!',
      'conv: the first group’s kernel',
      wasm('conv', 'conv in groups'),
    ],
  ),
  ...faultsOf('fused/attention.ts', [
    "less(iota(s.shape, 1, 'i32'), iota(s.shape, 2, 'i32'))",
    "less(iota(s.shape, 2, 'i32'), iota(s.shape, 1, 'i32'))",
    'attention: the past is hidden',
    wasm('causal attention of 63'),
  ]),
  ...faultsOf('fused/norm.ts', [
    'add(mean(mul(d, d), [1, 3], true), eps)',
    'add(mean(mul(d, d), [1, 3], true), 2 * eps)',
    'norm: ε',
    wasm('norm', 'groupNorm with silu, 32 in 8'),
  ]),
  ...faultsOf('ops/pow.ts', [
    'select(odd, neg(size), size)',
    'size',
    'pow: odd powers of negatives',
    edges('cpu', 'powers by tensor'),
  ]),
  ...faultsOf(
    'functions/smooth.ts',
    [
      'select(less(abs(x!), 0.5), div(mul(t, 2), sub(1, t)), sub(exp(x!), 1))',
      'sub(exp(x!), 1)',
      'expm1: cancellation',
      named('functions-properties', 'accuracy'),
    ],
    [
      'less(abs(x!), 0.3), near',
      'less(abs(x!), 0.9), near',
      'log1p: series too far out',
      named('functions-properties', 'accuracy'),
    ],
    [
      'select(negative(y!), neg(half), half)',
      'select(less(y!, 0), neg(half), half)',
      'atan2: the sign of −0',
      named('functions-properties', 'signs of zeros'),
    ],
  ),
  ...faultsOf('functions/comparisons.ts', [
    'mul(equal(rest, 0.5), odd)',
    'equal(rest, 0.5)',
    'round: halves up',
    named('functions', 'round'),
  ]),
  ...faultsOf('functions/windows.ts', [
    'lowest(x.dtype)',
    '0',
    'maxPool: padding wins over negatives',
    named('functions', 'axPool'),
  ]),
];

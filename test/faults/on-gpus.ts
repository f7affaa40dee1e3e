// biome-ignore-all lint/suspicious/noTemplateCurlyInString: the faults quote templates
/** Wrong kernels on webgpu and gpu.js. */
import { edges, type Fault, faultsOf, named, webgpu } from './fault.ts';

export const onWebgpu: readonly Fault[] = [
  ...faultsOf(
    'backends/webgpu/math.ts',
    [
      "'1.6666665459e-1', '5.0000001201e-1')} * (r * r)",
      "'1.666e-1', '5.0000001201e-1')} * (r * r)",
      'exp: a coefficient',
      named('webgpu/elementwise', 'one variable'),
    ],
    ['e * 0.693359375, edge', 'e * 0.69336, edge', 'log: ln 2', named('webgpu/elementwise', 'one variable')],
    [
      'abs(x) >= T(0.625)',
      'abs(x) >= T(1.25)',
      'tanh: the polynomial too far out',
      named('webgpu/elementwise', 'one variable'),
    ],
    ['I(0), b == I(0)); }', 'I(1), b == I(0)); }', 'n/0', edges('webgpu', 'quotients')],
    [
      'select(max(a, b), a + b, isNan_W(a) | isNan_W(b))',
      'max(a, b)',
      'maximum: NaN',
      named('webgpu/elementwise', 'two variables'),
      named('webgpu/reduce', 'NaN'),
    ],
    [
      'I(2147483647), x >= T(2147483648.0)',
      'I(2147483520), x >= T(2147483648.0)',
      'cast: the upper bound',
      edges('webgpu', 'cast to i32'),
    ],
    ['0x4e441529u', '0x4e441528u', 'sin: a bit of 2/π', edges('webgpu', 'large numbers')],
    [
      'return (a < b) & !(isNan_W(a) | isNan_W(b)); }`',
      'return (a <= b) & !(isNan_W(a) | isNan_W(b)); }`',
      'less: equal ones, too',
      named('webgpu/elementwise', 'two variables'),
    ],
  ),
  ...faultsOf(
    'backends/webgpu/registerTile.ts',
    [
      'const groupsN = ceilDiv(s.cols, 4 * tile.vecs * threads.n);',
      'const groupsN = Math.max(1, Math.floor(s.cols / (4 * tile.vecs * threads.n)));',
      'dot: the last columns',
      webgpu('dot 17·33·65'),
    ],
    [
      'if (r_out >= ${s.rows}) { break; }',
      '',
      'dot: rows beyond the result',
      webgpu('dot 17·33·65', 'dot', 'dot 65·64·1'),
    ],
  ),
  ...faultsOf(
    'backends/webgpu/conv.ts',
    [
      'let h${r} = oy${r} * ${pStrideH} + i - ${pTop};',
      'let h${r} = oy${r} * ${pStrideW} + i - ${pTop};',
      'conv: stride',
      webgpu('conv'),
    ],
    [
      '(h${r} * ${pStrideH} == th${r}) & ',
      '',
      'convInput: rows between strides',
      webgpu('convInput', 'conv 3×3 with stride 2'),
    ],
  ),
  ...faultsOf('backends/webgpu/convKernel.ts', [
    'let w = ox * ${pStrideW} + j - ${pLeft};',
    'let w = ox * ${pStrideW} + j - ${pTop};',
    'convKernel: padding',
    webgpu('convKernel', 'conv 3×3 with stride 2'),
  ]),
  ...faultsOf(
    'backends/webgpu/attention.ts',
    ['= top + log_1(total);', '= top;', 'attention: log-sum-exp', webgpu('attention, 33 of 65')],
    [
      "& (${f.spread('own')} <= queries)",
      "& (${f.spread('own')} < queries)",
      'attention: a key does not see its own row',
      webgpu('causal attention of 63'),
    ],
    [
      "* (${f.products('g', v)} - sum);",
      "* ${f.products('g', v)};",
      'attention: the row sum',
      webgpu('attention, 33 of 65'),
    ],
  ),
  ...faultsOf(
    'backends/webgpu/norm.ts',
    ["' * s * (1.0 + v * (1.0 - s))'", "' * s * (1.0 + v * s)'", 'silu: 1 − s', webgpu('groupNorm with silu, 32 in 8')],
    [
      '(gh - mean_g - hat * mean_gx) * scale',
      '(gh - hat * mean_gx) * scale',
      'norm: the mean of ĝ',
      webgpu('layerNorm of 33'),
    ],
    ["dgamma ? add('second', 'gy * hat')", "dgamma ? add('second', 'gy')", 'norm: γ', webgpu('layerNorm of 33')],
  ),
  ...faultsOf(
    'backends/webgpu/printReduce.ts',
    [
      'params.float(Number.NEGATIVE_INFINITY)',
      'params.float(0)',
      'max: of negatives 0',
      named('webgpu/reduce', 'sum and max'),
      webgpu('max'),
    ],
    [
      'const stride = params.word(parts * lanes);',
      'const stride = params.word(parts);',
      'sum: terms are taken twice',
      named('webgpu/reduce'),
      webgpu('sum of all'),
    ],
  ),
  ...faultsOf(
    'backends/webgpu/printWgsl.ts',
    [
      "inner === 1 && aligned ? 'vector'",
      "inner === 1 ? 'vector'",
      'reads at an offset that is no multiple of four',
      named('webgpu/elementwise', 'strided'),
    ],
    [
      'vec4(0u, 1u, 2u, 3u))`',
      'vec4(0u, 1u, 2u, 2u))`',
      'iota: the fourth',
      named('webgpu/elementwise', 'strided'),
      webgpu('iota'),
    ],
    [
      'axes.length === 1) ? 4 : 1',
      'axes.length >= 1) ? 4 : 1',
      'rows of no multiple of four',
      named('webgpu/elementwise', 'strided'),
      webgpu('an elementwise chain', 'permute of 17·33·5'),
    ],
  ),
  ...faultsOf(
    'backends/webgpu/copies.ts',
    ['start += x.shape[axis]!;', 'start += 1;', 'concat: operands overlap', webgpu('concat of 17 and 33')],
    ['s * (a.interior[i]! + 1)', 's', 'pad: nothing between', webgpu('pad')],
    ['row < ${p.word(rows)});`', 'true);`', 'gather: ids outside', edges('webgpu', 'gather')],
    ['if (ids[k] == row)', 'if (ids[k] >= row)', 'scatterAdd: rows above, too', webgpu('scatterAdd')],
    [
      '[13, 15, 26, 6, 17, 29, 16, 24]',
      '[13, 15, 26, 6, 17, 29, 16, 25]',
      'random: a rotation',
      named('webgpu/backend', 'random numbers'),
    ],
  ),
  ...faultsOf('backends/webgpu/half.ts', [
    'select(112u, 224u, exponent == 31u)',
    '112u',
    'f16: infinities',
    named('webgpu/backend', 'stored half floats'),
  ]),
  ...faultsOf('backends/webgpu/nf4.ts', [
    '1.0, size == 128u',
    '0.5, size == 128u',
    'nf4: the largest scale',
    named('nf4', 'every code of weights'),
  ]),
  ...faultsOf(
    'backends/webgpu/transposed.ts',
    [
      'const turned: View = { shape: w.shape, strides: [kw * c * o, c * o, 1, c], offset: 0 };',
      'const turned: View = { shape: w.shape, strides: [kw * c * o, c * o, 1, o], offset: 0 };',
      'convInput: the copy is read with another width',
      named('webgpu/backend', 'stored by columns'),
      webgpu('conv 3×3, 32 → 32'),
    ],
    [
      "{ dtype: 'f32', strides: [bg, 0, bn, bk], offset: b.offset }",
      "{ dtype: 'f32', strides: [bg, 0, bk, bn], offset: b.offset }",
      'many small products: the right one turned',
      edges('webgpu', 'many small products'),
    ],
  ),
];
export const onGpujs: readonly Fault[] = faultsOf(
  'backends/gpujs/printKernel.ts',
  ['0.5 * z + 1.0;\n', '0.5 * z + 1.001;\n', 'cos', named('gpujs/backend')],
  ['(${c} > 0.5 ? ${a} : ${b})', '(${c} > 1.5 ? ${a} : ${b})', 'select', named('gpujs/backend')],
);

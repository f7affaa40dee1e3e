// biome-ignore-all lint/suspicious/noTemplateCurlyInString: the faults quote templates
/** Wrong batching rules, wrong rules for shapes and dtypes, wrong compilation. */
import { battery, edges, type Fault, faultsOf, named, wasm } from './fault.ts';

const batching = [
  ...faultsOf(
    'ops/layout.ts',
    [
      'permute(x!, [0, ...a.perm.map((p) => p + 1)])',
      'permute(x!, [0, ...a.perm.map((_, i) => a.perm.indexOf(i) + 1)])',
      'permute: inverse order',
      battery('permute'),
    ],
    ['      a.axes.map((i) => i + 1),', '      a.axes,', 'flip: the samples are flipped', battery('flip')],
  ),
  ...faultsOf('ops/reduce.ts', [
    '{ axes: a.axes.map((i) => i + 1) }',
    '{ axes: a.axes }',
    'sum: over the samples',
    battery('sum'),
  ]),
  ...faultsOf('ops/slice.ts', [
    'interior: [0, ...a.interior], value: a.value',
    'interior: [0, ...a.interior], value: 0',
    'pad: value',
    battery('pad'),
  ]),
  ...faultsOf('ops/concat.ts', [
    'mapAll(size, inputs, mapped), { axis: a.axis + 1 }',
    'mapAll(size, inputs, mapped), { axis: a.axis }',
    'concat: axis',
    battery('concat'),
  ]),
  ...faultsOf(
    'ops/gather.ts',
    [
      'return inside(ids, rows, add(ids, mul(iota(ids.shape, 0, ids.dtype), rows)));',
      'return add(ids, mul(iota(ids.shape, 0, ids.dtype), rows));',
      'gather: ids outside reach rows of other samples',
      battery('gather'),
    ],
    [
      'inside(ids, x.shape[at]!, broadcastTo(flat, ids.shape))',
      'broadcastTo(flat, ids.shape)',
      'takeAlong: ids outside reach other rows',
      edges('cpu', 'takeAlong of columns'),
    ],
    [
      "less(cast(ids, 'u32'), rows)",
      'less(ids, rows)',
      'gather: negative ids count as inside',
      battery('gather', 'scatterAdd'),
    ],
  ),
  ...faultsOf(
    'ops/dot.ts',
    [
      '[permute(reshape(y, [g, size, m, n]), [1, 0, 2, 3])]',
      '[reshape(y, [size, g, m, n])]',
      'dot: samples of the left mixed with groups',
      battery('dot'),
    ],
    [
      '[permute(reshape(y, [g, m, size, n]), [2, 0, 1, 3])]',
      '[reshape(y, [size, g, m, n])]',
      'dot: samples of the right mixed with columns',
      battery('dot'),
    ],
  ),
  ...faultsOf(
    'ops/conv.ts',
    ['if (!xMapped && a.groups === 1)', 'if (!xMapped)', 'conv: groups of shared pictures', battery('conv')],
    [
      'permute(reshape(x, [...x.shape.slice(0, 3), size, x.shape[3]! / size]), [3, 0, 1, 2, 4])',
      'permute(reshape(x, [...x.shape.slice(0, 3), x.shape[3]! / size, size]), [4, 0, 1, 2, 3])',
      'conv: channels mixed with samples',
      battery('conv'),
    ],
  ),
  ...faultsOf(
    'fused/norm.ts',
    [
      'if (!xMapped || gMapped || bMapped) return undefined;',
      'if (!xMapped) return undefined;',
      'norm: γ of each sample',
      battery('norm'),
    ],
    [
      'if (mapped.some((m, i) => m === (i === 2 || i === 5))) return undefined;',
      'if (!mapped[1]) return undefined;',
      'normGrad: γ of each sample',
      battery('normGrad'),
    ],
  ),
  ...faultsOf(
    'ops/batching.ts',
    [
      'mapped[i] ? x : repeat(x, size)',
      'mapped[i] ? x : repeat(x, 1)',
      'what is not mapped is not repeated',
      battery('add'),
    ],
    [
      'reshape(x, [size, x.shape[0]! / size, ...x.shape.slice(1)])',
      'reshape(x, [size, ...x.shape.slice(1), x.shape[0]! / size])',
      'unfold: rows last',
      battery('attention'),
    ],
  ),
  ...faultsOf(
    'transforms/vmap.ts',
    [
      '[...rest.slice(0, axis), 0, ...rest.slice(axis)]',
      '[0, ...rest]',
      'vmap: out-axes',
      edges('cpu', 'samples last'),
    ],
    [
      'return axis < 0 ? axis + rank : axis;',
      'return Math.max(axis, 0);',
      'vmap: negative axes',
      edges('cpu', 'samples last'),
    ],
    [
      'env.get(y) ?? repeat(y, size)',
      'env.get(y) ?? y',
      'vmap: results no sample reaches',
      named('transforms'),
      named('functions'),
    ],
  ),
];
const checks = [
  ...faultsOf(
    'ir/rules.ts',
    [
      '!Number.isInteger(n) || n < least)',
      '!Number.isInteger(n) || n < least - 1)',
      'one below what is allowed',
      named('refusals'),
    ],
    [
      '!Number.isInteger(axis) || axis < -rank || axis >= rank',
      '!Number.isInteger(axis) || axis < -rank || axis > rank',
      'an axis behind the last',
      named('refusals'),
      named('errors', '^shape errors'),
    ],
    ['new Set(all).size !== all.length', 'all.length < 0', 'an axis twice', named('refusals')],
    [
      'which.some((x) => x.dtype !== which[0]!.dtype)',
      'which.length < 0',
      'operands of two dtypes',
      named('refusals'),
      named('errors', '^shape errors'),
    ],
    ["ids.dtype !== 'i32' && ids.dtype !== 'u32'", "ids.dtype === 'bool'", 'float ids', named('refusals')],
    [
      'Number.isInteger(value) && value >= -(2 ** 31)',
      'value >= -(2 ** 31)',
      'a fraction beside integers',
      named('refusals'),
    ],
  ),
  ...faultsOf(
    'ops/elementwise.ts',
    [".some((x) => x.dtype !== 'bool')", ".some((x) => x.dtype === 'f64')", 'a number as condition', named('refusals')],
    [
      'integer: (a, b) => Math.imul(a, b),',
      'integer: (a, b) => a * b,',
      'products above 2⁵³',
      edges('cpu', 'products modulo'),
    ],
    ['Math.trunc(a / b)', 'Math.floor(a / b)', 'quotients of negatives', edges('cpu', 'quotients')],
    ['b === 0 ? 0 : Math', 'b === 0 ? 1 : Math', 'n/0', edges('cpu', 'quotients')],
  ),
  ...faultsOf('ops/reduce.ts', [
    "checkDtypes('mean', [x], 'float');",
    "checkDtypes('mean', [x], 'number');",
    'mean of integers',
    named('refusals'),
  ]),
  ...faultsOf(
    'ops/cast.ts',
    ['Math.trunc(x)));', 'Math.floor(x)));', 'towards −∞', edges('cpu', 'cast to i32')],
    ['Number.isNaN(x) ? 0', 'Number.isNaN(x) ? 1', 'NaN', edges('cpu', 'cast to i32')],
  ),
  ...faultsOf('ir/dtype.ts', [
    "d === 'i32' ? -(2 ** 31) : isFloat(d) ? Number.NEGATIVE_INFINITY : 0",
    'isFloat(d) ? Number.NEGATIVE_INFINITY : 0',
    'the maximum of integers over nothing',
    edges('cpu', 'max of i32 over nothing'),
  ]),
  ...faultsOf('transforms/grad.ts', [
    '!isFloat(ct.dtype) || ct.shape.join() !== y.shape.join()',
    '!isFloat(ct.dtype)',
    'a cotangent of another shape',
    named('refusals'),
    named('transforms'),
  ]),
  ...faultsOf('ops/conv.ts', [
    'if (cg * a.groups !== c || o % a.groups !== 0)',
    'if (o % a.groups !== 0)',
    'channels that do not fit',
    named('refusals'),
    named('errors', '^shape errors'),
  ]),
  ...faultsOf('ops/slice.ts', [
    'a.stop[i]! > x.shape[i]! ||',
    'a.stop[i]! > x.shape[i]! + 1 ||',
    'one behind the last element',
    named('refusals'),
    named('errors', '^shape errors'),
  ]),
  ...faultsOf('ops/dot.ts', [
    'if (ka !== kb)',
    'if (ka! < kb!)',
    'lengths that differ',
    named('refusals'),
    named('errors', '^shape errors'),
  ]),
];
const randomness = faultsOf(
  'ops/random.ts',
  ['[13, 15, 26, 6, 17, 29, 16, 24]', '[13, 15, 26, 6, 17, 29, 16, 25]', 'Threefry: a rotation', named('keys')],
  ['div(bits(k, [n]), 512)', 'div(bits(k, [n]), 256)', 'uniform: up to 2', named('keys')],
  ['cos(mul(2 * Math.PI, u2))', 'cos(mul(Math.PI / 2, u2))', 'normal: half a turn', named('keys')],
);
const compilation = [
  ...faultsOf(
    'compile/simplify.ts',
    [
      '  alike(a.attrs, attrs);',
      '  alike(attrs, attrs);',
      'merging: attributes do not count',
      named('simplify', '^common'),
    ],
    [
      'if (Object.is(a, b)) return true;',
      'if (a === b || Object.is(a, b)) return true;',
      'merging: 0 and −0',
      named('simplify', '^common'),
      edges('cpu', '1/−0'),
    ],
  ),
  ...faultsOf(
    'compile/lower.ts',
    ["Object.is(x, -0) ? '-0' : String(x)", 'String(x)', '0 and −0 in one kernel', named('prepare')],
    [
      'const whole = isWhole(o.view) && o.buffer.elements === sizeOf(t.shape);',
      'const whole = isWhole(o.view);',
      'a result that is the front of a buffer',
      named('lower', '^(layouts|blocks|donated|clusters)'),
    ],
    [
      'if (!whole || taken.has(buffer)) {',
      'if (!whole) {',
      'a result is the argument itself',
      named('compile', 'a result shares no storage'),
    ],
  ),
  ...faultsOf(
    'compile/plan.ts',
    [
      'ends[e]!.end < s.start) {',
      'ends[e]!.end <= s.start) {',
      'an operand is overwritten while it is read',
      named('workspace'),
      named('lower', '^(layouts|blocks|donated|clusters)'),
      named('wasm/cluster'),
      wasm('softmax of 65', 'an elementwise chain', 'attention, 33 of 65'),
    ],
    [
      'return last < at;',
      'return last <= at;',
      'a donated input is overwritten while it is read',
      named('lower', '^(layouts|blocks|donated|clusters)'),
    ],
  ),
  ...faultsOf(
    'compile/bodies.ts',
    [
      'same(a.view.strides, b.view.strides);',
      'true;',
      'a body is lowered for operands that lie otherwise',
      named('once', 'operands that lie in any way'),
    ],
    [
      '.filter((_, i) => isRead[i])',
      '',
      'a body: results nobody reads shift the others',
      named('once', 'what nobody reads'),
    ],
  ),
  ...faultsOf(
    'transforms/once.ts',
    ['${flags(wanted)}`', '`', 'a derivative is taken for that of another argument', named('once', 'each derivative')],
    [
      '`vmap ${size} ${flags(mapped)}`',
      '`vmap ${flags(mapped)}`',
      'a mapped function is taken for one of another size',
      named('once', 'mapped over'),
    ],
    [
      'captured.find((t) => areTraced([t]))',
      'captured.find(() => false)',
      'an argument of another trace is kept for ever',
      named('once', 'is refused where it is captured'),
    ],
  ),
  ...faultsOf('compile/merge.ts', [
    'if (!made.every((b) => points(k, b))) return undefined;',
    '',
    'a value is read at another point than it is made',
    named('lower', '^(layouts|blocks|donated|clusters)'),
  ]),
  ...faultsOf('compile/interpret.ts', [
    "total[to] = c.reduce.op === 'sum' ? total[to]! + v",
    "total[to] = c.reduce.op === 'sum' ? total[to]! - v",
    'the meaning of a sum',
    named('lower', '^(layouts|blocks|donated|clusters)'),
  ]),
  ...faultsOf(
    'ir/view.ts',
    [
      'last.stride === stride * size',
      'last.stride >= stride * size',
      'reshape: a jump is overlooked',
      battery('reshape', 'conv'),
      named('lower', '^(layouts|blocks|donated|clusters)'),
    ],
    ['(v.shape[a]! - 1) * v.strides[a]!', '(v.shape[a]! - 2) * v.strides[a]!', 'flip: one off', battery('flip')],
    [
      'offset: v.offset + start.reduce((o, s, i) => o + s * v.strides[i]!, 0),',
      'offset: v.offset + start.reduce((o, s, i) => o + s * Math.abs(v.strides[i]!), 0),',
      'slice of what is flipped',
      named('lower', '^(layouts|blocks|donated|clusters)'),
      battery('triangularSolve', 'slice', 'flip'),
    ],
  ),
];
export const rules: readonly Fault[] = [...batching, ...checks, ...randomness, ...compilation];

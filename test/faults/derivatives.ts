// biome-ignore-all lint/suspicious/noTemplateCurlyInString: the faults quote templates
/** Wrong derivatives. */
import { battery, edges, type Fault, faultsOf, named } from './fault.ts';

const elementwise = faultsOf(
  'ops/elementwise.ts',
  ['js: (x) => -x, vjp: (g) => [neg(g)]', 'js: (x) => -x, vjp: (g) => [g]', 'neg: sign', battery('neg')],
  ['vjp: (g, _x, y) => [mul(g, y)]', 'vjp: (g, _x, y) => [mul(g, mul(y, 0.999))]', 'exp: a thousandth', battery('exp')],
  ['[div(g, x!)]', '[mul(g, x!)]', 'log: times instead of over', battery('log')],
  ['[div(mul(g, 0.5), y)]', '[div(g, y)]', 'sqrt: the half', battery('sqrt')],
  ['div(mul(-0.5, y), x!)', 'mul(-0.5, y)', 'rsqrt: the quotient', battery('rsqrt')],
  ['neg(mul(g, mul(y, y)))', 'neg(mul(g, y))', 'recip: the square', battery('recip')],
  [
    'vjp: (g, [x]) => [mul(g, cos(x!))]',
    'vjp: (g, [x]) => [mul(g, sin(x!))]',
    'sin: not its derivative',
    battery('sin'),
  ],
  ['[neg(mul(g, sin(x!)))]', '[mul(g, sin(x!))]', 'cos: sign', battery('cos')],
  ['sub(1, mul(y, y))', 'sub(1, y)', 'tanh: the square', battery('tanh')],
  ['mul(2 / Math.sqrt(Math.PI), exp', 'mul(1 / Math.sqrt(Math.PI), exp', 'erf: factor', battery('erf')],
  ['[mul(g, mul(y, sub(1, y)))]', '[mul(g, mul(y, y))]', 'sigmoid: 1 − y', battery('sigmoid')],
  ['[g, neg(g)]', '[g, g]', 'sub: sign of the second', battery('sub')],
  ['[mul(g, b!), mul(g, a!)]', '[mul(g, a!), mul(g, b!)]', 'mul: operands exchanged', battery('mul')],
  ['neg(mul(div(g, b!), y))', 'neg(mul(g, y))', 'div: the quotient by b', battery('div')],
  [
    '[mul(g, winner(a!, b!)), mul(g, winner(b!, a!))]',
    '[mul(g, winner(b!, a!)), mul(g, winner(a!, b!))]',
    'maximum: the loser is paid',
    battery('maximum'),
  ],
  ['select(equal(a, b), 0.5,', 'select(equal(a, b), 1,', 'maximum: both win a tie', edges('cpu', 'tie')],
  ['select(c!, 0, g)]', 'g]', 'select: what was not chosen is paid', battery('select')],
);
const structure = [
  ...faultsOf(
    'ops/reduce.ts',
    ['[expandTo(g!, x!.shape)]', '[mul(expandTo(g!, x!.shape), 2)]', 'sum: twice', battery('sum')],
    [
      'div(g!, sumKeep(hit, a.axes))',
      'expandTo(g!, x!.shape)',
      'max: all of a tie are paid in full',
      edges('cpu', 'tie'),
    ],
    ['cast(equal(x!, y!), g!.dtype)', 'cast(equal(x!, x!), g!.dtype)', 'max: everybody is paid', battery('max')],
  ),
  ...faultsOf(
    'ops/layout.ts',
    [
      'a.perm.map((_, i) => a.perm.indexOf(i))',
      '[...a.perm]',
      'permute: the order itself, not its inverse',
      battery('permute'),
    ],
    ['vjp: ([g], _x, a) => [flip(g!, a.axes)]', 'vjp: ([g]) => [g]', 'flip: not flipped back', battery('flip')],
  ),
  ...faultsOf(
    'ops/slice.ts',
    ['const low = a.start;', 'const low = a.start.map(() => 0);', 'slice: put back at the front', battery('slice')],
    [
      'const interior = a.step.map((s) => s - 1);',
      'const interior = a.step.map(() => 0);',
      'slice: put back side by side',
      battery('slice'),
    ],
    [
      'step: a.interior.map((n) => n + 1),',
      'step: a.interior.map(() => 1),',
      'pad: what stood between is read',
      battery('pad'),
    ],
  ),
  ...faultsOf('ops/concat.ts', [
    'slice(g!, { axis: a.axis, start, stop: at })',
    'slice(g!, { axis: a.axis, start: 0, stop: at - start })',
    'concat: all read from the front',
    battery('concat'),
  ]),
  ...faultsOf(
    'ops/gather.ts',
    [
      '[scatterAdd(g!, ids!, x!.shape[0]!), undefined]',
      '[mul(scatterAdd(g!, ids!, x!.shape[0]!), 2), undefined]',
      'gather: twice',
      battery('gather'),
    ],
    [
      '[gather(t!, ids!), undefined]',
      '[mul(gather(t!, ids!), 2), undefined]',
      'scatterAdd: twice',
      battery('scatterAdd'),
    ],
  ),
  ...faultsOf('ops/dot.ts', [
    'dot(swap(a!), g!)]',
    'mul(dot(swap(a!), g!), 1.001)]',
    'dot: a thousandth',
    battery('dot'),
  ]),
  ...faultsOf(
    'ops/conv.ts',
    [
      '[conv(t!, w!, a), convKernel(t!, g!,',
      '[conv(t!, w!, a), convKernel(t!, conv(t!, w!, a),',
      'convInput: the cotangent of w',
      battery('convInput'),
    ],
    [
      'conv(x!, t!, a)],',
      'conv(x!, t!, { ...a, pad: [a.pad[1], a.pad[0]] })],',
      'convKernel: paddings exchanged',
      battery('convKernel'),
    ],
  ),
  ...faultsOf(
    'ops/pow.ts',
    ['bind(powOp, [a!, sub(b!, 1)], {})', 'bind(powOp, [a!, sub(b!, 2)], {})', 'pow: exponent', battery('pow')],
    [
      'select(equal(y!, 0), 0, mul(y!, log(a!)))',
      'mul(y!, log(a!))',
      'pow: by the exponent at 0',
      edges('cpu', 'by the exponent'),
    ],
  ),
];
const composites = [
  ...faultsOf(
    'fused/norm.ts',
    ['sub(sub(gh, mean(gh, [1, 3], true)), mul(', 'sub(gh, mul(', 'norm: the mean of ĝ', battery('norm', 'normGrad')],
    ['add(mul(y, sub(1, s)), 1)', 'add(mul(y, s), 1)', 'silu: 1 − s', battery('norm', 'normGrad')],
    [
      '[dx, sum(dgamma!, 0), sum(dbeta!, 0)]',
      '[dx, sum(dbeta!, 0), sum(dgamma!, 0)]',
      'norm: γ and β exchanged',
      battery('norm'),
    ],
  ),
  ...faultsOf(
    'fused/attention.ts',
    [
      'sum(mul(gh, oh), 2, true))), a.scale)',
      'sum(mul(gh, oh), 2, true))), 1)',
      'attention: scale',
      battery('attention'),
    ],
    [
      'sub(dot(gh, swap(vh)), sum(mul(gh, oh), 2, true))',
      'dot(gh, swap(vh))',
      'attention: the row sum',
      battery('attention'),
    ],
  ),
  ...faultsOf('fused/softmax.ts', [
    'sub(g!, sum(mul(g!, y!), -1, true))',
    'sub(g!, sum(g!, -1, true))',
    'softmax: weights of the sum',
    battery('softmax'),
  ]),
  ...faultsOf(
    'functions/smooth.ts',
    ['slope: ([x]) => [exp(x!)]', 'slope: ([x]) => [x!]', 'expm1', battery('expm1')],
    ['slope: ([x]) => [recip(add(x!, 1))]', 'slope: ([x]) => [recip(x!)]', 'log1p', battery('log1p')],
    ['slope: ([x]) => [recip(add(square(x!), 1))]', 'slope: ([x]) => [recip(add(x!, 1))]', 'atan', battery('atan')],
    ['[div(x!, length), neg(div(y!, length))]', '[div(x!, length), div(y!, length)]', 'atan2: sign', battery('atan2')],
    ['slope: ([x]) => [neg(rsqrt(', 'slope: ([x]) => [(rsqrt(', 'acos: sign', battery('acos')],
    ['slope: ([x]) => [sigmoid(x!)]', 'slope: ([x]) => [sigmoid(neg(x!))]', 'softplus: sign', battery('softplus')],
    [
      'slope: (_x, y) => [mul(exp(square(y)), Math.sqrt(Math.PI) / 2)]',
      'slope: (_x, y) => [mul(exp(y), Math.sqrt(Math.PI) / 2)]',
      'erfInv: square',
      battery('erfInv'),
    ],
  ),
  ...faultsOf(
    'functions/linalg/triangular.ts',
    [
      '[neg(tril(dot(db, transpose(x!)))), db]',
      '[neg(dot(db, transpose(x!))), db]',
      'triangularSolve: above the diagonal',
      battery('triangularSolve'),
    ],
    [
      'halfLower(dot(transpose(l!), tril(g!)))',
      'tril(dot(transpose(l!), tril(g!)))',
      'cholesky: half the diagonal',
      battery('cholesky'),
    ],
  ),
  ...faultsOf('functions/linalg/qr.ts', [
    'add(tril(m), transpose(tril(m, -1)))',
    'tril(m)',
    'qr: not mirrored',
    battery('qr'),
  ]),
  ...faultsOf(
    'functions/linalg/eigen.ts',
    [
      'sub(unsqueeze(v, 1), unsqueeze(v, 2))',
      'sub(unsqueeze(v, 2), unsqueeze(v, 1))',
      'eigh, svd: sign of the gaps',
      battery('eigh', 'svd'),
    ],
    ['mul(skew(u!, gu), row)', 'mul(skew(u!, gu), unsqueeze(s!, 2))', 'svd: rows for columns', battery('svd')],
  ),
];
const transforms = [
  ...faultsOf(
    'transforms/grad.ts',
    ['total.has(t) ? add(total.get(t)!, g) : g', 'g', 'grad: the last use counts alone', battery('norm')],
    [
      'if (gs.every((g) => g === undefined)) continue;',
      '',
      'grad: comparisons are asked for a derivative',
      battery('relu', 'leakyRelu'),
    ],
  ),
  ...faultsOf('transforms/jvp.ts', [
    'permute(p, [...last, 0])',
    'p',
    'jacobian: columns for rows',
    named('transforms', 'Jacobian'),
  ]),
  ...faultsOf('transforms/scan.ts', [
    'carry = next;',
    'carry = start;',
    'scan: nothing is carried',
    named('transforms', 'scan'),
  ]),
];
export const derivatives: readonly Fault[] = [...elementwise, ...structure, ...composites, ...transforms];

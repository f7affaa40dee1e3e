/**
 * Attention without a score matrix (Dao et al. 2022): one thread owns one query row (forward, dq) or one key row (dk, dv)
 * and walks the other side four rows at a time with a running maximum. Neighbouring threads own neighbouring rows, so
 * what they walk over is the same for all of them. The width of a head is text, all other sizes are uniforms.
 */
import type { AttentionAttrs } from '../../fused/attention.ts';
import type { AdapterClass } from './device.ts';
import { assemble, ceilDiv, createParams, type Kernel, type Recipe } from './kernel.ts';
import { range } from './registerTile.ts';

export interface AttentionSizes {
  readonly b: number;
  /** query rows and key rows */
  readonly m: number;
  readonly n: number;
  /** heads·d */
  readonly c: number;
}

const threads: Readonly<Record<AdapterClass, number>> = { cpu: 8, gpu: 64 };

/** Uniforms and accessors that all three kernels share. */
const common = ({ m, n, c }: AttentionSizes, { heads, scale }: AttentionAttrs) => {
  const p = createParams();
  const d = c / heads;
  const vector = d % 4 === 0;
  const vecs = ceilDiv(d, 4);
  const [pm, pn, pc, pHeads, pScale] = [p.word(m), p.word(n), p.word(c), p.word(heads), p.float(scale)];
  return {
    p,
    d,
    vecs,
    vector,
    type: vector ? 'vec4<f32>' : 'f32',
    m: pm,
    n: pn,
    heads: pHeads,
    scale: pScale,
    /** element (or vec4) index of `row` of this thread's head */
    row: (rows: string, row: string) => {
      const at = `(id.z * ${rows} + ${row}) * ${pc} + id.y * ${d}u`;
      return vector ? `(${at}) / 4u` : at;
    },
    /** vec4 number v of a row that starts at `base` */
    load: (name: string, base: string, v: number) =>
      vector
        ? `${name}[${base} + ${v}u]`
        : `vec4<f32>(${range(4)
            .map((k) => (4 * v + k < d ? `${name}[${base} + ${4 * v + k}u]` : '0.0'))
            .join(', ')})`,
    store: (name: string, base: string, v: number, value: string) =>
      vector
        ? `${name}[${base} + ${v}u] = ${value};`
        : range(Math.min(4, d - 4 * v))
            .map((k) => `${name}[${base} + ${4 * v + k}u] = (${value})[${k}];`)
            .join(' '),
  };
};
type Common = ReturnType<typeof common>;

const loads = (s: Common, prefix: string, name: string, base: string): string =>
  range(s.vecs)
    .map((v) => `let ${prefix}${v} = ${s.load(name, base, v)};`)
    .join(' ');
const product = (s: Common, a: string, b: string): string =>
  range(s.vecs)
    .map((v) => `dot(${a}${v}, ${b}${v})`)
    .join(' + ');
const zeros = (s: Common, name: string): string =>
  range(s.vecs)
    .map((v) => `var ${name}${v} = vec4<f32>(0.0);`)
    .join(' ');

const finish = (
  name: string,
  { p, type }: Common,
  reads: readonly string[],
  writes: readonly string[],
  scalars: ReadonlySet<string>,
  body: string,
  adapter: AdapterClass,
  rows: number,
  { b }: AttentionSizes,
  heads: number,
): Kernel => {
  const binding = (n: string) => ({ name: n, type: scalars.has(n) ? 'f32' : type });
  return {
    name,
    code: assemble(
      p,
      reads.map(binding),
      writes.map(binding),
      `@compute @workgroup_size(${threads[adapter]})
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>) {
  let own = id.x * ${threads[adapter]}u + local.x;
  ${body}
}
`,
    ),
    params: p.words(),
    groups: [ceilDiv(rows, threads[adapter]), heads, b],
    reads: reads.length,
    writes: writes.length,
  };
};

/** scores of four keys `j…j+3` (rows kJ_v) against the own query; hidden ones are −1e30 */
const hide = (s: Common, causal: boolean): string =>
  `select(vec4<f32>(-1e30), score, (keys < vec4(${s.n}))${causal ? ' & (keys <= vec4(own))' : ''})`;

const four = (f: (k: number) => string): string => range(4).map(f).join('\n    ');

const input = (index: number) => ({ from: 'input' as const, index });
const output = (index: number) => ({ from: 'output' as const, index });

/** q, k, v → o and the log-sum-exp of each row. Cost 4·b·m·n·c flop. */
export const attentionRecipe = (sizes: AttentionSizes, a: AttentionAttrs, adapter: AdapterClass): Recipe => {
  const s = common(sizes, a);
  const body = `if (own >= ${s.m}) { return; }
  let qi = ${s.row(s.m, 'own')};
  ${loads(s, 'q', 'q', 'qi')}
  ${zeros(s, 'o')}
  var top = -3e38; var total = 0.0;
  let last = ${a.causal ? `min(${s.n}, own + 1u)` : s.n};
  for (var j = 0u; j < last; j += 4u) {
    ${four((k) => `let r${k} = ${s.row(s.n, `min(j + ${k}u, ${s.n} - 1u)`)}; ${loads(s, `k${k}_`, 'k', `r${k}`)}`)}
    var score = ${s.scale} * vec4(${range(4)
      .map((k) => product(s, 'q', `k${k}_`))
      .join(', ')});
    let keys = vec4(j) + vec4(0u, 1u, 2u, 3u);
    score = ${hide(s, a.causal)};
    let best = max_1(top, max_1(max_1(score.x, score.y), max_1(score.z, score.w)));
    let shrink = exp_1(top - best);
    let w = exp_4(score - best);
    top = best;
    total = total * shrink + (w.x + w.y + w.z + w.w);
    ${four((k) => loads(s, `v${k}_`, 'v', `r${k}`))}
    ${range(s.vecs)
      .map(
        (v) =>
          `o${v} = o${v} * shrink + (${range(4)
            .map((k) => `w[${k}] * v${k}_${v}`)
            .join(' + ')});`,
      )
      .join(' ')}
  }
  ${range(s.vecs)
    .map((v) => s.store('o', 'qi', v, `o${v} / total`))
    .join('\n  ')}
  lse[(id.z * ${s.heads} + id.y) * ${s.m} + own] = top + log_1(total);`;
  const kernel = finish(
    'attention',
    s,
    ['q', 'k', 'v'],
    ['o', 'lse'],
    new Set(['lse']),
    body,
    adapter,
    sizes.m,
    sizes,
    a.heads,
  );
  return {
    launches: [
      {
        kernel,
        operands: [...range(3).map(input), output(0), output(1)],
      },
    ],
    scratch: [],
  };
};
/** g, q, k, v, o, lse → dq, dk, dv. The scores are computed again. Cost 10·b·m·n·c flop. */
export const attentionGradRecipe = (sizes: AttentionSizes, a: AttentionAttrs, adapter: AdapterClass): Recipe => {
  const query = common(sizes, a);
  const lseAt = (s: Common, row: string) => `(id.z * ${s.heads} + id.y) * ${s.m} + ${row}`;
  const forQuery = (s: Common) => `if (own >= ${s.m}) { return; }
  let qi = ${s.row(s.m, 'own')};
  ${loads(s, 'q', 'q', 'qi')}
  ${loads(s, 'g', 'g', 'qi')}
  ${loads(s, 'o', 'o', 'qi')}
  ${zeros(s, 'dq')}
  let sum = ${product(s, 'g', 'o')};
  rowsum[${lseAt(s, 'own')}] = sum;
  let log_total = lse[${lseAt(s, 'own')}];
  let last = ${a.causal ? `min(${s.n}, own + 1u)` : s.n};
  for (var j = 0u; j < last; j += 4u) {
    ${four((k) => `let r${k} = ${s.row(s.n, `min(j + ${k}u, ${s.n} - 1u)`)}; ${loads(s, `k${k}_`, 'k', `r${k}`)} ${loads(s, `v${k}_`, 'v', `r${k}`)}`)}
    var score = ${s.scale} * vec4(${range(4)
      .map((k) => product(s, 'q', `k${k}_`))
      .join(', ')});
    let keys = vec4(j) + vec4(0u, 1u, 2u, 3u);
    score = ${hide(s, a.causal)};
    let weight = exp_4(score - log_total);
    let dp = vec4(${range(4)
      .map((k) => product(s, 'g', `v${k}_`))
      .join(', ')});
    let ds = ${s.scale} * weight * (dp - sum);
    ${range(s.vecs)
      .map(
        (v) =>
          `dq${v} += ${range(4)
            .map((k) => `ds[${k}] * k${k}_${v}`)
            .join(' + ')};`,
      )
      .join(' ')}
  }
  ${range(s.vecs)
    .map((v) => s.store('dq', 'qi', v, `dq${v}`))
    .join('\n  ')}`;
  const first = finish(
    'attentionGrad q',
    query,
    ['g', 'q', 'k', 'v', 'o', 'lse'],
    ['dq', 'rowsum'],
    new Set(['lse', 'rowsum']),
    forQuery(query),
    adapter,
    sizes.m,
    sizes,
    a.heads,
  );

  const key = common(sizes, a);
  const forKey = (s: Common) => `if (own >= ${s.n}) { return; }
  let kj = ${s.row(s.n, 'own')};
  ${loads(s, 'k', 'k', 'kj')}
  ${loads(s, 'v', 'v', 'kj')}
  ${zeros(s, 'dk')}
  ${zeros(s, 'dv')}
  for (var i = ${a.causal ? 'own / 4u * 4u' : '0u'}; i < ${s.m}; i += 4u) {
    ${four((k) => `let i${k} = min(i + ${k}u, ${s.m} - 1u); let r${k} = ${s.row(s.m, `i${k}`)}; ${loads(s, `q${k}_`, 'q', `r${k}`)} ${loads(s, `g${k}_`, 'g', `r${k}`)}`)}
    var score = ${s.scale} * vec4(${range(4)
      .map((k) => product(s, 'k', `q${k}_`))
      .join(', ')});
    score -= vec4(${range(4)
      .map((k) => `lse[${lseAt(s, `i${k}`)}]`)
      .join(', ')});
    let queries = vec4(i) + vec4(0u, 1u, 2u, 3u);
    let seen = (queries < vec4(${s.m}))${a.causal ? ' & (vec4(own) <= queries)' : ''};
    let weight = select(vec4<f32>(0.0), exp_4(score), seen);
    let dp = vec4(${range(4)
      .map((k) => product(s, 'v', `g${k}_`))
      .join(', ')});
    let ds = ${s.scale} * weight * (dp - vec4(${range(4)
      .map((k) => `rowsum[${lseAt(s, `i${k}`)}]`)
      .join(', ')}));
    ${range(s.vecs)
      .map(
        (v) =>
          `dv${v} += ${range(4)
            .map((k) => `weight[${k}] * g${k}_${v}`)
            .join(' + ')};`,
      )
      .join(' ')}
    ${range(s.vecs)
      .map(
        (v) =>
          `dk${v} += ${range(4)
            .map((k) => `ds[${k}] * q${k}_${v}`)
            .join(' + ')};`,
      )
      .join(' ')}
  }
  ${range(s.vecs)
    .map((v) => `${s.store('dk', 'kj', v, `dk${v}`)} ${s.store('dv', 'kj', v, `dv${v}`)}`)
    .join('\n  ')}`;
  const second = finish(
    'attentionGrad k v',
    key,
    ['g', 'q', 'k', 'v', 'lse', 'rowsum'],
    ['dk', 'dv'],
    new Set(['lse', 'rowsum']),
    forKey(key),
    adapter,
    sizes.n,
    sizes,
    a.heads,
  );
  const scratch = { from: 'scratch', index: 0 } as const;
  return {
    launches: [
      { kernel: first, operands: [...range(6).map(input), output(0), scratch] },
      { kernel: second, operands: [input(0), input(1), input(2), input(3), input(5), scratch, output(1), output(2)] },
    ],
    scratch: [4 * sizes.b * a.heads * sizes.m],
  };
};

/**
 * Attention without a score matrix (Dao et al. 2022): a thread owns a few query rows (forward, dq) or key rows (dk, dv) and
 * walks the other side row by row with a running maximum. What neighbouring threads walk over is the same for all of
 * them. The width of a head and the rows per thread are text, all other sizes are uniforms.
 */
import type { AttentionAttrs } from '../../fused/attention.ts';
import type { AdapterClass } from './device.ts';
import { assemble, ceilDiv, createParams, type Kernel, type Operand, type Recipe } from './kernel.ts';
import { range } from './registerTile.ts';

export interface AttentionSizes {
  readonly b: number;
  /** query rows and key rows */
  readonly m: number;
  readonly n: number;
  /** heads·d */
  readonly c: number;
}

/**
 * Threads of a workgroup, and rows a thread owns. Loads are what software drivers are slow at, so each serves four rows
 * there while heads are narrow: LLVM takes 10 s for four rows of 16 in the gradient. GPUs need many threads with few
 * registers.
 */
const chooseShape = (
  adapter: AdapterClass,
  vecs: number,
  widest: number,
): { readonly threads: number; readonly rows: 1 | 4 } =>
  adapter === 'gpu' ? { threads: 64, rows: 1 } : { threads: 8, rows: vecs <= widest ? 4 : 1 };

/** Uniforms, names and small texts that all three kernels share. */
const common = (
  { b, m, n, c }: AttentionSizes,
  { heads, scale }: AttentionAttrs,
  adapter: AdapterClass,
  side: 'query' | 'key',
  widest: number,
) => {
  const p = createParams();
  const d = c / heads;
  const vector = d % 4 === 0;
  const vecs = ceilDiv(d, 4);
  const { threads, rows } = chooseShape(adapter, vecs, widest);
  const [pm, pn, pc, pHeads, pScale] = [p.word(m), p.word(n), p.word(c), p.word(heads), p.float(scale)];
  const owned = range(rows);
  /** element (or vec4) index of `row` of this thread's head */
  const rowAt = (count: string, row: string) => {
    const at = `(id.z * ${count} + ${row}) * ${pc} + id.y * ${d}u`;
    return vector ? `(${at}) / 4u` : at;
  };
  const load = (name: string, base: string, v: number) =>
    vector
      ? `${name}[${base} + ${v}u]`
      : `vec4<f32>(${range(4)
          .map((k) => (4 * v + k < d ? `${name}[${base} + ${4 * v + k}u]` : '0.0'))
          .join(', ')})`;
  /** index of a per-row number: head, then row */
  const numberAt = (row: string) => `(id.z * ${pHeads} + id.y) * ${pm} + ${row}`;
  const at = (r: number) => (rows === 4 ? `.${'xyzw'[r]}` : '');
  /** rows of the owned side, whose last own0, own1, … are clamped to */
  const rowCount = side === 'query' ? pm : pn;
  return {
    m: pm,
    n: pn,
    scale: pScale,
    owned,
    /** a value per owned row */
    S: rows === 4 ? 'vec4<f32>' : 'f32',
    exp: `exp_${rows}`,
    at,
    perRow: (f: (r: number) => string) => (rows === 4 ? `vec4<f32>(${owned.map(f).join(', ')})` : f(0)),
    rowAt,
    numberAt,
    /** leaves when there is nothing to do; `own0, own1, …` are the owned rows */
    own: `if (own >= ${rowCount}) { return; }
  ${owned.map((r) => `let own${r} = min(own + ${r}u, ${rowCount} - 1u);`).join(' ')}`,
    /** reads the owned rows in a loop: every place in the text that loads costs a software driver's compiler dearly */
    loadOwned: (name: string) => `var all_${name}: array<vec4<f32>, ${rows * vecs}>;
  for (var r = 0u; r < ${rows}u; r++) {
    let start = ${rowAt(rowCount, `min(own + r, ${rowCount} - 1u)`)};
    for (var part = 0u; part < ${vecs}u; part++) { ${
      vector
        ? `all_${name}[r * ${vecs}u + part] = ${name}[start + part];`
        : `for (var at = 4u * part; at < min(4u * part + 4u, ${d}u); at++) { all_${name}[r * ${vecs}u + part][at % 4u] = ${name}[start + at]; }`
    } }
  }
  ${owned.flatMap((r) => range(vecs).map((v) => `let ${name}${r}_${v} = all_${name}[${r * vecs + v}];`)).join(' ')}`,
    loadOther: (name: string) =>
      range(vecs)
        .map((v) => `let ${name}_${v} = ${load(name, 'other', v)};`)
        .join(' '),
    zeros: (name: string) =>
      owned
        .map((r) =>
          range(vecs)
            .map((v) => `var ${name}${r}_${v} = vec4<f32>(0.0);`)
            .join(' '),
        )
        .join('\n  '),
    /** dot product of owned row r with the other row */
    product: (owned: string, other: string) => (r: number) =>
      range(vecs)
        .map((v) => `dot(${owned}${r}_${v}, ${other}_${v})`)
        .join(' + '),
    each: (f: (r: number, v: number) => string) =>
      owned
        .map((r) =>
          range(vecs)
            .map((v) => f(r, v))
            .join(' '),
        )
        .join('\n    '),
    /** writes the owned rows from the values of (row, vec4) */
    storeOwned: (
      name: string,
      value: (r: number, v: number) => string,
    ) => `var all_${name} = array<vec4<f32>, ${rows * vecs}>(${owned
      .flatMap((r) => range(vecs).map((v) => value(r, v)))
      .join(', ')});
  for (var r = 0u; r < ${rows}u; r++) {
    if (own + r >= ${rowCount}) { break; }
    let to = ${rowAt(rowCount, 'own + r')};
    for (var part = 0u; part < ${vecs}u; part++) { ${
      vector
        ? `${name}[to + part] = all_${name}[r * ${vecs}u + part];`
        : `for (var at = 4u * part; at < min(4u * part + 4u, ${d}u); at++) { ${name}[to + at] = all_${name}[r * ${vecs}u + part][at % 4u]; }`
    } }
  }`,
    storeNumbers: (name: string, value: string) =>
      owned.map((r) => `if (own + ${r}u < ${pm}) { ${name}[${numberAt(`own${r}`)}] = ${value}${at(r)}; }`).join('\n  '),
    kernel: (name: string, reads: readonly string[], writes: readonly string[], body: string): Kernel => {
      const binding = (n: string) => ({ name: n, type: vector && n !== 'lse' && n !== 'rowsum' ? 'vec4<f32>' : 'f32' });
      return {
        name,
        code: assemble(
          p,
          reads.map(binding),
          writes.map(binding),
          `@compute @workgroup_size(${threads})
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>) {
  let own = (id.x * ${threads}u + local.x) * ${rows}u;
  ${body}
}
`,
        ),
        params: p.words(),
        groups: [ceilDiv(side === 'query' ? m : n, threads * rows), heads, b],
        reads: reads.length,
        writes: writes.length,
      };
    },
  };
};
type Common = ReturnType<typeof common>;

/** hides keys after the own rows */
const hideLater = (s: Common, causal: boolean): string =>
  causal
    ? `score = select(${s.S}(-1e30), score, ${s.perRow((r) => `own${r}`).replace('<f32>', '<u32>')} >= ${s.S.replace('f32', 'u32')}(j));`
    : '';

const input = (index: number): Operand => ({ from: 'input', index });
const output = (index: number): Operand => ({ from: 'output', index });
const scratch: Operand = { from: 'scratch', index: 0 };

/** q, k, v → o and the log-sum-exp of each row. Cost 4·b·m·n·c flop. */
export const attentionRecipe = (sizes: AttentionSizes, a: AttentionAttrs, adapter: AdapterClass): Recipe => {
  const s = common(sizes, a, adapter, 'query', 4);
  const any = s.owned.length === 4 ? 'any(score > top)' : 'score > top';
  const kernel = s.kernel(
    'attention',
    ['q', 'k', 'v'],
    ['o', 'lse'],
    `${s.own}
  ${s.loadOwned('q')}
  ${s.zeros('o')}
  var top = ${s.S}(-3e38); var total = ${s.S}(0.0);
  for (var j = 0u; j < ${a.causal ? `min(${s.n}, own + ${s.owned.length}u)` : s.n}; j++) {
    let other = ${s.rowAt(s.n, 'j')};
    ${s.loadOther('k')}
    var score = ${s.scale} * ${s.perRow(s.product('q', 'k'))};
    ${hideLater(s, a.causal)}
    if (${any}) {
      let best = max(top, score);
      let shrink = ${s.exp}(top - best);
      top = best;
      total *= shrink;
      ${s.each((r, v) => `o${r}_${v} *= shrink${s.at(r)};`)}
    }
    let w = ${s.exp}(score - top);
    total += w;
    ${s.loadOther('v')}
    ${s.each((r, v) => `o${r}_${v} += w${s.at(r)} * v_${v};`)}
  }
  let ends = top + log_${s.owned.length}(total);
  ${s.storeOwned('o', (r, v) => `o${r}_${v} / total${s.at(r)}`)}
  ${s.storeNumbers('lse', 'ends')}`,
  );
  return { launches: [{ kernel, operands: [...range(3).map(input), output(0), output(1)] }], scratch: [] };
};

/** dq, and Σ g·o of each query row for the second kernel */
const queryGradient = (sizes: AttentionSizes, a: AttentionAttrs, adapter: AdapterClass): Kernel => {
  const s = common(sizes, a, adapter, 'query', 2);
  return s.kernel(
    'attentionGrad q',
    ['g', 'q', 'k', 'v', 'o', 'lse'],
    ['dq', 'rowsum'],
    `${s.own}
  ${s.loadOwned('q')}
  ${s.loadOwned('g')}
  ${s.loadOwned('o')}
  ${s.zeros('dq')}
  let sum = ${s.perRow((r) => s.product('g', `o${r}`)(r))};
  let ends = ${s.perRow((r) => `lse[${s.numberAt(`own${r}`)}]`)};
  for (var j = 0u; j < ${a.causal ? `min(${s.n}, own + ${s.owned.length}u)` : s.n}; j++) {
    let other = ${s.rowAt(s.n, 'j')};
    ${s.loadOther('k')}
    ${s.loadOther('v')}
    var score = ${s.scale} * ${s.perRow(s.product('q', 'k'))};
    ${hideLater(s, a.causal)}
    let ds = ${s.scale} * ${s.exp}(score - ends) * (${s.perRow(s.product('g', 'v'))} - sum);
    ${s.each((r, v) => `dq${r}_${v} += ds${s.at(r)} * k_${v};`)}
  }
  ${s.storeOwned('dq', (r, v) => `dq${r}_${v}`)}
  ${s.storeNumbers('rowsum', 'sum')}`,
  );
};

/** dk and dv: the owned rows are keys, the others queries */
const keyGradient = (sizes: AttentionSizes, a: AttentionAttrs, adapter: AdapterClass): Kernel => {
  const s = common(sizes, a, adapter, 'key', 2);
  const seen = `${s.perRow((r) => `own${r}`).replace('<f32>', '<u32>')} <= ${s.S.replace('f32', 'u32')}(i)`;
  return s.kernel(
    'attentionGrad k v',
    ['g', 'q', 'k', 'v', 'lse', 'rowsum'],
    ['dk', 'dv'],
    `${s.own}
  ${s.loadOwned('k')}
  ${s.loadOwned('v')}
  ${s.zeros('dk')}
  ${s.zeros('dv')}
  for (var i = ${a.causal ? 'own' : '0u'}; i < ${s.m}; i++) {
    let other = ${s.rowAt(s.m, 'i')};
    ${s.loadOther('q')}
    ${s.loadOther('g')}
    var weight = ${s.exp}(${s.scale} * ${s.perRow(s.product('k', 'q'))} - lse[${s.numberAt('i')}]);
    ${a.causal ? `weight = select(${s.S}(0.0), weight, ${seen});` : ''}
    let ds = ${s.scale} * weight * (${s.perRow(s.product('v', 'g'))} - rowsum[${s.numberAt('i')}]);
    ${s.each((r, v) => `dv${r}_${v} += weight${s.at(r)} * g_${v}; dk${r}_${v} += ds${s.at(r)} * q_${v};`)}
  }
  ${s.storeOwned('dk', (r, v) => `dk${r}_${v}`)}
  ${s.storeOwned('dv', (r, v) => `dv${r}_${v}`)}`,
  );
};

/** g, q, k, v, o, lse → dq, dk, dv. The scores are computed again. Cost 10·b·m·n·c flop. */
export const attentionGradRecipe = (sizes: AttentionSizes, a: AttentionAttrs, adapter: AdapterClass): Recipe => ({
  launches: [
    { kernel: queryGradient(sizes, a, adapter), operands: [...range(6).map(input), output(0), scratch] },
    {
      kernel: keyGradient(sizes, a, adapter),
      operands: [input(0), input(1), input(2), input(3), input(5), scratch, output(1), output(2)],
    },
  ],
  scratch: [4 * sizes.b * a.heads * sizes.m],
});

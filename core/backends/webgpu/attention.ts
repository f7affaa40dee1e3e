/**
 * Attention without a score matrix (Dao et al. 2022): one thread owns one query row (forward, dq) or one key row (dk, dv)
 * and walks the other side a few rows at a time, forward with a running maximum. Neighbouring threads own neighbouring
 * rows, so what they walk over is the same for all of them. The width of a head is text, all other sizes are uniforms.
 * Threads beyond the last row repeat it and store nothing: lanes of a subgroup must all take part in every exchange.
 */
import type { AttentionAttrs } from '../../fused/attention.ts';
import { type AttentionSizes, frame } from './attentionRows.ts';
import { input, type Kernel, output, type Recipe, range, scratch, single } from './kernel.ts';
import type { Target } from './target.ts';

const statistics = new Set(['lse', 'rowsum']);

/** q, k, v → o and the log-sum-exp of each row. Cost 4·b·m·n·c flop. */
export const attentionRecipe = (sizes: AttentionSizes, a: AttentionAttrs, target: Target): Recipe => {
  const f = frame(sizes, a, target);
  const k = f.heads('k', 'j', f.n);
  const v = f.heads('v', 'j', f.n);
  const body = `let at = ${f.rowAt(f.m, `min(own, ${f.m} - 1u)`)};
  ${f.own('q', 'q', 'at', `${f.scale} * `)}
  ${f.units((u) => `var o${u} = ${f.zero};`).join(' ')}
  var top = -3e38; var total = 0.0;
  let last = ${a.causal ? `min(${f.n}, (id.x + 1u) * ${f.threads}u)` : f.n};
  for (var j = 0u; j < last; j += ${f.atOnce}u) {
    ${k.load}
    let keys = ${f.numbers('j')};
    let seen = (keys < ${f.spread(f.n)})${a.causal ? ` & (keys <= ${f.spread('own')})` : ''};
    let score = select(${f.spread('-1e30')}, ${f.products('q', k)}, seen);
    let best = max_1(top, ${f.largest('score')});
    let shrink = exp_1(top - best);
    let w = select(${f.spread('0.0')}, exp_${f.atOnce}(score - best), seen);
    top = best;
    total = total * shrink + ${f.total('w')};
    ${v.load}
    ${f.gather('o', 'w', v, ' * shrink')}
  }
  if (own < ${f.m}) {
    ${f.units((u) => `o[at + ${u}u] = o${u} / total;`).join(' ')}
    lse[${f.statAt('own')}] = top + log_1(total);
  }`;
  return single(f.kernel('attention', ['q', 'k', 'v'], ['o', 'lse'], statistics, sizes.m, body));
};

/** g, q, k, v, o, lse → dq and Σ g·o of each query row. */
const queryGradient = (sizes: AttentionSizes, a: AttentionAttrs, target: Target): Kernel => {
  const f = frame(sizes, a, target);
  const k = f.heads('k', 'j', f.n);
  const v = f.heads('v', 'j', f.n);
  const body = `let row = min(own, ${f.m} - 1u);
  let at = ${f.rowAt(f.m, 'row')};
  ${f.own('q', 'q', 'at', `${f.scale} * `)}
  ${f.own('g', 'g', 'at')}
  ${f.own('o', 'o', 'at')}
  ${f.units((u) => `var dq${u} = ${f.zero};`).join(' ')}
  let sum = ${f.inner('g', 'o')};
  let log_total = lse[${f.statAt('row')}];
  let last = ${a.causal ? `min(${f.n}, (id.x + 1u) * ${f.threads}u)` : f.n};
  for (var j = 0u; j < last; j += ${f.atOnce}u) {
    ${k.load}
    ${v.load}
    let keys = ${f.numbers('j')};
    let seen = (keys < ${f.spread(f.n)})${a.causal ? ` & (keys <= ${f.spread('own')})` : ''};
    let w = select(${f.spread('0.0')}, exp_${f.atOnce}(${f.products('q', k)} - log_total), seen);
    let ds = w * (${f.products('g', v)} - sum);
    ${f.gather('dq', 'ds', k)}
  }
  if (own < ${f.m}) {
    ${f.units((u) => `dq[at + ${u}u] = ${f.scale} * dq${u};`).join(' ')}
    rowsum[${f.statAt('own')}] = sum;
  }`;
  return f.kernel('attentionGrad q', ['g', 'q', 'k', 'v', 'o', 'lse'], ['dq', 'rowsum'], statistics, sizes.m, body);
};

/** g, q, k, v, lse, Σ g·o → dk, dv. */
const keyGradient = (sizes: AttentionSizes, a: AttentionAttrs, target: Target): Kernel => {
  const f = frame(sizes, a, target);
  const q = f.heads('q', 'i', f.m);
  const g = f.heads('g', 'i', f.m);
  const lse = f.stats('lse', 'i');
  const sums = f.stats('rowsum', 'i');
  const body = `let at = ${f.rowAt(f.n, `min(own, ${f.n} - 1u)`)};
  ${f.own('k', 'k', 'at', `${f.scale} * `)}
  ${f.own('v', 'v', 'at')}
  ${f.units((u) => `var dk${u} = ${f.zero}; var dv${u} = ${f.zero};`).join(' ')}
  for (var i = ${a.causal ? `id.x * ${f.threads}u` : '0u'}; i < ${f.m}; i += ${f.atOnce}u) {
    ${q.load}
    ${g.load}
    ${lse.load}
    ${sums.load}
    let queries = ${f.numbers('i')};
    let seen = (queries < ${f.spread(f.m)})${a.causal ? ` & (${f.spread('own')} <= queries)` : ''};
    let w = select(${f.spread('0.0')}, exp_${f.atOnce}(${f.products('k', q)} - ${f.each((r) => lse.at(r, 0))}), seen);
    let ds = select(${f.spread('0.0')}, w * (${f.products('v', g)} - ${f.each((r) => sums.at(r, 0))}), seen);
    ${f.gather('dv', 'w', g)}
    ${f.gather('dk', 'ds', q)}
  }
  if (own < ${f.n}) {
    ${f.units((u) => `dk[at + ${u}u] = ${f.scale} * dk${u}; dv[at + ${u}u] = dv${u};`).join(' ')}
  }`;
  return f.kernel('attentionGrad k v', ['g', 'q', 'k', 'v', 'lse', 'rowsum'], ['dk', 'dv'], statistics, sizes.n, body);
};

/** g, q, k, v, o, lse → dq, dk, dv. The scores are computed again. Cost 10·b·m·n·c flop. */
export const attentionGradRecipe = (sizes: AttentionSizes, a: AttentionAttrs, target: Target): Recipe => ({
  launches: [
    { kernel: queryGradient(sizes, a, target), operands: [...range(6).map(input), output(0), scratch] },
    { kernel: keyGradient(sizes, a, target), operands: [...[0, 1, 2, 3, 5].map(input), scratch, output(1), output(2)] },
  ],
  scratch: [4 * sizes.b * a.heads * sizes.m],
});

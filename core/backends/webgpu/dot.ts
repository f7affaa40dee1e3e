/**
 * Grouped matrix products y[g,m,n] = Σ_k a[g,m,k]·b[g,k,n] on strided operands, so that transposed and sliced operands
 * cost nothing. Two families: register tiles without workgroup memory for software drivers (here), and workgroup tiles
 * for GPUs (dotShared.ts).
 */

import { type DotPlan, type DotProblem, planDot } from './dotPlan.ts';
import { sharedDot } from './dotShared.ts';
import { createParams, type Kernel, range } from './kernel.ts';
import { type Tile, tileFor, tileKernel } from './registerTile.ts';
import type { AdapterClass } from './target.ts';

/** Kernel of one dot. Cost 2·g·m·k·n flop. */
export const printDot = (problem: DotProblem, adapter: AdapterClass): Kernel => {
  const plan = planDot(problem);
  return adapter === 'gpu' ? sharedDot(plan) : registerDot(plan);
};

/** Neighbouring threads walk along n or along m, whichever the result has more of. */
export interface RegisterTile extends Tile {
  readonly across: 'n' | 'm';
}
/** Narrow results (LoRA ranks) get a block of their width. */
const chooseTile = ({ m, n, right }: DotPlan): RegisterTile => {
  const small = { rows: 4, vecs: 1 };
  if (n <= 4) return { ...small, across: 'm' };
  if (m <= 4) return { ...small, across: 'n' };
  return {
    ...(right.order === 'alongFree' ? tileFor(true) : right.order === 'alongK' ? tileFor(true) : small),
    across: n >= m || n >= 64 ? 'n' : 'm',
  };
};

/** Threads per workgroup: a software driver runs them as the lanes of one vector. */
const LANES = 8;

/**
 * One thread makes a block of sums, one k at a time: reading several k ahead spills registers on software drivers and
 * halves the rate (measured on lavapipe and SwiftShader).
 */
export const registerDot = (plan: DotPlan, tile: RegisterTile = chooseTile(plan)): Kernel => {
  const { g, m, k, n, left, right } = plan;
  const p = createParams();
  const [pm, pn, pk] = [p.word(m), p.word(n), p.word(k)];
  const vectorLoad = right.order === 'alongFree';
  const unit = vectorLoad ? 4 : 1;
  const [aOffset, aGroup, aRow, aStep] = [left.offset, left.group, left.free, left.k].map((x) => p.word(x));
  const [bOffset, bGroup, bStep] = [right.offset, right.group, right.k].map((x) => p.word(x / unit));
  return tileKernel(
    p,
    {
      tile,
      threads: tile.across === 'n' ? { n: LANES, m: 1 } : { n: 1, m: LANES },
      rows: m,
      cols: n,
      pRows: pm,
      pCols: pn,
      vectorLoad,
      columnStride: vectorLoad ? '1u' : p.word(right.free),
    },
    {
      name: 'dot',
      left: 'a',
      right: 'b',
      layers: g,
      setup: [
        `let a0 = ${aOffset} + id.z * ${aGroup};`,
        ...range(tile.rows).map((r) => `let ia${r} = a0 + min(row + ${r}u, ${pm} - 1u) * ${aRow};`),
      ],
      sum: (term) => `var ka = 0u; var kb = ${bOffset} + id.z * ${bGroup};
  for (var kk = 0u; kk < ${pk}; kk++) {
        ${term}
        ka += ${aStep}; kb += ${bStep};
  }`,
      leftAt: (r) => `a[ia${r} + ka]`,
      rightAt: 'kb',
      vectorStore: n % 4 === 0,
      rowStart: `(id.z * ${pm} + r_out) * ${pn}`,
    },
  );
};

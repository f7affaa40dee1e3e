/**
 * What the attention kernels share: sizes as uniforms, the own row of a thread, and rows that all threads read together.
 * Where a workgroup's lanes can hand values to each other (subgroups), each lane loads a part of those rows and the
 * others get it from its registers: software drivers load lane by lane, so this is 5 times as fast there.
 */
import type { AttentionAttrs } from '../../fused/attention.ts';
import { ceilDiv, createParams, gridOf, type Kernel, makeKernel, range } from './kernel.ts';
import type { Width } from './math.ts';
import type { Target } from './target.ts';

export interface AttentionSizes {
  readonly b: number;
  /** query rows and key rows */
  readonly m: number;
  readonly n: number;
  /** heads·d */
  readonly c: number;
}

/**
 * Rows a thread takes in at once. Wide heads fill the lanes with one row; four would be slower and make kernels that
 * software drivers build in cubic time (d = 160: minutes instead of seconds).
 */
const rowsAtOnce = (d: number, target: Target): Width => (target.class === 'cpu' && d >= 40 ? 1 : 4);

/** The next rows of one operand: statements that fetch them, and the expression of one unit of one row. */
export interface SharedRows {
  readonly load: string;
  readonly at: (row: number, unit: number) => string;
}

/** A sum in four chains: one long chain would wait for every addition. */
const balanced = (terms: readonly string[]): string =>
  range(Math.min(4, terms.length))
    .map((chain) => `(${terms.filter((_, i) => i % 4 === chain).join(' + ')})`)
    .join(' + ');

export const frame = ({ b, m, n, c }: AttentionSizes, { heads, scale }: AttentionAttrs, target: Target) => {
  const p = createParams();
  const d = c / heads;
  // a unit is what one load brings: four neighbours where the head's width allows it
  const width = d % 4 === 0 ? 4 : 1;
  const units = d / width;
  const atOnce = rowsAtOnce(d, target);
  const type = width === 4 ? 'vec4<f32>' : 'f32';
  const threads = target.class === 'cpu' ? 8 : 64;
  const lanes = target.class === 'cpu' ? target.subgroup : 0;
  const [pm, pn, pc, pHeads, pScale] = [m, n, c / width, heads].map((x) => p.word(x)).concat(p.float(scale)) as [
    string,
    string,
    string,
    string,
    string,
  ];
  const unitsOf = <T>(f: (unit: number) => T): T[] => range(units).map(f);
  const rowAt = (rows: string, row: string) => `(id.z * ${rows} + ${row}) * ${pc} + id.y * ${units}u`;
  /** rows of `name` in memory of `each` units, the first unit of row `r` at `index(r)` */
  const rows = (name: string, each: number, first: string, bound: string, index: (r: string) => string): SharedRows => {
    const row = (k: string) => index(`min(${first} + ${k}, ${bound} - 1u)`);
    if (lanes === 0)
      return {
        load: range(atOnce)
          .map((k) => {
            const loads = range(each).map((u) => `let ${name}${k}_${u} = ${name}[${name}_at${k} + ${u}u];`);
            return `let ${name}_at${k} = ${row(`${k}u`)}; ${loads.join(' ')}`;
          })
          .join('\n    '),
        at: (k, u) => `${name}${k}_${u}`,
      };
    const total = atOnce * each;
    return {
      load: range(ceilDiv(total, lanes))
        .map((i) => {
          const n = `${name}_n${i}`;
          return `let ${n} = min(${i * lanes}u + lane, ${total - 1}u); let ${name}_in${i} = ${name}[${row(`${n} / ${each}u`)} + ${n} % ${each}u];`;
        })
        .join('\n    '),
      at: (k, u) => `subgroupBroadcast(${name}_in${Math.floor((k * each + u) / lanes)}, ${(k * each + u) % lanes}u)`,
    };
  };
  /** one value per row taken in at once */
  const each = (f: (row: number) => string) => (atOnce === 1 ? f(0) : `vec4(${range(atOnce).map(f).join(', ')})`);
  const part = (x: string, row: number) => (atOnce === 1 ? x : `${x}[${row}]`);
  const product = (x: string, y: string) => (width === 4 ? `dot(${x}, ${y})` : `${x} * ${y}`);

  return {
    m: pm,
    n: pn,
    scale: pScale,
    threads,
    units: unitsOf,
    rowAt,
    zero: `${type}(0.0)`,
    atOnce,
    each,
    /** numbers of the rows that begin at `first` */
    numbers: (first: string) => (atOnce === 1 ? first : `(vec4(${first}) + vec4(0u, 1u, 2u, 3u))`),
    /** a value spread over the rows taken in at once, and their sum and maximum */
    spread: (x: string) => (atOnce === 1 ? x : `vec4(${x})`),
    total: (x: string) => (atOnce === 1 ? x : `(${x}.x + ${x}.y + ${x}.z + ${x}.w)`),
    largest: (x: string) => (atOnce === 1 ? x : `max_1(max_1(${x}.x, ${x}.y), max_1(${x}.z, ${x}.w))`),
    /** place of a query row's statistics */
    statAt: (row: string) => `(id.z * ${pHeads} + id.y) * ${pm} + ${row}`,
    /** the own head's part of rows `first … first + 3` */
    heads: (name: string, first: string, bound: string) => rows(name, units, first, bound, (r) => rowAt(bound, r)),
    /** the own head's statistics of query rows `first … first + 3` */
    stats: (name: string, first: string) => rows(name, 1, first, pm, (r) => `(id.z * ${pHeads} + id.y) * ${pm} + ${r}`),
    /** the products of the own row `own0, own1, …` with each of the shared ones */
    products: (own: string, shared: SharedRows) =>
      each((k) => balanced(unitsOf((u) => product(`${own}${u}`, shared.at(k, u))))),
    /** Σ_u a_u·b_u of two own rows */
    inner: (x: string, y: string) => unitsOf((u) => product(`${x}${u}`, `${y}${u}`)).join(' + '),
    /** `to_u += Σ_k weight[k]·row k` */
    gather: (to: string, weight: string, shared: SharedRows, keep = '') =>
      unitsOf(
        (u) =>
          `${to}${u} = ${to}${u}${keep} + (${range(atOnce)
            .map((k) => `${part(weight, k)} * ${shared.at(k, u)}`)
            .join(' + ')});`,
      ).join('\n    '),
    own: (prefix: string, name: string, at: string, factor = '') =>
      unitsOf((u) => `let ${prefix}${u} = ${factor}${name}[${at} + ${u}u];`).join(' '),
    kernel: (
      name: string,
      reads: readonly string[],
      writes: readonly string[],
      scalars: ReadonlySet<string>,
      ownRows: number,
      body: string,
    ): Kernel => {
      const binding = (n: string) => ({ name: n, type: scalars.has(n) ? 'f32' : type });
      const grid = gridOf([ceilDiv(ownRows, threads), heads, b], p);
      const lane = lanes > 0 ? ', @builtin(subgroup_invocation_id) lane: u32' : '';
      return makeKernel(
        name,
        p,
        reads.map(binding),
        writes.map(binding),
        grid.groups,
        `@compute @workgroup_size(${threads})
fn main(@builtin(workgroup_id) place: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>${lane}) {
  ${grid.id}
  let own = id.x * ${threads}u + local.x;
  ${body}
}
`,
        lanes > 0 ? 'enable subgroups;\n' : '',
      );
    },
  };
};

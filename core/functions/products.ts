/** Products of tensors of any rank, as one grouped product (`dot`) between views. */
import { type Described, type ShapeError, shapeError } from '../ir/errors.ts';
import { checkDtypes } from '../ir/rules.ts';
import type { Tensor } from '../ir/tensor.ts';
import { sizeOf } from '../ir/view.ts';
import { dot } from '../ops/dot.ts';
import { iota } from '../ops/fill.ts';
import { broadcastTo, permute, reshape, squeeze, unsqueeze } from '../ops/layout.ts';
import { broadcastShape, equal, mul, select } from '../ops/math.ts';
import { sum } from '../ops/reduce.ts';

/**
 * `matmul(a[…,m,k], b[…,k,n])` → […,m,n]: y = Σ_k a·b; leading axes broadcast, a vector is a row on the left and a
 * column on the right, whose axis goes again (numpy.matmul).
 * @throws ShapeError when k differs, leading axes do not broadcast or one operand is a scalar. Cost: 2·…·m·k·n flop.
 * @example matmul(tensor([[1, 2], [3, 4]]), tensor([1, 1])) // [3, 7]
 */
export function matmul(a: Tensor, b: Tensor): Tensor {
  if (a.shape.length === 0 || b.shape.length === 0)
    throw shapeError('matmul', [a, b], 'operands must have at least one axis: use mul for scalars');
  if (a.shape.length === 1) return squeeze(matmul(unsqueeze(a, 0), b), b.shape.length === 1 ? 0 : -2);
  if (b.shape.length === 1) return squeeze(matmul(a, unsqueeze(b, 1)), -1);
  const [m, k] = a.shape.slice(-2) as [number, number];
  const [kb, n] = b.shape.slice(-2) as [number, number];
  if (k !== kb) throw shapeError('matmul', [a, b], `needs equal k: ${k} ≠ ${kb}  (a[…,m,k] · b[…,k,n])`);
  checkDtypes('matmul', [a, b], 'number');
  // one matrix for all: the rows of all others are the rows of one product
  if (b.shape.length === 2) {
    const lead = a.shape.slice(0, -2);
    return reshape(dot(reshape(a, [1, sizeOf(lead) * m, k]), unsqueeze(b, 0)), [...lead, m, n]);
  }
  const lead = broadcastShape(
    'matmul',
    [a, b].map((x): Described => ({ dtype: x.dtype, shape: x.shape.slice(0, -2) })),
  );
  const grouped = (x: Tensor): Tensor => {
    const matrix = x.shape.slice(-2);
    return reshape(broadcastTo(x, [...lead, ...matrix]), [sizeOf(lead), ...matrix]);
  };
  return reshape(dot(grouped(a), grouped(b)), [...lead, m, n]);
}

/** `outer(a[m], b[n])` → [m,n]: y = a·bᵀ of two vectors. @throws ShapeError for other ranks. Cost: one write. */
export function outer(a: Tensor, b: Tensor): Tensor {
  if (a.shape.length !== 1 || b.shape.length !== 1) throw shapeError('outer', [a, b], 'operands must be vectors');
  return mul(unsqueeze(a, 1), unsqueeze(b, 0));
}

/** an operand with a name for each axis */
interface Named {
  readonly t: Tensor;
  readonly axes: readonly string[];
}
const sumOut = ({ t, axes }: Named, keep: (name: string) => boolean): Named => {
  const gone = axes.flatMap((a, i) => (keep(a) ? [] : [i]));
  return gone.length === 0 ? { t, axes } : { t: sum(t, gone), axes: axes.filter(keep) };
};
const ordered = ({ t, axes }: Named, names: readonly string[]): Tensor =>
  permute(
    t,
    names.map((a) => axes.indexOf(a)),
  );

/** an axis named twice becomes its diagonal */
function diagonals({ t, axes }: Named): Named {
  const at = axes.findIndex((a, i) => axes.indexOf(a) < i);
  if (at < 0) return { t, axes };
  const first = axes.indexOf(axes[at]!);
  const on = equal(iota(t.shape, first, 'i32'), iota(t.shape, at, 'i32'));
  return diagonals({ t: sum(select(on, t, 0), at), axes: axes.filter((_, i) => i !== at) });
}

/** the product of two operands, summed over the names that nothing later needs */
function contract(x: Named, y: Named, needed: (name: string) => boolean): Named {
  const a = sumOut(x, (n) => needed(n) || y.axes.includes(n));
  const b = sumOut(y, (n) => needed(n) || x.axes.includes(n));
  const both = a.axes.filter((n) => b.axes.includes(n));
  const [groups, over] = [both.filter(needed), both.filter((n) => !needed(n))];
  const [left, right] = [a.axes.filter((n) => !both.includes(n)), b.axes.filter((n) => !both.includes(n))];
  const sizes = (z: Named, names: readonly string[]) => names.map((n) => z.t.shape[z.axes.indexOf(n)]!);
  const [g, m, k, n] = [sizes(a, groups), sizes(a, left), sizes(a, over), sizes(b, right)];
  const axes = [...groups, ...left, ...right];
  const one = ordered(a, [...groups, ...left, ...over]);
  const other = ordered(b, [...groups, ...over, ...right]);
  if (over.length === 0) {
    const wide = reshape(one, [...g, ...m, ...n.map(() => 1)]);
    return { t: mul(wide, reshape(other, [...g, ...m.map(() => 1), ...n])), axes };
  }
  const t = dot(reshape(one, [sizeOf(g), sizeOf(m), sizeOf(k)]), reshape(other, [sizeOf(g), sizeOf(k), sizeOf(n)]));
  return { t: reshape(t, [...g, ...m, ...n]), axes };
}

/** names of the axes that `…` stands for, the last one '0' */
const dots = (count: number): string[] => Array.from({ length: count }, (_, i) => String(count - 1 - i));

function parse(
  spec: string,
  xs: readonly Tensor[],
): { readonly operands: readonly Named[]; readonly out: readonly string[] } {
  const bad = (why: string): ShapeError => shapeError(`einsum '${spec}'`, xs, why);
  const [inputs, output, more] = spec.replaceAll(' ', '').split('->');
  const parts = inputs!.split(',');
  if (more !== undefined || !/^[A-Za-z.,]*$/.test(inputs!) || !/^[A-Za-z.]*$/.test(output ?? ''))
    throw bad("must be like 'bij,bjk->bik': a letter for each axis, '...' for the leading ones");
  if (parts.length !== xs.length) throw bad(`names ${parts.length} operands, but ${xs.length} are given`);
  let widest = 0;
  const named = parts.map((part, i): Named => {
    const [before, after, twice] = part.split('...');
    const letters = part.replace('...', '').length;
    const rest = xs[i]!.shape.length - letters;
    if (twice !== undefined || part.replace('...', '').includes('.') || rest < 0 || (after === undefined && rest > 0))
      throw bad(`'${part}' does not name the ${xs[i]!.shape.length} axes of operand ${i}`);
    widest = Math.max(widest, rest);
    return { t: xs[i]!, axes: [...before!, ...dots(rest), ...(after ?? '')] };
  });
  const all = named.flatMap((x) => x.axes);
  const sizes = new Map<string, number>();
  for (const { t, axes } of named)
    for (const [i, name] of axes.entries()) {
      const [n, known] = [t.shape[i]!, sizes.get(name) ?? 1];
      const broadcasts = /\d/.test(name) && (n === 1 || known === 1);
      if (sizes.has(name) && known !== n && !broadcasts) throw bad(`axis ${name} is ${known} and ${n}`);
      sizes.set(name, Math.max(n, known));
    }
  const letters =
    output ??
    [...new Set(all)]
      .filter((n) => /[A-Za-z]/.test(n) && all.indexOf(n) === all.lastIndexOf(n))
      .sort()
      .join('');
  const text = output === undefined && widest > 0 ? `...${letters}` : letters;
  const [before, after] = text.split('...');
  const out = after === undefined ? [...before!] : [...before!, ...dots(widest), ...after];
  const strange = out.find((n, i) => !all.includes(n) || out.indexOf(n) < i);
  if (strange !== undefined) throw bad(`the result names axis ${strange} twice, or no operand has it`);
  // leading axes of size 1 beside larger ones go: they are the same for all
  const operands = named.map(({ t, axes }): Named => {
    const same = axes.map((n, i) => /\d/.test(n) && t.shape[i] === 1 && sizes.get(n) !== 1);
    return {
      t: reshape(
        t,
        t.shape.filter((_, i) => !same[i]),
      ),
      axes: axes.filter((_, i) => !same[i]),
    };
  });
  return { operands, out };
}

/**
 * `einsum('bij,bjk->bik', a, b)`: a letter for each axis; letters the result leaves out are summed over, a letter twice
 * in one operand is its diagonal, `...` stands for leading axes that broadcast; without `->` the result has the letters
 * that stand once, in order of the alphabet (numpy.einsum). Operands are multiplied from left to right.
 * @throws ShapeError when the text does not fit the operands or sizes of a letter differ. Cost: that of the products.
 * @example einsum('ij,kj->ik', a, b) // a·bᵀ
 */
export function einsum(spec: string, ...xs: readonly Tensor[]): Tensor {
  checkDtypes('einsum', xs, 'number');
  const { operands, out } = parse(spec, xs);
  const [first, ...rest] = operands.map(diagonals);
  const product = rest.reduce((x, y, i) => {
    const later = new Set([...out, ...rest.slice(i + 1).flatMap((z) => z.axes)]);
    return contract(x, y, (n) => later.has(n));
  }, first!);
  return ordered(
    sumOut(product, (n) => out.includes(n)),
    out,
  );
}

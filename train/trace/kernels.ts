/** The kernels of a step as a trace tells them: those that are equal in one row, fused ones with their program. */
import type { Compiled, KernelReport, Stage } from '../../core/index.ts';
import type { Trace } from './format.ts';
import { fullName } from './names.ts';

type Row = Trace['kernels'][number];
/** A kernel as a lowered program tells it. */
type Lowered = {
  readonly inputs: readonly { readonly shape: readonly number[]; readonly strides: readonly number[] }[];
  readonly outputs: readonly number[];
  readonly steps?: readonly Step[];
};
type Step =
  | { readonly kind: 'load'; readonly input: number; readonly dtype: string }
  | { readonly kind: 'const'; readonly value: number; readonly dtype: string }
  | { readonly kind: 'call'; readonly fn: string; readonly args: readonly number[]; readonly dtype: string }
  | { readonly kind: string; readonly dtype?: string };

/** A line for each step of a fused kernel: what one element of the result is made of. */
function programText({ inputs, steps }: Lowered): string {
  return steps!
    .map((s, i) => {
      if (s.kind === 'load' && 'input' in s) {
        const { shape, strides } = inputs[s.input]!;
        return `v${i} = in${s.input}[${shape}], strides [${strides}]`;
      }
      if (s.kind === 'const' && 'value' in s) return `v${i} = ${s.value}`;
      if (s.kind === 'call' && 'fn' in s) return `v${i} = ${s.fn}(${s.args.map((a) => `v${a}`).join(', ')})`;
      return `v${i} = ${s.kind}`;
    })
    .join('\n');
}

/** Rows of the kernels of a program. @param lowered the same kernels as the compiler told them, where the backend runs kernels */
export function kernelRows(kernels: readonly KernelReport[], lowered?: Stage): Row[] {
  const told = (lowered?.data as { readonly kernels: readonly Lowered[] } | undefined)?.kernels;
  const rows = new Map<string, Row>();
  for (const [i, k] of kernels.entries()) {
    const module = k.label === undefined ? '' : fullName(k.label);
    const own = told?.[i];
    const text = own?.steps && own.steps.length > 0 ? programText(own) : undefined;
    const key = `${module}\n${k.name}\n${k.detail}\n${text ?? ''}`;
    const row = rows.get(key) ?? {
      module,
      op: k.name,
      detail: k.detail.slice(0, 2000),
      ...(text === undefined ? {} : { text: text.slice(0, 20_000) }),
      count: 0,
      flops: 0,
      bytes: 0,
    };
    rows.set(key, {
      ...row,
      count: row.count + 1,
      flops: row.flops + k.flops,
      bytes: row.bytes + k.bytes,
      ...(k.ms === undefined ? {} : { ms: (row.ms ?? 0) + k.ms }),
    });
  }
  return [...rows.values()];
}

/** The same of a compiled program with its arguments. */
export function kernelsOf<A extends readonly unknown[]>(program: Compiled<A, unknown>, ...args: A): Row[] {
  return kernelRows(program.inspect(...args).kernels, program.stages(...args).lowered);
}

/**
 * The one form of a WASM kernel: the argument words it reads, its code, and commands that run it. Commands are planned
 * before anything is placed: an address is a distance from a base, and a base is one of the buffers a plan is made for. So a
 * plan depends on shapes alone, can be kept, and is placed, or moved, by writing its addresses.
 *
 * @example
 * const scale = kernel('scale', words(['x y factor']), ({ f, start, end, read, splat }) => { … });
 * const plan = { bytes: 0, commands: [scale.command({ x: x.at, y: y.at, factor: f32Bits(2) }, grid)] };
 */
import type { DType } from '../../ir/dtype.ts';
import type { Attrs } from '../../ir/tensor.ts';
import type { View } from '../../ir/view.ts';
import {
  type Assembler,
  assembler,
  type Expr,
  type Func,
  type FunctionBuilder,
  i32,
  type KernelParams,
  type Local,
  v128,
} from './assembler/assemble.ts';
import { type Names, withConstants } from './assembler/encode.ts';
import type { Command, Machine } from './machine/machine.ts';
import { FETCH } from './machine/outside.ts';

/** `offset` bytes from a base */
export interface Address {
  readonly base: number;
  readonly offset: number;
}
/** an argument word: a number, also an address that is known already, or an address that is not */
export type Word = number | Address;
/** the word `bytes` further on */
export const plus = (word: Word, bytes: number): Word =>
  typeof word === 'number' ? word + bytes : { base: word.base, offset: word.offset + bytes };

/** the argument words of a kernel by name */
export interface Words<W extends string> {
  readonly names: readonly W[];
  /** byte offset of a word */
  at(name: W): number;
}
/** Words from texts of names, `words(['x xRow xPixel', 'y'])`. @throws Error, when read, on a name that is not there */
export const words = <const S extends string>(texts: readonly S[]): Words<Names<S>> => {
  const names = texts.flatMap((text) => text.split(' ')) as Names<S>[];
  const offsets = new Map(names.map((name, i) => [name, i * 4]));
  return {
    names,
    at: (name) => {
      const offset = offsets.get(name);
      if (offset === undefined) throw new Error(`wasm kernel: no argument ${name}`);
      return offset;
    },
  };
};

/** what the code of a kernel is written with: it computes the units start ≤ u < end */
export interface KernelCode<W extends string> extends KernelParams {
  readonly f: FunctionBuilder;
  readonly m: Assembler;
  /** fetch(from, to, bytes): from the memory outside (machine/outside.ts) to an address inside; some 0.1 µs a call */
  readonly fetch: Func;
  /** code that reads a word */
  read(word: W): Expr<'i32'>;
  /** a word in all lanes */
  splat(word: W): Expr<'v128'>;
  /** every word in a local of its own */
  locals(): Readonly<Record<W, Local<'i32'>>>;
}

/** a kernel without its words: what a machine needs of it */
export interface KernelSource {
  readonly name: string;
  /** adds it, under its name, to a module that is being assembled */
  emit(m: Assembler, fetch: Func): void;
}
/** a command and the kernel it runs */
export interface KernelCommand extends Command {
  readonly source: KernelSource;
}
export interface Kernel<W extends string = string> extends KernelSource {
  /** Runs `grid` units on these words; `alone`: on the main thread. @throws Error on a word without a value */
  command(values: Readonly<Record<W, Word>>, grid: number, alone?: boolean): KernelCommand;
}

/** A kernel; its name says all its code depends on. */
export const kernel = <W extends string>(
  name: string,
  layout: Words<W>,
  body: (code: KernelCode<W>) => void,
): Kernel<W> => {
  const source: KernelSource = {
    name,
    emit: (m, fetch) => {
      m.kernel(name, (f, params) => {
        const read = (word: W): Expr<'i32'> => i32.load(params.args, layout.at(word));
        const splat = (word: W): Expr<'v128'> => v128.load32_splat(params.args, layout.at(word));
        const locals = (): Record<W, Local<'i32'>> =>
          Object.fromEntries(layout.names.map((word) => [word, f.let(read(word))])) as Record<W, Local<'i32'>>;
        body({ f, m, fetch, ...params, read, splat, locals });
      });
    },
  };
  return {
    ...source,
    command: (values, grid, alone = false) => {
      const relocations: [number, number][] = [];
      const args = layout.names.map((word, i) => {
        const value = values[word];
        if (value === undefined) throw new Error(`wasm kernel ${name}: argument ${word} has no value`);
        if (typeof value === 'number') return value;
        relocations.push([i, value.base]);
        return value.offset;
      });
      return { source, kernel: name, args, grid, relocations, ...(alone && { chunk: grid }) };
    },
  };
};

/** The command with its bases laid at other words. O(words) */
export const link = (command: KernelCommand, bases: readonly Word[]): KernelCommand => {
  const args = [...command.args];
  const relocations: [number, number][] = [];
  for (const relocation of command.relocations ?? []) {
    const i = relocation[0];
    const word = bases[relocation[1]]!;
    args[i]! += typeof word === 'number' ? word : word.offset;
    if (typeof word !== 'number') relocations.push([i, word.base]);
  }
  return { ...command, args, relocations };
};

/** Compiles, in one module, the kernels of these commands that the machine does not have yet. */
export const install = (machine: Machine, commands: readonly KernelCommand[]): void => {
  const missing = new Map(commands.filter((c) => !machine.hasKernel(c.kernel)).map((c) => [c.kernel, c.source]));
  if (missing.size === 0) return;
  const m = assembler();
  const fetch = m.importFunc(FETCH, ['i32', 'i32', 'i32'], 'void');
  withConstants(machine.constants, () => {
    for (const source of missing.values()) source.emit(m, fetch);
  });
  machine.addModule(m.bytes());
};

/** commands relative to the buffers they are planned for: inputs, outputs, then a workspace of `bytes` bytes */
export interface Plan {
  readonly bytes: number;
  readonly commands: readonly KernelCommand[];
}
export const nothing: Plan = { bytes: 0, commands: [] };

/** an operand or a result */
export interface Placed {
  /** its first element: the buffer with the view's offset */
  readonly at: Address;
  readonly dtype: DType;
  readonly view: View;
  /** it lies outside the memory of kernels (stored weights): `fetch` gets it in */
  readonly outside?: boolean;
}
export interface Shapes<A extends Attrs = Attrs> {
  /** the machine that will run it: its tiles and the scratch memory of its threads */
  readonly machine: Machine;
  readonly attrs: A;
  readonly inputs: readonly Placed[];
  /** contiguous; undefined where nobody reads one and the kernel is `partial` */
  readonly outputs: readonly (Placed | undefined)[];
  /** where the plan's `bytes` will lie */
  readonly workspace: Address;
}
/** what an op's kernel is to the compiler */
export interface WasmKernel<A extends Attrs = Attrs> {
  /** operands that may be any strided view; the others arrive contiguous */
  readonly strided: readonly boolean[];
  /** whether it reads this operand, of a stored type and lying so, by itself; left out: never */
  widens?(operand: number, dtype: DType, view: View): boolean;
  /** true: it leaves out the results that have no place */
  readonly partial?: boolean;
  /** @throws RangeError for shapes this machine cannot do */
  plan(shapes: Shapes<A>): Plan;
}

/**
 * A small assembler for WebAssembly modules: kernels are written in TypeScript and emitted as bytes, so that no
 * toolchain is needed.
 *
 * How to use it:
 * ```ts
 * import { assembler, f32x4, i32, v128 } from './assemble.ts';
 *
 * // One kernel: y[i] = a·x[i] for the units start ≤ u < end of 4 numbers each.
 * const m = assembler();
 * m.kernel('scale4', (f, { args, start, end }) => {
 *   const x = f.let(i32.load(args, 0));                  // words written once by the caller
 *   const y = f.let(i32.load(args, 4));
 *   const a = f.let(v128.load32_splat(args, 8));
 *   const u = f.local('i32');
 *   f.for(u, start, end, 1, () => {
 *     const at = f.let(i32.shl(u, 4));                   // `let`: a new local; expressions are code, not values
 *     f.emit(v128.store(i32.add(y, at), f32x4.mul(a, v128.load(i32.add(x, at)))));
 *   });
 * });
 * machine.addModule(m.bytes());
 * ```
 * - Instructions are functions that return code ({@link Expr} leaves a value, {@link Stmt} none); `f.emit(stmt)`,
 *   `f.set(local, expr)`, `f.let(expr)` put it into the function. Numbers stand for constants.
 * - Control flow: `f.for(i, from, to, step, body)` (unsigned compare: `to` must not go below 0; pointers are fine),
 *   `f.while(condition, body)`, `f.if(condition, then, otherwise?)`, `f.block((exit) => … f.breakIf(exit, c))`.
 * - `m.func(name, params, result, body)` makes a plain function and returns a handle for `call(handle, args)`;
 *   functions must be made before they are called, imports (`m.importFunc`) before the first function.
 * - Every module imports the one shared memory of the machine as `env.memory`.
 * - The JS callbacks run while assembling: a JS `for` unrolls, `f.for` loops at run time.
 *
 * Source: WebAssembly core specification 2.0, chapter 5 (binary format).
 */
import { leb, num } from './encode.ts';
import { type FunctionBuilder, functionBody, type Local, makeLocal, op, TYPE_BYTE } from './functionBuilder.ts';
import type { Expr, Num, Stmt, ValType } from './instructions.ts';

export type { FunctionBuilder, Label, Local } from './functionBuilder.ts';
export * from './instructions.ts';

export interface Func<R extends ValType | 'void' = 'void'> {
  readonly name: string;
  readonly index: number;
  readonly params: readonly ValType[];
  readonly result: R;
}
type Params<P extends readonly ValType[]> = { readonly [K in keyof P]: P[K] extends ValType ? Local<P[K]> : never };
type Called<R extends ValType | 'void'> = R extends ValType ? Expr<R> : Stmt;

/** Code that calls `func` with `args`: an expression of its result type, or a statement. */
export const call = <R extends ValType | 'void'>(func: Func<R>, args: readonly Num<ValType>[]): Called<R> => {
  if (args.length !== func.params.length)
    throw new Error(`assembler: ${func.name} takes ${func.params.length} arguments, got ${args.length}`);
  const code = args.flatMap((arg, i) => {
    const type = func.params[i];
    if (typeof arg !== 'number') {
      if (arg.type !== type) throw new Error(`assembler: argument ${i} of ${func.name} is ${arg.type}, not ${type}`);
      return [...arg.code];
    }
    if (type === 'v128') throw new Error(`assembler: argument ${i} of ${func.name} needs a v128 expression`);
    return [...num(type, arg)];
  });
  return { type: func.result, code: [...code, op.call, ...leb(func.index)] } as unknown as Called<R>;
};

export interface KernelParams {
  /** address of the command's words */
  readonly args: Local<'i32'>;
  /** first unit */
  readonly start: Local<'i32'>;
  /** one past the last unit */
  readonly end: Local<'i32'>;
  /** this thread's scratch memory */
  readonly scratch: Local<'i32'>;
}

/** signature of functions called through the machine's table */
export interface Signature<R extends ValType | 'void'> {
  readonly typeIndex: number;
  readonly result: R;
}

/** Code that calls entry `index` of the imported table; traps when its signature differs. */
export const callIndirect = <R extends ValType | 'void'>(
  signature: Signature<R>,
  index: Num<'i32'>,
  args: readonly Expr<ValType>[],
): Called<R> => {
  const code = args.flatMap((arg) => arg.code);
  const at = num('i32', index);
  return {
    type: signature.result,
    code: [...code, ...at, op.callIndirect, ...leb(signature.typeIndex), 0],
  } as unknown as Called<R>;
};

export interface Assembler {
  /** imports the table of kernels as `env.table` and names a signature for {@link callIndirect} */
  importTable<R extends ValType | 'void'>(params: readonly ValType[], result: R): Signature<R>;
  importFunc<P extends readonly ValType[], R extends ValType | 'void'>(name: string, params: P, result: R): Func<R>;
  /** a function; exported under its name unless the name is empty */
  func<const P extends readonly ValType[], R extends ValType | 'void'>(
    name: string,
    params: P,
    result: R,
    body: (f: FunctionBuilder, ...params: Params<P>) => void,
  ): Func<R>;
  /** an exported kernel, callable by name as a command of the machine */
  kernel(name: string, body: (f: FunctionBuilder, params: KernelParams) => void): Func;
  /** the finished module */
  bytes(): Uint8Array<ArrayBuffer>;
}

const utf8 = (text: string): number[] => {
  const bytes = [...new TextEncoder().encode(text)];
  return [...leb(bytes.length), ...bytes];
};
const section = (id: number, items: readonly (readonly number[])[]): number[] => {
  if (items.length === 0) return [];
  const count = leb(items.length);
  const size = items.reduce((sum, item) => sum + item.length, count.length);
  const out = [id, ...leb(size), ...count];
  for (const item of items) for (const byte of item) out.push(byte);
  return out;
};

/** 4 GiB, the end of 32-bit addresses */
export const MAX_PAGES = 65536;
/** without it (pages that are not cross-origin isolated) the machine runs on one thread */
export const hasSharedMemory = typeof SharedArrayBuffer !== 'undefined';

/**
 * A new, empty module. It imports `env.memory` (shared by default, as the machine's memory is).
 *
 * @throws Error when a function is imported after one was defined, or an argument has the wrong type.
 */
export const assembler = ({ shared = hasSharedMemory }: { readonly shared?: boolean } = {}): Assembler => {
  const types: number[][] = [];
  const imports: number[][] = [];
  const functionTypes: number[][] = [];
  const exports: number[][] = [];
  const bodies: number[][] = [];
  let count = 0;

  const typeIndex = (params: readonly ValType[], result: ValType | 'void'): number => {
    const results = result === 'void' ? [] : [TYPE_BYTE[result]];
    const code = [0x60, ...leb(params.length), ...params.map((p) => TYPE_BYTE[p]), ...leb(results.length), ...results];
    const known = types.findIndex((t) => t.length === code.length && t.every((b, i) => b === code[i]));
    return known >= 0 ? known : types.push(code) - 1;
  };
  const limits = [shared ? 3 : 1, ...leb(0), ...leb(MAX_PAGES)];
  imports.push([...utf8('env'), ...utf8('memory'), 2, ...limits]);

  const build: Assembler = {
    importTable: (params, result) => {
      imports.push([...utf8('env'), ...utf8('table'), 1, 0x70, 0, ...leb(0)]);
      return { typeIndex: typeIndex(params, result), result };
    },
    importFunc: (name, params, result) => {
      if (bodies.length > 0) throw new Error(`assembler: import ${name} before the first function`);
      imports.push([...utf8('env'), ...utf8(name), 0, ...leb(typeIndex(params, result))]);
      return { name, index: count++, params, result };
    },
    func: (name, params, result, body) => {
      const index = count++;
      functionTypes.push(leb(typeIndex(params, result)));
      // its place is kept, so that the body may define the functions it calls
      const place = bodies.push([]) - 1;
      const { builder, finish } = functionBody(params.length);
      const locals = params.map((type, i) => makeLocal(type, i)) as unknown as Params<typeof params>;
      body(builder, ...locals);
      bodies[place] = finish();
      if (name !== '') exports.push([...utf8(name), 0, ...leb(index)]);
      return { name, index, params, result };
    },
    kernel: (name, body) =>
      build.func(name, ['i32', 'i32', 'i32', 'i32'], 'void', (f, args, start, end, scratch) =>
        body(f, { args, start, end, scratch }),
      ),
    bytes: () =>
      Uint8Array.from(
        [0, 0x61, 0x73, 0x6d, 1, 0, 0, 0].concat(
          section(1, types),
          section(2, imports),
          section(3, functionTypes),
          section(7, exports),
          section(10, bodies),
        ),
      ),
  };
  return build;
};

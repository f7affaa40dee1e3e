/** The body of a WebAssembly function: its locals, statements and structured control flow. */
import { leb, num } from './encode.ts';
import { type Expr, i32, type Num, type Stmt, type ValType } from './instructions.ts';

export const TYPE_BYTE: Record<ValType, number> = { i32: 0x7f, i64: 0x7e, f32: 0x7d, f64: 0x7c, v128: 0x7b };
const VOID_BLOCK = 0x40;
export const op = {
  block: 0x02,
  loop: 0x03,
  if: 0x04,
  else: 0x05,
  end: 0x0b,
  br: 0x0c,
  brIf: 0x0d,
  return: 0x0f,
  call: 0x10,
  callIndirect: 0x11,
};

/** a local variable or parameter; reading it is using it as an expression */
export interface Local<T extends ValType> extends Expr<T> {
  readonly index: number;
}
/** a place to break to; made by `block`, valid inside it */
export interface Label {
  readonly depth: number;
}
export const makeLocal = <T extends ValType>(type: T, index: number): Local<T> => ({
  type,
  index,
  code: [0x20, ...leb(index)],
});

/** Builds the body of one function. */
export interface FunctionBuilder {
  /** a new zeroed local */
  local<T extends ValType>(type: T): Local<T>;
  /** as many as are taken: `const [row, column] = f.locals('i32')` */
  locals<T extends ValType>(type: T): Iterable<Local<T>>;
  /** a new local holding `value` */
  let<T extends ValType>(value: Expr<T>): Local<T>;
  /** assigns */
  set<T extends ValType>(local: Local<T>, value: T extends 'v128' ? Expr<T> : Num<T>): void;
  /** local += step (i32) */
  inc(local: Local<'i32'>, step: Num<'i32'>): void;
  emit(...statements: readonly Stmt[]): void;
  /** evaluates and throws the value away */
  drop(value: Expr<ValType>): void;
  /** for (i = from; i < to; i += step), unsigned; `to` and `step` are evaluated each time round */
  for(i: Local<'i32'>, from: Num<'i32'>, to: Num<'i32'>, step: Num<'i32'>, body: () => void): void;
  while(condition: Expr<'i32'>, body: () => void): void;
  if(condition: Expr<'i32'>, then: () => void, otherwise?: () => void): void;
  block(body: (exit: Label) => void): void;
  break(label: Label): void;
  breakIf(label: Label, condition: Expr<'i32'>): void;
  return(value?: Expr<ValType>): void;
}

export interface Body {
  readonly builder: FunctionBuilder;
  finish(): number[];
}

/** A builder for a function with `paramCount` parameters; `finish` gives its code with size and locals. */
export const functionBody = (paramCount: number): Body => {
  const code: number[] = [];
  const locals: ValType[] = [];
  let depth = 0;
  const push = (part: readonly number[]): void => {
    for (const byte of part) code.push(byte);
  };
  const nested = (opcode: number, body: () => void): void => {
    code.push(opcode, VOID_BLOCK);
    depth++;
    body();
    depth--;
    code.push(op.end);
  };
  const numeric = (type: ValType, x: Num<ValType>): readonly number[] => {
    if (typeof x !== 'number') return x.code;
    if (type === 'v128') throw new Error('assembler: a v128 local needs an expression');
    return num(type, x);
  };
  const assign = (local: Local<ValType>, value: Num<ValType>): void => {
    push(numeric(local.type, value));
    code.push(0x21, ...leb(local.index));
  };
  const builder: FunctionBuilder = {
    local: (type) => {
      locals.push(type);
      return makeLocal(type, paramCount + locals.length - 1);
    },
    *locals(type) {
      for (;;) yield builder.local(type);
    },
    let: (value) => {
      const local = builder.local(value.type);
      assign(local, value);
      return local;
    },
    set: assign,
    inc: (local, step) => assign(local, i32.add(local, step)),
    emit: (...statements) => {
      for (const statement of statements) push(statement.code);
    },
    drop: (value) => {
      push(value.code);
      code.push(0x1a);
    },
    for: (i, from, to, step, body) => {
      assign(i, from);
      // Tested once before and then at the bottom: one branch per round.
      builder.if(i32.lt_u(i, to), () =>
        nested(op.loop, () => {
          body();
          builder.inc(i, step);
          push(i32.lt_u(i, to).code);
          code.push(op.brIf, 0);
        }),
      );
    },
    while: (condition, body) =>
      builder.if(condition, () =>
        nested(op.loop, () => {
          body();
          push(condition.code);
          code.push(op.brIf, 0);
        }),
      ),
    if: (condition, then, otherwise) => {
      push(condition.code);
      nested(op.if, () => {
        then();
        if (otherwise) {
          code.push(op.else);
          otherwise();
        }
      });
    },
    block: (body) => nested(op.block, () => body({ depth })),
    break: (label) => {
      code.push(op.br, ...leb(depth - label.depth));
    },
    breakIf: (label, condition) => {
      push(condition.code);
      code.push(op.brIf, ...leb(depth - label.depth));
    },
    return: (value) => {
      if (value) push(value.code);
      code.push(op.return);
    },
  };
  const finish = (): number[] => {
    const runs: [number, ValType][] = [];
    for (const type of locals) {
      const last = runs.at(-1);
      if (last?.[1] === type) last[0]++;
      else runs.push([1, type]);
    }
    const head = [...leb(runs.length), ...runs.flatMap(([count, type]) => [...leb(count), TYPE_BYTE[type]])];
    const size = head.length + code.length + 1;
    return leb(size).concat(head, code, [op.end]);
  };
  return { builder, finish };
};

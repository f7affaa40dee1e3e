/**
 * The wasm kernels of an op as a listing: the bytes a sample's program is compiled from, read back instruction by
 * instruction. Names of instructions are those of the assembler, found by assembling each once.
 */
import * as instructions from '../../core/backends/wasm/assembler/instructions.ts';
import { kernels } from '../../core/backends/wasm/kernels.ts';
import { createMachine, type Machine } from '../../core/backends/wasm/machine/machine.ts';
import { Memory, type WasmStorage } from '../../core/backends/wasm/machine/memory.ts';
import { WasmProgram } from '../../core/backends/wasm/program.ts';
import { CoreError } from '../../core/index.ts';
import type { Op } from '../../core/ir/tensor.ts';
import { sizeOf } from '../../core/ir/view.ts';
import { type KernelText, sampleGraph } from './kernels.ts';

/** What follows an opcode. */
type Immediate =
  | 'label'
  | 'index'
  | 'block'
  | 'sleb'
  | 'f32'
  | 'f64'
  | 'memory'
  | 'lane'
  | 'lanes'
  | 'shuffle'
  | 'byte'
  | 'table';
interface Instruction {
  readonly name: string;
  readonly immediates: readonly Immediate[];
}

const plain = (code: number, name: string, ...immediates: Immediate[]): [string, Instruction] => [
  String(code),
  { name, immediates },
];
/** What the assembler writes itself: control, locals, constants. */
const own: readonly [string, Instruction][] = [
  plain(0x02, 'block', 'block'),
  plain(0x03, 'loop', 'block'),
  plain(0x04, 'if', 'block'),
  plain(0x05, 'else'),
  plain(0x0b, 'end'),
  plain(0x0c, 'br', 'label'),
  plain(0x0d, 'br_if', 'label'),
  plain(0x0f, 'return'),
  plain(0x10, 'call', 'index'),
  plain(0x11, 'call_indirect', 'index', 'table'),
  plain(0x1a, 'drop'),
  plain(0x1b, 'select'),
  plain(0x20, 'local.get', 'index'),
  plain(0x21, 'local.set', 'index'),
  plain(0x22, 'local.tee', 'index'),
  plain(0x41, 'i32.const', 'sleb'),
  plain(0x42, 'i64.const', 'sleb'),
  plain(0x43, 'f32.const', 'f32'),
  plain(0x44, 'f64.const', 'f64'),
  ['252 10', { name: 'memory.copy', immediates: ['byte', 'byte'] }],
  ['252 11', { name: 'memory.fill', immediates: ['byte'] }],
  ['253 12', { name: 'v128.const', immediates: ['lanes'] }],
  ['253 13', { name: 'i8x16.shuffle', immediates: ['shuffle'] }],
];
const PREFIXES = new Set([0xfc, 0xfd, 0xfe]);

const immediatesOf = (name: string): readonly Immediate[] => {
  if (/(load|store)\d+_lane/.test(name)) return ['memory', 'lane'];
  if (/load|store|atomic/.test(name)) return ['memory'];
  return /(extract|replace)_lane/.test(name) ? ['lane'] : [];
};

let table: ReadonlyMap<string, Instruction> | undefined;
/** Every opcode the assembler writes: its functions are called with operands that have no code, so that the opcode comes first. */
function opcodes(): ReadonlyMap<string, Instruction> {
  if (table) return table;
  const found = new Map(own);
  const none = { type: 'i32', code: [] };
  const visit = (name: string, x: unknown): void => {
    if (typeof x === 'object' && x !== null) for (const [k, v] of Object.entries(x)) visit(`${name}.${k}`, v);
    if (typeof x !== 'function') return;
    let code: readonly number[] | undefined;
    try {
      code = (x(...Array.from({ length: x.length }, () => none)) as { code?: readonly number[] }).code;
    } catch {
      // takes no operands: a constant, which is known
    }
    if (!code || code.length === 0) return;
    const [first, ...rest] = code;
    const key = PREFIXES.has(first!) ? `${first} ${unsigned(rest, 0)[0]}` : String(first);
    if (!found.has(key)) found.set(key, { name, immediates: immediatesOf(name) });
  };
  for (const type of [
    'i32',
    'i64',
    'f32',
    'f64',
    'v128',
    'f32x4',
    'i32x4',
    'f64x2',
    'i16x8',
    'i8x16',
    'i64x2',
  ] as const)
    visit(type, (instructions as unknown as Readonly<Record<string, unknown>>)[type]);
  table = found;
  return found;
}

/** An unsigned LEB128 number and the place behind it. */
function unsigned(bytes: ArrayLike<number>, at: number): readonly [value: number, next: number] {
  let [value, next] = [0, at];
  for (let factor = 1; ; factor *= 128) {
    const byte = bytes[next++]!;
    value += (byte & 0x7f) * factor;
    if (byte < 0x80) return [value, next];
  }
}
function signed(bytes: Uint8Array, at: number): readonly [value: bigint, next: number] {
  let [value, next, shift] = [0n, at, 0n];
  for (;;) {
    const byte = bytes[next++]!;
    value |= BigInt(byte & 0x7f) << shift;
    shift += 7n;
    if (byte < 0x80) return [byte & 0x40 ? value - (1n << shift) : value, next];
  }
}

/** The value of an immediate as text, and the place behind it. */
function immediate(
  bytes: Uint8Array,
  at: number,
  kind: Immediate,
  functions: readonly string[],
  calls: boolean,
): readonly [text: string, next: number] {
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  switch (kind) {
    case 'block':
      return ['', at + 1];
    case 'f32':
      return [String(view.getFloat32(at, true)), at + 4];
    case 'f64':
      return [String(view.getFloat64(at, true)), at + 8];
    case 'sleb': {
      const [value, next] = signed(bytes, at);
      return [String(value), next];
    }
    case 'memory': {
      const [offset, next] = unsigned(bytes, unsigned(bytes, at)[1]);
      return [offset === 0 ? '' : `offset=${offset}`, next];
    }
    case 'shuffle':
      return [Array.from(bytes.subarray(at, at + 16)).join(' '), at + 16];
    case 'lanes': {
      const whole = [0, 4, 8, 12].map((lane) => view.getInt32(at + lane, true));
      // small words are integers, others the bits of floats: as numbers these would be denormal
      return whole.every((x) => Math.abs(x) < 2 ** 20)
        ? [`i32x4 ${whole.join(' ')}`, at + 16]
        : [`f32x4 ${[0, 4, 8, 12].map((lane) => view.getFloat32(at + lane, true)).join(' ')}`, at + 16];
    }
    case 'lane':
      return [String(bytes[at]), at + 1];
    case 'byte':
    case 'table':
      return ['', at + 1];
    default: {
      const [value, next] = unsigned(bytes, at);
      return [calls ? (functions[value] ?? String(value)) : String(value), next];
    }
  }
}

/** Lines that a listing shows of one module; the rest is counted. */
const MOST = 400;
const TYPES: Readonly<Record<number, string>> = { 127: 'i32', 126: 'i64', 125: 'f32', 124: 'f64', 123: 'v128' };

/**
 * A module as text: each function with its locals, one instruction a line, indented by its blocks.
 * @throws Error on an opcode the assembler does not write
 */
export function listingOf(bytes: Uint8Array): string {
  const names = opcodes();
  const imported: string[] = [];
  const exported = new Map<number, string>();
  const lines: string[] = [];
  const utf8 = (at: number): readonly [string, number] => {
    const [length, from] = unsigned(bytes, at);
    return [new TextDecoder().decode(bytes.subarray(from, from + length)), from + length];
  };
  const listed = (from: number, end: number, index: number): void => {
    const functions = [...imported];
    for (const [i, name] of exported) functions[i] = name;
    lines.push(`(func $${exported.get(index) ?? index}`);
    let at = from;
    let groups: number;
    [groups, at] = unsigned(bytes, at);
    const locals: string[] = [];
    for (; groups > 0; groups--) {
      const [count, type] = unsigned(bytes, at);
      locals.push(`${count} × ${TYPES[bytes[type]!] ?? bytes[type]}`);
      at = type + 1;
    }
    if (locals.length > 0) lines.push(`  (local ${locals.join(', ')})`);
    let depth = 1;
    while (at < end) {
      const first = bytes[at++]!;
      let key = String(first);
      if (PREFIXES.has(first)) {
        const [second, next] = unsigned(bytes, at);
        key = `${first} ${second}`;
        at = next;
      }
      const instruction = names.get(key);
      if (!instruction) throw new Error(`wasm listing: no instruction has the opcode ${key}`);
      const texts: string[] = [];
      for (const kind of instruction.immediates) {
        const [text, next] = immediate(bytes, at, kind, functions, instruction.name === 'call');
        if (text !== '') texts.push(text);
        at = next;
      }
      if (instruction.name === 'end' || instruction.name === 'else') depth--;
      lines.push(`${'  '.repeat(depth)}${[instruction.name, ...texts].join(' ')}`);
      if (['block', 'loop', 'if', 'else'].includes(instruction.name)) depth++;
    }
    // the end of the function's own body
    lines[lines.length - 1] = ')';
  };
  for (let at = 8; at < bytes.length; ) {
    const id = bytes[at];
    const [size, from] = unsigned(bytes, at + 1);
    let [count, next] = unsigned(bytes, from);
    if (id === 2)
      for (; count > 0; count--) {
        const [, field] = utf8(next);
        const [name, kind] = utf8(field);
        next = kind + 1;
        if (bytes[kind] === 0) {
          imported.push(name);
          [, next] = unsigned(bytes, next);
        } else if (bytes[kind] === 2) {
          [, next] = unsigned(bytes, next + 1);
          [, next] = unsigned(bytes, next);
        } else [, next] = unsigned(bytes, next + 2);
      }
    if (id === 7)
      for (; count > 0; count--) {
        const [name, kind] = utf8(next);
        const [index, after] = unsigned(bytes, kind + 1);
        exported.set(index, name);
        next = after;
      }
    if (id === 10)
      for (let i = 0; i < count; i++) {
        const [length, body] = unsigned(bytes, next);
        listed(body, body + length, imported.length + i);
        next = body + length;
      }
    at = from + size;
  }
  return lines.length <= MOST
    ? lines.join('\n')
    : [...lines.slice(0, MOST), `… ${lines.length - MOST} more lines`].join('\n');
}

/** Thrown where a program would hand its module over, so that nothing is compiled. */
class Handed extends Error {}

let opened: Machine | undefined;
/** One machine for all listings: it measures the shapes of its tiles once. Nothing else runs on it. */
function sharedMachine(): Machine {
  opened ??= createMachine({ threads: 1 });
  return opened;
}

/** The listing of the module that runs a sample of the op; nothing for views and constants, which need no kernel. */
export function wasmListingOf(op: Op): readonly KernelText[] {
  const machine = sharedMachine();
  let module: Uint8Array | undefined;
  // planning asks for kernels too, to measure them: those are compiled
  let planned = false;
  const recording: Machine = Object.create(machine, {
    hasKernel: { value: (name: string) => !planned && machine.hasKernel(name) },
    addModule: {
      value: (bytes: Uint8Array<ArrayBuffer>) => {
        if (!planned) return machine.addModule(bytes);
        module = bytes;
        throw new Handed();
      },
    },
  });
  const memory = new Memory(recording);
  let program: WasmProgram | undefined;
  let inputs: readonly WasmStorage[] = [];
  try {
    const graph = sampleGraph(op, (o) => kernels.has(o.name));
    program = new WasmProgram(memory, graph);
    const names = program.report().map(({ name, detail }) => `${name} ${detail}`.trim());
    planned = true;
    try {
      inputs = graph.inputs.map((t) => memory.storage(sizeOf(t.shape), t.dtype));
      program.run(inputs);
    } catch (error) {
      if (!(error instanceof Handed)) throw error;
    }
    return module ? [{ name: names.join('; '), text: listingOf(module) }] : [];
  } catch (error) {
    if (error instanceof CoreError || error instanceof RangeError)
      return [{ name: `none: ${error.message}`, text: '' }];
    throw error;
  } finally {
    program?.release();
    for (const storage of inputs) memory.free(storage);
  }
}

/** The listing of wasm kernels: read back from bytes, instruction by instruction. */
import { describe, expect, test } from 'vitest';
import { assembler, call, f32x4, i32, v128 } from '../../../core/backends/wasm/assembler/assemble.ts';
import { registry } from '../../../core/index.ts';
import { listingOf, wasmListingOf } from '../../../train/explain/listing.ts';

describe('a module', () => {
  test('is told as it was assembled', () => {
    const m = assembler();
    const fetch = m.importFunc('fetch', ['i32'], 'void');
    const twice = m.func('', ['i32'], 'i32', (f, x) => f.return(i32.shl(x, 1)));
    m.kernel('scale', (f, { args, start, end }) => {
      const x = f.let(i32.load(args, 300));
      f.if(i32.lt_u(start, end), () => f.emit(call(fetch, [x])));
      f.emit(v128.store(call(twice, [x]), f32x4.mul(v128.load(x, 16), -0.5)));
      f.emit(v128.store32_lane(x, v128.shuffle32(v128.load(x), v128.load(x), [0, 4, 1, 5]), 2, 8));
    });
    expect(listingOf(m.bytes()).split('\n')).toEqual([
      '(func $1',
      '  local.get 0',
      '  i32.const 1',
      '  i32.shl',
      '  return',
      ')',
      '(func $scale',
      '  (local 1 × i32)',
      '  local.get 0',
      '  i32.load offset=300',
      '  local.set 4',
      '  local.get 1',
      '  local.get 2',
      '  i32.lt_u',
      '  if',
      '    local.get 4',
      '    call fetch',
      '  end',
      '  local.get 4',
      '  call 1',
      '  local.get 4',
      '  v128.load offset=16',
      '  v128.const f32x4 -0.5 -0.5 -0.5 -0.5',
      '  f32x4.mul',
      '  v128.store',
      '  local.get 4',
      '  local.get 4',
      '  v128.load',
      '  local.get 4',
      '  v128.load',
      '  i8x16.shuffle 0 1 2 3 16 17 18 19 4 5 6 7 20 21 22 23',
      '  v128.store32_lane offset=8 2',
      ')',
    ]);
  });
  test('with an opcode that is none of ours is refused', () => {
    const m = assembler();
    m.func('f', [], 'void', (f) => f.emit({ type: 'void', code: [0x01] }));
    expect(() => listingOf(m.bytes())).toThrow('no instruction has the opcode 1');
  });
});

test('every op of the registry has one, with blocks that close, or needs no kernel', () => {
  const without: string[] = [];
  for (const op of registry.values()) {
    const [first] = wasmListingOf(op);
    if (!first?.text) {
      without.push(op.name);
      continue;
    }
    const lines = first.text.split('\n').map((line) => line.trim().split(' ')[0]!);
    if (lines.some((line) => line === '…')) continue;
    const count = (...words: string[]) => lines.filter((line) => words.includes(line)).length;
    expect(count('block', 'loop', 'if'), op.name).toBe(count('end'));
    expect(count('(func'), op.name).toBe(count(')'));
  }
  // their samples are f64
  expect(without.sort()).toEqual(['checkpoint', 'customVjp', 'once']);
});

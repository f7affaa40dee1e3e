/** NF4 with double quantisation: the levels, packing against plain f64, error bounds, every backend, what it weighs. */
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { wasmBackend } from '../../core/backends/wasm/index.ts';
import { webgpuBackend } from '../../core/backends/webgpu/index.ts';
import {
  add,
  asFloat,
  type Backend,
  cast,
  checkpoint,
  compile,
  dot,
  erfInv,
  evaluate,
  flip,
  full,
  gather,
  grad,
  mul,
  packNf4,
  permute,
  place,
  pullback,
  read,
  reshape,
  sin,
  slice,
  sum,
  swap,
  type Tensor,
  tensor,
  vmap,
} from '../../core/index.ts';
import { bytesOf } from '../../core/ir/dtype.ts';
import { NF4_LEVELS, nf4ScaleCode, nf4Value, nf4Words } from '../../core/ir/nf4.ts';
import { cpu, rng } from '../support/gradcheck.ts';

vi.setConfig({ testTimeout: 60_000 });
const random = rng(11);
const normals = (n: number, scale = 0.02) =>
  Float32Array.from({ length: n }, () => scale * Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random())); // biome-ignore format: one line
const nf4 = (x: Float32Array, shape: readonly number[]) => tensor(packNf4(x), shape, 'nf4');
const wasm = wasmBackend({ threads: 2 }) as Backend;
let webgpu: Backend;
beforeAll(async () => {
  webgpu = (await webgpuBackend()) as Backend;
});
afterAll(() => webgpu.close());

/** the definition in plain f64: what bitsandbytes' quantize_4bit and dequantize_4bit do, with nothing packed */
function byDefinition(x: Float32Array): { readonly values: number[]; readonly bounds: number[] } {
  const nearest = (list: readonly number[], v: number) =>
    list.reduce((best, entry) => (Math.abs(entry - v) < Math.abs(best - v) ? entry : best));
  // the tree of 8 bits by its construction: for each decade the middles of equal parts of 0.1 … 1, both signs, 0 and 1
  const tree = [0, 1];
  for (let i = 0; i < 7; i++)
    for (let k = 0; k < 2 ** i; k++) {
      const middle = (0.1 + (0.9 * k) / 2 ** i + 0.1 + (0.9 * (k + 1)) / 2 ** i) / 2;
      tree.push(10 ** (i - 6) * middle, -(10 ** (i - 6)) * middle);
    }
  const blocks = Array.from({ length: Math.ceil(x.length / 64) }, (_, b) => x.slice(64 * b, 64 * (b + 1)));
  const largest = blocks.map((b) => Math.max(...b.map(Math.abs)));
  const mean = largest.reduce((a, b) => a + b, 0) / largest.length;
  const scales = largest.map((_, b) => {
    const group = largest.slice(256 * Math.floor(b / 256), 256 * Math.floor(b / 256) + 256);
    return Math.max(...group.map((v) => Math.abs(v - mean)));
  });
  const restored = largest.map((v, b) => nearest(tree, (v - mean) / scales[b]!) * scales[b]! + mean);
  const values = blocks.flatMap((block, b) => Array.from(block, (v) => nearest(NF4_LEVELS, v / largest[b]!) * restored[b]!)); // biome-ignore format: one line
  // half of the widest gap between levels, and what the scale is off by: half of the widest gap of the tree
  const gap = (1 - 0.6961928009986877) / 2;
  const bounds = blocks.flatMap((block, b) => Array.from(block, () => gap * largest[b]! + (scales[b]! * 0.9) / 64 + 1e-9)); // biome-ignore format: one line
  return { values, bounds };
}

describe('levels', () => {
  it('are quantiles of the normal distribution, brought to ±1', async () => {
    // QLoRA, eq. 4 and appendix E: from both halves, the outermost at the mass that bitsandbytes takes
    const edge = 0.9677083;
    const quantiles = async (parts: number) => {
      const masses = Array.from({ length: parts }, (_, i) => edge + ((0.5 - edge) * i) / parts);
      const y = await read(evaluate(erfInv(tensor(masses.map((p) => 2 * p - 1), [parts], 'f64')), cpu)); // biome-ignore format: one line
      return Array.from(y, (v) => v * Math.SQRT2);
    };
    const [above, below] = [await quantiles(8), await quantiles(7)];
    const all = [...above, 0, ...below.map((v) => -v)].sort((a, b) => a - b).map((v) => v / above[0]!);
    expect(all).toHaveLength(16);
    for (const [i, v] of all.entries()) expect(Math.abs(v - NF4_LEVELS[i]!)).toBeLessThan(2e-7);
  });
  it('the 256 codes of a scale rise from −0.993 to 1, finest around 0', () => {
    const codes = Array.from({ length: 256 }, (_, c) => nf4ScaleCode(c));
    expect(codes).toEqual([...codes].sort((a, b) => a - b));
    expect(new Set(codes).size).toBe(256);
    expect([codes[127], codes[255]]).toEqual([0, 1]);
    expect(codes[0]).toBeCloseTo(-(1 - 0.9 / 128), 7);
    expect(codes[128]).toBeCloseTo(0.55e-6, 12);
  });
});

describe('packing', () => {
  it.each([1, 63, 64, 65, 1000, 16_384, 16_385, 40_000])('%i weights are those of the definition', (n) => {
    const x = normals(n);
    const words = packNf4(x);
    expect(words.length).toBe(nf4Words(n));
    const { values, bounds } = byDefinition(x);
    for (let i = 0; i < n; i++) {
      const got = nf4Value(words, i);
      if (!(Math.abs(got - values[i]!) <= 1e-6 * Math.abs(values[i]!) + 1e-9)) expect([i, got]).toEqual([i, values[i]]);
      if (!(Math.abs(got - x[i]!) <= bounds[i]!)) expect.fail(`weight ${i}: ${x[i]} became ${got}, allowed ${bounds[i]}`); // biome-ignore format: one line
    }
  });
  it('normal weights lose a tenth of their size, and a set of levels keeps all of it', () => {
    const x = normals(60_000, 1);
    const words = packNf4(x);
    const off = x.reduce((s, v, i) => s + (v - nf4Value(words, i)) ** 2, 0);
    const share = Math.sqrt(off / x.reduce((s, v) => s + v * v, 0));
    expect([share > 0.08, share < 0.1]).toEqual([true, true]);
    // all blocks with the same largest weight: scales are their mean, nothing is lost
    const exact = Float32Array.from({ length: 6400 }, (_, i) => 0.5 * NF4_LEVELS[i % 64 === 0 ? 15 : (i * 7) % 16]!);
    const packed = packNf4(exact);
    for (const [i, v] of exact.entries()) expect(nf4Value(packed, i)).toBe(v);
  });
  it('zeros stay zeros, and nothing at all is nothing', async () => {
    const words = packNf4(new Float32Array(130));
    for (let i = 0; i < 130; i++) expect(nf4Value(words, i)).toBe(0);
    expect(packNf4([]).length).toBe(0);
    for (const backend of [cpu, wasm])
      expect(await read(evaluate(cast(nf4(new Float32Array(0), [0, 3]), 'f32'), backend))).toHaveLength(0);
  });
});

describe('widened', () => {
  const values = async (x: Tensor, backend: Backend) => (await read(evaluate(asFloat(x), backend))) as Float32Array;
  /** SwiftShader and graphics cards may round a product and a sum once */
  const alike = (a: Float32Array, b: Float32Array, what: string) => {
    expect(b.length).toBe(a.length);
    for (const [i, v] of a.entries()) if (!(Math.abs(b[i]! - v) <= 3e-7 * Math.abs(v))) expect([what, i, b[i]]).toEqual([what, i, v]); // biome-ignore format: one line
  };
  it('any length on every backend, nothing written beyond', async () => {
    for (const n of [1, 15, 63, 64, 65, 127, 4096, 16_383, 16_384, 16_385, 70_001]) {
      const x = normals(n);
      const words = packNf4(x);
      const want = Float32Array.from({ length: n }, (_, i) => nf4Value(words, i));
      const t = tensor(words, [n], 'nf4');
      expect(await values(t, cpu)).toEqual(want);
      expect(await values(t, wasm), `wasm, ${n}`).toEqual(want);
      alike(want, await values(t, webgpu), `webgpu, ${n}`);
    }
  });
  it('every code of weights and scales', async () => {
    // blocks whose largest weights are spread so that all decades of the tree are met
    const n = 64 * 256;
    const sizes = Array.from({ length: 256 }, (_, b) => 1 + (b % 2 ? 1 : -1) * 10 ** (-6 * random()) * 0.9);
    const x = Float32Array.from({ length: n }, (_, i) => sizes[i >> 6]! * (i % 64 === 0 ? 1 : 2 * random() - 1));
    const t = nf4(x, [n]);
    const want = await values(t, cpu);
    expect(await values(t, wasm)).toEqual(want);
    alike(want, await values(t, webgpu), 'webgpu');
  });
  it('any view: parts, turns, mirrors, within and across groups', async () => {
    const t = nf4(normals(6 * 70 * 100), [6, 70, 100]);
    const all = (await values(t, cpu)) as Float32Array;
    const plain = tensor(all, [6, 70, 100]);
    const views: readonly ((x: Tensor) => Tensor)[] = [
      (x) => permute(x, [2, 0, 1]),
      (x) => slice(x, { axis: 1, start: 3, stop: 41 }),
      (x) => slice(x, { axis: 0, start: 5 }),
      (x) => slice(x, { axis: 0, start: 4 }),
      (x) => slice(x, { axis: 2, start: 1, step: 3 }),
      (x) => flip(slice(x, { axis: 0, start: 2 }), [2]),
      (x) => reshape(slice(x, { axis: 0, start: 3, stop: 4 }), [7, 1000]),
    ];
    for (const [i, view] of views.entries()) {
      const want = (await read(evaluate(view(plain), cpu))) as Float32Array;
      for (const backend of [cpu, wasm]) expect(await values(view(t), backend), `view ${i} on ${backend.name}`).toEqual(want); // biome-ignore format: one line
      alike(want, await values(view(t), webgpu), `view ${i}`);
    }
  });
  it('mapped over several weights', async () => {
    const t = nf4(normals(3 * 20 * 30), [3, 20, 30]);
    const x = tensor(normals(3 * 1 * 30), [3, 1, 30]);
    const one = (w: Tensor, x: Tensor) => dot(reshape(x, [1, 1, 30]), swap(reshape(asFloat(w), [1, 20, 30])));
    for (const backend of [cpu, wasm]) {
      const got = await read(evaluate(vmap(one, [0, 0])(t, x) as Tensor, backend));
      const want = await read(evaluate(dot(x, swap(asFloat(t))), backend));
      expect(got).toEqual(want);
    }
  });
});

describe('refusals', () => {
  it('arithmetic names the op and says what to do', () => {
    const t = nf4(normals(64), [8, 8]);
    for (const f of [() => add(t, t), () => sum(t), () => sin(t), () => dot(reshape(t, [1, 8, 8]), reshape(t, [1, 8, 8]))]) // biome-ignore format: one line
      expect(f).toThrow(/nf4 is for storage: use cast\(x, 'f32'\)/);
    expect(() => gather(t, tensor(Int32Array.of(1), [1]))).toThrow(/rows of nf4 cannot be read by themselves/);
    expect(() => cast(tensor([1]), 'nf4')).toThrow(/make it on the host/);
  });
  it('words that do not fit the shape, and none told', () => {
    expect(() => tensor(packNf4(normals(64)), [65], 'nf4')).toThrow(/values do not fill \[65\]/);
    expect(() => tensor(packNf4(normals(64)), undefined, 'nf4')).toThrow(/nf4 values need a shape/);
  });
  it('another order is no view of packed weights as a result', async () => {
    const t = nf4(normals(64), [8, 8]);
    for (const backend of [cpu, wasm])
      expect(() => evaluate(swap(t), backend), backend.name).toThrow(/nf4 is for storage, it cannot be copied/);
  });
});

const WIDTH = 96;
const layer = (w: Tensor, a: Tensor, b: Tensor, x: Tensor) =>
  add(dot(x, swap(reshape(asFloat(w), [1, WIDTH, WIDTH]))), dot(dot(x, a), b));
const loss = (ws: readonly Tensor[], a: Tensor, b: Tensor, x: Tensor, block: typeof checkpoint): Tensor => {
  let h = x;
  for (const w of ws) h = block((h: Tensor) => sin(layer(w, a, b, h)))(h) as Tensor;
  return sum(mul(h, h));
};
const plain = ((f: unknown) => f) as typeof checkpoint;

describe('adapters on frozen weights of 4 bits', () => {
  const stored = () => Array.from({ length: 3 }, () => nf4(normals(WIDTH * WIDTH, 0.1), [WIDTH, WIDTH]));
  const adapter = () => [tensor(normals(WIDTH * 2, 0.1), [1, WIDTH, 2]), tensor(normals(WIDTH * 2, 0.1), [1, 2, WIDTH]), tensor(normals(2 * WIDTH, 1), [1, 2, WIDTH])] as const; // biome-ignore format: one line
  it('a compiled step equals the step on the widened weights to the bit, with and without checkpoints', async () => {
    const ws = stored();
    const wide = await Promise.all(ws.map(async (w) => tensor((await read(evaluate(asFloat(w), cpu))) as Float32Array, [WIDTH, WIDTH]))); // biome-ignore format: one line
    const [a, b, x] = adapter();
    for (const backend of [cpu, wasm, webgpu])
      for (const block of [plain, checkpoint]) {
        const step = compile((ws: readonly Tensor[], a: Tensor, b: Tensor, x: Tensor) => grad(([a, b]: readonly [Tensor, Tensor]) => loss(ws, a, b, x, block))([a, b]), { backend }); // biome-ignore format: one line
        const [got, want] = [step(ws, a, b, x), step(wide, a, b, x)];
        for (const k of [0, 1]) {
          const [g, w] = [
            (await read((got as readonly Tensor[])[k]!)) as Float32Array,
            (await read((want as readonly Tensor[])[k]!)) as Float32Array,
          ];
          if (backend !== webgpu) expect(g, backend.name).toEqual(w);
          else for (const [i, v] of w.entries()) expect(Math.abs(g[i]! - v)).toBeLessThan(2e-5 * Math.max(...w.map(Math.abs))); // biome-ignore format: one line
        }
      }
  });
  it('gradients are those of finite differences in f64', async () => {
    const ws = stored();
    const [a, b, x] = adapter();
    const wide = (t: Tensor) => cast(t, 'f64');
    const f = async (da: number, at: number): Promise<number> => {
      const values = Float64Array.from((await read(a)) as Float32Array);
      values[at]! += da;
      const h = ws.reduce<Tensor>((h, w) => {
        const frozen = swap(reshape(cast(w, 'f64'), [1, WIDTH, WIDTH]));
        return sin(add(dot(h, frozen), dot(dot(h, tensor(values, [1, WIDTH, 2])), wide(b))));
      }, wide(x));
      return (await read(evaluate(sum(mul(h, h)), cpu)))[0]!;
    };
    const got = (await read(evaluate(grad((a: Tensor) => loss(ws, a, b, x, plain))(a), wasm))) as Float32Array;
    const most = Math.max(...got.map(Math.abs));
    for (const at of [0, 17, 100, 191]) {
      const h = 1e-4;
      const want = ((await f(h, at)) - (await f(-h, at))) / (2 * h);
      expect(Math.abs(got[at]! - want)).toBeLessThan(1e-4 * most);
    }
  });
  it('no cotangent reaches the codes', () => {
    const [w] = stored();
    expect(pullback([asFloat(w!)], [full([WIDTH, WIDTH], 1)], [w!])).toEqual([undefined]);
  });
});

describe('memory', () => {
  it('4.13 bits a weight beside 16 and 32, as the formula says and as the backends hold', async () => {
    const n = 640 * 640;
    const x = normals(n);
    expect((8 * bytesOf('nf4', 16_384 * 100)) / (16_384 * 100)).toBe(4.12890625);
    const sizesOn = (backend: Backend) =>
      [tensor(x, [640, 640]), tensor(new Uint16Array(n), [640, 640], 'f16'), nf4(x, [640, 640])].map((t) => {
        const before = backend.memory().liveBytes;
        place(t, backend);
        return (8 * (backend.memory().liveBytes - before)) / n;
      });
    const [f32, f16, f4] = sizesOn(wasmBackend({ threads: 1 }) as Backend);
    expect([f32, f16]).toEqual([32, 16]);
    expect(Math.abs(f4! - 4.129)).toBeLessThan(0.01);
    // buffers of a graphics card come in sizes up to an eighth larger
    const [on32, on16, on4] = sizesOn(webgpu);
    expect([on4! >= f4! && on4! <= f4! * 1.13, on4! < on16! / 3.4, on4! < on32! / 6.8]).toEqual([true, true, true]);
  });
});

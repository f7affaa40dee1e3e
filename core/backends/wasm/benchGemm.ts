/**
 * Micro benchmark of the contraction kernels beside the machine's measured peak of 128-bit multiply-adds.
 *
 * npx tsx core/backends/wasm/benchGemm.ts [filter] [threads]
 *
 * With one thread the clock is the processor time of this process: rates stay meaningful on a machine that others use.
 */
import { availableParallelism } from 'node:os';
import { performance } from 'node:perf_hooks';
import { argv, cpuUsage } from 'node:process';
import { assembler, f32x4, i32 } from './assemble.ts';
import {
  type ConvShape,
  conv,
  convInputGradient,
  convInputGradientWorkspace,
  convKernelGradient,
  convKernelGradientWorkspace,
  convWorkspace,
  outputSize,
} from './conv.ts';
import { gemm, gemmWorkspace } from './gemm.ts';
import { type Command, createMachine } from './machine.ts';

const machine = createMachine({ threads: Number(argv[3] ?? availableParallelism()) });
machine.ready();

/** 12 independent chains of multiply-adds: one unit is 12·4·2·1024 FLOP */
const PEAK_UNIT = 12 * 4 * 2 * 1024;
const peakModule = (fma: boolean): Uint8Array<ArrayBuffer> => {
  const m = assembler();
  m.kernel(fma ? 'peakFma' : 'peakMulAdd', (f, { start, end, scratch }) => {
    const sums = Array.from({ length: 12 }, () => f.local('v128'));
    const a = f.let(f32x4.splat(0.5));
    const u = f.local('i32');
    const i = f.local('i32');
    f.for(u, start, end, 1, () =>
      f.for(i, 0, 1024, 8, () => {
        for (let step = 0; step < 8; step++)
          for (const s of sums) f.set(s, fma ? f32x4.relaxed_madd(s, a, a) : f32x4.add(f32x4.mul(s, a), a));
      }),
    );
    for (const s of sums) f.emit(i32.store(scratch, i32.reinterpret_f32(f32x4.extract_lane(s, 0))));
  });
  return m.bytes();
};
for (const fma of [true, false]) machine.addModule(peakModule(fma));

const now = (): number => {
  if (machine.threads > 1) return performance.now();
  const { user, system } = cpuUsage();
  return (user + system) / 1000;
};

/** GFLOP/s of the best of many batches within `ms` */
const best = (commands: readonly Command[], flop: number, ms = 300): number => {
  const program = machine.prepare(commands);
  // Warm: V8 compiles a kernel well only after some calls.
  for (let round = 0; round < 5; round++) machine.run(program);
  const repeats = Math.max(1, Math.ceil((machine.threads > 1 ? 2e7 : 2e8) / flop));
  let fastest = Number.POSITIVE_INFINITY;
  const until = performance.now() + ms;
  for (let round = 0; round < 5 || performance.now() < until; round++) {
    const start = now();
    for (let i = 0; i < repeats; i++) machine.run(program);
    fastest = Math.min(fastest, (now() - start) / repeats);
  }
  machine.release(program);
  return flop / fastest / 1e6;
};

const filter = argv[2] ?? '';
const row = (name: string, flop: number, commands: () => readonly Command[]): void => {
  if (!name.includes(filter)) return;
  const rate = best(commands(), flop);
  const peak = Math.max(best([{ kernel: 'peakFma', args: [], grid: 64 }], PEAK_UNIT * 64, 30));
  const us = flop / rate / 1e3;
  console.log(
    `${name.padEnd(44)} ${rate.toFixed(1).padStart(7)} GF/s ${us.toFixed(0).padStart(8)} µs  ${((100 * rate) / peak).toFixed(0).padStart(3)} % of ${peak.toFixed(0)}`,
  );
};
const block = (floats: number): number => {
  const address = machine.alloc(floats * 4);
  machine.f32.subarray(address / 4, address / 4 + floats).forEach((_, i, view) => {
    view[i] = ((i * 7919) % 1000) / 1000 - 0.5;
  });
  return address;
};

console.log(`threads ${machine.threads}`);
row('peak FMA', PEAK_UNIT * 64, () => [{ kernel: 'peakFma', args: [], grid: 64 }]);
row('peak mul + add', PEAK_UNIT * 64, () => [{ kernel: 'peakMulAdd', args: [], grid: 64 }]);

const gemms: readonly (readonly [
  m: number,
  n: number,
  k: number,
  groups?: number,
  transposeA?: boolean,
  transposeB?: boolean,
])[] = [
  [512, 512, 512],
  [1024, 1024, 1024],
  [1024, 1024, 1024, 1, true, true],
  [784, 320, 320],
  [1232, 320, 768],
  [784, 320, 2880],
  [2048, 96, 96],
  [2048, 96, 96, 1, false, true],
  [96, 96, 2048, 1, true],
  [2048, 4, 96],
  [2048, 96, 4],
  [4, 96, 2048, 1, true],
  [96, 4, 2048, 1, true],
  [96, 4, 256, 8, true],
  [1, 1280, 320],
  [64, 64, 64],
  [128, 128, 128],
];
for (const [m, n, k, groups = 1, ta = false, tb = false] of gemms)
  row(
    `gemm ${groups > 1 ? `${groups}×` : ''}${m}×${n}×${k}${ta ? ' Aᵀ' : ''}${tb ? ' Bᵀ' : ''}`,
    2 * groups * m * n * k,
    () => {
      const d = {
        m,
        n,
        k,
        groups,
        a: { address: block(groups * m * k), row: ta ? 1 : k, column: ta ? m : 1, group: m * k },
        b: { address: block(groups * n * k), row: tb ? 1 : n, column: tb ? k : 1, group: groups > 1 ? n * k : 0 },
        c: { address: block(groups * m * n), row: n, group: m * n },
      };
      return gemm(machine, { ...d, workspace: machine.alloc(gemmWorkspace(machine, d)) });
    },
  );

const square = (n: number, size: number, c: number, o: number, k = 3, stride = 1): ConvShape => ({
  n,
  h: size,
  w: size,
  c,
  kh: k,
  kw: k,
  o,
  stride: [stride, stride],
  pad: [
    [k >> 1, k >> 1],
    [k >> 1, k >> 1],
  ],
  groups: 1,
});
const convs: readonly ConvShape[] = [
  square(8, 28, 64, 64),
  square(1, 28, 320, 320),
  square(16, 16, 96, 96),
  square(8, 64, 16, 16),
  square(8, 16, 64, 64, 3, 2),
  square(8, 64, 3, 32),
  square(8, 64, 32, 3),
];
for (const s of convs) {
  const [oh, ow] = outputSize(s);
  const flop = 2 * s.n * oh * ow * s.kh * s.kw * s.c * s.o;
  const name = `${s.c}→${s.o} ${s.h}² b${s.n}${s.stride[0] > 1 ? ' /2' : ''}`;
  const [x, w, y] = [block(s.n * s.h * s.w * s.c), block(s.kh * s.kw * s.c * s.o), block(s.n * oh * ow * s.o)];
  row(`conv ${name}`, flop, () => conv(machine, s, { x, w, y, workspace: machine.alloc(convWorkspace(machine, s)) }));
  row(`conv ${name} input gradient`, flop, () =>
    convInputGradient(machine, s, {
      dy: y,
      w,
      dx: x,
      workspace: machine.alloc(convInputGradientWorkspace(machine, s)),
    }),
  );
  row(`conv ${name} kernel gradient`, flop, () =>
    convKernelGradient(machine, s, {
      x,
      dy: y,
      dw: w,
      workspace: machine.alloc(convKernelGradientWorkspace(machine, s)),
    }),
  );
}
machine.close();

/** The core in a browser page: bundled as for one, run where there is no `process`, no `require` and no file. */
import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import vm from 'node:vm';
import { build } from 'esbuild';
import { expect, test } from 'vitest';

const ROOT = path.resolve(import.meta.dirname, '../..');

/** a program a page could hold: trains on both backends, and makes a mistake */
const PROGRAM = `
  import { compile, dot, grad, mean, mul, openBackend, read, square, sub, tensor } from './core/index.ts';
  globalThis.answer = (async () => {
    const said = {};
    const x = tensor([[1, 0], [0, 1], [1, 1]], [1, 3, 2]);
    const y = tensor([1, 2, 3], [1, 3, 1]);
    const loss = (w) => mean(square(sub(dot(x, w), y)));
    for (const name of ['cpu', 'wasm']) {
      const backend = await openBackend(name);
      const step = compile((w) => sub(w, mul(grad(loss)(w), 0.3)), { backend });
      let w = tensor([0, 0], [1, 2, 1]);
      for (let i = 0; i < 150; i++) w = step(w);
      said[name] = Array.from(await read(w));
      said[name + ' runs on'] = backend.device;
      await backend.close();
    }
    try { dot(x, x); } catch (error) { said.mistake = error.message; }
    try { await openBackend('webgpu'); } catch (error) { said.webgpu = error.message; }
    return JSON.stringify(said);
  })();
`;

test('trains, tells a mistake and says what is missing', async () => {
  const { outputFiles, metafile } = await build({
    stdin: { contents: PROGRAM, resolveDir: ROOT, loader: 'ts' },
    bundle: true,
    write: false,
    metafile: true,
    platform: 'browser',
    format: 'iife',
    target: 'es2022',
    external: ['gpu.js'],
    logLevel: 'silent',
  });
  const code = outputFiles[0]!.text;
  // nothing of Node is imported, not even lazily
  const imported = Object.values(metafile.outputs).flatMap((o) => o.imports.map((i) => i.path));
  expect(imported.filter((name) => name !== 'gpu.js')).toEqual([]);
  // what a page has beside the language itself
  const page = vm.createContext({ performance, TextDecoder, TextEncoder, setTimeout, console });
  vm.runInContext(code, page);
  const said = JSON.parse(await vm.runInContext('answer', page)) as Readonly<Record<string, unknown>>;
  // the least squares: w = (1, 2) solves all three equations
  for (const name of ['cpu', 'wasm']) {
    const [a, b] = said[name] as [number, number];
    expect(Math.abs(a - 1)).toBeLessThan(1e-4);
    expect(Math.abs(b - 2)).toBeLessThan(1e-4);
  }
  expect(said['wasm runs on']).toBe('WASM SIMD, 1 thread');
  expect(said.mistake).toMatch(/^dot: needs equal k: 2 ≠ 3/);
  expect(said.webgpu).toMatch(/^no WebGPU adapter/);
});

test('only one module of the core knows Node', () => {
  const read = (file: string): string => readFileSync(path.join(ROOT, file), 'utf8');
  // the worker's source is a text that only the host starts
  const known = ['ir/host.ts', 'backends/wasm/machine/worker.ts'];
  const files = (readdirSync(path.join(ROOT, 'core'), { recursive: true }) as string[])
    .map((f) => f.split(path.sep).join('/'))
    .filter((f) => f.endsWith('.ts') && !known.includes(f))
    .map((f) => `core/${f}`);
  const code = (file: string): string => read(file).replace(/\/\*[\s\S]*?\*\/|\/\/.*/g, '');
  expect(files.length).toBeGreaterThan(100);
  expect(files.filter((f) => /\bprocess\.|from 'node:|require\(|import\('node:/.test(code(f)))).toEqual([]);
});

/** The order of the WASM backend's rooms: a file imports what stands below it in the tower, and nothing in a circle. */
import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { expect, it } from 'vitest';

const CORE = path.resolve(import.meta.dirname, '../../../core');
const WASM = path.join(CORE, 'backends/wasm');
/** from the ground up; a wing may use the wings before it */
const TOWER = [
  'assembler',
  'machine',
  'loops',
  'kernel.ts',
  'cluster',
  'product',
  'attention',
  'norm',
  'conv',
  'move',
  'kernels.ts',
  'plans.ts',
  'program.ts',
  'index.ts',
];

const filesOf = (folder: string): string[] =>
  readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.ts') && !name.endsWith('.d.ts'))
    .map((name) => path.join(folder, name));
const importsOf = (file: string): string[] =>
  [...readFileSync(file, 'utf8').matchAll(/^(?! \*).*(?:from|import\()\s*'(\.[^']+)'/gm)].map(([, to]) =>
    path.resolve(path.dirname(file), to!),
  );
const wasm = filesOf(WASM);
const roomOf = (file: string): string => path.relative(WASM, file).split(path.sep)[0]!;
const isInside = (file: string): boolean => !path.relative(WASM, file).startsWith('..');

it('every room has its floor', () => {
  expect([...new Set(wasm.map(roomOf))].sort()).toEqual([...TOWER].sort());
});

it('a file imports its own room and those below', () => {
  const upward = wasm.flatMap((file) =>
    importsOf(file)
      .filter((to) => isInside(to) && TOWER.indexOf(roomOf(to)) > TOWER.indexOf(roomOf(file)))
      .map((to) => `${path.relative(WASM, file)} imports ${path.relative(WASM, to)}`),
  );
  expect(upward).toEqual([]);
});

it('no file imports itself by way of others', () => {
  const open = new Set<string>();
  const done = new Set<string>();
  const visit = (file: string): void => {
    expect(open.has(file), `${[...open, file].map((f) => path.relative(WASM, f)).join(' → ')}`).toBe(false);
    if (done.has(file)) return;
    open.add(file);
    for (const to of importsOf(file).filter(isInside)) visit(to);
    open.delete(file);
    done.add(file);
  };
  for (const file of wasm) visit(file);
  expect(done.size).toBeGreaterThan(40);
});

it('knows of the rest of core what stands below all backends; the rest knows its door', () => {
  const outward = wasm.flatMap((file) =>
    importsOf(file)
      .filter((to) => !isInside(to))
      .map((to) => path.relative(CORE, to).split(path.sep)[0]!),
  );
  expect([...new Set(outward)].sort()).toEqual(['compile', 'fused', 'ir', 'ops']);
  const inward = filesOf(CORE)
    .filter((file) => !isInside(file))
    .flatMap((file) => importsOf(file).filter(isInside));
  expect([...new Set(inward.map((file) => path.relative(WASM, file)))]).toEqual(['index.ts']);
});

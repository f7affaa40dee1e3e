/** The table in core/README.md is what the records say. `SELORA_TABLE=write` writes it anew. */
import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { expect, test } from 'vitest';
import { functions } from '../../core/functions/catalog.ts';
import { type Backend, openBackend, registry } from '../../core/index.ts';
import { opTable } from '../support/op-table.ts';

const README = path.resolve(import.meta.dirname, '../../core/README.md');
const [FROM, TO] = ['<!-- table of ops: begin -->', '<!-- table of ops: end -->'] as const;

test('the table of ops is up to date', { timeout: 120_000 }, async () => {
  const wasm: Backend = await openBackend('wasm', { threads: 1 });
  const table = opTable(wasm);
  await wasm.close();
  const text = readFileSync(README, 'utf8');
  const [before, rest] = text.split(FROM) as [string, string];
  const [there, after] = rest.split(TO) as [string, string];
  if (process.env.SELORA_TABLE === 'write') writeFileSync(README, `${before}${FROM}\n\n${table}\n\n${TO}${after}`);
  else expect(there.trim()).toBe(table);
  const rows = table.split('\n').slice(2);
  // backends look kernels up by name: no function may have that of an op
  expect([...functions.keys()].filter((name) => registry.has(name))).toEqual([]);
  expect(rows).toHaveLength(registry.size + functions.size);
  // what no table may lose: everything differentiable is so twice, and everything with operands maps
  expect(rows.filter((r) => / \| no( \||$)/.test(r))).toEqual([]);
  expect(rows.filter((r) => r.includes('| all |')).length).toBeGreaterThan(50);
});

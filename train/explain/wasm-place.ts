/** Where the wasm backend makes an op. */
import { readdir, readFile } from 'node:fs/promises';
import path from 'node:path';
import type { Op } from '../../core/ir/tensor.ts';

const WASM = path.resolve(import.meta.dirname, '../../core/backends/wasm');

/** Primitives without a file of their own: what the compiler makes of them. */
const BY_FORM: Readonly<Record<string, string>> = {
  elementwise: 'inside fused loops: core/backends/wasm/cluster/math.ts',
  reduce: 'fused reductions: core/backends/wasm/cluster/reduceRows.ts, reduceColumns.ts',
  layout: 'a view; copied by the loop that reads it where strides cannot say it',
  fill: 'computed inside the loops that use it',
  identity: 'nothing to compute',
};

let sources: Promise<readonly (readonly [file: string, text: string])[]> | undefined;
/** The backend's files, read once. */
const readSources = async () =>
  Promise.all(
    (await readdir(WASM, { recursive: true }))
      .filter((name) => name.endsWith('.ts'))
      .sort()
      .map(async (name) => [name, await readFile(path.join(WASM, name), 'utf8')] as const),
  );

/** Where the wasm backend makes the op: its row of the elementwise table, the file of its kernel, or how else. */
export async function wasmPlaceOf(op: Op): Promise<string> {
  sources ??= readSources();
  const files = await sources;
  const form = op.kind === 'primitive' ? op.form.kind : 'composite';
  if (form === 'elementwise') {
    const [, math = ''] = files.find(([name]) => name === path.join('cluster', 'math.ts')) ?? [];
    const row = new RegExp(`^  ${op.name}: [^]*?,$(?=\\n  \\w+:|\\n};)`, 'm').exec(math)?.[0];
    return row ? `core/backends/wasm/cluster/math.ts: ${row.trim().replace(/\s+/g, ' ')}` : BY_FORM.elementwise;
  }
  // a table `dotKernels = { dot }` or a constant `dot: WasmKernel` names the file
  const entry = new RegExp(`Kernels = {[^}]*\\b${op.name}\\b|const ${op.name}: WasmKernel`);
  const [file] = files.find(([, text]) => entry.test(text)) ?? [];
  return file ? `core/backends/wasm/${file}` : (BY_FORM[form] ?? 'its body, fused');
}

/** `--weights nf4`: adapters on frozen weights of 4 bits, in a whole run; resumed, estimated, generated from, written as ever. */
import { cpSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, test, vi } from 'vitest';
import { wasmBackend } from '../../../core/backends/wasm/index.ts';
import { type Backend, entries, read, type Tensor } from '../../../core/index.ts';
import { nf4Value } from '../../../core/ir/nf4.ts';
import { readAdapter } from '../../../models/io/adapter-file.ts';
import { openBase } from '../../../models/io/base.ts';
import { load, specEntries, storedAs, toCheckpoint } from '../../../models/spec.ts';
import { toModelLayout } from '../../../nn/index.ts';
import { parameterHoles } from '../../../train/estimate/holes.ts';
import { main as generate } from '../../../train/generate.ts';
import { main as inspect } from '../../../train/inspect.ts';
import { loadBase, specsOf } from '../../../train/model/model.ts';
import { main as train } from '../../../train/train.ts';
import { runCommand } from '../../support/commands.ts';
import { longTest } from '../../support/long.ts';
import { adapterBits, base, log, out, prepare, start } from '../../support/small-runs.ts';
import { sizeOf } from '../../support/tiny-base.ts';

vi.setConfig({ testTimeout: 300_000, hookTimeout: 120_000 });
beforeAll(prepare);

describe('a base with 4 bits', () => {
  test('matrices and kernels are packed, tables halves, vectors and the autoencoder’s weights as they are told', async () => {
    const opened = await openBase(base());
    const backend = wasmBackend({ threads: 1 }) as Backend;
    const { pipeline } = await loadBase(opened, backend, { weights: 'nf4' });
    const specs = specsOf(opened);
    for (const [name, spec, source] of [
      ['unet', specs.unet, opened.parts.unet],
      ['text', specs.text, opened.parts.text_encoder],
    ] as const) {
      // biome-ignore format: one line
      const params = new Map(specEntries(spec));
      const holes = new Map(entries<Tensor>(parameterHoles(spec, 'nf4') as never));
      for (const [path, t] of entries<Tensor>(pipeline[name] as never)) {
        const param = params.get(path)!;
        const want =
          param.shape.length === 1 ? 'f32' : param.layer === 'embedding' || sizeOf(param.shape) < 177 ? 'f16' : 'nf4';
        expect([path, t.dtype, storedAs(param, 'nf4'), holes.get(path)!.dtype]).toEqual([path, want, want, want]);
        if (want !== 'nf4') continue;
        // each near the weight in the place that the model has for it
        const { data } = toModelLayout({ data: await source.get(path).read(), shape: param.shape });
        const words = (await read(t)) as Uint32Array;
        const most = data.reduce((m, v) => Math.max(m, Math.abs(v)), 0);
        for (const [i, v] of data.entries())
          if (!(Math.abs(nf4Value(words, i) - v) <= 0.2 * most + 1e-7)) expect.fail(`${path}[${i}]: ${v} became ${nf4Value(words, i)}`); // biome-ignore format: one line
      }
    }
    const kinds = new Set(entries<Tensor>(pipeline.vae as never).map(([, t]) => t.dtype));
    expect([...kinds].sort()).toEqual(['f16', 'f32']);
    await backend.close();
  });
  test('is not written back', async () => {
    const opened = await openBase(base());
    const { unet } = specsOf(opened);
    const packed = toCheckpoint((await load(unet, opened.parts.unet, { weights: 'nf4' })) as never);
    const [path] = specEntries(unet).find(([, param]) => storedAs(param, 'nf4') === 'nf4')!;
    await expect(packed.get(path)!.data()).rejects.toThrow('weights of 4 bits are not written');
  });
});

describe('a run', () => {
  const lora = '--method lora --rank 2 --weights nf4 --samples 1';
  let begun: ReturnType<typeof start> | undefined;
  const nf4 = async () => {
    begun ??= start('nf4', lora);
    const { code, stderr } = await begun;
    expect([code, code === 0 ? '' : stderr]).toEqual([0, '']);
  };
  longTest('learns, and its adapter is drawn with and looked at as any', async () => {
    await nf4();
    const validations = log('nf4').flatMap((r) => (r.validation ? [r.validation.loss] : []));
    expect(validations.at(-1)!).toBeLessThan(validations[0]!);
    // no tests, one rank
    expect(log('nf4').every((r) => r.tests === undefined)).toBe(true);
    expect((await adapterBits('nf4')).every(([, rank]) => rank === 2)).toBe(true);
    expect(JSON.parse(readFileSync(join(out('nf4'), 'config.json'), 'utf8')).weights).toBe('nf4');
    expect(readFileSync(join(out('nf4'), 'report.html'), 'utf8')).toContain('nf4');
    const drawn = await runCommand(generate, ['--base', base(), '--adapter', out('nf4'), '--prompt', 'a clear lung', '--steps', '2', '--backend', 'wasm', '--threads', '1', '--out', out('drawn')]); // biome-ignore format: one line
    expect([drawn.code, drawn.code === 0 ? '' : drawn.stderr]).toEqual([0, '']);
    const seen = await runCommand(inspect, [join(out('nf4'), 'adapter.safetensors')]);
    expect([seen.code, seen.code === 0 ? '' : seen.stderr]).toEqual([0, '']);
  });
  longTest('is resumed to the same bits, and its adapter is read as any', async () => {
    await nf4();
    const again = out('nf4-again');
    cpSync(out('nf4'), again, { recursive: true });
    for (const f of ['checkpoints/step-000008.safetensors', 'adapter.safetensors', 'report.html']) rmSync(join(again, f)); // biome-ignore format: one line
    expect((await runCommand(train, ['--resume', again])).code).toBe(0);
    expect(log('nf4-again')).toEqual(log('nf4'));
    for (const f of ['adapter.safetensors', 'samples/01-adapted.png'])
      expect(readFileSync(join(again, f)), f).toEqual(readFileSync(join(out('nf4'), f)));

    // the form of LoRA's: the same modules, ranks and keys as of a run with f32 weights, other numbers
    expect((await start('wide', `${lora} --weights f32 --samples 0`)).code).toBe(0);
    const file = (name: string) => readAdapter(join(out(name), 'adapter.safetensors'));
    const [narrow, wide] = [await file('nf4'), await file('wide')];
    expect([...narrow.modules].map(([p, m]) => [p, m.rank, m.dIn, m.dOut])).toEqual([...wide.modules].map(([p, m]) => [p, m.rank, m.dIn, m.dOut])); // biome-ignore format: one line
    expect(await adapterBits('nf4')).not.toEqual(await adapterBits('wide'));
  });
  longTest('grows ranks by the same tests', async () => {
    expect((await start('grown', '--weights nf4 --samples 0 --lambda 1')).code).toBe(0);
    expect(log('grown').flatMap((r) => r.tests ?? []).some((t) => t.expanded)).toBe(true); // biome-ignore format: one line
  });
  longTest('is foreseen: what frozen weights take falls from f32 to f16 to nf4', async () => {
    const sizes = [];
    for (const weights of ['f32', 'f16', 'nf4']) {
      const { code, stdout } = await start('estimated', `${lora} --weights ${weights} --estimate`);
      expect(code).toBe(0);
      expect(stdout).toContain(`weights ${weights}`);
      sizes.push(Number(/^ +weights +([\d.]+) /m.exec(stdout)![1]));
    }
    expect(sizes[1]! / sizes[0]!).toBeLessThan(0.6);
    expect(sizes[2]!).toBeLessThan(sizes[1]!);
  });
});

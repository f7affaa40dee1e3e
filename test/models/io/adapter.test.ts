/** Adapters written and read: against the reference's ΔW, and round trips in all forms. */
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { checkAdapter } from '../../../models/io/adapter-check.ts';
import { type AdapterFile, type AdapterModule, deltaWeight, readAdapter } from '../../../models/io/adapter-file.ts';
import { padRank } from '../../../models/io/adapter-pad.ts';
import { type RunFacts, runOf, withRun } from '../../../models/io/adapter-run.ts';
import { type AdapterForm, isFolderForm, writeAdapter } from '../../../models/io/adapter-write.ts';
import { openBase } from '../../../models/io/base.ts';
import { openSafetensors } from '../../../models/io/safetensors.ts';
import { verifyInterchange } from '../../../train/verify/interchange.ts';
import { adapter, MODULES, module } from '../../support/adapters.ts';
import { there } from '../../support/there.ts';
import { writeTinyBase } from '../../support/tiny-base.ts';

const scratch = mkdtempSync(path.join(tmpdir(), 'selora-adapter-'));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));
const golden = path.join(import.meta.dirname, '../../golden/io');
const full = process.env.SELORA_GOLDEN2 ?? path.resolve(import.meta.dirname, '../../../../shared/golden2');
const model = path.join(
  process.env.SELORA_GOLDEN ?? path.resolve(import.meta.dirname, '../../../../shared/golden'),
  'tiny-sd',
);

describe('what PEFT, diffusers and kohya wrote', () => {
  const found = there('the second golden set', existsSync(full), `no ${full}; SELORA_GOLDEN2 names the folder`);
  const folders = [golden, ...(found ? [full] : [])];
  it.each(folders)('gives the reference’s ΔW (%s)', { timeout: 60_000 }, async (folder) => {
    const found: string[] = [];
    for await (const one of verifyInterchange(folder, existsSync(model) ? model : undefined)) {
      found.push(one.case);
      expect(one.error, one.case).toBeLessThanOrEqual(one.tolerance);
    }
    expect(found.length).toBeGreaterThanOrEqual(8);
  });
});

/** Largest difference of ΔW, relative to Σ|terms|, in units of float32's rounding. */
function distance(a: AdapterFile, b: AdapterFile): number {
  expect(new Set(b.modules.keys())).toEqual(new Set(a.modules.keys()));
  let worst = 0;
  for (const [name, one] of a.modules) {
    const other = b.modules.get(name)!;
    const bound = deltaWeight({ ...one, A: one.A.map(Math.abs), B: one.B.map(Math.abs), scale: Math.abs(one.scale) });
    const [x, y] = [deltaWeight(one), deltaWeight(other)];
    for (const [i, value] of x.entries())
      worst = Math.max(worst, Math.abs(value - y[i]) / (bound[i] * 2 ** -24 + 1e-300));
  }
  return worst;
}

describe('writing', () => {
  it.each(['diffusers', 'kohya', 'peft', 'peft-flat'] satisfies AdapterForm[])(
    '%s: the same ΔW, then the same bits',
    async (form) => {
      const extension = isFolderForm(form) ? '' : '.safetensors';
      for (const scale of [1, 8, 0.3]) {
        const first = path.join(scratch, `${form}-${scale}-a${extension}`);
        const written = adapter(scale);
        await writeAdapter(first, written, form);
        const read = await readAdapter(first);
        expect(distance(written, read)).toBeLessThanOrEqual(1); // one rounding of scale·B, none for powers of two
        if (scale !== 0.3) expect(distance(written, read)).toBe(0);
        expect(read.metadata.get('selora')).toBe('{"lambda":1.1,"note":"ünï"}');
        for (const [name, { A, B, scale: one }] of read.modules) {
          expect(one).toBe(1);
          expect(A).toEqual(written.modules.get(name)!.A);
          expect(B).toEqual(written.modules.get(name)!.B.map((b) => scale * b));
        }
        const second = path.join(scratch, `${form}-${scale}-b${extension}`);
        await writeAdapter(second, read, form);
        const files = isFolderForm(form)
          ? ['unet', 'text_encoder'].map((part) => `${part}/adapter_model.safetensors`)
          : [''];
        for (const file of files) {
          expect(readFileSync(path.join(second, file))).toEqual(readFileSync(path.join(first, file)));
        }
      }
    },
  );

  it('uses the names that every loader reads right', async () => {
    const names = async (form: AdapterForm) => {
      const file = path.join(scratch, `names-${form}.safetensors`);
      await writeAdapter(file, adapter(2, MODULES.slice(1, 3)), form);
      const opened = await openSafetensors(file);
      return { keys: [...opened.tensors.keys()].sort(), metadata: opened.metadata };
    };
    const prefix = 'down_blocks.0.attentions.0.transformer_blocks.0.attn1';
    expect(await names('diffusers')).toEqual({
      keys: ['to_out.0.lora_A', 'to_out.0.lora_B', 'to_q.lora_A', 'to_q.lora_B'].map(
        (k) => `unet.${prefix}.${k}.weight`,
      ),
      metadata: new Map([
        ['format', 'pt'],
        ['selora', '{"lambda":1.1,"note":"ünï"}'],
        ['lora_adapter_metadata', expect.any(String)],
      ]),
    });
    const flat = `lora_unet_${prefix.replaceAll('.', '_')}`;
    expect((await names('kohya')).keys).toEqual(
      ['to_out_0.lora_down', 'to_out_0.lora_up', 'to_q.lora_down', 'to_q.lora_up'].map((k) => `${flat}_${k}.weight`),
    );
  });

  it('stores PyTorch’s transposes', async () => {
    const file = path.join(scratch, 'transposed.safetensors');
    const one = { A: Float32Array.of(1, 2, 3, 4, 5, 6), B: Float32Array.of(7, 8), rank: 2, dIn: 3, dOut: 1, scale: 1 };
    await writeAdapter(file, { modules: new Map([['unet.conv.x', one]]), metadata: new Map() });
    const opened = await openSafetensors(file);
    expect(opened.tensors.get('unet.conv.x.lora_A.weight')!.shape).toEqual([2, 3]);
    expect(await opened.float32('unet.conv.x.lora_A.weight')).toEqual(Float32Array.of(1, 3, 5, 2, 4, 6));
    expect(await opened.float32('unet.conv.x.lora_B.weight')).toEqual(Float32Array.of(7, 8));
    expect(deltaWeight(one)).toEqual(Float64Array.of(1 * 7 + 2 * 8, 3 * 7 + 4 * 8, 5 * 7 + 6 * 8));
  });

  it('writes a PEFT folder whose patterns give every module its rank and scale 1', async () => {
    const folder = path.join(scratch, 'peft-one');
    const unetOnly = adapter(0.5, MODULES.slice(0, 5));
    await writeAdapter(folder, unetOnly, 'peft');
    const config = JSON.parse(readFileSync(path.join(folder, 'adapter_config.json'), 'utf8'));
    for (const [name, { rank }] of unetOnly.modules) {
      // PEFT's own rule, by a real regular expression.
      const look = (table: Record<string, number>, otherwise: number) => {
        const key = Object.keys(table).find((k) => new RegExp(`^(.*\\.)?(${k})$`).test(name.slice(5)));
        return key === undefined ? otherwise : table[key];
      };
      expect(look(config.rank_pattern, config.r)).toBe(rank);
      expect(look(config.alpha_pattern, config.lora_alpha)).toBe(rank);
    }
    await expect(writeAdapter(folder, unetOnly, 'peft')).rejects.toThrow(/peft-one: exists already and is not empty/);
  });
});

describe('padding', () => {
  it('gives every module the same rank and leaves ΔW as it is, to the bit', async () => {
    const mixed = adapter(0.3);
    const file = path.join(scratch, 'padded.safetensors');
    await writeAdapter(file, padRank(mixed));
    const read = await readAdapter(file);
    expect(new Set([...read.modules.values()].map(({ rank }) => rank))).toEqual(new Set([4]));
    const plain = path.join(scratch, 'plain.safetensors');
    await writeAdapter(plain, mixed);
    for (const [name, module] of (await readAdapter(plain)).modules) {
      expect(deltaWeight(read.modules.get(name)!)).toEqual(deltaWeight(module));
    }
    expect(() => padRank(mixed, 3)).toThrow(/has rank 4, above 3/);
  });
});

describe('run facts', () => {
  const run: RunFacts = {
    format: 'selora/1',
    method: 'selora',
    lambda: 1.1,
    testEvery: 40,
    scale: 1,
    initA: 0,
    steps: 1200,
    baseHash: 'a'.repeat(64),
    rankHistory: [{ step: 40, module: MODULES[1], rank: 2, ratio: 1.97 }],
    criterion: 'fi-ratio',
  };
  it.each(['diffusers', 'kohya', 'peft', 'peft-flat'] satisfies AdapterForm[])(
    'travel in the header of the %s form',
    async (form) => {
      const target = path.join(scratch, `run-${form}`);
      await writeAdapter(target, withRun(adapter(1, MODULES.slice(0, 3)), run), form);
      expect(runOf(await readAdapter(target), target)).toEqual(run);
    },
  );
  it('are checked, and absent in other programs’ files', () => {
    const other = { modules: new Map(), metadata: new Map([['format', 'pt']]) };
    expect(runOf(other, 'f')).toBeUndefined();
    const wrong = withRun(other, { ...run, baseHash: 'x' });
    expect(() => runOf(wrong, 'f')).toThrow(/^f: __metadata__.selora.baseHash: /);
    const broken = { ...other, metadata: new Map([['selora', '[']]) };
    expect(() => runOf(broken, 'f')).toThrow(/^f: __metadata__.selora: not valid JSON/);
  });
});

describe('an adapter and its base', () => {
  it('must have the same modules and sizes', async () => {
    const folder = path.join(scratch, 'base');
    await writeTinyBase(folder);
    const { parts } = await openBase(folder);
    const Q = 'unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q';
    const fits = (modules: Record<string, AdapterModule>) => () =>
      checkAdapter('a.safetensors', { modules: new Map(Object.entries(modules)), metadata: new Map() }, parts);
    const conv = { ...module(1, 4 * 9, 4, 1, 0), kernel: [3, 3] as const };
    fits({
      [Q]: module(2, 8, 8, 1, 0),
      'unet.conv_in': conv,
      'text_encoder.text_model.encoder.layers.0.mlp.fc1': module(1, 8, 16, 1, 0),
    })();
    expect(fits({ [Q]: module(2, 8, 9, 1, 0) })).toThrow(
      /^a.safetensors: modules: 1 of another size: unet.*to_q is 8 → 9, the base has \[8,8\]$/,
    );
    expect(fits({ 'unet.conv_in': { ...conv, kernel: [9, 1] } })).toThrow(/another size/);
    expect(fits({ 'unet.conv_in': module(1, 36, 4, 1, 0) })).toThrow(/another size/);
    expect(fits({ [`${Q}x`]: module(2, 8, 8, 1, 0) })).toThrow(/1 not in the base model: unet.*to_qx$/);
    expect(fits({})).toThrow(/adapts nothing/);
  });
});

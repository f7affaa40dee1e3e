/** Single-file checkpoints under the original (LDM) names. */
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { gunzipSync } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openBase } from '../../../models/io/base.ts';
import { type TensorOut, writeSafetensors } from '../../../models/io/safetensors-write.ts';
import { checkWeights } from '../../../models/io/weights.ts';
import { ldmNames, PARTS, type Part } from '../../../models/names.ts';
import * as sd15 from '../../../models/sd15.ts';
import { sizeOf, tinyWeights, writeTinyBase } from '../../support/tiny-base.ts';
import { expectTiny, UNET } from '../../support/tiny-base-files.ts';

const scratch = mkdtempSync(path.join(tmpdir(), 'selora-base-'));
const good = path.join(scratch, 'good');
beforeAll(() => writeTinyBase(good));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

type Names = Readonly<Record<Part, Readonly<Record<string, string>>>>;
type Table = {
  readonly sd15: Names;
  readonly tiny: Names;
  readonly kohya: Readonly<Record<string, string>>;
  readonly shapes: Readonly<Record<Part, Readonly<Record<string, readonly number[]>>>>;
  readonly sd15Configs: Readonly<Record<string, unknown>>;
};
const table: Table = JSON.parse(
  gunzipSync(readFileSync(path.join(import.meta.dirname, '../../golden/io/names.json.gz'))).toString(),
);

describe('single-file checkpoints', () => {
  it('know SD 1.5 as it is published', () => {
    expect(sd15.SD15_UNET).toEqual(table.sd15Configs.unet);
    expect(sd15.SD15_VAE).toEqual(table.sd15Configs.vae);
    expect(sd15.SD15_TEXT_ENCODER).toEqual(table.sd15Configs.text_encoder);
    expect(sd15.SD15_SCHEDULER).toEqual(table.sd15Configs.scheduler);
  });

  it('have SD 1.5’s names: all 1,130 tensors and their shapes', async () => {
    // A file with the names and shapes of the published one but a byte count of its own: only the header is read.
    const file = path.join(scratch, 'v1-5-like.safetensors');
    const out = new Map<string, TensorOut>();
    for (const part of PARTS) {
      for (const [name, original] of Object.entries(table.sd15[part])) {
        const shape = table.shapes[part][name];
        const kernel = part === 'vae' && name.includes('.attentions.') && shape.length === 2 ? [1, 1] : [];
        out.set(original, {
          dtype: 'U8',
          shape: [...shape, ...kernel].map((side) => Math.min(side, 3)),
          data: new Uint8Array(0),
        });
      }
    }
    out.set('alphas_cumprod', { dtype: 'F32', shape: [2], data: new Float32Array(2) });
    out.set('model_ema.decay', { dtype: 'F32', shape: [], data: new Float32Array(1) });
    const filled = new Map(
      [...out].map(
        ([name, tensor]) =>
          [name, tensor.dtype === 'U8' ? { ...tensor, data: new Uint8Array(sizeOf(tensor.shape)) } : tensor] as const,
      ),
    );
    await writeSafetensors(file, filled);
    const base = await openBase(file);
    for (const part of PARTS) {
      const wanted = Object.entries(table.shapes[part]).map(
        ([name, shape]) => [name, shape.map((side) => Math.min(side, 3))] as const,
      );
      checkWeights(base.parts[part], new Map(wanted));
    }
    expect(base.tokenizer).toBeUndefined();
  });

  it('read with the configuration of a folder, bit for bit', async () => {
    const base = await openBase(good);
    const names = ldmNames(base.configs);
    const out = new Map<string, TensorOut>();
    for (const part of PARTS) {
      for (const [name, tensor] of tinyWeights(part, 'F16')) {
        const kernel = part === 'vae' && name.includes('.attentions.') && tensor.shape.length === 2 ? [1, 1] : [];
        out.set(names.toLdm(part, name)!, { ...tensor, shape: [...tensor.shape, ...kernel] });
      }
    }
    const file = path.join(scratch, 'single.safetensors');
    await writeSafetensors(file, out);
    await expectTiny(file, { configFolder: good });
    // With SD 1.5's own configuration the shapes do not fit, and the message says where.
    const wrong = await openBase(file);
    const shapes = new Map(Object.entries(table.shapes.text_encoder));
    expect(() => checkWeights(wrong.parts.text_encoder, shapes)).toThrow(
      /single.safetensors \(text_encoder\): tensors: \d+ missing/,
    );
  });

  it('tell by markers that they predict v, and from pure noise', async () => {
    const write = async (name: string, keys: readonly string[], first: readonly number[] = [0]) => {
      const prefixes = ['model.diffusion_model.x', 'first_stage_model.x', 'cond_stage_model.transformer.x'];
      const empty = (shape: readonly number[]): TensorOut => ({
        dtype: 'U8',
        shape,
        data: new Uint8Array(sizeOf(shape)),
      });
      const kernel = ['model.diffusion_model.input_blocks.0.0.weight', empty(first)] as const;
      const file = path.join(scratch, name);
      await writeSafetensors(
        file,
        new Map([...prefixes, ...keys].map((key) => [key, empty([0])] as const).concat([kernel])),
      );
      return openBase(file);
    };
    const scheduler = async (name: string, keys: readonly string[]) => (await write(name, keys)).configs.scheduler;
    expect(await scheduler('eps.safetensors', [])).toMatchObject({ prediction_type: 'epsilon' });
    expect(await scheduler('v.safetensors', ['v_pred'])).toMatchObject({
      prediction_type: 'v_prediction',
      rescale_betas_zero_snr: false,
      beta_schedule: 'scaled_linear',
    });
    expect(await scheduler('zero.safetensors', ['v_pred', 'ztsnr'])).toMatchObject({
      prediction_type: 'v_prediction',
      rescale_betas_zero_snr: true,
      timestep_spacing: 'trailing',
    });
    await expect(write('inpaint.safetensors', [], [2, 9, 1, 1])).rejects.toThrow(
      /takes 9 channels: this is an inpainting/,
    );
    await expect(write('edit.safetensors', [], [2, 8, 1, 1])).rejects.toThrow(/an instruct-pix2pix checkpoint/);
  });

  it('refuse what is something else', async () => {
    const write = async (names: readonly string[]) => {
      const file = path.join(mkdtempSync(path.join(scratch, 'ldm-')), 'x.safetensors');
      await writeSafetensors(
        file,
        new Map(names.map((name) => [name, { dtype: 'U8', shape: [0], data: new Uint8Array(0) }])),
      );
      return file;
    };
    await expect(openBase(await write(['conditioner.x']))).rejects.toThrow(/Stable Diffusion XL/);
    await expect(openBase(await write(['cond_stage_model.model.x']))).rejects.toThrow(/no model.diffusion_model/);
    const scaled = ['cond_stage_model.transformer.x', 'model.diffusion_model.out.2.scale_weight'];
    await expect(openBase(await write(scaled))).rejects.toThrow(/scale_weight": this is scaled fp8/);
    await expect(openBase(path.join(good, UNET))).rejects.toThrow(
      /no model.diffusion_model\.\* \(unet\).*give the model's folder/,
    );
    const pickle = path.join(scratch, 'v1-5.ckpt');
    writeFileSync(pickle, 'PK\u0003\u0004');
    await expect(openBase(pickle)).rejects.toThrow(
      /v1-5.ckpt: pickled weights are never opened; .*python -c .*torch\.load\('.*v1-5.ckpt'.*save_file/,
    );
    expect(existsSync(pickle)).toBe(true);
  });
});

/**
 * Checks reading of foreign files against `interchange/`: the ΔW of adapters in every form, a single-file checkpoint
 * under its original names, and the names of SD 1.5 in all forms.
 */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { parseConfig, unetSchema, vaeSchema } from '../../models/config.ts';
import { type AdapterModule, deltaWeight, readAdapter } from '../../models/io/adapter-file.ts';
import { openBase } from '../../models/io/base.ts';
import { halfToFloat } from '../../models/io/dtypes.ts';
import { FileError } from '../../models/io/error.ts';
import { readJson } from '../../models/io/json.ts';
import { openSafetensors, type Safetensors } from '../../models/io/safetensors.ts';
import { fromKohya, ldmNames, PARTS, toKohya } from '../../models/names.ts';
import { SD15_UNET, SD15_VAE } from '../../models/sd15.ts';
import type { GoldenCase } from './golden.ts';

const JSON_LIMIT = 64 << 20;

const moduleFacts = z.object({ norm: z.number(), sum: z.number(), dot: z.number() });
type ModuleFacts = z.output<typeof moduleFacts>;
const factsSchema = z.object({
  files: z.record(z.string(), z.object({ modules: z.record(z.string(), moduleFacts) })),
  ldm: z.object({ file: z.string() }).optional(),
});
const names = z.record(z.string(), z.string());
const keysSchema = z.record(z.string(), z.object({ kohya: z.string() }));
const namesSchema = z.object({
  unet: names,
  vae: names,
  text_encoder: names,
  adapter_keys: z.object({ unet: keysSchema, text_encoder: keysSchema }),
});

/**
 * All comparisons for a directory that holds `interchange/`.
 * @param modelFolder the base that the single-file checkpoint was made from; without it that case is left out
 */
export async function* verifyInterchange(goldenDir: string, modelFolder?: string): AsyncIterable<GoldenCase> {
  const folder = join(goldenDir, 'interchange');
  const file = join(folder, 'interchange.json');
  const facts = parseConfig(factsSchema, await readJson(file, JSON_LIMIT), file);
  const effective = await openSafetensors(join(folder, 'effective.safetensors'));
  for (const [name, { modules }] of Object.entries(facts.files)) {
    const single = join(folder, `${name}.safetensors`);
    const adapter = await readAdapter(existsSync(single) ? single : join(folder, name));
    const error = await adapterError(name, adapter.modules, new Map(Object.entries(modules)), effective);
    yield {
      case: `interchange.${name}`,
      error,
      tolerance: 1,
      why: 'ΔW, its norm and sums in units of a float32 product’s rounding bound',
    };
  }
  const sd15 = join(folder, 'sd15-names.json');
  if (existsSync(sd15)) yield nameCase(parseConfig(namesSchema, await readJson(sd15, JSON_LIMIT), sd15));
  if (facts.ldm !== undefined && modelFolder !== undefined) yield ldmCase(join(folder, facts.ldm.file), modelFolder);
}

/** Largest deviation of any module, in units of its bound; ∞ if modules are missing or unexpected. */
async function adapterError(
  name: string,
  modules: ReadonlyMap<string, AdapterModule>,
  facts: ReadonlyMap<string, ModuleFacts>,
  effective: Safetensors,
): Promise<number> {
  if (modules.size !== facts.size || [...facts.keys()].some((path) => !modules.has(path))) return Infinity;
  let worst = 0;
  for (const [path, wanted] of facts) {
    const module = modules.get(path)!;
    const delta = deltaWeight(module);
    // |fl(Σ s·a·b) − Σ s·a·b| ≤ (r + 2)·u·Σ|s·a·b| for every element, in any order of summation.
    const bound = deltaWeight({
      ...module,
      A: module.A.map(Math.abs),
      B: module.B.map(Math.abs),
      scale: Math.abs(module.scale),
    });
    const unit = (module.rank + 2) * 2 ** -24;
    const weight = (i: number) => (i % 7) - 3;
    const sums = { norm: 0, sum: 0, dot: 0 };
    const bounds = { norm: 0, sum: 0, dot: 0 };
    for (const [i, d] of delta.entries()) {
      sums.norm += d * d;
      sums.sum += d;
      sums.dot += d * weight(i);
      bounds.norm += bound[i] * bound[i];
      bounds.sum += bound[i];
      bounds.dot += bound[i] * Math.abs(weight(i));
    }
    worst = Math.max(
      worst,
      Math.abs(Math.sqrt(sums.norm) - wanted.norm) / (unit * Math.sqrt(bounds.norm)),
      Math.abs(sums.sum - wanted.sum) / (unit * bounds.sum),
      Math.abs(sums.dot - wanted.dot) / (unit * bounds.dot),
    );
    const stored = `${name}.effective.${path}`;
    if (!effective.tensors.has(stored)) continue;
    const matrix = await effective.float32(stored);
    for (const [i, d] of delta.entries())
      worst = Math.max(worst, Math.abs(d - matrix[i]) / (unit * bound[i] || 1e-300));
  }
  return worst;
}

/** Number of SD 1.5's names that come out differently in any form and direction. */
function nameCase(table: z.output<typeof namesSchema>): GoldenCase {
  const ldm = ldmNames({
    unet: parseConfig(unetSchema, SD15_UNET, 'unet'),
    vae: parseConfig(vaeSchema, SD15_VAE, 'vae'),
  });
  let wrong = 0;
  for (const part of PARTS) {
    for (const [name, original] of Object.entries(table[part])) {
      const back = ldm.fromLdm(original);
      if (ldm.toLdm(part, name) !== original || back?.[0] !== part || back[1] !== name) wrong++;
    }
  }
  for (const part of ['unet', 'text_encoder'] as const) {
    for (const [path, { kohya }] of Object.entries(table.adapter_keys[part])) {
      const full = `${part}.${path}`;
      if (toKohya(full) !== kohya || fromKohya(kohya) !== full) wrong++;
    }
  }
  return { case: 'interchange.sd15-names', error: wrong, tolerance: 0, why: 'names are equal or wrong' };
}

/** Number of values in the single file that are not the half-float rounding of the model's. */
async function ldmCase(file: string, modelFolder: string): Promise<GoldenCase> {
  const single = await openBase(file, { configFolder: modelFolder });
  const model = await openBase(modelFolder);
  let wrong = 0;
  for (const part of PARTS) {
    const source = model.parts[part];
    if (source.weights.size !== single.parts[part].weights.size)
      throw new FileError(file, part, 'other tensors than the model');
    for (const [name, weight] of source.weights) {
      const values = await single.parts[part].get(name).read();
      const rounded = halfToFloat(await weight.readHalf());
      for (const [i, value] of rounded.entries()) if (!Object.is(value, values[i])) wrong++;
    }
  }
  return {
    case: 'interchange.single-file',
    error: wrong,
    tolerance: 0,
    why: 'stored as half floats: equal bit for bit',
  };
}

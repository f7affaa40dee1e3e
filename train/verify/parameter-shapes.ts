/** Checks the names and shapes our configurations build against a golden directory's `sd15-shapes.json`. */
import { z } from 'zod';
import type { Tree } from '../../core/index.ts';
import { textEncoderSpec } from '../../models/clip/text-encoder.ts';
import { parseConfig, textEncoderSchema, unetSchema, vaeSchema } from '../../models/config.ts';
import { linearPaths, parameterCount, specShapes } from '../../models/spec.ts';
import { unetSpec } from '../../models/unet/index.ts';
import { vaeSpec } from '../../models/vae/index.ts';
import type { Param } from '../../nn/index.ts';
import { type GoldenCase, readGoldenJson } from './golden.ts';

export const SHAPES_FILES = ['sd15-shapes.json'] as const;

const part = z.object({
  config: z.json(),
  parameters_total: z.number(),
  parameters: z.record(z.string(), z.array(z.number())),
  linear_in_out: z.record(z.string(), z.tuple([z.number(), z.number()])),
});
const schema = z.object({ unet: part, vae: part, text_encoder: part });

/** Number of entries that one map has and the other has not, or has otherwise. */
function differences(a: ReadonlyMap<string, readonly number[]>, b: ReadonlyMap<string, readonly number[]>): number {
  const names = new Set([...a.keys(), ...b.keys()]);
  return [...names].filter((name) => a.get(name)?.join() !== b.get(name)?.join()).length;
}

/** @throws FileError naming file and field */
export async function* verifyShapes(directory: string): AsyncGenerator<GoldenCase> {
  const file = 'sd15-shapes.json';
  const golden = await readGoldenJson(directory, file, schema);
  const specs: Readonly<Record<keyof typeof golden, Tree<Param>>> = {
    unet: unetSpec(parseConfig(unetSchema, golden.unet.config, file)),
    vae: vaeSpec(parseConfig(vaeSchema, golden.vae.config, file)),
    text_encoder: textEncoderSpec(parseConfig(textEncoderSchema, golden.text_encoder.config, file)),
  };
  for (const [name, { parameters, parameters_total, linear_in_out }] of Object.entries(golden)) {
    const spec = specs[name as keyof typeof golden];
    const shapes = specShapes(spec);
    const wanted = new Map(Object.entries(parameters));
    const linears = new Map(
      linearPaths(spec).map((path) => [path, [...shapes.get(`${path}.weight`)!].reverse()] as const),
    );
    const exact = (what: string, error: number): GoldenCase => ({
      case: `shapes ${name} ${what}`,
      error,
      tolerance: 0,
      why: 'names and shapes are exact',
    });
    yield exact(`of ${wanted.size} parameters`, differences(shapes, wanted));
    yield exact(`total ${parameters_total}`, Math.abs(parameterCount(spec) - parameters_total));
    yield exact(
      `of ${Object.keys(linear_in_out).length} linears`,
      differences(linears, new Map(Object.entries(linear_in_out))),
    );
  }
}

/** Where an op is used: how often in true Stable Diffusion 1.5, and from which lines of the models. */
import { readdir, readFile } from 'node:fs/promises';
import path from 'node:path';
import { mapTree, mean, mul, type Tensor, type Tree, valueAndGrad } from '../../core/index.ts';
import { hole, topo } from '../../core/ir/tensor.ts';
import { textEncoder, textEncoderSpec } from '../../models/clip/text-encoder.ts';
import { parseConfig, textEncoderSchema, unetSchema, vaeSchema } from '../../models/config.ts';
import { SD15_TEXT_ENCODER, SD15_UNET, SD15_VAE } from '../../models/sd15.ts';
import { linearPaths, specShapes } from '../../models/spec.ts';
import { unet, unetSpec } from '../../models/unet/index.ts';
import { vaeDecode, vaeSpec } from '../../models/vae/index.ts';
import type { Param, Params } from '../../nn/index.ts';
import type { Adapters } from '../../selora/adapter.ts';
import { attach } from '../../selora/attach.ts';

const argument = (shape: readonly number[], dtype: 'f32' | 'i32' = 'f32'): Tensor => hole({ shape, dtype });

/** Parameters that only have shapes: [out, in, kh, kw] becomes [kh, kw, in, out], as in memory. */
const symbolic = <S extends Tree<Param>>(spec: S): Params<S> =>
  mapTree(({ shape: s }: Param, label) => {
    const placed = s.length === 4 ? [s[2], s[3], s[1], s[0]] : s;
    return hole({ shape: placed, dtype: 'f32' }, label);
  }, spec) as unknown as Params<S>;

const countsOf = (roots: readonly Tensor[]): ReadonlyMap<string, number> => {
  const counts = new Map<string, number>();
  for (const { op } of topo(roots)) counts.set(op.name, (counts.get(op.name) ?? 0) + 1);
  return counts;
};

/** A program's name and how many nodes of each op it has. */
type Counted = readonly [program: string, counts: ReadonlyMap<string, number>];

let counted: readonly Counted[] | undefined;
/** Nodes per op name in the programs of SD 1.5 at 512×512, batch 1, before simplification. Traced once, never run. */
export function countsInSd15(): readonly Counted[] {
  counted ??= countSd15();
  return counted;
}

function countSd15(): readonly Counted[] {
  const config = parseConfig(unetSchema, SD15_UNET, 'unet');
  const textConfig = parseConfig(textEncoderSchema, SD15_TEXT_ENCODER, 'text_encoder');
  const vaeConfig = parseConfig(vaeSchema, SD15_VAE, 'vae');
  const spec = unetSpec(config);
  const params = symbolic(spec);
  const shapes = specShapes(spec);
  const latents = argument([1, 64, 64, 4]);
  const [t, context] = [argument([1]), argument([1, 77, 768])];
  const adapters: Adapters = Object.fromEntries(
    linearPaths(spec).map((p) => {
      const [dOut, dIn] = shapes.get(`${p}.weight`)!;
      return [p, { A: argument([dIn, 1]), B: argument([1, dOut]) }];
    }),
  );
  const loss = (a: Adapters) => {
    const y = unet(attach(params, a, 1), config, latents, t, context);
    return mean(mul(y, y));
  };
  const [value, gradients] = valueAndGrad(loss)(adapters);
  const text = textEncoder(symbolic(textEncoderSpec(textConfig)), textConfig, argument([1, 77], 'i32'));
  const decoded = vaeDecode(symbolic(vaeSpec(vaeConfig)), vaeConfig, latents);
  return [
    ['U-Net', countsOf([unet(params, config, latents, t, context)])],
    [
      'U-Net with adapters, loss and gradient',
      countsOf([value, ...Object.values(gradients).flatMap(({ A, B }) => [A, B])]),
    ],
    ['text encoder', countsOf([text.lastHiddenState])],
    ['VAE decoder', countsOf([decoded])],
  ];
}

const ROOT = path.resolve(import.meta.dirname, '../..');

let layers: Promise<readonly (readonly [file: string, text: string])[]> | undefined;
/** The sources of the layers above the core, read once. */
async function readLayers(): Promise<readonly (readonly [file: string, text: string])[]> {
  const found: [string, string][] = [];
  for (const folder of ['nn', 'models', 'selora'])
    for (const entry of await readdir(path.join(ROOT, folder), { recursive: true }))
      if (entry.endsWith('.ts'))
        found.push([`${folder}/${entry}`, await readFile(path.join(ROOT, folder, entry), 'utf8')]);
  return found;
}

/** Calls of a function by name in the layers above the core: `nn/linear.ts:39: let y = dot(rows, …)`. */
export async function callSites(name: string): Promise<readonly string[]> {
  layers ??= readLayers();
  const call = new RegExp(`(?<![.\\w])${name}\\(`);
  // only where the name is the core's own
  const ofCore = new RegExp(`import {[^}]*\\b${name}\\b[^}]*} from '[^']*core/`);
  return (await layers).flatMap(([file, text]) =>
    call.test(text) && ofCore.test(text)
      ? text
          .split('\n')
          .flatMap((line, i) =>
            call.test(line) && !/^\s*(\*|\/\/|\/\*)/.test(line) ? [`${file}:${i + 1}: ${line.trim()}`] : [],
          )
      : [],
  );
}

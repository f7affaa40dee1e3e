/**
 * npm run make-base: a base model of a true configuration with random weights, in the diffusers layout. For trying
 * everything at true size (memory, speed, files) where the published weights cannot be downloaded: its pictures are noise.
 *
 *   npm run make-base -- --like sd15 --out sd15-random --dtype f16
 */
import path from 'node:path';
import { Option } from 'commander';
import type { Tree } from '../core/index.ts';
import { textEncoderSpec } from '../models/clip/text-encoder.ts';
import { parseConfig, textEncoderSchema, unetSchema, vaeSchema } from '../models/config.ts';
import type { ConfigFiles } from '../models/io/base.ts';
import { writeBase } from '../models/io/base-write.ts';
import { printable } from '../models/io/error.ts';
import type { TensorOut } from '../models/io/safetensors-write.ts';
import { readTokenizer } from '../models/io/tokenizer-files.ts';
import { PARTS, type Part } from '../models/names.ts';
import { SD15_SCHEDULER, SD15_TEXT_ENCODER, SD15_UNET, SD15_VAE } from '../models/sd15.ts';
import { specEntries } from '../models/spec.ts';
import { unetSpec } from '../models/unet/index.ts';
import { vaeSpec } from '../models/vae/index.ts';
import type { Init, Param } from '../nn/index.ts';
import { command, type Io, parseArgs, print, runMain, wholeNumber } from './cli/command.ts';
import { SMALL_BASE } from './model/paths.ts';
import { schedulerConfig, textConfig, unetConfig, vaeConfig } from './pretrain/config.ts';

type Configs = Omit<ConfigFiles, 'modelIndex'>;

/** The configurations there are to copy. */
export const LIKE = {
  sd15: { unet: SD15_UNET, vae: SD15_VAE, textEncoder: SD15_TEXT_ENCODER, scheduler: SD15_SCHEDULER },
  small: { unet: unetConfig, vae: vaeConfig, textEncoder: textConfig, scheduler: schedulerConfig },
} as const satisfies Record<string, Configs>;

/** FNV-1a, 32 bits. */
const hash = (text: string): number =>
  [...text].reduce((h, c) => Math.imul(h ^ c.codePointAt(0)!, 0x01000193), 0x811c9dc5) >>> 0;

/** A bijection of 32-bit words without visible pattern. Source: C. Wellons, "lowbias32" (2018, constants of 2022). */
function mix(x: number): number {
  let y = x ^ (x >>> 16);
  y = Math.imul(y, 0x21f0aaad);
  y ^= y >>> 15;
  y = Math.imul(y, 0x735a2d97);
  return (y ^ (y >>> 15)) >>> 0;
}

/**
 * `count` values of one tensor: a function of seed, name and index alone. Not `init` of nn: its threefry would take ten
 * minutes for the thousand million values of SD 1.5, and nobody needs independence that good here.
 * Cost: some 10 ns a value.
 */
export function drawWeights(name: string, count: number, init: Init, seed: number): Float32Array {
  const out = new Float32Array(count);
  if (init.kind === 'constant') return out.fill(init.value);
  const low = mix(hash(name) ^ seed);
  const stream = mix(low ^ Math.floor(seed / 2 ** 32));
  const word = (i: number): number => mix(mix(i ^ stream) + low);
  if (init.kind === 'uniform') {
    const step = init.bound / 2 ** 31;
    for (let i = 0; i < count; i++) out[i] = word(i) * step - init.bound;
    return out;
  }
  for (let i = 0; i < count; i++) {
    // Box–Muller, one of the pair
    const radius = Math.sqrt(-2 * Math.log((word(2 * i) + 0.5) / 2 ** 32));
    out[i] = init.std * radius * Math.cos((2 * Math.PI * word(2 * i + 1)) / 2 ** 32);
  }
  return out;
}

/** The tensors of one network, each drawn when its turn to be written comes. */
const drawn = (spec: Tree<Param>, part: Part, seed: number, dtype: 'F16' | 'F32'): ReadonlyMap<string, TensorOut> =>
  new Map(
    specEntries(spec).map(([name, { shape, init }]) => {
      const count = shape.reduce((n, side) => n * side, 1);
      return [name, { dtype, shape, data: () => drawWeights(`${part}/${name}`, count, init, seed) }];
    }),
  );

/** The weights of a whole model with these configurations. */
export function randomWeights(
  configs: Configs,
  seed: number,
  dtype: 'F16' | 'F32',
): Readonly<Record<Part, ReadonlyMap<string, TensorOut>>> {
  const specs: Readonly<Record<Part, Tree<Param>>> = {
    unet: unetSpec(parseConfig(unetSchema, configs.unet, 'unet/config.json')),
    vae: vaeSpec(parseConfig(vaeSchema, configs.vae, 'vae/config.json')),
    text_encoder: textEncoderSpec(parseConfig(textEncoderSchema, configs.textEncoder, 'text_encoder/config.json')),
  };
  const of = (part: Part) => drawn(specs[part], part, seed, dtype);
  return { unet: of('unet'), vae: of('vae'), text_encoder: of('text_encoder') };
}

type Options = {
  readonly like: keyof typeof LIKE;
  readonly out: string;
  readonly dtype: 'f16' | 'f32';
  readonly seed: number;
};

const program = (io: Io) =>
  command(
    'make-base',
    'Writes a random base model of a true configuration (diffusers layout), to try everything at true size without a download.',
    ['--like sd15 --out sd15-random --dtype f16', '--like small --out small-random --seed 7'],
    io,
  )
    .addOption(
      new Option('--like <name>', 'configuration: Stable Diffusion 1.5 or the small base')
        .choices(Object.keys(LIKE))
        .makeOptionMandatory(),
    )
    .requiredOption('--out <dir>', 'folder to write; must be empty or not there')
    .addOption(new Option('--dtype <name>', 'number format of the weights').choices(['f32', 'f16']).default('f32'))
    .addOption(
      new Option('--seed <n>', 'seed of all weights').argParser(wholeNumber(0, Number.MAX_SAFE_INTEGER)).default(1),
    );

export async function main(args: readonly string[], io: Io): Promise<void> {
  const o = parseArgs<Options>(program(io), args);
  const configFiles: Configs = LIKE[o.like];
  const dtype = o.dtype === 'f16' ? 'F16' : 'F32';
  const weights = randomWeights(configFiles, o.seed, dtype);
  const encoder = parseConfig(textEncoderSchema, configFiles.textEncoder, 'text_encoder/config.json');
  const { raw } = await readTokenizer(path.join(SMALL_BASE, 'tokenizer'), encoder);
  await writeBase(o.out, { configFiles, tokenizerFiles: raw, weights }, { signal: io.signal, public: true });
  const total = (part: Part) =>
    [...weights[part].values()].reduce((n, { shape }) => n + shape.reduce((p, side) => p * side, 1), 0);
  for (const part of PARTS)
    print(io, `${part.padEnd(13)} ${total(part).toLocaleString('en')} parameters in ${weights[part].size} tensors`);
  print(io, `written to ${printable(o.out)}; npm run inspect -- ${printable(o.out)} shows it`);
}

await runMain(import.meta, main);

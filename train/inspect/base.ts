/** A base model: its parts, what is missing or of the wrong shape, and what an adapter would cost. */
import type { Base } from '../../models/io/base.ts';
import { printable } from '../../models/io/error.ts';
import { compareWeights, type Spec, type WeightSource } from '../../models/io/weights.ts';
import { PARTS, type Part } from '../../models/names.ts';
import { inputsOf } from '../../selora/methods/low-rank.ts';
import type { Places } from '../../selora/methods/method.ts';
import { ALL, presets } from '../../selora/targets.ts';
import { commas, printFacts, table } from '../cli/columns.ts';
import { type Io, print } from '../cli/command.ts';
import { checkBase, openBaseAt, placesOf, shapesOf, tokenizerOf } from '../model/model.ts';
import { vaeFactor } from '../model/programs.ts';
import { chosenPaths } from '../model/targets.ts';

/** Tensors named per part and problem. */
const SHOWN = 5;

const product = (shape: readonly number[]): number => shape.reduce((n, side) => n * side, 1);

/** Trained parameters of adapters of rank 1 on the chosen layers: Σ (d_in + d_out). */
const rankOne = (places: Places, paths: readonly string[]): number =>
  paths.reduce((sum, p) => sum + places.get(p)![0] + inputsOf(places.get(p)!), 0);

/** One line per preset: how many layers it reaches and what rank 1 on them costs. */
function targetLines(base: Base): readonly string[] {
  const all = placesOf(base);
  const rows = [...Object.keys(presets), ALL].flatMap((name) => {
    try {
      const { unet, text } = chosenPaths(name, all);
      const parameters = rankOne(all.unet, unet) + rankOne(all.text, text);
      const kernels = unet.filter((path) => all.unet.get(path)!.length === 4).length;
      const what = kernels > 0 ? `U-Net layers, ${kernels} of them convolutions,` : 'U-Net';
      return [
        [
          `  --targets ${name}`,
          `${unet.length} ${what} + ${text.length} text linears`,
          `${commas(parameters)} at rank 1`,
        ],
      ];
    } catch {
      // a preset whose patterns match nothing in this model
      return [];
    }
  });
  return table(rows);
}

function partRow(part: Part, source: WeightSource, spec: Spec): readonly string[] {
  const { missing, unexpected, wrongShape } = compareWeights(source, spec);
  const counts = new Map<string, number>();
  for (const { dtype } of source.weights.values()) counts.set(dtype, (counts.get(dtype) ?? 0) + 1);
  const parameters = [...source.weights.values()].reduce((sum, { shape }) => sum + product(shape), 0);
  const state = [
    missing.length > 0 && `${missing.length} missing`,
    wrongShape.length > 0 && `${wrongShape.length} of the wrong shape`,
    unexpected.length > 0 && `${unexpected.length} unexpected`,
  ].filter((text) => text !== false);
  return [
    `  ${part}`,
    commas(source.weights.size),
    commas(parameters),
    [...counts.keys()].join('+'),
    state.join(', ') || 'complete',
  ];
}

function modelFacts(base: Base): readonly (readonly [string, string | undefined])[] {
  const { unet, vae, textEncoder, scheduler } = base.configs;
  const factor = vaeFactor(vae);
  const size = unet.sample_size ?? undefined;
  const [h, w] = typeof size === 'number' ? [size, size] : (size ?? []);
  const heads = JSON.stringify(unet.attention_head_dim);
  return [
    [
      'pictures',
      h === undefined
        ? undefined
        : `${w * factor}x${h * factor} (latents ${w}x${h}x${unet.in_channels}, factor ${factor})`,
    ],
    [
      'U-Net',
      `widths ${unet.block_out_channels.join(', ')}; ${unet.layers_per_block} layers per block; heads ${heads}`,
    ],
    ['VAE', `widths ${vae.block_out_channels.join(', ')}; scaling factor ${vae.scaling_factor}`],
    [
      'text encoder',
      `${textEncoder.num_hidden_layers} layers of width ${textEncoder.hidden_size}, ${textEncoder.hidden_act}`,
    ],
    [
      'scheduler',
      `${printable(scheduler._class_name, 60)}, ${scheduler.num_train_timesteps} steps, predicts ${scheduler.prediction_type}`,
    ],
  ];
}

/** Reads every value once. @throws FileError naming the first tensor with a value that is not finite */
async function readAll(base: Base, io: Io): Promise<void> {
  let read = 0;
  const total = PARTS.reduce((sum, part) => sum + base.parts[part].weights.size, 0);
  let shown = performance.now();
  for (const part of PARTS)
    for (const weight of base.parts[part].weights.values()) {
      await weight.read();
      read++;
      if (performance.now() - shown > 5000) {
        shown = performance.now();
        print(io, `  … ${read} of ${total} tensors read`);
      }
    }
}

/**
 * Prints what a base consists of. `quick` reads headers only.
 * @throws FileError after the tables, when tensors are missing, unexpected, of the wrong shape or not finite
 */
export async function inspectBase(
  location: string,
  { quick, config }: { readonly quick?: boolean; readonly config?: string },
  io: Io,
): Promise<void> {
  const base = await openBaseAt(location, config);
  const shapes = shapesOf(base);
  const { tokenizer } = await tokenizerOf(base);
  printFacts(io, `base model ${printable(location)}`, [
    ...modelFacts(base),
    ['tokenizer', `${commas(tokenizer.vocabularySize)} ids, texts up to ${tokenizer.config.maxLength}`],
  ]);
  print(io);
  const rows = PARTS.map((part) => partRow(part, base.parts[part], shapes[part]));
  for (const line of table([['  part', 'tensors', 'parameters', 'stored as', ''], ...rows], [1, 2])) print(io, line);
  for (const part of PARTS) {
    const { wrongShape, missing, unexpected } = compareWeights(base.parts[part], shapes[part]);
    const first = (text: string, names: readonly string[]) => {
      for (const name of names.slice(0, SHOWN)) print(io, `    ${part}: ${text} ${printable(name)}`);
      if (names.length > SHOWN) print(io, `    ${part}: ${names.length - SHOWN} more ${text}`);
    };
    first('missing', missing);
    first('unexpected', unexpected);
    first(
      'wrong shape',
      wrongShape.map((d) => `${d.name} [${d.found}], the configuration wants [${d.wanted}]`),
    );
  }
  checkBase(base);
  print(io);
  for (const line of targetLines(base)) print(io, line);
  if (quick) return;
  await readAll(base, io);
  print(io, '  all values are finite');
  print(io, `  SHA-256 ${await base.hash()}`);
}

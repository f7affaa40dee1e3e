/** The loss of a candidate on the run's own validation grid, and on as many test pairs; one program for all candidates. */
import { type Backend, place, read, tensor } from '../../core/index.ts';
import type { Base } from '../../models/io/base.ts';
import { lora } from '../../selora/methods/lora.ts';
import { fromModuleName } from '../../selora/networks.ts';
import type { Candidate } from '../../selora/search.ts';
import { type Io, print } from '../cli/command.ts';
import type { RunConfig } from '../config/config.ts';
import { encodePairs } from '../model/encode.ts';
import { loadBase } from '../model/model.ts';
import { vaeFactor } from '../model/programs.ts';
import { sideOf } from '../model/targets.ts';
import { adamDefaults } from '../optimise/optimizer.ts';
import { loadCheckpoint } from '../run/checkpoint.ts';
import { batchSource } from '../step/batches.ts';
import { chosenOf } from '../step/ranks.ts';
import { type Batch, createSteps, type PerModule } from '../step/step.ts';
import { refuseOtherData } from '../trainer/origin.ts';
import { findData, type RunPair } from '../trainer/pairs.ts';
import type { Choice, Offers } from './sources.ts';

type LowRank = PerModule<{ readonly A: ReturnType<typeof tensor>; readonly B: ReturnType<typeof tensor> }>;

/** Losses of candidates. */
export interface Evaluator {
  /** hash of the run's data */
  readonly data: string;
  readonly validation: (choices: Candidate) => Promise<number>;
  /** NaN where the run keeps no test pairs */
  readonly test: (choices: Candidate) => Promise<number>;
}

/** A choice as tensors of one capacity: ranks beyond its own are zero on both sides, which changes nothing. */
function padded(choice: Choice, dIn: number, dOut: number, capacity: number, backend: Backend) {
  const A = new Float32Array(dIn * capacity);
  const B = new Float32Array(capacity * dOut);
  if (choice !== undefined) {
    const { module, rank } = choice;
    for (let i = 0; i < dIn; i++) for (let r = 0; r < rank; r++) A[i * capacity + r] = module.A[i * rank + r]!;
    for (let k = 0; k < rank * dOut; k++) B[k] = module.scale * module.B[k]!;
  }
  return place({ A: tensor(A, [dIn, capacity]), B: tensor(B, [capacity, dOut]) }, backend);
}

/**
 * Opens model and pairs of a run. Each choice's tensors are made once; a candidate is a choice among them.
 * @throws FileError where the data are not those that the run was made from
 */
export async function evaluator(o: {
  readonly config: RunConfig;
  readonly run: string;
  readonly base: Base;
  readonly backend: Backend;
  readonly offers: Offers;
  readonly io: Io;
}): Promise<Evaluator> {
  const { backend, base, offers } = o;
  const c: RunConfig = { ...o.config, method: lora.name, scale: 1, initAdapter: null };
  const found = await findData(c);
  const checkpoint = await loadCheckpoint(o.run);
  if (checkpoint) refuseOtherData(o.run, checkpoint.info, found.hash);
  const side = sideOf(base, c);
  const data = found.at(side);
  const { pipeline } = await loadBase(base, backend, { weights: c.weights });
  const { vae, configs, tokenizer, schedule } = pipeline;
  const encode = (pairs: readonly RunPair[]) =>
    encodePairs(backend, vae, configs.vae, tokenizer, pairs, side, { captionChunks: c.captionChunks });
  const [validation, test] = [
    await encode(data.validation.slice(0, c.validationPairs)),
    await encode(data.test.slice(0, c.validationPairs)),
  ];
  print(o.io, `${data.source}: ${validation.length} validation pairs, ${test.length} test pairs`);
  const latents = side / vaeFactor(configs.vae);
  const latent = [latents, latents, configs.vae.latent_channels] as const;
  const empty = tokenizer.encode('', c.captionChunks).ids;
  const batches = batchSource(c, schedule, validation, latent, empty, 1);
  const steps = createSteps({
    ...chosenOf(c),
    backend,
    configs,
    adam: adamDefaults,
    clip: c.clip,
    checkpointBlocks: c.checkpointBlocks,
  });
  const capacity = Math.max(...offers.choices.flatMap((all) => all.map((choice) => choice?.rank ?? 1)));
  const tensors = offers.choices.map((all) => {
    const { dIn, dOut } = all.find((choice) => choice !== undefined)!.module;
    return all.map((choice) => padded(choice, dIn, dOut, capacity, backend));
  });
  const lossOf = async (choices: Candidate, grid: readonly Batch[]): Promise<number> => {
    const networks = { unet: {}, text: {} } as { unet: Record<string, unknown>; text: Record<string, unknown> };
    for (const [m, choice] of choices.entries()) {
      const [network, local] = fromModuleName(offers.modules[m]!)!;
      networks[network][local] = tensors[m]![choice]!;
    }
    let [sum, n] = [0, 0];
    for (const batch of grid)
      for (const loss of await read(steps.losses(networks as LowRank as never, pipeline, batch))) {
        sum += loss;
        n++;
      }
    return sum / n;
  };
  const grids = { validation: batches.validation(validation, false), test: batches.validation(test, false) };
  return {
    data: found.hash,
    validation: (choices) => lossOf(choices, grids.validation),
    test: (choices) => lossOf(choices, grids.test),
  };
}

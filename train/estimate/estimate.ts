/**
 * What a run will need, before anything is allocated: its programs are traced and planned on shapes alone, and the plan is
 * added up by phase. The very same plans run later, so the prediction is as good as the plan.
 */
import { type Backend, type KernelReport, leaves, type Tensor } from '../../core/index.ts';
import { bytesOf, isStored } from '../../core/ir/dtype.ts';
import { hole } from '../../core/ir/tensor.ts';
import { sizeOf } from '../../core/ir/view.ts';
import type { Base } from '../../models/io/base.ts';
import type { WeightType } from '../../models/spec.ts';
import type { RunConfig } from '../config/config.ts';
import { pairsPerEncoding } from '../model/encode.ts';
import { specsOf, vaeStorage } from '../model/model.ts';
import type { ModelPlaces } from '../model/pipeline.ts';
import { decodeProgram, denoiseProgram, encodeProgram, vaeFactor } from '../model/programs.ts';
import { adamDefaults } from '../optimise/optimizer.ts';
import { VALIDATION_BATCH, VALIDATION_GRID } from '../step/batches.ts';
import { gradientProgram, largestGroup } from '../step/begin.ts';
import { type Chosen, capacityFor, startRanks } from '../step/ranks.ts';
import { createSteps, paramsOf } from '../step/step.ts';
import { batchHoles, hyperHoles, parameterHoles, stateHoles, trialHoles } from './holes.ts';

/** What is to be run, as far as memory and time depend on it. */
export type RunShape = Pick<RunConfig, 'batch' | 'accumulate' | 'captionChunks' | 'guidance'> & {
  readonly chosen: Chosen;
  readonly checkpointBlocks: boolean;
  readonly weights: WeightType;
  /** pixels along a side */
  readonly side: number;
  /** pairs measured at a time */
  readonly validationPairs: number;
  /** pictures drawn at a time, 0 for none */
  readonly samples: number;
};

/** One program: its intermediates, and the arithmetic of its contractions. */
export type Plan = {
  readonly name: string;
  readonly workspaceBytes: number;
  /** what the host keeps of its results */
  readonly hostBytes: number;
  readonly flops: number;
  /** of these, convolutions */
  readonly convFlops: number;
  /** stored weights widened */
  readonly widened: number;
  readonly kernels: number;
};

export type Estimate = {
  readonly weights: number;
  /** adapters, their moments and gradients */
  readonly optimizer: number;
  readonly plans: readonly Plan[];
  /** weights, optimizer and the largest workspace: what the backend holds at most */
  readonly backendBytes: number;
  /** of these, wasm's stored weights: outside the memory that kernels address (core/README.md) */
  readonly outsideBytes: number;
  /** what the process takes: its own share, and the backend's where that lies in it */
  readonly processBytes: number;
};

/** gradients of the largest group of modules, one batch of them */
const BEGIN = 'gradients of the start';
const heavy = new Set(['dot', 'conv', 'convInput', 'convKernel', 'attention', 'attentionGrad']);
const total = (tree: unknown, counts: (t: Tensor) => boolean = () => true): number =>
  leaves<Tensor>(tree as Tensor).reduce((n, t) => n + (counts(t) ? bytesOf(t.dtype, sizeOf(t.shape)) : 0), 0);

function planOf(name: string, p: { readonly kernels: readonly KernelReport[]; readonly workspaceBytes: number }): Plan {
  const sum = (of: (k: KernelReport) => number) => p.kernels.reduce((n, k) => n + of(k), 0);
  return {
    name,
    workspaceBytes: p.workspaceBytes,
    hostBytes: 0,
    flops: sum((k) => (heavy.has(k.name) ? k.flops : 0)),
    convFlops: sum((k) => (k.name.startsWith('conv') ? k.flops : 0)),
    widened: sum((k) => k.widened),
    kernels: p.kernels.length,
  };
}

/** The programs of the training loop alone: what changes with micro-batches and checkpoints. */
export function planSteps(base: Base, linears: ModelPlaces, o: RunShape, backend: Backend): readonly Plan[] {
  const { configs } = base;
  const steps = createSteps({
    backend,
    configs: { unet: configs.unet, text: configs.textEncoder },
    ...o.chosen,
    adam: adamDefaults,
    clip: 1,
    checkpointBlocks: o.checkpointBlocks,
  });
  const { state, frozen, latent, length, capacity } = treesOf(base, linears, o);
  const micro = batchHoles(o.batch / o.accumulate, latent, length, o.captionChunks);
  const single = o.accumulate === 1;
  const step = single
    ? steps.plain.inspect(state, frozen, micro, hyperHoles(o.chosen))
    : steps.part.inspect(state, frozen, micro);
  const plans = [planOf('training step', step)];
  if (o.chosen.method.growth) {
    const c = trialHoles(o.chosen, linears, capacity);
    const { method, settings } = o.chosen;
    const { byBatch, before } = method.growth!;
    const tested = byBatch?.(settings)
      ? steps.scored.inspect(state, frozen, micro, c)
      : // a test before its step is measured by itself
        single && !before?.(settings)
        ? steps.tested.inspect(state, frozen, micro, hyperHoles(o.chosen), c)
        : steps.testedPart.inspect(state, frozen, micro, c);
    const plan = planOf('step with expansion test', tested);
    // the results of batch after batch are read, and stay until all are there
    const batches = byBatch?.(settings) ? o.accumulate * (settings.fiBatches as number) : 0;
    plans.push({ ...plan, hostBytes: batches * tested.resultBytes });
  }
  if (o.chosen.method.begin && !o.chosen.initial && linears.unet.size + linears.text.size > 0) {
    const { group, bytes } = largestGroup(linears);
    const parts = { configs: { unet: configs.unet, text: configs.textEncoder }, checkpointBlocks: o.checkpointBlocks };
    const plan = planOf(BEGIN, gradientProgram({ ...parts, backend }, group).inspect(frozen, micro));
    // the adapters are not there yet; what is gathered lies beside the intermediates
    plans.push({ ...plan, workspaceBytes: plan.workspaceBytes + bytes });
  }
  if (o.validationPairs > 0) {
    const n = Math.min(VALIDATION_BATCH, VALIDATION_GRID.length * o.validationPairs);
    plans.push(
      planOf(
        'validation',
        steps.losses.inspect(paramsOf(state), frozen, batchHoles(n, latent, length, o.captionChunks)),
      ),
    );
  }
  return plans;
}

/** Encoding and sampling: the programs around the loop. */
export function planAround(base: Base, o: RunShape, backend: Backend): readonly Plan[] {
  const { configs } = base;
  const { frozen, vae, latent, length } = treesOf(base, { unet: new Map(), text: new Map() }, o);
  const f32 = (...shape: number[]) => hole({ shape, dtype: 'f32' });
  const pictures = f32(pairsPerEncoding(o.side), o.side, o.side, 3);
  const plans = [planOf('encoding pictures', encodeProgram(backend, configs.vae).inspect(vae, pictures))];
  if (o.samples === 0) return plans;
  const n = o.samples * (o.guidance === 1 ? 1 : 2);
  const denoise = denoiseProgram(backend, configs.unet);
  const decode = decodeProgram(backend, configs.vae);
  const context = f32(n, o.captionChunks * (length - 2) + 2, configs.unet.cross_attention_dim);
  plans.push(planOf('drawing pictures', denoise.inspect(frozen.unet, f32(n, ...latent), f32(n), context)));
  plans.push(planOf('decoding pictures', decode.inspect(vae, f32(o.samples, ...latent))));
  return plans;
}

/** The trees of a run without values. */
function treesOf(base: Base, linears: ModelPlaces, o: RunShape) {
  const { configs } = base;
  const specs = specsOf(base);
  const side = o.side / vaeFactor(configs.vae);
  const { method, settings } = o.chosen;
  const start = startRanks(o.chosen, linears);
  const capacity = capacityFor(method.foreseen?.(settings, start, linears) ?? start, o.chosen);
  return {
    frozen: { unet: parameterHoles(specs.unet, o.weights), text: parameterHoles(specs.text, o.weights) },
    vae: parameterHoles(specs.vae, vaeStorage(o.weights)),
    state: stateHoles(o.chosen, linears, capacity),
    capacity,
    latent: [side, side, configs.vae.latent_channels] as const,
    length: configs.textEncoder.max_position_embeddings,
  };
}

/**
 * What JavaScript adds to a run beside the process as it is after planning: heap and compiled code, and the graph and commands
 * of each kernel. Measured at 137 modules of the small base and at 256 of SD 1.5 (train/RESULTS.md, "True size").
 */
const HOST_BYTES = 250 * 2 ** 20;
const KERNEL_BYTES = 6 * 2 ** 10;

/** Adds up a run from the plans of its programs. */
export function addUp(
  base: Base,
  linears: ModelPlaces,
  o: RunShape,
  plans: readonly Plan[],
  backend: Pick<Backend, 'name' | 'inProcess'>,
): Estimate {
  const { frozen, vae, state } = treesOf(base, linears, o);
  const weights = total(frozen) + total(vae);
  const apart = (t: Tensor) => isStored(t.dtype) && backend.name === 'wasm';
  const outsideBytes = total(frozen, apart) + total(vae, apart);
  const gradients = total(paramsOf(state));
  // micro-batches: the gradients of one, their running mean, and the fixed place each program writes its results to
  const optimizer = total(state) + (o.accumulate === 1 ? 0 : 4 * gradients);
  const workspace = Math.max(...plans.map((p) => p.workspaceBytes));
  const backendBytes = weights + optimizer + workspace;
  const kernels = plans.reduce((n, p) => n + p.kernels, 0);
  const kept = plans.reduce((n, p) => n + p.hostBytes, 0);
  const host = process.memoryUsage.rss() + HOST_BYTES + kernels * KERNEL_BYTES + kept;
  const processBytes = host + (backend.inProcess ? backendBytes : 0);
  return { weights, optimizer, plans, backendBytes, outsideBytes, processBytes };
}

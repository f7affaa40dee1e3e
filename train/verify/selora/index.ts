/**
 * Checks SeLoRA against a golden directory's `selora.*`: losses, gradients, Fisher scores, ratios, Adam and the start of a
 * run, through the very programs a training run compiles (train/step/step.ts); and the scores' definition (eq. 3 and 4) by
 * per-sample gradients of the adapters as they are, before and after the expansion.
 */
import { type Backend, evaluate, read, readScalar, type Tensor, tensor } from '../../../core/index.ts';
import { type Adapter, type Adapters, rankOf } from '../../../selora/adapter.ts';
import { settingsOf } from '../../../selora/methods/registry.ts';
import { selora } from '../../../selora/methods/selora.ts';
import { moduleName } from '../../../selora/networks.ts';
import { createSteps, type PerNetwork, paramsOf, type State } from '../../step/step.ts';
import { type GoldenCase, need } from '../golden.ts';
import { adaptersOf, type Check, readSelora, SCALE, stateOf } from './data.ts';
import {
  adaptersAfter,
  firstModule,
  float32Error,
  lossCase,
  mean,
  relativeL2,
  scoreScale,
  storedLimit,
  unpadded,
  worst,
} from './limits.ts';
import { verifyMeasures } from './measures.ts';
import { verifyDefinition, verifyTest } from './scores.ts';

/** @throws Error one line: a file or tensor is missing or malformed */
export async function* verifySelora(directory: string, backend: Backend): AsyncGenerator<GoldenCase> {
  const golden = await readSelora(directory, backend);
  const { lr, betas, eps, weight_decay } = golden.json.numbers.adam;
  const options = {
    backend,
    configs: { unet: golden.configs.unet, text: golden.configs.textEncoder },
    method: selora,
    settings: settingsOf(selora, { scale: SCALE }),
    adam: { beta1: betas[0], beta2: betas[1], eps, weightDecay: weight_decay, decoupled: false },
    clip: 0,
    checkpointBlocks: false,
  };
  const steps = createSteps(options);
  const rate = tensor([lr], [], golden.precision);
  const check: Check = { golden, backend, steps, hyper: { unet: rate, text: rate } };
  yield* verifyLosses(check);
  yield* verifyTraining(check);
  yield* verifyTest(check, false);
  yield* verifyTest(check, true);
  yield* verifyDefinition(golden, backend);
  yield* verifyMeasures(check, options);
}

async function* verifyLosses({ golden, steps, backend }: Check): AsyncGenerator<GoldenCase> {
  const { numbers } = golden.json;
  const losses = async (adapters: PerNetwork<Adapters>) =>
    read(steps.losses(evaluate(adapters, backend), golden.base, golden.batch));
  const bare = mean(await losses({ unet: {}, text: {} }));
  yield lossCase(golden, 'loss without adapters', bare, numbers.loss_without_adapters);
  const each = await losses(adaptersOf(golden));
  yield lossCase(golden, 'loss', mean(each), numbers.loss);
  // the mean's error may be a sample's, divided by their number
  for (const [i, expected] of numbers.per_sample_losses.entries())
    yield lossCase(golden, `loss of sample ${i}`, each[i]!, expected, { samples: each.length });
  const start = mean(await losses(adaptersOf(golden, true)));
  yield lossCase(golden, 'loss at the start', start, numbers.loss_without_adapters);
}

/** Gradients (from Adam's first moment: m = (1 − β₁)·g after one step), losses of every step, adapters after the stored ones. */
async function* verifyTraining({ golden, backend, steps, hyper }: Check): AsyncGenerator<GoldenCase> {
  const { adam } = golden.json.numbers;
  const { tensors } = golden;
  const adapters = adaptersOf(golden);
  const share = 1 - adam.betas[0];
  const { has, largest } = scoreScale(golden);
  let state: State<Adapter> = evaluate(stateOf(adapters), backend);
  for (const [step, expected] of adam.losses.entries()) {
    if (tensors.has(`adam${step}.${moduleName(...firstModule(adapters))}.A`))
      yield adaptersAfter(golden, step, state, adapters, `adapters after ${step} Adam steps`);
    if (step === adam.losses.length - 1) {
      const losses = await read(steps.losses(paramsOf(state), golden.base, golden.batch));
      yield lossCase(golden, `loss after ${step} steps`, mean(losses), expected, { updates: step });
      return;
    }
    const next = steps.plain(state, golden.base, golden.batch, hyper);
    state = next.state;
    yield lossCase(golden, `loss before step ${step + 1}`, await readScalar(next.loss), expected, { updates: step });
    if (step > 0) continue;
    yield {
      ...(await worst('gradients', adapters, async (module, network, path) => {
        const { m: moments } = state[network][path]!;
        const rank = rankOf(adapters[network][path]!);
        // Adam's weight decay is a part of the gradient it sees
        const g = async (m: Tensor, side: 'A' | 'B') => {
          const { data } = need(tensors, `adapter.${module}.${side}`);
          return (await unpadded(m, side, rank)).map((x, i) => x / share - adam.weight_decay * data[i]!);
        };
        return relativeL2(
          [
            [await g(moments.A, 'A'), need(tensors, `grad.${module}.A`)],
            [await g(moments.B, 'B'), need(tensors, `grad.${module}.B`)],
          ],
          has(module) ? 0 : Math.sqrt(largest),
        );
      })),
      ...storedLimit(golden, float32Error(golden, 'grad_rel_l2_max'), 'the gradients'),
    };
  }
}

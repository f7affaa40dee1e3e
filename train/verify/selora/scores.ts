/**
 * Fisher scores, ratios and decisions of a golden `selora` file, two ways: from the training step's own backward pass, and
 * by their definition (eq. 3 and 4), from per-sample gradients of the adapters before and after the expansion.
 */
import {
  type Backend,
  evaluate,
  read,
  readScalar,
  type Tensor,
  unsqueeze,
  valueAndGrad,
  vmap,
} from '../../../core/index.ts';
import { textEncoder } from '../../../models/clip/text-encoder.ts';
import { unet } from '../../../models/unet/index.ts';
import { mse } from '../../../nn/index.ts';
import { type Adapter, type Adapters, rankOf } from '../../../selora/adapter.ts';
import { attach } from '../../../selora/attach.ts';
import { expandAdapter } from '../../../selora/expand.ts';
import { decide, fisherScore, type RankSums, ratioOf, type Scores, scoresOf } from '../../../selora/fisher.ts';
import { moduleName } from '../../../selora/networks.ts';
import {
  type Batch,
  mapModules,
  type Network,
  networks,
  type PerModule,
  type PerNetwork,
  type State,
} from '../../step/step.ts';
import { floats } from '../distances.ts';
import { type GoldenCase, need } from '../golden.ts';
import { adaptersOf, type Check, candidatesOf, SCALE, type SeloraGolden, stateOf } from './data.ts';
import {
  adaptersAfter,
  firstModule,
  float32Error,
  limit,
  lossCase,
  relativeL2,
  scoreScale,
  storedLimit,
  worst,
} from './limits.ts';

/** The threshold of the paper, at which the decisions are compared. */
const LAMBDA = 1.1;

/** One backward pass, the training step's own: scores, ratios and decisions of every module. */
export async function* verifyTest(
  { golden, backend, steps, hyper }: Check,
  start: boolean,
): AsyncGenerator<GoldenCase> {
  const { json } = golden;
  if (start && Object.values(json.modules).some((m) => !m.start)) return;
  const adapters = adaptersOf(golden, start);
  const at = start ? ' at the start' : '';
  const state: State<Adapter> = evaluate(stateOf(adapters), backend);
  const candidates = evaluate(candidatesOf(golden, adapters, state), backend);
  const { sums, loss, state: after } = steps.tested(state, golden.base, golden.batch, hyper, candidates);
  const expected = start ? json.numbers.loss_without_adapters : json.numbers.loss;
  yield lossCase(golden, `loss of the tested step${at}`, await readScalar(loss), expected);
  if (!start && golden.tensors.has(`adam1.${moduleName(...firstModule(adapters))}.A`))
    yield adaptersAfter(golden, 1, after, adapters, 'adapters after the tested step');
  const scores = await readScores(sums, adapters);
  const wanted = (module: string) => (start ? json.modules[module]!.start! : json.modules[module]!);
  yield* compareScores(golden, `one-pass scores${at}`, scoreScale(golden, start), adapters, (module, network, path) => {
    const s = scores[network][path]!;
    const fi = s.fiA + s.fiB;
    return { fi, fi_exp: fi + s.fiNew, ratio: ratioOf(module, s), want: wanted(module) };
  });
  if (start) return;
  const { has, largest } = scoreScale(golden);
  const fiAB = limit(golden, float32Error(golden, 'fi_rel_max'), 'the scores');
  yield {
    ...(await worst('scores of A and of B', adapters, (module, network, path) => {
      const [s, want] = [scores[network][path]!, json.modules[module]!];
      return (
        Math.max(Math.abs(s.fiA - want.fi_A), Math.abs(s.fiB - want.fi_B)) / (has(module) ? want.fi : largest || 1)
      );
    })),
    ...fiAB,
  };
  const rows = networks.flatMap((network) =>
    Object.entries(scores[network]).map(([path, s]) => ({
      module: moduleName(network, path),
      rank: rankOf(adapters[network][path]!),
      scores: s,
      key: '',
    })),
  );
  const decisions = decide(rows, { lambda: LAMBDA });
  yield {
    case: `selora decisions at λ = ${LAMBDA}: ${decisions.filter((d) => d.expanded).length} of ${decisions.length} modules grow`,
    error: decisions.filter((d) => has(d.module) && d.expanded !== json.modules[d.module]!.ratio > LAMBDA).length,
    tolerance: 0,
    why: 'number of modules decided otherwise',
  };
}

async function readScores(
  sums: PerModule<RankSums<Tensor>>,
  adapters: PerNetwork<Adapters>,
): Promise<PerNetwork<{ [path: string]: Scores }>> {
  const of = async (network: Network) => {
    const list: [string, Scores][] = [];
    for (const [path, { a, b }] of Object.entries(sums[network]))
      list.push([path, scoresOf(await read(a), await read(b), rankOf(adapters[network][path]!))]);
    return Object.fromEntries(list);
  };
  return { unet: await of('unet'), text: await of('text') };
}

type Compared = {
  readonly fi: number;
  readonly fi_exp: number;
  readonly ratio: number;
  readonly want: { readonly fi: number; readonly fi_exp: number; readonly ratio: number };
};
async function* compareScores(
  golden: SeloraGolden,
  name: string,
  { has, largest, start }: ReturnType<typeof scoreScale>,
  modules: PerNetwork<{ readonly [path: string]: unknown }>,
  scores: (module: string, network: Network, path: string) => Compared,
): AsyncGenerator<GoldenCase> {
  // files record the error away from the start; with B = 0 PyTorch's float32 scores were found up to 20 times as far off
  const times = start ? 10 : 1;
  const fiError = times * (float32Error(golden, 'fi_rel_max') ?? 5e-6);
  const fi = limit(golden, fiError, start ? 'the scores, ten times that with B = 0' : 'the scores');
  yield {
    ...(await worst(`${name}: FI`, modules, (...at) => {
      const s = scores(...at);
      const [size, expanded] = has(at[0]) ? [s.want.fi, s.want.fi_exp] : [largest || 1, largest || 1];
      return Math.max(Math.abs(s.fi - s.want.fi) / size, Math.abs(s.fi_exp - s.want.fi_exp) / expanded);
    })),
    ...fi,
  };
  yield {
    ...(await worst(`${name}: ratio − 1`, modules, (...at) => {
      if (!has(at[0])) return 0;
      const s = scores(...at);
      return Math.abs(s.ratio - s.want.ratio) / Math.max(1, s.want.ratio - 1);
    })),
    // ratio − 1 is the quotient of two scores: above 1 it carries the relative errors of both
    ...limit(golden, Math.max(times * (float32Error(golden, 'ratio_abs_max') ?? 0), 2 * fiError), 'the ratios'),
  };
}

/** Eq. 3 and 4 as they stand: per-sample gradients of the adapters, and of the expanded adapters, by vmap(grad). */
export async function* verifyDefinition(golden: SeloraGolden, backend: Backend): AsyncGenerator<GoldenCase> {
  const { json, tensors } = golden;
  const adapters = adaptersOf(golden);
  const expanded = mapModules((a: Adapter, path, network) => {
    const K = need(tensors, `adapter.${moduleName(network, path)}.K`);
    return expandAdapter(a, floats(K, golden.precision));
  }, adapters);
  const whole = json.full_per_sample_gradients_of;
  const { has, largest } = scoreScale(golden);
  // a score is the mean square norm of one sample's gradient
  const least = (module: string) => (has(module) ? 0 : Math.sqrt(largest * json.numbers.per_sample_losses.length));
  const passes: Record<'before' | 'after', PerNetwork<{ readonly [path: string]: number }>> = {
    before: { unet: {}, text: {} },
    after: { unet: {}, text: {} },
  };
  for (const [pass, params, prefix] of [
    ['before', adapters, ''],
    ['after', expanded, 'expanded.'],
  ] as const) {
    const gradients = perSample(golden, params);
    const stored = mapModules(
      (g: Adapter, path, network) => (whole.includes(moduleName(network, path)) ? g : {}),
      gradients,
    );
    const done = evaluate({ scores: mapModules((g: Adapter) => fisherScore(g), gradients), stored }, backend);
    const scores = (network: Network) => Object.entries(done.scores[network]);
    const readAll = async (network: Network) =>
      Object.fromEntries(
        await Promise.all(scores(network).map(async ([path, s]) => [path, (await read(s))[0]!] as const)),
      );
    passes[pass] = { unet: await readAll('unet'), text: await readAll('text') };
    for (const network of ['unet', 'text'] as const)
      for (const [path, g] of Object.entries(done.stored[network]))
        for (const [side, value] of Object.entries<Tensor>(g)) {
          const name = `${prefix}per_sample_grad.${moduleName(network, path)}.${side}`;
          const expected = tensors.get(name);
          if (!expected) continue;
          yield {
            case: `selora ${name}`,
            error: relativeL2([[await read(value), expected]], least(moduleName(network, path))),
            ...storedLimit(golden, float32Error(golden, 'grad_rel_l2_max'), 'the gradients'),
          };
        }
  }
  yield* compareScores(golden, 'two-pass scores', scoreScale(golden), adapters, (module, network, path) => {
    const [fi, fi_exp] = [passes.before[network][path]!, passes.after[network][path]!];
    return { fi, fi_exp, ratio: fi_exp / fi, want: json.modules[module]! };
  });
}

/** ∂ℓᵢ/∂A, ∂ℓᵢ/∂B of every sample i: A[b, d_in, r], B[b, r, d_out] */
function perSample(golden: SeloraGolden, adapters: PerNetwork<Adapters>): PerNetwork<Adapters> {
  const { base, configs } = golden;
  const loss = (a: PerNetwork<Adapters>, one: Batch): Tensor => {
    const context = textEncoder(attach(base.text, a.text, SCALE), configs.textEncoder, unsqueeze(one.ids, 0));
    const net = attach(base.unet, a.unet, SCALE);
    const t = unsqueeze(one.t, 0);
    return mse(unet(net, configs.unet, unsqueeze(one.x, 0), t, context.lastHiddenState), unsqueeze(one.target, 0));
  };
  return vmap(
    (a: PerNetwork<Adapters>, one: Batch) => valueAndGrad((p: PerNetwork<Adapters>) => loss(p, one))(a)[1],
    [null, 0],
  )(adapters, golden.batch);
}

/**
 * npm run search: which modules keep an adapter, of which rank and from which run, within a budget of parameters; found by
 * evolution on the validation pairs of a run, without training anything (NOAH, GLoRA).
 */
import path from 'node:path';
import { withRun } from '../models/io/adapter-run.ts';
import { writeAdapter } from '../models/io/adapter-write.ts';
import { FileError } from '../models/io/error.ts';
import { readJson } from '../models/io/json.ts';
import { hostKey } from '../selora/adapter.ts';
import {
  best,
  type Candidate,
  candidateCost,
  type Evolution,
  nextCandidate,
  uniformCandidates,
} from '../selora/search.ts';
import { table } from './cli/columns.ts';
import {
  type BackendOptions,
  command,
  decimal,
  type Io,
  openChosen,
  parseArgs,
  print,
  repeatable,
  runMain,
  UsageError,
  wholeNumber,
  withBackend,
} from './cli/command.ts';
import { onInterrupt } from './cli/signals.ts';
import { configSchema, type RunConfig } from './config/config.ts';
import { openBaseAt } from './model/model.ts';
import { makeRunFolder, writeRunFile } from './run/atomic.ts';
import { CONFIG_FILE } from './run/folder.ts';
import { evaluator } from './search/evaluate.ts';
import { addToHistory, openHistory } from './search/history.ts';
import { adapterOf, offersOf, type Source, sourceOf } from './search/sources.ts';
import { duration, integer, number } from './words/format.ts';

type Options = BackendOptions & {
  readonly run: readonly string[];
  readonly out: string;
  readonly ranks?: string;
  readonly budgetParameters?: number;
  readonly evaluations: number;
  readonly population: number;
  readonly parents: number;
  readonly mutation: number;
  readonly seed: number;
};

const program = (io: Io) =>
  withBackend(
    command(
      'search',
      "Chooses which modules of finished runs' adapters stay, at which rank and from which run, within a budget, by evolution on the first run's validation pairs; trains nothing.",
      [
        '--run runs/dylora --out runs/found',
        '--run runs/lora --run runs/loha --budget-parameters 20000 --out runs/mixed',
      ],
      io,
    )
      .addOption(
        repeatable(
          '--run <dir>',
          'folder of a finished run; several: each module takes one of them',
        ).makeOptionMandatory(),
      )
      .requiredOption('--out <dir>', 'folder of the search; one that stopped goes on there')
      .option('--ranks <list>', 'ranks to choose from, beside none (default: powers of two up to the largest there is)')
      .option(
        '--budget-parameters <n>',
        'most parameters of the result (default: half of what the first run has)',
        wholeNumber(1, 1e12),
      )
      .option('--evaluations <n>', 'candidates measured', wholeNumber(1, 1_000_000), 200)
      .option(
        '--population <n>',
        'of these, drawn at random before the best have offspring',
        wholeNumber(1, 1_000_000),
        40,
      )
      .option('--parents <n>', 'the best so many have offspring', wholeNumber(1, 1_000_000), 10)
      .option('--mutation <p>', 'share of modules that a mutation draws anew', decimal(0, 1), 0.1)
      .option('--seed <n>', 'of all draws', wholeNumber(0, Number.MAX_SAFE_INTEGER), 1),
  );

/** `1,2,4`; powers of two up to the largest rank where nothing is told. @throws UsageError */
function ranksOf(text: string | undefined, sources: readonly Source[]): readonly number[] {
  const most = Math.max(...sources.flatMap(({ adapter }) => [...adapter.modules.values()].map((m) => m.rank)));
  if (text === undefined) {
    const powers = Array.from({ length: 1 + Math.floor(Math.log2(most)) }, (_, i) => 2 ** i);
    return [...new Set([...powers, most])];
  }
  const ranks = text.split(',').map((word) => Number(word.trim()));
  if (ranks.some((rank) => !Number.isInteger(rank) || rank < 1 || rank > most))
    throw new UsageError(`--ranks ${text}: expected whole numbers from 1 to ${most}, the largest rank there is`);
  return [...new Set(ranks)].sort((a, b) => a - b);
}

const configOf = async (folder: string): Promise<RunConfig> => {
  const file = path.join(folder, CONFIG_FILE);
  const found = configSchema.safeParse(await readJson(file));
  if (found.success) return found.data;
  throw new FileError(file, found.error.issues[0]!.path.join('.'), found.error.issues[0]!.message);
};

/** The folder with what the search was told; one that exists must have been told the same. @throws FileError */
async function openSearch(folder: string, told: object): Promise<void> {
  await makeRunFolder(folder);
  const file = path.join(folder, 'search.json');
  const text = `${JSON.stringify(told, null, 2)}\n`;
  const before = await readJson(file).catch((error: FileError) => {
    if ((error.cause as NodeJS.ErrnoException | undefined)?.code === 'ENOENT') return undefined;
    throw error;
  });
  if (before === undefined) return writeRunFile(file, text);
  if (`${JSON.stringify(before, null, 2)}\n` !== text)
    throw new FileError(file, '', 'tells of another search; take another --out');
}

export async function main(args: readonly string[], io: Io): Promise<void> {
  const o = parseArgs<Options>(program(io), args);
  const sources = await Promise.all(o.run.map(sourceOf));
  const [first, ...others] = sources as [Source, ...Source[]];
  const other = others.find(({ facts }) => facts.baseHash !== first.facts.baseHash);
  if (other)
    throw new FileError(other.name, 'base', `is not that of ${first.name}: their adapters belong to two models`);
  const config = await configOf(o.run[0]!);
  const ranks = ranksOf(o.ranks, sources);
  const offers = offersOf(sources, ranks);
  const whole = [...first.adapter.modules.values()].reduce((n, m) => n + m.rank * (m.dIn + m.dOut), 0);
  const budget = o.budgetParameters ?? Math.floor(whole / 2);
  const { seed, population, parents, mutation } = o;
  const evolution: Evolution = { key: hostKey(seed), budget, population, parents, mutation };
  const base = await openBaseAt(config.base, config.baseConfig ?? undefined);
  const hash = await base.hash();
  if (hash !== first.facts.baseHash)
    throw new FileError(config.base, 'base', `is not the one that ${first.name} was trained on`);
  const backend = await openChosen(o);
  try {
    const evaluate = await evaluator({ config, run: o.run[0]!, base, backend, offers, io });
    await openSearch(o.out, { runs: o.run, base: hash, data: evaluate.data, ranks, budget, seed, population, parents, mutation }); // biome-ignore format: one line
    const file = path.join(o.out, 'evaluations.jsonl');
    const scored = [...(await openHistory(file))];
    print(io, `${offers.modules.length} modules, ranks none, ${ranks.join(', ')} of ${o.run.length} run${o.run.length === 1 ? '' : 's'}; at most ${integer(budget)} of ${integer(whole)} parameters`); // biome-ignore format: one line
    if (scored.length > 0) print(io, `goes on after ${scored.length} candidates`);
    const interrupt = onInterrupt();
    const [began, before] = [performance.now(), scored.length];
    let told = began;
    try {
      while (scored.length < o.evaluations) {
        if (interrupt.requested || io.signal.aborted) {
          print(io, `stopped after ${scored.length} candidates; the same command goes on`);
          process.exitCode = interrupt.exitCode;
          return;
        }
        const choices = nextCandidate(offers.space, evolution, scored);
        if (choices === undefined) break;
        const one = { choices, loss: await evaluate.validation(choices) };
        await addToHistory(file, one);
        scored.push(one);
        const now = performance.now();
        if (now - told < 5000 && scored.length < o.evaluations) continue;
        told = now;
        const each = (now - began) / 1000 / (scored.length - before);
        io.stderr.write(`candidate ${scored.length} of ${o.evaluations}, best ${best(scored).loss.toFixed(5)}, ${duration(each * (o.evaluations - scored.length))} left\n`); // biome-ignore format: one line
      }
    } finally {
      interrupt.dispose();
    }
    const found = best(scored);
    const uniform = uniformCandidates(offers.space, budget);
    const alike = best(scored.filter(({ choices }) => uniform.some((u) => u.join() === choices.join())));
    const rows: [string, Candidate | undefined][] = [
      ['found', found.choices],
      ['the best that is alike everywhere', alike.choices],
      ['untouched base', undefined],
    ];
    const lines: string[][] = [];
    for (const [name, choices] of rows) {
      const none = choices ?? offers.modules.map(() => 0);
      const [validation, test] = [await evaluate.validation(none), await evaluate.test(none)];
      lines.push([name, integer(candidateCost(offers.space, none)), validation.toFixed(5), Number.isNaN(test) ? '–' : test.toFixed(5)]); // biome-ignore format: one line
    }
    const modules = adapterOf(offers, found.choices);
    const adapter = withRun({ ...first.adapter, modules }, { ...first.facts, rankHistory: [] });
    await writeAdapter(path.join(o.out, 'adapter.safetensors'), adapter, 'diffusers', { signal: io.signal });
    for (const line of table([['', 'parameters', 'validation loss', 'test loss'], ...lines], [1, 2, 3]))
      print(io, line);
    const sizes = [...modules.values()].map((m) => m.rank);
    print(io, `${sizes.length} of ${offers.modules.length} modules keep an adapter, mean rank ${number(sizes.reduce((a, b) => a + b, 0) / Math.max(1, sizes.length))}`); // biome-ignore format: one line
    print(io, 'Chosen by validation pairs: the test loss is what may be quoted. To train the chosen ranks further: npm run train -- --init-adapter'); // biome-ignore format: one line
    print(io, `written to ${path.join(o.out, 'adapter.safetensors')}`);
  } finally {
    await backend.close();
  }
}
await runMain(import.meta, main);

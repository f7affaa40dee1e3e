/**
 * npm run explain: one op on one page: signature, formula, rules with their source, the graphs they build, kernels per
 * backend, cost, use in the models, and live checks. A check that fails is exit code 1.
 */
import { Argument, Option } from 'commander';
import { functions } from '../core/functions/catalog.ts';
import { backendNames, findOp, opNames, registry } from '../core/index.ts';
import type { Op } from '../core/ir/tensor.ts';
import { printable } from '../models/io/error.ts';
import { table } from './cli/columns.ts';
import {
  type BackendOptions,
  command,
  type Io,
  openChosen,
  parseArgs,
  print,
  runMain,
  UsageError,
  wholeNumber,
} from './cli/command.ts';
import { applySample } from './explain/application.ts';
import { type Check, checkBackend, checkBatch, checkVjp, closedFormFor, isDifferentiable } from './explain/check.ts';
import { kernelNames } from './explain/kernels.ts';
import { nearNames } from './explain/near.ts';
import { pageOf, passed } from './explain/page.ts';

type Options = {
  readonly list?: boolean;
  readonly kernels: boolean;
  readonly backend: BackendOptions['backend'];
  readonly seed: number;
};

const program = (io: Io) =>
  command(
    'explain',
    'Shows one op of the core on one page.',
    ['dot', 'softmax --backend cpu', 'conv --no-kernels', '--list'],
    io,
  )
    .usage('[options] <op>')
    .addArgument(new Argument('[op]', 'name of an op or of a function written in ops'))
    .option('--list', 'all ops and functions with their formulas')
    .option('--no-kernels', 'leave out the text of the kernels')
    .addOption(
      new Option('--backend <name>', 'also check this backend against the reference')
        .choices(backendNames)
        .default('wasm'),
    )
    .option('--seed <n>', 'seed of the values in the checks', wholeNumber(0, 2 ** 32 - 2), 1);

function opOf(name: string): Op {
  const op = findOp(name);
  if (op !== undefined) return op;
  const near = nearNames(name, opNames);
  const hint = near.length > 0 ? `did you mean ${near.join(', ')}?` : 'npm run explain -- --list shows all';
  throw new UsageError(`unknown op "${printable(name, 60)}"; ${hint}`);
}

function printList(io: Io): void {
  const ops = [...registry.values()].map(({ name, formula, doc, kind, vjp }) => [
    name,
    kind === 'composite' ? 'composite' : vjp === 'nondifferentiable' ? 'no derivative' : '',
    formula,
    doc,
  ]);
  const written = [...functions.values()].map(({ name, formula, doc }) => [name, 'function', formula, doc]);
  const rows = [...ops, ...written];
  for (const line of table(rows)) print(io, line);
}

export async function main(args: readonly string[], io: Io): Promise<void> {
  const command = program(io);
  const o = parseArgs<Options>(command, args);
  const [name] = command.args;
  if (o.list) return printList(io);
  if (name === undefined) throw new UsageError('which op? npm run explain -- dot; --list shows all');
  const op = opOf(name);
  const backend = await openChosen({ backend: o.backend, threads: 1 });
  try {
    const checks: Check[] = [];
    const applied = applySample(op, 'f64', o.seed);
    if (isDifferentiable(applied)) checks.push(await checkVjp(op, o.seed));
    // for other cotangents than those the closed form answers, programs have the body's derivative
    if (closedFormFor(applied)?.includes(false)) checks.push(await checkVjp(op, o.seed, 'body'));
    if (applied.inputs.length > 0) checks.push(await checkBatch(op, o.seed));
    // some samples hold f64 graphs, which only the reference computes
    if (applySample(op, 'f32', o.seed).inputs.every((x) => backend.supports(x.dtype)))
      checks.push(await checkBackend(op, backend, o.seed));
    const named = [[backend.name, kernelNames(op, backend)] as const];
    const lines = await pageOf(op, { seed: o.seed, kernels: o.kernels, named, checks });
    for (const line of lines) print(io, line);
    const bad = checks.find((check) => !passed(check));
    if (bad) throw new UsageError(`${op.name}: ${bad.what}: ${bad.error} is above ${bad.tolerance}`);
  } finally {
    await backend.close();
  }
}

await runMain(import.meta, main);

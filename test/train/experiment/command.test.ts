/** `npm run experiment` as a person types it: the file, the runs, what is stopped, what is missing, what a cluster gets. */
import { cpSync, existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, test, vi } from 'vitest';
import { parse } from 'yaml';
import { Interrupted } from '../../../train/cli/command.ts';
import { argumentsOf } from '../../../train/cli/flags.ts';
import { parseExperiment } from '../../../train/experiment/config.ts';
import type { Start } from '../../../train/experiment/launch.ts';
import { experiment } from '../../../train/experiment.ts';
import { main as train } from '../../../train/train.ts';
import { runCommand, writeCalmBase } from '../../support/commands.ts';
import { scratch } from '../../support/data-fixtures.ts';
import { longTest } from '../../support/long.ts';

vi.setConfig({ testTimeout: 180_000, hookTimeout: 180_000 });

const base = join(scratch, 'base');
const at = (name: string) => join(scratch, name);
const out = at('out');
const config = at('two.yaml');
const text = `
name: two
settings: { base: ${JSON.stringify(base)}, resolution: 32, pairs: 20, batch: 2, steps: 3, backend: wasm, threads: 1, samples: 1, sampleSteps: 1, obedience: 0, validation-pairs: 2, targets: "**.attn1.*,text.**" }
methods:
  - { name: LoRA r=2, settings: { method: lora, rank: 2 } }
  - { name: SeLoRA, settings: { --test-every: 2, lambda: 1 } }
seeds: [1, 2]
`;
const template = at('template');
beforeAll(async () => {
  await writeCalmBase(base);
  writeFileSync(config, text);
  const [arm] = parseExperiment(text).arms;
  expect((await runCommand(train, [...argumentsOf(arm!.given), '--out', template])).code).toBe(0);
});

/** what the trainer was started with */
const started: (readonly string[])[] = [];
/** the trainer in this process */
const inProcess: Start = async (args) => {
  started.push(args);
  return (await runCommand(train, args)).code;
};
/** in its place a finished run of one method, under the seed that was asked for: what is tested is who starts what, and when */
const copying: Start = async (args) => {
  started.push(args);
  const [folder, seed] = ['--out', '--seed'].map((option) => args[args.indexOf(option) + 1]!);
  cpSync(template, folder!, { recursive: true });
  const file = join(folder!, 'config.json');
  writeFileSync(file, JSON.stringify({ ...JSON.parse(readFileSync(file, 'utf8')), seed: Number(seed) }));
  return 0;
};
const command = (start: Start, ...args: readonly string[]) =>
  runCommand((given, io) => experiment(given, io, start), ['--config', config, '--out', out, ...args]);
const csv = () =>
  readFileSync(join(out, 'runs.csv'), 'utf8')
    .trim()
    .split('\n')
    .slice(1)
    .map((line) => line.split(','));

describe('an experiment of two methods and two seeds', () => {
  test('--dry-run lists the runs with their commands and makes nothing', async () => {
    const { code, stdout } = await command(copying, '--dry-run');
    expect(code).toBe(0);
    expect(stdout).toMatch(/^2 methods × 2 seeds: 4 runs under /);
    expect(stdout).toMatch(/0: LoRA r=2, seed 1, not begun: npm run train -- .*--method lora .*--rank 2 .*/);
    expect(stdout).toMatch(/3: SeLoRA, seed 2, not begun: npm run train -- .*--test-every 2/);
    const costs = [...stdout.matchAll(/^(.*): about (.*) and (.*) a run, (\d) runs to go$/gm)];
    expect(costs.map((m) => [m[1], m[4]])).toEqual([
      ['LoRA r=2', '2'],
      ['SeLoRA', '2'],
    ]);
    for (const [, , time, memory] of costs) {
      expect(time).toMatch(/^[\d.]+ (ms|s|min)/);
      expect(memory).toMatch(/^[\d.]+ [MG]iB$/);
    }
    expect(stdout).toMatch(/\nabout \S+ \S+ for all on this machine idle, one after the other\n$/);
    expect(existsSync(out)).toBe(false);
  });
  test('--dry-run names a method that cannot run or be planned here, and tells the cost of the others', async () => {
    const other = at('other.yaml');
    const methods = [
      '{ name: nowhere, settings: { method: lora, targets: "**.nothing" } }',
      '{ name: reference, settings: { method: lora, backend: cpu } }',
    ];
    writeFileSync(other, text.replace('methods:', `methods:\n  - ${methods.join('\n  - ')}`));
    const { code, stdout } = await runCommand(experiment, ['--config', other, '--out', out, '--dry-run']);
    expect(code).toBe(0);
    expect(stdout).toMatch(/^nowhere: refused on this machine: .*\*\*\.nothing.*$/m);
    expect(stdout).toMatch(/^reference: no plan, they are made for wasm and webgpu, not for cpu$/m);
    expect(stdout).toMatch(/^LoRA r=2: about .* a run, 2 runs to go$/m);
    expect(stdout).toMatch(/^SeLoRA: about .* a run, 2 runs to go$/m);
  });
  test('a run that fails is named, the others are made; the report says what is missing', async () => {
    const failing: Start = async (args, log, signal) =>
      args.includes('lora') && args[args.indexOf('--seed') + 1] === '2' ? 1 : copying(args, log, signal);
    const { code, stdout, stderr } = await command(failing);
    expect(code).toBe(1);
    expect(stderr).toBe('1 run did not finish; the same command goes on with them\n');
    expect(stdout).toMatch(/ {2}ended with 1; its words are in .*logs.lora-r-2-seed-2\.log\n/);
    expect(stdout).toMatch(/missing: LoRA r=2, seed 2: not begun\n/);
    expect(csv().map((row) => row.slice(0, 3))).toEqual([
      ['LoRA r=2', '1', 'done'],
      ['SeLoRA', '1', 'done'],
      ['LoRA r=2', '2', 'not begun'],
      ['SeLoRA', '2', 'done'],
    ]);
    const page = readFileSync(join(out, 'report.html'), 'utf8');
    expect(page).toContain('3 of 4 runs finished');
    expect(page).toContain('LoRA r=2, seed 2: not begun');
  });
  test('the same command makes only what is missing, and ends with the tables of one that never failed', async () => {
    const others = csv().filter((row) => row[2] === 'done');
    started.length = 0;
    const { code, stderr } = await command(copying);
    expect([code, stderr]).toEqual([0, '']);
    expect(started).toHaveLength(1);
    expect(started[0]).toContain('--seed');
    const rows = csv();
    expect(rows.map((row) => row[2])).toEqual(['done', 'done', 'done', 'done']);
    for (const row of others) expect(rows).toContainEqual(row);
    const page = readFileSync(join(out, 'report.html'), 'utf8');
    for (const part of [
      'Mean ± standard deviation',
      'paired by seed',
      'How they learned',
      'Where the ranks went',
      'Where the time',
      'by equation 6: 1/t',
      'Memory while training',
      'are used (participation ratio',
      'Each seed’s ranks',
    ])
      expect(page, part).toContain(part);
    expect(page.match(/data:image\/png/g)!.length).toBeGreaterThan(3);
    // the same report by all: real, through the autoencoder alone, the base, and every method
    const strip = /<div class="strip">(.*?)<\/div>/s.exec(page)![1]!;
    expect([...strip.matchAll(/<span class="label">(.*?)<\/span>/g)].map((m) => m[1])).toEqual([
      'real',
      'autoencoder',
      'base',
      'LoRA r=2',
      'SeLoRA',
    ]);
    const tex = readFileSync(join(out, 'tables.tex'), 'utf8');
    expect(tex).toMatch(/^% \\usepackage\{booktabs\}\n/);
    for (const word of ['begin', 'end']) expect(tex.match(new RegExp(`\\\\${word}\\{tabular\\}`, 'g'))).toHaveLength(3);
    // nothing that pdflatex has no letter for
    expect(tex).toMatch(/^[\n -~]*$/);
    expect(readFileSync(join(out, 'tables.md'), 'utf8').match(/^### /gm)).toHaveLength(3);
    expect(page).not.toMatch(/(src|href)="(https?:|\/)/);
    started.length = 0;
    expect((await command(copying)).code).toBe(0);
    expect(started).toEqual([]);
  });
  longTest('a run that was stopped goes on, to the numbers it would have had', async () => {
    const folder = join(out, 'runs', 'selora-seed-1');
    rmSync(folder, { recursive: true });
    expect((await command(inProcess)).code).toBe(0);
    const want = csv().find((row) => row[0] === 'SeLoRA' && row[1] === '1')!;
    rmSync(folder, { recursive: true });
    const stopping: Start = async (args) => {
      const stop = setInterval(() => {
        const file = join(folder, 'metrics.jsonl');
        if (!existsSync(file) || !readFileSync(file, 'utf8').includes('\n')) return;
        clearInterval(stop);
        process.emit('SIGINT', 'SIGINT');
      }, 1);
      const { code } = await runCommand(train, args);
      clearInterval(stop);
      process.exitCode = 0;
      return code;
    };
    const first = await command(stopping);
    expect(first.stdout).toMatch(/missing: SeLoRA, seed 1: at step [12]\n/);
    started.length = 0;
    expect((await command(inProcess)).code).toBe(0);
    expect(started).toEqual([['--resume', folder]]);
    const [got] = csv().filter((row) => row[0] === 'SeLoRA' && row[1] === '1');
    // all but seconds and memory, on average and at most
    expect(got!.slice(0, -4)).toEqual(want.slice(0, -4));
  });
  test('Ctrl-C stops after the run, with nothing half written', async () => {
    const aborted = new AbortController();
    rmSync(join(out, 'runs', 'lora-r-2-seed-1'), { recursive: true });
    const start: Start = async () => {
      aborted.abort(new Interrupted('stopped by Ctrl-C'));
      return 130;
    };
    const args = ['--config', config, '--out', out];
    const stopped = await runCommand((given, io) => experiment(given, io, start), args, aborted.signal);
    expect([stopped.code, stopped.stderr]).toEqual([130, 'stopped by Ctrl-C\n']);
  });
  test('--at-once: so many beside each other, each once, with its share of the threads; Ctrl-C stops all', async () => {
    const file = at('free.yaml');
    writeFileSync(file, text.replace(' threads: 1,', ''));
    const folder = at('at-once');
    let [now, most, stopped] = [0, 0, 0];
    const aborted = new AbortController();
    const slow: Start = async (args, log, signal) => {
      most = Math.max(most, ++now);
      await new Promise((resolve) => setTimeout(resolve, 20));
      now--;
      if (args.at(-2) !== '--threads') throw new Error(args.join(' '));
      if (signal.aborted) stopped++;
      return copying(args, log, signal);
    };
    const given = ['--config', file, '--out', folder, '--at-once'];
    const run = (start: Start, n: string) =>
      runCommand((a, io) => experiment(a, io, start), [...given, n], aborted.signal);
    started.length = 0;
    expect((await run(slow, '3')).code).toBe(0);
    expect([most, started.length]).toEqual([3, 4]);
    expect(new Set(started.map((a) => a[a.indexOf('--out') + 1])).size).toBe(4);
    expect((await run(slow, '0')).stderr).toMatch(/--at-once/);
    for (const other of [
      ['--run', '0'],
      ['--launcher', 'slurm'],
    ])
      expect((await command(slow, '--at-once', '2', ...other)).stderr).toBe(
        '--at-once: is for runs that are started here, all of them\n',
      );

    rmSync(folder, { recursive: true });
    const stopping: Start = (args, log, signal) => {
      setTimeout(() => aborted.abort(new Interrupted('stopped by Ctrl-C')), 5);
      return slow(args, log, signal);
    };
    expect((await run(stopping, '2')).code).toBe(130);
    // both were waited for, none was begun after it
    expect([stopped, now]).toEqual([2, 0]);
  });
  test('a cluster gets an array of the same runs', async () => {
    const slurm = await command(copying, '--launcher', 'slurm');
    expect(slurm.code).toBe(0);
    const script = readFileSync(join(out, 'array.sbatch'), 'utf8');
    expect(script).toMatch(/^#!\/bin\/bash\n/);
    expect(script).toContain('#SBATCH --array=0-3\n');
    expect(script).toMatch(
      /exec npm run --silent experiment -- --config \S+two\.yaml --out \S+ --run "\$SLURM_ARRAY_TASK_ID"\n$/,
    );
    await command(copying, '--launcher', 'kubernetes');
    const job = parse(readFileSync(join(out, 'job.yaml'), 'utf8'));
    expect(job).toMatchObject({ kind: 'Job', spec: { completionMode: 'Indexed', completions: 4 } });
    expect(job.spec.template.spec.containers[0].command.slice(-2)).toEqual(['--run', '$(JOB_COMPLETION_INDEX)']);
  });
  test('one run of the list alone, as a cluster starts it', async () => {
    started.length = 0;
    expect((await command(copying, '--run', '0')).code).toBe(0);
    expect(started).toHaveLength(1);
    expect((await command(copying, '--run', '4')).stderr).toBe('--run 4: the experiment has runs 0 to 3\n');
  });
});

describe('a file that is wrong', () => {
  const one = (more: string) => `name: a\nmethods: [{ name: m }]\nseeds: [1]\n${more}`;
  test.each([
    ['no file at all', '', /^the file: /],
    ['no YAML', 'name: [', /^line \d+: /],
    [
      'a setting twice over',
      'name: a\nmethods: [{ name: m, settings: { lambda: 2 }, grid: { lambda: [1] } }]\nseeds: [1]',
      /^methods \(m\): lambda stands in settings and in grid$/,
    ],
    [
      'a grid of thousands',
      `name: a\nmethods: [{ name: m, grid: { lambda: [${Array.from({ length: 20 }, (_, i) => i + 1)}], test-every: [1, 2, 3, 4, 5, 6] } }]\nseeds: [1]`,
      /^methods \(m\): grid: 120 combinations, expected at most 100$/,
    ],
    [
      'a value of a grid it cannot have',
      'name: a\nmethods: [{ name: m, grid: { test-every: [20, 0] } }]\nseeds: [1]',
      /^methods\.0 \(m: test-every=0\): --test-every: is 0, expected at least 1$/,
    ],
    ['a key there is not', one('colour: red'), /Unrecognized key/],
    [
      'a setting there is not',
      one('settings: { rnak: 3 }'),
      /^settings\.rnak: no setting of npm run train has this name$/,
    ],
    ['a setting of each run', one('settings: { seed: 3 }'), /^settings\.seed: the experiment gives it to each run$/],
    ['a value it cannot have', one('settings: { rank: -1 }'), /^methods\.0 \(m\): --rank: is -1, expected at least 0$/],
    ['a method twice', 'name: a\nmethods: [{ name: m x }, { name: m-x }]\nseeds: [1]', /^methods: m-x stands twice$/],
    ['a seed twice', 'name: a\nmethods: [{ name: m }]\nseeds: [1, 1]', /^seeds: 1 stands twice$/],
    ['a rival that is none', one('against: n'), /^against: there is no method n$/],
    ['a name that is a path', 'name: ../a\nmethods: [{ name: m }]\nseeds: [1]', /^name: expected letters/],
    ['a key twice', one('name: b'), /^line \d+: Map keys must be unique/],
    ['a billion laughs', `a: &a [x,x,x]\nb: &b [${'*a,'.repeat(60)}]\nc: [${'*b,'.repeat(60)}]`, /./],
  ])('%s', (_name, text, line) => {
    expect(() => parseExperiment(text)).toThrow(line);
  });
  test('is named in one line', async () => {
    writeFileSync(at('bad.yaml'), one('settings: { rnak: 3 }'));
    const { code, stderr } = await runCommand(
      (args, io) => experiment(args, io, inProcess),
      ['--config', at('bad.yaml')],
    );
    expect([code, stderr]).toEqual([
      1,
      `${at('bad.yaml')}: experiment: settings.rnak: no setting of npm run train has this name\n`,
    ]);
  });
  test('the experiments that ship are right', () => {
    for (const file of [
      'quick',
      'ablation',
      'paper/iu-xray',
      'paper/montgomery',
      'paper/patchgastric',
      'paper/table-3',
    ])
      expect(parseExperiment(readFileSync(`train/experiment/${file}.yaml`, 'utf8')).arms.length, file).toBeGreaterThan(
        1,
      );
  });
  test('the paper’s protocol is that of its tables: settings, passes, methods, seeds', () => {
    const of = (name: string) => parseExperiment(readFileSync(`train/experiment/paper/${name}.yaml`, 'utf8'));
    for (const [name, side, batch, epochs] of [
      ['iu-xray', 224, 8, 10],
      ['montgomery', 224, 8, 100],
      ['patchgastric', 384, 6, 10],
    ] as const) {
      const { arms, seeds } = of(name);
      expect(seeds).toHaveLength(3);
      expect(arms.map(({ config: c }) => [c.method, c.rank])).toEqual([
        ['lora', 4],
        ['adalora', 6],
        ['dylora', 4],
        ['selora', 1],
      ]);
      for (const { config: c } of arms)
        expect([c.resolution, c.batch, c.epochs, c.lr, c.optimizer, c.weightDecay]).toEqual([
          side,
          batch,
          epochs,
          1e-4,
          'adam',
          0,
        ]);
      const selora = arms.at(-1)!.config;
      expect([selora.lambda, selora.testEvery]).toEqual([1.1, 40]);
    }
  });
  test('several files: each is told apart; one that cannot be planned does not stop the others', async () => {
    const missing = at('missing.yaml');
    writeFileSync(
      missing,
      `${text.replace('name: two', 'name: gone')}\n`.replaceAll(JSON.stringify(base), '"nowhere"'),
    );
    const { code, stdout, stderr } = await runCommand(experiment, ['--config', missing, config, '--dry-run']);
    expect(code).toBe(1);
    expect(stderr).toBe(`${missing}: not done, see above\n`);
    expect(stdout).toContain(`${missing}\n`);
    expect(stdout).toMatch(/nowhere.*no such/);
    expect(stdout).toMatch(/^SeLoRA: about .* a run, 2 runs to go$/m);
  });
  test('data that are not here yet: the plan counts with what the file says', async () => {
    const epochs = text
      .replace('resolution: 32, pairs: 20,', 'data: nowhere, resolution: 16,')
      .replace('steps: 3', 'epochs: 2');
    writeFileSync(at('epochs.yaml'), epochs);
    const without = await runCommand(experiment, ['--config', at('epochs.yaml'), '--dry-run']);
    expect([without.code, without.stderr]).toEqual([1, expect.stringMatching(/^nowhere: /)]);
    writeFileSync(at('epochs.yaml'), `${epochs}trainingPairs: 40\n`);
    const { code, stdout } = await runCommand(experiment, ['--config', at('epochs.yaml'), '--dry-run']);
    expect(code).toBe(0);
    expect(stdout).toMatch(/^SeLoRA: about .* a run, 2 runs to go$/m);
  });
});

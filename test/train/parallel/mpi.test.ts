/**
 * A run over real processes of OpenMPI: 1 to 4 of them leave what one process with as many micro-batches leaves; one that
 * is killed, fails or differs ends all of them in one line, and the checkpoint goes on to the same bits.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { beforeAll, describe, expect, test, vi } from 'vitest';
import { programOf, writeCalmBase } from '../../support/commands.ts';
import { BRIEF } from '../../support/compiled.ts';
import { essence } from '../../support/essence.ts';
import { LONG, longRows } from '../../support/long.ts';
import { scratchFolder } from '../../support/run-state.ts';
import { there } from '../../support/there.ts';

vi.setConfig({ testTimeout: 600_000, hookTimeout: 120_000 });

const scratch = scratchFolder();
const hasMpi = there('OpenMPI', spawnSync('mpirun', ['--version']).error === undefined, 'install openmpi-bin');
const base = path.join(scratch, 'base');
const fresh = () => path.join(mkdtempSync(path.join(scratch, 'x-')), 'run');
const STEPS = 4;
const settings = [
  ...[
    '--base',
    base,
    '--resolution',
    '32',
    '--pairs',
    '20',
    '--batch',
    '12',
    '--steps',
    String(STEPS),
    '--test-every',
    '2',
  ],
  ...['--validate-every', '3', '--save-every', '1', '--samples', '0', '--obedience', '0', '--validation-pairs', '2'],
  ...['--targets', '**.to_q', '--no-train-text-encoder', '--criterion', 'fi-snr', '--lr', '1e-2'],
  ...['--backend', 'wasm', '--threads', '1'],
];
const program = [...BRIEF, ...programOf('train')];
// who waits gives the core away: other tests run beside these
const MPIRUN = ['--oversubscribe', '--allow-run-as-root', '--mca', 'mpi_yield_when_idle', '1'];
const MPI = ['--data-parallel', 'mpi'];

type Ended = { readonly code: number | null; readonly output: string; readonly seconds: number };
/** A program to its end; `during` may disturb it. */
async function run(
  command: string,
  args: readonly string[],
  during: (child: ChildProcess) => Promise<void> = async () => undefined,
): Promise<Ended> {
  const began = performance.now();
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, FORCE_COLOR: '0' } });
  let output = '';
  const take = (text: Buffer) => {
    output += text.toString();
  };
  child.stdout.on('data', take);
  child.stderr.on('data', take);
  const closed = once(child, 'close');
  await during(child);
  await closed;
  return { code: child.exitCode, output, seconds: (performance.now() - began) / 1000 };
}
const mpirun = (n: number, args: readonly string[], during?: Parameters<typeof run>[2]) =>
  run('mpirun', [...MPIRUN, '-n', String(n), process.execPath, ...program, ...args, ...MPI], during);
const alone = (args: readonly string[]) => run(process.execPath, [...program, ...args]);

/** The processes of a job by their rank. */
function processesOf(job: number): ReadonlyMap<number, number> {
  const children = readFileSync(`/proc/${job}/task/${job}/children`, 'utf8').trim().split(' ').map(Number);
  return new Map(
    children.flatMap((pid) => {
      const found = /OMPI_COMM_WORLD_RANK=(\d+)/.exec(readFileSync(`/proc/${pid}/environ`, 'latin1'));
      return found ? [[Number(found[1]), pid] as const] : [];
    }),
  );
}
/** what OpenMPI itself says of a job that ends badly stands between rules */
const own = (output: string): readonly string[] =>
  output
    .replace(/-{60,}\n[\s\S]*?-{60,}\n?/g, '')
    .split('\n')
    .filter((text) => text !== '');
const failures = (output: string): readonly string[] =>
  own(output).filter((text) => !/^(step|backend|run folder) /.test(text));

const references = new Map<number, ReturnType<typeof made>>();
async function made(n: number) {
  const folder = fresh();
  const { code, output } = await alone([...settings, '--accumulate', String(n), '--out', folder]);
  expect(code, output).toBe(0);
  return essence(folder);
}
const reference = (n: number) => {
  const known = references.get(n) ?? made(n);
  references.set(n, known);
  return known;
};

describe.runIf(hasMpi)('with OpenMPI', () => {
  beforeAll(() => writeCalmBase(base));

  test.each(longRows([1, 2, 3, 4], () => false))('%i processes leave the bits of one', async (n) => {
    const want = await reference(n);
    expect(want.rows.at(-1).totalRank).toBeGreaterThan(want.rows[0].totalRank);
    const folder = fresh();
    const { code, output } = await mpirun(n, [...settings, '--out', folder]);
    expect(code, output).toBe(0);
    expect(await essence(folder)).toEqual(want);
    if (n > 1) expect(output).toMatch(new RegExp(`^${n} processes: [\\d.]+ KiB sent by each per step`, 'm'));
    expect(output.match(/^adapter of the/gm)).toHaveLength(1);
  });

  test.each(
    longRows(
      [
        [1, 2],
        [0, 3],
      ],
      () => false,
    ),
  )('process %i of %i is killed: one line, and the checkpoint goes on to the same bits', async (rank, n) => {
    const want = await reference(n!);
    const folder = fresh();
    const { code, output } = await mpirun(n!, [...settings, '--out', folder], async (child) => {
      // the second step is told, so the first is saved
      const rows = path.join(folder, 'metrics.jsonl');
      const told = () => existsSync(rows) && readFileSync(rows, 'utf8').split('\n').length > 2;
      while (child.exitCode === null && !told()) await sleep(5);
      process.kill(processesOf(child.pid!).get(rank!)!, 'SIGKILL');
    });
    expect(code, output).not.toBe(0);
    const lines = own(output).filter((text) => text.includes('is gone'));
    expect(lines, output).toEqual([
      expect.stringMatching(
        new RegExp(
          `^process ${rank! + 1} of ${n} \\(on .+\\) is gone; the run ends at its last checkpoint: go on with .*${folder}$`,
        ),
      ),
    ]);
    expect(output).not.toMatch(/^\s+at .*:\d+/m);
    expect(output).not.toMatch(/^adapter of the/m);
    const again = await (rank === 0 ? alone(['--resume', folder]) : mpirun(n!, ['--resume', folder]));
    expect(again.code, again.output).toBe(0);
    expect(await essence(folder)).toEqual(want);
  });

  test.runIf(LONG)('what one cannot do, all say in one line', async () => {
    const few = await mpirun(2, [...settings, '--accumulate', '1', '--out', fresh()]);
    expect([few.code, failures(few.output)]).toEqual([
      1,
      ['--accumulate 1: 2 processes share the micro-batches of a step, expected at least 2'],
    ]);
    const odd = await mpirun(5, [...settings, '--out', fresh()]);
    expect([odd.code, failures(odd.output)]).toEqual([1, ['--accumulate: must divide the batch of 12']]);
    const unknown = await mpirun(2, [...settings, '--colour', '3']);
    expect([unknown.code, failures(unknown.output)]).toEqual([
      1,
      [expect.stringMatching(/^unknown option '--colour'/)],
    ]);
  });

  test.runIf(LONG)('the first says why, however late it comes', async () => {
    const one = ['-n', '1'];
    const asked = [process.execPath, ...program, ...settings, '--colour', '3', ...MPI];
    const late = ['bash', '-c', 'sleep 4; exec "$@"', 'late'];
    const { code, output } = await run('mpirun', [...MPIRUN, ...one, ...late, ...asked, ':', ...one, ...asked]);
    expect([code, failures(output)]).toEqual([1, [expect.stringMatching(/^unknown option '--colour'/)]]);
  });

  test.runIf(LONG)('a process with another base ends all of them', async () => {
    const other = path.join(scratch, 'other');
    const folder = fresh();
    const of = (more: readonly string[]) => [
      process.execPath,
      ...program,
      ...settings,
      ...more,
      '--out',
      folder,
      ...MPI,
    ];
    const gone = await run('mpirun', [...MPIRUN, '-n', '1', ...of([]), ':', '-n', '1', ...of(['--base', other])]);
    expect([gone.code, failures(gone.output)]).toEqual([
      1,
      [expect.stringMatching(new RegExp(`^process 2 of 2 \\(on .+\\): ${other}: no such file`))],
    ]);
    expect(existsSync(folder)).toBe(false);
  });
});

test('started alone it says how it is started', async () => {
  const { code, output } = await alone([...settings, '--out', fresh(), ...MPI]);
  expect([code, output]).toEqual([
    1,
    '--data-parallel mpi: this process was started alone; expected mpirun -n N npm run train -- --data-parallel mpi\n',
  ]);
});

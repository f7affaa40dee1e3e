/**
 * The trainer itself on a tiny model: killed and interrupted at random moments and resumed, it leaves what a run never
 * stopped leaves, bit for bit, on cpu and wasm. What was changed in between is refused by name.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { cpSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { beforeAll, describe, expect, it } from 'vitest';
import { errorLine, type Io } from '../../../train/cli/command.ts';
import { encodePng } from '../../../train/data/pictures/image-write.ts';
import { main } from '../../../train/train.ts';
import { programOf, runCommand } from '../../support/commands.ts';
import { BRIEF } from '../../support/compiled.ts';
import { casesOf, patience, seedOf } from '../../support/drivers.ts';
import { essence } from '../../support/essence.ts';
import { LONG, longRows, longTest } from '../../support/long.ts';
import { filesOf, scratchFolder } from '../../support/run-state.ts';
import { writeTinyBase } from '../../support/tiny-base.ts';

const scratch = scratchFolder();
const base = path.join(scratch, 'base');
const fresh = () => path.join(mkdtempSync(path.join(scratch, 'x-')), 'run');
const STEPS = 7;
const settings = (backend: string) =>
  `--method selora --base ${base} --resolution 16 --pairs 24 --steps ${STEPS} --batch 2 --test-every 2 --validate-every 3 --save-every 1 --samples 1 --obedience 0 --sample-steps 2 --lr 1e-2 --validation-pairs 2 --targets **.to_q --backend ${backend}${backend === 'wasm' ? ' --threads 1' : ''}`.split(
    ' ',
  );
/** the loops of `cpu` are JavaScript, and worth optimising */
const node = (backend: string) => (backend === 'wasm' ? BRIEF : []);
const create = (folder: string, backend: string) => [
  ...node(backend),
  ...programOf('train'),
  ...settings(backend),
  '--out',
  folder,
];
const resume = (folder: string, backend: string) => [...node(backend), ...programOf('train'), '--resume', folder];

beforeAll(() => writeTinyBase(base));

type Ended = { readonly code: number | string; readonly output: string; readonly errors: string };

/** Starts the trainer; `during` may disturb it, `line` waits for a text on its output or progress. */
async function trained(
  args: readonly string[],
  during: (child: ChildProcess, line: (text: RegExp) => Promise<void>) => Promise<void> = async () => undefined,
): Promise<Ended> {
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'pipe'] });
  let [output, errors] = ['', ''];
  child.stdout.on('data', (text) => {
    output += text;
  });
  child.stderr.on('data', (text) => {
    errors += text;
  });
  const closed = once(child, 'close');
  const over = () => child.exitCode !== null || child.signalCode !== null;
  await during(child, async (text) => {
    while (!over() && !text.test(output + errors)) await sleep(5);
  });
  await closed;
  return { code: child.exitCode ?? child.signalCode ?? '', output, errors };
}

const unstopped = new Map<
  string,
  Promise<{ readonly folder: string; readonly ms: number; readonly essence: Awaited<ReturnType<typeof essence>> }>
>();
function reference(backend: string) {
  const make = async () => {
    const folder = fresh();
    const began = performance.now();
    // in this process where none is to be killed
    const { code, errors } = LONG
      ? await trained(create(folder, backend))
      : await runCommand(main, [...settings(backend), '--out', folder]).then((r) => ({
          code: r.code,
          errors: r.stderr,
        }));
    expect(code, errors).toBe(0);
    return { folder, ms: performance.now() - began, essence: await essence(folder) };
  };
  const known = unstopped.get(backend) ?? make();
  unstopped.set(backend, known);
  return known;
}

describe.each(longRows(['cpu', 'wasm'], (name) => name === 'wasm'))('on %s', (backend) => {
  it('the run grows ranks and draws pictures, so that there is something to lose', { timeout: 300_000 }, async () => {
    const { essence: found } = await reference(backend);
    expect(found.rows).toHaveLength(STEPS);
    expect(found.rows.at(-1).totalRank).toBeGreaterThan(found.rows[0].totalRank);
    expect(Object.keys(found.files)).toEqual(
      expect.arrayContaining(['adapter.safetensors', 'best.safetensors', 'config.json', 'samples/01-adapted.png']),
    );
  });
  it('a bit of it that is another would be found', { timeout: 300_000 }, async () => {
    const { folder, essence: expected } = await reference(backend);
    const other = fresh();
    cpSync(folder, other, { recursive: true });
    const file = path.join(other, 'adapter.safetensors');
    const bytes = readFileSync(file);
    bytes[bytes.length - 4] ^= 1;
    writeFileSync(file, bytes);
    expect(await essence(other)).not.toEqual(expected);
  });
  // a trainer in small is killed in `train/run/kill`, by the same code; one that is stopped in this process in `run`
  longTest(
    'interrupted, killed, left alone by its readers, it ends with the same bits',
    {
      timeout: patience('trainer-kills', 900_000),
    },
    async () => {
      const { essence: expected, ms } = await reference(backend);
      const signals = [
        ['SIGINT', 130],
        ['SIGTERM', 143],
        ['SIGHUP', 129],
      ] as const;
      let kills = 0;
      const first = seedOf(0);
      for (let round = first; round < first + casesOf('trainer-kills'); round++) {
        const folder = fresh();
        const [signal, code] = signals[(round + (backend === 'cpu' ? 0 : 1)) % 3];
        const stopped = await trained(create(folder, backend), async (child, line) => {
          await line(new RegExp(`step +[1-9]/${STEPS}`));
          await sleep((round * 53) % 200);
          child.kill(signal);
        });
        expect(stopped.code, stopped.errors).toBe(code);
        expect(stopped.output).toMatch(/stopped after step \d and saved; go on with: npm run train -- --resume /);
        for (let n = 0; n < 1 + (round % 3); n++) {
          // Once the adapters are there: the first at once, so that one does fall before the end, the others at moments spread over
          // the rest of the run (the golden ratio leaves no gaps).
          const moment = round === first && n === 0 ? 0 : ((round * 3 + n + 1) * 0.618034) % 1;
          const killed = await trained(resume(folder, backend), async (child, line) => {
            await line(/adapters on/);
            await sleep(moment * ms * 0.5);
            child.kill('SIGKILL');
          });
          if (killed.code === 'SIGKILL') kills++;
        }
        // Nobody reads any more: the run goes on all the same.
        const { code: end, errors } = await trained(resume(folder, backend), async (child) => {
          child.stdout?.destroy();
          if (round % 2 === 1) child.stderr?.destroy();
        });
        expect(end, errors).toBe(0);
        expect(await essence(folder)).toEqual(expected);
      }
      expect(kills).toBeGreaterThan(0);
    },
  );
});

describe('between stop and resume', () => {
  const other = path.join(scratch, 'other-base');
  const edit = (folder: string, change: (config: Record<string, unknown>) => object) => {
    const file = path.join(folder, 'config.json');
    writeFileSync(file, JSON.stringify(change(JSON.parse(readFileSync(file, 'utf8')))));
  };
  const flipLast = (file: string) => {
    const bytes = readFileSync(file);
    bytes[bytes.length - 2] ^= 1;
    writeFileSync(file, bytes);
  };
  const changes: readonly (readonly [string, (folder: string) => void, RegExp])[] = [
    [
      'λ',
      (folder) => edit(folder, (c) => ({ ...c, lambda: 1.3 })),
      /config.json: lambda: was 1.1 when the run was saved, is 1.3 now$/,
    ],
    [
      'the seed',
      (folder) => edit(folder, (c) => ({ ...c, seed: 2 })),
      /config.json: seed: was 1 when the run was saved, is 2 now$/,
    ],
    [
      'the place of the base, where another one lies,',
      (folder) => {
        const spoilt = path.join(scratch, 'spoilt-base');
        cpSync(other, spoilt, { recursive: true });
        flipLast(path.join(spoilt, 'unet/diffusion_pytorch_model.safetensors'));
        edit(folder, (c) => ({ ...c, base: spoilt }));
      },
      /run: base: was "[^"]+" when the run was saved, is "[^"]+" now$/,
    ],
    ['a setting that does not exist', (folder) => edit(folder, (c) => ({ ...c, lamda: 1.3 })), /lamda/],
    [
      'a metric',
      (folder) => {
        const file = path.join(folder, 'metrics.jsonl');
        writeFileSync(file, readFileSync(file, 'utf8').replace('"loss":', '"loss":1'));
      },
      /metrics.jsonl: was changed since the checkpoint was saved$/,
    ],
    [
      'the configuration, cut off,',
      (folder) => writeFileSync(path.join(folder, 'config.json'), '{"lambda":'),
      /config.json: not valid JSON/,
    ],
    [
      'a weight of the base',
      () => flipLast(path.join(base, 'unet/diffusion_pytorch_model.safetensors')),
      /run: base: was "[^"]+" when the run was saved, is "[^"]+" now$/,
    ],
  ];
  it.each(changes)('%s is refused by name', { timeout: 120_000 }, async (_, change, message) => {
    const { folder: whole } = await reference('wasm');
    const folder = fresh();
    cpSync(whole, folder, { recursive: true });
    cpSync(base, other, { recursive: true });
    change(folder);
    const before = filesOf(path.join(folder, 'checkpoints'));
    const silent = { write: () => true };
    const io = { stdout: silent, stderr: silent, signal: new AbortController().signal } as unknown as Io;
    const error = await main(['--resume', folder], io).catch((reason: unknown) => reason);
    expect(errorLine(error)).toMatch(message);
    expect(filesOf(path.join(folder, 'checkpoints'))).toEqual(before);
    rmSync(base, { recursive: true });
    cpSync(other, base, { recursive: true });
  });
  longTest('data and base may lie elsewhere with the same content; a plain resume goes on from there', async () => {
    const place = fresh();
    const at = (name: string) => path.join(place, name);
    cpSync(base, at('base'), { recursive: true });
    const films = at('films');
    mkdirSync(films);
    for (let i = 0; i < 6; i++) {
      const grey = Float32Array.from({ length: 16 * 16 * 3 }, (_, k) => Math.sin(i + k / (5 + i)));
      writeFileSync(path.join(films, `${i}.png`), await encodePng(grey, 16));
      writeFileSync(path.join(films, `${i}.txt`), `a film of lung ${i}`);
    }
    const run = (...args: readonly string[]) => runCommand(main, args);
    const settings =
      '--method lora --rank 1 --resolution 16 --batch 2 --samples 0 --save-every 1 --backend wasm --threads 1 --targets **.attn1.to_q'.split(
        ' ',
      );
    const begun = await run('--data', films, '--base', at('base'), '--out', at('run'), '--steps', '2', ...settings);
    expect(begun.code, begun.stderr).toBe(0);
    renameSync(at('run'), at('moved run'));
    renameSync(films, at('moved films'));
    renameSync(at('base'), at('moved base'));
    const resumed = (...more: readonly string[]) => run('--resume', at('moved run'), ...more);
    expect(await resumed('--steps', '3')).toMatchObject({
      code: 1,
      stderr: `${films}: no such file or folder; where it lies now is told by --data\n`,
    });
    expect(await resumed('--steps', '3', '--data', at('moved films'))).toMatchObject({
      code: 1,
      stderr: `${at('base')}: no such file or folder; where it lies now is told by --base\n`,
    });
    const places = ['--data', at('moved films'), '--base', at('moved base')];
    for (const args of [
      ['--steps', '3', ...places],
      ['--steps', '4'],
    ]) {
      const { code, stderr } = await resumed(...args);
      expect(code, stderr).toBe(0);
    }
    writeFileSync(path.join(at('moved films'), '0.txt'), 'another text');
    expect((await resumed('--steps', '5')).stderr).toMatch(
      /run: data: was "[^"]+" when the run was saved, is "[^"]+" now\n$/,
    );
  });
});

/** Whole runs of `npm run train` on a tiny base and fifteen pictures, in the scratch folder of the test file. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { readAdapter } from '../../models/io/adapter-file.ts';
import { runOf } from '../../models/io/adapter-run.ts';
import { encodePng } from '../../train/data/pictures/image-write.ts';
import { main as train } from '../../train/train.ts';
import { runCommand, writeCalmBase } from './commands.ts';
import { folder, rows, scratch } from './data-fixtures.ts';

/** The base of these runs. */
export const base = () => join(scratch, 'base');
/** The folder of a run. */
export const out = (name: string) => join(scratch, 'runs', name);
let data: string;
/** Writes base and pictures; before all tests of a file. */
export async function prepare(): Promise<void> {
  await writeCalmBase(base());
  const words = ['the left', 'the right', 'a clear', 'the', 'both'];
  const files: Record<string, string | Uint8Array> = {
    'metadata.csv': rows(
      ...Array.from({ length: 15 }, (_, i) => `${i}.png,${words[i % 5]} lung ${'abcdefghijklmno'[i]}`),
    ),
  };
  for (let i = 0; i < 15; i++)
    files[`${i}.png`] = await encodePng(
      Float32Array.from({ length: 16 * 16 * 3 }, (_, k) => Math.sin(i + Math.floor(k / 3) * (0.05 + 0.02 * i))),
      16,
    );
  data = folder(files);
}

/** The words of a command line. */
export const line = (text: string) => text.split(' ').filter((x) => x !== '');
const common =
  '--steps 8 --batch 2 --test-every 2 --lambda 1.02 --save-every 3 --validate-every 4 --samples 2 --sample-steps 2 ' +
  '--lr 1e-2 --split 60/20/20 --caption-dropout 0.2 --clip 1 --seed 5 --targets **.attn1.*,text.** --budget 26';
/** The arguments of a run by these settings and more; the last word on one counts. */
export const settingsOf = (name: string, more = ''): readonly string[] => [
  '--data',
  data,
  '--base',
  base(),
  '--out',
  out(name),
  ...line(`${common} --backend wasm --threads 1 ${more}`),
];
/** The run by them. */
export const start = (name: string, more = '') => runCommand(train, settingsOf(name, more));

/** A row of a run's log. */
export type Row = Record<string, unknown> & {
  readonly step: number;
  readonly lr: number;
  readonly totalRank: number;
  readonly gradNorm: number;
  readonly validation?: {
    readonly loss: number;
    readonly byTimestep?: readonly { readonly t: number; readonly loss: number }[];
  };
  readonly tests?: readonly { readonly module: string; readonly expanded: boolean; readonly ratio: number }[];
};
/** the log without what depends on the clock and the machine */
export const log = (name: string): Row[] =>
  readFileSync(join(out(name), 'metrics.jsonl'), 'utf8')
    .trim()
    .split('\n')
    .map((l) => {
      const { seconds: _s, memory: _m, ...row } = JSON.parse(l) as Row;
      return row as Row;
    });
/** Path, rank, A and B of every module of a run's adapter. */
export const adapterBits = async (name: string) => {
  const { modules } = await readAdapter(join(out(name), 'adapter.safetensors'));
  return [...modules].map(([path, m]) => [path, m.rank, Array.from(m.A), Array.from(m.B)] as const);
};

/** The step that a run's file of weights is of. */
export const stepOf = async (name: string, file = 'adapter.safetensors') =>
  runOf(await readAdapter(join(out(name), file)), file)!.steps;

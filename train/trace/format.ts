/**
 * The file of a recorded step: safetensors whose metadata hold `format` and, as JSON, `trace`: everything but the values.
 * Tensors, F32, of one sample of the batch: `value|MODULE` and `cotangent|MODULE` of every module in `values`, and what went
 * in and out, `sample|noisy`, `sample|prediction`, `sample|target` [h, w, c].
 */
import { z } from 'zod';
import { FileError, printable } from '../../models/io/error.ts';
import { parseJson } from '../../models/io/json.ts';
import {
  type Header,
  headerLength,
  PREFIX_BYTES,
  parseHeader,
  type TensorInfo,
} from '../../models/io/safetensors-header.ts';

export const FORMAT = 'selora-trace-1';
export const TRACE_FIELD = 'trace';
/** What a recorded step is called in the folder of its run. */
export const TRACE_FILE = /^trace-step-\d{1,15}\.safetensors$/;
export const traceFile = (step: number): string => `trace-step-${step}.safetensors`;

/** Headers above this are no trace: one of ten thousand kernels has some megabytes. */
const MOST_HEADER = 64 * 2 ** 20;
/** Numbers of one tensor that a page takes. */
const MOST_NUMBERS = 2 ** 26;

const path = z.string().min(1).max(300);
const words = z.string().max(20_000);
const count = z.int().min(0).max(1e15);
/** null: NaN or infinite, which JSON has not */
const number = z.number().nullable();

export const traceSchema = z.strictObject({
  /** of which run, or of which base */
  source: words,
  method: z.string().max(100),
  /** which update, from 1 on */
  step: z.int().min(1).max(1e12),
  backend: z.string().max(100),
  device: words,
  /** mean loss and norm of the gradient, as the run's row has them */
  loss: number,
  norm: number,
  /** the batch before the update; the values are of number `sample` */
  samples: z
    .array(z.strictObject({ report: words, t: z.number(), loss: number }))
    .min(1)
    .max(4096),
  sample: z.int().min(0),
  blocks: z
    .array(
      z.strictObject({
        path,
        kind: z.enum(['text', 'time', 'in', 'down', 'mid', 'up', 'out']),
        level: z.int().min(0).max(20),
        skips: z.int().min(0).max(100),
      }),
    )
    .min(1)
    .max(100),
  /** what is trained, with the norm of the loss's gradient by it */
  modules: z.array(z.strictObject({ path, rank: z.int().min(0), gradient: number })).max(50_000),
  /** kernels of the step, equal ones of a module in one row, in the order in which they first run */
  kernels: z
    .array(
      z.strictObject({
        module: z.string().max(300),
        op: z.string().max(100),
        detail: z.string().max(2000),
        /** of a fused kernel, its program */
        text: z.string().max(20_000).optional(),
        count,
        flops: count,
        bytes: count,
        ms: z.number().min(0).optional(),
      }),
    )
    .max(200_000),
  /** modules whose value and cotangent are there */
  values: z.array(path).max(10_000),
});
/** A recorded step without its values. */
export type Trace = z.output<typeof traceSchema>;

export const KINDS = ['value', 'cotangent'] as const;
export const SAMPLE = ['noisy', 'prediction', 'target'] as const;
export const tensorName = (kind: string, path: string): string => `${kind}|${path}`;

/** A file, or anything else whose bytes are read piece by piece. */
export interface Bytes {
  readonly name: string;
  readonly size: number;
  readonly slice: (begin: number, end: number) => Promise<Uint8Array>;
}
/** A tensor of a trace. */
export interface Recorded {
  readonly shape: readonly number[];
  readonly values: Float32Array;
}
/** An opened trace: its values are read when they are asked for. */
export interface OpenTrace {
  readonly trace: Trace;
  /** @throws FileError for a file that became shorter */
  readonly read: (kind: (typeof KINDS)[number] | 'sample', path: string) => Promise<Recorded>;
}

/** What the metadata say, checked. */
function traceOf({ metadata }: Header, file: string): Trace {
  if (metadata.get('format') !== FORMAT)
    throw new FileError(file, 'format', `is no recorded step: expected a file of npm run trace (${FORMAT})`);
  const json = parseJson(metadata.get(TRACE_FIELD) ?? '', file, { field: TRACE_FIELD, depth: 8 });
  const parsed = traceSchema.safeParse(json);
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  const field = [TRACE_FIELD, ...issue!.path.map(String)].join('.');
  throw new FileError(file, field, printable(issue!.message, 300));
}

/**
 * Opens a recorded step: its header is read and everything checked that it says; values stay where they are.
 * @throws FileError: one line naming the field that is wrong
 */
export async function openTrace(bytes: Bytes): Promise<OpenTrace> {
  const { name, size } = bytes;
  const exact = async (begin: number, end: number): Promise<Uint8Array> => {
    const read = await bytes.slice(begin, end);
    if (read.length !== end - begin) throw new FileError(name, '', 'became shorter while it was read');
    return read;
  };
  const length = headerLength(await exact(0, Math.min(size, PREFIX_BYTES)), size, name);
  if (length > MOST_HEADER) throw new FileError(name, 'header', `has ${length} bytes, expected at most ${MOST_HEADER}`);
  const header = parseHeader(await exact(8, 8 + length), size, name);
  const trace = traceOf(header, name);
  const say = (field: string, problem: string) => new FileError(name, field, problem);
  if (trace.sample >= trace.samples.length)
    throw say('trace.sample', `is ${trace.sample}, there are ${trace.samples.length} samples`);
  for (const list of [trace.blocks.map((b) => b.path), trace.modules.map((m) => m.path), trace.values]) {
    const seen = new Set<string>();
    for (const one of list) {
      if (seen.has(one)) throw say('trace', `names ${printable(one)} twice`);
      seen.add(one);
    }
  }
  const info = (kind: string, of: string): TensorInfo => {
    const tensor = tensorName(kind, of);
    const found = header.tensors.get(tensor);
    if (!found) throw say(`tensor ${printable(tensor)}`, 'is not in the file');
    if (found.dtype !== 'F32') throw say(`tensor ${printable(tensor)}`, `is ${found.dtype}, expected F32`);
    const numbers = (found.end - found.begin) / 4;
    if (numbers < 1 || numbers > MOST_NUMBERS || found.shape.length < 1)
      throw say(`tensor ${printable(tensor)}`, `has ${numbers} numbers, expected 1 to ${MOST_NUMBERS} in some shape`);
    return found;
  };
  for (const of of trace.values) {
    const [value, cotangent] = KINDS.map((kind) => info(kind, of).shape.join());
    if (value !== cotangent) throw say(printable(of), `value [${value}] and cotangent [${cotangent}] differ in shape`);
  }
  for (const part of SAMPLE)
    if (info('sample', part).shape.length !== 3)
      throw say(`tensor sample|${part}`, `is [${info('sample', part).shape}], expected [height, width, channels]`);
  return {
    trace,
    async read(kind, of) {
      const { shape, begin, end } = info(kind, of);
      const read = await exact(begin, end);
      return { shape, values: new Float32Array(Uint8Array.from(read).buffer) };
    },
  };
}

/** All the page may ask of its worker, as one table; it runs in Node as it does in a page. */
import { type Backend, type BackendName, CoreError, type GraphData, openBackend } from '../../../core/index.ts';
import type { ReadFile } from './base.ts';
import { checkWritten, runWritten } from './function.ts';
import { runLesson } from './lesson.ts';
import * as op from './op.ts';
import type { Tell } from './protocol.ts';
import { stepLab } from './step.ts';
import { trainLab } from './train.ts';

/** What a person may choose; `auto`: a graphics card through WebGPU where there is one, else WASM. */
export type Choice = 'auto' | Exclude<BackendName, 'gpujs'>;
/** The backend that runs, in words, and what keeps others from running. */
export interface Opened {
  readonly name: BackendName;
  readonly device: string;
  readonly notes: readonly string[];
}
export type { GraphData };

/** Why this page has no WebGPU or no threads. */
async function missing(name: BackendName): Promise<string[]> {
  const notes: string[] = [];
  const page = globalThis as { navigator?: { gpu?: GPU }; crossOriginIsolated?: boolean };
  if (name !== 'webgpu') {
    const gpu = page.navigator?.gpu;
    const adapter = await gpu?.requestAdapter().catch(() => null);
    if (!gpu) notes.push('no WebGPU: this browser does not offer it here');
    else if (!adapter) notes.push('no WebGPU: the browser found no adapter');
    else notes.push('WebGPU is there: choose it above');
  }
  if (name === 'wasm' && page.crossOriginIsolated === false)
    notes.push('one thread: the server sends no COOP and COEP headers');
  return notes;
}

/** Files of the folder the page came from. */
const fetched: ReadFile = async (name) => {
  const answer = await fetch(name);
  if (!answer.ok) throw new CoreError(`${name}: the server answers ${answer.status}`);
  return new Uint8Array(await answer.arrayBuffer());
};

/** A machine with a backend that is opened when it is first needed. */
export function labMachine(threads?: number, readFile = fetched) {
  let choice: Choice = 'auto';
  let opened: Promise<Backend> | undefined;
  const backend = (): Promise<Backend> => {
    opened ??= openBackend(choice, threads === undefined ? {} : { threads });
    return opened;
  };
  const { ready, ...step } = stepLab(readFile, backend);
  return {
    /** Opens another backend and gives the last one back. @throws CoreError when it does not run here */
    async open(_: Tell, name: Choice): Promise<Opened> {
      const before = opened;
      choice = name;
      opened = undefined;
      await (await before?.catch(() => undefined))?.close();
      const made = await backend();
      return { name: made.name, device: made.device, notes: await missing(made.name) };
    },
    /** What the backend holds: tensors and the workspace of its programs. */
    memory: async (_: Tell) => (await backend()).memory(),
    ...step,
    ...trainLab(readFile, ready),
    tryOp: async (_: Tell, ask: op.Ask) => op.tryOp(await backend(), ask),
    nudge: async (_: Tell, ask: op.Ask, operand: number, element: number, steps: readonly number[]) =>
      op.nudge(await backend(), ask, operand, element, steps),
    feeds: (_: Tell, ask: op.Ask) => op.feeds(ask),
    runLesson: async (_: Tell, source: string) => runLesson(await backend(), source),
    runWritten: async (_: Tell, source: string) => runWritten(await backend(), source),
    checkWritten: async (_: Tell, source: string, others: readonly Choice[]) => {
      const opened: Backend[] = [];
      try {
        for (const name of others) opened.push(await openBackend(name, threads === undefined ? {} : { threads }));
        return await checkWritten(source, opened);
      } finally {
        for (const b of opened) await b.close();
      }
    },
    mapped: (_: Tell, ask: op.Ask, which: readonly boolean[]) => op.mapped(ask, which),
  };
}
export type Machine = ReturnType<typeof labMachine>;

/** `--check-finite`: where the first value of a step that is not finite was made, and which samples make one alone. */
import { type Backend, evaluate, NonFiniteError, read, readScalar, slice, type Tensor } from '../../core/index.ts';
import type { Batch, Frozen, State, Steps } from '../step/step.ts';

/** What a step was made from: programs that check, and the state before it, which they leave. */
export type StepInputs = {
  readonly programs: Pick<Steps, 'part'>;
  readonly state: State;
  readonly frozen: Frozen;
  /** its micro-batches, those that only a test sees among them */
  readonly batches: readonly Batch[];
  readonly backend: Backend;
};

/** samples named one by one; of more their number is told */
const NAMED = 4;

/** Sample i of a batch as a batch of its own. */
const alone = (batch: Batch, i: number, backend: Backend): Batch =>
  Object.fromEntries(
    Object.entries(batch).map(([name, x]: [string, Tensor]) => [
      name,
      evaluate(slice(x, { axis: 0, start: i, stop: i + 1 }), backend),
    ]),
  ) as Batch;

async function failsAlone({ programs, state, frozen }: StepInputs, sample: Batch): Promise<boolean> {
  try {
    await readScalar(programs.part(state, frozen, sample).loss);
    return false;
  } catch (error) {
    if (error instanceof NonFiniteError) return true;
    throw error;
  }
}

/** `sample 2 of 8 (timestep 941)`, where samples alone have a value that is not finite. Cost: a step per sample. */
async function samplesOf(inputs: StepInputs): Promise<string> {
  const failing: string[] = [];
  let seen = 0;
  for (const batch of inputs.batches) {
    const timesteps = await read(batch.t);
    for (const [i, t] of timesteps.entries()) {
      seen++;
      if (await failsAlone(inputs, alone(batch, i, inputs.backend))) failing.push(`${seen} (timestep ${t})`);
    }
  }
  if (failing.length === 0) return 'no sample of the batch alone makes one';
  const more = failing.length > NAMED ? ` and ${failing.length - NAMED} more` : '';
  const named = failing.slice(0, NAMED).join(', ');
  return `${failing.length === 1 ? 'sample' : 'samples'} ${named}${more} of ${seen}`;
}

/**
 * The error of a step in words: with its number, and the samples that fail alone. A parameter that is not finite itself
 * fails with every sample, so none is named.
 */
export async function nonFiniteStep(step: number, error: NonFiniteError, inputs: StepInputs): Promise<RangeError> {
  const parameter = error.op === 'data' || (error.op === 'hole' && error.module !== undefined);
  const samples = parameter ? '' : `; ${await samplesOf(inputs)}`;
  return new RangeError(`step ${step}: ${error.message}${samples}`);
}

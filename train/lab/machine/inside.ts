/** What is inside the last step: its kernels, and of its first sample the value and the cotangent of every module. */
import { type Backend, CoreError, compile, evaluate, read, type Tensor } from '../../../core/index.ts';
import type { Adapter } from '../../../selora/adapter.ts';
import type { LossOptions } from '../../step/gradients.ts';
import type { Batch, PerModule } from '../../step/step.ts';
import type { Trace } from '../../trace/format.ts';
import { insideOf, modulesIn, sampleOf } from '../../trace/inside.ts';
import type { Ready } from './base.ts';
import type { Tell } from './protocol.ts';

/** A step looked into, as a page is told of it. */
export interface Inner {
  readonly kernels: Trace['kernels'];
  /** modules whose values may be asked for */
  readonly values: readonly string[];
}
/** A tensor as it travels to the page. */
interface Sent {
  readonly shape: readonly number[];
  readonly values: Float32Array;
}
export interface InnerValue {
  readonly value: Sent;
  readonly cotangent: Sent;
}
/** The same with its tensors, which stay where they were computed. */
export interface Within {
  readonly told: Inner;
  readonly values: Readonly<Record<string, Tensor>>;
  readonly cotangents: Readonly<Record<string, Tensor>>;
}

export async function innerOf(o: {
  readonly backend: Backend;
  readonly base: Ready;
  readonly loss: object;
  readonly params: PerModule<Adapter>;
  readonly batch: Batch;
  readonly kernels: () => Trace['kernels'];
  readonly tell: Tell;
}): Promise<Within> {
  const { backend, base, params, batch, tell } = o;
  tell('a look into the first sample');
  const modules = modulesIn(base.frozen);
  const of = batch.t.shape[0]!;
  const look = insideOf(o.loss as LossOptions<Adapter>, base.places, modules, of);
  const program = compile(look, { backend, name: 'inside a step' });
  const { values, cotangents } = program(params, base.frozen, evaluate(sampleOf(batch, 0), backend));
  program.trim();
  tell('the kernels that ran');
  return { told: { kernels: o.kernels(), values: modules }, values, cotangents };
}

/** @throws CoreError for a name that is no module's */
export async function innerValue({ values, cotangents }: Within, name: string): Promise<InnerValue> {
  const sent = async (x: Tensor | undefined): Promise<Sent> => {
    if (!x) throw new CoreError(`there is no module ${name}`);
    const shape = x.shape.length > 1 && x.shape[0] === 1 ? x.shape.slice(1) : x.shape;
    return { shape, values: Float32Array.from(await read(x)) };
  };
  return { value: await sent(values[name]), cotangent: await sent(cotangents[name]) };
}

/** A recorded step: what it was, the losses of its batch, one sample on its way, and its inside. */
import type { OpenTrace, Trace } from '../../trace/format.ts';
import { h, short } from './dom.ts';
import type { Inside, Place } from './inside.ts';
import { insideView } from './inside-view.ts';
import { lossesTable } from './losses.ts';
import { tensorPicture } from './pictures.ts';

export const insideOfTrace = ({ trace, read }: OpenTrace): Inside => ({
  blocks: trace.blocks,
  modules: trace.modules,
  size: 'norm of the gradient',
  backend: trace.backend,
  kernels: async () => trace.kernels,
  values: async () => trace.values,
  read: async (module) => ({ value: await read('value', module), cotangent: await read('cotangent', module) }),
});

const told = (x: number | null): string => (x === null ? 'not finite' : short(x));
const lead = (t: Trace): string =>
  `Step ${t.step} of ${t.source}, ${t.method}, on ${t.backend} (${t.device}): mean loss ${told(t.loss)}, gradient norm ${told(t.norm)}, total rank ${t.modules.reduce((n, m) => n + m.rank, 0)} on ${t.modules.length} modules.`;

export async function traceView(open: OpenTrace, place: Place, moved: (place: Place) => void): Promise<HTMLElement> {
  const { trace, read } = open;
  const own = trace.samples[trace.sample]!;
  return h(
    'div',
    { 'data-trace': trace.step, 'data-loss': trace.loss ?? '', 'data-norm': trace.norm ?? '' },
    h('p', { class: 'lead' }, lead(trace)),
    h('h2', {}, 'Its batch'),
    lossesTable(trace.samples),
    h('h2', {}, `Sample ${trace.sample + 1}: ${own.report}`),
    h(
      'div',
      { class: 'films' },
      tensorPicture(await read('sample', 'noisy'), `with noise, t = ${own.t}`),
      tensorPicture(await read('sample', 'prediction'), 'prediction'),
      tensorPicture(await read('sample', 'target'), 'what it should be'),
    ),
    h('p', {}, 'Its values are those below; cotangents are derivatives of the mean loss of the whole batch.'),
    await insideView(insideOfTrace(open), place, moved),
  );
}

/** One block of a step: a value in it as pictures, what is trained in it, and the kernels that ran for it with their text. */
import type { Trace } from '../../trace/format.ts';
import { choice, errorPlace, h, set, short } from './dom.ts';
import { gradientOf, type Inside, titleOf } from './inside.ts';
import { kernelText } from './kernel-text.ts';
import { bar, histogram, tensorPicture } from './pictures.ts';
import { head, region } from './tables.ts';

const within = (path: string, module: string): boolean => module === path || module.startsWith(`${path}.`);
const megabytes = (bytes: number): string => short(Number((bytes / 1e6).toPrecision(3)));

/**
 * Draws a block.
 * @param value the module in it that is shown
 * @param moved hears of another one
 */
export async function blockView(
  into: HTMLElement,
  inside: Inside,
  path: string,
  value: string,
  moved: (value: string) => void,
): Promise<void> {
  const block = inside.blocks.find((b) => b.path === path);
  if (!block) throw new Error(`there is no block ${path}`);
  const known = (await inside.values()).filter((m) => within(path, m));
  const chosen = known.includes(value) ? value : (known[0] ?? path);
  const pictures = h('div', { class: 'films', 'data-value': '' });
  const ops = h('div', {});
  const { errorLine, guarded } = errorPlace();
  const kernels = await inside.kernels();
  const show = (module: string) =>
    guarded(async () => {
      set(ops, opsOf(kernels, module, inside.backend));
      if (!known.includes(module)) {
        set(pictures, h('p', { class: 'muted' }, 'No value was recorded here: --modules of npm run trace chooses.'));
        return;
      }
      const { value: activation, cotangent } = await inside.read(module);
      set(
        pictures,
        h('div', {}, tensorPicture(activation, 'value'), histogram(activation.values, 'its numbers')),
        h(
          'div',
          {},
          tensorPicture(cotangent, 'derivative of the loss by it'),
          histogram(cotangent.values, 'its numbers'),
        ),
      );
      pictures.dataset.value = module;
      pictures.dataset.first = String(activation.values[0]);
      pictures.dataset.cotangent = String(Math.sqrt(cotangent.values.reduce((n, x) => n + x * x, 0)));
    });
  const size = gradientOf(path, inside.modules);
  const trained = inside.modules.filter((m) => within(path, m.path));
  const inner = (m: string): string => (m === path ? 'the whole block' : m.slice(path.length + 1));
  set(
    into,
    h('h2', { tabindex: -1 }, `Block ${titleOf(block)}`),
    h(
      'p',
      {},
      h('span', { class: 'mono' }, path),
      `, ${trained.length} ${trained.length === 1 ? 'module' : 'modules'} trained in it`,
      size === undefined ? '' : `, ${inside.size} ${size === null ? 'not finite' : short(size)}`,
      '.',
    ),
    known.length > 0 &&
      choice(
        'Value of',
        known.map((m) => [m, inner(m)] as const),
        chosen,
        (m) => {
          moved(m === known[0] ? '' : m);
          void show(m);
        },
      ),
    pictures,
    errorLine,
    trained.length > 0 && [h('h3', {}, 'What is trained in it'), trainedTable(trained, path, inside.size)],
    ops,
  );
  await show(chosen);
}

function trainedTable(modules: Inside['modules'], path: string, size: string): HTMLElement {
  const largest = Math.max(1e-30, ...modules.map((m) => m.gradient ?? 0));
  const ranked = modules.some((m) => m.rank !== undefined);
  return region(
    'What is trained in it',
    h(
      'table',
      { class: 'modules' },
      head('module', size, ...(ranked ? ['rank'] : [])),
      h(
        'tbody',
        {},
        modules
          .toSorted((a, b) => (b.gradient ?? 0) - (a.gradient ?? 0))
          .map((m) =>
            h(
              'tr',
              {},
              h('th', { scope: 'row', class: 'mono' }, m.path.slice(path.length + 1)),
              h('td', {}, m.gradient === null ? 'not finite' : bar(m.gradient / largest, short(m.gradient))),
              ranked && h('td', { class: 'n' }, m.rank ?? ''),
            ),
          ),
      ),
    ),
  );
}

/** The kernels of a module, those with the most work first; each opens its text. */
function opsOf(kernels: Trace['kernels'], module: string, backend: string): readonly HTMLElement[] {
  const own = kernels
    .filter((k) => within(module, k.module))
    .toSorted((a, b) => b.flops - a.flops || b.bytes - a.bytes);
  const timed = own.some((k) => k.ms !== undefined);
  const text = h('div', {});
  const flops = own.reduce((n, k) => n + k.flops, 0);
  const count = own.reduce((n, k) => n + k.count, 0);
  const row = (k: Trace['kernels'][number]) =>
    h(
      'tr',
      {},
      h(
        'th',
        { scope: 'row' },
        h(
          'button',
          {
            type: 'button',
            class: 'link',
            'aria-label': `Text of ${k.op} ${k.detail}`,
            onclick: () => void kernelText(text, k, backend),
          },
          k.op,
        ),
      ),
      h('td', { class: 'mono' }, k.detail),
      h('td', { class: 'n' }, k.count),
      h('td', { class: 'n' }, short(Number((k.flops / 1e6).toPrecision(3)))),
      h('td', { class: 'n' }, megabytes(k.bytes)),
      timed && h('td', { class: 'n' }, k.ms === undefined ? '' : k.ms.toFixed(2)),
    );
  return [
    h('h3', {}, 'Kernels that ran, forward and backward'),
    h(
      'p',
      { class: 'muted', 'data-kernels': count },
      `${count} in all, ${short(Number((flops / 1e6).toPrecision(3)))} million operations.`,
    ),
    region(
      'Kernels that ran',
      h(
        'table',
        { class: 'modules' },
        head('op', 'shapes', 'times', 'Mflop', 'MB', ...(timed ? ['ms'] : [])),
        h('tbody', {}, own.map(row)),
      ),
    ),
    text,
  ];
}

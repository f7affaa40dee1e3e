/** One training step of the shipped base: what goes in, the losses, the test of every module, and one module in its parts. */
import type { Module, Opening, StepAsk, Stepped } from '../machine/step.ts';
import { choice, errorPlace, h, set, short, slider } from './dom.ts';
import type { Page } from './page.ts';
import { bar, channels, film, heat } from './pictures.ts';
import { remember } from './route.ts';

const region = (label: string, ...children: readonly (HTMLElement | string)[]): HTMLElement =>
  h('div', { class: 'tablewrap', tabindex: 0, role: 'region', 'aria-label': label }, ...children);
const head = (...names: readonly string[]): HTMLElement =>
  h(
    'thead',
    {},
    h(
      'tr',
      {},
      names.map((n) => h('th', { scope: 'col' }, n)),
    ),
  );

export const step: Page = {
  id: 'step',
  title: 'One step',
  about:
    'A held-out report through the shipped base: noise, prediction, losses; then one update, with a test of every module.',
  async show(into, route, lab) {
    const { state } = route;
    const status = h('p', { class: 'muted', role: 'status' });
    const { errorLine, guarded: shown } = errorPlace();
    lab.hear((news) => {
      status.textContent = `${String(news)} …`;
    });
    const guarded = async (work: () => Promise<void>): Promise<void> => {
      await shown(work);
      status.textContent = '';
    };
    const whole = (name: string, least: number, most: number, otherwise: number): number => {
      const x = Math.round(Number(state.get(name) ?? otherwise));
      return x >= least && x <= most ? x : otherwise;
    };
    const opened: Opening = await lab.machine.openBase();
    let report = whole('report', 0, opened.reports.length - 1, 0);
    let t = whole('t', 0, opened.timesteps - 1, 500);
    let lambda = Number(state.get('lambda') ?? opened.lambda) || opened.lambda;
    let gainA = Number(state.get('a') ?? opened.gainA);
    let fisher: StepAsk['fisher'] = state.get('fisher') === 'batch' ? 'batch' : 'per-sample';
    let picked = state.get('module') ?? '';
    const keep = (): void =>
      remember('step', '', {
        report: report === 0 ? undefined : String(report),
        t: t === 500 ? undefined : String(t),
        lambda: lambda === opened.lambda ? undefined : String(lambda),
        a: gainA === opened.gainA ? undefined : String(gainA),
        fisher: fisher === 'per-sample' ? undefined : fisher,
        module: picked || undefined,
      });
    const ask = (): StepAsk => ({ lambda, gainA, fisher });

    // a sample on its way
    const seen = h('div', { class: 'films' });
    let looking = 0;
    const look = async (): Promise<void> => {
      const mine = ++looking;
      const x = await lab.machine.look(report, t, 1);
      if (mine !== looking) return;
      set(
        seen,
        film(opened.films[report]!, opened.side, 'the film'),
        film(x.autoencoded, opened.side, 'through the autoencoder alone'),
        channels(x.latent, 'its latent, 4 channels'),
        channels(x.noisy, `with noise, t = ${t}`),
        channels(x.prediction, x.predicts === 'v_prediction' ? 'prediction of v' : 'prediction'),
        channels(x.target, 'what it should be'),
        film(x.picture, opened.side, 'what the base takes it for'),
      );
      seen.dataset.loss = String(x.loss);
      seen.dataset.t = String(t);
      set(lossLine, `Loss of this sample: ${short(x.loss)}, the mean square of prediction − target.`);
    };
    const lossLine = h('p', {});

    // one update with a test
    let stepped: Stepped | undefined;
    const losses = h('div', {});
    const modules = h('div', {});
    const one = h('div', {});
    const grows = (ratio: number): boolean => ratio > lambda;
    const drawModules = (): void => {
      if (!stepped) return;
      const { decisions } = stepped;
      const largest = Math.max(...decisions.map((d) => Math.sqrt(d.fiOriginal)), 1e-30);
      const grown = decisions.filter((d) => grows(d.ratio)).length;
      set(
        modules,
        h('h2', {}, 'The test of every module'),
        h(
          'p',
          { 'data-grown': grown },
          `At λ = ${lambda}, ${grown} of ${decisions.length} modules would grow. The bars are the size of each module’s gradient, √FI. Pick one to see its test in parts.`,
        ),
        region(
          'All modules',
          h(
            'table',
            { class: 'modules' },
            head('module', '√FI', 'ratio', 'grows'),
            h(
              'tbody',
              {},
              [...decisions]
                .sort((a, b) => b.ratio - a.ratio)
                .map((d) =>
                  h(
                    'tr',
                    { class: d.module === picked ? 'picked' : '' },
                    h(
                      'th',
                      { scope: 'row' },
                      h('button', { type: 'button', class: 'link', onclick: () => void pick(d.module) }, d.module),
                    ),
                    h('td', {}, bar(Math.sqrt(d.fiOriginal) / largest, short(Math.sqrt(d.fiOriginal)))),
                    h('td', { class: 'n' }, short(d.ratio)),
                    h('td', { class: grows(d.ratio) ? 'right' : 'muted' }, grows(d.ratio) ? 'yes' : 'no'),
                  ),
                ),
            ),
          ),
        ),
      );
    };
    const drawModule = (m: Module): void => {
      const d = stepped!.decisions.find(({ module }) => module === m.name)!;
      const mean = (of: (s: Module['samples'][number]) => number): number =>
        m.samples.reduce((n, s) => n + of(s), 0) / m.samples.length;
      const [original, candidate] = [mean((s) => s.original), mean((s) => s.candidate)];
      const most = Math.max(...m.samples.map((s) => s.candidate), 1e-30);
      const ratio = original > 0 ? 1 + candidate / original : candidate > 0 ? Number.POSITIVE_INFINITY : 1;
      const expected = original > 0 ? 1 + m.expected / original : Number.POSITIVE_INFINITY;
      set(
        one,
        h('h2', {}, `Test of ${m.name}`),
        h(
          'p',
          {},
          'A column K is drawn and put beside A, with a row of zeros in B. Nothing changes in the model; only the gradient of that row tells whether it would have something to do.',
        ),
        h(
          'div',
          { class: 'films' },
          heat(m.column.values, 1, m.column.values.length, `K, ${m.column.values.length} numbers`),
          heat(
            m.activation.values,
            m.activation.shape[0]!,
            m.activation.shape[1]!,
            `value of the module, first sample, ${m.activation.shape.join(' × ')}`,
          ),
          heat(
            m.cotangent.values,
            m.cotangent.shape[0]!,
            m.cotangent.shape[1]!,
            `derivative of the loss by it, ${m.cotangent.shape.join(' × ')}`,
          ),
        ),
        h('h3', {}, 'Which report asked for this rank'),
        region(
          'Squares of each sample',
          h(
            'table',
            {},
            head('report', 't', 'loss', 'squares of A and B', 'squares of the new row'),
            h(
              'tbody',
              {},
              m.samples.map((s, i) => {
                const { report: text, t: at, loss } = stepped!.samples[i]!;
                return h(
                  'tr',
                  {},
                  h('th', { scope: 'row' }, text),
                  h('td', { class: 'n' }, at),
                  h('td', { class: 'n' }, short(loss)),
                  h('td', { class: 'n' }, short(s.original)),
                  h('td', {}, bar(s.candidate / most, short(s.candidate))),
                );
              }),
              h(
                'tr',
                { class: 'sum' },
                h('th', { scope: 'row' }, 'mean'),
                h('td', {}),
                h('td', {}),
                h('td', { class: 'n' }, short(original)),
                h('td', {}, short(candidate)),
              ),
            ),
          ),
        ),
        h(
          'p',
          {
            class: 'large',
            'data-original': original,
            'data-candidate': candidate,
            'data-expected': m.expected,
            'data-ratio': ratio,
            'data-step-ratio': d.ratio,
          },
          `ratio = 1 + ${short(candidate)} / ${short(original)} = ${short(ratio)} ${grows(ratio) ? '>' : '≤'} λ = ${lambda}: it ${grows(ratio) ? 'grows' : 'stays'}.`,
        ),
        h(
          'p',
          {},
          `Over all columns that could have been drawn the ratio is ${short(expected)} on average: Var K · mean ‖G‖² has the place of the drawn squares, G being a sample’s gradient by the whole product A·B. `,
          h('span', { class: 'muted' }, `This draw was ${short(candidate / m.expected)} times that.`),
        ),
      );
    };
    const pick = async (name: string): Promise<void> => {
      picked = name;
      keep();
      drawModules();
      await guarded(async () => drawModule(await lab.machine.module(ask(), name)));
      one.scrollIntoView({ block: 'start' });
    };
    const make = async (): Promise<void> => {
      keep();
      await guarded(async () => {
        stepped = await lab.machine.step(ask());
        set(
          losses,
          h(
            'p',
            { 'data-step': stepped.step },
            `Step ${stepped.step}: mean loss ${short(stepped.loss)}, gradient norm ${short(stepped.norm)}, total rank ${stepped.ranks} after it, ${short(stepped.ms / 1000)} s.`,
          ),
          region(
            'Loss of each sample',
            h(
              'table',
              {},
              head('report', 't', 'loss'),
              h(
                'tbody',
                {},
                stepped.samples.map((s) =>
                  h(
                    'tr',
                    {},
                    h('th', { scope: 'row' }, s.report),
                    h('td', { class: 'n' }, s.t),
                    h('td', {}, bar(s.loss / Math.max(...stepped!.samples.map((x) => x.loss)), short(s.loss))),
                  ),
                ),
              ),
            ),
          ),
        );
        set(one);
        drawModules();
      });
    };
    const again = async (): Promise<void> => {
      await guarded(async () => {
        await lab.machine.restart(ask());
        stepped = undefined;
        for (const part of [losses, modules, one]) set(part);
      });
    };

    into.append(
      h('h1', {}, 'One step'),
      h(
        'p',
        { class: 'lead' },
        `The shipped base with adapters on ${opened.modules.length} modules, by the code that trains. It never saw a film: that is what the steps are for.`,
      ),
      h('h2', {}, 'A report, its film, its noise'),
      h(
        'div',
        { class: 'bar' },
        choice(
          'Report',
          opened.reports.map((text, i) => [String(i), text] as const),
          String(report),
          (value) => {
            report = Number(value);
            keep();
            void guarded(look);
          },
        ),
        slider('timestep t', { min: 0, max: opened.timesteps - 1, step: 1, value: t }, String, (value) => {
          t = value;
          keep();
          void guarded(look);
        }),
      ),
      seen,
      lossLine,
      h(
        'section',
        {},
        h('h2', {}, 'One update of a batch'),
        h(
          'p',
          {},
          'Eight samples forward and backward; in the same backward pass a candidate column is tried in every module.',
        ),
        h(
          'div',
          { class: 'bar' },
          slider(
            'λ',
            { min: 1, max: 3, step: 0.05, value: lambda },
            (x) => x.toFixed(2),
            (value) => {
              lambda = value;
              keep();
              drawModules();
            },
          ),
          choice(
            'Gain of K',
            [
              ['0', 'a = 0, the authors’: Var K = 2/d'],
              [String(Math.sqrt(5)), 'a = √5, PEFT’s: Var K = 1/(3d)'],
            ],
            gainA === 0 ? '0' : String(Math.sqrt(5)),
            (value) => {
              gainA = Number(value);
              keep();
            },
          ),
          choice(
            'Squares of',
            [
              ['per-sample', 'each sample (the paper)'],
              ['batch', 'the batch (the published code)'],
            ],
            fisher,
            (value) => {
              fisher = value;
              keep();
            },
          ),
          h('button', { type: 'button', class: 'primary', onclick: () => void make() }, 'Make the step'),
          h('button', { type: 'button', onclick: () => void again() }, 'Begin anew'),
        ),
      ),
      status,
      errorLine,
      losses,
      modules,
      one,
    );
    await guarded(look);
    if (picked) {
      await make();
      const name = picked;
      await guarded(async () => drawModule(await lab.machine.module(ask(), name)));
    }
  },
};

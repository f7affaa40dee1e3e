/** One training step of the shipped base: what goes in, the losses, the test of every module, and one module in its parts. */
import type { Opening, StepAsk, Stepped } from '../machine/step.ts';
import { choice, errorPlace, h, set, short, slider } from './dom.ts';
import type { Inside, Place } from './inside.ts';
import { insideView } from './inside-view.ts';
import { lossesTable } from './losses.ts';
import type { Lab, Page } from './page.ts';
import { channels, film } from './pictures.ts';
import { remember } from './route.ts';
import { modulesTable, moduleTest } from './step-module.ts';

export const step: Page = {
  id: 'step',
  title: 'One step',
  about:
    'A held-out report through the shipped base: noise, prediction, losses; then one update, with a test of every module.',
  async show(into, route, lab) {
    const { state } = route;
    const trace = state.get('trace');
    if (trace !== null) return showRecorded(into, trace, placeOf(state));
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
    if (!(gainA >= 0 && gainA <= 3)) gainA = opened.gainA;
    let fisher: StepAsk['fisher'] = state.get('fisher') === 'batch' ? 'batch' : 'per-sample';
    let picked = state.get('module') ?? '';
    let place = placeOf(state);
    const keep = (): void =>
      remember('step', '', {
        report: report === 0 ? undefined : String(report),
        t: t === 500 ? undefined : String(t),
        lambda: lambda === opened.lambda ? undefined : String(lambda),
        a: gainA === opened.gainA ? undefined : String(gainA),
        fisher: fisher === 'per-sample' ? undefined : fisher,
        module: picked || undefined,
        block: place.block || undefined,
        value: place.value || undefined,
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
    const inner = h('div', {});
    const modules = h('div', {});
    const one = h('div', {});
    const drawModules = (): void => {
      if (stepped)
        set(
          modules,
          modulesTable(stepped.decisions, lambda, picked, (name) => void pick(name)),
        );
    };
    const pick = async (name: string): Promise<void> => {
      picked = name;
      keep();
      drawModules();
      await guarded(async () => void moduleTest(one, await lab.machine.module(ask(), name), stepped!, lambda));
      one.scrollIntoView({ block: 'start' });
    };
    const make = async (): Promise<void> => {
      keep();
      await guarded(async () => {
        const asked = ask();
        stepped = await lab.machine.step(asked);
        set(
          losses,
          h(
            'p',
            { 'data-step': stepped.step },
            `Step ${stepped.step}: mean loss ${short(stepped.loss)}, gradient norm ${short(stepped.norm)}, total rank ${stepped.ranks} after it, ${short(stepped.ms / 1000)} s.`,
          ),
          lossesTable(stepped.samples),
        );
        set(one);
        drawModules();
        const moved = (next: Place): void => {
          place = next;
          keep();
        };
        set(
          inner,
          await insideView(
            insideOfStep(lab, stepped, asked, () => set(status)),
            place,
            moved,
          ),
        );
      });
    };
    const again = async (): Promise<void> => {
      await guarded(async () => {
        await lab.machine.restart(ask());
        stepped = undefined;
        place = { block: '', value: '' };
        keep();
        for (const part of [losses, inner, modules, one]) set(part);
      });
    };

    into.append(
      h('h1', {}, 'One step'),
      h(
        'p',
        { class: 'lead' },
        `The shipped base with adapters on ${opened.modules.length} modules, by the code that trains. It never saw a film: that is what the steps are for. A recorded step of any other model is opened below.`,
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
          slider('gain of K, a', { min: 0, max: 3, step: 0.05, value: gainA }, gainWords, (value) => {
            gainA = value;
            keep();
          }),
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
      inner,
      modules,
      one,
      await recordedSection('A recorded step', into),
    );
    await guarded(look);
    if (picked || place.block) await make();
    if (picked) {
      const name = picked;
      await guarded(async () => void moduleTest(one, await lab.machine.module(ask(), name), stepped!, lambda));
    }
  },
};

/** Kaiming's uniform of a: 0 is the authors', √5 PEFT's. */
const gainWords = (a: number): string => {
  const whose = a === 0 ? ', the authors’' : Math.abs(a - Math.sqrt(5)) < 0.025 ? ', PEFT’s' : '';
  return `${short(a)}: Var K = ${short(2 / (1 + a * a))}/d${whose}`;
};

const placeOf = (state: URLSearchParams): Place => ({
  block: state.get('block') ?? '',
  value: state.get('value') ?? '',
});

/** The step that was made on this page, looked into when it is first asked; `looked`: that is over. */
function insideOfStep(lab: Lab, stepped: Stepped, asked: StepAsk, looked: () => void): Inside {
  let found: ReturnType<typeof lab.machine.inside> | undefined;
  const inner = () => {
    found ??= lab.machine.inside(asked).finally(looked);
    return found;
  };
  return {
    blocks: stepped.blocks,
    modules: stepped.decisions.map((d) => ({ path: d.module, gradient: Math.sqrt(d.fiOriginal) })),
    size: 'gradient √FI',
    backend: lab.opened().name,
    kernels: async () => (await inner()).kernels,
    values: async () => (await inner()).values,
    read: async (module) => {
      await inner();
      return lab.machine.insideValue(module);
    },
  };
}

/** Where a recorded step is opened: a file, or one of the server's runs. */
async function recordedSection(title: string, into: HTMLElement): Promise<HTMLElement> {
  const { filePlace, recordedSteps } = await import('./trace-file.ts');
  const { errorLine, guarded } = errorPlace();
  const place = filePlace((file) => void guarded(() => showFile(into, file)));
  return h('section', {}, h('h2', {}, title), place, errorLine, await recordedSteps());
}

/** The page with a recorded step on it, its way back, and a place for another. */
async function recordedPage(into: HTMLElement, title: string, view: HTMLElement): Promise<void> {
  set(
    into,
    h('div', { class: 'bar' }, h('a', { href: '#/step?again' }, '← a step made here')),
    h('h1', {}, `Recorded: ${title}`),
    view,
    await recordedSection('Another recorded step', into),
  );
}
/** One that the server of this page has; its address says which. */
async function showRecorded(into: HTMLElement, trace: string, place: Place): Promise<void> {
  const { fetchTrace } = await import('./trace-file.ts');
  const { traceView } = await import('./trace-view.ts');
  const moved = ({ block, value }: Place): void =>
    remember('step', '', { trace, block: block || undefined, value: value || undefined });
  await recordedPage(into, trace, await traceView(await fetchTrace(trace), place, moved));
}
/** One out of a person's file, which no address can lead to. */
async function showFile(into: HTMLElement, file: File): Promise<void> {
  const { openFile } = await import('./trace-file.ts');
  const { traceView } = await import('./trace-view.ts');
  const view = await traceView(await openFile(file, file.name), { block: '', value: '' }, () => undefined);
  await recordedPage(into, file.name, view);
  scrollTo(0, 0);
}

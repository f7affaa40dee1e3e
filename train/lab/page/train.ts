/** Page “Train here”: whole runs in this tab, by the code that trains, on phantoms or one's own pictures. */
import { runPresets } from '../../config/presets.ts';
import type { DataAsk } from '../machine/data.ts';
import { FIXED, GROWING } from '../machine/sides.ts';
import type { TrainAsk } from '../machine/train.ts';
import { choice, errorPlace, h, nowAndThen, set } from './dom.ts';
import type { Lab, Page } from './page.ts';
import { film } from './pictures.ts';
import { runCards } from './train-cards.ts';
import { dropPlace } from './train-drop.ts';
import type { PageRun } from './train-run.ts';
import { trainSettings } from './train-settings.ts';
import { LORA_RANK, rememberState, stateOf } from './train-state.ts';

/** a film comes after these steps, so that there is one soon, and then every so many */
const FIRST_FILMS: readonly number[] = [10, 25];
const FILM_EVERY = 50;
const filmIsDue = (step: number): boolean => FIRST_FILMS.includes(step) || step % FILM_EVERY === 0;
const DRAW_MS = 1000;

export const train: Page = {
  id: 'train',
  title: 'Train here',
  about:
    'From rank one to grown adapters, SeLoRA beside LoRA, on built-in phantoms or your own pictures; the file to take along.',
  async show(into, route, lab) {
    const s = stateOf(route);
    const keep = (): void => rememberState(s);
    const { errorLine, guarded: shown } = errorPlace();
    const status = h('p', { class: 'muted', role: 'status' });
    lab.hear((news) => {
      status.textContent = `${String(news)} …`;
    });
    const { pageRun } = await import('./train-run.ts');
    const { trainCharts, together } = await import('./train-charts.ts');
    const charts = trainCharts();
    const overlay = h('div', { class: 'report' });
    let runs: PageRun[] = [];
    let data: Awaited<ReturnType<Lab['machine']['trainData']>> | undefined;
    let own: DataAsk | undefined;
    let lit: readonly number[] = [];
    let [going, left] = [false, false];
    lab.leaving(() => {
      left = true;
      going = false;
    });
    const guarded = async (work: () => Promise<void>): Promise<boolean> => {
      const fine = await shown(work);
      status.textContent = '';
      return fine;
    };

    // what stands on the page of each run
    const save = async (run: PageRun): Promise<void> => {
      const bytes = await lab.machine.trainAdapter(run.id);
      const address = URL.createObjectURL(
        new Blob([bytes as Uint8Array<ArrayBuffer>], { type: 'application/octet-stream' }),
      );
      const name = `${run.name.replace(/[^\w.]+/g, '-')}-step${run.step()}.safetensors`;
      h('a', { href: address, download: name }).click();
      setTimeout(() => URL.revokeObjectURL(address), 10_000);
    };
    const fork = async (run: PageRun, lambda: number): Promise<void> => {
      const begun = await lab.machine.trainFork(run.id, { lambda, testEvery: s.testEvery });
      const name = `${run.name.split(',')[0]}, λ ${lambda} from step ${run.step()}`;
      runs = [...runs, run.fork(begun, uniqueName(name))];
      charts.clear();
      drawCards();
      await draw();
    };
    const drop = async (run: PageRun): Promise<void> => {
      await lab.machine.trainDrop(run.id);
      runs = runs.filter((r) => r !== run);
      charts.clear();
      drawCards();
      await draw();
    };
    const uniqueName = (name: string): string => {
      let [made, n] = [name, 2];
      while (runs.some((r) => r.name === made)) made = `${name} (${n++})`;
      return made;
    };
    const cards = runCards({
      save: (run) => void guarded(() => save(run)),
      film: (run) => void guarded(() => filmOf(run)),
      fork: (run, lambda) => void guarded(() => fork(run, lambda)),
      drop: (run) => void guarded(() => drop(run)),
    });
    const drawCards = (): void => cards.draw(runs, data?.side ?? 0, s.regions ? lit : []);
    const draw = async (): Promise<void> => {
      set(overlay, runs.length > 0 ? together(runs) : '');
      await charts.draw(runs.map((run) => ({ name: run.name, run: run.record() })));
    };
    const soon = nowAndThen(draw, DRAW_MS, () => left);
    const filmOf = async (run: PageRun): Promise<void> => {
      run.addFilm(await lab.machine.trainFilm(run.id, s.report));
      drawCards();
    };

    // beginning, going on, pausing
    const ready = async (): Promise<void> => {
      data = await lab.machine.trainData(own ?? { kind: 'phantoms', pairs: s.pairs });
      lit = own ? [] : (await lab.machine.trainRegions()).flatMap(([, places]) => places);
      set(
        reports,
        choice(
          'Films of',
          data.shown.map(({ text }, i) => [String(i), text] as const),
          String(Math.min(s.report, data.shown.length - 1)),
          (value) => {
            s.report = Number(value);
            keep();
          },
        ),
        film(data.shown[Math.min(s.report, data.shown.length - 1)]!.film, data.side, 'its own film'),
      );
    };
    const begin = async (): Promise<void> => {
      await pause();
      keep();
      if (!data) await ready();
      for (const run of runs) await lab.machine.trainDrop(run.id);
      runs = [];
      charts.clear();
      const settings = {
        lambda: s.lambda,
        testEvery: s.testEvery,
        steps: s.steps,
        lr: runPresets.phantoms.lr,
        seed: 1,
      };
      const kinds: readonly TrainAsk[] = [
        { ...settings, method: GROWING, rank: 1 },
        { ...settings, method: FIXED, rank: LORA_RANK },
      ];
      for (const ask of kinds.filter(({ method }) => s.which === 'both' || method === s.which)) {
        const name = ask.method === GROWING ? `SeLoRA λ ${s.lambda}` : `LoRA r = ${LORA_RANK}`;
        runs.push(pageRun(await lab.machine.trainBegin(ask), name));
      }
      drawCards();
      void loop();
    };
    let stepping: Promise<void> = Promise.resolve();
    const loop = (): Promise<void> => {
      if (going) return stepping;
      going = true;
      goOn.textContent = 'Pause';
      goOn.disabled = false;
      stepping = guarded(async () => {
        for (let open = true; going && open; ) {
          open = false;
          for (const run of runs) {
            if (!going) break;
            if (run.step() >= run.steps) continue;
            open = true;
            run.add(await lab.machine.trainStep(run.id));
            cards.tell(run);
            if (filmIsDue(run.step()) || run.step() === run.steps) await filmOf(run);
          }
          soon();
        }
      }).then(() => {
        going = false;
        goOn.textContent = 'Go on';
      });
      return stepping;
    };
    const pause = async (): Promise<void> => {
      going = false;
      await stepping;
    };
    const goOn = h(
      'button',
      { type: 'button', disabled: true, onclick: () => void (going ? pause() : loop()) },
      'Go on',
    );
    const reports = h('div', { class: 'bar' });

    const take = async (files: readonly import('./own-pictures.ts').Placed[]): Promise<void> => {
      const { readOwn } = await import('./own-pictures.ts');
      await pause();
      own = { kind: 'own', pictures: await readOwn(files) };
      runs = [];
      charts.clear();
      set(overlay);
      drawCards();
      await ready();
      dropZone.tell(data!.pairs);
    };
    const dropZone = dropPlace((files) => guarded(async () => take(await files())));
    into.append(
      h('h1', {}, 'Train here'),
      h(
        'p',
        { class: 'lead' },
        'The shipped base knows no film. Adapters begin with rank one, or with the rank of a LoRA, and learn what the reports say, by the code that trains.',
      ),
      h(
        'div',
        { class: 'bar' },
        trainSettings(s, {
          changed: keep,
          phantoms: () => {
            [data, own] = [undefined, undefined];
          },
          regions: () => drawCards(),
        }),
        h('button', { type: 'button', class: 'primary', onclick: () => void guarded(begin) }, 'Begin'),
        goOn,
      ),
      dropZone.element,
      status,
      errorLine,
      reports,
      cards.element,
      overlay,
      charts.element,
    );
  },
};

/** Files of recorded steps: dropped, chosen, or told by the server of the page. */
import { type OpenTrace, openTrace } from '../../trace/format.ts';
import { h } from './dom.ts';
import { addressOf } from './route.ts';
import { listRuns } from './run-source.ts';

/** Opens a file: its header is read, values when they are asked for. @throws FileError with a line for the reader */
export const openFile = (file: Blob, name: string): Promise<OpenTrace> =>
  openTrace({
    name,
    size: file.size,
    slice: async (begin, end) => new Uint8Array(await file.slice(begin, end).arrayBuffer()),
  });

/** Where the server has a recorded step of a run. @example runs/first/trace-step-3.safetensors */
const addressIn = (run: string, file: string): string => `runs/${encodeURIComponent(run)}/${encodeURIComponent(file)}`;

/** Fetches one that the server of this page has: `first/trace-step-3.safetensors`. */
export async function fetchTrace(place: string): Promise<OpenTrace> {
  const cut = place.lastIndexOf('/');
  const [run, file] = [place.slice(0, cut), place.slice(cut + 1)];
  const answer = await fetch(addressIn(run, file));
  if (!answer.ok) throw new Error(`${place}: the server of this page has no such recorded step`);
  return openFile(await answer.blob(), file);
}

/** Links to those of the runs beside this page; nothing where its host has none. */
export async function recordedSteps(): Promise<HTMLElement | undefined> {
  const runs = await listRuns().catch(() => undefined);
  const all = (runs ?? []).flatMap(({ name, traces = [] }) => traces.map((file) => `${name}/${file}`));
  if (all.length === 0) return undefined;
  return h(
    'ul',
    { class: 'plain' },
    all.map((place) => h('li', {}, h('a', { href: addressOf('step', '', { trace: place }) }, place))),
  );
}

/** A place to drop a file on, or to choose one. */
export function filePlace(take: (file: File) => void): HTMLElement {
  const input = h('input', {
    type: 'file',
    accept: '.safetensors',
    'aria-label': 'File of a recorded step',
    onchange: () => {
      const [file] = input.files!;
      if (file) take(file);
      // the same file may be chosen again once it is another
      input.value = '';
    },
  });
  return h(
    'div',
    {
      class: 'drop',
      ondragover: (event: DragEvent) => event.preventDefault(),
      ondrop: (event: DragEvent) => {
        event.preventDefault();
        const [file] = event.dataTransfer!.files;
        if (file) take(file);
      },
    },
    h(
      'p',
      {},
      'A step of any model, Stable Diffusion 1.5 too, recorded by ',
      h('code', {}, 'npm run trace'),
      ': drop its file here, or choose it. It stays in this tab.',
    ),
    input,
  );
}

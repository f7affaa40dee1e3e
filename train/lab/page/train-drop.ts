/** Where a folder of one's own is dropped or chosen. */
import { h, set } from './dom.ts';
import type { Placed } from './own-pictures.ts';

export interface DropPlace {
  readonly element: HTMLElement;
  /** says how many pictures were taken */
  tell(pictures: number): void;
}

/** @param take reads the files of a folder, when it is called */
export function dropPlace(take: (files: () => Promise<readonly Placed[]>) => unknown): DropPlace {
  const said = h(
    'p',
    { class: 'muted' },
    'A folder with metadata.csv (columns file_name and text) and its pictures: drop it here, or choose it. It stays in this tab.',
  );
  const folder = h('input', {
    type: 'file',
    webkitdirectory: true,
    multiple: true,
    'aria-label': 'Your own folder',
    onchange: () => {
      const chosen = [...folder.files!];
      // the same folder may be chosen again once its table is mended
      folder.value = '';
      void take(async () => (await import('./own-pictures.ts')).chosenFiles(chosen));
    },
  });
  const element = h(
    'div',
    {
      class: 'drop',
      ondragover: (event: DragEvent) => event.preventDefault(),
      ondrop: (event: DragEvent) => {
        event.preventDefault();
        // the list is empty once the event is over
        const entries = [...event.dataTransfer!.items].flatMap((item) => item.webkitGetAsEntry() ?? []);
        void take(async () => (await import('./own-pictures.ts')).droppedFiles(entries));
      },
    },
    said,
    folder,
  );
  return {
    element,
    tell(pictures) {
      element.dataset.pairs = String(pictures);
      set(said, `${pictures} pictures with their texts. They stay in this tab.`);
    },
  };
}

/** The inside of a step on its page: the drawing of its blocks, and the block that is open. */
import { errorPlace, h, set } from './dom.ts';
import type { Inside, Place } from './inside.ts';
import { drawUnet } from './unet-drawing.ts';

/**
 * @param place what is open first
 * @param moved hears where the reader went
 */
export async function insideView(inside: Inside, place: Place, moved: (place: Place) => void): Promise<HTMLElement> {
  const drawing = h('div', {});
  const one = h('section', { hidden: true });
  const { errorLine, guarded } = errorPlace();
  let now = place;
  const go = (next: Place): void => {
    now = next;
    moved(next);
  };
  const draw = (): void => {
    const focused = (document.activeElement as HTMLElement | null)?.dataset.block;
    set(
      drawing,
      drawUnet(inside, now.block, (block) => {
        go({ block, value: '' });
        draw();
        void show(true);
      }),
    );
    // the button that was pressed is another one now
    if (focused !== undefined)
      drawing.querySelector<HTMLElement>(`[data-block="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
  };
  const show = (near: boolean) =>
    guarded(async () => {
      one.hidden = false;
      const { blockView } = await import('./block-view.ts');
      await blockView(one, inside, now.block, now.value, (value) => go({ ...now, value }));
      if (near) one.scrollIntoView({ block: 'nearest' });
    });
  draw();
  if (now.block) await show(false);
  return h(
    'section',
    {},
    h('h2', {}, 'Inside the step'),
    h(
      'p',
      {},
      `The backward pass lights the blocks: the brighter, the larger the ${inside.size} of what is trained in it. Open one to see its values, and the kernels that ran for it.`,
    ),
    drawing,
    errorLine,
    one,
  );
}

/** The controls of page “Train here” that say what a run is to be. */
import { FIXED, GROWING } from '../machine/sides.ts';
import { choice, h, slider } from './dom.ts';
import { LORA_RANK, PAIRS, type TrainState, type Which } from './train-state.ts';

/** @param told hears of every change, and beside it of other phantoms and of the regions over films */
export function trainSettings(
  s: TrainState,
  told: { readonly changed: () => void; readonly phantoms: () => void; readonly regions: () => void },
): readonly HTMLElement[] {
  const number = (label: string, name: 'steps' | 'testEvery', most: number): HTMLElement => {
    const input = h('input', {
      type: 'number',
      min: 1,
      max: most,
      value: s[name],
      onchange: () => {
        const x = Math.round(Number(input.value));
        if (x >= 1 && x <= most) s[name] = x;
        input.value = String(s[name]);
        told.changed();
      },
    });
    return h('label', { class: 'field' }, h('span', {}, label), input);
  };
  const regions = h('input', {
    type: 'checkbox',
    checked: s.regions,
    onchange: () => {
      s.regions = regions.checked;
      told.changed();
      told.regions();
    },
  });
  return [
    choice<Which>(
      'Methods',
      [
        ['both', `SeLoRA beside LoRA r = ${LORA_RANK}`],
        [GROWING, 'SeLoRA'],
        [FIXED, `LoRA r = ${LORA_RANK}`],
      ],
      s.which,
      (value) => {
        s.which = value;
        told.changed();
      },
    ),
    choice(
      'Phantoms',
      PAIRS.map((n) => [String(n), `${Math.round(n * 0.8)} to train on`] as const),
      String(s.pairs),
      (value) => {
        s.pairs = Number(value);
        told.phantoms();
        told.changed();
      },
    ),
    slider(
      'λ',
      { min: 1, max: 3, step: 0.05, value: s.lambda },
      (x) => x.toFixed(2),
      (x) => {
        s.lambda = x;
        told.changed();
      },
    ),
    number('steps', 'steps', 5000),
    number('a test every', 'testEvery', 1000),
    h('label', { class: 'field' }, regions, ' the detectors’ regions over films'),
  ];
}

/** Which program reads which form of an adapter, and what a form leaves out. The measured table is in README.md. */
import type { AdapterFile, AdapterModule } from './adapter-file.ts';
import { sizeOfAdapter } from './adapter-size.ts';
import type { AdapterForm } from './adapter-write.ts';

/** One line per form, for help and the end of a run. */
export const READERS: Readonly<Record<AdapterForm, string>> = {
  diffusers: 'diffusers 0.34 and later; older ones only with one rank for all (--pad-rank)',
  kohya: "kohya's sd-scripts, AUTOMATIC1111's web UI, ComfyUI; diffusers 0.34 and later but for time_embedding",
  peft: 'PEFT, one folder per network (the text encoder with transformers below 5.6)',
  'peft-flat': 'PEFT with transformers 5.6 and later, one folder per network',
};

/**
 * What a person should know who takes a file of this form to another program.
 * @example readerNotes(adapter, 'kohya') // ['kohya: for …', 'kohya’s own scripts leave out time_embedding …']
 */
export function readerNotes(adapter: AdapterFile, form: AdapterForm): readonly string[] {
  const notes = [`for ${READERS[form]}`];
  if (form !== 'kohya') {
    notes.push('AUTOMATIC1111 and ComfyUI leave modules of this form out without an error: give them --form kohya');
    return notes;
  }
  const lost = [...adapter.modules].filter(([name]) => /^unet\.time_embedding\./.test(name));
  const share = normOf(lost.map(([, module]) => module));
  const whole = normOf([...adapter.modules.values()]);
  if (share > 0)
    notes.push(
      `kohya's own scripts and diffusers leave time_embedding out of this form: ${lost.map(([name]) => name.slice('unet.'.length)).join(' and ')} ` +
        `would be lost there, ${((100 * share) / whole).toPrecision(2)}% of ‖ΔW‖`,
    );
  return notes;
}

/** ‖ΔW‖_F of several modules together. */
const normOf = (modules: readonly AdapterModule[]): number => Math.hypot(...modules.map((m) => sizeOfAdapter(m).norm));

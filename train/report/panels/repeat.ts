/** The exact command, the resolved settings, the machine. */
import { optionOf } from '../../config/setting.ts';
import { type RunRecord, trainedParameters } from '../../run/record.ts';
import { integer } from '../../words/format.ts';
import { html } from '../html.ts';
import { definePanel, factList, parts } from '../panel.ts';

/** A setting as the command line calls it. */
const optionName = (key: string): string => (/^[a-z]+([A-Z][a-z]*)*$/.test(key) ? optionOf(key) : key);

function text(value: unknown): string {
  if (typeof value === 'string') return value;
  if (typeof value === 'boolean') return value ? 'on' : 'off';
  return value === null || (Array.isArray(value) && value.length === 0) ? '–' : JSON.stringify(value);
}

export const repeat = definePanel<RunRecord>({
  id: 'repeat',
  title: 'Repeat this run',
  data: (run) =>
    run.command === '' && run.environment.length === 0 && Object.keys(run.settings).length === 0 ? undefined : run,
  draw: (run) => {
    const parameters = trainedParameters(run);
    const config = factList([
      ...Object.entries(run.settings).map(([key, value]) => ({ label: optionName(key), value: text(value) })),
      ...(parameters === undefined ? [] : [{ label: 'trained parameters', value: integer(parameters) }]),
    ]);
    const environment = factList(run.environment);
    return {
      body: parts([
        run.command === '' ? undefined : html`<pre tabindex="0">${run.command}</pre>`,
        config && html`<h3>Settings, as the command line calls them</h3>${config}`,
        environment && html`<h3>Machine</h3>${environment}`,
      ]),
    };
  },
});

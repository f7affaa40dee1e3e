/** The exact command, the resolved settings, the machine. */
import { type RunRecord, trainedParameters } from '../../run/record.ts';
import { integer } from '../../words/format.ts';
import { html } from '../html.ts';
import { definePanel, factList, parts } from '../panel.ts';

const text = (value: unknown): string => (typeof value === 'string' ? value : JSON.stringify(value));

export const repeat = definePanel<RunRecord>({
  id: 'repeat',
  title: 'Repeat this run',
  data: (run) =>
    run.command === '' && run.environment.length === 0 && Object.keys(run.settings).length === 0 ? undefined : run,
  draw: (run) => {
    const parameters = trainedParameters(run);
    const config = factList([
      ...Object.entries(run.settings).map(([label, value]) => ({ label, value: text(value) })),
      ...(parameters === undefined ? [] : [{ label: 'trained parameters', value: integer(parameters) }]),
    ]);
    const environment = factList(run.environment);
    return {
      body: parts([
        run.command === '' ? undefined : html`<pre tabindex="0">${run.command}</pre>`,
        config && html`<h3>Configuration</h3>${config}`,
        environment && html`<h3>Machine</h3>${environment}`,
      ]),
    };
  },
});

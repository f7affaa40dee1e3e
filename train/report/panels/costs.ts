/** Where time and memory went. */
import type { RunRecord } from '../../run/record.ts';
import { bytes, counted, duration, integer, number, percent } from '../../words/format.ts';
import { memoryCurve } from '../charts/curves.ts';
import { timeBars } from '../charts/time-bars.ts';
import { html, type Markup } from '../html.ts';
import { chart, definePanel, parts, tableFrame } from '../panel.ts';

/** Milliseconds for what is short. */
const perCall = (seconds: number): string => (seconds < 1 ? `${number(seconds * 1000)} ms` : duration(seconds));

function phaseTable(phases: RunRecord['phases']): Markup | undefined {
  if (phases.length === 0) return undefined;
  const total = phases.reduce((sum, p) => sum + (Number.isFinite(p.seconds) ? p.seconds : 0), 0);
  const rows = phases.map(
    (p) =>
      html`<tr><th scope="row">${p.name}</th><td class="n">${duration(p.seconds)}</td><td class="n">${percent(p.seconds / total)}</td><td class="n">${p.calls === undefined ? '–' : integer(p.calls)}</td><td class="n">${p.calls ? perCall(p.seconds / p.calls) : '–'}</td><td class="n">${bytes(p.peakBytes)}</td></tr>`,
  );
  return tableFrame(
    html`<table><thead><tr><th scope="col">phase</th><th scope="col" class="n">time</th><th scope="col" class="n">share</th><th scope="col" class="n">calls</th><th scope="col" class="n">per call</th><th scope="col" class="n">peak memory</th></tr></thead><tbody>${rows}</tbody></table>`,
    'Time and memory by phase',
  );
}

export const costs = definePanel<RunRecord>({
  id: 'costs',
  title: 'Time and memory',
  data: (run) => (run.phases.length + run.metrics.length === 0 ? undefined : run),
  draw: (run) => {
    const charts = { time: timeBars(run), memory: memoryCurve(run) };
    return { body: parts([chart(charts.time), phaseTable(run.phases), chart(charts.memory)]), charts };
  },
  headlines: (run) => {
    const last = run.metrics.at(-1);
    const seconds = run.seconds ?? last?.seconds;
    if (seconds === undefined) return [];
    const speed = last?.seconds ? `${number(run.metrics.length / last.seconds)} steps/s` : '';
    const note = [counted(run.metrics.length, 'step'), speed].filter(Boolean).join(', ');
    return [{ place: 60, label: 'Time', value: duration(seconds), note }];
  },
});

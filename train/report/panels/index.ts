/** All panels in the order of the page. A new one is a file beside this and a line here. */
import { METRICS } from '../../metrics/index.ts';
import type { AnyPanel } from '../panel.ts';
import { costs } from './costs.ts';
import { data } from './data.ts';
import { growth } from './growth.ts';
import { loss } from './loss.ts';
import { pictures } from './pictures.ts';
import { ranks } from './ranks.ts';
import { repeat } from './repeat.ts';
import { updates } from './updates.ts';

/** Panels of the metrics stand where their names do: how good the pictures are before how the run went. */
const [firstMetric, ...otherMetrics] = METRICS.map((metric) => metric.panel);

export const PANELS: readonly AnyPanel[] = [
  pictures,
  firstMetric!,
  loss,
  ranks,
  growth,
  updates,
  ...otherMetrics,
  costs,
  data,
  repeat,
];

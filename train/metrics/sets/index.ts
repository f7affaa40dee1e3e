/** All metrics of two sets, in the order of the page. */
import { agreement } from './agreement.ts';
import { copies } from './copies.ts';
import { diversity } from './diversity.ts';
import { fid } from './fid.ts';
import { judged } from './judged.ts';
import { kid } from './kid.ts';
import type { SetMetric } from './metric.ts';
import { neighbourhood } from './neighbourhood.ts';

export const SET_METRICS: readonly SetMetric[] = [kid, fid, neighbourhood, diversity, agreement, judged, copies];

/** All metrics, in the order of their panels in the page. */
import type { AnyMetric } from './metric.ts';
import { nearest } from './nearest.ts';
import { obedience } from './obedience.ts';
import { sharpness } from './sharpness.ts';

export const METRICS: readonly AnyMetric[] = [obedience, sharpness, nearest];

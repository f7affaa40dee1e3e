/** The settings of `--criterion gain`. */
import { z } from 'zod';
import { budgetParameters, told } from '../methods/settings.ts';

const group = 'Growth of ranks';
export const gainSettings = {
  budgetParameters,
  growFirst: told(z.number().min(0).max(1).default(1), {
    group,
    value: 'share',
    help: 'criterion gain: share of them given out before the first update',
  }),
  growUntil: told(z.number().min(0).max(1).default(0.4), {
    group,
    value: 'share',
    help: 'criterion gain: share of the run after which the rest is given out, in equal parts every --test-every steps',
  }),
  prune: told(z.number().min(0).max(1).default(0), {
    group,
    value: 'share',
    help: 'criterion gain: share of the parameters that a test may take from ranks that are missed least (0: none)',
  }),
  gainLeast: told(z.int().min(0).max(1024).default(0), {
    group,
    value: 'r',
    help: 'criterion gain: ranks that every module is given before one gets more',
  }),
  gainCheck: told(z.int().min(0).max(1e6).default(0), {
    group,
    value: 'n',
    help: 'criterion gain: modules of a test whose first new rank is measured: one step of it alone beside what was expected',
  }),
  probe: told(z.int().min(1).max(256).default(16), {
    group,
    help: 'criterion gain: directions looked at in a module, the most ranks one test gives it',
  }),
};

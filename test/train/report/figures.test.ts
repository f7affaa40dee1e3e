/** Statistics, colours, formats and the progress line, against published or closed-form values. */
import { quantile } from 'd3-array';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { printable, printableDeep, printableLines } from '../../../models/io/error.ts';
import { oklch, onHigh, onLow, onMiddle, ramp, rampStep, rampSteps } from '../../../train/report/charts/colors.ts';
import { lossCurve } from '../../../train/report/charts/curves.ts';
import { smooth, thin } from '../../../train/report/charts/line-chart.ts';
import { expansionTimeline } from '../../../train/report/charts/timelines.ts';
import { moduleHistories, rankAt } from '../../../train/report/history.ts';
import { parseRecord } from '../../../train/run/record.ts';
import { bytes, duration, integer, number } from '../../../train/words/format.ts';
import { clock, progressLine, startProgress, type TerminalStream } from '../../../train/words/progress.ts';
import { difference, spearman, studentFactor, wilson } from '../../../train/words/statistics.ts';
import { simulateLog, smallModules } from '../../support/report-fixture.ts';

describe('statistics', () => {
  // Newcombe 1998 (Statistics in Medicine 17, 857-872), table I, method 3.
  test.each([
    [81, 263, 0.2553, 0.3662],
    [15, 148, 0.0624, 0.1605],
    [0, 20, 0, 0.1611],
    [1, 29, 0.0061, 0.1718],
  ])('Wilson interval of %i of %i', (right, n, low, high) => {
    expect(wilson(right, n)[0]).toBeCloseTo(low, 4);
    expect(wilson(right, n)[1]).toBeCloseTo(high, 4);
  });

  // Newcombe 1998 (Statistics in Medicine 17, 873-890), table II, method 10.
  test.each([
    [56, 70, 48, 80, 0.0524, 0.3339],
    [9, 10, 3, 10, 0.1705, 0.809],
    [5, 56, 0, 29, -0.0381, 0.1926],
    [0, 10, 0, 10, -0.2775, 0.2775],
  ])('difference of %i/%i and %i/%i', (a, n, b, m, low, high) => {
    expect(difference(a, n, b, m)[0]).toBeCloseTo(low, 3);
    expect(difference(a, n, b, m)[1]).toBeCloseTo(high, 3);
  });

  test('quantiles as R: quantile(c(1, 2, 4, 8), c(.1, .5, .9))', () => {
    expect([0.1, 0.5, 0.9].map((p) => quantile([8, 1, Number.NaN, 4, 2], p))).toEqual([1.3, 3, 6.800000000000001]);
    expect(quantile([], 0.5)).toBeUndefined();
  });

  // The tables of Student's t, two-sided 5%.
  test.each([
    [1, 12.706],
    [4, 2.7764],
    [9, 2.2622],
    [31, 2.0395],
    [1000, 1.9623],
  ])('t of %i degrees of freedom is %f', (freedom, t) => {
    expect(Math.abs(studentFactor(freedom) / t - 1)).toBeLessThan(1.5e-3);
  });

  test('Spearman without ties = 1 − 6 Σd² / n(n² − 1); with ties the hand-ranked Pearson', () => {
    fc.assert(
      fc.property(fc.uniqueArray(fc.integer(), { minLength: 3, maxLength: 30 }), (x) => {
        const y = [...x].sort((a, b) => ((a * 7919) % 104729) - ((b * 7919) % 104729) || a - b);
        const rank = (list: readonly number[], v: number): number => list.filter((w) => w < v).length;
        const d2 = x.reduce((s, v, i) => s + (rank(x, v) - rank(y, y[i]!)) ** 2, 0);
        expect(spearman(x, y)).toBeCloseTo(1 - (6 * d2) / (x.length * (x.length ** 2 - 1)), 10);
      }),
    );
    // Ranks 1, 2.5, 2.5, 4 against 1, 2, 3, 4: Pearson 4.5 / √(4.5 · 5).
    expect(spearman([1, 2, 2, 3], [10, 20, 30, 40])).toBeCloseTo(4.5 / Math.sqrt(22.5), 12);
    expect(spearman([1, 1, 1], [1, 2, 3])).toBeNaN();
  });

  test('smoothing leaves a constant unchanged from the first point on and skips NaN', () => {
    const points = [3, 3, Number.NaN, 3, 3].map((value, step) => ({ step, value }));
    expect(smooth(points).map((p) => p.step)).toEqual([0, 1, 3, 4]);
    for (const p of smooth(points)) expect(p.value).toBeCloseTo(3, 12);
    // Two points: (β(1−β)a + (1−β)b) / (1 − β²).
    const two = smooth(
      [
        { step: 0, value: 1 },
        { step: 1, value: 5 },
      ],
      0.9,
    )[1]!.value;
    expect(two).toBeCloseTo((0.09 * 1 + 0.1 * 5) / (1 - 0.81), 12);
  });

  test('thinning keeps the ends and the order', () => {
    const all = Array.from({ length: 5000 }, (_, i) => i);
    const few = thin(all, 100);
    expect([few.length, few[0], few.at(-1)]).toEqual([100, 0, 4999]);
    expect([...few].sort((a, b) => a - b)).toEqual(few);
  });
});

test('a history replays the log: rank at any step = 1 + expansions so far', () => {
  const modules = smallModules();
  const log = simulateLog(modules, 400, 40, 1.1);
  const shuffledLog = [...log].reverse();
  const histories = moduleHistories({ modules: [], expansions: shuffledLog });
  expect(histories).toHaveLength(modules.length);
  for (const h of histories) {
    for (const step of [0, 39, 40, 41, 200, 400]) {
      const grown = log.filter((e) => e.module === h.path && e.expanded && e.step <= step).length;
      expect(rankAt(h, step)).toBe(1 + grown);
    }
  }
});

test('a module that lost ranks at a test had them before it', () => {
  const row = (step: number, rankAfter: number, added: number, lost?: number) => ({
    step,
    module: 'unet.a',
    expanded: added > 0,
    rankAfter,
    added,
    ...(lost === undefined ? {} : { lost }),
  });
  // 5 at the start, two given and three lost, then one given
  const [h] = moduleHistories({ modules: [], expansions: [row(10, 4, 2, 3), row(20, 5, 1)] });
  expect([0, 10, 20].map((step) => rankAt(h!, step))).toEqual([5, 4, 5]);
});

describe('colours', () => {
  const luminance = (hex: string): number => {
    const [r, g, b] = [1, 3, 5].map((i) => {
      const v = Number.parseInt(hex.slice(i, i + 2), 16) / 255;
      return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r! + 0.7152 * g! + 0.0722 * b!;
  };
  const contrast = (a: string, b: string): number => {
    const [high, low] = [luminance(a), luminance(b)].sort((x, y) => y - x);
    return (high! + 0.05) / (low! + 0.05);
  };

  test('OKLCH of the sRGB primaries (CSS Color 4)', () => {
    expect(oklch(1, 0, 0)).toBe('#ffffff');
    expect(oklch(0, 0, 0)).toBe('#000000');
    expect(oklch(0.627955, 0.257683, 29.2339)).toBe('#ff0000');
    expect(oklch(0.86644, 0.294827, 142.4953)).toBe('#00ff00');
    expect(oklch(0.452014, 0.313214, 264.052)).toBe('#0000ff');
  });

  test('the scale is monotone in luminance, away from the ground, on both grounds', () => {
    const light = ramp.map((p) => luminance(p.light));
    const dark = ramp.map((p) => luminance(p.dark));
    expect([...light].sort((a, b) => b - a)).toEqual(light);
    expect([...dark].sort((a, b) => a - b)).toEqual(dark);
  });

  test('numbers can be read on every step (contrast ≥ 4) in light and in dark', () => {
    const inks = [onLow, onMiddle, onHigh];
    for (let i = 0; i < rampSteps; i++) {
      const ink = inks.find((p) => p.light === rampStep(i).text)!;
      expect(contrast(ramp[i]!.light, ink.light), `step ${i} light`).toBeGreaterThan(4);
      expect(contrast(ramp[i]!.dark, ink.dark), `step ${i} dark`).toBeGreaterThan(4);
    }
  });
});

describe('printable text', () => {
  test('no control, bidi or separator character survives, everything else does', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary' }), (text) => {
        expect(printable(text, Number.POSITIVE_INFINITY)).not.toMatch(/[\p{Cc}\p{Cs}\p{Zl}\p{Zp}]|\p{Bidi_Control}/u);
      }),
    );
    expect(printable('Größe 5 µm, 胸部 X 線 👩‍⚕️')).toBe('Größe 5 µm, 胸部 X 線 👩‍⚕️');
    expect(printable('a\u001b[31mb\u202ec\u0000')).toBe('a\\u{1b}[31mb\\u{202e}c\\u{0}');
    expect(printableLines('a\r\nb\tc\u009b')).toBe('a\nb\tc\\u{9b}');
    const bytesIn = new Uint8Array([27]);
    expect(printableDeep({ a: ['\u0007'], b: bytesIn, c: 1 })).toEqual({ a: ['\\u{7}'], b: bytesIn, c: 1 });
  });
});

test.each([
  [number(1.1), '1.1'],
  [number(0.000200001), '0.0002'],
  [number(1234.5), '1230'],
  [number(-0.0921), '−0.0921'],
  [number(1.5e-7), '1.50e−7'],
  [number(Number.NaN), '–'],
  [number(Number.POSITIVE_INFINITY), '∞'],
  [integer(1234567), '1\u202f234\u202f567'],
  [duration(9.94), '9.9 s'],
  [duration(59.6), '1 min 00 s'],
  [duration(3723), '1 h 02 min'],
  [bytes(1023), '1023 B'],
  [bytes(1.5 * 2 ** 30), '1.5 GiB'],
  [clock(3723), '1:02:03'],
  [clock(9), '0:09'],
  [clock(Number.NaN), '–:––'],
])('formats as %s', (actual, expected) => {
  expect(actual).toBe(expected);
});

describe('progress', () => {
  /** Collects what is written. */
  function stream(isTTY: boolean): { target: TerminalStream; text: () => string } {
    const written: string[] = [];
    const target = { isTTY, columns: 60, write: (s: string) => written.push(s) > 0 } as unknown as TerminalStream;
    return { target, text: () => written.join('') };
  }

  test('one line with all fields; what does not fit is left out from the right', () => {
    const state = { step: 120, steps: 1200, loss: 0.2134, stepsPerSecond: 4.2, totalRank: 310, memory: 210 * 2 ** 20 };
    expect(progressLine(state)).toBe('step  120/1200  loss 0.213  4.2 steps/s  rank 310  210 MiB  4:17 left');
    expect(progressLine(state, 30)).toBe('step  120/1200  loss 0.213');
    expect(progressLine({ step: 0, steps: 5 })).toBe('step 0/5');
    expect(progressLine({ step: 1, steps: 5, loss: Number.NaN })).toBe('step 1/5  loss NaN');
  });

  test('without a terminal: first, then every 15 s, then the last; never a control byte but line ends', () => {
    let time = 0;
    const { target, text } = stream(false);
    const show = startProgress(target, 100, () => time);
    for (let step = 1; step <= 100; step++) {
      time += 1000;
      show.update({ step, steps: 100, loss: 1 / step });
    }
    show.log('stopped\u001b[2J');
    show.stop();
    const steps = text()
      .match(/step +\d+/g)!
      .map((s) => Number(s.slice(4)));
    expect(steps).toEqual([1, 16, 31, 46, 61, 76, 91, 100]);
    expect(text()).toContain('stopped\\u{1b}[2J\n');
    expect(text().replace(/\n/g, '')).not.toMatch(/\p{Cc}/u);
  });

  test('without a terminal, stopping early still shows where it stopped', () => {
    const { target, text } = stream(false);
    const show = startProgress(target, 100, () => 0);
    show.update({ step: 1, steps: 100 });
    show.update({ step: 2, steps: 100 });
    show.stop();
    expect(text()).toBe('step   1/100\nstep   2/100\n');
  });

  test('on a terminal: redrawn in place, at most five times a second, log lines above', () => {
    let time = 0;
    const { target, text } = stream(true);
    const show = startProgress(target, 1000, () => time);
    for (let step = 1; step <= 1000; step++) {
      time += 10;
      show.update({ step, steps: 1000, loss: 0.1, stepsPerSecond: 100, totalRank: 5, memory: 1e9 });
    }
    expect(text().match(/\r/g)!.length).toBe(50);
    expect(text()).not.toContain('\n');
    for (const drawn of text().split('\r')) expect(drawn.replace('\u001b[K', '').length).toBeLessThan(60);
    show.log('checkpoint');
    show.stop();
    const lines = text().split('\n');
    expect(lines.at(-3)!.split('\r').at(-1)).toBe('checkpoint\u001b[K');
    expect(lines.at(-2)!.split('\r').at(-1)).toMatch(/^step 1000\/1000 {2}loss 0.1/);
    expect(lines.at(-1)).toBe('');
  });
});

test('an axis of few steps names each step once', () => {
  const metrics = [1, 2, 3, 4, 5, 6].map((step) => ({
    step,
    loss: step,
    lr: 1,
    totalRank: 1,
    seconds: step,
    memory: 1,
  }));
  const histories = moduleHistories({ modules: [], expansions: simulateLog(smallModules(), 6, 2, 1.1) });
  for (const svg of [lossCurve(parseRecord({ name: 'short', metrics }))!, expansionTimeline(histories, 6)!]) {
    const axis = /data-mark="x-axis tick label"[\s\S]*?<\/g>/.exec(svg)![0];
    const labels = [...axis.matchAll(/>(\d+)<\/text>/g)].map((m) => m[1]);
    expect(labels.filter((l) => l !== '0')).toEqual(['1', '2', '3', '4', '5', '6']);
  }
});

test('every key of a legend lies inside the chart, below one another where a row is full', () => {
  const rows = [10, 20].map((step) => ({ step, loss: 1 / step }));
  const compared = ['LoRA r=4 (reference run)', 'SeLoRA, gain (reference run)', 'another run with a long name'].map(
    (label) => ({ label, method: 'lora', validations: rows, results: {} }),
  );
  const metrics = rows.map((row) => ({ ...row, lr: 1, totalRank: 1, seconds: 1, memory: 1 }));
  const svg = lossCurve({ ...parseRecord({ name: 'run', metrics, validations: rows }), compared })!;
  const [, , width, height] = /viewBox="([\d. ]+)"/.exec(svg)![1]!.split(' ').map(Number) as number[];
  const keys = ['train, each step', ...compared.map(({ label }) => label)].map((name) => {
    const [, y, x] = svg.slice(0, svg.indexOf(`>${name}<`)).match(/y="([\d.]+)" x="([\d.]+)"$/)!;
    expect(Number(x) + 6 * name.length, name).toBeLessThanOrEqual(width!);
    return Number(y);
  });
  expect(new Set(keys).size).toBe(2);
  expect(Math.max(...keys)).toBeLessThan(height! / 2);
});

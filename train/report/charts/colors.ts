/**
 * Colours of the charts, each with its counterpart on a dark ground.
 *
 * SVG attributes carry the light colour, which every viewer understands; one style sheet replaces each by its
 * dark counterpart where the reader prefers dark (`[fill="#…"] { fill: … }`), so no chart is drawn twice.
 */

/** A colour on a light and on a dark ground. */
export interface Pair {
  readonly light: string;
  readonly dark: string;
}

/** Neutral parts of a chart. */
export const ground = {
  ink: { light: '#1c2430', dark: '#e6e9ee' },
  muted: { light: '#5d6775', dark: '#9aa4b2' },
  rule: { light: '#d9dde3', dark: '#363e4a' },
  faint: { light: '#eceff3', dark: '#262d37' },
  paper: { light: '#ffffff', dark: '#151a21' },
} as const satisfies Record<string, Pair>;

/** Okabe and Ito's colours, told apart with every common colour vision, and five more for what seldom has so many lines; lighter on dark. */
export const series: readonly Pair[] = [
  { light: '#0072b2', dark: '#58b4ee' },
  { light: '#d55e00', dark: '#f5935a' },
  { light: '#009e73', dark: '#3fcf9f' },
  { light: '#aa4499', dark: '#dc8bcf' },
  { light: '#8a6d00', dark: '#d9b93b' },
  { light: '#3a3fa0', dark: '#9aa0f0' },
  { light: '#b0224a', dark: '#f2859f' },
  { light: '#4b7f1f', dark: '#9ccc65' },
  { light: '#007c89', dark: '#55cbd6' },
  { light: '#56616f', dark: '#b3bcc8' },
];

/** Number of steps of the sequential scale. */
export const rampSteps = 16;

/**
 * OKLCH (Ottosson 2020) to sRGB hex; components outside the gamut are clipped.
 * @example oklch(1, 0, 0) // '#ffffff'
 */
export function oklch(lightness: number, chroma: number, hueDegrees: number): string {
  const h = (hueDegrees * Math.PI) / 180;
  const a = chroma * Math.cos(h);
  const b = chroma * Math.sin(h);
  const l = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3;
  const m = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3;
  const s = (lightness - 0.0894841775 * a - 1.291485548 * b) ** 3;
  const linear = [
    4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s,
    -1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s,
    -0.0041960863 * l - 0.7034186147 * m + 1.707614701 * s,
  ];
  const hex = linear.map((v) => {
    const encoded = v <= 0.0031308 ? 12.92 * v : 1.055 * v ** (1 / 2.4) - 0.055;
    return Math.round(255 * Math.min(1, Math.max(0, encoded)))
      .toString(16)
      .padStart(2, '0');
  });
  return `#${hex.join('')}`;
}

/**
 * The sequential scale, small to large: equal steps of perceived lightness (so that it reads the same in grey and
 * with any colour vision), from the ground's own lightness towards ink, hue drifting from pale green to deep blue.
 */
export const ramp: readonly Pair[] = Array.from({ length: rampSteps }, (_, i) => {
  const t = i / (rampSteps - 1);
  return {
    light: oklch(0.965 - 0.625 * t, 0.02 + 0.1 * Math.min(1, 1.6 * t), 150 + 115 * t),
    dark: oklch(0.29 + 0.63 * t, 0.025 + 0.09 * Math.min(1, 1.6 * t), 262 - 112 * t),
  };
});

/** Text on {@link ramp}: its lower steps, the middle (dark text on both grounds), its upper steps. */
export const onLow: Pair = { light: '#141b25', dark: '#f3f5f8' };
export const onMiddle: Pair = { light: '#0e141d', dark: '#080c12' };
export const onHigh: Pair = { light: '#fefefe', dark: '#0a0e15' };
/** First steps of the middle and of the upper part: where the other text colour has more contrast. */
const [middle, upper] = [6, 10];

/** Fill and text colour of step `i` of the scale. */
export function rampStep(i: number): { readonly fill: string; readonly text: string } {
  const step = Math.min(rampSteps - 1, Math.max(0, Math.round(i)));
  return { fill: ramp[step]!.light, text: (step < middle ? onLow : step < upper ? onMiddle : onHigh).light };
}

/** Position of `value` between `low` and `high` on the scale, 0 … 15; the lowest step where all are equal. */
export function rampIndex(value: number, low: number, high: number): number {
  return high > low ? ((value - low) / (high - low)) * (rampSteps - 1) : 0;
}

/** Style rules that turn every light colour of a chart into its dark counterpart (to be put under a dark media query). */
export function darkRules(): string {
  const pairs = [...Object.values<Pair>(ground), ...series, ...ramp, onLow, onMiddle, onHigh];
  return pairs.map(({ light, dark }) => `[fill="${light}"]{fill:${dark}}[stroke="${light}"]{stroke:${dark}}`).join('');
}

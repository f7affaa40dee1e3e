/** Numbers as a person reads them. */

/** Three significant digits, no exponent between 1e-4 and 1e6; `–` for NaN. */
export function number(value: number | undefined, digits = 3): string {
  if (value === undefined || Number.isNaN(value)) return '–';
  if (!Number.isFinite(value)) return value > 0 ? '∞' : '−∞';
  if (Number.isInteger(value) && Math.abs(value) < 1e6) return integer(value);
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-4 || size >= 1e6))
    return value
      .toExponential(digits - 1)
      .replace('e+', 'e')
      .replace('-', '−');
  // Number drops trailing zeros: 1.10 is 1.1.
  return String(Number(value.toPrecision(digits))).replace('-', '−');
}

/** Digits in groups of three with a narrow space that does not break: `1 234 567`. */
export function integer(value: number): string {
  return String(Math.round(value))
    .replace('-', '−')
    .replace(/\B(?=(\d{3})+(?!\d))/g, '\u202f');
}

/** `0.421` → `42%`. */
export function percent(fraction: number): string {
  return Number.isFinite(fraction) ? `${Math.round(fraction * 100)}%` : '–';
}

/** `42 s`, `4 min 05 s`, `2 h 03 min`; below ten seconds one decimal. */
export function duration(seconds: number | undefined): string {
  if (seconds === undefined || !Number.isFinite(seconds) || seconds < 0) return '–';
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  const s = Math.round(seconds);
  if (s < 60) return `${s} s`;
  const two = (n: number): string => String(n).padStart(2, '0');
  return s < 3600
    ? `${Math.floor(s / 60)} min ${two(s % 60)} s`
    : `${Math.floor(s / 3600)} h ${two(Math.floor((s % 3600) / 60))} min`;
}

/** Binary units, as memory is counted: `512 MiB`, `1.4 GiB`. */
export function bytes(value: number | undefined): string {
  if (value === undefined || !Number.isFinite(value)) return '–';
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  const power = Math.min(units.length - 1, Math.max(0, Math.floor(Math.log2(Math.max(1, value)) / 10)));
  const scaled = value / 1024 ** power;
  return `${scaled >= 100 || power === 0 ? Math.round(scaled) : scaled.toFixed(1)} ${units[power]}`;
}

/** `1 picture`, `3 pictures`. */
export function counted(n: number, noun: string): string {
  return `${integer(n)} ${noun}${n === 1 ? '' : 's'}`;
}

const METHOD_NAMES: ReadonlyMap<string, string> = new Map([
  ['selora', 'SeLoRA'],
  ['lora', 'LoRA'],
]);

/** Display name of a method: the paper's spelling for the two of them, others as given. */
export function methodName(method: string): string {
  return METHOD_NAMES.get(method.toLowerCase()) ?? method;
}

/** A label on an axis of steps: half a step, as charts of few steps have as ticks, gets none. */
export const stepTick = (step: number): string => (Number.isInteger(step) ? integer(step) : '');

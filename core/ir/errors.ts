/**
 * Errors a person can act on. Every message says what was asked, with which operands, which rule was broken and
 * (for shapes) which line of the caller's code asked for it.
 */
import type { DType } from './dtype.ts';
import { host } from './host.ts';

/** Base class of what the core refuses: one line that names op, shapes and what was expected. */
export class CoreError extends Error {
  /** the class, as messages show it */
  override name = 'CoreError';
}
/** An operand's shape or dtype breaks an op's rule. */
export class ShapeError extends CoreError {
  override name = 'ShapeError';
}
/** A state tensor was used after a compiled step took it over (`donate`). Use the step's result instead. */
export class DonatedError extends CoreError {
  override name = 'DonatedError';
}
/** An op that has no derivative by nature stands between a result and what it is differentiated by. */
export class MissingRuleError extends CoreError {
  override name = 'MissingRuleError';
}
/** Two draws from one random key, found by `checkKeys`: split it first. */
export class KeyReuseError extends CoreError {
  override name = 'KeyReuseError';
}
/** A tensor or a program does not fit the device; both numbers are in the message. */
export class DeviceLimitError extends CoreError {
  override name = 'DeviceLimitError';
}
/** The GPU went away while work was pending. */
export class LostDeviceError extends CoreError {
  override name = 'LostDeviceError';
}

/** what a message tells of a tensor */
export interface Described {
  readonly dtype: DType;
  readonly shape: readonly number[];
  readonly label?: string;
}
const describe = (t: Described): string => `${t.dtype}[${t.shape.join(', ')}]`;

/** `file:line` of the first stack frame outside core/, i.e. the line that asked for the op. */
export function callerLine(stack: string | undefined): string {
  for (const line of (stack ?? '').split('\n').slice(1)) {
    const at = /\(?(?:file:\/\/)?([^\s()]+\.[cm]?[tj]s):(\d+)(?::\d+)?\)?$/.exec(line.trim());
    if (
      at &&
      !/[\\/]core[\\/](ir|ops|fused|transforms|functions|compile|backends|inspect)[\\/]/.test(at[1]!) &&
      !/node:|node_modules/.test(at[1]!)
    )
      return `${at[1]!.replace(`${host().folder}/`, '')}:${at[2]}`;
  }
  return 'unknown line';
}

/** One formatter for all shape errors: op, operands with their names, the rule, the caller's line. */
export function shapeError(op: string, inputs: readonly Described[], rule: string): ShapeError {
  const error = new ShapeError('');
  const names = inputs.map(
    (t, i) => `  ${String.fromCharCode(97 + (i % 26))}  ${describe(t)}${t.label ? `   ${t.label}` : ''}`,
  );
  error.message = [`${op}: ${rule}`, ...names, `  at ${callerLine(error.stack)}`].join('\n');
  return error;
}

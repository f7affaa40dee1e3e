/**
 * Ctrl-C and its relatives: the first signal asks the run to save and end, a second one ends it at once.
 * Either way the folder is in order: whatever is in it was written atomically.
 */

/** Exit codes as shells give them: 128 + signal number. */
const CODES = { SIGINT: 130, SIGTERM: 143, SIGHUP: 129 } as const;
type Signal = keyof typeof CODES;
const signals = Object.keys(CODES) as readonly Signal[];

/** npm, tsx and the terminal each pass one Ctrl-C on, so the process may get it several times within moments. */
const SAME_KEYPRESS_MS = 300;

export interface Interrupt {
  /** Whether the run was asked to end: look after every step. */
  readonly requested: boolean;
  /** What the process should exit with: 130, 143 or 129, or 0 if nothing was requested. */
  readonly exitCode: number;
  /** Gives the signals back to their usual meaning. */
  dispose(): void;
}

/**
 * Starts listening for SIGINT, SIGTERM and SIGHUP.
 * @example const interrupt = onInterrupt(); while (!interrupt.requested) await step();
 */
export function onInterrupt(): Interrupt {
  let first: { readonly code: number; readonly at: number } | undefined;
  const handlers = signals.map((signal) => ({
    signal,
    handler: () => {
      const now = performance.now();
      if (first === undefined) first = { code: CODES[signal], at: now };
      else if (now - first.at > SAME_KEYPRESS_MS) process.exit(first.code);
    },
  }));
  for (const { signal, handler } of handlers) process.on(signal, handler);
  return {
    get requested() {
      return first !== undefined;
    },
    get exitCode() {
      return first?.code ?? 0;
    },
    dispose: () => {
      for (const { signal, handler } of handlers) process.off(signal, handler);
    },
  };
}

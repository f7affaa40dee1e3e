/** Calls from the page to its worker and back: a table of functions on one side, the same table as promises on the other. */

/** A call, numbered. */
interface Request {
  readonly id: number;
  readonly call: string;
  readonly args: readonly unknown[];
}
/** What came of a call: something on the way, its value, or the line of its failure. */
type Answer =
  | { readonly id: number; readonly told: unknown }
  | { readonly id: number; readonly value: unknown }
  | { readonly id: number; readonly error: string };

/** One end of a channel: a worker as its page sees it, or the page as its worker does. */
export interface Port {
  postMessage(message: unknown): void;
  onmessage: ((event: { readonly data: unknown }) => void) | null;
}
/** Tells the caller something while a call is still going on. */
export type Tell = (news: unknown) => void;
/** Functions with a `Tell` first; what else they take is checked where they are called, by `Remote`. */
type Table = Readonly<Record<string, (tell: Tell, ...args: never[]) => unknown>>;
/** A table as the other side calls it: without its `tell`, and with promises. */
export type Remote<T> = {
  readonly [K in keyof T]: T[K] extends (tell: Tell, ...args: infer A) => infer R
    ? (...args: A) => Promise<Awaited<R>>
    : never;
};

/** The line of a failure, as commands print it: a person's mistake alone, anything else with its class. */
export function errorLine(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const own =
    /^(Core|Shape|Donated|MissingRule|KeyReuse|DeviceLimit|LostDevice|NonFinite|Range|File|Zod)Error$|^Error$/;
  return own.test(error.name) ? error.message : `${error.name}: ${error.message}`;
}

/** Answers calls one after the other, in the order they came: two never use the machine at once. */
export function serve(port: Port, table: Table): void {
  let last: Promise<void> = Promise.resolve();
  const answer = async ({ id, call, args }: Request): Promise<void> => {
    const say = (rest: object): void => port.postMessage({ id, ...rest } as Answer);
    try {
      const f = Object.hasOwn(table, call) ? table[call] : undefined;
      if (!f) throw new Error(`no call ${call}`);
      say({ value: await f((told) => say({ told }), ...(args as never[])) });
    } catch (error) {
      say({ error: errorLine(error) });
    }
  };
  port.onmessage = ({ data }) => {
    last = last.then(() => answer(data as Request));
  };
}

/** The caller's side: `told` hears what calls tell on their way; `fail` ends those that are open, where the worker is gone. */
export function remote<T>(
  port: Port,
  told: Tell = () => undefined,
): { calls: Remote<T>; fail: (line: string) => void } {
  let next = 0;
  const open = new Map<number, { resolve: (value: unknown) => void; reject: (error: Error) => void }>();
  port.onmessage = ({ data }) => {
    const answer = data as Answer;
    if ('told' in answer) return told(answer.told);
    const waiting = open.get(answer.id);
    open.delete(answer.id);
    if ('error' in answer) waiting?.reject(new Error(answer.error));
    else waiting?.resolve(answer.value);
  };
  const call =
    (name: string) =>
    (...args: readonly unknown[]) =>
      new Promise((resolve, reject) => {
        open.set(next, { resolve, reject });
        port.postMessage({ id: next++, call: name, args } satisfies Request);
      });
  return {
    calls: new Proxy({}, { get: (_, name) => call(String(name)) }) as Remote<T>,
    fail(line) {
      for (const { reject } of open.values()) reject(new Error(line));
      open.clear();
    },
  };
}

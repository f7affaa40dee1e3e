/**
 * Text that came from outside, made safe to look at: on a terminal, in SVG (XML forbids control bytes) and in HTML.
 */

// Control bytes (C0, DEL, C1), line and paragraph separators, and the marks that reorder or hide text:
// soft hyphen, zero-width space, bidi marks, embeddings and isolates, byte-order mark, tag characters, lone surrogates.
const unprintable =
  // biome-ignore lint/suspicious/noControlCharactersInRegex: finding control characters is the purpose
  /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufffe\uffff]|[\u{e0000}-\u{e007f}]|\p{Surrogate}/gu;

/** `'\x1b'` → `'\\u{1b}'`: the reader sees that something was there, the terminal does not act on it. */
const visible = (c: string): string => `\\u{${c.codePointAt(0)!.toString(16)}}`;

/**
 * One line without any character that a terminal, an XML parser or a reader's eye would mistake.
 * Cost: one pass. Everything else, accents and Chinese included, stays as it is.
 * @example printable('a\x1b[31mb\n') // 'a\\u{1b}[31mb\\u{a}'
 */
export function printable(text: string): string {
  return text.replace(unprintable, visible);
}

/** As {@link printable}, but keeps line breaks and tabs: for reports and commands that are shown as paragraphs. */
export function printableLines(text: string): string {
  return text.replace(/\r\n?/g, '\n').replace(unprintable, (c) => (c === '\n' || c === '\t' ? c : visible(c)));
}

/** Applies {@link printableLines} to every string inside a plain value; typed arrays and numbers pass unchanged. */
export function printableDeep<T>(value: T): T;
export function printableDeep(value: unknown): unknown {
  if (typeof value === 'string') return printableLines(value);
  if (Array.isArray(value)) return value.map((v) => printableDeep(v));
  if (value === null || typeof value !== 'object' || ArrayBuffer.isView(value)) return value;
  return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, printableDeep(v)]));
}

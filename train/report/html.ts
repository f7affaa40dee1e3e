/**
 * HTML as a tagged template that escapes every value; only what was made by {@link html} or declared by
 * {@link trusted} passes unescaped. There is no other way to put a string into the page.
 */
import { createHash } from 'node:crypto';

/** A piece of finished markup. */
export interface Markup {
  readonly markup: string;
}

type Value = string | number | Markup | undefined | false | readonly Value[];

const entities: Readonly<Record<string, string>> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
  "'": '&#39;',
  '`': '&#96;',
};

/** Text for element content and quoted attribute values. */
export function escapeHtml(text: string): string {
  return text.replace(/[&<>"'`]/g, (c) => entities[c]!);
}

/** Markup that this program made itself (an SVG of ours, a base64 data address); never text from outside. */
export const trusted = (markup: string): Markup => ({ markup });

/**
 * Joins markup: strings and numbers are escaped, arrays joined, `undefined` and `false` vanish.
 * Attribute values must be quoted in the template.
 * @example html`<b title="${name}">${name}</b>`
 */
export function html(parts: TemplateStringsArray, ...values: readonly Value[]): Markup {
  return { markup: parts.reduce((text, part, i) => text + render(values[i - 1]) + part) };
}

function render(value: Value): string {
  if (value === undefined || value === false) return '';
  if (typeof value === 'string') return escapeHtml(value);
  if (typeof value === 'number') return String(value);
  return 'markup' in value ? value.markup : value.map(render).join('');
}

/**
 * JSON for a `<script type="application/json">` block: `<`, `>` and `&` as escapes, so that no text can end the
 * element or open a comment; U+2028 and U+2029 too, which old scripts take for line ends. NaN becomes null.
 */
export function jsonForScript(value: unknown): Markup {
  const text = JSON.stringify(value).replace(
    /[<>&\u2028\u2029]/g,
    (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`,
  );
  return trusted(text);
}

/** Source expression of a content-security policy for an inline style or script: `'sha256-…'`. */
export function cspHash(text: string): string {
  return `'sha256-${createHash('sha256').update(text, 'utf8').digest('base64')}'`;
}

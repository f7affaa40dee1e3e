/** The frame of every page: one file that loads nothing, with a policy that says so. */
import { cspHash, html, type Markup, trusted } from './html.ts';
import { style } from './style.ts';

/**
 * A whole page around its header, main part and what else stands in it.
 * @param script the page's only script, allowed by its hash; without one no script runs
 */
export function framed(title: string, content: Markup, script?: string): string {
  const scripts = script === undefined ? '' : ` script-src ${cspHash(script)};`;
  const policy = `default-src 'none'; img-src data:; style-src ${cspHash(style)};${scripts} base-uri 'none'; form-action 'none'`;
  return html`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="${trusted(policy)}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<title>${title}</title>
<style>${trusted(style)}</style>
</head>
<body>
${content}
<footer>Made on this machine by selora-ts. The page loads nothing from anywhere: pictures, charts and numbers are inside this file.</footer>
${script !== undefined && html`<script>${trusted(script)}</script>\n`}</body>
</html>
`.markup;
}

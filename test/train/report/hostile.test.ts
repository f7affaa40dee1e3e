/** Nothing from outside becomes markup: attacks in every text of a run, and the page compared with a harmless one. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { XMLValidator } from 'fast-xml-parser';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { printableLines } from '../../../models/io/error.ts';
import { escapeHtml, html, jsonForScript } from '../../../train/report/html.ts';
import { parse, skeleton } from '../../support/report-dom.ts';
import { comparedWith, folderWithPicture, render, runWith } from '../../support/report-fixture.ts';

const attacks = [
  '<script>alert(1)</script>',
  '<img src=x onerror=alert(1)>',
  '<svg onload=alert(1)>',
  '"onmouseover="alert(1)',
  "' onfocus=alert(1) autofocus='",
  '` onclick=alert(1) `',
  '</title><script>alert(1)</script>',
  '</script><script>alert(1)</script>',
  '</style><style>*{display:none}',
  '</desc></svg><script>alert(1)</script>',
  '--><script>alert(1)</script><!--',
  ']]><script>alert(1)</script><![CDATA[',
  '<!--<script>',
  '<![CDATA[',
  '<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]>&e;',
  '<?xml version="1.0"?>',
  'javascript:alert(1)',
  'data:text/html,<script>alert(1)</script>',
  'url(https://example.org/x)',
  'var(--x);}</style>',
  '<a href="javascript:alert(1)">x</a>',
  '<iframe srcdoc="<script>alert(1)</script>">',
  '<meta http-equiv=refresh content="0;url=https://example.org">',
  '<base href="https://example.org/">',
  '<link rel=stylesheet href=//example.org>',
  '<form action=//example.org><input autofocus>',
  '<math><mtext></mtext><mglyph><style><img src=x onerror=alert(1)>',
  '<foreignObject><body onload=alert(1)>',
  '&lt;script&gt;alert(1)&lt;/script&gt;',
  '&#60;script&#62;',
  '&amp;&quot;&apos;&nbsp;&unknown;',
  '& a && b',
  '{{constructor.constructor("alert(1)")()}}',
  '__proto__',
  'constructor',
  '=cmd|calc!A1',
  '@import "//example.org"',
];
const wrappers: ReadonlyArray<(s: string) => string> = [
  (s) => s,
  (s) => `">${s}`,
  (s) => `'>${s}`,
  (s) => `\u2028\u2029\u001b]0;x\u0007\u009b2J\0\ud800\u202e${s}`,
  (s) => `line one\n\t${s}\r\nline two`,
];
describe('hostile texts', () => {
  const folder = mkdtempSync(join(tmpdir(), 'selora-hostile-'));
  afterAll(() => rmSync(folder, { recursive: true, force: true }));
  const reportWith = (text: string) => render(runWith(text, folder), [comparedWith(text)]);
  let plain = '';
  let plainCharts: ReadonlyMap<string, string> = new Map();
  beforeAll(async () => {
    await folderWithPicture(folder);
    const report = await reportWith('x');
    plain = skeleton(parse(report.html));
    plainCharts = report.charts;
  });

  test('there are enough of them, and the comparison can fail', () => {
    expect(attacks.length * wrappers.length).toBeGreaterThanOrEqual(180);
    expect(skeleton(parse('<p>x</p>'))).not.toBe(skeleton(parse('<p><b>x</b></p>')));
    expect(skeleton(parse('<p title="x">'))).not.toBe(skeleton(parse('<p title="x" onclick="y">')));
  });

  test.each(attacks.map((a, i) => [i, a] as const))(
    '%i %j adds no element and no attribute in any sink',
    async (_, attack) => {
      // Escaping works letter by letter, so one text may carry the attack in all its wrappings.
      const text = wrappers.map((wrap) => wrap(attack)).join(' ');
      const report = await reportWith(text);
      const page = parse(report.html);
      expect(skeleton(page)).toBe(plain);
      const shown = printableLines(text);
      // Escaped, not removed: the reader sees exactly what was there.
      expect(page.querySelector('blockquote')!.textContent).toBe(shown);
      expect(page.querySelector('.eyebrow')!.textContent).toContain(`n${shown}`);
      expect(page.querySelector('pre')!.textContent).toBe(shown);
      expect(page.querySelector('.strip img')!.getAttribute('alt')).toBe(`${shown}: ${shown}`);
      const data = JSON.parse(page.querySelector('#run-data')!.textContent) as { modules: unknown[][] };
      expect(data.modules[1]![0]).toBe(`m${shown}`);
      expect(report.html.replace(/[\n\t]/g, '')).not.toMatch(/[\p{Cc}\p{Cs}\p{Zl}\p{Zp}]|\p{Bidi_Control}/u);
      expect([...report.charts.keys()]).toEqual([...plainCharts.keys()]);
      for (const [name, svg] of report.charts) {
        expect(XMLValidator.validate(svg), name).toBe(true);
        expect(skeleton(parse(svg)), name).toBe(skeleton(parse(plainCharts.get(name)!)));
      }
    },
  );
});

test('the template escapes by default', () => {
  expect(html`<b title="${'"<'}">${['&', html`<i>`, 1, undefined, false]}</b>`.markup).toBe(
    '<b title="&quot;&lt;">&amp;<i>1</b>',
  );
  expect(escapeHtml(`'\``)).toBe('&#39;&#96;');
  const json = jsonForScript({ a: '</script><!--\u2028&', b: Number.NaN }).markup;
  expect(json).not.toMatch(/[<>&\u2028]/);
  expect(JSON.parse(json)).toEqual({ a: '</script><!--\u2028&', b: null });
});

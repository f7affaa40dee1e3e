/** Nothing from outside becomes markup: attacks in every text of a run, and the page compared with a harmless one. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { XMLValidator } from 'fast-xml-parser';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { printableLines } from '../../../models/io/error.ts';
import { escapeHtml, html, jsonForScript } from '../../../train/report/html.ts';
import { soaks } from '../../support/drivers.ts';
import { attacks, payloads, wrappers } from '../../support/hostile-texts.ts';
import { LONG } from '../../support/long.ts';
import { parse, skeleton } from '../../support/report-dom.ts';
import { comparedWith, folderWithPicture, render, runWith } from '../../support/report-fixture.ts';

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
    expect(payloads).toHaveLength(200);
    expect(skeleton(parse('<p>x</p>'))).not.toBe(skeleton(parse('<p><b>x</b></p>')));
    expect(skeleton(parse('<p title="x">'))).not.toBe(skeleton(parse('<p title="x" onclick="y">')));
  });

  // Escaping works letter by letter, so one text may carry attacks in all their wrappings: one by one in the long form.
  const wrapped = attacks.map((attack) => wrappers.map((wrap) => wrap(attack)).join(' '));
  const half = Math.ceil(wrapped.length / 2);
  const joined = LONG ? wrapped : wrapped.slice(0, half).map((text, i) => [text, wrapped[half + i] ?? ''].join(' '));
  const check = async (text: string, rendered = reportWith): Promise<void> => {
    const report = await rendered(text);
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
  };
  test.each((soaks('page') ? payloads : joined).map((text, i) => [i, text] as const))(
    '%i %j adds no element and no attribute in any sink',
    (_, text) => check(text),
  );
  test.each(['__proto__', 'constructor', 'toString'])('%s alone is a text like others', (text) => check(text));
  test('one place that is not escaped would be found', async () => {
    const bare: typeof reportWith = async (text) => {
      const report = await reportWith(text);
      return { ...report, html: report.html.replaceAll(escapeHtml(printableLines(text)), text) };
    };
    await expect(check('<b>bold</b>', bare)).rejects.toThrow();
    await expect(check('a\u001b[2Jb', bare)).rejects.toThrow();
  });
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

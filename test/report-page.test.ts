/** The page: nothing from outside becomes markup, nothing is fetched, and odd runs still get a report. */
import { createHash } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { XMLValidator } from 'fast-xml-parser';
import { parseHTML } from 'linkedom';
import sharp from 'sharp';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { escapeHtml, html, jsonForScript } from '../train/report/html.ts';
import { renderReport } from '../train/report/page.ts';
import { embed } from '../train/report/pictures.ts';
import { printableLines } from '../train/report/printable.ts';
import { parseSummary, type RunSummaryInput } from '../train/report/summary.ts';
import { writeReport } from '../train/report/write.ts';
import { simulatedRun, smallModules } from './report-fixture.ts';

/** What the tests read of a parsed element. */
interface Node {
  readonly tagName: string;
  readonly textContent: string;
  readonly children: Iterable<Node>;
  readonly attributes: Iterable<{ readonly name: string; readonly value: string }>;
  getAttribute(name: string): string | null;
  querySelectorAll(selector: string): Iterable<Node>;
  querySelector(selector: string): Node | null;
}

const parse = (page: string): Node => parseHTML(page).document as unknown as Node;
const all = (node: Node, selector: string): Node[] => [...node.querySelectorAll(selector)];

/** Element and attribute names in document order: what must not depend on any text. */
function skeleton(node: Node): string {
  const own = [...(node.attributes ?? [])].map((a) => a.name).join(' ');
  return `<${node.tagName} ${own}>${[...node.children].map(skeleton).join('')}</>`;
}

const folder = mkdtempSync(join(tmpdir(), 'selora-report-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

let png = new Uint8Array();
beforeAll(async () => {
  png = new Uint8Array(
    await sharp({ create: { width: 4, height: 4, channels: 3, background: '#777' } })
      .png()
      .toBuffer(),
  );
});

/** A small run with `text` in every place a text can reach. */
function runWith(text: string): RunSummaryInput {
  const placed = 'unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k';
  const facts = [{ label: text, value: text, note: text }];
  const expansion = { step: 2, fiOriginal: 1, fiExpanded: 2, ratio: 2, expanded: true, rankAfter: 2, keyHash: text };
  return {
    name: `n${text}`,
    question: text,
    answer: text,
    method: text,
    started: text,
    command: text || 'c',
    headlines: facts,
    config: facts,
    environment: facts,
    metrics: [1, 2, 3].map((step) => ({ step, loss: 1 / step, totalRank: 2, seconds: step, memory: 1e6 })),
    validation: {
      n: 4,
      what: text,
      rows: [
        { step: 1, loss: 1, shuffled: 1.1 },
        { step: 3, loss: 0.5, shuffled: 0.8 },
      ],
    },
    comparisons: [
      {
        method: text,
        validation: [
          { step: 1, loss: 1 },
          { step: 3, loss: 0.6 },
        ],
      },
    ],
    expansions: [
      { ...expansion, module: placed },
      { ...expansion, module: `m${text}` },
    ],
    modules: [
      { path: placed, rank: 2, change: 0.1 },
      { path: `m${text}`, rank: 2, change: 0.2 },
      { path: 'z', rank: 1, change: 0.3 },
    ],
    samples: [
      {
        report: text,
        split: text,
        note: text,
        pictures: [
          { label: text, image: { bytes: png }, verdict: text, right: true },
          { label: 'missing', image: { path: join(folder, `no-such-file${text.replace(/\0/g, '')}`) } },
        ],
      },
    ],
    samplesNote: text,
    phases: [{ name: text, seconds: 2 }],
    data: { source: text, splits: [{ name: text, images: 3, hash: text }], facts },
    obedience: { what: text, rows: [{ method: text, scores: [{ question: text, right: 1, n: 2 }] }] },
    memorisation: {
      measure: text,
      threshold: 1,
      below: 0,
      n: 3,
      pairs: [{ sample: { bytes: png }, nearest: { bytes: png }, distance: 2, label: text }],
    },
    warnings: [text],
  };
}

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
  let plain = '';
  let plainCharts: ReadonlyMap<string, string> = new Map();
  beforeAll(async () => {
    const report = await renderReport(runWith('x'));
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
      const report = await renderReport(runWith(text));
      const page = parse(report.html);
      expect(skeleton(page)).toBe(plain);
      const shown = printableLines(text);
      // Escaped, not removed: the reader sees exactly what was there.
      expect(page.querySelector('blockquote')!.textContent).toBe(shown);
      expect(page.querySelector('h1')!.textContent).toBe(shown);
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

describe('the page fetches nothing and runs only its own script', () => {
  let page: Node;
  let source = '';
  beforeAll(async () => {
    source = (await renderReport({ ...simulatedRun(), samples: runWith('x').samples! })).html;
    page = parse(source);
  });

  test('the policy names the hashes of its one style and one script, and nothing else', () => {
    const policy = page.querySelector('meta[http-equiv="Content-Security-Policy"]')!.getAttribute('content')!;
    const hash = (text: string): string => `'sha256-${createHash('sha256').update(text).digest('base64')}'`;
    const styles = [...source.matchAll(/<style>([\s\S]*?)<\/style>/g)].map((m) => m[1]!);
    const scripts = [...source.matchAll(/<script>([\s\S]*?)<\/script>/g)].map((m) => m[1]!);
    expect([styles.length, scripts.length]).toEqual([1, 1]);
    expect(policy).toBe(
      `default-src 'none'; img-src data:; style-src ${hash(styles[0]!)}; script-src ${hash(scripts[0]!)}; base-uri 'none'; form-action 'none'`,
    );
    // The policy must come before anything it governs.
    expect(source.indexOf('Content-Security-Policy')).toBeLessThan(source.indexOf('<style>'));
  });

  test('no inline style, no handler, no outside address', () => {
    for (const node of all(page, '*')) {
      for (const { name, value } of node.attributes) {
        expect(name).not.toMatch(/^(style|on.*|srcset|action|formaction|ping|background|poster|xlink:href)$/);
        if (name === 'href') expect(value).toMatch(/^#[a-z]+$/);
        if (name === 'src') expect(value).toMatch(/^data:image\/png;base64,[A-Za-z0-9+/=]+$/);
      }
    }
    const outside = source
      .replace(/data:image\/png;base64,[A-Za-z0-9+/=]+/g, '')
      .match(/(?:https?:)?\/\/[a-z0-9][^\s'"<]*/gi);
    expect([...new Set(outside ?? [])]).toEqual(['http://www.w3.org/2000/svg']);
    expect(source).not.toMatch(/url\(|@import/);
  });

  test('every link of the contents leads to a section, every section has a heading', () => {
    const ids = all(page, 'section').map((s) => s.getAttribute('id'));
    expect(all(page, 'nav a').map((a) => a.getAttribute('href')!.slice(1))).toEqual(ids);
    expect(ids).toEqual([
      'pictures',
      'obedience',
      'loss',
      'ranks',
      'growth',
      'memorisation',
      'costs',
      'data',
      'repeat',
    ]);
  });

  test('headline numbers come first and agree with the data', () => {
    const values = all(page, '.numbers .value').map((v) => v.textContent);
    const run = parseSummary(simulatedRun());
    const total = run.modules.reduce((s, m) => s + m.rank, 0);
    const lowest = Math.min(...run.validation!.rows.map((r) => r.loss));
    expect(values.slice(0, 2)).toEqual([`0.471 → ${Number(lowest.toPrecision(3))}`, '58 of 96']);
    expect(values[3]).toBe(`${smallModules().length} → ${total}`);
    expect(source.indexOf('class="numbers"')).toBeLessThan(source.indexOf('id="pictures"'));
    expect(source.indexOf('id="pictures"')).toBeLessThan(source.indexOf('id="loss"'));
  });

  test('every module has a cell with its history, with and without the script', () => {
    const cells = all(page, '#ranks [data-module]');
    const paths = new Set(cells.map((c) => c.getAttribute('data-module')));
    expect(paths).toEqual(new Set(smallModules()));
    const log = simulatedRun().expansions!;
    const path = 'unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k';
    const title = cells.find((c) => c.getAttribute('data-module') === path)!.querySelector('title')!.textContent;
    const grown = log.filter((e) => e.module === path && e.expanded);
    expect(title).toContain(`rank ${1 + grown.length}`);
    expect(title).toContain(`grew in ${grown.length} of 30 tests`);
    const data = JSON.parse(page.querySelector('#run-data')!.textContent) as {
      modules: [string, number, number, number, [number, number][]][];
    };
    const mine = data.modules.find((m) => m[0] === path)!;
    expect(mine[4].map((t) => t[0])).toEqual(log.filter((e) => e.module === path).map((e) => e.step));
  });
});

describe('odd runs', () => {
  test('an empty run gets a page', async () => {
    const { html: source, charts } = await renderReport({ name: 'nothing' });
    expect([...charts]).toEqual([]);
    const page = parse(source);
    expect(page.querySelector('h1')!.textContent.length).toBeGreaterThan(10);
    expect(all(page, 'section')).toEqual([]);
    const visible = source.replace(/<(style|script)[^>]*>[\s\S]*?<\/\1>/g, '');
    expect(visible).not.toMatch(/NaN|undefined|Infinity/);
  });

  test('a single step is drawn', async () => {
    const { charts, html: source } = await renderReport({
      name: 'one',
      metrics: [{ step: 1, loss: 0.5, seconds: 0.2 }],
    });
    expect([...charts.keys()]).toEqual(['loss']);
    expect(charts.get('loss')).toMatch(/<circle[^>]*r="2.6"/);
    for (const svg of charts.values()) expect(svg).not.toMatch(/NaN|undefined/);
    expect(source).toContain('1 step, ');
  });

  test('NaN and infinite values are said, not drawn', async () => {
    const run = simulatedRun();
    const metrics = run.metrics!.map((m, i) =>
      i >= 1190 ? { ...m, loss: i % 2 ? Number.NaN : Number.POSITIVE_INFINITY } : m,
    );
    const expansions = run.expansions!.map((e, i) =>
      i % 5 ? e : { ...e, ratio: Number.POSITIVE_INFINITY, fiOriginal: Number.NaN },
    );
    const modules = run.modules!.map((m, i) => (i % 3 ? m : { ...m, change: Number.NaN }));
    const rows = run.validation!.rows.map((r) => ({ ...r, loss: Number.NaN, shuffled: Number.NaN }));
    const phases = [...run.phases!, { name: 'odd', seconds: Number.NaN, peakBytes: Number.NaN }];
    const report = await renderReport({
      ...run,
      metrics,
      expansions,
      modules,
      phases,
      validation: { ...run.validation!, rows },
    });
    const page = parse(report.html);
    expect(page.querySelector('.alert')!.textContent).toContain(
      'The loss was not finite at 10 steps, first at step 1191.',
    );
    for (const [name, svg] of report.charts) {
      expect(XMLValidator.validate(svg), name).toBe(true);
      expect(svg.replace(/<title>.*?<\/title>/g, ''), name).not.toMatch(/NaN|undefined|Infinity/);
    }
    expect(() => JSON.parse(page.querySelector('#run-data')!.textContent)).not.toThrow();
  });

  test('values that went through a JSON file as null are NaN again', () => {
    const copy = JSON.parse(JSON.stringify({ name: 'a', metrics: [{ step: 1, loss: Number.NaN }] })) as unknown;
    expect(parseSummary(copy).metrics[0]!.loss).toBeNaN();
  });

  test.each([
    [{}, 'report: name: '],
    [{ name: 'a', metrics: [{ step: -1, loss: 0 }] }, 'report: metrics[0].step: '],
    [{ name: 'a', metrics: [{ step: 1, loss: '0.5' }] }, 'report: metrics[0].loss: '],
    [{ name: 'a', colour: 'red' }, 'report: '],
  ])('a wrong summary %j is refused in one line', (summary, start) => {
    expect(() => parseSummary(summary)).toThrow(start);
    try {
      parseSummary(summary);
    } catch (error) {
      expect(String((error as Error).message)).not.toContain('\n');
    }
  });

  test.each([
    [
      'nothing adapted',
      {
        modules: [
          { path: 'a', rank: 1, change: 0 },
          { path: 'b', rank: 1, change: 0 },
        ],
      },
      'Nothing was adapted',
    ],
    [
      'captions cut',
      {
        data: {
          source: 's',
          splits: [
            { name: 'train', images: 9, cut: 2 },
            { name: 'test', images: 1, cut: 1 },
          ],
        },
      },
      '3 of 10 captions are longer than 77 ids',
    ],
    ['no test fired', { testEvery: 40, metrics: [{ step: 41, loss: 1 }] }, 'No expansion test was made in 41 steps'],
    [
      'nothing grew',
      { expansions: [{ step: 1, module: 'a', fiOriginal: 1, fiExpanded: 1, ratio: 1, expanded: false, rankAfter: 1 }] },
      'No module ever grew',
    ],
    ['copies', { memorisation: { measure: 'm', threshold: 1, below: 2, n: 9 } }, '2 of 9 samples lie closer'],
  ] as ReadonlyArray<readonly [string, Partial<RunSummaryInput>, string]>)('warns: %s', async (_, part, text) => {
    const healthy = await renderReport({ name: 'a' });
    expect(healthy.html).not.toContain('class="alert"');
    const page = parse((await renderReport({ name: 'a', ...part })).html);
    expect(page.querySelector('.alert')!.textContent).toContain(text);
  });

  test('says when SeLoRA is not better than LoRA', async () => {
    const score = (right: number): { question: string; right: number; n: number }[] => [
      { question: 'lungs right', right, n: 100 },
    ];
    const rows = [
      { method: 'LoRA r = 4', scores: score(70) },
      { method: 'SeLoRA', scores: score(40) },
    ];
    const { html: source } = await renderReport({ name: 'a', method: 'selora', obedience: { what: 'w', rows } });
    expect(source).toContain('Lungs right: SeLoRA 40 of 100, LoRA r = 4 70 of 100. SeLoRA is worse.');
    const near = [
      { method: 'LoRA r = 4', scores: score(70) },
      { method: 'SeLoRA', scores: score(72) },
    ];
    const { html: close } = await renderReport({ name: 'a', method: 'selora', obedience: { what: 'w', rows: near } });
    expect(close).toContain('SeLoRA is higher, a difference within chance.');
  });
});

describe('pictures', () => {
  test('only pixels enter the page: text chunks and EXIF stay behind, pixels are exact', async () => {
    const raw = Buffer.from(Array.from({ length: 8 * 8 * 3 }, (_, i) => (i * 37) % 256));
    const image = sharp(raw, { raw: { width: 8, height: 8, channels: 3 } });
    const canary = 'PATIENT-CANARY-4711';
    const bytes = await image
      .withExif({ IFD0: { ImageDescription: canary, Artist: canary } })
      .png()
      .toBuffer();
    expect(bytes.includes(canary)).toBe(true);
    const out = await embed({ bytes: new Uint8Array(bytes) });
    if ('missing' in out) throw new Error(out.missing);
    const embedded = Buffer.from(out.src.slice(out.src.indexOf(',') + 1), 'base64');
    expect(embedded.includes(canary)).toBe(false);
    const chunks: string[] = [];
    for (let at = 8; at < embedded.length; at += 12 + embedded.readUInt32BE(at))
      chunks.push(embedded.toString('latin1', at + 4, at + 8));
    expect(chunks.filter((c) => !['IHDR', 'PLTE', 'tRNS', 'IDAT', 'IEND', 'pHYs'].includes(c))).toEqual([]);
    const pixels = await sharp(embedded).removeAlpha().raw().toBuffer();
    expect(pixels.equals(raw)).toBe(true);
  });

  test.each([
    ['an SVG named .png', '<svg xmlns="http://www.w3.org/2000/svg" width="4" height="4"/>', 'neither PNG nor JPEG'],
    ['an empty file', '', 'neither PNG nor JPEG'],
    ['a cut PNG', 'cut', 'corrupt header'],
  ])('%s is left out and the page says why', async (name, content, reason) => {
    const path = join(folder, `${name.replace(/ /g, '-')}.png`);
    writeFileSync(path, content === 'cut' ? png.subarray(0, 40) : content);
    const out = await embed({ path });
    expect('missing' in out && out.missing).toContain(reason);
  });

  test('large pictures are shrunk', async () => {
    const big = await sharp({ create: { width: 1500, height: 700, channels: 3, background: '#123' } })
      .jpeg()
      .toBuffer();
    expect(await embed({ bytes: new Uint8Array(big) })).toMatchObject({ width: 512, height: 239 });
  });
});

test('writes the page and the charts, private, complete, and again over itself', async () => {
  const target = join(folder, 'run');
  for (let i = 0; i < 2; i++) {
    const files = await writeReport(simulatedRun(), target);
    expect(files[0]).toBe(join(target, 'report.html'));
    expect(files.map((f) => f.slice(target.length + 1))).toEqual(
      expect.arrayContaining([
        'loss.svg',
        'rank-unet.svg',
        'rank-text-encoder.svg',
        'rank-history.svg',
        'expansions.svg',
      ]),
    );
    for (const file of files) {
      expect(statSync(file).mode & 0o777).toBe(0o600);
      expect(readFileSync(file, 'utf8').trimEnd()).toMatch(/<\/(html|svg)>$/);
    }
  }
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

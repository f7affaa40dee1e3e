/** The page's one style sheet (allowed by its hash; contains no text from outside). */
import { darkRules, ground, series } from './charts/colors.ts';

const variables = (theme: 'light' | 'dark'): string =>
  [
    `--ink:${ground.ink[theme]}`,
    `--muted:${ground.muted[theme]}`,
    `--rule:${ground.rule[theme]}`,
    `--faint:${ground.faint[theme]}`,
    `--paper:${ground.paper[theme]}`,
    `--accent:${series[0]![theme]}`,
    `--warm:${series[1]![theme]}`,
    `--bad:${theme === 'light' ? '#ad4a00' : series[1]!.dark}`,
    `--good:${theme === 'light' ? '#00734f' : series[2]!.dark}`,
  ].join(';');

/** What panels and their heads are made of; the page of the lab draws them, too. */
export const panelStyle = `
.eyebrow{color:var(--muted);font-size:13px;letter-spacing:.02em;margin:0 0 10px}
.answer{font-size:17px;line-height:1.5}
.lead{color:var(--muted)}
.numbers{display:grid;grid-template-columns:repeat(auto-fit,minmax(215px,1fr));gap:22px 28px;margin:26px 0 0;padding:0}
.numbers dt{color:var(--muted);font-size:13px;line-height:1.35}
.numbers dd{margin:0}
.numbers .value{font-size:25px;font-weight:600;letter-spacing:-.01em;line-height:1.3}
.numbers .note{color:var(--muted);font-size:13px;line-height:1.4}
.alert{border-left:3px solid var(--warm);padding:2px 0 2px 14px;margin:20px 0 0}
.alert ul,.plain{margin:0;padding-left:18px}
.samples{display:grid;grid-template-columns:1fr;gap:30px 32px;margin-top:18px}
.sample{margin:0;break-inside:avoid;min-width:0}
.sample blockquote{margin:0 0 8px;font:16px/1.45 Charter,"Bitstream Charter","Iowan Old Style",Georgia,serif;white-space:pre-line;overflow-wrap:anywhere}
.strip{display:grid;grid-template-columns:repeat(auto-fill,minmax(120px,1fr));gap:8px}
.strip figure{margin:0;min-width:0}
.strip img,.gap{display:block;width:100%;height:auto;aspect-ratio:1;object-fit:contain;background:#000;border-radius:3px}
.gap{display:grid;place-content:center;background:var(--faint);color:var(--muted);font-size:12px;padding:8px;text-align:center;overflow-wrap:anywhere}
figcaption{font-size:13px;line-height:1.35;margin-top:5px;overflow-wrap:anywhere}
figcaption .label{font-weight:600}
.right{color:var(--good)}.wrong{color:var(--bad)}.muted{color:var(--muted)}
.chart{margin:20px 0 8px;overflow-x:auto;overflow-y:hidden}
.chart svg{display:block;height:auto;max-width:100%}
.side{display:flex;flex-wrap:wrap;gap:0 40px;align-items:flex-start}.side .chart{max-width:100%}
.wide svg{max-width:none}
svg text{white-space:pre;font-family:inherit}
[data-module]{cursor:default}
[data-module]:is(:hover,:focus){stroke:var(--ink);stroke-width:1.5px;outline:none}
:focus-visible{outline:2px solid var(--accent);outline-offset:2px}
table{border-collapse:collapse;font-size:14px;margin:12px 0 6px;max-width:100%}
caption{text-align:left;color:var(--muted);font-size:13px;padding-bottom:6px}
th,td{text-align:left;padding:6px 18px 6px 0;border-bottom:1px solid var(--rule);vertical-align:top;overflow-wrap:anywhere}.tablewrap :is(th,td):first-child{min-width:8em}.tablewrap :is(th,td){min-width:5em;overflow-wrap:break-word}
th{font-weight:600}th .muted{font-weight:400;font-size:13px}thead th{color:var(--muted);font-weight:500;font-size:13px}
td.n,th.n{text-align:right}td.n{white-space:nowrap}
td.own,thead th.own{font-weight:650;color:var(--ink)}
.tablewrap{overflow-x:auto}
.facts{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,300px),1fr));gap:6px 32px;margin:10px 0 0;font-size:14px}
.facts div{display:flex;gap:12px;justify-content:space-between;border-bottom:1px solid var(--faint);padding:3px 0}
.facts dt{color:var(--muted);flex:0 1 auto;min-width:35%}.facts dd{margin:0;text-align:right;overflow-wrap:anywhere;min-width:0}
pre{background:var(--faint);border-radius:4px;padding:12px 14px;font:13px/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;white-space:pre-wrap;overflow-wrap:anywhere;user-select:all;margin:10px 0}
details{margin:12px 0}summary{cursor:pointer;color:var(--accent);font-size:14px}
.interval{display:block;width:130px;max-width:100%;height:16px}
@media(max-width:700px){.chart svg{max-width:none;width:760px}.wide svg{width:auto}}
`;
/** The history of a module, beside its cell. */
export const tipStyle = `
#tip{position:fixed;z-index:9;max-width:min(420px,96vw);background:var(--paper);color:var(--ink);border:1px solid var(--rule);border-radius:5px;box-shadow:0 6px 24px rgb(0 0 0/.16);padding:10px 12px;font-size:13px;line-height:1.4;pointer-events:none}
#tip[hidden]{display:none}
#tip .path{font-weight:600;overflow-wrap:anywhere}
#tip table{font-size:12px;margin:6px 0 0}#tip th,#tip td{padding:1px 12px 1px 0;border:0}
#tip .line{fill:none;stroke:var(--accent);stroke-width:1.8px}#tip .dot{fill:var(--accent)}
#tip .axis{fill:var(--muted);font-size:10px}
`;

export const style = `
:root{color-scheme:light dark;${variables('light')}}
@media screen and (prefers-color-scheme:dark){:root{${variables('dark')}}${darkRules()}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}@media(prefers-reduced-motion:no-preference){html{scroll-behavior:smooth}}
body{margin:0;overflow-wrap:anywhere;background:var(--paper);color:var(--ink);font:15px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif;font-variant-numeric:tabular-nums}
main,header,footer{max-width:1040px;margin:0 auto;padding:0 24px}
header{padding-top:44px}
h1{font-size:30px;line-height:1.2;font-weight:650;letter-spacing:-.012em;margin:0 0 12px;max-width:32em;text-wrap:balance}
h2{font-size:20px;font-weight:650;letter-spacing:-.005em;margin:0 0 6px}
h3,.small{font-size:15px;font-weight:650;margin:26px 0 8px}
p{margin:0 0 10px;max-width:46em}
section{border-top:1px solid var(--rule);padding:30px 0 14px;margin-top:26px}
a{color:var(--accent);text-decoration-thickness:1px;text-underline-offset:2px}
nav{display:flex;flex-wrap:wrap;gap:4px 18px;font-size:14px;margin-top:22px}${panelStyle}footer{color:var(--muted);font-size:13px;padding-top:10px;padding-bottom:48px}${tipStyle}@media(max-width:560px){h1{font-size:24px}main,header,footer{padding-left:16px;padding-right:16px}.numbers{grid-template-columns:1fr 1fr;gap:18px}.numbers .value{font-size:20px}}
@media print{@page{margin:14mm}body{font-size:11pt}nav,#tip,details{display:none}main,header,footer{max-width:none;padding:0}header{padding-top:0}section{margin-top:12px;padding-top:14px}h2,h3,.lead{break-after:avoid}.chart,table,.numbers div{break-inside:avoid}.chart,.tablewrap{overflow:visible}.tablewrap code{overflow-wrap:anywhere}.chart svg,.wide svg{max-width:100%}.samples{grid-template-columns:1fr 1fr;gap:16px}.sample blockquote{font-size:10pt}*{print-color-adjust:exact;-webkit-print-color-adjust:exact}}
`;

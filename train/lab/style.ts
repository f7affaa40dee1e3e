/** The lab's style sheet: the report's colours, light and dark, by the system or by choice. */

import { darkRules, ground, oklch, series } from '../report/charts/colors.ts';
import { panelStyle, tipStyle } from '../report/style.ts';

type Theme = 'light' | 'dark';
const variables = (theme: Theme): string =>
  [
    `color-scheme:${theme}`,
    ...Object.entries(ground).map(([name, pair]) => `--${name}:${pair[theme]}`),
    `--accent:${series[0]![theme]}`,
    `--warm:${series[1]![theme]}`,
    `--good:${theme === 'light' ? '#00734f' : series[2]!.dark}`,
    `--bad:${theme === 'light' ? '#ad4a00' : series[1]!.dark}`,
    // behind cells that are lit up, and behind the one that is picked
    `--fed:${theme === 'light' ? oklch(0.9, 0.07, 240) : oklch(0.4, 0.09, 250)}`,
    // what is lit by its gradient
    `--lamp:${theme === 'light' ? oklch(0.86, 0.14, 85) : oklch(0.45, 0.1, 70)}`,
    `--picked:${theme === 'light' ? oklch(0.9, 0.09, 80) : oklch(0.42, 0.08, 70)}`,
  ].join(';');
/** what charts, made in light colours, need in the dark */
const charts = (scope: string): string => darkRules().replaceAll('[', `${scope} [`).replaceAll(` [stroke`, ' [stroke');

export const style = `
:root{${variables('light')}}
:root[data-theme=dark]{${variables('dark')}}
${charts(':root[data-theme=dark]')}
@media(prefers-color-scheme:dark){:root:not([data-theme]){${variables('dark')}}${charts(':root:not([data-theme])')}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0;overflow-wrap:anywhere;background:var(--paper);color:var(--ink);font:15px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif;font-variant-numeric:tabular-nums}
header,main,footer{max-width:1120px;margin:0 auto;padding:0 24px}
header{padding-top:18px;border-bottom:1px solid var(--rule);padding-bottom:12px;margin-bottom:26px}
main:focus{outline:none}
.skip{position:absolute;left:-999px}.skip:focus{left:12px;top:8px;background:var(--paper);padding:6px 10px;z-index:9}
.name{margin:0 0 6px;font-size:17px;font-weight:650}.name a{color:inherit;text-decoration:none}.name .muted{font-weight:400}
nav{display:flex;flex-wrap:wrap;gap:2px 16px;font-size:15px;margin:0 0 10px}
nav a{padding:3px 0;text-decoration:none;color:var(--accent)}
nav a[aria-current]{color:var(--ink);font-weight:650;box-shadow:inset 0 -2px var(--accent)}
.settings{display:flex;flex-wrap:wrap;gap:6px 18px;align-items:center;font-size:14px}
.device{margin:0;color:var(--muted);font-size:13px;flex:1 1 260px}.device b{color:var(--ink)}
h1{font-size:28px;line-height:1.2;font-weight:650;letter-spacing:-.012em;margin:0 0 8px}
h2{font-size:20px;font-weight:650;margin:0 0 8px}
h3{font-size:15px;font-weight:650;margin:18px 0 6px}
p{margin:0 0 10px;max-width:46em}
.lead{color:var(--muted);font-size:16px}
.muted{color:var(--muted)}.right{color:var(--good)}.wrong{color:var(--bad)}
.lines{white-space:pre-line}
.mono,.formula,.code{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;font-size:13px}
.formula.large{font-size:16px}
.error{border-left:3px solid var(--warm);padding:4px 0 4px 12px;color:var(--bad);white-space:pre-wrap;font-family:ui-monospace,Menlo,Consolas,"DejaVu Sans Mono",monospace;font-size:13px}
section{border-top:1px solid var(--rule);padding:22px 0 8px;margin-top:20px}
a{color:var(--accent);text-underline-offset:2px;text-decoration-thickness:1px}
:focus-visible{outline:2px solid var(--accent);outline-offset:2px}
button,select,input{font:inherit;color:var(--ink);background:var(--paper);border:1px solid var(--rule);border-radius:4px;padding:4px 8px;max-width:100%}
button,select{cursor:pointer;min-height:30px}button:hover,select:hover{border-color:var(--muted)}
button.primary{background:var(--accent);border-color:var(--accent);color:var(--paper);font-weight:600}
input[type=range]{padding:0;accent-color:var(--accent);min-width:0;width:200px}
input[type=checkbox]{accent-color:var(--accent);width:18px;height:18px;vertical-align:-4px}
.field{max-width:100%;min-width:0;display:inline-flex;align-items:center;gap:8px;flex-wrap:wrap}.field>span:first-child{color:var(--muted)}
.bar{display:flex;flex-wrap:wrap;gap:8px 18px;align-items:center;margin-bottom:14px}
.checks{border:0;padding:0;margin:0 0 10px;display:flex;gap:6px 18px;flex-wrap:wrap}.checks legend{color:var(--muted);padding:0;margin-bottom:4px}
.code{background:var(--faint);border-radius:5px;padding:10px 12px;line-height:1.5;overflow:auto;max-height:26em;white-space:pre;margin:8px 0;tab-size:2}
details{margin:10px 0}summary{cursor:pointer;color:var(--accent);padding:3px 0}
ul.plain{padding-left:18px;margin:0}
.pages{list-style:none;padding:0;display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,300px),1fr));gap:14px 28px}
.pages li{border-top:1px solid var(--rule);padding-top:10px}.pages a{font-weight:650;font-size:17px;text-decoration:none}
.pages p{color:var(--muted);margin-top:2px}
.ops{list-style:none;padding:0;margin:14px 0;display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,330px),1fr));gap:0 28px}
.ops li{display:grid;grid-template-columns:minmax(0,1fr);padding:8px 0;border-top:1px solid var(--rule);align-content:start}
.ops li[hidden]{display:none}.ops a{font-weight:650;text-decoration:none}.ops .muted{font-size:13px}
.tensors{display:flex;flex-wrap:wrap;gap:8px 34px;align-items:flex-start}
.tensors>div{min-width:0;max-width:100%}
.tensor{margin:0 0 14px}.tensor figcaption{font-size:13px;margin-bottom:4px}
.cells{display:flex;flex-wrap:wrap;gap:8px 12px;max-width:100%;overflow-x:auto;padding:3px}
.block{border-left:2px solid var(--rule);border-right:2px solid var(--rule);border-radius:6px;padding:2px 4px}
.row{display:flex}
.cell{display:block;width:62px;height:28px;line-height:26px;padding:0 5px;text-align:right;border:1px solid transparent;border-radius:3px;font-size:13px;white-space:nowrap;overflow:hidden}
input.cell{border-color:var(--rule);background:var(--paper)}input.cell[aria-invalid=true]{border-color:var(--warm)}
span.cell{cursor:default}
.cell.picked{background:var(--picked)}.cell.fed{background:var(--fed)}
.tablewrap{overflow-x:auto;max-width:100%}
table{border-collapse:collapse;font-size:14px;margin:8px 0}
caption{text-align:left;color:var(--muted);font-size:13px;padding-bottom:4px}
th,td{text-align:left;padding:4px 18px 4px 0;border-bottom:1px solid var(--rule);vertical-align:top;overflow-wrap:break-word}th{font-weight:500}
td.n,th.n{text-align:right;white-space:nowrap}
thead th{color:var(--muted);font-size:13px}
textarea{width:100%;font:13px/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;color:var(--ink);background:var(--faint);border:1px solid var(--rule);border-radius:5px;padding:10px 12px;resize:vertical;tab-size:2;white-space:pre;overflow:auto}
.graph{overflow:auto;max-height:80vh;border:1px solid var(--rule);border-radius:5px;padding:8px;margin:10px 0;color:var(--ink)}
.graph svg{display:block}.drawing text{fill:var(--ink);font-size:11px;text-anchor:middle}
.drawing .node rect{fill:var(--paper);stroke:var(--muted)}.drawing .node.leaf rect{fill:var(--faint);stroke:var(--rule)}.drawing .node.result rect{stroke:var(--accent);stroke-width:2}
.drawing .node text.op{font-weight:650}.drawing .node text.by{fill:var(--accent)}
.drawing .edge{fill:none;stroke:var(--muted);stroke-opacity:.6}
.drawing text.start{text-anchor:start}.drawing .life rect{fill:var(--accent)}
.bar>*{min-width:0;max-width:100%}.field select{min-width:0;max-width:min(100%,34em);text-overflow:ellipsis}
.films{display:flex;flex-wrap:wrap;gap:14px 18px;align-items:flex-start;margin:12px 0}
.film{margin:0;max-width:100%}.film canvas{display:block;image-rendering:pixelated;border-radius:3px;max-width:100%;background:var(--faint)}
.film figcaption{font-size:12px;line-height:1.35;margin-top:4px;max-width:256px}
.barcell{display:inline-flex;gap:8px;align-items:center}.bargraph{display:inline-block;width:90px;height:9px;background:var(--faint);border-radius:2px}.bargraph span{display:block;height:100%;background:var(--accent);border-radius:2px}
button.link{border:0;background:none;color:var(--accent);padding:2px 0;min-height:24px;text-align:left;font:12px/1.4 ui-monospace,Menlo,Consolas,"DejaVu Sans Mono",monospace}
.modules{font-size:13px}.modules tr.picked th{box-shadow:inset 3px 0 var(--accent);padding-left:8px}.tablewrap:has(.modules){max-height:32em;overflow:auto}
tr.sum th,tr.sum td{font-weight:650}.large{font-size:17px}
.unet{display:grid;grid-template-columns:minmax(0,5fr) minmax(0,3fr) minmax(0,5fr);gap:7px 0;max-width:680px;margin:14px 0}
.unit{display:flex;flex-wrap:wrap;justify-content:space-between;gap:0 10px;width:100%;min-height:44px;align-items:center;text-align:left;font-size:14px;color:var(--ink);background:var(--paper);border:1px solid var(--rule);border-radius:6px;padding:6px 12px}
.unet.on .unit{background:color-mix(in oklab,var(--lamp) calc(var(--lit)*100%),var(--paper))}
@media(prefers-reduced-motion:no-preference){.unit{transition:background .5s var(--after)}}
.unit[aria-pressed=true]{border-color:var(--accent);box-shadow:0 0 0 1px var(--accent)}
.unit.mid{grid-column:1/-1;justify-self:center;width:60%}
.across{align-self:center;border-top:1px dashed var(--muted);color:var(--muted);font-size:12px;text-align:center;min-width:0;height:1px}
.across{position:relative}.across:empty{border:0}.across:not(:empty)::after{content:'';position:absolute;right:0;top:-4.5px;border:4px solid transparent;border-left:6px solid var(--muted);border-right:0}.across span{display:inline-block;position:relative;top:-1.5em;white-space:nowrap}
.films>div{display:grid;gap:14px;max-width:100%}.histogram{display:block;max-width:100%;border-bottom:1px solid var(--rule)}.histogram rect{fill:var(--accent)}.ends{display:flex;justify-content:space-between;font-size:12px;color:var(--muted)}
.lesson{display:grid;grid-template-columns:minmax(0,3fr) minmax(0,2fr);gap:20px}.found{list-style:none;margin:0;padding:0}.found li{border-top:1px solid var(--rule);padding:6px 0;font-size:14px}
@media(max-width:800px){.lesson{grid-template-columns:minmax(0,1fr)}}
@scope(.report){${panelStyle}}
.report{min-width:0}.report header{max-width:none;padding:0;border:0;margin:0}.report h2{max-width:32em}.report h4,.report .small{font-size:15px;font-weight:650;margin:20px 0 6px}
.beside{display:grid;grid-template-columns:minmax(0,1fr);gap:18px 36px}.beside.many{grid-template-columns:repeat(auto-fit,minmax(min(100%,480px),1fr))}.beside>div{min-width:0}
.beside.many .chart svg{max-width:none;width:760px}.beside.many .wide svg{width:auto}.runname{font-weight:650;margin:0 0 4px}
main:has(.beside.many){max-width:1900px}
${tipStyle}
.card h2{font-size:17px;margin:0 0 4px}.card{border-top:1px solid var(--rule);padding:10px 0}.drop{border:1px dashed var(--muted);border-radius:6px;padding:10px 14px;margin:0 0 14px}input[type=number]{width:92px}
.filmrow{flex-wrap:nowrap;overflow-x:auto;padding-bottom:6px}.filmrow .film{flex:0 0 auto;width:150px}
footer{color:var(--muted);font-size:13px;padding-top:30px;padding-bottom:40px}
@media(max-width:560px){header,main,footer{padding-left:16px;padding-right:16px}h1{font-size:24px}.cell{width:54px}input[type=range]{width:150px}}
`;

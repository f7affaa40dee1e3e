/** A simulated run with realistic sizes and names, for the report's tests. Deterministic; no files needed. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import sharp from 'sharp';
import { renderReport } from '../../train/report/page.ts';
import { type Compared, type ExpansionRow, parseRecord, type RunRecordInput } from '../../train/run/record.ts';

/** mulberry32: enough randomness for fixtures. */
export function randomFrom(seed: number): () => number {
  let a = seed;
  return () => {
    a = (a + 0x6d2b79f5) | 0;
    let t = Math.imul(a ^ (a >>> 15), 1 | a);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

const inner = [
  ...['attn1', 'attn2'].flatMap((a) => ['to_q', 'to_k', 'to_v', 'to_out.0'].map((p) => `${a}.${p}`)),
  'ff.net.0.proj',
  'ff.net.2',
];

const textInner = [...['k', 'v', 'q', 'out'].map((p) => `self_attn.${p}_proj`), 'mlp.fc1', 'mlp.fc2'];

/** Linear modules of a small U-Net and text encoder in SD 1.5's naming, in an order that is not the network's. */
export function smallModules(): string[] {
  const attentions = [
    'down_blocks.0',
    'down_blocks.1',
    'down_blocks.2',
    'mid_block',
    'up_blocks.0',
    'up_blocks.1',
    'up_blocks.2',
  ];
  const paths: string[] = ['unet.time_embedding.linear_1', 'unet.time_embedding.linear_2'];
  for (const block of attentions) {
    const many = block.startsWith('up') ? 2 : 1;
    for (let i = 0; i < many; i++) {
      for (const name of inner) paths.push(`unet.${block}.attentions.${i}.transformer_blocks.0.${name}`);
      paths.push(`unet.${block}.resnets.${i}.time_emb_proj`);
    }
  }
  for (let layer = 0; layer < 4; layer++) {
    for (const p of textInner) paths.push(`text_encoder.text_model.encoder.layers.${layer}.${p}`);
  }
  return paths;
}

/** The 184 + 72 linear modules of the true SD 1.5, in alphabetical order (which is not the network's). */
export function sd15Modules(): string[] {
  const attention = (block: string, n: number): string[] =>
    Array.from({ length: n }, (_, i) =>
      inner.map((name) => `${block}.attentions.${i}.transformer_blocks.0.${name}`),
    ).flat();
  const resnets = (block: string, n: number): string[] =>
    Array.from({ length: n }, (_, i) => `${block}.resnets.${i}.time_emb_proj`);
  const four = [0, 1, 2, 3];
  const unet = [
    'time_embedding.linear_1',
    'time_embedding.linear_2',
    ...four.flatMap((b) => [...attention(`down_blocks.${b}`, b < 3 ? 2 : 0), ...resnets(`down_blocks.${b}`, 2)]),
    ...attention('mid_block', 1),
    ...resnets('mid_block', 2),
    ...four.flatMap((b) => [...attention(`up_blocks.${b}`, b > 0 ? 3 : 0), ...resnets(`up_blocks.${b}`, 3)]),
  ].map((n) => `unet.${n}`);
  const text = Array.from({ length: 12 }, (_, l) =>
    textInner.map((n) => `text_encoder.text_model.encoder.layers.${l}.${n}`),
  ).flat();
  return [...unet, ...text].sort();
}

/** Simulated expansion log of `modules`: a test every `every` steps, ratio near 1 + 1/rank with noise. */
export function simulateLog(modules: readonly string[], steps: number, every: number, lambda: number): ExpansionRow[] {
  const random = randomFrom(7);
  const ranks = new Map(modules.map((m) => [m, 1]));
  const log: ExpansionRow[] = [];
  for (let step = every; step <= steps; step += every) {
    for (const module of modules) {
      const eager = module.includes('attn2') || module.includes('q_proj') ? 0.5 : 0.2;
      const ratio = 1 + (eager * random() ** 2) / ranks.get(module)! ** 0.4;
      const expanded = ratio > lambda;
      if (expanded) ranks.set(module, ranks.get(module)! + 1);
      const fiOriginal = 1e-5 * (1 + random());
      log.push({
        step,
        module,
        fiOriginal,
        fiExpanded: fiOriginal * ratio,
        ratio,
        expanded,
        rankAfter: ranks.get(module)!,
        expectedRatio: ratio * 0.98,
      });
    }
  }
  return log;
}

/** The page of a record that may leave out what has a default. */
export const render = (input: unknown, compared: readonly Compared[] = []) =>
  renderReport(parseRecord(input, compared));

/** A finished SeLoRA run of 1,200 steps without pictures. */
export function simulatedRun(): RunRecordInput {
  const random = randomFrom(1);
  const modules = smallModules();
  const expansions = simulateLog(modules, 1200, 40, 1.1);
  const last = new Map(expansions.map((e) => [e.module, e.rankAfter]));
  const metrics = Array.from({ length: 1200 }, (_, i) => {
    const step = i + 1;
    const rows = expansions.filter((e) => e.step === Math.floor(step / 40) * 40);
    const totalRank = rows.reduce((s, e) => s + e.rankAfter, 0) || modules.length;
    const loss = 0.42 * Math.exp(-step / 260) + 0.16 + 0.1 * (random() - 0.5);
    const gradNorm = 0.02 + 0.2 * Math.exp(-step / 150) + 0.01 * (step % 7);
    return { step, loss, lr: 3e-3, gradNorm, totalRank, seconds: step * 0.23, memory: 212e6 + totalRank * 4e4 };
  });
  const validationRows = Array.from({ length: 13 }, (_, i) => {
    const step = i * 100;
    const loss = 0.28 * Math.exp(-step / 330) + 0.19;
    const byTimestep = [125, 375, 625, 875, 975].map((t) => ({ t, loss: loss * (1.6 - t / 625) }));
    return { step, loss, shuffled: loss + 0.03 * (1 - Math.exp(-step / 500)), byTimestep };
  });
  return {
    name: 'phantoms-selora-1',
    method: 'selora',
    seconds: 322,
    lambda: 1.1,
    testEvery: 40,
    command: 'npm run train -- --seed 1 --steps 1200 --method selora --lambda 1.1 --test-every 40 --loss clip-snr',
    settings: {
      lr: 3e-3,
      schedule: 'cosine',
      batch: 8,
      lambda: 1.1,
      testEvery: 40,
      gainA: 0,
      scale: 1,
      targets: 'all-linear',
      lossWeight: 'clip-snr',
      captionDropout: 0.1,
      seed: 1,
      sampler: 'ddim',
      sampleSteps: 20,
      guidance: 3,
    },
    environment: [
      { label: 'backend', value: 'wasm, 2 threads' },
      { label: 'node', value: 'v20.20.2' },
      { label: 'base', value: 'models/small-base', note: 'sha256 9f2c…' },
    ],
    metrics,
    validation: { n: 256, base: { loss: 0.471, shuffled: 0.4712 } },
    validations: validationRows,
    expansions,
    modules: modules.map((path) => ({
      path,
      rank: last.get(path)!,
      dIn: 96,
      dOut: 96,
      change: 0.02 + random() * (path.includes('ff') ? 0.7 : 0.25),
      used: 1 + (last.get(path)! - 1) * 0.2,
    })),
    phases: [
      { name: 'load base', seconds: 0.8, peakBytes: 61e6 },
      { name: 'encode pictures', seconds: 14.2, calls: 400, peakBytes: 180e6 },
      { name: 'training steps', seconds: 241, calls: 1170, peakBytes: 262e6 },
      { name: 'steps with FI test', seconds: 6.9, calls: 30, peakBytes: 281e6 },
      { name: 'validation', seconds: 31, calls: 13, peakBytes: 190e6 },
      { name: 'samples', seconds: 22, calls: 12, peakBytes: 150e6 },
      { name: 'checkpoints', seconds: 1.9, calls: 6, peakBytes: 90e6 },
    ],
    data: {
      source: '480 procedural chest-film phantoms, 128 × 128, seed 1; every report determines its picture.',
      splits: [
        { name: 'train', images: 400, patients: 400, cut: 0, hash: 'c1d04a7be2f8' },
        { name: 'validation', images: 64, patients: 64, cut: 0, hash: '77a0e5b19c42' },
        { name: 'test', images: 16, patients: 16, cut: 1, hash: '04fe9921aa30' },
      ],
      duplicates: 0,
      facts: [
        { label: 'longest caption', value: '41 ids' },
        { label: 'normal films', value: '16%' },
      ],
    },
    results: {
      obedience: {
        what: 'Read off 48 held-out pictures per method by simple detectors fitted on real phantoms.',
        rows: [
          ['always normal', undefined, 52, 0, 0],
          ['untouched base', undefined, 17, 2, 5],
          ['LoRA r = 4', 132_864, 55, 14, 15],
          ['selora', 162_864, 58, 16, 15],
        ].map(([method, parameters, lung, effusion, opacity]) => ({
          method: String(method),
          ...(parameters === undefined ? {} : { parameters: Number(parameters) }),
          scores: [
            { question: 'each lung right', right: Number(lung), n: 96 },
            { question: 'effusion on the right side', right: Number(effusion), n: 26 },
            { question: 'opacity on the right side', right: Number(opacity), n: 41 },
          ],
        })),
      },
      nearest: { measure: 'L2 distance on 64 × 64 normalised pixels', threshold: 0.31, below: 0, n: 48 },
    },
    warnings: ['One seed: differences of a few percent between the methods may be chance.'],
  };
}

/**
 * A small run with `text` in every place a text can reach; its pictures lie in `folder` (see {@link folderWithPicture}),
 * the second one is missing there.
 */
export function runWith(text: string, folder: string): RunRecordInput {
  const placed = 'unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k';
  const facts = [{ label: text, value: text, note: text }];
  const expansion = { step: 2, fiOriginal: 1, fiExpanded: 2, ratio: 2, expanded: true, rankAfter: 2 };
  return {
    name: `n${text}`,
    folder,
    method: text,
    command: text || 'c',
    settings: { [`key ${text}`]: text, seed: text, sampler: text, sampleSteps: text, guidance: text },
    environment: facts,
    metrics: [1, 2, 3].map((step) => ({ step, loss: 1 / step, totalRank: 2, seconds: step, memory: 1e6 })),
    validation: { n: 4 },
    validations: [
      { step: 1, loss: 1, shuffled: 1.1 },
      { step: 3, loss: 0.5, shuffled: 0.8 },
    ],
    expansions: [
      { ...expansion, module: placed, gain: 0.3, brought: 0.28 },
      { ...expansion, module: `m${text}`, gain: 0.2, brought: 0.19 },
      { ...expansion, module: 'z', rankAfter: 1, gain: 0.1, brought: 0.12 },
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
          { label: text, file: 'samples/here.png', verdict: text, right: true },
          { label: 'missing', file: 'samples/no-such-file.png' },
        ],
      },
    ],
    phases: [{ name: text, seconds: 2 }],
    data: { source: text, splits: [{ name: text, images: 3, hash: text }], facts },
    results: {
      obedience: {
        what: text,
        rows: [
          {
            method: text,
            scores: [{ question: text, right: 1, n: 2 }],
            findings: [{ finding: text, sensitivity: { right: 1, n: 2 }, specificity: { right: 1, n: 2 } }],
          },
        ],
      },
      nearest: {
        measure: text,
        threshold: 1,
        below: 0,
        n: 3,
        pairs: [{ sample: 'samples/here.png', nearest: 'samples/here.png', distance: 2, label: text }],
      },
    },
    warnings: [text],
  };
}

/** A grey picture of 4 × 4 pixels. */
export async function greyPng(): Promise<Uint8Array> {
  const grey = sharp({ create: { width: 4, height: 4, channels: 3, background: '#777' } });
  return new Uint8Array(await grey.png().toBuffer());
}

/** A run compared with another, with `text` in every place. */
export const comparedWith = (text: string): Compared => ({
  label: text,
  method: text,
  validations: [
    { step: 1, loss: 1 },
    { step: 3, loss: 0.6 },
  ],
  results: { obedience: { what: text, rows: [{ method: text, scores: [{ question: text, right: 1, n: 2 }] }] } },
});

/** LoRA beside {@link simulatedRun}. */
export const simulatedComparison = (): Compared => ({
  label: 'LoRA r = 4',
  method: 'lora',
  parameters: 132_864,
  validations: simulatedRun().validations!.map((r) => ({ step: r.step, loss: Number(r.loss) * 0.985 + 0.004 })),
  results: {},
});

/** Writes the one picture of {@link runWith} into a folder. */
export async function folderWithPicture(folder: string): Promise<string> {
  mkdirSync(join(folder, 'samples'), { recursive: true });
  writeFileSync(join(folder, 'samples/here.png'), await greyPng());
  return folder;
}

/** Contexts of frozen text encoders: what the encoder gives, once per caption, in batches that bring them along. */
import { describe, expect, test } from 'vitest';
import { cpuBackend, evaluate, read, type Tensor } from '../../../core/index.ts';
import { idsTensor, textEncoder } from '../../../models/clip/text-encoder.ts';
import { makeSchedule, parseSchedulerConfig, SD15_SCHEDULER } from '../../../models/schedulers/index.ts';
import { resolveConfig } from '../../../train/config/resolve.ts';
import { makeContexts } from '../../../train/model/contexts.ts';
import type { Encoded } from '../../../train/model/encode.ts';
import { batchSource } from '../../../train/step/batches.ts';
import { configs, frozen } from '../../support/step-fixture.ts';

const cpu = cpuBackend();
const text = frozen('f32').text;
const length = configs.text.max_position_embeddings;
const captions = Array.from({ length: 21 }, (_, k) =>
  Int32Array.from({ length }, (_, i) => (7 * k + 3 * i) % configs.text.vocab_size),
);
const encoded = async (ids: Int32Array): Promise<number[]> =>
  Array.from(
    await read(evaluate({ c: textEncoder(text, configs.text, idsTensor([ids])).lastHiddenState }, cpu).c as Tensor),
  );

describe('contexts', () => {
  test('of every caption as the encoder makes them, however many at a time', async () => {
    const contexts = (await makeContexts(cpu, text, configs.text, [...captions, captions[0]!]))!;
    for (const some of [[captions[0]!], [captions[20]!, captions[3]!, captions[20]!]]) {
      const got = contexts(some);
      expect(got.shape).toEqual([some.length, length, configs.text.hidden_size]);
      const want = (await Promise.all(some.map(encoded))).flat();
      const values = await read(got);
      for (const [i, w] of want.entries())
        expect(Math.abs(values[i]! - w)).toBeLessThanOrEqual(1e-5 * (1 + Math.abs(w)));
    }
  });

  test('lie beside the ids of a batch: dropped captions have that of the empty text', async () => {
    const empty = Int32Array.from({ length }, () => 1);
    const contexts = (await makeContexts(cpu, text, configs.text, [empty, ...captions]))!;
    const pairs = captions.map(
      (ids, k): Encoded => ({
        id: `${k}`,
        text: '',
        ids,
        cut: false,
        mean: new Float32Array(4),
        std: new Float32Array(4),
      }),
    );
    const c = resolveConfig({ data: 'x', batch: 6, captionDropout: 0.5 });
    const schedule = makeSchedule(parseSchedulerConfig(SD15_SCHEDULER, 'scheduler_config.json'));
    const source = batchSource(c, schedule, pairs, [2, 2, 1], empty, 100, contexts);
    const seen = new Set<boolean>();
    for (const b of [source.training(0)[0]!, source.training(3)[0]!, source.validation(pairs.slice(0, 2), true)[0]!]) {
      const ids = Array.from(await read(b.ids));
      const values = Array.from(await read(b.context!));
      const each = values.length / (ids.length / length);
      for (let i = 0; i < ids.length / length; i++) {
        const own = Int32Array.from(ids.slice(i * length, (i + 1) * length));
        seen.add(own.join() === empty.join());
        const want = await encoded(own);
        for (const [j, w] of want.entries())
          expect(Math.abs(values[i * each + j]! - w)).toBeLessThanOrEqual(1e-5 * (1 + Math.abs(w)));
      }
    }
    expect(seen).toEqual(new Set([true, false]));
  });
});

/** A held-out report on its way through the untouched base: latent, noise, prediction, and what the base takes the film for. */
import { type Backend, CoreError, evaluate, fold, key, normal, read, tensor } from '../../../core/index.ts';
import { idsTensor, textContext } from '../../../models/clip/text-encoder.ts';
import { addNoise, alphaBar, predictionCoefficients, trainingTarget } from '../../../models/schedulers/index.ts';
import { toGrey } from '../../data/pictures/grey.ts';
import { decodeProgram, denoiseProgram } from '../../model/programs.ts';
import { latentOf, type Ready } from './base.ts';
import type { Numbers } from './numbers.ts';

/** A sample on its way through the model. */
export interface Looked {
  /** [h, w, c] each */
  readonly latent: Numbers;
  readonly noise: Numbers;
  readonly noisy: Numbers;
  readonly prediction: Numbers;
  readonly target: Numbers;
  /** what the model takes the picture for, decoded; grey */
  readonly picture: Float32Array;
  /** the picture through the autoencoder alone; grey */
  readonly autoencoded: Float32Array;
  readonly loss: number;
  readonly predicts: string;
}

/** What shows a sample; compiled once, as a slider asks for it again and again. */
export type Showing = {
  readonly denoise: ReturnType<typeof denoiseProgram>;
  readonly decode: ReturnType<typeof decodeProgram>;
};
export const showingOf = (base: Ready, backend: Backend): Showing => ({
  denoise: denoiseProgram(backend, base.configs.unet),
  decode: decodeProgram(backend, base.configs.vae),
});

/** @throws CoreError for a report that is not there */
export async function lookAt(
  base: Ready,
  backend: Backend,
  showing: Showing,
  report: number,
  t: number,
  seed: number,
): Promise<Looked> {
  const pair = base.pairs[report];
  if (!pair) throw new CoreError(`there is no report ${report}`);
  const latent = latentOf(base);
  const shape = [1, ...latent];
  const { denoise, decode } = showing;
  const drawn = evaluate(normal(fold(key(seed), report), shape), backend);
  const noise = (await read(drawn)) as Float32Array;
  const z = pair.mean;
  const noisy = addNoise(base.schedule, z, noise, [t]) as Float32Array;
  const target = trainingTarget(base.schedule, z, noise, [t]) as Float32Array;
  const context = textContext(base.frozen.text, base.configs.textEncoder, idsTensor([pair.ids], 1));
  const predicted = denoise(base.frozen.unet, tensor(noisy, shape), tensor([t]), evaluate(context, backend));
  const prediction = (await read(predicted)) as Float32Array;
  const predicts = base.schedule.config.prediction_type;
  const signal = alphaBar(base.schedule, t);
  const { x0 } = predictionCoefficients(predicts, Math.sqrt(signal), Math.sqrt(1 - signal));
  const clean = noisy.map((x, i) => x0[0] * prediction[i]! + x0[1] * x);
  const grey = async (values: Float32Array) => toGrey(await read(decode(base.vae, tensor(values, shape))));
  const as = (values: ArrayLike<number>): Numbers => ({
    shape: latent,
    dtype: 'f32',
    values: Array.from(values),
  });
  const loss = prediction.reduce((s, x, i) => s + (x - target[i]!) ** 2, 0) / prediction.length;
  return {
    latent: as(z),
    noise: as(noise),
    noisy: as(noisy),
    prediction: as(prediction),
    target: as(target),
    picture: await grey(clean),
    autoencoded: await grey(z),
    loss,
    predicts,
  };
}

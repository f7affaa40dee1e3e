/** CLIP's text encoder (Radford et al. 2021; transformers `CLIPTextModel`): a causal transformer over 77 tokens. */
import {
  add,
  asFloat,
  attention,
  cast,
  concat,
  equal,
  gather,
  iota,
  max,
  mul,
  reshape,
  ShapeError,
  select,
  slice,
  sub,
  type Tensor,
  tensor,
} from '../../core/index.ts';
import {
  constant,
  type Embedding,
  embedding,
  embeddingSpec,
  gaussian,
  gelu,
  type Linear,
  layerNorm,
  linear,
  linearSpec,
  type Norm,
  normSpec,
  type Param,
  quickGelu,
} from '../../nn/index.ts';
import type { TextEncoderConfig } from '../config.ts';

/** transformers `CLIPEncoderLayer`. */
export type ClipLayer<T = Tensor> = {
  readonly self_attn: {
    readonly k_proj: Linear<T>;
    readonly v_proj: Linear<T>;
    readonly q_proj: Linear<T>;
    readonly out_proj: Linear<T>;
  };
  readonly layer_norm1: Norm<T>;
  readonly mlp: { readonly fc1: Linear<T>; readonly fc2: Linear<T> };
  readonly layer_norm2: Norm<T>;
};

/** transformers `CLIPTextModel`. */
export type TextEncoder<T = Tensor> = {
  /** embeddings, layers and the last norm, under the name of the checkpoints */
  readonly text_model: {
    readonly embeddings: { readonly token_embedding: Embedding<T>; readonly position_embedding: Embedding<T> };
    readonly encoder: { readonly layers: readonly ClipLayer<T>[] };
    readonly final_layer_norm: Norm<T>;
  };
};

/** What both towers' layers are made of. */
export type ClipSizes = Pick<
  TextEncoderConfig,
  'hidden_size' | 'intermediate_size' | 'num_hidden_layers' | 'num_attention_heads' | 'hidden_act' | 'layer_norm_eps'
>;

/** Names and shapes of a tower's layers. */
export function clipLayersSpec(c: ClipSizes): readonly ClipLayer<Param>[] {
  const d = c.hidden_size;
  const linearOf = (inputs: number, outputs: number, std: number) =>
    linearSpec(inputs, outputs, { init: gaussian(std), biasInit: constant(0) });
  // branches that end on the residual stream start smaller the more of them there are
  const branch = d ** -0.5 * (2 * c.num_hidden_layers) ** -0.5;
  const layer = (): ClipLayer<Param> => ({
    self_attn: {
      k_proj: linearOf(d, d, branch),
      v_proj: linearOf(d, d, branch),
      q_proj: linearOf(d, d, branch),
      out_proj: linearOf(d, d, d ** -0.5),
    },
    layer_norm1: normSpec(d),
    mlp: { fc1: linearOf(d, c.intermediate_size, (2 * d) ** -0.5), fc2: linearOf(c.intermediate_size, d, branch) },
    layer_norm2: normSpec(d),
  });
  return Array.from({ length: c.num_hidden_layers }, layer);
}

/** Names, shapes and CLIP's own starting values (transformers `CLIPPreTrainedModel._init_weights`). */
export function textEncoderSpec(c: TextEncoderConfig): TextEncoder<Param> {
  const d = c.hidden_size;
  return {
    text_model: {
      embeddings: {
        token_embedding: embeddingSpec(c.vocab_size, d, 0.02),
        position_embedding: embeddingSpec(c.max_position_embeddings, d, 0.02),
      },
      encoder: { layers: clipLayersSpec(c) },
      final_layer_norm: normSpec(d),
    },
  };
}

/** What `textEncoder` makes of ids[n, t]; d is `hidden_size`. */
export type TextEncoding = {
  /** after the final norm: the U-Net's context [n, t, d] */
  readonly lastHiddenState: Tensor;
  /** the last hidden state at the end token [n, d] */
  readonly poolerOutput: Tensor;
  /** embeddings, then the result of every layer before the final norm: [n, t, d] each */
  readonly hiddenStates: readonly Tensor[];
};

/**
 * Token ids[n, t] (i32, t ≤ max_position_embeddings) → hidden states. What is not used is not computed.
 * @throws ShapeError for a longer sequence
 * @example textEncoder(params, config, tensor(Int32Array.from(ids), [1, 77])).lastHiddenState
 */
export function textEncoder(p: TextEncoder, config: TextEncoderConfig, ids: Tensor): TextEncoding {
  const { embeddings, encoder, final_layer_norm } = p.text_model;
  const length = ids.shape[1];
  if (ids.shape.length !== 2 || length! > config.max_position_embeddings)
    throw new ShapeError(`text encoder: ids [${ids.shape}], expected [n, at most ${config.max_position_embeddings}]`);
  const positions = asFloat(slice(embeddings.position_embedding.weight, { axis: 0, stop: length! }));
  let h = add(embedding(embeddings.token_embedding, ids), positions);
  const hiddenStates = [h];
  for (const layer of encoder.layers) {
    h = clipLayer(layer, config, h, true);
    hiddenStates.push(h);
  }
  const lastHiddenState = layerNorm(final_layer_norm, h, config.layer_norm_eps);
  return { lastHiddenState, poolerOutput: pool(lastHiddenState, ids), hiddenStates };
}

/** Ids of texts as `textContext` takes them: [n, t], or in k chunks [n, k, t]. */
export function idsTensor(ids: readonly Int32Array[], chunks = 1): Tensor {
  const each = ids[0]?.length ?? 0;
  const all = new Int32Array(ids.length * each);
  for (const [i, one] of ids.entries()) all.set(one, i * each);
  return tensor(all, chunks === 1 ? [ids.length, each] : [ids.length, chunks, each / chunks]);
}

/**
 * The U-Net's context of texts. ids[n, t] → [n, t, d]; of texts in chunks, ids[n, k, t] → [n, k·(t − 2) + 2, d]: every chunk
 * is encoded by itself with its own start and end, and their hidden states follow one another, of the starts only the first
 * and of the ends only the last (as kohya's scripts do for `--max_token_length` 150 and 225).
 */
export function textContext(p: TextEncoder, config: TextEncoderConfig, ids: Tensor): Tensor {
  if (ids.shape.length !== 3) return textEncoder(p, config, ids).lastHiddenState;
  const [n, k, t] = ids.shape as [number, number, number];
  const flat = textEncoder(p, config, reshape(ids, [n * k, t])).lastHiddenState;
  const d = flat.shape[2]!;
  const all = reshape(flat, [n, k * t, d]);
  const inner = slice(reshape(flat, [n, k, t, d]), { axis: 2, start: 1, stop: t - 1 });
  return concat(
    [slice(all, { axis: 1, stop: 1 }), reshape(inner, [n, k * (t - 2), d]), slice(all, { axis: 1, start: k * t - 1 })],
    1,
  );
}

/** x[n, t, d] → [n, t, d]: self-attention (causal for texts) and MLP, each after a norm, each added. */
export function clipLayer(p: ClipLayer, c: ClipSizes, x: Tensor, causal: boolean): Tensor {
  const { q_proj, k_proj, v_proj, out_proj } = p.self_attn;
  const y = layerNorm(p.layer_norm1, x, c.layer_norm_eps);
  const heads = c.num_attention_heads;
  const mixed = attention(linear(q_proj, y), linear(k_proj, y), linear(v_proj, y), { heads, causal });
  const h = add(x, linear(out_proj, mixed));
  const activation = c.hidden_act === 'quick_gelu' ? quickGelu : gelu;
  const z = linear(p.mlp.fc1, layerNorm(p.layer_norm2, h, c.layer_norm_eps));
  return add(h, linear(p.mlp.fc2, activation(z)));
}

/** The row of each text at the first position of its largest id, which is the end token. */
function pool(x: Tensor, ids: Tensor): Tensor {
  const [n, t, d] = x.shape as [number, number, number];
  const values = cast(ids, 'f32'); // exact below 2²⁴
  const isLargest = equal(values, max(values, 1, true));
  // the first of several: the largest of (t − position) among them
  const fromEnd = max(select(isLargest, sub(t, iota([n, t], 1)), 0), 1);
  const row = add(mul(iota([n]), t), sub(t, fromEnd));
  return gather(reshape(x, [n * t, d]), cast(row, 'i32'));
}

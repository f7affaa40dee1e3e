/** A method's settings as fields with their words, and those that several methods share. */
import { z } from 'zod';

/** What is told of a setting: what it does, under which heading of `--help`, and what stands for its value there. */
export type Words = {
  readonly help: string;
  readonly group: 'Model and adapters' | 'Growth of ranks';
  readonly value?: string;
};
/** A field with its words. */
export const told = <S extends z.ZodType>(field: S, words: Words): S => field.meta(words) as S;

const group = 'Model and adapters';
export const rank = told(z.int().min(0).max(1024).default(1), {
  group,
  help: 'rank at the start (selora; 0 with --criterion gain) or for good (lora)',
});
export const ranks = told(z.string().min(1).max(10_000).nullable().default(null), {
  group,
  value: 'list',
  help: 'ranks by hand where they differ, the last match counts: **.attn2.**=4,text.**=2',
});
export const scale = told(z.number().gt(0).max(1e3).default(1), {
  group,
  value: 's',
  help: 'the constant s of W0 + s·A·B',
});
export const budgetParameters = told(z.int().min(1).max(1e12).nullable().default(null), {
  group: 'Growth of ranks',
  help: "most parameters of all adapters (criterion gain; default: LoRA's of rank 4 on the linear layers), or what fisher-ranks and gora deal out as ranks (default: as many ranks as --rank has in all)",
});
export const gainA = told(z.number().min(0).max(100).default(0), {
  group,
  value: 'a',
  help: 'Kaiming slope of A and K: 0 (the authors) or 2.236 (PEFT)',
});

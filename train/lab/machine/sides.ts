/** The two methods that stand side by side on page “Train here”: ranks that grow beside one that stays. */
export const [GROWING, FIXED] = ['selora', 'lora'] as const;
export type Side = typeof GROWING | typeof FIXED;

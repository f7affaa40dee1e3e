/** Names that a mistyped one may have meant. */

/** Least number of insertions, deletions, replacements and swaps of neighbours that turn a into b. Cost: |a|·|b|. */
export function editDistance(a: string, b: string): number {
  const d = Array.from({ length: a.length + 1 }, (_, i) => Array.from({ length: b.length + 1 }, (_, j) => i || j));
  for (let i = 1; i <= a.length; i++)
    for (let j = 1; j <= b.length; j++) {
      const replaced = d[i - 1][j - 1] + (a[i - 1] === b[j - 1] ? 0 : 1);
      const swapped = i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1] ? d[i - 2][j - 2] + 1 : replaced;
      d[i][j] = Math.min(d[i - 1][j] + 1, d[i][j - 1] + 1, replaced, swapped);
    }
  return d[a.length][b.length];
}

/** Up to `limit` names close to `word`: by letters, or because one holds the other. */
export function nearNames(word: string, names: readonly string[], limit = 5): readonly string[] {
  const lower = word.slice(0, 64).toLowerCase();
  const scored = names.map((name) => {
    const other = name.toLowerCase();
    const inside = lower.length > 2 && (other.includes(lower) || lower.includes(other)) ? 1 : 0;
    return { name, distance: editDistance(lower, other) - 3 * inside, inside };
  });
  const close = scored.filter(({ distance, inside }) => inside > 0 || distance <= Math.max(2, lower.length / 3));
  return close
    .sort((a, b) => a.distance - b.distance || (a.name < b.name ? -1 : 1))
    .slice(0, limit)
    .map(({ name }) => name);
}

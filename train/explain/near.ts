/** Names that a mistyped one may have meant. */

/** Least number of insertions, deletions and replacements that turn a into b (Levenshtein). Cost: |a|·|b|. */
export function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++)
      next[j] = Math.min(next[j - 1] + 1, row[j] + 1, row[j - 1] + (a[i - 1] === b[j - 1] ? 0 : 1));
    row = next;
  }
  return row[b.length];
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

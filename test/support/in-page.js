/** What tests ask inside a browser: plain JavaScript, evaluated in the page. `checks.NAME()` */
globalThis.checks = {
  /** What sticks out of a page of so many pixels, and the narrowest cells of its tables. */
  fits(width) {
    for (const d of document.querySelectorAll('details')) d.open = true;
    const html = (list) => list.map((e) => e.outerHTML.slice(0, 120));
    const framed = (e) => e.closest('.chart, .tablewrap, .code, .cells, .graph, #tip, svg');
    const out = [...document.body.querySelectorAll('*')].filter(
      (e) => !framed(e) && e.getBoundingClientRect().right > width + 0.5,
    );
    const cells = [...document.querySelectorAll('th, td')].filter((e) => !e.closest('#tip'));
    const narrow = cells.filter((e) => e.getBoundingClientRect().width < 60);
    return { width: document.documentElement.scrollWidth, out: html(out), narrow: html(narrow), cells: cells.length };
  },

  /** The module of the cell that has the focus. */
  focused: () => document.activeElement?.getAttribute('data-module') ?? '',

  /** The tooltip's text without spaces; undefined where it is hidden. */
  tip() {
    const tip = document.getElementById('tip');
    return tip.hidden ? undefined : tip.textContent.replace(/\s/g, '');
  },

  /** Maps, and cells that are a stop of the Tab key. */
  stops: () => [
    document.querySelectorAll('svg:has([data-module])').length,
    document.querySelectorAll('[data-module][tabindex="0"]').length,
  ],

  /** For each map: cells that the arrow keys lead to from its first one, and all there are. */
  reached: () =>
    [...document.querySelectorAll('svg:has([data-module])')].map((map) => {
      const cells = map.querySelectorAll('[data-module]');
      const seen = new Set([cells[0]]);
      for (const cell of seen)
        for (const key of ['ArrowLeft', 'ArrowRight', 'ArrowUp', 'ArrowDown']) {
          cell.focus();
          cell.dispatchEvent(new KeyboardEvent('keydown', { key, bubbles: true, cancelable: true }));
          seen.add(document.activeElement);
        }
      return [seen.size, cells.length];
    }),

  /** Words of visible text that stand on two lines, and those that reach beyond so many pixels. */
  words(width) {
    const [cut, off] = [[], []];
    let words = 0;
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    for (let node = walker.nextNode(); node; node = walker.nextNode()) {
      const parent = node.parentElement;
      if (parent.closest('script, style, pre, title, desc, #tip') || !parent.checkVisibility()) continue;
      for (const { 0: word, index } of node.textContent.matchAll(/[\p{L}\d\u202f]{2,24}/gu)) {
        const range = document.createRange();
        range.setStart(node, index);
        range.setEnd(node, index + word.length);
        words++;
        if (new Set([...range.getClientRects()].map((r) => Math.round(r.top))).size > 1) cut.push(word);
        if (range.getBoundingClientRect().right > width + 0.5) off.push(word);
      }
    }
    return { words, cut, off };
  },
};

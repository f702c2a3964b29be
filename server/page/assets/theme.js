// Light, dark, or as the system has it. Loaded before the page is drawn, so that it never flashes.
"use strict";

(() => {
  const KEY = "edge-llm.theme";
  const THEMES = ["system", "light", "dark"];

  function read() {
    try {
      const kept = localStorage.getItem(KEY);
      return THEMES.includes(kept) ? kept : "system";
    } catch {
      return "system"; // a browser that keeps nothing
    }
  }

  function apply(theme) {
    document.documentElement.dataset.theme = theme;
  }

  function next() {
    const theme = THEMES[(THEMES.indexOf(document.documentElement.dataset.theme) + 1) % 3];
    try {
      localStorage.setItem(KEY, theme);
    } catch {
      // Then it holds until the page is closed.
    }
    apply(theme);
    return theme;
  }

  apply(read());
  globalThis.edgeTheme = { next, current: () => document.documentElement.dataset.theme };
})();

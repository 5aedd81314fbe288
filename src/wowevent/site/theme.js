// Light or dark, before anything is drawn: a script of its own, since the page may hold none.
"use strict";

try {
  const chosen = localStorage.getItem("wowevent.theme");
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
} catch {
  // A browser that keeps nothing follows the system.
}

// Before anything is drawn: the theme that was chosen, else the system's.
let chosen = null;
try {
  chosen = localStorage.getItem("theme");
} catch { /* a frame that keeps nothing */ }
document.documentElement.dataset.theme = chosen || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");

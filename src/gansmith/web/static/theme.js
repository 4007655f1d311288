// Before anything is drawn: the theme that was chosen, else the system's.
try {
  const chosen = localStorage.getItem("theme");
  if (chosen) document.documentElement.dataset.theme = chosen;
} catch { /* a frame that keeps nothing */ }

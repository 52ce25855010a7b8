(function () { // the theme that was chosen on this page, else the system's
  var stored = null;
  try { stored = localStorage.getItem("moeprof-theme"); } catch (error) { /* no storage: the system decides */ }
  var dark = window.matchMedia && matchMedia("(prefers-color-scheme: dark)").matches;
  document.documentElement.dataset.theme = stored === "dark" || stored === "light" ? stored : dark ? "dark" : "light";
})();

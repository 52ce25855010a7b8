// Draws the figures, follows the theme and keeps the reader's choice of it.
(function () {
  "use strict";
  var CONFIG = { displaylogo: false, responsive: true, showSendToCloud: false, showTips: false, modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"] };
  var PAPER = 660; // pixels of A4 between its margins
  var root = document.documentElement, colours = document.getElementById("dark-colours");
  var toDark = colours ? JSON.parse(colours.textContent) : {};

  function colour(name) {
    return getComputedStyle(root).getPropertyValue(name).trim();
  }

  function recoloured(value) { // a copy with the dark colour of each light one
    if (typeof value === "string") return toDark[value] || value;
    if (Array.isArray(value)) return value.map(recoloured);
    if (value === null || typeof value !== "object") return value;
    var out = {};
    Object.keys(value).forEach(function (key) { out[key] = recoloured(value[key]); });
    return out;
  }

  function themed(layout) {
    var axis = { gridcolor: colour("--grid"), linecolor: colour("--line"), zerolinecolor: colour("--line"), automargin: true };
    var out = Object.assign({ uirevision: "page" }, layout);
    out.paper_bgcolor = out.plot_bgcolor = "rgba(0,0,0,0)";
    out.font = { family: getComputedStyle(document.body).fontFamily, size: 12.5, color: colour("--ink") };
    out.margin = Object.assign({ l: 12, r: 16, t: 24, b: 44 }, layout.margin);
    out.hoverlabel = { bgcolor: colour("--raised"), bordercolor: colour("--line"), font: { color: colour("--ink") } };
    out.modebar = { bgcolor: "rgba(0,0,0,0)", color: colour("--soft"), activecolor: colour("--ink") };
    Object.keys(layout).concat(["xaxis", "yaxis"]).forEach(function (key) {
      if (/^[xy]axis\d*$/.test(key)) out[key] = Object.assign({}, axis, layout[key]);
    });
    return out;
  }

  function narrow(layout) {
    if (window.innerWidth > 640) return layout;
    layout.font.size = 11;
    layout.margin = Object.assign({}, layout.margin, { l: 6, r: layout.margin.r === 16 ? 6 : layout.margin.r });
    return layout;
  }

  var figures = Array.prototype.map.call(document.querySelectorAll(".figure"), function (box) {
    var id = box.id.replace("figure-", ""), spec = JSON.parse(document.getElementById("data-" + id).textContent);
    return { box: box, light: spec, dark: recoloured(spec) };
  });

  function draw(figure) {
    var spec = root.dataset.theme === "dark" ? figure.dark : figure.light;
    figure.drawn = true;
    Plotly.react(figure.box, spec.data, narrow(themed(spec.layout)), Object.assign({ displayModeBar: window.innerWidth > 640 ? "hover" : false }, CONFIG));
  }

  function drawn() { // those that are folded away are drawn when they are opened
    figures.forEach(function (figure) { if (figure.box.offsetParent !== null || figure.drawn) draw(figure); });
  }

  function choose(theme) {
    if (root.dataset.theme === theme) return;
    root.dataset.theme = theme;
    drawn();
  }

  document.getElementById("theme").addEventListener("click", function () {
    choose(root.dataset.theme === "dark" ? "light" : "dark");
    try { localStorage.setItem("moeprof-theme", root.dataset.theme); } catch (error) { /* no storage: the choice lasts as long as the page */ }
  });
  if (window.matchMedia) matchMedia("(prefers-color-scheme: dark)").addEventListener("change", function (event) {
    var stored = null;
    try { stored = localStorage.getItem("moeprof-theme"); } catch (error) { /* no storage: the system decides */ }
    if (!stored) choose(event.matches ? "dark" : "light");
  });
  document.addEventListener("toggle", function (event) {
    if (event.target.open) figures.forEach(function (figure) { if (!figure.drawn && event.target.contains(figure.box)) draw(figure); });
  }, true);
  window.addEventListener("beforeprint", function () { // figures are as wide as the screen's page: draw them as wide as the paper
    figures.forEach(function (figure) {
      for (var fold = figure.box.closest("details"); fold; fold = fold.parentElement.closest("details")) fold.open = true;
      if (!figure.drawn) draw(figure);
      Plotly.relayout(figure.box, { width: PAPER });
    });
  });
  window.addEventListener("afterprint", function () { figures.forEach(function (figure) { Plotly.relayout(figure.box, { width: null, autosize: true }); }); });
  drawn();
  root.dataset.drawn = String(figures.length);
})();

// Draws the figures, follows the theme, and falls back to SVG lines where the browser has no WebGL.
(function () {
  "use strict";
  var CONFIG = { displaylogo: false, responsive: true, showSendToCloud: false, modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"] };

  function webgl() {
    try {
      var canvas = document.createElement("canvas");
      return !!(canvas.getContext("webgl2") || canvas.getContext("webgl"));
    } catch (error) {
      return false;
    }
  }

  function colour(name) {
    return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  }

  function themed(layout) {
    var axis = { gridcolor: colour("--grid"), linecolor: colour("--line"), zerolinecolor: colour("--line"), automargin: true };
    var out = Object.assign({}, layout);
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
    layout.margin = Object.assign({}, layout.margin, { l: 6, r: 6 });
    return layout;
  }

  function drawable(data, hasWebgl) {
    if (hasWebgl) return data;
    return data.map(function (trace) {
      return trace.type === "scattergl" ? Object.assign({}, trace, { type: "scatter" }) : trace;
    });
  }

  var hasWebgl = webgl();
  var figures = Array.prototype.map.call(document.querySelectorAll(".figure"), function (box) {
    var id = box.id.replace("figure-", "");
    return { box: box, spec: JSON.parse(document.getElementById("data-" + id).textContent) };
  });

  function draw() {
    figures.forEach(function (figure) {
      var layout = narrow(themed(figure.spec.layout));
      Plotly.react(figure.box, drawable(figure.spec.data, hasWebgl), layout, CONFIG);
    });
  }

  document.getElementById("theme").addEventListener("click", function () {
    var root = document.documentElement;
    root.dataset.theme = root.dataset.theme === "dark" ? "light" : "dark";
    draw();
  });
  draw();
  document.documentElement.dataset.drawn = String(figures.length);
})();

// What moves on a page besides its figures: sorted tables, kernels marked in the timeline, the icicle, contents, words.
(function () {
  "use strict";
  var UNITS = { ns: 1, "µs": 1e3, ms: 1e6, s: 1e9, B: 1, kB: 1e3, MB: 1e6, GB: 1e9, "%": 1, "×": 1 };

  function each(selector, act, within) { Array.prototype.forEach.call((within || document).querySelectorAll(selector), act); }

  function node(tag, attributes, parent) {
    var made = document.createElement(tag);
    Object.keys(attributes).forEach(function (key) { if (key === "text") made.textContent = attributes[key]; else made.setAttribute(key, attributes[key]); });
    if (parent) parent.appendChild(made);
    return made;
  }

  // Tables: a click on a header sorts

  function value(cell) { // a number with its unit, else the text; a dash comes last
    var text = cell.textContent.trim(), match = /^([−+±-]?)([\d,]*\.?\d+)\s*(\S+)?/.exec(text);
    if (!match || (match[3] && !(match[3] in UNITS))) return text === "–" ? -Infinity : text;
    return (match[1] === "−" || match[1] === "-" ? -1 : 1) * Number(match[2].replace(/,/g, "")) * (UNITS[match[3]] || 1);
  }

  function sort(table, column, descending) {
    var body = table.tBodies[0], rows = Array.prototype.map.call(body.rows, function (row, place) { return { row: row, key: value(row.cells[column]), place: place }; });
    rows.sort(function (a, b) {
      var text = typeof a.key === "string" || typeof b.key === "string";
      var order = text ? String(a.key).localeCompare(String(b.key)) : a.key - b.key;
      return (descending ? -order : order) || a.place - b.place;
    });
    rows.forEach(function (entry) { body.appendChild(entry.row); });
  }

  each("table.sortable", function (table) {
    var heads = table.tHead.rows[0].cells;
    Array.prototype.forEach.call(heads, function (head, column) {
      var button = node("button", { type: "button", text: head.textContent });
      head.textContent = "";
      head.appendChild(button);
      button.addEventListener("click", function () {
        var now = head.getAttribute("aria-sort"), first = typeof value(table.tBodies[0].rows[0].cells[column]) === "string" ? "ascending" : "descending";
        var next = !now ? first : now === "descending" ? "ascending" : "descending";
        Array.prototype.forEach.call(heads, function (other) { other.removeAttribute("aria-sort"); });
        head.setAttribute("aria-sort", next);
        sort(table, column, next === "descending");
      });
    });
  });

  // Kernels: a click on a name marks the kernel in the timelines

  var marked = null;
  function mark(name) {
    marked = marked === name ? null : name;
    each("figure.timeline", function (figure) { figure.dispatchEvent(new CustomEvent("timeline:mark", { detail: marked === null ? null : { name: marked } })); });
    each("table.marks tbody tr", function (row) {
      var chosen = marked !== null && row.dataset.name === marked;
      row.classList.toggle("chosen", chosen);
      row.querySelector("th button").setAttribute("aria-pressed", String(chosen));
    });
  }

  if (document.querySelector("figure.timeline")) each("table.marks tbody tr", function (row) {
    var head = row.cells[0], full = head.title, button = node("button", { type: "button", text: head.textContent, "aria-pressed": "false" });
    row.dataset.name = head.textContent;
    head.textContent = "";
    head.appendChild(button);
    if (full) { button.title = full; head.removeAttribute("title"); }
    button.addEventListener("click", function () { mark(row.dataset.name); });
  });

  // Places in the timeline: show the figure, too

  document.addEventListener("click", function (event) {
    var link = event.target.closest && event.target.closest("a[href^='#t=']"), figure = document.querySelector("figure.timeline");
    if (link && figure) figure.scrollIntoView({ block: "start" });
  });

  function roving(group, selector) { // one stop of the tab key; arrows move within
    group.addEventListener("keydown", function (event) {
      var step = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 }[event.key], all = Array.prototype.slice.call(group.querySelectorAll(selector));
      var next = all[all.indexOf(document.activeElement) + step];
      if (!step || !next) return;
      event.preventDefault();
      all.forEach(function (one) { one.tabIndex = one === next ? 0 : -1; });
      next.focus();
    });
  }
  each(".passes, .heat", function (group) { roving(group, "a"); });

  // Icicle

  function duration(ns) { return ns >= 1e6 ? (ns / 1e6).toFixed(ns >= 1e7 ? 2 : 3) + " ms" : (ns / 1e3).toFixed(2) + " µs"; }
  function share(part, whole) { return (100 * part / (whole || 1)).toFixed(1) + " %"; }

  function Icicle(box) {
    var rows = JSON.parse(box.querySelector("script").textContent), nodes = rows.map(function (row, i) { return { id: i, name: row[0], kind: row[1], up: row[2], n: row[3], ns: row[4], below: [] }; });
    nodes.forEach(function (one) { if (one.up >= 0) nodes[one.up].below.push(one); one.depth = one.up >= 0 ? nodes[one.up].depth + 1 : 0; });
    var zoomed = nodes[0], deepest = Math.max.apply(null, nodes.map(function (one) { return one.depth; })), current = 0;
    var detail = node("p", { "class": "icicle-detail", "aria-live": "polite" });
    box.after(detail);

    function told(one) { return one.name + ": " + duration(one.ns) + ", " + share(one.ns, nodes[0].ns) + " of GPU time" + (one.kind === "all" ? "" : ", " + one.n.toLocaleString("en") + (one.n === 1 ? " time" : " times")); }
    function above(one) { var list = []; while (one) { list.push(one); one = nodes[one.up]; } return list; }

    function draw(focus) {
      var height = box.clientWidth < 560 ? 30 : 24, width = box.clientWidth || 1;
      box.querySelectorAll("button").forEach(function (old) { old.remove(); });
      var path = above(zoomed), shown = [];
      path.forEach(function (one) { shown.push([one, 0, 1]); });
      (function spread(one, left, right) {
        var at = left;
        one.below.forEach(function (child) {
          var end = at + (right - left) * child.ns / (one.ns || 1);
          if ((end - at) * width >= 2) { shown.push([child, at, end]); spread(child, at, end); }
          at = end;
        });
      })(zoomed, 0, 1);
      shown.sort(function (a, b) { return a[0].depth - b[0].depth || a[1] - b[1]; });
      var bottom = 0;
      shown.forEach(function (entry) {
        var one = entry[0], kind = one !== zoomed && path.indexOf(one) >= 0 ? "ancestor" : one.kind + (one.kind === "range" && one.depth % 2 ? " odd" : "");
        var button = node("button", { type: "button", "class": kind, text: one.name, title: told(one), "aria-label": told(one), "data-id": String(one.id) }, box);
        button.style.left = 100 * entry[1] + "%"; button.style.width = 100 * (entry[2] - entry[1]) + "%"; button.style.top = one.depth * height + "px";
        button.tabIndex = -1;
        bottom = Math.max(bottom, one.depth);
      });
      box.style.height = (bottom + 1) * height + "px";
      if (!box.querySelector('[data-id="' + current + '"]')) current = zoomed.id;
      var stop = box.querySelector('[data-id="' + current + '"]');
      stop.tabIndex = 0;
      if (focus) stop.focus();
      detail.textContent = told(zoomed);
    }

    function zoom(one) { zoomed = one; current = one.id; draw(true); }
    function go(id) { var old = box.querySelector('[data-id="' + current + '"]'), next = box.querySelector('[data-id="' + id + '"]'); if (!next) return; if (old) old.tabIndex = -1; current = id; next.tabIndex = 0; next.focus(); }

    box.addEventListener("click", function (event) { var hit = event.target.closest("button"); if (hit) zoom(nodes[hit.dataset.id]); });
    box.addEventListener("focusin", function (event) { if (event.target.dataset.id) detail.textContent = told(nodes[event.target.dataset.id]); });
    box.addEventListener("mouseover", function (event) { if (event.target.dataset.id) detail.textContent = told(nodes[event.target.dataset.id]); });
    box.addEventListener("keydown", function (event) {
      var one = nodes[current], level = one.up < 0 ? [one] : nodes[one.up].below, place = level.indexOf(one);
      if (event.key === "ArrowDown" && one.below.length) go(one.below[0].id);
      else if (event.key === "ArrowUp" && one.up >= 0) go(one.up);
      else if (event.key === "ArrowRight" && level[place + 1]) go(level[place + 1].id);
      else if (event.key === "ArrowLeft" && level[place - 1]) go(level[place - 1].id);
      else if (event.key === "Escape") { current = 0; zoom(nodes[0]); }
      else return;
      event.preventDefault();
    });
    if (window.ResizeObserver) { var width = 0; new ResizeObserver(function () { if (box.clientWidth !== width) { width = box.clientWidth; draw(false); } }).observe(box); }
    draw(false);
    box.dataset.levels = String(deepest + 1);
  }
  each(".icicle", Icicle);

  // Contents: open where there is room, the section in view is marked, a folded section opens when it is asked for

  var contents = document.querySelector(".contents details"), wide = window.matchMedia("(min-width: 900px)");
  if (contents) {
    var links = {};
    each(".contents a", function (link) { links[link.hash.slice(1)] = link; link.addEventListener("click", function () { if (!wide.matches) contents.open = false; }); });
    contents.open = wide.matches;
    wide.addEventListener("change", function () { contents.open = wide.matches; });
    if (window.IntersectionObserver) {
      var seen = {};
      var watch = new IntersectionObserver(function (entries) {
        entries.forEach(function (entry) { seen[entry.target.id] = entry.isIntersecting; });
        var first = Object.keys(links).find(function (id) { return seen[id]; });
        Object.keys(links).forEach(function (id) { if (id === first) links[id].setAttribute("aria-current", "true"); else links[id].removeAttribute("aria-current"); });
      }, { rootMargin: "-60px 0px -50% 0px" });
      Object.keys(links).forEach(function (id) { var target = document.getElementById(id); if (target) watch.observe(target); });
    }
  }
  function unfold() {
    var target = location.hash.length > 1 && document.getElementById(location.hash.slice(1)), inside = target && target.querySelector(":scope > details.folded");
    if (inside) inside.open = true;
  }
  window.addEventListener("hashchange", unfold);
  unfold();

  // Tables wider than the page say so; words open their meaning beside them

  function sideways() { each(".scroll", function (box) { box.classList.toggle("sideways", box.scrollWidth > box.clientWidth + 2); }); }
  window.addEventListener("resize", sideways);
  document.addEventListener("toggle", sideways, true);
  sideways();

  each(".definition", function (box) {
    box.addEventListener("toggle", function (event) {
      var word = event.newState === "open" && document.activeElement;
      if (!word || !word.classList.contains("term")) return;
      var at = word.getBoundingClientRect();
      box.style.margin = "0";
      box.style.left = Math.max(8, Math.min(at.left, innerWidth - box.offsetWidth - 8)) + "px";
      box.style.top = (at.bottom + box.offsetHeight + 14 > innerHeight ? Math.max(8, at.top - box.offsetHeight - 6) : at.bottom + 6) + "px";
    });
  });

  // On paper everything is open

  var closed = [];
  window.addEventListener("beforeprint", function () { closed = []; each("main details:not([open])", function (box) { closed.push(box); box.open = true; }); });
  window.addEventListener("afterprint", function () { closed.forEach(function (box) { box.open = false; }); });
})();

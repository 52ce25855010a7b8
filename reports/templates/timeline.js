// Timelines: lanes of events on a canvas, with an overview, flags of findings and details. Reads what timeline_data.py writes.
(function () {
  "use strict";

  var RADIX = 8; // events in a group of the level above
  var SHORTEST_VIEW = 200; // ns
  var ROWS = 6; // of overlapping work in one lane
  var RANGE_ROWS = 6; // of nested ranges until the lane is unfolded
  var BAR = 2; // device pixels from which an event is a bar of its own
  var WARM = { host: 1, sync: 1, launch: 1, dependency: 1, edge: 1 };
  var SHORT = { host: "host", sync: "host waits", launch: "launch call", dependency: "not begun", edge: "edge", "coll-wait": "waits for the last rank", "coll-move": "moves" };
  var HELP = [
    ["W / S, ↑ / ↓", "zoom in, zoom out"], ["A / D, ← / →", "move left, right"], ["N / P", "next, previous finding"],
    [", / .", "previous, next event of the lane"], ["0", "the whole recording"], ["Esc", "drop the selection"],
    ["drag", "move; in the overview: choose a part"], ["Ctrl + wheel, or wheel once clicked", "zoom"],
    ["two fingers", "zoom"], ["click, tap", "keep the details"], ["?", "this help"]
  ];
  var linked = {};
  var still = window.matchMedia && matchMedia("(prefers-reduced-motion: reduce)");

  // Decoding

  function reader(text) {
    var raw = atob(text), n = raw.length, bytes = new Uint8Array(n), at = 0;
    for (var i = 0; i < n; i++) bytes[i] = raw.charCodeAt(i);
    return {
      more: function () { return at < n; },
      next: function () {
        var b = bytes[at++], value = b & 127, scale = 128;
        while (b & 128) { b = bytes[at++]; value += (b & 127) * scale; scale *= 128; }
        return value;
      }
    };
  }

  function signed(value) { return value % 2 ? -(value + 1) / 2 : value / 2; }

  function sparse(text, count) {
    var r = reader(text), out = new Float64Array(count), i = 0;
    while (r.more()) { var v = r.next(); if (v) out[i++] = v; else i += r.next(); }
    return out;
  }

  function decodeShapes(raw) {
    var r = reader(raw.data), keys = ["name", "cls", "gx", "gy", "gz", "bx", "by", "bz", "registers", "shared", "dynamic", "bytes", "memory"], out = {};
    keys.forEach(function (key) {
      var column = out[key] = new Float64Array(raw.n), off = key === "name" || key === "cls" || key === "memory" ? 0 : 1;
      for (var i = 0; i < raw.n; i++) column[i] = r.next() - off;
    });
    out.memories = raw.memories;
    return out;
  }

  function decodeLane(raw, names, shapes, classOfRange) {
    var n = raw.n, r = reader(raw.data), start = new Float64Array(n), end = new Float64Array(n), cls = new Uint8Array(n), i, reach = 0;
    for (i = 0; i < n; i++) start[i] = signed(r.next());
    for (i = 0; i < n; i++) { start[i] += reach; end[i] = start[i] + r.next(); if (!i || end[i] > reach) reach = end[i]; }
    var lane = { kind: raw.kind, group: raw.group, label: raw.label, thread: raw.thread === undefined ? -1 : raw.thread, minor: !!raw.minor, n: n, start: start, end: end, cls: cls };
    if (raw.kind === "work") {
      lane.shape = new Int32Array(n); lane.call = new Int32Array(n);
      for (i = 0; i < n; i++) { lane.shape[i] = r.next(); cls[i] = shapes.cls[lane.shape[i]]; }
      for (var last = 0, k = 0; k < n; k++) { var v = r.next(); lane.call[k] = v ? (last += signed(v - 1)) : -1; }
    } else if (raw.kind === "calls") {
      lane.name = new Int32Array(n); lane.correlation = new Float64Array(n);
      for (i = 0; i < n; i++) lane.name[i] = r.next();
      for (var c = 0, j = 0; j < n; j++) { var w = r.next(); lane.correlation[j] = w ? (c += signed(w - 1)) : -1; }
      for (i = 0; i < n; i++) cls[i] = r.next();
    } else if (raw.kind === "ranges") {
      lane.name = new Int32Array(n); lane.numbers = [];
      for (i = 0; i < n; i++) lane.name[i] = r.next();
      var slots = names.map(function (name) { return name.split("\u0000").length - 1; });
      for (var slot = 0; r.more(); slot++) {
        var column = new Float64Array(n), before = 0;
        for (i = 0; i < n; i++) if (slots[lane.name[i]] > slot) column[i] = before += signed(r.next());
        lane.numbers.push(column);
      }
      cls.fill(classOfRange);
    } else for (i = 0; i < n; i++) cls[i] = r.next();
    return lane;
  }

  // Rows of events that do not overlap, with groups of RADIX events, groups of groups and so on above them.

  function rowsOf(lane, most) {
    var ends = [], lists = [], n = lane.n;
    for (var i = 0; i < n; i++) {
      var row = 0;
      while (row < ends.length && ends[row] > lane.start[i]) row++;
      if (row >= most) row = most - 1;
      if (row === ends.length) { ends.push(-Infinity); lists.push([]); }
      if (lane.end[i] > ends[row]) ends[row] = lane.end[i];
      lists[row].push(i);
    }
    return lists.length > 1 && nearlySerial(lane) ? rowsOf(lane, 1) : lists.map(function (list) { return indexed(lane, list); });
  }

  function nearlySerial(lane) { // a stream whose kernels begin a little before the one before them ends is one row all the same
    var sum = 0, covered = 0, reach = -Infinity;
    for (var i = 0; i < lane.n; i++) {
      sum += lane.end[i] - lane.start[i];
      covered += Math.max(lane.end[i] - Math.max(lane.start[i], reach), 0); reach = Math.max(reach, lane.end[i]);
    }
    return lane.kind === "work" && sum - covered <= 0.02 * covered;
  }

  function indexed(lane, list) {
    var n = list.length, id = Int32Array.from(list), s = new Float64Array(n), e = new Float64Array(n), b = new Float64Array(n), c = new Uint8Array(n), reach = -Infinity;
    for (var i = 0; i < n; i++) {
      s[i] = lane.start[id[i]]; reach = Math.max(reach, lane.end[id[i]]); e[i] = reach; b[i] = lane.end[id[i]] - s[i]; c[i] = lane.cls[id[i]];
    }
    var levels = [{ s: s, e: e, b: b, c: c, n: n }], spent = new Float64Array(64);
    while (levels[levels.length - 1].n > RADIX) {
      var low = levels[levels.length - 1], m = Math.ceil(low.n / RADIX), up = { s: new Float64Array(m), e: new Float64Array(m), b: new Float64Array(m), c: new Uint8Array(m), n: m };
      for (var g = 0; g < m; g++) {
        var from = g * RADIX, to = Math.min(from + RADIX, low.n), best = low.c[from];
        up.s[g] = low.s[from]; up.e[g] = low.e[to - 1];
        for (i = from; i < to; i++) { up.b[g] += low.b[i]; spent[low.c[i]] += low.b[i]; if (spent[low.c[i]] > spent[best]) best = low.c[i]; }
        for (i = from; i < to; i++) spent[low.c[i]] = 0;
        up.c[g] = best;
      }
      levels.push(up);
    }
    return { id: id, levels: levels };
  }

  function firstAfter(array, value) { // first index whose entry is > value
    var low = 0, high = array.length;
    while (low < high) { var mid = (low + high) >> 1; if (array[mid] > value) high = mid; else low = mid + 1; }
    return low;
  }

  // Text

  function duration(ns) {
    var a = Math.abs(ns);
    if (a < 1e3) return Math.round(ns) + " ns";
    var unit = a < 1e6 ? [1e3, " µs"] : a < 1e9 ? [1e6, " ms"] : [1e9, " s"], v = ns / unit[0], b = Math.abs(v);
    return v.toFixed(b >= 100 ? 1 : b >= 10 ? 2 : 3) + unit[1];
  }

  function grouped(value) { return String(Math.round(value)).replace(/\B(?=(\d{3})+$)/g, ","); }

  function bytes(value) {
    var units = ["B", "kB", "MB", "GB", "TB"], k = 0;
    while (value >= 1000 && k < 4) { value /= 1000; k++; }
    return (k && value < 100 ? value.toFixed(value < 10 ? 2 : 1) : Math.round(value)) + " " + units[k];
  }

  function node(tag, attributes, parent) {
    var made = document.createElement(tag);
    Object.keys(attributes || {}).forEach(function (key) { if (key === "text") made.textContent = attributes[key]; else made.setAttribute(key, attributes[key]); });
    if (parent) parent.appendChild(made);
    return made;
  }

  function Timeline(box) {
    var D = JSON.parse(box.querySelector("script").textContent), SPAN = D.span_ns, names = D.names, classes = D.classes;
    var zero = Number(box.dataset.zero || 0), key = box.dataset.key || "t", link = box.dataset.link || "";
    var shapes = decodeShapes(D.shapes), number = {};
    classes.forEach(function (c, i) { number[c[0]] = i; });
    var calls = [], lanes = D.lanes.map(function (raw) {
      var lane = decodeLane(raw, names, shapes, number.range);
      lane.rows = rowsOf(lane, lane.kind === "ranges" ? 64 : lane.kind === "work" ? ROWS : 1);
      if (lane.kind === "calls") { lane.first = calls.length; for (var i = 0; i < lane.n; i++) calls.push(lane); }
      if (raw.bins) lane.bins = decodeBins(raw.bins);
      return lane;
    });
    var firstOp = new Int32Array(calls.length).fill(-1), opLane = [];
    lanes.forEach(function (lane, l) {
      if (lane.kind !== "work") return;
      for (var i = 0; i < lane.n; i++) {
        var c = lane.call[i];
        if (c >= 0 && (firstOp[c] < 0 || lane.start[i] < lanes[opLane[c]].start[firstOp[c]])) { firstOp[c] = i; opLane[c] = l; }
      }
    });
    var UNIT = (/^(step|iteration|batch|epoch)\b/.exec((D.passes[0] || ["", "", ""])[2] || "") || ["pass"])[0]; // what the passes are called
    var groups = D.groups.map(function (g, i) {
      var of = lanes.filter(function (lane) { return lane.group === i; });
      var queue = g.queue ? binnedQueue(g.queue) : D.detail ? null : steps(of);
      return { label: g.label, name: g.name, sums: sums(i), lanes: of, queue: queue, open: i < 2 || D.groups.length < 3, all: false };
    });
    var overview = D.overview.devices.map(function (d) {
      return { device: d.device, parts: d.classes.map(function (c) { return { cls: c[0], total: c[1], bins: sparse(c[2], D.overview.bins) }; }) };
    });

    function sums(i) { // shares of the recording, or of the part of it that the figure is about; the largest cause of idle time first
      var d = D.groups[i].owned ? { classes: D.groups[i].owned } : D.overview.devices[i], busy = 0, idle = [], whole = D.groups[i].owned_span || SPAN;
      if (!d) return "";
      d.classes.forEach(function (c) { var name = classes[c[0]][0]; if (WARM[name]) idle.push([SHORT[name], c[1]]); else busy += c[1]; });
      idle.sort(function (a, b) { return b[1] - a[1]; });
      idle = idle.filter(function (c) { return c[1] >= 0.005 * whole; });
      function share(ns) { return (100 * ns / whole).toFixed(1) + " %"; }
      return "busy " + share(busy) + (idle.length ? " · idle: " + idle.map(function (c) { return c[0] + " " + share(c[1]); }).join(", ") : "");
    }

    function decodeBins(raw) {
      return { count: raw.count, parts: Object.keys(raw.classes).map(function (k) { return { cls: +k, bins: sparse(raw.classes[k], raw.count) }; }) };
    }

    function binnedQueue(text) {
      var count = 0, r = reader(text);
      while (r.more()) { if (r.next()) count++; else count += r.next(); }
      var q = sparse(text, count), time = new Float64Array(count), depth = new Float64Array(count), top = 0;
      for (var i = 0; i < count; i++) { time[i] = Math.floor(SPAN * i / count); depth[i] = q[i] / 10; top = Math.max(top, depth[i]); }
      return { time: time, depth: depth, top: top, mean: true };
    }

    function steps(of) { // how many launches wait: a call has returned and its first operation has not begun
      var begun = new Float64Array(calls.length).fill(Infinity), n = 0, c;
      of.forEach(function (lane) {
        if (lane.kind === "work") for (var i = 0; i < lane.n; i++) if (lane.call[i] >= 0 && lane.start[i] < begun[lane.call[i]]) begun[lane.call[i]] = lane.start[i];
      });
      var up = new Float64Array(calls.length), down = new Float64Array(calls.length);
      for (c = 0; c < calls.length; c++) {
        if (begun[c] === Infinity) continue;
        var end = calls[c].end[c - calls[c].first];
        if (begun[c] > end) { up[n] = end; down[n++] = begun[c]; }
      }
      if (!n) return null;
      up = up.subarray(0, n).sort(); down = down.subarray(0, n).sort();
      var time = new Float64Array(2 * n), depth = new Float64Array(2 * n), size = 0, top = 0;
      for (var a = 0, b = 0; b < n;) {
        var t = a < n ? Math.min(up[a], down[b]) : down[b];
        while (a < n && up[a] === t) a++;
        while (b < n && down[b] === t) b++;
        time[size] = t; depth[size++] = a - b; top = Math.max(top, a - b);
      }
      return { time: time.subarray(0, size), depth: depth.subarray(0, size), top: top, mean: false };
    }

    // The parts of the page

    var tools = node("div", { "class": "tl-tools", role: "group", "aria-label": "Move in the timeline" }, box);
    function button(text, title, act) {
      var made = node("button", { type: "button", text: text, title: title }, tools);
      made.addEventListener("click", act);
      return made;
    }
    button("All", "The whole recording (0)", all);
    button("−", "Zoom out (S)", function () { zoom(1.6); }).setAttribute("aria-label", "− Zoom out");
    button("+", "Zoom in (W)", function () { zoom(1 / 1.6); }).setAttribute("aria-label", "+ Zoom in");
    if (D.passes.length) {
      button("◂ " + UNIT, "The " + UNIT + " before", function () { pass(-1); });
      button(UNIT + " ▸", "The next " + UNIT, function () { pass(1); });
    }
    if (D.flags.length) button("next finding", "The next finding (N)", function () { finding(1); });
    button("?", "Keys and gestures (?)", help).setAttribute("aria-label", "? Help: keys and gestures");
    var span = node("span", { "class": "tl-span" }, tools);
    var over = node("canvas", { "class": "tl-over", role: "img", "aria-label": "Overview: who owns the time of each device over the whole recording. The tables of this page have the numbers." }, box);
    var stage = node("div", { "class": "tl-stage" }, box);
    var main = node("canvas", { "class": "tl-main", tabindex: "0", role: "application", "aria-label": box.dataset.name || "Timeline", "aria-describedby": box.id + "-detail" }, stage);
    var tip = node("div", { "class": "tl-tip", hidden: "" }, stage);
    var detail = node("div", { "class": "tl-detail", id: box.id + "-detail", "aria-live": "polite" }, box);
    var legend = node("ul", { "class": "tl-legend", "aria-label": "Colours" }, box);
    var picture = node("img", { "class": "tl-image", alt: "" }, box);
    if (D.note) node("p", { "class": "tl-note", text: D.note }, box);
    var mixing = {}, strip = document.createElement("canvas"), cached = document.createElement("canvas");

    var v0 = D.home[0], v1 = D.home[1], W = 0, H = 0, LEFT = 150, RIGHT = 10, narrow = false, ratio = 1;
    var items = [], colour = [], rgb = [], ink = {}, onFill = [], selected = null, hovered = null, marked = null, at = -1, scheduled = false, moving = 0, current = null;

    function plot() { return W - LEFT - RIGHT; }
    function X(t) { return LEFT + (t - v0) / (v1 - v0) * plot(); }
    function T(x) { return v0 + (x - LEFT) / plot() * (v1 - v0); }

    function palette() {
      var style = getComputedStyle(box), probe = document.createElement("canvas").getContext("2d");
      function value(name) { probe.fillStyle = "#888"; probe.fillStyle = style.getPropertyValue(name).trim(); return probe.fillStyle; }
      ["ink", "soft", "line", "paper", "raised", "accent", "flag", "queue", "pass"].forEach(function (k) { ink[k] = value("--tl-" + k); });
      colour = classes.map(function (c) { return value("--tl-" + c[0]); });
      colour.push(value("--tl-range-2"));
      rgb = colour.map(function (c) { return [1, 3, 5].map(function (i) { return parseInt(c.slice(i, i + 2), 16); }); });
      onFill = rgb.map(textOn);
      ink.font = getComputedStyle(box).fontFamily;
    }

    function textOn(c) { // black or white, whichever contrasts more
      var l = c.map(function (v) { v /= 255; return v <= 0.04045 ? v / 12.92 : Math.pow((v + 0.055) / 1.055, 2.4); });
      return 0.2126 * l[0] + 0.7152 * l[1] + 0.0722 * l[2] > 0.179 ? "#000000" : "#ffffff";
    }

    function fit(canvas, height) {
      var w = Math.round(W * ratio), h = Math.round(height * ratio);
      if (canvas.width !== w || canvas.height !== h) { canvas.width = w; canvas.height = h; canvas.style.height = height + "px"; }
      var x = canvas.getContext("2d");
      x.setTransform(ratio, 0, 0, ratio, 0, 0);
      return x;
    }

    function measure() {
      W = Math.max(box.clientWidth, 240); ratio = window.devicePixelRatio || 1; narrow = W < 640;
      LEFT = narrow ? 8 : 172; RIGHT = narrow ? 8 : 12;
      layout();
    }

    function layout() { // what stands where in the main canvas
      items = [];
      var y = 22, gap = narrow ? 15 : 3;
      function add(item, height) { y += gap; item.y = y; item.h = height; items.push(item); y += height; return item; }
      if (D.flags.length) add({ kind: "flags", label: "findings" }, 18);
      if (D.passes.length) add({ kind: "passes", label: UNIT + (/(s|ch)$/.test(UNIT) ? "es" : "s") }, 15);
      groups.forEach(function (group, g) {
        y += g || items.length ? 6 : 0;
        var hidden = group.lanes.filter(function (lane) { return lane.minor; }).length;
        items.push({ kind: "head", group: group, y: y, h: 19, hidden: hidden }); y += 19;
        if (narrow) y -= 2;
        group.lanes.forEach(function (lane) {
          if (lane.minor && !group.all) return;
          if (lane.kind === "work" || lane.kind === "idle" || lane.kind === "collectives") return;
          if (!group.open) return;
          var rows = lane.kind === "ranges" ? Math.min(lane.rows.length, lane.all ? 64 : RANGE_ROWS) : 1, height = lane.kind === "ranges" ? 15 : 17;
          var item = add({ kind: "lane", lane: lane, label: lane.label, each: height, count: rows }, rows * height);
          if (lane.kind === "ranges" && lane.rows.length > RANGE_ROWS) item.more = lane.rows.length - RANGE_ROWS;
        });
        if (group.open && group.queue) add({ kind: "queue", group: group, label: "launches that wait" }, 34);
        group.lanes.forEach(function (lane) {
          if (lane.kind !== "work") return;
          var rows = lane.rows.length || 1, compute = /compute$/.test(lane.label), height = !group.open ? 11 : rows > 1 ? 15 : compute ? 30 : 18;
          add({ kind: "lane", lane: lane, label: lane.label, each: group.open ? height : 11, count: group.open ? rows : 1 }, group.open ? rows * height : 11);
        });
        group.lanes.forEach(function (lane) { if (lane.kind === "idle" || (lane.kind === "collectives" && group.open)) add({ kind: "lane", lane: lane, label: lane.label, each: group.open ? 20 : 11, count: 1 }, group.open ? 20 : 11); });
      });
      H = y + 10;
    }

    // Drawing

    function clipped(x, s, width) {
      if (width < 12) return "";
      var m = x.measureText(s).width;
      if (m <= width) return s;
      var keep = Math.floor(s.length * (width - 8) / m);
      return keep >= 5 ? s.slice(0, keep) + "…" : "";
    }

    function fitting(x, texts, width) { // the first that fits, or as much of the last as does
      for (var i = 0; i < texts.length - 1; i++) if (x.measureText(texts[i]).width <= width) return texts[i];
      return clipped(x, texts[texts.length - 1], width);
    }

    function drawOverview() {
      var each = overview.length < 2 ? 46 : Math.max(12, Math.floor(76 / overview.length)), height = overview.length * (each + 3) + 20;
      var x = fit(over, height), id = [W, ratio, colour.join()].join("/");
      if (cached.dataset.id !== id) {
        cached.dataset.id = id; cached.width = over.width; cached.height = over.height;
        var c = cached.getContext("2d"), bins = D.overview.bins, pw = plot();
        c.setTransform(ratio, 0, 0, ratio, 0, 0);
        c.font = "11px " + ink.font; c.fillStyle = ink.soft;
        overview.forEach(function (d, row) {
          var base = 3 + row * (each + 3) + each, level = new Float64Array(bins);
          c.globalAlpha = 0.5; c.fillStyle = ink.raised; c.fillRect(LEFT, base - each, pw, each); c.globalAlpha = 1;
          d.parts.forEach(function (part) {
            if (classes[part.cls][0] === "edge") return;
            c.fillStyle = colour[part.cls];
            for (var i = 0; i < bins; i++) {
              if (!part.bins[i]) continue;
              var a = Math.floor(SPAN * i / bins), b = Math.floor(SPAN * (i + 1) / bins), share = part.bins[i] / (b - a) * each;
              var left = Math.round((LEFT + a / SPAN * pw) * ratio) / ratio, right = Math.round((LEFT + b / SPAN * pw) * ratio) / ratio;
              c.fillRect(left, base - level[i] - share, Math.max(right - left, 1 / ratio), share);
              level[i] += share;
            }
          });
          if (!narrow) { c.fillStyle = ink.soft; c.textAlign = "right"; c.fillText(D.groups[row].label, LEFT - 8, base - each / 2 + 4); }
        });
        ticks(0, SPAN, function (t, label) { c.fillStyle = ink.soft; c.textAlign = "center"; var px = LEFT + t / SPAN * pw; c.fillText(label, Math.min(Math.max(px, LEFT + 14), W - RIGHT - 22), height - 5); });
      }
      x.setTransform(1, 0, 0, 1, 0, 0); x.clearRect(0, 0, over.width, over.height); x.drawImage(cached, 0, 0); x.setTransform(ratio, 0, 0, ratio, 0, 0);
      var a = LEFT + Math.max(v0, 0) / SPAN * plot(), b = Math.max(LEFT + Math.min(v1, SPAN) / SPAN * plot(), a + 3), bottom = height - 18;
      x.globalAlpha = 0.62; x.fillStyle = ink.paper; x.fillRect(LEFT, 0, a - LEFT, bottom); x.fillRect(b, 0, W - RIGHT - b, bottom); x.globalAlpha = 1;
      x.strokeStyle = ink.accent; x.lineWidth = 2; x.strokeRect(a, 1, b - a, bottom - 2);
      x.fillStyle = ink.accent; [a, b].forEach(function (p) { x.fillRect(p - 2, bottom / 2 - 8, 4, 16); });
      D.flags.forEach(function (f) { x.fillStyle = ink.flag; x.beginPath(); var p = LEFT + f[1] / SPAN * plot(); x.moveTo(p - 4, 0); x.lineTo(p + 4, 0); x.lineTo(p, 7); x.fill(); });
    }

    function ticks(from, to, each) {
      var step = Math.pow(10, Math.floor(Math.log10((to - from) / plot() * (narrow ? 70 : 90)))), seconds = SPAN >= 2e10;
      [1, 2, 5, 10].some(function (k) { if ((to - from) / (step * k) * (narrow ? 70 : 90) <= plot()) { step *= k; return true; } return false; });
      var unit = seconds ? 1e9 : 1e6, digits = Math.max(0, Math.ceil(-Math.log10(step / unit) - 1e-9));
      for (var t = Math.ceil((from - zero) / step) * step; t <= to - zero; t += step) each(t + zero, (Math.abs(t) < step / 2 ? 0 : t / unit).toFixed(Math.min(digits, 6)).replace("-", "−") + (seconds ? " s" : " ms"));
    }

    function draw() {
      scheduled = false;
      if (box.hidden) return;
      if (over.offsetParent) drawOverview();
      var x = fit(main, H);
      x.clearRect(0, 0, W, H); x.textBaseline = "alphabetic";
      grid(x);
      items.forEach(function (item) { paint(x, item); });
      reducedBracket(x);
      arrow(x);
      flagLines(x);
      var digits = v1 - v0 < 1e5 ? 4 : v1 - v0 < 1e7 ? 3 : 2;
      span.textContent = (at(v0) + " to " + at(v1) + " ms (" + duration(v1 - v0) + ")").replace(/-/g, "−");
      function at(t) { return ((t - zero) / 1e6).toFixed(digits); }
      box.dataset.view = v0.toFixed(0) + "-" + v1.toFixed(0);
    }

    function schedule() { if (!scheduled) { scheduled = true; requestAnimationFrame(draw); } }

    function grid(x) {
      x.font = "11px " + ink.font; x.lineWidth = 1;
      ticks(v0, v1, function (t, label) {
        var p = X(t);
        x.strokeStyle = ink.line; x.beginPath(); x.moveTo(p, 18); x.lineTo(p, H - 6); x.stroke();
        x.fillStyle = ink.soft; x.textAlign = "center";
        var half = x.measureText(label).width / 2;
        if (p - half >= 2 && p + half <= W - 2) x.fillText(label, p, 13);
      });
    }

    function paint(x, item) {
      x.font = "11px " + ink.font;
      if (item.kind === "head") return head(x, item);
      x.fillStyle = ink.soft; x.textAlign = narrow ? "left" : "right";
      var label = item.label + (item.more ? (item.lane.all ? "  ▾" : "  ▸") : "");
      if (narrow) x.fillText(clipped(x, label, W - 16), LEFT, item.y - 4);
      else if (!(item.lane && item.lane.kind === "work" && item.each < 12) || item.each >= 11) x.fillText(clipped(x, label, LEFT - 14), LEFT - 8, item.y + Math.min(item.h, item.kind === "lane" && item.lane.kind === "ranges" ? 15 : item.h) / 2 + 4);
      if (item.more && !narrow) { x.fillText(item.lane.all ? "fewer rows" : item.more + " more rows", LEFT - 8, item.y + 28); }
      x.save(); x.beginPath(); x.rect(LEFT, item.y - 1, plot(), item.h + 2); x.clip();
      if (item.kind === "lane") paintLane(x, item);
      else if (item.kind === "queue") paintQueue(x, item);
      else if (item.kind === "passes") paintPasses(x, item);
      x.restore();
    }

    function head(x, item) {
      x.fillStyle = ink.raised; x.fillRect(0, item.y, W, item.h);
      x.fillStyle = ink.ink; x.textAlign = "left"; x.font = "600 12px " + ink.font;
      var text = (item.group.open ? "▾ " : "▸ ") + item.group.label;
      x.fillText(text, 8, item.y + 14);
      var after = 8 + x.measureText(text).width + 8;
      x.font = "11px " + ink.font; x.fillStyle = ink.soft;
      x.fillText(clipped(x, (item.group.name ? item.group.name + " · " : "") + item.group.sums, W - after - 130), after, item.y + 14);
      if (item.hidden && item.group.open) { x.textAlign = "right"; x.fillText(item.group.all ? "fewer threads" : item.hidden + " more host lane" + (item.hidden > 1 ? "s" : ""), W - RIGHT, item.y + 14); }
    }

    function paintLane(x, item) {
      var lane = item.lane;
      if (lane.bins) fractions(x, item);
      var rows = item.count < lane.rows.length && lane.kind === "work" ? lane.rows : lane.rows.slice(0, item.count);
      rows.forEach(function (row, r) {
        var y = item.y + (item.count > 1 || lane.kind === "ranges" ? r * item.each : 0), h = item.each - (item.count > 1 || lane.kind === "ranges" ? 1 : 0);
        var dim = marked && lane.kind !== "ranges" ? 0.2 : 1, second = lane.kind === "ranges" && r % 2;
        bars(x, lane, row, y, h, dim, second);
        if (marked) { var only = matching(lane, row); if (only) bars(x, lane, only, y, h, 1, second); }
        [hovered, selected].forEach(function (pick) {
          if (!pick || pick.lane !== lane || !pick.row || pick.row !== row) return;
          var a = Math.max(X(lane.start[pick.i]), LEFT - 3), b = Math.min(X(lane.end[pick.i]), W - RIGHT + 3);
          x.strokeStyle = ink.ink; x.lineWidth = pick === selected ? 2 : 1; x.strokeRect(a - 0.5, y + 0.5, Math.max(b - a + 1, 3), h - 1);
        });
      });
    }

    function matching(lane, row) { // the events of a marked name, indexed once a mark
      if (lane.kind !== "work") return null;
      if (!marked.rows) marked.rows = new Map();
      if (!marked.rows.has(row)) {
        var list = [];
        for (var i = 0; i < row.id.length; i++) if (marked.of(lane, row.id[i])) list.push(row.id[i]);
        marked.rows.set(row, list.length ? indexed(lane, list) : null);
      }
      return marked.rows.get(row);
    }

    function bars(x, lane, row, y, h, alpha, second) {
      // Narrow events are mixed pixel by pixel; a group whose events all lie within a pixel is taken as one.
      var pixels = Math.max(Math.round(plot() * ratio), 1), scale = pixels / (v1 - v0), acc = buffer(pixels), any = false, wide = [];
      var levels = row.levels, top = levels.length - 1;
      function visit(level, from, to) {
        var L = levels[level], s = L.s, e = L.e;
        for (var i = from; i < to; i++) {
          if (e[i] < v0) continue;
          if (s[i] > v1) break;
          var a = (s[i] - v0) * scale, b = (e[i] - v0) * scale;
          if (level === 0) {
            b = a + L.b[i] * scale;
            if (b - a >= BAR) { wide.push(i); continue; }
          } else if (b - a > 1) { visit(level - 1, i * RADIX, Math.min(i * RADIX + RADIX, levels[level - 1].n)); continue; }
          var p = Math.floor(a), q = Math.floor(b), weight = level ? L.b[i] * scale : b - a, c = rgb[second ? classes.length : L.c[i]];
          if (weight <= 0) weight = 0.02;
          any = true;
          if (p === q || level) put(p, weight, c);
          else for (var k = p; k <= q; k++) put(k, Math.min(b, k + 1) - Math.max(a, k), c);
        }
      }
      function put(p, weight, c) {
        if (p < 0 || p >= pixels) return;
        p *= 4; acc[p] += c[0] * weight; acc[p + 1] += c[1] * weight; acc[p + 2] += c[2] * weight; acc[p + 3] += weight;
      }
      visit(top, 0, levels[top].n);
      x.globalAlpha = alpha;
      if (any) {
        if (strip.width !== pixels) { strip.width = pixels; strip.height = 1; }
        var sx = strip.getContext("2d"), image = mixing.image, out = image.data;
        for (var p = 0; p < pixels; p++) {
          var w = acc[p * 4 + 3];
          if (!w) { out[p * 4 + 3] = 0; continue; }
          out[p * 4] = acc[p * 4] / w; out[p * 4 + 1] = acc[p * 4 + 1] / w; out[p * 4 + 2] = acc[p * 4 + 2] / w;
          out[p * 4 + 3] = 255 * Math.min(1, 0.25 + 0.75 * w);
        }
        sx.putImageData(image, 0, 0);
        x.imageSmoothingEnabled = false; x.drawImage(strip, 0, 0, pixels, 1, LEFT, y, plot(), h); x.imageSmoothingEnabled = true;
      }
      var L0 = levels[0], last = -1;
      for (var j = 0; j < wide.length; j++) {
        var i = wide[j], a = Math.max(LEFT + (L0.s[i] - v0) * scale / ratio, LEFT - 4), b = Math.min(LEFT + (L0.s[i] + L0.b[i] - v0) * scale / ratio, W - RIGHT + 4), c = second ? classes.length : L0.c[i];
        if (c !== last) { x.fillStyle = colour[c]; last = c; }
        x.fillRect(a, y, b - a > 5 ? b - a - 1 / ratio : b - a, h);
      }
      if (h >= 11 && alpha === 1) for (j = 0; j < wide.length; j++) {
        i = wide[j]; a = Math.max(LEFT + (L0.s[i] - v0) * scale / ratio, LEFT); b = Math.min(LEFT + (L0.s[i] + L0.b[i] - v0) * scale / ratio, W - RIGHT);
        if (b - a < 30) continue;
        x.textAlign = "left";
        var s = fitting(x, inside(lane, row.id[i]), b - a - 7);
        if (s) { x.fillStyle = onFill[second ? classes.length : L0.c[i]]; x.fillText(s, a + 4, y + h / 2 + 4); }
      }
      x.globalAlpha = 1;
    }

    function buffer(pixels) { // sums of red, green, blue and weight for each pixel, from zero
      if (mixing.pixels !== pixels) { mixing.pixels = pixels; mixing.sums = new Float32Array(pixels * 4); mixing.image = new ImageData(pixels, 1); mixing.dirty = false; }
      if (mixing.dirty) mixing.sums.fill(0);
      mixing.dirty = true;
      return mixing.sums;
    }

    function inside(lane, i) {
      var length = duration(lane.end[i] - lane.start[i]), name = nameOf(lane, i);
      if (lane.kind === "idle" || lane.kind === "collectives") return [SHORT[classes[lane.cls[i]][0]] + " " + length, length];
      if (lane.kind === "calls" && lane.cls[i] === number["wait-call"]) return ["waits for the GPU: " + name + " · " + length, "waits: " + name, name];
      var inner = /\(([^()]+)\)$/.exec(name); // of a wrapper what it wraps
      return lane.kind !== "work" ? [name] : inner ? [name + " · " + length, name, inner[1]] : [name + " · " + length, name];
    }

    function nameOf(lane, i) {
      if (lane.kind === "work") return names[shapes.name[lane.shape[i]]];
      if (lane.kind === "idle" || lane.kind === "collectives") return classes[lane.cls[i]][1];
      var name = names[lane.name[i]];
      if (lane.kind !== "ranges" || name.indexOf("\u0000") < 0) return name;
      var slot = 0;
      return name.replace(/\u0000/g, function () { return String(lane.numbers[slot++][i]); });
    }

    function fractions(x, item) { // the shares of busy time outside of the parts in full detail
      var lane = item.lane, bins = lane.bins, id = colour.join() + item.h;
      if (bins.id !== id) {
        bins.id = id; bins.image = document.createElement("canvas"); bins.image.width = bins.count; bins.image.height = Math.round(item.h * ratio);
        var c = bins.image.getContext("2d"), level = new Float64Array(bins.count);
        bins.parts.forEach(function (part) {
          if (classes[part.cls][0] === "edge") return;
          c.fillStyle = colour[part.cls];
          for (var i = 0; i < bins.count; i++) {
            if (!part.bins[i]) continue;
            var width = Math.floor(SPAN * (i + 1) / bins.count) - Math.floor(SPAN * i / bins.count), tall = part.bins[i] / width * bins.image.height;
            c.fillRect(i, bins.image.height - level[i] - tall, 1, tall); level[i] += tall;
          }
        });
      }
      x.imageSmoothingEnabled = v1 - v0 > SPAN / bins.count * plot();
      var from = v0 / SPAN * bins.count, to = v1 / SPAN * bins.count;
      x.drawImage(bins.image, from, 0, Math.max(to - from, 0.01), bins.image.height, LEFT, item.y, plot(), item.h);
      x.imageSmoothingEnabled = true;
      (D.detail || []).forEach(function (d) { var a = X(d[0]), b = X(d[1]); if (b > LEFT && a < W) x.clearRect(a, item.y - 1, b - a, item.h + 2); });
    }

    function reducedBracket(x) {
      (D.detail || []).forEach(function (d) {
        var a = Math.max(X(d[0]), LEFT), b = Math.min(X(d[1]), W - RIGHT);
        if (b <= a) return;
        x.fillStyle = ink.accent; x.fillRect(a, 18, b - a, 3);
      });
    }

    function paintQueue(x, item) {
      var q = item.group.queue, base = item.y + item.h, tall = item.h - 2, pixels = Math.max(Math.round(plot() * ratio), 1), top = new Float32Array(pixels), scale = pixels / (v1 - v0);
      for (var i = Math.max(firstAfter(q.time, v0) - 1, 0); i < q.time.length && q.time[i] <= v1; i++) {
        var until = i + 1 < q.time.length ? q.time[i + 1] : q.mean ? SPAN : q.time[i];
        for (var p = Math.max(Math.floor((q.time[i] - v0) * scale), 0), e = Math.min(Math.floor((until - v0) * scale), pixels - 1); p <= e; p++) if (q.depth[i] > top[p]) top[p] = q.depth[i];
      }
      x.fillStyle = ink.queue; x.beginPath(); x.moveTo(LEFT, base);
      for (p = 0; p < pixels; p++) { var y = base - top[p] / q.top * tall; x.lineTo(LEFT + p / ratio, y); x.lineTo(LEFT + (p + 1) / ratio, y); }
      x.lineTo(LEFT + pixels / ratio, base); x.fill();
      x.fillRect(LEFT, base - 0.5, plot(), 0.5);
      x.font = "10px " + ink.font; x.textAlign = "left";
      var text = "most: " + (q.mean ? q.top.toFixed(1) : q.top), w = x.measureText(text).width;
      x.globalAlpha = 0.8; x.fillStyle = ink.paper; x.fillRect(LEFT + 1, item.y, w + 6, 12); x.globalAlpha = 1; x.fillStyle = ink.soft; x.fillText(text, LEFT + 4, item.y + 10);
    }

    function paintPasses(x, item) {
      D.passes.forEach(function (p, i) {
        var a = Math.max(X(p[0]), LEFT - 2), b = Math.min(X(p[1]), W - RIGHT + 2);
        if (b < LEFT || a > W - RIGHT) return;
        x.strokeStyle = ink.pass; x.lineWidth = 1; x.strokeRect(a + 0.5, item.y + 0.5, Math.max(b - a - 1.5, 0.5), item.h - 1);
        x.fillStyle = ink.ink; x.textAlign = "left";
        var s = b - Math.max(a, LEFT) > 30 ? fitting(x, [p[2] + " · " + duration(p[1] - p[0]), p[2], p[2].replace(/^\D+(?=\d+$)/, "")], b - Math.max(a, LEFT) - 8) : "";
        if (s) x.fillText(s, Math.max(a, LEFT) + 5, item.y + 11);
      });
    }

    function flagLines(x) {
      var row = items[0];
      if (!row || row.kind !== "flags") return;
      var left = -1e9, last = 0, text = "";
      D.flags.forEach(function (f, i) {
        var p = X(f[1]);
        if (p < LEFT || p > W - RIGHT) return;
        x.strokeStyle = ink.flag; x.setLineDash([3, 3]); x.lineWidth = 1; x.beginPath(); x.moveTo(p, row.y + 16); x.lineTo(p, H - 6); x.stroke(); x.setLineDash([]);
        var cx = Math.min(Math.max(p, left + 17, LEFT + 8), W - RIGHT - 8); left = cx; f.x = cx;
        x.fillStyle = ink.flag; x.beginPath(); x.arc(cx, row.y + 8, 8, 0, 7); x.fill();
        x.fillStyle = textOn([1, 3, 5].map(function (k) { return parseInt(ink.flag.slice(k, k + 2), 16); })); x.textAlign = "center"; x.font = "bold 11px " + ink.font; x.fillText(String(f[0]), cx, row.y + 12);
        x.font = "11px " + ink.font;
        if (i === at) { x.strokeStyle = ink.ink; x.lineWidth = 2; x.beginPath(); x.arc(cx, row.y + 8, 8.5, 0, 7); x.stroke(); }
        last = cx; text = i === at || (D.flags.length === 1 && !text) ? f[5] : text;
      });
      var s = text && !narrow ? clipped(x, text, W - RIGHT - last - 16) : "";
      if (s) { x.fillStyle = ink.ink; x.textAlign = "left"; x.fillText(s, last + 13, row.y + 12); }
    }

    function yOf(lane, row) {
      for (var i = 0; i < items.length; i++) if (items[i].lane === lane) {
        var r = lane.rows.indexOf(row), spread = items[i].count > 1 || lane.kind === "ranges";
        return { y: items[i].y + (spread ? Math.min(r, items[i].count - 1) * items[i].each : 0), h: items[i].each };
      }
      return null;
    }

    function pair(pick) { // launch call and operation of a selection
      if (!pick || !pick.lane) return null;
      var c = pick.lane.kind === "work" ? pick.lane.call[pick.i] : pick.lane.kind === "calls" ? pick.lane.first + pick.i : -1;
      if (c < 0) return null;
      var lane = pick.lane.kind === "work" ? pick.lane : firstOp[c] < 0 ? null : lanes[opLane[c]], i = pick.lane.kind === "work" ? pick.i : firstOp[c];
      return lane ? { call: calls[c], callAt: c - calls[c].first, lane: lane, i: i } : null;
    }

    function arrow(x) {
      var p = pair(selected);
      if (!p) return;
      var from = yOf(p.call, p.call.rows[0]), to = yOf(p.lane, rowOf(p.lane, p.i));
      if (!from || !to) return;
      var x1 = X(p.call.end[p.callAt]), x2 = X(p.lane.start[p.i]);
      if (Math.max(x1, x2) < LEFT || Math.min(x1, x2) > W - RIGHT) return;
      var y1 = from.y + from.h, y2 = to.y;
      x.save(); x.beginPath(); x.rect(LEFT - 1, 0, plot() + 2, H); x.clip();
      [[ink.paper, 4.5], [ink.ink, 1.8]].forEach(function (pen) {
        x.strokeStyle = x.fillStyle = pen[0]; x.lineWidth = pen[1]; x.beginPath(); x.moveTo(x1, y1); x.bezierCurveTo(x1, (y1 + y2) / 2 + 6, x2, (y1 + y2) / 2 - 6, x2, y2 - 3); x.stroke();
      });
      x.beginPath(); x.moveTo(x2, y2); x.lineTo(x2 - 4.5, y2 - 8); x.lineTo(x2 + 4.5, y2 - 8); x.fill();
      var a = Math.max(X(p.call.start[p.callAt]), LEFT - 3), b = Math.min(x1, W); x.lineWidth = 2; x.strokeStyle = ink.ink; x.strokeRect(a - 0.5, from.y, Math.max(b - a + 1, 3), from.h);
      x.restore();
    }

    function rowOf(lane, i) {
      for (var r = 0; r < lane.rows.length; r++) { var id = lane.rows[r].id, k = firstAfter(id, i) - 1; if (k >= 0 && id[k] === i) return lane.rows[r]; }
      return lane.rows[0];
    }

    // Details

    function pathAt(thread, t, except) { // names of the ranges of a thread that are open at a time, outermost first
      var out = [];
      lanes.forEach(function (lane) {
        if (lane.kind !== "ranges" || lane.thread !== thread) return;
        lane.rows.forEach(function (row) {
          for (var k = firstAfter(row.levels[0].s, t) - 1, tries = 0; k >= 0 && tries < 3; k--, tries++) {
            var i = row.id[k];
            if (lane.end[i] >= t && !(except && except.lane === lane && except.i === i)) { out.push(nameOf(lane, i)); break; }
          }
        });
      });
      return out;
    }

    function idleBefore(lane, i) {
      var of = groups[lane.group].lanes.filter(function (l) { return l.kind === "idle"; })[0];
      if (!of) return null;
      var k = firstAfter(of.start, lane.start[i]) - 1, stop = lane.start[i], total = 0, causes = [];
      while (k >= 0 && of.end[k] === stop) { total += of.end[k] - of.start[k]; causes.unshift(SHORT[classes[of.cls[k]][0]] + " " + duration(of.end[k] - of.start[k])); stop = of.start[k]; k--; }
      return total ? duration(total) + (causes.length > 1 ? ": " + causes.join(", ") : " (" + causes[0].replace(/ [\d.]+ \S+$/, "") + ")") : null;
    }

    function opAfter(group, t) {
      var best = null;
      groups[group].lanes.forEach(function (lane) {
        if (lane.kind !== "work") return;
        var k = firstAfter(lane.start, t - 0.5);
        if (k < lane.n && (!best || lane.start[k] < best.lane.start[best.i])) best = { lane: lane, i: k };
      });
      return best;
    }

    function when(t) { return ((t - zero) / 1e6).toFixed(4).replace("-", "−") + " ms"; }

    function describe(pick) { // a title and lines of [term, text]
      var lines = [], lane = pick.lane, i = pick.i;
      if (pick.flag) return { title: "Finding " + pick.flag[0] + ": " + pick.flag[4], lines: [["what", pick.flag[5]], ["shown at", when(pick.flag[1])]] };
      if (pick.queue) return { title: (pick.queue.mean ? pick.depth.toFixed(1) : pick.depth) + " launch" + (pick.depth === 1 ? "" : "es") + " waiting", lines: [["at", when(pick.t)], ["meaning", "calls that returned and whose work has not begun" + (pick.queue.mean ? ", on average here" : "")]] };
      if (pick.pass) return { title: pick.pass[2], lines: [["length", duration(pick.pass[1] - pick.pass[0])], ["starts at", when(pick.pass[0])]] };
      if (pick.share) return { title: lane.label, lines: pick.share };
      lines.push(["length", duration(lane.end[i] - lane.start[i])], ["starts at", when(lane.start[i])]);
      if (lane.kind === "work") {
        var s = lane.shape[i], size = shapes.bytes[s], length = lane.end[i] - lane.start[i];
        lines.push(["kind", classes[lane.cls[i]][1] + " · " + lane.label]);
        if (shapes.gx[s] >= 0) lines.push(["shape", "grid " + [shapes.gx[s], shapes.gy[s], shapes.gz[s]].map(grouped).join(" × ") + ", block " + [shapes.bx[s], shapes.by[s], shapes.bz[s]].join(" × ") + (shapes.registers[s] >= 0 ? ", " + shapes.registers[s] + " registers" : "") + (shapes.shared[s] + shapes.dynamic[s] > 0 ? ", " + bytes(Math.max(shapes.shared[s], 0) + Math.max(shapes.dynamic[s], 0)) + " shared" : "")]);
        if (size >= 0) lines.push(["bytes", bytes(size) + (length > 0 && size > 0 ? ", " + (size / length).toFixed(size / length < 10 ? 2 : 1) + " GB/s" : "") + (shapes.memories[shapes.memory[s]] ? ", " + shapes.memories[shapes.memory[s]] : "")]);
        var c = lane.call[i];
        if (c >= 0) {
          var of = calls[c], at = c - of.first, delay = lane.start[i] - of.end[at];
          lines.push(["launched by", nameOf(of, at) + ", " + duration(of.end[at] - of.start[at]) + " long, " + (delay >= 0 ? duration(delay) + " before it began" : "returned after it began") + (of.correlation[at] >= 0 ? " (correlation " + of.correlation[at] + ")" : "")]);
          var path = pathAt(of.thread, of.start[at]);
          if (path.length) lines.push(["in", path.join(" › ")]);
        } else lines.push(["launched by", D.early ? "a call before the shown part" : "no launch call in the recording"]);
        var idle = idleBefore(lane, i);
        if (idle) lines.push(["idle before", idle]);
        var copy = /^copy/.test(classes[lane.cls[i]][1]);
        return { title: copy ? classes[lane.cls[i]][1] : nameOf(lane, i), full: D.full[shapes.name[s]], lines: lines };
      }
      if (lane.kind === "calls") {
        lines.push(["kind", classes[lane.cls[i]][1] + " · " + lane.label.replace(/^.* · /, "")]);
        var p = pair(pick);
        if (p) lines.push(["launches", nameOf(p.lane, p.i) + ", begins " + (p.lane.start[p.i] >= lane.end[i] ? duration(p.lane.start[p.i] - lane.end[i]) + " after the call returned" : "before the call returned")]);
        if (lane.correlation[i] >= 0) lines.push(["correlation", String(lane.correlation[i])]);
        var around = pathAt(lane.thread, lane.start[i]);
        if (around.length) lines.push(["in", around.join(" › ")]);
      } else if (lane.kind === "ranges") {
        lines[0][0] = "length on the host";
        var outer = pathAt(lane.thread, lane.start[i], pick).filter(function (_, k) { return k < lane.rows.indexOf(pick.row); });
        if (outer.length) lines.push(["in", outer.join(" › ")]);
      } else if (lane.kind === "idle") {
        var next = opAfter(lane.group, lane.end[i]);
        if (next) {
          lines.push(["then", nameOf(next.lane, next.i)]);
          var cc = next.lane.call[next.i];
          if (cc >= 0) {
            var inPath = pathAt(calls[cc].thread, calls[cc].start[cc - calls[cc].first]);
            lines.push(["launched by", nameOf(calls[cc], cc - calls[cc].first) + (inPath.length ? " in " + inPath.join(" › ") : "")]);
          }
        }
        return { title: groups[lane.group].label + " " + classes[lane.cls[i]][1], lines: lines };
      }
      return { title: nameOf(lane, i), lines: lines };
    }

    function fill(target, what, long) {
      target.textContent = "";
      node("b", { text: what.title }, target);
      var list = node("dl", {}, target);
      what.lines.forEach(function (line) { node("dt", { text: line[0] }, list); node("dd", { text: line[1] }, list); });
      if (long && what.full) { node("dt", { text: "full name" }, list); node("dd", { "class": "tl-full", text: what.full }, list); }
    }

    function hint() {
      detail.textContent = "";
      if (link && linked[link][0] !== self) return;
      node("p", { text: narrow ? "Tap anything for its name, length, launch call and ranges." : "Point at anything for its name, length, launch call and ranges; click to keep it and to see its launch. Keys: W S zoom, A D move, N next finding, 0 all, ? help." }, detail);
    }

    function help() {
      detail.textContent = "";
      node("b", { text: "Keys and gestures" }, detail);
      var list = node("dl", {}, detail);
      HELP.forEach(function (line) { node("dt", { text: line[0] }, list); node("dd", { text: line[1] }, list); });
    }

    function select(pick) {
      selected = pick; current = pick && pick.lane ? pick : current;
      if (pick) fill(detail, describe(pick), true); else hint();
      box.dataset.selected = pick ? describe(pick).title : "";
      schedule();
    }

    function hit(px, py) {
      var t = T(px), near = (v1 - v0) / plot() * 3;
      for (var n = 0; n < items.length; n++) {
        var item = items[n];
        if (py < item.y - (narrow ? 3 : 1) || py > item.y + item.h + 1) continue;
        if (item.kind === "head") return { head: item };
        if (px < LEFT - 1) return item.more ? { unfold: item } : null;
        if (item.kind === "flags") { for (var f = 0; f < D.flags.length; f++) if (Math.abs(D.flags[f].x - px) < 10 && X(D.flags[f][1]) >= LEFT - 1 && X(D.flags[f][1]) <= W) return { flag: D.flags[f], index: f }; return null; }
        if (item.kind === "passes") { for (var p = 0; p < D.passes.length; p++) if (t >= D.passes[p][0] && t < D.passes[p][1]) return { pass: D.passes[p] }; return null; }
        if (item.kind === "queue") {
          var q = item.group.queue, k = firstAfter(q.time, t) - 1;
          return { queue: q, depth: k >= 0 ? q.depth[k] : 0, t: t };
        }
        var lane = item.lane, spread = item.count > 1 || lane.kind === "ranges";
        var rows = spread ? [lane.rows[Math.min(Math.floor((py - item.y) / item.each), item.count - 1)]] : lane.rows;
        var best = null, distance = near;
        rows.forEach(function (row) {
          if (!row) return;
          for (var k = firstAfter(row.levels[0].s, t + near) - 1, tries = 0; k >= 0 && tries < 40; k--, tries++) {
            var i = row.id[k], d = Math.max(lane.start[i] - t, t - lane.end[i], 0);
            if (d < distance || (d === 0 && distance > 0)) { best = { lane: lane, row: row, i: i }; distance = d; }
            if (row.levels[0].e[k] < t - near) break;
          }
        });
        if (!best && lane.bins && !(D.detail || []).some(function (d) { return t >= d[0] && t <= d[1]; })) return shares(lane, t);
        return best;
      }
      return null;
    }

    function shares(lane, t) {
      var b = lane.bins, i = Math.min(Math.floor(t / SPAN * b.count), b.count - 1), from = Math.floor(SPAN * i / b.count), to = Math.floor(SPAN * (i + 1) / b.count);
      var lines = [["from", when(from)], ["for", duration(to - from) + ", reduced to shares"]];
      b.parts.forEach(function (p) { if (p.bins[i]) lines.push([classes[p.cls][1], (100 * p.bins[i] / (to - from)).toFixed(1) + " %"]); });
      return lines.length > 2 ? { lane: lane, share: lines } : null;
    }

    // Moving

    function reach() { // what this timeline and those linked to it show at most
      var low = 0, high = SPAN;
      if (link) linked[link].forEach(function (other) { if (other.element.hidden) return; var e = other.extent(); low = Math.min(low, e[0] + zero); high = Math.max(high, e[1] + zero); });
      var pad = link ? (high - low) * 0.02 : 0; // so that linked timelines are never moved apart at an end
      return [low - pad, high + pad];
    }

    function all() { var r = reach(); go(r[0], r[1]); }

    function view(a, b, quiet) {
      var limits = reach(), low = limits[0], high = limits[1];
      var w = Math.min(Math.max(b - a, SHORTEST_VIEW), high - low), mid = (a + b) / 2;
      if (b - a !== w) { a = mid - w / 2; b = mid + w / 2; }
      if (a < low) { b += low - a; a = low; }
      if (b > high) { a = Math.max(a - (b - high), low); b = high; }
      v0 = a; v1 = b;
      schedule();
      if (quiet) return;
      remember();
      if (link) linked[link].forEach(function (other) { if (other !== self) other.follow(v0 - zero, v1 - zero); });
    }

    function go(a, b) { // there in a fifth of a second, or at once where motion is unwelcome
      moving++;
      if (still && still.matches) return view(a, b);
      var from = [v0, v1], began = performance.now(), mine = moving;
      (function step(now) {
        if (mine !== moving) return;
        var f = Math.min(Math.max((now - began) / 200, 0), 1), k = f * (2 - f);
        view(from[0] + (a - from[0]) * k, from[1] + (b - from[1]) * k);
        if (f < 1) requestAnimationFrame(step);
      })(began);
    }

    function zoom(factor, t) {
      var middle = t === undefined ? (v0 + v1) / 2 : t;
      moving++;
      view(middle - (middle - v0) * factor, middle + (v1 - middle) * factor);
    }

    function pan(share) { moving++; var d = (v1 - v0) * share; view(v0 + d, v1 + d); }

    function finding(direction) {
      if (!D.flags.length) return;
      at = at < 0 ? (direction > 0 ? 0 : D.flags.length - 1) : (at + direction + D.flags.length) % D.flags.length;
      show(at);
    }

    function show(index) {
      var f = D.flags[index], around = Math.max(3e6, 2 * (f[2] - f[1])), pick = null;
      at = index;
      lanes.forEach(function (lane) {
        if (lane.kind !== "work" || pick || (f[3] >= 0 && D.groups[lane.group].device !== f[3])) return;
        var k = firstAfter(lane.start, f[1]) - 1;
        if (k >= 0 && lane.start[k] === f[1]) pick = { lane: lane, row: rowOf(lane, k), i: k };
      });
      go(Math.max(f[1] - around, 0), Math.min(f[2] + around, SPAN));
      select(pick || { flag: f });
      var claim = node("p", { "class": "tl-claim", text: "Finding " + f[0] + ": " + f[5] });
      detail.insertBefore(claim, detail.firstChild);
    }

    function pass(direction) {
      var i = 0, whole = v1 - v0 > SPAN * 0.9, middle = (v0 + v1) / 2;
      while (i < D.passes.length - 1 && D.passes[i][1] <= middle) i++;
      if (!whole) i = Math.min(Math.max(i + direction, 0), D.passes.length - 1);
      var pad = (D.passes[i][1] - D.passes[i][0]) / 50;
      go(D.passes[i][0] - pad, D.passes[i][1] + pad);
    }

    function neighbour(step) {
      var pick = current || (function () { var p = null; items.some(function (item) { if (item.lane && item.lane.kind === "work" && item.lane.n) { var row = item.lane.rows[0]; p = { lane: item.lane, row: row, i: row.id[Math.min(firstAfter(row.levels[0].s, v0), row.id.length - 1)] }; step = 0; } return !!p; }); return p; })();
      if (!pick || !pick.row) return;
      var k = firstAfter(pick.row.id, pick.i) - 1 + step;
      if (k < 0 || k >= pick.row.id.length) return;
      var i = pick.row.id[k], w = v1 - v0;
      if (pick.lane.start[i] < v0 || pick.lane.end[i] > v1) view(pick.lane.start[i] - w / 2, pick.lane.start[i] + w / 2);
      select({ lane: pick.lane, row: pick.row, i: i });
    }

    var saving = 0;
    function remember() {
      clearTimeout(saving);
      saving = setTimeout(function () {
        var rest = location.hash.slice(1).split("&").filter(function (part) { return part.indexOf("=") > 0 && part.indexOf(key + "=") !== 0; });
        try { history.replaceState(null, "", "#" + rest.concat(key + "=" + ((v0 - zero) / 1e6).toFixed(4) + "-" + ((v1 - zero) / 1e6).toFixed(4)).join("&")); } catch (error) { /* a page may forbid it; the view stays */ }
      }, 120);
    }

    function restore(scroll) {
      var match = new RegExp("(?:^|[#&])" + key + "=(-?[\\d.]+)-(-?[\\d.]+)").exec(location.hash);
      if (!match || !(+match[2] > +match[1])) return;
      moving++;
      view(+match[1] * 1e6 + zero, +match[2] * 1e6 + zero);
      if (scroll) box.scrollIntoView({ block: "nearest" });
    }

    // Hands

    var fingers = new Map(), drag = null;
    function place(e) { var r = main.getBoundingClientRect(); return [e.clientX - r.left, e.clientY - r.top]; }

    main.addEventListener("pointerdown", function (e) {
      main.setPointerCapture(e.pointerId);
      fingers.set(e.pointerId, place(e));
      moving++;
      drag = { x: place(e)[0], v0: v0, v1: v1, moved: false, many: fingers.size > 1, spread: spread() };
      tip.hidden = true;
    });
    function spread() { var p = Array.from(fingers.values()); return p.length > 1 ? [Math.max(Math.abs(p[0][0] - p[1][0]), 8), (p[0][0] + p[1][0]) / 2] : null; }
    main.addEventListener("pointermove", function (e) {
      var p = place(e);
      if (!fingers.has(e.pointerId)) return hover(p);
      fingers.set(e.pointerId, p);
      if (fingers.size > 1 && drag.spread) {
        var now = spread(), factor = drag.spread[0] / now[0], t = drag.v0 + (drag.spread[1] - LEFT) / plot() * (drag.v1 - drag.v0), w = (drag.v1 - drag.v0) * factor, a = t - (now[1] - LEFT) / plot() * w;
        drag.moved = true;
        return view(a, a + w);
      }
      if (Math.abs(p[0] - drag.x) > 3) drag.moved = true;
      if (drag.moved && !drag.many) { var d = (p[0] - drag.x) / plot() * (drag.v1 - drag.v0); main.style.cursor = "grabbing"; view(drag.v0 - d, drag.v1 - d); }
    });
    function release(e) {
      var was = drag, p = place(e);
      fingers.delete(e.pointerId);
      if (fingers.size) { drag = { x: fingers.values().next().value[0], v0: v0, v1: v1, moved: true, many: false, spread: null }; return; }
      drag = null; main.style.cursor = "";
      if (e.type === "pointerup" && was && !was.moved) click(hit(p[0], p[1]));
    }
    main.addEventListener("pointerup", release);
    main.addEventListener("pointercancel", release);
    main.addEventListener("pointerleave", function () { tip.hidden = true; if (hovered) { hovered = null; schedule(); } });

    function click(what) {
      if (what && what.head) { if (what.head.hidden && what.head.group.open && !what.head.group.all) what.head.group.all = true; else { what.head.group.open = !what.head.group.open; what.head.group.all = false; } layout(); return schedule(); }
      if (what && what.unfold) { what.unfold.lane.all = !what.unfold.lane.all; layout(); return schedule(); }
      if (what && what.flag) return show(what.index);
      if (what && what.pass) { var pad = (what.pass[1] - what.pass[0]) / 50; go(what.pass[0] - pad, what.pass[1] + pad); }
      select(what);
    }

    function hover(p) {
      var what = hit(p[0], p[1]), same = what && hovered && what.lane === hovered.lane && what.i === hovered.i && what.i !== undefined;
      main.style.cursor = what ? "pointer" : "grab";
      if (!what || what.head || what.unfold) { tip.hidden = true; if (hovered) { hovered = null; schedule(); } return; }
      if (!same || what.queue || what.share) { fill(tip, describe(what), false); tip.hidden = false; }
      if (!same) { hovered = what; schedule(); }
      var w = tip.offsetWidth, h = tip.offsetHeight, left = p[0] + 14, top = p[1] + 16;
      if (left + w > W - 4) left = Math.max(4, p[0] - w - 14);
      if (top + h > H + 60) top = Math.max(4, p[1] - h - 12);
      tip.style.transform = "translate(" + Math.round(left) + "px," + Math.round(top) + "px)";
    }

    main.addEventListener("wheel", function (e) {
      var sideways = Math.abs(e.deltaX) > Math.abs(e.deltaY) || e.shiftKey;
      if (!sideways && !e.ctrlKey && !e.metaKey && document.activeElement !== main) return;
      e.preventDefault(); moving++; tip.hidden = true;
      var step = (e.deltaMode ? 16 : 1) * (sideways ? e.deltaX || e.deltaY : e.deltaY);
      if (sideways) pan(step / plot()); else zoom(Math.exp(Math.max(-240, Math.min(240, step)) * (e.ctrlKey && Math.abs(step) < 40 ? 0.01 : 0.002)), T(place(e)[0]));
    }, { passive: false });

    main.addEventListener("keydown", function (e) {
      if (e.ctrlKey || e.metaKey || e.altKey) return;
      var acts = {
        w: function () { zoom(1 / 1.4); }, arrowup: function () { zoom(1 / 1.4); }, "+": function () { zoom(1 / 1.4); }, "=": function () { zoom(1 / 1.4); },
        s: function () { zoom(1.4); }, arrowdown: function () { zoom(1.4); }, "-": function () { zoom(1.4); },
        a: function () { pan(-0.2); }, arrowleft: function () { pan(-0.2); }, d: function () { pan(0.2); }, arrowright: function () { pan(0.2); },
        n: function () { finding(1); }, p: function () { finding(-1); }, "0": all, home: all,
        ".": function () { neighbour(1); }, ",": function () { neighbour(-1); }, escape: function () { if (marked) self.mark(null); select(null); }, "?": help
      }, act = acts[e.key.toLowerCase()];
      if (act) { e.preventDefault(); tip.hidden = true; act(); }
    });

    var brush = null;
    function overTime(e) { return Math.max(0, Math.min(SPAN, (e.clientX - over.getBoundingClientRect().left - LEFT) / plot() * SPAN)); }
    over.addEventListener("pointerdown", function (e) {
      over.setPointerCapture(e.pointerId); moving++;
      var t = overTime(e), grip = SPAN / plot() * 7;
      brush = Math.abs(t - v0) < grip && v1 - v0 > 2 * grip ? { anchor: v1 } : Math.abs(t - v1) < grip && v1 - v0 > 2 * grip ? { anchor: v0 } : t > v0 && t < v1 && v1 - v0 < SPAN * 0.98 ? { hold: t - v0, width: v1 - v0 } : { anchor: t, fresh: true, width: v1 - v0 };
    });
    over.addEventListener("pointermove", function (e) {
      var t = overTime(e);
      if (!brush) { var grip = SPAN / plot() * 7; over.style.cursor = Math.abs(t - v0) < grip || Math.abs(t - v1) < grip ? "ew-resize" : t > v0 && t < v1 ? "grab" : "crosshair"; return; }
      if (brush.hold !== undefined) view(t - brush.hold, t - brush.hold + brush.width);
      else if (!brush.fresh || Math.abs(t - brush.anchor) > SPAN / plot() * 3) { brush.moved = true; view(Math.min(t, brush.anchor), Math.max(t, brush.anchor)); }
    });
    over.addEventListener("pointerup", function (e) {
      if (brush && brush.fresh && !brush.moved) { var w = Math.min(brush.width, SPAN * 0.25), t = overTime(e); go(Math.max(t - w / 2, 0), Math.min(t + w / 2, SPAN)); }
      brush = null;
    });
    over.addEventListener("pointercancel", function () { brush = null; });

    // Colours, sizes, paper

    function swatches() { // the colours that occur
      legend.textContent = "";
      var seen = {};
      overview.forEach(function (d) { d.parts.forEach(function (p) { seen[p.cls] = (seen[p.cls] || 0) + p.total; }); });
      lanes.forEach(function (lane) { if (lane.kind === "work" || lane.kind === "calls" || lane.kind === "collectives") for (var i = 0; i < lane.n; i++) if (seen[lane.cls[i]] === undefined) seen[lane.cls[i]] = 0; });
      classes.forEach(function (c, i) {
        if (seen[i] === undefined || c[0] === "edge" || c[0] === "range") return;
        var item = node("li", {}, legend), swatch = node("i", {}, item);
        swatch.style.background = colour[i];
        node("span", { text: c[1] }, item);
      });
    }

    function recolour() { palette(); swatches(); schedule(); }
    function resize() { measure(); schedule(); }
    new MutationObserver(recolour).observe(document.documentElement, { attributes: true, attributeFilter: ["data-theme", "class"] });
    if (window.ResizeObserver) new ResizeObserver(function () { if (Math.max(box.clientWidth, 240) !== W || (window.devicePixelRatio || 1) !== ratio) resize(); }).observe(box);
    window.addEventListener("resize", resize);
    window.addEventListener("hashchange", function () { restore(true); });
    window.addEventListener("beforeprint", function () {
      box.classList.add("tl-light"); palette(); swatches(); draw();
      var sheet = document.createElement("canvas"), s = sheet.getContext("2d");
      var top = over.offsetParent ? over.height : 0;
      sheet.width = main.width; sheet.height = top + main.height;
      s.fillStyle = ink.paper; s.fillRect(0, 0, sheet.width, sheet.height); if (top) s.drawImage(over, 0, 0); s.drawImage(main, 0, top);
      picture.alt = "Timeline from " + when(v0) + " to " + when(v1); picture.src = sheet.toDataURL("image/png");
    });
    window.addEventListener("afterprint", function () { box.classList.remove("tl-light"); picture.removeAttribute("src"); recolour(); });

    var self = {
      element: box, flags: D.flags, view: function () { return [v0 - zero, v1 - zero]; },
      go: function (a, b) { go(a + zero, b + zero); }, follow: function (a, b) { view(a + zero, b + zero, true); }, show: show,
      mark: function (name) { // dims all operations but those of this name (short or full)
        marked = name === null ? null : { of: function (lane, i) { var k = shapes.name[lane.shape[i]]; return names[k] === name || D.full[k] === name; } };
        schedule();
      },
      extent: function () { return [-zero, SPAN - zero]; }, draw: draw, resize: resize, select: select, hit: hit, items: function () { return items; }, x: X
    };
    if (link) (linked[link] = linked[link] || []).push(self);
    box.addEventListener("timeline:mark", function (e) { self.mark(e.detail ? e.detail.name : null); });
    box.addEventListener("timeline:show", function (e) { var i = D.flags.findIndex(function (f) { return f[0] === e.detail.number; }); if (i >= 0) { show(i); box.scrollIntoView({ block: "nearest" }); } });
    palette(); measure(); swatches(); hint();
    if (link && linked[link][0] !== self) self.follow.apply(null, linked[link][0].view());
    restore(false); draw();
    box.dataset.drawn = String(lanes.reduce(function (n, lane) { return n + lane.n; }, 0));
    box.timeline = self;
  }

  function choices(select) { // of the timelines in the lower place of a pair one is shown; the choice is kept in the URL
    var key = select.dataset.key;
    function show(id) {
      Array.prototype.forEach.call(select.options, function (option) {
        var box = document.getElementById(option.value);
        box.hidden = option.value !== id;
        if (box.hidden) return;
        select.value = id;
        if (box.timeline) { box.timeline.follow.apply(null, linked[box.dataset.link][0].view()); box.timeline.resize(); } else Timeline(box);
      });
    }
    function restore() {
      var match = new RegExp("(?:^|[#&])" + key + "=(\\d+)").exec(location.hash), option = match && select.options[+match[1] - 1];
      if (option && option.value !== select.value) show(option.value);
    }
    select.addEventListener("change", function () {
      show(select.value);
      var rest = location.hash.slice(1).split("&").filter(function (part) { return part.indexOf("=") > 0 && part.indexOf(key + "=") !== 0; });
      try { history.replaceState(null, "", "#" + rest.concat(key + "=" + (select.selectedIndex + 1)).join("&")); } catch (error) { /* a page may forbid it; the choice stays */ }
    });
    window.addEventListener("hashchange", restore);
    restore();
  }

  Array.prototype.forEach.call(document.querySelectorAll("figure.timeline:not([hidden])"), Timeline);
  Array.prototype.forEach.call(document.querySelectorAll("select.tl-choice"), choices);
})();

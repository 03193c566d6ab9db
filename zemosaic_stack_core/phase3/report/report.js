(function () {
  "use strict";
  const data = JSON.parse(document.getElementById("data").textContent);
  const columns = data.columns;
  const byKey = Object.fromEntries(columns.map((column) => [column.key, column]));
  const byId = (id) => document.getElementById(id);

  // An element: attributes by name, functions as listeners, then what is in it.
  function h(tag, attributes, ...children) {
    const isSvg = ["svg", "path", "line", "text", "circle", "rect"].includes(tag);
    const element = isSvg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
    for (const [name, value] of Object.entries(attributes || {})) {
      if (typeof value === "function") element.addEventListener(name, value);
      else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
    }
    element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
    return element;
  }
  const count = (number, noun) => number + " " + noun + (number === 1 ? "" : "s");
  function show(value, column) {
    if (value === null || value === undefined) return "";
    return column.digits === null ? String(Number(value.toPrecision(4))) : value.toFixed(column.digits);
  }
  const withUnit = (value, column) => show(value, column) + (column.unit ? (column.unit === "\u00b0" ? "" : " ") + column.unit : "");
  const clock = (seconds, end) => new Date(seconds * 1000).toISOString().slice(11, end || 16);
  const moment = (seconds) => new Date(seconds * 1000).toISOString().slice(0, 19).replace("T", " ") + " UTC";

  // Frames: one record each, whatever tile it is of.
  data.tiles.forEach((tile, place) => {
    tile.place = place;
    let last = tile.dates.find((date) => date !== null);
    tile.frames = tile.names.map((name, index) => {
      last = tile.dates[index] === null ? last : tile.dates[index];
      const frame = { tile, index, name, path: tile.folder + name, date: tile.dates[index], when: last };
      frame.dropped = tile.dropped[index];
      frame.note = tile.notes[index];
      for (const key in tile.numbers) frame[key] = tile.numbers[key][index];
      frame.worse = columns.map(({ key }) => key).filter((key) => tile.standing_out[key] && tile.standing_out[key].places.includes(index));
      frame.odd = frame.worse.map((key) => `${byKey[key].title} ${withUnit(frame[key], byKey[key])} (median ${withUnit(tile.standing_out[key].median, byKey[key])})`).join("; ");
      return frame;
    });
  });
  const allFrames = data.tiles.flatMap((tile) => tile.frames);

  // The list of frames to leave out; kept by the browser where it may.
  const store = "leave out " + data.output + " " + data.started;
  const out = new Set(data.excluded);
  try {
    JSON.parse(localStorage.getItem(store) || "[]").forEach((path) => out.add(path));
  } catch { /* a browser that keeps nothing */ }
  const listText = () =>
    "# Frames to leave out of " + data.output + "; made by its report.\n" +
    "# Repeat the command with: --exclude exclude.txt\n" +
    Array.from(out, (path) => (path.startsWith("#") ? "./" : "") + path + "\n").join("");
  function leaveOut(paths, isOut) {
    paths.forEach((path) => (isOut ? out.add(path) : out.delete(path)));
    try {
      localStorage.setItem(store, JSON.stringify(Array.from(out)));
    } catch { /* the same */ }
    drawLeave();
    redraw();
  }
  function drawLeave() {
    const bar = byId("leave");
    const isOpen = bar.querySelector("textarea") !== null;
    bar.hidden = out.size === 0;
    bar.replaceChildren(
      h("div", { class: "tools" },
        h("p", {}, h("b", {}, count(out.size, "frame") + " to leave out."), " Save the list, and repeat the command with ",
          h("code", {}, "--exclude exclude.txt")),
        h("button", { click: save }, "Save list"),
        h("button", { "aria-pressed": String(isOpen), click: toggle }, "Show list"),
        h("button", { click: () => leaveOut(Array.from(out), false) }, "Clear")),
      isOpen ? text() : ""
    );
    function text() {
      return h("textarea", { readonly: true, "aria-label": "frames to leave out", wrap: "off" }, listText());
    }
    function toggle(event) {
      if (isOpen) bar.querySelector("textarea").remove();
      else bar.append(text());
      drawLeave();
      bar.querySelectorAll("button")[1].focus();
    }
    function save() {
      const address = URL.createObjectURL(new Blob([listText()], { type: "text/plain" }));
      h("a", { href: address, download: "exclude.txt" }).click();
      URL.revokeObjectURL(address);
    }
  }

  // What is shown at the pointer, or at a frame that the keyboard chose.
  const tip = byId("tip");
  function showTip(lines, x, y) {
    tip.textContent = lines.filter(Boolean).join("\n");
    tip.style.display = "block";
    tip.style.left = Math.max(6, Math.min(x + 16, innerWidth - tip.offsetWidth - 10)) + "px";
    tip.style.top = Math.max(6, Math.min(y + 16, innerHeight - tip.offsetHeight - 10)) + "px";
  }
  const hideTip = () => (tip.style.display = "none");

  // Plots of frames over time, or in their order where there is no time.
  const W = 320, H = 140, LEFT = 42, RIGHT = 312, TOP = 8, BOTTOM = 116;
  const MINUTES = [1, 2, 5, 10, 15, 30, 60, 120, 180, 360, 720, 1440, 2880];
  function timeAxis(frames) {
    const times = frames.map((frame) => frame.when);
    const first = Math.min(...bounds(times)), last = Math.max(...bounds(times));
    const hasTime = times.every((time) => time !== undefined) && last > first && last - first < 3 * 86400;
    if (!hasTime) {
      const most = Math.max(frames.length - 1, 1);
      const step = Math.max(1, Math.ceil(frames.length / 5));
      const ticks = frames.map((_, index) => index).filter((index) => index % step === 0);
      return { words: "The frames are in their order.", at: (_, index) => index / most, ticks: ticks.map((index) => [index / most, index + 1]) };
    }
    const step = 60 * (MINUTES.find((minutes) => (last - first) / 60 / minutes <= 5) || 2880);
    const ticks = [];
    for (let time = Math.ceil(first / step) * step; time <= last; time += step) ticks.push([(time - first) / (last - first), clock(time)]);
    return { words: "Time runs to the right, UTC.", at: (frame) => (frame.when - first) / (last - first), ticks };
  }
  function bounds(values) {
    let low = Infinity, high = -Infinity;
    for (const value of values) {
      if (value === null || value === undefined) continue;
      low = Math.min(low, value);
      high = Math.max(high, value);
    }
    return [low, high];
  }
  function niceTicks(low, high) {
    const rough = (high - low) / 4;
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = power * [1, 2, 2.5, 5, 10].find((factor) => power * factor >= rough * 0.999);
    const ticks = [];
    for (let value = Math.ceil(low / step) * step; value <= high + step * 1e-6; value += step) ticks.push(Number(value.toPrecision(6)));
    return ticks;
  }
  function key(color, text, isCross) {
    return h("span", { class: "key" }, h("i", { style: `--c:var(--${color})`, class: isCross ? "cross" : null }, isCross ? "\u00d7" : ""), text);
  }
  function drawPlots(place, frames) {
    const axis = timeAxis(frames);
    const xs = frames.map((frame, index) => LEFT + 6 + (RIGHT - LEFT - 12) * axis.at(frame, index));
    const plots = columns.filter((column) => column.drawn).map((column) => ({ title: column.title, unit: column.unit, series: [column.key] }));
    plots.push({ title: "Rejected", unit: "%", series: ["rejected_low", "rejected_high"] });
    const drawn = plots.map((plot) => onePlot(plot, frames, xs, axis)).filter(Boolean);
    place.style.setProperty("--columns", drawn.length < 5 ? drawn.length : drawn.length < 7 ? 3 : 4);
    const keys = [frames.some((frame) => frame.odd) && key("amber", "stands out"), frames.some((frame) => frame.dropped) && key("red", "dropped", true), frames.some((frame) => out.has(frame.path)) && key("amber", "to be left out", true)];
    place.replaceChildren(keys.some(Boolean) ? h("p", { class: "keys" }, keys) : "", ...drawn.map((one) => one.figure));
    return axis.words;
    function mark(index) {
      drawn.forEach((one) => one.mark(index));
    }
    function onePlot(plot, frames, xs, axis) {
      let [low, high] = bounds(plot.series.flatMap((key) => frames.map((frame) => frame[key])));
      const isFlat = plot.series[0] === "weight" && low === high;
      if (low > high || isFlat) return null;
      if (plot.series.length > 1) low = 0;
      const margin = 0.07 * (high - low) || Math.abs(high) * 0.05 || 1;
      low = low >= 0 && low < 2 * margin ? 0 : low - margin;
      high += margin;
      const y = (value) => BOTTOM - ((BOTTOM - TOP) * (value - low)) / (high - low);
      const [size, arm] = frames.length < 80 ? [7, 4] : frames.length < 400 ? [4.5, 3.5] : [2.4, 2.5];
      const svg = h("svg", { viewBox: `0 0 ${W} ${H}`, tabindex: 0, role: "img",
        "aria-label": `${plot.title}${plot.unit ? " in " + plot.unit : ""} of ${count(frames.length, "frame")}; arrow keys go from frame to frame, Enter opens one` });
      niceTicks(low, high).forEach((value) => svg.append(
        h("line", { x1: LEFT, x2: RIGHT, y1: y(value), y2: y(value) }),
        h("text", { x: LEFT - 7, y: y(value) + 4, "text-anchor": "end" }, String(value))));
      axis.ticks.forEach(([part, text]) => {
        const x = LEFT + 6 + (RIGHT - LEFT - 12) * part;
        svg.append(h("text", { x, y: H - 8, "text-anchor": "middle" }, String(text)));
      });
      const crosses = { dropped: "", out: "" };
      let odd = "";
      plot.series.forEach((key) => {
        let dots = "";
        frames.forEach((frame, index) => {
          const kind = out.has(frame.path) ? "out" : frame.dropped ? "dropped" : "";
          const value = frame[key];
          if (kind) {
            const py = value === null || value === undefined ? BOTTOM : y(value);
            crosses[kind] += `M${(xs[index] - arm).toFixed(1)} ${(py - arm).toFixed(1)}l${2 * arm} ${2 * arm}m0-${2 * arm}l-${2 * arm} ${2 * arm}`;
          } else if (frame.worse.includes(key)) odd += `M${xs[index].toFixed(1)} ${y(value).toFixed(1)}h0`;
          else if (value !== null && value !== undefined) dots += `M${xs[index].toFixed(1)} ${y(value).toFixed(1)}h0`;
        });
        const color = key === "rejected_high" ? "high" : key === "rejected_low" ? "low" : "used";
        svg.append(h("path", { class: "dots " + color, d: dots, "stroke-width": size }));
      });
      svg.append(h("path", { class: "dots odd", d: odd, "stroke-width": size + 1 }));
      for (const kind in crosses) svg.append(h("path", { class: "dots " + kind, d: crosses[kind] }));
      const here = plot.series.map(() => svg.appendChild(h("circle", { class: "here", r: 6.5, visibility: "hidden" })));
      let chosen = -1;
      const one = {
        mark(index) {
          chosen = index;
          here.forEach((circle, number) => {
            const value = index < 0 ? null : frames[index][plot.series[number]];
            circle.setAttribute("visibility", index < 0 || (number && (value === null || value === undefined)) ? "hidden" : "visible");
            if (index < 0) return;
            circle.setAttribute("cx", xs[index]);
            circle.setAttribute("cy", value === null || value === undefined ? BOTTOM : y(value));
          });
        },
      };
      function tell(index, x, y) {
        const frame = frames[index];
        const values = plot.series.map((key) => byKey[key].title + " " + (withUnit(frame[key], byKey[key]) || "not measured"));
        showTip([frame.name + (data.tiles.length > 1 ? ", tile " + frame.tile.id : ""), frame.date === null ? "" : moment(frame.date), ...values,
          frame.odd && "stands out: " + frame.odd, frame.dropped && "dropped: " + frame.dropped, out.has(frame.path) && "to be left out"], x, y);
      }
      function nearest(event) {
        const box = svg.getBoundingClientRect();
        const px = ((event.clientX - box.left) / box.width) * W, py = ((event.clientY - box.top) / box.height) * H;
        let best = 0, least = Infinity;
        frames.forEach((frame, index) => plot.series.forEach((key) => {
          const value = frame[key];
          const dy = value === null || value === undefined ? 0 : (y(value) - py) / 4;
          const distance = (xs[index] - px) ** 2 + dy * dy;
          if (distance < least) [best, least] = [index, distance];
        }));
        return best;
      }
      svg.addEventListener("pointermove", (event) => {
        const index = nearest(event);
        mark(index);
        tell(index, event.clientX, event.clientY);
      });
      svg.addEventListener("pointerleave", () => (mark(-1), hideTip()));
      svg.addEventListener("blur", () => (mark(-1), hideTip()));
      svg.addEventListener("click", (event) => (hideTip(), openViewer(frames, nearest(event))));
      svg.addEventListener("keydown", (event) => {
        const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
        if (step) {
          const next = Math.max(0, Math.min(frames.length - 1, chosen < 0 ? (step > 0 ? 0 : frames.length - 1) : chosen + step));
          mark(next);
          const box = here[0].getBoundingClientRect();
          tell(next, box.right, box.bottom);
        } else if (event.key === "Enter" && chosen >= 0) openViewer(frames, chosen);
        else return;
        event.preventDefault();
      });
      one.figure = h("figure", { class: "plot" },
        h("figcaption", {}, h("b", {}, plot.title), plot.unit,
          plot.series.length > 1 ? [key("blue", "low"), key("orange", "high")] : null),
        svg);
      return one;
    }
  }

  // The histogram of a master.
  function drawHistogram(tile) {
    const found = tile.pictures.histogram;
    if (!found.counts) return null;
    const most = Math.log1p(Math.max(...found.counts.flat()));
    const x = (value) => 8 + 382 * ((value - found.low) / (found.high - found.low));
    const svg = h("svg", { viewBox: `0 0 400 132`, role: "img", "aria-label": "histogram of the master's values" });
    const colors = found.counts.length > 1 ? ["red", "green", "blue"] : ["gray"];
    found.counts.forEach((counts, channel) => {
      const step = 382 / counts.length;
      const path = counts.map((number, index) => `L${(8 + step * (index + 0.5)).toFixed(1)} ${(108 - (100 * Math.log1p(number)) / most).toFixed(1)}`);
      svg.append(h("path", { d: `M8 108${path.join("")}L390 108`, style: `fill:var(--${colors[channel]});fill-opacity:.22;stroke:var(--${colors[channel]})` }));
    });
    svg.append(h("line", { class: "median", x1: x(found.median), x2: x(found.median), y1: 4, y2: 108 }));
    niceTicks(found.low, found.high).forEach((value) => svg.append(h("text", { x: Math.max(18, Math.min(378, x(value))), y: 126, "text-anchor": "middle" }, String(value))));
    return h("div", {}, h("h3", {}, "Values of the master"), svg,
      h("p", {}, `Pixels at each value, in input units, on a logarithmic scale; the dashed line is the median, ${Number(found.median.toPrecision(5))}.`));
  }

  // Pictures of a tile that can be chosen among.
  const kinds = [
    ["image", "Master", () => "The master, stretched automatically."],
    ["rejected", "Rejected", () => "Where samples were rejected: orange above the others, blue below; the brighter, the more."],
    ["coverage", "Coverage", (tile) => `Samples combined at each pixel, ${tile.coverage[0]} to ${tile.coverage[1]}; the brighter, the more.`],
  ];
  const kindsOf = (tile) => kinds.filter(([kind]) => tile.pictures[kind]);
  function kindButtons(tile, chosen, choose) {
    return kindsOf(tile).map(([kind, title]) => h("button", { "aria-pressed": String(kind === chosen), click: () => choose(kind) }, title));
  }
  const wordsOf = (tile, kind) => kinds.find(([name]) => name === kind)[2](tile);

  // The tile that is looked at.
  let current = null, kind = "image", sorting = { key: null, sign: 1 };
  const MOST_ROWS = 1000;
  function drawBench() {
    const tile = current;
    const hasSeveral = data.tiles.length > 1;
    const step = (by) => h("button", { disabled: !data.tiles[tile.place + by], click: () => (location.hash = "tile-" + data.tiles[tile.place + by].id) }, by < 0 ? "Previous tile" : "Next tile");
    const parts = [h("h2", {}, hasSeveral ? `Tile ${tile.id} \u00b7 ${tile.name}` : "The master")];
    if (hasSeveral) parts.push(h("div", { class: "tools" }, step(-1), step(1)));
    if (tile.reason) parts.push(h("p", { class: "reason" }, tile.reason));
    if (!tile.pictures[kind]) kind = "image";
    const picture = tile.pictures.image && h("div", { class: "panel" },
      h("div", { class: "tools" }, kindButtons(tile, kind, (name) => ((kind = name), drawBench()))),
      h("figure", { class: "master" },
        h("button", { class: "view", "aria-label": "enlarge", click: () => openViewer([], -1) }, h("img", { src: tile.pictures[kind], alt: wordsOf(tile, kind) })),
        h("figcaption", {}, wordsOf(tile, kind) + " Click to enlarge.")));
    const facts = h("div", { class: "panel" }, drawHistogram(tile), h("h3", {}, "How it was made"),
      h("table", { class: "plain" }, tile.facts.map(([name, value]) => h("tr", {}, h("th", { scope: "row" }, name), h("td", {}, value.replace(/(\d) (?=[a-zA-Z%]+\b|%)/g, "$1\u00a0"))))));
    parts.push(h("div", { class: picture ? "bench" : "" }, picture, facts));
    if (tile.frames.length) {
      const plots = h("div", { class: "plots" });
      const words = drawPlots(plots, tile.frames);
      const dropped = tile.frames.filter((frame) => frame.dropped).length, odd = tile.frames.filter((frame) => frame.odd).length;
      parts.push(h("h2", {}, `Frames of ${hasSeveral ? "tile " + tile.id : "the master"}`),
        h("p", {}, `${count(tile.frames.length, "frame")}, ${dropped} dropped${odd ? `, ${odd} that ${odd === 1 ? "stands" : "stand"} out` : ""}. ${words} Point at a dot for its numbers, click a dot or a name for the picture; tick what is to be left out.`),
        plots, h("div", { class: "panel" }, frameTable(tile)));
    }
    const focused = document.activeElement && document.activeElement.dataset.focus;
    byId("bench").replaceChildren(...parts);
    if (focused) (document.querySelector(`[data-focus="${focused}"]`) || document.body).focus();
    document.querySelectorAll("a.tile").forEach((card) => card.setAttribute("aria-current", card.hash === "#tile-" + tile.id));
  }
  function frameTable(tile) {
    const isAlike = (values) => values.every((value) => value === null || value === 1);
    const shown = columns.filter(({ key }) => tile.numbers[key] && byKey[key].listed && !(key === "weight" && isAlike(tile.numbers.weight)));
    const frames = tile.frames.slice();
    const value = (frame) => (sorting.key === "name" ? frame.index : sorting.key === "when" ? frame.when : frame[sorting.key]);
    if (sorting.key) frames.sort((a, b) => (value(a) == null) - (value(b) == null) || sorting.sign * (value(a) - value(b)) || a.index - b.index);
    const head = (key, title, unit) => h("th", { scope: "col", "aria-sort": sorting.key === key ? (sorting.sign > 0 ? "ascending" : "descending") : null },
      h("button", { "data-focus": "sort-" + key, click: () => ((sorting = { key, sign: sorting.key === key ? -sorting.sign : 1 }), drawBench()) },
        title + (sorting.key === key ? (sorting.sign > 0 ? " \u2191" : " \u2193") : ""), unit ? h("small", {}, unit) : null));
    const dates = tile.dates.filter((date) => date !== null);
    const hasTime = dates.length > 0, hasDays = hasTime && Math.max(...dates) - Math.min(...dates) > 86400;
    const when = (date) => (date === null ? "" : hasDays ? moment(date).slice(0, 16) : clock(date, 19));
    const rows = frames.slice(0, MOST_ROWS).map((frame) => h("tr", { class: out.has(frame.path) ? "out" : frame.dropped ? "lost" : null },
      h("td", {}, h("input", { type: "checkbox", "aria-label": "leave out " + frame.name, "data-focus": "tick-" + frame.index, checked: out.has(frame.path), change: (event) => leaveOut([frame.path], event.target.checked) })),
      h("th", { scope: "row" }, h("button", { class: "open", click: () => openViewer(frames, frames.indexOf(frame)) }, frame.name),
        frame.dropped ? h("span", { class: "why" }, "dropped: " + frame.dropped) : null, frame.odd ? h("span", { class: "odd" }, "stands out: " + frame.odd) : null,
        frame.note ? h("span", { class: "note" }, frame.note) : null),
      hasTime ? h("td", { "data-title": "time" }, when(frame.date)) : null,
      shown.map((column) => h("td", { "data-title": column.title }, show(frame[column.key], column), frame[column.key] == null || !column.unit || column.unit.length > 2 ? null : h("b", { class: "unit" }, " " + column.unit)))));
    const table = h("table", { class: "frames" },
      h("thead", {}, h("tr", {}, h("th", { scope: "col", "aria-label": "leave out" }), head("name", "Frame"), hasTime ? head("when", "Time", "UTC") : null, shown.map((column) => head(column.key, column.title, column.unit)))),
      h("tbody", {}, rows));
    // Where there is no room for columns, there is none for their titles to click on.
    const orders = [["name", "plan"], hasTime && ["when", "time"], ...shown.map((column) => [column.key, column.title.toLowerCase()])].filter(Boolean);
    const order = h("select", { class: "narrow", "aria-label": "order of the frames", "data-focus": "order",
      change: (event) => ((sorting = { key: event.target.value, sign: ["name", "when"].includes(event.target.value) ? 1 : -1 }), drawBench()) },
      orders.map(([key, title]) => h("option", { value: key, selected: key === (sorting.key || "name") }, "order: " + title)));
    return [order, table, frames.length > MOST_ROWS ? h("p", {}, `and ${frames.length - MOST_ROWS} more frames, see ${data.elsewhere}`) : ""];
  }

  // A frame beside the master, both moved together.
  const viewer = byId("viewer");
  let look = null;
  function openViewer(frames, place) {
    look = { frames, place, kind, zoom: 1, x: 0, y: 0, blink: false };
    drawViewer();
    if (!viewer.open) viewer.showModal();
  }
  function drawViewer() {
    const frame = look.frames[look.place];
    const tile = frame ? frame.tile : current;
    if (!tile.pictures[look.kind]) look.kind = "image";
    const focused = viewer.contains(document.activeElement) && document.activeElement.dataset.focus;
    const button = (id, text, title, click, disabled) => h("button", { "data-focus": "viewer-" + id, "aria-label": title, title, click, disabled }, text);
    const step = (by) => () => ((look.place += by), drawViewer());
    const pane = (picture, title, words) => h("figure", { class: "pane" },
      h("div", {}, picture ? h("img", { src: picture, alt: title, draggable: "false" }) : words), h("figcaption", {}, h("b", {}, title), picture ? " " + words : ""));
    const numbers = frame && columns.filter((column) => frame[column.key] != null).map((column) => h("div", {}, h("dt", {}, column.title), h("dd", {}, withUnit(frame[column.key], column))));
    const isAligned = frame && !frame.dropped;
    viewer.replaceChildren(
      h("div", { class: "tools" },
        h("h2", {}, frame ? `${frame.name} \u00b7 ${look.place + 1} of ${look.frames.length}` : data.tiles.length > 1 ? `Tile ${tile.id} \u00b7 ${tile.name}` : "The master"),
        frame ? [button("previous", "\u2190", "previous frame (left arrow)", step(-1), !look.frames[look.place - 1]), button("next", "\u2192", "next frame (right arrow)", step(1), !look.frames[look.place + 1])] : null,
        kindButtons(tile, look.kind, (name) => ((look.kind = name), drawViewer())),
        frame ? h("button", { "data-focus": "viewer-blink", "aria-pressed": String(look.blink), title: "the frame and the master in turn (b)", click: blink }, "Blink") : null,
        button("smaller", "\u2212", "smaller (-)", () => zoomBy(1 / 1.5)), button("larger", "+", "larger (+)", () => zoomBy(1.5)), button("whole", "Whole", "the whole picture (0)", () => zoomBy(0)),
        button("close", "Close", "close (Esc)", () => viewer.close())),
      h("div", { class: frame && look.blink ? "panes blink" : "panes" },
        frame ? pane(tile.pictures.frames[frame.index], isAligned ? "The frame, aligned" : "The frame, as it was written",
          tile.pictures.frames[frame.index] ? "Stretched by itself." : "No picture of this frame: it can't be read, the tile was reused, or the page has no room for more.") : null,
        pane(tile.pictures[look.kind], kinds.find(([name]) => name === look.kind)[1], tile.pictures.image ? wordsOf(tile, look.kind) : "This tile was not made.")),
      frame && frame.dropped ? h("p", { class: "why" }, "Dropped: " + frame.dropped) : "",
      frame && frame.odd ? h("p", { class: "odd" }, "Stands out: " + frame.odd) : "",
      frame && frame.note ? h("p", {}, frame.note) : "",
      frame ? h("p", {}, h("label", { class: "tick" }, h("input", { type: "checkbox", "data-focus": "viewer-tick", checked: out.has(frame.path), change: (event) => leaveOut([frame.path], event.target.checked) }), "Leave this frame out (x)")) : "",
      frame ? h("dl", {}, frame.date === null ? null : h("div", {}, h("dt", {}, "Taken"), h("dd", {}, moment(frame.date))), numbers) : "");
    viewer.querySelectorAll(".pane div").forEach(panes);
    place();
    if (focused) {
      const again = viewer.querySelector(`[data-focus="${focused}"]:not(:disabled)`);
      if (again) again.focus();
    }
  }
  function blink() {
    look.blink = !look.blink;
    Object.assign(look, { zoom: 1, x: 0, y: 0 });  // the panes have another width now
    drawViewer();
  }
  function place() {
    viewer.querySelectorAll(".pane img").forEach((image) => {
      image.style.transform = `translate(${look.x}px,${look.y}px) scale(${look.zoom})`;
      image.style.imageRendering = look.zoom > 3 ? "pixelated" : "auto";
    });
  }
  function zoomBy(factor, x, y) {
    const box = viewer.querySelector(".pane div").getBoundingClientRect();
    const before = look.zoom;
    look.zoom = factor ? Math.max(1, Math.min(16, before * factor)) : 1;
    const [px, py] = [x === undefined ? box.width / 2 : x, y === undefined ? box.height / 2 : y];
    moveTo(px - ((px - look.x) * look.zoom) / before, py - ((py - look.y) * look.zoom) / before);
  }
  function moveTo(x, y) {
    const box = viewer.querySelector(".pane div").getBoundingClientRect();
    look.x = Math.min(0, Math.max(box.width * (1 - look.zoom), x));
    look.y = Math.min(0, Math.max(box.height * (1 - look.zoom), y));
    place();
  }
  function panes(pane) {
    pane.addEventListener("wheel", (event) => {
      event.preventDefault();
      const box = pane.getBoundingClientRect();
      zoomBy(event.deltaY < 0 ? 1.25 : 0.8, event.clientX - box.left, event.clientY - box.top);
    }, { passive: false });
    pane.addEventListener("dblclick", (event) => {
      const box = pane.getBoundingClientRect();
      zoomBy(look.zoom > 1 ? 0 : 4, event.clientX - box.left, event.clientY - box.top);
    });
    pane.addEventListener("pointerdown", (event) => pane.setPointerCapture(event.pointerId));
    pane.addEventListener("pointermove", (event) => {
      if (pane.hasPointerCapture(event.pointerId)) moveTo(look.x + event.movementX, look.y + event.movementY);
    });
  }
  viewer.addEventListener("keydown", (event) => {
    const frame = look.frames[look.place];
    if (event.key === "ArrowLeft" && look.frames[look.place - 1]) look.place -= 1;
    else if (event.key === "ArrowRight" && look.frames[look.place + 1]) look.place += 1;
    else if (event.key === "+" || event.key === "=") return zoomBy(1.5);
    else if (event.key === "-") return zoomBy(1 / 1.5);
    else if (event.key === "0") return zoomBy(0);
    else if (event.key === "b" && frame) return blink();
    else if (event.key === "x" && frame) return leaveOut([frame.path], !out.has(frame.path));
    else return;
    event.preventDefault();
    drawViewer();
  });

  // Charts: the numbers of the tile under the pointer.
  document.querySelectorAll(".chart").forEach((chart, number) => {
    const field = chart.querySelector(".field"), bar = chart.querySelector(".mark");
    field.addEventListener("pointermove", (event) => {
      const box = field.getBoundingClientRect();
      const index = Math.min(data.labels.length - 1, Math.max(0, Math.floor(((event.clientX - box.left) / box.width) * data.labels.length)));
      bar.setAttribute("x", field.x.baseVal.value + (field.width.baseVal.value / data.labels.length) * index);
      bar.style.opacity = 0.12;
      showTip([data.labels[index], ...data.charts[number].map(([label, values]) => label + ": " + values[index] + " " + chart.dataset.unit)], event.clientX, event.clientY);
    });
    field.addEventListener("pointerleave", () => (hideTip(), (bar.style.opacity = 0)));
  });

  // Tiles: shown by outcome and words, in an order.
  const cards = Array.from(document.querySelectorAll("a.tile"));
  cards.forEach((card, index) => {
    const picture = data.tiles[index].pictures.image;
    if (picture) card.querySelector(".picture").append(h("img", { src: picture, alt: "" }));
  });
  if (cards.length) {
    let outcome = "", words = "";
    const filter = () => {
      cards.forEach((card) => (card.hidden = !((!outcome || card.dataset.outcome === outcome) && card.dataset.words.includes(words))));
      byId("shown").textContent = cards.filter((card) => !card.hidden).length + " of " + cards.length;
    };
    document.querySelectorAll("button[data-outcome]").forEach((button, _, all) => button.addEventListener("click", () => {
      outcome = button.dataset.outcome;
      all.forEach((one) => one.setAttribute("aria-pressed", one === button));
      filter();
    }));
    byId("words").addEventListener("input", (event) => ((words = event.target.value.toLowerCase()), filter()));
    byId("order").addEventListener("change", (event) => {
      const key = event.target.value, sign = key === "place" ? 1 : -1;
      cards.slice().sort((a, b) => sign * (a.dataset[key] - b.dataset[key]) || a.dataset.place - b.dataset.place).forEach((card) => card.parentNode.append(card));
    });
    filter();
  }

  let later = 0;
  function redraw() {
    drawBench();
    if (viewer.open) drawViewer();
    clearTimeout(later);
    if (byId("night") && allFrames.length) later = setTimeout(() => drawPlots(byId("night"), allFrames), 200);
  }
  function choose() {
    const asked = data.tiles.find((tile) => "#tile-" + tile.id === location.hash);
    const first = data.tiles.find((tile) => tile.pictures.image) || data.tiles[0];
    current = asked || current || first;
    if (!current) return;
    redraw();
    if (asked) {
      const title = byId("bench").querySelector("h2");
      title.tabIndex = -1;
      title.scrollIntoView();
      title.focus({ preventScroll: true });
    }
  }
  addEventListener("hashchange", choose);
  choose();
  drawLeave();
  document.documentElement.dataset.ready = "yes";
})();

// The comparison of two checkpoints in a notebook: choose, slide, see. What it draws first, widget.py has drawn, too.
(() => {
  "use strict";
  const NONE = -32768;

  const escaped = (text, quotes) => {
    const safe = String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
    return quotes ? safe.replace(/"/g, "&quot;").replace(/'/g, "&#x27;") : safe;
  };

  const written = (value, signed) => {
    const tenths = Math.floor((value + 5) / 10), size = Math.abs(tenths);
    return (tenths < 0 ? "−" : signed && tenths > 0 ? "+" : "") + Math.floor(size / 10) + "." + (size % 10);
  };

  const withInterval = (value, half, signed) =>
    `${written(value, signed)}°` +
    (half === NONE ? "" : ` [${written(value - half, signed)}, ${written(value + half, signed)}]`);

  const channels = (colour) => [1, 3, 5].map((i) => parseInt(colour.slice(i, i + 2), 16));

  const colourOf = (degrees, stops) => {
    const found = stops.findIndex(([value]) => value > degrees);
    const upper = found < 0 ? stops.length : found;
    const [low, below] = stops[Math.max(upper - 1, 0)], [high, above] = stops[Math.min(upper, stops.length - 1)];
    const share = high === low ? 0 : (degrees - low) / (high - low);
    const to = channels(above);
    return channels(below).map((a, i) => Math.floor(a + (to[i] - a) * share + 0.5));
  };

  const hex = (rgb) => "#" + rgb.map((c) => c.toString(16).padStart(2, "0")).join("");

  // One map as widget.py draws it: layer_b to the right, layer_a upwards; the pairs a < b in order.
  const heatMap = (view, scale, titles, side) => {
    const n = view.layers.length, cell = Math.max(2, Math.floor(side / n)), size = cell * n, gap = cell > 5 ? 1 : 0;
    const half = Math.floor(cell / 2), parts = [], numbers = [];
    parts.push(`<rect width="${size}" height="${size}" fill="currentColor" fill-opacity=".07"/>`);
    let index = 0;
    for (let a = 0; a < n; a++) {
      for (let b = a + 1; b < n; b++, index++) {
        const value = view.pairs[index];
        if (value === NONE) continue;
        const rgb = colourOf(value / 100, scale.stops), places = [[b, a], [a, b]];
        const box = `h${cell - gap}v${cell - gap}h-${cell - gap}z`;
        const squares = places.map(([x, y]) => `M${x * cell} ${(n - 1 - y) * cell}${box}`).join("");
        const title = titles ? `<title>${escaped(titles[index])}</title>` : "";
        parts.push(`<path d="${squares}" fill="${hex(rgb)}">${title}</path>`);
        const ink = 299 * rgb[0] + 587 * rgb[1] + 114 * rgb[2] > 105000 ? "#000" : "#fff";
        for (const [x, y] of places) {
          numbers.push(
            `<text x="${x * cell + half}" y="${(n - 1 - y) * cell + half + 4}" fill="${ink}">` +
              `${written(value, scale.signed)}</text>`,
          );
        }
      }
    }
    if (cell >= 30) parts.push(...numbers);
    for (const layer of view.matched) {
      const at = view.layers.indexOf(layer), r = Math.min(5, Math.max(2, Math.floor(cell / 3)));
      const x = at * cell + half, y = (n - 1 - at) * cell + half;
      parts.push(`<path d="M${x} ${y - r}l${r} ${r}l-${r} ${r}l-${r} -${r}z"/>`);
    }
    const middle = Math.floor(size / 2);
    view.absence.forEach((line, i) =>
      parts.push(`<text x="${middle}" y="${middle + 14 * i}" font-size="12">${escaped(line, true)}</text>`),
    );
    for (let i = 0; i < n; i += Math.ceil(20 / cell)) {
      parts.push(
        `<text x="${i * cell + half}" y="${size + 13}">${view.layers[i]}</text>` +
          `<text x="-5" y="${(n - 1 - i) * cell + half + 4}" text-anchor="end">${view.layers[i]}</text>`,
      );
    }
    parts.push(
      `<text x="${middle}" y="${size + 29}">teacher layer</text>` +
        `<text transform="translate(-24 ${middle}) rotate(-90)">teacher layer</text>`,
    );
    const width = 34 + size + 6, height = 2 + size + 34;
    return (
      `<svg viewBox="-34 -2 ${width} ${height}" width="${width}" height="${height}" role="img" ` +
      `aria-label="${escaped(view.caption.join(", "), true)}" fill="currentColor" font-size="11" ` +
      `text-anchor="middle" font-family="sans-serif" style="max-width:100%;height:auto">${parts.join("")}</svg>`
    );
  };

  const bar = (scale, ticks, width) => {
    const low = scale.stops[0][0], high = scale.stops[scale.stops.length - 1][0], n = Math.floor(width / 2);
    const at = (value) => Math.floor(((value - low) / (high - low)) * width + 0.5), parts = [];
    for (let i = 0; i < n; i++) {
      const colour = hex(colourOf(low + ((high - low) * (i + 0.5)) / n, scale.stops));
      parts.push(`<path d="M${2 * i} 0h2v10h-2z" fill="${colour}"/>`);
    }
    for (const [value, name] of ticks) {
      parts.push(
        `<path d="M${at(value)} 10v4" stroke="currentColor"/>` +
          `<text x="${at(value)}" y="26">${escaped(name, true)}</text>`,
      );
    }
    return (
      `<svg viewBox="-24 0 ${width + 60} 32" width="${width + 60}" height="32" role="img" ` +
      `aria-label="colour scale" fill="currentColor" font-size="11" text-anchor="middle" ` +
      `font-family="sans-serif" style="max-width:100%;height:auto">${parts.join("")}</svg>`
    );
  };

  const decoded = (text) => {
    const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
    return new Int16Array(bytes.buffer);
  };

  const nameOf = (state) => state.name + (state.step === null ? "" : `, step ${state.step}`);

  const cellOf = (data, n) => Math.max(2, Math.floor(data.side / n));

  const subtracted = (a, b) => b.map((value, i) => (value === NONE || a[i] === NONE ? NONE : value - a[i]));

  const difference = (first, second) => {
    const view = { layers: first.layers, matched: [], caption: ["difference", "second − first"] };
    if (first.layers.join() !== second.layers.join()) {
      return { ...view, pairs: first.pairs.map(() => NONE), absence: ["their teachers differ in depth"] };
    }
    const pairs = subtracted(first.pairs, second.pairs);
    return { ...view, pairs, absence: pairs.some((value) => value !== NONE) ? [] : ["nothing to subtract"] };
  };

  const largest = (arrays) =>
    arrays.reduce((top, array) => array.reduce((t, v) => (v === NONE ? t : Math.max(t, Math.abs(v))), top), 100);

  const diverging = (colours, limit) => ({
    stops: colours.map((colour, i) => [-limit / 100 + (((2 * limit) / 100) * i) / (colours.length - 1), colour]),
    signed: true,
    ticks: [-1, 0, 1].map((end) => [(end * limit) / 100, `${written(end * limit, true)}°`]),
  });

  // All pairs of one student layer of a checkpoint, and half their intervals; or why there are none.
  const panelOf = (data, chosen, index, layer) => {
    const state = data.states[index], n = state.teacher.length, nPairs = (n * (n - 1)) / 2;
    const q = state.quantities.indexOf(data.quantities[chosen.quantity]);
    const t = state.towers.indexOf(data.towers[chosen.tower]);
    const nothing = (line) => ({ pairs: new Int16Array(nPairs).fill(NONE), matched: [], absence: [line] });
    if (layer >= state.depth || t < 0) return nothing("no such layer");
    if (q < 0) return nothing(`${data.quantities[chosen.quantity]} was not measured`);
    const from = 2 * nPairs * ((q * state.towers.length + t) * state.depth + layer);
    const of = state.numbers.subarray(from, from + 2 * nPairs);
    const pairs = of.filter((_, i) => i % 2 === 0), halves = of.filter((_, i) => i % 2 === 1);
    const absence = state.absence[t][layer], isBlank = pairs.every((value) => value === NONE);
    const reason = isBlank && !absence.length ? ["no null here, and so no excess"] : absence;
    return { pairs, halves, matched: state.matched[t][layer], absence: reason };
  };

  const viewOf = (data, chosen, index) => {
    const state = data.states[index], panel = panelOf(data, chosen, index, chosen.layer);
    const place =
      `student layer ${chosen.layer}${chosen.layer === 0 ? " (emb)" : ""}` +
      (panel.matched.length ? `, matched to ${panel.matched.join(", ")} (◆)` : "");
    return { ...panel, layers: state.teacher, caption: [nameOf(state), place] };
  };

  // The excess has one scale for all student layers of the two, so that sliding changes no colour's meaning.
  const scaleOf = (data, chosen) => {
    if (chosen.quantity === 0) {
      const top = Math.round(data.angle[data.angle.length - 1][0]), ticks = [];
      for (let degree = 0; degree <= top; degree += 30) ticks.push([degree, `${degree}°`]);
      return { stops: data.angle, signed: false, ticks };
    }
    const arrays = [];
    for (const index of [chosen.first, chosen.second]) {
      for (let layer = 0; layer < data.states[index].depth; layer++) {
        arrays.push(panelOf(data, chosen, index, layer).pairs);
      }
    }
    return diverging(data.excess, largest(arrays));
  };

  const titlesOf = (view, scale) => {
    const titles = [];
    for (let a = 0, i = 0; a < view.layers.length; a++) {
      for (let b = a + 1; b < view.layers.length; b++, i++) {
        const half = view.halves ? view.halves[i] : NONE;
        const layers = `teacher layers ${view.layers[a]} and ${view.layers[b]}`;
        titles.push(`${layers}: ${withInterval(view.pairs[i], half, scale.signed)}`);
      }
    }
    return titles;
  };

  // The three maps that are chosen: what each shows, and its scale.
  const chosenMaps = (data, chosen) => {
    const first = viewOf(data, chosen, chosen.first), second = viewOf(data, chosen, chosen.second);
    const third = difference(first, second), scale = scaleOf(data, chosen);
    return [[first, scale], [second, scale], [third, diverging(data.excess, largest([third.pairs]))]];
  };

  const figureOf = (data, [view, scale], i) => {
    const titles = view.layers.length <= data.titles ? titlesOf(view, scale) : null;
    const [name, place] = view.caption.map((line) => escaped(line, true));
    const legend = i === 1 ? "" : bar(scale, scale.ticks, 200); // the first map's is the second's, too
    return (
      `<figure><figcaption><b>${name}</b><br>${place}</figcaption>` +
      `${heatMap(view, scale, titles, data.side)}<div>${legend}</div></figure>`
    );
  };

  // A frame around the cell under the cursor in all maps, and its numbers in words, a line a map.
  const pointed = (data, maps, shown, [x, y]) => {
    const lines = [];
    maps.querySelectorAll("figure > svg").forEach((svg, i) => {
      const [view, scale] = shown[i], n = view.layers.length, cell = cellOf(data, n);
      if (x >= n || y >= n) return;
      const frame = document.createElementNS("http://www.w3.org/2000/svg", "rect");
      const place = { x: x * cell, y: (n - 1 - y) * cell, width: cell - 1, height: cell - 1, fill: "none" };
      const look = { ...place, stroke: "currentColor", "stroke-width": 2, class: "cursor" };
      for (const [name, value] of Object.entries(look)) frame.setAttribute(name, value);
      svg.append(frame);
      const [low, high] = [Math.min(x, y), Math.max(x, y)], index = low * n - (low * (low + 1)) / 2 + high - low - 1;
      const value = x === y ? NONE : view.pairs[index], half = view.halves ? view.halves[index] : NONE;
      if (i === 0) lines.push(`Teacher layers ${view.layers[low]} and ${view.layers[high]}`);
      lines.push(`${view.caption[0]}: ${value === NONE ? "–" : withInterval(value, half, scale.signed)}`);
    });
    return lines;
  };

  // What one chooses with. Every change is written into ``chosen``, and drawn.
  const addControls = (form, data, chosen, draw) => {
    const labelled = (text, control) => {
      const label = document.createElement("label");
      label.append(text, control);
      form.append(label);
    };
    const select = (text, key, names) => {
      const control = document.createElement("select");
      names.forEach((name, i) => control.append(new Option(name, i, false, i === chosen[key])));
      control.addEventListener("change", () => {
        chosen[key] = Number(control.value);
        draw();
      });
      labelled(text, control);
    };
    const slider = (top) => {
      const text = document.createElement("span"), control = document.createElement("input");
      Object.assign(control, { type: "range", min: 0, max: top, step: 1, value: chosen.layer });
      const say = () => {
        text.textContent = `student layer: ${chosen.layer}${chosen.layer === 0 ? " (emb)" : ""} of ${top}`;
        control.setAttribute("aria-valuetext", `student layer ${chosen.layer}`);
      };
      control.addEventListener("input", () => {
        chosen.layer = Number(control.value);
        say();
        draw();
      });
      say();
      labelled(text, control);
    };
    select("first", "first", data.states.map(nameOf));
    select("second", "second", data.states.map(nameOf));
    if (data.towers.length > 1) select("tower", "tower", data.towers);
    const quantities = data.quantities.map((name, i) => (i === 0 ? "mean angle" : `excess over ${name}`));
    if (quantities.length > 1) select("shown", "quantity", quantities);
    slider(Math.max(...data.states.map((state) => state.depth)) - 1);
    form.addEventListener("submit", (event) => event.preventDefault());
    form.hidden = false;
  };

  // The cell that is pointed at, by mouse or by arrow keys: ``moveTo`` gets layer_b and layer_a, counted from 0.
  const listen = (maps, data, layersNow, moveTo) => {
    const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
    let cursor = null;
    const go = (x, y) => {
      if (cursor && cursor[0] === x && cursor[1] === y) return;
      cursor = [x, y];
      moveTo(cursor);
    };
    maps.tabIndex = 0;
    maps.addEventListener("keydown", (event) => {
      const step = STEPS[event.key];
      if (!step) return;
      event.preventDefault();
      event.stopPropagation(); // a notebook has uses of its own for the arrow keys
      const last = layersNow() - 1;
      go(...(cursor ? cursor.map((at, i) => Math.min(last, Math.max(0, at + step[i]))) : [1, 0]));
    });
    maps.addEventListener("pointermove", (event) => {
      const svg = event.target.closest("figure > svg");
      if (!svg) return;
      const box = svg.getBoundingClientRect(), shape = svg.viewBox.baseVal, unit = shape.width / box.width;
      const n = layersNow(), cell = cellOf(data, n);
      const x = Math.floor(((event.clientX - box.left) * unit + shape.x) / cell);
      const y = n - 1 - Math.floor(((event.clientY - box.top) * unit + shape.y) / cell);
      if (x >= 0 && y >= 0 && x < n && y < n) go(x, y);
    });
  };

  const start = (root) => {
    const data = JSON.parse(root.querySelector('script[type="application/json"]').textContent);
    const maps = root.querySelector(".maps"), readout = root.querySelector(".readout");
    for (const state of data.states) state.numbers = decoded(state.values);
    const chosen = { first: data.chosen[0], second: data.chosen[1], tower: 0, quantity: 0, layer: data.layer };
    let shown = [], cursor = null;

    const point = () => {
      maps.querySelectorAll(".cursor").forEach((frame) => frame.remove());
      const lines = cursor
        ? pointed(data, maps, shown, cursor)
        : ["Point at a cell, or move over the maps with the arrow keys, for its numbers."];
      if (data.states[chosen.first].key !== data.states[chosen.second].key) {
        lines.push("The two were not measured on the same teacher and texts in the same way.");
      }
      readout.innerHTML = lines.map((line) => escaped(line)).join("<br>");
    };
    const draw = () => {
      shown = chosenMaps(data, chosen);
      maps.innerHTML = shown.map((map, i) => figureOf(data, map, i)).join("");
      point();
    };

    addControls(root.querySelector("form"), data, chosen, draw);
    listen(maps, data, () => shown[0][0].layers.length, (at) => {
      cursor = at;
      point();
    });
    draw();
  };

  // A script in a notebook does not know where it stands: it starts whatever has not been started.
  for (const root of document.querySelectorAll(".layerangles-compare:not([data-started])")) {
    if (!root.querySelector('script[type="application/json"]')) continue;
    root.dataset.started = "";
    start(root);
  }
})();

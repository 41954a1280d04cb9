// Two checkpoints and their difference in a notebook, drawn by plotly.js from what app/notebook.py puts beside it.
(() => {
  "use strict";
  const NOTHING = -32768;
  const layerName = (layer) => (layer === 0 ? "0 (emb)" : String(layer));
  const written = (value, signed, digits = 1) => {
    const rounded = Number(value.toFixed(digits)) || 0; // never −0
    return (signed && rounded > 0 ? "+" : "") + rounded.toFixed(digits).replace("-", "−");
  };
  const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;

  // The angles of one checkpoint as chosen: its pairs a < b in order, or why there are none.
  const seen = (one, chosen) => {
    const n = one.teacherLayers.length, nPairs = (n * (n - 1)) / 2;
    const tower = one.towers.indexOf(chosen.tower), quantity = one.quantities.indexOf(chosen.quantity);
    const depth = one.absence[0].length;
    const view = { title: one.title, label: one.label, layers: one.teacherLayers, matched: [], absence: "", pairs: [] };
    if (tower < 0 || chosen.layer >= depth) return { ...view, absence: "no such layer" };
    if (quantity < 0) return { ...view, absence: `${chosen.quantity} was not measured here` };
    const start = ((quantity * one.towers.length + tower) * depth + chosen.layer) * nPairs * 2;
    const of = (at) => (one.values[at] === NOTHING ? null : one.values[at] / 100);
    view.pairs = Array.from({ length: nPairs }, (_, i) => ({ value: of(start + 2 * i), half: of(start + 2 * i + 1) }));
    return { ...view, matched: one.matched[tower][chosen.layer], absence: one.absence[tower][chosen.layer] };
  };

  const difference = (first, second) => {
    const view = { title: "difference: second − first", layers: second.layers, matched: [], absence: "", pairs: [] };
    if (first.layers.length !== second.layers.length) return { ...view, absence: "the teachers differ in depth" };
    const minus = (a, b) => (a.value === null || b.value === null ? null : b.value - a.value);
    const pairs = second.pairs.map((pair, i) => ({ value: first.pairs[i] ? minus(first.pairs[i], pair) : null, half: null }));
    return { ...view, pairs, absence: known({ pairs }).length ? "" : "no difference" };
  };

  const known = (view) => view.pairs.map((pair) => pair.value).filter((value) => value !== null);

  // The traces of one map: cells, numbers where they fit, and marks of the layers matched in training.
  const tracesOf = (view, index, quantity, data) => {
    const n = view.layers.length, number = index ? index + 1 : "", signed = index === 2 || quantity !== "";
    const axes = { xaxis: `x${number}`, yaxis: `y${number}` };
    const pair = (a, b) => view.pairs[(a * (2 * n - a - 1)) / 2 + b - a - 1] ?? { value: null };
    const square = (at) => view.layers.map((_, a) => view.layers.map((_, b) => at(a, b)));
    const of = (a, b) => (a === b ? { value: null } : pair(Math.min(a, b), Math.max(a, b)));
    const hover = (a, b) => {
      const { value, half } = of(a, b), unit = (x) => `${written(x, signed)}°`;
      const layers = `teacher layers ${layerName(view.layers[a])} and ${layerName(view.layers[b])}`;
      if (value === null) return `${view.title}<br>${layers}<br>no angle here`;
      const interval = half === null ? "" : `, interval ${unit(value - half)} to ${unit(value + half)}`;
      return `${view.title}<br>${layers}<br><b>${unit(value)}</b>${interval}`;
    };
    const z = square((a, b) => of(a, b).value);
    const coloraxis = index === 2 ? "coloraxis2" : "coloraxis";
    const traces = [{ ...data.traces.cells, ...axes, x: view.layers, y: view.layers, z, hovertext: square(hover), coloraxis }];
    const cells = z.flatMap((row, a) => row.map((value, b) => [view.layers[b], view.layers[a], value]));
    const shown = cells.filter(([, , value]) => value !== null);
    if (data.traces.text && shown.length) {
      const text = shown.map(([, , value]) => written(value, false, data.digits));
      const ink = shown.map(([, , value]) => (signed || data.inks[Math.floor(value)] === "b" ? "black" : "white"));
      const textfont = { ...data.traces.text.textfont, color: ink };
      traces.push({ ...data.traces.text, ...axes, x: shown.map((c) => c[0]), y: shown.map((c) => c[1]), text, textfont });
    }
    if (view.matched.length) traces.push({ ...data.traces.matched, ...axes, x: view.matched, y: view.matched });
    return traces;
  };

  const figureOf = (views, quantity, data) => {
    const layout = structuredClone({ ...data.layout, ...data.quantities[quantity] });
    const limit = (some) => Math.max(1, ...some.flatMap(known).map(Math.abs));
    const range = (some) => ({ cmin: -limit(some), cmax: limit(some) });
    if (quantity !== "") Object.assign(layout.coloraxis, range(views.slice(0, 2)));
    Object.assign(layout.coloraxis2, range(views.slice(2)));
    views.forEach((view, i) => {
      const place = { xref: `x${i ? i + 1 : ""} domain`, yref: `y${i ? i + 1 : ""} domain` };
      layout.annotations.push({ ...data.label, ...place, text: view.title });
      const centre = { text: view.absence, x: 0.5, y: 0.5, xanchor: "center", yanchor: "middle", align: "center", yshift: 0 };
      if (view.absence) layout.annotations.push({ ...data.label, ...place, ...centre });
    });
    return [views.flatMap((view, i) => tracesOf(view, i, quantity, data)), layout];
  };

  const inWords = (first, second, apart, quantity, alike) => {
    const what = quantity === "" ? "mean angle" : `mean excess over ${quantity}`;
    const of = (view) => (known(view).length ? `${written(mean(known(view)), quantity !== "")}°` : "none");
    const lines = [`Over pairs of teacher layers: ${what} ${of(first)} (${first.label}) and ${of(second)} (${second.label})`];
    if (known(apart).length) lines[0] += `; difference ${written(mean(known(apart)), true)}°`;
    if (first.matched.length || second.matched.length) lines.push("◆ marks teacher layers that training matched");
    if (!alike) lines.push("The two were not measured on the same teacher and texts in the same way");
    return `${lines.join(". ")}.`;
  };

  // plotly.js: the page's own, or JupyterLab's, whose extension loads it with its first figure, or from the network.
  const plotly = (data) => {
    const MIME = "application/vnd.plotly.v1+json", lab = window._JUPYTERLAB?.["jupyterlab-plotly"];
    const waited = (resolve, reject) => {
      const look = setInterval(() => {
        if (!window.Plotly) return;
        clearInterval(look);
        resolve(window.Plotly);
      }, 50);
      const drawn = (get) => get().rendererFactory.createRenderer({ mimeType: MIME }).renderModel(
        { data: { [MIME]: { data: [], layout: {} } }, metadata: {}, setData: () => {} },
      );
      Promise.resolve(lab?.get("./mimeExtension")).then((get) => get && drawn(get)).catch(console.warn);
      setTimeout(() => {
        if (window.Plotly) return;
        const script = Object.assign(document.createElement("script"), { src: data.plotly, integrity: data.integrity });
        Object.assign(script, { crossOrigin: "anonymous", onerror: reject });
        document.head.append(script);
      }, lab ? 10000 : 1000);
    };
    if (window.Plotly) return Promise.resolve(window.Plotly);
    return (window.layeranglesPlotly ??= new Promise(waited)); // once for all comparisons of a page
  };

  const start = (root) => {
    const data = JSON.parse(root.querySelector('script[type="application/json"]').textContent);
    const [form, readout, maps] = ["form", ".readout", ".maps"].map((name) => root.querySelector(name));
    for (const one of data.checkpoints) {
      one.values = new Int16Array(Uint8Array.from(atob(one.values), (character) => character.charCodeAt(0)).buffer);
    }
    const control = (text, element, value) => {
      const label = document.createElement("label"), name = document.createElement("span");
      label.style.cssText = "display:flex;flex-direction:column;max-width:100%";
      name.textContent = text;
      label.append(name, element);
      form.append(label);
      element.value = value;
      element.addEventListener(element.type === "range" ? "input" : "change", () => draw());
      return element;
    };
    const select = (text, options, value) => {
      const element = document.createElement("select");
      options.forEach(([key, shown]) => element.add(new Option(shown, key)));
      return control(text, element, value);
    };
    const labels = data.checkpoints.map((one, i) => [i, one.label]);
    const first = select("first", labels, data.chosen[0]), second = select("second", labels, data.chosen[1]);
    const tower = select("tower", data.towers.map((name) => [name, name]), data.towers[0]);
    if (data.towers.length < 2) tower.parentElement.style.display = "none";
    const names = Object.keys(data.quantities).map((name) => [name, name ? `excess over ${name}` : "mean angle"]);
    const quantity = select("shown", names, "");
    const range = Object.assign(document.createElement("input"), { type: "range", min: 0, max: data.depth - 1 });
    const layer = control("student layer", range, data.layer);
    const draw = () => {
      const chosen = { tower: tower.value, quantity: quantity.value, layer: Number(layer.value) };
      layer.previousElementSibling.textContent = `student layer ${layerName(chosen.layer)}`;
      const sides = [first, second].map((side) => data.checkpoints[side.value]);
      const views = sides.map((one) => seen(one, chosen));
      const apart = difference(...views);
      const said = inWords(...views, apart, chosen.quantity, sides[0].alike === sides[1].alike);
      readout.textContent = said;
      const missing = `plotly.js is not on this page, and could not be loaded from ${data.plotly}. In Jupyter, run
        import plotly.offline; plotly.offline.init_notebook_mode() once, and this cell again.`;
      plotly(data).then(
        (Plotly) => Plotly.react(maps, ...figureOf([...views, apart], chosen.quantity, data), data.config),
        () => (readout.textContent = `${said} ${missing}`),
      );
    };
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("keydown", (event) => event.stopPropagation()); // notebooks have uses of their own for keys
    form.hidden = false;
    draw();
  };

  // A script in a notebook does not know its own element: it starts every comparison that was not started before.
  for (const root of document.querySelectorAll(".layerangles-compare:not([data-started])")) {
    if (!root.querySelector('script[type="application/json"]')) continue;
    root.dataset.started = "";
    start(root);
  }
})();

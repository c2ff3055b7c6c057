// The engine graph of the report: EngineGraph.mount(element, graph_data, {kindColors, precisionColors}) draws it and
// returns {setTheme, expand, collapseAll, find}. graph_model.js knows what is in the boxes, graph_layout.js where they
// go, graph_details.js what is written of them, and graph_controls.js has mouse and keyboard. What comes from a file
// only ever becomes a text node.
window.EngineGraph = (() => {
  "use strict";
  const { svg, html, swatch, number, percent, size, plural, measure, build } = window.EngineGraphParts;
  const WIDTH = 200, HEIGHT = 46, HEADER = 26, GRAY = "#9aa1a9", HOT = "#e5484d";
  const MODES = { kind: "Kind", precision: "Precision", time: "Time" };
  const HELP = "A click or Enter opens and closes a box, arrows go to the next, Escape closes the group around. Drag "
    + "or Shift with arrows moves, + and - and, after a click, the wheel zoom, 0 fits the picture.";

  function mount(element, data, options) {
    const models = [], names = data.plans.map((plan) => plan.name);
    const model = (index) => (models[index] ??= window.EngineGraphModel(data.plans[index]));
    const state = { model: names.length ? model(0) : null, mode: "kind", boxes: [], chosen: null, hits: [], hit: -1 };
    const colors = { kind: options?.kindColors ?? {}, precision: options?.precisionColors ?? {} };
    const ui = build(element, "Engine graph");
    if (!state.model) {
      ui.status.textContent = "There is no engine to show.";
      return { setTheme, expand: () => false, collapseAll() {}, find: () => 0 };
    }
    const text = measure(ui.canvas);

    function draw() {
      const started = performance.now(), { root, plan, links } = state.model;
      state.boxes = visible(root);
      for (const box of state.boxes) {
        if (!box.open) [box.width, box.height] = [WIDTH, HEIGHT];
        else if (box.parent) box.titleWidth = text.width(`${box.label}  ${figures(box)}`, true) + 44;
      }
      state.routes = window.EngineGraphLayout(root, links());
      const hottest = Math.max(...state.boxes.filter((box) => !box.open).map((box) => box.ms ?? 0));
      ui.edges.replaceChildren(...state.routes.map((route) => drawRoute(route, plan)));
      const drawn = state.boxes.filter((box) => box.parent).map((box) => drawBox(box, hottest));
      ui.groups.replaceChildren(...drawn.filter(({ box }) => box.open).map(({ g }) => g));
      ui.closed.replaceChildren(...drawn.filter(({ box }) => !box.open).map(({ g }) => g));
      state.drawn = new Map(drawn.map(({ box, g }) => [box.id, g]));
      drawLegend(hottest);
      select(state.chosen && window.EngineGraphModel.shown(state.chosen) === state.chosen ? state.chosen : null);
      element.dataset.boxes = drawn.length;
      element.dataset.drawMs = (performance.now() - started).toFixed(1);
    }

    function drawBox(box, hottest) {
      const place = `translate(${box.x} ${box.y})`, look = box.open ? "eg-box eg-open" : "eg-box";
      const g = svg("g", { class: look, transform: place, role: "button", tabindex: -1, "data-id": box.id });
      g.setAttribute("aria-label", `${box.label}, ${figures(box)}, ${plural(box.layers.length, "layer")}`);
      if (box.layer === undefined) g.setAttribute("aria-expanded", box.open);
      g.append(svg("title", {}, box.path || state.model.plan.layers.name[box.layer]));
      g.append(svg("rect", { class: "eg-frame", width: box.width, height: box.height, rx: 7 }));
      if (box.open) {
        const title = text.cut(box.label, box.width - 60 - text.width(figures(box)), true);
        g.append(svg("path", { class: "eg-head", d: `M1 ${HEADER}V8q0-7 7-7H${box.width - 8}q7 0 7 7V${HEADER}z` }));
        g.append(svg("text", { x: 10, y: 18, class: "eg-title" }, `▾ ${title}`));
        g.append(svg("text", { x: box.width - 10, y: 18, class: "eg-note", "text-anchor": "end" }, figures(box)));
        return { box, g };
      }
      drawColor(g, box, hottest);
      const group = box.layer === undefined, label = `${group ? "▸ " : ""}${box.label}`;
      g.append(svg("text", { x: 10, y: 18, class: "eg-title" }, text.cut(label, WIDTH - 20, true)));
      g.append(svg("text", { x: 10, y: 35, class: "eg-note" }, figures(box)));
      const note = group ? `${box.layers.length} layers` : (state.model.plan.layers.precision[box.layer] ?? "");
      if (text.width(note) < WIDTH - 28 - text.width(figures(box))) {
        g.append(svg("text", { x: WIDTH - 10, y: 35, class: "eg-note", "text-anchor": "end" }, note));
      }
      return { box, g };
    }

    // A tint of what takes most of the time, and at the lower edge a bar that shows how the time is divided.
    function drawColor(g, box, hottest) {
      const tint = (fill, opacity, area) => svg("rect", { class: "eg-tint", fill, "fill-opacity": opacity, ...area });
      const whole = { width: WIDTH, height: HEIGHT, rx: 7 };
      if (state.mode === "time") {
        if (box.ms !== null && hottest) g.append(tint(HOT, 0.06 + 0.74 * (box.ms / hottest), whole));
        return;
      }
      const mix = box.mix[state.mode], at = box.ms ? 1 : 2, total = mix.reduce((sum, part) => sum + part[at], 0);
      g.append(tint(colors[state.mode][mix[0][0]] ?? GRAY, 0.2, whole));
      let x = 6;
      for (const part of mix) {
        const width = ((WIDTH - 12) * part[at]) / total;
        g.append(tint(colors[state.mode][part[0]] ?? GRAY, 1, { x, y: HEIGHT - 6, width, height: 4 }));
        x += width;
      }
    }

    function drawRoute(route, plan) {
      const tensors = [...new Set(route.links.flatMap((link) => [...link.tensors]))];
      const bytes = tensors.reduce((sum, tensor) => sum + (plan.tensors.bytes[tensor] ?? 0), 0);
      const g = svg("g", { class: "eg-route" }), edge = svg("path", { class: "eg-edge", d: route.d });
      edge.setAttribute("stroke-width", (1.1 + Math.min(2.4, 0.6 * Math.log10(1 + bytes / 1e5))).toFixed(2));
      edge.classList.toggle("eg-back", route.back);
      if (route.last) edge.setAttribute("marker-end", `url(#${ui.arrow})`);
      const lines = tensors.slice(0, 6).map((tensor) => `${plan.tensors.name[tensor]}  ${plan.tensors.type[tensor]}`);
      if (tensors.length > 6) lines.push(`and ${tensors.length - 6} more`);
      const known = tensors.every((tensor) => plan.tensors.bytes[tensor] !== null);
      const total = `${plural(tensors.length, "tensor")}, ${known ? "" : "at least "}${size(bytes)}`;
      g.append(edge, svg("path", { class: "eg-hit", d: route.d }));
      g.lastChild.append(svg("title", {}, [tensors.length ? total : "order of execution", ...lines].join("\n")));
      route.g = g;
      return g;
    }

    function drawLegend(hottest) {
      const { root } = state.model;
      if (state.mode === "time") {
        const most = root.ms && hottest ? `, at most ${percent(hottest / root.ms)} in one box` : "";
        ui.legend.replaceChildren(swatch(HOT, `more of the time${most}`));
        return;
      }
      const at = root.ms ? 1 : 2, total = root.mix[state.mode].reduce((sum, part) => sum + part[at], 0);
      ui.legend.replaceChildren(...root.mix[state.mode].map((part) =>
        swatch(colors[state.mode][part[0]] ?? GRAY, total ? `${part[0]} ${percent(part[at] / total)}` : part[0])));
      ui.legend.append(html("span", "eg-soft", root.ms ? "of the layer time" : "of the layers, none was timed"));
    }

    function figures(box) {
      const total = state.model.root.ms;
      return box.ms === null ? "time unknown" : `${number(box.ms)} ms${total ? ` · ${percent(box.ms / total)}` : ""}`;
    }

    // Mark a box, show its figures, and light up the edges that start or end in it.
    function select(box) {
      state.chosen = box;
      const current = box ?? state.boxes.find((each) => each.parent) ?? null;
      for (const [id, g] of state.drawn) {
        g.classList.toggle("eg-on", id === box?.id);
        g.setAttribute("tabindex", id === current?.id ? 0 : -1);
      }
      const inside = (end) => { for (let at = end; at; at = at.parent) if (at === box) return true; return false; };
      for (const { g, links } of state.routes) {
        g.classList.toggle("eg-on", box !== null && links.some(({ from, to }) => inside(from) !== inside(to)));
      }
      window.EngineGraphDetails(ui.side, state.model, box ?? state.model.root, go);
      const chain = [];
      for (let at = box ?? state.model.root; at; at = at.parent) chain.unshift(at);
      ui.crumbs.replaceChildren(...chain.flatMap((at, index) => {
        const step = html("button", "", at.label);
        step.type = "button";
        step.onclick = () => { if (at.parent) { closeInside(at); draw(); go(at, true); } else collapseAll(); };
        return index ? [html("span", "eg-soft", "›"), step] : [step];
      }));
    }

    function closeInside(group) {
      for (const child of group.children) if (child.layer === undefined) { child.open = false; closeInside(child); }
    }

    function toggle(box) {
      if (box.layer === undefined && box.parent) {
        box.open = !box.open;
        draw();
      }
      go(box, true);
    }

    // Select a box, opening what it is in, and bring it into view.
    function go(box, focus = false) {
      let hidden = false;
      for (let at = box.parent; at; at = at.parent) if (!at.open) { at.open = true; hidden = true; }
      if (hidden) draw();
      select(box);
      show(box);
      if (focus) state.drawn.get(box.id)?.focus({ preventScroll: true });
    }

    function move(view, smooth) {
      state.view = view;
      ui.stage.classList.toggle("eg-move", Boolean(smooth));
      ui.stage.style.transform = `translate(${view.x}px, ${view.y}px) scale(${view.k})`;
    }

    const room = () => { const { width, height } = ui.canvas.getBoundingClientRect(); return { width, height }; };

    function fit(smooth) {
      const { width, height } = room(), { root } = state.model;
      const k = Math.max(0.62, Math.min(1.15, (width - 16) / root.width, (height - 16) / root.height));
      move({ k, x: Math.max(8, (width - k * root.width) / 2), y: Math.max(8, (height - k * root.height) / 2) }, smooth);
    }

    // Nothing moves when a box is in view. Else it goes to the middle; a group that is bigger than the picture is made
    // smaller, down to what can be read, and shown from its head.
    function show(box) {
      const { width, height } = room(), { view } = state, edge = 20;
      const [left, top] = [view.x + view.k * box.x, view.y + view.k * box.y];
      const [right, bottom] = [left + view.k * box.width, top + view.k * box.height];
      if (left >= edge && top >= edge && right <= width - edge && bottom <= height - edge) return;
      const fits = Math.min((width - 2 * edge) / box.width, (height - 2 * edge) / box.height);
      const k = Math.min(view.k, Math.max(fits, 0.55));
      const place = (start, length, space) => Math.max(edge, (space - k * length) / 2) - k * start;
      move({ k, x: place(box.x, box.width, width), y: place(box.y, box.height, height) }, true);
    }

    function zoomed(k, x, y) {
      const { view } = state, factor = k / view.k;
      return { k, x: x - (x - view.x) * factor, y: y - (y - view.y) * factor };
    }

    function zoom(factor, x = room().width / 2, y = room().height / 2, smooth = false) {
      move(zoomed(Math.min(3, Math.max(0.05, state.view.k * factor)), x, y), smooth);
    }

    function collapseAll() {
      state.model.reset();
      state.chosen = null;
      draw();
      fit(true);
    }

    function find(words) {
      state.hits = state.model.search(words);
      state.hit = -1;
      return next(1);
    }

    function next(step) {
      const { hits } = state;
      if (hits.length) {
        state.hit = (state.hit + step + hits.length) % hits.length;
        go(hits[state.hit]);
      }
      ui.found.textContent = hits.length ? `${state.hit + 1} of ${hits.length}` : "nothing found";
      return hits.length;
    }

    function setTheme(dark) { element.classList.toggle("eg-dark", Boolean(dark)); }

    function expand(id) {
      const box = state.model.boxes.get(id);
      if (!box) return false;
      if (box.layer === undefined) box.open = true;
      draw();
      go(box);
      return true;
    }

    const use = (index) => { state.model = model(index); collapseAll(); };
    const api = { state, names, use, draw, fit, zoom, move, toggle, go, next, find, collapseAll };
    window.EngineGraphControls(element, ui, api, MODES);
    ui.status.textContent = HELP;
    draw();
    fit(false);
    return { setTheme, expand, collapseAll, find };
  }

  // The root and all boxes below open groups, from the outside in.
  function visible(group) {
    return [group, ...group.children.flatMap((child) => (child.open ? visible(child) : [child]))];
  }

  return { mount };
})();

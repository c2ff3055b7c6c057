// How the graph is operated: the row of controls, mouse and wheel, and the keyboard. `graph` comes from graph.js.
window.EngineGraphControls = (() => {
  "use strict";
  const { html, button } = window.EngineGraphParts;
  const DIRECTIONS = { ArrowUp: [0, -1], ArrowDown: [0, 1], ArrowLeft: [-1, 0], ArrowRight: [1, 0] };
  const CLICK = 4, STEP = 80;

  function controls(element, ui, graph, modes) {
    ui.bar.append(...engines(graph), colors(graph, modes), search(ui, graph), view(element, graph));
    mouse(ui, graph);
    keyboard(ui, graph);
  }

  function engines({ names, use }) {
    if (names.length < 2) return [];
    const chooser = html("select");
    chooser.append(...names.map((name, index) => new Option(name, index)));
    chooser.onchange = () => use(chooser.value);
    return [html("label", "eg-set", "Engine", chooser)];
  }

  function colors(graph, modes) {
    const set = html("div", "eg-set", "Color");
    set.setAttribute("role", "group");
    set.setAttribute("aria-label", "Color by");
    for (const [mode, name] of Object.entries(modes)) {
      const made = html("button", "", name);
      Object.assign(made, { type: "button", onclick: () => choose(mode) });
      made.dataset.mode = mode;
      made.setAttribute("aria-pressed", mode === graph.state.mode);
      set.append(made);
    }
    function choose(mode) {
      graph.state.mode = mode;
      set.querySelectorAll("button").forEach((each) => each.setAttribute("aria-pressed", each.dataset.mode === mode));
      graph.draw();
    }
    return set;
  }

  function search(ui, graph) {
    const input = html("input");
    Object.assign(input, { type: "search", autocomplete: "off", placeholder: "name, kernel, module, ONNX node" });
    let asked = "";
    const go = (step) => {
      if (input.value === asked) graph.next(step);
      else graph.find((asked = input.value));
    };
    input.onkeydown = (event) => {
      if (event.key !== "Enter") return;
      event.preventDefault();
      go(event.shiftKey ? -1 : 1);
    };
    const [previous, next] = [button("‹", "Previous hit", () => go(-1)), button("›", "Next hit", () => go(1))];
    return html("div", "eg-set", null, html("label", "eg-set", "Find", input), previous, next, ui.found);
  }

  function view(element, graph) {
    const whole = button("Full screen", "The graph on the whole screen", () => {
      if (document.fullscreenElement) document.exitFullscreen();
      else element.requestFullscreen();
    });
    element.onfullscreenchange = () => graph.fit(false);
    return html("div", "eg-set", null, button("−", "Zoom out", () => graph.zoom(1 / 1.3, undefined, undefined, true)),
      button("+", "Zoom in", () => graph.zoom(1.3, undefined, undefined, true)),
      button("Fit", "Fit the graph into the picture", () => graph.fit(true)),
      button("Collapse", "Close all groups and show the graph as it was at first", graph.collapseAll), whole);
  }

  function mouse(ui, graph) {
    const { canvas } = ui;
    let start = null;
    canvas.addEventListener("pointerdown", (event) => {
      if (event.button) return;
      start = { x: event.clientX, y: event.clientY, view: graph.state.view, target: event.target, far: false };
    });
    canvas.addEventListener("pointermove", (event) => {
      if (!start) return;
      const [dx, dy] = [event.clientX - start.x, event.clientY - start.y];
      if (!start.far && Math.hypot(dx, dy) < CLICK) return;
      if (!start.far) canvas.setPointerCapture(event.pointerId);
      start.far = true;
      canvas.classList.add("eg-drag");
      graph.move({ ...start.view, x: start.view.x + dx, y: start.view.y + dy });
    });
    canvas.addEventListener("pointercancel", () => { start = null; canvas.classList.remove("eg-drag"); });
    canvas.addEventListener("pointerup", () => {
      canvas.classList.remove("eg-drag");
      if (start && !start.far) click(ui, graph, start.target);
      start = null;
    });
    // The wheel belongs to the page until the graph has been clicked.
    canvas.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && !canvas.contains(document.activeElement) && !document.fullscreenElement) return;
      event.preventDefault();
      const { left, top } = canvas.getBoundingClientRect(), lines = event.deltaMode ? 20 : 1;
      const turned = Math.max(-120, Math.min(120, event.deltaY * lines));
      graph.zoom(Math.exp(-turned / 400), event.clientX - left, event.clientY - top);
    }, { passive: false });
  }

  // A click on a box or on the head of an open one; inside an open one and beside all boxes it only takes the focus.
  function click({ canvas }, graph, target) {
    const box = graph.state.model.boxes.get(target.closest("[data-id]")?.dataset.id);
    if (box && (!box.open || target.classList.contains("eg-head"))) graph.toggle(box);
    else canvas.querySelector("[tabindex='0']")?.focus({ preventScroll: true });
  }

  function keyboard(ui, graph) {
    ui.canvas.addEventListener("keydown", (event) => {
      const id = event.target.closest?.("[data-id]")?.dataset.id, box = graph.state.model.boxes.get(id);
      if (!box || event.ctrlKey || event.metaKey || event.altKey) return;
      const action = actions(graph, box, event);
      if (!action) return;
      event.preventDefault();
      action();
    });
  }

  function actions(graph, box, { key, shiftKey }) {
    const { view } = graph.state, direction = DIRECTIONS[key];
    if (direction && shiftKey) {
      return () => graph.move({ ...view, x: view.x - STEP * direction[0], y: view.y - STEP * direction[1] });
    }
    if (direction) return () => graph.go(nearest(graph.state.boxes, box, direction), true);
    return {
      Enter: () => graph.toggle(box),
      " ": () => graph.toggle(box),
      Escape: () => { if (box.parent?.parent) graph.toggle(box.parent); },
      "+": () => graph.zoom(1.3),
      "-": () => graph.zoom(1 / 1.3),
      0: () => graph.fit(true),
    }[key];
  }

  // The next box in a direction; what lies straight ahead counts as nearer than what lies aside.
  function nearest(boxes, box, [dx, dy]) {
    const middle = (each) => [each.x + each.width / 2, each.y + (each.open ? 13 : each.height / 2)];
    const [x, y] = middle(box);
    let best = box, least = Infinity;
    for (const each of boxes) {
      if (each === box || !each.parent) continue;
      const [ex, ey] = middle(each), ahead = (ex - x) * dx + (ey - y) * dy;
      const distance = ahead + 2 * (Math.abs((ex - x) * dy) + Math.abs((ey - y) * dx));
      if (ahead > 1 && distance < least) [best, least] = [each, distance];
    }
    return best;
  }

  return controls;
})();

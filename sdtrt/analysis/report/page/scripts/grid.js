// The layer table on the screen: only the rows in view are elements, so three thousand scroll as quickly as thirty.
(() => {
  const {find, make, dot, number, table} = sdtrt;
  const ROW = 30, SPARE = 8;
  const scroller = find("grid-scroll"), grid = find("grid"), body = grid.tBodies[0], head = grid.tHead.rows[0];
  const narrow = matchMedia("(max-width: 40rem)").matches;
  const onPhone = new Set(["name", "kind", "time_ms", "pct_time", "headroom_ms", "bound"]);
  const visible = new Set(table.columns.filter((column) => column.shown && (!narrow || onPhone.has(column.name))).map((column) => column.name));
  let active = 0, from = -1, longest = 1;

  const columns = () => table.columns.filter((column) => visible.has(column.name));

  const width = (column) => (narrow && !column.number ? Math.min(column.width * 0.8, 150) : column.width);

  function cell(column, index) {
    const value = column.values[index];
    const kind = column.number ? "number" : "";
    if (value === null) return make("td", {role: "gridcell", class: `${kind} unknown`}, "unknown");
    const text = column.number ? number(value) : String(value);
    const element = make("td", {role: "gridcell", class: kind, title: column.number ? null : text}, text);
    if (column.name === "kind") element.prepend(dot(sdtrt.kindColors[value]));
    if (column.name === "pct_time") {
      element.classList.add("share");
      element.style.setProperty("--share", `${(100 * value) / longest}%`);
    }
    return element;
  }

  function row(place, shownColumns) {
    const index = table.shown[place];
    const element = make("tr", {id: `layer-${index}`, "aria-rowindex": place + 2, "data-place": place, class: place === active ? "active" : ""});
    element.append(...shownColumns.map((column) => cell(column, index)));
    return element;
  }

  function space(rows, width) {
    const element = make("tr", {class: "space", "aria-hidden": "true"}, make("td", {colspan: width}));
    element.style.height = `${rows * ROW}px`;
    return element;
  }

  // Write the rows that are in view, with some to spare, between two empty ones as high as the rest.
  function render(force = true) {
    const first = Math.max(0, Math.floor(scroller.scrollTop / ROW) - SPARE);
    const start = first - (first % 4);
    if (!force && start === from) return;
    from = start;
    const end = Math.min(table.shown.length, start + Math.ceil(scroller.clientHeight / ROW) + 2 * SPARE + 4);
    const shownColumns = columns();
    const rows = Array.from({length: Math.max(end - start, 0)}, (_, i) => row(start + i, shownColumns));
    if (!table.shown.length) rows.push(make("tr", {}, make("td", {colspan: shownColumns.length, class: "unknown"}, "No layer matches.")));
    body.replaceChildren(space(start, shownColumns.length), ...rows, space(table.shown.length - end, shownColumns.length));
    pointActive();
  }

  function pointActive() {
    const element = body.querySelector("tr.active");
    if (element) grid.setAttribute("aria-activedescendant", element.id);
    else grid.removeAttribute("aria-activedescendant");
  }

  function renderHead() {
    const all = columns();
    grid.querySelector("colgroup").replaceChildren(...all.map((column) => make("col", {style: `width: ${width(column)}px`})));
    grid.style.minWidth = `${all.reduce((sum, column) => sum + width(column), 0)}px`;
    head.replaceChildren(...all.map((column) => {
      const sorted = table.state.sort === column.name ? (table.state.up ? "ascending" : "descending") : null;
      const button = make("button", {type: "button", onclick: () => sortBy(column)}, column.title);
      const about = column.number ? `${column.meaning}; filter: ${column.key}>…` : column.meaning;
      return make("th", {scope: "col", role: "columnheader", "aria-sort": sorted, "data-column": column.name, title: about, class: column.number ? "number" : ""}, button);
    }));
    grid.setAttribute("aria-colcount", all.length);
  }

  function sortBy(column) {
    const same = table.state.sort === column.name;
    show({sort: column.name, up: same ? !table.state.up : !column.number});
    head.querySelector(`[data-column="${column.name}"] button`)?.focus();
  }

  // What depends on the engine: the number of layers of each kind, and the length of the longest bar.
  function measure(engine) {
    const kinds = table.byName.kind.values, {first, count} = engine ?? {first: 0, count: table.count};
    const counts = new Map();
    scroller.style.height = `min(36rem, 75vh, ${36 + (Math.max(count, 1) + 0.6) * ROW}px)`;
    longest = Math.max(...table.byName.pct_time.values.slice(first, first + count), 1e-9);
    for (let i = first; i < first + count; i++) counts.set(kinds[i], (counts.get(kinds[i]) ?? 0) + 1);
    document.querySelectorAll(".chip").forEach((chip) => { chip.lastElementChild.textContent = number(counts.get(chip.dataset.kind) ?? 0); });
  }

  // Apply a change of filter or order and write the table anew, from its top.
  function show(change = {}) {
    table.update(change);
    const {only, kinds, filter, engine} = table.state;
    if ("engine" in change) measure(sdtrt.engines[engine]);
    active = 0;
    scroller.scrollTop = 0;
    renderHead();
    render();
    grid.setAttribute("aria-rowcount", table.shown.length + 1);
    const whole = engine === null ? table.count : sdtrt.engines[engine].count;
    find("shown").textContent = `${number(table.shown.length)} of ${number(whole)} layers${only ? `: ${only.title}` : ""}`;
    find("clear").hidden = !(only || kinds.size || filter);
  }

  function move(place) {
    active = Math.max(0, Math.min(table.shown.length - 1, place));
    const top = active * ROW, headHeight = head.offsetHeight;
    if (top < scroller.scrollTop) scroller.scrollTop = top;
    else if (top + ROW + headHeight > scroller.scrollTop + scroller.clientHeight) scroller.scrollTop = top + ROW + headHeight - scroller.clientHeight;
    render();
  }

  const page = () => Math.max(1, Math.floor(scroller.clientHeight / ROW) - 2);
  const steps = {
    ArrowDown: () => active + 1, ArrowUp: () => active - 1, PageDown: () => active + page(), PageUp: () => active - page(),
    Home: () => 0, End: () => table.shown.length - 1,
  };
  grid.addEventListener("keydown", (event) => {
    if (event.target !== grid || event.ctrlKey || event.metaKey || event.altKey) return;
    if (steps[event.key]) move(steps[event.key]());
    else if (event.key === "Enter" && table.shown.length) sdtrt.openLayer(table.shown[active]);
    else return;
    event.preventDefault();
  });
  body.addEventListener("click", (event) => {
    const element = event.target.closest("tr[data-place]");
    if (!element || getSelection().toString()) return;
    move(Number(element.dataset.place));
    sdtrt.openLayer(table.shown[active]);
  });
  let waiting = false;
  scroller.addEventListener("scroll", () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; render(false); });
  }, {passive: true});
  new ResizeObserver(() => render()).observe(scroller);

  const present = new Set(table.byName.kind.values);
  find("kinds").append(...Object.keys(sdtrt.kindColors).filter((kind) => present.has(kind)).map((kind) => make("button", {
    type: "button", class: "chip", "aria-pressed": "true", "data-kind": kind,
    onclick: (event) => {
      const {kinds} = table.state;
      if (!kinds.delete(kind)) kinds.add(kind);
      event.currentTarget.setAttribute("aria-pressed", String(!kinds.has(kind)));
      show();
    },
  }, dot(sdtrt.kindColors[kind]), kind, " ", make("span", {class: "soft"}))));
  find("columns").querySelector(".choices").append(...table.columns.map((column) => make("label", {}, make("input", {
    type: "checkbox", checked: visible.has(column.name) ? "" : null,
    onchange: (event) => {
      if (event.target.checked) visible.add(column.name);
      else visible.delete(column.name);
      renderHead();
      render();
    },
  }), ` ${column.title}`)));
  find("filter").addEventListener("input", (event) => show({filter: event.target.value}));
  find("clear").addEventListener("click", () => {
    find("filter").value = "";
    document.querySelectorAll(".chip").forEach((chip) => chip.setAttribute("aria-pressed", "true"));
    table.state.kinds.clear();
    show({filter: "", only: null});
  });

  sdtrt.showTable = show;
  sdtrt.moveInTable = (step) => {
    move(active + step);
    return table.shown[active];
  };
})();

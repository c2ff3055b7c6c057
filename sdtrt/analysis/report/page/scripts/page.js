// The page as a whole: theme, engine, section marks, keys, the graph, and the first drawing.
(() => {
  const {find} = sdtrt;
  const all = (selector) => [...document.querySelectorAll(selector)];
  const toggle = find("theme"), system = matchMedia("(prefers-color-scheme: dark)");
  let graph = null;

  function theme(value) {
    sdtrt.dark = value;
    document.documentElement.style.colorScheme = value ? "dark" : "light";
    toggle.textContent = value ? "Light theme" : "Dark theme";
    graph?.setTheme(value);
    return sdtrt.refreshCharts();
  }
  toggle.addEventListener("click", () => theme(!sdtrt.dark));
  system.addEventListener("change", (event) => theme(event.matches));

  function mountGraph() {
    const place = find("engine-graph"), data = find(`data-graph-${sdtrt.engine}`);
    place.replaceChildren();
    graph = null;
    if (!data || !window.EngineGraph) return;
    graph = EngineGraph.mount(place, JSON.parse(data.textContent), {kindColors: sdtrt.kindColors, precisionColors: sdtrt.precisionColors});
    graph.setTheme(sdtrt.dark);
  }
  const graphWatcher = new IntersectionObserver((entries) => {
    if (!entries.some((entry) => entry.isIntersecting)) return;
    graphWatcher.disconnect();
    mountGraph();
  }, {rootMargin: "600px"});
  graphWatcher.observe(find("engine-graph"));
  sdtrt.mountGraph = () => {
    graphWatcher.disconnect();
    if (!graph) mountGraph();
    return graph;
  };

  // One engine at a time: its charts, its graph, its rows of the table.
  function nameScopes() {
    all(".scope").forEach((mark) => { mark.textContent = sdtrt.engines[sdtrt.engine].name; });
  }
  const chooser = find("engine"), tableChooser = find("table-engine");
  sdtrt.onEngine((index) => {
    nameScopes();
    if (graph) mountGraph();
    if (tableChooser) tableChooser.value = String(index);
    sdtrt.showTable({engine: index});
  });
  chooser?.addEventListener("change", () => sdtrt.chooseEngine(Number(chooser.value)));
  tableChooser?.addEventListener("change", () => sdtrt.showTable({engine: tableChooser.value === "" ? null : Number(tableChooser.value)}));

  all(".show-layers").forEach((button) => button.addEventListener("click", () => {
    const only = new Set(JSON.parse(button.dataset.layers));
    only.title = button.dataset.title;
    if (tableChooser) tableChooser.value = "";
    sdtrt.showTable({only, engine: null});
    find("layers").scrollIntoView();
    find("grid").focus({preventScroll: true});
  }));

  const links = new Map(all(".bar a").map((link) => [link.hash.slice(1), link]));
  const inView = new Set();
  const marker = new IntersectionObserver((entries) => {
    for (const {target, isIntersecting} of entries) isIntersecting ? inView.add(target.id) : inView.delete(target.id);
    const current = [...links.keys()].find((id) => inView.has(id));
    for (const [id, link] of links) {
      if (id !== current) link.removeAttribute("aria-current");
      else if (!link.hasAttribute("aria-current")) {
        link.setAttribute("aria-current", "true");
        const strip = link.closest("nav");
        strip.scrollLeft = link.offsetLeft - strip.offsetLeft - strip.clientWidth / 3;
      }
    }
  }, {rootMargin: "-15% 0px -70% 0px"});
  all("main > section").forEach((section) => marker.observe(section));

  document.addEventListener("keydown", (event) => {
    if (event.key !== "/" || event.target.closest("input, select, textarea, dialog")) return;
    event.preventDefault();
    find("filter").focus();
    find("layers").scrollIntoView();
  });

  if (sdtrt.engines.length) nameScopes();
  sdtrt.showTable({engine: tableChooser ? sdtrt.engine : null});
  theme(system.matches);
  sdtrt.watchCharts();
  sdtrt.chartsReady.then(() => { document.documentElement.dataset.ready = "yes"; });
})();

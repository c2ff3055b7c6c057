// Charts: drawn when they come near the view, and then brought up to date with the chosen engine and the theme.
(() => {
  const {read} = sdtrt;
  const charts = [...document.querySelectorAll(".chart")];
  const near = new Set(), drawn = new Map();
  const config = {responsive: true, displaylogo: false, displayModeBar: false};

  // The parts of a layout that follow the theme, as Plotly.relayout takes them.
  function look(chart) {
    const style = getComputedStyle(chart), line = style.borderTopColor;
    const axes = Object.keys(chart.layout).filter((key) => /^[xy]axis/.test(key));
    const lines = axes.flatMap((axis) => ["gridcolor", "linecolor", "zerolinecolor"].map((key) => [`${axis}.${key}`, line]));
    return {
      "font.color": style.color, "hoverlabel.bgcolor": style.backgroundColor, "hoverlabel.bordercolor": style.color,
      "hoverlabel.font.color": style.color, "hoverlabel.align": "left", ...Object.fromEntries(lines),
    };
  }

  function openLayer(event) {
    const [point] = event.points;
    if (point.data.meta !== "layers") return;
    sdtrt.openLayer(sdtrt.engines[sdtrt.engine].first + point.customdata[0]);
  }

  async function draw(chart) {
    const part = chart.dataset.scope === "all" ? "all" : sdtrt.engine;
    const before = drawn.get(chart), now = {part, dark: sdtrt.dark};
    if (before?.part === part && before.dark === now.dark) return;
    drawn.set(chart, now);
    if (before?.part !== part) {
      const figure = read(`figure-${chart.dataset.plot}-${part}`);
      chart.style.height = `${figure.layout.height}px`;
      await Plotly.react(chart, figure.data, figure.layout, config);
      if (!before) chart.on("plotly_click", openLayer);
    }
    await Plotly.relayout(chart, look(chart));
  }

  const watcher = new IntersectionObserver((entries) => {
    for (const {target, isIntersecting} of entries) isIntersecting ? near.add(target) : near.delete(target);
    sdtrt.refreshCharts().then(sdtrt.firstCharts);
  }, {rootMargin: "600px"});

  sdtrt.chartsReady = new Promise((resolve) => { sdtrt.firstCharts = resolve; });
  if (!charts.length) sdtrt.firstCharts();
  sdtrt.watchCharts = () => charts.forEach((chart) => watcher.observe(chart));
  sdtrt.refreshCharts = () => Promise.all([...near].map(draw));
  sdtrt.drawAll = () => Promise.all(charts.map(draw));
  sdtrt.onEngine(sdtrt.refreshCharts);
})();

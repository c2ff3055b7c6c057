// The panel of one layer: its figures, tensors, ONNX nodes and the backend's own attributes.
(() => {
  const {find, make, dot, number, table} = sdtrt;
  const panel = find("details"), body = find("details-body");
  let details = null;

  const size = (bytes) => (bytes === null ? "unknown" : bytes >= 1e5 ? number(bytes / 1e6, "MB") : number(bytes, "B"));
  const section = (title, ...content) => [make("h4", {}, title), ...content];

  function list(facts) {
    const rows = facts.filter(([, text]) => text !== null);
    return make("dl", {}, ...rows.flatMap(([name, text]) => [make("dt", {}, name), make("dd", {class: text.startsWith("unknown") ? "soft" : ""}, text)]));
  }

  function rows(heads, lines) {
    const cell = (text, i) => make("td", {class: heads[i][1] ? "number" : ""}, text === null ? "unknown" : String(text));
    const head = make("tr", {}, ...heads.map(([title, right]) => make("th", {scope: "col", class: right ? "number" : ""}, title)));
    const lineRows = lines.map((line) => make("tr", {}, ...line.map(cell)));
    return make("div", {class: "scroll"}, make("table", {}, make("thead", {}, head), make("tbody", {}, ...lineRows)));
  }

  function tensors(title, found) {
    if (!found) return [];
    const heads = [["Tensor"], ["Shape"], ["Type"], ["Layout"], ["Size", true]];
    return section(title, rows(heads, found.map(([name, shape, type, format, bytes]) => [name, shape, type, format, size(bytes)])));
  }

  function figures(index, more) {
    const value = (name) => table.value(name, index);
    const scaled = (name, unit) => number(value(name), unit);
    const share = (name) => (value(name) === null ? "" : `, ${number(value(name))} % of peak`);
    const spread = more.spread ? `, ${number(more.spread.least)} to ${number(more.spread.most)} ms in ${more.spread.runs} run${more.spread.runs === 1 ? "" : "s"}` : "";
    const limit = value("bound") ? `${value("bound")}: a perfect kernel takes ${scaled("ideal_ms", "ms")}` : "unknown";
    return list([
      ["Time, median", `${scaled("time_ms", "ms")}${spread}`], ["Share of its engine", scaled("pct_time", "%")],
      ["Limit", limit], ["Headroom", scaled("headroom_ms", "ms")], ["Operations", scaled("flops", "GFLOP")],
      ["Moved", scaled("bytes_moved", "MB")], ["Weights", scaled("weight_bytes", "MB")], ["Intensity", scaled("intensity_flop_per_byte", "FLOP/byte")],
      ["Rate", scaled("tflops_per_s", "TFLOP/s") + share("pct_peak_compute")], ["Bandwidth", scaled("gb_per_s", "GB/s") + share("pct_peak_bandwidth")],
      ["Module", value("module") ?? "unknown"], ["Kernel", value("kernel") ?? "unknown"],
      ["Stream", more.stream === undefined ? null : String(more.stream)],
    ]);
  }

  function nodes(more) {
    if (!more.nodes) return [];
    const items = more.nodes.map((name) => make("li", {}, make("code", {}, name)));
    if (more.moreNodes) items.push(make("li", {class: "soft"}, `and ${number(more.moreNodes)} more`));
    return section(`ONNX nodes, ${number(more.nodes.length + (more.moreNodes ?? 0))}`, make("ul", {class: "names"}, ...items));
  }

  function attributes(more) {
    if (!more.attributes) return [];
    const left = more.moreAttributes ? [make("p", {class: "soft"}, `${number(more.moreAttributes)} more were left out of the page.`)] : [];
    return section("Attributes", list(more.attributes), ...left);
  }

  // Show a layer by its number among all layers of the report.
  sdtrt.openLayer = (index) => {
    details ??= sdtrt.read("data-details");
    const more = details[index];
    const value = (name) => table.value(name, index);
    const kind = make("p", {class: "soft"}, dot(sdtrt.kindColors[value("kind")]), [value("kind"), value("op"), value("precision") ?? "precision unknown", value("component")].join(" · "));
    find("details-title").textContent = value("name");
    body.replaceChildren(kind, figures(index, more), ...tensors("Inputs", more.inputs), ...tensors("Outputs", more.outputs), ...nodes(more), ...attributes(more));
    panel.scrollTop = 0;
    if (!panel.open) panel.showModal();
  };

  find("details-close").addEventListener("click", () => panel.close());
  find("details-previous").addEventListener("click", () => sdtrt.openLayer(sdtrt.moveInTable(-1)));
  find("details-next").addEventListener("click", () => sdtrt.openLayer(sdtrt.moveInTable(1)));
  panel.addEventListener("click", (event) => { if (event.target === panel) panel.close(); });
})();

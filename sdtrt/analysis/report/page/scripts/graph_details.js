// The panel beside the graph, with what is known of one box. EngineGraphDetails(panel, model, box, go) fills it.
window.EngineGraphDetails = (() => {
  "use strict";
  const { html, number, percent, scaled, size, plural } = window.EngineGraphParts;
  const SLOWEST = 8;

  function details(panel, model, box, go) {
    const isLayer = box.layer !== undefined;
    const name = isLayer ? model.plan.layers.name[box.layer] : box.path || box.label;
    panel.replaceChildren(html("h4", "", name), ...(isLayer ? layer(model, box) : group(model, box, go)));
    panel.scrollTop = 0;
  }

  function time(model, box) {
    if (box.ms === null) return "unknown";
    const total = model.root.ms;
    return `${number(box.ms)} ms${total ? `, ${percent(box.ms / total)}` : ""}`;
  }

  function layer(model, box) {
    const { layers } = model.plan, value = (key) => layers[key][box.layer];
    const facts = [
      ["Time", time(model, box)],
      ["Limited by", value("bound")],
      ["Could save", value("headroom") === null ? null : `${number(value("headroom"))} ms`],
      ["Kind", value("kind")],
      ["Operator", value("op")],
      ["Precision", value("precision") ?? "unknown"],
      ["Kernel", value("kernel") ?? "unknown"],
      ["Work", scaled(value("flops"), ["FLOP", "kFLOP", "MFLOP", "GFLOP", "TFLOP"])],
      ["Moved", size(value("bytes"))],
      ["Weights", size(value("weights"))],
      ["Rate", value("tflops") === null ? null : `${number(value("tflops"))} TFLOP/s`],
      ["Bandwidth", value("gbs") === null ? null : `${number(value("gbs"))} GB/s`],
      ["Module", value("module")],
    ];
    return [list(facts), ...tensors("Inputs", model, value("inputs")), ...tensors("Outputs", model, value("outputs")),
      ...lines("ONNX nodes", value("nodes"))];
  }

  function group(model, box, go) {
    const inside = box.layers.map((index) => model.leaves[index]);
    const sum = (key) => {
      const known = box.layers.map((index) => model.plan.layers[key][index]).filter((value) => value !== null);
      return known.length ? known.reduce((total, value) => total + value, 0) : null;
    };
    const facts = [
      ["Time", time(model, box)],
      ["Layers", box.layers.length.toLocaleString("en-US") + (box.untimed ? `, ${box.untimed} not timed` : "")],
      ["Work", scaled(sum("flops"), ["FLOP", "kFLOP", "MFLOP", "GFLOP", "TFLOP"])],
      ["Moved", size(sum("bytes"))],
      ["Weights", size(sum("weights"))],
    ];
    const part = ([name, ms, count]) => [name, `${box.ms ? `${number(ms)} ms, ` : ""}${plural(count, "layer")}`];
    const slowest = inside.filter((each) => each.ms).sort((a, b) => b.ms - a.ms).slice(0, SLOWEST);
    const buttons = slowest.map((each) => {
      const made = html("button", "", `${number(each.ms)} ms  ${each.label}`);
      Object.assign(made, { type: "button", title: model.plan.layers.name[each.layer], onclick: () => go(each, true) });
      return html("li", "", null, made);
    });
    const ranking = buttons.length ? [html("h5", "", "Slowest layers"), html("ul", "", null, ...buttons)] : [];
    return [list(facts), html("h5", "", "By kind"), list(box.mix.kind.map(part)),
      html("h5", "", "By precision"), list(box.mix.precision.map(part)), ...ranking];
  }

  const list = (facts) => html("dl", "", null, ...facts.filter(([, text]) => text !== null)
    .flatMap(([name, text]) => [html("dt", "", name), html("dd", "", text)]));

  function lines(title, texts) {
    const items = texts.map((text) => html("li", "", text));
    return items.length ? [html("h5", "", title), html("ul", "", null, ...items)] : [];
  }

  function tensors(title, model, numbers) {
    const { name, type, bytes } = model.plan.tensors;
    return lines(title, numbers.map((tensor) => {
      const weight = bytes[tensor] === null ? "" : `, ${size(bytes[tensor])}`;
      return `${name[tensor]}: ${type[tensor] || "unknown"}${weight}`;
    }));
  }

  return details;
})();

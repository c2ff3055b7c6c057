// One engine of sdtrt.analysis.graph_data as a tree of boxes, for graph.js: what is in each, what is visible, and which
// visible boxes are joined. A group's figures are the sums of what is known of its layers.
window.EngineGraphModel = (() => {
  "use strict";
  const UNKNOWN = "unknown";

  function model(plan) {
    const { layers } = plan, count = layers.name.length;
    const empty = (index) => ({ id: `g${index}`, children: [], mix: {}, layers: [] });
    const groups = plan.groups.map((group, index) => ({ ...group, ...empty(index) }));
    const leaves = layers.name.map((_, index) => leaf(layers, index, groups));
    groups.forEach((group, index) => {
      group.parent = groups[plan.groups[index].parent] ?? null;
      group.depth = group.parent ? group.parent.depth + 1 : 0;
      group.initial = group.open;
      if (group.parent) group.parent.children.push(group);
    });
    leaves.forEach((box) => { box.parent.children.push(box); box.depth = box.parent.depth + 1; });
    leaves.forEach((box) => { for (let at = box.parent; at; at = at.parent) at.layers.push(box.layer); });
    const depths = depthsOf(count, plan.edges);
    for (const box of leaves) [box.order, box.first] = [depths[box.layer], box.layer];
    for (const group of groups) describe(group, leaves, depths);
    const boxes = new Map([...groups, ...leaves].map((box) => [box.id, box]));
    const reset = () => groups.forEach((group) => { group.open = group.initial; });
    const find = (text) => search(text, groups, leaves, layers);
    return { plan, root: groups[0], boxes, leaves, reset, links: () => links(plan, leaves), search: find };
  }

  function leaf(layers, index, groups) {
    const ms = layers.ms[index], weight = ms ?? 0;
    const part = (value) => [[value ?? UNKNOWN, weight, 1]];
    const mix = { kind: part(layers.kind[index]), precision: part(layers.precision[index]) };
    const parent = groups[layers.group[index]], label = layers.label[index];
    return { id: `l${index}`, label, layer: index, layers: [index], open: false, parent, ms, mix };
  }

  // Number of layers on the longest way from an input. Edges against the engine's order are loops and do not count.
  function depthsOf(count, edges) {
    const depths = new Array(count).fill(0);
    const forward = edges.filter(([source, target]) => source < target).sort((a, b) => a[1] - b[1]);
    for (const [source, target] of forward) depths[target] = Math.max(depths[target], depths[source] + 1);
    return depths;
  }

  function describe(group, leaves, depths) {
    const inside = group.layers.map((index) => leaves[index]);
    const timed = inside.filter((box) => box.ms !== null);
    const sorted = inside.map((box) => depths[box.layer]).sort((a, b) => a - b);
    group.ms = timed.length ? timed.reduce((sum, box) => sum + box.ms, 0) : null;
    group.untimed = inside.length - timed.length;
    group.order = sorted[sorted.length >> 1] ?? 0;
    group.first = group.layers[0] ?? 0;
    for (const key of ["kind", "precision"]) {
      const sums = new Map();
      for (const { mix } of inside) {
        const [[value, ms, number]] = mix[key], sum = sums.get(value) ?? [value, 0, 0];
        sums.set(value, [value, sum[1] + ms, sum[2] + number]);
      }
      group.mix[key] = [...sums.values()].sort((a, b) => b[1] - a[1] || b[2] - a[2]);
    }
  }

  // The box that shows a layer: its outermost closed group, or itself.
  function shown(box) {
    let found = box;
    for (let at = box.parent; at; at = at.parent) if (!at.open) found = at;
    return found;
  }

  function links(plan, leaves) {
    const owners = leaves.map(shown), found = new Map();
    for (const [source, target, tensor] of plan.edges) {
      const from = owners[source], to = owners[target];
      if (from === to) continue;
      const key = `${from.id}>${to.id}`;
      if (!found.has(key)) found.set(key, { from, to, tensors: new Set() });
      if (tensor !== null) found.get(key).tensors.add(tensor);
    }
    return [...found.values()];
  }

  // Boxes whose name, kernel, operator, module or ONNX nodes contain the text; groups by their own path.
  function search(text, groups, leaves, layers) {
    const query = text.trim().toLowerCase();
    if (!query) return [];
    const has = (value) => value !== null && value.toLowerCase().includes(query);
    const inLayer = ({ layer, label }) => has(label) || has(layers.name[layer]) || has(layers.kernel[layer])
      || has(layers.op[layer]) || has(layers.module[layer]) || layers.nodes[layer].some(has);
    const named = groups.filter((group) => group.parent && has(group.label));
    const whole = groups.filter((group) => group.parent && group.path.toLowerCase() === query);
    return [...new Set([...whole, ...named, ...leaves.filter(inLayer)])];
  }

  return Object.assign(model, { shown });
})();

// Layered layout of boxes in boxes, for graph.js. Every open group is laid out for itself, from the inside out, and is
// then one big box in the group around it. An edge that leaves a group does so at a port on its border.
//
// EngineGraphLayout(root, links) takes a tree of boxes {id, order, first, open, children, parent, depth, titleWidth,
// width, height} and `links` {from, to} between those that are not open. It sets x, y, width and height of all boxes
// and returns routes {d, links, last, back}: pieces of edges as SVG paths, of which `last` ones end at a box and `back`
// ones go against the order.
window.EngineGraphLayout = (() => {
  "use strict";
  const GAP_X = 18, GAP_Y = 28, PAD = 14, HEADER = 30, BEND = 12, SWEEPS = 8;

  function layout(root, links) {
    sortInside(root);
    links.forEach(splitAtBorders);
    arrange(root);
    const routes = [];
    place(root, 0, 0, routes);
    return routes;
  }

  function sortInside(group) {
    group.pieces = new Map();
    group.ports = new Map();
    group.children.sort((a, b) => a.order - b.order || a.first - b.first).forEach((child, index) => {
      child.rankOrder = index;
      if (child.open) sortInside(child);
    });
  }

  // A link from u to v becomes one piece in each group that it leaves or enters and one in the group that holds both.
  // Links that leave a group for the same box share their port, and so their way.
  function splitAtBorders(link) {
    let a = link.from, b = link.to;
    const out = [], into = [];
    const up = (chain, box) => (chain.push(box), box.parent);
    while (a.depth > b.depth) a = up(out, a);
    while (b.depth > a.depth) b = up(into, b);
    while (a.parent !== b.parent) { a = up(out, a); b = up(into, b); }
    const back = a.rankOrder > b.rankOrder;
    add(a.parent, a, b, link, back);
    out.forEach((box) => add(box.parent, box, port(box.parent, `to ${b.id}`, back), link, back));
    into.forEach((box) => add(box.parent, port(box.parent, `from ${a.id}`, !back), box, link, back));
  }

  function port(group, key, top) {
    const made = { id: `${group.id} ${key}`, key, port: true, top, width: BEND, height: 0 };
    return group.ports.get(key) ?? (group.ports.set(key, made), made);
  }

  function add(group, from, to, link, back) {
    const key = `${from.id}>${to.id}`;
    if (!group.pieces.has(key)) group.pieces.set(key, { from, to, back, links: [] });
    group.pieces.get(key).links.push(link);
  }

  function arrange(group) {
    group.children.filter((child) => child.open).forEach(arrange);
    const pieces = [...group.pieces.values()];
    for (const piece of pieces) {
      const { from, to, back } = piece;
      [piece.upper, piece.lower] = back ? [to, from] : [from, to];
    }
    const nodes = [...group.children, ...group.ports.values()];
    nodes.forEach((node) => { node.above = []; node.below = []; });
    rank(group, pieces);
    const ranks = bend(nodes, pieces);
    order(ranks);
    horizontal(ranks);
    vertical(group, ranks, pieces);
  }

  // Longest path from the top; what has more readers than sources is then moved down to its readers.
  function rank(group, pieces) {
    const { children } = group;
    children.forEach((node) => { node.rank = 0; node.sources = []; node.readers = []; });
    for (const { upper, lower } of pieces) {
      if (upper.port || lower.port) continue;
      upper.readers.push(lower);
      lower.sources.push(upper);
    }
    for (const node of children) node.sources.forEach((other) => { node.rank = Math.max(node.rank, other.rank + 1); });
    for (const node of [...children].reverse()) {
      const next = Math.min(...node.readers.map((other) => other.rank));
      if (node.readers.length > node.sources.length) node.rank = next - 1;
    }
    const used = new Set(pieces.flatMap(({ upper, lower }) => [upper, lower]));
    const alone = children.filter((node) => !used.has(node));
    const columns = Math.max(4, Math.ceil(Math.sqrt(alone.length)));
    alone.forEach((node, index) => { node.rank = Math.floor(index / columns); });
    const last = Math.max(0, ...children.map((node) => node.rank)) + 1;
    group.ports.forEach((node) => { node.rank = node.top ? -1 : last; });
  }

  // Edges over several ranks get a bend in each; all edges down from one box share theirs.
  function bend(nodes, pieces) {
    const ranks = new Map();
    const enter = (node) => (ranks.get(node.rank) ?? ranks.set(node.rank, []).get(node.rank)).push(node);
    nodes.forEach(enter);
    const join = (a, b) => { if (!a.below.includes(b)) { a.below.push(b); b.above.push(a); } };
    for (const piece of pieces) {
      const { upper, lower, back } = piece;
      const chain = back ? (upper.upward ??= []) : (upper.downward ??= []);
      piece.way = [upper];
      for (let at = upper.rank + 1; at < lower.rank; at++) {
        if (!chain[at + 1]) {
          const made = { bend: upper, width: BEND, height: 0, rank: at, above: [], below: [] };
          chain[at + 1] = Object.assign(made, { rankOrder: upper.rankOrder });
          enter(made);
        }
        piece.way.push(chain[at + 1]);
      }
      piece.way.push(lower);
      for (let at = 1; at < piece.way.length; at++) join(piece.way[at - 1], piece.way[at]);
    }
    nodes.forEach((node) => { delete node.upward; delete node.downward; });
    return [...ranks.keys()].sort((a, b) => a - b).map((key) => ranks.get(key));
  }

  // Barycenters, downwards and upwards in turn; the order with the fewest crossings is kept.
  function order(ranks) {
    const number = (line) => line.forEach((node, index) => { node.slot = index; });
    ranks.forEach((line) => number(line.sort((a, b) => (a.rankOrder ?? 0) - (b.rankOrder ?? 0))));
    let best = ranks.map((line) => [...line]), fewest = crossings(ranks);
    for (let sweep = 0; sweep < SWEEPS && fewest; sweep++) {
      const down = sweep % 2 === 0;
      for (const line of down ? ranks : [...ranks].reverse()) {
        for (const node of line) {
          const near = down ? node.above : node.below;
          node.wish = near.length ? near.reduce((sum, other) => sum + other.slot, 0) / near.length : node.slot;
        }
        number(line.sort((a, b) => a.wish - b.wish || a.slot - b.slot));
      }
      const now = crossings(ranks);
      if (now < fewest) { fewest = now; best = ranks.map((line) => [...line]); }
    }
    best.forEach((line, index) => { ranks[index] = line; number(line); });
  }

  function crossings(ranks) {
    let total = 0;
    for (const line of ranks) {
      const ends = line.flatMap((node) => node.below.map((other) => other.slot).sort((a, b) => a - b));
      for (let i = 1; i < ends.length; i++) for (let j = 0; j < i; j++) if (ends[j] > ends[i]) total++;
    }
    return total;
  }

  // Every box moves to the mean of its neighbors as far as its rank leaves room; long edges pull the most, and so
  // become straight.
  function horizontal(ranks) {
    for (const line of ranks) settle(line, line.map(() => 0), line.map(() => 1));
    for (let sweep = 0; sweep < 2 * SWEEPS; sweep++) {
      const down = sweep % 2 === 0;
      for (const line of down ? ranks : [...ranks].reverse()) {
        const goals = [], weights = [];
        for (const node of line) {
          let sum = 0, weight = 0;
          for (const other of down ? node.above : node.below) {
            const pull = node.bend && other.bend ? 8 : node.bend || other.bend ? 2 : 1;
            sum += pull * (other.middle + attach(other, node, down) - attach(node, other, !down));
            weight += pull;
          }
          goals.push(weight ? sum / weight : node.middle);
          weights.push(weight || 0.1);
        }
        settle(line, goals, weights);
      }
    }
  }

  // Where an edge between `node` and `other` touches `node`, from its middle: at a port if `node` is an open group.
  function attach(node, other, bottom) {
    if (!node.open) return 0;
    const end = other.bend ?? other, sides = [...node.ports.values()].filter((each) => each.top !== bottom);
    const found = sides.filter((each) => [end.key, `to ${end.id}`, `from ${end.id}`].includes(each.key));
    const from = found.length ? found : sides;
    return from.length ? from.reduce((sum, each) => sum + each.middle, 0) / from.length - node.width / 2 : 0;
  }

  // The places nearest to `goals` that keep order and distance: pool adjacent violators, exact for least squares.
  function settle(line, goals, weights) {
    let offset = 0;
    const pools = [];
    line.forEach((node, index) => {
      if (index) offset += (line[index - 1].width + node.width) / 2 + (line[index - 1].bend && node.bend ? 0 : GAP_X);
      node.offset = offset;
      let pool = { mean: goals[index] - offset, weight: weights[index], size: 1 };
      while (pools.length && pools[pools.length - 1].mean > pool.mean) {
        const { mean, weight, size } = pools.pop(), sum = weight + pool.weight;
        pool = { mean: (mean * weight + pool.mean * pool.weight) / sum, weight: sum, size: size + pool.size };
      }
      pools.push(pool);
    });
    let index = 0;
    for (const { mean, size } of pools) {
      for (let n = 0; n < size; n++, index++) line[index].middle = mean + line[index].offset;
    }
  }

  function vertical(group, ranks, pieces) {
    const all = ranks.flat();
    const left = Math.min(...all.map((node) => node.middle - node.width / 2)) - PAD;
    all.forEach((node) => { node.middle -= left; });
    let y = group.parent ? HEADER : 0;
    ranks.forEach((line, index) => {
      const ports = line.every((node) => node.port);
      if (index || !ports) y += index ? GAP_Y + Math.min(24, line.length) : PAD;
      const height = Math.max(...line.map((node) => node.height));
      line.forEach((node) => { node.top0 = y; node.bottom0 = y + height; node.inY = y + (height - node.height) / 2; });
      y += height;
    });
    group.height = y + ([...group.ports.values()].some((node) => !node.top) ? 0 : PAD);
    const width = Math.max(...all.map((node) => node.middle + node.width / 2)) + PAD;
    const more = group.parent ? Math.max(0, group.titleWidth - width) : 0;
    all.forEach((node) => { node.middle += more / 2; });
    group.width = width + more;
    group.routes = pieces.map((piece) => ({ ...piece, points: points(piece) }));
  }

  function points({ way, from, to, back }) {
    const [upper, lower] = [way[0], way[way.length - 1]];
    const touch = (node) => {
      const key = node === from ? (to.key ?? `to ${to.id}`) : (from.key ?? `from ${from.id}`);
      const found = node.open && node.ports.get(key);
      return found ? node.middle - node.width / 2 + found.middle : node.middle;
    };
    const x1 = touch(upper), x2 = touch(lower);
    const line = [[x1, upper.inY + upper.height], [x1, upper.bottom0]];
    for (const node of way.slice(1, -1)) line.push([node.middle, node.top0], [node.middle, node.bottom0]);
    line.push([x2, lower.top0], [x2, lower.inY]);
    return back ? line.reverse() : line;
  }

  function place(group, x, y, routes) {
    group.x = x;
    group.y = y;
    for (const child of group.children) {
      const left = x + child.middle - child.width / 2, top = y + child.inY;
      if (child.open) place(child, left, top, routes);
      else { child.x = left; child.y = top; }
    }
    for (const { points: local, links, to, back } of group.routes) {
      const moved = local.map(([px, py]) => [x + px, y + py]);
      routes.push({ d: curve(moved), links, back, last: !to.port && !to.open });
    }
  }

  function curve(line) {
    let d = `M${round(line[0][0])} ${round(line[0][1])}`;
    for (let i = 1; i < line.length; i++) {
      const [[x1, y1], [x2, y2]] = [line[i - 1].map(round), line[i].map(round)], half = round((y1 + y2) / 2);
      if (x1 !== x2 || y1 !== y2) d += x1 === x2 ? `L${x2} ${y2}` : `C${x1} ${half} ${x2} ${half} ${x2} ${y2}`;
    }
    return d;
  }

  const round = (value) => Math.round(value * 10) / 10;
  return layout;
})();

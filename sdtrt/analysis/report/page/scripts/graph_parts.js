// What graph.js and its controls are made of: elements, texts for figures, and the widths of texts.
window.EngineGraphParts = (() => {
  "use strict";
  const SVG = "http://www.w3.org/2000/svg";
  let mounted = 0;

  function svg(tag, attributes = {}, text = null) {
    const made = document.createElementNS(SVG, tag);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text !== null) made.textContent = text;
    return made;
  }

  function html(tag, className = "", text = null, ...children) {
    const made = document.createElement(tag);
    if (className) made.className = className;
    if (text !== null) made.textContent = text;
    made.append(...children);
    return made;
  }

  function button(text, title, action) {
    const made = html("button", "", text);
    Object.assign(made, { type: "button", title, onclick: action });
    made.setAttribute("aria-label", title);
    return made;
  }

  function swatch(color, text) {
    const mark = html("span", "eg-swatch");
    mark.style.background = color;
    return html("span", "", null, mark, text);
  }

  function number(value) {
    if (value === null) return "unknown";
    if (Math.abs(value) >= 1000) return Math.round(value).toLocaleString("en-US");
    return String(Number(value.toPrecision(value && Math.abs(value) < 0.1 ? 2 : 3)));
  }

  function percent(share) {
    const value = 100 * share;
    return value && value < 0.1 ? "< 0.1 %" : `${value.toFixed(value < 10 ? 1 : 0)} %`;
  }

  function scaled(value, units) {
    if (value === null) return "unknown";
    const step = Math.min(units.length - 1, value ? Math.max(0, Math.floor(Math.log10(value) / 3)) : 0);
    return `${number(value / 1000 ** step)} ${units[step]}`;
  }

  const size = (bytes) => scaled(bytes, ["B", "kB", "MB", "GB", "TB"]);
  const plural = (count, word) => `${count.toLocaleString("en-US")} ${word}${count === 1 ? "" : "s"}`;

  // Widths of texts in the picture's font, to cut them to their box, in the middle: names differ at both ends.
  function measure(canvas) {
    const context = document.createElement("canvas").getContext("2d");
    const family = getComputedStyle(canvas).fontFamily || "sans-serif", known = new Map();
    function width(text, bold = false) {
      const key = `${bold} ${text}`;
      if (!known.has(key)) {
        context.font = `${bold ? "600 12.5px" : "11.5px"} ${family}`;
        known.set(key, context.measureText(text).width);
      }
      return known.get(key);
    }
    function cut(text, room, bold = false) {
      if (width(text, bold) <= room) return text;
      const end = (length) => text.slice(text.length - Math.floor(length / 2));
      const cutTo = (length) => `${text.slice(0, Math.ceil(length / 2))}…${end(length)}`;
      let low = 1, high = Math.min(text.length, 200);
      while (low < high) {
        const middle = (low + high + 1) >> 1;
        if (width(cutTo(middle), bold) <= room) low = middle;
        else high = middle - 1;
      }
      return room > 20 ? cutTo(low) : "";
    }
    return { width, cut };
  }

  // The empty widget; the parts that change are returned by name.
  function build(element, label) {
    const arrow = `eg-arrow-${mounted++}`;
    const canvas = svg("svg", { class: "eg-canvas", role: "group", "aria-label": label });
    const marker = { id: arrow, viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 8, markerHeight: 8, orient: "auto",
      markerUnits: "userSpaceOnUse" };
    canvas.append(svg("defs"));
    canvas.firstChild.append(svg("marker", marker));
    canvas.querySelector("marker").append(svg("path", { class: "eg-arrow", d: "M0 0.5L8 4L0 7.5z" }));
    const [groups, edges, closed, stage] = ["g", "g", "g", "g"].map((tag) => svg(tag));
    stage.append(groups, edges, closed);
    canvas.append(stage);
    const [bar, crumbs, side, legend] = ["bar", "crumbs", "side", "legend"].map((name) => html("div", `eg-${name}`));
    const [status, found] = [html("p", "eg-soft"), html("span", "eg-soft")];
    found.setAttribute("role", "status");
    side.setAttribute("role", "region");
    side.setAttribute("aria-label", "Details");
    side.tabIndex = 0;
    element.classList.add("eg");
    element.replaceChildren(bar, crumbs, html("div", "eg-main", null, canvas, side), legend, status);
    return { arrow, canvas, groups, edges, closed, stage, bar, crumbs, side, legend, status, found };
  }

  return { svg, html, button, swatch, number, percent, scaled, size, plural, measure, build };
})();

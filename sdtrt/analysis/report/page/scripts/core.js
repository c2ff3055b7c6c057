// What all scripts of the page share: the data that is written into it, texts for figures, and small helpers for elements.
window.sdtrt = (() => {
  const find = (id) => document.getElementById(id);
  const read = (id) => JSON.parse(find(id).textContent);
  const page = read("data-page");

  // Four significant digits with thousands separators, as the rest of the page writes figures.
  function number(value, unit = "") {
    if (value === null || value === undefined) return "unknown";
    const large = Math.abs(value) >= 1000;
    const text = large ? Math.round(value).toLocaleString("en-US") : String(Number(value.toPrecision(4)));
    return unit ? `${text} ${unit}` : text;
  }

  // An element with attributes and children; a child that is a string becomes text, never markup.
  function make(tag, attributes = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name === "class") element.className = value;
      else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
      else if (value !== null) element.setAttribute(name, value);
    }
    element.append(...children.filter((child) => child !== null));
    return element;
  }

  function dot(color) {
    const element = make("span", {class: "dot", "aria-hidden": "true"});
    element.style.background = color;
    return element;
  }

  const listeners = [];
  const shared = {
    ...page, find, read, number, make, dot,
    engine: page.selected,
    onEngine: (call) => listeners.push(call),
    chooseEngine(index) {
      shared.engine = index;
      return Promise.all(listeners.map((call) => call(index)));
    },
  };
  return shared;
})();

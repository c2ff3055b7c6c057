// The layer table without its looks: which layers are shown, and in which order.
sdtrt.table = (() => {
  const {count, columns} = sdtrt.read("data-table");
  const byName = Object.fromEntries(columns.map((column) => [column.name, column]));
  const byKey = Object.fromEntries(columns.map((column) => [column.key, column]));
  const texts = columns.filter((column) => !column.number);
  const collator = new Intl.Collator(undefined, {numeric: true});
  const ranks = new Map();
  const state = {filter: "", kinds: new Set(), engine: null, only: null, sort: "time_ms", up: false};
  let haystack = null;
  let shown = [];

  // All texts of a layer in one string. A line break keeps a word from matching across two texts.
  function search(index) {
    haystack ??= Array.from({length: count}, (_, i) => texts.map((column) => column.values[i] ?? "").join("\n").toLowerCase());
    return haystack[index];
  }

  // One word of the filter as a test of a layer: "ms>0.1", "-word" or "word".
  function test(word) {
    const [, key, sign, limit] = /^([a-z]+)([<>]=?)(-?[\d.]+(?:e-?\d+)?)$/.exec(word) ?? [];
    const column = byKey[key];
    if (column?.number) {
      const value = Number(limit), values = column.values;
      const compare = {"<": (a) => a < value, ">": (a) => a > value, "<=": (a) => a <= value, ">=": (a) => a >= value}[sign];
      return (index) => values[index] !== null && compare(values[index]);
    }
    if (word.length > 1 && word.startsWith("-")) return (index) => !search(index).includes(word.slice(1));
    return (index) => search(index).includes(word);
  }

  // Places in the order of the texts, so that sorting compares numbers only.
  function sortable(column) {
    if (column.number) return column.values;
    if (!ranks.has(column.name)) {
      const distinct = [...new Set(column.values)].filter((value) => value !== null).sort(collator.compare);
      const place = new Map(distinct.map((value, index) => [value, index]));
      ranks.set(column.name, column.values.map((value) => place.get(value) ?? null));
    }
    return ranks.get(column.name);
  }

  function update(change = {}) {
    Object.assign(state, change);
    const tests = state.filter.toLowerCase().split(/\s+/).filter(Boolean).map(test);
    const kinds = byName.kind.values;
    const engine = state.engine === null ? {first: 0, count} : sdtrt.engines[state.engine];
    const found = [];
    for (let i = engine.first; i < engine.first + engine.count; i++) {
      if (state.kinds.has(kinds[i]) || (state.only && !state.only.has(i))) continue;
      if (tests.every((passes) => passes(i))) found.push(i);
    }
    const values = sortable(byName[state.sort]), sign = state.up ? 1 : -1;
    // Unknown values stay last in both directions; equal ones keep the engine's order.
    shown = found.sort((a, b) => {
      const x = values[a], y = values[b];
      if (x === null || y === null) return (x === null) - (y === null) || a - b;
      return sign * (x - y) || a - b;
    });
    return shown;
  }

  return {
    count, columns, byName, state, update,
    get shown() { return shown; },
    value: (name, index) => byName[name].values[index],
  };
})();

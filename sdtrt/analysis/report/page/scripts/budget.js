// "If the engine took 10 % less time": the image's time for a stage and a percentage that the reader chooses.
(() => {
  const {find, number} = sdtrt;
  const group = find("whatif");
  if (!group) return;
  const stage = find("whatif-stage"), percent = find("whatif-percent");
  const total = Number(group.dataset.total);

  function answer() {
    const after = total - (Number(stage.value) * Number(percent.value)) / 100;
    const saved = number(((total - after) / total) * 100);
    find("whatif-answer").textContent = `${percent.value} % less time, the ${group.dataset.whole} would take ${number(after, "ms")} (${saved} % less)`;
  }
  stage.addEventListener("change", answer);
  percent.addEventListener("input", answer);
  answer();
})();

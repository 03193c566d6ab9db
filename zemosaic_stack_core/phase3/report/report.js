(function () {
  // Charts: the numbers of the tile under the pointer.
  const charts = JSON.parse(document.getElementById("chart-data").textContent);
  const labels = charts.labels;
  const tip = document.getElementById("tip");
  document.querySelectorAll(".chart").forEach((chart, number) => {
    const field = chart.querySelector(".field");
    const mark = chart.querySelector(".mark");
    field.addEventListener("mousemove", (event) => {
      const box = field.getBoundingClientRect();
      const place = Math.floor(((event.clientX - box.left) / box.width) * labels.length);
      const index = Math.min(labels.length - 1, Math.max(0, place));
      const step = field.width.baseVal.value / labels.length;
      mark.setAttribute("x", field.x.baseVal.value + step * index);
      mark.style.opacity = 0.08;
      const lines = charts.charts[number].map(
        ([label, values]) => label + ": " + values[index] + " " + chart.dataset.unit
      );
      tip.textContent = [labels[index], ...lines].join("\n");
      tip.style.display = "block";
      tip.style.left = Math.min(event.clientX + 16, innerWidth - tip.offsetWidth - 10) + "px";
      tip.style.top = Math.min(event.clientY + 16, innerHeight - tip.offsetHeight - 10) + "px";
    });
    field.addEventListener("mouseleave", () => {
      tip.style.display = "none";
      mark.style.opacity = 0;
    });
  });

  // Tiles: shown by outcome and words, in an order.
  const grid = document.querySelector(".tiles");
  const tiles = Array.from(document.querySelectorAll(".tile"));
  const shown = document.getElementById("shown");
  let outcome = "";
  let words = "";
  function filter() {
    let visible = 0;
    tiles.forEach((tile) => {
      const isShown = (!outcome || tile.dataset.outcome === outcome) && tile.dataset.words.includes(words);
      tile.hidden = !isShown;
      visible += isShown;
    });
    shown.textContent = visible + " of " + tiles.length;
  }
  document.querySelectorAll("button[data-outcome]").forEach((button, _, all) => {
    button.addEventListener("click", () => {
      outcome = button.dataset.outcome;
      all.forEach((one) => one.setAttribute("aria-pressed", one === button));
      filter();
    });
  });
  document.getElementById("words").addEventListener("input", (event) => {
    words = event.target.value.toLowerCase();
    filter();
  });
  document.getElementById("order").addEventListener("change", (event) => {
    const key = event.target.value;
    const sign = key === "place" ? 1 : -1;
    tiles
      .slice()
      .sort((a, b) => sign * (a.dataset[key] - b.dataset[key]) || a.dataset.place - b.dataset.place)
      .forEach((tile) => grid.appendChild(tile));
  });
  filter();
  document.documentElement.dataset.ready = "yes";
})();

"use strict";
(() => {
  const specs = JSON.parse(document.getElementById("figures").textContent);
  const dark = matchMedia("(prefers-color-scheme: dark)");

  function theme() {
    const style = getComputedStyle(document.documentElement);
    const color = (name) => style.getPropertyValue(name).trim();
    const text = { labelColor: color("--soft"), titleColor: color("--ink") };
    return {
      background: "transparent",
      font: getComputedStyle(document.body).fontFamily,
      view: { stroke: color("--line") },
      axis: { ...text, domainColor: color("--line"), gridColor: color("--line"), tickColor: color("--line") },
      legend: text,
      header: text,
      title: { color: color("--ink"), subtitleColor: color("--soft") },
      text: { color: color("--ink") },
      rule: { color: color("--soft") },
      mark: { color: color("--accent") },
      range: {
        category: dark.matches
          ? ["#5cc8c0", "#f2b263", "#b79cf2", "#ff8a80", "#8fd16f", "#6fb1ff", "#e58fc3", "#c9c2b2"]
          : ["#0b6e6e", "#c2701c", "#6a4fb3", "#b3261e", "#4b8b2b", "#1f62b5", "#a83f83", "#6d675a"],
      },
    };
  }

  // A single view without a width of its own follows the width of the page.
  function fitted(spec) {
    const composed = ["facet", "hconcat", "vconcat", "concat", "repeat", "spec"].some((key) => key in spec);
    const faceted = ["row", "column", "facet"].some((key) => key in (spec.encoding || {}));
    const { usermeta, ...own } = spec; // could replace the options below
    if (composed || faceted || "width" in own) return own;
    return { ...own, width: "container", autosize: { type: "fit-x", contains: "padding" } };
  }

  async function draw() {
    for (const plot of document.querySelectorAll("[data-figure]")) {
      const options = {
        mode: "vega-lite",
        renderer: "svg",
        config: theme(),
        actions: { export: true, source: false, compiled: false, editor: false },
      };
      try {
        await vegaEmbed(plot, fitted(specs[Number(plot.dataset.figure)]), options);
      } catch (error) {
        plot.className = "plot failed";
        plot.textContent = `This figure cannot be drawn: ${error.message}`;
      }
    }
  }

  function sort(table, column, heading) {
    const ascending = heading.getAttribute("aria-sort") === "descending";
    const rows = [...table.tBodies[0].rows];
    const key = (row) => row.cells[column].dataset.sort;
    const compare = (a, b) => {
      const [x, y] = [key(a), key(b)];
      if (x !== undefined && y !== undefined) return Number(x) - Number(y);
      if (x !== undefined || y !== undefined) return x === undefined ? -1 : 1;
      return a.cells[column].textContent.localeCompare(b.cells[column].textContent);
    };
    rows.sort((a, b) => (ascending ? compare(a, b) : compare(b, a)));
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", ascending ? "ascending" : "descending");
    table.tBodies[0].append(...rows);
  }

  for (const table of document.querySelectorAll("table.sortable")) {
    [...table.tHead.rows[0].cells].forEach((heading, column) => {
      heading.firstElementChild.addEventListener("click", () => sort(table, column, heading));
    });
  }
  dark.addEventListener("change", draw);
  draw();
})();
